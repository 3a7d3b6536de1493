"""Journal lines as Arrow tables, tables as Parquet: the columns of contract.md, section 5, with their types.

A segment is parsed by Arrow's own JSON reader and written by its Parquet writer, both in C++ without Python's lock: a thread can do it beside the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from evalrunner.store.rows import Columns

TABLES = ("results", "attempts", "judgements", "superseded")
"""`superseded` has rows of `results` whose requests are not in the plan any more: their data, say, were edited."""
EVERY_RUN = ("results", "attempts")
"""The tables that are there from the start; the others come with their first row."""

_TIME = pa.timestamp("us", "UTC")
_TAGS = pa.map_(pa.string(), pa.string())
_KINDS = {"integer": pa.int64(), "number": pa.float64(), "bool": pa.bool_(), "string": pa.string(), "json": pa.string()}


def _named(arrow: pa.DataType, names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, arrow) for name in names.split()]


_IDENTITY = _named(pa.string(), "run_id key prompt_set prompt sample_id model provider")
_BEFORE_PARAMS = [*_named(pa.string(), "model_id sample_hash"), ("stream", pa.bool_()), ("trial", pa.int32()), ("params", pa.string())]
_AFTER_PARAMS = [
    ("tags", _TAGS),
    *_named(pa.string(), "messages target outcome output reasoning tool_calls conversation finish_reason response_id response_model error_code error_message"),
    *_named(pa.int32(), "http_status attempts turns"),
    *_named(pa.int64(), "prompt_tokens completion_tokens reasoning_tokens cached_tokens total_tokens"),
    *_named(pa.string(), "usage_source"),
    *_named(pa.float64(), "cost"),
    *_named(pa.string(), "currency"),
    *_named(_TIME, "scheduled_at started_at finished_at"),
    *_named(pa.float64(), "wait_ms latency_ms ttft_ms ttft_content_ms tpot_ms decode_ms user_latency_ms user_ttft_ms"),
    *_named(pa.int32(), "chunks"),
    *_named(pa.float64(), "tokens_per_chunk stalled_ms"),
]
_ATTEMPTS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        *_named(pa.int32(), "turn attempt"),
        ("started_at", _TIME),
        *_named(pa.int32(), "http_status"),
        *_named(pa.string(), "outcome error_code error_message"),
        *_named(pa.float64(), "retry_after_ms wait_ms latency_ms ttft_ms"),
        *_named(pa.string(), "response_id"),
        *_named(pa.int64(), "prompt_tokens completion_tokens reasoning_tokens cached_tokens cache_write_tokens"),
        *_named(pa.float64(), "cost"),
        *_named(pa.string(), "raw"),
    ]
)
_JUDGEMENTS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        *_named(pa.string(), "id scorer judge judge_id provider sample_id order outcome verdict"),
        *_named(pa.float64(), "score label"),
        *_named(pa.string(), "reason output error_code error_message"),
        *_named(pa.int32(), "attempts"),
        *_named(pa.int64(), "prompt_tokens completion_tokens reasoning_tokens cached_tokens"),
        *_named(pa.float64(), "cost"),
        *_named(pa.string(), "currency"),
        ("started_at", _TIME),
        *_named(pa.float64(), "wait_ms latency_ms"),
    ]
)
# everything else repeats, and a dictionary pays
_MANY_VALUES = {"key", "id", "output", "reason", "reasoning", "tool_calls", "conversation", "response_id", "raw", "scheduled_at", "started_at", "finished_at"}
# only where someone filters: minimum and maximum of texts would fill the footer
_FILTERED = {"prompt_set", "prompt", "model", "provider", "outcome", "started_at", "trial"}
_GROUP_BYTES = 64 << 20


def schemas(columns: Columns) -> dict[str, pa.Schema]:
    """The one schema of each table of a run."""
    results = pa.schema(
        [
            *(pa.field(name, arrow, nullable=False) for name, arrow in _IDENTITY),
            *_BEFORE_PARAMS,
            *((f"param_{name}", _KINDS[kind]) for name, kind in columns.params.items()),
            *_AFTER_PARAMS,
            *(field for name in columns.scores for field in ((f"score_{name}", pa.float64()), (f"score_{name}_why", pa.string()))),
        ]
    )
    return {"results": results, "attempts": _ATTEMPTS, "judgements": _JUDGEMENTS, "superseded": results}


def tables(lines: bytes, columns: Columns) -> dict[str, pa.Table]:
    """The tables that journal `lines` hold; of several rows with one key the last."""
    known = schemas(columns)
    results, attempts, judgements = (known[name] for name in ("results", "attempts", "judgements"))
    scores = {f"score_{name}" for name in columns.scores}
    wire = pa.schema([("row", _wire(results, scores)), ("attempts", pa.list_(_wire(attempts, set()))), ("judgement", _wire(judgements, set()))])
    if not lines:
        return {name: known[name].empty_table() for name in ("results", "attempts", "judgements")}
    try:
        parsed = pj.read_json(
            pa.BufferReader(lines),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pj.ParseOptions(explicit_schema=wire, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        parsed = _value_by_value(lines, wire)
    rows, tries, judged = (parsed[name].combine_chunks() for name in ("row", "attempts", "judgement"))
    rows, judged = (array.filter(array.is_valid()) for array in (rows, judged))
    return {"results": latest(_stored(rows, results)), "attempts": _stored(tries.flatten(), attempts), "judgements": _stored(judged, judgements)}


def latest(table: pa.Table) -> pa.Table:
    """The last row of each key, in order."""
    if pc.count_distinct(table["key"]).as_py() == table.num_rows:
        return table
    numbered = pa.table({"key": table["key"], "row": pa.array(range(table.num_rows))})
    last = numbered.group_by("key").aggregate([("row", "max")])["row_max"]
    return table.take(last.take(pc.sort_indices(last)))


def without(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """`table` but for the rows of `keys`."""
    return table.filter(pc.invert(pc.is_in(table["key"], pa.array(keys, pa.string()))))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` in the columns of `schema`: what an older version did not know is null."""
    if table.schema.equals(schema):
        return table
    arrays = [table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One part, or those of `columns` that it has."""
    with pq.ParquetFile(path) as file:
        there = set(file.schema_arrow.names)
        return file.read(columns=None if columns is None else [name for name in columns if name in there], use_threads=False)


def schema_of(path: Path) -> pa.Schema:
    """The columns of one part."""
    return pq.read_schema(path)


def parquet(chunks: Iterable[pa.Table], schema: pa.Schema) -> tuple[int, bytes]:
    """How many rows the tables have, and a Parquet file of them, one row group each."""
    rows, sink = 0, pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=[field.name for field in schema if field.name not in _MANY_VALUES and field.type not in {_TAGS, pa.float64()}],
        write_statistics=[name for name in schema.names if name in _FILTERED],
    )
    with writer:
        for chunk in chunks:
            writer.write_table(chunk)
            rows += chunk.num_rows
    return rows, sink.getvalue().to_pybytes()


def in_groups(chunks: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least `rows` or 64 MB, but for the last."""
    held: list[pa.Table] = []
    for chunk in chunks:
        held.append(chunk)
        if sum(table.num_rows for table in held) >= rows or sum(table.nbytes for table in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _wire(schema: pa.Schema, scores: set[str]) -> pa.DataType:
    """How the columns travel in the journal (rows.py)."""
    pairs = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
    kinds: dict[pa.DataType, pa.DataType] = {_TIME: pa.int64(), _TAGS: pairs}
    return pa.struct([(field.name, pa.string() if field.name in scores else kinds.get(field.type, field.type)) for field in schema])


def _stored(rows: pa.StructArray, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays([_as_stored(rows.field(field.name), field.type) for field in schema], schema=schema)


def _as_stored(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    if arrow == _TAGS:
        pairs = array.values
        return pa.MapArray.from_arrays(array.offsets, pairs.field("key"), pairs.field("value"))
    return array if array.type == arrow else array.cast(arrow)


def _value_by_value(lines: bytes, wire: pa.Schema) -> pa.Table:
    """The same table when Arrow refuses the lines: a value that does not fit its column (2**64 tokens, a plug-in's oddity) is null; its row stays."""
    decoded = [msgspec.json.decode(line) for line in lines.split(b"\n") if line]
    return pa.table([pa.array([_fitting(line.get(field.name), field.type) for line in decoded], field.type) for field in wire], schema=wire)


def _fitting(value: Any, arrow: pa.DataType) -> Any:
    if pa.types.is_struct(arrow):
        return None if value is None else {field.name: _fitting(value.get(field.name), field.type) for field in arrow.fields}
    if pa.types.is_list(arrow):
        return [_fitting(item, arrow.value_type) for item in value or ()]
    try:
        fitted = pa.scalar(value, arrow).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return str(value) if arrow == pa.string() else None
    return fitted if fitted == value else None
