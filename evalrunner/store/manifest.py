"""`manifest.json`: what a run is, where it stands, and which parts belong to it. It changes last, and atomically: what it names exists and is durable."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from evalrunner.errors import StoreError
from evalrunner.store.files import Files
from evalrunner.store.redact import Redactor
from evalrunner.store.rows import Columns

REPORT, EARLIER_REPORT = "report.html", "report.old.html"
SCHEMA = 1
"""Of the whole run directory. Older ones are read (and their parts migrated by `resume`), newer ones refused."""


class Part(Struct, frozen=True):
    """One Parquet file that belongs to the run; `file` is relative to the run directory."""

    file: str
    rows: int
    sha256: str

    @property
    def table(self) -> str:
        return self.file.partition("/")[0]


class Manifest(Struct, kw_only=True):
    """The file, field by field. `journal_from`: earlier segments are in parts already · `dropped`: parts the last commit took away · `messages`: what the
    store had to report (damage, changed data) · `redacted`: rows in which a secret was masked · `unrecorded`: spent from a budget without a row.
    """

    schema: int = SCHEMA
    evalrunner: str
    python: str
    platform: str
    host: str
    run_id: str
    name: str
    description: str = ""
    state: str = "running"
    reason: str | None = None
    started_at: str
    finished_at: str | None = None
    command: list[str] = field(default_factory=list)
    git: dict[str, Any] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    resumes: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    columns: Columns
    journal_from: int = 0
    next_part: int = 0
    dropped: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    redacted: int = 0
    unrecorded: dict[str, float] = field(default_factory=dict)


def this_machine() -> dict[str, Any]:
    """Where and by what a run is made."""
    return {"evalrunner": version("evalrunner"), "python": platform.python_version(), "platform": platform.platform(), "host": socket.gethostname()}


def with_scorers_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The described plan `new`, with the scorers that `old` has and it does not name: a config takes no score away from the rows there are."""
    named = {one["name"] for one in new.get("scorers") or ()}
    had = {one["name"]: one["scorers"] for one in old.get("prompt_sets") or () if "scorers" in one}
    joined = dict(new)
    if kept := [one for one in old.get("scorers") or () if one["name"] not in named]:
        names = {one["name"] for one in kept}
        joined["scorers"] = [*(new.get("scorers") or ()), *kept]
        joined["prompt_sets"] = [
            {**one, "scorers": [*one["scorers"], *(name for name in had.get(one["name"], ()) if name in names)]} for one in new["prompt_sets"]
        ]
    return joined


def iso(us: int) -> str:
    """Microseconds since the epoch as ISO 8601, UTC."""
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds")


def manifest_path(run: Path) -> Path:
    return run / "manifest.json"


def load(run: Path) -> Manifest:
    """The manifest of `run`. Raises `StoreError` where there is none, or one that this version cannot read."""
    return parse(run, raw(run))


def raw(run: Path) -> bytes:
    try:
        return manifest_path(run).read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{run}: no run here (manifest.json is missing)") from None
    except OSError as error:
        raise StoreError(f"{manifest_path(run)}: {error.strerror or error}") from error


def parse(run: Path, text: bytes) -> Manifest:
    """Checks the version before anything else, so that a newer shape is not called damage."""
    try:
        seen = msgspec.json.decode(text)
        made_by, schema = seen["evalrunner"], int(seen["schema"])
        if schema > SCHEMA:
            raise StoreError(f"{run}: made by evalrunner {made_by} (schema {schema}); this version reads up to schema {SCHEMA}: install a newer evalrunner")
        return msgspec.convert(seen, Manifest)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        advice = "its Parquet parts can still be read one by one"
        raise StoreError(f"{manifest_path(run)}: damaged beyond repair ({error}); {advice}") from error


def save(run: Path, manifest: Manifest, files: Files, redactor: Redactor) -> None:
    text = msgspec.json.encode(redactor.value(msgspec.to_builtins(manifest)))
    files.replace_file(manifest_path(run), msgspec.json.format(text, indent=2) + b"\n")


def set_back_report(run: Path, files: Files) -> None:
    """The rows are about to change: a report of the old ones is kept, under a name that nobody takes for the run's."""
    if (run / REPORT).exists():
        files.rename(run / REPORT, run / EARLIER_REPORT)
        files.sync_directory(run)
