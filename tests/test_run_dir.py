"""A run's directory: nothing that was written down is lost or asked again, and whoever looks at it sees whole parts."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import shutil
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_records import SmallPlan, make_completion, make_record, make_request

from evalrunner.errors import RunLockedError, StoreError
from evalrunner.records import Outcome, Request
from evalrunner.store.files import Files
from evalrunner.store.known import KnownRows
from evalrunner.store.place import new_run_id, run_path, slug
from evalrunner.store.redact import Redactor
from evalrunner.store.run_dir import About, RunDir, Settings, read_attempts, read_manifest, read_results

ABOUT = About(run_id="r1")
PLAN = SmallPlan(10)


def keys(requests: Iterator[Request]) -> list[str]:
    return [request.key for request in requests]


async def fill(run: Path, number: int, *, outcome: Outcome = Outcome.OK, settings: Settings | None = None) -> None:
    """A run of `PLAN` that was interrupted after `number` rows."""
    async with RunDir.create(run, PLAN, ABOUT, settings=settings) as run_dir:
        for request in list(PLAN.all_requests())[:number]:
            await run_dir.add(make_record(request, outcome=outcome))
            await asyncio.sleep(0)
        await run_dir.finish("interrupted", "stopped for a test")


async def complete(run: Path, *, settings: Settings | None = None) -> tuple[RunDir, list[str]]:
    """Resume to the end; returns the run and the keys that were asked."""
    asked = []
    async with RunDir.resume(run, PLAN, settings=settings) as run_dir:
        for request in run_dir.missing(PLAN.all_requests()):
            asked.append(request.key)
            await run_dir.add(make_record(request))
        await run_dir.finish("complete")
    return run_dir, asked


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


async def test_a_run_becomes_a_table(tmp_path: Path) -> None:
    """Every record is a row that pandas reads, the manifest says what the run was, and the journal is gone."""
    run, config = tmp_path / "reports" / "small" / "r1", tmp_path / "small.yaml"
    about = About(
        run_id="r1", description="why", config_text="name: small\n", config_path=config, command=["evalrunner", "run"], git={"commit": "c", "dirty": False}
    )
    async with RunDir.create(run, PLAN, about) as run_dir:
        requests = PLAN.all_requests()
        assert run_dir.missing(requests) is requests
        for request in requests:
            await run_dir.add(make_record(request))
        await run_dir.finish("complete")
    frame = pd.read_parquet(run / "results")
    assert sorted(frame.key) == sorted(keys(PLAN.all_requests()))
    assert set(frame.run_id) == {"r1"}
    assert read_attempts(run, ["key"]).num_rows == 20
    manifest = read_manifest(run)
    expected = {
        "schema": 1,
        "run_id": "r1",
        "name": "small",
        "description": "why",
        "state": "complete",
        "reason": None,
        "command": ["evalrunner", "run"],
        "resumes": [],
    }
    assert {name: manifest[name] for name in expected} == expected
    assert manifest["counts"] == {"planned": 20, "done": 20, "by_outcome": {"ok": 20}, "missing": 0}
    assert manifest["plan"] == PLAN.describe()
    assert manifest["git"] == {"commit": "c", "dirty": False}
    assert (run / manifest["config"]["origin"]).resolve() == config
    assert [(part["file"], part["rows"]) for part in manifest["parts"]] == [("results/part-00000.parquet", 20), ("attempts/part-00000.parquet", 20)]
    assert (run / "config.yaml").read_text() == "name: small\n"
    assert {path.name for path in run.iterdir()} == {".lock", "manifest.json", "config.yaml", "results", "attempts"}


async def test_the_table_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    """pandas sees every column from the first moment and whole parts as they come; our own reader also what is still in the journal."""
    async with RunDir.create(tmp_path / "run", PLAN, ABOUT, settings=Settings(segment_rows=8)) as run_dir:
        assert pd.read_parquet(tmp_path / "run" / "results").query("outcome == 'ok'").empty
        for number, request in enumerate(PLAN.all_requests(), 1):
            await run_dir.add(make_record(request))
            seen = read_results(tmp_path / "run", ["outcome", "score_exact"])
            assert (seen.num_rows, seen.column_names) == (number, ["outcome", "score_exact"])
            assert read_attempts(tmp_path / "run").num_rows == number
            listed = pd.read_parquet(tmp_path / "run" / "results")
            assert len(listed) <= number
            assert listed.key.is_unique
        assert run_dir._roll_task is not None
        await run_dir._roll_task
        assert len(pd.read_parquet(tmp_path / "run" / "results")) >= 8
        await run_dir.finish("complete")


class FastClock:
    """A clock on which a sleep takes no time but passes."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns

    def wall_us(self, ns: int) -> int:
        return 1_764_000_000_000_000 + ns // 1000

    async def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)
        await asyncio.sleep(0)


async def test_a_few_rows_become_a_part_after_ten_seconds(tmp_path: Path) -> None:
    """A slow run need not collect 10,000 rows before pandas sees the first."""
    clock = FastClock()
    async with RunDir.create(tmp_path / "run", PLAN, ABOUT, settings=Settings(clock=clock)) as run_dir:
        for request in list(PLAN.all_requests())[:3]:
            await run_dir.add(make_record(request))
        while not len(pd.read_parquet(tmp_path / "run" / "results")):  # noqa: ASYNC110 - the part comes from a thread
            await asyncio.sleep(0)
        assert 10 <= clock.ns / 1e9 < 30
        await run_dir.finish("interrupted")


async def test_resume_asks_only_for_what_has_no_answer(tmp_path: Path) -> None:
    """Answered and final rows are left alone; the rest are tried again, and the new row takes the old one's place."""
    run, requests = tmp_path / "run", list(PLAN.all_requests())
    first = [*[Outcome.OK] * 3, Outcome.TIMEOUT, Outcome.REJECTED, Outcome.RATE_LIMITED, Outcome.FILTERED, Outcome.TRUNCATED, Outcome.AUTH]
    async with RunDir.create(run, PLAN, ABOUT, settings=Settings(segment_rows=4)) as run_dir:
        for request, outcome in zip(requests, first, strict=False):
            await run_dir.add(make_record(request, outcome=outcome))
            await asyncio.sleep(0.01)
        await run_dir.finish("interrupted")
    run_dir, asked = await complete(run)
    assert run_dir.resumed is not None
    assert (run_dir.resumed.answered, run_dir.resumed.missing, run_dir.resumed.sent_again) == (6, 11, 3)
    assert asked == [requests[3].key, requests[5].key, requests[8].key, *(request.key for request in requests[9:])]
    table = read_results(run, ["key", "outcome"]).to_pylist()
    assert len(table) == len({row["key"] for row in table}) == 20
    assert read_manifest(run)["counts"] == {"planned": 20, "done": 20, "by_outcome": {"filtered": 1, "ok": 17, "rejected": 1, "truncated": 1}, "missing": 0}
    assert [{name: resume[name] for name in ("answered", "missing", "sent_again")} for resume in read_manifest(run)["resumes"]] == [
        {"answered": 6, "missing": 11, "sent_again": 3}
    ]
    # what was tried and paid for before stays in the attempts
    assert read_attempts(run).num_rows == 23


async def test_a_run_without_an_answer_can_be_tried_again_as_a_whole(tmp_path: Path) -> None:
    """Old parts that lose every row disappear."""
    await fill(tmp_path / "run", 20, outcome=Outcome.TRANSPORT, settings=Settings(segment_rows=5))
    _, asked = await complete(tmp_path / "run", settings=Settings(segment_rows=3))
    assert asked == keys(PLAN.all_requests())
    assert pd.read_parquet(tmp_path / "run" / "results").outcome.to_list() == ["ok"] * 20


async def test_with_nothing_left_resume_changes_nothing(tmp_path: Path) -> None:
    """A complete run stays as it is, byte for byte."""
    await fill(tmp_path / "run", 20)
    await complete(tmp_path / "run")
    before = contents(tmp_path / "run")
    run_dir, asked = await complete(tmp_path / "run")
    assert run_dir.nothing_left
    assert asked == []
    assert contents(tmp_path / "run") == before


async def test_small_parts_become_one_at_the_end(tmp_path: Path) -> None:
    """A long slow run does not leave thousands of small files; full parts are not written twice."""
    run = tmp_path / "run"
    async with RunDir.create(run, PLAN, ABOUT, settings=Settings(segment_rows=6)) as run_dir:
        for number, request in enumerate(PLAN.all_requests(), 1):
            await run_dir.add(make_record(request))
            if number in {2, 3, 9, 15, 18}:
                assert run_dir._journal is not None
                await run_dir._roll(run_dir._journal)
        before = {part["file"]: part["rows"] for part in read_manifest(run)["parts"]}
        await run_dir.finish("complete")
    assert [rows for file, rows in before.items() if file.startswith("results")] == [2, 1, 6, 6, 3]
    assert [part["rows"] for part in read_manifest(run)["parts"] if part["file"].startswith("results")] == [8, 6, 6]
    assert len(list((run / "results").iterdir())) == 3
    assert sorted(read_results(run)["key"].to_pylist()) == sorted(keys(PLAN.all_requests()))


async def test_leaving_early_ends_the_run_as_interrupted(tmp_path: Path) -> None:
    """Whatever goes wrong around it, the rows are in parts and the manifest says why; without its secrets."""
    redactor = Redactor(["sk-CANARY-0123456789"])

    async def body() -> None:
        async with RunDir.create(tmp_path / "run", PLAN, ABOUT, redactor=redactor) as run_dir:
            await run_dir.add(make_record(make_request()))
            raise ValueError("went wrong with sk-CANARY-0123456789")

    with pytest.raises(ValueError, match="went wrong"):
        await body()
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["state"], manifest["reason"]) == ("interrupted", "ValueError: went wrong with [secret]")
    assert len(pd.read_parquet(tmp_path / "run" / "results")) == 1


async def test_a_second_runner_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    """Two live runs never share a directory; the second learns process and host, and changes nothing."""
    async with RunDir.create(tmp_path / "run", PLAN, ABOUT) as run_dir:
        await run_dir.add(make_record(make_request()))
        before = contents(tmp_path / "run")
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on ") as refusal:
            async with RunDir.resume(tmp_path / "run", PLAN):
                pass
        assert refusal.value.exit_code == 6
        assert contents(tmp_path / "run") == before
        await run_dir.finish("interrupted")


EIGHT = """
import asyncio, os, sys
from pathlib import Path
from make_records import SmallPlan, make_record
from evalrunner.errors import StoreError
from evalrunner.store.run_dir import About, RunDir

async def runner(path, go, hold):
    plan = SmallPlan(10)
    opened = RunDir.create(path, plan, About(run_id="r1")) if sys.argv[2] == "create" else RunDir.resume(path, plan)
    os.read(go, 1)
    async with opened as run_dir:
        for request in run_dir.missing(plan.all_requests()):
            await run_dir.add(make_record(request))
        os.read(hold, 1)
        await run_dir.finish("complete")

(go, start), (hold, release) = os.pipe(), os.pipe()
for number in range(8):
    if not os.fork():
        os.close(start), os.close(release)
        try:
            asyncio.run(runner(Path(sys.argv[1]), go, hold))
        except StoreError as error:
            os._exit(error.exit_code)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(99)
        os._exit(0)
os.close(go), os.close(hold), os.close(start)
ends = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(7)]
os.close(release)
print(*ends, os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize("begin", ["create", "resume"])
async def test_of_eight_processes_at_once_exactly_one_runs(tmp_path: Path, begin: str) -> None:
    """Released on one moment, one gets the directory and seven are refused, whether the run is new or old; the table is whole."""
    if begin == "resume":
        await fill(tmp_path / "run", 3)
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", EIGHT, str(tmp_path / "run"), begin, stdout=pipe, stderr=pipe, env=environment)
    said, errors = await child.communicate()
    assert said.decode().split() == ["6"] * 7 + ["0"], errors.decode()
    assert sorted(read_results(tmp_path / "run")["key"].to_pylist()) == sorted(keys(PLAN.all_requests()))
    assert read_attempts(tmp_path / "run").num_rows == 20


async def test_the_lock_of_a_dead_process_does_not_hold(tmp_path: Path) -> None:
    """Only the system's lock counts, not a note with a process number that may be another's by now."""
    await fill(tmp_path / "run", 3)
    (tmp_path / "run" / ".lock").write_text(f'{{"host": "elsewhere", "pid": {os.getpid()}, "since": "yesterday"}}')
    assert len((await complete(tmp_path / "run"))[1]) == 17


async def test_whoever_looks_at_a_killed_run_does_not_keep_it_from_going_on(tmp_path: Path) -> None:
    """To see whether a run is alive `show` holds its lock for a moment; a `resume` in that moment is not refused."""
    await fill(tmp_path / "run", 3)

    class Looked(Files):
        looks = 1

        def lock(self, fd: int) -> None:
            if self.looks:
                self.looks -= 1
                raise BlockingIOError
            super().lock(fd)

    async with RunDir.resume(tmp_path / "run", PLAN, settings=Settings(files=Looked())) as run_dir:
        assert run_dir.resumed


async def test_a_file_system_without_locks_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Rather no run than two in one directory."""

    class NoLocks(Files):
        def lock(self, fd: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with pytest.raises(StoreError, match=r"cannot lock files .*--out"):
        async with RunDir.create(tmp_path / "run", PLAN, ABOUT, settings=Settings(files=NoLocks())):
            pass


CHILD = """
import asyncio, sys
from pathlib import Path
from make_records import SmallPlan, make_record
from evalrunner.store.run_dir import About, RunDir, Settings

async def main():
    plan = SmallPlan(10)
    async with RunDir.create(Path(sys.argv[1]), plan, About(run_id="r1"), settings=Settings(segment_rows=5)) as run_dir:
        for number, request in enumerate(plan.all_requests()):
            if number == 13:
                print("written", flush=True)
                await asyncio.sleep(1000)
            await run_dir.add(make_record(request))

asyncio.run(main())
"""


async def test_kill_9_loses_no_row_and_no_lock_stays(tmp_path: Path) -> None:
    """A killed process leaves everything it wrote down readable at once, and the run free to be resumed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, str(tmp_path / "run"), stdout=asyncio.subprocess.PIPE, env=environment)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"written\n"
    with pytest.raises(RunLockedError, match=f"process {child.pid} "):
        await complete(tmp_path / "run")
    child.send_signal(signal.SIGKILL)
    await child.wait()
    assert read_results(tmp_path / "run").num_rows == 13
    assert read_manifest(tmp_path / "run")["state"] == "running"
    _, asked = await complete(tmp_path / "run")
    assert asked == keys(PLAN.all_requests())[13:]


async def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A typing mistake in --out does not scatter files among somebody's own."""
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(StoreError, match="is not empty and no run"):
        async with RunDir.create(tmp_path, PLAN, ABOUT):
            pass
    assert contents(tmp_path) == {"config.yaml": b"mine"}


async def test_a_run_is_not_begun_twice_in_one_directory(tmp_path: Path) -> None:
    """A second `run --out` says how to go on instead."""
    await fill(tmp_path / "run", 3)
    before = contents(tmp_path / "run")
    with pytest.raises(StoreError, match="evalrunner resume"):
        async with RunDir.create(tmp_path / "run", PLAN, ABOUT):
            pass
    assert contents(tmp_path / "run") == before


async def test_resume_needs_a_run(tmp_path: Path) -> None:
    """A wrong path is told, and nothing appears there."""
    with pytest.raises(StoreError, match="no run here"):
        async with RunDir.resume(tmp_path, PLAN):
            pass
    assert contents(tmp_path) == {}


async def test_a_newer_run_is_refused_politely_and_left_alone(tmp_path: Path) -> None:
    """What a later version wrote is neither called damage nor touched, by readers and by resume."""
    await fill(tmp_path / "run", 3)
    path = tmp_path / "run" / "manifest.json"
    path.write_bytes(msgspec.json.encode({"schema": 2, "evalrunner": "9.9", "shape": "unknown"}))
    before = contents(tmp_path / "run")
    for look in (read_manifest, read_results):
        with pytest.raises(StoreError, match=r"made by evalrunner 9.9 .*install a newer"):
            look(tmp_path / "run")
    with pytest.raises(StoreError, match="install a newer"):
        await complete(tmp_path / "run")
    assert contents(tmp_path / "run") == before


async def test_runs_of_every_released_schema_can_be_read_and_resumed(tmp_path: Path) -> None:
    """`fixtures/run_schema_<n>` was killed with four rows in parts and two in the journal, one of them without an answer; this version goes on with it."""
    for old in sorted((Path(__file__).parent / "fixtures").glob("run_schema_*")):
        run, plan = tmp_path / old.name, SmallPlan(4)
        shutil.copytree(old, run)
        assert read_results(run, ["outcome"])["outcome"].to_pylist() == ["ok", "timeout", "ok", "ok", "ok", "ok"]
        assert [math.isnan(score) for score in read_results(run)["score_exact"].to_pylist() if score is not None] == [False, True, False, False, False]
        async with RunDir.resume(run, plan) as run_dir:
            assert not run_dir.messages
            left = list(run_dir.missing(plan.all_requests()))
            assert [request.key for request in left] == [keys(plan.all_requests())[number] for number in (1, 6, 7)]
            for request in left:
                await run_dir.add(make_record(request))
            await run_dir.finish("complete")
        assert sorted(pd.read_parquet(run / "results").key) == sorted(keys(plan.all_requests()))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"schema": 1}', b'{"schema": 1, "evalrunner": "0.1.0"}', b"\x00" * 100])
async def test_a_broken_manifest_is_an_error_that_says_so(tmp_path: Path, text: bytes) -> None:
    """The manifest is replaced atomically: if it is broken, somebody or something else broke it."""
    await fill(tmp_path / "run", 3)
    (tmp_path / "run" / "manifest.json").write_bytes(text)
    with pytest.raises(StoreError, match="damaged beyond repair"):
        await complete(tmp_path / "run")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped": flip,
    "no footer": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "another": lambda path: pq.write_table(pa.table({"x": [1]}), path),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_part_is_put_aside_and_its_rows_are_asked_again(tmp_path: Path, damage: str) -> None:
    """Loudly: readers refuse it by name, resume says what it found and what it does about it, and the table ends complete."""
    run = tmp_path / "run"
    await fill(run, 14, settings=Settings(segment_rows=5))
    part = next(part for part in read_manifest(run)["parts"] if part["file"].startswith("results"))
    lost = pq.read_table(run / part["file"])["key"].to_pylist()
    DAMAGE[damage](run / part["file"])
    with pytest.raises(StoreError, match=rf"{part['file']} is damaged or missing; .*resume"):
        read_results(run)
    run_dir, asked = await complete(run)
    assert sorted(asked) == sorted([*lost, *keys(PLAN.all_requests())[14:]])
    (said,) = run_dir.messages
    assert said in read_manifest(run)["messages"]
    assert part["file"] in said
    assert f"its {len(lost)} rows are asked again" in said
    assert damage == "missing" or (run / "damaged" / part["file"].replace("/", "-")).exists()
    assert sorted(pd.read_parquet(run / "results").key) == sorted(keys(PLAN.all_requests()))


async def test_a_damaged_attempts_part_costs_attempts_only(tmp_path: Path) -> None:
    """The results stand for themselves; the loss is told."""
    await fill(tmp_path / "run", 14)
    flip(tmp_path / "run" / "attempts" / "part-00000.parquet")
    run_dir, asked = await complete(tmp_path / "run")
    assert len(asked) == 6
    assert "its 14 rows are lost" in run_dir.messages[0]
    assert read_attempts(tmp_path / "run").num_rows == 6


async def test_foreign_files_among_the_parts(tmp_path: Path) -> None:
    """A foreign part would be read as rows, so it is put aside; anything else is left, with a warning."""
    await fill(tmp_path / "run", 14)
    results = tmp_path / "run" / "results"
    (results / "part-00077.parquet").write_bytes((results / "part-00000.parquet").read_bytes())
    (results / "notes.txt").write_text("mine")
    (results / ".hidden").write_text("mine")
    run_dir, asked = await complete(tmp_path / "run")
    assert len(asked) == 6
    assert len(run_dir.messages) == 2
    assert (tmp_path / "run" / "damaged" / "results-part-00077.parquet").exists()
    assert {path.name for path in results.iterdir()} == {"part-00000.parquet", "notes.txt", ".hidden"}


async def killed(run: Path, number: int) -> list[Path]:
    """A run that stopped dead after `number` rows; returns its journal segments."""
    run_dir = RunDir.create(run, PLAN, ABOUT)
    await run_dir.__aenter__()
    for request in list(PLAN.all_requests())[:number]:
        await run_dir.add(make_record(request))
    await run_dir._let_go()
    run_dir._close()
    return sorted((run / "journal").iterdir())


async def test_a_damaged_journal_line_is_put_aside_and_asked_again(tmp_path: Path) -> None:
    """The lines around it are kept, and so is the segment as it was found."""
    (segment,) = await killed(tmp_path / "run", 9)
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"turbo", b"turBo", 1)
    segment.write_bytes(b"".join(lines))
    assert read_results(tmp_path / "run").num_rows == 8
    run_dir, asked = await complete(tmp_path / "run")
    assert asked == [keys(PLAN.all_requests())[4], *keys(PLAN.all_requests())[9:]]
    assert "damaged in line 5" in run_dir.messages[0]
    assert (tmp_path / "run" / "damaged" / "journal-segment-00000.jsonl").read_bytes() == b"".join(lines)


async def test_a_torn_end_of_the_journal_is_dropped_with_its_size(tmp_path: Path) -> None:
    """A write that the crash cut short never counted; how much it was is told."""
    (segment,) = await killed(tmp_path / "run", 9)
    segment.write_bytes(segment.read_bytes()[:-100])
    run_dir, asked = await complete(tmp_path / "run")
    assert asked == keys(PLAN.all_requests())[8:]
    assert "cut short" in run_dir.messages[0]


async def test_a_lost_segment_is_noticed(tmp_path: Path) -> None:
    """A journal file that somebody removed is not passed over in silence."""
    (segment,) = await killed(tmp_path / "run", 9)
    segment.rename(segment.with_name("segment-00001.jsonl"))
    run_dir, _ = await complete(tmp_path / "run")
    assert "segments 0 to 0 are missing" in run_dir.messages[0]


async def test_a_segment_that_comes_back_adds_no_row(tmp_path: Path) -> None:
    """Rows that are in a part already are not taken from the journal again, as after a half restored backup."""
    (segment,) = await killed(tmp_path / "run", 9)
    old = segment.read_bytes()
    async with RunDir.resume(tmp_path / "run", PLAN) as run_dir:
        await run_dir.finish("interrupted")
    journal = tmp_path / "run" / "journal"
    journal.mkdir()
    (journal / f"segment-{read_manifest(tmp_path / 'run')['journal_from']:05}.jsonl").write_bytes(old)
    await complete(tmp_path / "run")
    assert sorted(read_results(tmp_path / "run")["key"].to_pylist()) == sorted(keys(PLAN.all_requests()))


async def test_changed_data_is_told(tmp_path: Path) -> None:
    """Resuming over an edited data set says so: changed samples have new keys."""
    await fill(tmp_path / "run", 3)
    async with RunDir.resume(tmp_path / "run", SmallPlan(10, data_hash="d1")) as run_dir:
        assert run_dir.messages == ["the data of questions changed since this run began (d0 -> d1): changed samples are new requests"]
        await run_dir.finish("interrupted")


async def test_parts_of_an_older_schema_are_migrated(tmp_path: Path) -> None:
    """One schema over all parts, whenever they were written: a scorer that came later is a column of nulls before."""
    await fill(tmp_path / "run", 14)
    plan = SmallPlan(10, scorers=["exact", "numeric"])
    async with RunDir.resume(tmp_path / "run", plan) as run_dir:
        assert pd.read_parquet(tmp_path / "run" / "results").score_numeric.isna().all()
        for request in run_dir.missing(plan.all_requests()):
            await run_dir.add(make_record(request))
        await run_dir.finish("complete")
    assert len(pd.read_parquet(tmp_path / "run" / "results")) == 20


async def test_no_secret_reaches_the_directory(tmp_path: Path) -> None:
    """Planted in config, command, answers, errors, raw bodies and data: no file holds it, and the manifest counts the rows."""
    canary = "sk-CANARY/0123456789+abc"
    redactor = Redactor([canary])
    about = About(run_id="r1", config_text=f"api_key: {canary}", command=["run", "--set", f"key={canary}"], description=canary)
    async with RunDir.create(tmp_path / "run", PLAN, about, redactor=redactor) as run_dir:
        await run_dir.add(make_record(make_request(0), completion=make_completion(f"it is {canary}")))
        await run_dir.add(make_record(make_request(1), outcome=Outcome.AUTH, error_message=f"bad key {canary}"))
        await run_dir.add(make_record(make_request(2)))
        assert canary.encode() not in b"".join(contents(tmp_path / "run").values())
        await run_dir.finish("interrupted", f"because of {canary}")
    everything = contents(tmp_path / "run") | {"table": repr(read_results(tmp_path / "run").to_pylist()).encode()}
    assert [name for name, data in everything.items() if b"CANARY" in data] == []
    assert read_manifest(tmp_path / "run")["redacted"] == 2


async def test_asking_for_a_column_that_does_not_exist(tmp_path: Path) -> None:
    """A mistyped column is an error, not a table without it."""
    await fill(tmp_path / "run", 3)
    with pytest.raises(StoreError, match="no column scor_exact"):
        read_results(tmp_path / "run", ["scor_exact"])


def test_a_million_answered_keys_fit_into_120_mb() -> None:
    """What a resume must remember is small."""
    known, number = KnownRows(), 50_000
    table = pa.table({"key": [f"{key:032x}" for key in range(number)], "outcome": ["ok"] * number})
    tracemalloc.start()
    known.scan(table, "results/part-00000.parquet")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / number < 120


def test_a_fresh_run_remembers_no_key() -> None:
    """Memory does not grow with the rows of a run."""
    known = KnownRows()
    tracemalloc.start()
    for key in range(10_000):
        known.add(str(key), "ok")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 10_000


@given(st.text(), st.text())
def test_any_name_makes_a_place_of_its_own_under_the_root(name: str, other: str) -> None:
    """Two names never share a directory, and none leads out of the root or into a device."""
    root = Path("/reports")
    path = run_path(root, name, "r1")
    assert path.parent.parent == root
    assert path.resolve().is_relative_to(root)
    assert (slug(name) == slug(other)) == (name == other)


@pytest.mark.parametrize("name", ["../x", "a/b", "CON", "con.txt", "x" * 300, "🎉", "-rf", ".", "..", "", "a b", "NUL", "é"])
def test_names_no_file_system_takes(name: str) -> None:
    """They get a readable place all the same."""
    assert slug(name) not in {name, "", ".", ".."}
    assert len(slug(name)) < 80
    assert not slug(name).startswith(("-", "."))


def test_usual_names_stay_as_they_are() -> None:
    """A slug is its own place, and run ids sort by time."""
    assert run_path(Path("reports"), "model-selection", "20261123T063627Z-3f9a01") == Path("reports/model-selection/20261123T063627Z-3f9a01")
    assert new_run_id(1_764_000_000_000_000).startswith("20251124T160000Z-")
    assert slug(new_run_id(0)).startswith("19700101T000000Z-")
    assert slug(new_run_id(0)).count("-") == 1
