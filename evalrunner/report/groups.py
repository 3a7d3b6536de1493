"""The cells of each prompt set, best first: their names, colours, axis, verdicts and trade-offs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evalrunner.analysis.tables import CellSummary, Summary
from evalrunner.report import charts
from evalrunner.report.quantities import digits, share, span
from evalrunner.report.verdicts import Card, Gap, verdicts
from evalrunner.report.words import both

FIRST = ("latency_ms", "ttft_ms", "tpot_ms")
LATENCIES = (*FIRST, "ttft_content_ms", "user_latency_ms", "user_ttft_ms", "wait_ms")
SECONDS_FROM_MS = 10_000
TOKENS = ("input", "cached", "output", "reasoning")
MOST_TRIES = 5


@dataclass(frozen=True)
class View:
    """One cell as tables and charts name it: by what tells it from the other cells of its prompt set."""

    cell: CellSummary
    label: str
    title: str
    rest: tuple[str | Markup, ...]
    colour: int
    tip: str


@dataclass(frozen=True)
class Trade:
    """One scatter of the trade-offs, with the rows of its table: (cell, x, beaten on both)."""

    title: str
    column: str
    unit: str | None
    drawing: Markup
    rows: list[tuple[View, float, bool]]


@dataclass(frozen=True)
class Group:
    """The cells of one prompt set, best first: only these are compared with each other. `scorer` is the set's first.

    `tokens`: the kinds that were used · `tries`: the k of pass@k and pass^k.
    """

    name: str
    views: list[View]
    scorer: str | None
    scorers: list[str]
    axis: charts.Axis | None
    tied: bool
    has: dict[str, bool]
    tokens: list[str]
    tries: list[int]
    currency: str | None
    verdicts: list[Card]
    tradeoffs: list[Trade]


def group_of(name: str, cells: Sequence[CellSummary], summary: Summary, margins: Mapping[str, float]) -> Group:
    """The group of one prompt set's cells. `margins`: how much worse a score may be and still be called not worse."""
    scorers = [one for one in summary.scorers if any(one in cell.scores for cell in cells)]
    scorer = scorers[0] if scorers else None
    ranked = sorted(cells, key=lambda cell: _rank(cell, scorer))
    colours = _colours(cells, ranked)
    differing = _differing(cells)
    views = [_view(cell, scorer, differing, colours[cell.index]) for cell in ranked]
    found = [cell.scores[scorer] for cell in ranked if scorer in cell.scores] if scorer else []
    edges = [v * 100 for e in found for v in (e.value, e.low, e.high) if v is not None]
    currencies = {cell.cost.currency for cell in cells if cell.cost.currency}
    return Group(
        name=name,
        views=views,
        scorer=scorer,
        scorers=scorers,
        axis=charts.linear_axis(min(edges), max(edges), count=4, clip=(0, 100)) if edges else None,
        tied=len(cells) > 1 and any(e.tie_group for e in found),
        has={metric: any(cell.latency[metric].n for cell in cells) for metric in LATENCIES} | {"speed": any(cell.speed["decode_tok_s"].n for cell in cells)},
        tokens=[kind for kind in TOKENS if any(cell.tokens[kind].sum for cell in cells)],
        tries=_tries(cells, scorer),
        currency=currencies.pop() if len(currencies) == 1 else None,
        verdicts=verdicts([(view.label, view.cell) for view in views], scorer, _gaps(ranked[0], scorer, summary), margins.get(f"score_{scorer}", 0.0)),
        tradeoffs=_tradeoffs(views, scorer, summary.cells) if scorer and len(cells) > 1 else [],
    )


def _tries(cells: Sequence[CellSummary], scorer: str | None) -> list[int]:
    """All k up to five; of more the first and the last."""
    found = sorted({one.k for cell in cells for one in cell.repeats.get(scorer or "", ())})
    return found if len(found) <= MOST_TRIES else [*found[: MOST_TRIES - 1], found[-1]]


def _gaps(leader: CellSummary, scorer: str | None, summary: Summary) -> dict[int, Gap]:
    """Every other cell's score minus the leader's, as far as the pairs have it."""
    mine = [one for one in summary.pairs if one.scorer == scorer and leader.index in (one.first, one.second)]
    return {
        **{one.first: Gap(one.difference, one.low, one.high, one.n) for one in mine if one.second == leader.index},
        **{one.second: Gap(-one.difference, -one.high, -one.low, one.n) for one in mine if one.first == leader.index},
    }


def _rank(cell: CellSummary, scorer: str | None) -> tuple[bool, float, int]:
    """Best score first, then those with too few answers to be ranked, the unscored last."""
    estimate = cell.scores.get(scorer) if scorer else None
    value = estimate.value if estimate else None
    return (estimate is None or estimate.tie_group is None, math.inf if value is None else -value, cell.index)


def _colours(cells: Sequence[CellSummary], ranked: Sequence[CellSummary]) -> dict[int, int]:
    """Up to eight cells have a colour each, in the plan's order; of more, the best seven, and the rest share the last, a grey."""
    if len(cells) <= charts.COLOURS:
        return {cell.index: charts.colour_of(k) for k, cell in enumerate(cells)}
    return {cell.index: min(k + 1, charts.COLOURS) for k, cell in enumerate(ranked)}


def _differing(cells: Sequence[CellSummary]) -> list[str]:
    """The dimensions in which the cells of one prompt set differ."""
    names = ["model", "provider", "prompt", *dict.fromkeys(name for cell in cells for name in cell.params), "stream"]
    return [name for name in names if len({repr(_dimension(cell, name)) for cell in cells}) > 1]


def _dimension(cell: CellSummary, name: str) -> Any:
    return cell.params.get(name) if name not in ("model", "provider", "prompt", "stream") else getattr(cell, name)


def _view(cell: CellSummary, scorer: str | None, differing: Sequence[str], colour: int) -> View:
    plain = [str(_dimension(cell, name)) for name in differing if name in ("model", "prompt")]
    if "provider" in differing:
        plain.append(cell.provider)
    plain += [f"{name} {value}" for name, value in cell.params.items() if name in differing]
    plain = plain or [cell.model]
    spoken: list[Markup] = [both("streamed" if cell.stream else "whole")] if "stream" in differing else []
    label = " · ".join([*plain, *(["stream" if cell.stream else "no stream"] if spoken else [])])
    estimate = cell.scores.get(scorer) if scorer else None
    tip = f"{label}: {share(estimate.value)} [{span(estimate.low, estimate.high) or '?'}], n = {estimate.n}" if estimate and estimate.n else label
    return View(cell, label, plain[0], (*plain[1:], *spoken), colour, tip)


def _tradeoffs(views: Sequence[View], scorer: str, everywhere: Sequence[CellSummary]) -> list[Trade]:
    """Axes of cost and latency are alike for all prompt sets, so that the eye may go from one to the next."""
    cost = [(view, view.cell.cost.per_1000, None) for view in views if view.cell.cost.per_1000 is not None]
    speed = [(view, q.value, q) for view in views if (q := view.cell.latency["latency_ms"].quantiles[0]).value is not None]
    trades = []
    if len({view.cell.cost.currency for view, _, _ in cost}) == 1:
        currency = cost[0][0].cell.cost.currency
        reach = [cell.cost.per_1000 for cell in everywhere if cell.cost.per_1000 is not None and cell.cost.currency == currency]
        trades.append(_trade(("trade_cost", "col_cost", currency), [(v, x, None) for v, x, _ in cost if x is not None], scorer, reach))
    halves = [cell.latency["latency_ms"].quantiles[0] for cell in everywhere]
    scale, unit = (1000.0, "s") if max((q.value or 0 for q in halves), default=0) >= SECONDS_FROM_MS else (1.0, "ms")
    spans = [(v, x / scale, (q.low / scale, q.high / scale) if q.low is not None and q.high is not None else None) for v, x, q in speed if x is not None]
    reach = [edge / scale for q in halves for edge in (q.value, q.low, q.high) if edge is not None]
    trades.append(_trade(("trade_latency", "col_latency_p50", unit), spans, scorer, reach))
    return [trade for trade in trades if trade and len(trade.rows) > 1]


def _trade(
    words: tuple[str, str, str | None], places: Sequence[tuple[View, float, tuple[float, float] | None]], scorer: str, reach: Sequence[float]
) -> Trade | None:
    title, column, unit = words
    found = [(view, x, x_span, e) for view, x, x_span in places if (e := view.cell.scores.get(scorer)) and e.value is not None]
    beaten = charts.pareto([(x, e.value or 0.0) for _, x, _, e in found])
    points = [
        charts.Point(
            name=view.label,
            x=x,
            y=(e.value or 0.0) * 100,
            x_span=x_span,
            y_span=(e.low * 100, e.high * 100) if e.low is not None and e.high is not None else None,
            colour=view.colour,
            dominated=dominated,
            tip=f"{view.tip}; {digits(x)} {unit or ''}",
        )
        for (view, x, x_span, e), dominated in zip(found, beaten, strict=True)
    ]
    wide = len(reach) > 1 and min(reach) > 0 and max(reach) / min(reach) > 8
    drawing = charts.scatter(points, x_unit=unit or "", log_x=wide, reach=reach)
    return Trade(title, column, unit, drawing, [(view, x, dominated) for (view, x, _, _), dominated in zip(found, beaten, strict=True)])
