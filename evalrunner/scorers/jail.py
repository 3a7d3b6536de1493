"""Process 1 of an isolated program. Started by `isolation`, as a script that imports nothing of ours, inside fresh namespaces.

It sees to it that the program finds an empty root with Python in it, read only; no network, no environment, no rights; and limits to everything it can use
up. Then it starts the program and waits; when it ends, the kernel kills whatever is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

TIME_IS_UP, NOT_ISOLATED, BY_SIGNAL = 124, 99, 128
"""Exit codes; BY_SIGNAL + n: the program died of signal n."""

_NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 2, 4, 4096, 16384, 1 << 18  # linux/mount.h
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1  # the number is the same on every architecture; Linux 5.12
_MNT_DETACH = 2
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38  # linux/prctl.h
_DESK = "desk"
"""Where the program starts: empty, which /tmp is not where Python itself lives there."""
_DEVICES = ("null", "zero", "urandom")
_libc = ctypes.CDLL(None, use_errno=True)


def enclose(root: Path, readable: list[str], disk_mb: int) -> None:
    """Make `root` (an empty folder) the root of everything: a small disk in memory, `readable` in it read only, and a few devices."""
    _mount("none", "/", None, _REC | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, f"size={disk_mb}m,mode=755")
    for place in readable:
        _show(Path(place), root)
    for device in _DEVICES:
        _show(Path("/dev", device), root, read_only=False)
    for folder in (root / "tmp", root / "dev" / "shm", root / _DESK):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir(f"/{_DESK}")


def forbid_namespaces() -> None:
    """No second set of rights inside: holds for the user namespace that we are in, so it must be our own."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="ascii")


def _show(place: Path, root: Path, *, read_only: bool = True) -> None:
    there = root / place.relative_to("/")
    if not place.exists() or there.exists():
        return
    if place.is_symlink() or not place.is_dir():
        there.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            there.symlink_to(place.readlink())
            return
        there.touch()
    else:
        there.mkdir(parents=True)
    _mount(place, there, None, _BIND | _REC)
    if read_only:
        attributes = (ctypes.c_uint64 * 4)(_READ_ONLY | _NOSUID | _NODEV, 0, 0, 0)
        _check(_libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(there), _AT_RECURSIVE, attributes, ctypes.sizeof(attributes)), f"read-only {place}")


def confine(limits: dict[str, int], user: int | None) -> None:
    """Give up every right and take on the limits; for the program's own process."""
    if user is not None:
        os.setgroups([])
        os.setgid(user)
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    if user is not None:
        os.setuid(user)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def wait(child: int, seconds: float) -> int:
    """The exit code that tells how the child ended; every other process that is left to us is buried, too."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
        while (ended := _ended()) is not None:
            if ended[0] == child:
                return BY_SIGNAL + os.WTERMSIG(ended[1]) if os.WIFSIGNALED(ended[1]) else 0
    return TIME_IS_UP


def _ended() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _mount(source: str | Path, target: str | Path, kind: str | None, flags: int, data: str = "") -> None:
    names = [os.fsencode(source), os.fsencode(target), kind.encode() if kind else None]
    _check(_libc.mount(*names, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def _check(failed: int, what: str) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def main(settings: dict[str, Any]) -> int:
    """Isolate (unless `root` is null), start `command`, wait for at most `seconds`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        if settings["root"] and settings["user"] is None:
            forbid_namespaces()
        if settings["root"]:
            enclose(Path(settings["root"]), settings["readable"], settings["disk_mb"])
    except OSError as error:
        sys.stderr.write(str(error.strerror or error))
        return NOT_ISOLATED
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            confine(settings["limits"], settings["user"])
            os.execve(settings["command"][0], settings["command"], {})  # noqa: S606 - the interpreter that runs us
        except BaseException as error:  # noqa: BLE001 - a fork must not come back
            os.write(2, str(error).encode())
        os._exit(NOT_ISOLATED)
    code = wait(child, settings["seconds"])
    if not settings["root"]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    return code


if __name__ == "__main__":
    os._exit(main(json.loads(sys.argv[1])))
