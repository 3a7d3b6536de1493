"""Records -> tables: `summarise` turns the rows of a run into a `Summary`."""

from __future__ import annotations

from evalrunner.analysis.tables import (
    CellSummary,
    Cost,
    Distribution,
    Effort,
    ErrorGroup,
    Estimate,
    ModelSummary,
    Moment,
    Notice,
    Quantile,
    RunFacts,
    Slice,
    Summary,
    TokenCount,
    Totals,
)

__all__ = [
    "CellSummary",
    "Cost",
    "Distribution",
    "Effort",
    "ErrorGroup",
    "Estimate",
    "ModelSummary",
    "Moment",
    "Notice",
    "Quantile",
    "RunFacts",
    "Slice",
    "Summary",
    "TokenCount",
    "Totals",
]
