"""Every request becomes one record, whatever happens on the way; what never was sent has none. In virtual time."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from fake_clock import FakeClock

from evalrunner import errors
from evalrunner.engine.limiter import Limiter
from evalrunner.engine.retry import RetryPolicy
from evalrunner.engine.runner import End, Lane, Stop, execute
from evalrunner.engine.scoring import score_with
from evalrunner.engine.tally import Tally
from evalrunner.records import STILL_TO_COME, Cell, Completion, Limits, Model, Outcome, Price, PriceTier, Request, Sample, Score, Timing, Usage

PRICE = Price(currency="CNY", tiers=(PriceTier(input=1.0, output=10.0),))
USAGE = Usage(prompt_tokens=100, completion_tokens=10, total_tokens=110)
DIRECT = Limits(concurrency=4)


def requests_of(model, count, **params):
    cell = Cell(prompt_set="set", prompt="plain", model=model, params=params, stream=False)
    for i in range(count):
        sample = Sample(id=str(i), data={"n": i}, hash=f"h{i}")
        yield Request(key=f"{model.name}-{i}", cell=cell, sample=sample, trial=0, messages=[{"role": "user", "content": f"question {i}"}])


@dataclass
class Script:
    """A client that takes `latency` seconds and does what `say(request, n-th call, n-th of this request)` says: returns an error to raise, or None."""

    clock: FakeClock
    say: object = None
    latency: float = 1.0
    usage: Usage | None = USAGE
    finish_reason: str | None = "stop"
    sent: list = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    async def complete(self, request):
        self.sent.append((self.clock.seconds, request.key))
        n, call = Counter(key for _, key in self.sent)[request.key], len(self.sent)
        started = self.clock.now_ns()
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self.clock.sleep(self.latency)
        finally:
            self.open -= 1
        error = self.say(request, call, n) if self.say else None
        if error is not None:
            raise error
        timing = Timing(started_ns=started, ended_ns=self.clock.now_ns())
        return Completion(output="4", finish_reason=self.finish_reason, timing=timing, usage=self.usage, response_id="r")

    async def aclose(self):
        pass


class World:
    """One run: clock, lanes, what was added, and how it ended."""

    def __init__(self):
        self.clock = FakeClock()
        self.lanes = []
        self.records = []
        self.tally = Tally()
        self.stop = Stop()

    def lane(self, count, say=None, *, name="m", provider="acc", limits=DIRECT, limiter=None, price=PRICE, params=None, **client):
        model = Model(name=name, id=name, provider=provider, price=price)
        script = Script(self.clock, say, **client)
        limiter = limiter or Limiter(limits, self.clock)
        self.lanes.append(Lane(model=model, client=script, limiter=limiter, requests=requests_of(model, count, **(params or {}))))
        return script

    async def add(self, record):
        self.records.append(record)

    async def run(self, **options):
        options = {"add": self.add} | options
        return await execute(self.lanes, stop=self.stop, tally=self.tally, clock=self.clock, rng=random.Random(0), **options)

    def outcomes(self):
        return Counter(str(record.outcome) for record in self.records)

    def of(self, key):
        [record] = [record for record in self.records if record.request.key == key]
        return record


def script_of(*says):
    """What happens to each request's first, second … attempt; None is an answer, and so is everything after the last."""
    return lambda request, call, n: says[n - 1] if n <= len(says) else None


async def test_each_request_becomes_one_answered_record():
    """Ten requests, ten rows, nothing stopped; the slots are used in full and never exceeded."""
    world = World()
    client = world.lane(10)
    end = await world.run()
    assert end.error is None
    assert end.reason is None
    assert not end.stopped
    assert world.outcomes() == {"ok": 10}
    assert sorted(record.request.key for record in world.records) == sorted(f"m-{i}" for i in range(10))
    assert client.most_open == 4
    assert world.clock.seconds == 3
    assert world.tally.done == 10
    assert world.tally.in_flight == 0


async def test_a_record_holds_the_whole_story():
    """Two failures, then an answer: all three attempts, their waits and the error's words, and the user's time as wait + service."""
    world = World()
    failure = errors.ServerError("oops", http_status=503, code="Busy", response_id="x", retry_after_s=5)
    world.lane(1, script_of(failure, failure), latency=2)
    await world.run()
    [record] = world.records
    assert [attempt.outcome for attempt in record.attempts] == ["server_error", "server_error", "ok"]
    assert [attempt.attempt for attempt in record.attempts] == [1, 2, 3]
    first = record.attempts[0]
    assert (first.http_status, first.error_code, first.error_message, first.retry_after_ms) == (503, "Busy", "oops", 5000)
    assert first.latency_ms == 2000
    assert record.wait_ms == pytest.approx(10_000)
    assert record.user_latency_ms == pytest.approx(record.wait_ms + sum(attempt.latency_ms for attempt in record.attempts))
    assert record.started_us == record.scheduled_us
    assert record.finished_us - record.started_us == 16_000_000
    assert (record.error_code, record.error_message, record.http_status) == (None, None, 200)


async def test_failures_use_up_attempts_and_end_in_a_row():
    """Six failures of the server are a row that says so: no answer, no scores, nothing raised."""
    world = World()
    client = world.lane(1, lambda *_: errors.ServerError("down", http_status=500))
    end = await world.run()
    assert end.error is None
    [record] = world.records
    assert record.outcome is Outcome.SERVER_ERROR
    assert len(client.sent) == len(record.attempts) == 6
    assert record.completion is None
    assert (record.error_message, record.http_status, record.user_latency_ms, record.usage, record.cost) == ("down", 500, None, None, None)


@pytest.mark.parametrize(("error", "outcome"), [(errors.RejectedError("too long"), "rejected"), (errors.FilteredError("no"), "filtered")])
async def test_refusals_are_final_and_the_run_goes_on(error, outcome):
    """A request the provider refuses costs one attempt, and the others are answered."""
    world = World()
    client = world.lane(5, lambda request, *_: error if request.key == "m-2" else None)
    await world.run()
    assert world.outcomes() == {"ok": 4, outcome: 1}
    assert len(client.sent) == 5


async def test_money_and_tokens_count_every_attempt_that_was_billed():
    """A stream that broke after its usage is paid for, too; a failure without usage is not."""
    world = World()
    broken = errors.BrokenStreamError("cut", usage=USAGE)
    world.lane(1, script_of(broken, errors.TransportError("reset")))
    await world.run()
    [record] = world.records
    assert record.usage == Usage(prompt_tokens=200, completion_tokens=20, total_tokens=220)
    assert record.cost == pytest.approx(2 * 200 / 1e6)
    assert record.currency == "CNY"
    assert record.completion.usage == USAGE
    assert world.tally.cost == {"CNY": pytest.approx(record.cost)}
    assert world.tally.completion_tokens == 20


async def test_unknown_usage_and_unknown_prices_stay_unknown():
    """An answer without usage has no cost, an answer without a price neither; both are answers, and are not bought again."""
    world = World()
    no_usage = world.lane(1, name="a", usage=None)
    no_price = world.lane(1, name="b", price=None)
    await world.run()
    assert world.outcomes() == {"ok": 2}
    assert len(no_usage.sent) == len(no_price.sent) == 1
    assert (world.of("a-0").usage, world.of("a-0").cost, world.of("a-0").currency) == (None, None, None)
    assert (world.of("b-0").usage, world.of("b-0").cost) == (USAGE, None)


@pytest.mark.parametrize(("finish", "outcome", "scored"), [("length", "truncated", True), ("content_filter", "filtered", False), ("tool_calls", "ok", True)])
async def test_the_finish_reason_decides_between_answers(finish, outcome, scored):
    """A cut answer is an answer and is scored; one cut by moderation is not."""
    world = World()
    world.lane(1, finish_reason=finish)

    async def score(request, completion):
        return {"exact": Score(value=1.0)}

    await world.run(score=score)
    [record] = world.records
    assert record.outcome == outcome
    assert dict(record.scores) == ({"exact": Score(value=1.0)} if scored else {})


async def test_scoring_is_outside_service_time_and_holds_no_slot():
    """A scorer that takes a minute changes no latency, and the next request is sent meanwhile."""
    world = World()
    client = world.lane(3, limits=Limits(concurrency=1))

    async def score(request, completion):
        await world.clock.sleep(60)
        return {}

    await world.run(score=score)
    assert [at for at, _ in client.sent] == [0, 1, 2]
    assert all(record.user_latency_ms == 1000 for record in world.records)


async def test_a_failing_scorer_costs_its_score_and_not_the_answer():
    """The score is null with the reason; the other scorers and the row stand. Sync and async scorers both work."""
    world = World()
    world.lane(1)

    def bad(request, completion):
        raise ZeroDivisionError("by zero")

    def sorry(request, completion):
        raise errors.ScorerError("no number in the text")

    async def good(request, completion):
        return Score(value=1.0)

    await world.run(score=lambda request, completion: score_with({"bad": bad, "sorry": sorry, "good": good}, request, completion))
    [record] = world.records
    assert record.outcome is Outcome.OK
    assert record.scores["bad"] == Score(value=None, why="the scorer failed: ZeroDivisionError: by zero")
    assert record.scores["sorry"] == Score(value=None, why="no number in the text")
    assert record.scores["good"] == Score(value=1.0)


async def test_a_throttled_model_does_not_hold_up_another():
    """One model waits an hour by order of its server, the other is done in seconds: lanes share nothing."""
    world = World()
    world.lane(3, script_of(errors.RateLimitedError("wait", retry_after_s=600)), name="slow", limits=Limits(concurrency=1))
    done = []
    world.lane(40, name="fast")

    async def add(record):
        done.append((record.request.cell.model.name, world.clock.seconds))

    await world.run(add=add)
    assert max(at for name, at in done if name == "fast") == 10
    assert max(at for name, at in done if name == "slow") > 600


async def test_retry_after_parks_the_model_for_all_its_workers():
    """After a 429 with Retry-After: 3 nothing is sent to that model for three seconds; what was on its way ends normally."""
    world = World()
    client = world.lane(40, lambda request, call, n: errors.RateLimitedError("x", retry_after_s=3) if call == 2 else None, limits=Limits(concurrency=2))
    await world.run()
    first = client.sent[1][0] + 1
    assert world.outcomes() == {"ok": 40}
    assert not [at for at, _ in client.sent if first < at < first + 3]
    assert world.tally.parked["m"] > 0


async def test_a_storm_of_429s_costs_time_and_no_rows():
    """A minute of nothing but 429s: few sends, every request answered in the end, and afterwards the rate comes back to at least 80 %."""
    world = World()

    def storm(request, call, n):
        return errors.RateLimitedError("x", http_status=429) if world.clock.seconds < 60 else None

    client = world.lane(3000, storm, limits=Limits(concurrency=32, rpm=1200), latency=0.2)
    await world.run()
    assert world.outcomes() == {"ok": 3000}
    assert sum(at < 60 for at, _ in client.sent) < 200
    assert sum(140 <= at < 150 for at, _ in client.sent) >= 0.8 * 200


async def test_a_poisoned_request_ends_alone():
    """One request whose connection always breaks uses up its attempts and ends; no other is held back."""
    world = World()
    client = world.lane(100, lambda request, *_: errors.TransportError("reset") if request.key == "m-7" else None)
    await world.run()
    assert world.outcomes() == {"ok": 99, "transport": 1}
    assert Counter(key for _, key in client.sent)["m-7"] == 6


async def test_a_dead_endpoint_is_probed_and_not_hammered():
    """While nobody answers only single probes go out, further and further apart; when somebody does, all requests are answered."""
    world = World()
    client = world.lane(500, lambda *_: errors.TransportError("refused") if world.clock.seconds < 600 else None, limits=Limits(concurrency=16), latency=0.01)
    end = await world.run()
    assert not end.stopped
    assert world.outcomes() == {"ok": 500}
    assert sum(at < 600 for at, _ in client.sent) < 16 + 20


async def test_an_endpoint_that_stays_dead_ends_its_lane():
    """After half an hour without any answer the lane is stopped with the reason; what is unanswered has no row and can be resumed."""
    world = World()
    world.lane(50, lambda *_: errors.TransportError("connection refused"), name="dead", provider="there")
    world.lane(5, name="well", provider="here")
    end = await world.run()
    assert list(end.stopped) == ["there/dead"]
    assert str(end.stopped["there/dead"]) == "connection refused"
    assert not end.nobody_left
    assert world.outcomes()["ok"] == 5
    assert 1800 < world.clock.seconds < 2000


async def test_an_order_to_wait_longer_than_the_user_would_is_followed_as_long_as_that():
    """`Retry-After: 3600` with 30 minutes of patience: nothing for 30 minutes, then one more question. Answered: the run goes on."""
    world = World()
    limiter = Limiter(DIRECT, world.clock, 1800)
    wait = errors.RateLimitedError("come back later", http_status=429, retry_after_s=3600)
    client = world.lane(20, lambda request, call, n: wait if call <= 4 else None, limiter=limiter)
    end = await world.run()
    assert not end.stopped
    assert world.outcomes() == {"ok": 20}
    assert not [at for at, _ in client.sent if 1 < at < 1800]


async def test_a_provider_that_only_says_wait_stops_its_model():
    """Nothing but 429s for longer than the patience: the model stops, resumable, and does not burn what is in flight again and again."""
    world = World()
    limiter = Limiter(DIRECT, world.clock, 1800)
    wait = errors.RateLimitedError("come back later", http_status=429, retry_after_s=3600)
    client = world.lane(100, lambda *_: wait, limiter=limiter)
    end = await world.run()
    assert list(end.stopped) == ["acc/m"]
    assert world.outcomes()["rate_limited"] <= 8
    assert len(client.sent) <= 8
    assert world.clock.seconds < 2000


async def test_a_dying_server_is_spared():
    """When every answer is a 500, retries are spread out by the retry budget; no row is marked for it, the attempts are."""
    world = World()
    client = world.lane(40, lambda *_: errors.ServerError("x", http_status=500), limits=Limits(concurrency=8), latency=0.01)
    await world.run()
    assert world.outcomes() == {"server_error": 40}
    assert all(len(record.attempts) == 6 for record in world.records)
    assert len(client.sent) / world.clock.seconds < 2


async def test_a_revoked_key_stops_its_account_after_one_probe():
    """A key that dies in mid-run: one probe confirms it, nothing more is sent there, done rows are kept; the other account finishes."""
    world = World()
    say = lambda request, call, n: errors.AuthError("bad key", http_status=401, code="invalid_api_key") if call > 20 else None  # noqa: E731 - a script in a line
    one = world.lane(1000, say, name="a", provider="first")
    world.lane(30, name="b", provider="second")
    end = await world.run()
    assert list(end.stopped) == ["first"]
    assert isinstance(end.stopped["first"], errors.AuthError)
    assert not end.nobody_left
    assert len(one.sent) <= 20 + 4 + 1
    mine = Counter(str(record.outcome) for record in world.records if record.request.cell.model.name == "a")
    assert mine["ok"] == 20
    assert mine["auth"] == 4
    assert sum(record.request.cell.model.name == "b" for record in world.records) == 30
    assert world.tally.stopped == {"first": "bad key"}


async def test_an_account_dies_for_all_its_models():
    """The key is the account's: both models stop, and nobody is left."""
    world = World()
    world.lane(100, lambda *_: errors.AccountError("in arrears"), name="a")
    world.lane(100, lambda *_: errors.AccountError("in arrears"), name="b")
    end = await world.run()
    assert list(end.stopped) == ["acc"]
    assert end.nobody_left


async def test_an_unknown_model_stops_alone():
    """A name the provider does not know ends that model's lane; its neighbour on the same key finishes."""
    world = World()
    world.lane(100, lambda *_: errors.UnknownModelError("no such model", http_status=404), name="a")
    world.lane(20, name="b")
    end = await world.run()
    assert list(end.stopped) == ["acc/a"]
    assert not end.nobody_left
    assert world.outcomes()["ok"] == 20


async def test_a_key_that_was_refused_by_mistake_goes_on():
    """A single 401 that the probe does not confirm costs an attempt and nothing else."""
    world = World()
    world.lane(50, lambda request, call, n: errors.AuthError("hiccup", http_status=401) if call == 10 else None)
    end = await world.run()
    assert not end.stopped
    assert world.outcomes() == {"ok": 50}
    assert max(len(record.attempts) for record in world.records) == 2


@pytest.mark.parametrize("kind", [errors.AuthError, errors.UnknownModelError])
async def test_a_prompt_that_is_refused_like_a_key_ends_alone(kind):
    """A gateway's 403 or 404 for three prompts: the small question is answered, so they end `rejected`, and the account goes on."""
    world = World()
    poisoned = {"m-3", "m-4", "m-11"}
    small = lambda request: request.messages[0]["content"] == "Hi"  # noqa: E731 - a question in a line
    client = world.lane(30, lambda request, call, n: kind("<html>blocked", http_status=403) if request.key in poisoned and not small(request) else None)
    end = await world.run()
    assert not end.stopped
    assert world.outcomes() == {"ok": 27, "rejected": 3}
    assert all([attempt.outcome for attempt in world.of(key).attempts][-2:] == ["auth", "rejected"] for key in poisoned)
    assert "this request alone" in world.of("m-3").error_message
    assert len(client.sent) <= 27 + 3 * 6


async def test_money_that_lasts_for_small_questions_only_is_gone():
    """An account that cannot pay for the grid stops, although one token is still answered; nothing of it is final."""
    world = World()
    world.lane(20, lambda request, call, n: None if request.messages[0]["content"] == "Hi" else errors.AccountError("in arrears", http_status=402))
    end = await world.run()
    assert list(end.stopped) == ["acc"]
    assert set(world.outcomes()) == {"auth"}


async def test_a_refusal_whose_doubt_meets_a_fault_is_not_final():
    """Where the small question is not answered either way, a request that is refused again and again can be resumed."""
    world = World()
    say = lambda request, call, n: errors.ServerError("x") if request.messages[0]["content"] == "Hi" else errors.AuthError("no", http_status=403)  # noqa: E731
    world.lane(1, say)
    end = await world.run()
    assert not end.stopped
    assert world.outcomes() == {"auth": 1}


async def test_a_probe_that_finds_another_fault_clears_the_account():
    """The key was doubted, the probe says that only the model is unknown: that model stops, the account goes on."""
    world = World()
    world.lane(20, script_of(errors.AuthError("hiccup"), *[errors.UnknownModelError("no such model")] * 9), name="a", limits=Limits(concurrency=1))
    world.lane(20, name="b")
    end = await world.run()
    assert list(end.stopped) == ["acc/a"]
    assert world.outcomes()["ok"] == 20


async def test_stopping_drains_what_is_in_flight_and_sends_nothing_more():
    """Ctrl-C: no send after it; the four on their way become rows; waiting ones are released at once, without a row."""
    world = World()
    client = world.lane(1000, script_of(errors.RateLimitedError("x", retry_after_s=1000)), latency=10, limits=Limits(concurrency=4))
    good = world.lane(1000, name="good", latency=10)

    async def interrupt():
        await world.clock.sleep(25)
        world.stop.request("interrupted")
        world.stop.request("again")

    task = asyncio.create_task(interrupt())
    end = await world.run()
    await task
    assert end.reason == "interrupted"
    assert end.error is None
    assert max(at for at, _ in client.sent + good.sent) < 25
    assert world.clock.seconds == 30
    assert world.outcomes() == {"ok": 12}


async def test_aborting_waits_for_nothing():
    """The second Ctrl-C: what is in flight is dropped without a row."""
    world = World()
    world.lane(100, latency=100)

    async def interrupt():
        await world.clock.sleep(5)
        world.stop.abort()

    task = asyncio.create_task(interrupt())
    end = await world.run()
    await task
    assert end.reason == "aborted"
    assert world.clock.seconds == 5
    assert world.records == []


async def test_an_answer_is_kept_whose_scorers_nobody_waits_for_any_longer():
    """A scorer that does not come back, a stop, the end of its grace: what was paid for is a row with the scores it has, and the others are still to come."""
    world = World()
    client = world.lane(100)

    async def never(request, completion):
        await asyncio.Event().wait()

    async def interrupt():
        await world.clock.sleep(5)
        world.stop.request("interrupted")
        await world.clock.sleep(30)
        world.stop.abort()

    scorers = {"quick": lambda request, completion: Score(value=1.0), "never": never, "another": never}
    end, _ = await asyncio.gather(world.run(score=lambda *answer: score_with(scorers, *answer, world.stop)), interrupt())
    assert (end.error, end.reason, world.clock.seconds) == (None, "interrupted", 35)
    assert len(client.sent) == 8
    assert {record.request.key for record in world.records} == {key for _, key in client.sent}
    for record in world.records:
        assert record.scores["quick"].value == 1
        assert all(record.scores[name].why.startswith(STILL_TO_COME) for name in ("never", "another"))


async def test_aborting_during_a_probe_is_no_mistake():
    """While one refused request asks again for all, a second Ctrl-C still ends the run as stopped: nothing is recorded, nothing goes wrong."""
    world = World()
    # the first four are refused after a second; the probe that follows takes for ever, and three workers wait for its verdict
    client = world.lane(20, lambda request, call, n: errors.AuthError("bad key", http_status=401) if call <= 4 else None)
    first, client.complete = client.complete, lambda request: first(request) if len(client.sent) < 4 else probe(request)

    async def probe(request):
        client.sent.append((world.clock.seconds, request.key))
        await world.clock.sleep(1000)

    async def interrupt():
        await world.clock.sleep(5)
        world.stop.request("interrupted")
        await world.clock.sleep(1)
        world.stop.abort()

    end, _ = await asyncio.gather(world.run(), interrupt())
    assert len(client.sent) == 5
    assert (end.error, end.reason, world.records) == (None, "interrupted", [])


async def test_a_stop_before_the_start_sends_nothing():
    """A signal that comes early is not lost."""
    world = World()
    client = world.lane(10)
    world.stop.request("interrupted")
    end = await world.run()
    assert end.reason == "interrupted"
    assert client.sent == []


async def test_a_store_that_fails_stops_the_run():
    """Disk full: the error is in the end, nothing more is sent, and what was in flight was still offered to the store."""
    world = World()
    client = world.lane(1000)
    added = []

    async def add(record):
        added.append(record)
        if len(added) == 10:
            raise errors.StoreError("disk full")

    end = await world.run(add=add)
    assert isinstance(end.error, errors.StoreError)
    assert len(client.sent) <= 10 + 4
    assert len(added) == len(client.sent)


async def test_a_data_file_that_breaks_half_way_stops_the_run():
    """Requests are made lazily, so a bad row can show up late: its error is in the end."""
    world = World()
    world.lane(5)

    def broken():
        yield from itertools.islice(requests_of(world.lanes[0].model, 5), 3)
        raise errors.DatasetError("data.jsonl:4: not JSON")

    world.lanes[0] = Lane(model=world.lanes[0].model, client=world.lanes[0].client, limiter=world.lanes[0].limiter, requests=broken())
    end = await world.run()
    assert isinstance(end.error, errors.DatasetError)
    assert world.outcomes() == {"ok": 3}


async def test_a_client_with_a_bug_costs_one_request():
    """A plug-in that raises what it should not: that request is tried once more, ends with the exception's words, and the run goes on."""
    world = World()
    world.lane(10, lambda request, *_: KeyError("choices") if request.key == "m-3" else None)
    end = await world.run()
    assert end.error is None
    assert world.outcomes() == {"ok": 9, "bad_output": 1}
    assert "KeyError" in world.of("m-3").error_message
    assert len(world.of("m-3").attempts) == 2


async def test_shared_limits_are_one_bucket_for_both_models():
    """Two models of an account with `shared: true` together send no more than the account may."""
    world = World()
    limiter = Limiter(Limits(concurrency=8, rpm=60, shared=True), world.clock)
    a = world.lane(30, name="a", limiter=limiter)
    b = world.lane(30, name="b", limiter=limiter)
    await world.run()
    sends = sorted(at for at, _ in a.sent + b.sent)
    assert max(sum(start <= at < start + 60 for at in sends) for start in sends) <= 60
    assert 60 <= world.clock.seconds <= 63


@pytest.mark.parametrize("limits", [Limits(concurrency=99, rpm=1200), Limits(concurrency=99, tpm=200_000), Limits(concurrency=99, rpm=1200, tpm=200_000)])
async def test_a_run_uses_its_declared_limits_in_full(limits):
    """Whole runs, reservations learned on the way: as long as the limit needs, within 2 % and the first answers, and no minute has more than declared."""
    world = World()
    client = world.lane(2000, limits=limits, latency=2, params={"max_tokens": 300})
    await world.run()
    assert world.outcomes() == {"ok": 2000}
    per_minute = min(limits.rpm or 1e9, (limits.tpm or 1e9) / 110)
    assert world.clock.seconds <= 1.02 * 60 * 2000 / per_minute + 4
    sends = [at for at, _ in client.sent]
    assert max(bisect.bisect_left(sends, start + 60) - i for i, start in enumerate(sends)) <= per_minute + (1 if limits.rpm else 60)


async def test_time_in_the_limiter_is_wait_and_not_service():
    """At one request a second the tenth waits, and its latency is still its own."""
    world = World()
    world.lane(10, limits=Limits(concurrency=10, rpm=60), latency=0.5)
    await world.run()
    last = max(world.records, key=lambda record: record.finished_us)
    assert last.wait_ms == pytest.approx(10_000, rel=0.02)
    assert last.user_latency_ms == pytest.approx(last.wait_ms + 500)
    assert last.attempts[0].latency_ms == 500


async def test_cancelling_a_run_leaves_nothing_behind():
    """Whoever cancels `execute` gets a CancelledError, and no task of the run survives."""
    world = World()
    world.lane(100, limits=Limits(concurrency=4, rpm=600), latency=50)
    before = asyncio.all_tasks()
    task = asyncio.create_task(world.run())
    await asyncio.sleep(0)
    await world.clock.sleep(20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


async def test_a_grid_of_any_size_starts_at_once_and_is_never_a_list():
    """Requests are pulled when a worker is free: of an endless plan only the open ones exist."""
    world = World()
    world.lane(1, latency=1)
    model = world.lanes[0].model
    pulled = []

    def endless():
        for i in itertools.count():
            pulled.append(i)
            yield next(requests_of(model, 1))

    world.lanes[0] = Lane(model=model, client=world.lanes[0].client, limiter=world.lanes[0].limiter, requests=endless())

    async def add(record):
        world.records.append(record)
        if len(world.records) == 20:
            world.stop.request("enough")

    await world.run(add=add)
    assert len(pulled) <= 20 + 2 * (4 + 4)


async def test_a_patient_policy_is_the_users():
    """`retry:` in the config is obeyed: two attempts are two."""
    world = World()
    world.lane(1, lambda *_: errors.ServerError("x"))
    await world.run(policy=RetryPolicy(max_attempts=2))
    assert len(world.records[0].attempts) == 2


async def test_scoring_that_breaks_down_keeps_the_answer():
    """If scoring as a whole fails, the run stops with that error, and the answer that was paid for is a row without scores."""
    world = World()
    client = world.lane(100)

    async def score(request, completion):
        raise RuntimeError("no scorers")

    end = await world.run(score=score)
    assert isinstance(end.error, RuntimeError)
    assert len(world.records) == len(client.sent) == 4
    assert world.outcomes() == {"ok": 4}


async def test_a_stop_is_stronger_than_a_doubt_about_the_key():
    """Ctrl-C while a 401 waits for its probe: the probe is not sent, and nobody waits for it."""
    world = World()

    def say(request, call, n):
        world.stop.request("interrupted")
        return errors.AuthError("bad key")

    client = world.lane(100, say)
    end = await world.run()
    assert end.reason == "interrupted"
    assert not end.stopped
    assert len(client.sent) == 4
    assert world.clock.seconds == 1


async def test_a_run_without_lanes_is_over():
    """Nothing to do, as after a resume of a finished run, is no error, and nobody is missing."""
    world = World()
    end = await world.run()
    assert end == End()


async def test_progress_can_be_read_while_it_runs():
    """Counters for the progress line are true in the middle of a run, too."""
    world = World()
    world.lane(100, script_of(errors.ServerError("x")), limits=Limits(concurrency=2))
    seen = []

    async def look():
        await world.clock.sleep(1.5)
        seen.append((world.tally.in_flight, world.tally.retrying, world.tally.sent, world.tally.done))
        world.stop.request("enough")

    task = asyncio.create_task(look())
    await world.run()
    await task
    [(in_flight, retrying, sent, done)] = seen
    assert in_flight == 2
    assert retrying + sent + done > 0
    assert (world.tally.in_flight, world.tally.retrying) == (0, 0)


async def test_a_process_that_does_not_listen_is_found_out():
    """A client that blocks the event loop spoils the times of what is on its way: those rows say for how long, the others nothing, and it is told once."""
    world, told = World(), []
    world.tally.warn = told.append
    blocked = {"m-1": 1.1, "m-3": 1.2}

    def block(request, call, n):
        time.sleep(blocked.get(request.key, 0))

    world.lane(5, block, limits=Limits(concurrency=1))
    await world.run()
    assert {record.request.key for record in world.records if (record.stalled_ms or 0) > 1000} == set(blocked)
    assert world.tally.largest_stall_ms > 1000
    [line] = told
    assert "this process stood still for 1." in line
    assert "plain function" in line
