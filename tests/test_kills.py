"""kill -9 at every file operation of a real run against a real server: nothing recorded is lost or bought again, and what may be is counted and told.

pytest tests/test_kills.py -m long -s      every operation, of a run and of a resume: some minutes
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pandas as pd
import pytest
from scripted_server import answer, completion, scripted

from evalrunner.results import open_run
from evalrunner.store.run_dir import read_attempts, read_results

CONCURRENCY = 4
REQUESTS = 200


class Proof:
    """A server that counts, a config of so many requests, and a process that runs sessions and kills them."""

    def __init__(self, folder, server, driver, asked):
        self.folder, self.server, self.driver, self.asked = folder, server, driver, asked
        self.worst = self.kills = 0
        self.undisturbed = {}
        self.config = folder / "config.yaml"
        samples = [{"q": f"question {number}"} for number in range(REQUESTS)]
        self.config.write_text(
            json.dumps(
                {
                    "name": "kills",
                    "providers": {"mine": {"kind": "openai", "base_url": server.url, "limits": {"concurrency": CONCURRENCY}}},
                    "models": [{"id": "m", "provider": "mine"}],
                    "stream": False,
                    "preflight": False,
                    "prompt_sets": [{"name": "s", "samples": samples, "prompts": {"p": "{{ q }}"}, "target": "{{ q }}", "scorers": ["exact"]}],
                }
            )
        )

    async def session(self, out, at, **more):
        """From start or resume to the end, or to the kill; returns the exit code (-9: killed)."""
        told = json.dumps({"config": str(self.config), "out": str(out), "at": at, **more})
        self.driver.stdin.write(told.encode() + b"\n")
        return int(await asyncio.wait_for(self.driver.stdout.readline(), 60))

    async def killed_and_resumed(self, out, at):
        """Whether the session came to its end before operation `at`; if not, it is resumed and everything that was promised is checked."""
        recorded = rows(out)
        self.asked.clear()
        if await self.session(out, at) != -9:
            return True
        self.kills += 1
        kept = rows(out)
        assert recorded.keys() <= kept.keys(), f"killed at {at}: lost what an earlier session had"
        assert all(kept[key] == self.undisturbed[key] for key in kept), f"killed at {at}"
        assert await self.session(out, 0) == 0
        made = open_run(out)
        assert rows(out) == self.undisturbed, f"killed at {at}"
        assert len(pd.read_parquet(out / "results")) == REQUESTS, f"killed at {at}"
        twice = sum(self.asked.values()) - (REQUESTS - len(recorded))
        assert 0 <= twice <= CONCURRENCY, f"killed at {at}: {twice} bought again"
        if kept or made.manifest["resumes"]:  # a run that was killed as it closed has nothing to resume, and nothing to tell
            told = [one.get("in_flight", 0) for one in made.manifest["resumes"][-1:]]
            assert sum(told) >= twice, f"killed at {at}: {twice} bought again, not all of them told"
        self.worst = max(self.worst, twice)
        return False


def rows(out):
    """What can be read of each request, by its key: the row and its attempts, but for the run's id and what a clock said."""
    if not (out / "manifest.json").exists():
        return {}
    found = {row["key"]: timeless(row) for row in read_results(out).to_pylist()}
    assert len(found) == read_results(out, ["key"]).num_rows
    attempts = {row["key"]: timeless(row) for row in read_attempts(out).to_pylist()}
    assert len(attempts) == read_attempts(out, ["key"]).num_rows == len(found)
    return {key: (row, attempts[key]) for key, row in found.items()}


def timeless(row):
    return {name: value for name, value in row.items() if name != "run_id" and not name.endswith(("_at", "_ms"))}


@asynccontextmanager
async def proof(folder):
    asked = Counter()

    def reply(received):
        question = received.json["messages"][0]["content"]
        asked[question] += 1
        return answer(completion(question))

    here = Path(__file__).parent
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    pipe = asyncio.subprocess.PIPE
    async with scripted(reply, repeat=True) as server:
        driver = await asyncio.create_subprocess_exec(sys.executable, str(here / "kill_driver.py"), stdin=pipe, stdout=pipe, env=environ)
        try:
            one = Proof(folder, server, driver, asked)
            assert await one.session(folder / "undisturbed", 0) == 0
            one.undisturbed = rows(folder / "undisturbed")
            assert sorted(row["output"] for row, _ in one.undisturbed.values()) == sorted(f"question {number}" for number in range(REQUESTS))
            yield one
        finally:
            driver.stdin.close()
            await driver.wait()


async def in_a_run(tmp_path, steps):
    """Kill a run at these operations, each in a fresh directory."""
    async with proof(tmp_path) as one:
        for at in steps:
            done = await one.killed_and_resumed(tmp_path / "run", at)
            shutil.rmtree(tmp_path / "run")
            if done:
                break
        return one


async def in_a_resume(tmp_path, steps):
    """Kill a run in its middle once, and then a resume of that at these operations, each on a copy."""
    async with proof(tmp_path) as one:
        assert await one.session(tmp_path / "half", 130) == -9
        for at in steps:
            shutil.copytree(tmp_path / "half", tmp_path / "run")
            done = await one.killed_and_resumed(tmp_path / "run", at)
            shutil.rmtree(tmp_path / "run")
            if done:
                break
        return one


async def test_a_run_that_is_killed_anywhere_loses_nothing(tmp_path):
    """A sample of the operations of a run of 200 requests."""
    one = await in_a_run(tmp_path, range(7, 1000, 61))
    assert one.kills > 3


async def test_a_resume_that_is_killed_anywhere_loses_nothing(tmp_path):
    """A sample of the operations of its resume."""
    one = await in_a_resume(tmp_path, range(5, 1000, 53))
    assert one.kills > 2


async def test_a_kill_while_the_report_is_made_leaves_no_report_or_a_whole_one(tmp_path):
    """The rows are complete by then; the next resume, which has nothing to send, makes the report."""
    async with proof(tmp_path) as one:
        for at in range(1, 100):
            out = tmp_path / f"{at}"
            code = await one.session(out, 0, report=at)
            assert open_run(out).state == "complete"
            assert not (out / "report.html").exists() or (out / "report.html").read_text().endswith("</html>")
            if code == 0:
                break
            assert code == -9
            one.asked.clear()
            assert await one.session(out, 0, report=0) == 0
            assert not one.asked
            assert (out / "report.html").stat().st_size > 10_000
        assert 3 < at < 100


@pytest.mark.long
@pytest.mark.parametrize("where", [in_a_run, in_a_resume])
async def test_every_operation(tmp_path, where):
    """Every one of them."""
    one = await where(tmp_path, range(1, 10_000))
    print(f"\n{where.__name__}: killed at {one.kills} operations, 0 answers lost, at most {one.worst} of {REQUESTS} bought again (concurrency {CONCURRENCY})")  # noqa: T201 - the figure is what it is run for
    assert one.kills > 100
