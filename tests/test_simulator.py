import asyncio
import re
from pathlib import Path
from typing import get_args

import aiohttp
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import CHAT, simulated

from evalrunner.cost.models import ModelFacts
from evalrunner.simulator.app import parse_settings, serve
from evalrunner.simulator.calls import Refusal
from evalrunner.simulator.faults import FaultKind
from evalrunner.simulator.limits import Limit, Limiter, Window

SCHOOL = {"role": "system", "content": "You are a helpful assistant."}


async def test_an_answer_has_the_documented_shape():
    """choices, object, usage, created, system_fingerprint, model and an id that is the request id of the headers."""
    async with simulated() as it:
        answered = await it.chat("What is 17 + 25? Answer with the number only.")
    body = answered.json
    assert answered.status == 200
    assert body["choices"] == [{"message": {"role": "assistant", "content": "42"}, "finish_reason": "stop", "index": 0, "logprobs": None}]
    assert (body["object"], body["model"], body["system_fingerprint"]) == ("chat.completion", "qwen-turbo", None)
    assert body["id"] == "chatcmpl-" + answered.headers["x-request-id"]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


async def test_a_stream_opens_with_the_role_and_ends_with_usage_and_done():
    """Role-only chunk, output chunks of several tokens, finish chunk, usage chunk with empty choices, [DONE]: and the same answer as without a stream."""
    async with simulated() as it:
        whole = await it.chat("Tell me the story of the fox and the grapes")
        streamed = await it.chat("Tell me the story of the fox and the grapes", stream=True, stream_options={"include_usage": True})
        bare = await it.chat("Tell me the story of the fox and the grapes", stream=True)
    first, *output, finish, usage = streamed.events
    assert first["choices"][0] == {"delta": {"content": "", "role": "assistant"}, "index": 0, "logprobs": None, "finish_reason": None}
    assert len(output) > 1
    assert all(chunk["choices"][0]["delta"]["content"] and chunk["usage"] is None for chunk in output)
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({"content": ""}, "stop")
    assert usage["choices"] == []
    assert usage["usage"] == whole.json["usage"]
    assert streamed.text == whole.text == bare.text
    assert streamed.raw.endswith(b"data: [DONE]\n\n")
    assert len(bare.events) == len(streamed.events) - 1, "usage is sent only to those who ask"
    assert streamed.headers["content-type"] == "text/event-stream;charset=UTF-8"


async def test_the_same_request_gets_the_same_answer_whenever_it_comes():
    """Answers, tokens and latencies depend on seed and content, not on the order of arrival; another seed answers differently."""
    questions = [f"What is {number} + {number + 3}?" for number in range(60)]

    async def answers(seed, order):
        async with simulated(accuracy=0.5, seed=seed, limits=False) as it:
            found = {question: (await it.chat(question)).json for question in order}
        return [(found[question]["choices"], found[question]["usage"]) for question in questions]

    first, second, other = await answers(1, questions), await answers(1, questions[::-1]), await answers(2, questions)
    assert first == second
    assert first != other


async def test_a_trials_seed_draws_anew_and_no_seed_never_does():
    """Repeats of a question differ only where the request's seed does, as on the service, whose default seed is fixed."""
    async with simulated(accuracy=0.5, correlation={"question": 0, "model": 0}, limits=False) as it:
        fixed = {(await it.chat()).text for _ in range(10)}
        drawn = [(await it.chat(seed=1000 + trial)).text == "42" for trial in range(40)]
    assert len(fixed) == 1
    assert 5 < sum(drawn) < 35


async def test_accuracy_is_kept_and_difficulty_is_shared_between_models():
    """Each model is right as often as it is told, and models fail on the same questions more often than chance would have it."""
    questions = [f"What is {left} + {right}?" for left in range(20, 40) for right in range(1, 26)]
    async with simulated(accuracy={"qwen-turbo": 0.7, "qwen-plus": 0.9}, limits=False) as it:
        turbo, plus = [
            [int((await it.chat(question, model)).text) == sum(map(int, question[8:-1].split(" + "))) for question in questions]
            for model in ("qwen-turbo", "qwen-plus")
        ]
        stats = (await it.get("/simulator/stats")).json
    assert sum(turbo) / 500 == pytest.approx(0.7, abs=0.07)
    assert sum(plus) / 500 == pytest.approx(0.9, abs=0.05)
    both_wrong = sum(not one and not other for one, other in zip(turbo, plus, strict=True)) / 500
    assert both_wrong > 1.5 * (1 - sum(turbo) / 500) * (1 - sum(plus) / 500)
    assert stats["right"] == {"qwen-turbo": sum(turbo), "qwen-plus": sum(plus)}, "the truth behind a report"


async def test_a_wording_can_be_made_better_or_worse():
    """`effects` rehearse a prompt regression: a phrase in the prompt changes the accuracy, and how much is said."""
    effects = [{"contains": "carefully", "accuracy": -1.0}, {"contains": "step by step", "words": 12}]
    async with simulated(effects=effects) as it:
        plain, worse, longer = await it.chat(), await it.chat("What is 17 + 25? Think carefully."), await it.chat("What is 17 + 25? Go step by step.")
    assert plain.text == "42"
    assert worse.text != "42"
    assert longer.text.endswith("\n42")
    assert longer.json["usage"]["completion_tokens"] > 10


async def test_an_answer_stops_at_max_tokens_and_at_a_stop_string():
    """`length` where the limit cuts, with no more tokens than asked for; a stop string ends the answer without appearing in it."""
    async with simulated() as it:
        cut = (await it.chat("one two three four five six seven", max_tokens=3)).json
        stopped = (await it.chat("say alpha beta gamma", stop=["beta"])).json
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] <= 3
    assert stopped["choices"][0]["message"]["content"] == "say alpha "
    assert stopped["choices"][0]["finish_reason"] == "stop"


async def test_latency_is_real_and_seeded():
    """The first token comes after ttft_ms, later ones at per_token_ms; the role-only chunk comes before any of them."""
    loop = asyncio.get_running_loop()
    async with (
        simulated(latency={"qwen-turbo": {"ttft_ms": 60, "per_token_ms": 4}}) as it,
        it.session.post(
            it.base + CHAT,
            json={"model": "qwen-turbo", "stream": True, "messages": [{"role": "user", "content": "a b c d e f g h i j k l m n o p q r s t"}]},
            headers={"Authorization": "Bearer x"},
        ) as response,
    ):
        began = loop.time()
        reads = [(loop.time() - began, part) async for part in response.content.iter_any()]
    assert b"assistant" in reads[0][1]
    assert b'"a b' not in reads[0][1]
    assert reads[1][0] >= 0.02
    assert reads[-1][0] - reads[1][0] >= 0.05
    assert len(reads) >= 4


async def test_thinking_is_streamed_apart_and_counted():
    """Thoughts come before the answer in `reasoning_content`, and are part of completion_tokens."""
    async with simulated() as it:
        streamed = await it.chat(model="qwen-plus", enable_thinking=True, stream=True, stream_options={"include_usage": True})
        whole = (await it.chat(model="qwen-plus", enable_thinking=True)).json
        short = (await it.chat(model="qwen-plus", enable_thinking=True, thinking_budget=5)).json
        effort = [(await it.chat(model="qwen3.8-max", reasoning_effort=one)).json["usage"]["completion_tokens"] for one in ("low", "xhigh", "none")]
    first, *thoughts = [event["choices"][0]["delta"] for event in streamed.events[:-1]]
    assert first == {"content": None, "role": "assistant", "reasoning_content": ""}
    assert "".join(delta["reasoning_content"] or "" for delta in thoughts) == whole["choices"][0]["message"]["reasoning_content"]
    assert streamed.text == whole["choices"][0]["message"]["content"] == "42"
    usage = whole["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] + 2 == usage["completion_tokens"]
    assert short["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5
    assert effort[0] < effort[1] > effort[2] == 2


async def test_json_mode_answers_in_json():
    """json_object gives an object, json_schema one that fits the schema."""
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}, "unit": {"type": "string"}}, "required": ["sum", "unit"]}
    async with simulated() as it:
        free = await it.chat("What is 17 + 25? Reply in JSON.", response_format={"type": "json_object"})
        fitting = await it.chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert free.text == '{"answer":"42"}'
    assert fitting.text == '{"sum":42,"unit":"42"}'


async def test_several_choices_share_one_prompt():
    """n answers are billed with one input; logprobs come when asked for."""
    async with simulated() as it:
        one, three = (await it.chat(n=1, logprobs=True, top_logprobs=2)).json, (await it.chat(n=3)).json
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert three["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]
    assert [len(token["top_logprobs"]) for token in one["choices"][0]["logprobs"]["content"]] == [2, 2]


async def test_rates_are_enforced_per_model_without_a_hint_when_to_return():
    """Requests past the window get limit_requests, tokens past it insufficient_quota, both 429 without Retry-After; other models go on."""
    async with simulated(limits={"qwen-turbo": {"rpm": 2}, "qwen-plus": {"tpm": 60}}) as it:
        turbo = [await it.chat() for _ in range(3)]
        plus = [await it.chat(model="qwen-plus") for _ in range(4)]
        free = await it.chat(model="qwen-max")
    assert [answered.status for answered in turbo] == [200, 200, 429]
    assert turbo[2].json["error"]["code"] == "limit_requests"
    assert "retry-after" not in turbo[2].headers
    assert plus[-1].json["error"]["code"] == "insufficient_quota"
    assert free.status == 200


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=80), st.integers(5, 20), st.floats(0.5, 5))
def test_a_window_never_lets_more_through_than_its_cap(arrivals, cap, seconds):
    """In any stretch of the window's length, what was admitted stays within the cap."""
    window, now, admitted = Window(cap, seconds), 0.0, []
    for gap, amount in arrivals:
        now += gap
        if window.has_room(amount, now):
            window.add(amount, now)
            admitted.append((now, amount))
    for start, _ in admitted:
        assert sum(amount for at, amount in admitted if start <= at < start + seconds) <= cap


async def test_a_sudden_burst_is_refused_and_a_ramp_is_not():
    """`burst` refuses growth, not volume: a rate that doubles each second passes, the same rate out of the blue does not."""
    now = [0.0]
    limiter, facts = Limiter({"*": Limit(burst=10)}, lambda: now[0]), ModelFacts(id="m")
    for rate in (8, 16, 32):
        for number in range(rate):
            now[0] += 1 / rate
            await limiter.admit("m", facts, number)
    now[0] += 10
    for _ in range(10):
        await limiter.admit("m", facts, 1)
    with pytest.raises(Refusal, match="increased too quickly"):
        await limiter.admit("m", facts, 1)


async def test_a_call_may_wait_instead_of_being_refused_for_a_burst():
    """X-DashScope-Wait-Timeout queues a call that comes too suddenly, as long as it says."""
    now = [0.0]

    async def sleep(seconds):
        now[0] += seconds

    limiter, facts = Limiter({"m": Limit(burst=1)}, lambda: now[0], sleep), ModelFacts(id="m")
    await limiter.admit("m", facts, 1)
    with pytest.raises(Refusal):
        await limiter.admit("m", facts, 1, wait_s=0.3)
    await limiter.admit("m", facts, 1, wait_s=5)
    assert 1 <= now[0] < 1.2
    async with simulated(limits={"qwen-turbo": {"burst": 1}}) as it:
        body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "Hi"}]}
        assert [(await it.post(CHAT, body, X_DashScope_Wait_Timeout="0")).status for _ in range(2)] == [200, 429]


async def test_the_catalogues_windows_hold_unless_they_are_switched_off():
    """Without options, a model has the limits the service was seen to enforce."""
    async with simulated() as limited, simulated(limits=False) as free:
        limited_statuses = [(await limited.chat(model="qwen-long")).status for _ in range(25)]
        free_statuses = [(await free.chat(model="qwen-long")).status for _ in range(25)]
    assert 429 in limited_statuses
    assert set(free_statuses) == {200}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acuracy": 1}, r"acuracy: there is no such option \(did you mean 'accuracy'\?\)"),
        ({"faults": [{"kind": "eror"}]}, r"faults\[0\].kind: invalid enum value 'eror'"),
        ({"faults": [{"kind": "error", "shar": 1}]}, r"faults\[0\].shar: there is no such option \(did you mean 'share'\?\)"),
        ({"latency": {"ttft": 3}}, r"latency.\*.ttft: there is no such option \(did you mean 'ttft_ms'\?\)"),
        ({"latency": {"qwen-max": {"ttft_ms": "x"}}}, "latency.qwen-max.ttft_ms: expected `float`, got `str`"),
        ({"accuracy": {"a": 2}}, "accuracy.a: 2.0 is not between 0 and 1"),
        ({"brain": "lokup"}, r"brain: 'lokup' is none of .* \(did you mean 'lookup'\?\)"),
        ({"brain": "lookup"}, "brain: lookup needs `answers`"),
        ({"answers": "nowhere.jsonl"}, "answers: nowhere.jsonl cannot be read"),
        ({"answers": [{"x": 1}]}, "answers: .*say which column is the question"),
        ({"answers": {"data": [{"x": 1}], "question": "y"}}, "answers: .* has no column 'y'"),
        ({"answers": "a.xml"}, "answers: a.xml is none of"),
        ({"answers": 5}, "answers: int is neither"),
        ({"limits": {"qwen-max": {"rpmm": 3}}}, r"limits.qwen-max.rpmm: there is no such option \(did you mean 'rpm'\?\)"),
        ({"seed": "x"}, "seed: expected `int`, got `str`"),
        ({"chunk_tokens": 0}, "chunk_tokens: 0 is too small"),
        ({"correlation": {"question": 0.9, "model": 0.9}}, "correlation: question and model are parts of 1"),
    ],
)
def test_a_wrong_option_is_named_with_the_one_that_was_meant(options, message):
    """Nobody has to read the source to find a spelling mistake."""
    with pytest.raises(ValueError, match=message):
        parse_settings(options)


def test_short_forms_mean_all_models():
    """One number or one mapping stands for every model; what belongs to the client is let through."""
    short = parse_settings({"accuracy": 0.5, "latency": 20, "limits": {"rpm": 3}, "transport": "httpx", "headers": {}, "brain": {"lookup": [["q", "a"]]}})
    assert short.accuracy == {"*": 0.5}
    assert short.latency["*"].ttft_ms == 20
    assert short.limits["*"].rpm == 3
    assert (short.brain, short.answers) == ("lookup", (("q", "a"),))


async def test_a_simulator_can_stand_before_a_real_model():
    """`brain: http://…/v1` lets another server answer, while limits, faults, shapes and token counts stay the simulator's."""
    async with simulated(limits=False) as real, simulated(brain=f"{real.base}/compatible-mode/v1", api_key=None) as gone_wrong:
        refused = await gone_wrong.chat()
    assert refused.status == 503, "the server behind wants a key"

    async def open_model(request):
        asked = await request.json()
        return aiohttp.web.json_response({"choices": [{"message": {"content": f"heard: {asked['messages'][0]['content']}"}}]})

    app = aiohttp.web.Application()
    app.router.add_post("/v1/chat/completions", open_model)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with simulated(brain=f"http://127.0.0.1:{runner.addresses[0][1]}/v1") as it:
            assert (await it.chat("Hello", stream=True)).text == "heard: Hello"
    finally:
        await runner.cleanup()


async def test_two_simulators_can_run_side_by_side():
    """Port 0 takes a free port; the base URL says which."""
    async with serve(parse_settings({})) as one, serve(parse_settings({})) as other:
        assert one != other
        assert one.startswith("http://127.0.0.1:")


def test_the_documented_options_work():
    """The block of options in docs/simulator.md is accepted as it stands."""
    text = (Path(__file__).parent.parent / "docs" / "simulator.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert set(yaml.safe_load(block)) == set(parse_settings(yaml.safe_load(block)).__struct_fields__), "every option is documented"
    for kind in get_args(FaultKind):
        assert f"`{kind}`" in text
