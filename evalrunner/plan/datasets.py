"""Data sets: rows -> Samples, chosen, named and hashed; kept in memory when they are few."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b, file_digest
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from evalrunner.errors import DatasetError
from evalrunner.plan.loaders import kind_of, unreadable
from evalrunner.plan.sandbox import nearest
from evalrunner.plugins import Loader
from evalrunner.records import Sample

KEPT_ROWS = 20_000
KEPT_BYTES = 64_000_000


class Rows(Protocol):
    """Where rows come from."""

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, row), anew on every call."""

    def hash(self) -> str:
        """Of the content."""

    def small(self) -> bool:
        """Whether they may stay in memory."""


class FileRows:
    """The rows of a file, by its loader. Notices when the file changes under a run."""

    def __init__(self, path: Path, loader: Loader) -> None:
        self._path, self._loader = path, loader
        self._stamp: tuple[int, int] | None = None

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self._check()
        for line, row in self._loader(self._path):
            yield f"{self._path}:{line}", row

    def hash(self) -> str:
        self._check()
        with self._path.open("rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()

    def small(self) -> bool:
        return self._check() <= KEPT_BYTES

    def _check(self) -> int:
        """The file's size; raises `DatasetError` when it cannot be read or is not what it was."""
        try:
            stat = self._path.stat()
        except OSError as error:
            raise unreadable(self._path, error) from None
        stamp = (stat.st_size, stat.st_mtime_ns)
        self._stamp = self._stamp or stamp
        if stamp != self._stamp:
            raise DatasetError(f"{self._path}:1: the file changed while it was in use")
        return stat.st_size


class InlineRows:
    """Rows written in the config itself; `places` says where each one is."""

    def __init__(self, rows: Sequence[dict[str, Any]], places: Sequence[str]) -> None:
        self._rows, self._places = rows, places

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return zip(self._places, self._rows, strict=True)

    def hash(self) -> str:
        return blake2b(msgspec.json.encode(self._rows, order="deterministic"), digest_size=16).hexdigest()

    def small(self) -> bool:
        return True


class Selection(Struct, frozen=True, kw_only=True):
    """Which rows of a data set, and which of their columns have a meaning of their own."""

    id: str | None = None
    tags: tuple[str, ...] = ()
    limit: int | None = None
    sample: int | None = None
    seed: int = 0


class Dataset:
    """The samples of one prompt set: read anew on every iteration, kept in memory when they are few. Not for rows that change while they are read."""

    def __init__(self, rows: Rows, selection: Selection) -> None:
        self._rows = rows
        self._choose = selection
        self._kept: list[Sample] | None = None
        self._count: int | None = None
        self._sampled: frozenset[int] | None = None

    @property
    def hash(self) -> str:
        """Of the file's bytes, or of the inline rows."""
        return self._rows.hash()

    def has_field(self, name: str) -> bool:
        """Whether any row of the file has it, chosen or not."""
        return any(name in row for _, row in self._rows.read())

    def __len__(self) -> int:
        """How many samples are chosen; counts the file's rows once."""
        if self._count is None:
            if self._choose.sample is not None:
                self._count = len(self._chosen())
            else:
                self._count = sum(1 for _ in islice(self._rows.read(), self._choose.limit))
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return self.samples()

    def samples(self, report: Callable[[str, str], None] | None = None) -> Iterator[Sample]:
        """The chosen samples in the file's order. A row's mistake goes to `report(place, what)`; without one it raises `DatasetError`."""
        if self._kept is not None:
            yield from self._kept
            return
        keeping: list[Sample] | None = [] if self._rows.small() else None
        count = 0
        for number, place, row in self._selected():
            try:
                sample = self._sample(number, place, row)
            except ValueError as error:
                if report is None:
                    raise DatasetError(f"{place}: {error}") from None
                report(place, str(error))
                continue
            count += 1
            if keeping is not None:
                keeping.append(sample)
                keeping = keeping if count <= KEPT_ROWS else None
            yield sample
        self._count = count
        self._kept = keeping

    def duplicates(self, seen: array[int]) -> Iterator[str]:
        """A line for every id that is there twice; `seen` holds `id_hash` of every sample. Reads the rows again only when there are any."""
        if self._choose.id is None:
            return
        ordered = sorted(seen)
        doubtful = {one for one, other in pairwise(ordered) if one == other}
        if not doubtful:
            return
        first: dict[str, str] = {}
        for sample in self:
            if id_hash(sample.id) in doubtful:
                if sample.id in first:
                    yield f"{sample.origin}: the id {sample.id!r} is there already, at {first[sample.id]}"
                first.setdefault(sample.id, sample.origin)

    def _selected(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        numbered = ((number, place, row) for number, (place, row) in enumerate(self._rows.read(), 1))
        if self._choose.sample is not None:
            chosen = self._chosen()
            return (item for item in numbered if item[0] in chosen)
        return islice(numbered, self._choose.limit)

    def _chosen(self) -> frozenset[int]:
        """Row numbers of the random choice. By hash of seed and number: the same in every file format, and a larger choice holds the smaller ones."""
        if self._sampled is None:
            total = sum(1 for _ in self._rows.read())
            seed = str(self._choose.seed).encode()
            numbers = heapq.nsmallest(
                self._choose.sample or 0, range(1, total + 1), key=lambda number: blake2b(b"%d" % number, key=seed[:64], digest_size=8).digest()
            )
            self._sampled = frozenset(numbers)
        return self._sampled

    def _sample(self, number: int, place: str, row: Any) -> Sample:
        if not isinstance(row, dict):
            raise ValueError(f"should be an object (column: value), not {kind_of(row)}")  # noqa: TRY004 - one kind of failure for whatever is wrong with a row
        tags = {tag: _as_text(value) for tag in self._choose.tags if (value := _column(row, tag, "tags")) is not None}
        content = msgspec.json.encode(row, order="deterministic")
        identity = str(number) if self._choose.id is None else _identity(_column(row, self._choose.id, "id"), self._choose.id)
        return Sample(id=identity, data=row, hash=blake2b(content, digest_size=16).hexdigest(), tags=tags, origin=place)


def id_hash(identity: str) -> int:
    """64 bits of an id: a million of them fit in 8 MB, where the ids themselves would not."""
    return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), "big")


def _identity(value: Any, column: str) -> str:
    if value is None or value == "" or isinstance(value, dict | list):
        raise ValueError(f"the id ({column}) is {'empty' if value in (None, '') else kind_of(value)}")
    return _as_text(value)


def _some(row: Mapping[str, Any]) -> str:
    """The first columns: they show at once that another delimiter, or another file, was meant."""
    text = ", ".join(map(repr, row))
    return text if len(text) <= 80 else f"{text[:79]}…"


def _column(row: Mapping[str, Any], name: str, key: str) -> Any:
    if name not in row:
        raise ValueError(f"no column is called {name!r}, which `{key}` names{nearest(name, row) or f' (hint: it has {_some(row)})'}")
    return row[name]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()
