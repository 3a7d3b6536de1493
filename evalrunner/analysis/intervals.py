"""95 % intervals for one number: a mean score, a share, a percentile, the mean of anything. Pure functions on arrays; docs/statistics.md
has the measured coverage.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Z95 = 1.959963984540054
RESAMPLES = 10_000
END = 0.5
"""Samples added at either end of the scale: Jeffreys' prior for 0/1 scores, and measured to hold for others (docs/statistics.md)."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def wilson(successes: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Score interval of a share, (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = successes / n; any shape. [0, 1] where n is 0.

    Source: Wilson 1927, JASA 22:209.
    """
    k, size = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z2 = Z95**2
    safe = np.where(size > 0, size, 1.0)
    share = np.clip(k / safe, 0.0, 1.0)
    centre = (share + z2 / (2 * safe)) / (1 + z2 / safe)
    half = np.sqrt(z2 * (share * (1 - share) / safe + z2 / (4 * safe * safe))) / (1 + z2 / safe)
    low = np.where((size > 0) & (share > 0), np.maximum(centre - half, 0.0), 0.0)
    high = np.where((size > 0) & (share < 1), np.minimum(centre + half, 1.0), 1.0)
    return low, high


def mean_intervals(n: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, third: npt.ArrayLike, end: float = END) -> tuple[Floats, Floats]:
    """Intervals of many mean scores in 0..1 at once, by a Bayesian bootstrap that has also met `end` samples of 0 and as many of 1.

    For each: `n` samples and the sums of their scores, of the squares and of the cubes. Resampling alone cannot show what a sample has not met; what is
    added stands for that, and for 0/1 scores makes the interval Jeffreys'. No draws: the mean has the moments of a Dirichlet-weighted sum, with A = n + 2 end
    and central moments m2, m3 of all that is counted, variance m2 / (A + 1) and skewness 2 m3 / ((A + 1) (A + 2)) / variance^1.5, so the interval has the
    quantiles of the Beta distribution of that mean and variance, moved by √variance (skewness - Beta's) (z² - 1) / 6. It always holds the plain mean.
    Source: Rubin 1981, Ann. Stat. 9:130; Cornish and Fisher 1938. For 0/1 scores of one trial call `wilson`.
    """
    size, total, square, cube = (np.asarray(a, dtype=np.float64) for a in (n, first, second, third))
    weight = size + 2 * end
    mean, square, cube = (total + end) / weight, (square + end) / weight, (cube + end) / weight
    variance = np.maximum(square - mean**2, 1e-15) / (weight + 1)
    skewness = 2 * (cube - 3 * mean * square + 2 * mean**3) / ((weight + 1) * (weight + 2)) / variance**1.5
    both = mean * (1 - mean) / variance - 1
    a, b = mean * both, (1 - mean) * both
    usual = 2 * (b - a) * np.sqrt(a + b + 1) / ((a + b + 2) * np.sqrt(a * b))
    shift = np.sqrt(variance) * (skewness - usual) * (Z95**2 - 1) / 6
    plain = total / np.maximum(size, 1)
    low, high = (np.clip(special.betaincinv(a, b, q) + shift, 0.0, 1.0) for q in (0.025, 0.975))
    return np.where(total <= 0, 0.0, np.minimum(low, plain)), np.where(total >= size, 1.0, np.maximum(high, plain))


def mean_interval(scores: Floats, trials: float = 1.0) -> Interval:
    """The interval of one mean score: Wilson's for 0/1 scores of one trial, else as `mean_intervals`. `scores`: one number in 0..1 per sample, the mean over
    its trials.
    """
    if trials == 1 and is_binary(scores):
        low, high = wilson(scores.sum(), scores.size)
    else:
        low, high = mean_intervals(scores.size, scores.sum(), (scores**2).sum(), (scores**3).sum())
    return Interval(float(low), float(high))


def is_binary(scores: Floats) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.all((scores == 0) | (scores == 1)))


def quantile_ranks(n: int, p: float) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that enclose the p-quantile with at least 95 %; None when the sample has none.

    P(x_(l) <= q < x_(u)) = P(l <= X < u) with X ~ Binomial(n, p). Source: Conover 1999, Practical Nonparametric Statistics, section 3.2.
    """
    low, high = _binomial_quantile(0.025, n, p), _binomial_quantile(0.975, n, p) + 1
    return (low, high) if low >= 1 and high <= n else None


def _binomial_quantile(q: float, n: int, p: float) -> int:
    """The smallest k with P(X <= k) >= q for X ~ Binomial(n, p): scipy.stats.binom.ppf without importing all of scipy.stats, which takes a second."""
    k = math.ceil(special.bdtrik(q, n, p))
    return k - 1 if k >= 1 and special.bdtr(k - 1, n, p) >= q else k


def bca_interval(values: Floats, seed: int = 0) -> Interval:
    """BCa bootstrap interval of the mean of `values` (one per sample, so that a sample's trials stay together), 10,000 resamples, seeded.

    Bias correction from the share of resampled means below the mean (half of the equal ones), acceleration from the jackknife, for a mean
    Σ(x̄ - x)³ / 6 (Σ(x̄ - x)²)^1.5 with the sign turned. Source: Efron 1987, JASA 82:171.
    """
    mean = float(values.mean())
    deviations = values - mean
    scale = float(np.sum(deviations**2))
    if values.size < 2 or scale <= (1e-12 * max(1.0, abs(mean))) ** 2:
        return Interval(mean, mean)
    means = resampled_means(values, seed)
    below = (np.mean(means < mean) + np.mean(means <= mean)) / 2
    bias = special.ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    acceleration = float(np.sum(deviations**3)) / (6 * scale**1.5)
    z = bias + np.array([-Z95, Z95])
    low, high = np.quantile(means, special.ndtr(bias + z / (1 - acceleration * z)))
    return Interval(float(low), float(high))


def resampled_means(values: Floats, seed: int) -> Floats:
    """The means of 10,000 samples of the same size, drawn with replacement; in blocks, so that memory stays small."""
    rng = np.random.default_rng(seed)
    n = values.size
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size <= n // 4:
        return np.asarray(rng.multinomial(n, counts / n, RESAMPLES) @ distinct / n, dtype=np.float64)
    rows = max(1, 2_000_000 // n)
    blocks = [values[rng.integers(0, n, (min(rows, RESAMPLES - at), n), dtype=np.int32)].mean(axis=1) for at in range(0, RESAMPLES, rows)]
    return np.concatenate(blocks)
