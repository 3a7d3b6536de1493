"""Code execution in the manner of HumanEval (Chen et al. 2021, arXiv 2107.03374): the answer's program against tests from the data.

Nothing runs unless a config names this scorer, and then in a jail (see `isolation`).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import regex as re
from pydantic import Field

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.isolation import Limits, run, why_not

_PROGRAM = Path(__file__).with_name("program.py")
_PYTHON = frozenset({"", "python", "python3", "py"})


def code(
    *,
    tests: str = "test",
    prompt: str | None = "prompt",
    entry_point: str | None = "entry_point",
    seconds: Annotated[float, Field(gt=0)] = 10.0,
    memory_mb: Annotated[int, Field(gt=0)] = 1024,
    unsafe: bool = False,
) -> Scorer:
    """1 when the answer's Python passes the tests, else 0 with the line that failed.

    `tests`, `prompt`, `entry_point`: columns of the data, by default HumanEval's. Tests are text or a list of statements; where they define `check`, it is
    called with the function that `entry_point` names. An answer is the whole program (in a fence, or bare) or goes on where `prompt` stops. Raises
    ValueError where programs cannot be isolated, unless `unsafe` allows to run them all the same, with the user's own rights.
    """
    if (reason := why_not()) and not unsafe:
        raise ValueError(f"answers are not run here, because they cannot be isolated: {reason}; `unsafe: true` runs them without, with your rights and network")
    limits, script = Limits(seconds=seconds, memory_mb=memory_mb), _PROGRAM.read_text(encoding="utf-8")
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, "code")  # more at once would only time each other out

    def named(data: Mapping[str, Any]) -> str:
        return str(data.get(entry_point) or "") if entry_point else ""

    async def score(request: Request, completion: Completion) -> Score:
        data = request.sample.data
        name = named(data)
        word = secrets.token_hex(16)
        job = {
            "tests": _tests(data, tests, name),
            "candidates": programs(completion.output or "", str(data.get(prompt) or "") if prompt else "", name),
            "word": word,
        }
        ended = await asyncio.get_running_loop().run_in_executor(pool, lambda: run(script, json.dumps(job).encode(), limits, isolated=reason is None))
        return _score(ended.report, ended.killed, word)

    optional = [prompt if prompt != "prompt" else None, entry_point if entry_point != "entry_point" else None]  # HumanEval's may be missing
    return RowScorer(score, [tests, *optional], lambda data: _tests(data, tests, named(data)))


def programs(text: str, prompt: str, entry_point: str) -> list[str]:
    """What the answer may mean as a program, the likeliest first: the first that is Python counts."""
    answer = _chosen(text, entry_point)
    whole = textwrap.dedent(answer)
    if not prompt:
        return [whole]
    if _defines(whole, entry_point):
        return [f"{prompt}\n{whole}", whole]  # the prompt's imports and helpers; its own unfinished function is overridden
    body = re.match(r"[^\n]*\n?(?:[ \t]+[^\n]*\n?|[ \t]*\n)*", answer)  # what goes on at the margin is no part of the function
    rest = [answer, "    " + answer.lstrip(" "), "\n" + textwrap.indent(whole, "    "), body.group() if body else ""]
    return [prompt + one for one in rest]


def _chosen(text: str, entry_point: str) -> str:
    """The last code block that defines the function; else all blocks of Python; else the whole text."""
    blocks = _blocks(text)
    python = [block for label, block in blocks if label in _PYTHON] or [block for _, block in blocks]
    defining = [block for block in python if _defines(textwrap.dedent(block), entry_point)]
    return defining[-1] if defining else "\n".join(python) if python else text


def _blocks(text: str) -> list[tuple[str, str]]:
    """(label, content) of each fenced block; one that is not closed ends with the text."""
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
            if inside:
                found.append((line.strip("` \t").split(" ")[0].lower(), []))
        elif inside:
            found[-1][1].append(line)
    return [(label, "\n".join(lines) + "\n") for label, lines in found]


def _defines(text: str, name: str) -> bool:
    return re.search(rf"^(?:(?:async\s+)?def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*=", text, re.MULTILINE) is not None if name else False


def _tests(data: Mapping[str, Any], column: str, entry_point: str) -> str:
    written = data.get(column)
    text = "\n".join(map(str, written)) if isinstance(written, list) else written
    if not isinstance(text, str) or not text.strip():
        raise ScorerError(f"the sample has no tests: its column {column!r} should be text or a list of statements")
    if not re.search(r"^def check\(", text, re.MULTILINE):
        return text
    if not entry_point.isidentifier():
        raise ScorerError("the tests define check(…), but the sample does not name the function to check")
    return f"{text}\ncheck({entry_point})\n"


def _score(report: bytes, killed: str, word: str) -> Score:
    try:
        said = json.loads(report.partition(b"\n")[0])
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    if "broken" in said:
        raise ScorerError(str(said["broken"]))
    if said.get("passed") == word:
        return Score(value=1.0)
    return Score(value=0.0, why=killed or str(said.get("why") or "the program ended before its tests did")[:500])
