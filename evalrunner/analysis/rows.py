"""The records of a run as columns of numbers and codes, in an order of their own (cell, sample, trial), so that equal records give equal tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from evalrunner.analysis.rules import LATENCIES as LATENCIES
from evalrunner.analysis.rules import TOKENS as TOKENS
from evalrunner.analysis.rules import CellKey as CellKey
from evalrunner.records import ANSWERED

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

IDENTITY = ("prompt_set", "prompt", "model", "provider", "params", "stream")
_PLAIN = ("key", "model_id", "sample_id", "sample_hash", "trial", "tags", "outcome", "response_model", "error_code", "error_message", "http_status")
_MEASURED = ("attempts", "turns", "usage_source", "cost", "currency", "scheduled_at", "started_at", "finished_at", "stalled_ms", *LATENCIES, *TOKENS.values())
PIECE = 16_000
"""Rows that are read at a time."""
ATTEMPT_COLUMNS = ("key", "attempt", "http_status", "outcome", "error_code", "error_message", "cost", "raw")


class Factor(NamedTuple):
    """A column of few distinct values: `names[codes[i]]` is row i's, code -1 its absence. Names are sorted."""

    codes: Ints
    names: list[Any]


def columns_needed(names: Sequence[str]) -> list[str]:
    """Which columns of `results` a summary reads, of those called `names`: neither texts nor conversations, so a million rows fit into memory."""
    wanted = {*IDENTITY, *_PLAIN, *_MEASURED}
    return [name for name in names if name in wanted or name.startswith("score_")]


def is_score(column: str) -> bool:
    """Whether `column` holds the scores of a scorer (and not their reasons)."""
    return column.startswith("score_") and not column.endswith("_why")


class Stored:
    """What is needed of a dataset as if it were a table: each column is read when it is asked for, so that a million rows are never in memory at once."""

    def __init__(self, rows: pads.Dataset, wanted: Sequence[str]) -> None:
        self._rows = rows
        self.num_rows: int = rows.count_rows()
        self.column_names: list[str] = [name for name in rows.schema.names if name in wanted]

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return pa.chunked_array(list(self.pieces(name)), self._rows.schema.field(name).type)

    def encoded(self, name: str) -> pa.ChunkedArray:
        """The column as numbers of its distinct values: piece by piece, so that no text is in memory once for each row."""
        kind = pa.dictionary(pa.int32(), self._rows.schema.field(name).type)
        return pa.chunked_array([pc.dictionary_encode(piece) for piece in self.pieces(name)], kind)

    def any(self, name: str) -> bool:
        """Whether the column holds anything but nulls; reads it until it does."""
        return any(piece.null_count < len(piece) for piece in self.pieces(name))

    def first(self, name: str, where: pads.Expression) -> Any:
        """What stands in the column in the first row that fits; reads until there is one."""
        scan = {"schema": self._rows.schema, "columns": [name], "filter": where, "use_threads": False}
        heads = (fragment.scanner(**scan).head(1) for fragment in self._rows.get_fragments())
        return next((head[name][0].as_py() for head in heads if head.num_rows), None)

    def pieces(self, name: str) -> Iterator[pa.Array]:
        yield from (batch.column(0) for batch in in_pieces(self._rows, {name: pads.field(name)}))
        pa.default_memory_pool().release_unused()  # what one column was read in is kept otherwise, and the next takes more


def in_pieces(rows: pads.Dataset, columns: Mapping[str, pads.Expression] | None = None) -> Iterator[pa.RecordBatch]:
    """All rows, or these columns of them, in their order and some thousand at a time. File by file: a dataset of many reads ahead, and holds it."""
    for fragment in rows.get_fragments():
        yield from fragment.to_batches(schema=rows.schema, columns=columns and dict(columns), batch_size=PIECE, use_threads=False)


Records: TypeAlias = pa.Table | pd.DataFrame | pads.Dataset


def names_of(rows: Records) -> list[str]:
    """The columns that there are."""
    if isinstance(rows, pads.Dataset):
        return list(rows.schema.names)
    return list(rows.column_names) if isinstance(rows, pa.Table) else list(rows.columns)


def as_table(rows: Records, wanted: Sequence[str]) -> pa.Table | Stored:
    """`rows` as an Arrow table of at most the columns `wanted`. In a data frame, tags are lists of pairs, as pyarrow gives them."""
    if isinstance(rows, pads.Dataset):
        return Stored(rows, wanted)
    if isinstance(rows, pa.Table):
        return rows.select([name for name in rows.column_names if name in wanted])
    arrays = {}
    for name in rows.columns:
        if name in wanted:
            kind = pa.map_(pa.string(), pa.string()) if name == "tags" else None
            arrays[name] = pa.array(rows[name], type=kind, from_pandas=True)
    return pa.table(arrays)


class Rows:
    """One row per request. Columns are read when asked for; a missing column is all null."""

    def __init__(self, table: pa.Table | Stored, plan: Mapping[str, Any]) -> None:
        self._table = table
        self.n: int = table.num_rows
        self._order: Ints = np.arange(self.n)
        self.cells, cell = self._find_cells(plan)
        sample, trial = self.factor("sample_id").codes, self.number("trial")
        self._order = np.lexsort((trial, sample, cell))
        self.cell: Ints = cell[self._order]
        self.sample: Ints = sample[self._order]
        fresh = np.ones(self.n, dtype=np.bool_)
        fresh[1:] = (np.diff(self.cell) != 0) | (np.diff(self.sample) != 0)
        self.unit: Ints = np.cumsum(fresh) - 1
        self.first: Ints = np.flatnonzero(fresh)
        outcomes = self.factor("outcome")
        self.outcome = outcomes
        self.stalled: Mask = ~np.isnan(self.number("stalled_ms"))
        self.answered: Mask = np.isin(outcomes.codes, [code for code, name in enumerate(outcomes.names) if name in ANSWERED])

    def has(self, name: str) -> bool:
        return name in self._table.column_names

    @property
    def names(self) -> list[str]:
        return list(self._table.column_names)

    def any(self, name: str) -> bool:
        """Whether the column holds anything but nulls."""
        if isinstance(self._table, Stored):
            return self.has(name) and self._table.any(name)
        return self.has(name) and self._table[name].null_count < self.n

    def first_reason(self, score: str) -> str | None:
        """Why the first row without this score has none, if one says so."""
        why = f"{score}_why"
        if not self.has(why):
            return None
        fits = pads.field(score).is_null() & pads.field(why).is_valid()
        found = self._table.first(why, fits) if isinstance(self._table, Stored) else next(iter(self._table.filter(fits)[why].to_pylist()), None)
        return str(found) if found else None

    def find(self, keys: Iterable[pa.Array]) -> Ints:
        """The place of each key's row, in order; -1 where there is none. Keys are matched by 64 bits: a million texts and a table of them need 160 MB."""
        wanted = _digests(keys)
        if not self.has("key") or not self.n:
            return np.full(len(wanted), -1)
        own = _digests(pieces_of(self._table, "key"))
        sorter = np.argsort(own, kind="stable")
        at = sorter[np.minimum(np.searchsorted(own, wanted, sorter=sorter), self.n - 1)]
        place = np.empty(self.n, dtype=np.int64)
        place[self._order] = np.arange(self.n)
        return np.where(own[at] == wanted, place[at], -1)

    def array(self, name: str) -> Any:
        """The column as one Arrow array, in order."""
        if not self.has(name):
            return pa.nulls(self.n)
        return pc.take(_combined(self._table[name]), pa.array(self._order))

    def number(self, name: str) -> Floats:
        """The column as floats, NaN for null, and for times that a stall of our own spoiled."""
        if not self.has(name):
            return np.full(self.n, np.nan)
        column = _combined(self._table[name])
        if pa.types.is_timestamp(column.type):
            column = pc.divide(column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64()).cast(pa.float64()), 1e6)
        values = numbers(column)[self._order]
        return np.where(self.stalled, np.nan, values) if name in LATENCIES else values

    def factor(self, name: str) -> Factor:
        if not self.has(name):
            return Factor(np.full(self.n, -1), [])
        found = factor(_combined(self._table.encoded(name) if isinstance(self._table, Stored) else self._table[name]))
        return Factor(found.codes[self._order], found.names)

    def _find_cells(self, plan: Mapping[str, Any]) -> tuple[list[CellKey], Ints]:
        combined, known = np.zeros(self.n, dtype=np.int64), []
        for name in IDENTITY:
            codes, names = self.factor(name)
            combined = combined * (len(names) + 1) + codes + 1
            known.append(names)
        numbers_of, codes = np.unique(combined, return_inverse=True)
        keys = [_cell_key(number, known) for number in numbers_of.tolist()]
        order = sorted(range(len(keys)), key=lambda at: _place(keys[at], plan))
        place = np.empty(len(keys), dtype=np.int64)
        place[order] = np.arange(len(keys))
        return [keys[at] for at in order], place[codes] if keys else codes


def pieces_of(table: pa.Table | Stored, name: str) -> Iterable[pa.Array]:
    """The column, some thousand values at a time where it is read from files."""
    return table.pieces(name) if isinstance(table, Stored) else table[name].chunks


def _digests(pieces: Iterable[pa.Array]) -> npt.NDArray[np.uint64]:
    texts = (pc.fill_null(piece.cast(pa.string()), "").to_numpy(zero_copy_only=False) for piece in pieces)
    return np.concatenate([np.empty(0, dtype=np.uint64), *(pd.util.hash_array(one, categorize=False) for one in texts)])


def numbers(column: Any) -> Floats:
    """An Arrow array as floats, NaN for null."""
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def factor(column: Any) -> Factor:
    """An Arrow array as sorted distinct values and codes."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    names = encoded.dictionary.to_pylist()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    order = sorted(range(len(names)), key=lambda at: names[at])
    place = np.full(len(names) + 1, -1, dtype=np.int64)
    place[order] = np.arange(len(names))
    return Factor(place[codes], [names[at] for at in order])


def _combined(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _cell_key(number: int, known: Sequence[Sequence[Any]]) -> CellKey:
    """The cell of a number whose digits, one for each column, are codes in `known`; 0 is absence."""
    values = []
    for names in reversed(known):
        number, code = divmod(number, len(names) + 1)
        values.append(names[code - 1] if code else "")
    return CellKey._make(reversed(values))


def _place(key: CellKey, plan: Mapping[str, Any]) -> tuple[Any, ...]:
    """Where a cell stands in the order of the plan; what the plan does not know comes after, by name."""
    sets = plan.get("prompt_sets", [])
    names = [one["name"] for one in sets]
    prompts = list(next((one["prompts"] for one in sets if one["name"] == key.prompt_set), []))
    params = key.values()
    grid = plan.get("grid") or {}
    points = tuple((name, *_position(params.get(name), grid.get(name))) for name in sorted({*grid, *params}))
    models = [model["name"] for model in plan.get("models", [])]
    streams = plan.get("stream", [])
    return (
        _position(key.prompt_set, names),
        _position(key.prompt, prompts),
        _position(key.model, models),
        points,
        _position(key.stream, streams),
        key.provider,
    )


def _position(value: Any, known: Any) -> tuple[int, str]:
    values = known if isinstance(known, list) else [known]
    return (values.index(value) if value in values else len(values), json.dumps(value, sort_keys=True, default=str))
