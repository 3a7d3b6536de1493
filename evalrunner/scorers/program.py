"""Runs an answer's code against its tests. Started by `jail`, as a script that imports nothing of ours; reads one job from stdin, writes one report.

The report of success is a word that the program cannot know by accident: leaving early is no success. The answer shares a process with its tests, as in
HumanEval: one that goes looking for that word can find it.
"""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any


def carry_out(job: dict[str, Any]) -> dict[str, str]:
    """`{"passed": word}`, `{"why": …}` for an answer that fails, or `{"broken": …}` for tests that are no Python."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        tests = compile(job["tests"], "tests", "exec")
    except (SyntaxError, ValueError) as error:
        return {"broken": f"the tests are not Python: {error}"}
    answer, mistake = _first_that_compiles(job["candidates"])
    if answer is None:
        return {"why": f"the answer is not Python: {mistake}"}
    try:
        exec(compile(answer, "answer", "exec"), module.__dict__)  # noqa: S102 - this is what the process is for
        exec(tests, module.__dict__)  # noqa: S102
    except BaseException as error:  # noqa: BLE001 - whatever an answer raises, SystemExit as well
        return {"why": _told(error, {"tests": job["tests"], "answer": answer})}
    return {"passed": job["word"]}


def _first_that_compiles(candidates: list[str]) -> tuple[str | None, str]:
    mistake = "it is empty"
    for number, text in enumerate(candidates):
        try:
            compile(text, "answer", "exec")
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            mistake = mistake if number else f"{error} in {_line(error, text)!r}"
        else:
            return text, ""
    return None, mistake


def _line(error: BaseException, text: str) -> str:
    number = getattr(error, "lineno", None) or 1
    return (text.splitlines() or [""])[min(number, len(text.splitlines()) or 1) - 1].strip()


def _told(error: BaseException, sources: dict[str, str]) -> str:
    """The line of the tests, else of the answer, that raised, and what it raised."""
    lines: dict[str, int] = {}
    trace = error.__traceback__
    while trace is not None:
        lines[trace.tb_frame.f_code.co_filename] = trace.tb_lineno
        trace = trace.tb_next
    where = "tests" if "tests" in lines else "answer"
    line = sources[where].splitlines()[lines[where] - 1].strip() if where in lines else ""
    try:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # noqa: BLE001 - an exception that cannot be shown
        said = type(error).__name__
    return said if not line else f"{line} → {said}" if where == "tests" else f"{said} in {line!r}"


def main() -> None:
    job = json.load(sys.stdin)
    report, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    sys.setrecursionlimit(5000)
    text = json.dumps(carry_out(job))
    os.write(report, text.encode()[:16_000] + b"\n")
    os._exit(0)  # threads and atexit functions of the answer are nobody's business any more


if __name__ == "__main__":
    main()
