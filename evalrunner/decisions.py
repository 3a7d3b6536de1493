"""Stored runs side by side, and what that decides: comparisons, gates, flips. Reads runs and sends nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from evalrunner.analysis.compare import Comparison, Options, compare
from evalrunner.analysis.flips import FlippedSample, flipped_samples
from evalrunner.analysis.gates import Against, GateResult, State, check_gates, chosen, gates_state
from evalrunner.analysis.pairing import EXAMPLES, Side, open_side, pair_cells
from evalrunner.analysis.rows import is_score
from evalrunner.analysis.rules import CellKey, Gate, Rule, matches, metric_problem, rule_of
from evalrunner.analysis.summary import Summary, summarise
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.store.run_dir import read_manifest, read_results

_CELLS = re.compile(r"(?P<run>.+?)\[(?P<where>\w+=.*)\]", re.DOTALL)

EXIT_CODES: Mapping[State, int] = {"no data": 4, "fail": 1, "inconclusive": 0, "pass": 0}


class Decision(Struct, frozen=True, kw_only=True):
    """What `compare` found. `state` is the worst of `gates`; "no data" also where nothing could be judged."""

    schema: int = 1
    state: State
    gates: tuple[GateResult, ...]
    comparison: Comparison
    flips: tuple[FlippedSample, ...] = field(default=())


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
        return Side(self.name, self.results, self.manifest.get("plan") or {}, self.where)

    @cached_property
    def summary(self) -> Summary:
        """Of the chosen cells. Without the attempts: no gate needs them, and a baseline that is committed may leave them out."""
        whole = summarise(self.results, None, self.manifest)
        return replace(whole, cells=tuple(cell for cell in whole.cells if chosen(cell, self.where)))

    @property
    def gate(self) -> list[Rule]:
        """The rules of the config that the run was made from, those about the chosen cells; a rule that finds nothing in the whole run stays, and fails."""
        written = [rule_of(one) for one in (self.manifest.get("plan") or {}).get("gate") or ()]
        return [rule for rule in written if not self.where or any(chosen(cell, rule.where) for cell in self.summary.cells)]


def open_both(baseline: str | os.PathLike[str], candidate: str | os.PathLike[str]) -> tuple[Chosen, Chosen]:
    """Both sides; two choices from one run read it once."""
    old, new = Chosen(baseline), Chosen(candidate)
    if old.path == new.path:
        new.results = old.results
    return old, new


def compare_runs(baseline: str | os.PathLike[str], candidate: str | os.PathLike[str], options: Options | None = None) -> Comparison:
    """Two runs, or cells of them, sample by sample. Raises `StoreError`, `ConfigError` for cells without a partner, `DatasetError` for other data."""
    old, new = open_both(baseline, candidate)
    return compare(old.side, new.side, options)


def decide(old: Chosen, new: Chosen, rules: Sequence[Rule] = (), options: Options | None = None) -> Decision:
    """Compare, and judge by `rules` and by every margin in `options`; without rules by the candidate's own gate and every score: none may be worse.

    A `max_drop` is against `old`, whatever baseline its config names, and is the margin of its metric where `options` has none. Raises as `compare_runs`.
    """
    options = options or Options()
    wanted = list(rules) or new.gate
    drops = {rule.metric: rule.max_drop for rule in wanted if rule.max_drop is not None}
    options = replace(options, margins={**drops, **options.margins})
    comparison = compare(old.side, new.side, options)
    if problems := [problem for name in options.margins if (problem := metric_problem(name, new.summary.scorers))]:
        raise ConfigError(*problems)
    judged = set(options.margins) if rules else {*options.margins, *_scores(comparison, new.summary)}
    wanted += [Rule(metric=name, max_drop=options.margins.get(name, 0.0)) for name in sorted(judged - drops.keys())]
    gates = check_gates(wanted, new.summary, Against(comparison, old.summary))
    return Decision(
        state=gates_state(gates) if gates else "no data",
        gates=tuple(gates),
        comparison=comparison,
        flips=flipped_samples(comparison, old.results, new.results),
    )


def check_run(run: Path | Chosen, gates: Sequence[Gate]) -> list[GateResult]:
    """The gates of a config on the run it made. Raises as `compare_runs` where a baseline does not fit."""
    if not gates:
        return []
    new, found = run if isinstance(run, Chosen) else Chosen(run), []
    opened = {path: Chosen(path) for path in dict.fromkeys(gate.baseline for gate in gates) if path is not None}
    for gate in gates:
        against = None
        if gate.baseline is not None:
            old = opened[gate.baseline]
            against = Against(compare(old.side._replace(where=gate.rule.where), new.side._replace(where=gate.rule.where)), old.summary)
        found += check_gates([gate.rule], new.summary, against)
    return found


def check_baseline(gate: Gate, cells: Sequence[CellKey], hashes: Mapping[tuple[str, str], str]) -> None:
    """Whether a run that is still to be made can be held against the gate's baseline: `cells` are its cells, `hashes` those of its samples by
    (prompt set, id). Raises `StoreError`, `ConfigError` or `DatasetError`.
    """
    if gate.baseline is None:
        return
    old = Chosen(gate.baseline)
    old.where = dict(gate.rule.where)
    rows, places = open_side(old.side)
    new = old.side._replace(name="this config")
    pair_cells((old.side, new), ([rows.cells[at] for at in places], [cell for cell in cells if matches(cell, gate.rule.where)]), {})
    names = ("prompt_set", "sample_id", "sample_hash")
    known = dict.fromkeys(zip(*(old.results[name].to_pylist() for name in names), strict=True))
    common = [(sample, digest) for *sample, digest in known if tuple(sample) in hashes]
    changed = [name for (prompt_set, name), digest in common if hashes[prompt_set, name] != digest]
    if changed or not common:
        what = f"{len(changed)} samples have other data than in {old.name}: {', '.join(changed[:EXAMPLES])}" if changed else f"no sample is in {old.name}, too"
        raise DatasetError(f"{what} (hint: make the baseline again from the data as they are now)")


def _scores(comparison: Comparison, candidate: Summary) -> set[str]:
    """The column of every score that the candidate should have or that was compared."""
    planned = {f"score_{scorer}" for cell in candidate.cells for scorer in cell.scores}
    return planned | {name for pair in comparison.pairs for name in pair.metrics if is_score(name)}
