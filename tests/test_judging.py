"""Runs with a judge, on the simulator: what is asked, written down, paid for, and gone on with after a stop or a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise

import pandas as pd
import pytest

from evalrunner.cli.tables import judge_lines
from evalrunner.engine.ending import Stop
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.pipeline import Watch, resume, run
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.records import STILL_TO_COME
from evalrunner.results import open_run

CONFIG = """
name: judged
providers:
  simulator: {{kind: simulator, options: {{accuracy: 0.6, judge_accuracy: {accuracy}, seed: 5, limits: false, latency: {latency}}}, limits: {{concurrency: 4}}}}
models: [{{id: qwen-turbo, provider: simulator, price: {{input: 1, output: 1, currency: CNY}}}}]
budget: {{requests: {requests}}}
preflight: false
prompt_sets:
  - name: sums
    data: sums.jsonl
    prompts: {{p: "What is {{{{ a }}}} + 5?"}}
    target: "{{{{ a + 5 }}}}"
    scorers: [exact, {{judge: {{{judge}}}}}]
"""
JUDGE = "model: qwen-max, provider: simulator, rubric: Is it right?"
SAMPLES = 24


def write(folder, judge=JUDGE, *, accuracy="1.0", latency="0", requests=10_000, rows=None):
    rows = rows or [{"a": a, "human": "pass" if a % 2 else "fail"} for a in range(SAMPLES)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = folder / "judged.yaml"
    config.write_text(CONFIG.format(judge=judge, accuracy=accuracy, latency=latency, requests=requests))
    return config


QUIET = Watch(say=lambda _: None)


async def carried_out(folder, *, watch=QUIET, **options):
    return await run(load_config(write(folder, **options)), folder / "run", watch)


async def test_a_judge_scores_every_answer_and_keeps_its_own_books(tmp_path):
    """A judge that is always right says what `exact` says; its calls are rows of their own and no part of the requests' attempts, tokens or cost."""
    price = "model: {id: qwen-max, provider: simulator, price: {input: 100, output: 100, currency: CNY}}, rubric: Is it right?"
    done = await carried_out(tmp_path, judge=price)
    assert done.exit_code == 0
    results, judgements = done.results(), done.judgements()
    assert (results["score_judge"] == results["score_exact"]).all()
    assert set(judgements["key"]) == set(results["key"])
    assert len(judgements) == SAMPLES == len(done.attempts())
    assert set(judgements["scorer"]) == {"judge"}
    assert set(judgements["verdict"]) == {"pass", "fail"}
    assert (judgements["attempts"] == 1).all()
    summary = done.summary()
    [judge] = summary.judges
    assert judge.spend["CNY"] == pytest.approx(judgements["cost"].sum())
    assert summary.totals.spend["CNY"] == pytest.approx(results["cost"].sum())
    assert judge.spend["CNY"] > 10 * summary.totals.spend["CNY"]
    assert pd.read_parquet(done.path / "judgements").shape == judgements.shape


async def test_pairs_several_judges_and_labels_reach_the_summary(tmp_path):
    """Position bias, the judges' agreement and their agreement with people stand beside the score."""
    done = await carried_out(tmp_path, judge="models: [qwen-max, qwen-plus], provider: simulator, rubric: x, calibration: {label: human}", accuracy="0.8")
    summary = done.summary()
    assert [(one.judge, one.calibration.n) for one in summary.judges] == [("qwen-max", SAMPLES), ("qwen-plus", SAMPLES)]
    [pair, mean] = summary.judge_pairs
    assert (mean.first, mean.second, mean.agreement.n) == ("the mean of 2 judges", "people", SAMPLES)
    assert (pair.scorer, pair.first, pair.second, pair.agreement.n) == ("judge", "qwen-max", "qwen-plus", SAMPLES)
    assert any("kappa" in line for line in judge_lines(summary))
    (tmp_path / "pair").mkdir()
    done = await carried_out(tmp_path / "pair", judge=f"{JUDGE}, mode: pairwise", accuracy="0.7")
    [judge] = done.summary().judges
    assert judge.asked == 2 * SAMPLES
    assert judge.pairs == SAMPLES
    assert 0 < judge.flips < SAMPLES
    assert judge.flips_low < judge.flips / SAMPLES < judge.flips_high
    assert any(f"order decided {judge.flips} of {SAMPLES} pairs" in line for line in judge_lines(done.summary()))


async def test_a_budget_stops_judges_too_and_resume_buys_no_answer_twice(tmp_path):
    """Judge calls count against the budget. What was answered stays answered, says that its score is to come, and gets it from `resume`."""
    paid = SAMPLES - 1  # an odd number: one answer at least is without its judgement
    stopped = await carried_out(tmp_path, requests=paid, latency="{qwen-max: {ttft_ms: 60}}")
    assert stopped.exit_code == 3
    before = stopped.results().set_index("key")
    waiting = before[before["score_judge"].isna()]
    assert len(waiting) > 0
    assert waiting["score_judge_why"].str.startswith(STILL_TO_COME).all()
    assert stopped.manifest["counts"]["unscored"] == len(waiting)
    sent = len(stopped.attempts()) + int(stopped.judgements()["attempts"].sum())
    assert sent == paid
    done = await resume(stopped.path, QUIET, ["budget.requests=1000"])
    assert done.exit_code == 0
    after = done.results().set_index("key")
    assert after["score_judge"].notna().all()
    assert after["score_judge_why"].str.startswith(("pass", "fail")).all()
    assert "unscored" not in done.manifest["counts"]
    assert Counter(done.attempts()["key"]) == dict.fromkeys(after.index, 1)
    assert not done.judgements()["id"].duplicated().any()
    kept = [name for name in before.columns if not name.startswith("score_judge")]
    pd.testing.assert_frame_equal(after.loc[before.index, kept], before[kept])


async def test_a_stop_in_the_middle_of_judging_keeps_the_answers(tmp_path):
    """Ctrl-C while judges are asked: nothing more is sent, the answers stay, resume only judges."""
    stop = Stop()
    judge = "model: qwen-max, provider: simulator, rubric: Is it right?"
    task = asyncio.create_task(
        carried_out(tmp_path, judge=judge, latency="{qwen-max: {ttft_ms: 150}}", watch=Watch(say=lambda _: None, stop=stop)),
    )
    while not (tmp_path / "run" / "journal").exists() or not _judgements(tmp_path / "run"):  # noqa: ASYNC110 - the first judgement sets no event
        await asyncio.sleep(0.02)
    stop.request("interrupted")
    stopped = await task
    assert stopped.exit_code == 130
    before = stopped.results()
    assert before["score_judge"].isna().any()
    done = await resume(stopped.path, QUIET)
    assert done.exit_code == 0
    assert done.results()["score_judge"].notna().all()
    assert len(done.attempts()) == SAMPLES
    assert not done.judgements()["id"].duplicated().any()


OWN = """
import asyncio
from pathlib import Path
from evalrunner import Score

def slow(*, folder):
    async def score(request, completion):
        if not Path(folder, "well").exists():
            Path(folder, "waiting").touch()
            await asyncio.Event().wait()
        return Score(value=1.0)
    return score
"""


async def test_an_answer_whose_scorer_did_not_come_back_is_scored_by_resume(tmp_path):
    """A stop, and its grace is over while a scorer that asks no model of ours is awaited: the answers stay as they are, nobody is asked again for them."""
    (tmp_path / "slow_scorer.py").write_text(OWN)
    config = write(tmp_path)
    config.write_text(config.read_text().replace(f"judge: {{{JUDGE}}}", f"'slow_scorer:slow': {{folder: '{tmp_path.as_posix()}'}}"))
    stop = Stop()
    task = asyncio.create_task(run(load_config(config), tmp_path / "run", Watch(say=lambda _: None, stop=stop)))
    while not (tmp_path / "waiting").exists():  # noqa: ASYNC110 - a file sets no event
        await asyncio.sleep(0.02)
    stop.request("interrupted")
    await asyncio.sleep(0)
    stop.abort()
    stopped = await task
    before = stopped.results().set_index("key")
    assert len(before) > 0
    assert before["score_exact"].notna().all()
    assert before["score_slow_why"].str.startswith(STILL_TO_COME).all()
    (tmp_path / "well").touch()
    done = await resume(stopped.path, QUIET)
    after = done.results().set_index("key")
    assert done.exit_code == 0
    assert len(after) == SAMPLES
    assert (after["score_slow"] == 1).all()
    kept = [name for name in before.columns if not name.startswith("score_slow")]
    pd.testing.assert_frame_equal(after.loc[before.index, kept], before[kept])


def test_a_kill_in_the_middle_of_judging_buys_no_judgement_twice(tmp_path):
    """SIGKILL while judgements come in: each that was written down is used by the resume, by its content, and none is there twice."""
    two = "models: [qwen-max, qwen-plus], provider: simulator, rubric: Is it right?"  # one is slow: answers are half judged most of the time
    config = write(tmp_path, latency="{qwen-max: {ttft_ms: 50}, qwen-plus: {ttft_ms: 400}}", judge=two)
    command = [sys.executable, "-m", "evalrunner"]
    child = subprocess.Popen([*command, "run", str(config), "--out", "run"], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _judgements(tmp_path / "run") < 10:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    killed = open_run(tmp_path / "run")
    bought = set(killed.judgements()["id"])
    half = {key for key, count in Counter(killed.judgements()["key"]).items() if count == 1}
    assert len(bought) >= 10
    assert half - set(killed.results()["key"])
    done = subprocess.run([*command, "resume", "run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    finished = open_run(tmp_path / "run")
    judgements = finished.judgements()
    assert not judgements["id"].duplicated().any()
    assert bought < set(judgements["id"])
    assert Counter(judgements["key"]) == dict.fromkeys(finished.results()["key"], 2)
    assert finished.results()["score_judge"].notna().all()
    assert finished.manifest["state"] == "complete"


def _judgements(path):
    return len(open_run(path).judgements()) if (path / "manifest.json").exists() else 0


async def test_a_judge_that_refuses_costs_the_scores_and_not_the_answers(tmp_path):
    """A judge whose account refuses: every answer is kept with its other scores, the run says so and exits 4; nothing is final."""
    write(tmp_path)
    config = tmp_path / "judged.yaml"
    text = config.read_text().replace(
        "providers:\n", "providers:\n  other: {kind: simulator, options: {api_key: sk-other, unauthorised: [x]}, api_key: '${OTHER_KEY}'}\n"
    )
    config.write_text(text.replace(JUDGE, JUDGE.replace("simulator", "other")).replace("api_key: sk-other, ", ""))
    environ = {"OTHER_KEY": "x"}
    done = await run(load_config(config, environ=environ), tmp_path / "run", QUIET)
    assert done.exit_code == 4
    results = done.results()
    assert results["score_exact"].notna().all()
    assert results["score_judge"].isna().all()
    assert results["score_judge_why"].str.startswith(STILL_TO_COME).all()
    assert "other refused" in done.message


async def test_a_judge_shares_its_limits_with_the_model_it_judges(tmp_path):
    """One account and model, one limiter: candidate and judge together are never more than its slots, and do not wait for each other for ever."""
    judge = "model: qwen-turbo, rubric: Is it right?"
    config = write(tmp_path, judge=judge)
    plan = make_plan(load_config(config))
    [found] = plan.judges.values()
    assert found.model == plan.models[0]
    config.write_text(config.read_text().replace("concurrency: 4", "concurrency: 1"))
    done = await run(load_config(config), tmp_path / "run", QUIET)
    assert done.exit_code == 0
    spans = [(row.started_at, row.started_at + pd.Timedelta(milliseconds=row.latency_ms)) for row in done.judgements().itertuples()]
    spans += [(row.started_at, row.started_at + pd.Timedelta(milliseconds=row.latency_ms)) for row in done.attempts().itertuples()]
    spans.sort()
    assert all(end <= start + pd.Timedelta(milliseconds=1) for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ("model: qwen-max, provider: simulatr, rubric: x", "judge.provider: no provider is called 'simulatr' (hint: did you mean 'simulator'?)"),
        ("model: {id: qwen-max, provder: p}, rubric: x", "judge.model.provder: unknown key (hint: did you mean 'provider'?)"),
        (f"{JUDGE}, params: {{temprature: 1}}", "judge.params.temprature: unknown key (hint: did you mean 'temperature'?)"),
        (f"{JUDGE}, params: {{temperature: 3}}", "judge.params.temperature: should be at most 2"),
        (f"{JUDGE}, params: {{temperature: [0, 1]}}", "judge.params.temperature: a judge has one value"),
        (f"{JUDGE}, scale: 1to5", "judge.scale: '1to5' is neither"),
        (f"{JUDGE}, rubrik: x", "judge.rubrik: unknown option (hint: did you mean 'rubric'?)"),
        ("model: qwen-max", "judge: missing a required argument: 'rubric'"),
    ],
)
def test_a_mistake_is_told_at_its_place(tmp_path, judge, problem):
    """Every option of a judge is checked before anything is sent, with line, column, path and what was meant."""
    with pytest.raises(ConfigError) as told:
        load_config(write(tmp_path, judge=judge))
    assert f"prompt_sets[0].scorers[1]{'.' if 'missing' not in problem else ': '}{problem}" in str(told.value)
    assert "judged.yaml:13:" in str(told.value)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("calibration: {label: humen}", "no row has a field called 'humen' (hint: did you mean 'human'?)"),
        ("calibration: {label: a}", "the label 3 is none of pass, fail"),
        ("mode: pairwise, against: old", "no field is called 'old', which the answer is to be judged against"),
    ],
)
def test_columns_are_checked_against_the_data(tmp_path, option, problem):
    """A column that is not there, or a label that is no verdict, is told by the same check that renders the prompts."""
    with pytest.raises(DatasetError) as told:
        make_plan(load_config(write(tmp_path, judge=f"{JUDGE}, {option}"))).validate()
    assert problem in str(told.value)


COMBINED = "combine: {scorers: [exact, judge: {%s}], how: %s}"


async def test_a_judge_may_be_a_part_of_a_combination(tmp_path):
    """`combine` with a judge asks it for every answer through the same books, and the score is that of both."""
    config = write(tmp_path, accuracy="1.0")
    config.write_text(config.read_text().replace(f"judge: {{{JUDGE}}}", COMBINED % (JUDGE, "min")))
    done = await run(load_config(config), tmp_path / "run", QUIET)
    results = done.results()
    assert done.exit_code == 0
    assert (results["score_combine"] == results["score_exact"]).all()
    assert set(results["score_exact"]) == {0, 1}
    assert results["score_combine_why"].str.contains("judge").any()
    assert Counter(done.judgements()["scorer"]) == {"combine": SAMPLES}


async def test_a_combination_whose_judge_was_not_asked_is_still_to_come(tmp_path):
    """Where the judge's account refuses, the whole score waits for `resume`; it is no null for ever."""
    config = write(tmp_path)
    text = config.read_text().replace("providers:\n", "providers:\n  other: {kind: simulator, options: {unauthorised: [x]}, api_key: '${OTHER_KEY}'}\n")
    config.write_text(text.replace(f"judge: {{{JUDGE}}}", COMBINED % (JUDGE.replace("simulator", "other"), "mean")))
    done = await run(load_config(config, environ={"OTHER_KEY": "x"}), tmp_path / "run", QUIET)
    assert done.exit_code == 4
    assert done.results()["score_combine_why"].str.startswith(STILL_TO_COME).all()


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ("model: qwen-max, provider: simulatr, rubric: x", "combine.scorers[1].judge.provider: no provider is called 'simulatr'"),
        (f"{JUDGE}, params: {{temperature: [0, 1]}}", "combine.scorers[1].judge.params.temperature: a judge has one value"),
    ],
)
def test_a_mistake_of_a_judge_in_a_combination_is_told_at_its_place(tmp_path, judge, problem):
    """The path leads into the combination."""
    config = write(tmp_path)
    config.write_text(config.read_text().replace(f"judge: {{{JUDGE}}}", COMBINED % (judge, "min")))
    with pytest.raises(ConfigError) as told:
        load_config(config)
    assert problem in str(told.value)


def test_a_judge_needs_a_price_where_there_is_a_budget_in_money(tmp_path):
    """A judge of unknown price could spend past it."""
    config = write(tmp_path)
    config.write_text(config.read_text().replace("budget: {requests: 10000}", "budget: {cost: 1}"))
    with pytest.raises(ConfigError, match=r"that of qwen-max is not known"):
        make_plan(load_config(config))
