"""Records -> tables: `summarise` turns the rows of a run into a `Summary`. Pure: equal records and manifest give an equal summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from msgspec.structs import replace

from evalrunner.analysis.cells import (
    Scored,
    costs,
    estimates,
    latencies,
    means,
    repeats,
    score_units,
    slices,
    speeds,
    tag_factors,
    tie_group_numbers,
    token_counts,
)
from evalrunner.analysis.factors import factors
from evalrunner.analysis.failures import Attempts, active_seconds, efforts, error_groups, model_summaries, outcome_counts, read_attempts, timeline
from evalrunner.analysis.judges import judge_summaries
from evalrunner.analysis.notices import notices
from evalrunner.analysis.pairs import pairs
from evalrunner.analysis.rows import ATTEMPT_COLUMNS, TOKENS, CellKey, Records, Rows, as_table, columns_needed, is_score, names_of
from evalrunner.analysis.slice_gaps import with_gaps
from evalrunner.analysis.tables import (
    CellSummary,
    Cost,
    Distribution,
    Effort,
    ErrorGroup,
    Estimate,
    Mean,
    ModelSummary,
    Moment,
    Notice,
    Quantile,
    Repeat,
    RunFacts,
    Slice,
    Summary,
    TokenCount,
    Totals,
)

__all__ = [
    "ATTEMPT_COLUMNS",
    "CellSummary",
    "Cost",
    "Distribution",
    "Effort",
    "ErrorGroup",
    "Estimate",
    "Mean",
    "ModelSummary",
    "Moment",
    "Notice",
    "Quantile",
    "Repeat",
    "RunFacts",
    "Slice",
    "Summary",
    "TokenCount",
    "Totals",
    "columns_needed",
    "summarise",
]


def summarise(
    results: Records,
    attempts: Records | None,
    manifest: Mapping[str, Any],
    judgements: pa.Table | pd.DataFrame | None = None,
) -> Summary:
    """The summary of a run, complete or not.

    `results`, `attempts`: rows as contract.md, section 5, has them; columns a summary does not need may be missing (`columns_needed`,
    `ATTEMPT_COLUMNS` name those it reads). A dataset is read column by column. `manifest`: the run's; what it lacks is taken from the rows.
    """
    plan = manifest.get("plan") or {}
    rows = Rows(as_table(results, columns_needed(names_of(results))), plan)
    tries = read_attempts(as_table(attempts, ATTEMPT_COLUMNS), rows) if attempts is not None else None
    tries = tries if tries is not None and len(tries.row) else None
    scorers = scorer_names(rows, plan)
    scored = {name: score_units(rows, name) for name in scorers}
    cells = _cells(rows, scored, plan)
    models = model_summaries(rows, tries, [cell.planned for cell in cells])
    totals = _totals(rows, tries, sum(cell.planned for cell in cells), manifest)
    tags = tag_factors(rows)
    enough = {one["name"]: one.get("options", {}).get("min_valid") for one in plan.get("scorers") or ()}
    judges, judge_pairs = judge_summaries(judgements, enough) if judgements is not None else ((), ())
    return Summary(
        run=run_facts(manifest),
        totals=totals,
        cells=tuple(cells),
        models=tuple(models),
        errors=tuple(error_groups(rows, tries)),
        slices=tuple(with_gaps(rows, tags, scored, slices(rows, tags, scored, [list(cell.scores) for cell in cells]))),
        judges=judges,
        judge_pairs=judge_pairs,
        timeline=tuple(timeline(rows)),
        notices=tuple(notices(rows, tries, cells, models, totals, manifest)),
        varying=tuple(varying(rows.cells)),
        scorers=tuple(scorers),
        columns=tuple(_columns(rows)),
        pairs=tuple(pairs(rows, scored)),
        factors=tuple(factors(rows, scored)),
    )


def scorer_names(rows: Rows, plan: Mapping[str, Any]) -> list[str]:
    """Every scorer with a column: the plan's in its order, then the others by name."""
    found = [name.removeprefix("score_") for name in rows.names if is_score(name)]
    planned = [scorer["name"] for scorer in plan.get("scorers", [])]
    return sorted(found, key=lambda name: (planned.index(name) if name in planned else len(planned), name))


def varying(keys: Sequence[CellKey]) -> list[str]:
    """Which dimensions take more than one value, parameter by parameter."""
    plain = [name for name in ("prompt_set", "prompt", "model", "provider", "stream") if len({getattr(key, name) for key in keys}) > 1]
    params = [key.values() for key in keys]
    names = sorted({name for one in params for name in one})
    return plain + [name for name in names if len({json.dumps(one.get(name), sort_keys=True) for one in params}) > 1]


def label_of(key: CellKey, differing: Sequence[str]) -> str:
    params = key.values()
    parts = [getattr(key, name) for name in ("prompt_set", "model", "prompt") if name in differing]
    parts += [f"{name}={json.dumps(params[name], ensure_ascii=False)}" for name in differing if name in params]
    if "stream" in differing:
        parts.append("streamed" if key.stream else "not streamed")
    return " · ".join(parts) or key.model


def _cells(rows: Rows, scored: Mapping[str, Scored], plan: Mapping[str, Any]) -> list[CellSummary]:
    size, sets = len(rows.cells), {one["name"]: one for one in plan.get("prompt_sets", [])}
    trials = int(plan.get("trials") or 1)
    done = np.bincount(rows.cell, minlength=size)
    answered = np.bincount(rows.cell[rows.answered], minlength=size)
    units = np.bincount(rows.cell[rows.first], minlength=size)
    samples = [max(int(sets.get(key.prompt_set, {}).get("samples") or 0), int(units[at])) for at, key in enumerate(rows.cells)]
    planned = np.array([max(count * trials, int(done[at])) for at, count in enumerate(samples)], dtype=np.int64)
    scores = _scores(rows, scored, planned, sets)
    outcomes, latency, speed = outcome_counts(rows, rows.cell, size), latencies(rows), speeds(rows)
    tokens, cost, differing, ids = token_counts(rows, rows.cell, size), costs(rows, scores), varying(rows.cells), rows.factor("model_id")
    first = np.searchsorted(rows.cell, np.arange(size))
    averaged = means(rows)
    repeated = {name: repeats(rows, one, trials) for name, one in scored.items()}
    return [
        CellSummary(
            index=at,
            label=label_of(key, differing),
            prompt_set=key.prompt_set,
            prompt=key.prompt,
            model=key.model,
            model_id=ids.names[ids.codes[first[at]]] if ids.codes[first[at]] >= 0 else key.model,
            provider=key.provider,
            params=key.values(),
            stream=bool(key.stream),
            samples=samples[at],
            trials=trials,
            planned=int(planned[at]),
            done=int(done[at]),
            answered=int(answered[at]),
            coverage=int(answered[at]) / int(planned[at]) if planned[at] else None,
            outcomes=outcomes[at],
            scores=scores[at],
            latency=latency[at],
            speed=speed[at],
            tokens=tokens[at],
            cost=cost[at],
            repeats={name: repeated[name][at] for name in scores[at] if repeated[name][at]},
            means=averaged[at],
        )
        for at, key in enumerate(rows.cells)
    ]


def _scores(rows: Rows, scored: Mapping[str, Scored], planned: Any, sets: Mapping[str, Any]) -> list[dict[str, Estimate]]:
    """Per cell: the estimates of the scorers its prompt set has, or that scored anything of it."""
    found: list[dict[str, Estimate]] = [{} for _ in rows.cells]
    for name, one in scored.items():
        ties = tie_group_numbers(rows, one)
        for at, estimate in enumerate(estimates(one, rows.cell[rows.first], planned)):
            if estimate.n or name in sets.get(rows.cells[at].prompt_set, {}).get("scorers", []):
                found[at][name] = replace(estimate, tie_group=ties[at])
    return found


def _totals(rows: Rows, tries: Attempts | None, planned: int, manifest: Mapping[str, Any]) -> Totals:
    counts, everything = manifest.get("counts") or {}, np.zeros(rows.n, dtype=np.int64)
    whole = max(int(counts.get("planned") or (manifest.get("plan") or {}).get("size") or 0), planned)
    answered, active = int(rows.answered.sum()), active_seconds(rows)
    cost, currency = rows.number("cost"), rows.factor("currency")
    tokens = token_counts(rows, everything, 1)[0]
    lost = np.where(rows.answered, 0.0, np.nan_to_num(cost))
    if tries is not None:
        useless = (tries.row >= 0) & ~np.isnan(tries.cost)
        useless &= tries.failed | ~rows.answered[tries.row] if rows.n else False
        lost = np.bincount(tries.row[useless], weights=tries.cost[useless], minlength=rows.n)
    return Totals(
        planned=whole,
        done=rows.n,
        answered=answered,
        missing=whole - rows.n,
        coverage=answered / whole if whole else None,
        outcomes=outcome_counts(rows, everything, 1)[0],
        spend=_by_currency(cost, currency.codes, currency.names),
        wasted={name: value for name, value in _by_currency(lost, currency.codes, currency.names).items() if value},
        unknown_cost=int(np.count_nonzero(rows.answered & np.isnan(cost))),
        active_s=active,
        requests_per_s=rows.n / active if active else None,
        output_tokens_per_s=tokens["output"].sum / active if active and tokens["output"].sum is not None else None,
        tokens=tokens,
        effort=efforts(rows, tries, everything, 1)[0],
    )


def _by_currency(amounts: Any, codes: Any, names: Sequence[str]) -> dict[str, float]:
    known = ~np.isnan(amounts)
    return {name: float(amounts[known & (codes == at)].sum()) for at, name in enumerate(names) if (known & (codes == at)).any()}


def _columns(rows: Rows) -> list[str]:
    counted = set(TOKENS.values())
    return [name for name in rows.names if not name.endswith("_why") and rows.any(name) and (name not in counted or bool(np.nansum(rows.number(name)) > 0))]


def run_facts(manifest: Mapping[str, Any]) -> RunFacts:
    """The manifest as a page shows it; an old or partial one leaves blanks."""
    take = manifest.get
    return RunFacts(
        run_id=take("run_id") or "",
        name=take("name") or "",
        description=take("description"),
        state=take("state") or "interrupted",
        reason=take("reason"),
        started_at=take("started_at"),
        finished_at=take("finished_at"),
        evalrunner=take("evalrunner"),
        python=take("python"),
        platform=take("platform"),
        host=take("host"),
        command=tuple(take("command") or ()),
        git=take("git"),
        config=dict(take("config") or {}),
        resumes=tuple(take("resumes") or ()),
        plan=dict(take("plan") or {}),
    )
