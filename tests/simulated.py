"""A running simulator and the shortest way to talk to it, for the tests of the simulator's rooms."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from evalrunner.simulator.app import parse_settings, serve

CHAT = "/compatible-mode/v1/chat/completions"
TEXT = "/api/v1/services/aigc/text-generation/generation"
MULTIMODAL = "/api/v1/services/aigc/multimodal-generation/generation"


class Answered:
    """Status, headers and body of one response; `events` are a stream's data lines, decoded."""

    def __init__(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        self.status, self.headers, self.raw = status, headers, raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def events(self) -> list[Any]:
        lines = [line.removeprefix(b"data:").strip() for line in self.raw.split(b"\n") if line.startswith(b"data:")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]

    @property
    def text(self) -> str:
        """The answer, in either dialect, streamed (incrementally) or not."""
        if self.raw.startswith((b"data:", b"id:")):
            return "".join(_said(event) for event in self.events)
        return _said(self.json)


class Simulated:
    """`post` sends a body (or bytes as they are) with a key."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base, self.session = base, session

    async def post(self, path: str, body: Any, **headers: str) -> Answered:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        named = {"Authorization": "Bearer sk-test", **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.session.post(self.base + path, data=data, headers=named) as response:
            return Answered(response.status, response.headers, await response.read())

    async def chat(self, text: str = "What is 17 + 25?", model: str = "qwen-turbo", **params: Any) -> Answered:
        return await self.post(CHAT, {"model": model, "messages": [{"role": "user", "content": text}], **params})

    async def native(self, text: str = "What is 17 + 25?", model: str = "qwen-turbo", *, stream: bool = False, path: str = TEXT, **params: Any) -> Answered:
        body = {"model": model, "input": {"messages": [{"role": "user", "content": text}]}, "parameters": params}
        return await self.post(path, body, **({"X_DashScope_SSE": "enable"} if stream else {}))

    async def get(self, path: str) -> Answered:
        async with self.session.get(self.base + path, headers={"Authorization": "Bearer sk-test"}) as response:
            return Answered(response.status, response.headers, await response.read())


@asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[Simulated]:
    async with serve(parse_settings(options)) as base, aiohttp.ClientSession() as session:
        yield Simulated(base, session)


def png(width: int, height: int) -> str:
    """A data URI of a black image."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress((b"\0" + b"\0" * width) * height)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def wav(seconds: float, rate: int = 8_000) -> str:
    """A data URI of silence."""
    samples = bytes(2 * int(seconds * rate))
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", len(samples))
    return "data:audio/wav;base64," + base64.b64encode(head + samples).decode()


def _said(body: Any) -> str:
    if "output" in body:
        output = body["output"]
        content = output["choices"][0]["message"]["content"] if output.get("choices") else output.get("text", "")
        return content if isinstance(content, str) else "".join(part["text"] for part in content)
    if not body["choices"]:
        return ""
    choice = body["choices"][0]
    return (choice.get("message") or choice.get("delta"))["content"] or ""
