"""The store under failing disks and dying machines: fail or kill at the n-th file operation, for every n, then resume and compare."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from crash_harness import FaultyFiles, How, Killed
from make_records import SmallPlan, make_record

from evalrunner.errors import StoreError
from evalrunner.records import FINAL, Outcome, Record, Request
from evalrunner.store.files import Files
from evalrunner.store.run_dir import About, RunDir, Settings, read_attempts, read_manifest, read_results


def outcome_of(request: Request) -> Outcome:
    """Every request always ends the same way, so that any sequence of crashes has one right table."""
    return {0: Outcome.TIMEOUT, 1: Outcome.REJECTED, 2: Outcome.TRUNCATED}.get(int(request.key[:4], 16) % 7, Outcome.OK)


def record_of(request: Request) -> Record:
    return make_record(request, outcome=outcome_of(request))


class Story:
    """One run with crashes: its sessions, and what was acknowledged in them."""

    def __init__(self, run: Path, plan: SmallPlan, rows_a_part: int, *, risk_rows: int = 64) -> None:
        self.run = run
        self.plan = plan
        self.rows_a_part = rows_a_part
        self.risk_rows = risk_rows
        self.acknowledged: set[str] = set()
        self.asked: list[str] = []

    async def session(self, files: Files) -> RunDir:
        """From start or resume to the end of the run."""
        settings = Settings(segment_rows=self.rows_a_part, files=files, risk_rows=self.risk_rows)
        fresh = not (self.run / "manifest.json").exists()
        opened = RunDir.create(self.run, self.plan, About(run_id="r1"), settings=settings) if fresh else RunDir.resume(self.run, self.plan, settings=settings)
        async with opened as run_dir:
            for request in run_dir.missing(self.plan.all_requests()):
                self.asked.append(request.key)
                await run_dir.add(record_of(request))
                self.acknowledged.add(request.key)
                if run_dir._roll_task is not None:
                    await run_dir._roll_task  # so that the n-th operation is the same one every time
            await run_dir.finish("complete")
        return opened

    async def crash(self, files: FaultyFiles) -> bool:
        """A session on a failing disk; whether it came to its end in spite of it."""
        with contextlib.suppress(Killed, StoreError):
            await self.session(files)
            return True
        return False


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row["key"])


def seen_by_anyone(run: Path) -> list[str]:
    """The keys that a reader sees who only lists the directory."""
    table = ds.dataset(run / "results", format="parquet").to_table()
    return table["key"].to_pylist() if "key" in table.column_names else []


async def undisturbed(tmp_path: Path, plan: SmallPlan, rows_a_part: int) -> tuple[list[dict[str, Any]], int]:
    files = FaultyFiles(tmp_path / "calm")
    story = Story(tmp_path / "calm" / "run", plan, rows_a_part)
    await story.session(files)
    return rows(read_results(story.run)), files.operations


async def check_story(story: Story, expected: list[dict[str, Any]], where: str, *, at_risk: int = 0) -> None:
    """What is promised after a crash: before the resume, of the resume, and after it."""
    kept = set()
    if (story.run / "manifest.json").exists():
        outcomes = read_results(story.run, ["key", "outcome"]).to_pylist()
        keys = {row["key"] for row in outcomes}
        assert len(keys) == len(outcomes), where
        assert len(story.acknowledged - keys) <= at_risk, where
        listed = seen_by_anyone(story.run)
        assert len(listed) == len(set(listed)), where
        kept = {row["key"] for row in outcomes if row["outcome"] in FINAL}
    else:
        assert len(story.acknowledged) <= at_risk, where
    story.asked.clear()
    resumed = await story.session(FaultyFiles(story.run))
    assert not kept & set(story.asked), where
    assert all("cut short" in said for said in resumed.messages), (where, resumed.messages)
    assert rows(read_results(story.run)) == expected, where
    assert sorted(seen_by_anyone(story.run)) == [row["key"] for row in expected], where
    assert set(read_attempts(story.run, ["key"])["key"].to_pylist()) == {row["key"] for row in expected}, where
    assert read_manifest(story.run)["state"] == "complete", where
    assert not (story.run / "journal").exists(), where


class Breaking(NamedTuple):
    """How a machine breaks, and how the run was set up."""

    how: How
    power_lost: bool = False
    risk_rows: int = 3

    @property
    def at_risk(self) -> int:
        """Acknowledged rows that a power cut may take: the next one would have been written through."""
        return self.risk_rows - 1 if self.power_lost else 0


async def fail_everywhere(tmp_path: Path, breaking: Breaking, plan: SmallPlan, rows_a_part: int, steps: range) -> None:
    """Tell the story once for every operation in `steps` at which it may break."""
    expected, operations = await undisturbed(tmp_path, plan, rows_a_part)
    for at in steps:
        files = FaultyFiles(tmp_path / f"{at}", at, breaking.how)
        story = Story(tmp_path / f"{at}" / "run", plan, rows_a_part, risk_rows=breaking.risk_rows)
        done = await story.crash(files)
        if breaking.power_lost:
            files.lose_power()
        await check_story(story, expected, f"{breaking} at {at}", at_risk=breaking.at_risk)
        if done and files.operations < at:
            assert at > operations
            return
    raise AssertionError(f"{steps} does not reach the end: {operations} operations")


KILL = Breaking("killed")
BREAKINGS = {
    "kill": KILL,
    "io-error": Breaking("eio"),
    "disk-full": Breaking("full"),
    "power-cut": Breaking("killed", power_lost=True),
    "power-cut-durable": Breaking("killed", power_lost=True, risk_rows=1),
}


@pytest.mark.parametrize("breaking", BREAKINGS.values(), ids=BREAKINGS)
async def test_whatever_breaks_and_whenever_a_resume_completes_the_same_table(tmp_path: Path, breaking: Breaking) -> None:
    """A kill, an I/O error, a full disk or a power cut at a file operation: nothing acknowledged is lost (but for what may be at risk in a power cut),
    nothing answered is asked again, and no reader ever sees a key twice.

    Here at every second one for a kill, at every eighth for the rest; the long test takes every one.
    """
    await fail_everywhere(tmp_path, breaking, SmallPlan(5), 8, range(1, 1000, 2 if breaking == KILL else 8))


@pytest.mark.long
@pytest.mark.parametrize("breaking", BREAKINGS.values(), ids=BREAKINGS)
async def test_every_operation_of_a_longer_run(tmp_path: Path, breaking: Breaking) -> None:
    """The same at every single operation of a run with more rows and rolls."""
    await fail_everywhere(tmp_path, breaking, SmallPlan(20), 15, range(1, 10_000))


@pytest.mark.long
async def test_a_resume_that_breaks_too(tmp_path: Path) -> None:
    """Killed somewhere, and killed again at any operation of the resume: the next resume still completes the same table.

    Of first kills that leave the same files, of the same sizes, one is taken.
    """
    plan, rows_a_part = SmallPlan(5), 4
    expected, operations = await undisturbed(tmp_path, plan, rows_a_part)
    seen = set()
    for first in range(1, operations):
        begun = tmp_path / f"{first}"
        await Story(begun / "run", plan, rows_a_part).crash(FaultyFiles(begun, first))
        left = frozenset((str(path.relative_to(begun)), path.stat().st_size) for path in begun.rglob("*") if path.is_file())
        if left in seen or not (begun / "run" / "manifest.json").exists():
            continue
        seen.add(left)
        for second in range(1 + first % 3, 10_000, 3):
            root = tmp_path / f"{first}-{second}"
            shutil.copytree(begun, root)
            story = Story(root / "run", plan, rows_a_part)
            files = FaultyFiles(root, second)
            if await story.crash(files) and files.operations < second:
                break
            await check_story(story, expected, f"killed at {first}, then at {second}")
            shutil.rmtree(root)
    assert len(seen) > 20
