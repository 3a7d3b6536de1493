"""Shells allow few open files, and every request in flight is one: a run takes what the system lets it, and refuses the rest before anything is sent."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any

from scripted_server import Received, answer, completion, scripted

from evalrunner.results import open_run

FEW = 64


async def run_with(folder: Path, concurrency: int, limits: tuple[int, int]) -> tuple[int, str, int]:
    """A run in a child with this soft and hard limit, of twice as many requests as may be in flight, none of which is answered before so many are there.

    Returns exit code, stderr, and the number of requests that came.
    """
    together = asyncio.Event()

    def reply(_received: Received) -> Any:
        if len(server.requests) >= concurrency:
            together.set()
        return [together, *answer(completion())]

    async with scripted(reply, repeat=True) as server:
        provider = {"kind": "openai", "base_url": server.url, "limits": {"concurrency": concurrency}}
        prompt_set = {"name": "s", "samples": [{"q": str(at)} for at in range(2 * concurrency)], "prompts": {"p": "{{ q }}"}}
        config = {"name": "files", "providers": {"mine": provider}, "models": [{"id": "m", "provider": "mine"}], "stream": False, "preflight": False}
        (folder / "files.yaml").write_text(json.dumps(config | {"prompt_sets": [prompt_set]}))
        command = (sys.executable, "-m", "evalrunner", "run", "files.yaml", "--out", "run")
        child = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, preexec_fn=lambda: _limit(limits)
        )
        _, errors = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode is not None
    return child.returncode, errors.decode(), len(server.requests)


def _limit(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_low_soft_limit_is_raised(tmp_path: Path) -> None:
    """`ulimit -Sn 64` and 100 requests at a time: all 100 are in flight together."""
    code, said, sent = await run_with(tmp_path, 100, (FEW, 1000))
    assert (code, sent) == (0, 200), said


async def test_what_the_system_does_not_allow_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """`ulimit -n 64` and 100 at a time: one line with the numbers and what to do, exit 2, nothing sent and no directory left."""
    code, said, sent = await run_with(tmp_path, 100, (FEW, FEW))
    assert (code, sent) == (2, 0)
    assert "allows this process 64 open files, and 100 connections at a time need about 132" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


async def test_few_files_are_enough_for_few_requests(tmp_path: Path) -> None:
    """As many requests at a time as 64 open files are said to allow, and the report, are made with them."""
    code, said, sent = await run_with(tmp_path, 32, (FEW, FEW))
    assert (code, sent) == (0, 64), said
    assert set(open_run(tmp_path / "run").results()["outcome"]) == {"ok"}
    assert (tmp_path / "run" / "report.html").exists()
