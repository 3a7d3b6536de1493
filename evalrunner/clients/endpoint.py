"""One account as both dialects use it: its transport, its headers, and the wording by which its errors are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import NoReturn
from urllib.parse import urlsplit

from evalrunner.clients.failures import refusal
from evalrunner.clients.on_aiohttp import AiohttpTransport
from evalrunner.clients.on_httpx import HttpxTransport
from evalrunner.clients.transport import Progress, Reply, Transport
from evalrunner.clock import Clock
from evalrunner.errors import ConfigError, PluginError
from evalrunner.plugins import Account

_TRANSPORTS = {"aiohttp": AiohttpTransport, "httpx": HttpxTransport}
_ALIBABA = (".aliyuncs.com",)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_COMPATIBLE, _NATIVE = "/compatible-mode/v1", "/api/v1"
_EXCERPT = 1 << 16  # bytes of a refusal that are read: its first lines say it all


class Endpoint:
    """`dashscope`: errors are worded by Alibaba's gateway (its hosts, its native dialect, our simulator of both).

    `compatible` and `native` are the base URLs of the two dialects; they differ where `base_url` is one of DashScope's (`both`).
    """

    def __init__(self, account: Account, clock: Clock, transport: Transport | None = None) -> None:
        self._clock = clock
        base = account.base_url.rstrip("/")
        host = _host(account.name, base)
        self.dashscope = account.kind in ("dashscope", "simulator") or host.endswith(_ALIBABA)
        root = base.removesuffix(_COMPATIBLE).removesuffix(_NATIVE)
        self.both = self.dashscope and root != base
        self.compatible, self.native = (root + _COMPATIBLE, root + _NATIVE) if self.both else (base, base)
        self.timeouts = account.timeouts
        self._headers = {"user-agent": f"evalrunner/{version('evalrunner')}", "content-type": "application/json"}
        if account.api_key is not None:
            self._headers["authorization"] = f"Bearer {account.api_key}"
        self._headers |= {name.lower(): value for name, value in account.headers.items()}
        _check_headers(account.name, self._headers)
        if account.transport not in _TRANSPORTS:
            raise PluginError(f"provider {account.name}: no transport is called {account.transport!r} (known: {', '.join(_TRANSPORTS)})")
        self._transport = transport or _TRANSPORTS[account.transport](base, account.timeouts, clock)

    def now_s(self) -> float:
        """The wall clock."""
        return self._clock.wall_us(self._clock.now_ns()) / 1e6

    def post(self, url: str, body: bytes, *, stream: bool, progress: Progress | None, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Reply]:
        """Send `body` to `url`. A stream is asked for uncompressed, because compression holds tokens back."""
        wanted = {"accept": "text/event-stream", "accept-encoding": "identity"} if stream else {"accept": "application/json"}
        return self._transport.post(
            url,
            headers={**wanted, **self._headers, **headers},
            body=body,
            progress=progress if stream else None,
        )

    async def refuse(self, reply: Reply) -> NoReturn:
        """Read the body of a reply that is no answer, and raise what it says."""
        body = bytearray()
        while len(body) < _EXCERPT and (reads := await reply.reads()):
            for read in reads:
                body += read.data
        raise refusal(reply.status, reply.headers, bytes(body), dashscope=self.dashscope, now_s=self.now_s())

    async def aclose(self) -> None:
        await self._transport.aclose()


def _host(provider: str, base_url: str) -> str:
    """The host of a base URL. Raises `ConfigError` for what is no address, or holds credentials, which would end up in messages."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"provider {provider}: base_url {base_url!r} is no http(s) address")
    if parts.query or parts.fragment:
        raise ConfigError(f"provider {provider}: base_url holds a query; what a provider wants beside its address goes into headers")
    if parts.username is not None:
        raise ConfigError(f"provider {provider}: base_url holds credentials; use api_key or headers")
    return parts.hostname or ""


def _check_headers(provider: str, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not value.isascii() or not value.isprintable() or value != value.strip():
            raise ConfigError(
                f"provider {provider}: header {name!r} cannot be sent: its name or value holds characters that are not allowed"
                " (a line break, perhaps, or a space at its end)"
            )
