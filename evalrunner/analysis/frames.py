"""Summaries and comparisons as flat tables for pandas: a row is a cell, or a metric of two cells. Metrics are called as in a gate (`analysis.rules`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from msgspec.structs import asdict

from evalrunner.analysis.rules import TOKENS

if TYPE_CHECKING:
    from evalrunner.analysis.compare import CellName, PairedCells
    from evalrunner.analysis.tables import CellSummary, Distribution

IDENTITY = ("prompt_set", "prompt", "model", "provider", "stream")
COUNTS = ("samples", "trials", "planned", "answered", "coverage")
Line = dict[str, Any]


def cells_frame(cells: Sequence[CellSummary]) -> pd.DataFrame:
    """A row for each cell: what it is, its counts, each score with its interval, means and percentiles of what was measured, cost."""
    return pd.DataFrame(
        [
            {name: getattr(cell, name) for name in IDENTITY}
            | {f"param_{name}": value for name, value in cell.params.items()}
            | {name: getattr(cell, name) for name in COUNTS}
            | {f"score_{name}{end}": value for name, one in cell.scores.items() for end, value in (("", one.value), ("_low", one.low), ("_high", one.high))}
            | {column: value for name, one in (cell.latency | cell.speed).items() for column, value in _measured(name, one)}
            | {TOKENS[name]: one.mean for name, one in cell.tokens.items()}
            | {"cost.total": cell.cost.total, "cost.per_1000": cell.cost.per_1000, "currency": cell.cost.currency}
            for cell in cells
        ]
    )


def pairs_frame(pairs: Sequence[PairedCells]) -> pd.DataFrame:
    """A row for each metric of each two cells: which cells, then the fields of `MetricDifference`, and of a score how many samples it gained and lost."""
    return pd.DataFrame(
        [
            {"metric": name}
            | _cell("baseline", pair.baseline)
            | _cell("candidate", pair.candidate)
            | asdict(one)
            | {kind: len(getattr(pair.flips[name], kind)) if name in pair.flips else None for kind in ("gained", "lost")}
            for pair in pairs
            for name, one in pair.metrics.items()
        ]
    )


def _measured(name: str, found: Distribution) -> list[tuple[str, float | None]]:
    return [(name, found.mean), *((f"{name}.p{one.p * 100:g}", one.value) for one in found.quantiles)]


def _cell(side: str, cell: CellName) -> Line:
    return {f"{side}_{name}": getattr(cell, name) for name in IDENTITY} | {f"{side}_param_{name}": value for name, value in cell.params.items()}
