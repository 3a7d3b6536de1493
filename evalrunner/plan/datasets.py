"""Data files -> rows -> Samples. Loaders stream where the format allows and say `file:line: what` for every mistake, up to 20 at once."""

from __future__ import annotations

import csv
import heapq
import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b, file_digest
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from evalrunner.errors import ConfigError, DatasetError
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.yaml_source import read_yaml
from evalrunner.plugins import Loader
from evalrunner.records import Sample

MAX_PROBLEMS = 20
MAX_COLUMNS = 10_000
MAX_CELL = 64_000_000
KEPT_ROWS = 20_000
KEPT_BYTES = 64_000_000

Row = tuple[int, dict[str, Any]]
_JSON = msgspec.json.Decoder()


class Problems:
    """Collects the mistakes of one file; raises `DatasetError` with all of them at the end, or at the twentieth."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []

    def add(self, line: int, what: str) -> None:
        self.lines.append(f"{self.name}:{line}: {what}")
        if len(self.lines) >= MAX_PROBLEMS:
            raise DatasetError(*self.lines, f"{self.name}: the check stops after {MAX_PROBLEMS} mistakes")

    def finish(self, rows: int) -> None:
        if self.lines:
            raise DatasetError(*self.lines)
        if not rows:
            raise DatasetError(f"{self.name}:1: the file has no rows")


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
        return self._path.stat().st_size <= KEPT_BYTES

    def _check(self) -> None:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise _unreadable(self._path, error) from None
        stamp = (stat.st_size, stat.st_mtime_ns)
        self._stamp = self._stamp or stamp
        if stamp != self._stamp:
            raise DatasetError(f"{self._path}:1: the file changed while it was in use")


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


def load_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object per line; blank lines are skipped."""
    problems, rows = Problems(str(path)), 0
    for number, line in _lines(path, problems):
        if line.isspace():
            continue
        rows += 1
        try:
            row = _JSON.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            problems.add(number, f"not JSON: {_decode_error(error)}")
            continue
        if _is_row(row, number, problems):
            yield number, row
    problems.finish(rows)


def load_json(path: Path) -> Iterator[Row]:
    """A JSON list of objects."""
    problems = Problems(str(path))
    text = "".join(line for _, line in _lines(path, problems))
    if problems.lines:
        problems.finish(0)
    found, rows = _Elements(text, problems), 0
    for number, row in found:
        rows += 1
        if _is_row(row, number, problems):
            yield number, row
    problems.finish(rows)


def load_csv(path: Path) -> Iterator[Row]:
    """Comma-separated, first line names the columns; every value stays text."""
    return _table(path, ",")


def load_tsv(path: Path) -> Iterator[Row]:
    """Tab-separated, first line names the columns; every value stays text."""
    return _table(path, "\t")


def load_parquet(path: Path) -> Iterator[Row]:
    """Row by row in batches; times become ISO text, decimals text, bytes base64. Numbers count rows, from 1."""
    import pyarrow as pa  # noqa: PLC0415 - a fifth of a second that other formats need not pay
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, msgspec.to_builtins(row)
    except OSError as error:
        raise _unreadable(path, error) from None
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DatasetError(f"{path}:{number + 1}: not readable as Parquet: {str(error).splitlines()[0]}") from None
    if not number:
        raise DatasetError(f"{path}:1: the file has no rows")


def load_yaml(path: Path) -> Iterator[Row]:
    """A YAML list of mappings."""
    problems, rows = Problems(str(path)), 0
    try:
        source = read_yaml(path)
    except ConfigError as error:
        raise DatasetError(*error.problems) from None
    if source.problems:
        raise DatasetError(*source.problems[:MAX_PROBLEMS])
    if source.value is not None and not isinstance(source.value, list):
        raise DatasetError(f"{path}:1: should be a list of mappings, not {_kind(source.value)}")
    for number, row in source.rows():
        rows += 1
        if _is_row(row, number, problems):
            yield number, row
    problems.finish(rows)


def _table(path: Path, delimiter: str) -> Iterator[Row]:
    problems, rows = Problems(str(path)), 0
    csv.field_size_limit(MAX_CELL)  # the module's own 128 KB is less than a long document
    reader = csv.reader((line for _, line in _lines(path, problems)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.add(start, f"not {'TSV' if delimiter == chr(9) else 'CSV'}: {error}")
            break
        if cells is None:
            break
        if header is None:
            header = _check_columns([cell.strip() for cell in cells], str(path))
        elif cells:
            rows += 1
            if len(cells) == len(header):
                yield start, dict(zip(header, cells, strict=True))
            else:
                problems.add(start, f"{len(cells)} values for {len(header)} columns (hint: quote a value that holds {delimiter!r})")
        start = reader.line_num + 1
    problems.finish(rows)


def _check_columns(names: list[str], file: str) -> list[str]:
    if len(names) > MAX_COLUMNS:
        raise DatasetError(f"{file}:1: {len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        if not name or name in seen:
            raise DatasetError(f"{file}:1: column {number} " + (f"has the name {name!r} again" if name else "has no name"))
        seen.add(name)
    return names


def _lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """The file's lines as text, with numbers from 1. A line that is not UTF-8 is a problem of its own."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    if line[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                        raise DatasetError(f"{path}:1: this is UTF-16; save the file as UTF-8")
                    line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901 - the mark belongs to the file, not to the line
                try:
                    yield number, line.decode()
                except UnicodeDecodeError as error:
                    problems.add(number, f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}")
    except OSError as error:
        raise _unreadable(path, error) from None


class _Elements:
    """The elements of a JSON list, each with the line it begins on."""

    def __init__(self, text: str, problems: Problems) -> None:
        self.text, self.problems = text, problems
        self.decoder = json.JSONDecoder(parse_constant=_no_constant)
        self.at, self.line, self.counted = 0, 1, 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        try:
            yield from self._elements()
        except json.JSONDecodeError as error:
            self.problems.add(error.lineno, f"not JSON: {error.msg} (column {error.colno})")
        except (ValueError, RecursionError) as error:
            self.problems.add(self._here(), f"not JSON: {error}")

    def _elements(self) -> Iterator[tuple[int, Any]]:
        if not (opening := self._next()):
            return
        if opening != "[":
            self.problems.add(self._here(), "should be a JSON list of objects (hint: a file with one object per line is called .jsonl)")
            return
        self.at += 1
        if self._next() == "]":
            return
        while True:
            self._next()
            line = self._here()
            value, self.at = self.decoder.raw_decode(self.text, self.at)
            yield line, value
            if (after := self._next()) == "]":
                break
            if after != ",":
                raise json.JSONDecodeError("expected ',' or ']'", self.text, self.at)
            self.at += 1
        self.at += 1
        if self._next():
            raise json.JSONDecodeError("text after the end of the list", self.text, self.at)

    def _next(self) -> str:
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _here(self) -> int:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line


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
            raise ValueError(f"should be an object (column: value), not {_kind(row)}")  # noqa: TRY004 - one kind of failure for whatever is wrong with a row
        tags = {tag: _as_text(value) for tag in self._choose.tags if (value := _column(row, tag, "tags")) is not None}
        content = msgspec.json.encode(row, order="deterministic")
        identity = str(number) if self._choose.id is None else _identity(_column(row, self._choose.id, "id"), self._choose.id)
        return Sample(id=identity, data=row, hash=blake2b(content, digest_size=16).hexdigest(), tags=tags, origin=place)


def id_hash(identity: str) -> int:
    """64 bits of an id: a million of them fit in 8 MB, where the ids themselves would not."""
    return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), "big")


def _identity(value: Any, column: str) -> str:
    if value is None or value == "" or isinstance(value, dict | list):
        raise ValueError(f"the id ({column}) is {'empty' if value in (None, '') else 'a ' + _kind(value)}")
    return _as_text(value)


def _column(row: Mapping[str, Any], name: str, key: str) -> Any:
    if name not in row:
        raise ValueError(f"no column is called {name!r}, which `{key}` names{nearest(name, row)}")
    return row[name]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()


def _is_row(row: Any, line: int, problems: Problems) -> bool:
    if not isinstance(row, dict):
        problems.add(line, f"should be an object (column: value), not {_kind(row)}")
    elif not row:
        problems.add(line, "the object is empty")
    elif len(row) > MAX_COLUMNS:
        problems.add(line, f"{len(row):,} columns; at most {MAX_COLUMNS:,} are read")
    else:
        return True
    return False


def _kind(value: Any) -> str:
    return {"list": "a list", "dict": "an object", "str": "text", "NoneType": "null", "bool": "a boolean"}.get(type(value).__name__, "a number")


def _decode_error(error: Exception) -> str:
    text = str(error).removeprefix("JSON is malformed: ")
    return re.sub(r"\(byte (\d+)\)", lambda found: f"(column {int(found[1]) + 1})", text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unreadable(path: Path, error: OSError) -> DatasetError:
    hint = ""
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        hint = nearest(path.name, (other.name for other in path.parent.iterdir()))
    return DatasetError(f"{path}: cannot be read: {error.strerror or error}{hint}")
