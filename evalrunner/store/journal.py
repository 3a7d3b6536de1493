"""The append-only truth while a run is open: segments of lines, each with its checksum, made durable in groups.

A line is `{"crc":"<8 hex digits>",<the rest of a JSON object>}`: the checksum covers everything behind it, and Arrow's JSON reader takes the line as it is.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from evalrunner.clock import Clock
from evalrunner.errors import StoreError
from evalrunner.store.files import Files, disk_errors

RISK_ROWS = 64
"""At half of them an fsync starts; the other half arrives while it runs."""
RISK_S = 1.0

_HEAD = len('{"crc":"00000000",')


def frame(body: bytes) -> bytes:
    """The journal line of `body`, a JSON object with at least one member."""
    return b'{"crc":"%08x",%b\n' % (zlib.crc32(body[1:]), body[1:])


def is_whole(line: bytes) -> bool:
    """Whether `line` (without its line break) is what `frame` made."""
    return line[:8] == b'{"crc":"' and line[8:_HEAD] == b'%08x",' % zlib.crc32(line[_HEAD:])


class Segment(NamedTuple):
    """What a segment holds: its whole lines, the bytes of its torn end, and the numbers (from 1) of the lines that are damaged before that."""

    lines: list[bytes]
    torn: int
    damaged: list[int]


def read_segment(path: Path) -> Segment:
    """Every line that is as it was written. A bad end is what a crash leaves; a bad line with good ones behind it is damage."""
    pieces = path.read_bytes().split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    whole = [is_whole(piece) for piece in pieces]
    end = max((number for number, good in enumerate(whole, 1) if good), default=0)
    return Segment(
        lines=[piece for piece, good in zip(pieces, whole, strict=True) if good],
        torn=sum(len(piece) for piece in pieces[end:]),
        damaged=[number for number, good in enumerate(whole[:end], 1) if not good],
    )


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"segment-{number:05}.jsonl"


def segments(directory: Path, first: int) -> dict[int, Path]:
    """The segments from number `first` on, in order."""
    found = {int(path.stem.rpartition("-")[2]): path for path in directory.glob("segment-*.jsonl") if path.stem.rpartition("-")[2].isdigit()}
    return {number: found[number] for number in sorted(found) if number >= first}


class Journal:
    """Appends lines to the current segment. A row is handed to the system before `append` returns, so that it survives the process;
    it survives the machine after an fsync, which comes at most 1 s or `risk_rows` rows later; with 1, before `append` returns.

    A failure of the disk is final: an fsync that failed once proves nothing when it succeeds the next time, so every later call raises `StoreError`.
    """

    def __init__(self, directory: Path, number: int, *, files: Files, clock: Clock, risk_rows: int = RISK_ROWS) -> None:
        self.number = number
        self.rows = 0
        self.size = 0
        self._directory = directory
        self._files = files
        self._clock = clock
        self._risk_rows = risk_rows
        self._fd = -1
        self._retired: list[int] = []
        self._written = self._synced = 0
        self._syncing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None
        self._group: asyncio.Task[None] | None = None
        self._failure: StoreError | None = None

    async def open(self) -> None:
        """Make the first segment."""
        self._fd = await self.prepare(self.number)

    async def append(self, line: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            with disk_errors(self._directory.parent):
                self._files.write(self._fd, line)
        except StoreError as error:
            self._failure = error
            raise
        self.rows += 1
        self.size += len(line)
        self._written += 1
        await self._keep_promise()

    async def prepare(self, number: int) -> int:
        """Make segment `number`, name and all, without using it yet; returns its file descriptor."""
        return await asyncio.to_thread(self._create, number)

    def switch(self, fd: int) -> Path:
        """From now on write to `fd`, the next segment; returns the path of the one that is complete now."""
        self._retired.append(self._fd)
        self._fd, self.rows, self.size, self.number = fd, 0, 0, self.number + 1
        return segment_path(self._directory, self.number - 1)

    async def sync(self) -> None:
        """Return when every row written so far is durable. Goes on when the caller is cancelled: a failing fsync must not pass unseen."""
        await asyncio.shield(asyncio.create_task(self._sync(self._written)))

    async def close(self) -> None:
        """Make everything durable and let go of the files; after a failure only the latter."""
        try:
            if self._failure is None:
                await self.sync()
        finally:
            for task in (self._timer, self._group):
                if task is not None:
                    task.cancel()
            async with self._syncing:
                for fd in (*self._retired, self._fd):
                    os.close(fd)

    async def _sync(self, target: int) -> None:
        async with self._syncing:
            if self._failure is not None:
                raise self._failure
            if self._synced >= target and not self._retired:
                return
            upto, retired = self._written, list(self._retired)
            try:
                await asyncio.to_thread(self._fsync, [*retired, self._fd])
            except StoreError as error:
                self._failure = error
                raise
            self._synced = upto
            for fd in retired:
                self._retired.remove(fd)
                os.close(fd)

    async def _keep_promise(self) -> None:
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._sync_in_time())
        at_risk = self._written - self._synced
        if at_risk >= self._risk_rows:
            await self.sync()
        elif at_risk >= self._risk_rows // 2 and (self._group is None or self._group.done()):
            self._group = asyncio.create_task(self._sync_in_background())

    async def _sync_in_time(self) -> None:
        while self._written > self._synced and self._failure is None:
            await self._clock.sleep(RISK_S)
            await self._sync_in_background()

    async def _sync_in_background(self) -> None:
        with suppress(StoreError):  # the next append raises it
            await self.sync()

    def _create(self, number: int) -> int:
        with disk_errors(self._directory.parent):
            self._files.make_directory(self._directory)
            fd = self._files.open(segment_path(self._directory, number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            self._files.sync_directory(self._directory)
        return fd

    def _fsync(self, fds: list[int]) -> None:
        with disk_errors(self._directory.parent):
            for fd in fds:
                self._files.fsync(fd)
