"""A decision as files that others read: Markdown for a pull request, JUnit XML for a CI server, and GitHub's annotations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from evalrunner.analysis.compare import PairedCells
from evalrunner.analysis.flips import FlippedSample
from evalrunner.analysis.gates import GateResult, State
from evalrunner.cli.verdict_words import conclusion, decision_lines, left_out, metric_words, pair_name, safe
from evalrunner.decisions import Decision
from evalrunner.report.quantities import digits

MOST_SAMPLES = 30
LONGEST = 2_000
LONGEST_COMMENT = 60_000
"""GitHub takes 65,536 characters."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FENCE = re.compile("`{3,}")


def markdown(decision: Decision) -> str:
    """A comment for a pull request, of at most LONGEST_COMMENT characters: what does not fit is counted. Names and answers are text: no markup of theirs
    takes effect, nobody is mentioned.
    """
    named = f"Baseline {_text(decision.comparison.baseline)}, candidate {_text(decision.comparison.candidate)}. Intervals are 95 %."
    end = ["", named]
    blocks = [[f"### evalrunner: {conclusion(decision.gates)}", *(f"\n{_text(note)}" for note in decision.notes)], *_gate_blocks(decision.gates)]
    blocks += [_pair_block(pair) for pair in decision.comparison.pairs]
    for kind in ("lost", "gained"):
        blocks += _flipped([flip for flip in decision.flips if flip.kind == kind])
    return _fitting(blocks, end)


def _fitting(blocks: Sequence[Sequence[str]], end: Sequence[str]) -> str:
    """As many blocks as have room, each as a whole, and a word about the rest."""
    room, kept = LONGEST_COMMENT - sum(len(line) + 1 for line in end) - 200, []
    for number, block in enumerate(blocks):
        room -= sum(len(line) + 1 for line in block)
        if room < 0:
            kept += ["", f"Cut here: {len(blocks) - number:,} more parts would make this longer than a comment may be (`evalrunner compare --json` has all)."]
            break
        kept += block
    return "\n".join([*kept, *end]) + "\n"


def _pair_block(pair: PairedCells) -> list[str]:
    rows = [f"| {_text(name)} | {_text(metric_words(found))} |" for name, found in pair.metrics.items()]
    rows += [f"| {_text(name)} | not compared: {_text(why)} |" for name, why in pair.not_compared.items()]
    title = f"**{_text(pair_name(pair))}**: {pair.matched:,} samples in both{left_out(pair)}"
    return ["", title, "", "| metric | baseline → candidate |", "|---|---|", *rows]


def gate_markdown(gates: Sequence[GateResult], title: str) -> str:
    """The gates of one run, for a step summary."""
    return _fitting([[f"### evalrunner: {_text(title)}"], *_gate_blocks(gates)], [])


def junit(decision: Decision, *, inconclusive_fails: bool = False) -> bytes:
    """JUnit XML: a test case for each gate. Valid XML 1.0 whatever a model wrote; long texts are cut, with a note."""
    suite = ET.Element("testsuite", name=_xml(f"{decision.comparison.baseline} → {decision.comparison.candidate}"), tests=str(len(decision.gates)))
    counts = {"failures": 0, "errors": 0, "skipped": 0}
    for gate in decision.gates:
        case = ET.SubElement(suite, "testcase", classname=_xml(f"evalrunner.{gate.cell}"), name=_xml(f"{gate.metric} {gate.limit} {gate.threshold:g}"))
        kind = {"fail": "failure", "no data": "error", "inconclusive": "failure" if inconclusive_fails else "skipped", "pass": ""}[gate.state]
        if kind:
            found = ET.SubElement(case, kind, message=_xml(gate.text))
            found.text = _xml("\n".join(_evidence(decision, gate))) if kind == "failure" else None
            counts[kind if kind == "skipped" else f"{kind}s"] += 1
    suite.attrib.update({name: str(number) for name, number in counts.items()})
    ET.SubElement(suite, "system-out").text = _xml("\n".join(decision_lines(decision, most=MOST_SAMPLES)), 100 * LONGEST)
    root = ET.Element("testsuites", name="evalrunner")
    root.append(suite)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def workflow_commands(gates: Iterable[GateResult], *, inconclusive_fails: bool = False) -> Iterator[str]:
    """GitHub's workflow commands: an error for what failed, a notice for what is open."""
    for gate in gates:
        if gate.state == "pass":
            continue
        level = "error" if gate.state != "inconclusive" or inconclusive_fails else "notice"
        yield f"::{level} title={_escaped(f'evalrunner gate {gate.state}', ':,')}::{_escaped(safe(gate.text))}"


def tell_github(gates: Sequence[GateResult], summary: str, *, inconclusive_fails: bool = False) -> list[str]:
    """Where GitHub runs us: append to the step summary, and return what to print: annotations, and that a summary could not be written, which is no
    reason to lose a verdict. Elsewhere nothing.
    """
    lines = list(workflow_commands(gates, inconclusive_fails=inconclusive_fails)) if os.environ.get("GITHUB_ACTIONS") == "true" else []
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{summary}\n")
        except OSError as error:
            lines.append(f"warning: GITHUB_STEP_SUMMARY is left out: {safe(path)} cannot be written ({error.strerror or error})")
    return lines


def _gate_blocks(gates: Sequence[GateResult]) -> list[list[str]]:
    """A table: its head, then row by row, those that did not pass first."""
    ordered = sorted(gates, key=lambda gate: gate.state == "pass")
    return [["", "| gate | evidence |", "|---|---|"], *([f"| {_SIGNS[gate.state]} {gate.state} | {_text(gate.text)} |"] for gate in ordered)] if gates else []


def _flipped(flips: Sequence[FlippedSample]) -> Iterator[list[str]]:
    """One sample in each block, so that a comment that is cut leaves no tag open. The first lost one can be read at once."""
    if flips:
        yield ["", f"**{flips[0].kind.capitalize()}: {len(flips):,}**" + (f", the first {MOST_SAMPLES}:" if len(flips) > MOST_SAMPLES else "")]
    for at, flip in enumerate(flips[:MOST_SAMPLES]):
        title = f"{flip.kind.capitalize()}: {_text(flip.sample_id)}, {_text(flip.metric)}"
        opened = " open" if flip.kind == "lost" and at == 0 else ""
        yield ["", f"<details{opened}><summary>{title}</summary>", "", *_fenced("\n".join(_told(flip))), "", "</details>"]


def _told(flip: FlippedSample) -> Iterator[str]:
    yield f"asked      {_cut(flip.question)}"
    if flip.target is not None:
        yield f"expected   {_cut(flip.target)}"
    for side, answer in (("baseline ", flip.baseline), ("candidate", flip.candidate)):
        yield f"{side}  {_cut(answer.output or '')}"
        yield f"           {_cut(answer.why or f'score {digits(answer.score)}')}"


def _evidence(decision: Decision, gate: GateResult) -> Iterator[str]:
    """The lost samples of a failed score, of the gate's own cell."""
    lost = [flip for flip in decision.flips if flip.kind == "lost" and flip.metric == gate.metric and flip.pair == gate.pair]
    for flip in lost[:MOST_SAMPLES]:
        yield from ("", f"lost sample {_cut(flip.sample_id)}", *_told(flip))
    if len(lost) > MOST_SAMPLES:
        yield f"… and {len(lost) - MOST_SAMPLES:,} more"


def _fenced(text: str) -> Iterator[str]:
    fence = "`" * (1 + max([2, *(len(run) for run in _FENCE.findall(text))]))
    yield from (f"{fence}text", text, fence)


def _text(text: str) -> str:
    """As Markdown text of one line: whatever could be markup, a table's border, a link or a mention is taken literally."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&:/@-])", lambda found: f"&#{ord(found[0])};", safe(text))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… (cut: {len(text):,} characters)"


def _xml(text: str, most: int = 50 * LONGEST) -> str:
    return _NOT_XML.sub("�", text if len(text) <= most else f"{text[:most]}… (cut: {len(text):,} characters)")


def _escaped(text: str, more: str = "") -> str:
    """As GitHub wants data (and properties) of its workflow commands."""
    return "".join(f"%{ord(char):02X}" if char in f"%\r\n{more}" else char for char in text)


_SIGNS: dict[State, str] = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "no data": "🚫"}
