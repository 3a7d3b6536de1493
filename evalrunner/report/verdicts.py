"""The sentences at the top: which configuration is best, cheapest and fastest, each with its evidence and no more than the numbers show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from evalrunner.analysis.tables import CellSummary, Estimate
from evalrunner.report.quantities import count, duration, money, share, span
from evalrunner.report.words import both

MOST_NAMES = 6


@dataclass(frozen=True)
class Card:
    """One question, its answer, and what the answer rests on."""

    title: Markup
    answer: str | Markup
    evidence: Markup


class _Scored(NamedTuple):
    """A cell with a score, and how it is called among the cells it is compared with."""

    name: str
    cell: CellSummary
    estimate: Estimate


def verdicts(ranked: Sequence[tuple[str, CellSummary]], scorer: str | None) -> list[Card]:
    """For the named cells of one prompt set, best first. With one cell there is only its score to tell."""
    scored = (
        [_Scored(name, cell, cell.scores[scorer]) for name, cell in ranked if scorer in cell.scores and cell.scores[scorer].value is not None] if scorer else []
    )
    if not scored or scorer is None:
        return [Card(both("v_best"), both("v_no_scores"), both("v_no_scores_why"))]
    if len(ranked) == 1:
        e = scored[0].estimate
        evidence = both("v_score_is", score=share(e.value), scorer=scorer, span=span(e.low, e.high) or "–", n=count(e.n))
        return [Card(both("v_score"), share(e.value) or "–", evidence)]
    top = [one for one in scored if one.estimate.tie_group == 1]
    return [_best(scored, top, scorer), _cheapest(top or scored, scorer, top=bool(top)), *_fastest(top or scored, scorer, top=bool(top))]


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


def _cheapest(cells: Sequence[_Scored], scorer: str, *, top: bool) -> Card:
    title = both("v_cheapest_top" if top else "v_cheapest")
    priced = [(one.cell.cost.per_1000, one) for one in cells if one.cell.cost.per_1000 is not None]
    if len(priced) < len(cells):
        return Card(title, both("unknown"), both("v_no_price"))
    if len({one.cell.cost.currency for _, one in priced}) > 1:
        return Card(title, both("unknown"), both("v_currencies"))
    cost, best = min(priced, key=lambda pair: (pair[0], pair[1].cell.index))
    evidence = both("v_price", cost=money(cost, best.cell.cost.currency), score=share(best.estimate.value), scorer=scorer)
    return Card(title, best.name, evidence)


def _fastest(cells: Sequence[_Scored], scorer: str, *, top: bool) -> list[Card]:
    timed = [(half.value, one) for one in cells if (half := one.cell.latency["latency_ms"].quantiles[0]).value is not None]
    if not timed:
        return []
    p50, best = min(timed, key=lambda pair: (pair[0], pair[1].cell.index))
    p95 = duration(best.cell.latency["latency_ms"].quantiles[2].value)
    figures = {"p50": duration(p50), "score": share(best.estimate.value), "scorer": scorer}
    evidence = both("v_speed_95", p95=p95, **figures) if p95 else both("v_speed", **figures)
    return [Card(both("v_fastest_top" if top else "v_fastest"), best.name, evidence)]
