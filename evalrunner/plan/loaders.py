"""Data files -> rows: one loader per format. Each streams where the format allows and says `file:line: what` for every mistake, up to 20 at once."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from evalrunner.errors import ConfigError, DatasetError
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.yaml_source import read_yaml

MAX_PROBLEMS = 20
MAX_COLUMNS = 10_000
MAX_CELL = 64_000_000

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
        raise unreadable(path, error) from None
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
        raise DatasetError(f"{path}:1: should be a list of mappings, not {kind_of(source.value)}")
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
        raise unreadable(path, error) from None


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


def _is_row(row: Any, line: int, problems: Problems) -> bool:
    if not isinstance(row, dict):
        problems.add(line, f"should be an object (column: value), not {kind_of(row)}")
    elif not row:
        problems.add(line, "the object is empty")
    elif len(row) > MAX_COLUMNS:
        problems.add(line, f"{len(row):,} columns; at most {MAX_COLUMNS:,} are read")
    else:
        return True
    return False


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    return {"list": "a list", "dict": "an object", "str": "text", "NoneType": "null", "bool": "a boolean"}.get(type(value).__name__, "a number")


def _decode_error(error: Exception) -> str:
    text = str(error).removeprefix("JSON is malformed: ")
    return re.sub(r"\(byte (\d+)\)", lambda found: f"(column {int(found[1]) + 1})", text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def unreadable(path: Path, error: OSError) -> DatasetError:
    """A file that is not there, or not for us; with the name that was probably meant."""
    hint = ""
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        hint = nearest(path.name, (other.name for other in path.parent.iterdir()))
    return DatasetError(f"{path}: cannot be read: {error.strerror or error}{hint}")
