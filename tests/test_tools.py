"""Tool calls are answered and the conversation goes on, turn by turn. In virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field

import pytest
from fake_clock import FakeClock

from evalrunner import errors
from evalrunner.analysis import metrics
from evalrunner.engine.limiter import Limiter
from evalrunner.engine.rows import joined
from evalrunner.engine.runner import Lane, Stop, execute
from evalrunner.engine.tools import ToolAnswers
from evalrunner.records import Cell, Completion, Limits, Model, Price, PriceTier, Request, Sample, Score, Timing, Usage

PRICE = Price(currency="CNY", tiers=(PriceTier(input=1.0, output=10.0),))
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("weather", "clock")]


def called(name, arguments="{}", call_id="c1"):
    return {"id": call_id, "name": name, "arguments": arguments}


@dataclass
class Speaker:
    """A model that says `answers` one after the other: a text, tool calls, or an error to raise. Each takes a second, its first token half of one."""

    clock: FakeClock
    answers: list
    usage: list = field(default_factory=list)
    reasoning: str | None = None
    sent: list = field(default_factory=list)

    async def complete(self, request):
        self.sent.append(request)
        started = self.clock.now_ns()
        await self.clock.sleep(0.5)
        first = self.clock.now_ns()
        await self.clock.sleep(0.5)
        answer = self.answers[len(self.sent) - 1]
        if isinstance(answer, Exception):
            raise answer
        now = self.clock.now_ns()
        timing = Timing(started_ns=started, ended_ns=now, first_output_ns=first, first_content_ns=first, last_output_ns=now, output_events=4, output_reads=4)
        calls = tuple(answer) if isinstance(answer, list) else ()
        usage = self.usage[len(self.sent) - 1] if self.usage else Usage(prompt_tokens=100, completion_tokens=11, total_tokens=111)
        text = "" if calls else answer
        finish = "tool_calls" if calls else "stop"
        return Completion(output=text, finish_reason=finish, timing=timing, tool_calls=calls, usage=usage, reasoning=self.reasoning)

    async def aclose(self):
        pass


class Talk:
    """One request to a `Speaker`, its tools answered by `answer`."""

    def __init__(self, *answers, answer=lambda name, arguments, sample: f"{name} of {sample.data['who']}: {json.dumps(arguments)}", max_turns=8, **client):
        self.clock = FakeClock()
        self.model = Speaker(self.clock, list(answers), **client)
        self.tools = {"set": ToolAnswers(answer, max_turns)}
        self.stop = Stop()
        self.records = []
        self.seen = []

    async def run(self, *, tool_choice=None, params=None, model="qwen-plus", limits=Limits(concurrency=2), **options):  # noqa: B008 - frozen
        which = Model(name=model, id=model, provider="acc", price=PRICE)
        cell = Cell(prompt_set="set", prompt="plain", model=which, params=params or {}, stream=True)
        sample = Sample(id="1", data={"who": "Ada"}, hash="h")
        messages = [{"role": "user", "content": "What is the weather?"}]
        request = Request(key="k", cell=cell, sample=sample, trial=0, messages=messages, tools=TOOLS, tool_choice=tool_choice)

        async def add(record):
            self.records.append(record)

        async def score(request, completion):
            self.seen.append((request, completion))
            return {"x": Score(value=1.0)}

        lane = Lane(model=which, client=self.model, limiter=Limiter(limits, self.clock), requests=iter([request]))
        seams = {"clock": self.clock, "rng": random.Random(0), "stop": self.stop, "score": score, "tools": self.tools} | options
        self.end = await execute([lane], add, **seams)
        return self.records[0] if self.records else None


async def test_a_conversation_goes_on_until_the_model_stops():
    """Each call is answered under its id, right behind the message that made it, with the same tools; what was first sent stays as it was in the row."""
    talk = Talk([called("weather", '{"city": "Rome"}', "a"), called("clock", "", "b")], [called("clock", "", "c")], "Sunny, at noon.")
    record = await talk.run()
    first, second, third = talk.model.sent
    assert second.messages == [
        *first.messages,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
                {"id": "b", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": 'weather of Ada: {"city": "Rome"}'},
        {"role": "tool", "tool_call_id": "b", "content": "clock of Ada: {}"},
    ]
    assert first.tools == second.tools == third.tools == TOOLS
    assert record.turns == 3
    assert record.request.messages == [{"role": "user", "content": "What is the weather?"}]
    assert record.completion.output == "Sunny, at noon."
    assert [*record.request.messages, *record.completion.conversation] == third.messages
    assert talk.seen == [(record.request, record.completion)]


async def test_tokens_cost_and_times_add_up_over_the_turns():
    """Usage, cost and service time are sums; TTFT is the first turn's; each exchange is an attempt row with its turn."""
    talk = Talk([called("clock")], [called("clock")], "Noon.")
    record = await talk.run()
    assert record.usage == record.completion.usage == Usage(prompt_tokens=300, completion_tokens=33, total_tokens=333)
    assert record.cost == pytest.approx((300 * 1 + 33 * 10) / 1e6)
    assert metrics.latency_ms(record.completion.timing) == 3000
    assert metrics.ttft_ms(record.completion.timing) == 500
    assert metrics.decode_ms(record.completion.timing) == 1500
    assert metrics.tpot_ms(record.completion.timing, record.completion.usage) == 1500 / (33 - 3)
    assert record.user_latency_ms == 3000
    assert [(attempt.turn, attempt.attempt) for attempt in record.attempts] == [(1, 1), (2, 1), (3, 1)]


async def test_each_turn_is_retried_like_a_request():
    """A failure in the second turn repeats that turn alone; waiting is our own, and in no latency; attempts count from 1 in each turn."""
    talk = Talk([called("clock")], errors.ServerError("busy", http_status=503), errors.ServerError("busy", http_status=503), "Noon.")
    record = await talk.run()
    assert [(attempt.turn, attempt.attempt, attempt.outcome) for attempt in record.attempts] == [
        (1, 1, "ok"),
        (2, 1, "server_error"),
        (2, 2, "server_error"),
        (2, 3, "ok"),
    ]
    assert metrics.latency_ms(record.completion.timing) == 2000
    assert record.user_latency_ms == pytest.approx(record.wait_ms + sum(attempt.latency_ms for attempt in record.attempts))
    assert record.usage.prompt_tokens == 200


async def test_a_turn_without_an_answer_is_the_requests_outcome():
    """What the first turns cost is kept, what the last one died of is the row's error, and nothing is scored."""
    talk = Talk([called("clock")], errors.RejectedError("too long", http_status=400))
    record = await talk.run()
    assert (record.outcome, record.error_message, record.turns, record.completion) == ("rejected", "too long", 2, None)
    assert record.usage.prompt_tokens == 100
    assert talk.seen == []


async def test_each_turn_passes_the_limiter():
    """Three turns at one request per second take their time: the second and third wait for the bucket."""
    talk = Talk([called("clock")], [called("clock")], "Noon.")
    record = await talk.run(limits=Limits(concurrency=2, rpm=6))
    assert record.wait_ms > 15_000
    assert metrics.latency_ms(record.completion.timing) == 3000


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_turns_are_counted_and_end(most):
    """A model that never stops calling is stopped at `max_turns`; its last calls are the answer."""
    talk = Talk(*[[called("clock")]] * 9, max_turns=most)
    record = await talk.run()
    assert record.turns == len(talk.model.sent) == most
    assert record.outcome == "ok"
    assert record.completion.tool_calls == (called("clock"),)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (called("wether", "{}"), "no function is called 'wether'; there are: weather, clock"),
        (called("weather", '{"city": '), "the arguments of weather are not JSON"),
        (called("weather", "[1]"), "the arguments of weather are not a JSON object"),
        (called("weather", '{"a": NaN}'), "NaN is not a JSON number"),
        (called("weather", "[" * 100_000), "the arguments of weather are not JSON"),
    ],
)
async def test_what_a_model_gets_wrong_is_told_to_the_model(call, told):
    """An unknown function or unreadable arguments are a tool result that says so, and what is sent back is always JSON: no crash, here or at the server."""
    talk = Talk([call], "Sorry.")
    record = await talk.run()
    _, said, result = talk.model.sent[1].messages
    assert told in json.loads(result["content"])["error"]
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {}
    assert record.completion.output == "Sorry."


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), KeyError("x"), RuntimeError()])
async def test_a_tool_that_fails_says_so_to_the_model(error):
    """A tool's exception is its result; the run goes on."""

    def fail(name, arguments, sample):
        raise error

    talk = Talk([called("clock")], "Sorry.", answer=fail)
    await talk.run()
    assert json.loads(talk.model.sent[1].messages[-1]["content"]) == {"error": str(error) or "RuntimeError"}
    assert talk.end.error is None


async def test_tools_may_take_their_time_and_return_what_json_can_hold():
    """An async tool is awaited, in nobody's service time; what is not text becomes JSON."""
    talk = Talk([called("clock")], "Noon.")

    async def slow(name, arguments, sample):
        await talk.clock.sleep(30)
        return {"hour": 12}

    talk.tools = {"set": ToolAnswers(slow, 8)}
    record = await talk.run()
    assert talk.model.sent[1].messages[-1]["content"] == '{"hour":12}'
    assert (metrics.latency_ms(record.completion.timing), record.wait_ms, record.user_latency_ms) == (2000, 30_000, 32_000)


async def test_calls_without_an_id_get_one():
    """Results can be told apart even where the server names no calls."""
    talk = Talk([called("clock", call_id=""), called("weather", call_id="")], "Noon.")
    await talk.run()
    _, said, *results = talk.model.sent[1].messages
    ids = [call["id"] for call in said["tool_calls"]]
    assert ids == [result["tool_call_id"] for result in results]
    assert len(set(ids)) == 2
    assert all(ids)


@pytest.mark.parametrize(("choice", "later"), [("required", None), ({"type": "function", "function": {"name": "clock"}}, None), ("auto", "auto"), (None, None)])
async def test_a_call_is_forced_once(choice, later):
    """A forced call in every turn would never let the model answer."""
    talk = Talk([called("clock")], "Noon.")
    await talk.run(tool_choice=choice)
    assert [request.tool_choice for request in talk.model.sent] == [choice, later]


@pytest.mark.parametrize(
    ("model", "params", "kept"),
    [
        ("qwen3.8-max", {}, True),
        ("qwen3.8-max", {"preserve_thinking": False}, False),
        ("qwen-plus", {}, False),
        ("qwen-plus", {"preserve_thinking": True}, True),
    ],
)
async def test_thoughts_go_back_to_models_that_want_them(model, params, kept):
    """qwen3.8 is given its earlier thoughts back; others only where `preserve_thinking` asks for it."""
    talk = Talk([called("clock")], "Noon.", reasoning="hm")
    await talk.run(model=model, params=params)
    assert ("reasoning_content" in talk.model.sent[1].messages[1]) is kept


async def test_without_answers_one_turn_is_all():
    """Tools whose calls nobody answers: the calls are the answer."""
    talk = Talk([called("clock")])
    record = await talk.run(tools={})
    assert (record.turns, record.completion.tool_calls, record.completion.conversation) == (1, (called("clock"),), ())


async def test_a_cut_answer_is_not_gone_on_from():
    """A call that `max_tokens` cut is nothing to answer."""
    talk = Talk([called("clock", '{"a')])
    complete = talk.model.complete

    async def cut(request):
        answer = await complete(request)
        return Completion(output="", finish_reason="length", timing=answer.timing, tool_calls=answer.tool_calls)

    talk.model.complete = cut
    record = await talk.run()
    assert (record.outcome, record.turns) == ("truncated", 1)


async def test_a_usage_unknown_in_one_turn_is_unknown_for_all():
    """Half a sum is never shown as the whole."""
    talk = Talk([called("clock")], "Noon.", usage=[None, Usage(prompt_tokens=1, completion_tokens=1)])
    record = await talk.run()
    assert (record.usage, record.cost, record.completion.usage) == (None, None, None)


async def test_a_stop_between_two_turns_leaves_no_row():
    """A conversation that was not finished is as if it had not been begun: `resume` has it all again."""
    talk = Talk([called("clock")], "Noon.")

    async def stopping(name, arguments, sample):
        talk.stop.request("interrupted")
        await asyncio.Event().wait()

    talk.tools = {"set": ToolAnswers(stopping, 8)}
    assert await talk.run() is None
    assert len(talk.model.sent) == 1
    assert talk.end.reason == "interrupted"


def test_turns_that_were_not_streamed_have_latency_alone():
    """No TTFT is made up for answers that came whole."""
    turns = [Timing(started_ns=0, ended_ns=1_000_000), Timing(started_ns=5_000_000, ended_ns=7_000_000)]
    timing = joined(turns)
    assert (metrics.latency_ms(timing), metrics.ttft_ms(timing), metrics.decode_ms(timing)) == (3, None, None)
    assert metrics.tokens_per_chunk(timing, Usage(completion_tokens=4)) is None
