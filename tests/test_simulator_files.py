"""Files, batches and the context cache."""

import json

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from simulated import CHAT, simulated

from evalrunner.simulator.files import FileRoom

FILES, BATCHES = "/compatible-mode/v1/files", "/compatible-mode/v1/batches"


async def upload(it, content, purpose="batch", name="x.jsonl"):
    form = aiohttp.FormData()
    form.add_field("purpose", purpose)
    form.add_field("file", content, filename=name)
    async with it.session.post(it.base + FILES, data=form, headers={"Authorization": "Bearer x"}) as response:
        return response.status, await response.json()


def line(custom_id, model="qwen-plus", url="/v1/chat/completions", **params):
    return json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": model, "messages": [{"role": "user", "content": "1 + 1"}], **params}}
    )


async def start(it, *lines, **asked):
    _, file = await upload(it, "\n".join(lines).encode())
    return await it.post(BATCHES, {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h", **asked})


async def test_files_are_kept_listed_read_and_deleted():
    """The four routes of a file, and a 404 for one that is not there."""
    async with simulated() as it:
        status, file = await upload(it, b"hello", "file-extract", "a.txt")
        listed, found = (await it.get(FILES)).json, (await it.get(f"{FILES}/{file['id']}")).json
        content = await it.get(f"{FILES}/{file['id']}/content")
        async with it.session.delete(f"{it.base}{FILES}/{file['id']}", headers={"Authorization": "Bearer x"}) as response:
            assert (await response.json())["deleted"] is True
        gone = await it.get(f"{FILES}/{file['id']}")
    assert (status, file["id"][:8], file["status"], file["bytes"]) == (200, "file-fe-", "processed", 5)
    assert listed["data"] == [found] == [file]
    assert content.raw == b"hello"
    assert gone.status == 404


@pytest.mark.parametrize(("content", "purpose"), [(b"", "batch"), (b"x", "fine-tune")])
async def test_a_useless_upload_is_refused(content, purpose):
    """An empty file, an unknown purpose."""
    async with simulated() as it:
        assert (await upload(it, content, purpose))[0] == 400


async def test_qwen_long_reads_its_files_and_bills_them():
    """`fileid://` in a system message adds the file's tokens to every call; an unknown id is refused."""
    async with simulated() as it:
        _, file = await upload(it, b"word " * 500, "file-extract")

        def ask(reference):
            return {"model": "qwen-long", "messages": [{"role": "system", "content": reference}, {"role": "user", "content": "What is it about?"}]}

        without, with_file = await it.post(CHAT, ask("You are helpful.")), await it.post(CHAT, ask(f"fileid://{file['id']}"))
        unknown = await it.post(CHAT, ask("fileid://file-fe-nothing"))
    assert with_file.json["usage"]["prompt_tokens"] > without.json["usage"]["prompt_tokens"] + 400
    assert (unknown.status, unknown.json["error"]["message"]) == (400, "Invalid file [id:file-fe-nothing].")


async def test_a_batch_runs_through_its_states_in_its_time():
    """validating, in_progress, finalizing, completed, as its time passes, with a time stamp for each."""
    now = [1_000.0]

    async def answer(body):
        return 200, "id", {"usage": {"completion_tokens": 1, "prompt_tokens": 1, "total_tokens": 2}, "choices": []}

    room = FileRoom(100.0, answer, lambda: now[0])
    app = aiohttp.web.Application()
    app.add_routes([aiohttp.web.route(method, path, handler) for method, path, handler in room.routes()])
    room._keep("file-batch-", "x", "batch", line("a").encode())
    [file_id] = room._files
    async with TestClient(TestServer(app)) as it:
        made = await (await it.post("/batches", json={"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "2d"})).json()
        states = []
        for moment in (1_010, 1_030, 1_095, 1_100, 1_200):
            now[0] = moment
            batch = await (await it.get(f"/batches/{made['id']}")).json()
            states.append(batch["status"])
    assert states == ["validating", "in_progress", "finalizing", "completed", "completed"]
    assert (batch["in_progress_at"], batch["finalizing_at"], batch["completed_at"]) == (1_030, 1_095, 1_100)
    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


async def test_lines_that_fail_are_in_the_error_file():
    """Each line has its own fate; usage has the three counters only."""
    async with simulated(batch_seconds=0) as it:
        made = await start(it, line("good"), line("bad", temperature=9))
        batch = (await it.get(f"{BATCHES}/{made.json['id']}")).json
        good = (await it.get(f"{FILES}/{batch['output_file_id']}/content")).json
        bad = (await it.get(f"{FILES}/{batch['error_file_id']}/content")).json
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert good["custom_id"] == "good"
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "2"
    assert set(good["response"]["body"]["usage"]) == {"completion_tokens", "prompt_tokens", "total_tokens"}
    assert (bad["custom_id"], bad["response"]["status_code"], bad["error"]["code"]) == ("bad", 400, "invalid_parameter_error")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((line("a"), line("b", model="qwen-max")), "mismatched_model"),
        ((line("a"), line("a")), "duplicate_custom_id"),
        ((line("a", url="/v1/embeddings"),), "mismatched_url"),
        (("{",), "invalid_json_line"),
    ],
)
async def test_a_batch_that_cannot_run_fails_with_the_line(lines, code):
    """One model, unique ids, one endpoint, readable lines: else the batch fails and says which line."""
    async with simulated(batch_seconds=0) as it:
        made = await start(it, *lines)
        batch = (await it.get(f"{BATCHES}/{made.json['id']}")).json
    assert batch["status"] == "failed"
    assert (batch["errors"]["data"][0]["code"], batch["errors"]["data"][0]["line"]) == (code, len(lines))


async def test_a_batch_can_be_cancelled_and_found_again():
    """cancelling, then cancelled; lists go on after an id; a window out of range and an unknown file are refused."""
    async with simulated(batch_seconds=60) as it:
        one, two = (await start(it, line("a"))).json, (await start(it, line("a"))).json
        cancelling = (await it.post(f"{BATCHES}/{one['id']}/cancel", {})).json["status"]
        cancelled = (await it.get(f"{BATCHES}/{one['id']}")).json["status"]
        listed = (await it.get(f"{BATCHES}?after={one['id']}&limit=5")).json
        first = (await it.get(f"{BATCHES}?limit=1")).json
        refused = [
            (await start(it, line("a"), completion_window="1h")).status,
            (await it.post(BATCHES, {"input_file_id": "nothing"})).status,
            (await it.post(BATCHES, b"{")).status,
            (await it.get(f"{BATCHES}/nothing")).status,
        ]
    assert (cancelling, cancelled) == ("cancelling", "cancelled")
    assert [batch["id"] for batch in listed["data"]] == [two["id"]]
    assert first["has_more"] is True
    assert refused == [400, 400, 400, 404]


LONG = "A long preamble that every question shares. " * 200


async def test_the_explicit_cache_is_written_once_and_hit_afterwards():
    """`cache_control` on a part of at least 1,024 tokens: created first, then cached, both part of prompt_tokens."""

    def ask(question):
        marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
        return {
            "model": "qwen-vl-max",
            "messages": [{"role": "system", "content": [marked]}, {"role": "user", "content": [{"type": "text", "text": question}]}],
        }

    async with simulated() as it:
        first, second = [(await it.post(CHAT, ask(question))).json["usage"] for question in ("one", "two")]
        native = await it.native(model="qwen-max")
    written = first["prompt_tokens_details"]["cache_creation_input_tokens"]
    assert 1_024 < written < first["prompt_tokens"]
    assert (first["prompt_tokens_details"]["cached_tokens"], second["prompt_tokens_details"]["cached_tokens"]) == (0, written)
    assert second["prompt_tokens_details"]["cache_creation_input_tokens"] == 0
    assert native.json["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_the_implicit_cache_is_off_unless_asked_for():
    """It makes usage depend on what came before, so it is an option."""
    async with simulated(cache=True) as caching, simulated() as plain:
        for it, expected in ((caching, True), (plain, False)):
            await it.chat(LONG + "one")
            again = (await it.chat(LONG + "one")).json["usage"]
            assert (again["prompt_tokens_details"]["cached_tokens"] > 1_024) is expected
