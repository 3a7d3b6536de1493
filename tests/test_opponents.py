"""Preference judging of two cells: the answers of a stored run, or of another prompt of the same one, stand against each other sample by sample."""

import json

import pytest

import evalrunner as er
from evalrunner.cli import main

CONFIG = """
name: versus
providers:
  simulator: {{kind: simulator, options: {{accuracy: {accuracy}, judge_accuracy: 1.0, seed: 5, limits: false, latency: 0}}}}
models: [{{id: qwen-turbo, provider: simulator}}]
trials: {trials}
preflight: false
prompt_sets:
  - name: sums
    data: sums.jsonl
    prompts: {{in-use: "What is {{{{ a }}}} + 5?", new: "Please: what is {{{{ a }}}} + 5?"}}
    target: "{{{{ a + 5 }}}}"
    scorers: [exact{judge}]
"""
JUDGE = ", {{judge: {{name: preferred, model: qwen-max, provider: simulator, mode: pairwise, against: '{against}', rubric: Which is right?}}}}"
SAMPLES = 10


class Bench:
    def __init__(self, folder):
        self.folder = folder
        self.save(range(SAMPLES))

    def save(self, numbers):
        (self.folder / "sums.jsonl").write_text("".join(json.dumps({"a": a}) + "\n" for a in numbers), encoding="utf-8")

    def config(self, against=None, *, accuracy=1.0, trials=1):
        judge = "" if against is None else JUDGE.format(against=against)
        (self.folder / "config.yaml").write_text(CONFIG.format(judge=judge, accuracy=accuracy, trials=trials), encoding="utf-8")
        return str(self.folder / "config.yaml")

    def run(self, name, against=None, **options):
        assert main(["run", self.config(against, **options), "--out", str(self.folder / name), "--yes"]) == 0
        return er.open_run(self.folder / name).results()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_answers_are_judged_against_those_of_another_run(bench):
    """What the run of last week answered to the same sample is the other answer: right against wrong is preferred, whichever trial."""
    bench.run("base", accuracy=0.0)
    results = bench.run("run", "base[prompt=in-use]", trials=2)
    assert (results["score_exact"] == 1).all()
    assert (results["score_preferred"] == 1).all()
    assert len(er.open_run(bench.folder / "run").judgements()) == 2 * len(results)


def test_prompts_of_one_run_are_judged_against_each_other(bench):
    """`rescore` with the run's own cell: each answer of the new prompt against the one in use, which is compared with nothing and says so."""
    bench.run("run", accuracy=0.5)
    assert main(["rescore", str(bench.folder / "run"), bench.config("run[prompt=in-use]", accuracy=0.5)]) == 0
    results = er.open_run(bench.folder / "run").results().set_index(["prompt", "sample_id"]).sort_index()
    old, new = results.loc["in-use"], results.loc["new"]
    assert old["score_preferred"].isna().all()
    assert set(old["score_preferred_why"]) == {"this is the answer that the others are compared with"}
    assert new["score_preferred"].notna().all()
    better = new["score_exact"] > old["score_exact"]
    worse = new["score_exact"] < old["score_exact"]
    assert better.any() or worse.any()
    assert (new.loc[better, "score_preferred"] == 1).all()
    assert (new.loc[worse, "score_preferred"] == 0).all()
    (told,) = (notice.text for notice in er.open_run(bench.folder / "run").summary().notices if notice.kind == "unscored")
    assert "of the first: this is the answer that the others are compared with" in told  # and nothing failed


@pytest.mark.parametrize(
    ("against", "said", "code"),
    [
        ("base[prompt=in-us]", "no cell has prompt=in-us", 2),
        ("base[model=qwen-turbo]", "2 cells of sums are chosen (hint: choose one", 2),
        ("nowhere[prompt=in-use]", "no run here", 6),
    ],
)
def test_a_cell_that_is_not_one_is_refused_before_anything_is_sent(bench, capsys, against, said, code):
    """No such run, no such cell, or several: `check` and `run` say so, and there is no run."""
    bench.run("base")
    config = bench.config(against)
    for command in (["check", config], ["run", config, "--out", str(bench.folder / "run"), "--yes"]):
        capsys.readouterr()
        assert main(command) == code
        assert said in capsys.readouterr().err
    assert not (bench.folder / "run").exists()


def test_other_data_are_refused(bench, capsys):
    """Answers to another question cannot stand against each other, and the samples are named."""
    bench.run("base")
    bench.save([*range(SAMPLES - 1), 77])
    assert main(["check", bench.config("base[prompt=in-use]")]) == 2
    assert "1 samples have other data than in" in capsys.readouterr().err
