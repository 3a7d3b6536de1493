"""Judges on stored answers: judges are asked and nobody else, what is judged is not judged twice, and every stop can be gone on with."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from collections import Counter

import pandas as pd
import pytest
from simulated import png

from evalrunner.cli import main
from evalrunner.records import STILL_TO_COME
from evalrunner.results import open_run

CONFIG = """
name: judged
providers:
  simulator: {{kind: simulator, options: {{accuracy: 0.6, seed: 5, limits: false, latency: 0, faults: {faults}}}}}
  court: {{kind: simulator, options: {{judge_accuracy: 1.0, limits: false, latency: {latency}}}, limits: {{concurrency: 4}}}}
models: [{{id: {model}, provider: simulator}}]
allow_unanswered: 1
retry: {{max_attempts: 1}}
budget: {{requests: {requests}}}
prompt_sets:
  - name: sums
    data: sums.jsonl
    prompts: {{p: "What is {{{{ a }}}} + 5?"}}
    target: "{{{{ a + 5 }}}}"
    scorers: {scorers}
"""
SAMPLES = 24
JUDGE = "{judge: {model: qwen-max, provider: court, rubric: Is it right?}}"
FAULTS = "[{kind: error, status: 500, share: 0.2}]"


class Bench:
    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "run"
        (folder / "sums.jsonl").write_text("".join(json.dumps({"a": a}) + "\n" for a in range(SAMPLES)))

    def config(self, scorers, *, name="config", faults="[]", latency="0", model="qwen-turbo", requests=10_000):
        path = self.folder / f"{name}.yaml"
        path.write_text(CONFIG.format(scorers=scorers, faults=faults, latency=latency, model=model, requests=requests))
        return str(path)

    def run(self, **options):
        assert main(["run", self.config("[exact]", **options), "--out", str(self.path), "--yes"]) == 0
        return open_run(self.path)

    def rescore(self, scorers, *more, **options):
        return main(["rescore", str(self.path), self.config(scorers, name="new", **options), *more])


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_judge_joins_and_asks_nobody_else(bench, capsys):
    """Every stored answer is judged; answers, attempts and other scores stay; rows without an answer are not asked again; a scorer not named stays."""
    before = bench.run(faults=FAULTS)
    rows, attempts = before.results(), before.attempts()
    capsys.readouterr()
    assert bench.rescore(f"[{JUDGE}]", faults=FAULTS) == 0
    assert "stored answers are to be judged; nothing else is asked" in capsys.readouterr().err
    done = open_run(bench.path)
    after = done.results()
    pd.testing.assert_frame_equal(after.set_index("key").loc[rows["key"], rows.columns.drop("key")], rows.set_index("key"))
    assert done.attempts().equals(attempts)
    answered = after["outcome"] == "ok"
    assert 0 < answered.sum() < SAMPLES
    assert (after.loc[answered, "score_judge"] == after.loc[answered, "score_exact"]).all()
    assert after.loc[~answered, ["score_judge", "score_judge_why"]].isna().all(axis=None)
    assert Counter(done.judgements()["key"]) == dict.fromkeys(after.loc[answered, "key"], 1)
    assert set(done.summary().scorers) == {"judge", "exact"}
    assert done.manifest["state"] == "complete"
    assert "judge" in (bench.path / "report.html").read_text(encoding="utf-8")


def test_no_judgement_is_bought_twice(bench, capsys):
    """The same judge again is nothing to do; `--all` uses what is stored; another rubric is another question; `resume` has nothing left."""
    bench.run()
    assert bench.rescore(f"[exact, {JUDGE}]") == 0
    bought = open_run(bench.path).judgements()
    capsys.readouterr()
    assert bench.rescore(f"[exact, {JUDGE}]") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert bench.rescore(f"[exact, {JUDGE}]", "--all") == 0
    assert open_run(bench.path).judgements().equals(bought)
    assert open_run(bench.path).results()["score_judge"].notna().all()
    assert bench.rescore(f"[exact, {JUDGE.replace('Is it', 'Is it really')}]") == 0
    assert len(open_run(bench.path).judgements()) == 2 * SAMPLES
    capsys.readouterr()
    assert main(["resume", str(bench.path)]) == 0
    assert "nothing left to do" in capsys.readouterr().err


def test_a_budget_stops_it_and_resume_finishes_the_judging(bench, capsys):
    """Judge calls count against the budget of the new config; what is left is "still to come", said with the command to go on, and judged by `resume`."""
    bench.run()
    assert bench.rescore(f"[exact, {JUDGE}]", requests=SAMPLES + 10) == 3
    assert f"{SAMPLES - 10} answers are still to be scored. Go on with: evalrunner resume" in capsys.readouterr().err
    stopped = open_run(bench.path)
    assert stopped.manifest["counts"]["unscored"] == SAMPLES - 10 == stopped.results()["score_judge_why"].str.startswith(STILL_TO_COME).sum()
    assert main(["resume", str(bench.path), "--max-requests", "1000"]) == 0
    done = open_run(bench.path)
    assert done.results()["score_judge"].notna().all()
    assert Counter(done.judgements()["key"]) == dict.fromkeys(done.results()["key"], 1)
    assert len(done.attempts()) == SAMPLES


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stop_in_the_middle_is_gone_on_with(bench, how):
    """Killed or interrupted while judges are asked: `resume` judges the rest under the new config, and buys nothing again."""
    bench.run()
    config = bench.config(f"[exact, {JUDGE}]", name="new", latency="{qwen-max: {ttft_ms: 150}}")
    command = [sys.executable, "-m", "evalrunner"]
    child = subprocess.Popen([*command, "rescore", str(bench.path), config], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(open_run(bench.path).judgements()) < 4:
        time.sleep(0.02)
    child.send_signal(how)
    assert child.wait() == (130 if how == signal.SIGINT else -how)
    bought = set(open_run(bench.path).judgements()["id"])
    assert 4 <= len(bought) < SAMPLES
    (bench.folder / "new.yaml").unlink()
    assert main(["resume", str(bench.path)]) == 0
    done = open_run(bench.path)
    assert bought < set(done.judgements()["id"])
    assert Counter(done.judgements()["key"]) == dict.fromkeys(done.results()["key"], 1)
    assert done.results()["score_judge"].notna().all()
    assert len(done.attempts()) == SAMPLES


def test_a_config_that_asks_other_things_is_refused(bench, capsys):
    """It would take the place of the run's own, and a `resume` would send its requests: exit 2, and the run stays as it was."""
    bench.run()
    manifest = (bench.path / "manifest.json").read_bytes()
    assert bench.rescore(f"[{JUDGE}]", model="qwen-plus") == 2
    assert "other models than the run" in capsys.readouterr().err
    config = bench.config(f"[{JUDGE}]", name="new")
    assert main(["rescore", str(bench.path), config, "--set", "grid.temperature=0.5"]) == 2
    assert "other requests (prompts, parameters" in capsys.readouterr().err
    assert (bench.path / "manifest.json").read_bytes() == manifest


PICTURES = """
name: pictures
providers: {{simulator: {{options: {{brain: arithmetic, limits: false}}}}}}
models: [{{id: qwen-vl-max, provider: simulator}}]
prompt_sets:
  - name: s
    samples: [{{q: 1 + 1, picture: one.png}}]
    prompts: {{p: [{{role: user, content: [{{text: "{{{{ q }}}}"}}, {{image: "{{{{ picture }}}}"}}]}}]}}
    scorers: [{scorers}]
"""


def test_pictures_that_are_the_same_are_not_said_to_have_changed(tmp_path, capsys):
    """A judge on answers about pictures out of the data rows: the run stays one of these pictures, and `resume` has nothing to do."""
    (tmp_path / "one.png").write_bytes(base64.b64decode(png(32, 32).partition(",")[2]))
    judge = "{judge: {model: qwen-max, provider: simulator, rubric: Right?}}"
    for name, scorers in (("first", "{latency: {max_ms: 9}}"), ("second", f"{{latency: {{max_ms: 9}}}}, {judge}")):
        (tmp_path / f"{name}.yaml").write_text(PICTURES.format(scorers=scorers))
    run = tmp_path / "run"
    assert main(["run", str(tmp_path / "first.yaml"), "--out", str(run), "--yes"]) == 0
    [before] = open_run(run).manifest["plan"]["prompt_sets"]
    assert main(["rescore", str(run), str(tmp_path / "second.yaml")]) == 0
    [after] = open_run(run).manifest["plan"]["prompt_sets"]
    assert after["media_hash"] == before["media_hash"]
    capsys.readouterr()
    assert main(["resume", str(run)]) == 0
    assert "nothing left to do" in capsys.readouterr().err
    assert open_run(run).manifest["messages"] == []
