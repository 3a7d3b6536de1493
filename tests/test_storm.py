"""A storm: 10,000 requests, a third of first attempts failing in ten ways, and two kill -9 on the way. The table is the oracle's all the same.

pytest tests/test_storm.py -m long -s
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from contextlib import asynccontextmanager

import pytest
from oracle import Reply, expected

from evalrunner.results import open_run

REQUESTS = 10_000
THIRD = 1 - (2 / 3) ** 0.1
"""The share of each of ten faults, so that a third of the requests meets one."""
FAULTS = [
    {"kind": "error", "status": 500},
    {"kind": "error", "status": 503},
    {"kind": "body_error"},
    {"kind": "stream_error", "after": 1},
    {"kind": "disconnect"},
    {"kind": "disconnect", "after": 1},
    {"kind": "cut", "after": 1},
    {"kind": "invalid_json"},
    {"kind": "empty"},
    {"kind": "hang"},
    {"kind": "error", "code": "limit_requests", "retry_after": 1, "share": 0.001},  # more would be a limit, and be kept to
]
CONFIG = """
name: storm
providers: {{mine: {{kind: openai, base_url: "{url}/compatible-mode/v1", api_key: "${{STORM_KEY}}", limits: {{concurrency: 64}}}}}}
models: [{{id: qwen-turbo, provider: mine}}]
stream: true
timeouts: {{first_token: 4s}}
preflight: false
prompt_sets:
  - {{name: s, data: data.jsonl, id: id, prompts: {{p: "What is {{{{ a }}}} + {{{{ b }}}}?"}}, target: "{{{{ a + b }}}}", scorers: [numeric]}}
"""


@asynccontextmanager
async def started(folder, *args):
    log = (folder / "log.txt").open("ab")
    environ = os.environ | {"STORM_KEY": "sk-0123456789abcdef"}
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "evalrunner", *args, cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        log.close()


def asked(url):
    """How many answers the simulator has made, those that it then cut or lost included."""
    with urllib.request.urlopen(f"{url}/simulator/stats", timeout=30) as stats:  # noqa: S310 - our own server
        told = json.load(stats)
    return sum([*told["right"].values(), *told["wrong"].values()])


@pytest.mark.long
async def test_a_storm_and_two_kills_change_nothing_but_the_bill(tmp_path):
    """Every request has its right answer, once; what failed on the way failed in the ways of the script and is in the attempts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{(port := probe.getsockname()[1])}"
    faults = [{"share": THIRD, "attempts": 1, **fault} for fault in FAULTS]
    (tmp_path / "simulator.json").write_text(json.dumps({"faults": faults, "limits": False, "seed": 7, "brain": "arithmetic"}))
    (tmp_path / "config.yaml").write_text(CONFIG.format(url=url))
    (tmp_path / "data.jsonl").write_text("".join(f'{{"id": "q{number}", "a": {number}, "b": {3 * number}}}\n' for number in range(REQUESTS)))
    began = time.monotonic()
    async with started(tmp_path, "simulate", "--port", str(port), "--options", "simulator.json"):
        for _ in range(200):
            try:
                asked(url)
                break
            except OSError:
                await asyncio.sleep(0.1)
        for session, until in ((("run", "config.yaml", "--out", "run"), REQUESTS // 3), (("resume", "run"), 2 * REQUESTS // 3)):
            async with started(tmp_path, *session) as child:
                while await asyncio.to_thread(asked, url) < until:
                    assert child.returncode is None, (tmp_path / "log.txt").read_text()[-2000:]
                    await asyncio.sleep(0.2)
                child.send_signal(signal.SIGKILL)
        async with started(tmp_path, "resume", "run") as child:
            assert await asyncio.wait_for(child.wait(), 900) == 0
        bought = await asyncio.to_thread(asked, url)
    made = open_run(tmp_path / "run")
    rows = made.results()
    outputs = {row.sample_id: (row.outcome, row.output) for row in rows.itertuples()}
    script = {f"q{number}": [Reply(None, "ok", "never", output=str(4 * number))] for number in range(REQUESTS)}
    assert len(rows) == REQUESTS
    assert outputs == {question: (row.outcome, row.output) for question, row in expected(script, sessions=1, max_attempts=6, target="").items()}
    assert (rows["score_numeric"] == 1).all()
    tries = made.attempts()
    failed = tries[tries["outcome"] != "ok"].groupby("key").size()
    kinds = tries["outcome"].value_counts().to_dict()
    assert 0.25 < len(failed) / REQUESTS < 0.40
    in_flight = [session["in_flight"] for session in made.manifest["resumes"]]
    print(  # noqa: T201 - the figures are what it is run for
        f"\n{REQUESTS:,} requests in {time.monotonic() - began:.0f} s; first attempts failed: {len(failed):,}; attempts by outcome: {kinds}; "
        f"in flight at the kills: {in_flight}; answers made: {bought:,}"
    )
    assert bought - len(tries) <= sum(in_flight)
