"""Corrected gold answers: the stored answers are scored against the right one, and nothing is asked again."""

import json

import pytest

import evalrunner as er
from evalrunner.cli import main
from evalrunner.records import STILL_TO_COME

CONFIG = """
name: gold
providers:
  simulator: {{kind: simulator, options: {{brain: arithmetic, accuracy: 1.0, judge_accuracy: 1.0, limits: false, latency: 0}}}}
models: [{{id: {model}, provider: simulator}}]
trials: 2
preflight: false
prompt_sets:
  - {{name: sums, data: sums.jsonl, id: id, tags: [level], prompts: {{p: "{{{{ question }}}}"}}, target: "{target}", scorers: {scorers}}}
"""
JUDGE = "{judge: {model: qwen-max, provider: simulator, rubric: Is it right?}}"
SAMPLES = 10


class Bench:
    """Ten sums, of which the first has a wrong answer in the data."""

    def __init__(self, folder):
        self.folder, self.path = folder, folder / "run"
        self.rows = [{"id": f"s{n}", "question": f"What is {n} + 7?", "answer": n + 7, "level": "easy"} for n in range(SAMPLES)]
        self.rows[0]["answer"] = 999
        self.save()

    def save(self):
        (self.folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def correct(self, **fields):
        self.rows[0] |= {"answer": 7, **fields}
        self.save()

    def config(self, scorers="[numeric]", target="{{ answer }}", model="qwen-plus", name="config"):
        path = self.folder / f"{name}.yaml"
        path.write_text(CONFIG.format(scorers=scorers, target=target, model=model), encoding="utf-8")
        return str(path)

    def run(self, **options):
        assert main(["run", self.config(**options), "--out", str(self.path), "--yes"]) == 0

    @property
    def results(self):
        return er.open_run(self.path).results().set_index(["sample_id", "trial"]).sort_index()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def same_but_for(before, after, columns):
    return after.drop(columns=columns).equals(before.drop(columns=columns))


def test_a_wrong_gold_answer_in_the_data_is_corrected(bench, capsys):
    """The rows of the sample have the new target, tags and hash and are scored again; the others, and what was paid for, stay; it is said."""
    bench.run()
    before, attempts = bench.results, er.open_run(bench.path).attempts()
    bench.correct(level="hard")
    capsys.readouterr()
    assert main(["rescore", str(bench.path)]) == 0
    said = capsys.readouterr().err
    assert "1 samples of sums were corrected (s0)" in said
    assert "computed numeric for 2 answers" in said
    after, run = bench.results, er.open_run(bench.path)
    assert after.drop("s0").equals(before.drop("s0"))
    assert same_but_for(before, after, ["key", "sample_hash", "target", "tags", "score_numeric", "score_numeric_why"])
    assert set(after.loc["s0", "target"]) == {"7"}
    assert [dict(tags) for tags in after.loc["s0", "tags"]] == [{"level": "hard"}] * 2
    assert (before.loc["s0", "score_numeric"] == 0).all()
    assert (after["score_numeric"] == 1).all()
    assert set(run.attempts()["key"]) == set(after["key"])
    assert run.attempts().drop(columns="key").equals(attempts.drop(columns="key"))
    assert any("1 samples of sums were corrected" in line for line in run.manifest["messages"])


def test_the_run_is_one_of_the_corrected_data_from_then_on(bench, capsys):
    """`rescore` and `resume` have nothing left to do, and a new run of the corrected data is paired with it, sample by sample, without being asked to."""
    bench.run()
    bench.correct()
    assert main(["rescore", str(bench.path)]) == 0
    capsys.readouterr()
    assert main(["rescore", str(bench.path)]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main(["resume", str(bench.path)]) == 0
    assert "nothing left to do" in capsys.readouterr().err
    assert main(["run", bench.config(), "--out", str(bench.folder / "new"), "--yes"]) == 0
    assert set(er.open_run(bench.folder / "new").results()["key"]) == set(bench.results["key"])
    [pair] = er.compare(bench.path, bench.folder / "new").pairs
    assert (pair.matched, pair.changed) == (SAMPLES, 0)


def test_an_edit_that_was_asked_and_then_corrected_back_leaves_one_row_a_request(bench):
    """`resume` under an edit puts the old answers aside, `rescore` under the old data gives the new ones the same keys: later edits mix them up no more."""
    bench.run()
    old = bench.results["key"]
    for answer, asked_again in ((7, "resume"), (999, "rescore")):
        bench.correct(answer=answer)
        assert main([asked_again, str(bench.path)]) == 0
        assert len(er.open_run(bench.path).attempts()) == 2 * (SAMPLES + 1)
    assert set(bench.results["key"]) == set(old)
    for question, first in (("What is 1 + 1?", "What is 0 + 7?"), ("What is 1 + 7?", "What is 0 + 8?"), ("What is 1 + 7?", "What is 0 + 7?")):
        bench.rows[1]["question"] = question
        bench.correct(answer=999, question=first)
        assert main(["resume", str(bench.path)]) == 0
        assert bench.results.index.is_unique
        assert er.open_run(bench.path).manifest["counts"] == {"planned": 20, "done": 20, "by_outcome": {"ok": 20}, "missing": 0}
    assert set(bench.results["key"]) == set(old)


def test_a_corrected_target_in_the_config_wins(bench, capsys):
    """The target of CONFIG is what answers are scored against and what the rows say; a `resume` goes on under it and asks nothing again."""
    bench.rows[0]["answer"] = 7
    bench.save()
    bench.run(target="{{ answer + 1 }}")
    assert (bench.results["score_numeric"] == 0).all()
    capsys.readouterr()
    assert main(["rescore", str(bench.path), bench.config(name="right")]) == 0
    assert "computed numeric for 20 answers" in capsys.readouterr().err
    assert (bench.results["score_numeric"] == 1).all()
    assert list(bench.results.loc["s3", "target"]) == ["10", "10"]
    assert er.open_run(bench.path).manifest["plan"]["prompt_sets"][0]["target"] == "{{ answer }}"
    assert main(["resume", str(bench.path)]) == 0
    assert "nothing left to do" in capsys.readouterr().err


def test_a_stopped_run_goes_on_with_the_corrected_data(bench):
    """Corrected in the middle of a run: `resume` asks what is missing, and not again what has its answer."""
    assert main(["run", bench.config(), "--out", str(bench.path), "--yes", "--max-requests", "8"]) == 3
    bench.correct()
    assert main(["rescore", str(bench.path)]) == 0
    assert main(["resume", str(bench.path), "--max-requests", "100"]) == 0
    assert (bench.results["score_numeric"] == 1).all()
    assert len(bench.results) == len(er.open_run(bench.path).attempts()) == 2 * SAMPLES


def test_a_judge_is_asked_again_only_about_what_changed(bench):
    """The judge saw the wrong answer as its reference: it is asked again for that sample, and for no other."""
    bench.run(scorers=f"[numeric, {JUDGE}]")
    bought = er.open_run(bench.path).judgements()
    bench.correct()
    assert main(["rescore", str(bench.path)]) == 0
    judged = er.open_run(bench.path).judgements()
    assert len(judged) == len(bought) + 2
    assert judged["id"].is_unique
    assert (bench.results["score_judge"] == 1).all()
    assert not bench.results["score_judge_why"].str.startswith(STILL_TO_COME).any()


@pytest.mark.parametrize(
    ("change", "config", "said"),
    [
        ({"question": "What is 3 + 4?"}, {}, "1 samples of this run are not in the data any more as they were asked: s0"),
        ({}, {"scorers": "[exact]"}, "does not say how to score numeric again"),
        ({}, {"model": "qwen-max"}, "are not in the data any more as they were asked: s0"),
    ],
    ids=["another question", "a scorer left out", "another model"],
)
def test_more_than_a_gold_answer_is_refused(bench, capsys, change, config, said):
    """An answer to another question is no answer to this one, and no score against the wrong target may stay: exit 2, and the run stays as it was."""
    bench.run()
    manifest = (bench.path / "manifest.json").read_bytes()
    bench.correct(**change)
    assert main(["rescore", str(bench.path), bench.config(name="new", **({"scorers": "[numeric, exact]"} | config))]) == 2
    assert said in capsys.readouterr().err
    assert (bench.path / "manifest.json").read_bytes() == manifest


def test_another_question_is_told_although_every_score_is_there(bench, capsys):
    """Data that moved on under a run are no reason to say that there is nothing to do."""
    bench.run()
    bench.correct(question="What is 3 + 4?")
    capsys.readouterr()
    assert main(["rescore", str(bench.path)]) == 2
    assert "not in the data any more as they were asked: s0" in capsys.readouterr().err


def test_another_target_by_a_config_that_asks_other_things_is_refused(bench, capsys):
    """Its target would count for rows that it knows nothing of: exit 2, and the run stays as it was."""
    bench.run()
    manifest = (bench.path / "manifest.json").read_bytes()
    assert main(["rescore", str(bench.path), bench.config(name="new", target="{{ answer + 1 }}", model="qwen-max")]) == 2
    assert "other models than the run" in capsys.readouterr().err
    assert (bench.path / "manifest.json").read_bytes() == manifest
