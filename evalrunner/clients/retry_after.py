"""How long a server asks us to wait, in every form in which servers say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 3600.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def retry_after_s(headers: Mapping[str, str], now_s: float, *, resets: bool = True) -> float | None:
    """Seconds the server asks us to wait: `retry-after-ms`, `retry-after` (seconds or a date), else the longest `x-ratelimit-reset*` where `resets` count:
    servers send these with every answer, and only after a 429 do they mean us.

    Garbage, negative numbers and NaN count as nothing said; at most an hour.
    """
    if (text := headers.get("retry-after-ms")) is not None and (ms := _number(text)) is not None:
        return min(ms / 1000, MAX_RETRY_AFTER_S)
    if (text := headers.get("retry-after")) is not None:
        seconds = _number(text)
        if seconds is None:
            seconds = _until(text, now_s)
        if seconds is not None:
            return min(seconds, MAX_RETRY_AFTER_S)
    said = [_reset(value, now_s) for name, value in headers.items() if resets and name.lower().startswith("x-ratelimit-reset")]
    return min(max(known), MAX_RETRY_AFTER_S) if (known := [reset for reset in said if reset is not None]) else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value >= 0 else None  # false for NaN too


def _until(text: str, now_s: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _reset(text: str, now_s: float) -> float | None:
    """`1m30s`, `6ms`, `12`, or a Unix time in seconds or milliseconds."""
    text = text.strip()
    if (value := _number(text)) is not None:
        if value > 1e12:
            value /= 1000
        return max(0.0, value - now_s) if value > 1e9 else value
    parts = _DURATION.findall(text)
    return sum(float(amount) * _SECONDS[unit] for amount, unit in parts) if parts and "".join(map("".join, parts)) == text else None
