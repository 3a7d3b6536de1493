"""People's labels on answers: added after the run, told from other answers to the same sample, and no judge is asked again for them."""

import csv
import json

import pytest

import evalrunner as er
from evalrunner.cli import main

CONFIG = """
name: labelled
providers:
  simulator: {{kind: simulator, options: {{accuracy: 0.5, judge_accuracy: 1.0, seed: 5, limits: false, latency: 0}}}}
models: [{{id: qwen-turbo, provider: simulator}}, {{id: qwen-plus, provider: simulator}}]
trials: 2
preflight: false
prompt_sets:
  - name: sums
    data: sums.jsonl
    prompts: {{p: "What is {{{{ a }}}} + 5?"}}
    target: "{{{{ a + 5 }}}}"
    scorers: [exact, {{judge: {{model: qwen-max, provider: simulator, rubric: Is it right?{more}}}}}]
"""
SAMPLES = 10


class Bench:
    def __init__(self, folder):
        self.folder, self.path = folder, folder / "run"
        (folder / "sums.jsonl").write_text("".join(json.dumps({"a": a, "human": "pass"}) + "\n" for a in range(SAMPLES)), encoding="utf-8")

    def config(self, more="", *, scorers=None):
        text = CONFIG.format(more=more)
        (self.folder / "config.yaml").write_text(text if scorers is None else text.replace(text[text.index("scorers:") :], scorers), encoding="utf-8")
        return str(self.folder / "config.yaml")

    def run(self, **options):
        assert main(["run", self.config(**options), "--out", str(self.path), "--yes"]) == 0

    def label(self, verdict):
        """What a person does: `export --csv`, a column more, saved. `verdict` sees a row as the spreadsheet shows it."""
        sheet = self.folder / "labels.csv"
        assert main(["export", str(self.path), "--csv", str(sheet)]) == 0
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            rows = [row | {"label": verdict(row)} for row in csv.DictReader(file)]
        with sheet.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


LABELS = ", calibration: {labels: labels.csv}"


def right(row):
    return "pass" if row["score_exact"] == "1.0" else "fail"


def test_labels_come_after_the_run_and_nobody_is_asked(bench, capsys):
    """export, a column filled in, rescore: the judge's agreement with people over all models and trials, from the judgements that are stored."""
    bench.run()
    before = er.open_run(bench.path)
    asked, answers = before.judgements(), before.results()
    assert before.summary().judges[0].calibration is None
    bench.label(right)
    capsys.readouterr()
    assert main(["rescore", str(bench.path), bench.config(LABELS)]) == 0
    said = capsys.readouterr()
    assert "40 judged answers have another label of a person" in said.err
    assert "computed" not in said.err
    assert "with people agrees 100" in said.out
    after = er.open_run(bench.path)
    assert after.judgements().drop(columns="label").equals(asked.drop(columns="label"))
    assert after.results().equals(answers)
    found = after.summary().judges[0].calibration
    assert (found.n, found.samples, found.share) == (4 * SAMPLES, SAMPLES, 1)
    assert main(["rescore", str(bench.path), bench.config(LABELS)]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_a_label_is_of_one_answer(bench):
    """Answers to one sample differ, and so do their labels: those left empty are no labels, a later verdict replaces the first."""
    bench.run()
    bench.label(lambda row: right(row) if row["model"] == "qwen-plus" and row["trial"] == "1" else "")
    assert main(["rescore", str(bench.path), bench.config(LABELS)]) == 0
    assert er.open_run(bench.path).summary().judges[0].calibration.n == SAMPLES
    bench.label(lambda row: "FALSE" if right(row) == "pass" else "TRUE")
    assert main(["rescore", str(bench.path), bench.config(LABELS)]) == 0
    found = er.open_run(bench.path).summary().judges[0].calibration
    assert (found.n, found.share) == (4 * SAMPLES, 0)


def test_a_judge_that_comes_later_finds_the_labels_there(bench):
    """A run without a judge, labelled, and judged afterwards: the agreement is there at once."""
    bench.run(scorers="scorers: [exact]\n")
    bench.label(right)
    assert main(["rescore", str(bench.path), bench.config(LABELS)]) == 0
    run = er.open_run(bench.path)
    assert run.summary().judges[0].calibration.n == 4 * SAMPLES
    assert len(run.judgements()) == 4 * SAMPLES


def test_labels_reach_a_judge_in_a_combination(bench):
    """Its agreement with people is found as that of any other, and nobody is asked again."""
    combined = "scorers: [exact, {combine: {scorers: [exact, {judge: {model: qwen-max, provider: simulator, rubric: Is it right?%s}}]}}]\n"
    bench.run(scorers=combined % "")
    asked = er.open_run(bench.path).judgements()
    bench.label(right)
    assert main(["rescore", str(bench.path), bench.config(scorers=combined % LABELS)]) == 0
    after = er.open_run(bench.path)
    assert list(after.judgements()["id"]) == list(asked["id"])
    found = after.summary().judges[0].calibration
    assert (found.n, found.share) == (4 * SAMPLES, 1)


def test_labels_are_not_carried_to_other_answers(bench):
    """The same config run again has the same keys and other answers: labels of the first run say nothing about those."""
    bench.run()
    bench.label(right)
    assert main(["run", bench.config(LABELS), "--out", str(bench.folder / "again"), "--yes"]) == 0
    again = er.open_run(bench.folder / "again")
    assert set(again.results()["key"]) == set(er.open_run(bench.path).results()["key"])
    assert again.judgements()["label"].isna().all()


def test_a_column_of_labels_may_come_later_too(bench):
    """The data get a column that no prompt shows: the rows are of the new data from then on, and no judge is asked about what it has judged."""
    bench.run()
    asked, answers = er.open_run(bench.path).judgements(), er.open_run(bench.path).results()
    (bench.folder / "sums.jsonl").write_text("".join(json.dumps({"a": a, "human": "pass", "grade": "fail"}) + "\n" for a in range(SAMPLES)), encoding="utf-8")
    assert main(["rescore", str(bench.path), bench.config(", calibration: {label: grade}")]) == 0
    after = er.open_run(bench.path)
    assert list(after.judgements()["id"]) == list(asked["id"])
    assert set(after.judgements()["label"]) == {0.0}
    assert set(after.results()["sample_hash"]).isdisjoint(answers["sample_hash"])
    assert set(after.judgements()["key"]) == set(after.results()["key"])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['{"key": "k1", "label": "maybe"}'], "labels.jsonl:1: the label 'maybe' is none of pass, fail"),
        (['{"key": "k1", "label": "pass"}', '{"key": "k1", "label": "fail"}'], "labels.jsonl:2: a second label for the answer k1 (the first is in line 1)"),
        (['{"key": "k1", "lable": "pass"}'], "labels.jsonl:1: has no column 'label' (hint: did you mean 'lable'?)"),
        (['{"id": "k1", "label": "pass"}'], "has no column 'key' (hint: `export` writes the keys)"),
        (None, "labels.jsonl: cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_what_is_wrong_with_labels_is_told_before_anything_is_sent(bench, capsys, command, lines, problem):
    """File, line and what is wrong: exit 2, and there is no run."""
    if lines is not None:
        (bench.folder / "labels.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = bench.config(", calibration: {labels: labels.jsonl}")
    assert main([command, config, *(["--out", str(bench.path), "--yes"] if command == "run" else [])]) == 2
    assert problem in capsys.readouterr().err
    assert not bench.path.exists()


def test_one_label_for_several_answers_is_a_warning(bench, capsys):
    """`label: COLUMN` speaks of a sample, and two models with two trials give it four answers: `check` says so, and does not where there is one."""
    config = bench.config(", calibration: {label: human}")
    for options, warned in [([], True), (["--set", "trials=1", "--set", "models=[{id: qwen-plus, provider: simulator}]"], False)]:
        assert main(["check", config, *options]) == 0
        assert ("each sample has 4 answers and one label" in capsys.readouterr().err) == warned
