"""The candidate against a baseline: the answer in a sentence, the counts, and the samples that changed with what changed in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup

from evalrunner.analysis.compare import CellName, Comparison, MetricDifference, PairedCells
from evalrunner.analysis.compare import Flips as Counts
from evalrunner.analysis.flips import FlippedSample
from evalrunner.report import charts
from evalrunner.report.groups import Group, View
from evalrunner.report.quantities import count, percent_points, points, points_span
from evalrunner.report.verdicts import MOST_NAMES, Card
from evalrunner.report.word_diff import Piece, word_diff
from evalrunner.report.words import LANGUAGES, both, word

MOST_SHOWN = {"lost": 30, "gained": 15}
"""Flips of a prompt set whose texts stand in the page, those of the cells that changed most first; the viewer's filter has all."""


STATES = ("worse", "nothing", "undecided", "even", "kept", "better")
"""What can be said of a difference, the worst first."""


@dataclass(frozen=True)
class Contrast:
    """One pair of cells by one scorer."""

    view: View | None
    name: str
    partner: str
    scorer: str
    result: MetricDifference
    counts: Counts
    left_out: int


@dataclass(frozen=True)
class Flip:
    """One sample that changed, its answers as pieces. `address` opens it in the viewer."""

    sample: FlippedSample
    name: str
    address: str
    pieces: tuple[list[Piece], list[Piece]]


@dataclass(frozen=True)
class Against:
    """One prompt set against the baseline. `scorer`: of those measured the worst, whose flips are shown · `measured`: latency, tokens and cost by name."""

    group: Group
    baseline: str
    scorer: str
    contrasts: list[Contrast]
    axis: charts.Axis
    measured: list[tuple[str, MetricDifference]]
    flips: dict[str, list[Flip]]
    hidden: dict[str, int]


def against(group: Group, comparison: Comparison, samples: Sequence[FlippedSample]) -> Against | None:
    """None where the comparison has nothing of this prompt set."""
    pairs = {at: pair for at, pair in enumerate(comparison.pairs) if pair.candidate.prompt_set == group.name}
    views = {at: next((view for view in group.views if _same(view, pair.candidate)), None) for at, pair in pairs.items()}
    names = {at: view.label if (view := views[at]) else _words(pair.candidate) for at, pair in pairs.items()}
    contrasts = [
        Contrast(views[at], names[at], _partner(pair), name.removeprefix("score_"), one, pair.flips[name], _left_out(pair) + one.left_out)
        for at, pair in pairs.items()
        for name, one in pair.metrics.items()
        if name in pair.flips
    ]
    if not contrasts:
        return None
    edges = [edge * 100 for one in contrasts for edge in (one.result.low, one.result.high) if edge is not None]
    scorer = min([one for one in contrasts if one.result.n] or contrasts, key=_worst_first).scorer
    mine = [one for one in samples if one.pair in pairs and one.metric == f"score_{scorer}"]
    change = {at: one.difference or 0.0 for at, pair in pairs.items() if (one := pair.metrics.get(f"score_{scorer}"))}
    ordered = {"lost": sorted(mine, key=lambda one: change[one.pair]), "gained": sorted(mine, key=lambda one: -change[one.pair])}
    flips = {
        kind: [_flip(one, names[one.pair], group.name) for one in [one for one in ordered[kind] if one.kind == kind][:most]]
        for kind, most in MOST_SHOWN.items()
    }
    totals = {kind: sum(len(getattr(one.counts, kind)) for one in contrasts if one.scorer == scorer) for kind in MOST_SHOWN}
    return Against(
        group=group,
        baseline=comparison.baseline,
        scorer=scorer,
        contrasts=contrasts,
        axis=charts.linear_axis(min([0.0, *edges]), max([0.0, *edges]), count=4),
        measured=[(names[at], one) for at, pair in pairs.items() for name, one in pair.metrics.items() if name not in pair.flips],
        flips=flips,
        hidden={kind: totals[kind] - len(flips[kind]) for kind in MOST_SHOWN},
    )


def card(found: Against) -> Card:
    """The answer of the verdict strip: of each pair of cells by the score that came out worst."""
    by_pair: dict[str, list[Contrast]] = {}
    for one in found.contrasts:
        by_pair.setdefault(one.name, []).append(one)
    mine = [min(ones, key=_worst_first) for ones in by_pair.values()]
    if len(mine) == 1:
        return _single(found, mine[0])
    several = len({one.scorer for one in found.contrasts}) > 1
    by_state: dict[str, list[str]] = {}
    for one in mine:
        by_state.setdefault(_state(one.result), []).append(f"{one.name} ({one.scorer})" if several else one.name)
    states = [state for state in STATES if state in by_state]
    worst = states[0]
    told = [state for state in states if state in ("worse", "better") or state != worst]  # the answer has said how many are the worst
    spoken = [both("b_named", state=_both_words(state), names=_listed(by_state[state], shown=state in ("worse", "better"))) for state in told]
    if measured := [one for one in mine if one.result.difference is not None]:
        lowest = min(measured, key=lambda one: one.result.difference or 0.0)
        figures = {"change": points(lowest.result.difference) or "–", "span": points_span(lowest.result.low, lowest.result.high) or "–"}
        spoken.append(both("b_lowest", name=f"{lowest.name} ({lowest.scorer})" if several else lowest.name, **figures))
    needed = [one.result.samples_needed for one in mine if one.result.samples_needed]
    evidence = Markup(" ").join([*spoken, *([both("v_needed_most", n=count(max(needed)))] if needed else [])])
    answer = both("b_count", state=_both_words(worst), n=len(by_state[worst]), all=len(mine))
    return Card(both("v_baseline", baseline=found.baseline), answer, evidence)


def _single(found: Against, one: Contrast) -> Card:
    r = one.result
    figures = {
        "change": points(r.difference) or "–", "span": points_span(r.low, r.high) or "–", "scorer": one.scorer, "n": count(r.n),
        "lost": len(one.counts.lost), "gained": len(one.counts.gained),
    }  # fmt: skip
    parts = [both("v_nothing", scorer=one.scorer) if r.difference is None else both("v_change", **figures)]
    if r.margin:
        parts.append(both("v_margin", margin=percent_points(r.margin)))
    if r.difference is not None and (counted := unanswered(one)):
        parts.append(both("v_counted", span=counted))
    if r.samples_needed:
        parts.append(both("v_needed", n=count(r.samples_needed)))
    parts += [both("v_also", scorer=other.scorer, state=_both_words(_state(other.result))) for other in found.contrasts if other is not one]
    named = len(found.group.views) > 1
    title = both("v_baseline_of", name=one.name, baseline=found.baseline) if named else both("v_baseline", baseline=found.baseline)
    return Card(title, said(r), Markup(" ").join(parts))


def unanswered(one: Contrast) -> str | None:
    """The difference with everything unanswered counted against the candidate and for it, where anything is."""
    r = one.result
    return points_span(r.low_bound, r.high_bound) if r.left_out and r.low_bound is not None and r.low_bound != r.high_bound else None


def said(result: MetricDifference) -> Markup:
    """The verdict in words."""
    return both(f"b_{_state(result)}")


def tone(result: MetricDifference) -> str:
    return {"worse": "worse", "better": "better"}.get(result.verdict, "")


def for_viewer(found: Sequence[Against]) -> dict[str, dict[str, list[str]]]:
    """By prompt set, which samples the shown scorer says were lost and gained in any pair of cells."""
    return {
        one.group.name: {kind: sorted({sample for c in one.contrasts if c.scorer == one.scorer for sample in getattr(c.counts, kind)}) for kind in MOST_SHOWN}
        for one in found
    }


def _worst_first(one: Contrast) -> tuple[int, float]:
    """Of equal verdicts the greater drop."""
    return STATES.index(_state(one.result)), one.result.difference or 0.0


def _state(result: MetricDifference) -> str:
    """With a margin an interval across it is inconclusive; without one it only shows no difference. Where no sample has the score on both sides, nothing is
    shown, which is not "no difference".
    """
    if result.difference is None:
        return "nothing"
    if result.verdict == "inconclusive":
        return "undecided" if result.margin else "even"
    return "kept" if result.verdict == "not worse" else result.verdict


def _both_words(state: str) -> dict[str, str]:
    return {lang: word(f"b_{state}", lang) for lang in LANGUAGES}


def _listed(names: Sequence[str], *, shown: bool) -> str:
    """What changed by name, what did not by number."""
    if not shown:
        return str(len(names))
    return ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")


def _same(view: View, cell: CellName) -> bool:
    mine = view.cell
    return (mine.prompt_set, mine.prompt, mine.model, mine.provider, mine.params, mine.stream) == (
        *(cell.prompt_set, cell.prompt, cell.model, cell.provider, cell.params, cell.stream),
    )


def _words(cell: CellName) -> str:
    return " · ".join([cell.model, cell.prompt, *(f"{name} {value}" for name, value in cell.params.items())])


def _partner(pair: PairedCells) -> str:
    """The baseline's cell, by what differs from the candidate's; nothing where only the run does."""
    old, new = pair.baseline, pair.candidate
    parts = [getattr(old, name) for name in ("prompt_set", "model", "prompt") if getattr(old, name) != getattr(new, name)]
    return " · ".join([*parts, *(f"{name} {value}" for name, value in old.params.items() if new.params.get(name) != value)])


def _left_out(pair: PairedCells) -> int:
    return pair.only_baseline + pair.only_candidate + pair.changed


def _flip(sample: FlippedSample, name: str, prompt_set: str) -> Flip:
    pieces = word_diff(sample.baseline.output or "", sample.candidate.output or "")
    return Flip(sample, name, f"#/{urlencode({'id': sample.sample_id, 'in': prompt_set})}", pieces)
