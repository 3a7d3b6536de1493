"""What a resumed run can still use: rows whose score is still to come, as they travel in the journal, and judgements that were paid for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from evalrunner.records import ANSWERED, Judgement
from evalrunner.store import parts
from evalrunner.store.known import still_to_come
from evalrunner.store.readers import read_judgements

_STORED = set(Judgement.__struct_fields__) - {"started_us"}


def unscored_rows(run: Path, files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Key -> row, out of these parts one at a time, in the form of `rows.py`: times as microseconds, scores as text, tags as a list of pairs."""
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        table = parts.read(run / file)
        table = table.filter(pa.array(still_to_come(table), pa.bool_()))
        for at, field in enumerate(table.schema):
            if pa.types.is_timestamp(field.type):
                table = table.set_column(at, field.name, table[field.name].cast(pa.int64()))
        found |= {row["key"]: _travelling(row) for row in table.to_pylist()}
    return found


def answered_judgements(run: Path) -> Iterator[Judgement]:
    """Every judgement that has an answer, whether it could be read or not."""
    table = read_judgements(run)
    for row in table.filter(pc.is_in(table["outcome"], pa.array([str(outcome) for outcome in ANSWERED]))).to_pylist():
        yield Judgement(**{name: value for name, value in row.items() if name in _STORED})


def _travelling(row: dict[str, Any]) -> dict[str, Any]:
    row["tags"] = [{"key": name, "value": value} for name, value in row["tags"] or ()]
    scores = [name for name in row if name.startswith("score_") and not name.endswith("_why")]
    return row | {name: None if row[name] is None else repr(row[name]) for name in scores}
