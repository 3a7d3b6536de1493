"""Which parts belong to a run, and how that changes in one step.

A commit writes the new parts under hidden names, then the manifest that names them, then settles: unlinks what the manifest dropped, gives the parts their
names, unlinks the journal segments they replace. The manifest decides: a crash before it leaves hidden files without meaning, a crash after it leaves work
that `settle` finishes. Whoever only lists `results/` never sees a key twice: replaced rows go before their successors come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from evalrunner.store import parts
from evalrunner.store.files import Files
from evalrunner.store.journal import segments
from evalrunner.store.manifest import Manifest, Part, save
from evalrunner.store.redact import Redactor

_MERGED_BYTES = 64 << 20
_SUMS = "are lost (the results still have their sums)"
_LOST = {"results": "are asked again", "attempts": _SUMS, "judgements": _SUMS, "superseded": "are lost (no request of the plan is among them)"}


class Ledger:
    """The manifest and the files it names. Blocking; one thread at a time."""

    def __init__(self, run: Path, manifest: Manifest, files: Files, redactor: Redactor) -> None:
        self.run = run
        self.manifest = manifest
        self._files = files
        self._redactor = redactor
        self._schemas = parts.schemas(manifest.columns)

    @property
    def _tables(self) -> list[str]:
        """Those the run has a directory of."""
        return [name for name in parts.TABLES if name in parts.EVERY_RUN or (self.run / name).is_dir()]

    def commit(self, tables: Mapping[str, pa.Table], superseded: Mapping[str, Sequence[str]], **changes: Any) -> str:
        """Add one part to each table, and change fields of the manifest with it; `superseded` are keys whose old row is in that file.

        Returns the part of `results`.
        """
        fresh: dict[str, Iterable[pa.Table]] = {}
        dropped = []
        for file, keys in superseded.items():
            rest = parts.without(parts.read(self.run / file), keys)
            if rest.num_rows:
                fresh[file] = [rest]
            else:
                dropped.append(file)
        number = self.manifest.next_part
        for name in (name for name, table in tables.items() if table.num_rows and name not in self._tables):
            self._files.make_directory(self.run / name)
        fresh |= {f"{name}/part-{number:05}.parquet": [table] for name, table in tables.items() if table.num_rows or name in parts.EVERY_RUN}
        # parts without a row (a run's first, for readers that come early) give their place to the next
        following = number + 1 if any(table.num_rows for table in tables.values()) else number
        self._publish(fresh, dropped, next_part=following, **changes)
        return f"results/part-{number:05}.parquet"

    def merge(self, rows: int, limit: int) -> None:
        """Make one part of those with fewer than `rows`, up to `limit` rows and 64 MB together, so that it fits into memory."""
        for table in self._tables:
            group: list[Part] = []
            held = 0
            for part in [part for part in self.manifest.parts if part.table == table and part.rows < rows]:
                size = (self.run / part.file).stat().st_size
                if sum(other.rows for other in group) + part.rows > limit or held + size > _MERGED_BYTES:
                    self._merge(group, rows)
                    group, held = [], 0
                group.append(part)
                held += size
            self._merge(group, rows)

    def rewrite(self, fresh: Mapping[str, Iterable[pa.Table]], **changes: Any) -> None:
        """Give parts new content and change fields of the manifest, all in one step."""
        self._publish(fresh, [], **changes)

    def sort_out(self, moves: Mapping[str, Callable[[str], bool]]) -> tuple[int, int]:
        """Move rows between `results` and `superseded`, all in one step; returns how many went and came. `moves`: table -> whether a key leaves it, asked once
        for each row.
        """
        fresh: dict[str, Iterable[pa.Table]] = {}
        moved = dict.fromkeys(moves, 0)
        number = self.manifest.next_part
        for part in self.manifest.parts:
            if part.table not in moves:
                continue
            path, leaves = self.run / part.file, moves[part.table]
            going = pa.array([leaves(key) for key in parts.read(path, ["key"])["key"].to_pylist()], pa.bool_())
            if count_going := sum(going.to_pylist()):
                fresh[part.file] = _chosen(path, pc.invert(going))
                fresh[f"{'superseded' if part.table == 'results' else 'results'}/part-{number:05}.parquet"] = _chosen(path, going)
                moved[part.table] += count_going
                number += 1
        if fresh:
            self._files.make_directory(self.run / "superseded")
            self._publish(fresh, [], next_part=number)
        return moved["results"], moved["superseded"]

    def update(self, **changes: Any) -> None:
        """Change fields of the manifest, in memory only once they are on the disk."""
        manifest = msgspec.structs.replace(self.manifest, **changes)
        save(self.run, manifest, self._files, self._redactor)
        self.manifest = manifest

    def settle(self) -> None:
        """Make the directories what the manifest says; finishes a commit that was cut short."""
        for file in self.manifest.dropped:
            self._files.unlink(self.run / file)
        hidden = {path for table in self._tables for path in (self.run / table).glob(".part-*.new")}
        for part in self.manifest.parts:
            path = hidden_path(self.run / part.file)
            if path in hidden and checksum(path) == part.sha256:
                self._files.rename(path, self.run / part.file)
                hidden.remove(path)
        for path in hidden:
            self._files.unlink(path)
        for table in self._tables:
            self._files.sync_directory(self.run / table)
        for number, path in segments(self.run / "journal", 0).items():
            if number < self.manifest.journal_from:
                self._files.unlink(path)

    def check(self) -> list[str]:
        """Put aside what is broken or foreign, forget what is gone, migrate what is old; says what it did."""
        said, good = [], []
        for part in self.manifest.parts:
            path = self.run / part.file
            lost = f"its {part.rows} rows {_LOST[part.table]}"
            if not path.exists():
                said.append(f"{part.file} is missing: {lost}")
            elif checksum(path) != part.sha256:
                said.append(f"{part.file} is damaged, put aside as {self.put_aside(path)}: {lost}")
            else:
                good.append(part)
        said += self._foreign()
        if said:
            self.update(parts=good, messages=[*self.manifest.messages, *said])
        self._migrate()
        return said

    def put_aside(self, path: Path, *, copy: bool = False) -> str:
        """Move (or copy) a file into `damaged/`; returns where it is now, relative to the run."""
        place = self.run / "damaged"
        self._files.make_directory(place)
        name = f"{path.parent.name}-{path.name}"
        target = next(target for number in count() if not (target := place / (f"{name}.{number}" if number else name)).exists())
        if copy:
            self._files.write_file(target, path.read_bytes())
        else:
            self._files.rename(path, target)
        self._files.sync_directory(place)
        return str(target.relative_to(self.run))

    def _merge(self, group: Sequence[Part], rows: int) -> None:
        if len(group) > 1:
            chunks = (parts.read(self.run / part.file) for part in group)
            self._publish({group[0].file: parts.in_groups(chunks, rows)}, [part.file for part in group[1:]])

    def _publish(self, fresh: Mapping[str, Iterable[pa.Table]], dropped: list[str], **changes: Any) -> None:
        written = {}
        for file, chunks in fresh.items():
            rows, data = parts.parquet(chunks, self._schemas[file.partition("/")[0]])
            self._files.write_file(hidden_path(self.run / file), data)
            written[file] = Part(file=file, rows=rows, sha256=hashlib.sha256(data).hexdigest())
        for table in self._tables:
            self._files.sync_directory(self.run / table)
        kept = [written.pop(part.file, part) for part in self.manifest.parts if part.file not in dropped]
        self.update(parts=[*kept, *written.values()], dropped=dropped, **changes)
        self.settle()

    def _foreign(self) -> list[str]:
        listed = {part.file for part in self.manifest.parts}
        said = []
        for table in self._tables:
            for path in sorted((self.run / table).iterdir()):
                file = f"{table}/{path.name}"
                if file in listed or path.name.startswith((".", "_")):
                    continue
                if path.suffix == ".parquet" and path.is_file():
                    said.append(f"{file} is no part of this run and was put aside as {self.put_aside(path)}")
                else:
                    said.append(f"{file} is no part of this run and was left alone; it may confuse whoever reads the directory")
        return said

    def _migrate(self) -> None:
        for part in list(self.manifest.parts):
            schema = self._schemas[part.table]
            if not parts.schema_of(self.run / part.file).equals(schema):
                self._publish({part.file: [parts.conform(parts.read(self.run / part.file), schema)]}, [])


def _chosen(path: Path, rows: pa.Array) -> Iterator[pa.Table]:
    """Read only when it is written, so that one part at a time is in memory."""
    yield parts.read(path).filter(rows)


def hidden_path(path: Path) -> Path:
    """Where a part waits until the manifest names it: beside its place, ignored by readers of the directory."""
    return path.with_name(f".{path.name}.new")


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
