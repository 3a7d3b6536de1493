"""A clock that tests own: time passes only when everybody waits for it, so an hour of back-off takes no time.

    clock = FakeClock()
    await something(clock)             # auto-advance: whenever no task of the loop can run, the clock jumps to the next sleeper
    clock = FakeClock(auto=False)
    await clock.advance(3)             # by hand: wakes everybody who is due, in order, and lets them run

Auto-advance sees tasks, not sockets: where a test awaits real I/O beside this clock, use `auto=False`. It needs asyncio's own event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math

START_NS = 1_000_000_000
EPOCH_US = 1_767_225_600_000_000  # 2026-01-01 00:00:00 UTC


class FakeClock:
    """`evalrunner.clock.Clock` in virtual time. `slept` keeps every wait that was asked for, in order."""

    def __init__(self, *, auto: bool = True) -> None:
        self.auto = auto
        self.slept: list[float] = []
        self._now_ns = START_NS
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._watching = False

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return (self._now_ns - START_NS) / 1e9

    def now_ns(self) -> int:
        return self._now_ns

    def wall_us(self, ns: int) -> int:
        return EPOCH_US + (ns - START_NS) // 1000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_ns + math.ceil(seconds * 1e9), next(self._order), future))
        if self.auto and not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_soon(self._watch)
        await future

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Who is due on the way wakes at its moment and runs until it waits again."""
        end = self._now_ns + round(seconds * 1e9)
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._wake_next()
            await self.settle()
        self._now_ns = end

    async def settle(self) -> None:
        """Let every task run until it waits for something. Only by hand: an automatic clock would let time pass."""
        assert not self.auto
        await asyncio.sleep(0)
        while asyncio.get_running_loop()._ready:  # noqa: ASYNC110 - waiting for nothing to be ready is no event
            await asyncio.sleep(0)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if not loop._ready:
            self._wake_next()
        self._watching = bool(self._sleepers)
        if self._watching:
            loop.call_soon(self._watch)

    def _wake_next(self) -> None:
        while self._sleepers:
            due, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self._now_ns = max(self._now_ns, due)
                future.set_result(None)
                return
