"""Several runs of the same samples as one: their rows together, and the run as one more parameter where two of them have the same cell. Sends nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from evalrunner.analysis.rows import Rows, as_table, columns_needed, names_of
from evalrunner.analysis.scorings import changed, scorings_of
from evalrunner.analysis.summary import run_facts
from evalrunner.analysis.tables import RunFacts
from evalrunner.decisions import Chosen
from evalrunner.errors import DatasetError
from evalrunner.store.run_dir import read_judgements, rows_of

RUN = "run"
"""The parameter that tells the runs apart."""


class Together(NamedTuple):
    """The rows and the manifest of a run that would have done what all of them did; `runs` are the facts of each."""

    manifest: dict[str, Any]
    results: pads.Dataset
    attempts: pads.Dataset
    judgements: pa.Table
    runs: tuple[RunFacts, ...]


@contextmanager
def together(runs: Sequence[Chosen]) -> Iterator[Together]:
    """The rows are copied to a temporary folder batch by batch, so that runs of any size are read like one. Raises `DatasetError` for unlike data."""
    _refuse_unlike(runs)
    labels = _labels(runs)
    alike = _alike(runs)
    with TemporaryDirectory(prefix="evalrunner-") as folder:
        results, attempts = (_copied(Path(folder), name, dict(zip(labels, runs, strict=True)), told=alike) for name in ("results", "attempts"))
        judgements = pa.concat_tables([_keyed(label, read_judgements(run.path)) for label, run in zip(labels, runs, strict=True)], promote_options="default")
        facts = tuple(run_facts(run.manifest) for run in runs)
        yield Together(_manifest(runs, labels if alike else []), results, attempts, judgements, facts)


def _refuse_unlike(runs: Sequence[Chosen]) -> None:
    first, *others = runs
    sets, problems = _sets(first), []
    for other in others:
        theirs = _sets(other)
        unlike = [name for name in dict.fromkeys([*sets, *theirs]) if sets.get(name) != theirs.get(name)]
        problems += [f"{other.name}: prompt set {name} has other samples than in {first.name}, or one of them has none" for name in unlike]
        if first.manifest["plan"].get("trials") != other.manifest["plan"].get("trials"):
            problems.append(f"{other.name}: has other trials than {first.name}")
        for name in sets:
            how = changed(scorings_of(first.plan, name), scorings_of(other.plan, name))
            problems += [f"{other.name}: {name}: {score} was computed differently than in {first.name} ({what})" for score, what in how.items()]
    if problems:
        raise DatasetError(*problems, "(hint: one report holds runs over the same data; `evalrunner compare` pairs what runs have in common)")


def _sets(run: Chosen) -> dict[str, tuple[Any, Any]]:
    return {one["name"]: (one.get("data_hash"), one.get("samples")) for one in run.manifest["plan"].get("prompt_sets", [])}


def _labels(runs: Sequence[Chosen]) -> list[str]:
    """The shortest names that tell them apart: of the config, of the directory, of the run; else numbers."""
    choices = [
        [str(run.manifest.get("name")) for run in runs],
        [run.path.resolve().name for run in runs],
        [str(run.manifest.get("run_id")) for run in runs],
    ]
    return next((names for names in choices if len(set(names)) == len(runs)), [str(number) for number in range(1, len(runs) + 1)])


def _alike(runs: Sequence[Chosen]) -> bool:
    """Whether two runs have the same cell, or give one name to two prompts."""
    cells: set[Any] = set()
    prompts: dict[tuple[str, str], Any] = {}
    for run in runs:
        plan, rows = run.manifest["plan"], rows_of(run.path, "results")
        mine = set(Rows(as_table(rows, columns_needed(names_of(rows))), plan).cells)
        written = {(one["name"], name): text for one in plan.get("prompt_sets", []) for name, text in one.get("prompts", {}).items()}
        if cells & mine or any(prompts.get(name, text) != text for name, text in written.items()):
            return True
        cells |= mine
        prompts |= written
    return False


def _copied(folder: Path, table: str, runs: Mapping[str, Chosen], *, told: bool) -> pads.Dataset:
    files = []
    for number, (label, run) in enumerate(runs.items()):
        rows = rows_of(run.path, table)
        source = rows if isinstance(rows, pads.Dataset) else pads.dataset(rows)
        names = [name for name in source.schema.names if not name.startswith("param_")]  # `params` has them all, whatever their types
        files.append(folder / f"{table}-{number:05d}.parquet")
        with pq.ParquetWriter(files[-1], pa.schema([source.schema.field(name) for name in names])) as writer:
            for batch in source.to_batches(columns=names, use_threads=False, batch_readahead=1, fragment_readahead=1):
                copied = _keyed(label, pa.Table.from_batches([batch]))
                writer.write_table(_told(label, copied) if told and "params" in names else copied)
    return pads.dataset([str(file) for file in files], schema=pa.unify_schemas([pq.read_schema(file) for file in files]), format="parquet")


def _keyed(label: str, rows: pa.Table) -> pa.Table:
    """With keys that no other run has."""
    return _replaced(rows, "key", pc.binary_join_element_wise(label, rows["key"], ":"))


def _told(label: str, rows: pa.Table) -> pa.Table:
    """With the run among the parameters."""
    texts = rows["params"].to_pylist()
    known = {text: json.dumps({**json.loads(text or "{}"), RUN: label}, sort_keys=True) for text in set(texts)}
    return _replaced(rows, "params", pa.chunked_array([pa.array([known[text] for text in texts], pa.string())]))


def _replaced(rows: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), column)


def _manifest(runs: Sequence[Chosen], labels: Sequence[str]) -> dict[str, Any]:
    manifests = [run.manifest for run in runs]
    plans = [manifest["plan"] for manifest in manifests]
    grid = {name: _union(plan.get("grid", {}).get(name, []) for plan in plans) for plan in plans for name in plan.get("grid", {})}
    sets = {one["name"]: {**one, "prompts": {}} for one in plans[0].get("prompt_sets", [])}
    for plan in plans:
        for one in plan.get("prompt_sets", []):
            sets[one["name"]]["prompts"] = {**one.get("prompts", {}), **sets[one["name"]]["prompts"]}
    plan = {
        **plans[0],
        **{kind: _by_name(one for plan in plans for one in plan.get(kind, [])) for kind in ("models", "scorers", "providers")},
        "size": sum(plan.get("size") or 0 for plan in plans),
        "grid": {**grid, **({RUN: list(labels)} if labels else {})},
        "stream": _union(plan.get("stream", []) for plan in plans),
        "prompt_sets": list(sets.values()),
        "gate": [],
    }
    return {
        "name": " · ".join(_union([str(manifest.get("name"))] for manifest in manifests)),
        "run_id": " · ".join(str(manifest.get("run_id")) for manifest in manifests),
        "state": next((manifest["state"] for manifest in manifests if manifest.get("state") != "complete"), "complete"),
        "evalrunner": manifests[0].get("evalrunner"),
        "counts": {"planned": plan["size"]},
        "plan": plan,
    }


def _by_name(ones: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each name as it came first."""
    found: dict[str, dict[str, Any]] = {}
    for one in ones:
        found.setdefault(one["name"], one)
    return list(found.values())


def _union(lists: Iterable[Sequence[Any]]) -> list[Any]:
    """Every value once, in order; values need not be hashable."""
    return list({json.dumps(value, sort_keys=True): value for values in lists for value in values}.values())
