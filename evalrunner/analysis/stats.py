"""Tests and decisions: is one better than another, and which cannot be told apart. Pure functions on arrays, one number per sample
(the mean over its trials).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import fft, special

Floats = npt.NDArray[np.float64]
ALPHA = 0.05
RESAMPLES = 10_000
LEAST_SHARE = 0.5
"""Of the fullest competitor's scores that one must have to be ranked."""
_LATTICE = (1, 2, 3, 4, 5, 6, 8, 10, 12, 20, 60)
_LATTICE_LIMIT = 1 << 17
_MANY = 200


def sign_flip_p(differences: Floats, seed: int = 0) -> float:
    """Two-sided p of paired differences: how often a random sign on each would give a sum as far from 0. Zeros do not matter.

    Exact where the differences lie on a lattice (0/1 scores, any few trials): the sum of ±a_i has the characteristic function Π cos(a_i t), whose
    inverse transform is its distribution; with one trial this is the exact McNemar test. Else 10,000 seeded flips, p = (1 + hits) / (1 + 10,000); above
    200 samples a normal distribution with its kurtosis term, κ4 = -2 Σd⁴ / (Σd²)², which agrees to the third digit. Source: Fisher 1935, The Design of
    Experiments; Phipson and Smyth 2010 for the 1 + .
    """
    moved = differences[differences != 0]
    if moved.size == 0:
        return 1.0
    for scale in _LATTICE:
        steps = np.abs(moved) * scale
        whole = np.rint(steps)
        if whole.sum() * 2 >= _LATTICE_LIMIT:
            break
        if np.all(np.abs(steps - whole) < 1e-6):
            return _lattice_p(whole, abs(float(np.sum(np.sign(moved) * whole))))
    if moved.size > _MANY:
        return _normal_p(moved)
    hits = np.count_nonzero(np.abs(_signs(seed)[:, : moved.size] @ moved) >= abs(float(moved.sum())) * (1 - 1e-12))
    return (1 + int(hits)) / (1 + RESAMPLES)


@cache
def _signs(seed: int) -> Floats:
    """Drawn once: a matrix of pairs asks hundreds of times."""
    return np.random.default_rng(seed).integers(0, 2, (RESAMPLES, _MANY), dtype=np.int8) * np.float64(2) - 1


def _lattice_p(steps: Floats, observed: float) -> float:
    size = 1 << (2 * int(steps.sum()) + 1).bit_length()
    angle = 2 * np.pi * np.arange(size // 2 + 1) / size
    values, counts = np.unique(steps, return_counts=True)
    transform = np.prod([np.cos(value * angle) ** count for value, count in zip(values, counts, strict=True)], axis=0)
    chance = fft.irfft(transform, size)
    reach = round(observed)
    inside = chance[0] + 2 * chance[1:reach].sum() if reach else 0.0
    return float(np.clip(1 - inside, 0.0, 1.0)) if inside < 0.999 else float(2 * np.clip(chance[reach : size // 2].sum(), 0.0, 0.5))


def _normal_p(moved: Floats) -> float:
    second, fourth = float(np.sum(moved**2)), float(np.sum(moved**4))
    z = abs(float(moved.sum())) / math.sqrt(second)
    kurtosis = -2 * fourth / second**2
    tail = special.ndtr(-z) + math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * kurtosis / 24 * (z**3 - 3 * z)
    return float(np.clip(2 * tail, 0.0, 1.0))


def holm(p: npt.ArrayLike) -> Floats:
    """Holm's adjusted p: sorted ascending, the largest so far of (m - i) p_(i), at most 1. Source: Holm 1979, Scand. J. Stat. 6:65."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * (raw.size - np.arange(raw.size))), 1.0)
    return adjusted


def tie_groups(scores: Floats) -> list[int | None]:
    """Tie groups of competitors: `scores` has one row each and one column per sample, NaN where there is none.

    Group 1: the leader and all that are not significantly worse (paired, Holm over the comparisons with it, 5 %); the best of the rest leads group 2, and so
    on. Comparisons are over the samples that both have. The order is by the mean advantage over the average of all on the same samples, so that nobody leads
    because of the samples it did not answer. A row with less than half as many scores as the fullest is set apart (None): whatever it lacks the power to
    differ from would count as tied.
    """
    have = ~np.isnan(scores)
    counts = have.sum(axis=1)
    enough = (counts > 0) & (counts >= LEAST_SHARE * counts.max(initial=0))
    ranked = have & enough[:, None]
    average = np.where(ranked, scores, 0.0).sum(axis=0) / np.maximum(ranked.sum(axis=0), 1)
    advantage = np.where(ranked, scores - average, 0.0).sum(axis=1) / np.maximum(counts, 1)
    groups: list[int | None] = [None] * len(scores)
    open_rows = [int(at) for at in np.argsort(-advantage, kind="stable") if enough[at]]
    number = 0
    while open_rows:
        number += 1
        leader, *others = open_rows
        adjusted = holm([sign_flip_p((scores[leader] - scores[other])[have[leader] & have[other]]) for other in others])
        members = {leader, *(other for other, p in zip(others, adjusted, strict=True) if p >= ALPHA)}
        for member in members:
            groups[member] = number
        open_rows = [at for at in open_rows if at not in members]
    return groups
