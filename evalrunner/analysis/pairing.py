"""Which cells of two runs belong together, and which of their samples: the same prompt set and sample id with an equal hash of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from evalrunner.analysis.rows import Ints, Rows, as_table, columns_needed
from evalrunner.analysis.rules import CellKey, as_text, choices, matches, unserved
from evalrunner.errors import ConfigError, DatasetError

EXAMPLES = 5


class Side(NamedTuple):
    """One side of a comparison: `name` for messages, its rows and plan, and which cells of it (`{"prompt": "plain", "temperature": "0.7"}`)."""

    name: str
    results: pa.Table | pd.DataFrame
    plan: Mapping[str, Any]
    where: Mapping[str, str]

    def unserved(self, rows: Rows) -> list[CellKey]:
        """The chosen cells of the plan that have no row."""
        return [key for key, _ in unserved(self.plan, rows.cells, self.where)]


class Matched(NamedTuple):
    """The samples of two paired cells. `baseline`, `candidate`: units (places in `Rows.first`) of the samples both have, in the order of their ids.

    `only_baseline`, `only_candidate`: samples the other side does not have · `changed`: ids of samples whose data differ.
    """

    ids: list[str]
    baseline: Ints
    candidate: Ints
    only_baseline: int
    only_candidate: int
    changed: list[str]


def open_side(side: Side) -> tuple[Rows, list[int]]:
    """The rows of a side and its chosen cells. Raises `ConfigError` where neither rows nor plan have one."""
    columns = side.results.column_names if isinstance(side.results, pa.Table) else list(side.results.columns)
    rows = Rows(as_table(side.results, columns_needed(columns)), side.plan)
    chosen = [at for at, key in enumerate(rows.cells) if matches(key, side.where)]
    if not chosen and not side.unserved(rows):
        asked = ", ".join(f"{name}={value}" for name, value in side.where.items())
        raise ConfigError(
            f"{side.name}: no cell has {asked} (hint: {choices(rows.cells, side.where)})" if asked else f"{side.name}: there are no rows to compare"
        )
    return rows, chosen


def pair_cells(
    sides: tuple[Side, Side],
    cells: tuple[list[CellKey], list[CellKey]],
    renames: Mapping[str, str],
    *,
    waiting: tuple[list[CellKey], list[CellKey]] = ([], []),
    alike: Sequence[str] = (),
) -> list[tuple[int, int]]:
    """Pairs (place in the first list, place in the second): equal but for what either `where` fixes, after renaming the baseline's names.

    One cell against one cell is a pair whatever they are called, if they are equal in what `alike` names. A cell whose partner has no row yet (`waiting`)
    has no pair. Raises `ConfigError` for other cells without a partner, or with several.
    """
    free = {*sides[0].where, *sides[1].where}
    if len(cells[0]) == len(cells[1]) == 1 and not any(waiting):
        first, second = dict(_identity(cells[0][0], free, renames)), dict(_identity(cells[1][0], free, {}))
        if all(first.get(name) == second.get(name) for name in alike):
            return [(0, 0)]
    mine, theirs = [_identity(key, free, renames) for key in cells[0]], [_identity(key, free, {}) for key in cells[1]]
    here, there = {*mine, *(_identity(key, free, renames) for key in waiting[0])}, {*theirs, *(_identity(key, free, {}) for key in waiting[1])}
    problems = [f"{side.name}: several cells are alike but for {', '.join(sorted(free)) or 'nothing'}: {_words(one)}; choose one with [name=value]"
                for side, ones in zip(sides, (mine, theirs), strict=True) for one in dict.fromkeys(ones) if ones.count(one) > 1]  # fmt: skip
    problems += [f"{sides[0].name}: {_words(one)} has no partner in {sides[1].name} (--map old=new names it)" for one in mine if one not in there]
    problems += [f"{sides[1].name}: {_words(one)} has no partner in {sides[0].name} (--map old=new names it)" for one in theirs if one not in here]
    if problems:
        raise ConfigError(*problems)
    return [(at, theirs.index(one)) for at, one in enumerate(mine) if one in theirs]


def _identity(key: CellKey, free: set[str], renames: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What must be equal. The provider is not part of it: a model's name is unique in its run."""
    named = {name: renames.get(getattr(key, name), getattr(key, name)) for name in ("prompt_set", "prompt", "model")}
    values = {**named, "stream": as_text(key.stream), **{name: as_text(value) for name, value in key.values().items()}}
    return tuple((name, value) for name, value in values.items() if name not in free)


def _words(identity: tuple[tuple[str, str], ...]) -> str:
    return " · ".join(f"{name}={value}" for name, value in identity)


def match_samples(baseline: Rows, candidate: Rows, pair: tuple[int, int]) -> Matched:
    """The samples of one pair of cells, by id and hash."""
    (ids, hashes, units), (other_ids, other_hashes, other_units) = _samples(baseline, pair[0]), _samples(candidate, pair[1])
    common, mine, theirs = np.intersect1d(ids, other_ids, assume_unique=True, return_indices=True)
    equal = hashes[mine] == other_hashes[theirs]
    return Matched(
        ids=common[equal].tolist(),
        baseline=units[mine][equal],
        candidate=other_units[theirs][equal],
        only_baseline=len(ids) - len(common),
        only_candidate=len(other_ids) - len(common),
        changed=common[~equal].tolist(),
    )


def _samples(rows: Rows, cell: int) -> tuple[Any, Any, Ints]:
    units = np.flatnonzero(rows.cell[rows.first] == cell)
    at = rows.first[units]
    ids, hashes = rows.factor("sample_id"), rows.factor("sample_hash")
    return np.array(ids.names, dtype=object)[ids.codes[at]], np.array([*hashes.names, ""], dtype=object)[hashes.codes[at]], units


def refuse_changed(found: list[tuple[CellKey, Matched]], names: tuple[str, str]) -> None:
    """Raises `DatasetError` where samples of one id have different data, saying which."""
    problems = {}
    for key, matched in found:
        if matched.changed:
            some = ", ".join(matched.changed[:EXAMPLES]) + (", …" if len(matched.changed) > EXAMPLES else "")
            problems[key.prompt_set] = f"{key.prompt_set}: {len(matched.changed)} samples have other data in {names[1]} than in {names[0]}: {some}"
    if problems:
        *first, last = problems.values()
        raise DatasetError(*first, f"{last} (hint: --allow-changed-data leaves them out; `evalrunner rescore` gives an older run corrected targets)")
