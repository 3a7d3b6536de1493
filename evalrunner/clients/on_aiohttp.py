"""The hot path: the transport seam on aiohttp.

Each read is stamped inside `data_received`, before any task is scheduled. The task that reads a stream is woken by its end, by its deadlines, and in
between `GATHER_S` after the first unread byte: a token costs no task switch, and its stamp no time in a queue.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from evalrunner.clients.failures import from_exception
from evalrunner.clients.transport import MAX_BYTES, Deadlines, Progress, Read, place, proxy_for, refuse_redirect, too_big
from evalrunner.clock import Clock
from evalrunner.errors import PluginError
from evalrunner.records import Timeouts

GATHER_S = 0.2
_BUFFER = 1 << 20  # unread bytes that wake the reader at once; aiohttp stops reading the socket at twice as many
_LARGE = 1 << 20  # request bodies above this go out in pieces, not to hold up the loop
_FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError)


class StampedHandler(ResponseHandler):
    """aiohttp's protocol, which also notes (stamp, payload bytes so far) for every read that brought payload, and wakes the one who reads it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        super().__init__(loop)
        self._now_ns = clock.now_ns
        self._reader: asyncio.Future[None] | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self.marks: deque[tuple[int, int]] = deque()
        self._total = 0
        self._body: aiohttp.StreamReader | None = None
        self._before: aiohttp.StreamReader | None = None

    def set_response_params(self, **params: Any) -> None:
        self.marks = deque()  # a kept connection begins its next response here
        self._total = 0
        self._body, self._before = None, self._payload
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        stamp = self._now_ns()
        super().data_received(data)
        if self._body is None and self._payload is not self._before:
            self._body = self._payload  # kept: aiohttp lets go of it with a read that ends the connection, and changes it for an answer nobody asked for
        payload = self._body
        if payload is None:
            return
        if payload.total_bytes != self._total:
            self._total = payload.total_bytes
            self.marks.append((stamp, self._total))
        if self._reader is None:
            return
        if payload.is_eof() or payload.exception() is not None or self._total - self._read > _BUFFER:
            self._wake()
        elif self._gathering is None:
            self._gathering = self._loop.call_later(GATHER_S, self._wake)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._wake()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        if getattr(self, "_reading_paused", True):  # aiohttp asks for it after every chunk that is taken, paused or not
            super().resume_reading(*args, **kwargs)

    async def wait(self, seconds: float, read: int) -> None:
        """Return when there is something beyond `read` payload bytes, at the end, or after `seconds`."""
        self._read = read
        self._reader = self._loop.create_future()
        deadline = self._loop.call_later(seconds, self._wake)
        try:
            await self._reader
        finally:
            deadline.cancel()
            self._reader = None
            if self._gathering is not None:
                self._gathering.cancel()
                self._gathering = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class AiohttpTransport:
    """One pool of connections without a limit: how much runs at once is the limiter's business. `url` is where all its requests go."""

    def __init__(self, url: str, timeouts: Timeouts, clock: Clock) -> None:
        self.timeouts = timeouts
        self.clock = clock
        self._proxy = proxy_for(url)
        self._connect = aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_connect=timeouts.connect)
        self._session: aiohttp.ClientSession | None = None

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes, progress: Progress | None) -> AiohttpReply:
        return AiohttpReply(self, url, headers, body, progress)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        """The response once its headers are there, not yet read."""
        session = self._session or self._open()
        return await session.post(
            url,
            data=body if len(body) <= _LARGE else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            timeout=self._connect,
            proxy=self._proxy,
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0)
        # No public way to name the protocol class; AiohttpReply says so loudly should a release of aiohttp stop using this attribute.
        connector._factory = partial(StampedHandler, asyncio.get_running_loop(), self.clock)  # type: ignore[assignment] # noqa: SLF001
        self._session = aiohttp.ClientSession(
            connector=connector,
            response_class=StampedResponse,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_BUFFER,
        )
        return self._session


class StampedResponse(aiohttp.ClientResponse):
    """Remembers its connection's protocol, which aiohttp lets go of as soon as the body has ended."""

    handler: StampedHandler

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        if not isinstance(connection.protocol, StampedHandler):
            raise PluginError(f"this version of aiohttp ({aiohttp.__version__}) gives no stamps; set `transport: httpx`")
        self.handler = connection.protocol
        return await super().start(connection)


class AiohttpReply:
    """One exchange; a context manager that sends on entry and frees the connection on exit."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, transport: AiohttpTransport, url: str, headers: Mapping[str, str], body: bytes, progress: Progress | None) -> None:
        self._transport = transport
        self._url = url
        self._sent = headers, body
        self._deadlines = Deadlines(transport.timeouts, transport.clock, progress)
        self._read = 0

    async def __aenter__(self) -> Self:
        seconds, phase = self._deadlines.left()
        try:
            async with asyncio.timeout(seconds):
                response = await self._transport.send(self._url, *self._sent)
        except aiohttp.ConnectionTimeoutError:
            raise self._deadlines.passed("connect") from None
        except TimeoutError:
            raise self._deadlines.passed(phase) from None
        except _FOREIGN as error:
            raise from_exception(error, host=place(self._url), phase="wait") from None  # its text may hold a proxy's credentials
        assert isinstance(response, StampedResponse)  # noqa: S101 - for the type checker: the session makes no other
        self._response, self._handler, self._content = response, response.handler, response.content
        self.status, self.headers = response.status, response.headers
        if 300 <= self.status < 400:
            response.close()
            refuse_redirect(self._url, self.status, self.headers.get("location"))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._content.is_eof():
            self._response.release()
        else:
            self._response.close()

    async def reads(self) -> list[Read]:
        content = self._content
        while content.total_bytes == self._read:
            if content.is_eof():
                return []
            if (failure := content.exception()) is not None:
                raise from_exception(failure, host=place(self._url), phase="body") from None
            await self._handler.wait(self._deadlines.check(), self._read)
        data = self._take()
        begin, self._read = self._read, self._read + len(data)
        if self._read > MAX_BYTES:
            raise too_big()
        return self._stamped(data, begin)

    def _take(self) -> bytes:
        content = self._content
        failure = content.exception()
        if failure is None:
            return content.read_nowait(4 * _BUFFER)
        content.set_exception(None)  # type: ignore[arg-type] # a reset makes the reader refuse even what came before it
        data = content.read_nowait(4 * _BUFFER)
        content.set_exception(failure)
        return data

    def _stamped(self, data: bytes, begin: int) -> list[Read]:
        """Cut `data`, which begins at that byte of the payload, into the reads that brought it."""
        marks = self._handler.marks
        reads: list[Read] = []
        cut = 0
        while len(marks) > 1 and marks[0][1] <= self._read:
            stamp_ns, total = marks.popleft()
            reads.append(Read(stamp_ns, data[cut : total - begin]))
            cut = total - begin
        if cut < len(data):
            stamp_ns, total = marks[0] if marks else (self._transport.clock.now_ns(), begin)
            reads.append(Read(stamp_ns, data[cut:]))
            if marks and total <= self._read:
                marks.popleft()
        return reads
