"""Summary -> what each section of the page shows: order, colours, axes, sentences. No markup but charts and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evalrunner.analysis.tables import CellSummary, Distribution, Estimate, ModelSummary, RunFacts, Slice, SliceGap, Summary
from evalrunner.records import Outcome
from evalrunner.report import charts
from evalrunner.report.contrasts import FactorTable, Matrix, factor_table, matrix
from evalrunner.report.flips import Against, against
from evalrunner.report.groups import FIRST, LATENCIES, SECONDS_FROM_MS, TOKENS, Group, View, group_of
from evalrunner.report.judged import Judged
from evalrunner.report.quantities import count, digits
from evalrunner.report.words import both

KNOWN_OUTCOMES = (*(one.value for one in Outcome), "missing")


@dataclass(frozen=True)
class Metric:
    """One latency of one part: its cells, the unit of its columns, its chart and how many cells that draws."""

    name: str
    views: list[tuple[View, Distribution]]
    unit: str
    scale: float
    drawing: Markup
    drawn: int

    @property
    def first(self) -> bool:
        """Whether it is shown at once; the others wait folded."""
        return self.name in FIRST


@dataclass(frozen=True)
class LatencyPart:
    """Streamed and whole answers of a prompt set are never mixed."""

    group: Group
    stream: bool
    metrics: list[Metric]


@dataclass(frozen=True)
class SliceTable:
    """One tag of one prompt set by one scorer: for each value its samples and every cell's estimate, with its gap to the best cell, `leader`.

    `least` is the smallest n.
    """

    group: Group
    scorer: str
    tag: str
    views: list[View]
    rows: list[tuple[str, int, dict[int, tuple[Estimate, SliceGap | None]]]]
    axis: charts.Axis
    least: int
    leader: View | None

    @property
    def first(self) -> bool:
        """Whether it is shown at once; other scorers wait folded."""
        return self.scorer == self.group.scorer


@dataclass(frozen=True)
class Timeline:
    """Requests by the time they ended: (start in seconds, count by outcome)."""

    drawing: Markup
    rows: list[tuple[float, dict[str, int]]]


@dataclass(frozen=True)
class Sections:
    """Everything the templates read beside the summary itself."""

    sections: list[str]
    groups: list[Group]
    views: list[View]
    latency: list[LatencyPart]
    against: list[Against]
    matrices: list[Matrix]
    factor_tables: list[FactorTable]
    slices: list[SliceTable]
    timeline: Timeline | None
    scale: float
    token_columns: list[str]
    currency: str | None
    prices: list[str]
    outcomes: list[str]
    provenance: list[tuple[RunFacts, list[tuple[str, str | Markup | None]]]]


def build(summary: Summary, judged: Judged) -> Sections:
    """Sections without data are left out."""
    groups = [
        group_of(name, [c for c in summary.cells if c.prompt_set == name], summary, judged.margins)
        for name in dict.fromkeys(c.prompt_set for c in summary.cells)
    ]
    views = [view for group in groups for view in group.views]
    slices = [part for group in groups for part in _slices(group, summary.slices)]
    latency = _latency(groups)
    compared = [found for group in groups if (comparison := judged.comparison) and (found := against(group, comparison, judged.flips))]
    matrices = [one for group in groups if (one := matrix(group, summary))]
    factor_tables = [table for group in groups if (table := factor_table(group, summary))]
    shown = {
        "verdict": bool(groups or summary.notices),
        "leaderboard": bool(groups),
        "flips": bool(compared),
        "pairs": bool(matrices),
        "factors": bool(factor_tables),
        "judges": bool(summary.judges),
        "tradeoffs": any(group.tradeoffs for group in groups),
        "latency": bool(latency),
        "tokens": bool(groups),
        "errors": bool(summary.models),
        "slices": bool(slices),
        "samples": bool(summary.totals.done),
        "provenance": True,
    }
    tails = [c.latency["latency_ms"].quantiles[0].value or 0.0 for c in summary.cells]
    currencies = {c.cost.currency for c in summary.cells if c.cost.currency}
    return Sections(
        sections=[name for name, here in shown.items() if here],
        groups=groups,
        views=views,
        latency=latency,
        against=compared,
        matrices=matrices,
        factor_tables=factor_tables,
        slices=slices,
        timeline=_timeline(summary),
        scale=1000 if max(tails, default=0) >= SECONDS_FROM_MS else 1,
        token_columns=[kind for kind in TOKENS if kind in ("input", "output") or any(c.tokens[kind].sum for c in summary.cells)],
        currency=currencies.pop() if len(currencies) == 1 else None,
        prices=[text for model in summary.run.plan.get("models", []) if (text := _price(model))],
        outcomes=[name for name in KNOWN_OUTCOMES if any(_ended(m).get(name) for m in summary.models) or any(e.outcome == name for e in summary.errors)],
        provenance=[(run, _provenance(run, summary, alone=not judged.runs)) for run in judged.runs or (summary.run,)],
    )


def token_parts(cell: CellSummary) -> list[tuple[str, float, str]]:
    """Where a cell's tokens went, for one stacked bar."""
    total = {kind: cell.tokens[kind].sum or 0 for kind in TOKENS}
    parts = {
        "input": total["input"] - total["cached"],
        "cached": total["cached"],
        "output": total["output"] - total["reasoning"],
        "reasoning": total["reasoning"],
    }
    return [(f"t-{kind}", amount, f"{kind}: {count(amount)}") for kind, amount in parts.items()]


def outcome_parts(model: ModelSummary) -> list[tuple[str, float, str]]:
    """How all planned requests of a model ended, for one stacked bar."""
    return [(f"o-{name}", amount, f"{name.replace('_', ' ')}: {count(amount)}") for name, amount in _ended(model).items()]


def _ended(model: ModelSummary) -> dict[str, int]:
    ended = {**model.outcomes, "missing": model.planned - model.done}
    return {name: ended[name] for name in KNOWN_OUTCOMES if ended.get(name)}


# --- latency ---


def _latency(groups: Sequence[Group]) -> list[LatencyPart]:
    parts = []
    for group in groups:
        for stream in (True, False):
            views = [view for view in group.views if view.cell.stream is stream]
            metrics = [metric for name in LATENCIES if (metric := _metric(name, [(v, v.cell.latency[name]) for v in views]))]
            if metrics:
                parts.append(LatencyPart(group, stream, metrics))
    return parts


def _metric(name: str, views: Sequence[tuple[View, Distribution]]) -> Metric | None:
    measured = [(view, d) for view, d in views if d.n]
    if not any(d.max for _, d in measured):
        return None
    scale, unit = (1000.0, "s") if max(d.quantiles[0].value or d.mean or 0 for _, d in measured) >= SECONDS_FROM_MS else (1.0, "ms")
    drawn = [
        charts.Series(view.label, [v / scale for v in d.curve], [k / (len(d.curve) - 1) for k in range(len(d.curve))], view.colour)
        for view, d in measured[: charts.COLOURS]
        if len(d.curve) > 1
    ]
    return Metric(name, list(measured), unit, scale, charts.distribution(drawn, unit=unit), len(drawn))


# --- slices, errors over time ---


def _slices(group: Group, slices: Sequence[Slice]) -> list[SliceTable]:
    here = {view.cell.index for view in group.views[: charts.COLOURS]}
    mine = [one for one in slices if one.cell in here]
    tags = dict.fromkeys(one.tag for one in mine)
    return [table for tag in tags for scorer in group.scorers if (table := _slice_table(group, scorer, tag, [one for one in mine if one.tag == tag]))]


def _slice_table(group: Group, scorer: str, tag: str, slices: Sequence[Slice]) -> SliceTable | None:
    """None where there is nothing to tell apart."""
    parts = [one for one in slices if scorer in one.scores]
    by_value: dict[str, list[Slice]] = {}
    for one in parts:
        by_value.setdefault(one.value, []).append(one)
    edges = [v * 100 for one in parts for v in (one.scores[scorer].low, one.scores[scorer].high) if v is not None]
    if len(by_value) < 2 or not edges:
        return None
    rows = [
        (value, max(one.samples for one in ones), {one.cell: (one.scores[scorer], one.gaps.get(scorer)) for one in ones}) for value, ones in by_value.items()
    ]
    best = next((one.gaps[scorer].against for one in parts if scorer in one.gaps), None)
    return SliceTable(
        group=group,
        scorer=scorer,
        tag=tag,
        views=group.views[: charts.COLOURS],
        rows=sorted(rows, key=lambda row: _natural(row[0])),
        axis=charts.linear_axis(min(edges), max(edges), count=3, clip=(0, 100)),
        least=min(n for _, n, _ in rows),
        leader=next((view for view in group.views if view.cell.index == best), None),
    )


def _natural(text: str) -> tuple[bool, float, str]:
    """Numbers by size, then words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _timeline(summary: Summary) -> Timeline | None:
    """Only where something went wrong: a run without failures needs no history of them."""
    found: dict[float, dict[str, int]] = {}
    seconds = 0.0
    for moment in summary.timeline:
        counts = found.setdefault(moment.start_s, {})
        seconds = max(seconds, moment.seconds)
        for name, n in moment.outcomes.items():
            counts[name] = counts.get(name, 0) + n
    if len(found) < 2 or not any(set(counts) - {"ok"} for counts in found.values()):
        return None
    rows = sorted(found.items())
    bars = [(start, [(f"o-{name}", counts[name]) for name in KNOWN_OUTCOMES if counts.get(name)]) for start, counts in rows]
    return Timeline(charts.columns(bars, width=seconds, unit="s"), rows)


# --- provenance ---


def _price(model: Mapping[str, Any]) -> str | None:
    price = model.get("price") or {}
    tiers = price.get("tiers") or ()
    if not tiers:
        return None
    amounts = " / ".join(f"{digits(tiers[0].get(kind)) or '?'}" for kind in ("input", "output"))
    more = " …" if len(tiers) > 1 else ""
    dated = f", {price['date']}" if price.get("date") else ""
    return f"{model['name']} {price.get('currency')} {amounts}{more} (1M{dated})"


def _moment(text: str | None) -> str | None:
    """An ISO time to the second, where it is UTC; else as it came."""
    utc = text is not None and text.endswith(("+00:00", "Z"))
    return f"{text[:10]} {text[11:19]} UTC" if text is not None and utc else text


def _provenance(run: RunFacts, summary: Summary, *, alone: bool) -> list[tuple[str, str | Markup | None]]:
    git, plan = run.git or {}, run.plan
    commit = both("dirty", commit=git.get("commit")) if git.get("dirty") else git.get("commit")
    answered_by = "; ".join(
        f"{m.model}: {', '.join(f'{name} ({count(n)})' for name, n in m.response_models.items())}" for m in summary.models if m.response_models
    )
    return [
        ("run_id", run.run_id),
        ("state", f"{run.state} ({run.reason})" if run.reason else run.state),
        ("started", _moment(run.started_at)),
        ("finished", _moment(run.finished_at)),
        ("config", " · ".join(str(part) for part in (run.config.get("origin"), run.config.get("hash")) if part) or None),
        ("git", commit),
        (
            "versions",
            " · ".join(part for part in (f"evalrunner {run.evalrunner}" if run.evalrunner else "", f"Python {run.python}" if run.python else "") if part)
            or None,
        ),
        ("host", " · ".join(part for part in (run.host, run.platform) if part) or None),
        ("endpoints", "; ".join(f"{one['name']} ({one.get('kind')}): {one.get('base_url') or '–'}" for one in plan.get("providers", [])) or None),
        *([("models", answered_by or None)] if alone else []),
        ("trials", str(plan["trials"]) if "trials" in plan else None),
        ("size", count(summary.totals.planned if alone else plan.get("size"))),
    ]
