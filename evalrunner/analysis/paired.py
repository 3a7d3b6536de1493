"""Paired differences, candidate minus baseline: one number per sample on either side, the mean over its trials. Intervals are 95 %."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
from scipy import special

from evalrunner.analysis.intervals import Z95, Floats, Interval, is_binary, mean_intervals

PAIR_END, PAIR_LEAST = 0.5, 0.02
_HALVINGS = 52

Verdict = Literal["better", "not worse", "worse", "inconclusive"]


class Difference(NamedTuple):
    """A mean paired difference over `n` samples."""

    value: float
    low: float
    high: float
    n: int
    method: str


def score_difference(baseline: Floats, candidate: Floats, trials: float = 1.0) -> Difference:
    """Difference of two mean scores in 0..1 over the same samples.

    With one trial of a 0/1 score: Tango's interval, from the samples gained and lost. Else the Bayesian bootstrap of `intervals.mean_intervals` on the scale
    -1..1, widened from the normal quantile and n + 1 to Student's and n - 1. At either end it adds (PAIR_END s² + PAIR_LEAST) / trials samples, s being the
    share of samples that score exactly 0 or 1 on both sides: where most do, thirty samples may just not have met a rare flip. `trials`: of the side that has
    fewer; three answers of one side do not make the other's single one any steadier.
    """
    d = candidate - baseline
    n = d.size
    if n == 0:
        return Difference(0.0, -1.0, 1.0, 0, "none")
    value = float(d.mean())
    if trials == 1 and is_binary(baseline) and is_binary(candidate):
        low, high = tango(float(d[d > 0].sum()), float(-d[d < 0].sum()), n)
        return Difference(value, low, high, n, "tango")
    at_ends = float(np.mean(_at_end(baseline) & _at_end(candidate)))
    end = (PAIR_END * at_ends**2 + PAIR_LEAST) / trials
    unit = (d + 1) / 2
    centre = float(d.sum()) / (n + 2 * end)
    widen = float(special.stdtrit(max(n - 1, 1), 0.975)) / Z95 * math.sqrt((n + 1) / max(n - 1, 0.5))
    low, high = (centre + (2 * float(edge) - 1 - centre) * widen for edge in mean_intervals(n, unit.sum(), (unit**2).sum(), (unit**3).sum(), end))
    return Difference(value, max(-1.0, min(low, value)), min(1.0, max(high, value)), n, "bayesian bootstrap")


def _at_end(scores: Floats) -> npt.NDArray[np.bool_]:
    return (scores <= 1e-9) | (scores >= 1 - 1e-9)


def mean_difference(baseline: Floats, candidate: Floats) -> Difference:
    """Difference of two means of anything (latency, tokens, cost) over the same samples, with Student's t interval.

    The heavy tails of a latency mostly cancel in the pairs; measured, t holds its coverage here where the BCa bootstrap does not (docs/statistics.md).
    """
    d = candidate - baseline
    n = d.size
    if n < 2:
        value = float(d.mean()) if n else 0.0
        return Difference(value, -np.inf, np.inf, n, "none")
    half = float(special.stdtrit(n - 1, 0.975) * d.std(ddof=1) / np.sqrt(n))
    return Difference(float(d.mean()), float(d.mean()) - half, float(d.mean()) + half, n, "t")


def quantile_difference(baseline: tuple[float, float, float], candidate: tuple[float, float, float]) -> Interval:
    """Interval of the difference of two percentiles, each given as (value, low, high): MOVER, as if they were independent (with pairs on the safe side).

    low = d - √((v2 - l2)² + (u1 - v1)²), high = d + √((u2 - v2)² + (v1 - l1)²). Source: Zou and Donner 2008, Statistics in Medicine 27:1693.
    """
    (v1, l1, u1), (v2, l2, u2) = baseline, candidate
    d = v2 - v1
    return Interval(d - float(np.hypot(v2 - l2, u1 - v1)), d + float(np.hypot(u2 - v2, v1 - l1)))


def tango(gained: float, lost: float, n: int) -> tuple[float, float]:
    """Score interval of a paired difference of shares: the δ with |gained - lost - nδ| <= z √(n (2q + δ (1 - δ))), q the restricted estimate of the share lost.

    q = (√(B² - 8nC) - B) / 4n with B = (2n - gained + lost) δ - gained - lost, C = -lost δ (1 - δ). Found by bisection. Source: Tango 1998,
    Statistics in Medicine 17:891.
    """
    return _tango_low(gained, lost, n), -_tango_low(lost, gained, n)


def _tango_low(gained: float, lost: float, n: int) -> float:
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        at = (low + high) / 2
        b, c = (2 * n - gained + lost) * at - gained - lost, -lost * at * (1 - at)
        share = (max(b * b - 8 * n * c, 0.0) ** 0.5 - b) / (4 * n)
        spread = max(n * (2 * share + at * (1 - at)), 0.0) ** 0.5
        low, high = (at, high) if gained - lost - n * at > Z95 * spread else (low, at)
    return (low + high) / 2


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact McNemar test: two-sided binomial of the flips against one half. Source: McNemar 1947, Psychometrika 12:153."""
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def verdict(low: float, high: float, margin: float = 0.0) -> Verdict:
    """What an interval of a difference says, up being good: worse if wholly below -margin, better if wholly above 0, not worse if nowhere below -margin."""
    if high < -margin:
        return "worse"
    if low > 0:
        return "better"
    return "not worse" if low >= -margin else "inconclusive"
