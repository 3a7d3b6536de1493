"""What a resumed run knows of the rows it has: which keys are final, where the rows stand that are tried again, and how many there are of each outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import pyarrow as pa

from evalrunner.records import FINAL, Request

DIGEST_BYTES = 15
"""They make an object of 48: a million keys take about 85 MB, and none of them meets another."""


class OpenRow(NamedTuple):
    """A row without an answer, in the part `file`."""

    outcome: str
    file: str


class KnownRows:
    """Grows with the rows of a resumed run (about 85 bytes a key), stays empty in a fresh one but for the outcomes."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.open: dict[bytes, OpenRow] = {}
        self._final: set[bytes] = set()

    @property
    def final(self) -> int:
        return len(self._final)

    def counts(self, planned: int) -> dict[str, Any]:
        """The manifest's `counts` for a plan of so many requests."""
        by_outcome = {outcome: number for outcome, number in sorted(self.outcomes.items()) if number}
        done = sum(by_outcome.values())
        return {"planned": planned, "done": done, "by_outcome": by_outcome, "missing": max(0, planned - done)}

    def scan(self, table: pa.Table, file: str) -> None:
        """Learn the rows of a part, of which `table` has the columns `key` and `outcome`."""
        for key, outcome in zip(table["key"].to_pylist(), table["outcome"].to_pylist(), strict=True):
            if outcome in FINAL:
                self._final.add(digest(key))
            else:
                self.open[digest(key)] = OpenRow(outcome, file)
            self.outcomes[outcome] += 1

    def is_final(self, key: str) -> bool:
        return digest(key) in self._final

    def without_answer(self, digests: Iterable[bytes]) -> int:
        """How many of them have no answer yet."""
        return len(set(digests) - self._final)

    def missing(self, requests: Iterator[Request]) -> Iterator[Request]:
        """Those that have no answer yet, in their order."""
        return (request for request in requests if digest(request.key) not in self._final) if self._final else requests

    def add(self, key: str, outcome: str) -> str | None:
        """Count a new row; returns the file of the old row it replaces, if there is one."""
        self.outcomes[outcome] += 1
        return self.take(key) if self.open else None

    def take(self, key: str) -> str | None:
        """Forget the old row of `key`; returns its file."""
        old = self.open.pop(digest(key), None)
        if old is None:
            return None
        self.outcomes[old.outcome] -= 1
        return old.file


def digest(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "replace"), digest_size=DIGEST_BYTES).digest()
