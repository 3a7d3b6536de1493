"""Gates: conditions on a run, decided three ways. A limit is broken only where the 95 % interval lies wholly beyond it, and held only where it lies
wholly within. Numbers without an interval (totals, coverage, tokens) are compared as they are. Nothing measured never passes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct
from scipy import special

from evalrunner.analysis.compare import Better, CellName, Comparison, PairedCells
from evalrunner.analysis.intervals import Z95
from evalrunner.analysis.paired import quantile_difference
from evalrunner.analysis.power import samples_needed
from evalrunner.analysis.rules import PERCENTILES, SPEEDS, TOKENS, CellKey, Rule, matches, metric_problem
from evalrunner.analysis.tables import CellSummary, Distribution, Summary
from evalrunner.errors import ConfigError

State = Literal["pass", "fail", "inconclusive", "no data"]
_WORST: tuple[State, ...] = ("no data", "fail", "inconclusive", "pass")


class GateResult(Struct, frozen=True, kw_only=True):
    """One limit on one cell. `value` with its interval is the measured number, for `max_drop` how much worse than `baseline` it is.

    `bounds`: the score with everything unanswered counted as 0 and as 1 · `samples_needed` (inconclusive only): how many samples would decide, if what
    was measured is true · `text` says it all in one line.
    """

    metric: str
    cell: str
    limit: Literal["min", "max", "max_drop"]
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


class Against(NamedTuple):
    """What `max_drop` needs: the comparison with the baseline and the baseline's own summary."""

    comparison: Comparison
    baseline: Summary


class Measured(NamedTuple):
    """A number of a cell with its 95 % interval (equal to it where it is exact). None, with n, where there are too few: `needed` says how many."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    needed: int = 1
    bounds: tuple[float, float] | None = None


def check_gates(rules: Sequence[Rule], summary: Summary, against: Against | None = None) -> list[GateResult]:
    """Every rule on every cell it is about. Raises `ConfigError` for an unknown metric, a rule without a limit, or `max_drop` without a baseline."""
    found = []
    for rule in rules:
        if problem := metric_problem(rule.metric, summary.scorers):
            raise ConfigError(f"gate: {problem}")
        if rule.min is None and rule.max is None and rule.max_drop is None:
            raise ConfigError(f"gate: {rule.metric} has no limit (min, max or max_drop)")
        cells = [cell for cell in summary.cells if _chosen(cell, rule)]
        results = [result for cell in cells for result in _limits(rule, cell)]
        if rule.max_drop is not None:
            if against is None:
                raise ConfigError(f"gate: max_drop of {rule.metric} needs a baseline")
            results += [_drop(rule, cell, against) for cell in cells]
        found += results or [_nothing(rule)]
    return found


def gates_state(results: Sequence[GateResult]) -> State:
    """All of it in a word, the worst first: no data, fail, inconclusive, pass."""
    return next((state for state in _WORST if any(one.state == state for one in results)), "pass")


def _chosen(cell: CellSummary, rule: Rule) -> bool:
    """Whether a rule is about a cell: `where` says so, and a score is asked only of prompt sets that have its scorer."""
    scorer = rule.metric.removeprefix("score_").removeprefix("cost.per_correct.")
    return chosen(cell, rule.where) and (scorer == rule.metric or scorer in cell.scores)


def chosen(cell: CellSummary, where: Mapping[str, Any]) -> bool:
    """Whether a cell has every value of `where`."""
    return matches(CellKey(cell.prompt_set, cell.prompt, cell.model, cell.provider, json.dumps(cell.params), cell.stream), where)


def _nothing(rule: Rule) -> GateResult:
    asked = ", ".join(f"{name}={value}" for name, value in rule.where.items())
    limit, threshold = next((name, value) for name, value in _thresholds(rule) if value is not None)
    text = f"{rule.metric}: no cell {f'has {asked}' if asked else 'was measured'}"
    return GateResult(metric=rule.metric, cell=asked, limit=limit, threshold=threshold, state="no data", value=None, low=None, high=None, n=0, text=text)


def _thresholds(rule: Rule) -> tuple[tuple[Literal["min", "max", "max_drop"], float | None], ...]:
    return ("min", rule.min), ("max", rule.max), ("max_drop", rule.max_drop)


def _limits(rule: Rule, cell: CellSummary) -> list[GateResult]:
    return [_decided(rule, cell, limit, threshold, measure(cell, rule.metric)) for limit, threshold in _thresholds(rule)[:2] if threshold is not None]


def _decided(
    rule: Rule, cell: CellSummary, limit: Literal["min", "max", "max_drop"], threshold: float, found: Measured, base: float | None = None
) -> GateResult:
    state, needed = _state(limit, threshold, found), None
    if state == "inconclusive":
        needed = _needed(found, threshold)
    shown = "no data" if found.value is None else f"{found.value + 0.0:.4g}"
    if found.value is not None and found.low is not None and found.high is not None and found.low != found.high:
        shown += f" [{found.low:.4g}, {found.high:.4g}]"
    sign = "≥" if limit == "min" else "≤"
    what = f"drop of {rule.metric}" if limit == "max_drop" else rule.metric
    extra = f"; {needed:,} would decide" if needed else ""
    if found.bounds is not None and found.bounds[1] - found.bounds[0] > 1e-9:
        extra += f"; with the unanswered counted, from {found.bounds[0]:.4g} to {found.bounds[1]:.4g}"
    text = f"{cell.label}: {what} {sign} {threshold:g}: {state} ({shown}, n = {found.n:,}{extra})"
    return GateResult(
        metric=rule.metric,
        cell=cell.label,
        limit=limit,
        threshold=threshold,
        state=state,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        text=text,
        baseline=base,
        bounds=found.bounds,
        samples_needed=needed,
    )


def _state(limit: str, threshold: float, found: Measured) -> State:
    if found.n == 0:
        return "no data"
    if found.value is None or found.low is None or found.high is None:
        return "inconclusive"
    low, high = (found.low, found.high) if limit != "min" else (-found.high, -found.low)
    top = threshold if limit != "min" else -threshold
    if low > top:
        return "fail"
    return "pass" if high <= top else "inconclusive"


def _needed(found: Measured, threshold: float) -> int | None:
    """Samples that would decide if the measured value is true; for a percentile of too few, the least it needs."""
    if found.value is None or found.low is None or found.high is None:
        return found.needed
    sd = (found.high - found.low) / 2 / Z95 * math.sqrt(found.n)
    return samples_needed(sd, abs(found.value - threshold))


def measure(cell: CellSummary, metric: str) -> Measured:
    """The number a rule is about, from the cell's tables."""
    name, _, part = metric.partition(".")
    if name.startswith("score_"):
        score = cell.scores.get(metric.removeprefix("score_"))
        if score is None:
            return Measured(None, None, None, 0)
        bounds = None if score.low_bound is None or score.high_bound is None else (score.low_bound, score.high_bound)
        return Measured(score.value, score.low, score.high, score.n, bounds=bounds)
    if name == "coverage":
        return _exact(cell.coverage, cell.planned)
    if name == "cost":
        return _cost(cell, part)
    for kind, column in TOKENS.items():
        if name == column:
            return _exact(cell.tokens[kind].mean, cell.tokens[kind].n)
    return _timed({**cell.latency, **cell.speed}[name], part)


def _exact(value: float | None, n: int) -> Measured:
    return Measured(value, value, value, n if value is not None else 0)


def _cost(cell: CellSummary, part: str) -> Measured:
    kind, _, scorer = part.partition(".")
    if kind == "per_correct":
        return _exact(cell.cost.per_correct.get(scorer), cell.answered)
    if kind == "total":
        return _exact(cell.cost.total, cell.done)
    per_request = cell.cost.per_1000 if kind == "per_1000" or cell.cost.per_1000 is None else cell.cost.per_1000 / 1000
    return _exact(per_request, cell.answered)


def _timed(found: Distribution, part: str) -> Measured:
    if part:
        quantile = found.quantiles[PERCENTILES.index(part)]
        return Measured(quantile.value, quantile.low, quantile.high, quantile.n, quantile.needed)
    if found.mean is None or found.sd is None:
        return Measured(None, None, None, found.n, 2)
    half = float(special.stdtrit(found.n - 1, 0.975)) * found.sd / math.sqrt(found.n)
    return Measured(found.mean, found.mean - half, found.mean + half, found.n)


def _drop(rule: Rule, cell: CellSummary, against: Against) -> GateResult:
    """How much worse than its partner: paired by sample where there is such a difference, else from the two cells' own numbers."""
    pair = next((pair for pair in against.comparison.pairs if _same(pair.candidate, cell)), None)
    partner = next((one for one in against.baseline.cells if pair and _same(pair.baseline, one)), None)
    threshold = rule.max_drop or 0.0
    if pair is None or partner is None:
        return _decided(rule, cell, "max_drop", threshold, Measured(None, None, None, 0))
    base = measure(partner, rule.metric).value
    return _decided(rule, cell, "max_drop", threshold, _worsening(rule.metric, pair, (partner, cell)), base)


def _same(name: CellName, cell: CellSummary) -> bool:
    return all(getattr(name, part) == getattr(cell, part) for part in CellName.__struct_fields__)


def _worsening(metric: str, pair: PairedCells, cells: tuple[CellSummary, CellSummary]) -> Measured:
    """Up is worse."""
    better = _direction(metric)
    paired = pair.metrics.get(metric)
    if paired is not None and paired.low is not None and paired.high is not None and paired.difference is not None:
        bounds = None if paired.low_bound is None or paired.high_bound is None else (paired.low_bound, paired.high_bound)
        value, low, high, n = paired.difference, paired.low, paired.high, paired.n
    else:
        first, second = measure(cells[0], metric), measure(cells[1], metric)
        if first.value is None or first.low is None or first.high is None or second.value is None or second.low is None or second.high is None:
            return Measured(None, None, None, min(first.n, second.n), max(first.needed, second.needed))
        low, high = quantile_difference((first.value, first.low, first.high), (second.value, second.low, second.high))
        value, n, bounds = second.value - first.value, min(first.n, second.n), None
    if better == "lower":
        return Measured(value, low, high, n, bounds=bounds)
    return Measured(-value, -high, -low, n, bounds=None if bounds is None else (-bounds[1], -bounds[0]))


def _direction(metric: str) -> Better:
    return "higher" if metric.startswith(("score_", "coverage", *SPEEDS)) else "lower"
