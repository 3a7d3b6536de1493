"""One account and model's limits: slots, requests and tokens per minute, learned downward from 429s, parked by Retry-After, shut while nobody answers.

A request first gets a slot (that moment is its schedule in a closed loop), then waits for the buckets, both in order of arrival. Buckets start empty, so that
a run never opens with a burst. They hold at most the next request and 100 ms of their rate: enough to make up for a stalled process, little enough for
a provider that counts by the second. They run at 0.995 of what is declared: in any window of 60 s at most the declared requests are sent, and at most the
declared tokens and one request more, plus what requests still on their way had reserved too much.

Nothing polls: what frees something (a release, the end of a park, time) admits whoever is next. One timer per limiter, constant work per request.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

from evalrunner.clock import SYSTEM_CLOCK, Clock
from evalrunner.engine.breaker import Breaker
from evalrunner.engine.congestion import Congestion
from evalrunner.engine.retry import retry_after_s
from evalrunner.errors import DeadlineError, EndpointError, RateLimitedError, RequestError, ServerError, TransportError
from evalrunner.records import Limits

MARGIN = 0.995
SLACK_S = 0.1
LOOK_AGAIN_S = 1.0
"""While a rate recovers, a wait computed from it is looked at again after so long."""


class Permit:
    """The right to send one request. `slot_ns`: when it got its slot; `admitted_ns`: when it could be sent."""

    __slots__ = ("admitted_ns", "future", "gone", "key", "probe", "slot_ns", "tokens")

    def __init__(self, key: str, tokens: int) -> None:
        self.key = key
        self.tokens = tokens
        self.slot_ns = 0
        self.admitted_ns = 0
        self.gone = self.probe = False
        self.future: asyncio.Future[None] | None = None


class Limiter:
    """Hands out permits: `acquire` waits for one, `release` says how the request ended. `shared` limits are one limiter in several lanes.

    No server parks it for longer than `patience_s`; then it is asked again.
    """

    def __init__(self, limits: Limits, clock: Clock = SYSTEM_CLOCK, patience_s: float = math.inf) -> None:
        now = clock.now_ns()
        request_rate = limits.rpm / 60 * MARGIN if limits.rpm is not None else None
        token_rate = limits.tpm / 60 * MARGIN if limits.tpm is not None else None
        self.slots = limits.concurrency
        self._clock = clock
        self._congestion = Congestion(request_rate, token_rate, now)
        self._tokens = _Bucket(token_rate, now) if token_rate is not None else None
        # Without any declared rate, one request a second is the unit of the learned one.
        self._requests = None if self._tokens is not None and request_rate is None else _Bucket(request_rate or 1.0, now)
        self._breaker = Breaker()
        self._queue: deque[Permit] = deque()
        self._paced: deque[Permit] = deque()
        self._busy = 0
        self._holds = 0
        self._parked_ns = 0
        self._patience_s = patience_s
        self._refused_ns = 0
        self._timer: asyncio.Task[None] | None = None
        self._timer_ns = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether `acquire` needs an estimate of tokens."""
        return self._tokens is not None

    @property
    def parked_until_ns(self) -> int:
        """Until when nothing is sent, by order of the server or because it does not answer; in the past if it is not parked."""
        return max(self._parked_ns, self._breaker.next_ns if self._breaker.is_open else 0)

    def dark_s(self) -> float:
        """For how long no connection has succeeded, once several in a row failed, or there was nothing but 429s."""
        now = self._clock.now_ns()
        return max(self._breaker.dark_s(now), (now - self._refused_ns) / 1e9 if self._refused_ns else 0.0)

    async def acquire(self, key: str = "", tokens: int = 0) -> Permit:
        """Wait for a slot, then for the buckets. `tokens` is what the request may use in all; `key` tells requests apart."""
        permit = Permit(key, tokens)
        self._queue.append(permit)
        self._pump(self._clock.now_ns())
        if not permit.admitted_ns:
            permit.future = asyncio.get_running_loop().create_future()
            try:
                await permit.future
            except asyncio.CancelledError:
                self._withdraw(permit)
                raise
        return permit

    def seize(self, key: str = "", tokens: int = 0) -> Permit:
        """A permit at once, past queue, holds and parks: for the one probe that decides about an account."""
        permit = Permit(key, tokens)
        permit.slot_ns = self._clock.now_ns()
        self._busy += 1
        self._admit(permit, permit.slot_ns)
        return permit

    def release(self, permit: Permit, error: RequestError | EndpointError | None = None, used: int | None = None) -> None:
        """The request has ended, with `error` or an answer; `used` tokens in all, None if unknown: then the estimate stands.

        It stands after a 429, too: giving it back would send the next request into the same wall at once.
        """
        now = self._clock.now_ns()
        self._busy -= 1
        if self._tokens is not None and used is not None:
            self._tokens.refund(permit.tokens - used, self._congestion.share(now), now)
            self._congestion.settled(permit.admitted_ns, used - permit.tokens)
        self._learn(permit, error, now)
        self._pump(now)

    def abandon(self, permit: Permit) -> None:
        """The request was cancelled under way: give back the slot and learn nothing."""
        self._busy -= 1
        if permit.probe:
            self._breaker.gave_up()
        self._pump(self._clock.now_ns())

    def hold(self) -> None:
        """Admit nobody until `resume`, once for each hold."""
        self._holds += 1

    def resume(self) -> None:
        self._holds -= 1
        self._pump(self._clock.now_ns())

    def park(self, seconds: float) -> None:
        """Admit nobody for so long; the longest order stands."""
        now = self._clock.now_ns()
        self._parked_ns = max(self._parked_ns, now + math.ceil(seconds * 1e9))
        self._congestion.parked(now, self._parked_ns)

    def _learn(self, permit: Permit, error: RequestError | EndpointError | None, now: int) -> None:
        if not isinstance(error, RateLimitedError) and (error is None or error.phase != "connect"):
            self._refused_ns = 0  # it was taken, whatever became of it
        if isinstance(error, TransportError | DeadlineError):
            # Other deadlines pass for slow answers too: they say something about nobody's being at home only if they were asked as a probe.
            if permit.probe or isinstance(error, TransportError) or error.phase == "connect":
                self._breaker.failed(permit.key, now, probe=permit.probe)
            return
        self._breaker.answered()
        if isinstance(error, RateLimitedError):
            self._refused_ns = self._refused_ns or now
            shut_s = self._congestion.throttled(permit.admitted_ns, now, burst=error.burst)
            if shut_s:
                self.park(shut_s)
        else:
            self._congestion.passed(permit.admitted_ns)
            if isinstance(error, ServerError):
                self._congestion.troubled(now)
        if isinstance(error, RateLimitedError | ServerError) and (asked := retry_after_s(error)):
            self._congestion.pace(now)
            self.park(min(asked, self._patience_s))

    def _pump(self, now: int) -> None:
        """Admit whoever may go now, in order, and set the timer for the next one."""
        queue, paced = self._queue, self._paced
        while queue and self._busy < self.slots:
            permit = queue.popleft()
            if not permit.gone:
                permit.slot_ns = now
                self._busy += 1
                paced.append(permit)
        while paced:
            permit = paced[0]
            if not permit.gone:
                delay = self._delay(permit, now)
                if delay > 0:
                    self._wake_in(delay, now)
                    return
                self._admit(permit, now)
            paced.popleft()
        self._wake_in(math.inf, now)
        if self._tokens is not None:
            self._tokens.settle()

    def _admit(self, permit: Permit, now: int) -> None:
        if self._requests is not None:
            self._requests.level -= 1
        if self._tokens is not None:
            self._tokens.level -= permit.tokens
        self._congestion.admitted(permit.tokens, now)
        self._breaker.sent()
        permit.probe = self._breaker.probing
        permit.admitted_ns = now
        if permit.future is not None and not permit.future.done():
            permit.future.set_result(None)

    def _delay(self, permit: Permit, now: int) -> float:
        """Seconds until `permit` may go; infinite if something else must happen first."""
        if self._holds or self._breaker.probing:
            return math.inf
        parked = (self.parked_until_ns - now) / 1e9
        share = self._congestion.share(now)
        delay = self._requests.ready_in(1, share, now) if self._requests is not None else 0.0
        if self._tokens is not None:
            delay = max(delay, self._tokens.ready_in(permit.tokens, share, now))
        if share != 1:
            delay = min(delay, LOOK_AGAIN_S)
        return max(delay, parked)

    def _withdraw(self, permit: Permit) -> None:
        permit.gone = True
        if permit.admitted_ns:
            self.abandon(permit)
        elif permit.slot_ns:
            self._busy -= 1
            self._pump(self._clock.now_ns())

    def _wake_in(self, seconds: float, now: int) -> None:
        if math.isinf(seconds):
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        at = now + math.ceil(seconds * 1e9)
        if self._timer is not None:
            if self._timer_ns <= at:
                return
            self._timer.cancel()
        self._timer_ns = at
        self._timer = asyncio.get_running_loop().create_task(self._wake(seconds))

    async def _wake(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._pump(self._clock.now_ns())


class _Bucket:
    """Fills at `rate` × share a second, up to the next request and a little slack; may owe."""

    __slots__ = ("_full", "_stamp_ns", "level", "rate")

    def __init__(self, rate: float, now_ns: int) -> None:
        self.rate = rate
        self.level = self._full = 0.0
        self._stamp_ns = now_ns

    def ready_in(self, amount: float, share: float, now_ns: int) -> float:
        """Seconds until the level reaches `amount`."""
        if math.isinf(share):
            self._stamp_ns, self.level = now_ns, 0.0
            return 0.0
        rate = self.rate * share
        self._full = amount + rate * SLACK_S
        self._fill(rate, now_ns)
        missing = amount - self.level
        return missing / rate if missing > 1e-9 else 0.0

    def refund(self, amount: float, share: float, now_ns: int) -> None:
        """Give back what a request did not use; take what it used beyond its reservation."""
        self._fill(self.rate * share, now_ns)
        self.level += amount

    def settle(self) -> None:
        """Nobody waits: what came back and was not wanted is gone, so that it cannot become a burst later."""
        self.level = min(self.level, self.rate * SLACK_S)

    def _fill(self, rate: float, now_ns: int) -> None:
        if self.level < self._full:
            self.level = min(self._full, self.level + (now_ns - self._stamp_ns) / 1e9 * rate)
        self._stamp_ns = now_ns
