"""Judgements and scores that are still to come, in the store: written down like rows, found again after a crash, replaced once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from crash_harness import FaultyFiles, Killed
from make_records import START_US, SmallPlan, make_record

from evalrunner.errors import StoreError
from evalrunner.records import STILL_TO_COME, Judgement, Score
from evalrunner.store.redact import Redactor
from evalrunner.store.run_dir import About, RunDir, Settings, read_attempts, read_judgements, read_manifest, read_results

PLAN = SmallPlan(3, temperatures=(0.0,), scorers=("exact", "judge"))
WAITING = {"exact": Score(value=1.0, why="equal"), "judge": Score(value=None, why=f"{STILL_TO_COME}the run stopped")}


def judgement(key, number=0, **changes):
    facts = {"scorer": "judge", "judge": "max", "judge_id": "qwen-max", "provider": "p", "sample_id": "s", "order": "", "outcome": "ok", "attempts": 1}
    return Judgement(**({"key": key, "id": f"{key}-{number}", "verdict": "pass", "score": 1.0, "reason": "right", "started_us": START_US} | facts | changes))


async def first_session(path, settings=None, redactor=None):
    """Three answers: one judged, one half judged, one not at all."""
    async with RunDir.create(path, PLAN, About(run_id="r1"), settings=settings, redactor=redactor) as run_dir:
        first, second, third = PLAN.all_requests()
        await run_dir.judged(judgement(first.key))
        await run_dir.add(make_record(first, scores={"exact": Score(value=1.0), "judge": Score(value=1.0, why="pass: right")}))
        await run_dir.judged(judgement(second.key, cost=0.5, currency="CNY"))
        await run_dir.judged(judgement(second.key, 1, outcome="timeout", verdict=None, score=None))
        await run_dir.add(make_record(second, scores=WAITING))
        await run_dir.add(make_record(third, scores=WAITING))
        await run_dir.finish("interrupted")
    return [first.key, second.key, third.key]


async def test_a_resume_finds_what_is_to_be_scored_and_what_was_bought(tmp_path):
    """Nothing is asked again; the rows without their score and the judgements that were answered come back as they were."""
    keys = await first_session(tmp_path / "run")
    assert read_manifest(tmp_path / "run")["counts"]["unscored"] == 2
    async with RunDir.resume(tmp_path / "run", PLAN) as run_dir:
        assert not run_dir.nothing_left
        assert run_dir.resumed.unscored == 2
        assert list(run_dir.missing(PLAN.all_requests())) == []
        assert [one.id for one in run_dir.judgements().values()] == [f"{keys[1]}-0"]
        waiting = run_dir.unscored()
        assert set(waiting) == set(keys[1:])
        for row in waiting.values():
            await run_dir.rescore(row, {"judge": Score(value=0.0, why="fail: wrong")})
        await run_dir.finish("complete")
    after = read_results(tmp_path / "run").to_pandas().set_index("key")
    assert list(after.loc[keys, "score_judge"]) == [1.0, 0.0, 0.0]
    assert (after["score_exact"] == 1.0).all()
    assert read_attempts(tmp_path / "run").num_rows == 3
    assert "unscored" not in read_manifest(tmp_path / "run")["counts"]
    async with RunDir.resume(tmp_path / "run", PLAN) as run_dir:
        assert run_dir.nothing_left


async def test_an_answer_that_is_judged_early_is_not_bought_again(tmp_path):
    """Judges may be ahead of the requests that a resume still sends: what they have scored by then has its answer, and stands in the table once."""
    keys = await first_session(tmp_path / "run")
    longer = SmallPlan(4, temperatures=(0.0,), scorers=PLAN.scorer_names)
    async with RunDir.resume(tmp_path / "run", longer, settings=Settings(segment_rows=1)) as run_dir:
        missing = run_dir.missing(longer.all_requests())
        for row in run_dir.unscored().values():
            await run_dir.rescore(row, {"judge": Score(value=1.0)})
        for request in missing:
            await run_dir.add(make_record(request, scores={"judge": Score(value=1.0)}))
        await run_dir.finish("complete")
    after = read_results(tmp_path / "run", ["key"])["key"].to_pylist()
    assert len(after) == len(set(after)) == 4
    assert set(keys) < set(after)
    assert read_attempts(tmp_path / "run").num_rows == 4
    assert read_manifest(tmp_path / "run")["counts"] == {"planned": 4, "done": 4, "by_outcome": {"ok": 4}, "missing": 0}


async def test_rescoring_changes_the_score_and_nothing_else(tmp_path):
    """Times, tags, tokens, texts: every other value of the row is bit for bit what it was."""
    await first_session(tmp_path / "run")
    before = read_results(tmp_path / "run").to_pandas().set_index("key").sort_index()
    async with RunDir.resume(tmp_path / "run", PLAN) as run_dir:
        for row in run_dir.unscored().values():
            await run_dir.rescore(row, {"judge": Score(value=1 / 3, why="")})
        await run_dir.finish("complete")
    after = read_results(tmp_path / "run").to_pandas().set_index("key").sort_index()
    kept = [name for name in before.columns if not name.startswith("score_judge")]
    pd.testing.assert_frame_equal(before[kept], after[kept])


async def test_judgements_are_a_table_of_their_own(tmp_path):
    """Only runs with a judge have the directory; any Parquet reader reads it; a secret in a reply is masked."""
    redactor = Redactor(["sk-0123456789abcdef"])
    async with RunDir.create(tmp_path / "run", PLAN, About(run_id="r1"), redactor=redactor) as run_dir:
        assert not (tmp_path / "run" / "judgements").exists()
        assert read_judgements(tmp_path / "run").num_rows == 0
        await run_dir.judged(judgement("k", output="the key is sk-0123456789abcdef"))
        assert read_judgements(tmp_path / "run", ["id"]).to_pylist() == [{"id": "k-0"}]
        await run_dir.finish("complete")
    [row] = pd.read_parquet(tmp_path / "run" / "judgements").to_dict("records")
    assert "0123456789" not in row["output"]
    assert row["started_at"] == pd.Timestamp(START_US, unit="us", tz="UTC")


@pytest.mark.parametrize("step", range(8, 80, 3))
async def test_a_crash_loses_no_judgement_that_was_written_down(tmp_path: Path, step: int):
    """Killed at any file operation: what `judged` returned for is there, once, and a resume completes the same table."""
    kept: list[str] = []
    files = FaultyFiles(tmp_path, step)
    run = tmp_path / "run"
    try:
        async with RunDir.create(run, PLAN, About(run_id="r1"), settings=Settings(segment_rows=3, files=files)) as run_dir:
            for request in PLAN.all_requests():
                for number in (0, 1):
                    await run_dir.judged(judgement(request.key, number))
                    kept.append(f"{request.key}-{number}")
                await run_dir.add(make_record(request, scores=WAITING))
            await run_dir.finish("interrupted")
    except (Killed, StoreError):
        pass
    if not (run / "manifest.json").exists():
        assert not kept
        return
    ids = read_judgements(run, ["id"])["id"].to_pylist()
    assert set(kept) <= set(ids)
    assert len(ids) == len(set(ids))
    async with RunDir.resume(run, PLAN) as run_dir:
        assert set(kept) <= set(run_dir.judgements())
        for row in run_dir.unscored().values():
            await run_dir.rescore(row, {"judge": Score(value=1.0)})
        for request in run_dir.missing(PLAN.all_requests()):
            await run_dir.add(make_record(request, scores={"judge": Score(value=1.0)}))
        await run_dir.finish("complete")
    assert read_results(run, ["score_judge"])["score_judge"].to_pylist() == [1.0] * 3
    ids = read_judgements(run, ["id"])["id"].to_pylist()
    assert len(ids) == len(set(ids))


WINDOW = ((0, None), (1, None), (2, 0), (3, 2), (4, 1), (5, 3))
"""Which answer comes, and which one's scores are there after it: two or three wait all the time, and two still do at the end."""
SIX = SmallPlan(6, temperatures=(0.0,), scorers=PLAN.scorer_names)


async def answered_ahead(run, files, kept):
    """A session in which scores take their time."""
    requests = list(SIX.all_requests())
    async with RunDir.create(run, SIX, About(run_id="r1"), settings=Settings(segment_rows=2, files=files)) as run_dir:
        for came, scored in WINDOW:
            await run_dir.answered(make_record(requests[came], scores=WAITING))
            kept.append(requests[came].key)
            if scored is not None:
                await run_dir.add(make_record(requests[scored], scores={"exact": Score(value=1.0), "judge": Score(value=1.0)}))
            if run_dir._roll_task is not None:
                await run_dir._roll_task  # segments become parts while answers wait
        await run_dir.finish("interrupted")


async def completed(run, kept, files=None):
    """Nothing that was answered is missing; what has no score gets one."""
    async with RunDir.resume(run, SIX, settings=Settings(files=files) if files else None) as run_dir:
        assert not set(kept) & {request.key for request in run_dir.missing(SIX.all_requests())}
        for row in run_dir.unscored().values():
            await run_dir.rescore(row, {"judge": Score(value=1.0)})
        for request in run_dir.missing(SIX.all_requests()):
            await run_dir.add(make_record(request, scores={"exact": Score(value=1.0), "judge": Score(value=1.0)}))
        await run_dir.finish("complete")


@pytest.mark.parametrize("step", range(8, 160, 2))
async def test_an_answer_is_kept_before_its_scores_are_there(tmp_path: Path, step: int):
    """Killed at any file operation, and once more as it is resumed: no answer that was written down is asked again, and each stands in the tables once."""
    kept: list[str] = []
    run = tmp_path / "run"
    with suppress(Killed, StoreError):
        await answered_ahead(run, FaultyFiles(tmp_path, step), kept)
    if not (run / "manifest.json").exists():
        assert not kept
        return
    with suppress(Killed, StoreError):
        await completed(run, kept, FaultyFiles(tmp_path, 1 + step % 23))
    await completed(run, kept)
    assert read_results(run, ["score_judge"])["score_judge"].to_pylist() == [1.0] * 6
    assert sorted(read_attempts(run, ["key"])["key"].to_pylist()) == sorted(request.key for request in SIX.all_requests())
