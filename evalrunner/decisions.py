"""Stored runs side by side, and what that decides: comparisons, gates, flips. Reads runs and sends nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, field
from msgspec.structs import replace

from evalrunner.analysis.compare import Comparison, Options, compare
from evalrunner.analysis.flips import FlippedSample, flipped_samples
from evalrunner.analysis.gates import Against, GateResult, State, check_gates, chosen, gates_state, key_of, same_cell, undecided
from evalrunner.analysis.pairing import EXAMPLES, Side, open_side, pair_cells
from evalrunner.analysis.rows import is_score
from evalrunner.analysis.rules import CellKey, Gate, Rule, alone, matches, metric_problem, rule_of, unserved
from evalrunner.analysis.scorings import changed, one_sided, refuse_changed_scorers, scorings_of
from evalrunner.analysis.summary import Summary, summarise
from evalrunner.errors import ConfigError, DatasetError, StoreError
from evalrunner.records import ANSWERED
from evalrunner.store.run_dir import read_manifest, read_results

_CELLS = re.compile(r"(?P<run>.+?)\[(?P<where>\w+=.*)\]", re.DOTALL)

_ALIKE = ("prompt_set", "model")
"""What a config's gate never mixes: the baseline of another prompt set or model is a mistake, and a new parameter may be what is tried."""

EXIT_CODES: Mapping[State, int] = {"no data": 4, "fail": 1, "inconclusive": 0, "pass": 0}


class Decision(Struct, frozen=True, kw_only=True):
    """What `compare` found. `state` is the worst of `gates`; "no data" also where nothing could be judged. `notes`: what a reader must know of the two runs."""

    schema: int = 1
    state: State
    gates: tuple[GateResult, ...]
    comparison: Comparison
    flips: tuple[FlippedSample, ...] = field(default=())
    notes: tuple[str, ...] = ()


class Chosen:
    """A stored run, or cells of one: `RUN` or `RUN[prompt=plain,model=qwen-max,temperature=0]`. Raises `StoreError` where there is no run."""

    def __init__(self, text: str | os.PathLike[str]) -> None:
        self.name = os.fspath(text)
        found = None if Path(self.name).is_dir() else _CELLS.fullmatch(self.name)
        self.path = Path(found["run"] if found else self.name)
        pairs = re.split(r",(?=\w+=)", found["where"]) if found else []
        self.where = {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in pairs)}
        self.manifest = read_manifest(self.path)

    @cached_property
    def results(self) -> pa.Table:
        return read_results(self.path)

    @property
    def side(self) -> Side:
        return Side(self.name, self.results, self.plan, self.where)

    @cached_property
    def summary(self) -> Summary:
        """Of the chosen cells. Without the attempts: no gate needs them, and a baseline that is committed may leave them out."""
        whole = summarise(self.results, None, self.manifest)
        return replace(whole, cells=tuple(cell for cell in whole.cells if chosen(cell, self.where)))

    @property
    def gate(self) -> list[Rule]:
        """The rules of the config that the run was made from, those about the chosen cells; a rule that finds nothing in the whole run stays, and fails."""
        written = [rule_of(one) for one in self.plan.get("gate") or ()]
        return [rule for rule in written if not self.where or any(chosen(cell, rule.where) for cell in self.summary.cells)]

    @property
    def plan(self) -> Mapping[str, Any]:
        return self.manifest.get("plan") or {}

    @property
    def unanswered(self) -> tuple[int, int]:
        """Requests of the chosen cells without an answer, cells without a row included, and how many were planned. Answers of a whole run that a judge has
        still to score count as in the exit code of `run`.
        """
        served = self.summary.cells
        sizes = {one["name"]: int(one.get("samples") or 0) * int(self.plan.get("trials") or 1) for one in self.plan.get("prompt_sets") or ()}
        rest = sum(sizes[key.prompt_set] for key, _ in unserved(self.plan, map(key_of, served), self.where))
        planned = sum(cell.planned for cell in served) + rest
        unscored = 0 if self.where else int((self.manifest.get("counts") or {}).get("unscored") or 0)
        return planned - sum(cell.answered for cell in served) + unscored, planned

    def notes(self) -> Iterator[str]:
        """What makes the run less than what was planned."""
        state, (missing, planned) = self.manifest.get("state") or "complete", self.unanswered
        if state != "complete":
            yield f"{self.name} is {state}, not complete" + (f": {reason}" if (reason := self.manifest.get("reason")) else "")
        if missing:
            yield f"{self.name}: {missing:,} of {planned:,} requests are without an answer or its score"


def open_both(baseline: str | os.PathLike[str], candidate: str | os.PathLike[str]) -> tuple[Chosen, Chosen]:
    """Both sides; two choices from one run read it once."""
    old, new = Chosen(baseline), Chosen(candidate)
    if old.path == new.path:
        new.results = old.results
    return old, new


def compare_runs(baseline: str | os.PathLike[str], candidate: str | os.PathLike[str], options: Options | None = None) -> Comparison:
    """Two runs, or cells of them, sample by sample. Raises `StoreError`, `ConfigError` for cells without a partner, `DatasetError` for other data."""
    old, new = open_both(baseline, candidate)
    options = options or Options()
    _check_names(old, options.renames)
    found = compare(old.side, new.side, options)
    compared = sorted({name for pair in found.pairs for name in pair.metrics})
    problems = [f"no metric called {name!r} was compared{_nearest(name, compared)}" for name in options.margins if name not in compared]
    problems += [f"the margin of {name} is {margin!r}: should be a number of at least 0" for name, margin in options.margins.items() if not 0 <= margin < inf]
    if problems:
        raise ConfigError(*problems)
    return found


def _check_names(baseline: Chosen, renames: Mapping[str, str]) -> None:
    """Whether there is what gets another name; that the other name is there shows when cells are paired. Raises `ConfigError`."""
    if not renames:
        return
    known = [str(name) for column in ("prompt_set", "prompt", "model") for name in pc.unique(baseline.results[column]).to_pylist()]
    if problems := [f"{baseline.name}: no prompt set, prompt or model is called {name!r}{_nearest(name, known)}" for name in renames if name not in known]:
        raise ConfigError(*problems)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (hint: did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})"


def decide(old: Chosen, new: Chosen, rules: Sequence[Rule] = (), options: Options | None = None) -> Decision:
    """Compare, and judge by `rules` and by every margin in `options`; without rules by the candidate's own gate and every score: none may be worse.

    A `max_drop` is against `old`, whatever baseline its config names. Cells whose score no `max_drop` and no margin is about may not be worse at all. Raises as
    `compare_runs`.
    """
    options = options or Options()
    _check_names(old, options.renames)
    written = list(rules) or new.gate
    comparison = compare(old.side, new.side, replace(options, drops=written))
    if problems := [problem for name in options.margins if (problem := metric_problem(name, new.summary.scorers))]:
        raise ConfigError(*problems)
    margins = [Rule(metric=name, max_drop=margin) for name, margin in sorted(options.margins.items())]
    drops = [*(rule for rule in written if rule.max_drop is not None), *margins]
    others = [] if rules else [rule for name in sorted(_scores(comparison, new.summary)) for rule in _none_worse(name, drops, new, comparison)]
    gates = [*check_gates([*written, *margins, *others], new.summary, Against(comparison, old.summary), new.where), *_too_few(new)]
    return Decision(
        state=gates_state(gates) if gates else "no data",
        gates=tuple(gates),
        comparison=comparison,
        flips=flipped_samples(comparison, old.results, new.results),
        notes=(*old.notes(), *(new.notes() if new.name != old.name else ())),
    )


def _none_worse(score: str, drops: Sequence[Rule], new: Chosen, comparison: Comparison) -> list[Rule]:
    """The default, a drop of at most 0, for the cells that `drops` leave out and whose score can be held against the baseline at all."""
    mine = [rule for rule in drops if rule.metric == score]
    apart = [pair.candidate for pair in comparison.pairs if score in pair.not_compared]
    if not mine and not apart:
        return [Rule(metric=score, max_drop=0.0)]
    cells = [cell for cell in new.summary.cells if score.removeprefix("score_") in cell.scores and not any(same_cell(name, cell) for name in apart)]
    keys = [key_of(cell) for cell in cells]
    keys += [key for key, scorers in unserved(new.plan, map(key_of, new.summary.cells), new.where) if score.removeprefix("score_") in scorers]
    names = sorted({name for cell in new.summary.cells for name in cell.params} | {name for key in keys for name in key.values()})
    return [Rule(metric=score, max_drop=0.0, where=alone(key, names)) for key in keys if not any(matches(key, rule.where) for rule in mine)]


def _too_few(new: Chosen) -> list[GateResult]:
    """The limit that `run` has, held again: a run that lacks more answers than its config allows decides nothing."""
    (missing, planned), allowed = new.unanswered, new.plan.get("allow_unanswered")
    if allowed is None or not planned or missing <= allowed * planned:
        return []
    rule = Rule(metric="coverage", min=1.0 - allowed)
    return [undecided(rule, new.name, f"{missing:,} of {planned:,} requests are without an answer or its score, more than allow_unanswered, {allowed:g}")]


def check_run(run: Path | Chosen, gates: Sequence[Gate]) -> list[GateResult]:
    """The gates of a config on the run it made. What cannot be held against its baseline (a model that nobody could ask, a baseline that is gone) is no data:
    the answers are paid for, and the other gates still say something.
    """
    if not gates:
        return []
    new, found = run if isinstance(run, Chosen) else Chosen(run), []
    opened: dict[Path, Chosen] = {}
    for gate in gates:
        try:
            found += check_gates([gate.rule], new.summary, _against(gate, new, opened))
        except (ConfigError, DatasetError, StoreError) as error:
            found.append(undecided(gate.rule, "", str(error)))
    return found


def _against(gate: Gate, new: Chosen, opened: dict[Path, Chosen]) -> Against | None:
    """`opened`: the baselines read so far; gates mostly share one."""
    if gate.baseline is None:
        return None
    if gate.baseline not in opened:
        opened[gate.baseline] = Chosen(gate.baseline)
    old, where = opened[gate.baseline], gate.rule.where
    options = Options(drops=(gate.rule,), leave_out_changed_scorers=True, alike=_ALIKE)
    return Against(compare(old.side._replace(where=where), new.side._replace(where=where), options), old.summary)


def check_baseline(gate: Gate, cells: Sequence[CellKey], hashes: Mapping[tuple[str, str], str], plan: Mapping[str, Any]) -> None:
    """Whether a run that is still to be made can be held against the gate's baseline: `cells` are its cells, `hashes` those of its samples by
    (prompt set, id), `plan` what its manifest will say. Raises `StoreError`, `ConfigError` or `DatasetError`.
    """
    if gate.baseline is None:
        return
    old = Chosen(gate.baseline)
    old.where = dict(gate.rule.where)
    rows, places = open_side(old.side)
    new = old.side._replace(name="this config")
    sides = ([rows.cells[at] for at in places], [cell for cell in cells if matches(cell, gate.rule.where)])
    pairs = [(sides[0][a].prompt_set, sides[1][b].prompt_set) for a, b in pair_cells((old.side, new), sides, {}, alike=_ALIKE)]
    _check_scorer(gate, pairs, (old.plan, plan), old.name)
    names = ("prompt_set", "sample_id", "sample_hash")
    known = dict.fromkeys(zip(*(old.results[name].to_pylist() for name in names), strict=True))
    common = [(sample, digest) for *sample, digest in known if tuple(sample) in hashes]
    changed = [name for (prompt_set, name), digest in common if hashes[prompt_set, name] != digest]
    if changed or not common:
        what = f"{len(changed)} samples have other data than in {old.name}: {', '.join(changed[:EXAMPLES])}" if changed else f"no sample is in {old.name}, too"
        raise DatasetError(f"{what} (hint: make the baseline again from the data as they are now)")


def answers_of(text: str, prompt_set: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """(sample id, trial) -> row of `results`, of the answers of the one cell of a prompt set that is chosen. Raises `StoreError`, and `ConfigError` where it
    is none, or several.
    """
    chosen = Chosen(text)
    rows, places = open_side(chosen.side)
    cells = [rows.cells[at] for at in places if rows.cells[at].prompt_set == prompt_set]
    if len(cells) != 1:
        raise ConfigError(f"{text}: {len(cells) or 'no'} cells of {prompt_set} are chosen (hint: choose one, as in RUN[prompt=in-use,model=qwen-max])")
    table = chosen.results
    for name, value in cells[0]._asdict().items():
        table = table.filter(pc.equal(table[name], pa.scalar(value, table.schema.field(name).type)))
    return {(row["sample_id"], row["trial"]): row for row in table.to_pylist() if row["outcome"] in ANSWERED}


def _check_scorer(gate: Gate, pairs: Sequence[tuple[str, str]], plans: tuple[Mapping[str, Any], Mapping[str, Any]], baseline: str) -> None:
    """Whether the gate's own score is computed as it was in the baseline."""
    found = []
    for old, new in dict.fromkeys(pairs):
        scorings, metric = (scorings_of(plans[0], old), scorings_of(plans[1], new)), gate.rule.metric
        found.append((new, {name: how for name, how in changed(*scorings).items() if name == metric}))
        if metric in (one := one_sided(*scorings)) and metric in (scorings[1] or {}):
            raise ConfigError(f"{new}: {metric}: {one[metric]} (hint: rescore the baseline with this config, or make it again)")
    refuse_changed_scorers(found, (baseline, "this config"))


def _scores(comparison: Comparison, candidate: Summary) -> set[str]:
    """The column of every score that the candidate should have or that was compared."""
    planned = {f"score_{scorer}" for cell in candidate.cells for scorer in cell.scores}
    return planned | {name for pair in comparison.pairs for name in pair.metrics if is_score(name)}
