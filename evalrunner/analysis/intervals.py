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
EDGE = 0.005
UNSEEN = 50.0


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def wilson(successes: npt.ArrayLike, n: npt.ArrayLike, z: npt.ArrayLike = Z95) -> tuple[Floats, Floats]:
    """Score interval of a share, (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = successes / n; any shape.

    `successes` and `n` need not be whole: an effective n is welcome. [0, 1] where n is 0. Source: Wilson 1927, JASA 22:209.
    """
    k, size = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z2 = np.asarray(z, dtype=np.float64) ** 2
    safe = np.where(size > 0, size, 1.0)
    share = np.clip(k / safe, 0.0, 1.0)
    centre = (share + z2 / (2 * safe)) / (1 + z2 / safe)
    half = np.sqrt(z2 * (share * (1 - share) / safe + z2 / (4 * safe * safe))) / (1 + z2 / safe)
    low = np.where((size > 0) & (share > 0), np.maximum(centre - half, 0.0), 0.0)
    high = np.where((size > 0) & (share < 1), np.minimum(centre + half, 1.0), 1.0)
    return low, high


def mean_intervals(n: npt.ArrayLike, mean: npt.ArrayLike, variance: npt.ArrayLike, edge: npt.ArrayLike, trials: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Intervals of many mean scores in 0..1 at once: Wilson's, with an effective n and Student's t.

    For each: `n` samples, the mean and the variance (n - 1) of their scores, each the mean over its trials; the share `edge` of samples within EDGE of 0
    or 1; the mean number of `trials`. The effective n is n / D with the design effect D = variance / (mean (1 - mean)). Two cases where the data
    cannot know D: scores that are all equal get D = 1; and a small sample of scores that are mostly 0 or 1 may not have met the rare
    ones, so D is drawn towards edge² / √trials, where that is larger, with the weight of UNSEEN samples. For 0/1 scores of one trial call `wilson`.
    """
    size, centre, spread = (np.asarray(a, dtype=np.float64) for a in (n, mean, variance))
    bernoulli = centre * (1 - centre)
    constant = (spread <= 0) | (bernoulli <= 0)
    effect = np.where(constant, 1.0, spread / np.where(constant, 1.0, bernoulli))
    floor = np.asarray(edge, dtype=np.float64) ** 2 / np.sqrt(np.asarray(trials, dtype=np.float64))
    effect = np.where(constant, 1.0, (size * effect + UNSEEN * np.maximum(effect, floor)) / (size + UNSEEN))
    quantile = special.stdtrit(np.maximum(size - 1, 1), 0.975)
    return wilson(centre * size / effect, size / effect, quantile)


def mean_interval(scores: Floats, trials: float = 1.0) -> Interval:
    """The interval of one mean score. `scores`: one number in 0..1 per sample, the mean over its trials. See `mean_intervals`."""
    if scores.size == 0:
        return Interval(0.0, 1.0)
    if trials == 1 and is_binary(scores):
        low, high = wilson(scores.sum(), scores.size)
    else:
        edge = np.mean((scores < EDGE) | (scores > 1 - EDGE))
        low, high = mean_intervals(scores.size, scores.mean(), scores.var(ddof=1) if scores.size > 1 else 0.0, edge, trials)
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
