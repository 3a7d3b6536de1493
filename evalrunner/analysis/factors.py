"""What each factor of the grid did: every level against the factor's first, averaged over the cells that differ in nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from evalrunner.analysis.cells import Scored, by_unit, cells_by_set, mean_requests, sample_table
from evalrunner.analysis.paired import mean_difference, score_difference
from evalrunner.analysis.rows import CellKey, Floats, Rows, is_score
from evalrunner.analysis.stats import holm, sign_flip_p
from evalrunner.analysis.tables import Effect

MEASURED = ("latency_ms", "completion_tokens", "cost")
_NAMED = ("model", "prompt", "stream")


class _Level(NamedTuple):
    """One level and its matched cells: places among the prompt set's cells, of the reference and of the level."""

    factor: str
    level: Any
    reference: Any
    baseline: list[int]
    candidate: list[int]


def factors(rows: Rows, scored: Mapping[str, Scored]) -> list[Effect]:
    """Per prompt set and metric: the effect of every level. A parameter that a model has for itself alone is part of that model."""
    units = {f"score_{name}": one for name, one in scored.items()}
    units |= {name: by_unit(rows, name) for name in MEASURED if rows.any(name)}
    found: list[Effect] = []
    for prompt_set, members in cells_by_set(rows).items():
        levels = _levels([rows.cells[at] for at in members])
        for metric, one in units.items() if levels else ():
            if metric == "cost" and _currencies(rows, members) > 1:
                continue
            table, trials = sample_table(rows, one, members), mean_requests(rows, one, members)
            compared = [effect for level in levels if (effect := _effect(prompt_set, metric, level, table, trials))]
            found += [replace(effect, p_holm=float(p)) for effect, p in zip(compared, holm([one.p for one in compared]), strict=True)]
    return found


def _levels(keys: Sequence[CellKey]) -> list[_Level]:
    params = [key.values() for key in keys]
    names = sorted({name for one in params for name in one})
    swept = [name for name in names if any(len({_text(one.get(name)) for key, one in zip(keys, params, strict=True) if key.model == model}) > 1
                                           for model in {key.model for key in keys})]  # fmt: skip
    points = [{name: getattr(key, name) for name in _NAMED} | {name: one.get(name) for name in swept} for key, one in zip(keys, params, strict=True)]
    found = []
    for factor in (*_NAMED, *swept):
        values = list({_text(point[factor]): point[factor] for point in points}.values())
        rest = [_text({name: value for name, value in point.items() if name != factor}) for point in points]
        for level in values[1:]:
            here = {rest[at]: at for at, point in enumerate(points) if _text(point[factor]) == _text(level)}
            matched = [(at, here[rest[at]]) for at, point in enumerate(points) if _text(point[factor]) == _text(values[0]) and rest[at] in here]
            if matched:
                found.append(_Level(factor, level, values[0], [a for a, _ in matched], [b for _, b in matched]))
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _effect(prompt_set: str, metric: str, level: _Level, table: Floats, trials: Floats) -> Effect | None:
    if level.factor == "stream" and metric == "latency_ms":
        return None  # streamed and whole answers are never mixed
    a, b = table[level.baseline], table[level.candidate]
    have = ~np.isnan(a) & ~np.isnan(b)
    cells = have.sum(axis=0)
    use = cells > 0
    mine, theirs = (np.where(have, side, 0.0).sum(axis=0)[use] / cells[use] for side in (a, b))
    if np.count_nonzero(use) < 2:
        return None
    repeats = float(cells[use].mean() * min(trials[level.baseline].mean(), trials[level.candidate].mean()))
    result = score_difference(mine, theirs, repeats) if is_score(metric) else mean_difference(mine, theirs)
    p = sign_flip_p(theirs - mine)
    return Effect(
        prompt_set=prompt_set,
        factor=level.factor,
        level=level.level,
        reference=level.reference,
        metric=metric,
        cells=len(level.baseline),
        n=result.n,
        baseline=float(mine.mean()),
        difference=result.value,
        low=result.low,
        high=result.high,
        p=p,
        p_holm=p,
    )


def _currencies(rows: Rows, members: Sequence[int]) -> int:
    codes = rows.factor("currency").codes[np.isin(rows.cell, members)]
    return len(set(codes[codes >= 0].tolist()))
