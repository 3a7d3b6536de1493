"""What 429s say about the rate: down at once, up again slowly. Pure; a share of the declared rate, or a rate of its own where none is declared.

One cut per episode: only requests admitted after a cut can cause the next. A lone 429 is noise; three of a window that are 2 % of it are a limit. Then the
share drops to 0.7 of what got through, and comes back along the curve of TCP CUBIC (RFC 9438): fast at first, flat around the rate that failed, then
faster, up to what was declared. Where nothing gets through at all the door is shut rather than narrow: one cut, then everybody waits, 1 s to 30 s.
"""

from __future__ import annotations

import math

WINDOW_NS = 10_000_000_000
WINDOW_REQUESTS = 20
"""A window is 10 s or 20 requests, whichever is longer."""
HITS = 3
HIT_SHARE = 0.02
KEEP = 0.7
KEEP_BURST = 0.5
RECOVERY_S = 15.0
"""Seconds back to the rate that failed. Doubled by every cut for growing too fast, up to:"""
MAX_RECOVERY_S = 120.0
FLOOR = 0.005
MAX_SHUT_S = 30.0


class Congestion:
    """`declared`: the share is of declared limits and never above 1; else it is in requests per second, infinite until the first cut."""

    def __init__(self, *, declared: bool, now_ns: int) -> None:
        self._ceiling = 1.0 if declared else math.inf
        self._failed_at = self._ceiling
        self._depth = 0.0
        self._cut_ns = self._grows_ns = self._window_ns = now_ns
        self._recovery_s = RECOVERY_S
        self._trouble_ns = 0
        self._shut_s = 0.0
        self._forget(now_ns)

    def share(self, now_ns: int) -> float:
        """The share of the limits to use now; infinite means that nothing is known."""
        if not self._depth:
            return self._ceiling
        t = (now_ns - self._grows_ns) / 1e9 / self._recovery_s - 1
        share = self._failed_at * (1 + self._depth * t * t * t)
        if share >= self._ceiling:
            self._depth = 0.0
            return self._ceiling
        return share

    def admitted(self, amount: float, now_ns: int) -> None:
        """A request goes out that takes `amount` seconds of the declared rate (undeclared: 1)."""
        if now_ns - self._window_ns > WINDOW_NS and self._requests >= WINDOW_REQUESTS:
            self._forget(now_ns)
        self._requests += 1
        self._amount += amount

    def passed(self, admitted_ns: int) -> None:
        """The server took the request that was admitted then."""
        if admitted_ns >= self._cut_ns:
            self._passed += 1
            self._shut_s = 0.0

    def troubled(self, now_ns: int) -> None:
        """A 5xx: no reason to cut, but the second after it does not count towards recovery."""
        self._grows_ns += min(1_000_000_000, now_ns - max(self._trouble_ns, self._grows_ns))
        self._trouble_ns = now_ns

    def throttled(self, admitted_ns: int, now_ns: int, *, burst: bool) -> float:
        """The request admitted then got a 429. Returns the seconds for which the door should stay shut, mostly 0."""
        if admitted_ns < self._cut_ns:
            return 0.0
        self._hits += 1
        self._burst |= burst
        if self._hits < HITS or self._hits < HIT_SHARE * self._requests:
            return 0.0
        if self._passed or not self._shut_s:
            self._cut(now_ns)
        if not self._passed:
            self._shut_s = min(MAX_SHUT_S, 2 * self._shut_s or 1.0)
        shut = 0.0 if self._passed else self._shut_s
        self._cut_ns = self._grows_ns = now_ns
        self._forget(now_ns)
        return shut

    def used(self, now_ns: int) -> float:
        """The share that this window's requests took, at most what was allowed."""
        seconds = max(1.0, (now_ns - self._window_ns) / 1e9)
        return min(self.share(now_ns), self._amount / seconds)

    def pace(self, now_ns: int) -> None:
        """Let the requests that wait come back at the pace known so far, not all at once."""
        if math.isinf(self.share(now_ns)):
            self._set(self.used(now_ns), 1.0, now_ns)

    def _cut(self, now_ns: int) -> None:
        keep = KEEP
        if self._burst:
            keep = KEEP_BURST
            self._recovery_s = min(MAX_RECOVERY_S, 2 * self._recovery_s)
        if self._passed:
            keep *= max(0.25, self._passed / (self._passed + self._hits))
        self._set(self.used(now_ns), keep, now_ns)

    def _set(self, failed_at: float, keep: float, now_ns: int) -> None:
        self._failed_at = max(failed_at, FLOOR)
        self._depth = max(1 - keep, 0.05)
        self._grows_ns = now_ns

    def _forget(self, now_ns: int) -> None:
        self._window_ns = now_ns
        self._requests = self._hits = self._passed = 0
        self._amount = 0.0
        self._burst = False
