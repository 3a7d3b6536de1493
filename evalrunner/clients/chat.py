"""The client: one account, asked in the dialect each model needs. A dialect says where a request goes, what its body is and how the answer is read.

Request -> Dialect.body -> Endpoint.post -> reads -> sse.Parser -> Dialect.reader -> Answer -> Completion
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from evalrunner.clients.answer import Answer
from evalrunner.clients.endpoint import Endpoint
from evalrunner.clients.reader import Reader
from evalrunner.clients.transport import Reply
from evalrunner.clients.uploads import Uploads, holds_files
from evalrunner.clock import Clock
from evalrunner.errors import BrokenStreamError, EndpointError, PluginError, RequestError, TransportError
from evalrunner.plugins import Account
from evalrunner.records import Completion, Model, Request


class Dialect(Protocol):
    """How requests and answers look on the wire."""

    def url(self, endpoint: Endpoint, request: Request) -> str: ...
    def headers(self, *, stream: bool) -> Mapping[str, str]: ...
    def body(self, request: Request) -> dict[str, Any]: ...
    def reader(self, answer: Answer, endpoint: Endpoint, body: Mapping[str, Any]) -> Reader[Any]: ...


class ChatClient:
    """Sends one request and reads one answer (see `plugins.Client`). Raises what `clients.failures` makes of everything else."""

    def __init__(self, endpoint: Endpoint, clock: Clock, dialect_of: Callable[[Model], Dialect], *, terminal_optional: bool = False) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._dialect_of = dialect_of
        self._terminal_optional = terminal_optional
        self._uploads = Uploads(endpoint)

    async def complete(self, request: Request) -> Completion:
        if request.media and holds_files(request.messages):
            request = replace(request, messages=await self._uploads.placed(request))
        stream, dialect = request.cell.stream, self._dialect_of(request.cell.model)
        # media are read, checked and encoded beside the event loop
        body, content = await asyncio.to_thread(_encoded, dialect, request) if request.media else _encoded(dialect, request)
        answer = Answer(self._clock.now_ns(), stream=stream)
        url, headers = dialect.url(self._endpoint, request), dialect.headers(stream=stream)
        try:
            async with self._endpoint.post(url, content, stream=stream, progress=answer, headers=headers) as reply:
                if not 200 <= reply.status < 300:
                    await self._endpoint.refuse(reply)
                answer.http_status = reply.status
                await self._read(reply, dialect.reader(answer, self._endpoint, body))
            return answer.completion(self._clock.now_ns())
        except (RequestError, EndpointError) as error:
            _tell(error, answer, self._clock.now_ns())
            raise

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def _read(self, reply: Reply, reader: Reader[Any]) -> None:
        answer = reader.answer
        form = reply.headers.get("content-type", "")
        if "event-stream" in form or (answer.stream and "json" not in form):  # some gateways give one where the other was asked for
            await _stream(reply, reader)
            broken = not reader.complete
        else:
            await _whole(reply, reader)
            partial = reply.headers.get("x-dashscope-partialresponse") == "true"  # DashScope's time was up
            broken = partial or (answer.finish_reason is None and not answer.empty)
        if broken and not self._terminal_optional:
            raise BrokenStreamError("the answer ended without a finish reason", phase="stream" if answer.stream else "body")


def check_options(account: Account, known: Mapping[str, tuple[object, ...]]) -> None:
    """Raises `PluginError` for an option the kind does not have, or a value the option does not take."""
    for name, value in account.options.items():
        if name not in known:
            raise PluginError(f"provider {account.name}: kind {account.kind} has no option {name!r} (known: {', '.join(known)})")
        if value not in known[name]:
            raise PluginError(f"provider {account.name}: option {name} is one of {known[name]}, not {value!r}")


def _encoded(dialect: Dialect, request: Request) -> tuple[dict[str, Any], bytes]:
    body = dialect.body(request)
    return body, msgspec.json.encode(body)


async def _stream(reply: Reply, reader: Reader[Any]) -> None:
    try:
        while not reader.done and (reads := await reply.reads()):
            for stamp_ns, data in reads:
                reader.feed(stamp_ns, data)
        reader.close()
    except TransportError as error:
        if not reader.complete:
            raise BrokenStreamError(f"the stream was cut: {error.message}", phase="stream") from error


async def _whole(reply: Reply, reader: Reader[Any]) -> None:
    pieces = []
    stamp_ns = reader.answer.started_ns
    try:
        while reads := await reply.reads():
            pieces += [read.data for read in reads]
            stamp_ns = reads[-1].stamp_ns
    except TransportError as error:
        error.raw = b"".join(pieces) or None
        raise
    reader.whole(stamp_ns, b"".join(pieces))


def _tell(error: RequestError | EndpointError, answer: Answer, now_ns: int) -> None:
    """Give an error what is known of the attempt it ends."""
    error.timing = answer.timing(now_ns)
    error.usage = error.usage or answer.usage
    error.response_id = error.response_id or answer.response_id
    if error.http_status is None:
        error.http_status = answer.http_status
