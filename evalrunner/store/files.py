"""The one seam to the disk: every change the store makes to a run directory goes through a `Files`, so that a test can fail or kill at the n-th of them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evalrunner.errors import RunError, StoreError


class Files:
    """The operating system's own operations; each method is one step at which a machine may stop."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o644)

    def write(self, fd: int, data: bytes) -> None:
        """All of `data`: the system may take less at a time."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def lock(self, fd: int) -> None:
        """Take the exclusive lock or raise `BlockingIOError` at once; the system drops it when the process dies, however it dies."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def rename(self, source: Path, target: Path) -> None:
        """Atomic, also over an existing file."""
        source.replace(target)

    def held(self, path: Path) -> bool:
        """Whether somebody has the lock of `path`; also where that cannot be known."""
        try:
            fd = self.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            self.close(fd)
        return False

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_directory(self, path: Path) -> None:
        """With its parents, all durable; fine if it is there."""
        if not path.is_dir():
            self.make_directory(path.parent)
            path.mkdir(exist_ok=True)
            self.sync_directory(path.parent)

    def remove_directory(self, path: Path) -> None:
        path.rmdir()

    def sync_directory(self, path: Path) -> None:
        """Make the names in `path` durable: new files, renames and removals."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)

    def write_file(self, path: Path, data: bytes) -> None:
        """The whole content of `path`, durable; its name is not until the directory is synced."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write(fd, data)
            self.fsync(fd)
        finally:
            self.close(fd)

    def replace_file(self, path: Path, data: bytes) -> None:
        """`path` holds its old content or all of `data` at every moment, and `data` for good afterwards."""
        fresh = path.with_name(f".{path.name}.new")
        self.write_file(fresh, data)
        self.rename(fresh, path)
        self.sync_directory(path.parent)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into a `StoreError` that names `path` and says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = "free some space" if full else "see to the disk or its permissions"
        raise StoreError(f"{path}: {error.strerror or error}; {advice}, then go on with: evalrunner resume {path}") from error


@contextmanager
def whole_file(path: Path, files: Files | None = None) -> Iterator[Path]:
    """A hidden file to write, which takes the place of `path` at the end: nobody ever opens half of it, and a failure leaves nothing behind.

    Raises `RunError` that says what could not be written. A device or a pipe is written to as it is; a link stays one.
    """
    files = files or Files()
    if path.exists() and not path.is_file():
        with told(path):
            yield path
        return
    with told(path):
        target = path.resolve()  # beside a link, a rename might have to cross file systems
        hidden = target.with_name(f".{target.name}.new")
        try:
            yield hidden
            fd = files.open(hidden, os.O_RDONLY)
            try:
                files.fsync(fd)
            finally:
                files.close(fd)
            files.rename(hidden, target)
            files.sync_directory(target.parent)
        except BaseException:
            with suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into a `RunError` that names `path`; a reader who went away is none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
