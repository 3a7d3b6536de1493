"""What to do after a failed attempt: wait, give up, or halt an account. Pure; looks at the error's class (`errors.FATES`), never at its text.

Waits are exponential with full jitter, so that workers which failed together do not come back together. A wait the server asked for is obeyed where it is
the longer one; the last wait ends with the time there is, so that nothing is given up while it could still be asked.
A 429 uses up time but no attempts. Waiting in the limiter before a send is not known here and uses up neither.
"""

from __future__ import annotations

import math
import random
from typing import Literal, NamedTuple

from msgspec import Struct

from evalrunner.errors import FATES, EndpointError, Fate, RequestError

MAX_RETRY_AFTER_S = 3600.0
"""Nothing waits longer because a server said so."""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """At most `max_attempts` sends, 429s not counted, within `max_elapsed_s` of service and back-off; waits below `base_s` × 2ⁿ and `cap_s`."""

    max_attempts: int = 6
    max_elapsed_s: float = 1800.0
    base_s: float = 1.0
    cap_s: float = 60.0


class Tries(NamedTuple):
    """What a request has used up so far, the failure in question included: failed attempts by how they are retried, and seconds."""

    backoff: int = 0
    wait: int = 0
    once: int = 0
    elapsed_s: float = 0.0

    def after(self, error: RequestError | EndpointError, elapsed_s: float) -> Tries:
        """With one more failure, `elapsed_s` after the first attempt began (the limiter's waits not counted)."""
        match fate(error).retry:
            case "wait":
                return self._replace(wait=self.wait + 1, elapsed_s=elapsed_s)
            case "once":
                return self._replace(once=self.once + 1, elapsed_s=elapsed_s)
            case _:
                return self._replace(backoff=self.backoff + 1, elapsed_s=elapsed_s)


class Wait(NamedTuple):
    """Try again after `seconds`. `uses_attempt` is False for a 429."""

    seconds: float
    uses_attempt: bool


class GiveUp(NamedTuple):
    """The row gets the error's outcome."""


class Halt(NamedTuple):
    """The account, or one model of it, may be unusable for every request."""

    scope: Literal["account", "model"]


def decision(error: RequestError | EndpointError, tries: Tries, policy: RetryPolicy, rng: random.Random) -> Wait | GiveUp | Halt:
    """What follows from `error`, the last of `tries`."""
    found = fate(error)
    if found.stops != "nothing":
        return Halt(found.stops)
    used = tries.backoff + tries.once
    if found.retry == "never" or used >= policy.max_attempts or (found.retry == "once" and tries.once > 1):
        return GiveUp()
    failures = tries.wait if found.retry == "wait" else used
    ceiling = min(policy.cap_s, policy.base_s * 2.0 ** min(failures - 1, 30))
    seconds = max(rng.uniform(0, ceiling), retry_after_s(error) or 0.0)
    left_s = policy.max_elapsed_s - tries.elapsed_s
    if left_s <= 0:
        return GiveUp()
    return Wait(min(seconds, left_s), uses_attempt=found.retry != "wait")


def fate(error: RequestError | EndpointError) -> Fate:
    """The error's row of `FATES`, or its nearest ancestor's. An error of no known class is a bad output."""
    for cls in type(error).__mro__:
        if cls in FATES:
            return FATES[cls]
    return Fate("bad_output", "once")


def retry_after_s(error: RequestError | EndpointError) -> float | None:
    """The wait the server asked for, made sane: None if it is no positive number, at most `MAX_RETRY_AFTER_S`."""
    seconds = error.retry_after_s
    if seconds is None or math.isnan(seconds) or seconds <= 0:
        return None
    return min(seconds, MAX_RETRY_AFTER_S)


class RetryBudget:
    """Keeps retries from hammering a dying server: each takes a token, each success gives one back, time gives back one a second.

    Without tokens a retry is delayed, up to `max_delay_s`; it is never refused, so an outage costs time and no rows.
    """

    def __init__(self, tokens: float, max_delay_s: float = 60.0) -> None:
        self._full = self._tokens = tokens
        self._max_delay_s = max_delay_s
        self._stamp_s = 0.0

    def earn(self) -> None:
        self._tokens = min(self._full, self._tokens + 1)

    def spend(self, now_s: float) -> float:
        """Take a token; the seconds to wait for it."""
        self._tokens = min(self._full, self._tokens + max(0.0, now_s - self._stamp_s))
        self._stamp_s = now_s
        self._tokens = max(-self._max_delay_s, self._tokens - 1)
        return max(0.0, -self._tokens)
