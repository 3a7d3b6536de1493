"""What went wrong and what it took: errors by kind, retries and waits by model, the run over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from evalrunner.analysis.rows import Factor, Floats, Ints, Mask, Rows, Stored, factor, numbers, pieces_of
from evalrunner.analysis.tables import Effort, ErrorGroup, ModelSummary, Moment
from evalrunner.records import ANSWERED, FINAL

EXAMPLE_LENGTH = 500
MOMENTS = 60


class Attempts(NamedTuple):
    """The attempts table in columns. `row` is each attempt's place in `Rows`, -1 where its request has no row yet."""

    row: Ints
    attempt: Floats
    failed: Mask
    limited: Mask
    replaced: Mask
    cost: Floats
    outcome: Factor
    code: Factor
    message: pa.Array
    status: Floats


def read_attempts(table: pa.Table | Stored, rows: Rows) -> Attempts:
    """The attempts, matched with their requests by key."""
    n = table.num_rows

    def column(name: str, kind: pa.DataType) -> pa.Array:
        found = table[name].combine_chunks() if name in table.column_names else pa.nulls(n, kind)
        return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) and found.num_chunks else found

    row = rows.find(pieces_of(table, "key")) if "key" in table.column_names else np.full(n, -1)
    outcome, status = factor(column("outcome", pa.string())), numbers(column("http_status", pa.int32()))
    answered = _is_in(outcome, ANSWERED)
    return Attempts(
        row=row,
        attempt=numbers(column("attempt", pa.int32())),
        failed=~answered,
        limited=_is_in(outcome, {"rate_limited"}) | (status == 429),
        replaced=answered & column("raw", pa.string()).is_valid().to_numpy(zero_copy_only=False),
        cost=numbers(column("cost", pa.float64())),
        outcome=outcome,
        code=factor(column("error_code", pa.string())),
        message=column("error_message", pa.string()),
        status=status,
    )


def _is_in(column: Factor, names: frozenset[str] | set[str] | frozenset[object]) -> Mask:
    return np.isin(column.codes, [code for code, name in enumerate(column.names) if name in names])


def outcome_counts(rows: Rows, group: Ints, size: int) -> list[dict[str, int]]:
    """Per group: how many requests ended how; outcomes nobody had are left out."""
    return _counts(group, rows.outcome.codes, size, rows.outcome.names)


def _counts(group: Ints, codes: Ints, size: int, names: list[str]) -> list[dict[str, int]]:
    table = np.bincount(group * len(names) + codes, minlength=size * len(names)).reshape(size, len(names))
    return [{name: int(count) for name, count in zip(names, line, strict=True) if count} for line in table]


def efforts(rows: Rows, attempts: Attempts | None, group: Ints, size: int) -> list[Effort]:
    """Per group of requests: attempts, retries, 429s, waits. Without an attempts table, from what the rows say."""
    requests = np.bincount(group, minlength=size)
    wait = rows.number("wait_ms")
    known = ~np.isnan(wait)
    waits, waited = np.bincount(group[known], weights=wait[known], minlength=size), np.bincount(group[known], minlength=size)
    if attempts is None:
        made = np.nan_to_num(rows.number("attempts"))
        total = np.bincount(group, weights=made, minlength=size)
        retries = np.bincount(group, weights=np.maximum(made - np.nan_to_num(rows.number("turns"), nan=1.0), 0), minlength=size)
        limited = np.bincount(group, weights=_is_in(rows.outcome, {"rate_limited"}), minlength=size)
    else:
        matched = attempts.row >= 0
        at = group[attempts.row[matched]]
        total = np.bincount(at, minlength=size).astype(np.float64)
        retries = np.bincount(at, weights=attempts.attempt[matched] > 1, minlength=size)
        limited = np.bincount(at, weights=attempts.limited[matched], minlength=size)
    return [
        Effort(
            requests=int(requests[i]),
            attempts=int(total[i]),
            retries=int(retries[i]),
            rate_limited=int(limited[i]),
            rate_limited_share=float(limited[i] / total[i]) if total[i] else None,
            wait_s=float(waits[i]) / 1000,
            wait_mean_ms=float(waits[i] / waited[i]) if waited[i] else None,
        )
        for i in range(size)
    ]


def model_summaries(rows: Rows, attempts: Attempts | None, planned: list[int]) -> list[ModelSummary]:
    """One table per model, in the order of the plan; `planned` is each cell's."""
    models = list(dict.fromkeys(key.model for key in rows.cells))
    of_cell = np.array([models.index(key.model) for key in rows.cells], dtype=np.int64)
    group, size = of_cell[rows.cell] if rows.n else rows.cell, len(models)
    ids, named = rows.factor("model_id"), rows.factor("response_model")
    outcomes, effort = outcome_counts(rows, group, size), efforts(rows, attempts, group, size)
    done, answered = np.bincount(group, minlength=size), np.bincount(group[rows.answered], minlength=size)
    infrastructure = [sum(count for name, count in counts.items() if name not in FINAL) for counts in outcomes]
    found = []
    for i, model in enumerate(models):
        mine = group == i
        first = int(np.argmax(mine))
        names = np.bincount(named.codes[mine & (named.codes >= 0)], minlength=len(named.names))
        found.append(
            ModelSummary(
                model=model,
                model_id=ids.names[ids.codes[first]] if ids.codes[first] >= 0 else model,
                provider=next(key.provider for key in rows.cells if key.model == model),
                planned=sum(count for count, at in zip(planned, of_cell, strict=True) if at == i),
                done=int(done[i]),
                answered=int(answered[i]),
                infrastructure=infrastructure[i],
                infrastructure_share=infrastructure[i] / int(done[i]) if done[i] else None,
                outcomes=outcomes[i],
                response_models={name: int(count) for name, count in zip(named.names, names, strict=False) if count},
                effort=effort[i],
            )
        )
    return found


def error_groups(rows: Rows, attempts: Attempts | None) -> list[ErrorGroup]:
    """Failures by model, outcome, status and code, the most frequent first."""
    model = rows.factor("model")
    found: dict[tuple[str, str, int | None, str | None], list[int]] = {}
    examples: dict[tuple[str, str, int | None, str | None], str | None] = {}
    sources = [
        (0, np.flatnonzero(~rows.answered), model.codes, rows.outcome, rows.number("http_status"), rows.factor("error_code"), rows.array("error_message"))
    ]
    if attempts is not None:
        owner = np.where(attempts.row >= 0, model.codes[attempts.row] if rows.n else -1, -1)
        sources.append((1, np.flatnonzero(attempts.failed), owner, attempts.outcome, attempts.status, attempts.code, attempts.message))
    for slot, failed, owners, outcome, status, code, message in sources:
        table = np.stack([owners[failed], outcome.codes[failed], np.nan_to_num(status[failed], nan=-1).astype(np.int64), code.codes[failed]])
        groups, first, counts = np.unique(table, axis=1, return_index=True, return_counts=True)
        for (owner_code, kind, number, code_at), at, count in zip(groups.T.tolist(), first, counts.tolist(), strict=True):
            key = (
                model.names[owner_code] if owner_code >= 0 else "",
                outcome.names[kind] if kind >= 0 else "",
                number if number >= 0 else None,
                code.names[code_at] if code_at >= 0 else None,
            )
            found.setdefault(key, [0, 0])[slot] += count
            text = message[int(failed[at])].as_py()
            examples[key] = examples.get(key) or (text[:EXAMPLE_LENGTH] if text else None)
    ordered = sorted(found, key=lambda key: (-found[key][0], -found[key][1], str(key)))
    return [
        ErrorGroup(model=key[0], outcome=key[1], http_status=key[2], code=key[3], requests=found[key][0], attempts=found[key][1], example=examples[key])
        for key in ordered
    ]


def timeline(rows: Rows) -> list[Moment]:
    """When requests ended, by model, in 60 equal stretches from the first schedule to the last end."""
    start, end = rows.number("scheduled_at"), rows.number("finished_at")
    known = ~np.isnan(end)
    if not known.any() or np.isnan(start).all():
        return []
    begin = float(np.nanmin(start))
    width = max(float(np.nanmax(end)) - begin, 1e-6) / MOMENTS
    model = rows.factor("model")
    bucket = np.clip(((end[known] - begin) / width).astype(np.int64), 0, MOMENTS - 1)
    counts = _counts(bucket * len(model.names) + model.codes[known], rows.outcome.codes[known], MOMENTS * len(model.names), rows.outcome.names)
    return [
        Moment(start_s=at // len(model.names) * width, seconds=width, model=model.names[at % len(model.names)], outcomes=outcomes)
        for at, outcomes in enumerate(counts)
        if outcomes
    ]


def active_seconds(rows: Rows) -> float | None:
    """How long anything was scheduled, waiting or in flight: the length of the union of [scheduled, finished]."""
    start, end = rows.number("scheduled_at"), rows.number("finished_at")
    known = ~np.isnan(start) & ~np.isnan(end)
    if not known.any():
        return None
    order = np.argsort(start[known], kind="stable")
    begins, reach = start[known][order], np.maximum.accumulate(end[known][order])
    pauses = np.maximum(begins[1:] - reach[:-1], 0).sum()
    return float(reach[-1] - begins[0] - pauses)
