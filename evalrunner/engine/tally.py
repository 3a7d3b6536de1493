"""What a run has done so far, for progress lines: plain counters that the engine changes and anybody may read."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from evalrunner.engine.budget import Budget
from evalrunner.records import Attempt, Record

LISTEN_S = 0.1


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
    """The longest time in which this process did not listen: larger than a few ms, times to first token are ours and not the server's."""

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
        self._next()

    def _next(self) -> None:
        self._due = self._loop.time() + LISTEN_S
        self._timer = self._loop.call_at(self._due, self._heard)

    def _heard(self) -> None:
        self._tally.largest_stall_ms = max(self._tally.largest_stall_ms, (self._loop.time() - self._due) * 1000)
        self._next()

    def close(self) -> None:
        self._timer.cancel()
