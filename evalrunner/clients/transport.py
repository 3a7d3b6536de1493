"""The one seam to HTTP: a request goes out, reads come back, each with the moment it left the socket.

    client (openai, dashscope)  ->  Transport.post  ->  Reply: status, headers, reads
                                        |
                    on_aiohttp (the hot path) · on_httpx (tests and `transport: httpx`)

Both implementations promise the same: no redirect is ever followed, no cookie is kept, proxies come from the environment, a body may not decode to
more than `MAX_BYTES`, and every failure is an error of ours. Whoever reads tells the deadlines what it has seen through a `Progress`, because only
the client knows a token from a ping.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from evalrunner.clock import Clock
from evalrunner.errors import AuthError, BadOutputError, DeadlineError
from evalrunner.records import Timeouts

MAX_BYTES = 64 << 20
"""Decoded bytes of one body: far above any answer, far below what fills a machine."""


class Read(NamedTuple):
    """What one socket read brought, after chunked and content encoding were undone."""

    stamp_ns: int
    data: bytes


class Progress(Protocol):
    """What the reader has understood of a stream so far; None until there is any. Pings and comments are not data."""

    first_output_ns: int | None
    last_data_ns: int | None


class Reply(Protocol):
    """An answer whose headers have come."""

    status: int
    headers: Mapping[str, str]  # any case will do

    async def reads(self) -> list[Read]:
        """The reads since the last call, at least one; empty at the end of the body.

        A transport may gather reads for a fraction of a second: the stamps tell when they came. Raises `DeadlineError`, `TransportError` (after what
        came before it was given out), or `BadOutputError` for a body beyond `MAX_BYTES`.
        """


class Transport(Protocol):
    """Sends one POST and gives the reply; leaving the context without having read the end closes the connection, which stops the generation."""

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes, progress: Progress | None) -> AbstractAsyncContextManager[Reply]: ...
    async def aclose(self) -> None: ...


class Deadlines:
    """When one exchange must end. Asked after each wait, so that one timer at a time is enough however many reads come."""

    def __init__(self, timeouts: Timeouts, clock: Clock, progress: Progress | None) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._progress = progress
        self._started_ns = clock.now_ns()

    def left(self) -> tuple[float, str]:
        """Seconds until the nearest deadline (zero or less: passed), and its phase: total, first_token or idle."""
        now = self._clock.now_ns()
        total = self._timeouts.total - (now - self._started_ns) / 1e9
        if self._progress is None:
            return total, "total"
        since, allowed, phase = self._started_ns, self._timeouts.first_token, "first_token"
        if self._progress.first_output_ns is not None:
            since, allowed, phase = self._progress.last_data_ns or self._progress.first_output_ns, self._timeouts.idle, "idle"
        nearest = allowed - (now - since) / 1e9
        return (nearest, phase) if nearest < total else (total, "total")

    def check(self) -> float:
        """Seconds left. Raises `DeadlineError` when none are."""
        seconds, phase = self.left()
        if seconds <= 0:
            raise self.passed(phase)
        return seconds

    def passed(self, phase: str) -> DeadlineError:
        """The error for a deadline of this phase."""
        allowed = getattr(self._timeouts, phase)
        what = {"connect": "no connection", "first_token": "no output", "idle": "no data for", "total": "no complete answer"}[phase]
        return DeadlineError(f"{what} within {allowed:g} s" if phase != "idle" else f"{what} {allowed:g} s", phase=phase)


def place(url: str) -> str:
    """Host and port, for messages: never the credentials a URL may hold."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return "an address that is none"


def refuse_redirect(url: str, status: int, location: str | None) -> None:
    """Redirects are refused, not followed: the key would go with them. Raises `AuthError` naming both hosts; other statuses pass."""
    if 300 <= status < 400:
        asked = place(url)
        told = (place(location) or asked) if location else "no address"
        raise AuthError(f"{asked} answered {status} and points to {told}; redirects are never followed: set base_url to the right host", http_status=status)


def too_big() -> BadOutputError:
    """The error for a body beyond `MAX_BYTES`."""
    return BadOutputError(f"the body is larger than {MAX_BYTES >> 20} MB", phase="body")


def proxy_for(url: str) -> str | None:
    """The proxy the environment names for `url` (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), looked up once and not per request.

    A loopback host is never reached through a proxy: the embedded model and the simulator live there. The address may hold credentials: print it nowhere.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all")
    if not address or _is_loopback(host) or proxy_bypass(host if parts.port is None else f"{host}:{parts.port}"):
        return None
    return address if "://" in address else f"http://{address}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
