"""Disks that fail, and machines that stop, at the n-th operation.

`FaultyFiles` stands in for `Files`: it counts every operation and, from the n-th on, is `killed` (nothing happens any more), refuses once (`eio`) or is full
(`full`: nothing can be written until space is freed). It also keeps what a machine would still have after a power cut: file contents as of their last fsync,
names as of the last sync of their directory. `lose_power` makes the real directory that.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Literal

from evalrunner.store.files import Files

How = Literal["killed", "eio", "full"]


class Killed(Exception):  # noqa: N818 - not an error of the program: the process is gone
    """What stands for the end of the process; no code of ours runs after it."""


class FaultyFiles(Files):
    """Fails at operation `at` (from 1; 0 never) in the way `how`. Real fsyncs are left out: the model knows what they would have kept."""

    def __init__(self, root: Path, at: int = 0, how: How = "killed") -> None:
        self.operations = 0
        self.root = root
        self._at = at
        self._how = how
        self._opened: dict[int, Path] = {}
        self._names: dict[Path, int | None] = {}
        self._kept_names: dict[Path, int | None] = {}
        self._kept_contents: dict[int, bytes] = {}
        self._files = 0

    @classmethod
    def after(cls, old: FaultyFiles) -> FaultyFiles:
        """A sound disk with the content of `old`: a new process on the same machine."""
        files = cls(old.root)
        files._names, files._kept_names, files._kept_contents, files._files = old._names, old._kept_names, old._kept_contents, old._files
        return files

    def break_at(self, at: int, how: How) -> None:
        self._at, self._how = at, how

    def open(self, path: Path, flags: int) -> int:
        self._step(writes=bool(flags & os.O_CREAT))
        fd = super().open(path, flags)
        self._opened[fd] = path
        if flags & os.O_CREAT and path not in self._names:
            self._files += 1
            self._names[path] = self._files
        return fd

    def write(self, fd: int, data: bytes) -> None:
        try:
            self._step(writes=True)
        except (Killed, OSError):
            if self.operations == self._at:
                os.write(fd, data[: len(data) // 2])
            raise
        super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._step()
        path = self._opened[fd]
        if path.is_dir():
            for known in [known for known in self._kept_names if known.parent == path]:
                del self._kept_names[known]
            self._kept_names |= {known: number for known, number in self._names.items() if known.parent == path}
            return
        number = self._names.get(path)
        if number is not None:
            self._kept_contents[number] = path.read_bytes()

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)
        self._names[target] = self._names.pop(source, None)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)
        self._names.pop(path, None)

    def make_directory(self, path: Path) -> None:
        self._step()
        if not path.is_dir():
            self._names[path] = None
        super().make_directory(path)

    def remove_directory(self, path: Path) -> None:
        self._step()
        super().remove_directory(path)
        self._names.pop(path, None)

    def lose_power(self) -> None:
        """Leave on the disk what is durable, and nothing else."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        for path, number in sorted(self._kept_names.items()):
            if not path.parent.is_dir():
                continue
            if number is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(self._kept_contents.get(number, b""))
        self._names = dict(self._kept_names)

    def _step(self, *, writes: bool = False) -> None:
        self.operations += 1
        if not self._at or self.operations < self._at:
            return
        if self._how == "killed":
            raise Killed
        if self._how == "eio" and self.operations == self._at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._how == "full" and (writes or self.operations == self._at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
