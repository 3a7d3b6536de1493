"""Scorers beside the text ones: latency, cost, embedding similarity, and several as one."""

import asyncio
import random

import pytest
from scripted_server import RST, answer, chunked, scripted
from simulated import simulated

from evalrunner.errors import ConfigError, PluginError, ScorerError
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.records import Cell, Completion, Model, Price, PriceTier, Request, Sample, Timing, Usage
from evalrunner.scorers.combine import combine
from evalrunner.scorers.embedding import AT_ONCE, CAP_S, PATIENCE_S, Endpoint, embedding
from evalrunner.scorers.service import cost, latency

PRICE = Price(currency="CNY", tiers=(PriceTier(input=2.0, output=6.0),))
STREAMED = Timing(started_ns=0, first_output_ns=300_000_000, last_output_ns=900_000_000, ended_ns=950_000_000)


def request(target=None, price=PRICE, **data):
    cell = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="x", price=price), params={}, stream=False)
    return Request(key="k", cell=cell, sample=Sample(id="1", data=data, hash="h"), trial=0, messages=[], target=target)


def completion(output="x", timing=STREAMED, **more):
    return Completion(output=output, finish_reason="stop", timing=timing, **more)


@pytest.mark.parametrize(
    ("options", "value"), [({"max_ms": 900}, 1), ({"max_ms": 899}, 0), ({"max_ms": 300, "metric": "ttft_ms"}, 1), ({"max_ms": 299, "metric": "ttft_ms"}, 0)]
)
def test_latency_is_service_time_against_a_limit(options, value):
    """latency: at most so many milliseconds, whole or to the first token; the reason tells the figure."""
    got = latency(**options)(request(), completion())
    assert got.value == value
    assert bool(got.why) == (not value)


def test_an_undefined_latency_is_no_score():
    """Time to first token does not exist without a stream: null, not 0."""
    with pytest.raises(ScorerError, match="ttft_ms is undefined"):
        latency(max_ms=1, metric="ttft_ms")(request(), completion(timing=Timing(started_ns=0, ended_ns=1)))


@pytest.mark.parametrize(("most", "value"), [(0.008, 1), (0.00799, 0)])
def test_cost_is_usage_times_price_against_a_limit(most, value):
    """cost: 1000 tokens in and 1000 out at 2 and 6 per million are 0.008."""
    got = cost(max=most, currency="CNY")(request(), completion(usage=Usage(prompt_tokens=1000, completion_tokens=1000)))
    assert got.value == value
    assert bool(got.why) == (not value)


@pytest.mark.parametrize(
    ("price", "usage", "currency", "why"),
    [(None, Usage(prompt_tokens=1, completion_tokens=1), None, "no price"), (PRICE, None, None, "unknown"), (PRICE, Usage(), "USD", "in CNY, not USD")],
)
def test_an_unknown_cost_is_no_score(price, usage, currency, why):
    """Without a price, usage, or in another currency, nobody can say: null with the reason."""
    with pytest.raises(ScorerError, match=why):
        cost(max=1, currency=currency)(request(price=price), completion(usage=usage))


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 0.5),
        ({"weights": [1, 3]}, 0.75),
        ({"how": "min"}, 0),
        ({"how": "max"}, 1),
    ],
)
async def test_several_scorers_are_one_score(options, value):
    """combine: the weighted mean, the least or the greatest, with every part's own reason."""
    got = await combine(scorers=["exact", {"numeric": {"tolerance": 1}}], **options)(request("18"), completion("It is 18."))
    assert got.value == value
    assert got.why == "exact 0 (expected '18'); numeric 1"


async def test_where_a_part_has_no_score_the_whole_has_none():
    """A missing part is missing data, never a 0; the reason names it."""
    scorer = combine(scorers=["includes", {"cost": {"max": 1}}])
    with pytest.raises(ScorerError, match=r"^cost: the model has no price$"):
        await scorer(request("x", price=None), completion("x", usage=Usage(prompt_tokens=1, completion_tokens=1)))


async def test_parts_may_wait_themselves():
    """A part that is asynchronous, another combination for one, counts like any other."""
    scorer = combine(scorers=[{"combine": {"scorers": ["exact", "includes"], "how": "max"}}, "exact"], how="min")
    assert (await scorer(request("x"), completion("x"))).value == 1


CONFIG = """name: c
models: [m]
prompt_sets:
  - name: s
    samples: [{q: 1}]
    prompts: {p: "{{ q }}"}
    target: "{{ q }}"
    scorers:
      - exact
      - combine:
          scorers:
            - exact
            - %s
          %s
"""


@pytest.mark.parametrize(
    ("inner", "more", "told"),
    [
        (
            "numeric: {tolerence: 1}",
            "how: min",
            ":13:25: prompt_sets[0].scorers[1].combine.scorers[1].numeric.tolerence: unknown option (hint: did you mean 'tolerance'?)",
        ),
        ("numeric: {tolerance: much}", "how: min", "scorers[1].numeric.tolerance: input should be a valid number"),
        ("regex: {pattern: '('}", "how: min", "combine.scorers[1]"),
        ("exakt", "how: min", "did you mean 'exact'"),
        ("includes", "weights: [1]", "should be 2 numbers"),
        ("includes", "{how: max, weights: [1, 1]}", "have no meaning for how: max"),
        ("includes", "how: median", "should be"),
        ("latency: {max_ms: 0}", "how: min", "greater than 0"),
        ("embedding: {model: e, base_url: 'https://x.test/v1', api_key: sk-1234}", "how: min", "must be a reference"),
        ("embedding: {model: e, base_url: 'https://x.test/v1', api_key: '${NOT_SET_ANYWHERE}'}", "how: min", "NOT_SET_ANYWHERE is not set"),
        ("embedding: {model: e, base_url: x.test}", "how: min", "must begin with http"),
    ],
)
def test_options_of_parts_are_checked_at_their_place(tmp_path, inner, more, told):
    """A wrong option of a scorer inside a combination is told at its own line and key before anything is sent, and a key is never repeated."""
    text = CONFIG % (inner, more)
    if more.startswith("{"):
        text = text.replace("          {how: max, weights: [1, 1]}", "          how: max\n          weights: [1, 1]")
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "c.yaml")
    [problem] = refused.value.problems
    assert told in problem
    assert "sk-1234" not in problem


def test_a_combination_of_nothing_or_of_unknown_parts_is_refused():
    """From Python, too, mistakes come when the scorer is made."""
    with pytest.raises(ValueError, match="is empty"):
        combine(scorers=[])
    with pytest.raises(PluginError, match="did you mean"):
        combine(scorers=["exat"])


async def test_embedding_is_the_cosine_at_any_openai_compatible_endpoint(monkeypatch):
    """embedding: 1 for the same words, less for fewer shared ones, 0 for none; with a threshold 1 or 0, and the figure as the reason."""
    monkeypatch.setenv("EMBEDDING_KEY", "sk-test")
    async with simulated() as there:
        where = {"model": "text-embedding-v4", "base_url": f"{there.base}/compatible-mode/v1", "api_key": "${EMBEDDING_KEY}"}
        scorer = embedding(**where)
        values = [(await scorer(request("the red house"), completion(text))).value for text in ("The red house!", "the red car", "quick brown fox", "")]
        assert values == pytest.approx([1, 2 / 3, 0, 0], abs=1e-6)
        got = await embedding(**where, threshold=0.6)(request("the red house"), completion("the red car"))
        assert (got.value, got.why) == (1, "similarity 0.667")
        assert (await embedding(**where, accept="also")(request("x", also=["红色的房子"]), completion("红色的房子"))).value == pytest.approx(1)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (answer({"error": {"message": "Incorrect API key provided: sk-very-secret"}}, 401), "HTTP 401: .*provided: …"),
        (answer("not JSON"), "one vector for each text"),
        (answer({"data": [{"index": 0, "embedding": [1.0]}]}), "one vector for each text"),
        (answer({"data": [{"index": 0, "embedding": [1, 0]}, {"index": 1, "embedding": [1]}]}), "one vector for each text"),
        (answer({"data": [{"index": 0, "embedding": [0, 0]}, {"index": 1, "embedding": [1, 0]}]}), "all zeros"),
    ],
)
async def test_an_embedding_that_fails_is_a_null_score_without_the_key(monkeypatch, reply, why):
    """Whatever the endpoint does, the score is null with the reason, and the key is not in it."""
    monkeypatch.setenv("EMBEDDING_KEY", "sk-very-secret")
    async with scripted(reply) as server:
        with pytest.raises(ScorerError, match=why) as failed:
            await embedding(model="e", base_url=server.url, api_key="${EMBEDDING_KEY}")(request("a"), completion("b"))
    assert "sk-very-secret" not in str(failed.value)


class Ticking:
    """A clock that sleeps at once, and adds it up."""

    def __init__(self):
        self.slept = []

    def now_ns(self):
        return int(sum(self.slept) * 1e9) + 1

    def wall_us(self, ns):
        return ns // 1000

    async def sleep(self, seconds):
        self.slept.append(seconds)


def vectors(*rows):
    return answer({"data": [{"index": number, "embedding": row} for number, row in enumerate(rows)]})


def endpoint(url, clock, seconds=5):
    return Endpoint(f"{url}/embeddings", "e", None, seconds, clock, random.Random(1))


async def test_an_embedding_that_trickles_is_cut_off_and_asked_for_again():
    """`seconds` is for the whole answer: a byte now and then does not prolong it."""
    clock = Ticking()
    async with scripted(chunked(*[step for _ in range(200) for step in (b" ", 0.02)]), vectors([1, 0], [0, 1])) as server:
        assert [list(one) for one in await endpoint(server.url, clock, seconds=0.2).vectors(["a", "b"])] == [[1, 0], [0, 1]]
    assert len(clock.slept) == 1


async def test_an_endpoint_that_is_not_there_is_a_null_score_after_a_while():
    """No connection, no score; the endpoint is asked for two minutes before the first answer goes without, and the next ones do not wait again."""
    clock = Ticking()
    nowhere = endpoint("http://127.0.0.1:1/v1", clock)
    with pytest.raises(ScorerError, match=r"no embedding: ConnectError: .*\(asked \d+ times\)"):
        await nowhere.vectors(["a", "b"])
    assert PATIENCE_S - CAP_S < sum(clock.slept) <= PATIENCE_S
    with pytest.raises(ScorerError, match="no embedding: ConnectError"):
        await nowhere.vectors(["a", "b"])
    assert sum(clock.slept) <= PATIENCE_S


async def test_what_can_be_asked_again_is_asked_again():
    """A 429 (after the time it names), a 5xx and a broken connection cost time and no score."""
    clock = Ticking()
    busy = [answer("{}", 429, {"retry-after": "7"}), answer("{}", 503), [RST], vectors([1, 0], [0, 1])]
    async with scripted(*busy) as server:
        assert [list(one) for one in await endpoint(server.url, clock).vectors(["a", "b"])] == [[1, 0], [0, 1]]
    assert clock.slept[0] == 7
    assert len(clock.slept) == 3


async def test_what_is_refused_is_not_asked_again():
    """A wrong key or model stays wrong, and a wait longer than the patience is not waited for."""
    for reply in (answer("{}", 400), answer("{}", 429, {"retry-after": "3600"})):
        clock = Ticking()
        async with scripted(reply) as server:
            with pytest.raises(ScorerError, match="HTTP 4"):
                await endpoint(server.url, clock).vectors(["a", "b"])
        assert clock.slept == []


async def test_a_target_is_embedded_once_and_many_in_batches():
    """The same target is not asked for in every cell and trial; what the service takes at most is sent at once."""
    sizes = []

    def reply(received):
        sizes.append(len(received.json["input"]))
        return vectors(*([1.0, float(len(text))] for text in received.json["input"]))

    async with scripted(reply, repeat=True) as server:
        asked = endpoint(server.url, Ticking())
        assert [list(one) for one in await asked.vectors(["a", "bb"])] == [[1, 1], [1, 2]]
        assert [list(one) for one in await asked.vectors(["aaa", "bb"])] == [[1, 3], [1, 2]]
        await asked.vectors([str(number) for number in range(23)])
    assert sizes == [2, 1, 10, 10, 3]


async def test_no_more_than_a_few_requests_are_under_way_at_once():
    """However many answers come, the endpoint sees at most eight of them at a time."""
    go, finished, most = asyncio.Event(), 0, 0

    def reply(_):
        nonlocal most
        most = max(most, len(server.requests) - finished)
        return [go, *vectors([1, 0], [1, 0])]

    async def asking(number):
        nonlocal finished
        await asked.vectors([str(number), f"target {number}"])
        finished += 1

    async with scripted(reply, repeat=True) as server:
        asked = endpoint(server.url, Ticking())
        tasks = [asyncio.create_task(asking(number)) for number in range(30)]
        await server.received(AT_ONCE)
        go.set()
        await asyncio.gather(*tasks)
    assert most == AT_ONCE


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "text-embedding-v4", "input": "one text", "dimensions": 8}, 200),
        ({"model": "qwen-turbo", "input": "x"}, 404),
        ({"model": "text-embedding-v4", "input": [""]}, 400),
        ({"model": "text-embedding-v4", "input": "x", "dimensions": 0}, 400),
    ],
)
async def test_the_simulator_embeds_what_the_service_would(body, status):
    """A text alone or a list of them, with the dimensions asked for; other models and empty texts are refused."""
    async with simulated() as there:
        got = await there.post("/compatible-mode/v1/embeddings", body)
    assert got.status == status
    if status == 200:
        assert [len(one["embedding"]) for one in got.json["data"]] == [8]


def test_the_key_of_a_scorer_is_a_secret_of_the_run(monkeypatch, tmp_path):
    """What stands behind a reference in a scorer's options is masked in whatever the run writes; the manifest has the reference."""
    monkeypatch.setenv("EMBEDDING_KEY", "sk-very-secret")
    (tmp_path / "c.yaml").write_text(CONFIG % ("embedding: {model: e, base_url: 'https://x.test/v1', api_key: '${EMBEDDING_KEY}'}", "how: min"))
    plan = make_plan(load_config(tmp_path / "c.yaml"))
    assert "sk-very-secret" in plan.secrets()
    assert "${EMBEDDING_KEY}" in str(plan.describe())
    assert "sk-very-secret" not in str(plan.describe())


def test_a_part_that_compares_needs_a_target(tmp_path):
    """Without a target every answer would be paid for and the whole scored null: told at the part's place."""
    (tmp_path / "c.yaml").write_text(
        (CONFIG % ("includes", "how: min")).replace('    target: "{{ q }}"\n', "").replace("      - exact\n      - combine", "      - combine")
    )
    with pytest.raises(ConfigError, match="compares with the target") as refused:
        load_config(tmp_path / "c.yaml")
    assert "prompt_sets[0].scorers[0].combine.scorers[1]: includes compares with the target, and there is none (hint: add target:)" in str(refused.value)
