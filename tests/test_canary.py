"""Keys planted wherever a run can meet them, and echoed by the server wherever it can: none is in anything that is written or printed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from urllib.parse import quote

from scripted_server import CLOSE, answer, chunk, completion, scripted, sse

KEY = "sk-CANARY/1key+0123456789"
HEADER = 'CANARY-2"header\\0123456789'
PROXY = "CANARY-3proxy%2F0123456789"
TOKEN = "CANARY-4token-0123456789"  # noqa: S105 - a canary
"""The environment has it, and no config names it."""
CORES = [b"1key+0123456789", b"2\\\\header", b'2"header', b"header\\\\0123456789", b"3proxy", b"4token"]
"""A part of each that survives escaping."""

CONFIG = """
name: canary
providers:
  far:
    kind: openai
    base_url: http://service.invalid/v1
    api_key: ${CANARY_API}
    limits: {concurrency: 2}
    options: {headers: {x-api-key: "${CANARY_HEADER}"}}
models: [{id: m, provider: far}]
stream: [true, false]
retry: {max_attempts: 2}
timeouts: {total: 5s, first_token: 5s, idle: 5s}
preflight: false
allow_unanswered: 1
prompt_sets:
  - name: s
    samples: [{q: answered}, {q: refused}, {q: broken}, {q: unreadable}, {q: failing}]
    prompts: {p: "{{ q }}"}
    target: x
    scorers: [exact, {"leaky:scorer": {key: "${CANARY_API}"}}]
"""

LEAKY = """
import os
def scorer(*, key):
    def score(request, completion):
        raise RuntimeError("the key is " + os.environ[key[2:-1]])
    return score
def load(path):
    raise KeyError("cannot log in with " + os.environ["CANARY_API"] + " and " + os.environ["CANARY_TOKEN"] + " at " + os.environ["http_proxy"])
"""


def echo(received):
    """All that came, in the forms in which servers say it back."""
    told = "; ".join(f"{name}: {value}" for name, value in received.headers.items() if "CANARY" in value or "auth" in name)
    forms = [told, quote(told), base64.b64encode(f"x{told}".encode()).decode(), json.dumps(told)]
    return " | ".join([*forms, received.headers["authorization"].removeprefix("Bearer "), received.headers["x-api-key"], PROXY])


def reply(received):
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert "CANARY" in received.headers["x-api-key"]
    assert "proxy-authorization" in received.headers
    said, question, stream = echo(received), received.json["messages"][0]["content"], received.json.get("stream")
    headers = {"x-request-id": KEY, "set-cookie": f"key={KEY}"}
    if question == "refused":
        return answer({"error": {"message": said, "code": KEY}}, 400, headers)
    if question == "failing":
        return answer(said.encode(), 500, headers)
    if question == "broken":
        return [*sse(chunk(said), end=False, done=False), CLOSE] if stream else [answer(completion(said))[0][:-9], CLOSE]
    if question == "unreadable":
        return sse(b"data: {" + said.encode() + b"\n\n") if stream else answer(b"{" + said.encode(), headers=headers)
    tokens = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    if stream:
        return sse(chunk(said[:20]), chunk(said[20:]), chunk(None, reasoning_content=said), chunk(finish_reason="stop"), chunk(usage=tokens))
    return answer(completion(said, reasoning_content=said, id=KEY), headers=headers)


async def test_no_planted_key_is_in_anything_written_or_printed(tmp_path):
    """Run, resume, show, report, exports, comparison, doctor, a traceback: not as it is, URL-encoded, escaped, or in base64."""
    (tmp_path / "canary.yaml").write_text(CONFIG)
    (tmp_path / "leaky.py").write_text(LEAKY)
    (tmp_path / "crash.yaml").write_text(
        CONFIG.replace("    samples: [{q: answered}, {q: refused}, {q: broken}, {q: unreadable}, {q: failing}]", '    data: d.leak\n    loader: "leaky:load"')
    )
    (tmp_path / "d.leak").write_text("")
    (tmp_path / "address.yaml").write_text(CONFIG.replace("service.invalid/v1", "service.invalid/v1?key=${CANARY_API}"))
    (tmp_path / "userinfo.yaml").write_text(CONFIG.replace("http://service", "http://me:${CANARY_API}@service"))
    printed = []
    async with scripted(reply, repeat=True) as proxy:
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environ |= {
            "CANARY_API": KEY,
            "CANARY_HEADER": HEADER,
            "CANARY_TOKEN": TOKEN,
            "PYTHONPATH": str(tmp_path),
            "http_proxy": f"http://me:{PROXY}@127.0.0.1:{proxy.port}",
        }

        async def evalrunner(*args, code=0):
            pipe = asyncio.subprocess.PIPE
            command = [sys.executable, "-m", "evalrunner", *args]
            child = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environ, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
            out, _ = await asyncio.wait_for(child.communicate(), 60)
            assert child.returncode == code, out.decode()
            printed.append(out)

        await evalrunner("run", "canary.yaml", "--out", "run")
        await evalrunner("resume", "run")
        await evalrunner("show", "run", "--json")
        await evalrunner("report", "run", "--out", "report.html")
        await evalrunner("export", "run", "--csv", "rows.csv", "--raw")
        await evalrunner("export", "run", "--jsonl", "rows.jsonl")
        await evalrunner("compare", "run", "run", "--junit", "junit.xml", "--markdown", "verdict.md", code=4)
        await evalrunner("doctor", "canary.yaml")
        await evalrunner("run", "crash.yaml", "--out", "crash", code=70)
        await evalrunner("run", "address.yaml", "--out", "no", code=2)
        await evalrunner("run", "userinfo.yaml", "--out", "no", code=2)
        asked = len(proxy.requests)
    assert b"Traceback" in b"".join(printed)
    assert asked > 10
    sources = {"leaky.py", "canary.yaml"}
    written = {
        path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name not in sources and path.suffix != ".pyc"
    }
    assert len(written) > 8
    rows = tables(tmp_path)
    everything = {**written, **{f"printed {number}": out for number, out in enumerate(printed)}, "tables": rows}
    assert {name: core for name, content in everything.items() for core in CORES if core in content} == {}
    assert rows.count(b"[secret]") > 20
    assert b"the scorer failed: RuntimeError: the key is [secret]" in rows


def tables(folder):
    """Every value of every Parquet file, and what is in base64 in them, as text."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - the test's own

    found = [str(row) for path in folder.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    raw = [row["raw"] for path in folder.glob("run/attempts/*.parquet") for row in pq.read_table(path).to_pylist() if row["raw"]]
    assert raw
    return "\n".join([*found, *(base64.b64decode(one).decode("utf-8", "replace") for one in raw)]).encode()
