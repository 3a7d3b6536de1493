"""The transport seam on httpx: for tests, which hand it an `httpx.MockTransport`, and for `transport: httpx`. Slow above a few dozen connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpx

from evalrunner.clients.failures import from_exception
from evalrunner.clients.transport import MAX_BYTES, Deadlines, Progress, Read, place, proxy_for, refuse_redirect, too_big
from evalrunner.clock import Clock
from evalrunner.records import Timeouts

_FOREIGN = (httpx.HTTPError, httpx.StreamError, OSError)


class HttpxTransport:
    """`inner` replaces the network, for tests; then no proxy is looked up."""

    def __init__(self, url: str, timeouts: Timeouts, clock: Clock, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self.timeouts = timeouts
        self.clock = clock
        self._url = url
        self._inner = inner
        self._proxy = None if inner else proxy_for(url)
        self._client: httpx.AsyncClient | None = None

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes, progress: Progress | None) -> HttpxReply:
        return HttpxReply(self, url, headers, body, progress)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """The response once its headers are there, not yet read."""
        client = self._client or self._open()
        return await client.send(client.build_request("POST", url, headers=dict(headers), content=body), stream=True, follow_redirects=False)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _open(self) -> httpx.AsyncClient:
        self._client = httpx.AsyncClient(
            transport=self._inner,
            proxy=self._proxy,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none is ever kept
            trust_env=False,  # the proxy is looked up once, by the same rule as for aiohttp; netrc would replace our key
            verify=ssl.create_default_context() if self._url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # which trusts nobody, at once
            timeout=httpx.Timeout(None, connect=self.timeouts.connect),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        return self._client


class HttpxReply:
    """One exchange; a context manager that sends on entry and frees the connection on exit. Stamps are taken where the read arrives in our task."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, transport: HttpxTransport, url: str, headers: Mapping[str, str], body: bytes, progress: Progress | None) -> None:
        self._transport = transport
        self._url = url
        self._sent = headers, body
        self._deadlines = Deadlines(transport.timeouts, transport.clock, progress)
        self._size = 0

    async def __aenter__(self) -> Self:
        seconds, phase = self._deadlines.left()
        try:
            async with asyncio.timeout(seconds):
                self._response = await self._transport.send(self._url, *self._sent)
        except httpx.ConnectTimeout:
            raise self._deadlines.passed("connect") from None
        except TimeoutError:
            raise self._deadlines.passed(phase) from None
        except _FOREIGN as error:
            raise from_exception(error, host=place(self._url), phase="wait") from None  # its text may hold a proxy's credentials
        self.status, self.headers = self._response.status_code, self._response.headers
        self._pieces: AsyncIterator[bytes] = self._response.aiter_bytes()
        if 300 <= self.status < 400:
            await self._response.aclose()
            refuse_redirect(self._url, self.status, self.headers.get("location"))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._response.aclose()

    async def reads(self) -> list[Read]:
        self._deadlines.check()
        seconds, phase = self._deadlines.left()
        try:
            async with asyncio.timeout(seconds):
                data = await anext(self._pieces, b"")
        except TimeoutError:
            raise self._deadlines.passed(phase) from None
        except _FOREIGN as error:
            raise from_exception(error, host=place(self._url), phase="body") from None
        self._size += len(data)
        if self._size > MAX_BYTES:
            raise too_big()
        return [Read(self._transport.clock.now_ns(), data)] if data else []
