"""Cells against cells within a run: the pairwise matrix, and what each factor of the grid did."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evalrunner.analysis.stats import ALPHA
from evalrunner.analysis.tables import Effect, Pair, Summary
from evalrunner.report import charts
from evalrunner.report.groups import Group, View
from evalrunner.report.quantities import chance, points, points_span
from evalrunner.report.words import both

WIDE = 8
"""Cells up to which the matrix has room for wins, ties and losses beside the difference."""


@dataclass(frozen=True)
class Duel:
    """One field of the matrix: the row's cell minus the column's. `pair` names the two for the sample viewer."""

    pair: str
    difference: float
    tally: str
    tone: str
    tip: str


@dataclass(frozen=True)
class Matrix:
    """The cells of one prompt set, best first, each against each. `rows`: the pairs once each, the clearest first."""

    group: Group
    views: list[tuple[str, View]]
    duels: dict[tuple[int, int], Duel]
    rows: list[tuple[View, View, Pair]]
    wide: bool


@dataclass(frozen=True)
class FactorTable:
    """What each level did, all else being equal: (factor, level, reference, effects by metric). `axis` is in percentage points."""

    group: Group
    metric: str
    axis: charts.Axis
    measured: list[str]
    rows: list[tuple[Markup | str, str | Markup, str | Markup, dict[str, Effect]]]


def matrix(group: Group, summary: Summary) -> Matrix | None:
    """None where there are not two cells to compare."""
    found = [one for one in summary.pairs if one.prompt_set == group.name and one.scorer == group.scorer]
    if not found:
        return None
    inside = {at for one in found for at in (one.first, one.second)}
    views = [view for view in group.views if view.cell.index in inside]
    by_index = {view.cell.index: view for view in views}
    duels = {}
    for one in found:
        better = "" if one.p_holm >= ALPHA else "better" if one.difference > 0 else "worse"
        for a, b, sign, wins, losses in ((one.first, one.second, 1, one.wins, one.losses), (one.second, one.first, -1, one.losses, one.wins)):
            tone = better if sign > 0 or not better else {"better": "worse", "worse": "better"}[better]
            low, high = (one.low, one.high) if sign > 0 else (-one.high, -one.low)
            tip = (
                f"{by_index[a].label} − {by_index[b].label}: {points(sign * one.difference)} [{points_span(low, high)}], p = {chance(one.p_holm)}, n = {one.n}"
            )
            duels[a, b] = Duel(f"{a},{b}", sign * one.difference, f"{wins}–{one.ties}–{losses}", tone, tip)
    rows = [_better_first(by_index[one.first], by_index[one.second], one) for one in sorted(found, key=lambda one: (one.p_holm, one.p))]
    return Matrix(group, list(zip(_letters(len(views)), views, strict=True)), duels, rows, len(views) <= WIDE)


def _better_first(first: View, second: View, one: Pair) -> tuple[View, View, Pair]:
    if one.difference >= 0:
        return first, second, one
    turned = {"first": one.second, "second": one.first, "wins": one.losses, "losses": one.wins}
    values = {name: getattr(one, name) for name in one.__struct_fields__} | turned
    return second, first, Pair(**values | {"difference": -one.difference, "low": -one.high, "high": -one.low})


def _letters(count: int) -> Sequence[str]:
    return [letter if k < 26 else f"{letter}{k // 26}" for k in range(count) for letter in string.ascii_uppercase[k % 26]]


def factor_table(group: Group, summary: Summary) -> FactorTable | None:
    """None where nothing varies. One factor is enough: its effects on latency, tokens and cost, paired and with intervals, stand nowhere else."""
    here = [one for one in summary.factors if one.prompt_set == group.name]
    metric = f"score_{group.scorer}"
    scored = [one for one in here if one.metric == metric]
    if not scored:
        return None
    axis = charts.linear_axis(min(0.0, *(one.low * 100 for one in scored)), max(0.0, *(one.high * 100 for one in scored)), count=4)
    measured = [name for name in dict.fromkeys(one.metric for one in here) if not name.startswith("score_")]
    effects = {(one.factor, repr(one.level), one.metric): one for one in here}
    rows = [
        (
            both(f"factor_{one.factor}") if one.factor in ("model", "prompt", "stream", "run") else one.factor,
            _level(one.factor, one.level),
            _level(one.factor, one.reference),
            {name: effect for name in (metric, *measured) if (effect := effects.get((one.factor, repr(one.level), name)))},
        )
        for one in scored
    ]
    return FactorTable(group, metric, axis, measured, rows)


def _level(factor: str, value: Any) -> str | Markup:
    return both("streamed" if value else "whole") if factor == "stream" else "–" if value is None else str(value)
