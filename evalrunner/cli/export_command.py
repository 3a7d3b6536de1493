"""`evalrunner export`: a run's results as CSV that a spreadsheet may open, or as JSON Lines."""

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from evalrunner.plain import escaped
from evalrunner.store.files import told, whole_file
from evalrunner.store.run_dir import read_results

FORMULA = re.compile(r"[\s\u200b-\u200f\u2060\ufeff]*[=+\-@\t\r＝＋－＠]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--csv", type=Path, metavar="FILE", help="comma-separated (- is stdout), texts that a spreadsheet would take for formulas quoted with '")
    form.add_argument("--jsonl", type=Path, metavar="FILE", help="one JSON object per line (- is stdout), values as stored")
    parser.add_argument("--raw", action="store_true", help="CSV without the quoting of formulas")


def main(args: argparse.Namespace) -> int:
    table, target = read_results(args.run), args.jsonl or args.csv
    if str(target) == "-":
        with told(Path("stdout")):
            _write(table, sys.stdout, args)
            sys.stdout.flush()
        return 0
    with whole_file(target) as hidden, hidden.open("w", encoding="utf-8-sig" if args.csv else "utf-8", newline="") as out:  # spreadsheets want a BOM
        _write(table, out, args)
    print(target)
    return 0


def _write(table: pa.Table, out: TextIO, args: argparse.Namespace) -> None:
    if args.jsonl:
        out.writelines(escaped(json.dumps(row, ensure_ascii=False, default=str)) + "\n" for row in _rows(table))
        return
    writer = csv.writer(out)
    writer.writerow(table.column_names)
    writer.writerows([cell(value, raw=args.raw) for value in row.values()] for row in _rows(table))


def cell(value: Any, *, raw: bool = False) -> Any:
    """A value as a CSV cell: numbers as they are, null as nothing, and a text that could be read as a formula with a leading `'`."""
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else value
    text = json.dumps(dict(value), ensure_ascii=False) if isinstance(value, list) else str(value)
    return text if raw or not FORMULA.match(text) else f"'{text}"


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()
