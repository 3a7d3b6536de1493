"""One live run per directory: the operating system's file lock, which dies with its process, and a note of who holds it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from evalrunner.errors import RunLockedError, StoreError
from evalrunner.store.files import Files

LOCK = ".lock"
MOMENT_S = 0.01


def take(run: Path, files: Files, since: str) -> int:
    """Lock `run`; returns the file descriptor that holds the lock until it is closed.

    Raises `RunLockedError` while another process lives that has it: only the system knows that, process numbers come again. Raises `StoreError`
    where the file system has no locks. The file stays: whoever removed it could remove another's lock.
    """
    fd = files.open(run / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        _lock(fd, files)
    except BlockingIOError:
        os.close(fd)
        raise RunLockedError(str(run), _owner(run)) from None
    except OSError as error:
        os.close(fd)
        raise StoreError(f"{run}: this file system cannot lock files ({error.strerror}), so two runs could mix; choose a local directory with --out") from error
    with suppress(OSError):  # a courtesy to whoever comes second; the lock holds without it
        os.ftruncate(fd, 0)
        os.write(fd, msgspec.json.encode({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
    return fd


def _lock(fd: int, files: Files) -> None:
    """Once more a moment later: somebody who asks `is_held` has it for some microseconds."""
    try:
        files.lock(fd)
    except BlockingIOError:
        time.sleep(MOMENT_S)
        files.lock(fd)


def is_held(run: Path) -> bool:
    """Whether a live process has `run`; never waits."""
    return Files().held(run / LOCK)


def state_of(run: Path, manifest: Mapping[str, Any]) -> str:
    """`running`, `complete`, `interrupted`; or `killed`: the manifest says running, but no process is."""
    state = str(manifest["state"])
    return "killed" if state == "running" and not is_held(run) else state


def _owner(run: Path) -> str:
    try:
        owner = msgspec.json.decode((run / LOCK).read_bytes())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, msgspec.MsgspecError, KeyError, TypeError):
        return "another process"
