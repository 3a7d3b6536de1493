"""Files that a command leaves behind: whole or not at all, never older than what they tell, and told in one line where they cannot be written."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crash_harness import FaultyFiles, Killed
from make_records import SmallPlan, make_record

from evalrunner.cli import main
from evalrunner.errors import RunError, StoreError
from evalrunner.records import Outcome
from evalrunner.results import make_report, open_run
from evalrunner.store.files import whole_file
from evalrunner.store.run_dir import About, RunDir

CONFIG = """
name: sums
providers: {simulator: {options: {brain: arithmetic, limits: false, latency: 0}}}
models: [{id: qwen-turbo, provider: simulator}]
prompt_sets:
  - {name: s, samples: [{id: a, q: 1 + 1, t: 2}, {id: b, q: 2 + 2, t: 4}], id: id, prompts: {p: "{{ q }} = ?"}, target: "{{ t }}", scorers: [numeric]}
"""
FEW_BYTES = 60_000
"""More than any part of a small run has, less than a report."""


def evalrunner(*args: Any, code: int, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    said = subprocess.run([sys.executable, "-m", "evalrunner", *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False, **more)
    assert said.returncode == code, said.stderr
    return said


def little_space() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FEW_BYTES, FEW_BYTES))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose report did not fit on the disk."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "sums.yaml").write_text(CONFIG.replace(", latency: 0", ""))
    said = evalrunner("run", "sums.yaml", "--out", "run", code=6, cwd=folder, preexec_fn=little_space)
    assert said.stderr.splitlines()[-1].endswith(
        "report.html: cannot be written (File too large); the rows are safe. Free some space or see to the disk, then: evalrunner report run"
    )
    assert "Traceback" not in said.stderr
    return folder / "run"


def test_a_report_that_does_not_fit_is_one_line_and_the_next_resume_makes_it(finished: Path) -> None:
    """Exit 6, no half report, nothing hidden left; `resume` has nothing to send and makes what is missing."""
    assert not [path.name for path in finished.iterdir() if "report" in path.name]
    assert open_run(finished).state == "complete"
    said = evalrunner("resume", "run", code=0, cwd=finished.parent)
    assert "nothing left to do" in said.stderr
    assert (finished / "report.html").read_text().endswith("</html>")


COMMANDS = {
    "report": ["report", "run", "--out"],
    "csv": ["export", "run", "--csv"],
    "jsonl": ["export", "run", "--jsonl"],
    "junit": ["compare", "run", "run", "--junit"],
    "markdown": ["compare", "run", "run", "--markdown"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_file_that_cannot_be_written_is_a_mistake_of_usage(
    finished: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the file, exit 2, no traceback."""
    monkeypatch.chdir(finished.parent)
    assert main([*command, "nowhere/file"]) == 2
    assert capsys.readouterr().err == f"evalrunner {command[0]}: nowhere/file: cannot be written (No such file or directory)\n"


def test_a_disk_that_fills_up_keeps_the_file_there_was(finished: Path) -> None:
    """An export that does not fit leaves the old one, and no piece of the new one."""
    folder = finished.parent
    (folder / "old.html").write_text("the old one")

    def space_for_nothing() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    evalrunner("export", "run", "--jsonl", "old.html", code=2, cwd=folder, preexec_fn=space_for_nothing)
    assert (folder / "old.html").read_text() == "the old one"
    assert {path.name for path in folder.iterdir()} == {"run", "sums.yaml", "old.html"}


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What a link leads to is replaced where it is, which may be another file system."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "far" / "real.csv")
    with whole_file(tmp_path / "link.csv") as hidden:
        assert hidden.parent == tmp_path / "far"
        hidden.write_text("new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "far" / "real.csv").read_text() == "new"


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, asyncio.CancelledError, ValueError])
def test_a_file_that_was_given_up_leaves_nothing(tmp_path: Path, stopped_by: type[BaseException]) -> None:
    """Ctrl-C, or a mistake, in the middle of a long export."""

    def export() -> None:
        with whole_file(tmp_path / "all.csv") as hidden:
            hidden.write_text("half")
            raise stopped_by

    with pytest.raises(stopped_by):
        export()
    assert not list(tmp_path.iterdir())


def test_a_device_is_written_to_as_it_is(finished: Path) -> None:
    """`--jsonl /dev/null` leaves the device where it is, and a full stdout is told."""
    evalrunner("export", "run", "--jsonl", "/dev/null", code=0, cwd=finished.parent)
    assert Path("/dev/null").is_char_device()
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(
            [sys.executable, "-m", "evalrunner", "export", "run", "--jsonl", "-"],
            cwd=finished.parent,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (said.returncode, said.stderr) == (2, "evalrunner export: stdout: cannot be written (No space left on device)\n")


def test_a_step_summary_that_cannot_be_written_loses_no_verdict(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is the comparison's; a line says what is missing."""
    monkeypatch.chdir(finished.parent)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/nowhere/summary.md")
    assert main(["compare", "run", "run", "--gate", "score_numeric max_drop=1"]) == 0
    assert "GITHUB_STEP_SUMMARY is left out: /nowhere/summary.md cannot be written" in capsys.readouterr().err


async def half(path: Path, rows: int = 5) -> SmallPlan:
    """An interrupted run with a report."""
    plan = SmallPlan(5)
    async with RunDir.create(path, plan, About(run_id="r1")) as run_dir:
        for request in list(plan.all_requests())[:rows]:
            await run_dir.add(make_record(request))
        await run_dir.finish("interrupted")
    make_report(path)
    return plan


async def test_a_report_of_fewer_rows_does_not_look_current(tmp_path: Path) -> None:
    """From its first new row on a resumed run has no report until it makes one; the earlier one is kept under another name."""
    run = tmp_path / "run"
    plan = await half(run)
    before = (run / "report.html").read_bytes()
    async with RunDir.resume(run, plan) as run_dir:
        assert (run / "report.html").read_bytes() == before
        await run_dir.add(make_record(next(run_dir.missing(plan.all_requests()))))
        assert not (run / "report.html").exists()
        assert (run / "report.old.html").read_bytes() == before
        make_report(run)
        await run_dir.add(make_record(next(run_dir.missing(plan.all_requests())), outcome=Outcome.TIMEOUT))
        assert (run / "report.html").exists(), "one that was made meanwhile stays"
        await run_dir.finish("interrupted")


async def test_whatever_breaks_while_it_is_made_the_old_report_stays_whole(tmp_path: Path) -> None:
    """Killed, an I/O error or a full disk at any operation: the old file or the new one, never a part, and after an error nothing beside it."""
    run = tmp_path / "run"
    await half(run)
    (run / "report.html").write_text("the old one")
    for how in ("killed", "eio", "full"):
        for at in range(1, 100):
            shutil.copytree(run, tmp_path / "copy")
            files = FaultyFiles(tmp_path, at, how)
            try:
                make_report(tmp_path / "copy", files=files)
            except (Killed, StoreError):
                text = (tmp_path / "copy" / "report.html").read_text()
                assert text == "the old one" or text.endswith("</html>")
                assert how == "killed" or not (tmp_path / "copy" / ".report.html.new").exists()
            shutil.rmtree(tmp_path / "copy")
            if files.operations < at:
                break
        assert 3 < at < 100


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from make_records import SmallPlan, make_record
from evalrunner.store.run_dir import About, RunDir

async def main():
    async with RunDir.create(Path(sys.argv[1]), SmallPlan(5), About(run_id="r1")) as run_dir:
        await run_dir.add(make_record(next(SmallPlan(5).all_requests())))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_show_tells_a_killed_run_from_one_that_goes_on(tmp_path: Path) -> None:
    """The manifest of both says running; only the lock knows. `show` says which, and how to go on."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, "run", cwd=tmp_path, env=environment)
    assert await child.wait() == -signal.SIGKILL
    shown = evalrunner("show", "run", code=0, cwd=tmp_path).stdout
    assert "The run is killed: 9 of 10 requests have no row." in shown
    assert "The run was killed; what was recorded is safe. Go on with: evalrunner resume run" in shown
    assert json.loads(evalrunner("show", "run", "--json", code=0, cwd=tmp_path).stdout)["run"]["state"] == "killed"
    async with RunDir.create(tmp_path / "live", SmallPlan(5), About(run_id="r1")) as live:
        await live.add(make_record(next(SmallPlan(5).all_requests())))
        assert "The run is running" in evalrunner("show", "live", code=0, cwd=tmp_path).stdout


def test_where_no_report_can_go(finished: Path) -> None:
    """Python callers get the same errors as the command line."""
    with pytest.raises(RunError, match="nowhere/file: cannot be written"):
        make_report(finished, "nowhere/file")
