"""The samples behind a comparison's flips: what was asked, what both sides answered, and why it was scored so. Pure: rows in, `FlippedSample`s out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from evalrunner.analysis.compare import CellName, Comparison

_COLUMNS = ("prompt_set", "prompt", "model", "provider", "params", "stream", "sample_id", "trial", "messages", "target", "output")

Row = Mapping[str, Any]


class Answer(Struct, frozen=True, kw_only=True):
    """One side of a flip. With several trials: the one that shows the change best."""

    output: str | None
    score: float | None
    why: str | None


class FlippedSample(Struct, frozen=True, kw_only=True):
    """A sample that one side has right and the other wrong. `pair`: its place in `Comparison.pairs` · `question`: the last message of the user."""

    pair: int
    metric: str
    kind: Literal["lost", "gained"]
    sample_id: str
    question: str
    target: str | None
    baseline: Answer
    candidate: Answer


def flipped_samples(comparison: Comparison, baseline: pa.Table, candidate: pa.Table, most: int | None = None) -> tuple[FlippedSample, ...]:
    """Every flip of every score, or at most `most` of each kind, score and pair: the lost first, as `Flips` has them in order.

    The tables are the two sides' `results`.
    """
    wanted = {sample for pair in comparison.pairs for flips in pair.flips.values() for sample in (*flips.lost[:most], *flips.gained[:most])}
    metrics = dict.fromkeys(name for pair in comparison.pairs for name in pair.flips)
    before, after = (_by_sample(table, wanted, metrics) for table in (baseline, candidate))
    found = []
    for kind in ("lost", "gained"):
        for at, pair in enumerate(comparison.pairs):
            for metric, flips in pair.flips.items():
                for sample in getattr(flips, kind)[:most]:
                    old, new = before[(*_name(pair.baseline), sample)], after[(*_name(pair.candidate), sample)]
                    found.append(_flip((at, metric, kind, sample), _shown(old, metric, best=kind == "lost"), _shown(new, metric, best=kind == "gained")))
    return tuple(found)


def question_of(messages: str | None) -> str:
    """The text of the last message a user wrote."""
    for message in reversed(json.loads(messages) if messages else []):
        if message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) else "\n".join(part["text"] for part in content or () if isinstance(part, dict) and part.get("text"))
    return ""


def _by_sample(table: pa.Table, samples: Iterable[str], metrics: Iterable[str]) -> Mapping[tuple[Any, ...], list[Row]]:
    columns = [name for name in (*_COLUMNS, *(f"{metric}{part}" for metric in metrics for part in ("", "_why"))) if name in table.column_names]
    chosen = table.select(columns).filter(pc.is_in(table["sample_id"], pa.array(sorted(samples), pa.string())))
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in chosen.to_pylist():
        params = json.loads(row["params"]) if row["params"] else {}
        found[(row["prompt_set"], row["prompt"], row["model"], row["provider"], _text(params), row["stream"], row["sample_id"])].append(row)
    return found


def _name(cell: CellName) -> tuple[Any, ...]:
    return (cell.prompt_set, cell.prompt, cell.model, cell.provider, _text(cell.params), cell.stream)


def _text(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _shown(rows: Iterable[Row], metric: str, *, best: bool) -> Row:
    scored = [row for row in rows if row[metric] is not None]
    return max(scored, key=lambda row: (row[metric], -row["trial"])) if best else min(scored, key=lambda row: (row[metric], row["trial"]))


def _flip(place: tuple[int, str, Any, str], old: Row, new: Row) -> FlippedSample:
    at, metric, kind, sample = place
    answers = [Answer(output=row.get("output"), score=row[metric], why=row.get(f"{metric}_why")) for row in (old, new)]
    question, target = question_of(new.get("messages")), new.get("target")
    return FlippedSample(pair=at, metric=metric, kind=kind, sample_id=sample, question=question, target=target, baseline=answers[0], candidate=answers[1])
