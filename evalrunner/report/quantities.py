"""How numbers are written: a sensible number of digits, a unit, and never a rounding that claims too much. None stays None; the page says why."""

from __future__ import annotations

import math


def share(value: float | None) -> str | None:
    """A share 0..1 in percent. What is not all is never written as 100 %, what is not nothing never as 0 %."""
    if value is None or not math.isfinite(value):
        return None
    text = f"{value * 100:.1f}"
    if value < 1 and text == "100.0":
        return "> 99.9 %"
    if value > 0 and text == "0.0":
        return "< 0.1 %"
    return f"{text.removesuffix('.0') if value in (0, 1) else text} %"


def span(low: float | None, high: float | None) -> str | None:
    """An interval of shares, in percent, without the sign: it stands beside its share."""
    if low is None or high is None:
        return None
    return f"{low * 100:.1f}–{high * 100:.1f}"


def points(value: float | None) -> str | None:
    """A difference of shares, in percentage points with its sign: +3.2, −0.5, 0.0."""
    if value is None or not math.isfinite(value):
        return None
    text = f"{abs(value) * 100:.1f}"
    return text if text == "0.0" else f"{'+' if value > 0 else '−'}{text}"


def percent_points(value: float) -> str:
    """A size in percentage points, without a sign: 5, 0.5, 12.5."""
    return f"{value * 100:.1f}".removesuffix(".0")


def points_span(low: float | None, high: float | None) -> str | None:
    """An interval of a difference of shares: −1.2 … +3.4."""
    return f"{points(low)} … {points(high)}" if points(low) and points(high) else None


def change(value: float | None, base: float | None) -> str | None:
    """A difference as a share of what it is measured against: +12 %, −3.4 %."""
    if value is None or not base or not math.isfinite(value / base):
        return None
    ratio = value / base * 100
    text = f"{abs(ratio):,.0f}" if abs(ratio) >= 9.95 else f"{abs(ratio):.1f}"
    return f"{text} %" if float(text.replace(",", "")) == 0 else f"{'+' if ratio > 0 else '−'}{text} %"


def chance(p: float | None) -> str | None:
    """A p value: 0.032, or < 0.001."""
    if p is None:
        return None
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def digits(value: float | None) -> str | None:
    """Three significant digits, thousands with a comma: 0.0421, 8.42, 842, 12,345."""
    if value is None or not math.isfinite(value):
        return None
    if value == 0:
        return "0"
    size = int(f"{value:.2e}".partition("e")[2])
    return f"{value:,.{min(max(2 - size, 0), 8)}f}"


def count(value: float | None) -> str | None:
    """A whole number: 12,345; from a million on 1.23 M."""
    if value is None:
        return None
    for limit, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{digits(value / limit)} {letter}"
    return f"{value:,.0f}"


def duration(ms: float | None) -> str | None:
    """Milliseconds in the unit a person would use: 842 ms, 1.24 s, 2 min 5 s, 3 h 20 min."""
    if ms is None or not math.isfinite(ms):
        return None
    if ms < 999.5:
        return f"{digits(ms)} ms"
    seconds = ms / 1000
    if seconds < 119.5:
        return f"{digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def money(value: float | None, currency: str | None) -> str | None:
    """An amount with its currency: CNY 12.30, CNY 0.0123."""
    if value is None or currency is None:
        return None
    return f"{currency} {f'{value:,.2f}' if value >= 1 or value == 0 else digits(value)}"
