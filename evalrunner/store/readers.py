"""Reading a run, finished or not: its parts as the manifest lists them, and what is still in the journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.dataset as pads

from evalrunner.errors import StoreError
from evalrunner.store import parts
from evalrunner.store.journal import read_segment, segments
from evalrunner.store.ledger import checksum, hidden_path
from evalrunner.store.manifest import Manifest, Part, parse, raw

_TRIES = 20
_IN_PASSES = pads.ParquetFileFormat(pre_buffer=False, use_buffered_stream=True)
"""Holds a page of each column and not whole parts."""


def read_manifest(run: str | Path) -> dict[str, Any]:
    """The manifest of `run`, checked. Raises `StoreError`."""
    run = Path(run)
    text = raw(run)
    parse(run, text)
    return msgspec.json.decode(text)  # type: ignore[no-any-return]


def read_results(run: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Every row of `run`, or `columns` of it, each key once: a killed run shows everything that was written down. Raises `StoreError`."""
    return _read(Path(run), "results", columns)


def read_attempts(run: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Every attempt of `run`, also those of rows that a later resume replaced. Raises `StoreError`."""
    return _read(Path(run), "attempts", columns)


def read_judgements(run: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Every question that scorers asked models in `run`, and what came of it. Raises `StoreError`."""
    return _read(Path(run), "judgements", columns)


def rows_of(run: str | Path, name: str) -> pa.Table | pads.Dataset:
    """A table of `run` to read in passes and column by column: of a run that is at rest nothing is in memory. Raises `StoreError`."""
    run = Path(run)
    manifest = parse(run, raw(run))
    if manifest.state == "running" or segments(run / "journal", manifest.journal_from):
        return _read(run, name, None)
    schema = parts.schemas(manifest.columns)[name]
    files = [str(_place(run, part)) for part in manifest.parts if part.table == name]
    return pads.dataset(files, schema=schema, format=_IN_PASSES) if files else schema.empty_table()


def _read(run: Path, name: str, columns: Sequence[str] | None) -> pa.Table:
    for _ in range(_TRIES):
        before = raw(run)
        try:
            table = _snapshot(run, parse(run, before), name, columns)
        except (OSError, pa.ArrowException, StoreError):
            if raw(run) == before:
                raise
        else:
            # a live run may have moved on while we read: then what we have is neither its old state nor its new one
            if raw(run) == before:
                return table
    raise StoreError(f"{run}: changes faster than it can be read")


def _snapshot(run: Path, manifest: Manifest, name: str, columns: Sequence[str] | None) -> pa.Table:
    schema = parts.schemas(manifest.columns)[name]
    if unknown := set(columns or ()) - set(schema.names):
        raise StoreError(f"{run}: {name} has no column {', '.join(sorted(unknown))}")
    lines = [line for path in segments(run / "journal", manifest.journal_from).values() for line in read_segment(path).lines]
    wanted = list(dict.fromkeys([*columns, "key"])) if columns is not None else schema.names
    wanted_schema = pa.schema([schema.field(column) for column in wanted])
    stored = [parts.conform(parts.read(_place(run, part), wanted), wanted_schema) for part in manifest.parts if part.table == name]
    if lines:
        fresh = parts.tables(b"\n".join(lines), manifest.columns)[name]
        if name == "results":
            keys = fresh["key"].to_pylist()
            stored = [parts.without(table, keys) for table in stored]
        stored.append(fresh.select(wanted))
    table = pa.concat_tables([wanted_schema.empty_table(), *stored])
    return table if columns is None else table.select(list(columns))


def _place(run: Path, part: Part) -> Path:
    """Where the content is that the manifest names: a run killed in the middle of a commit may not have given the part its name yet."""
    for path in (run / part.file, hidden_path(run / part.file)):
        if path.exists() and checksum(path) == part.sha256:
            return path
    raise StoreError(f"{run}: {part.file} is damaged or missing; `evalrunner resume {run}` puts it aside and asks again for what is lost")
