"""Intervals, tests and decisions, against independent implementations and their own properties."""

import itertools
import math

import deltagate
import errorbars
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from evalrunner.analysis.intervals import bca_interval, mean_interval, quantile_ranks, wilson
from evalrunner.analysis.paired import mcnemar_p, mean_difference, quantile_difference, score_difference, tango, verdict
from evalrunner.analysis.power import minimal_detectable_effect, pass_all_k, pass_at_k, samples_needed
from evalrunner.analysis.stats import holm, sign_flip_p, tie_groups

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array)


@given(COUNTS)
def test_wilson_agrees_with_statsmodels_and_errorbars(counts):
    """The interval of a 0/1 score is Wilson's, as two other libraries compute it."""
    right, n = counts
    low, high = wilson(right, n)
    assert (float(low), float(high)) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-9)
    other = errorbars.wilson_ci(right, n)
    assert (float(low), float(high)) == pytest.approx((other.ci_low, other.ci_high), abs=1e-9)


def test_wilson_without_samples_says_anything():
    """No sample: the score may be anything."""
    assert tuple(map(float, wilson(0, 0))) == (0.0, 1.0)


@given(SCORES)
def test_an_interval_contains_its_mean_and_stays_on_the_scale(scores):
    """Whatever the scores, the interval holds their mean and lies within 0 and 1."""
    low, high = mean_interval(scores, 2.0)
    assert 0 <= low <= scores.mean() + 1e-12
    assert scores.mean() - 1e-12 <= high <= 1


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=80).map(np.array))
def test_a_score_of_zeros_and_ones_gets_wilson(scores):
    """A 0/1 score of one trial is a share, and its interval is Wilson's."""
    assert tuple(mean_interval(scores)) == pytest.approx(proportion_confint(scores.sum(), scores.size, method="wilson"), abs=1e-9)


def test_equal_scores_do_not_promise_equal_scores():
    """Ten times 1.0 in a score with trials still leaves room below: a constant says nothing about its variance."""
    low, high = mean_interval(np.ones(10), 3.0)
    assert low < 0.8
    assert high == 1


def test_no_scores_no_claim():
    """An empty set of scores gives the whole scale."""
    assert tuple(mean_interval(np.array([]))) == (0.0, 1.0)


def test_repeating_every_answer_adds_no_certainty():
    """Three identical trials of each sample give an interval no narrower than one trial: a sample is the unit, not an answer."""
    scores = np.array([0.0, 1.0] * 40 + [1.0] * 20)
    once, thrice = mean_interval(scores), mean_interval(scores, 3.0)
    assert thrice.high - thrice.low >= (once.high - once.low) * 0.99


@pytest.mark.parametrize(("n", "p"), [(10, 0.5), (50, 0.9), (100, 0.95), (500, 0.99), (4000, 0.95)])
def test_percentile_ranks_enclose_at_least_95_percent(n, p):
    """The order statistics around a percentile hold the true one with at least 95 %, and one rank fewer would not."""
    low, high = quantile_ranks(n, p)
    covered = stats.binom.cdf(high - 1, n, p) - stats.binom.cdf(low - 1, n, p)
    assert covered >= 0.95
    assert stats.binom.cdf(high - 2, n, p) < 0.975 or stats.binom.cdf(low, n, p) > 0.025


def test_a_percentile_of_too_few_has_no_interval():
    """Nothing encloses the p99 of five values."""
    assert quantile_ranks(5, 0.99) is None


def test_bca_agrees_with_scipy_and_deltagate():
    """The bootstrap interval is the BCa of scipy and of deltagate, up to the resampling, and repeats exactly."""
    values = np.random.default_rng(3).gamma(2.0, size=60)
    ours = bca_interval(values)
    assert ours == bca_interval(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)
    other = deltagate.bootstrap_delta_ci(values, np.zeros(60), n_boot=10_000)
    assert ours == pytest.approx((other["lower"], other["upper"]), abs=0.04 * width)


def test_bca_of_few_distinct_values_is_the_same_bootstrap():
    """Scores with few distinct values are resampled by counts: faster, the same interval."""
    values = np.random.default_rng(5).integers(0, 4, 200) / 3
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert bca_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    assert tuple(bca_interval(np.full(9, 0.5))) == (0.5, 0.5)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_agrees_with_statsmodels(gained, lost):
    """The test of the flips is the exact McNemar test."""
    theirs = mcnemar([[5, gained], [lost, 5]], exact=True).pvalue if gained + lost else 1.0
    assert mcnemar_p(gained, lost) == pytest.approx(theirs)


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_sign_flip_test_of_single_flips_is_mcnemar(gained, lost):
    """For a 0/1 score with one trial the permutation test and McNemar are one."""
    differences = np.array([1.0] * gained + [-1.0] * lost + [0.0] * 7)
    assert sign_flip_p(differences) == pytest.approx(mcnemar_p(gained, lost), abs=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_the_sign_flip_test_is_exact_over_trials(steps):
    """With three trials a sample, p is the share of all sign patterns that reach as far: counted here one by one."""
    differences = np.array(steps) / 3
    reach = [abs(sum(sign * step for sign, step in zip(signs, steps, strict=True))) for signs in itertools.product((-1, 1), repeat=len(steps))]
    assert sign_flip_p(differences) == pytest.approx(np.mean([one >= abs(sum(steps)) for one in reach]), abs=1e-9)


@pytest.mark.parametrize("n", [40, 300])
def test_the_sign_flip_test_of_continuous_scores_agrees_with_scipy(n):
    """For a continuous score p is that of scipy's permutation test, drawn below 200 samples and computed above."""
    differences = np.random.default_rng(n).normal(0.6 / math.sqrt(n) * 3, 1, n) / 8
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=40_000, rng=np.random.default_rng(2)).pvalue
    assert sign_flip_p(differences) == pytest.approx(theirs, abs=0.006)
    assert sign_flip_p(differences) == sign_flip_p(differences)


def test_no_difference_at_all_has_p_1():
    """Equal scores everywhere show nothing."""
    assert sign_flip_p(np.zeros(12)) == 1.0


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels_and_deltagate(p):
    """Adjusted p are Holm's, as two other libraries have them."""
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm(p) == pytest.approx(deltagate.holm_bonferroni(p).adjusted)


def _tango_by_optimisation(gained, lost, n):
    """Tango's limits from the definition: invert the score test with the nuisance parameter maximised numerically."""

    def statistic(delta):
        def unlikely(q):
            chances = np.array([q + delta, q, 1 - 2 * q - delta])
            return -np.sum(np.array([gained, lost, n - gained - lost]) * np.log(np.maximum(chances, 1e-300)))

        q = optimize.minimize_scalar(unlikely, bounds=(max(0.0, -delta), (1 - delta) / 2), method="bounded", options={"xatol": 1e-12}).x
        return (gained - lost - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))

    mean = (gained - lost) / n
    return tuple(optimize.brentq(lambda delta, z=z: statistic(delta) - z, *ends) for z, ends in ((1.959964, (-0.99, mean)), (-1.959964, (mean, 0.99))))


@pytest.mark.parametrize(("gained", "lost", "n"), [(10, 5, 100), (9, 3, 32), (1, 14, 60), (30, 28, 400)])
def test_tango_inverts_the_score_test(gained, lost, n):
    """The interval of a paired difference is the one its definition gives, found here by maximising the likelihood."""
    assert tango(gained, lost, n) == pytest.approx(_tango_by_optimisation(gained, lost, n), abs=1e-5)


def test_equal_answers_leave_room_for_a_difference():
    """Thirty equal pairs do not prove equality: z² / (n + z²) on either side."""
    low, high = tango(0, 0, 30)
    assert (low, high) == pytest.approx((-(1.959964**2) / (30 + 1.959964**2), 1.959964**2 / (30 + 1.959964**2)))


PAIRS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40).map(np.array)


@given(PAIRS, st.sampled_from([1.0, 3.0]))
def test_a_paired_difference_is_antisymmetric_and_holds_its_mean(pairs, trials):
    """Swapping the two sides turns the interval round; the interval holds the mean difference and stays within -1 and 1."""
    there, back = score_difference(pairs[:, 0], pairs[:, 1], trials), score_difference(pairs[:, 1], pairs[:, 0], trials)
    assert -1 <= there.low <= there.value + 1e-9
    assert there.value - 1e-9 <= there.high <= 1
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_a_difference_of_nothing_is_unknown():
    """Without pairs nothing is said: the whole scale for scores, no bounds for anything else."""
    assert score_difference(np.array([]), np.array([]))[1:4] == (-1.0, 1.0, 0)
    assert mean_difference(np.array([1.0]), np.array([2.0]))[:3] == (1.0, -math.inf, math.inf)


def test_a_difference_of_means_agrees_with_scipy():
    """Latency and cost get the paired t interval of scipy."""
    rng = np.random.default_rng(0)
    first, second = rng.lognormal(size=50), rng.lognormal(size=50)
    interval = stats.ttest_rel(second, first).confidence_interval()
    assert mean_difference(first, second)[1:3] == pytest.approx((interval.low, interval.high))


def test_percentiles_differ_by_mover():
    """Two percentiles with intervals of ±3 and ±4 differ with an interval of ±5."""
    assert quantile_difference((10.0, 7.0, 13.0), (20.0, 16.0, 24.0)) == pytest.approx((5.0, 15.0))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.10, -0.03, "worse"), (0.01, 0.05, "better"), (-0.01, 0.05, "not worse"), (-0.01, -0.001, "not worse"), (-0.05, 0.03, "inconclusive")],
)
def test_the_verdict_is_that_of_the_interval(low, high, said):
    """Against a margin of 0.02: wholly below it is worse, wholly above 0 better, wholly above it not worse, else nothing is decided."""
    assert verdict(low, high, 0.02) == said


@pytest.mark.parametrize(("sd", "effect"), [(0.4, 0.02), (0.5, 0.1), (12.0, 3.0)])
def test_samples_needed_agrees_with_deltagate_and_statsmodels(sd, effect):
    """The number of samples to ask for is that of two other libraries (statsmodels adds a sample or two for Student's t)."""
    needed = samples_needed(sd, effect)
    assert needed == pytest.approx(deltagate.min_samples_for_delta(effect, sd), abs=1)
    assert needed == pytest.approx(TTestPower().solve_power(effect / sd, alpha=0.05, power=0.8), abs=2.5)
    assert minimal_detectable_effect(sd, needed) == pytest.approx(effect, rel=0.01)
    assert minimal_detectable_effect(sd, 50) == pytest.approx(deltagate.minimum_detectable_delta(50, sd))


def test_samples_needed_admits_what_no_number_can_show():
    """No effect cannot be shown; no pair sees nothing."""
    assert samples_needed(0.4, 0.0) is None
    assert samples_needed(math.inf, 0.1) is None
    assert minimal_detectable_effect(0.4, 0) == math.inf


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_counts_every_choice_of_k(case):
    """pass@k is the share of the choices of k trials with one right, pass^k with all right: counted here."""
    n, right, k = case
    choices = list(itertools.combinations([1] * right + [0] * (n - right), k))
    assert float(pass_at_k(n, right, k)) == pytest.approx(np.mean([any(one) for one in choices]))
    assert float(pass_all_k(n, right, k)) == pytest.approx(np.mean([all(one) for one in choices]))


def test_pass_at_more_than_was_tried_is_unknown():
    """pass@5 of three trials is not a number."""
    assert np.isnan(pass_at_k([3], [2], 5)).all()
    assert np.isnan(pass_all_k([3], [2], 5)).all()


def test_tie_groups_put_the_clear_loser_behind():
    """Two of 0.80 and one of 0.55 over 300 samples: the two tie, the third is alone; who has no score has no group."""
    rng = np.random.default_rng(9)
    scores = (rng.random((3, 300)) < np.array([[0.80], [0.80], [0.55]])).astype(float)
    assert tie_groups(np.vstack([scores, np.full((1, 300), np.nan)])) == [1, 1, 2, None]


def test_tie_groups_compare_only_what_both_answered():
    """A sample that one side did not answer decides nothing."""
    scores = np.ones((2, 100))
    scores[1, :40] = np.nan
    scores[1, 40:] = 1.0
    assert tie_groups(scores) == [1, 1]


def test_a_cell_that_hardly_answered_leads_nobody():
    """0.9, 0.9 and 0.5 over 500 samples are 1, 1, 2; a fourth that answered 3 of them, all right, is set apart and changes nothing."""
    rng = np.random.default_rng(9)
    scores = (rng.random((3, 500)) < np.array([[0.9], [0.9], [0.5]])).astype(float)
    broken = np.full((1, 500), np.nan)
    broken[0, [5, 50, 400]] = 1.0
    assert tie_groups(scores) == [1, 1, 2]
    assert tie_groups(np.vstack([scores, broken])) == [1, 1, 2, None]


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(20, 80))
def test_no_cell_changes_the_ranking_by_being_broken(seed, cells, samples):
    """Whatever the scores: a cell with less than half of the samples, right or wrong on them, leaves every other tie group as it was."""
    rng = np.random.default_rng(seed)
    scores = (rng.random((cells, samples)) < rng.random((cells, 1))).astype(float)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    broken = np.full((1, samples), np.nan)
    fullest = int((~np.isnan(scores)).sum(axis=1).max())
    broken[0, rng.permutation(samples)[: rng.integers(0, (fullest + 1) // 2)]] = rng.integers(0, 2)
    assert tie_groups(np.vstack([scores, broken])) == [*tie_groups(scores), None]


def test_nobody_leads_by_leaving_out_what_is_hard():
    """One cell answers all, and hard questions less well; another, never better, answers only the easy 60 %: the first leads, alone where it can be told."""
    full = np.array([1.0] * 300 + [0.4] * 200)
    easy = np.array([0.96] * 300 + [np.nan] * 200)
    assert easy[:300].mean() > full.mean()
    assert tie_groups(np.vstack([easy, full])) == [2, 1]
