"""What 429s say about the rate: down at once, up again slowly. Pure; a share of the declared rates, or a rate of its own where none is declared.

One cut per episode: only requests admitted a second after a cut can cause the next. A lone 429 is noise; three of a window that are 2 % of it are a
limit. Then the share drops to 0.7 of what got through, and comes back along the curve of TCP CUBIC (RFC 9438): fast at first, flat around the rate that
failed, then faster, up to what was declared. A limit that is met again near the same rate is tried less often. Where nothing gets through at all the
door is shut rather than narrow: one cut, then everybody waits, 1 s to 30 s.

A cut is a question, too: where a few of a hundred are refused although the rate is well below the one that failed, the rate is not why. That share is
noise: the rate goes back to what it was, and only a share well above it is a limit. Time in which nothing may be sent counts for nothing: it tells
neither how fast requests went, nor does the rate grow in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW_NS = 10_000_000_000
WINDOW_REQUESTS = 20
"""A window is 10 s or 20 requests, whichever is longer."""
HITS = 3
HIT_SHARE = 0.02
MAX_NOISE = 0.15
"""A limit that refuses more is a limit, whatever came before it."""
NOISE_FADES = 0.9
"""A window; so it is asked again about once a minute whether noise is still noise."""
WELL_BELOW = 0.85
FAR_BEYOND = 1.5
KEEP = 0.7
KEEP_BURST = 0.5
RECOVERY_S = 15.0
"""Seconds back to the rate that failed; doubled where it fails again, or grew too fast, up to:"""
MAX_RECOVERY_S = 60.0
FLOOR = 0.005
EPISODE_NS = 1_000_000_000
MAX_SHUT_S = 30.0


@dataclass
class _Window:
    """What was admitted since `start_ns`, and what of it got a 429; the first of these when `first` had been admitted."""

    start_ns: int
    parked_ns: int = 0
    requests: int = 0
    tokens: int = 0
    hits: int = 0
    first: int = 0
    passed: bool = False
    burst: bool = False


class Congestion:
    """Rates are declared ones per second, or None. Without any, the share is in requests per second, and infinite until the first cut."""

    def __init__(self, request_rate: float | None, token_rate: float | None, now_ns: int) -> None:
        self._ceiling = math.inf if request_rate is None and token_rate is None else 1.0
        self._request_rate = 1.0 if request_rate is None and token_rate is None else request_rate or math.inf
        self._token_rate = token_rate or math.inf
        self._failed_at = self._ceiling
        self._good = self._ceiling  # the rate before the cuts that no recovery came between
        self._depth = 0.0
        self._counts_ns = self._grows_ns = now_ns
        self._recovery_s = RECOVERY_S
        self._trouble_ns = 0
        self._shut_s = 0.0
        self._noise = 0.0
        self._parked_ns = now_ns
        self._before, self._window = _Window(now_ns), _Window(now_ns)

    def share(self, now_ns: int) -> float:
        """The share of the limits to use now; infinite means that nothing is known."""
        if not self._depth:
            return self._ceiling
        t = max(0.0, (now_ns - self._grows_ns) / 1e9 / self._recovery_s) - 1
        share = self._failed_at * (1 + self._depth * t * t * t)
        if share >= self._ceiling:
            self._depth = 0.0
            return self._ceiling
        return share

    def admitted(self, tokens: int, now_ns: int) -> None:
        """A request goes out that may use so many tokens."""
        if now_ns - self._window.start_ns > WINDOW_NS and self._window.requests >= WINDOW_REQUESTS:
            self._noise *= NOISE_FADES
            self._before, self._window = self._window, _Window(now_ns)
        self._window.requests += 1
        self._window.tokens += tokens

    def settled(self, admitted_ns: int, tokens: int) -> None:
        """The request admitted then used so many tokens more than it might have (less, if negative)."""
        if admitted_ns >= self._before.start_ns:
            self._window.tokens += tokens

    def passed(self, admitted_ns: int) -> None:
        """The server took the request that was admitted then."""
        if admitted_ns >= self._counts_ns:
            self._window.passed = True
            self._shut_s = 0.0

    def parked(self, now_ns: int, until_ns: int) -> None:
        """Nothing is sent until then."""
        more = until_ns - max(now_ns, self._parked_ns)
        if more > 0:
            self._parked_ns = until_ns
            self._window.parked_ns += more
            self._grows_ns += more

    def troubled(self, now_ns: int) -> None:
        """A 5xx: no reason to cut, but the second after it does not count towards recovery."""
        self._grows_ns += max(0, min(1_000_000_000, now_ns - max(self._trouble_ns, self._grows_ns)))
        self._trouble_ns = now_ns

    def throttled(self, admitted_ns: int, now_ns: int, *, burst: bool) -> float:
        """The request admitted then got a 429. Returns the seconds for which the door should stay shut, mostly 0."""
        if admitted_ns < self._counts_ns:
            return 0.0
        window = self._window
        window.first = window.first or window.requests
        window.hits += 1
        window.burst |= burst
        if window.hits < max(HITS + 2 * self._noise * window.requests, HIT_SHARE * window.requests):
            return 0.0
        # A 429 comes fast and an answer slowly: what is still on its way may have got through.
        shut = not window.passed and window.hits >= window.requests / 2
        if self._is_noise(now_ns):
            self._noise = window.hits / window.requests
            self._recovery_s = RECOVERY_S
            self._set(self._good, 1.0, now_ns)
        elif not (shut and self._shut_s):
            self._cut(now_ns)
        self._shut_s = min(MAX_SHUT_S, 2 * self._shut_s or 1.0) if shut else 0.0
        self._counts_ns = now_ns + EPISODE_NS
        self._before, self._window = _Window(now_ns), _Window(now_ns, parked_ns=self._still_ns(now_ns))
        return self._shut_s

    def pace(self, now_ns: int) -> None:
        """Let those who wait come back at the pace known so far, not all at once: what no declared rate bounds may have grown far beyond it."""
        used, share = self._used(now_ns), self.share(now_ns)
        told = self._before.requests + self._window.requests >= WINDOW_REQUESTS
        if math.isinf(share) or (math.isinf(self._ceiling) and told and share > FAR_BEYOND * used):
            self._good = used
            self._set(used, 1.0, now_ns)

    def _used(self, now_ns: int) -> float:
        """The share that the requests of this window and the one before took while any might be sent, at most what was allowed."""
        share = self.share(now_ns)
        parked_ns = self._before.parked_ns + self._window.parked_ns - self._still_ns(now_ns)
        # Where no rate is known, all slots open at once: less than a second tells nothing.
        seconds = max(1.0 if math.isinf(share) else 1e-3, (now_ns - self._before.start_ns - parked_ns) / 1e9)
        requests = self._before.requests + self._window.requests
        tokens = self._before.tokens + self._window.tokens
        return min(share, max(requests / self._request_rate, tokens / self._token_rate) / seconds)

    def _still_ns(self, now_ns: int) -> int:
        """What is left of a park."""
        return max(0, self._parked_ns - now_ns)

    def _is_noise(self, now_ns: int) -> bool:
        """Whether as small a share as this is refused although the rate was cut: from the first 429 on, because a limit refuses in a row."""
        window = self._window
        share = max(window.hits / window.requests, (window.hits - 1) / max(1, window.requests - window.first))
        return bool(self._depth) and share <= MAX_NOISE and not window.burst and self._used(now_ns) < WELL_BELOW * self._failed_at

    def _cut(self, now_ns: int) -> None:
        window, used = self._window, self._used(now_ns)
        again = used > self._failed_at / 2 and not math.isinf(self._failed_at)
        slower = again or window.burst
        self._recovery_s = min(MAX_RECOVERY_S, 2 * self._recovery_s) if slower else RECOVERY_S
        if self.share(now_ns) >= self._failed_at or used > self._good:
            self._good = used
        keep = KEEP_BURST if window.burst else KEEP
        self._set(used, keep * max(0.25, 1 - window.hits / max(1, window.requests)), now_ns)

    def _set(self, failed_at: float, keep: float, now_ns: int) -> None:
        self._failed_at = max(failed_at, FLOOR)
        self._depth = max(1 - keep, 0.05)
        self._grows_ns = now_ns + self._still_ns(now_ns)
