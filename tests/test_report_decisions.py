"""What the report says of gates, baselines and verdicts is what `run` and `compare` decide, and no more than the numbers show."""

from __future__ import annotations

import re
import shutil

import msgspec
import pyarrow as pa
import pytest
from fabricated_run import fabricate
from test_decisions import HASTY, IN_USE, Desk
from test_report import held_against, visible

import evalrunner as er
from evalrunner.analysis.gates import GateResult
from evalrunner.cli import main
from evalrunner.errors import ConfigError
from evalrunner.report.page import Judged, render


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def wordings(desk):
    """Two prompts of one run, the new one worse."""
    path, code = desk.run("wordings", prompts=f"in-use: {IN_USE}, new: {HASTY}")
    assert code == 0
    return path


def chinese(page):
    """The page's Chinese text."""
    return " ".join(re.sub(r"<[^>]+>", " ", text) for text in re.findall(r'<span lang="zh">(.*?)</span>', page, flags=re.DOTALL))


def with_scores(run, score):
    """The run with `score(model, value)` in place of every score."""
    rows = zip(run.results["model"].to_pylist(), run.results["score_exact"].to_pylist(), range(run.results.num_rows), strict=True)
    at = run.results.schema.get_field_index("score_exact")
    return run._replace(results=run.results.set_column(at, "score_exact", pa.array([score(*row) for row in rows])))


def twenty(model, _, row):
    """17 of 20 right for the dear model, 15 of 20 for the cheap one."""
    return float(row // 2 >= (3 if model == "qwen-max" else 5))


def test_two_prompts_of_one_run_are_held_against_each_other_in_its_report(wordings, tmp_path):
    """The whole run is in the page, and the baseline section has the two chosen prompts with what flipped between them."""
    out, chosen = tmp_path / "report.html", (f"{wordings}[prompt=new]", f"{wordings}[prompt=in-use]")
    assert main(["report", chosen[0], "--baseline", chosen[1], "--out", str(out), "--margin", "score_numeric=0.02"]) == 0
    page = out.read_text("utf-8")
    text = visible(page)
    assert f"new against {chosen[1]} Worse" in text
    assert "instead of in-use" in text
    assert "margin 2 points" in text
    assert "Answer quickly." in text[text.index("Lost: right before") :]
    assert text.count("500 / 500") >= 2  # both cells, in the leaderboard
    again = er.make_report(chosen[0], tmp_path / "again.html", baseline=chosen[1], margins={"score_numeric": 0.02})
    assert again.read_text("utf-8") == page


def test_chosen_cells_without_a_baseline_are_a_mistake(wordings, tmp_path):
    """Nobody gets a page of the whole run who thinks that it is of one prompt."""
    with pytest.raises(ConfigError, match="hint: --baseline"):
        er.make_report(f"{wordings}[prompt=new]", tmp_path / "report.html")
    with pytest.raises(ConfigError, match=r"no metric is called 'score_numerik' \(did you mean 'score_numeric'"):
        er.make_report(wordings, tmp_path / "report.html", margins={"score_numerik": 0.1})


def test_the_report_says_what_the_gate_says(desk, tmp_path):
    """A drop that the gate accepts is not called worse; every limit stands there with its state; a report made again is the same page."""
    desk.run("blessed")
    gate = "gate: [{metric: score_numeric, max_drop: 0.25, baseline: blessed}, {metric: score_numeric, min: 0.9}]"
    path, code = desk.run("guarded", prompts=f"p: {HASTY}", gate=gate)
    assert code == 1
    first = (path / "report.html").read_text("utf-8")
    text = visible(first)
    assert re.search(r"Against the baseline \S+blessed Not worse", text)
    assert "A drop of up to 25 points is accepted." in text
    assert "Gate failed" in text
    assert re.search(r"passed \S+ drop of score_numeric ≤ 0.25", text)
    assert re.search(r"failed \S+ score_numeric ≥ 0.9", text)
    assert er.make_report(path, tmp_path / "again.html").read_text("utf-8") == first
    shutil.rmtree(desk.folder / "blessed")
    text = visible(er.make_report(path, tmp_path / "later.html").read_text("utf-8"))
    assert re.search(r"no data – drop of score_numeric ≤ 0.25 score_numeric: no data \(\S+blessed: ", text)
    assert re.search(r"failed \S+ score_numeric ≥ 0.9", text)


def test_a_gate_about_some_cells_shows_what_changed_in_those(desk):
    """`where` chooses the cells of the baseline section, too."""
    desk.run("both", prompts=f"p: {IN_USE}, q: {IN_USE}")
    gate = "gate: [{metric: score_numeric, max_drop: 0.05, baseline: both, where: {prompt: q}}]"
    path, code = desk.run("guarded-q", prompts=f"p: {IN_USE}, q: {HASTY}", gate=gate)
    assert code == 1
    text = visible((path / "report.html").read_text("utf-8"))
    assert re.search(r"q against \S+both Worse", text)
    assert re.search(r"failed q drop of score_numeric ≤ 0.05", text)


def test_gates_about_different_cells_show_what_changed_in_all(desk):
    """Two limits with a `where` of their own and one baseline: the page has every cell against it, beside the limits."""
    desk.run("two", prompts=f"p: {IN_USE}, q: {IN_USE}")
    limits = [f"{{metric: score_numeric, max_drop: {drop}, baseline: two, where: {{prompt: {prompt}}}}}" for prompt, drop in (("p", 0.05), ("q", 0.1))]
    path, code = desk.run("guarded-two", prompts=f"p: {IN_USE}, q: {HASTY}", gate=f"gate: [{', '.join(limits)}]")
    text = visible((path / "report.html").read_text("utf-8"))
    assert "Against the baseline" in text
    assert code == ("failed q drop of score_numeric ≤ 0.1" in text)
    assert re.search(r"Lost: right before, wrong now", text)


def test_a_renamed_prompt_is_compared_in_the_report(desk, tmp_path):
    """`--map` as `compare` has it."""
    (old, _), (new, _) = desk.run("named-p", prompts=f"p: {IN_USE}, r: {IN_USE}"), desk.run("named-q", prompts=f"q: {IN_USE}, r: {IN_USE}")
    assert main(["report", str(new), "--baseline", str(old), "--out", str(tmp_path / "r.html")]) == 2
    assert main(["report", str(new), "--baseline", str(old), "--map", "p=q", "--out", str(tmp_path / "r.html")]) == 0
    assert "No difference shown: 2 of 2" in visible((tmp_path / "r.html").read_text("utf-8"))


def test_the_baseline_card_speaks_of_the_worst_score():
    """A second scorer that dropped is not hidden behind a first that did not; its flips are the ones shown."""
    old = fabricate(120, models=["qwen-max"], prompts=["plain"], failing=0.1, scorers=("exact", "second"))
    at = old.results.schema.get_field_index("score_second")
    was, now = ([None if value is None else right for value in old.results["score_second"].to_pylist()] for right in (1.0, 0.0))
    was, now = ([value if k % 3 else was[k] for k, value in enumerate(side)] for side in (was, now))
    old, new = (old._replace(results=old.results.set_column(at, "score_second", pa.array(side, pa.float64()))) for side in (was, now))
    page = render(new.summary, new.rows, judged=held_against(old, new))
    text = visible(page)
    assert "Against the baseline reports/blessed Worse" in text
    assert "points on second" in text
    assert "exact: No difference shown." in text
    assert "Lost: right before, wrong now · second" in text
    assert "With the unanswered counted: −" in text
    assert "计入未回答：−" in chinese(page)


@pytest.mark.parametrize("models", [["qwen-max"], ["qwen-turbo", "qwen-max"]], ids=["alone", "among others"])
def test_nothing_measured_is_not_called_no_difference(models):
    """Where no sample has a score on both sides the gate has no data, and so has the page."""
    old, new = (fabricate(20, models=[*models, "qwen-plus"], prompts=["plain"], failing=0, seed=seed) for seed in (3, 4))
    old = with_scores(old, lambda model, value, _: None if model == "qwen-max" else value)
    judged = held_against(old, new)
    pairs = tuple(pair for pair in judged.comparison.pairs if pair.candidate.model in models)
    page = render(new.summary, new.rows, judged=judged._replace(comparison=msgspec.structs.replace(judged.comparison, pairs=pairs), flips=()))
    text = visible(page)
    assert re.search("No data: 1 of 2" if len(models) > 1 else "qwen-max against reports/blessed No data No sample has exact on both sides", text)
    assert "lost and 0 gained of 0 samples" not in text
    assert "No sample changed" not in text
    assert re.search(r"qwen-max No data", text[text.index("Against the baseline Each") :])


def test_the_flips_shown_are_of_a_score_that_was_measured():
    """A score that one side does not have has no flips: those of the other score are read instead."""
    old, new = (fabricate(40, models=["qwen-max", "qwen-plus"], prompts=["plain"], failing=0, seed=seed, scorers=("second", "exact")) for seed in (3, 4))
    pairs = zip(old.results["model"].to_pylist(), old.results["score_second"].to_pylist(), strict=True)
    some = pa.array([None if model == "qwen-max" else value for model, value in pairs], pa.float64())
    judged = held_against(old._replace(results=old.results.set_column(old.results.schema.get_field_index("score_second"), "score_second", some)), new)
    alone = msgspec.structs.replace(judged.comparison, pairs=judged.comparison.pairs[:1])
    assert alone.pairs[0].metrics["score_second"].n == 0 < len(alone.pairs[0].flips["score_exact"].lost)
    flips = tuple(flip for flip in judged.flips if flip.pair == 0)
    text = visible(render(new.summary, new.rows, judged=judged._replace(comparison=alone, flips=flips)))
    assert "Lost: right before, wrong now · exact" in text


def test_every_limit_of_a_gate_is_told_in_both_languages():
    """Passed, failed, open with the samples it takes, and not measured: each with its word, its number and its interval."""
    run = fabricate(20, models=["qwen-max"], prompts=["plain"])
    made = {"metric": "score_exact", "cell": "qwen-max", "limit": "min", "threshold": 0.8, "n": 20, "text": "said in one line"}
    gates = [
        GateResult(state="pass", value=0.9, low=0.85, high=0.95, **made),
        GateResult(state="inconclusive", value=0.82, low=0.7, high=0.9, samples_needed=1234, bounds=(0.75, 0.85), **made),
        GateResult(state="no data", value=None, low=None, high=None, **{**made, "cell": "", "n": 0}),
    ]
    page = render(run.summary, run.rows, judged=Judged(gates=tuple(gates)))
    text = visible(page)
    assert "Gate no data" in text
    assert "passed qwen-max score_exact ≥ 0.8 0.900 0.850 … 0.950 20" in text
    assert "inconclusive about 1,234 samples to decide qwen-max score_exact ≥ 0.8 0.820 0.700 … 0.900 unanswered counted: 0.750 … 0.850 20" in text
    assert "no data – score_exact ≥ 0.8 said in one line 0" in text
    assert "无法判断" in chinese(page)
    assert "Gate" not in visible(render(run.summary, run.rows))


def test_many_limits_show_what_is_open_first():
    """Of a long gate the limits that did not pass stand at once, those that did are counted and folded."""
    run = fabricate(20, models=["qwen-max"], prompts=["plain"])
    made = {"metric": "coverage", "limit": "min", "threshold": 0.8, "n": 20, "value": 0.9, "low": 0.9, "high": 0.9, "text": ""}
    gates = [GateResult(cell=f"cell {k}", state="fail" if k == 11 else "pass", **made) for k in range(12)]
    page = render(run.summary, run.rows, judged=Judged(gates=tuple(gates)))
    text = visible(page)
    assert text.index("cell 11") < text.index("11 limits passed") < text.index("cell 0")
    assert page.index("cell 11") < page.index("<details", page.index("cell 11")) < page.index("cell 0<")


@pytest.mark.parametrize("scored", [0, 4], ids=["none", "too few to be ranked"])
def test_what_nothing_can_be_held_against_is_not_called_best(scored):
    """Where only one configuration has the score, as the prompt that a judge holds against the one in use, the page tells the score and no winner."""
    run = with_scores(
        fabricate(20, models=["qwen-turbo", "qwen-max"], prompts=["plain"], failing=0),
        lambda model, value, row: value if model == "qwen-max" or row // 2 < scored else None,
    )
    text = visible(render(run.summary, run.rows))
    assert re.search(r"Score qwen-max [\d.]+ % on exact, 95 % interval \S+, over 20 samples. No other configuration has enough of this score", text)
    assert "ahead of every other" not in text
    assert "Best quality" not in text


def test_cheapest_and_fastest_say_how_far_from_the_best_they_may_be():
    """With twenty samples the cheapest of all ties with the best; the card says that this is not "equal", and what twenty samples can show."""
    run = with_scores(fabricate(20, models=["qwen-turbo", "qwen-max"], prompts=["plain"], failing=0), twenty)
    assert {cell.scores["exact"].tie_group for cell in run.summary.cells} == {1}
    page = render(run.summary, run.rows)
    text = visible(page)
    assert "Cheapest of those tied with the best qwen-turbo CNY" in text
    said = re.search(
        r"points \((.*?)\) from qwen-max: no difference shown, which is not “equal”: n = 20 can show differences of about ([\d.]+) points or more", text
    )
    assert said is not None
    assert float(said[2]) > 15
    assert "n = 20 只能显示约" in chinese(page)


def test_a_tie_that_only_the_correction_makes_is_called_so():
    """Eight models of which the cheapest has 8 points less, by an interval below 0: the page does not say of that interval that it shows no difference."""
    models = ["qwen-turbo", "qwen-max", *(f"qwen-{n}" for n in range(6))]
    run = with_scores(
        fabricate(100, models=models, prompts=["plain"], failing=0), lambda model, _, row: float(row // len(models) % 25 >= (2 if model == "qwen-turbo" else 0))
    )
    leader, *_ = run.summary.cells
    gap = next(one for one in run.summary.pairs if {one.first, one.second} == {0, 1})
    groups = {cell.model: cell.scores["exact"].tie_group for cell in run.summary.cells}
    assert (leader.model, groups["qwen-turbo"], gap.high < 0) == ("qwen-turbo", 1, True)
    text = visible(render(run.summary, run.rows))
    assert "worse if this were the only comparison; corrected for all of them (Holm) no difference is shown" in text
    assert "points or more" not in text


def test_within_a_margin_the_cheapest_must_be_shown_not_worse():
    """With a margin twenty samples no longer make the cheapest win, and five hundred that hardly differ do."""
    few = with_scores(fabricate(20, models=["qwen-turbo", "qwen-max"], prompts=["plain"], failing=0), twenty)
    text = visible(render(few.summary, few.rows, judged=Judged(margins={"score_exact": 0.05})))
    assert re.search(r"Cheapest that is not worse qwen-max .*? No other is shown to be at most 5 points worse\.", text)
    many = fabricate(500, models=["qwen-turbo", "qwen-max"], prompts=["plain"], failing=0)
    many = with_scores(many, lambda model, _, row: 1.0 if model == "qwen-max" or row > 5 else 0.0)
    page = render(many.summary, many.rows, judged=Judged(margins={"score_exact": 0.05}))
    text = visible(page)
    assert re.search(
        r"Cheapest that is not worse qwen-turbo .*? −0\.\d points \(.*?\) from qwen-max: not worse, within the margin of 5 points \(n = 500\)", text
    )
    assert "在 5 个百分点的容差内不更差（n = 500）" in chinese(page)


def test_the_fastest_has_its_interval_and_names_who_is_as_fast():
    """The median latency stands with its interval; streamed and whole answers have a card each."""
    run = fabricate(60, models=["qwen-turbo", "qwen-max"], prompts=["plain", "careful"], failing=0)
    text = visible(render(run.summary, run.rows))
    assert re.search(r"Fastest .*? Half of the answers within [\d.]+ m?s \([\d.]+ m?s … [\d.]+ m?s\)", text)
    cells = [msgspec.structs.replace(cell, stream=cell.prompt == "plain") for cell in run.summary.cells]
    mixed = msgspec.structs.replace(run.summary, cells=tuple(cells), pairs=())
    said = visible(render(mixed, run.rows))
    assert re.search(r"Fastest[^·]*? · Streamed ", said)
    assert re.search(r"Fastest[^·]*? · Not streamed ", said)
