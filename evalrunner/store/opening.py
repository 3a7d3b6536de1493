"""How a run directory comes to be, and how it is found again: version, lock, damage, and the rows a killed run left in its journal."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from evalrunner.clock import SYSTEM_CLOCK, Clock
from evalrunner.errors import StoreError
from evalrunner.records import Plan
from evalrunner.store import lock, parts
from evalrunner.store.files import Files
from evalrunner.store.in_flight import IN_FLIGHT, InFlight
from evalrunner.store.journal import RISK_ROWS, read_segment, segments
from evalrunner.store.known import KnownRows, digest
from evalrunner.store.ledger import Ledger
from evalrunner.store.manifest import Manifest, iso, load, manifest_path, set_back_report, this_machine, with_scorers_of
from evalrunner.store.redact import Redactor
from evalrunner.store.rows import answers_alone, columns_of, joined

_OURS = {lock.LOCK, IN_FLIGHT, "config.yaml", ".config.yaml.new", ".manifest.json.new", "journal", *parts.TABLES}


class About(Struct, frozen=True, kw_only=True):
    """What the manifest says of a new run beside its plan. `config_path`: where the config came from, if it came from a file."""

    run_id: str
    description: str = ""
    config_text: str = ""
    config_path: Path | None = None
    command: list[str] = field(default_factory=list)
    git: dict[str, Any] | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """`risk_rows`: so many may be lost with the power; 1 is fsync before every `add` returns. A journal segment becomes a part at so many rows or bytes, or
    when its first row is `segment_s` old (in long runs a tenth of the run's age, which bounds the number of parts). At the end small parts become one of at
    most `merge_rows`.
    """

    risk_rows: int = RISK_ROWS
    segment_rows: int = 10_000
    segment_bytes: int = 64 << 20
    segment_s: float = 10.0
    merge_rows: int = 100_000
    clock: Clock = SYSTEM_CLOCK
    files: Files = field(default_factory=Files)

    @property
    def now(self) -> str:
        """ISO 8601, UTC."""
        return iso(self.clock.wall_us(self.clock.now_ns()))


class Resumed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `resume` found: keys that are final, planned requests without a row, rows without an answer, whose requests are sent again, and answers with a
    score that is still to come.

    `in_flight`: how many of them were under way when the last session was killed or dropped them; they may have been paid for, and are bought again.
    """

    answered: int
    missing: int
    sent_again: int
    unscored: int = 0
    in_flight: int = 0

    def told(self) -> Iterator[str]:
        """The same in words."""
        yield f"resuming: {self.answered:,} answered, {self.missing:,} without a row, {self.sent_again:,} without an answer and sent again"
        if self.unscored:
            yield f"{self.unscored:,} answers are still to be scored; they are not asked again"
        if self.in_flight:
            yield f"{self.in_flight:,} of them were in flight when the last session ended: they may have been paid for, and are sent again"


class Opening:
    """One directory on its way to be written to. Blocking. `close` gives the lock back."""

    def __init__(self, run: Path, plan: Plan, redactor: Redactor, settings: Settings) -> None:
        self.ledger: Ledger
        self.known = KnownRows()
        self.resumed: Resumed | None = None
        self.messages: list[str] = []
        self.nothing_left = False
        self.in_flight = InFlight(run / IN_FLIGHT)
        self._run = run
        self._plan = plan
        self._redactor = redactor
        self._settings = settings
        self._files = settings.files
        self._lock = -1

    def create(self, about: About) -> None:
        """A new run; refuses a directory that holds anything but the first steps of a run that was killed as it began."""
        run, files = self._run, self._files
        self._refuse_foreign()
        files.make_directory(run)
        self._lock = lock.take(run, files, self._settings.now)
        self._refuse_foreign()
        for name in parts.EVERY_RUN:
            files.make_directory(run / name)
        text = self._redactor.text(about.config_text)
        files.replace_file(run / "config.yaml", text.encode())
        origin = None if about.config_path is None else os.path.relpath(about.config_path.resolve(), run.resolve())
        manifest = Manifest(
            **this_machine(),
            run_id=about.run_id,
            name=self._plan.name,
            description=about.description,
            started_at=self._settings.now,
            command=[self._redactor.message(word) for word in about.command],
            git=about.git,
            config={"origin": origin, "hash": hashlib.sha256(text.encode()).hexdigest()},
            plan=self._described(),
            counts=self.known.counts(self._plan.size),
            columns=columns_of(self._plan),
        )
        self.ledger = Ledger(run, manifest, files, self._redactor)
        self.ledger.commit(parts.tables(b"", manifest.columns), {})

    def recover(self) -> None:
        """An old run, made whole: nothing is written before it is known that this version may."""
        load(self._run)
        self._lock = lock.take(self._run, self._files, self._settings.now)
        manifest = load(self._run)
        old_plan, new_plan = manifest.plan, with_scorers_of(manifest.plan, self._described())
        manifest.columns = joined(manifest.columns, columns_of(self._plan))
        for name in parts.EVERY_RUN:
            self._files.make_directory(self._run / name)
        self.ledger = Ledger(self._run, manifest, self._files, self._redactor)
        self.ledger.settle()
        self.messages = self.ledger.check()
        self._scan("results", self.known)
        following = self._replay_journal()
        self.messages += _changed_data(old_plan, new_plan)
        if _asks(old_plan) != _asks(new_plan) or self.known.counts(0)["done"] > self._plan.size:
            self._sort_out()
        self._resume(old_plan == new_plan, following, new_plan)

    def remove(self) -> None:
        """Take away a new run that holds no row, as far as the disk allows: it is not worth an error of its own."""
        with suppress(OSError):
            for name in (*sorted(_OURS - {lock.LOCK}), manifest_path(self._run).name, lock.LOCK):
                path = self._run / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            self._run.rmdir()

    def close(self) -> None:
        self.in_flight.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _resume(self, same_plan: bool, following: int, plan: dict[str, Any]) -> None:
        manifest, known = self.ledger.manifest, self.known
        counts = known.counts(self._plan.size)
        left = {"missing": counts["missing"], "sent_again": len(known.open), "unscored": len(known.unscored)}
        self.resumed = Resumed(answered=known.final, in_flight=known.without_answer(self.in_flight.read()), **left)
        if manifest.state == "complete" and same_plan and not (self.messages or known.open or known.unscored or counts["missing"]):
            self.nothing_left = True
            return
        now = {"at": self._settings.now, **msgspec.to_builtins(self.resumed)}
        self.ledger.update(
            state="running",
            reason=None,
            finished_at=None,
            plan=plan,
            counts=counts,
            resumes=[*manifest.resumes, now],
            messages=[*manifest.messages, *(said for said in self.messages if said not in manifest.messages)],
            journal_from=following,
        )
        self.ledger.settle()

    def _scan(self, table: str, known: KnownRows) -> None:
        columns = ["key", "outcome", *(f"score_{name}_why" for name in self.ledger.manifest.columns.scores)]
        for part in self.ledger.manifest.parts:
            if part.table == table:
                known.scan(parts.read(self._run / part.file, columns), part.file)

    def _sort_out(self) -> None:
        """Hold every row against a plan that may have other keys than the one it was made for; makes all keys of the plan, so only then."""
        superseded = KnownRows()
        self._scan("superseded", superseded)
        strange, aside, back = self.known.digests(), superseded.digests(), set()
        aside -= strange  # a row whose gold answer was corrected may have the key of one that went
        for key in (digest(request.key) for model in self._plan.models for request in self._plan.requests(model)):
            strange.discard(key)
            if key in aside:
                back.add(key)

        def comes(key: str) -> bool:
            """Once: what went twice has two rows there."""
            known = digest(key) in back
            back.discard(digest(key))
            return known

        went, came = self.ledger.sort_out({"results": lambda key: digest(key) in strange, "superseded": comes})
        if went:
            self.messages.append(
                f"{went:,} rows are of requests that are not planned any more: kept in superseded/, in no figure; a budget still counts what they cost"
            )
        if came:
            self.messages.append(f"{came:,} rows of superseded/ are of requests that are planned again: back in the results")
        if went or came:
            set_back_report(self._run, self._files)
            self.known.clear()
            self._scan("results", self.known)

    def _replay_journal(self) -> int:
        """Turn what a killed run left into parts; returns the number of the next segment."""
        following = self.ledger.manifest.journal_from
        found = {number: (path, read_segment(path)) for number, path in segments(self._run / "journal", following).items()}
        alone = answers_alone(segment.lines for _, segment in found.values())
        answers = [body for key, body in alone.items() if not self.known.has_answer(key)]
        for number, (path, segment) in found.items():
            if number > following:
                self.messages.append(f"journal segments {following} to {number - 1} are missing: their rows are asked again")
            following = number + 1
            if segment.torn:
                self.messages.append(f"{path.name}: dropped {segment.torn} bytes at its end that were cut short; what they held is asked again")
            if segment.damaged:
                aside = self.ledger.put_aside(path, copy=True)
                lines = ", ".join(map(str, segment.damaged))
                self.messages.append(f"{path.name}: damaged in line {lines}, kept as {aside}; those rows are asked again")
            if segment.lines:
                self._replay([*segment.lines, *answers], following)  # with the first: later segments may hold them again, and are gone with their commit
                answers = []
        return following

    def _replay(self, lines: list[bytes], following: int) -> None:
        tables = parts.tables(b"\n".join(lines), self.ledger.manifest.columns)
        keys = tables["results"]["key"].to_pylist()
        tables["results"] = parts.without(tables["results"], [key for key in keys if self.known.is_final(key)])
        superseded: dict[str, list[str]] = {}
        for key in keys:
            if old := self.known.take(key):
                superseded.setdefault(old, []).append(key)
        file = self.ledger.commit(tables, superseded, journal_from=following)
        self.known.scan(tables["results"], file)

    def _described(self) -> dict[str, Any]:
        described = msgspec.to_builtins(dict(self._plan.describe()), enc_hook=str)
        return self._redactor.value(described)  # type: ignore[no-any-return]

    def _refuse_foreign(self) -> None:
        run = self._run
        if manifest_path(run).exists():
            raise StoreError(f"{run}: holds a run already; go on with `evalrunner resume {run}`, or choose another directory with --out")
        if run.exists() and not run.is_dir():
            raise StoreError(f"{run}: is not a directory")
        found = {path.name for path in run.iterdir()} if run.exists() else set()
        if found and not (lock.LOCK in found and found <= _OURS):
            raise StoreError(f"{run}: is not empty and no run; choose another directory with --out")


def _asks(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a described plan can change its keys."""
    described = {name: plan.get(name) for name in ("size", "trials", "grid", "stream", "models", "providers", "limit")}
    return described | {"prompt_sets": [{name: value for name, value in one.items() if name != "scorers"} for one in plan.get("prompt_sets") or ()]}


def _changed_data(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    described = {one["name"]: one for one in new.get("prompt_sets") or ()}
    return [
        f"the {kind} of {one['name']} changed since this run began ({one.get(name)} -> {described[one['name']].get(name)}): changed samples are new requests"
        for one in old.get("prompt_sets") or ()
        for kind, name in (("data", "data_hash"), ("media", "media_hash"))
        if one["name"] in described and described[one["name"]].get(name) != one.get(name)
    ]
