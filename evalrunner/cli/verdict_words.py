"""A decision in plain words. Every line begins with a word of ours and holds no control character: what a model wrote cannot steer a terminal or a CI log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import asdict

from evalrunner.analysis.compare import CellName, MetricDifference, PairedCells
from evalrunner.analysis.flips import FlippedSample
from evalrunner.analysis.gates import GateResult, State, gates_state
from evalrunner.analysis.rows import is_score
from evalrunner.decisions import Decision
from evalrunner.plain import one_line
from evalrunner.report.quantities import digits

MOST_FLIPS = 20
EXCERPT = 200

CONCLUSIONS: dict[State, str] = {
    "pass": "passed",
    "fail": "FAILED: a regression or a broken limit is shown",
    "inconclusive": "inconclusive: nothing is shown either way",
    "no data": "NO DATA: nothing was measured that could pass",
}

NO_MARGIN = "no number of samples shows equals to be equal: name a margin (--margin METRIC=X, or max_drop above 0)"


def decision_lines(decision: Decision, *, most: int = MOST_FLIPS) -> Iterator[str]:
    """The whole decision: pairs of cells, flips, gates, conclusion."""
    comparison = decision.comparison
    yield f"baseline   {safe(comparison.baseline)}"
    yield f"candidate  {safe(comparison.candidate)}"
    for note in decision.notes:
        yield f"note       {safe(note)}"
    for pair in comparison.pairs:
        yield ""
        yield from pair_lines(pair)
    for kind in ("lost", "gained"):
        yield from _flips([flip for flip in decision.flips if flip.kind == kind], decision, most if kind == "lost" else min(most, 3))
    yield ""
    yield from gate_lines(decision.gates)
    yield f"verdict  {conclusion(decision.gates)}"


def conclusion(gates: Sequence[GateResult]) -> str:
    """What all gates come to; for what is open, how many samples would decide it, or that no number would."""
    state = gates_state(gates) if gates else "no data"
    if state != "inconclusive":
        return CONCLUSIONS[state]
    needed = max((gate.samples_needed or 0 for gate in gates if gate.state == "inconclusive"), default=0)
    if needed:
        return f"{CONCLUSIONS[state]}; {needed:,} samples would decide"
    equal = any(gate.limit == "max_drop" and gate.threshold == 0 and gate.high is not None for gate in gates if gate.state == "inconclusive")
    return CONCLUSIONS[state] + (f"; {NO_MARGIN}" if equal else "")


def gate_lines(gates: Sequence[GateResult]) -> Iterator[str]:
    """One line for each limit on each cell, with its evidence."""
    for gate in gates:
        yield f"gate {_MARKS[gate.state]}  {safe(gate.text)}"


def pair_lines(pair: PairedCells) -> Iterator[str]:
    """One pair of cells: what each metric did, the flips in numbers, and what was left out."""
    yield f"cells  {safe(pair_name(pair))} · {pair.matched:,} samples in both{left_out(pair)}"
    if len(differing := differences(pair)) > 1:
        yield f"  the cells differ in {safe(', '.join(differing))}"
    for name in sorted(pair.metrics, key=lambda one: not is_score(one)):
        yield f"  {name}: {metric_words(pair.metrics[name])}"
        if (flips := pair.flips.get(name)) and pair.metrics[name].n:
            counted = f"lost {len(flips.lost):,}, gained {len(flips.gained):,}, both right {flips.both_right:,}, both wrong {flips.both_wrong:,}"
            yield f"  {' ' * len(name)}  flips: {counted}" + ("" if flips.p is None else f" (McNemar p {probability(flips.p)})")
    for name, why in sorted(pair.not_compared.items(), key=lambda one: not is_score(one[0])):
        yield f"  {safe(name)}: NOT COMPARED: {safe(why)}"


def pair_name(pair: PairedCells) -> str:
    """The candidate's cell; with the baseline's before it where something differs."""
    same = [f"{value}" for value, other in zip(_parts(pair.candidate), _parts(pair.baseline), strict=False) if value == other]
    first, second = _differing(pair.baseline, pair.candidate), _differing(pair.candidate, pair.baseline)
    return " · ".join(same + ([f"{first or '(none)'} → {second or '(none)'}"] if first or second else []))


def differences(pair: PairedCells) -> list[str]:
    """In what the two cells differ: `model (a → b)`."""
    old, new = ({**asdict(cell), **cell.params, "params": None} for cell in (pair.baseline, pair.candidate))
    return [f"{name} ({old.get(name)} → {new.get(name)})" for name in {**old, **new} if old.get(name) != new.get(name)]


def left_out(pair: PairedCells) -> str:
    """What was not compared, in words; nothing where all was."""
    counted = (("only in the baseline", pair.only_baseline), ("only in the candidate", pair.only_candidate), ("with other data", pair.changed))
    parts = [f"{number:,} {what}" for what, number in counted if number]
    return f"; left out: {', '.join(parts)}" if parts else ""


def metric_words(found: MetricDifference) -> str:
    """`0.900 → 0.850, -0.050 [-0.082, -0.019] worse (n = 500; p = 0.002)`, and what a reader must know beside it."""
    if found.difference is None:
        return f"no sample has it on both sides ({found.left_out:,} left out)"
    interval = f" [{signed(found.low)}, {signed(found.high)}]" if found.low is not None and found.high is not None else ""
    facts = [f"n = {found.n:,}"]
    if found.p is not None:
        facts.append(f"p {probability(found.p)}" + (f", Holm {probability(found.p_holm)}" if found.p_holm not in {None, found.p} else ""))
    if found.left_out:
        facts.append(f"{found.left_out:,} without a value left out")
        if found.low_bound is not None and found.high_bound is not None:
            facts.append(f"with them counted from {signed(found.low_bound)} to {signed(found.high_bound)}")
    if found.margin:
        facts.append(f"margin {digits(found.margin)}")
    if found.detectable is not None and is_score(found.metric) and found.verdict in {"inconclusive", "not worse"}:
        facts.append(f"differences below about {digits(found.detectable)} cannot be seen")
    if found.verdict == "inconclusive" and found.detectable is not None and (found.margin or is_score(found.metric)):
        facts.append(f"{found.samples_needed:,} samples would decide" if found.samples_needed else f"name a margin (--margin {found.metric}=X)")
    return f"{digits(found.baseline)} → {digits(found.candidate)}, {signed(found.difference)}{interval} {found.verdict} ({'; '.join(facts)})"


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return "?" if value is None else f"{'-' if value < 0 else '+'}{digits(abs(value))}"


def probability(p: float | None) -> str:
    return "?" if p is None else "< 0.001" if p < 0.001 else f"= {p:.3f}"


def safe(text: str, most: int = 1000) -> str:
    """One line of text that no terminal and no CI log takes for a command."""
    short = one_line(" ".join(text[: 2 * most].split()))
    if len(short) > most or len(text) > 2 * most:
        short = f"{short[:most]}… ({len(text):,} characters)"
    return short


def _flips(flips: Sequence[FlippedSample], decision: Decision, most: int) -> Iterator[str]:
    if not flips:
        return
    yield ""
    names = _telling_apart([_parts(pair.candidate) for pair in decision.comparison.pairs])
    yield f"{flips[0].kind}  {len(flips):,} samples" + (f", the first {most} (--json has all):" if len(flips) > most else ":")
    for flip in flips[:most]:
        yield f"  sample {' · '.join(safe(word) for word in (flip.sample_id, flip.metric, *names[flip.pair]))}"
        yield f"    asked      {safe(flip.question, EXCERPT)}"
        if flip.target is not None:
            yield f"    expected   {safe(flip.target, EXCERPT)}"
        for side, answer in (("baseline ", flip.baseline), ("candidate", flip.candidate)):
            yield f"    {side}  {safe(answer.output or '', EXCERPT)}  ({safe(answer.why or f'score {digits(answer.score)}', EXCERPT)})"


def _parts(cell: CellName) -> list[str]:
    params = [f"{name}={value}" for name, value in cell.params.items()]
    return [cell.prompt_set, cell.model, cell.prompt, "streamed" if cell.stream else "not streamed", *params]


def _telling_apart(names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each pair's name what not all of them have."""
    return [[part for part in name if not all(part in other for other in names)] for name in names]


def _differing(cell: CellName, other: CellName) -> str:
    return " ".join(part for part in _parts(cell) if part not in _parts(other))


_MARKS: dict[State, str] = {"pass": "ok", "fail": "FAILED", "inconclusive": "open", "no data": "NO DATA"}
