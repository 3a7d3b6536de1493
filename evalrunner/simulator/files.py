"""Files and batches of the OpenAI dialect: uploads, `fileid://` of qwen-long, and batches that run through their states in seconds instead of hours."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from aiohttp import BodyPartReader, web
from msgspec import DecodeError, json

from evalrunner.cost.tokens import count_text, texts
from evalrunner.simulator.calls import Refusal, engine_refusal

BatchAnswer = Callable[[Mapping[str, Any]], Awaitable[tuple[int, str, Mapping[str, Any]]]]
Handler = Callable[[web.Request], Awaitable[web.Response]]

_PURPOSES = {"batch": "file-batch-", "file-extract": "file-fe-"}
_FILE_ID = re.compile(r"fileid://([\w-]+)")
_WINDOW = re.compile(r"(\d+)([hd])")
_LARGEST_LINE, _MOST_LINES, _MOST_FILE_IDS = 6 * 2**20, 50_000, 100
# The part of a batch's time that has passed when it enters each state.
_STATES = ((1.0, "completed"), (0.9, "finalizing"), (0.2, "in_progress"), (0.0, "validating"))


class FileRoom:
    """Everything uploaded, in memory. `batch_seconds` is what a batch takes; `answer` answers one line's body."""

    def __init__(self, batch_seconds: float, answer: BatchAnswer, now: Callable[[], float] = time.time) -> None:
        self._seconds, self._answer, self._now = batch_seconds, answer, now
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        yield "POST", "/files", self._upload
        yield "GET", "/files", self._list_files
        yield "GET", "/files/{id}", self._file
        yield "GET", "/files/{id}/content", self._content
        yield "DELETE", "/files/{id}", self._delete
        yield "POST", "/batches", self._create
        yield "GET", "/batches", self._list_batches
        yield "GET", "/batches/{id}", self._batch
        yield "POST", "/batches/{id}/cancel", self._cancel

    def tokens(self, messages: list[dict[str, Any]]) -> int:
        """Tokens of every file that the system messages name; all are billed with every call."""
        ids = [found for message in messages if message["role"] == "system" for text in texts(message) for found in _FILE_ID.findall(text)]
        if len(ids) > _MOST_FILE_IDS:
            raise engine_refusal(f"Too many files: at most {_MOST_FILE_IDS}")
        total = 0
        for file_id in ids:
            if file_id not in self._files:
                raise Refusal("invalid_parameter_error", f"Invalid file [id:{file_id}].")
            total += count_text(self._files[file_id][1].decode("utf-8", "replace"))
        return total

    async def _upload(self, request: web.Request) -> web.Response:
        purpose, name, content = "", "", None
        if request.content_type.startswith("multipart/"):
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader) and part.name == "purpose":
                    purpose = (await part.text()).strip()
                elif isinstance(part, BodyPartReader) and part.name == "file":
                    name, content = part.filename or "file", bytes(await part.read())
        if purpose not in _PURPOSES:
            raise Refusal("invalid_request_error", f"{purpose!r} is not one of {sorted(_PURPOSES)} - 'purpose'")
        if not content:
            raise Refusal("invalid_request_error", "The file is empty - 'file'")
        return _json(self._keep(_PURPOSES[purpose], name, purpose, content))

    def _keep(self, prefix: str, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        entry = {
            "id": f"{prefix}{len(self._files) + 1:024x}",
            "bytes": len(content),
            "created_at": int(self._now()),
            "filename": name,
            "object": "file",
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self._files[str(entry["id"])] = (entry, content)
        return entry

    async def _list_files(self, _: web.Request) -> web.Response:
        return _listed([entry for entry, _ in self._files.values()])

    async def _file(self, request: web.Request) -> web.Response:
        return _json(self._found(request)[0])

    async def _content(self, request: web.Request) -> web.Response:
        return web.Response(body=self._found(request)[1], content_type="application/octet-stream")

    async def _delete(self, request: web.Request) -> web.Response:
        entry, _ = self._found(request)
        del self._files[entry["id"]]
        return _json({"id": entry["id"], "object": "file", "deleted": True})

    def _found(self, request: web.Request) -> tuple[dict[str, Any], bytes]:
        found = self._files.get(request.match_info["id"])
        if found is None:
            raise Refusal("not_found", f"No such File object: {request.match_info['id']}")
        return found

    async def _create(self, request: web.Request) -> web.Response:
        try:
            asked = json.decode(await request.read())
        except DecodeError:
            asked = {}
        file_id = asked.get("input_file_id") if isinstance(asked, dict) else None
        if file_id not in self._files:
            raise Refusal("invalid_request_error", f"No such File object: {file_id}", param="input_file_id")
        window = _WINDOW.fullmatch(str(asked.get("completion_window")))
        if window is None or not 24 <= int(window[1]) * (24 if window[2] == "d" else 1) <= 336:
            raise Refusal("invalid_request_error", "completion_window should be in [24h, 336h]", param="completion_window")
        now = int(self._now())
        lines, errors = _lines(self._files[file_id][1], asked.get("endpoint"))
        batch = {
            "id": f"batch_{len(self._batches) + 1:024x}",
            "object": "batch",
            "endpoint": asked.get("endpoint"),
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": file_id,
            "completion_window": asked["completion_window"],
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            **dict.fromkeys(("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")),
            "expires_at": now + 86_400,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": asked.get("metadata"),
        }
        self._batches[str(batch["id"])] = {"batch": batch, "lines": lines, "began": self._now()}
        return _json(batch)

    async def _list_batches(self, request: web.Request) -> web.Response:
        ids = list(self._batches)
        after = request.query.get("after")
        ids = ids[ids.index(after) + 1 :] if after in self._batches else ids
        limit = int(given) if (given := request.query.get("limit", "20")).isdigit() else 20
        return _listed([await self._advanced(batch_id) for batch_id in ids[:limit]], has_more=len(ids) > limit)

    async def _batch(self, request: web.Request) -> web.Response:
        return _json(await self._advanced(self._known_batch(request)))

    async def _cancel(self, request: web.Request) -> web.Response:
        batch_id = self._known_batch(request)
        batch = await self._advanced(batch_id)
        if batch["status"] in {"validating", "in_progress", "finalizing"}:
            batch |= {"status": "cancelling", "cancelling_at": int(self._now())}
        return _json(batch)

    def _known_batch(self, request: web.Request) -> str:
        batch_id = request.match_info["id"]
        if batch_id not in self._batches:
            raise Refusal("not_found", f"No such Batch object: {batch_id}")
        return batch_id

    async def _advanced(self, batch_id: str) -> dict[str, Any]:
        """The batch as it stands now. Its lines are answered when its time has passed; a cancelled one ends at the next look."""
        job = self._batches[batch_id]
        batch: dict[str, Any] = job["batch"]
        now = int(self._now())
        if batch["status"] == "cancelling":
            batch |= {"status": "cancelled", "cancelled_at": now}
        if batch["status"] in {"completed", "failed", "cancelled"}:
            return batch
        passed = (self._now() - job["began"]) / self._seconds if self._seconds else 1.0
        state = next(name for share, name in _STATES if passed >= share)
        if state != "validating" and batch["errors"]:
            batch |= {"status": "failed", "failed_at": now}
        elif state != "validating":
            batch |= {"status": state, f"{state}_at": batch[f"{state}_at"] or now}
            batch["in_progress_at"] = batch["in_progress_at"] or now
            batch["request_counts"]["total"] = len(job["lines"])
        if batch["status"] == "completed":
            await self._finish(batch, job["lines"])
        return batch

    async def _finish(self, batch: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        good, bad = [], []
        for line in lines:
            status, request_id, body = await self._answer(line["body"])
            answer = {"id": request_id, "custom_id": line["custom_id"], "response": {"status_code": status, "request_id": request_id, "body": body}}
            if status == 200:
                # The service's batch bodies have the three counters only.
                usage = {name: body["usage"][name] for name in ("completion_tokens", "prompt_tokens", "total_tokens")}
                answer["response"] = {**answer["response"], "body": {**body, "usage": usage}}
                good.append({**answer, "error": None})
            else:
                bad.append({**answer, "error": {"code": body["error"]["code"], "message": body["error"]["message"]}})
        for rows, prefix, name in ((good, "file-batch_output-", "output_file_id"), (bad, "file-batch_error-", "error_file_id")):
            if rows:
                content = b"".join(json.encode(row) + b"\n" for row in rows)
                batch[name] = self._keep(prefix, f"{batch['id']}.jsonl", "batch_output", content)["id"]
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}


def _lines(content: bytes, endpoint: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(lines, errors): one model per file, unique custom ids, every url the batch's endpoint."""
    lines: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    model = None
    raw_lines = [raw for raw in content.split(b"\n") if raw.strip()]
    if len(raw_lines) > _MOST_LINES:
        return [], [_error("too_many_lines", f"at most {_MOST_LINES} lines", None)]
    for number, raw in enumerate(raw_lines, start=1):
        try:
            line = json.decode(raw)
            custom_id, url, body = str(line["custom_id"]), line["url"], dict(line["body"])
        except (DecodeError, KeyError, TypeError, ValueError):
            errors.append(_error("invalid_json_line", "This line is not a JSON object with custom_id, url and body.", number))
            continue
        model = model or body.get("model")
        if len(raw) > _LARGEST_LINE:
            errors.append(_error("line_too_large", "at most 6 MB", number))
        if custom_id in seen:
            errors.append(_error("duplicate_custom_id", f"The custom_id {custom_id!r} is used twice.", number))
        if body.get("model") != model:
            errors.append(_error("mismatched_model", f"All lines need the same model: {model!r}, not {body.get('model')!r}.", number))
        if url != endpoint:
            errors.append(_error("mismatched_url", f"The url {url!r} is not the batch's endpoint {endpoint!r}.", number))
        seen.add(custom_id)
        lines.append({"custom_id": custom_id, "body": body})
    return lines, errors


def _error(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}


def _listed(data: list[dict[str, Any]], *, has_more: bool = False) -> web.Response:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return _json({"object": "list", "data": data, **ends, "has_more": has_more})


def _json(body: Any) -> web.Response:
    return web.Response(body=json.encode(body), content_type="application/json")
