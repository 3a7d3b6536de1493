"""The journal: what was appended is there after a crash, and what is not whole is told apart."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.errors import StoreError
from evalrunner.store.files import Files
from evalrunner.store.journal import RISK_ROWS, RISK_S, Journal, frame, is_whole, read_segment, segment_path, segments

BODIES = [json.dumps({"row": number, "text": "é\u2028" * number}, ensure_ascii=False).encode() for number in range(6)]


class SlowFsync(Files):
    """An fsync that takes until `go` is set, and counts."""

    def __init__(self) -> None:
        self.fsyncs = 0
        self.go = threading.Event()
        self.error: OSError | None = None

    def fsync(self, fd: int) -> None:
        self.fsyncs += 1
        self.go.wait()
        if self.error:
            raise self.error
        super().fsync(fd)


class HandClock:
    """Sleeps until the test lets go."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.go = asyncio.Event()

    def now_ns(self) -> int:
        return 0

    def wall_us(self, ns: int) -> int:
        return ns // 1000

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.go.wait()


async def open_journal(directory: Path, files: Files, *, risk_rows: int = RISK_ROWS, clock=SYSTEM_CLOCK) -> Journal:
    journal = Journal(directory / "journal", 0, files=files, clock=clock, risk_rows=risk_rows)
    await journal.open()
    return journal


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread that knows no events of ours
        await asyncio.sleep(0)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1))
def test_a_framed_line_is_json_with_a_checksum(body: dict) -> None:
    """Any JSON reader takes a journal line as it is."""
    line = frame(json.dumps(body).encode())
    assert line.endswith(b"\n")
    assert is_whole(line[:-1])
    assert {**body, "crc": json.loads(line)["crc"]} == json.loads(line) or "crc" in body


def test_any_cut_leaves_a_prefix(tmp_path: Path) -> None:
    """A journal cut at any byte gives its whole lines back, counts the torn rest, and calls nothing damaged."""
    path, lines = tmp_path / "segment-00000.jsonl", [frame(body) for body in BODIES]
    text = b"".join(lines)
    for cut in range(len(text) + 1):
        path.write_bytes(text[:cut])
        found = read_segment(path)
        assert found.lines == [line[:-1] for line in lines][: len(found.lines)]
        assert not found.damaged
        assert sum(map(len, found.lines)) + len(found.lines) + found.torn in {cut, cut + 1}


@given(place=st.integers(0, len(b"".join(map(frame, BODIES))) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_costs_its_own_lines_only(tmp_path_factory: pytest.TempPathFactory, place: int, flip: int) -> None:
    """Every line but the one that was hit (two, if it was the break between them) survives, and the loss is reported."""
    path, lines = tmp_path_factory.mktemp("flip") / "segment-00000.jsonl", [frame(body) for body in BODIES]
    text = bytearray(b"".join(lines))
    text[place] ^= flip
    path.write_bytes(text)
    found = read_segment(path)
    whole = [line[:-1] for line in lines]
    assert set(found.lines) <= set(whole)
    assert len(found.lines) >= len(lines) - 2
    assert found.damaged or found.torn or found.lines == whole


async def test_a_row_survives_the_process_before_any_fsync(tmp_path: Path) -> None:
    """When `append` returns, the row is in the file: a kill -9 does not lose it."""
    files = SlowFsync()
    files.go.set()
    journal = await open_journal(tmp_path, files)
    await journal.append(frame(BODIES[1]))
    assert read_segment(segment_path(tmp_path / "journal", 0)).lines == [frame(BODIES[1])[:-1]]
    await journal.close()


async def test_durable_means_synced_before_append_returns(tmp_path: Path) -> None:
    """With one row at risk, many rows at once share an fsync, and none returns before it."""
    files = SlowFsync()
    files.go.set()
    journal = await open_journal(tmp_path, files, risk_rows=1)
    files.fsyncs = 0
    files.go.clear()
    appends = [asyncio.create_task(journal.append(frame(BODIES[1]))) for _ in range(50)]
    await until(lambda: files.fsyncs)
    assert not any(task.done() for task in appends)
    files.go.set()
    await asyncio.gather(*appends)
    assert files.fsyncs <= 3
    await journal.close()


async def test_at_most_64_rows_are_at_risk(tmp_path: Path) -> None:
    """However slow the disk is, the 64th row without an fsync waits for one."""
    files = SlowFsync()
    files.go.set()
    journal = await open_journal(tmp_path, files)
    files.fsyncs = 0
    files.go.clear()
    for _ in range(RISK_ROWS - 1):
        await journal.append(frame(BODIES[0]))
    await until(lambda: files.fsyncs)
    last = asyncio.create_task(journal.append(frame(BODIES[0])))
    await asyncio.sleep(0)
    assert not last.done()
    files.go.set()
    await last
    await journal.close()


async def test_a_lonely_row_is_at_risk_for_a_second(tmp_path: Path) -> None:
    """Without more rows, one second of the clock brings the fsync."""
    files, clock = SlowFsync(), HandClock()
    files.go.set()
    journal = await open_journal(tmp_path, files, clock=clock)
    files.fsyncs = 0
    await journal.append(frame(BODIES[0]))
    await until(lambda: clock.asked)
    assert clock.asked == [RISK_S]
    assert files.fsyncs == 0
    clock.go.set()
    await until(lambda: files.fsyncs)
    await journal.close()


async def test_a_failed_fsync_is_final(tmp_path: Path) -> None:
    """What an fsync failed to write is gone, whatever the next one says: nothing is acknowledged after it, and it is not tried again."""
    files = SlowFsync()
    files.go.set()
    journal = await open_journal(tmp_path, files, risk_rows=1)
    files.error, files.fsyncs = OSError(errno.EIO, "Input/output error"), 0
    with pytest.raises(StoreError, match=r"Input/output error.*evalrunner resume"):
        await journal.append(frame(BODIES[0]))
    files.error = None
    for _ in range(2):
        with pytest.raises(StoreError):
            await journal.append(frame(BODIES[0]))
        with pytest.raises(StoreError):
            await journal.sync()
    assert files.fsyncs == 1
    await journal.close()


async def test_a_switch_keeps_both_segments(tmp_path: Path) -> None:
    """Rows before the switch are in the old segment, rows after it in the new one, and both become durable."""
    files = SlowFsync()
    files.go.set()
    journal = await open_journal(tmp_path, files)
    await journal.append(frame(BODIES[0]))
    assert journal.switch(await journal.prepare(1)) == segment_path(tmp_path / "journal", 0)
    assert (journal.rows, journal.size, journal.number) == (0, 0, 1)
    await journal.append(frame(BODIES[1]))
    files.fsyncs = 0
    await journal.sync()
    assert files.fsyncs == 2
    await journal.close()
    assert [read_segment(path).lines for path in segments(tmp_path / "journal", 0).values()] == [[frame(body)[:-1]] for body in BODIES[:2]]
    assert list(segments(tmp_path / "journal", 1)) == [1]
