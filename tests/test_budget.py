"""Nothing is sent past a budget: worst cases are reserved, answers settled, and a run that stops at its budget goes on with a higher one."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_runner import World, script_of

from evalrunner import errors
from evalrunner.cli import main
from evalrunner.cost.catalogue import CACHE_WRITE, cost
from evalrunner.cost.models import lookup
from evalrunner.engine.budget import MOST_THOUGHT, UNKNOWN_OUTPUT, Budget, WorstCase, owed
from evalrunner.errors import BudgetError, ConfigError
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.records import Cell, Limits, Model, Price, PriceTier, Request, Sample, Usage
from evalrunner.results import open_run

PRICE = Price(currency="CNY", tiers=(PriceTier(input=1.0, output=10.0),))


def request(model_id="mine", text="What is 2 + 2?", price=PRICE, **params):
    cell = Cell(prompt_set="s", prompt="p", model=Model(name=model_id, id=model_id, provider="acc", price=price), params=params, stream=False)
    return Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[{"role": "user", "content": text}])


def worst(asked):
    return WorstCase(asked.cell.model).of(asked)


@given(
    cap=st.floats(0, 100),
    spent=st.floats(0, 50),
    steps=st.lists(st.tuples(st.floats(0, 20), st.one_of(st.none(), st.floats(0, 1)), st.integers(0, 5)), max_size=60),
)
def test_whatever_happens_the_spend_stays_within_the_cap(cap, spent, steps):
    """Any requests, any answers (half of them without a price), in any order: what was spent and what may have been never passes the budget."""
    assume(spent <= cap)
    budget, open_ones = Budget(cost=cap, currency="CNY", spent=spent), []
    for reserved, share, settle in steps:
        try:
            if budget.reserve(reserved):
                open_ones.append((reserved, None if share is None else share * reserved))
        except BudgetError:
            assert not open_ones
        for _ in range(min(settle, len(open_ones))):
            budget.settle(*open_ones.pop(0))
        assert budget.spent + budget.kept <= cap + 1e-6


@given(limit=st.integers(1, 20), before=st.integers(0, 30), tries=st.integers(0, 50))
def test_requests_are_counted_from_the_first_session_on(limit, before, tries):
    """Never more HTTP requests than the budget has, those of earlier sessions included; answers do not give any back."""
    budget, sent = Budget(requests=limit, sent=before), 0
    for _ in range(tries):
        try:
            assert budget.reserve(0.0)
        except BudgetError:
            break
        sent += 1
        budget.settle(0.0, 0.1)
    assert sent == min(tries, max(0, limit - before))


tiers = st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 50), st.floats(0, 50), st.floats(0, 99) | st.none()), max_size=3)


@given(
    tiers=tiers,
    text=st.text(max_size=300),
    used=st.floats(0, 1),
    caches=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    params=st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 4000), "thinking_budget": st.integers(1, 4000)}),
    model_id=st.sampled_from(["mine", "qwen-plus", "qwq-plus", "qwen3.8-max"]),
)
def test_no_answer_costs_more_than_its_worst_case(tiers, text, used, caches, params, model_id):
    """Whatever the tiers of a price, the caches and the thinking, an answer within its documented caps costs no more than was reserved."""
    ends = sorted({end for end, *_ in tiers})
    priced = [PriceTier(up_to=end, input=a, output=b, thinking=c) for end, (_, a, b, c) in zip(ends, tiers, strict=False)]
    price = Price(currency="CNY", tiers=(*priced, PriceTier(input=2.0, output=6.0)))
    asked = request(model_id, text, price, **params)
    prompt = int(used * (len(text.encode("utf-8", "replace")) + 50))
    reads = int(caches[0] * prompt)
    facts = lookup(model_id) if model_id in {"qwq-plus", "qwen3.8-max"} else None  # those that think unasked
    thought = params.get("thinking_budget", min(MOST_THOUGHT, facts.context)) if facts else 0
    said = int(used * (params.get("max_tokens", UNKNOWN_OUTPUT) + thought))
    usage = Usage(prompt_tokens=prompt, completion_tokens=said, cached_tokens=reads, cache_write_tokens=int(caches[1] * (prompt - reads)))
    for thinking in (True, False):
        assert cost(usage, price, thought=thinking) <= worst(asked) * (1 + 1e-9)


def test_a_document_is_reserved_in_full(tmp_path):
    """Plain text has at most a token for each byte; a PDF may have as many as the model can read, so that no document takes a run past its budget."""

    def prompt_tokens(name):
        (tmp_path / name).write_bytes(b"x" * 300_000)
        parts = [{"file": name, "sha256": "h"}, {"text": "What does it say?"}]
        with_it = replace(request("qwen-long", parts, max_tokens=1), media={"h": str(tmp_path / name)})
        return round((worst(with_it) - worst(request("qwen-long", "What does it say?", max_tokens=1))) * 1e6)

    assert prompt_tokens("report.txt") == pytest.approx(300_000 * CACHE_WRITE)
    assert prompt_tokens("report.pdf") == pytest.approx(10_000_000 * CACHE_WRITE, rel=1e-3)


def test_the_output_is_bounded_by_the_narrowest_cap_there_is():
    """`max_completion_tokens` caps everything; `max_tokens` the answer; `thinking_budget` the thoughts; else the model's own limits, else what it has said."""

    def output(asked):
        return round((worst(asked) - worst(request(asked.cell.model.id, max_completion_tokens=1)) + 11 * 10 / 1e6) * 1e6 / 10)

    assert output(request(max_tokens=50)) == 50
    assert output(request("qwen3.8-max", max_completion_tokens=300)) == 310
    assert output(request("qwen3.8-max", max_tokens=50, thinking_budget=100)) == 150
    assert output(request("qwen3.8-max", max_tokens=50, enable_thinking=False)) == 50
    assert output(request("qwen3.8-max", max_tokens=50)) == 50 + MOST_THOUGHT
    assert output(request("qwen3.8-max", enable_thinking=False)) == 131_072
    assert output(request("mine")) == UNKNOWN_OUTPUT
    case = WorstCase(request("mine").cell.model)
    case.learn(Usage(prompt_tokens=1, completion_tokens=50_000))
    assert case.of(request("mine")) == pytest.approx(worst(request("mine", max_tokens=100_000)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.RateLimitedError("slow down"), 0.0),
        (errors.ServerError("oops", http_status=503), 0.0),
        (errors.AuthError("bad key"), 0.0),
        (errors.FilteredError("no", http_status=400), 0.0),
        (errors.TransportError("refused", phase="connect"), 0.0),
        (errors.TransportError("reset", phase="stream"), None),
        (errors.DeadlineError("total", phase="total"), None),
        (errors.BrokenStreamError("cut", http_status=200), None),
    ],
)
def test_a_refusal_is_free_and_a_broken_answer_may_not_be(error, expected):
    """What the provider turned away costs nothing; an answer that broke off may be billed, so its reservation stays."""
    assert owed(error) == expected


USAGE = Usage(prompt_tokens=100, completion_tokens=10, total_tokens=110)  # CNY 0.0002 at PRICE


async def test_a_run_stops_at_its_budget_and_not_before():
    """Near the cap it sends one at a time as long as that fits; then it stops, every answer it paid for in its row."""
    world = World()
    client = world.lane(100, limits=Limits(concurrency=8), params={"max_tokens": 50})
    each, most = 0.0002, worst(request(text="question 99", max_tokens=50))
    budget = Budget(cost=5e-3, currency="CNY")
    end = await world.run(budget=budget)
    assert end.reason == "budget"
    assert "CNY" in end.shortfall
    assert "the next request could cost up to" in end.shortfall
    assert budget.spent == pytest.approx(sum(record.cost for record in world.records))
    assert 5e-3 - most < budget.spent <= 5e-3
    assert len(client.sent) == len(world.records) == round(budget.spent / each)


async def test_retries_count_as_requests():
    """A budget of ten requests: ten are sent, whether they were answered or not."""
    world = World()
    client = world.lane(20, script_of(errors.ServerError("oops")), limits=Limits(concurrency=1))
    end = await world.run(budget=Budget(requests=10))
    assert end.reason == "budget"
    assert "10 requests were sent, of 10" in end.shortfall
    assert len(client.sent) == 10


async def test_answers_without_usage_use_up_their_worst_case():
    """Nobody knows what they cost: the row says null, the budget assumes the worst."""
    world = World()
    client = world.lane(100, usage=None, params={"max_tokens": 50}, limits=Limits(concurrency=1))
    budget = Budget(cost=5e-3, currency="CNY")
    end = await world.run(budget=budget)
    assert end.reason == "budget"
    assert {record.cost for record in world.records} == {None}
    assert budget.spent == 0
    assert 5e-3 - worst(request(text="question 99", max_tokens=50)) < budget.kept <= 5e-3
    assert len(client.sent) < 10


async def test_a_revoked_key_is_still_asked_about_once_more_near_the_cap():
    """Requests that wait for room while an account is in doubt wait for nobody who waits for them."""
    world = World()
    world.lane(20, lambda request, call, n: errors.AuthError("revoked") if call > 3 else None, limits=Limits(concurrency=4), params={"max_tokens": 50})
    end = await world.run(budget=Budget(cost=2 * worst(request(text="question 99", max_tokens=50)), currency="CNY"))
    assert end.nobody_left or end.reason == "budget"


CONFIG = """
name: study
providers:
  simulator: {kind: simulator, limits: {concurrency: 4}, options: {brain: echo, limits: false, latency: 0, seed: 1}}
models:
  - {id: qwen-plus, provider: simulator, price: {input: 1000, output: 1000, currency: CNY}}
grid: {max_tokens: 20}
stream: false
trials: 20
prompt_sets:
  - name: words
    samples: [{word: red}, {word: green}]
    prompts: {plain: "{{ word }}"}
"""


def written(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("budget", "models", "said"),
    [
        ("{cost: 5}", "[{id: a, provider: local}, qwen-plus]", "8:16: budget.cost: needs the price of every model, and that of a is not known"),
        ("{cost: 5, currency: USD}", "[qwen-plus]", "8:29: budget.currency: is USD, and currencies are never mixed: qwen-plus (CNY)"),
        ("{cost: 5}", "[qwen-plus, {id: b, price: {input: 1, output: 1, currency: USD}}]", "budget.currency: is CNY, and currencies are never mixed: b (USD)"),
        ("{currency: CNY}", "[qwen-plus]", "budget: needs cost, requests, or both"),
    ],
)
def test_a_budget_that_could_not_be_kept_is_refused(tmp_path, budget, models, said):
    """No price, or another currency: the config is refused before anything is sent, naming the models."""
    samples = "prompt_sets:\n  - name: s\n    samples: [{a: 1}]\n    prompts: {p: x}\n"
    path = written(tmp_path, f"name: demo\n\n{samples}models: {models}\nbudget: {budget}\n")
    with pytest.raises(ConfigError) as caught:
        make_plan(load_config(path))
    assert said in str(caught.value)


def test_the_budgets_currency_is_that_of_the_prices(tmp_path):
    """Where all prices have one currency nobody needs to say it."""
    plan = make_plan(load_config(written(tmp_path, CONFIG + "budget: {cost: 1}\n")))
    assert plan.describe()["budget"] == {"cost": 1, "currency": "CNY"}


def test_a_stopped_run_goes_on_with_a_higher_budget_and_buys_nothing_twice(tmp_path, monkeypatch, capsys):
    """Exit 3 with the command that goes on; an unchanged budget sends nothing; a higher one completes the run, and the sum of both stays within it."""
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, CONFIG)
    run = tmp_path / "run"
    assert main(["run", str(config), "--out", str(run), "--max-cost", "0.5"]) == 3
    said = capsys.readouterr().err
    assert f"evalrunner resume {run} --max-cost X" in said
    assert "the next request could cost up to" in said
    first = open_run(run).results()
    assert 0 < len(first) < 40
    assert first["cost"].sum() <= 0.5
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["state"] == "interrupted"
    assert manifest["plan"]["budget"] == {"cost": 0.5, "currency": "CNY"}

    assert main(["resume", str(run)]) == 3
    assert len(open_run(run).results()) == len(first)

    assert main(["resume", str(run), "--max-cost", "5"]) == 0
    last = open_run(run)
    assert len(last.results()) == 40
    assert last.results()["cost"].sum() <= 5
    assert len(last.attempts()) == last.attempts()["key"].nunique() == 40
    assert last.manifest["plan"]["budget"]["cost"] == 5


def test_a_run_stopped_by_its_number_of_requests_goes_on_too(tmp_path, monkeypatch, capsys):
    """`budget.requests` is the same promise in requests; whoever watches sees how much of it is used up, earlier sessions included."""
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, CONFIG + "budget: {requests: 15}\n")
    assert main(["run", str(config), "--out", "run"]) == 3
    assert "resume run --max-requests N" in capsys.readouterr().err
    assert len(open_run("run").attempts()) == 15
    assert main(["resume", "run", "--max-requests", "40"]) == 0
    assert "40 of 40 requests sent" in capsys.readouterr().err
    assert len(open_run("run").attempts()) == 40


def test_what_no_row_tells_of_is_still_spent_after_a_resume(tmp_path, monkeypatch):
    """Answers without usage cost nobody knows what: the budget that assumed the worst does not forget it overnight."""
    monkeypatch.chdir(tmp_path)
    faults = "faults: [{kind: no_usage}]"
    config = written(tmp_path, CONFIG.replace("seed: 1}", f"seed: 1, {faults}}}"))
    assert main(["run", str(config), "--out", "run", "--max-cost", "1"]) == 3
    first = len(open_run("run").results())
    assert first
    assert open_run("run").manifest["unrecorded"]["cost"] > 0.5
    assert main(["resume", "run"]) == 3
    assert len(open_run("run").results()) == first
    assert main(["resume", "run", "--max-cost", "2"]) == 3
    assert first < len(open_run("run").results()) <= 2 * first + 1
