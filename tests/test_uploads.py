"""Documents for qwen-long: uploaded once, named in the conversation."""

import asyncio
import json

import pytest
from scripted_server import RST, answer, chunked, completion, scripted
from simulated import simulated
from test_dashscope_client import ask, request

from evalrunner.clients import on_aiohttp
from evalrunner.clients.dashscope import dashscope_client
from evalrunner.clients.openai import openai_client
from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.errors import BadOutputError, DeadlineError, RateLimitedError, ServerError, TransportError
from evalrunner.pipeline import run
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.plugins import Account
from evalrunner.records import Timeouts

STUDY = """\
name: read
models: [{id: qwen-long, provider: simulator}]
providers: {simulator: {options: {dialect: DIALECT, limits: false}}}
prompt_sets:
  - name: documents
    data: rows.jsonl
    prompts:
      plain:
        - {role: system, content: "Be brief."}
        - {role: user, content: [{file: "{{ document }}"}, {text: "{{ question }}"}]}
"""
UPLOADED = answer({"id": "file-fe-1", "object": "file", "status": "processed"})


@pytest.fixture
def study(tmp_path):
    (tmp_path / "report.txt").write_text("The cat is grey. " * 200)
    rows = [{"document": "report.txt", "question": f"What is {n} + {n}?"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def planned(dialect="openai"):
        (tmp_path / "study.yaml").write_text(STUDY.replace("DIALECT", dialect))
        return load_config(tmp_path / "study.yaml")

    return planned


@pytest.fixture
def asked(study):
    plan = make_plan(study())
    return next(plan.requests(plan.models[0]))


def client(url, factory=openai_client, **fields):
    kind = "dashscope" if factory is dashscope_client else "simulator"
    return factory(Account(name="p", kind=kind, base_url=url, api_key="sk-1", **{"timeouts": Timeouts(total=5.0)} | fields), SYSTEM_CLOCK)


async def test_a_file_is_uploaded_once(asked):
    """However many requests name it; the conversation names its id behind the role, and the text stays a string."""
    async with scripted(UPLOADED, answer(completion("4")), answer(completion("4"))) as server:
        base = server.url.removesuffix("/v1") + "/compatible-mode/v1"
        one = client(base)
        for _ in range(2):
            assert (await one.complete(asked)).output == "4"
        await one.aclose()
    upload, first, second = server.requests
    assert (upload.path, upload.headers["authorization"]) == ("/compatible-mode/v1/files", "Bearer sk-1")
    assert b'name="purpose"\r\n\r\nfile-extract\r\n' in upload.body
    assert b'filename="report.txt"' in upload.body
    assert b"The cat is grey." in upload.body
    assert first.json["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "fileid://file-fe-1"},
        {"role": "user", "content": "What is 0 + 0?"},
    ]
    assert second.path == "/compatible-mode/v1/chat/completions"


async def test_natively_too(asked):
    """The native dialect has no upload of its own: the file goes the same way, the question natively."""
    done = {"output": {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}, "request_id": "1"}
    async with scripted(UPLOADED, answer(done)) as server:
        one = client(server.url.removesuffix("/v1") + "/api/v1", dashscope_client)
        await one.complete(asked)
        await one.aclose()
    assert [request.path for request in server.requests] == ["/compatible-mode/v1/files", "/api/v1/services/aigc/text-generation/generation"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer({"error": {"code": "limit_requests", "message": "slow down"}}, status=429), RateLimitedError),
        (answer({"error": {"message": "no"}}, status=500), ServerError),
        (answer({"object": "file"}), BadOutputError),
        ([RST], TransportError),
    ],
)
async def test_an_upload_that_fails(asked, said, kind):
    """It fails the request with its class, so that it is tried again, and then the file is sent anew."""
    async with scripted(said, UPLOADED, answer(completion("4"))) as server:
        one = client(server.url)
        with pytest.raises(kind):
            await one.complete(asked)
        assert (await one.complete(asked)).output == "4"
        await one.aclose()


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_an_upload_that_trickles_ends(asked, transport):
    """`timeouts.total` is for the whole exchange: a byte now and then does not prolong it, and the next request can upload."""
    trickle = chunked(*[step for _ in range(500) for step in (b" ", 0.02)])
    async with scripted(trickle, UPLOADED, answer(completion("4"))) as server:
        one = client(server.url, timeouts=Timeouts(total=0.5), transport=transport)
        with pytest.raises(DeadlineError, match=r"no complete answer within 0\.5 s"):
            await one.complete(asked)
        assert (await one.complete(asked)).output == "4"
        await one.aclose()


async def test_an_upload_keeps_no_cookie_and_reads_no_endless_answer(asked, monkeypatch):
    """What a server sets is not sent back, and an answer without end is cut off."""
    set_cookie = answer({"error": {"message": "no"}}, status=500, headers={"set-cookie": "track=me; Path=/"})
    monkeypatch.setattr(on_aiohttp, "MAX_BYTES", 100_000)
    async with scripted(set_cookie, chunked(b" " * 200_000), UPLOADED, answer(completion("4"))) as server:
        one = client(server.url)
        with pytest.raises(ServerError):
            await one.complete(asked)
        with pytest.raises(BadOutputError, match="the body is larger than"):
            await one.complete(asked)
        assert (await one.complete(asked)).output == "4"
        await one.aclose()
    assert not any("cookie" in received.headers for received in server.requests)


async def test_a_file_that_is_still_being_read():
    """The service says so with a 400; that is tried again."""
    said = {"error": {"code": "invalid_parameter_error", "message": "<400> InternalError.Algo: File parsing in progress, please try again later."}}
    async with scripted(answer(said, status=400)) as server:
        with pytest.raises(ServerError, match="parsing in progress"):
            await ask(server.url, request("qwen-long"), openai_client, kind="simulator")


@pytest.mark.parametrize("dialect", ["openai", "native"])
async def test_a_run(study, tmp_path, dialect):
    """Every answer is there, its prompt tokens count the document, and the table names file and hash."""
    done = await run(study(dialect), tmp_path / "run")
    rows = done.results()
    assert (done.exit_code, set(rows["outcome"])) == (0, {"ok"})
    assert sorted(rows["output"]) == ["0", "10", "2", "4", "6", "8"]
    assert rows["prompt_tokens"].min() > 800
    part = json.loads(rows["messages"][0])[1]["content"][0]
    assert (part["file"], len(part["sha256"])) == ("report.txt", 64)


async def test_the_simulator_keeps_one_file(asked):
    """Ten requests at once upload one file."""
    async with simulated(limits=False) as it:
        one = client(f"{it.base}/compatible-mode/v1")
        await asyncio.gather(*(one.complete(asked) for _ in range(10)))
        await one.aclose()
        assert len((await it.get("/compatible-mode/v1/files")).json["data"]) == 1
