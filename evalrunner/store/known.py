"""What a resumed run knows of the rows it has: which keys are final, where the rows stand that are tried again, and how many there are of each outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from evalrunner.records import FINAL, STILL_TO_COME, Request, Score

DIGEST_BYTES = 15
"""They make an object of 48: a million keys take about 85 MB, and none of them meets another."""


class OpenRow(NamedTuple):
    """A row without an answer, in the part `file`."""

    outcome: str
    file: str


class KnownRows:
    """Grows with the rows of a resumed run (about 85 bytes a key), stays empty in a fresh one but for the outcomes."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.open: dict[bytes, OpenRow] = {}
        self.unscored: dict[bytes, OpenRow] = {}
        """Rows of earlier sessions that have their answer, and a score still to come."""
        self._unscored = 0
        self._final: set[bytes] = set()

    @property
    def final(self) -> int:
        return len(self._final) + len(self.unscored)

    def counts(self, planned: int) -> dict[str, Any]:
        """The manifest's `counts` for a plan of so many requests."""
        by_outcome = {outcome: number for outcome, number in sorted(self.outcomes.items()) if number}
        done = sum(by_outcome.values())
        counts = {"planned": planned, "done": done, "by_outcome": by_outcome, "missing": max(0, planned - done)}
        return counts | ({"unscored": self._unscored} if self._unscored else {})

    def scan(self, table: pa.Table, file: str) -> None:
        """Learn the rows of a part, of which `table` has the columns `key`, `outcome` and the reasons of the scores."""
        waiting = still_to_come(table)
        for key, outcome, unscored in zip(table["key"].to_pylist(), table["outcome"].to_pylist(), waiting, strict=True):
            if unscored:
                self.unscored[digest(key)] = OpenRow(outcome, file)
                self._unscored += 1
            elif outcome in FINAL:
                self._final.add(digest(key))
            else:
                self.open[digest(key)] = OpenRow(outcome, file)
            self.outcomes[outcome] += 1

    def digests(self) -> set[bytes]:
        """Of every known row."""
        return {*self._final, *self.open, *self.unscored}

    def is_final(self, key: str) -> bool:
        return digest(key) in self._final

    def has_answer(self, key: str) -> bool:
        """Whether it has a row with an answer, scored or not."""
        return digest(key) in self._final or digest(key) in self.unscored

    def without_answer(self, digests: Iterable[bytes]) -> int:
        """How many of them are of no final row."""
        return len(set(digests) - self._final - self.unscored.keys())

    def missing(self, requests: Iterator[Request]) -> Iterator[Request]:
        """Those that have no answer yet, in their order."""
        known = (self._final, self.unscored)
        return (request for request in requests if not any(digest(request.key) in one for one in known)) if any(known) else requests

    def add(self, key: str, outcome: str, *, unscored: bool = False) -> str | None:
        """Count a new row; returns the file of the old row it replaces, if there is one."""
        self.outcomes[outcome] += 1
        self._unscored += unscored
        if not (self.open or self.unscored):
            return None
        if digest(key) in self.unscored:
            self._final.add(digest(key))  # `missing` may not have come to it yet, and it has its answer
        return self.take(key)

    def take(self, key: str) -> str | None:
        """Forget the old row of `key`; returns its file."""
        old = self.open.pop(digest(key), None)
        if old is None:
            old = self.unscored.pop(digest(key), None)
            if old is None:
                return None
            self._unscored -= 1
        self.outcomes[old.outcome] -= 1
        return old.file

    def forget(self) -> None:
        """Keep only what `counts` needs: a run that is closed asks for no key any more, and its report wants the memory."""
        for keys in (self.open, self.unscored, self._final):
            keys.clear()


def is_open(score: Score) -> bool:
    """Whether it is still to come."""
    return score.value is None and score.why.startswith(STILL_TO_COME)


def still_to_come(table: pa.Table) -> list[bool]:
    """Which rows of `table` have a score that is still to come."""
    found = pa.array([False] * table.num_rows, pa.bool_())
    for name in table.column_names:
        if name.startswith("score_") and name.endswith("_why"):
            found = pc.or_(found, pc.fill_null(pc.starts_with(table[name], STILL_TO_COME), fill_value=False))
    return found.to_pylist()  # type: ignore[no-any-return]


def digest(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "replace"), digest_size=DIGEST_BYTES).digest()
