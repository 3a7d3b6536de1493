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
from evalrunner.records import Cell, Completion, Model, Request, Sample, Score, Timing, Usage
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


def request_of(row: Row, sample: Sample) -> Request:
    """What was asked, from a row of `results`; the row knows of its sample only id, hash and tags."""
    model = Model(name=row["model"], id=row["model_id"], provider=row["provider"])
    cell = Cell(prompt_set=row["prompt_set"], prompt=row["prompt"], model=model, params=msgspec.json.decode(row["params"]), stream=row["stream"])
    messages = msgspec.json.decode(row["messages"]) if row["messages"] else []
    return Request(key=row["key"], cell=cell, sample=sample, trial=row["trial"], messages=messages, target=row["target"])


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

    def parts(self) -> Iterator[list[dict[str, Any]]]:
        """The rows, part by part."""
        for part in self._results():
            yield parts.read(self._run / part).to_pylist()

    def rescore(self, scores: Sequence[Rescored], plan: Mapping[str, Any], config: NewConfig | None = None) -> None:
        """Put `scores` (by key and scorer, one mapping for each of `parts`) into their columns, new ones where there are none, and `plan` into the manifest.

        `config` is in force from then on: the same commit names its copy, and how many scores are still to come.
        """
        names = dict.fromkeys([*self.manifest.columns.scores, *(name for rescored in scores for found in rescored.values() for name in found)])
        columns = Columns(params=self.manifest.columns.params, scores=list(names))
        schema = parts.schemas(columns)["results"]
        manifest = msgspec.structs.replace(self.manifest, columns=columns)
        fresh = {file: self._rescored(file, schema, found) for file, found in zip(self._results(), scores, strict=True)}
        changes: dict[str, Any] = {"plan": msgspec.to_builtins(dict(plan), enc_hook=str)}
        if waiting := sum(any(map(is_open, found.values())) for rescored in scores for found in rescored.values()):
            changes["counts"] = {**manifest.counts, "unscored": max(waiting, manifest.counts.get("unscored", 0))}
        if config is not None:
            changes["config"] = self._kept(config)
        set_back_report(self._run, self._files)
        Ledger(self._run, manifest, self._files, self._redactor).rewrite(fresh, **changes)

    def _kept(self, config: NewConfig) -> dict[str, Any]:
        """A copy under a name of its own: until the manifest names it, the old one is in force."""
        text = self._redactor.text(config.text).encode()
        digest = hashlib.sha256(text).hexdigest()
        file = f"config-{digest[:8]}.yaml"
        self._files.replace_file(self._run / file, text)
        return {"origin": os.path.relpath(config.path.resolve(), self._run.resolve()), "hash": digest, "file": file}

    def _rescored(self, file: str, schema: pa.Schema, scores: Rescored) -> Iterator[pa.Table]:
        yield _with_scores(parts.conform(parts.read(self._run / file), schema), scores)

    def _results(self) -> list[str]:
        return [part.file for part in self.manifest.parts if part.table == "results"]


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
        for column, cells, kind in ((f"score_{name}", values, pa.float64()), (f"score_{name}_why", reasons, pa.string())):
            table = table.set_column(table.schema.get_field_index(column), column, pa.array(cells, kind))
    return table


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
