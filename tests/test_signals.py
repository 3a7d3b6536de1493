"""Ctrl-C, SIGTERM and a lost terminal, on real processes: what is in flight is waited for, not for ever, and everything recorded is kept."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import asynccontextmanager

import pytest
import yaml
from scripted_server import HANG, answer, completion, scripted

from evalrunner.results import open_run

CONFIG = """
name: slow
providers:
  mine: {{kind: openai, base_url: "{url}", api_key: "${{SLOW_KEY}}", limits: {{concurrency: 4}}}}
models: [{{id: m, provider: mine}}]
stream: false
trials: 12
preflight: {preflight}
prompt_sets:
  - {{name: s, samples: [{{q: one}}], prompts: {{p: "{{{{ q }}}}"}}}}
"""
QUICK = answer(completion())


class Process:
    """The command line as a child, its stderr as it comes."""

    def __init__(self, child):
        self.child = child
        self.said = ""

    async def says(self, words):
        async with asyncio.timeout(30):
            while words not in self.said:
                line = await self.child.stderr.readline()
                assert line, f"it ended without saying {words!r}: {self.said}"
                self.said += line.decode()

    async def sent(self, server, count):
        """Return when the server has so many requests; a process that ended before it sent them is a failure, not a wait."""
        arrived, ended = asyncio.create_task(server.received(count)), asyncio.create_task(self.child.wait())
        await asyncio.wait([arrived, ended], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        assert arrived.done(), f"{len(server.requests)} of {count} requests came"

    async def ended(self, within):
        began = time.monotonic()
        code = await asyncio.wait_for(self.child.wait(), within + 10)
        assert time.monotonic() - began < within
        self.said += (await self.child.stderr.read()).decode()
        return code


def as_from_a_terminal():
    """These tests may run under nohup, whose children ignore SIGHUP on purpose."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@asynccontextmanager
async def started(folder, *args, before=as_from_a_terminal):
    environ = os.environ | {"SLOW_KEY": "sk-1234567890abcdef"}
    command = [sys.executable, "-m", "evalrunner", *args]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=pipe, preexec_fn=before)
    try:
        yield Process(child)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        child._transport.close()


def config(folder, server, preflight="false"):
    (folder / "slow.yaml").write_text(CONFIG.format(url=server.url, preflight=preflight))
    return "slow.yaml", "--out", "run"


class Ill:
    """Answers two requests, then hangs until it is `well`."""

    def __init__(self):
        self.seen = 0
        self.well = False

    def __call__(self, received):
        self.seen += 1
        return QUICK if self.well or self.seen <= 2 else [HANG]


async def completed(folder):
    async with started(folder, "resume", "run") as process:
        assert await process.ended(30) == 0
    return len(open_run(folder / "run").results())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
async def test_a_signal_drains(tmp_path, number, code):
    """Nothing is sent after it, what was in flight is answered and kept, and the last line says how to go on."""
    released = asyncio.Event()
    async with scripted(QUICK, QUICK, [released, *QUICK], repeat=True) as server, started(tmp_path, "run", *config(tmp_path, server)) as process:
        await process.sent(server, 6)
        process.child.send_signal(number)
        await process.says("Stopping: nothing more is sent")
        released.set()
        assert await process.ended(15) == code
        assert "evalrunner resume run" in process.said
        assert len(server.requests) == 6
    run = open_run(tmp_path / "run")
    assert list(run.results()["outcome"]) == ["ok"] * 6
    assert (run.manifest["state"], run.manifest["reason"]) == ("interrupted", "interrupted" if code == 130 else "terminated")


async def test_what_is_not_answered_within_the_grace_is_dropped_and_asked_again(tmp_path):
    """A server that hangs holds nobody: after `--grace` the run ends, and `resume` buys nothing twice."""
    ill = Ill()
    async with scripted(ill, repeat=True) as server:
        async with started(tmp_path, "run", *config(tmp_path, server), "--grace", "0.2") as process:
            await process.sent(server, 6)
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended(8) == 143
            assert "what is still in flight is dropped" in process.said
        assert len(open_run(tmp_path / "run").results()) == 2
        ill.well = True
        assert await completed(tmp_path) == 12
        assert len(server.requests) == 6 + 10


async def test_twice_leaves_at_once_with_everything_recorded(tmp_path):
    """Ctrl-C twice ends the process in less than a second; what was recorded is read, and the rest is asked by `resume`."""
    ill = Ill()
    async with scripted(ill, repeat=True) as server:
        async with started(tmp_path, "run", *config(tmp_path, server)) as process:
            await process.sent(server, 6)
            process.child.send_signal(signal.SIGINT)
            await process.says("Once more to leave at once")
            process.child.send_signal(signal.SIGINT)
            assert await process.ended(1) == 130
        assert len(open_run(tmp_path / "run").results()) == 2
        ill.well = True
        assert await completed(tmp_path) == 12
        assert len(server.requests) == 6 + 10


async def test_a_check_that_hangs_can_be_left(tmp_path):
    """Before the first request there is nothing to wait for: the run ends at once and leaves no directory."""
    async with scripted([HANG], repeat=True) as server, started(tmp_path, "run", *config(tmp_path, server, "true")) as process:
        await process.sent(server, 1)
        process.child.send_signal(signal.SIGINT)
        assert await process.ended(5) == 130
        assert "stopped before anything was sent" in process.said
    assert not (tmp_path / "run").exists()


SLOW = """
import asyncio, time
from evalrunner import Completion, Timing
from pathlib import Path

def rows(path):
    for number in range(1, 4):
        Path("reading").touch()
        time.sleep(60)
        yield number, {"q": "one"}

class Blocking:
    async def complete(self, request):
        Path("asked").touch()
        time.sleep(60)

    async def aclose(self):
        pass

def client(account, clock):
    return Blocking()
"""


def blocked(folder, **changes):
    (folder / "slow_parts.py").write_text(SLOW)
    (folder / "rows.txt").write_text("")
    config = {
        "name": "slow",
        "providers": {"mine": {"kind": "slow_parts:client"}},
        "models": [{"id": "m", "provider": "mine"}],
        "preflight": False,
        "prompt_sets": [{"name": "s", "prompts": {"p": "{{ q }}"}, **changes}],
    }
    (folder / "slow.yaml").write_text(yaml.safe_dump(config))
    return "run", "slow.yaml", "--out", "run"


async def exists(path):
    for _ in range(600):
        if path.exists():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path} never came")


SCORING = """
import time
from pathlib import Path
from evalrunner import Score

def slow():
    def score(request, completion):
        while not Path("well").exists():
            time.sleep(0.05)
        return Score(value=1.0)
    return score
"""


async def test_an_answer_that_waits_for_a_slow_scorer_is_kept(tmp_path):
    """After `--grace` scorers are left, too: what was paid for has its row, says that its score is to come, and gets it from `resume`."""
    (tmp_path / "scoring_parts.py").write_text(SCORING)
    async with scripted(QUICK, repeat=True) as server:
        args = config(tmp_path, server)
        text = (tmp_path / "slow.yaml").read_text()
        (tmp_path / "slow.yaml").write_text(text.replace('"}}', '"}, scorers: ["scoring_parts:slow"]}'))
        async with started(tmp_path, "run", *args, "--grace", "0.2") as process:
            await process.sent(server, 6)
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended(15) == 143
        bought = len(server.requests)
        kept = open_run(tmp_path / "run").results()
        assert len(kept) == bought < 12
        assert kept["score_slow_why"].str.startswith("still to come").all()
        (tmp_path / "well").touch()
        assert await completed(tmp_path) == len(server.requests) == 12
    assert (open_run(tmp_path / "run").results()["score_slow"] == 1.0).all()


async def test_a_validation_can_be_left(tmp_path):
    """While rows are read nothing is sent and nothing recorded: one Ctrl-C ends it at once."""
    async with started(tmp_path, *blocked(tmp_path, data="rows.txt", loader="slow_parts:rows")) as process:
        await exists(tmp_path / "reading")
        process.child.send_signal(signal.SIGINT)
        assert await process.ended(5) == 130
        assert "stopped before anything was sent" in process.said
    assert not (tmp_path / "run").exists()


async def test_twice_leaves_at_once_whatever_the_program_does(tmp_path):
    """A plug-in that blocks the whole program does not keep anybody: the second Ctrl-C ends it in less than a second, and the run can be resumed."""
    async with started(tmp_path, *blocked(tmp_path, samples=[{"q": "one"}])) as process:
        await exists(tmp_path / "asked")
        process.child.send_signal(signal.SIGINT)
        await process.says("Once more to leave at once")
        process.child.send_signal(signal.SIGINT)
        assert await process.ended(1) == 130
    assert open_run(tmp_path / "run").manifest["state"] == "running"
    assert len(open_run(tmp_path / "run").results()) == 0


async def test_a_run_whose_terminal_is_gone_still_ends_in_good_order(tmp_path):
    """SIGHUP comes with a closed terminal: nothing can be said any more, and the rows are kept all the same."""
    released = asyncio.Event()
    async with scripted(QUICK, QUICK, [released, *QUICK], repeat=True) as server, started(tmp_path, "run", *config(tmp_path, server)) as process:
        await process.sent(server, 6)
        process.child._transport.get_pipe_transport(2).close()
        process.child.send_signal(signal.SIGHUP)
        released.set()
        assert await asyncio.wait_for(process.child.wait(), 20) == 143
    assert open_run(tmp_path / "run").manifest["state"] == "interrupted"


async def test_nohup_is_obeyed(tmp_path):
    """A signal that is ignored when the run starts stays ignored: logging out does not end a night's work."""
    released = asyncio.Event()

    def nohup():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async with (
        scripted(QUICK, QUICK, [released, *QUICK], repeat=True) as server,
        started(tmp_path, "run", *config(tmp_path, server), before=nohup) as process,
    ):
        await process.sent(server, 6)
        process.child.send_signal(signal.SIGHUP)
        released.set()
        assert await process.ended(15) == 0
    assert len(open_run(tmp_path / "run").results()) == 12


WAITS = """
import asyncio, pathlib
from evalrunner import Score
def when_there():
    async def score(request, completion):
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.01)
        return Score(value=1.0)
    return score
"""


async def test_an_answer_that_waits_for_its_score_survives_a_kill(tmp_path):
    """kill -9 while more answers wait for a scorer than there are slots: `resume` asks for none of them again, and scores them."""
    (tmp_path / "waits.py").write_text(WAITS)
    async with scripted(QUICK, repeat=True) as server:
        name, *out = config(tmp_path, server)
        written = yaml.safe_load((tmp_path / name).read_text())
        written["prompt_sets"][0]["scorers"] = ["waits:when_there"]
        (tmp_path / name).write_text(yaml.safe_dump(written))
        async with started(tmp_path, "run", name, *out) as process:
            await process.sent(server, 8)
            journal = tmp_path / "run" / "journal"
            async with asyncio.timeout(30):
                while sum(path.read_bytes().count(b'"answer":{') for path in journal.glob("*")) < 8:  # noqa: ASYNC110 - the file is what counts
                    await asyncio.sleep(0.01)
            process.child.kill()
        (tmp_path / "go").touch()
        assert await completed(tmp_path) == 12
        assert len(server.requests) == 12
    assert set(open_run(tmp_path / "run").results()["score_when_there"]) == {1.0}
