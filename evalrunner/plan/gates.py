"""A config's gate, checked before anything is sent: its metrics, its cells, and the baselines it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from os.path import normpath
from pathlib import Path
from typing import Protocol

from evalrunner.analysis.gates import metric_problem
from evalrunner.analysis.pairing import matches
from evalrunner.analysis.rows import CellKey
from evalrunner.decisions import Gate, check_baseline, rule_of
from evalrunner.errors import ConfigError, RunError
from evalrunner.plan.config import Config
from evalrunner.plan.config_types import GateBlock
from evalrunner.plan.mistakes import Mistake
from evalrunner.plan.prompt_sets import PromptSet
from evalrunner.records import Cell


class _Grid(Protocol):
    """What of a plan is asked here."""

    config: Config
    prompt_sets: tuple[PromptSet, ...]

    @property
    def scorer_names(self) -> Sequence[str]: ...
    @property
    def gates(self) -> Sequence[Gate]: ...
    def grid(self) -> Iterator[Cell]: ...


def gates_of(plan: _Grid) -> list[Gate]:
    """The gates of a plan's config. Raises `ConfigError` with every mistake; looks at no baseline yet."""
    cells = cell_keys(plan)
    found, problems = [], []
    for index, block in enumerate(plan.config.settings.gate):
        problems += [plan.config.places.line(Mistake(("gate", index, *path), what)) for path, what in _problems(block, plan.scorer_names, cells)]
        path = Path(normpath(plan.config.folder / block.baseline)) if block.baseline is not None else None
        found.append(Gate(rule=rule_of(block.model_dump()), baseline=path))
    if problems:
        raise ConfigError(*problems)
    return found


def check_baselines(plan: _Grid) -> None:
    """Whether every baseline can be compared with what this plan will make. Raises `ConfigError`."""
    problems = []
    if any(gate.baseline is not None for gate in plan.gates):
        cells = cell_keys(plan)
        hashes = {(one.name, sample.id): sample.hash for one in plan.prompt_sets for sample in one.data}
        for index, gate in enumerate(plan.gates):
            try:
                check_baseline(gate, cells, hashes)
            except RunError as error:
                problems.append(plan.config.places.line(Mistake(("gate", index, "baseline"), str(error))))
    if problems:
        raise ConfigError(*problems)


def cell_keys(plan: _Grid) -> list[CellKey]:
    """Every cell of a plan, as its rows will name it."""
    return [
        CellKey(cell.prompt_set, cell.prompt, cell.model.name, cell.model.provider, json.dumps(cell.params, sort_keys=True), cell.stream)
        for cell in plan.grid()
    ]


def _problems(block: GateBlock, scorers: Sequence[str], cells: Sequence[CellKey]) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = []
    if problem := metric_problem(block.metric, scorers):
        found.append((("metric",), problem))
    if block.min is None and block.max is None and block.max_drop is None:
        found.append(((), "needs min, max or max_drop"))
    if (block.max_drop is None) != (block.baseline is None):
        found.append(((), "max_drop and baseline belong together"))
    if block.max_drop is not None and block.max_drop < 0:
        found.append((("max_drop",), "should be at least 0: it is how much worse the metric may be"))
    found += [(("where", name), problem) for name in block.where if (problem := _where_problem(name, block, cells))]
    return found


def _where_problem(name: str, block: GateBlock, cells: Sequence[CellKey]) -> str | None:
    known = {*CellKey._fields, *(param for key in cells for param in key.values())} - {"params"}
    if name not in known:
        return f"should be one of {', '.join(sorted(known))}"
    if not any(matches(key, {name: block.where[name]}) for key in cells):
        return f"no cell of this config has {name}={block.where[name]}"
    return None
