"""Limits are never exceeded, are used in full, and are learned where nobody declared them. In virtual time, against a server that counts."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from bisect import bisect_left
from collections import deque

import pytest
from fake_clock import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrunner import errors
from evalrunner.engine.breaker import OPENS_AFTER, Breaker
from evalrunner.engine.congestion import Congestion
from evalrunner.engine.forecast import Forecast
from evalrunner.engine.limiter import Limiter
from evalrunner.records import Cell, Limits, Model, Request, Sample, Usage

S = 1_000_000_000


class Server:
    """Counts as Qwen does: so many requests and so many tokens in any window of `window` seconds; a request's tokens count when it is done."""

    def __init__(self, clock, *, rpm=None, tpm=None, window=60.0, tokens=lambda: 100, latency=lambda: 0.5):
        self.clock = clock
        self.tokens, self.latency = tokens, latency
        self.most = rpm * window / 60 if rpm else None
        self.most_tokens = tpm * window / 60 if tpm else None
        self.window = window
        self.sent, self.refused, self.done = [], [], []
        self._requests = deque()
        self._spent = deque()
        self._spent_sum = 0

    async def answer(self):
        """The tokens used; raises a 429 where a limit is reached."""
        now = self.clock.seconds
        self.sent.append(now)
        while self._requests and self._requests[0] <= now - self.window:
            self._requests.popleft()
        while self._spent and self._spent[0][0] <= now - self.window:
            self._spent_sum -= self._spent.popleft()[1]
        if (self.most and len(self._requests) >= self.most) or (self.most_tokens and self._spent_sum >= self.most_tokens):
            self.refused.append(now)
            await self.clock.sleep(0.02)
            raise errors.RateLimitedError("slow down", http_status=429)
        self._requests.append(now)
        await self.clock.sleep(self.latency())
        used = self.tokens()
        self._spent.append((self.clock.seconds, used))
        self._spent_sum += used
        self.done.append((self.clock.seconds, used))
        return used


async def drive(clock, limiter, server, seconds, *, workers=64, estimate=100, back_off=0.0):
    """Workers that send as fast as the limiter lets them."""

    async def work(number):
        rng = random.Random(number)
        for n in itertools.count():
            permit = await limiter.acquire(f"{number}-{n}", estimate)
            try:
                used = await server.answer()
            except errors.RequestError as error:
                limiter.release(permit, error)
                await clock.sleep(rng.uniform(0, back_off))
            else:
                limiter.release(permit, used=used)

    tasks = [asyncio.create_task(work(number)) for number in range(workers)]
    await clock.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def most_in_a_window(times, seconds):
    """The largest count in any half-open window of `seconds`."""
    times = sorted(times)
    return max((bisect_left(times, start + seconds) - i for i, start in enumerate(times)), default=0)


@settings(max_examples=12, deadline=None)
@given(rpm=st.integers(1, 3000), slots=st.integers(1, 40), latency=st.floats(0, 5), seed=st.integers())
def test_no_window_ever_has_more_than_the_declared_requests(rpm, slots, latency, seed):
    """Whatever the rate, the slots and the server's latency: in no 60 s more requests than declared, and in no second much more than a sixtieth."""

    async def run():
        clock, rng = FakeClock(), random.Random(seed)
        server = Server(clock, latency=lambda: rng.uniform(0, latency))
        await drive(clock, Limiter(Limits(concurrency=slots, rpm=rpm), clock), server, 130, workers=slots + 2)
        assert most_in_a_window(server.sent, 60) <= rpm
        assert most_in_a_window(server.sent, 1) <= 1.1 * rpm / 60 + 1

    asyncio.run(run())


@settings(max_examples=12, deadline=None)
@given(tpm=st.integers(10_000, 1_000_000), mean=st.integers(50, 1000), seed=st.integers())
def test_no_window_ever_has_more_than_the_declared_tokens(tpm, mean, seed):
    """With reservations that are upper bounds, the tokens sent in any 60 s stay under the limit, up to one request and what was reserved too much."""

    async def run():
        clock, rng = FakeClock(), random.Random(seed)
        used = []

        def tokens():
            used.append(rng.randint(1, mean))
            return used[-1]

        server = Server(clock, tokens=tokens, latency=lambda: rng.uniform(0.1, 2))
        await drive(clock, Limiter(Limits(concurrency=20, tpm=tpm), clock), server, 130, workers=24, estimate=mean)
        ends = [at for at, _ in server.done]
        window = max((sum(n for _, n in server.done[i : bisect_left(ends, start + 60)]) for i, start in enumerate(ends)), default=0)
        assert window <= tpm + (1 + 20) * mean

    asyncio.run(run())


@pytest.mark.parametrize("rpm", [60, 600, 1200, 30_000])
async def test_a_declared_request_limit_is_used_in_full(rpm):
    """At least 99 % of it in steady state, and the server never has to refuse."""
    clock = FakeClock()
    server = Server(clock, rpm=rpm, window=15 if rpm > 60 else 60)
    await drive(clock, Limiter(Limits(concurrency=300, rpm=rpm), clock), server, 80, workers=304)
    steady = sum(20 <= at < 80 for at in server.sent)
    assert steady >= 0.99 * rpm
    assert not server.refused


@pytest.mark.parametrize("estimate", [100, 300, 1000], ids=["right", "three times too high", "too high by far"])
async def test_a_declared_token_limit_is_used_in_full(estimate):
    """At least 99 % of it in steady state, however much was reserved: what was not used comes back."""
    clock, rng = FakeClock(), random.Random(0)
    server = Server(clock, tpm=1_000_000, tokens=lambda: rng.randint(1, 199), latency=lambda: rng.uniform(0.2, 1))
    await drive(clock, Limiter(Limits(concurrency=1000, tpm=1_000_000), clock), server, 110, workers=1010, estimate=estimate)
    used = sum(tokens for at, tokens in server.done if 30 <= at < 110)
    assert used >= 0.99 * 1_000_000 * 80 / 60
    assert len(server.refused) < 0.01 * len(server.sent)


async def test_reservations_that_are_too_low_are_made_up_for():
    """Estimating a tenth of what is used does not exceed the limit: settlement leaves a debt that the next requests wait for."""
    clock = FakeClock()
    server = Server(clock, tpm=600_000, tokens=lambda: 1000)
    await drive(clock, Limiter(Limits(concurrency=50, tpm=600_000), clock), server, 150, workers=55, estimate=100)
    used = sum(tokens for at, tokens in server.done if 30 <= at < 150)
    assert used <= 1.01 * 1_200_000
    assert used >= 0.9 * 1_200_000


async def test_slots_bound_what_is_in_flight():
    """Never more than `concurrency` permits out at once, and all of them when there is work."""
    clock = FakeClock(auto=False)
    limiter = Limiter(Limits(concurrency=3), clock)
    permits = [await limiter.acquire() for _ in range(3)]
    waiting = asyncio.create_task(limiter.acquire())
    await clock.settle()
    assert not waiting.done()
    limiter.release(permits[0])
    await clock.settle()
    assert waiting.done()


async def test_permits_come_in_order_of_arrival():
    """Nobody is overtaken, small requests do not pass a big one."""
    clock = FakeClock()
    limiter = Limiter(Limits(concurrency=100, rpm=600, tpm=60_000), clock)
    order = []

    async def one(number):
        await limiter.acquire(str(number), 5000 if number == 3 else 10)
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert order == list(range(20))


async def test_the_slot_is_stamped_before_the_pacing():
    """A closed loop schedules a request when its slot is free; waiting for the rate comes after that."""
    clock = FakeClock()
    limiter = Limiter(Limits(concurrency=2, rpm=60), clock)
    first, second = await asyncio.gather(limiter.acquire(), limiter.acquire())
    assert first.slot_ns == second.slot_ns
    assert (second.admitted_ns - second.slot_ns) / S == pytest.approx(2 / 0.995, rel=1e-3)


async def test_a_cancelled_waiter_leaves_no_hole():
    """Cancelling those who wait for a slot, for the rate, or at the very moment of being admitted gives everything back."""
    clock = FakeClock(auto=False)
    limiter = Limiter(Limits(concurrency=2, rpm=60), clock)
    tasks = [asyncio.create_task(limiter.acquire(str(i))) for i in range(6)]
    await clock.settle()
    for task in (tasks[0], tasks[1], tasks[3]):
        task.cancel()
    await clock.advance(10)
    assert [task.done() and not task.cancelled() for task in tasks] == [False, False, True, False, True, False]
    limiter.release(tasks[2].result())
    limiter.release(tasks[4].result())
    tasks[5].cancel()
    await clock.advance(10)
    permits = [await asyncio.wait_for(limiter.acquire(), 1) for _ in range(1)]
    limiter.release(permits[0])


async def test_being_cancelled_while_admitted_gives_the_slot_back():
    """Admission and cancellation in the same turn of the loop: the slot is free again."""
    clock = FakeClock(auto=False)
    limiter = Limiter(Limits(concurrency=1), clock)
    held = await limiter.acquire()
    task = asyncio.create_task(limiter.acquire())
    await clock.settle()
    limiter.release(held)
    task.cancel()
    await clock.settle()
    assert task.cancelled()
    limiter.release(await asyncio.wait_for(limiter.acquire(), 1))


async def test_retry_after_parks_everybody_and_the_herd_comes_back_in_step():
    """Nothing goes out for as long as the server asked, although nothing was declared; then no more at once than went before."""
    clock = FakeClock()
    limiter = Limiter(Limits(concurrency=32), clock)
    server = Server(clock, latency=lambda: 1.0)
    driving = asyncio.create_task(drive(clock, limiter, server, 60, workers=40))
    await clock.sleep(10.5)
    permit = limiter.seize("x")
    limiter.release(permit, errors.RateLimitedError("x", retry_after_s=7))
    assert limiter.parked_until_ns == clock.now_ns() + 7 * S
    await driving
    assert not [at for at in server.sent if 10.5 < at < 17.5]
    assert most_in_a_window([at for at in server.sent if at >= 17.5], 0.5) <= 24
    assert sum(at > 17.5 for at in server.sent) > 32 * 30


async def test_a_lone_429_changes_nothing():
    """A stray 429 among many answers does not lower the rate."""
    clock = FakeClock()
    limiter = Limiter(Limits(concurrency=32, rpm=600), clock)
    server = Server(clock)
    driving = asyncio.create_task(drive(clock, limiter, server, 100, workers=40))
    await clock.sleep(30)
    limiter.release(limiter.seize("x"), errors.RateLimitedError("x"))
    await driving
    assert sum(30 <= at < 90 for at in server.sent) >= 590


@pytest.mark.parametrize(("declared", "real"), [(1200, 600), (3000, 300), (1200, 1100)])
async def test_a_limit_that_was_declared_too_high_is_found(declared, real):
    """The server allows less than the config says: most of what it allows is used, and few requests are refused."""
    clock = FakeClock()
    server = Server(clock, rpm=real, window=10, latency=lambda: 0.5)
    await drive(clock, Limiter(Limits(concurrency=32, rpm=declared), clock), server, 400, workers=64, back_off=4)
    done = sum(100 <= at < 400 for at, _ in server.done)
    assert done >= 0.85 * real * 5
    assert sum(at >= 100 for at in server.refused) <= 0.06 * done


@pytest.mark.parametrize("real", [60, 600])
async def test_an_undeclared_limit_is_learned(real):
    """Nothing declared, a server that counts: the limiter finds its rate from the 429s alone."""
    clock = FakeClock()
    server = Server(clock, rpm=real, window=10, latency=lambda: 0.3)
    await drive(clock, Limiter(Limits(concurrency=32), clock), server, 400, workers=64, back_off=4)
    done = sum(100 <= at < 400 for at, _ in server.done)
    assert done >= 0.8 * real * 5
    assert sum(at >= 100 for at in server.refused) <= 0.1 * done


async def test_after_trouble_the_declared_rate_comes_back():
    """Two minutes of a halved limit, then the whole one again: within two minutes at least 95 % of it is used."""
    clock = FakeClock()
    server = Server(clock, rpm=600, window=10)
    limiter = Limiter(Limits(concurrency=32, rpm=1200), clock)
    driving = asyncio.create_task(drive(clock, limiter, server, 360, workers=64, back_off=4))
    await clock.sleep(120)
    server.most = None
    await driving
    assert sum(240 <= at < 360 for at in server.sent) >= 0.95 * 2400


def test_one_episode_is_one_cut():
    """Requests that were on their way when the rate was cut say nothing new."""
    congestion = Congestion(20.0, None, 0)
    for _ in range(100):
        congestion.admitted(0, 5 * S)
        congestion.passed(5 * S)
    for _ in range(50):
        congestion.throttled(5 * S, 6 * S, burst=False)
    assert congestion.share(6 * S) == pytest.approx(0.7 * 100 / 103, rel=0.2)
    assert congestion.share(6 * S + 60 * S) == 1.0


def test_growing_too_fast_makes_recovery_slower():
    """A burst limit concerns the slope: the way back takes twice as long."""
    shares = []
    for burst in (False, True):
        congestion = Congestion(20.0, None, 0)
        for _ in range(100):
            congestion.admitted(0, S)
            congestion.passed(S)
        for _ in range(3):
            congestion.throttled(S, 2 * S, burst=burst)
        shares.append(congestion.share(12 * S))
    assert shares[1] < shares[0] < 1


def test_a_shut_door_is_knocked_at_less_and_less_often():
    """When nothing at all gets through, waits double up to half a minute, and the rate is cut once."""
    congestion = Congestion(20.0, None, 0)
    now, waits = S, []
    for _ in range(8):
        for _ in range(3):
            congestion.admitted(0, now)
        shut = [congestion.throttled(now, now + S // 10, burst=False) for _ in range(3)]
        waits.append(shut[-1])
        now += S + int(shut[-1] * S)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert congestion.share(now + 120 * S) == 1.0


def test_errors_of_the_server_hold_recovery_up_and_cut_nothing():
    """During a burst of 5xx the rate does not grow; it does not fall either."""
    congestion = Congestion(20.0, None, 0)
    for _ in range(100):
        congestion.admitted(0, S)
        congestion.passed(S)
    for _ in range(3):
        congestion.throttled(S, 2 * S, burst=False)
    before = congestion.share(2 * S)
    for tenth in range(50):
        congestion.troubled(2 * S + tenth * S // 10)
    assert congestion.share(2 * S + 49 * S // 10) == pytest.approx(before, rel=0.02)


def test_one_poisoned_request_does_not_open_the_breaker():
    """However often the same request fails; different ones in a row do, and a success in between starts over."""
    breaker = Breaker()
    for _ in range(100):
        breaker.failed("poison", S, probe=False)
    assert not breaker.is_open
    for number in range(OPENS_AFTER - 2):
        breaker.failed(str(number), S, probe=False)
    breaker.answered()
    for number in range(OPENS_AFTER - 1):
        breaker.failed(str(number), S, probe=False)
    assert not breaker.is_open
    breaker.failed("last", S, probe=False)
    assert breaker.is_open


async def test_while_nobody_is_at_home_one_probe_goes_at_a_time():
    """After the breaker opened: one second, one probe; it fails: two seconds, one probe; it is answered: everybody goes."""
    clock = FakeClock(auto=False)
    limiter = Limiter(Limits(concurrency=10), clock)
    for number in range(OPENS_AFTER):
        limiter.release(await limiter.acquire(str(number)), errors.TransportError("refused"))
    tasks = [asyncio.create_task(limiter.acquire(f"t{n}")) for n in range(8)]
    await clock.advance(0.9)
    assert not any(task.done() for task in tasks)
    await clock.advance(60)
    assert [task.done() for task in tasks] == [True] + [False] * 7
    limiter.release(tasks[0].result(), errors.TransportError("refused"))
    await clock.advance(1.9)
    assert not tasks[1].done()
    await clock.advance(0.2)
    assert [task.done() for task in tasks] == [True] * 2 + [False] * 6
    limiter.release(tasks[1].result())
    await clock.settle()
    assert all(task.done() for task in tasks)


@pytest.mark.parametrize(
    ("then", "dark_s"),
    [
        (errors.RateLimitedError("slow down"), 2000),
        (errors.TransportError("refused", phase="connect"), 2000),
        (errors.DeadlineError("no complete answer", phase="total"), 0),
        (errors.ServerError("overloaded"), 0),
        (None, 0),
    ],
)
async def test_nothing_but_429s_is_as_dark_as_nobody_at_home(then, dark_s):
    """A model that refuses everybody is stopped after a while; one that takes requests and is slow to answer them is not among those."""
    clock = FakeClock(auto=False)
    limiter = Limiter(Limits(concurrency=2), clock)
    first, second = [await limiter.acquire(str(number)) for number in range(2)]
    limiter.release(first, errors.RateLimitedError("slow down"))
    await clock.advance(1000)
    limiter.release(second, then)
    await clock.advance(1000)
    assert limiter.dark_s() == dark_s


async def test_a_cancelled_probe_lets_the_next_one_go():
    """The breaker does not wait for ever for a probe that was given up."""
    clock = FakeClock()
    limiter = Limiter(Limits(concurrency=10), clock)
    for number in range(OPENS_AFTER):
        limiter.release(await limiter.acquire(str(number)), errors.TransportError("refused"))
    probe = await limiter.acquire("probe")
    limiter.abandon(probe)
    assert (await asyncio.wait_for(limiter.acquire("next"), 1)).probe


async def test_no_timer_is_left_when_nobody_waits():
    """A limiter that is not used any more holds no task."""
    clock = FakeClock(auto=False)
    before = asyncio.all_tasks()
    limiter = Limiter(Limits(concurrency=10, rpm=60), clock)
    task = asyncio.create_task(limiter.acquire())
    await clock.settle()
    task.cancel()
    await clock.settle()
    assert asyncio.all_tasks() == before


def request(text, **params):
    model = Model(name="m", id="m", provider="p")
    cell = Cell(prompt_set="s", prompt="p", model=model, params=params, stream=False)
    return Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[{"role": "user", "content": text}])


def test_reservations_are_learned_from_what_came_back():
    """After some answers the forecast is right on average, for input and output."""
    forecast = Forecast()
    asked = request("x" * 400)
    assert forecast.tokens(asked) > 500
    for _ in range(200):
        forecast.learn(asked, Usage(prompt_tokens=200, completion_tokens=20))
    assert forecast.tokens(asked) == pytest.approx(220, rel=0.02)


def test_a_max_tokens_bounds_the_reservation():
    """No more output is reserved than the request may produce; media count, too."""
    assert Forecast().tokens(request("x" * 30, max_tokens=7)) == 17
    assert Forecast().tokens(request([{"text": "abc"}, {"image": "a.png"}], max_tokens=1)) > 1000


async def test_a_permit_costs_next_to_nothing_when_nobody_waits():
    """The limiter is not felt: well under 50 µs for acquire and release, with every limit declared."""
    clock = FakeClock()
    limiter = Limiter(Limits(concurrency=10, rpm=6e9, tpm=6e12), clock)
    await clock.sleep(1)
    limiter.release(await limiter.acquire("k", 10), used=10)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(2000):
            limiter.release(await limiter.acquire("k", 10), used=10)
        best = min(best, (time.process_time() - start) / 2000)
    assert best < 50e-6
