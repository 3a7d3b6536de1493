"""A config's gate, checked before anything is sent: its metrics and its cells. The baselines are `decisions`' business."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from os.path import normpath
from pathlib import Path
from typing import Protocol

from evalrunner.analysis.rules import STREAMED, CellKey, Gate, matches, metric_problem, rule_of
from evalrunner.errors import ConfigError
from evalrunner.plan.config import Config
from evalrunner.plan.config_types import GateBlock
from evalrunner.plan.mistakes import Mistake
from evalrunner.records import Cell


class _Grid(Protocol):
    """What of a plan is asked here."""

    config: Config

    @property
    def scorer_names(self) -> Sequence[str]: ...
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
    if block.metric.partition(".")[0] in STREAMED and not any(cell.stream for cell in cells):
        found.append((("metric",), f"{block.metric} is measured on streams only (hint: stream: true)"))
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
