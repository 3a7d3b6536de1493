"""Where a cell loses: its paired difference from the best cell of its prompt set, tag value by tag value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from evalrunner.analysis.cells import Scored, cells_by_set, mean_requests, sample_table
from evalrunner.analysis.paired import score_difference
from evalrunner.analysis.rows import Factor, Floats, Ints, Rows
from evalrunner.analysis.tables import Slice, SliceGap


class _Table(NamedTuple):
    """The scores of one scorer in one prompt set: a row for each cell of `members`, a column for each of `samples`."""

    members: list[int]
    scores: Floats
    samples: Ints
    trials: Floats


def with_gaps(rows: Rows, tags: Mapping[str, Factor], scored: Mapping[str, Scored], slices: Sequence[Slice]) -> list[Slice]:
    """The same slices, each with its difference from the best."""
    wanted = {(one.tag, one.value, one.cell) for one in slices}
    found: dict[tuple[str, str, int], dict[str, SliceGap]] = {}
    for members in cells_by_set(rows).values() if slices else ():
        for scorer, one in scored.items():
            for place, gap in _gaps(rows, tags, _table(rows, one, members)):
                if place in wanted:
                    found.setdefault(place, {})[scorer] = gap
    return [replace(one, gaps=found.get((one.tag, one.value, one.cell), {})) for one in slices]


def _table(rows: Rows, scored: Scored, members: list[int]) -> _Table:
    here = np.isin(rows.cell[rows.first], members) & (scored.requests > 0)
    return _Table(members, sample_table(rows, scored, members), np.unique(rows.sample[rows.first][here]), mean_requests(rows, scored, members))


def _gaps(rows: Rows, tags: Mapping[str, Factor], table: _Table) -> Iterator[tuple[tuple[str, str, int], SliceGap]]:
    have = ~np.isnan(table.scores)
    n = have.sum(axis=1)
    means = np.where(n > 0, np.nansum(table.scores, axis=1) / np.maximum(n, 1), -np.inf)
    best = int(np.argmax(means))
    for tag, (codes, values) in tags.items():
        code = _by_sample(rows, codes, table)
        for at, value in enumerate(values):
            inside = (code == at) & have[best]
            for row, cell in enumerate(table.members):
                both = inside & have[row]
                if row != best and both.any():
                    d = score_difference(table.scores[best][both], table.scores[row][both], float(min(table.trials[best], table.trials[row])))
                    yield (tag, value, cell), SliceGap(against=table.members[best], n=d.n, difference=d.value, low=d.low, high=d.high)


def _by_sample(rows: Rows, codes: Ints, table: _Table) -> Ints:
    """The tag's code of each sample of the table; every cell has the same."""
    sample = rows.sample[rows.first]
    mine = np.isin(rows.cell[rows.first], table.members) & np.isin(sample, table.samples)
    found = np.full(len(table.samples), -1)
    found[np.searchsorted(table.samples, sample[mine])] = codes[mine]
    return found
