"""How many samples a comparison needs, what it can see, and what repeated trials promise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from evalrunner.analysis.intervals import Z95, Floats

POWER = 0.8


def samples_needed(sd: float, effect: float, power: float = POWER) -> int | None:
    """Paired samples for which a difference of `effect` lies outside a 95 % interval with probability `power`: ((z_0.975 + z_power) sd / effect)².

    For a margin this is also the n that shows "not worse" when there is no difference. None where no number would do (effect 0 or unknown sd).
    """
    if effect <= 0 or not math.isfinite(sd):
        return None
    return max(2, math.ceil(((Z95 + float(special.ndtri(power))) * sd / effect) ** 2))


def samples_to_decide(measured: tuple[float, float, float], threshold: float, n: int) -> int | None:
    """How many samples show on which side of `threshold` a value lies, with probability 0.8, if it is as `measured` (value, low, high) over `n`.

    The interval's end towards the threshold tells the standard deviation. Always more than n where the interval holds the threshold. None where no number
    would do: the value lies on the threshold, or an end is unknown.
    """
    value, low, high = measured
    reach, away = (value - low if value > threshold else high - value), abs(value - threshold)
    found = samples_needed(reach / Z95 * math.sqrt(n), away)
    return None if found is None or away < 1e-9 * max(1.0, abs(threshold)) else max(found, n + 1)


def minimal_detectable_effect(sd: float, n: int, power: float = POWER) -> float:
    """The smallest difference that n pairs show with probability `power`: (z_0.975 + z_power) sd / √n. Infinite for n = 0."""
    return (Z95 + float(special.ndtri(power))) * sd / math.sqrt(n) if n else math.inf


def pass_at_k(trials: npt.ArrayLike, right: npt.ArrayLike, k: int) -> Floats:
    """Chance that at least one of k trials is right, unbiased: 1 - C(n - c, k) / C(n, k), per sample. NaN where n < k.

    Source: Chen et al. 2021, arXiv 2107.03374.
    """
    n, c = np.asarray(trials, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return np.where(n >= k, 1 - special.comb(n - c, k) / np.maximum(special.comb(n, k), 1), np.nan)


def pass_all_k(trials: npt.ArrayLike, right: npt.ArrayLike, k: int) -> Floats:
    """pass^k, the chance that all of k trials are right, unbiased: C(c, k) / C(n, k), per sample. NaN where n < k.

    Source: Yao et al. 2024, arXiv 2406.12045.
    """
    n, c = np.asarray(trials, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return np.where(n >= k, special.comb(c, k) / np.maximum(special.comb(n, k), 1), np.nan)
