"""The sentences at the top: which configuration is best, cheapest and fastest, each with its evidence and no more than the numbers show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from evalrunner.analysis.intervals import Z95
from evalrunner.analysis.power import minimal_detectable_effect
from evalrunner.analysis.tables import CellSummary, Estimate, Quantile
from evalrunner.report.quantities import count, duration, money, percent_points, points, points_span, share, span
from evalrunner.report.words import both

MOST_NAMES = 6


@dataclass(frozen=True)
class Card:
    """One question, its answer, and what the answer rests on."""

    title: Markup
    answer: str | Markup
    evidence: Markup


class Gap(NamedTuple):
    """A cell's score minus the best cell's, over the `n` samples that both have, with its 95 % interval."""

    difference: float
    low: float
    high: float
    n: int

    @property
    def visible(self) -> float:
        """The smallest difference that so many samples would mostly (power 0.8) have shown."""
        sd = (self.high - self.low) / 2 / Z95 * math.sqrt(self.n)
        return minimal_detectable_effect(sd, self.n) or 1.0


class _Scored(NamedTuple):
    """A cell with a score, and how it is called among the cells it is compared with."""

    name: str
    cell: CellSummary
    estimate: Estimate


class _Field(NamedTuple):
    """The cells good enough to ask which of them is cheapest and fastest. `kind`: "kept", shown not worse than the best by more than `margin`; "even",
    no difference from the best was shown, which is less; "all", nothing is known.
    """

    cells: Sequence[_Scored]
    kind: str
    leader: _Scored
    gaps: Mapping[int, Gap]
    margin: float
    scorer: str


def verdicts(ranked: Sequence[tuple[str, CellSummary]], scorer: str | None, gaps: Mapping[int, Gap], margin: float = 0.0) -> list[Card]:
    """For the named cells of one prompt set, best first. With one cell, or one that can be ranked, there is only its score to tell. `gaps`: against the
    first, by cell.
    """
    scored = (
        [_Scored(name, cell, cell.scores[scorer]) for name, cell in ranked if scorer in cell.scores and cell.scores[scorer].value is not None] if scorer else []
    )
    if not scored or scorer is None:
        return [Card(both("v_best"), both("v_no_scores"), both("v_no_scores_why"))]
    if len(ranked) == 1:
        return [Card(both("v_score"), share(scored[0].estimate.value) or "–", _told(scored[0], scorer))]
    if sum(one.estimate.tie_group is not None for one in scored) == 1:
        return [Card(both("v_score"), scored[0].name, _told(scored[0], scorer) + Markup(" ") + both("v_alone"))]
    top = [one for one in scored if one.estimate.tie_group == 1]
    field = _Field(*_good_enough(scored, top, gaps, margin), scored[0], gaps, margin, scorer)
    return [_best(scored, top, scorer), _cheapest(field), *_fastest(field)]


def _told(one: _Scored, scorer: str) -> Markup:
    e = one.estimate
    return both("v_score_is", score=share(e.value), scorer=scorer, span=span(e.low, e.high) or "–", n=count(e.n))


def _good_enough(scored: Sequence[_Scored], top: Sequence[_Scored], gaps: Mapping[int, Gap], margin: float) -> tuple[Sequence[_Scored], str]:
    if margin and gaps:
        return [one for one in scored if one is scored[0] or ((gap := gaps.get(one.cell.index)) and gap.low > -margin)], "kept"
    return (top, "even") if top else (scored, "all")


def _best(scored: Sequence[_Scored], top: Sequence[_Scored], scorer: str) -> Card:
    leader, e = scored[0], scored[0].estimate
    figures = {"score": share(e.value), "scorer": scorer, "span": span(e.low, e.high) or "–"}
    if len(top) == 1:
        return Card(both("v_best"), top[0].name, both("v_ahead", **figures))
    if top:
        names = ", ".join(one.name for one in top[:MOST_NAMES]) + (", …" if len(top) > MOST_NAMES else "")
        return Card(both("v_best"), both("v_tied", n=len(top)), both("v_no_difference", names=names, **figures))
    overlapping = sum(1 for other in scored[1:] if e.low is not None and other.estimate.high is not None and other.estimate.high >= e.low)
    return Card(both("v_best"), leader.name, both("v_highest", n=overlapping, **figures))


def _cheapest(field: _Field) -> Card:
    title = both(f"v_cheapest_{field.kind}")
    priced = [(one.cell.cost.per_1000, one) for one in field.cells if one.cell.cost.per_1000 is not None]
    if len(priced) < len(field.cells):
        return Card(title, both("unknown"), both("v_no_price"))
    if len({one.cell.cost.currency for _, one in priced}) > 1:
        return Card(title, both("unknown"), both("v_currencies"))
    cost, best = min(priced, key=lambda pair: (pair[0], pair[1].cell.index))
    evidence = both("v_price", cost=money(cost, best.cell.cost.currency), score=share(best.estimate.value), scorer=field.scorer)
    return Card(title, best.name, _with_gap(evidence, best, field))


def _fastest(field: _Field) -> list[Card]:
    """One for streamed and one for whole answers: they are never mixed."""
    modes = {one.cell.stream for one in field.cells}
    return [card for stream in sorted(modes, reverse=True) if (card := _fastest_of(field, stream, named=len(modes) > 1))]


def _fastest_of(field: _Field, stream: bool, *, named: bool) -> Card | None:
    halves = [(_latency(one, 0), one) for one in field.cells if one.cell.stream is stream]
    timed = [(half.value, half, one) for half, one in halves if half.value is not None]
    if not timed:
        return None
    _, half, best = min(timed, key=lambda found: (found[0], found[2].cell.index))
    figures = {"p50": duration(half.value), "span": _times(half), "score": share(best.estimate.value), "scorer": field.scorer}
    p95 = duration(_latency(best, 2).value)
    parts = [both("v_speed_95", p95=p95, **figures) if p95 else both("v_speed", **figures)]
    close = [one.name for _, other, one in timed if one is not best and half.high is not None and other.low is not None and other.low <= half.high]
    if close:
        parts.append(both("v_as_fast", names=", ".join(close[:MOST_NAMES]) + (", …" if len(close) > MOST_NAMES else "")))
    title = both(f"v_fastest_{field.kind}")
    if named:
        title += Markup(" · ") + both("streamed" if stream else "whole")
    return Card(title, best.name, _with_gap(Markup(" ").join(parts), best, field))


def _latency(one: _Scored, at: int) -> Quantile:
    return one.cell.latency["latency_ms"].quantiles[at]


def _times(q: Quantile) -> str:
    return f"{duration(q.low)} … {duration(q.high)}" if q.low is not None and q.high is not None else "–"


def _with_gap(evidence: Markup, best: _Scored, field: _Field) -> Markup:
    """What is known of how far the answer is from the best score."""
    gap = field.gaps.get(best.cell.index)
    if best is field.leader:
        alone = len(field.cells) == 1 and field.kind == "kept"
        return evidence + Markup(" ") + (both("v_only_kept", margin=percent_points(field.margin)) if alone else both("v_is_best"))
    if gap is None:
        return evidence
    figures = {"change": points(gap.difference), "span": points_span(gap.low, gap.high), "leader": field.leader.name, "n": count(gap.n)}
    if field.kind == "kept":
        return evidence + Markup(" ") + both("v_gap_kept", margin=percent_points(field.margin), **figures)
    if gap.high < 0:
        return evidence + Markup(" ") + both("v_gap_corrected", **figures)
    return evidence + Markup(" ") + both("v_gap_even", visible=percent_points(gap.visible), **figures)
