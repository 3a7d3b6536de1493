"""From numbers to decisions, as a user and a CI server see them: `compare`, `gate`, their exit codes and files, on the simulator."""

import json
import os
import shutil
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

import evalrunner as er
from evalrunner.cli import main

CONFIG = """
name: prompts
providers:
  simulator:
    kind: simulator
    limits: {{concurrency: 64}}
    options:
      {{seed: 5, brain: arithmetic, accuracy: 0.9, limits: false, latency: 0, effects: [{{contains: quickly, accuracy: -0.12}}], faults: {faults}}}
models: [{models}]
grid: {{temperature: 0}}
stream: false
preflight: false
allow_unanswered: 0.2
retry: {{max_attempts: 1}}
prompt_sets:
  - name: sums
    data: sums.jsonl
    id: id
    prompts: {{{prompts}}}
    target: "{{{{ answer }}}}"
    scorers: [numeric]
{gate}
"""
IN_USE, CAREFUL, HASTY = ('"{{ question }}"', '"{{ question }} Be careful."', '"{{ question }} Answer quickly."')


class Desk:
    """A folder with data and configs, where runs are made."""

    def __init__(self, folder):
        self.folder = folder
        rows = [{"id": f"s{n}", "question": f"What is {n % 83 + 2} + {n // 7}?", "answer": n % 83 + 2 + n // 7} for n in range(500)]
        (folder / "sums.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    def run(self, name, *options, prompts=f"p: {IN_USE}", models="{id: qwen-plus, provider: simulator}", faults="[]", gate=""):
        config = self.folder / f"{name}.yaml"
        config.write_text(CONFIG.format(prompts=prompts, models=models, faults=faults, gate=gate), encoding="utf-8")
        code = main(["run", str(config), "--out", str(self.folder / name), "--yes", *options])
        return self.folder / name, code


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def runs(desk):
    """The prompt in use, one that is as good, and one that is worse."""
    made = {"base": desk.run("base"), "equal": desk.run("equal", prompts=f"p: {CAREFUL}"), "worse": desk.run("worse", prompts=f"p: {HASTY}")}
    assert [code for _, code in made.values()] == [0, 0, 0]
    return {name: str(path) for name, (path, _) in made.items()}


def test_a_worse_prompt_is_exit_1_with_the_lost_samples(runs, capsys):
    """CI stops a prompt that costs 12 points, and shows what was asked, expected and answered where it lost."""
    assert main(["compare", runs["base"], runs["worse"], "--margin", "score_numeric=0.02"]) == 1
    said = capsys.readouterr().out
    assert "score_numeric: " in said
    assert " worse (n = 500; p < 0.001" in said
    assert "lost  " in said
    assert "Answer quickly." in said
    assert "expected   " in said
    assert "verdict  FAILED" in said


def test_an_equal_prompt_passes(runs, capsys):
    """Another wording that changes nothing is not worse than a margin of 7 points, and exits 0; so does the same run against itself."""
    assert main(["compare", runs["base"], runs["equal"], "--margin", "score_numeric=0.07"]) == 0
    assert "verdict  passed" in capsys.readouterr().out
    assert main(["compare", runs["base"], runs["base"], "--gate", "score_numeric max_drop=0.02 model=qwen-plus"]) == 0


def test_twenty_samples_are_inconclusive_and_say_how_many_it_takes(desk, capsys):
    """Too few samples pass with a warning and the number that would decide, and fail where `--inconclusive fail` asks for proof."""
    (old, _), (new, _) = desk.run("few-old", "--limit", "20"), desk.run("few-new", "--limit", "20", prompts=f"p: {CAREFUL}")
    capsys.readouterr()
    asked = ["compare", str(old), str(new), "--margin", "score_numeric=0.05"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "verdict  inconclusive: nothing is shown either way; " in said
    assert int(said.rpartition("either way; ")[2].split()[0].replace(",", "")) > 20
    assert main([*asked, "--inconclusive", "fail"]) == 1


def test_infrastructure_errors_turn_no_pass_into_a_fail(desk, runs, capsys):
    """5 % of the requests broke: what was answered still passes, in `run` and in `compare`, and the bounds are shown."""
    gate = "gate: [{metric: score_numeric, min: 0.8}]"
    path, code = desk.run("broken", faults="[{kind: error, status: 500, share: 0.05}]", gate=gate)
    said = capsys.readouterr().out
    assert code == 0
    assert "score_numeric ≥ 0.8: pass" in said
    assert "with the unanswered counted, from 0." in said
    assert main(["compare", runs["base"], str(path), "--margin", "score_numeric=0.05"]) == 0
    said = capsys.readouterr().out
    assert "without a value left out; with them counted from -0." in said


def test_nothing_measured_never_passes(desk, runs, capsys):
    """A candidate without one answer is exit 4, whatever it is compared with; `run` says the same of its gate."""
    path, code = desk.run("dead", "--limit", "5", faults="[{kind: error, status: 500}]", gate="gate: [{metric: score_numeric, min: 0}]")
    assert code == 4
    assert "gate NO DATA" in capsys.readouterr().out
    assert main(["compare", runs["base"], str(path)]) == 4
    assert "verdict  NO DATA" in capsys.readouterr().out


def test_cells_of_one_run_are_compared(desk, capsys):
    """`RUN[prompt=a]` against `RUN[prompt=b]`, in two models at once; a cell without a partner is an error that names it."""
    models = "{id: qwen-plus, provider: simulator}, {id: qwen-max, provider: simulator}"
    path, _ = desk.run("both", "--limit", "200", prompts=f"a: {IN_USE}, b: {HASTY}", models=models)
    capsys.readouterr()
    assert main(["compare", f"{path}[prompt=a]", f"{path}[prompt=b]"]) == 1
    said = capsys.readouterr().out
    assert said.count("cells  ") == 2
    assert "a → b" in said
    assert main(["compare", f"{path}[prompt=a]", f"{path}[prompt=b,model=qwen-max]"]) == 2
    assert "choose one with [name=value]" in capsys.readouterr().err
    assert main(["compare", f"{path}[prompt=a]", f"{path}[prompt=b,stream=false]", "--map", "qwen-max=qwen-turbo"]) == 2
    said = capsys.readouterr().err
    assert "model=qwen-turbo" in said
    assert "has no partner" in said
    assert main(["compare", f"{path}[prompt=nope]", str(path)]) == 2
    assert "no cell has prompt=nope" in capsys.readouterr().err


def test_a_renamed_prompt_and_changed_data_need_a_word(desk, runs, capsys):
    """Names and data that changed are refused with the reason, and compared when told to."""
    renamed, _ = desk.run("renamed", prompts=f"q: {CAREFUL}, r: {CAREFUL}")
    both, _ = desk.run("both-names", prompts=f"p: {IN_USE}, r: {CAREFUL}")
    assert main(["compare", str(both), str(renamed)]) == 2
    assert "--map old=new" in capsys.readouterr().err
    assert main(["compare", str(both), str(renamed), "--map", "p=q"]) == 0
    data = desk.folder / "sums.jsonl"
    kept = data.read_text(encoding="utf-8")
    data.write_text(kept.replace('"answer": 2}', '"answer": 3}', 1), encoding="utf-8")
    try:
        changed, _ = desk.run("changed")
    finally:
        data.write_text(kept, encoding="utf-8")
    capsys.readouterr()
    assert main(["compare", runs["base"], str(changed)]) == 2
    assert "1 samples have other data" in capsys.readouterr().err
    assert main(["compare", runs["base"], str(changed), "--allow-changed-data"]) == 0
    assert "1 with other data" in capsys.readouterr().out


def test_a_baseline_to_commit_is_manifest_and_results_alone(desk, runs, capsys):
    """What a gate needs of a blessed run are two entries of its directory, small enough for a repository: under 200 KB for 500 samples."""
    blessed = desk.folder / "blessed"
    blessed.mkdir()
    for name in ("manifest.json", "results"):
        (shutil.copytree if name == "results" else shutil.copy)(f"{runs['base']}/{name}", blessed / name)
    assert sum(path.stat().st_size for path in blessed.rglob("*") if path.is_file()) < 200_000
    gate = "gate: [{metric: score_numeric, max_drop: 0.02, baseline: blessed}]"
    assert desk.run("held", gate=gate)[1] == 0
    assert desk.run("broke", prompts=f"p: {HASTY}", gate=gate)[1] == 1
    assert main(["compare", str(blessed), runs["equal"], "--margin", "score_numeric=0.07"]) == 0


def test_a_score_that_got_worse_fails_beside_a_gate_that_passes(desk, runs, capsys):
    """The candidate's own gate says nothing of a drop: `compare` fails it all the same; with `--gate` only what is named there decides."""
    path, code = desk.run("cheap", prompts=f"p: {HASTY}", gate="gate: [{metric: score_numeric, min: 0.1}]")
    assert code == 0
    assert main(["compare", runs["base"], str(path)]) == 1
    assert main(["compare", runs["base"], str(path), "--gate", "score_numeric min=0.1"]) == 0
    assert main(["compare", runs["base"], str(path), "--gate", "score_numeric min=0.1", "--margin", "score_numeric=0.01"]) == 1


def test_a_config_s_gate_stops_a_run_that_is_worse_than_its_baseline(desk, runs, capsys):
    """`gate` with a baseline: the run of a worse prompt ends with exit 1 and one line of evidence; `resume` of the finished run says so again."""
    gate = "gate:\n  - {metric: score_numeric, max_drop: 0.02, baseline: base}\n  - {metric: score_numeric, min: 0.5, where: {model: qwen-plus}}"
    path, code = desk.run("gated", prompts=f"p: {HASTY}", gate=gate)
    assert code == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gate ")]
    assert [line.split("  ")[0] for line in lines] == ["gate FAILED", "gate ok"]
    assert "drop of score_numeric ≤ 0.02: fail" in lines[0]
    assert main(["resume", str(path)]) == 1
    assert er.open_run(path).exit_code == 0
    assert main(["compare", runs["base"], str(path)]) == 1


TWO = "{id: qwen-plus, provider: simulator}, {id: qwen-max, provider: simulator}"


def test_no_gate_takes_a_margin_or_the_default_away(desk, runs, capsys):
    """A loose `max_drop` beside a strict `--margin`: both decide. A `max_drop` of one model leaves "no score may be worse" for the other."""
    path, _ = desk.run("loose", prompts=f"p: {HASTY}", gate="gate: [{metric: score_numeric, max_drop: 0.5, baseline: base}]")
    assert main(["compare", runs["base"], str(path)]) == 0
    capsys.readouterr()
    assert main(["compare", runs["base"], str(path), "--margin", "score_numeric=0.01"]) == 1
    assert "margin 0.0100" in capsys.readouterr().out
    old, _ = desk.run("two-old", models=TWO)
    gate = "gate: [{metric: score_numeric, max_drop: 0.5, baseline: two-old, where: {model: qwen-plus}}]"
    new, code = desk.run("two-new", models=TWO, prompts=f"p: {HASTY}", gate=gate)
    capsys.readouterr()
    assert code == 0
    assert main(["compare", str(old), str(new)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gate ")]
    assert [(line.split("  ")[0], "qwen-max" in line) for line in lines] == [("gate ok", False), ("gate FAILED", True)]


def test_a_candidate_that_lacks_answers_decides_nothing(desk, runs, capsys):
    """Half of it broke, or was never sent: `compare` is exit 4 as `run` was, and says of either side what is missing."""
    path, code = desk.run("half", faults="[{kind: error, status: 500, share: 0.5}]")
    assert code == 4
    capsys.readouterr()
    assert main(["compare", runs["base"], str(path), "--margin", "score_numeric=0.5"]) == 4
    said = capsys.readouterr().out
    assert "more than allow_unanswered, 0.2" in said
    assert f"note       {path}: " in said
    stopped, code = desk.run("stopped", "--max-requests", "400")
    assert code == 3
    capsys.readouterr()
    assert main(["compare", runs["base"], str(stopped), "--margin", "score_numeric=0.5"]) == 0
    assert "stopped is interrupted, not complete: " in capsys.readouterr().out


def test_a_model_that_could_not_be_asked_is_no_data_and_keeps_its_report(desk, capsys):
    """Its account refused everything: the run ends with exit 4 and its report, and says what has no data, against a baseline or not."""
    gone = "providers.gone={kind: simulator, limits: {concurrency: 1, shared: true}, options: {limits: false, latency: 0, faults: %s}}"
    models = "{id: qwen-plus, provider: simulator}, {id: qwen-max, provider: gone}, {id: qwen-turbo, provider: gone}"
    options = ("--limit", "10", "--set", "allow_unanswered=0.7", "--set")
    assert desk.run("served", *options, gone % "[]", models=models)[1] == 0
    gate = "gate: [{metric: score_numeric, max_drop: 0.9, baseline: served}, {metric: score_numeric, min: 0, where: {model: qwen-turbo}}]"
    capsys.readouterr()
    path, code = desk.run("unserved", *options, gone % "[{kind: error, status: 401, code: invalid_api_key}]", models=models, gate=gate)
    assert code == 4
    said = capsys.readouterr().out
    assert "gate ok  qwen-plus: drop of score_numeric" in said
    assert said.count("gate NO DATA  qwen-turbo: score_numeric: no data (no request of this cell has a row)") == 2
    assert (path / "report.html").exists()
    assert main(["compare", str(desk.folder / "served"), str(path)]) == 4


def test_a_scorer_that_became_lenient_is_refused_before_anything_is_sent(desk, runs, capsys):
    """The same answers by a tolerance of 10: `run` refuses its gate, `compare` both runs, and each says what changed."""
    lenient = ("--set", "prompt_sets.0.scorers=[{numeric: {tolerance: 10}}]")
    path, code = desk.run("lenient-gate", *lenient, gate="gate: [{metric: score_numeric, max_drop: 0.02, baseline: base}]")
    assert (code, path.exists()) == (2, False)
    assert "tolerance: none → 10" in capsys.readouterr().err
    path, code = desk.run("lenient", *lenient, gate="gate: [{metric: latency_ms, max_drop: 60000, baseline: base}]")
    assert code == 0
    assert main(["compare", runs["base"], str(path), "--gate", "latency_ms max_drop=60000"]) == 2
    assert "score_numeric was computed differently" in capsys.readouterr().err
    assert main(["compare", runs["base"], str(path), "--gate", "latency_ms max_drop=60000", "--allow-changed-scorers"]) == 0
    assert "score_numeric: NOT COMPARED: computed differently (tolerance: none → 10)" in capsys.readouterr().out


def test_a_new_scorer_decides_nothing_by_itself(desk, runs, capsys):
    """The candidate has one scorer more: it is listed, the other decides; a gate that wants its drop is refused before anything is sent."""
    more = ("--set", "prompt_sets.0.scorers=[numeric, includes]")
    path, _ = desk.run("more", *more, prompts=f"p: {CAREFUL}")
    capsys.readouterr()
    assert main(["compare", runs["base"], str(path), "--margin", "score_numeric=0.07"]) == 0
    assert "score_includes: NOT COMPARED: only the candidate has this scorer" in capsys.readouterr().out
    assert desk.run("more-gate", *more, gate="gate: [{metric: score_includes, max_drop: 0.1, baseline: base}]")[1] == 2


def told_apart(desk, name, accuracy, *options):
    """Three models of known accuracy on the same samples, three trials each: the run's summary and the text of its report."""
    models = ", ".join(f"{{id: {one}, provider: simulator}}" for one in accuracy)
    changes = ("--set", "trials=3", "--set", f"providers.simulator.options.accuracy={json.dumps(accuracy)}")
    path, code = desk.run(name, *changes, *options, models=models)
    assert code == 0
    return er.open_run(path).summary(), (path / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_worse_model_is_named_and_the_equal_ones_tie(desk):
    """0.80, 0.80 and 0.70 over 500 samples in 3 trials: two share the first place in summary and report, and the third is behind."""
    summary, page = told_apart(desk, "known", {"qwen-plus": 0.80, "qwen-max": 0.80, "qwen-turbo": 0.70})
    assert {cell.model: cell.scores["numeric"].tie_group for cell in summary.cells} == {"qwen-plus": 1, "qwen-max": 1, "qwen-turbo": 2}
    assert "qwen-plus, qwen-max" in page or "qwen-max, qwen-plus" in page
    worse = [one for one in summary.pairs if "qwen-turbo" in {summary.cells[one.first].model, summary.cells[one.second].model}]
    assert [one.p_holm < 0.05 for one in worse] == [True, True]


def test_the_worse_model_is_named_already_by_a_sixth_of_it(desk):
    """The same with 0.85, 0.85 and 0.55 over 80 samples, in every run of the tests."""
    summary, _ = told_apart(desk, "known-few", {"qwen-plus": 0.85, "qwen-max": 0.85, "qwen-turbo": 0.55}, "--limit", "80")
    assert {cell.model: cell.scores["numeric"].tie_group for cell in summary.cells} == {"qwen-plus": 1, "qwen-max": 1, "qwen-turbo": 2}


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("[{metric: ttft_ms.p95, max: 100}]", "gate[0].metric: ttft_ms.p95 is measured on streams only"),
        ("[{metric: score_exact, min: 1}]", "gate[0].metric: no metric is called 'score_exact'"),
        ("[{metric: score_numeric}]", "gate[0]: needs min, max or max_drop"),
        ("[{metric: score_numeric, max_drop: 0.1}]", "gate[0]: max_drop and baseline belong together"),
        ("[{metric: score_numeric, max_drop: -1, baseline: base}]", "gate[0].max_drop: should be at least 0"),
        ("[{metric: score_numeric, min: 1, where: {modell: a}}]", "gate[0].where.modell: should be one of"),
        ("[{metric: score_numeric, min: 1, where: {model: qwen-max}}]", "gate[0].where.model: no cell of this config has model=qwen-max"),
        ("[{metric: score_numeric, max_drop: 0.1, baseline: nowhere}]", "gate[0].baseline: "),
    ],
)
def test_a_gate_that_cannot_be_checked_is_told_before_anything_is_sent(desk, runs, capsys, gate, said):
    """A wrong metric, limit, cell or baseline is a config error at its place, exit 2, and no run directory is left."""
    path, code = desk.run("refused", gate=f"gate: {gate}")
    assert code == 2
    assert said in capsys.readouterr().err
    assert not path.exists()


def test_a_baseline_with_other_data_or_cells_is_refused_before_anything_is_sent(desk, runs, capsys):
    """What could not be compared in the end is not paid for in the beginning."""
    gate = "gate: [{metric: score_numeric, max_drop: 0.1, baseline: base}]"
    _, code = desk.run("other-cells", prompts=f"p: {IN_USE}, q: {IN_USE}", gate=gate)
    assert code == 2
    assert "prompt=q" in capsys.readouterr().err
    data = desk.folder / "sums.jsonl"
    kept = data.read_text(encoding="utf-8")
    data.write_text(kept.replace('"answer": 2}', '"answer": 3}', 1), encoding="utf-8")
    try:
        _, code = desk.run("other-data", gate=gate)
    finally:
        data.write_text(kept, encoding="utf-8")
    assert code == 2
    assert "1 samples have other data than in" in capsys.readouterr().err


def test_json_has_everything_and_keeps_its_shape(runs, capsys):
    """Scripts read the state, the gates, each pair's differences and every flip with both answers."""
    main(["compare", runs["base"], runs["worse"], "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["state"]) == (1, "fail")
    (pair,) = found["comparison"]["pairs"]
    flips = pair["flips"]["score_numeric"]
    assert len(found["flips"]) == len(flips["lost"]) + len(flips["gained"])
    first = found["flips"][0]
    assert (first["kind"], first["sample_id"]) == ("lost", flips["lost"][0])
    assert {"question", "target", "baseline", "candidate", "metric", "pair"} <= first.keys()
    assert first["baseline"]["score"] > first["candidate"]["score"]


def test_ci_gets_junit_markdown_annotations_and_a_summary(runs, tmp_path):
    """JUnit XML, Markdown for the pull request, `::error` lines and the step summary, all from one call; stdout stays the data's."""
    files = [tmp_path / name for name in ("junit.xml", "comment.md", "summary.md")]
    environ = {**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(files[2])}
    words = ["compare", runs["base"], runs["worse"], "--junit", str(files[0]), "--markdown", str(files[1])]
    said = subprocess.run([sys.executable, "-m", "evalrunner", *words], capture_output=True, text=True, check=False, env=environ)
    assert said.returncode == 1
    assert said.stderr.startswith("::error title=evalrunner gate fail::")
    suite = ET.parse(files[0]).getroot().find("testsuite")  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("1", "1", "0")
    assert "lost sample s" in suite.find("testcase/failure").text
    assert files[1].read_text(encoding="utf-8").startswith("### evalrunner: FAILED")
    assert "<summary>Lost: " in files[2].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gate", "score_numerik min=0.9"], "did you mean 'score_numeric'"),
        (["--gate", "score_numeric"], "no such file, and no limit"),
        (["--gate", "score_numeric min=high"], "should be a number"),
        (["--margin", "score_numeric"], "should be NAME=VALUE"),
        (["--margin", "score_numeric=-1"], "at least 0"),
        (["--margin", "zzz=1"], "no metric is called 'zzz'"),
    ],
)
def test_wrong_options_are_exit_2(runs, capsys, words, said):
    """A mistake in an option says what is wrong and decides nothing."""
    assert main(["compare", runs["base"], runs["worse"], *words]) == 2
    assert said in capsys.readouterr().err


def test_rules_come_from_a_file_too(desk, runs, capsys):
    """`--gate FILE` takes a config's `gate` or a list of rules; a file without any is refused."""
    rules, none = desk.folder / "rules.yaml", desk.folder / "none.yaml"
    rules.write_text("- {metric: score_numeric, max_drop: 0.5}\n- {metric: latency_ms.p50, max: 100000}\n", encoding="utf-8")
    none.write_text("name: a\n", encoding="utf-8")
    assert main(["compare", runs["base"], runs["worse"], "--gate", str(rules)]) == 0
    assert capsys.readouterr().out.count("gate ok") == 2
    assert main(["compare", runs["base"], runs["worse"], "--gate", str(none)]) == 2
    assert main(["compare", runs["base"], str(desk.folder)]) == 6


def test_the_same_from_python(runs):
    """`er.compare` takes runs, paths and cells, and gives each pair's metrics as values."""
    found = er.compare(er.open_run(runs["base"]), f"{runs['worse']}[prompt=p]", margins={"score_numeric": 0.02})
    (pair,) = found.pairs
    assert pair.metrics["score_numeric"].verdict == "worse"
    assert pair.matched == 500
    with pytest.raises(er.RunError):
        er.compare(runs["base"], f"{runs['worse']}[prompt=nope]")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margins": {"score_numerc": 0.02}}, r"no metric called 'score_numerc' was compared \(hint: did you mean 'score_numeric'\?\)"),
        ({"margins": {"score_numeric": -0.1}}, "the margin of score_numeric is -0.1: should be a number of at least 0"),
        ({"renames": {"q": "p"}}, "base: no prompt set, prompt or model is called 'q'"),
    ],
)
def test_a_misspelt_margin_or_name_is_refused_in_python(runs, options, said):
    """A margin that counts for nothing would be a verdict against 0: what is not there is told, with what was meant."""
    with pytest.raises(er.RunError, match=said):
        er.compare(runs["base"], runs["worse"], **options)


def test_a_misspelt_name_is_refused_on_the_command_line_too(runs, capsys):
    """`--map` with a name that no run has: exit 2."""
    assert main(["compare", runs["base"], runs["worse"], "--map", "q=p"]) == 2
    assert "no prompt set, prompt or model is called 'q'" in capsys.readouterr().err


def test_tables_for_pandas(runs):
    """A summary is a row for each cell, a comparison a row for each metric of each pair, with the figures of the nested values and a gate's names."""
    summary, comparison = er.open_run(runs["worse"]).summary(), er.compare(runs["base"], runs["worse"])
    [cell], frame = summary.cells, summary.to_frame()
    row = frame.iloc[0]
    assert len(frame) == 1
    assert (row["model"], row["planned"], row["score_numeric"], row["score_numeric_low"]) == (
        cell.model,
        500,
        cell.scores["numeric"].value,
        cell.scores["numeric"].low,
    )
    assert row["latency_ms.p95"] == cell.latency["latency_ms"].quantiles[2].value
    assert row["completion_tokens"] == cell.tokens["output"].mean
    [pair] = comparison.pairs
    lost = comparison.to_frame().set_index("metric").loc["score_numeric"]
    assert lost["difference"] == pair.metrics["score_numeric"].difference
    assert (lost["lost"], lost["candidate_prompt"]) == (len(pair.flips["score_numeric"].lost), pair.candidate.prompt)
    assert set(comparison.to_frame()["metric"]) == set(pair.metrics)


def test_at_most_twenty_public_names():
    """What a newcomer finds with tab stays small enough to read, and each name is there."""
    assert len(dir(er)) <= 20
    assert all(getattr(er, name) for name in dir(er))


def test_a_report_shows_what_changed_against_a_baseline(runs, tmp_path, capsys):
    """`report --baseline` puts the lost samples, what was answered before and now, into the page."""
    page = tmp_path / "page.html"
    assert main(["report", runs["worse"], "--out", str(page), "--baseline", runs["base"]]) == 0
    with_baseline = page.read_text(encoding="utf-8")
    assert main(["report", runs["worse"], "--out", str(page)]) == 0
    assert len(with_baseline) > len(page.read_text(encoding="utf-8")) + 10_000
    assert main(["report", runs["worse"], "--out", str(page), "--baseline", f"{runs['base']}[prompt=nope]"]) == 2
