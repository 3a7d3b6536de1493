"""The sentences at the top: which configuration is best, cheapest and fastest, each with its evidence and no more than the numbers show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def verdicts(ranked: Sequence[CellSummary], scorer: str | None) -> list[Card]:
    """For the cells of one prompt set, best first. With one cell there is only its score to tell."""
    scored = [(cell, cell.scores[scorer]) for cell in ranked if scorer in cell.scores and cell.scores[scorer].value is not None] if scorer else []
    if not scored or scorer is None:
        return [Card(both("v_best"), both("v_no_scores"), both("v_no_scores_why"))]
    if len(ranked) == 1:
        e = scored[0][1]
        evidence = both("v_score_is", score=share(e.value), scorer=scorer, span=span(e.low, e.high) or "–", n=count(e.n))
        return [Card(both("v_score"), share(e.value) or "–", evidence)]
    top = [(cell, e) for cell, e in scored if e.tie_group == 1]
    return [_best(scored, top, scorer), _cheapest(top or scored, scorer, top=bool(top)), *_fastest(top or scored, scorer, top=bool(top))]


def _best(scored: Sequence[tuple[CellSummary, Estimate]], top: Sequence[tuple[CellSummary, Estimate]], scorer: str) -> Card:
    leader, e = scored[0]
    figures = {"score": share(e.value), "scorer": scorer, "span": span(e.low, e.high) or "–"}
    if len(top) == 1:
        return Card(both("v_best"), top[0][0].label, both("v_ahead", **figures))
    if top:
        names = ", ".join(cell.label for cell, _ in top[:MOST_NAMES]) + (", …" if len(top) > MOST_NAMES else "")
        return Card(both("v_best"), both("v_tied", n=len(top)), both("v_no_difference", names=names, **figures))
    overlapping = sum(1 for _, other in scored[1:] if e.low is not None and other.high is not None and other.high >= e.low)
    return Card(both("v_best"), leader.label, both("v_highest", n=overlapping, **figures))


def _cheapest(cells: Sequence[tuple[CellSummary, Estimate]], scorer: str, *, top: bool) -> Card:
    title = both("v_cheapest_top" if top else "v_cheapest")
    priced = [(cell.cost.per_1000, cell, e) for cell, e in cells if cell.cost.per_1000 is not None]
    if len(priced) < len(cells):
        return Card(title, both("unknown"), both("v_no_price"))
    if len({cell.cost.currency for _, cell, _ in priced}) > 1:
        return Card(title, both("unknown"), both("v_currencies"))
    cost, cell, e = min(priced, key=lambda one: (one[0], one[1].index))
    return Card(title, cell.label, both("v_price", cost=money(cost, cell.cost.currency), score=share(e.value), scorer=scorer))


def _fastest(cells: Sequence[tuple[CellSummary, Estimate]], scorer: str, *, top: bool) -> list[Card]:
    timed = [(half.value, cell, e) for cell, e in cells if (half := cell.latency["latency_ms"].quantiles[0]).value is not None]
    if not timed:
        return []
    p50, cell, e = min(timed, key=lambda one: (one[0], one[1].index))
    p95 = duration(cell.latency["latency_ms"].quantiles[2].value)
    figures = {"p50": duration(p50), "score": share(e.value), "scorer": scorer}
    evidence = both("v_speed_95", p95=p95, **figures) if p95 else both("v_speed", **figures)
    return [Card(both("v_fastest_top" if top else "v_fastest"), cell.label, evidence)]
