"""429s that have nothing to do with the rate cost what they say and no more. In virtual time, against a server that refuses at random."""

from __future__ import annotations

import asyncio
import random

import pytest
from fake_clock import FakeClock

from evalrunner import errors
from evalrunner.engine.congestion import Congestion
from evalrunner.engine.limiter import Limiter
from evalrunner.records import Limits

S = 1_000_000_000


async def answered(seconds, *, noise, retry_after=None, rpm=None, slots=64, latency=1.0, seed=1):
    """When answers came, from a server that takes `latency` for each and refuses a share of `noise` whatever the rate."""
    clock, rng = FakeClock(), random.Random(seed)
    limiter = Limiter(Limits(concurrency=slots, rpm=rpm), clock)
    done = []

    async def work(number):
        jitter = random.Random(number)
        while True:
            permit = await limiter.acquire(str(number))
            if rng.random() < noise:
                await clock.sleep(0.02)
                limiter.release(permit, errors.RateLimitedError("not now", retry_after_s=retry_after))
                await clock.sleep(max(jitter.uniform(0, 1), retry_after or 0))
            else:
                await clock.sleep(latency)
                done.append(clock.seconds)
                limiter.release(permit)

    tasks = [asyncio.create_task(work(number)) for number in range(2 * slots)]
    await clock.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return done


@pytest.mark.parametrize("rpm", [None, 3600, 600], ids=["nothing declared", "3600 declared", "600 declared"])
@pytest.mark.parametrize(("noise", "retry_after"), [(0.04, 1), (0.04, None), (0.01, 1), (0.01, None)])
async def test_random_429s_leave_what_their_parks_allow(rpm, noise, retry_after):
    """1 % or 4 % of random 429s leave, over five minutes, at least 80 % of the rate that parks allow, and the last minutes are no worse."""
    full = min(64.0, rpm / 60 if rpm else 64.0)
    allowed = full / (1 + full * noise * (retry_after or 0)) * (1 - noise)
    done = await answered(300, noise=noise, retry_after=retry_after, rpm=rpm)
    assert len(done) / 300 >= 0.8 * allowed
    assert sum(at >= 180 for at in done) / 120 >= 0.7 * allowed


async def test_as_many_as_a_tenth_are_noise():
    """One in ten refused at random: at least 80 % of the rate is kept."""
    assert len(await answered(120, noise=0.1)) >= 0.8 * 120 * 64 * 0.9


def refuse(congestion, now, requests, hits):
    """So many requests within a second, so many of them refused, far between."""
    for number in range(requests):
        at = now + number * S // requests
        congestion.admitted(0, at)
        if hits and number % (requests // hits) == requests // hits - 1:
            congestion.throttled(at, at, burst=False)
        else:
            congestion.passed(at)


def test_a_share_that_a_cut_did_not_change_gives_the_rate_back():
    """Few 429s in a hundred at the full rate, and as many at the reduced one: the rate is not why."""
    congestion = Congestion(60.0, None, 0)
    refuse(congestion, 0, 60, 3)
    assert congestion.share(S) < 0.75
    refuse(congestion, 3 * S, 40, 3)
    assert congestion.share(4 * S) >= 0.9


def test_a_limit_that_is_lower_still_is_cut_for_again():
    """Where the reduced rate is refused in a row, it is still too high."""
    congestion = Congestion(60.0, None, 0)
    refuse(congestion, 0, 60, 3)
    before = congestion.share(S)
    for _ in range(6):
        congestion.admitted(0, 3 * S)
    for _ in range(6):
        congestion.throttled(3 * S, 3 * S + S // 10, burst=False)
    assert congestion.share(4 * S) < 0.7 * before


def test_a_park_is_no_measure_of_the_rate():
    """After an hour in which nothing might be sent, a cut falls from the rate of before, and nothing has grown meanwhile."""
    rates = []
    for parked in (0, 3600 * S):
        congestion = Congestion(60.0, None, 0)
        refuse(congestion, 0, 60, 0)
        congestion.parked(S, S + parked)
        refuse(congestion, S + parked, 60, 3)
        rates.append(congestion.share(2 * S + parked))
        congestion.parked(2 * S + parked, 2 * S + 2 * parked)
        rates.append(congestion.share(2 * S + 2 * parked))
    assert rates == pytest.approx([rates[0]] * 4, rel=0.05)
    assert 0.5 < rates[0] < 0.75


def test_errors_during_a_park_do_not_shorten_it():
    """A 5xx that comes in while nothing is sent leaves the rate where it was: it has not grown when the park is over."""
    congestion = Congestion(60.0, None, 0)
    refuse(congestion, 0, 60, 3)
    before = congestion.share(S)
    congestion.parked(S, 101 * S)
    congestion.troubled(2 * S)
    assert congestion.share(101 * S) == pytest.approx(before, rel=0.02)
