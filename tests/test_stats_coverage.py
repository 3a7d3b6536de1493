"""Do the 95 % intervals hold 95 %? By simulation. The table of docs/statistics.md: `pytest tests/test_stats_coverage.py -m long -s`."""

import sys
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from evalrunner.analysis.intervals import bca_interval, mean_interval
from evalrunner.analysis.paired import score_difference

SIZES, LEVELS = (30, 100, 1000), (0.1, 0.5, 0.95)
PAIRS = ((0.1, 0.1), (0.5, 0.5), (0.95, 0.95), (0.15, 0.1), (0.6, 0.5), (0.95, 0.9))
KINDS = {"0/1": 1, "0/1, 3 trials": 3, "continuous": 1, "continuous, 3 trials": 3, "mostly 0 or 1": 1}
SPREAD, EXTREME = 0.8, 3.0


def _chances(level, hardness, spread):
    """Every sample's own chance: a normal hardness, so that the mean over samples is `level` exactly."""
    return np.clip(ndtr(ndtri(level) * np.sqrt(1 + spread**2) + spread * hardness), 1e-6, 1 - 1e-6)


def _scores(rng, kind, chance):
    """One score per sample. Continuous: Beta with 4 pseudo-counts; mostly 0 or 1: 70 % of the samples are right or wrong, the others partly right."""
    if kind == "0/1":
        return (rng.random(chance.shape) < chance).astype(float)
    if kind == "0/1, 3 trials":
        return rng.binomial(3, chance) / 3
    if kind == "continuous, 3 trials":
        return rng.beta(chance * 4, (1 - chance) * 4, (3, *chance.shape)).mean(axis=0)
    partly = rng.beta(chance * 4, (1 - chance) * 4)
    if kind == "continuous":
        return partly
    return np.where(rng.random(chance.shape) < 0.7, rng.random(chance.shape) < chance, partly)


class Found(NamedTuple):
    """What the intervals of many repeats did: the share that held the truth, their mean width, and the share had each been an eighth narrower."""

    covered: float
    width: float
    narrower: float


def _coverage(repeats, draw, interval, truth):
    drawn = [draw() for _ in range(repeats)]
    low, high = np.array([interval(*one)[:2] for one in drawn]).T
    centre = np.array([one[-1].mean() - (one[0].mean() if len(one) > 1 else 0.0) for one in drawn])

    def held(share):
        return float(np.mean((centre + (low - centre) * share <= truth + 1e-9) & (centre + (high - centre) * share >= truth - 1e-9)))

    return Found(held(1.0), float(np.mean(high - low)), held(0.875)), drawn


def _one(kind, n, level, repeats, interval=None, spread=SPREAD):
    rng = np.random.default_rng([n, int(level * 100), list(KINDS).index(kind)])
    return _coverage(
        repeats,
        lambda: (_scores(rng, kind, _chances(level, rng.normal(size=n), spread)),),
        interval or (lambda scores: mean_interval(scores, KINDS[kind])),
        level,
    )[0]


def _two(kind, n, levels, repeats, interval=None, spread=SPREAD):
    """Also the share of repeats in which fewer than four samples moved by more than a quarter."""
    rng = np.random.default_rng([n, int(levels[0] * 100), int(levels[1] * 100), list(KINDS).index(kind)])

    def draw():
        hardness = rng.normal(size=n)
        return _scores(rng, kind, _chances(levels[0], hardness, spread)), _scores(rng, kind, _chances(levels[1], hardness, spread))

    found, drawn = _coverage(repeats, draw, interval or (lambda a, b: score_difference(a, b, KINDS[kind])[1:3]), levels[1] - levels[0])
    return found, float(np.mean([np.count_nonzero(np.abs(b - a) > 0.25) < 4 for a, b in drawn]))


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_of_small_samples_hold_their_coverage(kind):
    """Thirty samples near the end of the scale, the hardest case: 93 to 97 %, but for what 1,000 repeats may miss by chance (2.5 standard errors)."""
    covered = _one(kind, 30, 0.95, 1_000).covered
    assert 0.93 - 2.5 * np.sqrt(0.93 * 0.07 / 1_000) <= covered <= 0.97 + 2.5 * np.sqrt(0.97 * 0.03 / 1_000)


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_of_small_paired_differences_hold_their_coverage(kind):
    """The same for the difference of two cells over thirty common samples."""
    found, _ = _two(kind, 30, (0.95, 0.9), 1_000)
    assert found.covered >= 0.93 - 2.5 * np.sqrt(0.93 * 0.07 / 1_000)


def _row(kind, n, what, found, bca, few=0.0):
    """One line of the table; the bootstrap is measured where it is cheap, on few repeats.

    Above 97 % only where few outcomes are possible: an interval an eighth narrower would cover less than 95 %, or in most data sets too few samples moved to
    say anything (three flips, all one way, have a chance of a quarter).
    """
    why = f"an eighth narrower: {found.narrower:.1%}" + (f"; fewer than 4 samples moved: {few:.0%}" if few else "") if found.covered > 0.97 else ""
    sys.stdout.write(f"| {kind} | {n} | {what} | {found.covered:.1%} | {found.width:.3f} | {f'{bca:.0%}' if bca else '-'} | {why} |\n")
    sys.stdout.flush()
    assert found.covered >= 0.93
    assert found.covered <= 0.97 or (n <= 30 and kind != "continuous" and (found.narrower <= 0.95 or few > 0.5))


@pytest.mark.long
def test_intervals_hold_their_coverage():
    """Every size, level and kind of score: at least 93 %, above 97 % only where discreteness forces it. Prints the table."""
    sys.stdout.write("\n| score | n | mean | coverage | mean width | BCa bootstrap | why above 97 % |\n|---|---|---|---|---|---|---|\n")
    for kind in KINDS:
        for n in SIZES:
            for level in LEVELS:
                _row(kind, n, level, _one(kind, n, level, 6_000), _one(kind, n, level, 400, bca_interval).covered if n <= 100 else None)


@pytest.mark.long
def test_intervals_of_paired_differences_hold_their_coverage():
    """The same for paired differences."""
    sys.stdout.write("\n| score | n | means | coverage | mean width | BCa bootstrap | why above 97 % |\n|---|---|---|---|---|---|---|\n")
    for kind in KINDS:
        for n in SIZES:
            for levels in PAIRS:
                bca = _two(kind, n, levels, 400, lambda a, b: bca_interval(b - a))[0].covered if n <= 100 else None
                found, few = _two(kind, n, levels, 3_000)
                _row(kind, n, f"{levels[0]}, {levels[1]}", found, bca, few)


@pytest.mark.long
def test_intervals_hold_where_nearly_every_sample_is_sure():
    """Thirty samples, nearly each surely right or surely wrong, for both cells: the least and the most coverage of every kind stays above 93 %."""
    sys.stdout.write("\n| score | single | paired | fewer than 4 samples moved |\n|---|---|---|---|\n")
    for kind in KINDS:
        single = [_one(kind, 30, level, 3_000, spread=EXTREME).covered for level in LEVELS]
        both = [_two(kind, 30, levels, 1_500, spread=EXTREME) for levels in PAIRS]
        paired, few = [found.covered for found, _ in both], [share for _, share in both]
        spans = (f"{min(one):.1%} to {max(one):.1%}" for one in (single, paired, few))
        sys.stdout.write(f"| {kind} | {' | '.join(spans)} |\n")
        assert min(*single, *paired) >= 0.93
