"""Every fault of a transport, a status, a body or a stream, through the whole program, against one oracle: after the run, and after each resume."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import time
from collections import Counter
from typing import Any

import pytest
from oracle import FINAL, Reply, Row, expected
from scripted_server import CLOSE, HANG, RST, answer, chunk, completion, scripted, sse
from simulated import png

from evalrunner.clients import on_aiohttp
from evalrunner.errors import ConfigError, RunError, UnreachableError
from evalrunner.pipeline import Watch, resume, run
from evalrunner.plan.config import load_config
from evalrunner.results import Run, open_run

TARGET = "4"
USAGE = {"prompt_tokens": 22, "completion_tokens": 1, "total_tokens": 23}


class HurriedClock:
    """The system's clock, but that every wait is over at once and has taken its time: back-off and Retry-After cost a test nothing."""

    def __init__(self) -> None:
        self._skipped_ns = 0
        self.longest = 0.0

    def now_ns(self) -> int:
        return time.perf_counter_ns() + self._skipped_ns

    def wall_us(self, ns: int) -> int:
        return 1_767_225_600_000_000 + ns // 1000

    async def sleep(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        self._skipped_ns += round(max(0.0, seconds) * 1e9)
        await asyncio.sleep(0)


def said(content: str | None = TARGET, finish: str | None = "stop", *, usage: bool = True) -> tuple[Any, Any]:
    """The same answer, whole and as a stream."""
    body = completion(content, finish)
    if not usage:
        del body["usage"]
    events = [chunk(content), chunk(finish_reason=finish), *([chunk(usage=USAGE)] if usage else [])]
    return answer(body), sse(*events)


def ok(content: str = TARGET, finish: str = "stop", outcome: str = "ok") -> Reply:
    steps, streamed = said(content, finish)
    return Reply(steps, outcome, "never", streamed, content, 200, None, 1)


def refused(status: int, outcome: str, again: Any, code: str | None = None, headers: dict[str, str] | None = None, **error: Any) -> Reply:
    body = {"error": {"message": "no", **({"code": code} if code else {}), **error}}
    return Reply(answer(body, status, headers), outcome, again, status=status, code=code)


def unusable(raw: bytes, *, tokens: int | None = None, **headers: str) -> Reply:
    """A body as it is, streamed or not: a stream that is none."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(answer(raw, headers=named), "bad_output", "once", status=200, tokens=tokens)


GOOD = ok()
BODY = json.dumps(completion(TARGET)).encode()
TOO_MANY = Reply(answer({"error": {"message": "slow down", "code": "limit_requests"}}, 429), "rate_limited", "wait", status=429, code="limit_requests")
RESET = Reply([RST], "transport")
NO_CHOICES = unusable(json.dumps(completion() | {"choices": []}).encode(), tokens=1)
BOMB = gzip.compress(b"0" * (3 << 20))


def throttled(**headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(answer({"error": {"message": "slow down"}}, 429, named), "rate_limited", "wait", status=429)


def cut(*events: Any, end: bool = True, done: bool = False) -> Any:
    return sse(*events, end=end, done=done)


SAME: dict[str, list[Reply]] = {
    "plain": [GOOD],
    "4 reset before headers": [RESET, GOOD],
    "4 closed before headers": [Reply([CLOSE], "transport"), GOOD],
    "4 garbage for headers": [Reply([b"SSH-2.0-x\r\n\r\n", CLOSE], "transport"), GOOD],
    "13 Retry-After": [throttled(retry_after="3"), throttled(retry_after="3"), GOOD],
    "14 Retry-After is garbage": [throttled(retry_after="soon"), GOOD],
    "14 Retry-After is negative": [throttled(retry_after="-5"), GOOD],
    "14 Retry-After is endless": [throttled(retry_after="1000000000"), GOOD],
    "14 Retry-After is NaN": [throttled(retry_after="nan"), GOOD],
    "14 Retry-After in ms": [throttled(retry_after_ms="250"), GOOD],
    "14 the reset is elsewhere": [throttled(x_ratelimit_reset_requests="1m30s"), GOOD],
    "15 429 without a word": [TOO_MANY, GOOD],
    "16 more 429s than attempts": [*[TOO_MANY] * 7, GOOD],
    **{f"18 {status}, then fine": [refused(status, "server_error", "backoff"), GOOD] for status in (500, 502, 503, 504, 529)},
    **{f"19 {status}, then fine": [refused(status, "server_error", "backoff"), GOOD] for status in (408, 409, 425)},
    "20 400": [refused(400, "rejected", "never", "invalid_parameter_error")],
    "20 413": [refused(413, "rejected", "never")],
    "20 422": [refused(422, "rejected", "never")],
    "20 context too long": [refused(400, "rejected", "never", "context_length_exceeded")],
    "20 inspected": [refused(400, "filtered", "never", "data_inspection_failed")],
    "24 403 that was forwarded": [refused(403, "rejected", "never", metadata={"provider_name": "x"})],
    "24 404 that was forwarded": [refused(404, "rejected", "never", metadata={"provider_name": "x"})],
    "25 poison": [refused(500, "server_error", "backoff")],
    "25 poison that heals for the resume": [*[refused(503, "server_error", "backoff")] * 3, GOOD],
    "27 504 in a 200": [Reply(answer({"error": {"code": 504, "message": "late"}}), "server_error", "backoff", status=504, code="504"), GOOD],
    "27 400 in a 200": [Reply(answer({"error": {"code": 400, "message": "no"}}), "rejected", "never", status=400, code="400")],
    "28 no choices": [NO_CHOICES],
    "28 no choices once": [NO_CHOICES, GOOD],
    "28 no usage": [Reply(*(steps := said(usage=False))[:1], "ok", "never", steps[1], TARGET, 200)],
    "29 half a body": [unusable(BODY[:60]), GOOD],
    "29 trailing garbage": [unusable(BODY + b"}}"), unusable(BODY + b"}}"), GOOD],
    "29 a byte order mark": [Reply(answer(b"\xef\xbb\xbf" + BODY), "ok", "never", None, TARGET, 200, None, 1)],
    "29 another character set": [Reply(answer(BODY.replace(b'"4"', b'"caf\xe9"')), "ok", "never", None, "caf\ufffd", 200, None, 1)],
    "32 length": [ok("17", "length", "truncated")],
    "32 content_filter": [Reply(said(finish="content_filter")[0], "filtered", "never", said(finish="content_filter")[1], None, 200, "content_filter", 1)],
    "33 a gzip bomb": [unusable(BOMB, content_encoding="gzip")],
    "34 a lone surrogate": [Reply(answer(BODY.replace(b'"4"', rb'"\ud800!"')), "ok", "never", None, "\ufffd!", 200, None, 1)],
    "34 NUL, a line separator, right-to-left": [ok("a\0b\u2028c\u202ed")],
    "34 a line of a megabyte": [ok("x" * 1_000_000)],
    "mixed": [RESET, TOO_MANY, refused(503, "server_error", "backoff"), TOO_MANY, GOOD],
}

WHOLE = SAME | {
    "5 reset in the body": [Reply([answer(BODY)[0][:-20], RST], "transport"), GOOD],
    "30 no finish reason": [Reply(answer(completion(TARGET, None)), "broken_stream", status=200, tokens=1), GOOD],
}

STREAMED = SAME | {
    "6 reset after two tokens": [Reply(None, "broken_stream", streamed=[*cut(chunk("1"), chunk("2"), end=False), RST]), GOOD],
    "30 no end": [Reply(None, "broken_stream", streamed=cut(chunk(TARGET)), status=200), GOOD],
    "30 no end, ever": [Reply(None, "broken_stream", streamed=cut(chunk(TARGET)), status=200)],
    "30 [DONE] without a finish reason": [Reply(None, "ok", "never", sse(chunk(TARGET), chunk(usage=USAGE)), TARGET, 200, None, 1)],
    "31 an error in mid-stream": [
        Reply(None, "server_error", streamed=cut(chunk("1"), {"error": {"message": "down", "code": "internal_error"}}), status=200, code="internal_error"),
        GOOD,
    ],
    "31 a refusal in mid-stream": [
        Reply(None, "filtered", "never", cut(chunk("1"), {"error": {"message": "no", "code": "data_inspection_failed"}}), None, 200, "data_inspection_failed")
    ],
    "31 a number for a code": [
        Reply(None, "server_error", streamed=cut(chunk("1"), {"error": {"message": "late", "code": 504}}), status=504, code="504"),
        GOOD,
    ],
    "29 an event that is no JSON": [Reply(None, "bad_output", "once", cut(b"data: {nonsense\n\n")), GOOD],
}

CONFIG: dict[str, Any] = {
    "name": "matrix",
    "models": [{"id": "m", "provider": "mine"}],
    "retry": {"max_attempts": 3, "max_elapsed": "100000s"},
    "timeouts": {"connect": "10000s", "total": "100000s", "first_token": "100000s", "idle": "100000s"},
    "preflight": False,
}


class Study:
    """One config and one directory; a session is a run or a resume."""

    def __init__(self, folder: Any, url: str, questions: Any, **changes: Any) -> None:
        provider = {"kind": "openai", "base_url": url, "limits": {"concurrency": 4}}
        prompt_set = {"name": "s", "samples": [{"q": one} for one in questions], "prompts": {"p": "{{ q }}"}, "target": TARGET, "scorers": ["exact"]}
        config = CONFIG | {"providers": {"mine": provider}, "stream": False, "prompt_sets": [prompt_set]} | changes
        self.path, self.out = folder / "config.yaml", folder / "run"
        self.path.write_text(json.dumps(config))
        self.clock = HurriedClock()
        self.messages: list[str] = []

    async def session(self, **seams: Any) -> Run:
        watch = Watch(clock=self.clock, say=self.messages.append)._replace(**seams)
        return await (resume(self.out, watch) if self.out.exists() else run(load_config(self.path), self.out, watch))

    def table(self) -> dict[str, Row]:
        """The stored rows in the oracle's words, by question."""
        made = open_run(self.out)
        tried = made.attempts().groupby("key")["outcome"].agg(list)
        rows = {}
        for row in made.results().astype(object).where(lambda frame: frame.notna(), None).to_dict("records"):
            [message] = json.loads(row["messages"])
            assert message["content"] not in rows
            rows[message["content"]] = Row(
                outcome=row["outcome"],
                output=row["output"],
                http_status=row["http_status"],
                error_code=row["error_code"],
                attempts=row["attempts"],
                completion_tokens=row["completion_tokens"],
                score=row["score_exact"],
                tried=tried[row["key"]],
            )
        return rows


class Scripts:
    """A server that knows how often it was asked each question."""

    def __init__(self, scripts: dict[str, list[Reply]], *, stream: bool = False) -> None:
        self.scripts, self.stream, self.asked = scripts, stream, Counter[str]()

    def __call__(self, received: Any) -> Any:
        question = received.json["messages"][-1]["content"]
        script = self.scripts[question]
        reply = script[min(self.asked[question], len(script) - 1)]
        self.asked[question] += 1
        return reply.streamed if self.stream and reply.streamed is not None else reply.steps


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_whatever_a_server_does_the_table_is_the_oracles(tmp_path, monkeypatch, stream):
    """Each fault costs what it must and no more, ends in its own outcome, and leaves every other request alone; a resume asks again only what has no answer."""
    monkeypatch.setattr(on_aiohttp, "MAX_BYTES", 2 << 20)
    scripts = STREAMED if stream else WHOLE
    server_side = Scripts(scripts, stream=stream)
    async with scripted(server_side, repeat=True) as server:
        study = Study(tmp_path, server.url, scripts, stream=stream)
        for sessions in (1, 2, 3):
            await study.session()
            model = expected(scripts, sessions=sessions, max_attempts=3, target=TARGET)
            found = study.table()
            assert [row for row in model if found.get(row) != model[row]] == [], found
            assert found == model
            assert {question: len(row.tried) for question, row in model.items()} == server_side.asked
    manifest = open_run(study.out).manifest
    assert manifest["counts"]["missing"] == 0
    assert sum(manifest["counts"]["by_outcome"].values()) == len(scripts)
    assert manifest["resumes"][0]["answered"] == sum(row.outcome in FINAL for row in expected(scripts, sessions=1, max_attempts=3, target=TARGET).values())
    assert study.clock.longest <= 3600 + 1


SHORT = {"connect": "5s", "total": "0.9s", "first_token": "0.4s", "idle": "0.4s"}
SLOW_HEAD = [b"HTTP/1.1 200 OK\r\n", *[step for letter in b"x-slow: very" for step in (bytes([letter]), 0.2)], HANG]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_nothing_waits_for_ever(tmp_path, stream):
    """A server that hangs before, within or after its headers, trickles, or stops in mid-stream costs its deadline and an attempt; thinking aloud costs
    nothing, and an answer that comes too late is nobody's."""

    def late(outcome: str, steps: Any) -> list[Reply]:
        return [Reply(steps, outcome, streamed=steps), GOOD]

    head = answer(BODY)[0][:-20]
    scripts = {
        "7 hangs": late("timeout", [HANG]),
        "8 trickles its headers": late("timeout", SLOW_HEAD),
        "8 trickles its body": late("timeout", [head, *[step for letter in b"        " for step in (bytes([letter]), 0.2)], HANG]),
        "36 answers too late": late("timeout", [1.2, *answer(completion("late"))]),
        "plain": [GOOD],
    }
    if stream:
        thinking = [step for _ in range(4) for step in (chunk(reasoning_content="hm"), 0.15)]
        scripts["9 thinks aloud"] = [
            Reply(None, "ok", "never", sse(*thinking, chunk(TARGET), chunk(finish_reason="stop"), chunk(usage=USAGE)), TARGET, 200, None, 1)
        ]
        scripts["10 stops in mid-stream"] = [Reply(None, "timeout", streamed=[*sse(chunk("1"), end=False, done=False), HANG]), GOOD]
        scripts["10 only pings"] = [Reply(None, "timeout", streamed=[*sse(chunk("1"), *[b": ping\n\n", 0.1] * 6, end=False, done=False), HANG]), GOOD]
    server_side = Scripts(scripts, stream=stream)
    async with asyncio.timeout(20), scripted(server_side, repeat=True) as server:
        study = Study(tmp_path, server.url, scripts, stream=stream, timeouts=SHORT)
        await study.session(clock=Brisk())
    model = expected(scripts, sessions=1, max_attempts=3, target=TARGET)
    assert study.table() == model
    assert {question: len(row.tried) for question, row in model.items()} == server_side.asked


class Brisk(HurriedClock):
    """Real time for deadlines; a wait of our own takes a hundredth of itself, and no time is skipped."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / 100)


async def test_a_redirect_takes_the_key_nowhere(tmp_path):
    """The run stops, names both hosts, can be resumed, and the other host has not been asked."""
    async with (
        scripted(answer(completion()), repeat=True) as elsewhere,
        scripted(answer(b"", 307, {"location": f"{elsewhere.url}/chat/completions"}), repeat=True) as server,
    ):
        study = Study(tmp_path, server.url, ["a", "b"])
        made = await study.session()
        assert made.exit_code == 5
        assert not elsewhere.requests
        assert f"127.0.0.1:{server.port}" in made.message
        assert f"127.0.0.1:{elsewhere.port}" in made.message


MONEY = {
    "OpenAI": (429, {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}),
    "free tier": (403, {"error": {"message": "The free tier of the model has been exhausted.", "code": "AllocationQuota.FreeTierOnly"}}),
    "arrears": (400, {"error": {"message": "Access denied, your account is in arrears", "code": "Arrearage"}}),
    "402": (402, {"error": {"message": "Payment required"}}),
}


@pytest.mark.parametrize("case", MONEY)
async def test_when_the_money_is_gone_the_run_stops_and_can_go_on(tmp_path, case):
    """One request and its confirmation are sent, not a thousand; with money again the resume completes, and buys nothing twice."""
    status, body = MONEY[case]
    paid = False

    def reply(_received: Any) -> Any:
        return said()[0] if paid else answer(body, status)

    async with scripted(reply, repeat=True) as server:
        study = Study(tmp_path, server.url, [f"q{number}" for number in range(40)])
        made = await study.session()
        assert made.exit_code == 5
        assert len(server.requests) <= 4 + 1
        paid, before = True, len(server.requests)
        made = await study.session()
        assert (made.exit_code, len(server.requests) - before) == (0, 40)
        assert set(made.results()["outcome"]) == {"ok"}


async def test_a_throttle_that_speaks_of_quota_is_waited_for(tmp_path):
    """DashScope words its tokens-per-minute limit like an unpaid bill: it is none."""
    throttle = answer(
        {"error": {"message": "Allocated quota exceeded, please increase your quota limit.", "code": "insufficient_quota"}, "request_id": "x"}, 429
    )
    async with scripted(throttle, said()[0], repeat=True) as server:
        made = await Study(tmp_path, server.url, ["a", "b", "c"]).session()
        assert (made.exit_code, len(server.requests)) == (0, 4)


async def test_an_unknown_model_or_key_is_found_before_anything_is_sent(tmp_path):
    """Preflight: the model is a mistake in the config and leaves nothing behind; a key may come right, so the run waits for its resume."""
    unknown = answer({"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}, 404)
    async with scripted(unknown, repeat=True) as server:
        study = Study(tmp_path, server.url, ["a"] * 20, preflight=True)
        with pytest.raises(ConfigError, match="does not exist"):
            await study.session()
        assert len(server.requests) == 1
        assert not study.out.exists()
    wrong = answer({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, 401)
    async with scripted(wrong, answer(completion()), repeat=True) as server:
        study = Study(tmp_path, server.url, ["a"] * 20, preflight=True)
        with pytest.raises(UnreachableError, match=rf"(?s)Incorrect.*evalrunner resume {re.escape(str(study.out))}"):
            await study.session()
        assert len(server.requests) == 1
        made = await study.session()
        assert (made.exit_code, len(server.requests), len(made.results())) == (0, 1 + 1 + 20, 20)


async def test_a_key_that_is_revoked_stops_its_account_alone(tmp_path):
    """The other account finishes, exit code 4 whatever may be unanswered; with a new key the rest is asked, and nothing that was answered."""
    revoked = True

    def first(received: Any) -> Any:
        return answer({"error": {"message": "revoked", "code": "invalid_api_key"}}, 401) if revoked and len(one.requests) > 10 else said()[0]

    questions = [f"q{number}" for number in range(30)]
    async with scripted(first, repeat=True) as one, scripted(said()[0], repeat=True) as two:
        providers = {name: {"kind": "openai", "base_url": server.url, "limits": {"concurrency": 2}} for name, server in (("one", one), ("two", two))}
        models = [{"id": "m", "label": name, "provider": name} for name in providers]
        study = Study(tmp_path, one.url, questions, providers=providers, models=models, allow_unanswered=0.5)
        made = await study.session()
        assert made.exit_code == 4
        rows = made.results()
        assert rows[rows["outcome"] == "ok"]["model"].value_counts().to_dict() == {"two": 30, "one": 10}
        revoked, before = False, len(one.requests)
        made = await study.session()
        assert (made.exit_code, len(one.requests) - before, len(two.requests)) == (0, 20, 30)


async def test_a_session_that_ends_in_an_error_keeps_its_books(tmp_path):
    """A picture that changes under way stops the run; what was spent without a row is in the manifest all the same, for the budget of the resume."""
    picture = tmp_path / "picture.png"
    image = base64.b64decode(png(32, 32).rpartition(",")[2])
    picture.write_bytes(image)

    def change(_received: Any) -> Any:
        picture.write_bytes(image + b" ")
        return said(usage=False)[0]

    prompts = {"p": [{"role": "user", "content": [{"text": "{{ q }}"}, {"image": "{{ picture }}"}]}]}
    sets = [
        {"name": "first", "samples": [{"q": "one"}], "prompts": {"p": "{{ q }}"}},
        {"name": "second", "samples": [{"q": "two", "picture": "picture.png"}], "prompts": prompts},
    ]
    async with scripted(change, repeat=True) as server:
        provider = {"kind": "openai", "base_url": server.url, "limits": {"concurrency": 1}}
        model = {"id": "m", "provider": "mine", "price": {"input": 1000, "output": 1000, "currency": "CNY"}, "params": {"max_tokens": 10}}
        budget = {"cost": 1000, "currency": "CNY"}
        study = Study(tmp_path, server.url, [], prompt_sets=sets, models=[model], providers={"mine": provider}, budget=budget)
        with pytest.raises(RunError, match="changed while it was in use"):
            await study.session()
    manifest = open_run(study.out).manifest
    assert manifest["state"] == "interrupted"
    assert manifest["unrecorded"]["cost"] > 0


async def test_one_bucket_for_an_account_that_shares_its_limit(tmp_path):
    """Two models on one key are never more at once than the account may have."""
    busiest = 0
    busy = 0

    class Counted:
        def __call__(self, _received: Any) -> Any:
            nonlocal busy, busiest
            busy += 1
            busiest = max(busiest, busy)
            return self.steps()

        def steps(self) -> Any:
            nonlocal busy
            yield 0.01
            busy -= 1
            yield from said()[0]

    async with scripted(Counted(), repeat=True) as server:
        provider = {"kind": "openai", "base_url": server.url, "limits": {"concurrency": 3, "shared": True}}
        models = [{"id": "m", "provider": "mine"}, {"id": "n", "provider": "mine"}]
        made = await Study(tmp_path, server.url, [f"q{number}" for number in range(20)], providers={"mine": provider}, models=models).session()
    assert (made.exit_code, busiest) == (0, 3)


async def test_a_host_that_is_not_there_is_named_and_the_run_can_go_on(tmp_path):
    """Nothing is lost by starting before the server does."""
    async with scripted(said()[0], repeat=True) as server:
        port = server.port
    study = Study(tmp_path, f"http://127.0.0.1:{port}/v1", ["a", "b"], preflight=True)
    with pytest.raises(RunError, match=rf"(?s)127\.0\.0\.1:{port}.*evalrunner resume") as caught:
        await study.session()
    assert caught.value.exit_code == 5
    assert study.out.exists()
