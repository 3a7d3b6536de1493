"""Gates: broken only where it is shown, held only where it is shown, and never passed by nothing."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from test_compare import rows

from evalrunner.analysis.compare import Options, compare
from evalrunner.analysis.gates import Against, check_gates, gates_state
from evalrunner.analysis.pairing import Side
from evalrunner.analysis.power import minimal_detectable_effect
from evalrunner.analysis.rules import Rule, metric_problem
from evalrunner.analysis.summary import summarise
from evalrunner.errors import ConfigError
from evalrunner.simulator.chance import Correlation, is_right


def run(*tables):
    """A run's summary and its side of a comparison."""
    table = pa.concat_tables(tables)
    return summarise(table, None, {"plan": {"trials": 1}}), Side("run", table, {"trials": 1}, {})


def checked(rule, *tables):
    summary, _ = run(*tables)
    return check_gates([rule], summary)


def against(baseline, candidate):
    (old, old_side), (new, new_side) = run(*baseline), run(*candidate)
    return new, Against(compare(old_side, new_side), old)


@pytest.mark.parametrize(
    ("right", "state"), [(99, "pass"), (70, "fail"), (92, "inconclusive"), (88, "inconclusive")], ids=["clearly above", "clearly below", "above", "below"]
)
def test_a_minimum_is_decided_by_the_interval(right, state):
    """score_exact ≥ 0.9 over 100 samples: wholly above passes, wholly below fails, in between it is inconclusive and says how many would decide."""
    (result,) = checked(Rule(metric="score_exact", min=0.9), rows([1.0] * right + [0.0] * (100 - right)))
    assert result.state == state
    assert (result.samples_needed is not None) == (state == "inconclusive")
    assert f"score_exact ≥ 0.9: {state}" in result.text


def test_infrastructure_errors_do_not_fail_a_gate():
    """5 % of the requests timed out: what was answered passes, and the bounds are shown."""
    (result,) = checked(Rule(metric="score_exact", min=0.9), rows([1.0] * 190 + [None] * 10))
    assert result.state == "pass"
    assert result.bounds == pytest.approx((0.95, 1.0))


def test_nothing_measured_never_passes():
    """No answer, no matching cell: no data, whatever the limit."""
    (unanswered,) = checked(Rule(metric="score_exact", min=0.0), rows([None] * 10))
    (missing,) = checked(Rule(metric="score_exact", max=1.0, where={"model": "nobody"}), rows([1.0] * 10))
    assert (unanswered.state, missing.state) == ("no data", "no data")
    assert "no cell has model=nobody" in missing.text
    assert gates_state([unanswered]) == "no data"


def test_a_planned_cell_without_a_row_has_no_data():
    """Two models were planned and one was never served: every rule about it says so, and nothing passes by half; `where` and prompt sets still choose."""
    models = [{"name": name, "provider": "p"} for name in ("m", "never")]
    sets = [{"name": "set", "prompts": ["plain"], "scorers": ["exact"]}, {"name": "other", "prompts": ["plain"], "scorers": []}]
    plan = {"models": models, "grid": {"temperature": [0.0]}, "prompt_sets": sets, "stream": [True]}
    summary = summarise(rows([1.0] * 100, params={"temperature": 0.0}), None, {"plan": plan})
    results = check_gates([Rule(metric="score_exact", min=0.5)], summary)
    assert [one.state for one in results] == ["pass", "no data"]
    assert "never: score_exact: no data (no request of this cell has a row)" in results[1].text
    assert gates_state(check_gates([Rule(metric="score_exact", min=0.5, where={"model": "m"})], summary)) == "pass"
    assert gates_state(check_gates([Rule(metric="latency_ms", max=5)], summary)) == "no data"
    assert gates_state(check_gates([Rule(metric="score_exact", min=0.5)], summary, within={"model": "m"})) == "pass"


def test_every_matching_cell_must_pass():
    """Without `where` each cell is judged; with it only the chosen; the worst decides."""
    tables = [rows([1.0] * 100, model="good"), rows([0.0] * 100, model="bad")]
    everyone = checked(Rule(metric="score_exact", min=0.5), *tables)
    assert sorted((one.cell, one.state) for one in everyone) == [("bad", "fail"), ("good", "pass")]
    assert gates_state(everyone) == "fail"
    assert gates_state(checked(Rule(metric="score_exact", min=0.5, where={"model": "good"}), *tables)) == "pass"
    assert gates_state([]) == "pass"


def test_a_percentile_needs_enough_requests():
    """p95 of 50 requests is inconclusive and says 100; of 400 it is decided by its order-statistic interval."""
    few = rows([1.0] * 50, ttft_ms=pa.array(np.linspace(10, 100, 50)))
    many = rows([1.0] * 400, ttft_ms=pa.array(np.linspace(10, 100, 400)))
    (short,) = checked(Rule(metric="ttft_ms.p95", max=1500), few)
    assert (short.state, short.samples_needed) == ("inconclusive", 100)
    assert [checked(Rule(metric="ttft_ms.p95", max=limit), many)[0].state for limit in (1500, 95.5, 50)] == ["pass", "inconclusive", "fail"]


def test_means_tokens_cost_and_coverage_have_limits_too():
    """Mean latency has its t interval; tokens, cost and coverage are what they are."""
    table = rows(
        [1.0] * 9 + [None],
        latency_ms=pa.array([100.0, 110.0] * 5),
        completion_tokens=pa.array([5] * 9 + [None]),
        cost=pa.array([0.01] * 9 + [None]),
        currency=pa.array(["CNY"] * 9 + [None]),
    )
    limits = {
        "latency_ms": 200,
        "completion_tokens": 5,
        "cost": 0.0101,
        "cost.total": 0.0901,
        "cost.per_1000": 10.1,
        "cost.per_correct.exact": 0.0101,
        "coverage": 0.9,
    }
    for metric, limit in limits.items():
        (result,) = checked(Rule(metric=metric, max=limit), table)
        assert (metric, result.state) == (metric, "pass")
        (result,) = checked(Rule(metric=metric, max=limit * 0.9), table)
        assert (metric, result.state) == (metric, "fail" if metric != "latency_ms" else "pass")


def priced(costs, **columns):
    """Answers of so many samples with these costs (None: unknown)."""
    return rows([1.0] * len(costs), cost=pa.array(costs, pa.float64()), currency=pa.array([None if one is None else "CNY" for one in costs]), **columns)


def test_what_is_not_known_of_a_cost_never_passes():
    """Usage came for one of a hundred answers: no maximum is held, the known part is a lower bound that can break one, and n says how many are known."""
    table = priced([0.01] + [None] * 99)
    for metric in ("cost.total", "cost", "cost.per_1000", "cost.per_correct.exact"):
        (result,) = checked(Rule(metric=metric, max=1000.0), table)
        assert (metric, result.state, result.n, result.high) == (metric, "inconclusive", 1, None)
        assert "the cost of 99 answers is unknown" in result.text
    assert checked(Rule(metric="cost.total", max=0.009), table)[0].state == "fail"
    assert checked(Rule(metric="cost.total", min=0.009), table)[0].state == "pass"
    (half,) = checked(Rule(metric="cost", max=0.004), priced([0.01] * 50 + [None] * 50))
    assert half.state == "fail"
    new, base = against([priced([0.01] * 50)], [priced([0.01] * 49 + [None])])
    assert check_gates([Rule(metric="cost", max_drop=1.0)], new, base)[0].state == "inconclusive"


def test_a_mean_of_tokens_is_measured_and_not_known():
    """205 tokens on average over two answers do not break a maximum of 204; over a hundred they do. Repeats of a sample are one sample."""
    few, many = (rows([1.0] * n, completion_tokens=pa.array([200, 210] * (n // 2))) for n in (2, 100))
    rule = Rule(metric="completion_tokens", max=203)
    assert [checked(rule, table)[0].state for table in (few, many)] == ["inconclusive", "fail"]
    (single,) = checked(rule, few.slice(0, 1))
    assert (single.state, single.samples_needed) == ("inconclusive", 2)
    repeated = [rows([1.0] * 2, trial=trial, completion_tokens=pa.array([200, 210])) for trial in range(50)]
    (result,) = checked(rule, *repeated)
    assert (result.state, result.n) == ("inconclusive", 2)


def test_cost_per_thousand_is_paired_like_cost():
    """Samples differ in cost far more than the two runs do: paired, a rise of a tenth is seen."""
    costs = np.linspace(0.001, 0.1, 40)
    new, base = against([priced(costs.tolist())], [priced((costs * 1.1).tolist())])
    results = [check_gates([Rule(metric=metric, max_drop=0.0)], new, base)[0] for metric in ("cost", "cost.per_1000")]
    assert [one.state for one in results] == ["fail", "fail"]
    assert (results[1].value, results[1].low) == pytest.approx((1000 * results[0].value, 1000 * results[0].low))


def test_costs_in_two_currencies_and_streams_beside_whole_answers_are_not_compared():
    """What cannot be compared has no data, and the reason stands in the line."""
    dollars = priced([0.01] * 50).set_column(0, "key", pa.array([f"k{i}" for i in range(50)]))
    dollars = dollars.set_column(dollars.schema.get_field_index("currency"), "currency", pa.array(["USD"] * 50))
    new, base = against([priced([0.01] * 50)], [dollars])
    (result,) = check_gates([Rule(metric="cost", max_drop=1.0)], new, base)
    assert (result.state, "currencies differ" in result.text) == ("no data", True)


def test_time_to_first_token_is_asked_of_streams_only():
    """A grid of `stream: [true, false]`: whole answers have no TTFT, so the rule is about the streamed cell; where nothing streams it has no data."""
    times = pa.array(np.linspace(10, 100, 400))
    streamed, whole = rows([1.0] * 400, ttft_ms=times), rows([1.0] * 400, stream=False, ttft_ms=pa.array([None] * 400, pa.float64()))
    assert [one.state for one in checked(Rule(metric="ttft_ms.p95", max=1500), streamed, whole)] == ["pass"]
    assert [one.state for one in checked(Rule(metric="ttft_ms.p95", max=1500), whole)] == ["no data"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.0, 0.01, 0.05, 0.1]))
def test_a_gate_and_a_comparison_ask_for_the_same_samples_and_for_more_than_there_are(lost, gained, margin):
    """One formula: what `compare` says beside a difference is what the gate says, more than the n that did not decide, and nothing where nothing would."""
    old = [1.0] * lost + [0.0] * gained + [1.0] * (200 - lost - gained)
    after = [0.0] * lost + [1.0] * gained + [1.0] * (200 - lost - gained)
    rule = Rule(metric="score_exact", max_drop=margin)
    (a, a_side), (b, b_side) = run(rows(old)), run(rows(after))
    comparison = compare(a_side, b_side, Options(drops=[rule]))
    (result,), found = check_gates([rule], b, Against(comparison, a)), comparison.pairs[0].metrics["score_exact"]
    assert (found.verdict == "worse") == (result.state == "fail")
    assert (found.verdict == "inconclusive") == (result.state == "inconclusive")
    assert found.samples_needed == result.samples_needed
    assert result.samples_needed is None or result.samples_needed > 200
    assert result.state != "inconclusive" or (result.samples_needed is None) == (abs(lost - gained - 200 * margin) < 1e-6)


def test_a_minimum_and_a_maximum_are_two_results():
    """A rule with both limits is judged on both."""
    results = checked(Rule(metric="score_exact", min=0.1, max=0.5), rows([1.0] * 100))
    assert [(one.limit, one.state) for one in results] == [("min", "pass"), ("max", "fail")]


@pytest.mark.parametrize(("lost", "state"), [(0, "pass"), (60, "fail"), (12, "inconclusive")])
def test_a_drop_is_shown_or_not(lost, state):
    """At most 0.02 worse than the baseline over 1,000 paired samples: no flip passes, 6 % lost fails, 1.2 % lost is inconclusive."""
    new, base = against([rows([1.0] * 1000)], [rows([0.0] * lost + [1.0] * (1000 - lost))])
    (result,) = check_gates([Rule(metric="score_exact", max_drop=0.02)], new, base)
    assert (result.state, result.baseline) == (state, 1.0)
    assert result.value == pytest.approx(lost / 1000)


def test_a_drop_of_a_percentile_is_a_rise_in_milliseconds():
    """For a latency worse is up: p95 twice as high breaks a limit of 50 ms; the same distribution does not. Equal tokens pass a limit of 0."""
    times = np.linspace(100, 200, 400)
    old = rows([1.0] * 400, ttft_ms=pa.array(times), completion_tokens=pa.array([9] * 400))
    slow = rows([1.0] * 400, ttft_ms=pa.array(times * 2), completion_tokens=pa.array([9] * 400))
    rule = Rule(metric="ttft_ms.p95", max_drop=50)
    for candidate, state in ((slow, "fail"), (old, "pass")):
        new, base = against([old], [candidate])
        assert check_gates([rule], new, base)[0].state == state
    assert check_gates([Rule(metric="completion_tokens", max_drop=0)], new, base)[0].state == "pass"
    few_new, few_base = against([old.slice(0, 20)], [slow.slice(0, 20)])
    (result,) = check_gates([rule], few_new, few_base)
    assert (result.state, result.samples_needed) == ("inconclusive", 100)


def test_speed_is_better_when_higher():
    """A drop of tokens per second is a drop: half the speed breaks the gate."""
    old = rows([1.0] * 200, tpot_ms=pa.array(np.linspace(10, 11, 200)))
    new, base = against([old], [rows([1.0] * 200, tpot_ms=pa.array(np.linspace(20, 22, 200)))])
    (result,) = check_gates([Rule(metric="decode_tok_s.p50", max_drop=5)], new, base)
    assert result.state == "fail"


def test_a_cell_that_the_baseline_lacks_has_no_data():
    """A cell outside the comparison cannot be said to hold a drop."""
    new, base = against([rows([1.0] * 10)], [rows([1.0] * 10)])
    more, _ = run(rows([1.0] * 10), rows([1.0] * 10, model="new"))
    states = {one.cell: one.state for one in check_gates([Rule(metric="score_exact", max_drop=0.9)], more, base)}
    assert states == {"m": "pass", "new": "no data"}
    assert len(new.cells) == 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(metric="score_exakt", min=0.9), "did you mean 'score_exact'"),
        (Rule(metric="zzz", min=0.9), "known: score_exact"),
        (Rule(metric="score_exact"), "no limit"),
        (Rule(metric="score_exact", max_drop=0.1), "needs a baseline"),
    ],
)
def test_a_rule_that_cannot_be_checked_is_refused(rule, said):
    """An unknown metric, a rule without a limit, a drop without a baseline: each is an error in words."""
    with pytest.raises(ConfigError, match=said):
        checked(rule, rows([1.0] * 10))


def test_metrics_are_known_before_a_run():
    """A config's gates can be checked before anything is sent."""
    assert metric_problem("ttft_ms.p95", []) is None
    assert "did you mean 'ttft_ms.p95'" in metric_problem("ttft.p95", [])


def accuracies(right):
    """Three trials of a prompt's answers, as rows."""
    return [rows(right[trial].astype(float).tolist(), trial=trial) for trial in range(3)]


@pytest.mark.long
def test_the_gate_keeps_its_level_and_its_planned_power():
    """500 samples x 3 trials, 200 seeded repeats, answers drawn by the simulator's own rule: equals break a gate of 0 no oftener than a one-sided level of
    2.5 % allows (binomial, 99 %), and the drop for which 500 samples were planned is caught as often as 80 % allows (99 %, either side).
    """
    n, repeats, rule = 500, 200, Rule(metric="score_exact", max_drop=0.0)

    def drawn(seed, prompt, accuracy):
        subjects, correlation = range(n), Correlation()
        return np.array([[is_right(accuracy, seed=seed, subject=f"q{at}", model="m", request=f"{prompt}/{trial}", correlation=correlation) for at in subjects]
                         for trial in range(3)])  # fmt: skip

    planned = np.concatenate([drawn(10**6 + pilot, "old", 0.8).mean(axis=0) - drawn(10**6 + pilot, "new", 0.8).mean(axis=0) for pilot in range(10)])
    drop = minimal_detectable_effect(float(planned.std(ddof=1)), n)
    failed = {0.0: 0, drop: 0}
    for seed in range(repeats):
        old = accuracies(drawn(seed, "old", 0.8))
        for less in failed:
            new, base = against(old, accuracies(drawn(seed, f"new {less}", 0.8 - less)))
            (result,) = check_gates([rule], new, base)
            failed[less] += result.state == "fail"
    assert failed[0.0] <= binom.ppf(0.99, repeats, 0.025)
    assert binom.ppf(0.005, repeats, 0.8) <= failed[drop] <= binom.ppf(0.995, repeats, 0.8)
