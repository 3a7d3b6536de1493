"""Which requests have been sent and have no row yet: a note that outlives the process, so that `resume` can say how many may be bought again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from evalrunner.errors import EndpointError, RequestError
from evalrunner.plugins import Client
from evalrunner.records import Completion, Request
from evalrunner.store.files import Files
from evalrunner.store.known import DIGEST_BYTES, digest

IN_FLIGHT = ".in-flight"

_EMPTY = bytes(DIGEST_BYTES)


class InFlight:
    """A file with one slot for each request that is under way, written by the system's page cache alone: it survives the process, which is all it is for.

    A note, not a promise: a disk that refuses it costs the number and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._slots: dict[str, int] = {}
        self._free: list[int] = []

    def read(self) -> list[bytes]:
        """The digests of what the last session had under way when it ended."""
        try:
            noted = self._path.read_bytes()
        except OSError:
            return []
        slots = [noted[at : at + DIGEST_BYTES] for at in range(0, len(noted), DIGEST_BYTES)]
        return [slot for slot in slots if len(slot) == DIGEST_BYTES and slot != _EMPTY]

    def open(self, files: Files) -> None:
        """Begin anew."""
        self._fd = files.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def begin(self, key: str) -> None:
        """Request `key` is about to be sent."""
        if self._fd >= 0 and key not in self._slots:
            self._slots[key] = slot = self._free.pop() if self._free else len(self._slots)
            self._note(slot, digest(key))

    def end(self, key: str) -> None:
        """Its row is written down, or it failed and nothing was bought."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._free.append(slot)
            self._note(slot, _EMPTY)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _note(self, slot: int, content: bytes) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.pwrite(self._fd, content, slot * DIGEST_BYTES)


class Noted:
    """A client whose requests are noted while they are under way. What failed is under way no more; what was cancelled may have been bought."""

    def __init__(self, client: Client, in_flight: InFlight) -> None:
        self._client = client
        self._in_flight = in_flight

    async def complete(self, request: Request) -> Completion:
        self._in_flight.begin(request.key)
        try:
            return await self._client.complete(request)
        except (RequestError, EndpointError):
            self._in_flight.end(request.key)
            raise

    async def aclose(self) -> None:
        await self._client.aclose()
