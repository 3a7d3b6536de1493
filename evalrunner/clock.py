"""The one seam for time: everything that reads a clock or sleeps is handed a `Clock`, so that tests own time."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic counter for durations, its place on the calendar, and a way to wait."""

    def now_ns(self) -> int:
        """Nanoseconds of a monotonic counter; only differences mean anything."""

    def wall_us(self, ns: int) -> int:
        """Microseconds since the Unix epoch (UTC) of the moment `ns` of this clock's counter."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; zero or less gives way to other tasks once."""


class SystemClock:
    """`time.perf_counter_ns` with one calendar anchor taken at start, so that durations never see a clock step."""

    def __init__(self) -> None:
        self._anchor_ns = time.perf_counter_ns()
        self._anchor_us = time.time_ns() // 1000

    def now_ns(self) -> int:
        return time.perf_counter_ns()

    def wall_us(self, ns: int) -> int:
        return self._anchor_us + (ns - self._anchor_ns) // 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


SYSTEM_CLOCK: Clock = SystemClock()
