"""What a run has done so far, for progress lines: plain counters that the engine changes and anybody may read."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from evalrunner.engine.budget import Budget
from evalrunner.records import Attempt, Record

LISTEN_S = 0.02
STALL_MS = 100.0
"""Standing still for longer spoils the times of what was on its way: they are ours then, not the server's."""
STALL_SHARE = 0.05
"""... if it is this much of the exchange: less moves a latency by as little, and the first token of one answer in twenty."""
TOLD_MS = 1000.0
"""From here on a stall is worth a line while the run goes on."""


@dataclass
class Tally:
    """`planned` and `budget` are the caller's. Times are microseconds of the calendar (UTC); costs are by currency and never added up across."""

    planned: int = 0
    budget: Budget | None = None
    done: int = 0
    sent: int = 0
    in_flight: int = 0
    retrying: int = 0
    completion_tokens: int = 0
    started_us: int | None = None
    left: dict[str, int] = field(default_factory=dict)
    """Model name -> requests that have no final row yet: the caller's at the start, counted down here. The run is as slow as its slowest model."""
    by_outcome: Counter[str] = field(default_factory=Counter)
    cost: dict[str, float] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    """Model name -> until when nothing is sent there; entries in the past are over."""
    stopped: dict[str, str] = field(default_factory=dict)
    """Account, or account/model -> why nothing is sent there any more."""
    largest_stall_ms: float = 0.0
    """The longest time in which this process did not listen."""
    warn: Callable[[str], None] = lambda _line: None
    """Is told, once, that the process stands still."""

    def attempted(self, attempt: Attempt, currency: str | None) -> None:
        self.sent += 1
        if attempt.usage is not None and attempt.usage.completion_tokens is not None:
            self.completion_tokens += attempt.usage.completion_tokens
        if attempt.cost is not None and currency is not None:
            self.cost[currency] = self.cost.get(currency, 0.0) + attempt.cost

    def kept(self, record: Record) -> None:
        self.done += 1
        self.by_outcome[record.outcome] += 1
        name = record.request.cell.model.name
        if name in self.left:
            self.left[name] -= 1


class Listener:
    """Notes in the tally for how long the loop did not listen, in real time. A chain of timers and no task, so that it never delays an end."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._stalls: deque[tuple[float, float]] = deque(maxlen=100)
        self._next()

    def began(self) -> float:
        """The time, for an exchange that begins now."""
        self._note()
        return self._loop.time()

    def stalled_ms(self, began: float) -> float | None:
        """The longest time of not listening in an exchange that began then and has just ended; None if there was none that matters."""
        self._note()
        longest = max((ms for ended, ms in self._stalls if ended > began), default=0.0)
        return longest if longest > (self._loop.time() - began) * 1000 * STALL_SHARE else None

    def close(self) -> None:
        self._timer.cancel()

    def _next(self) -> None:
        self._due = self._loop.time() + LISTEN_S
        self._timer = self._loop.call_at(self._due, self._heard)

    def _heard(self) -> None:
        self._note()
        self._next()

    def _note(self) -> None:
        """A stall is over when anything runs, which may be before the timer does."""
        now = self._loop.time()
        late = (now - self._due) * 1000
        if late > STALL_MS:
            self._stalls.append((now, late))
            self._due = now
        if late > TOLD_MS >= self._tally.largest_stall_ms:
            self._tally.warn(
                f"warning: this process stood still for {late / 1000:.1f} s: latencies of that moment are left out. Something blocks its event loop: an async "
                "scorer, tool or client that computes or waits without `await` (write it as a plain function), or a machine with too much to do"
            )
        self._tally.largest_stall_ms = max(self._tally.largest_stall_ms, late)
