"""The drill-down's data: which samples a page carries, in what order, and how they are packed.

Block 0 is the index: what the list, the filters and the search need. The other blocks hold whole records, some hundred kilobytes each, column by column,
and are unpacked by the page when a sample is opened. Every block is JSON, gzip, base64: nothing in it can be mistaken for markup.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from evalrunner.analysis.rows import Stored, in_pieces
from evalrunner.analysis.tables import CellSummary
from evalrunner.records import ANSWERED

MAX_SAMPLES = 20_000
MAX_TEXT = 60_000_000
"""Bytes of text, before packing, that a page carries at most: with MAX_SAMPLES what keeps it under 25 MB."""
MAX_FIELD = 100_000
"""Characters of one field; the rest is in the Parquet files."""
RECORD_TEXT = 500
"""Bytes of a record's numbers, about."""
BLOCK_TEXT = 400_000
COLUMNS = 8
"""Columns of whole records that are read at a time."""
PREFIX = 160
SEED = 20_240_501

Ints = npt.NDArray[np.int64]
_CELL = ("prompt_set", "prompt", "model", "provider", "params", "stream")
_NOT_READ = frozenset({*_CELL, "run_id", "model_id"} - {"prompt_set"})
_IN_INDEX = _NOT_READ | {"prompt_set", "sample_id", "trial", "outcome", "tags"}
_TEXTS = ("output", "reasoning", "tool_calls", "conversation", "error_message", "target")
_ATTEMPT = ("turn", "attempt", "outcome", "http_status", "error_code", "error_message", "retry_after_ms", "wait_ms", "latency_ms")
_DATA_URI = r"(data:[\w.+/-]{1,60};base64,)[A-Za-z0-9+/=]{200,}"


@dataclass(frozen=True)
class SampleRows:
    """The stored records: `results` and, where there are any, `attempts`, with contract.md's columns. A dataset is read in passes, never whole."""

    results: pa.Table | pads.Dataset
    attempts: pa.Table | pads.Dataset | None = None


@dataclass(frozen=True)
class Packed:
    """The blocks, and how many samples and records they hold of how many samples."""

    blocks: list[str]
    shown: int
    all: int
    records: int


@dataclass(frozen=True)
class _Layout:
    """Every record's place: its cell and its sample (a number in reading order), both by row of the results."""

    cell: Ints
    sample: Ints
    trial: Ints
    samples: int


def pack(rows: SampleRows, cells: Sequence[CellSummary], scorers: Sequence[str]) -> Packed:
    """All samples, or, above MAX_SAMPLES or MAX_TEXT, first those with an unanswered request or a disagreement, then a fixed random choice."""
    results = rows.results if isinstance(rows.results, pads.Dataset) else pads.dataset(rows.results)
    names = results.schema.names
    scorers = [name for name in scorers if f"score_{name}" in names]
    light = Stored(results, names)
    layout = _layout(light, cells)
    weight = _weights(results, layout)
    kept = _choose(light, layout, weight, scorers)
    order = np.lexsort((layout.trial, layout.cell, layout.sample))
    order = order[kept[layout.sample[order]]]
    sample, cell, samples = layout.sample[order], layout.cell[order], layout.samples
    del layout  # of every record there is; from here on those that are shown
    table = _taken(results, order)
    starts = np.flatnonzero(np.r_[True, sample[1:] != sample[:-1]]) if len(sample) else np.zeros(0, np.int64)
    block = np.cumsum(weight[sample[starts]]) // BLOCK_TEXT
    block = np.unique(block, return_inverse=True)[1] if len(block) else block
    edges = np.r_[starts[np.flatnonzero(np.r_[True, block[1:] != block[:-1]])], len(sample)] if len(block) else np.zeros(1, np.int64)
    table = _shortened(table)
    index = _index(table, cell, starts, block + 1, scorers)
    attempts, names = _attempts_by_key(rows.attempts, table), _record_columns(table)

    def packed(edge: tuple[Any, Any]) -> str:  # block by block: as Python's own values the records take ten times their bytes
        return _packed(_block(table.slice(edge[0], edge[1] - edge[0]), int(edge[0]), names, attempts))

    with ThreadPoolExecutor(2) as pool:
        blocks = [_packed(index), *pool.map(packed, pairwise(edges))]
    return Packed(blocks, len(starts), samples, len(order))


def _taken(results: pads.Dataset, order: Ints) -> pa.Table:
    """The rows of these numbers, in this order, without the columns that nobody reads here.

    Some columns at a time: small pieces of all of them, made side by side, would keep twice their memory from being given back.
    """
    wanted = np.sort(order)
    at = pa.array(np.searchsorted(wanted, order))
    names = [name for name in results.schema.names if name not in _NOT_READ and not name.startswith("param_")]
    columns: dict[str, pa.ChunkedArray] = {}
    for some in (names[k : k + COLUMNS] for k in range(0, len(names), COLUMNS)):
        found, begin = [], 0
        for piece in in_pieces(results, {name: pads.field(name) for name in some}):
            first, last = np.searchsorted(wanted, [begin, begin + piece.num_rows])
            found.append(piece.take(pa.array(wanted[first:last] - begin)))
            begin += piece.num_rows
        taken = pa.Table.from_batches(found, pa.schema([results.schema.field(name) for name in some])).take(at)
        columns |= zip(some, taken.columns, strict=True)
    return pa.table(columns)


def _layout(light: Stored, cells: Sequence[CellSummary]) -> _Layout:
    known = {_cell_key(c.prompt_set, c.prompt, c.model, c.provider, json.dumps(c.params, sort_keys=True), c.stream): c.index for c in cells}
    coded = [_codes(light.encoded(name)) for name in _CELL]
    combined = _combine([codes for codes, _ in coded])
    distinct, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    at = [known.get(_cell_key(*(names[codes[row]] for codes, names in coded)), -1) for row in first]
    cell = np.array(at or [0], dtype=np.int64)[inverse] if len(distinct) else np.zeros(0, np.int64)
    sets, set_names = coded[0]
    ids, id_names = _codes(light.encoded("sample_id"))
    place = {name: k for k, name in enumerate(dict.fromkeys([c.prompt_set for c in cells] + set_names))}
    set_rank = np.array([place[name] for name in set_names] or [0])
    id_rank = np.empty(max(len(id_names), 1), dtype=np.int64)
    id_rank[sorted(range(len(id_names)), key=lambda k: _natural(id_names[k]))] = np.arange(len(id_names))
    number, sample = np.unique(_combine([set_rank[sets], id_rank[ids]]), return_inverse=True)
    trial = pc.fill_null(light["trial"], 0).to_numpy().astype(np.int64)
    return _Layout(cell, sample.astype(np.int64), trial, len(number))


def _codes(column: pa.ChunkedArray) -> tuple[Ints, list[Any]]:
    """A code per row, and what each code stands for; null is a value of its own."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    codes, names = encoded.indices, encoded.dictionary.to_pylist()
    return pc.fill_null(codes, len(names)).to_numpy(zero_copy_only=False).astype(np.int64), names + [None] * bool(codes.null_count)


def _combine(codes: Iterable[Ints]) -> Ints:
    combined: Ints | None = None
    for one in codes:
        combined = one if combined is None else np.unique(combined * (one.max(initial=0) + 1) + one, return_inverse=True)[1]
    return combined if combined is not None else np.zeros(0, np.int64)


def _cell_key(prompt_set: Any, prompt: Any, model: Any, provider: Any, params: str | None, stream: Any) -> tuple[Any, ...]:
    return prompt_set, prompt, model, provider, json.dumps(json.loads(params) if params else {}, sort_keys=True), bool(stream)


def _natural(text: str | None) -> list[str | int]:
    """An order in which 10 follows 9."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split(r"([0-9]{1,18})", text or ""))]


def _weights(results: pads.Dataset, layout: _Layout) -> Ints:
    """Bytes of text of each sample. A conversation counts once for all the records of a sample that share a length of it."""
    texts = [name for name in (*_TEXTS, "messages") if name in results.schema.names]
    weight = np.full(layout.samples, 200, dtype=np.int64) + RECORD_TEXT * np.bincount(layout.sample, minlength=layout.samples)
    for name in texts:
        lengths = (piece.column(0) for piece in in_pieces(results, {name: pc.binary_length(pads.field(name))}))
        length = np.concatenate([np.zeros(0, np.int64), *(pc.fill_null(one, 0).to_numpy(zero_copy_only=False) for one in lengths)])
        if name == "messages":
            _, first = np.unique(_combine([layout.sample, length]), return_index=True)
            np.add.at(weight, layout.sample[first], length[first])
        else:
            np.add.at(weight, layout.sample, np.minimum(length, MAX_FIELD))
    return weight


def _choose(light: Stored, layout: _Layout, weight: Ints, scorers: Sequence[str]) -> npt.NDArray[np.bool_]:
    telling = np.zeros(layout.samples, dtype=bool)
    answered = pc.is_in(light["outcome"], pa.array(sorted(ANSWERED))).to_numpy(zero_copy_only=False)
    telling[layout.sample[~answered]] = True
    for name in scorers:
        score = pc.cast(light[f"score_{name}"], pa.float64()).to_numpy(zero_copy_only=False)
        right, wrong = (np.zeros(layout.samples, dtype=bool) for _ in range(2))
        right[layout.sample[score >= 0.5]] = True
        wrong[layout.sample[score < 0.5]] = True
        telling |= right & wrong
    shuffled = np.random.default_rng(SEED).permutation(layout.samples)
    order = np.concatenate([shuffled[telling[shuffled]], shuffled[~telling[shuffled]]])
    fits = order[: int(np.searchsorted(np.cumsum(weight[order]), MAX_TEXT, side="right"))][:MAX_SAMPLES]
    kept = np.zeros(layout.samples, dtype=bool)
    kept[fits] = True
    return kept


def _shortened(table: pa.Table) -> pa.Table:
    """Fields that no reader reads to the end are cut, with a mark; inline media lose their bytes."""
    for at, name in enumerate(table.column_names):
        column = table[name]
        if not pa.types.is_string(column.type) or (pc.max(pc.binary_length(column)).as_py() or 0) <= MAX_FIELD:
            continue
        column = pc.replace_substring_regex(column, _DATA_URI, r"\1…")
        cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(column, 0, MAX_FIELD), pa.scalar(" … [cut; whole in the Parquet files]"), "")
        table = table.set_column(at, name, pc.if_else(pc.greater(pc.utf8_length(column), MAX_FIELD), cut, column))
    return table


def _index(table: pa.Table, cell: Ints, starts: Ints, block: Ints, scorers: Sequence[str]) -> bytes:
    heads = table.take(pa.array(starts))
    sets, set_names = _codes(heads["prompt_set"])
    outcomes, outcome_names = _codes(table["outcome"])
    tags = [dict(pairs or ()) for pairs in heads["tags"].to_pylist()] if "tags" in heads.column_names else []
    text = table["output"] if "output" in table.column_names else pa.nulls(table.num_rows, pa.string())
    return msgspec.json.encode(
        {
            "sets": set_names,
            "outcomes": outcome_names,
            "scorers": list(scorers),
            "samples": {
                "set": sets.tolist(),
                "id": heads["sample_id"].to_pylist(),
                "question": [_question(one) for one in (heads["messages"].to_pylist() if "messages" in heads.column_names else [None] * len(starts))],
                "tags": {tag: [one.get(tag) for one in tags] for tag in sorted({tag for one in tags for tag in one})},
                "start": [*starts.tolist(), table.num_rows],
                "block": block.tolist(),
            },
            "records": {
                "cell": cell.tolist(),
                "trial": pc.fill_null(table["trial"], 0).to_pylist(),
                "outcome": outcomes.tolist(),
                "text": pc.fill_null(pc.utf8_slice_codeunits(pc.cast(text, pa.string()), 0, PREFIX), "").to_pylist(),
                "scores": {name: _numbers(table[f"score_{name}"], 4) for name in scorers},
                "cost": _numbers(table["cost"], 9) if "cost" in table.column_names and table["cost"].null_count < table.num_rows else None,
            },
        }
    )


def _question(messages: str | None) -> str:
    """The start of the last thing a user says, on one line."""
    try:
        turns = msgspec.json.decode(messages or "[]")
        content = next(turn["content"] for turn in reversed(turns) if turn.get("role") == "user")
    except (msgspec.DecodeError, StopIteration, AttributeError, KeyError, TypeError):
        content = messages or ""
    if isinstance(content, list):
        content = " ".join(_part(part) for part in content)
    return " ".join(str(content)[:1200].split())[:300]


def _part(part: Any) -> str:
    """Text as it is, media by their name."""
    said = part if isinstance(part, dict) else {}
    named = next((said[kind] for kind in ("image", "audio", "file") if isinstance(said.get(kind), str)), None)
    return str(said["text"]) if "text" in said else f"[{named}]" if named else msgspec.json.encode(part).decode()


def _record_columns(table: pa.Table) -> list[str]:
    """The columns of the records that the index does not have; those without a value are left out."""
    others = [name for name in table.column_names if name not in _IN_INDEX and name != "messages"]
    return [name for name in others if table[name].null_count < table.num_rows]


def _values(column: pa.ChunkedArray, name: str) -> list[Any]:
    """As JSON's own types."""
    if pa.types.is_timestamp(column.type):
        texts: list[Any] = pc.cast(pc.cast(column, pa.timestamp("us")), pa.string()).to_pylist()
        return texts
    if pa.types.is_floating(column.type):
        return list(_numbers(column, 3 if name.endswith("_ms") else 9))
    values: list[Any] = column.to_pylist()
    return values


def _numbers(column: pa.ChunkedArray, digits: int) -> list[float | None]:
    value = pc.round(pc.cast(column, pa.float64()), digits)
    found: list[float | None] = pc.if_else(pc.is_finite(value), value, None).to_pylist()
    return found


def _attempts_by_key(attempts: pa.Table | pads.Dataset | None, table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """The attempts of those records that took more than one, or that have no answer."""
    if attempts is None or not table.num_rows or not {"key", "attempts"} <= set(table.column_names):
        return {}
    several = pc.or_(pc.fill_null(pc.greater(table["attempts"], 1), fill_value=False), pc.invert(pc.is_in(table["outcome"], pa.array(sorted(ANSWERED)))))
    keys = table["key"].filter(several).combine_chunks()
    source = attempts if isinstance(attempts, pads.Dataset) else pads.dataset(attempts)
    wanted = [name for name in _ATTEMPT if name in source.schema.names]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in source.to_table(columns=["key", *wanted], filter=pads.field("key").isin(keys)).to_pylist():
        found.setdefault(row.pop("key"), []).append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items() if v is not None})
    for rows in found.values():
        rows.sort(key=lambda row: (row.get("turn") or 0, row.get("attempt") or 0))
    return found


def _block(table: pa.Table, start: int, names: Sequence[str], attempts: Mapping[str, list[dict[str, Any]]]) -> bytes:
    codes, texts = _codes(table["messages"]) if "messages" in table.column_names else (np.full(table.num_rows, -1), [])
    columns: dict[str, list[Any]] = {"messages": codes.tolist(), **{name: _values(table[name], name) for name in names}}
    if attempts:
        columns["attempt_rows"] = [attempts.get(key) for key in columns["key"]]
    return msgspec.json.encode({"start": start, "texts": texts, "columns": columns})


def _packed(body: bytes) -> str:
    """Without a time stamp, so that equal records give equal bytes."""
    return base64.b64encode(gzip.compress(body, 6, mtime=0)).decode()
