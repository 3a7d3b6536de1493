"""What a page is told beside the run's own tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from evalrunner.analysis.compare import Comparison
from evalrunner.analysis.flips import FlippedSample
from evalrunner.analysis.gates import GateResult
from evalrunner.analysis.tables import RunFacts


class Judged(NamedTuple):
    """`comparison`: the run against a baseline · `flips`: the texts of its flips; without them the page has their counts · `gates`: what became of the
    run's gate, limit by limit · `margins`: how much worse each metric may be and still be called not worse · `runs`: the facts of each of several runs.
    """

    comparison: Comparison | None = None
    flips: tuple[FlippedSample, ...] = ()
    gates: tuple[GateResult, ...] = ()
    margins: Mapping[str, float] = MappingProxyType({})
    runs: tuple[RunFacts, ...] = ()
