"""Runs the program in processes that kill themselves with SIGKILL at their n-th file operation. One line of JSON in, one exit status out, until stdin ends.

    {"config": PATH, "out": DIR, "at": N}     a run where there is none in DIR yet, else a resume; N = 0: not killed
    … "report": N                             makes the report, too, and kills itself at its N-th operation; without it none is made, which saves the time
    -9 | exit code

Each session is a process of its own, forked from this one, so that it starts in no time. A write that is killed has written half.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from crash_harness import FaultyFiles

from evalrunner import pipeline
from evalrunner.errors import RunError
from evalrunner.loop import new_loop
from evalrunner.plan.config import load_config
from evalrunner.store.run_dir import Settings


class KillingFiles(FaultyFiles):
    """Ends the process at operation `at`, or at operation `report` of those that write the report; nothing of ours runs after it."""

    def __init__(self, root: Path, at: int, report: int = 0) -> None:
        super().__init__(root, at)
        self._report = report

    def open(self, path: Path, flags: int) -> int:
        if self._report and path.name == ".report.html.new":
            self.operations, self._at, self._report = 0, self._report, 0
        return super().open(path, flags)

    def write(self, fd: int, data: bytes) -> None:
        if self.operations + 1 == self._at:
            os.write(fd, data[: len(data) // 2])
        super().write(fd, data)

    def _step(self, *, writes: bool = False) -> None:
        self.operations += 1
        if self.operations == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def session(told: dict[str, Any]) -> int:
    out = Path(told["out"])
    settings = Settings(segment_rows=told.get("segment_rows", 40), files=KillingFiles(out, told["at"], told.get("report", 0)))
    if "report" not in told:
        pipeline.make_report = lambda *_args, **_options: None  # type: ignore[assignment]
    watch = pipeline.Watch(say=lambda _line: None, store=settings)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        if (out / "manifest.json").exists():
            return runner.run(pipeline.resume(out, watch)).exit_code
        return runner.run(pipeline.run(load_config(told["config"]), out, watch)).exit_code


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                code = session(json.loads(line))
            except RunError as error:
                sys.stderr.write(f"{error}\n")
                code = error.exit_code
            except BaseException as error:  # noqa: BLE001 - the parent must hear of it
                sys.stderr.write(f"{error!r}\n")
                code = 99
            os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
