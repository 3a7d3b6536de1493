"""The service's rate limits: sliding windows of requests and of tokens per model, and the limit on growth."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

from evalrunner.cost.models import ModelFacts
from evalrunner.simulator.calls import Refusal

GROWTH = 2.0  # in one second at most this many times the requests of the second before, plus `burst`


class Limit(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one model instead of the catalogue's: requests and tokens per minute; `burst`: requests out of the blue in one second."""

    rpm: float | None = None
    tpm: float | None = None
    burst: int | None = None


class Window:
    """At most `cap` in any `seconds`."""

    def __init__(self, cap: float, seconds: float) -> None:
        self.cap, self.seconds = cap, seconds
        self._entries: deque[tuple[float, int]] = deque()
        self._sum = 0

    def used(self, now: float) -> int:
        entries = self._entries
        while entries and entries[0][0] <= now - self.seconds:
            self._sum -= entries.popleft()[1]
        return self._sum

    def has_room(self, amount: int, now: float) -> bool:
        return self.used(now) + amount <= self.cap

    def add(self, amount: int, now: float) -> None:
        self._entries.append((now, amount))
        self._sum += amount


class _ModelLimits:
    def __init__(self, requests: Window | None, tokens: Window | None, burst: int | None) -> None:
        self.requests, self.tokens, self.burst = requests, tokens, burst
        self.second, self.before = Window(float("inf"), 1.0), Window(float("inf"), 2.0)

    def too_sudden(self, now: float) -> bool:
        if self.burst is None:
            return False
        current = self.second.used(now)
        return current + 1 > self.burst + GROWTH * (self.before.used(now) - current)


class Limiter:
    """Admits calls or raises `Refusal`; tokens of the input count at admission, those of the output when the answer is done.

    `overrides`: limits by model (`*`: all others) that replace the catalogue's windows; None switches every limit off.
    """

    def __init__(
        self, overrides: Mapping[str, Limit] | None, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._overrides, self._now, self._sleep = overrides, now, sleep
        self._models: dict[str, _ModelLimits] = {}

    async def admit(self, model: str, facts: ModelFacts, tokens: int, wait_s: float = 0.0) -> None:
        """`wait_s`: how long a call that comes too suddenly is queued before it is refused (X-DashScope-Wait-Timeout)."""
        if self._overrides is None:
            return
        limits = self._models.get(model) or self._models.setdefault(model, self._made_for(model, facts))
        now = self._now()
        until = now + wait_s
        while limits.too_sudden(now):
            if now >= until:
                raise Refusal("limit_burst_rate")
            await self._sleep(0.05)
            now = self._now()
        if limits.requests and not limits.requests.has_room(1, now):
            raise Refusal("limit_requests")
        if limits.tokens and not limits.tokens.has_room(tokens, now):
            raise Refusal("insufficient_quota")
        if limits.requests:
            limits.requests.add(1, now)
        if limits.burst is not None:
            limits.second.add(1, now)
            limits.before.add(1, now)
        self.settle(model, tokens)

    def settle(self, model: str, tokens: int) -> None:
        """Count tokens that are there without being asked for: the output of an answer."""
        limits = self._models.get(model)
        if limits and limits.tokens:
            limits.tokens.add(tokens, self._now())

    def _made_for(self, model: str, facts: ModelFacts) -> _ModelLimits:
        overrides = self._overrides or {}
        own = overrides.get(model) or overrides.get("*")
        if own is not None:
            return _ModelLimits(Window(own.rpm, 60.0) if own.rpm else None, Window(own.tpm, 60.0) if own.tpm else None, own.burst)
        if facts.windows:
            return _ModelLimits(Window(*facts.windows.requests), Window(*facts.windows.tokens), None)
        if rate := facts.rates.get("cn"):
            return _ModelLimits(Window(rate[0], 60.0), Window(rate[1], 60.0), None)
        return _ModelLimits(None, None, None)
