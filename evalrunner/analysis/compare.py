"""Two runs, or two choices of cells, side by side: paired differences, flips, verdicts. Pure: rows in, a `Comparison` out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from msgspec import Struct, convert, field
from msgspec.structs import replace

from evalrunner.analysis.cells import Scored, by_unit
from evalrunner.analysis.frames import pairs_frame
from evalrunner.analysis.intervals import Z95, is_binary
from evalrunner.analysis.paired import Difference, Verdict, mcnemar_p, mean_difference, score_difference, verdict
from evalrunner.analysis.pairing import Matched, Side, match_samples, open_side, pair_cells, refuse_changed
from evalrunner.analysis.power import minimal_detectable_effect, samples_to_decide
from evalrunner.analysis.rows import CellKey, Mask, Rows, is_score
from evalrunner.analysis.rules import Rule, matches
from evalrunner.analysis.scorings import changed, one_sided, refuse_changed_scorers, scorings_of
from evalrunner.analysis.stats import holm, sign_flip_p
from evalrunner.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("latency_ms", "ttft_ms", "tpot_ms", "user_latency_ms", "prompt_tokens", "completion_tokens", "cost")
TIMED = frozenset({"latency_ms", "ttft_ms", "tpot_ms", "user_latency_ms"})

Better = Literal["higher", "lower"]


class Options(Struct, frozen=True, kw_only=True):
    """`margins`: how much worse each metric may get, in its own unit (0 where none is given) · `drops`: rules whose `max_drop` is the margin of the cells they
    are about · `renames`: baseline name -> candidate name of a prompt set, prompt or model · `leave_out_changed`: compare although samples of one id have
    different data, without those samples · `leave_out_changed_scorers`: compare although scores were computed differently, without those scores ·
    `alike`: dimensions in which two cells must be equal even where each is the only one of its side.
    """

    margins: Mapping[str, float] = field(default_factory=dict)
    drops: Sequence[Rule] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    leave_out_changed: bool = False
    leave_out_changed_scorers: bool = False
    alike: tuple[str, ...] = ()

    def margin(self, metric: str, candidate: CellKey) -> float:
        """The strictest that is named for this metric of this cell."""
        named = [one.max_drop for one in self.drops if one.metric == metric and one.max_drop is not None and matches(candidate, one.where)]
        return min([*named, *([self.margins[metric]] if metric in self.margins else [])], default=0.0)


class MetricDifference(Struct, frozen=True, kw_only=True):
    """Candidate minus baseline in one metric, over the `n` samples that both have it for. Means are over samples of the means over trials.

    `relative`: difference / baseline · `p_holm`: adjusted over the pairs of cells of this comparison · `low_bound`, `high_bound` (scores only): the
    difference with everything unanswered counted against and for the candidate · `left_out`: matched samples without a number on one side or both ·
    `samples_needed` (inconclusive only): pairs that would decide with power 0.8, if the difference is as seen; None where no number would, as for equals
    without a margin · `detectable`: the difference that so many samples show with power 0.8.
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
    detectable: float | None = None


class Flips(Struct, frozen=True, kw_only=True):
    """A score of at least one half (mean over trials) is right. `gained`, `lost`: sample ids, the largest change first; `p`: exact McNemar of the
    two, for one trial of a 0/1 score only (else the halves are not what was measured; `MetricDifference.p` is).
    """

    both_right: int
    both_wrong: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    p: float | None


class CellName(Struct, frozen=True, kw_only=True):
    """Which cell."""

    prompt_set: str
    prompt: str
    model: str
    provider: str
    params: dict[str, Any]
    stream: bool


class PairedCells(Struct, frozen=True, kw_only=True):
    """One cell against its partner. `matched`: samples both have with equal data; `only_*` and `changed` were left out · `not_compared`: metric -> why there
    is no difference of it, as of those that only one side has.
    """

    baseline: CellName
    candidate: CellName
    matched: int
    only_baseline: int
    only_candidate: int
    changed: int
    metrics: dict[str, MetricDifference]
    flips: dict[str, Flips]
    not_compared: dict[str, str] = field(default_factory=dict)


class Comparison(Struct, frozen=True, kw_only=True):
    """A candidate against a baseline, pair of cells by pair of cells, in the order of the baseline's plan."""

    baseline: str
    candidate: str
    pairs: tuple[PairedCells, ...]

    def to_frame(self) -> pd.DataFrame:
        """A pandas data frame with a row for each metric of each pair."""
        return pairs_frame(self.pairs)


class _Pair(NamedTuple):
    """Two cells (places in `Rows.cells`), their samples, and why some scores of theirs cannot be compared."""

    places: tuple[int, int]
    matched: Matched
    not_compared: Mapping[str, str]


def compare(baseline: Side, candidate: Side, options: Options | None = None) -> Comparison:
    """Compare two sides, sample by sample.

    Raises `ConfigError` for cells that cannot be paired or scorers that changed, `DatasetError` for data that differ or have nothing in common.
    """
    options = options or Options()
    (rows, chosen), (other, picked) = open_side(baseline), open_side(candidate)
    cells = ([rows.cells[at] for at in chosen], [other.cells[at] for at in picked])
    waiting = (baseline.unserved(rows), candidate.unserved(other))
    paired = pair_cells((baseline, candidate), cells, options.renames, waiting=waiting, alike=options.alike)
    names, trials = (baseline.name, candidate.name), (int(baseline.plan.get("trials") or 1), int(candidate.plan.get("trials") or 1))
    found, changes = [], []
    for a, b in paired:
        scorings = (scorings_of(baseline.plan, cells[0][a].prompt_set), scorings_of(candidate.plan, cells[1][b].prompt_set))
        other_scorers = changed(*scorings)
        changes.append((cells[1][b].prompt_set, other_scorers))
        why = one_sided(*scorings) | {name: f"computed differently ({how})" for name, how in other_scorers.items()}
        places = (chosen[a], picked[b])
        found.append(_Pair(places, match_samples(rows, other, places), why))
    if not options.leave_out_changed_scorers:
        refuse_changed_scorers(changes, names)
    if not options.leave_out_changed:
        refuse_changed([(rows.cells[pair.places[0]], pair.matched) for pair in found], names)
    if found and not any(pair.matched.ids for pair in found):
        raise DatasetError(f"{baseline.name} and {candidate.name} have no sample in common")
    units = {name: (by_unit(rows, name), by_unit(other, name)) for name in _metrics(rows, other)}
    compared = [_compare_pair((rows, other), pair, units, trials, options) for pair in found]
    return Comparison(baseline=baseline.name, candidate=candidate.name, pairs=tuple(_adjusted(compared)))


def _named(key: CellKey) -> CellName:
    return convert({**key._asdict(), "params": key.values()}, CellName)


def _metrics(rows: Rows, other: Rows) -> list[str]:
    scores = [name for name in dict.fromkeys((*rows.names, *other.names)) if is_score(name) and rows.any(name) and other.any(name)]
    return [*scores, *(name for name in MEASURED if rows.any(name) or other.any(name))]


def _compare_pair(sides: tuple[Rows, Rows], pair: _Pair, units: Mapping[str, tuple[Scored, Scored]], trials: tuple[int, int], options: Options) -> PairedCells:
    first, second = sides[0].cells[pair.places[0]], sides[1].cells[pair.places[1]]
    mixed = _currencies(sides[0], pair.places[0]) != _currencies(sides[1], pair.places[1])
    matched, not_compared = pair.matched, dict(pair.not_compared)
    metrics, flips = {}, {}
    for name, (mine, theirs) in units.items():
        had = (bool(mine.requests[matched.baseline].any()), bool(theirs.requests[matched.candidate].any()))
        if name in not_compared or not any(had):  # another prompt set's scorer, or nobody answered
            continue
        if not is_score(name) and (why := _incomparable(name, had, streams=(first.stream, second.stream), mixed=mixed)):
            not_compared[name] = why
            continue
        both = (mine.mean[matched.baseline], theirs.mean[matched.candidate])
        have = ~np.isnan(both[0]) & ~np.isnan(both[1])
        a, b, margin = both[0][have], both[1][have], options.margin(name, second)
        if is_score(name):
            answers = (mine.requests[matched.baseline][have], theirs.requests[matched.candidate][have])
            repeats = max(1.0, min(float(one.mean()) for one in answers)) if have.any() else 1.0
            result = _conclusion(name, score_difference(a, b, repeats), (a, b), have, margin)
            metrics[name] = replace(result, **_bounds(mine, theirs, matched, trials))
            flips[name] = _flips(np.array(matched.ids, dtype=object)[have], a, b, exact=trials == (1, 1) and is_binary(a) and is_binary(b))
        elif have.any():
            metrics[name] = _conclusion(name, mean_difference(a, b), (a, b), have, margin)
    return PairedCells(
        baseline=_named(first),
        candidate=_named(second),
        matched=len(matched.ids),
        only_baseline=matched.only_baseline,
        only_candidate=matched.only_candidate,
        changed=len(matched.changed),
        metrics=metrics,
        flips=flips,
        not_compared=not_compared,
    )


def _incomparable(name: str, had: tuple[bool, bool], *, streams: tuple[bool, bool], mixed: bool) -> str | None:
    """Why a measured number of the two sides is not compared; `had`: whether each side has it at all."""
    if name in TIMED and streams[0] != streams[1]:
        return "streamed answers are not held against whole ones"
    if not all(had):
        return f"only the {'baseline' if had[0] else 'candidate'} has it"
    return "the currencies differ" if name == "cost" and mixed else None


def _currencies(rows: Rows, cell: int) -> set[str]:
    currency = rows.factor("currency")
    return {currency.names[code] for code in np.unique(currency.codes[rows.cell == cell]) if code >= 0}


def _conclusion(name: str, found: Difference, values: tuple[Any, Any], have: Mask, margin: float) -> MetricDifference:
    better: Better = "higher" if is_score(name) else "lower"
    known = found.n > 0 and bool(np.isfinite(found.low))
    value, low, high = (found.value, found.low, found.high) if better == "higher" else (-found.value, -found.high, -found.low)
    said = verdict(low, high, margin) if known else "inconclusive"
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
        samples_needed=samples_to_decide((value, low, high), -margin, found.n) if said == "inconclusive" and known else None,
        detectable=minimal_detectable_effect((found.high - found.low) / 2 / Z95 * math.sqrt(found.n), found.n) if known else None,
        method=found.method,
    )


def _bounds(mine: Scored, theirs: Scored, matched: Matched, trials: tuple[int, int]) -> dict[str, float]:
    """The mean difference over all matched samples with every missing trial of either side's own plan counted against the candidate, and for it."""
    if not matched.ids:
        return {}
    low, high = [], []
    for scored, units, repeats in ((mine, matched.baseline, trials[0]), (theirs, matched.candidate, trials[1])):
        planned = np.maximum(repeats, scored.requests[units])
        low.append((scored.total[units] / planned).mean())
        high.append(((scored.total[units] + planned - scored.requests[units]) / planned).mean())
    return {"low_bound": float(low[1] - high[0]), "high_bound": float(high[1] - low[0])}


def _flips(ids: Any, a: Any, b: Any, *, exact: bool) -> Flips:
    right, now = a >= 0.5, b >= 0.5
    order = np.argsort(-np.abs(b - a), kind="stable")
    gained, lost = order[(~right & now)[order]], order[(right & ~now)[order]]
    return Flips(
        both_right=int(np.count_nonzero(right & now)),
        both_wrong=int(np.count_nonzero(~right & ~now)),
        gained=tuple(ids[gained].tolist()),
        lost=tuple(ids[lost].tolist()),
        p=mcnemar_p(len(gained), len(lost)) if exact else None,
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
