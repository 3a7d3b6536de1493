"""A loader of plain text: each line that is not blank is a row with one column, `line`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def load_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, {"line": line.strip()}
