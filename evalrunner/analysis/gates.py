"""Gates: conditions on a run, decided three ways. A limit is broken only where the 95 % interval lies wholly beyond it, and held only where it lies
wholly within. Totals, coverage and cost per correct answer have no interval and are compared as they are. Nothing measured never passes, and neither does
a cell of the plan that has no row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from evalrunner.analysis.compare import Better, CellName, Comparison, PairedCells
from evalrunner.analysis.paired import quantile_difference
from evalrunner.analysis.power import samples_to_decide
from evalrunner.analysis.rules import PERCENTILES, SPEEDS, CellKey, Rule, is_about, matches, metric_problem, unserved
from evalrunner.analysis.summary import label_of, varying
from evalrunner.analysis.tables import CellSummary, Distribution, Mean, Summary
from evalrunner.errors import ConfigError

State = Literal["pass", "fail", "inconclusive", "no data"]
Limit = Literal["min", "max", "max_drop"]
_WORST: tuple[State, ...] = ("no data", "fail", "inconclusive", "pass")


class GateResult(Struct, frozen=True, kw_only=True):
    """One limit on one cell. `value` with its interval is the measured number, for `max_drop` how much worse than `baseline` it is; an end that cannot be
    known, as of a cost of which parts are unknown, is None.

    `bounds`: the score with everything unanswered counted as 0 and as 1 · `samples_needed` (inconclusive only): how many samples would decide, if what
    was measured is true · `pair`: its place in `Comparison.pairs` · `text` says it all in one line.
    """

    metric: str
    cell: str
    limit: Limit
    threshold: float
    state: State
    value: float | None
    low: float | None
    high: float | None
    n: int
    text: str
    baseline: float | None = None
    bounds: tuple[float, float] | None = None
    samples_needed: int | None = None
    pair: int | None = None


class Against(NamedTuple):
    """What `max_drop` needs: the comparison with the baseline and the baseline's own summary."""

    comparison: Comparison
    baseline: Summary


class Measured(NamedTuple):
    """A number of a cell with its 95 % interval: equal to it where it is exact, infinite where an end cannot be known. None, with n, where there are too
    few: `needed` says how many. `note`: what a reader must know beside it.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    needed: int = 1
    bounds: tuple[float, float] | None = None
    note: str = ""


NOTHING = Measured(None, None, None, 0)


def check_gates(rules: Sequence[Rule], summary: Summary, against: Against | None = None, within: Mapping[str, Any] | None = None) -> list[GateResult]:
    """Every rule on every cell it is about, those of the plan that have no row included; `within` narrows the run to some cells, as `summary` is already.

    Raises `ConfigError` for an unknown metric, a rule without a limit, or `max_drop` without a baseline.
    """
    found = []
    missing = unserved(summary.run.plan, [key_of(cell) for cell in summary.cells], within or {})
    names = varying([*(key_of(cell) for cell in summary.cells), *(key for key, _ in missing)])
    for rule in rules:
        if problem := metric_problem(rule.metric, summary.scorers):
            raise ConfigError(f"gate: {problem}")
        if rule.min is None and rule.max is None and rule.max_drop is None:
            raise ConfigError(f"gate: {rule.metric} has no limit (min, max or max_drop)")
        if rule.max_drop is not None and against is None:
            raise ConfigError(f"gate: max_drop of {rule.metric} needs a baseline")
        results = [result for cell in summary.cells if is_about(rule, key_of(cell), list(cell.scores)) for result in _on_cell(rule, cell, against)]
        results += [undecided(rule, label_of(key, names), "no request of this cell has a row") for key, scorers in missing if is_about(rule, key, scorers)]
        asked = ", ".join(f"{name}={value}" for name, value in rule.where.items())
        found += results or [undecided(rule, asked, f"no cell {f'has {asked}' if asked else 'was measured'}")]
    return found


def undecided(rule: Rule, cell: str, why: str) -> GateResult:
    """A rule that nothing was measured for."""
    limit, threshold = next((name, value) for name, value in _thresholds(rule) if value is not None)
    text = f"{cell}: {rule.metric}: no data ({why})" if cell else f"{rule.metric}: no data ({why})"
    return GateResult(metric=rule.metric, cell=cell, limit=limit, threshold=threshold, state="no data", value=None, low=None, high=None, n=0, text=text)


def gates_state(results: Sequence[GateResult]) -> State:
    """All of it in a word, the worst first: no data, fail, inconclusive, pass."""
    return next((state for state in _WORST if any(one.state == state for one in results)), "pass")


def chosen(cell: CellSummary, where: Mapping[str, Any]) -> bool:
    """Whether a cell has every value of `where`."""
    return matches(key_of(cell), where)


def key_of(cell: CellSummary) -> CellKey:
    """Its name as its rows have it."""
    return CellKey(cell.prompt_set, cell.prompt, cell.model, cell.provider, json.dumps(cell.params, sort_keys=True), cell.stream)


def _thresholds(rule: Rule) -> tuple[tuple[Limit, float | None], ...]:
    return ("min", rule.min), ("max", rule.max), ("max_drop", rule.max_drop)


def _on_cell(rule: Rule, cell: CellSummary, against: Against | None) -> list[GateResult]:
    pairs = enumerate(against.comparison.pairs if against else ())
    at, pair = next(((at, pair) for at, pair in pairs if same_cell(pair.candidate, cell)), (None, None))
    found = [_decided(rule, cell, limit, threshold, measure(cell, rule.metric)) for limit, threshold in _thresholds(rule)[:2] if threshold is not None]
    if rule.max_drop is not None and against is not None:
        found.append(_drop(rule, cell, pair, against.baseline))
    return [replace(one, pair=at) for one in found]


def _decided(rule: Rule, cell: CellSummary, limit: Limit, threshold: float, found: Measured, base: float | None = None) -> GateResult:
    state = _state(limit, threshold, found)
    needed = _needed(found, threshold) if state == "inconclusive" else None
    what = f"drop of {rule.metric}" if limit == "max_drop" else rule.metric
    text = f"{cell.label}: {what} {'≥' if limit == 'min' else '≤'} {threshold:g}: {state} ({_shown(found, needed)})"
    return GateResult(
        metric=rule.metric,
        cell=cell.label,
        limit=limit,
        threshold=threshold,
        state=state,
        value=found.value,
        low=_known(found.low),
        high=_known(found.high),
        n=found.n,
        text=text,
        baseline=base,
        bounds=found.bounds,
        samples_needed=needed,
    )


def _known(end: float | None) -> float | None:
    return end if end is not None and math.isfinite(end) else None


def _shown(found: Measured, needed: int | None) -> str:
    """`0.9 [0.85, 0.95], n = 100; 500 would decide`."""
    shown = "no data" if found.value is None else f"{found.value + 0.0:.4g}"
    if found.value is not None and found.low is not None and found.high is not None and found.low != found.high:
        shown += f" [{', '.join('?' if _known(end) is None else f'{end:.4g}' for end in (found.low, found.high))}]"
    parts = [f"{shown}, n = {found.n:,}"]
    if needed:
        parts.append(f"{needed:,} would decide")
    if found.bounds is not None and found.bounds[1] - found.bounds[0] > 1e-9:
        parts.append(f"with the unanswered counted, from {found.bounds[0]:.4g} to {found.bounds[1]:.4g}")
    return "; ".join([*parts, *([found.note] if found.note else [])])


def _state(limit: Limit, threshold: float, found: Measured) -> State:
    if found.n == 0:
        return "no data"
    if found.value is None or found.low is None or found.high is None:
        return "inconclusive"
    low, high, top = (found.low, found.high, threshold) if limit != "min" else (-found.high, -found.low, -threshold)
    rounding = 1e-9 * abs(top)
    if low > top + rounding:
        return "fail"
    return "pass" if high <= top + rounding else "inconclusive"


def _needed(found: Measured, threshold: float) -> int | None:
    """Samples that would decide; for a percentile of too few, the least it needs."""
    if found.value is None or found.low is None or found.high is None:
        return found.needed
    return samples_to_decide((found.value, found.low, found.high), threshold, found.n)


def measure(cell: CellSummary, metric: str) -> Measured:
    """The number a rule is about, from the cell's tables."""
    name, _, part = metric.partition(".")
    if name.startswith("score_"):
        score = cell.scores.get(metric.removeprefix("score_"))
        if score is None:
            return NOTHING
        bounds = None if score.low_bound is None or score.high_bound is None else (score.low_bound, score.high_bound)
        return Measured(score.value, score.low, score.high, score.n, bounds=bounds)
    if name == "coverage":
        return _exact(cell.coverage, cell.planned)
    if name == "cost":
        return _cost(cell, part)
    return _percentile({**cell.latency, **cell.speed}[name], part) if part else _mean(cell.means.get(name))


def _exact(value: float | None, n: int) -> Measured:
    return Measured(value, value, value, n if value is not None else 0)


def _mean(found: Mean | None) -> Measured:
    return NOTHING if found is None else Measured(found.value, found.low, found.high, found.n, 2)


def _cost(cell: CellSummary, part: str) -> Measured:
    """Where the cost of some answers is unknown, what is known is the least it can be, and nothing is the most."""
    kind, _, scorer = part.partition(".")
    cost, known = cell.cost, cell.answered - cell.cost.unknown
    if cost.total is None:
        return NOTHING
    if kind == "total":
        found = _exact(cost.total, known)
    elif kind == "per_correct":
        score = cell.scores.get(scorer)
        found = _exact(cost.total / score.total if score is not None and score.total else None, known)
    else:
        found = _mean(cell.means.get("cost"))
        found = _scaled(found, 1000.0 if kind == "per_1000" else 1.0)
    if not cost.unknown or found.value is None:
        return found
    low = found.value if kind in {"total", "per_correct"} else max(found.low or 0.0, 0.0) * known / cell.answered
    return found._replace(low=low, high=math.inf, note=_unknown(cell))


def _unknown(*cells: CellSummary) -> str:
    return f"the cost of {sum(cell.cost.unknown for cell in cells):,} answers is unknown"


def _scaled(found: Measured, factor: float) -> Measured:
    value, low, high = (None if one is None else factor * one for one in found[:3])
    return found._replace(value=value, low=low, high=high)


def _percentile(found: Distribution, part: str) -> Measured:
    quantile = found.quantiles[PERCENTILES.index(part)]
    return Measured(quantile.value, quantile.low, quantile.high, quantile.n, quantile.needed)


def _drop(rule: Rule, cell: CellSummary, pair: PairedCells | None, baseline: Summary) -> GateResult:
    """How much worse than its partner: paired by sample where there is such a difference, else from the two cells' own numbers."""
    partner = next((one for one in baseline.cells if pair and same_cell(pair.baseline, one)), None)
    threshold = rule.max_drop or 0.0
    if pair is None or partner is None:
        return _decided(rule, cell, "max_drop", threshold, NOTHING._replace(note="the baseline has no answer to hold it against"))
    base = measure(partner, rule.metric).value
    return _decided(rule, cell, "max_drop", threshold, _worsening(rule.metric, pair, (partner, cell)), base)


def same_cell(name: CellName, cell: CellSummary) -> bool:
    """Whether a cell of a comparison is this one of a summary."""
    return all(getattr(name, part) == getattr(cell, part) for part in CellName.__struct_fields__)


def _worsening(metric: str, pair: PairedCells, cells: tuple[CellSummary, CellSummary]) -> Measured:
    """Up is worse."""
    name = metric.partition(".")[0]
    if why := pair.not_compared.get(name):
        return NOTHING._replace(note=why)
    found = _paired(metric, pair, cells) or _unpaired(metric, cells)
    if found.value is None or found.low is None or found.high is None or _direction(metric) == "lower":
        return found
    bounds = None if found.bounds is None else (-found.bounds[1], -found.bounds[0])
    return found._replace(value=-found.value, low=-found.high, high=-found.low, bounds=bounds)


def _paired(metric: str, pair: PairedCells, cells: tuple[CellSummary, CellSummary]) -> Measured | None:
    paired = pair.metrics.get("cost" if metric == "cost.per_1000" else metric)
    if paired is not None and paired.n == 0:
        return NOTHING._replace(note="no sample was answered on both sides")
    if paired is None or paired.low is None or paired.high is None or paired.difference is None:
        return None
    bounds = None if paired.low_bound is None or paired.high_bound is None else (paired.low_bound, paired.high_bound)
    found = _scaled(Measured(paired.difference, paired.low, paired.high, paired.n, bounds=bounds), 1000.0 if metric == "cost.per_1000" else 1.0)
    if metric.startswith("cost") and any(cell.cost.unknown for cell in cells):
        low, high = (-math.inf if cells[0].cost.unknown else found.low, math.inf if cells[1].cost.unknown else found.high)
        return found._replace(low=low, high=high, note=_unknown(*cells))
    return found


def _unpaired(metric: str, cells: tuple[CellSummary, CellSummary]) -> Measured:
    first, second = (measure(cell, metric) for cell in cells)
    if first.value is None or first.low is None or first.high is None or second.value is None or second.low is None or second.high is None:
        return Measured(None, None, None, min(first.n, second.n), max(first.needed, second.needed))
    low, high = quantile_difference((first.value, first.low, first.high), (second.value, second.low, second.high))
    return Measured(second.value - first.value, low, high, min(first.n, second.n), note="; ".join(filter(None, (first.note, second.note))))


def _direction(metric: str) -> Better:
    return "higher" if metric.startswith(("score_", "coverage", *SPEEDS)) else "lower"
