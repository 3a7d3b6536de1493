"""Two runs, or two choices of cells, side by side: paired differences, flips, verdicts. Pure: rows in, a `Comparison` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec import Struct, convert, field
from msgspec.structs import replace

from evalrunner.analysis.cells import Scored, by_unit
from evalrunner.analysis.frames import pairs_frame
from evalrunner.analysis.paired import Difference, Verdict, mcnemar_p, mean_difference, score_difference, verdict
from evalrunner.analysis.pairing import Matched, Side, match_samples, open_side, pair_cells, refuse_changed
from evalrunner.analysis.power import samples_needed
from evalrunner.analysis.rows import CellKey, Mask, Rows, is_score
from evalrunner.analysis.stats import holm, sign_flip_p
from evalrunner.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("latency_ms", "ttft_ms", "tpot_ms", "user_latency_ms", "prompt_tokens", "completion_tokens", "cost")
TIMED = frozenset({"latency_ms", "ttft_ms", "tpot_ms", "user_latency_ms"})

Better = Literal["higher", "lower"]


class Options(Struct, frozen=True, kw_only=True):
    """`margins`: how much worse each metric may get, in its own unit (0 where none is given) · `renames`: baseline name -> candidate name of a prompt
    set, prompt or model · `leave_out_changed`: compare although samples of one id have different data, without those samples.
    """

    margins: Mapping[str, float] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    leave_out_changed: bool = False


class MetricDifference(Struct, frozen=True, kw_only=True):
    """Candidate minus baseline in one metric, over the `n` samples that both have it for. Means are over samples of the means over trials.

    `relative`: difference / baseline · `p_holm`: adjusted over the pairs of cells of this comparison · `low_bound`, `high_bound` (scores only): the
    difference with everything unanswered counted against and for the candidate · `left_out`: matched samples without a number on one side or both ·
    `samples_needed` (inconclusive only): pairs that would decide with power 0.8, if there is no difference (or, without a margin, if it is as seen).
    """

    metric: str
    better: Better
    baseline: float | None
    candidate: float | None
    difference: float | None
    low: float | None
    high: float | None
    relative: float | None
    p: float | None
    p_holm: float | None
    n: int
    left_out: int
    margin: float
    verdict: Verdict
    samples_needed: int | None
    method: str
    low_bound: float | None = None
    high_bound: float | None = None


class Flips(Struct, frozen=True, kw_only=True):
    """A score of at least one half (mean over trials) is right. `gained`, `lost`: sample ids, the largest change first; `p`: exact McNemar of the two."""

    both_right: int
    both_wrong: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    p: float


class CellName(Struct, frozen=True, kw_only=True):
    """Which cell."""

    prompt_set: str
    prompt: str
    model: str
    provider: str
    params: dict[str, Any]
    stream: bool


class PairedCells(Struct, frozen=True, kw_only=True):
    """One cell against its partner. `matched`: samples both have with equal data; `only_*` and `changed` were left out."""

    baseline: CellName
    candidate: CellName
    matched: int
    only_baseline: int
    only_candidate: int
    changed: int
    metrics: dict[str, MetricDifference]
    flips: dict[str, Flips]


class Comparison(Struct, frozen=True, kw_only=True):
    """A candidate against a baseline, pair of cells by pair of cells, in the order of the baseline's plan."""

    baseline: str
    candidate: str
    pairs: tuple[PairedCells, ...]

    def to_frame(self) -> pd.DataFrame:
        """A pandas data frame with a row for each metric of each pair."""
        return pairs_frame(self.pairs)


def compare(baseline: Side, candidate: Side, options: Options | None = None) -> Comparison:
    """Compare two sides, sample by sample.

    Raises `ConfigError` for cells that cannot be paired, `DatasetError` for data that differ or have nothing in common.
    """
    options = options or Options()
    (rows, chosen), (other, picked) = open_side(baseline), open_side(candidate)
    cells = ([rows.cells[at] for at in chosen], [other.cells[at] for at in picked])
    pairs = [(chosen[a], picked[b]) for a, b in pair_cells((baseline, candidate), cells, options.renames)]
    found = [(pair, match_samples(rows, other, pair)) for pair in pairs]
    if not options.leave_out_changed:
        refuse_changed([(rows.cells[pair[0]], matched) for pair, matched in found], (baseline.name, candidate.name))
    if not any(matched.ids for _, matched in found):
        raise DatasetError(f"{baseline.name} and {candidate.name} have no sample in common")
    trials = max(int(baseline.plan.get("trials") or 1), int(candidate.plan.get("trials") or 1))
    units = {name: (by_unit(rows, name), by_unit(other, name)) for name in _metrics(rows, other)}
    compared = [_compare_pair((rows, other), pair, matched, units, trials, options) for pair, matched in found]
    return Comparison(baseline=baseline.name, candidate=candidate.name, pairs=tuple(_adjusted(compared)))


def _named(key: CellKey) -> CellName:
    return convert({**key._asdict(), "params": key.values()}, CellName)


def _metrics(rows: Rows, other: Rows) -> list[str]:
    return [name for name in (*filter(is_score, rows.names), *MEASURED) if rows.any(name) and other.any(name)]


def _compare_pair(
    sides: tuple[Rows, Rows],
    pair: tuple[int, int],
    matched: Matched,
    units: Mapping[str, tuple[Scored, Scored]],
    trials: int,
    options: Options,
) -> PairedCells:
    first, second = sides[0].cells[pair[0]], sides[1].cells[pair[1]]
    mixed = _currencies(sides[0], pair[0]) != _currencies(sides[1], pair[1])
    metrics, flips = {}, {}
    for name, (mine, theirs) in units.items():
        if (name in TIMED and first.stream != second.stream) or (name == "cost" and mixed):
            continue
        both = (mine.mean[matched.baseline], theirs.mean[matched.candidate])
        have = ~np.isnan(both[0]) & ~np.isnan(both[1])
        a, b = both[0][have], both[1][have]
        if is_score(name):
            if not (mine.requests[matched.baseline].any() or theirs.requests[matched.candidate].any()):
                continue  # another prompt set's scorer, or nobody answered
            repeats = max(1.0, float(mine.requests[matched.baseline][have].mean())) if have.any() else 1.0
            result = _conclusion(name, score_difference(a, b, repeats), (a, b), have, options)
            metrics[name] = replace(result, **_bounds(mine, theirs, matched, trials))
            flips[name] = _flips(np.array(matched.ids, dtype=object)[have], a, b)
        elif have.any():
            metrics[name] = _conclusion(name, mean_difference(a, b), (a, b), have, options)
    return PairedCells(
        baseline=_named(first),
        candidate=_named(second),
        matched=len(matched.ids),
        only_baseline=matched.only_baseline,
        only_candidate=matched.only_candidate,
        changed=len(matched.changed),
        metrics=metrics,
        flips=flips,
    )


def _currencies(rows: Rows, cell: int) -> set[str]:
    currency = rows.factor("currency")
    return {currency.names[code] for code in np.unique(currency.codes[rows.cell == cell]) if code >= 0}


def _conclusion(name: str, found: Difference, values: tuple[Any, Any], have: Mask, options: Options) -> MetricDifference:
    better: Better = "higher" if is_score(name) else "lower"
    margin, known = options.margins.get(name, 0.0), found.n > 0 and np.isfinite(found.low)
    oriented = (found.low, found.high) if better == "higher" else (-found.high, -found.low)
    said = verdict(*oriented, margin) if known else "inconclusive"
    base, cand = (float(side.mean()) if found.n else None for side in values)
    return MetricDifference(
        metric=name,
        better=better,
        baseline=base,
        candidate=cand,
        difference=found.value if found.n else None,
        low=found.low if known else None,
        high=found.high if known else None,
        relative=found.value / base if base else None,
        p=sign_flip_p(values[1] - values[0]) if found.n else None,
        p_holm=None,
        n=found.n,
        left_out=int(np.count_nonzero(~have)),
        margin=margin,
        verdict=said,
        samples_needed=samples_needed(found.sd, margin or abs(found.value)) if said == "inconclusive" else None,
        method=found.method,
    )


def _bounds(mine: Scored, theirs: Scored, matched: Matched, trials: int) -> dict[str, float]:
    """The mean difference over all matched samples with every missing trial counted against the candidate, and for it."""
    if not matched.ids:
        return {}
    low, high = [], []
    for scored, units in ((mine, matched.baseline), (theirs, matched.candidate)):
        planned = np.maximum(trials, scored.requests[units])
        low.append((scored.total[units] / planned).mean())
        high.append(((scored.total[units] + planned - scored.requests[units]) / planned).mean())
    return {"low_bound": float(low[1] - high[0]), "high_bound": float(high[1] - low[0])}


def _flips(ids: Any, a: Any, b: Any) -> Flips:
    right, now = a >= 0.5, b >= 0.5
    order = np.argsort(-np.abs(b - a), kind="stable")
    gained, lost = order[(~right & now)[order]], order[(right & ~now)[order]]
    return Flips(
        both_right=int(np.count_nonzero(right & now)),
        both_wrong=int(np.count_nonzero(~right & ~now)),
        gained=tuple(ids[gained].tolist()),
        lost=tuple(ids[lost].tolist()),
        p=mcnemar_p(len(gained), len(lost)),
    )


def _adjusted(pairs: list[PairedCells]) -> list[PairedCells]:
    """Holm over the pairs of cells, metric by metric."""
    names = dict.fromkeys(name for pair in pairs for name in pair.metrics)
    adjusted: dict[tuple[int, str], float] = {}
    for name in names:
        at = [i for i, pair in enumerate(pairs) if name in pair.metrics and pair.metrics[name].p is not None]
        for i, p in zip(at, holm([pairs[i].metrics[name].p or 0.0 for i in at]), strict=True):
            adjusted[i, name] = float(p)
    return [replace(pair, metrics={name: replace(one, p_holm=adjusted.get((i, name))) for name, one in pair.metrics.items()}) for i, pair in enumerate(pairs)]
