"""Two runs side by side: pairing, flips, verdicts, and refusing what cannot be compared."""

import json

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from evalrunner.analysis.compare import Options, compare
from evalrunner.analysis.paired import mcnemar_p, score_difference, tango, verdict
from evalrunner.analysis.pairing import Side
from evalrunner.analysis.rules import Rule
from evalrunner.analysis.scorings import changed, scorings_of
from evalrunner.cli.verdict_words import metric_words
from evalrunner.errors import ConfigError, DatasetError


def rows(scores, *, model="m", prompt="plain", params=None, stream=True, trial=0, **columns):
    """One cell: a score per sample (None: unanswered)."""
    n = len(scores)
    table = {
        "key": [f"{model}/{prompt}/{params}/{stream}/{trial}/{i}" for i in range(n)],
        "prompt_set": ["set"] * n,
        "prompt": [prompt] * n,
        "sample_id": [f"s{i:04}" for i in range(n)],
        "sample_hash": [f"h{i}" for i in range(n)],
        "model": [model] * n,
        "provider": ["p"] * n,
        "params": [json.dumps(params or {}, sort_keys=True)] * n,
        "stream": [stream] * n,
        "trial": [trial] * n,
        "outcome": ["timeout" if score is None else "ok" for score in scores],
        "score_exact": pa.array(scores, pa.float64()),
    }
    return pa.table({**table, **columns})


def side(name, *tables, where=None, trials=1):
    return Side(name, pa.concat_tables(tables), {"trials": trials}, where or {})


def only(comparison):
    (pair,) = comparison.pairs
    return pair


def test_a_difference_is_paired_sample_by_sample():
    """12 lost and 3 gained of 100: difference, Tango's interval, McNemar's p, and the flips by name."""
    before = [1.0] * 60 + [0.0] * 40
    after = [0.0] * 12 + [1.0] * 48 + [1.0] * 3 + [0.0] * 37
    pair = only(compare(side("old", rows(before)), side("new", rows(after))))
    found = pair.metrics["score_exact"]
    assert found.difference == pytest.approx(-0.09)
    assert (found.low, found.high) == pytest.approx(tango(3, 12, 100))
    assert (found.p, found.p_holm) == pytest.approx((mcnemar_p(3, 12),) * 2)
    assert (found.verdict, found.n, found.left_out, found.method) == ("worse", 100, 0, "tango")
    flips = pair.flips["score_exact"]
    assert (flips.both_right, flips.both_wrong, len(flips.gained), len(flips.lost)) == (48, 37, 3, 12)
    assert flips.lost[0] == "s0000"
    assert flips.p == pytest.approx(mcnemar_p(3, 12))


def test_unanswered_samples_are_left_out_and_bounded():
    """Five of a hundred unanswered on one side: no difference is claimed from them, their number and the bounds are shown."""
    found = only(compare(side("old", rows([1.0] * 100)), side("new", rows([None] * 5 + [1.0] * 95)))).metrics["score_exact"]
    assert (found.difference, found.n, found.left_out) == (0.0, 95, 5)
    assert (found.low_bound, found.high_bound) == pytest.approx((-0.05, 0.0))


def test_bounds_count_what_each_side_planned():
    """One trial before, three now, one of them answered: two of three answers are open on one side, none on the other."""
    new = [rows([1.0 if trial == 0 else None] * 10, trial=trial) for trial in range(3)]
    found = only(compare(side("old", rows([1.0] * 10)), side("new", *new, trials=3))).metrics["score_exact"]
    assert (found.low_bound, found.high_bound) == pytest.approx((-2 / 3, 0.0))


def test_a_side_that_was_asked_once_is_no_steadier_for_the_other_s_ten_trials():
    """A baseline of ten trials against one answer each is the same comparison turned round: the interval is its mirror image, and as wide."""
    often = [rows([1.0] * 27 + [float(at < 5)] * 3, trial=at) for at in range(10)]
    once = rows([1.0] * 28 + [0.0] * 2)
    there = only(compare(side("often", *often, trials=10), side("once", once))).metrics["score_exact"]
    back = only(compare(side("once", once), side("often", *often, trials=10))).metrics["score_exact"]
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_mcnemar_is_for_one_trial_of_right_or_wrong():
    """Halves of a graded score and means over trials have no exact McNemar test; the sign flips of the difference say it then."""
    graded = only(compare(side("old", rows([0.9, 0.2] * 10)), side("new", rows([0.4, 0.2] * 10))))
    assert (graded.flips["score_exact"].p, len(graded.flips["score_exact"].lost)) == (None, 10)
    assert graded.metrics["score_exact"].p < 0.01
    trials = [[rows([1.0, 0.0] * 10, trial=t) for t in range(2)] for _ in range(2)]
    assert only(compare(side("old", *trials[0], trials=2), side("new", *trials[1], trials=2))).flips["score_exact"].p is None


def test_a_margin_is_that_of_the_cell():
    """Two drops with different `where`: each pair is judged by its own, the strictest where several apply, and 0 where none does."""
    tables = [rows([1.0] * 100, model=model) for model in "abc"]
    worse = [rows([0.0] * 3 + [1.0] * 97, model=model) for model in "abc"]
    drops = [Rule(metric="score_exact", max_drop=margin, where={"model": model}) for model, margin in (("a", 0.2), ("b", 0.1))]
    found = compare(side("old", *tables), side("new", *worse), Options(drops=drops)).pairs
    assert [pair.metrics["score_exact"].margin for pair in found] == [0.2, 0.1, 0.0]
    assert [pair.metrics["score_exact"].verdict for pair in found] == ["not worse", "not worse", "inconclusive"]
    found = compare(side("old", *tables), side("new", *worse), Options(drops=drops, margins={"score_exact": 0.15})).pairs
    assert [pair.metrics["score_exact"].margin for pair in found] == [0.15, 0.1, 0.15]


def test_twenty_equal_samples_are_inconclusive_and_say_how_many_it_takes():
    """Equal prompts on 20 samples: nothing is shown either way, and the number needed is given; on 2,000 it is not worse."""
    few = only(compare(side("old", rows([1.0] * 20)), side("new", rows([1.0] * 20)), Options(margins={"score_exact": 0.02}))).metrics["score_exact"]
    assert few.verdict == "inconclusive"
    assert few.samples_needed > 200
    many = only(compare(side("old", rows([1.0] * 2000)), side("new", rows([1.0] * 2000)), Options(margins={"score_exact": 0.02}))).metrics["score_exact"]
    assert (many.verdict, many.samples_needed) == ("not worse", None)


def test_lower_is_better_for_latency_and_cost():
    """Twice the latency is worse, half the tokens better; the relative change is given."""
    n, rng = 60, np.random.default_rng(0)
    base = rng.lognormal(5, 0.3, n)
    old = rows([1.0] * n, latency_ms=pa.array(base), completion_tokens=pa.array([20] * 30 + [22] * 30))
    new = rows([1.0] * n, latency_ms=pa.array(base * 2), completion_tokens=pa.array([10] * 30 + [11] * 30))
    metrics = only(compare(side("old", old), side("new", new))).metrics
    assert (metrics["latency_ms"].verdict, metrics["latency_ms"].better) == ("worse", "lower")
    assert metrics["latency_ms"].relative == pytest.approx(1.0)
    assert metrics["completion_tokens"].verdict == "better"


def test_trials_are_averaged_before_pairing():
    """Three trials of a sample are one number: their mean."""
    old = [rows([1.0, 0.0, 1.0] * 10, trial=t) for t in range(3)]
    new = [rows([1.0, 0.0, float(t < 2)] * 10, trial=t) for t in range(3)]
    found = only(compare(side("old", *old, trials=3), side("new", *new, trials=3))).metrics["score_exact"]
    assert (found.n, found.difference, found.method) == (30, pytest.approx(-1 / 9), "bayesian bootstrap")


def test_cells_are_paired_by_what_they_are():
    """Two models in two runs: each against itself, Holm over the two, in the order of the baseline."""
    rng = np.random.default_rng(1)
    old = [rows((rng.random(200) < 0.8).astype(float).tolist(), model=model) for model in "ab"]
    new = [rows((rng.random(200) < level).astype(float).tolist(), model=model) for model, level in (("b", 0.5), ("a", 0.8))]
    comparison = compare(side("old", *old), side("new", *new))
    assert [(pair.baseline.model, pair.candidate.model) for pair in comparison.pairs] == [("a", "a"), ("b", "b")]
    first, second = (pair.metrics["score_exact"] for pair in comparison.pairs)
    assert second.verdict == "worse"
    assert second.p_holm == pytest.approx(2 * second.p)
    assert first.p_holm >= first.p


def test_cells_of_one_run_can_be_compared():
    """RUN[prompt=plain] against RUN[prompt=careful]: the prompt is what differs, the rest is paired."""
    tables = [rows([1.0, 0.0] * 10, prompt=prompt, model=model) for prompt in ("plain", "careful") for model in "ab"]
    comparison = compare(side("run", *tables, where={"prompt": "plain"}), side("run", *tables, where={"prompt": "careful"}))
    assert [(pair.baseline.prompt, pair.candidate.prompt, pair.candidate.model) for pair in comparison.pairs] == [
        ("plain", "careful", "a"),
        ("plain", "careful", "b"),
    ]


@pytest.mark.parametrize("asked", ["0.7", 0.7, "0.70"])
def test_a_parameter_is_chosen_by_its_value(asked):
    """temperature=0.7 finds 0.7 however it is written."""
    tables = [rows([1.0] * 5, params={"temperature": value}) for value in (0.7, 0.0)]
    pair = only(compare(side("run", *tables, where={"temperature": asked}), side("run", *tables, where={"temperature": "0"})))
    assert (pair.baseline.params, pair.candidate.params) == ({"temperature": 0.7}, {"temperature": 0.0})


def test_a_renamed_prompt_is_paired_when_told():
    """--map plain=simple pairs the two; without it both are named as lacking a partner."""
    old = side("old", rows([1.0] * 5), rows([1.0] * 5, prompt="other"))
    new = side("new", rows([1.0] * 5, prompt="simple"), rows([1.0] * 5, prompt="other"))
    with pytest.raises(ConfigError, match=r"prompt=plain.*no partner in new") as caught:
        compare(old, new)
    assert len(caught.value.problems) == 2
    pairs = compare(old, new, Options(renames={"plain": "simple"})).pairs
    assert {(pair.baseline.prompt, pair.candidate.prompt) for pair in pairs} == {("plain", "simple"), ("other", "other")}


def test_a_choice_of_no_cell_or_of_several_alike_is_refused():
    """A selector that finds nothing, and one that leaves two cells alike, are told apart in words."""
    tables = [rows([1.0] * 5, prompt=prompt, model=model) for prompt in ("plain", "careful") for model in "ab"]
    with pytest.raises(ConfigError, match=r"no cell has prompt=nope, model=a \(hint: prompt is careful or plain\)"):
        compare(side("run", *tables, where={"prompt": "nope", "model": "a"}), side("run", *tables))
    with pytest.raises(ConfigError, match=r"no cell has modle=a \(hint: modle is no part of a cell; these are: prompt_set, prompt, model, provider, stream"):
        compare(side("run", *tables, where={"modle": "a"}), side("run", *tables))
    with pytest.raises(ConfigError, match="several cells are alike"):
        compare(side("run", *tables, where={"prompt": "plain"}), side("run", *tables))


def test_other_data_are_refused_with_where_unless_told_to_leave_them_out():
    """A sample whose data changed is named; told to, the comparison goes on without it and says so."""
    changed = rows([1.0] * 10)
    hashes = pa.array([f"h{i}" for i in range(9)] + ["other"])
    changed = changed.set_column(changed.schema.get_field_index("sample_hash"), "sample_hash", hashes)
    with pytest.raises(DatasetError, match=r"set: 1 samples have other data in new than in old: s0009 \(hint: --allow-changed-data leaves them out; .*rescore"):
        compare(side("old", rows([1.0] * 10)), side("new", changed))
    pair = only(compare(side("old", rows([1.0] * 10)), side("new", changed), Options(leave_out_changed=True)))
    assert (pair.matched, pair.changed) == (9, 1)


def test_samples_of_one_side_only_are_counted():
    """More samples on one side: the common ones are compared, the rest counted; nothing in common is refused."""
    pair = only(compare(side("old", rows([1.0] * 10)), side("new", rows([1.0] * 7))))
    assert (pair.matched, pair.only_baseline, pair.only_candidate) == (7, 3, 0)
    far = rows([1.0] * 3)
    far = far.set_column(far.schema.get_field_index("sample_id"), "sample_id", pa.array(["x", "y", "z"]))
    with pytest.raises(DatasetError, match="no sample in common"):
        compare(side("old", rows([1.0] * 3)), side("new", far))


def test_streamed_latency_is_never_set_against_unstreamed():
    """The answers of a streamed and an unstreamed cell compare; their latencies do not. Costs in two currencies do not either."""
    old = rows([1.0] * 5, latency_ms=pa.array([1.0, 2, 3, 4, 5]), cost=pa.array([1.0] * 5), currency=pa.array(["CNY"] * 5))
    new = rows([1.0] * 5, stream=False, latency_ms=pa.array([1.0, 2, 3, 4, 5]), cost=pa.array([1.0] * 5), currency=pa.array(["USD"] * 5))
    pair = only(compare(side("old", old), side("new", new)))
    assert list(pair.metrics) == ["score_exact"]
    assert pair.not_compared == {"latency_ms": "streamed answers are not held against whole ones", "cost": "the currencies differ"}


def scored_by(options, *, target="{{ answer }}", more=(), judges=()):
    """A side whose plan says what computed its scores."""
    scorers = [{"name": "exact", "kind": "exact", "options": options}, *({"name": name, "kind": name, "options": {}} for name in more)]
    sets = [{"name": "set", "scorers": [one["name"] for one in scorers], "prompts": ["plain"], "target": target}]
    return Side("side", rows([1.0] * 10), {"trials": 1, "scorers": scorers, "prompt_sets": sets, "judges": list(judges)}, {})


@pytest.mark.parametrize(
    ("new", "how"),
    [
        ({"options": {"tolerance": 10}}, "tolerance: 0 → 10"),
        ({"options": {"tolerance": 0}, "target": "{{ other }}"}, 'target: "{{ answer }}" → "{{ other }}"'),
        ({"options": {"tolerance": 0}, "judges": [{"scorer": "exact", "id": "b", "provider": "p", "params": {}}]}, 'judges: .*"a".* → .*"b"'),
    ],
    ids=["options", "target", "judge"],
)
def test_scores_that_were_computed_differently_are_refused_unless_told_to_leave_them_out(new, how):
    """A scorer that became lenient, another target or another judge: no regression hides behind it, and the message says what changed."""
    old = scored_by({"tolerance": 0}, judges=[{"scorer": "exact", "id": "a", "provider": "p", "params": {}, "price": 1}] if "judges" in new else [])
    with pytest.raises(ConfigError, match=rf"score_exact was computed differently in side and side \({how}"):
        compare(old, scored_by(**new))
    pair = only(compare(old, scored_by(**new), Options(leave_out_changed_scorers=True)))
    assert (pair.metrics, list(pair.not_compared)) == ({}, ["score_exact"])


def test_scores_that_one_side_has_are_named():
    """A scorer that is new, or that is gone, is listed and compared with nothing; a price of a judge is none of its scores' business."""
    pair = only(compare(scored_by({}, more=["gone"]), scored_by({}, more=["fresh"])))
    assert list(pair.metrics) == ["score_exact"]
    assert pair.not_compared == {"score_gone": "only the baseline has this scorer", "score_fresh": "only the candidate has this scorer"}


def test_a_gate_never_pairs_another_model_because_there_is_one_of_each():
    """One cell against one cell is a pair whatever they are called, but not where models or prompt sets must be alike; parameters may differ."""
    old = side("old", rows([1.0] * 5))
    assert only(compare(old, side("new", rows([1.0] * 5, model="other")))).candidate.model == "other"
    with pytest.raises(ConfigError, match=r"model=other .* has no partner in old"):
        compare(old, side("new", rows([1.0] * 5, model="other")), Options(alike=("prompt_set", "model")))
    assert only(compare(old, side("new", rows([1.0] * 5, params={"temperature": 1.0})), Options(alike=("prompt_set", "model")))).matched == 5


def test_a_side_without_an_answer_decides_nothing():
    """Where one side answered nothing, nothing is worse: there is no number, and the bounds are wide open."""
    found = only(compare(side("old", rows([1.0] * 10)), side("new", rows([None] * 10)))).metrics
    assert found == {}
    half = only(compare(side("old", rows([1.0] * 10 + [None])), side("new", rows([None] * 10 + [1.0])))).metrics["score_exact"]
    assert (half.difference, half.p, half.verdict, half.left_out) == (None, None, "inconclusive", 11)
    assert (half.low_bound, half.high_bound) == pytest.approx((-10 / 11, 1 / 11))


def test_a_comparison_is_json():
    """`--json` prints the comparison as it is."""
    comparison = compare(side("old", rows([1.0, 0.0])), side("new", rows([1.0, 1.0])))
    assert json.loads(msgspec.json.encode(comparison))["pairs"][0]["baseline"]["prompt"] == "plain"


def test_the_verdict_keeps_its_error_rates():
    """500 samples x 3 trials: of 400 comparisons of equals about 1 in 40 is called worse, and a true drop of 0.10 nearly always is."""
    rng = np.random.default_rng(7)
    worse = {0.0: 0, 0.1: 0}
    for _ in range(400):
        chance = rng.beta(4, 1, 500)
        for drop in worse:
            old, new = (rng.binomial(3, np.clip(chance - less, 0, 1)) / 3 for less in (0.0, drop))
            worse[drop] += verdict(*score_difference(old, new, 3.0)[1:3]) == "worse"
    assert worse[0.0] <= 20
    assert worse[0.1] >= 390


def test_an_answer_whose_time_was_not_measured_is_not_called_unanswered():
    """Where this process stood still there is an answer and no latency: the line says so, and `unanswered` is kept for what was not answered."""
    timed = [rows([1.0, 1.0, None, 1.0], latency_ms=pa.array(times, pa.float64())) for times in ([5.0, None, None, 7.0], [6.0, 9.0, None, 9.0])]
    metrics = only(compare(side("old", timed[0]), side("new", timed[1]))).metrics
    assert "2 left out that lack it" in metric_words(metrics["latency_ms"])
    assert "1 unanswered left out" in metric_words(metrics["score_exact"])


def test_labels_change_no_score():
    """A judge that is held against people since last week scores as it did: the runs before and after are compared."""
    before, labelled, other = (
        {"prompt_sets": [{"name": "set", "scorers": ["judge"]}], "scorers": [{"name": "judge", "kind": "judge", "options": options}]}
        for options in ({"rubric": "r"}, {"rubric": "r", "calibration": {"labels": "labels.csv"}}, {"rubric": "another"})
    )
    assert changed(scorings_of(before, "set"), scorings_of(labelled, "set")) == {}
    assert changed(scorings_of(before, "set"), scorings_of(other, "set")) == {"score_judge": 'rubric: "r" → "another"'}
