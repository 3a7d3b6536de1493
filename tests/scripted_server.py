"""A raw HTTP server for tests that answers by script, byte by byte: what a good server does and what a bad one can do.

    async with scripted(answer(b'{"choices": …}'), [RST], hang_after=…) as server:
        … talk to server.url …
        server.requests[0].json["model"]

A script is a list of steps, and each request takes the next script in the order of arrival (`repeat=True`: the last one for ever). Steps:

    bytes           sent as they are (so a step can be half a character, half a chunk, or a whole response)
    asyncio.Event   wait until the test sets it
    float           wait so many seconds (keep it tiny: tests do not sleep)
    HANG            send nothing more and keep the connection open until the server closes
    RST             reset the connection (SO_LINGER 0)
    CLOSE           end the connection in good order

After its last step a script leaves the connection open for the next request. `answer`, `chunked`, `sse` build responses. A callable
`(Received) -> steps` may stand for a script. Nothing here imports evalrunner, so that a mistake there cannot hide a mistake here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

HANG, RST, CLOSE = object(), object(), object()
Step = Any
Script = Sequence[Step]


@dataclass
class Received:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """`url` is a base URL ending in /v1; `requests` grows as they come; `connections` counts accepted ones; `received(n)` waits for the n-th request."""

    url: str = ""
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    arrival: asyncio.Event = field(default_factory=asyncio.Event)

    async def received(self, count: int) -> None:
        """Return when `count` requests have arrived."""
        while len(self.requests) < count:
            self.arrival.clear()
            await self.arrival.wait()


def answer(body: bytes | dict[str, Any] | str, status: int = 200, headers: dict[str, str] | None = None, reason: str = "X") -> list[Step]:
    """A whole response with Content-Length; a dict is sent as JSON."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).encode()
    names = {"content-type": "application/json", "content-length": str(len(raw)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    return [f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode() + raw]


def chunked(*parts: Step, headers: dict[str, str] | None = None, end: bool = True) -> list[Step]:
    """A chunked response: each bytes part is one chunk, other steps go between them; `end=False` leaves the last chunk out."""
    names = {"content-type": "text/event-stream;charset=UTF-8", "transfer-encoding": "chunked", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    steps: list[Step] = [f"HTTP/1.1 200 OK\r\n{head}\r\n".encode()]
    steps += [b"%x\r\n%s\r\n" % (len(part), part) if isinstance(part, bytes) else part for part in parts]
    return [*steps, b"0\r\n\r\n"] if end else steps


def sse(*events: Any, end: bool = True, done: bool = True) -> list[Step]:
    """A stream with one chunk per event: a dict becomes `data: {…}`, bytes go as they are, other steps go between; then [DONE]."""
    parts = [b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" if isinstance(event, dict) else event for event in events]
    return chunked(*parts, *([b"data: [DONE]\n\n"] if done else []), end=end)


def completion(content: str | None = "4", finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A body that answers, with usage."""
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason, "index": 0, "logprobs": None}],
        "object": "chat.completion",
        "usage": {"prompt_tokens": 22, "completion_tokens": 1, "total_tokens": 23},
        "created": 1742303743,
        "model": "qwen-plus",
        "id": "chatcmpl-1",
    }


def chunk(content: str | None = None, finish_reason: str | None = None, usage: dict[str, int] | None = None, **delta: Any) -> dict[str, Any]:
    """One event of a stream; with `usage` it is the usage event, which has no choices."""
    choices = [] if usage else [{"delta": {"content": content, **delta}, "index": 0, "logprobs": None, "finish_reason": finish_reason}]
    return {"choices": choices, "object": "chat.completion.chunk", "usage": usage, "created": 1, "model": "qwen-plus", "id": "chatcmpl-1"}


@contextlib.asynccontextmanager
async def scripted(*scripts: Script | Callable[[Received], Script], repeat: bool = False) -> AsyncIterator[Server]:
    """Serve the scripts, in the order of arrival, on 127.0.0.1 and a free port. A request beyond the last script is an error 599 (or `repeat`s it)."""
    server = Server()
    waiting = list(scripts)
    tasks: set[asyncio.Task[None]] = set()
    closing = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while (received := await _receive(reader)) is not None:
                server.requests.append(received)
                server.arrival.set()
                script = answer(b"no script left", status=599) if not waiting else waiting[0] if repeat and len(waiting) == 1 else waiting.pop(0)
                if not await _play(script(received) if callable(script) else script, writer, closing):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):  # cancelled: the server closes
            pass
        finally:
            tasks.discard(task)
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{server.port}/v1"
    try:
        yield server
    finally:
        closing.set()
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _receive(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Received(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


async def _play(script: Iterable[Step], writer: asyncio.StreamWriter, closing: asyncio.Event) -> bool:
    """True if the connection can take another request."""
    for step in script:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif isinstance(step, float):
            await asyncio.sleep(step)
        elif step is HANG:
            await closing.wait()
        elif step is RST:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        else:
            assert step is CLOSE, f"no such step: {step!r}"
            return False
    return True
