"""One run's directory: how a record gets into it for good, and what is missing from it. The way in and back is `opening`, the way out `readers`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import pyarrow as pa

from evalrunner.errors import RunError, StoreError
from evalrunner.records import Judgement, Plan, Record, Request, Score
from evalrunner.store import parts
from evalrunner.store.files import disk_errors
from evalrunner.store.in_flight import IN_FLIGHT
from evalrunner.store.journal import Journal, frame, segments
from evalrunner.store.known import is_open
from evalrunner.store.manifest import set_back_report
from evalrunner.store.opening import About, Opening, Resumed, Settings
from evalrunner.store.readers import read_attempts, read_judgements, read_manifest, read_results, rows_of
from evalrunner.store.redact import Redactor
from evalrunner.store.rows import encode, encode_answer, encode_judgement, encode_scores
from evalrunner.store.unscored import answered_judgements, unscored_rows

__all__ = ["About", "Resumed", "RunDir", "Settings", "read_attempts", "read_judgements", "read_manifest", "read_results", "rows_of"]


class RunDir:
    """An async context manager. Leaving it without `finish` ends the run as interrupted; after a failure of the disk it only lets go. A new run that a
    mistake in its config or data ends before its first row (or a cancellation does) leaves nothing behind.

    `create` refuses a directory that holds anything else. `resume` repairs what a crash or damage left, and says so in `messages`; with `nothing_left` it
    has changed nothing. Both raise `RunLockedError` while another process has the run, and `StoreError` for anything else that makes it unusable.
    """

    def __init__(self, path: Path, plan: Plan, about: About | None, redactor: Redactor | None, settings: Settings | None) -> None:
        self.path = path
        self._settings = settings or Settings()
        self._redactor = redactor or Redactor()
        self._plan = plan
        self._about = about
        self._opening = Opening(path, plan, self._redactor, self._settings)
        self._known = self._opening.known
        self.in_flight = self._opening.in_flight
        self._journal: Journal | None = None
        self._superseded: dict[str, list[str]] = {}
        self._answers: dict[str, tuple[bytes, str]] = {}
        """Key -> body and outcome of the answers that are written down and are no rows yet."""
        self._rows = 0
        self._redacted = 0
        self._written = False
        self._started_ns = self._segment_ns = 0
        # one thread: Arrow keeps buffers per thread, and six of them would keep six times as much
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._rolling = asyncio.Lock()
        self._roll_task: asyncio.Task[None] | None = None
        self._roll_timer: asyncio.Task[None] | None = None
        self._failure: StoreError | None = None

    @classmethod
    def create(cls, path: Path, plan: Plan, about: About, *, redactor: Redactor | None = None, settings: Settings | None = None) -> Self:
        """A new run in `path`, which is made if need be."""
        return cls(path, plan, about, redactor, settings)

    @classmethod
    def resume(cls, path: Path, plan: Plan, *, redactor: Redactor | None = None, settings: Settings | None = None) -> Self:
        """The run in `path`, where it stopped."""
        return cls(path, plan, None, redactor, settings)

    @property
    def run_id(self) -> str:
        return self._opening.ledger.manifest.run_id

    @property
    def resumed(self) -> Resumed | None:
        return self._opening.resumed

    @property
    def messages(self) -> list[str]:
        """What a person must know: damage that was found, data that changed."""
        return self._opening.messages

    @property
    def nothing_left(self) -> bool:
        """Every request has its final row: there is nothing to send, and nothing was changed."""
        return self._opening.nothing_left

    @property
    def counts(self) -> dict[str, Any]:
        """As in the manifest: planned, done (rows), by_outcome, missing (planned requests without a row)."""
        return self._known.counts(self._plan.size)

    def missing(self, requests: Iterator[Request]) -> Iterator[Request]:
        """Those of `requests` that have no final row; in a fresh run `requests` itself."""
        return self._known.missing(requests)

    async def add(self, record: Record) -> None:
        """Write `record` down: when this returns it survives the process, and within 1 s or `risk_rows` rows the machine. Raises `StoreError`."""
        body, masked = encode(record, self.run_id, self._opening.ledger.manifest.columns, self._redactor)
        self._redacted += masked
        unscored = any(is_open(score) for score in record.scores.values())
        await self._write(body, record.request.key, record.outcome, unscored=unscored)

    async def answered(self, record: Record) -> None:
        """Write an answer down, as surely as `add` does, whose scores may take their time. It becomes a row with `add`, or else as it is here: when the run
        is left, or after a kill with the next `resume`.
        """
        body, _ = encode(record, self.run_id, self._opening.ledger.manifest.columns, self._redactor)
        self._answers[record.request.key] = (body, record.outcome)
        await self._append(encode_answer(body))
        self.in_flight.end(record.request.key)

    async def judged(self, judgement: Judgement) -> None:
        """Write `judgement` down, as surely as `add` does."""
        await self._write(encode_judgement(judgement, self._redactor))
        self.in_flight.end(judgement.id)

    async def rescore(self, row: Mapping[str, Any], scores: Mapping[str, Score]) -> None:
        """Give a row of `unscored` other scores; the rest of it stays."""
        unscored = any(is_open(score) for score in scores.values())
        await self._write(encode_scores(row, scores, self._redactor), row["key"], row["outcome"], unscored=unscored)

    def unscored(self) -> dict[str, dict[str, Any]]:
        """Key -> row of the answers that earlier sessions did not score to the end, as `rescore` takes it."""
        return unscored_rows(self.path, sorted({row.file for row in self._known.unscored.values()}))

    def judgements(self) -> dict[str, Judgement]:
        """Id -> judgement of what earlier sessions asked and had answered, for the requests that are not done."""
        return {judgement.id: judgement for judgement in answered_judgements(self.path) if not self._known.is_final(judgement.key)} if self.resumed else {}

    async def _write(self, body: bytes, key: str = "", outcome: str = "", *, unscored: bool = False) -> None:
        journal = self._ready()
        self._answers.pop(key, None)
        if key and (old := self._known.add(key, outcome, unscored=unscored)):
            self._superseded.setdefault(old, []).append(key)
        if not self._rows:
            self._segment_ns = self._settings.clock.now_ns()
        self._rows += 1
        await self._append(body)
        self.in_flight.end(key)
        if journal.rows >= self._settings.segment_rows or journal.size >= self._settings.segment_bytes:
            self._start_roll()
        elif self._roll_timer is None or self._roll_timer.done():
            self._roll_timer = asyncio.create_task(self._roll_in_time())

    def _ready(self) -> Journal:
        if self._failure is not None:
            raise self._failure
        if self._journal is None:
            raise StoreError(f"{self.path}: this run is not open")
        return self._journal

    async def _append(self, body: bytes) -> None:
        journal = self._ready()
        try:
            if not self._written and self.resumed is not None:
                with disk_errors(self.path):
                    set_back_report(self.path, self._settings.files)
            self._written = True
            await journal.append(frame(body))
        except Exception as error:
            self._fail(error)
            raise

    async def finish(self, state: Literal["complete", "interrupted"], reason: str | None = None, unrecorded: Mapping[str, float] | None = None) -> None:
        """Turn what is in the journal into parts, merge small ones, and close the manifest. Raises `StoreError`; does nothing if nothing was left to do.

        `unrecorded`: what was spent without a row; None leaves it as it was.
        """
        if self._journal is None:
            return
        for key, (body, outcome) in list(self._answers.items()):
            await self._write(body, key, outcome, unscored=True)
        await self._roll(self._journal)
        if self._failure is not None:
            raise self._failure
        await self._let_go()
        await self._in_thread(lambda: self._close_books(state, reason, {} if unrecorded is None else {"unrecorded": dict(unrecorded)}))

    async def __aenter__(self) -> Self:
        try:
            about = self._about
            await self._in_thread(self._opening.recover if about is None else lambda: self._opening.create(about))
            if not self.nothing_left:
                clock, files, first = self._settings.clock, self._settings.files, self._opening.ledger.manifest.journal_from
                journal = Journal(self.path / "journal", first, files=files, clock=clock, risk_rows=self._settings.risk_rows)
                await journal.open()
                with disk_errors(self.path):
                    self.in_flight.open(files)
                self._journal = journal
                self._started_ns = clock.now_ns()
                self._redacted = self._opening.ledger.manifest.redacted
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        try:
            if self._journal is not None and self._failure is None:
                await self.finish("interrupted", f"{kind.__name__}: {error}" if kind else "left before it was finished")
        finally:
            try:
                await self._let_go()
            finally:
                pointless = isinstance(error, asyncio.CancelledError) or (isinstance(error, RunError) and error.exit_code == RunError.exit_code)
                if pointless and self.resumed is None and not self.counts["done"]:
                    self._opening.remove()
                self._close()

    async def _let_go(self) -> None:
        if self._roll_timer is not None:
            self._roll_timer.cancel()
        async with self._rolling:
            journal, self._journal = self._journal, None
            if journal is not None:
                await journal.close()

    def _close(self) -> None:
        self._opening.close()
        self._known.forget()
        self._thread.shutdown(wait=False)
        pa.default_memory_pool().release_unused()  # 55 MB that parts were made in: whoever makes the report needs room

    def _start_roll(self) -> None:
        if self._journal is not None and (self._roll_task is None or self._roll_task.done()):
            self._roll_task = asyncio.create_task(self._roll(self._journal))

    async def _roll_in_time(self) -> None:
        clock = self._settings.clock
        while self._rows and self._failure is None:
            age_s = (clock.now_ns() - self._started_ns) / 1e9
            due_s = max(self._settings.segment_s, age_s / 10) - (clock.now_ns() - self._segment_ns) / 1e9
            if due_s > 0:
                await clock.sleep(due_s)
            else:
                self._start_roll()
                if self._roll_task is not None:
                    await asyncio.shield(self._roll_task)

    async def _roll(self, journal: Journal) -> None:
        """Turn the current segment into parts, beside the event loop. Never cancelled half-way; what goes wrong is raised by the next `add`."""
        async with self._rolling:
            if self._failure is not None or not self._rows:
                return
            try:
                fd = await journal.prepare(journal.number + 1)
                segment, superseded = journal.switch(fd), self._superseded
                self._superseded, self._rows = {}, 0
                for body, _ in list(self._answers.values()):  # the old segment goes
                    await journal.append(frame(encode_answer(body)))
                await journal.sync()
                changes = {"journal_from": journal.number, "counts": self.counts, "redacted": self._redacted}
                await self._in_thread(lambda: self._convert(segment, superseded, changes))
            except BaseException as error:
                self._fail(error)
                if not isinstance(error, Exception):
                    raise

    def _convert(self, segment: Path, superseded: dict[str, list[str]], changes: dict[str, Any]) -> None:
        ledger = self._opening.ledger
        ledger.commit(parts.tables(segment.read_bytes(), ledger.manifest.columns), superseded, **changes)

    def _close_books(self, state: str, reason: str | None, changes: Mapping[str, Any]) -> None:
        files, ledger, journal = self._settings.files, self._opening.ledger, self.path / "journal"
        ledger.merge(self._settings.segment_rows, self._settings.merge_rows)
        left = segments(journal, 0)
        for path in left.values():
            files.unlink(path)
        with suppress(OSError):  # somebody else's file in it is no reason to fail
            files.remove_directory(journal)
        if state == "complete":
            files.unlink(self.path / IN_FLIGHT)
        reason = None if reason is None else self._redactor.message(reason)
        ledger.update(state=state, reason=reason, finished_at=self._settings.now, counts=self.counts, redacted=self._redacted, **changes)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, StoreError) else StoreError(f"{self.path}: {self._redactor.message(repr(error))}")

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread, and return only when it has ended: a cancelled caller must not give the lock back while files still change."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._watched, work)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def _watched(self, work: Callable[[], None]) -> None:
        try:
            with disk_errors(self.path):
                work()
        except (pa.ArrowException, msgspec.MsgspecError) as error:
            raise StoreError(f"{self.path}: {self._redactor.message(str(error))}") from error
