"""Stored rows as the values that scorers take, and the same rows with other scores. Writes in one step: no reader of the manifest sees half of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from evalrunner.errors import StoreError
from evalrunner.records import Cell, Completion, Model, Price, Request, Sample, Score, Timing, Usage
from evalrunner.store import lock, parts
from evalrunner.store.files import disk_errors
from evalrunner.store.journal import segments
from evalrunner.store.known import is_open
from evalrunner.store.ledger import Ledger
from evalrunner.store.manifest import load, set_back_report
from evalrunner.store.opening import Settings
from evalrunner.store.redact import Redactor
from evalrunner.store.rows import Columns

_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens")

Row = Mapping[str, Any]
Rescored = Mapping[str, Mapping[str, Score]]


def request_of(row: Row, sample: Sample, target: str | None, price: Price | None) -> Request:
    """What was asked, from a row of `results`; the row knows of its sample only id, hash and tags, and of its model no price."""
    model = Model(name=row["model"], id=row["model_id"], provider=row["provider"], price=price)
    cell = Cell(prompt_set=row["prompt_set"], prompt=row["prompt"], model=model, params=msgspec.json.decode(row["params"]), stream=row["stream"])
    messages = msgspec.json.decode(row["messages"]) if row["messages"] else []
    return Request(key=row["key"], cell=cell, sample=sample, trial=row["trial"], messages=messages, target=target)


def completion_of(row: Row) -> Completion:
    """The answer of a row of `results`, as far as scorers look at it."""
    ns = {name: None if row[f"{name}_ms"] is None else int(row[f"{name}_ms"] * 1e6) for name in ("latency", "ttft", "ttft_content")}
    return Completion(
        output=row["output"],
        finish_reason=row["finish_reason"],
        timing=Timing(
            started_ns=0,
            ended_ns=ns["latency"] or 0,
            first_output_ns=ns["ttft"],
            first_content_ns=ns["ttft_content"],
            last_output_ns=ns["latency"] if ns["ttft"] is not None else None,
            output_events=row["chunks"],
        ),
        reasoning=row["reasoning"],
        tool_calls=tuple(msgspec.json.decode(row["tool_calls"])) if row["tool_calls"] else (),
        conversation=tuple(msgspec.json.decode(row["conversation"])) if row["conversation"] else (),
        usage=Usage(**{name: row[name] for name in _TOKENS}, source=row["usage_source"]) if row["usage_source"] else None,
        response_id=row["response_id"],
        response_model=row["response_model"],
        http_status=row["http_status"],
    )


class NewConfig(NamedTuple):
    """A config as it was written, and where."""

    text: str
    path: Path


class Corrected(NamedTuple):
    """What a row is from now on: the same answer, beside another gold answer."""

    key: str
    sample_hash: str
    target: str | None
    tags: Mapping[str, str]


class Change(NamedTuple):
    """What is written in one commit. `plan`: for the manifest · `scorers`: those that have a column from then on · `scores`: by file, key and scorer ·
    `corrected`: by the key of before · `labels`: of people, by scorer and key, for the judgements · `config`: is in force from then on · `said`: for the
    manifest's messages.
    """

    plan: Mapping[str, Any]
    scorers: Sequence[str]
    scores: Mapping[str, Rescored]
    corrected: Mapping[str, Corrected] = {}
    labels: Mapping[str, Mapping[str, float]] = {}
    config: NewConfig | None = None
    said: Sequence[str] = ()


class StoredAnswers:
    """The results of a run that nobody writes to while this is open; see `stored_answers`."""

    def __init__(self, run: Path, redactor: Redactor, settings: Settings) -> None:
        self.manifest = load(run)
        self._run, self._redactor, self._files = run, redactor, settings.files
        ledger = Ledger(run, self.manifest, self._files, redactor)
        ledger.settle()
        if segments(run / "journal", self.manifest.journal_from):
            raise StoreError(f"{run}: was killed and has rows in its journal; go on with `evalrunner resume {run}` first")
        self.messages = ledger.check()
        self.manifest = ledger.manifest

    @property
    def files(self) -> list[str]:
        """Where the rows are, part by part."""
        return self._files_of("results")

    def rows(self, file: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of one part, or those of `columns` that it has."""
        return parts.read(self._run / file, columns).to_pylist()  # type: ignore[no-any-return]

    def rescore(self, change: Change) -> None:
        """Put scores into their columns, new ones where there are none, and correct what is beside them."""
        columns = Columns(params=self.manifest.columns.params, scores=list(dict.fromkeys([*self.manifest.columns.scores, *change.scorers])))
        manifest = msgspec.structs.replace(self.manifest, columns=columns)
        schema = parts.schemas(columns)["results"]
        fresh = {file: self._rescored(file, schema, change) for file in self.files}
        for table in ("attempts", "judgements") if change.corrected else ("judgements",) if change.labels else ():
            fresh |= {file: self._beside(file, change) for file in self._files_of(table)}
        changes: dict[str, Any] = {"plan": msgspec.to_builtins(dict(change.plan), enc_hook=str), "messages": [*manifest.messages, *change.said]}
        if waiting := sum(any(map(is_open, found.values())) for rescored in change.scores.values() for found in rescored.values()):
            changes["counts"] = {**manifest.counts, "unscored": max(waiting, manifest.counts.get("unscored", 0))}
        if change.config is not None:
            changes["config"] = self._kept(change.config)
        set_back_report(self._run, self._files)
        Ledger(self._run, manifest, self._files, self._redactor).rewrite(fresh, **changes)

    def _kept(self, config: NewConfig) -> dict[str, Any]:
        """A copy under a name of its own: until the manifest names it, the old one is in force."""
        text = self._redactor.text(config.text).encode()
        digest = hashlib.sha256(text).hexdigest()
        file = f"config-{digest[:8]}.yaml"
        self._files.replace_file(self._run / file, text)
        return {"origin": os.path.relpath(config.path.resolve(), self._run.resolve()), "hash": digest, "file": file}

    def _rescored(self, file: str, schema: pa.Schema, change: Change) -> Iterator[pa.Table]:
        table = _with_scores(parts.conform(parts.read(self._run / file), schema), change.scores.get(file, {}))
        yield _with_corrections(table, change.corrected)

    def _beside(self, file: str, change: Change) -> Iterator[pa.Table]:
        table = parts.read(self._run / file)
        keys = table["key"].to_pylist()
        if "label" in table.column_names:
            places = zip(table["scorer"].to_pylist(), keys, table["label"].to_pylist(), strict=True)
            table = _replaced(table, "label", [change.labels.get(scorer, {}).get(key, before) for scorer, key, before in places])
        yield _replaced(table, "key", [change.corrected[key].key if key in change.corrected else key for key in keys])

    def _files_of(self, table: str) -> list[str]:
        return [part.file for part in self.manifest.parts if part.table == table]


@contextmanager
def stored_answers(run: Path, *, redactor: Redactor | None = None, settings: Settings | None = None) -> Iterator[StoredAnswers]:
    """The stored results of `run`, locked while the block runs. Raises `RunLockedError`, and `StoreError` where the run must be resumed first."""
    settings = settings or Settings()
    load(run)
    held = lock.take(run, settings.files, settings.now)
    try:
        with disk_errors(run):
            yield StoredAnswers(run, redactor or Redactor(), settings)
    finally:
        os.close(held)


def _with_scores(table: pa.Table, scores: Rescored) -> pa.Table:
    """`table` with the scores that are given; a null in a given row replaces what was there, rows that are not given keep theirs."""
    keys = table["key"].to_pylist()
    for name in dict.fromkeys(name for found in scores.values() for name in found):
        old = table[f"score_{name}"].to_pylist(), table[f"score_{name}_why"].to_pylist()
        new = [scores.get(key, {}).get(name) for key in keys]
        values = [before if score is None else _number(score.value) for before, score in zip(old[0], new, strict=True)]
        reasons = [before if score is None else score.why or None for before, score in zip(old[1], new, strict=True)]
        table = _replaced(_replaced(table, f"score_{name}", values), f"score_{name}_why", reasons)
    return table


def _with_corrections(table: pa.Table, corrected: Mapping[str, Corrected]) -> pa.Table:
    now = [corrected.get(key) for key in table["key"].to_pylist()]
    for column in Corrected._fields if any(now) else ():
        values = zip(table[column].to_pylist(), now, strict=True)
        fresh = [before if one is None else getattr(one, column) for before, one in values]
        table = _replaced(table, column, [list(dict(tags or ()).items()) for tags in fresh] if column == "tags" else fresh)
    return table


def _replaced(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
