"""Runs a program that nobody has read: no network, no files but Python's own, no environment, no rights, limits to everything, and an end.

Linux namespaces by util-linux's `unshare` and the script `jail`. Where they cannot be had, `why_not` says why. Without them (`isolated=False`) only the time,
the limits of one process, the empty environment and a folder of its own are left: the program has its user's rights and the network.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from msgspec import Struct

from evalrunner.errors import ScorerError

_SCRIPTS = Path(__file__).parent
_TIME_IS_UP, _NOT_ISOLATED, _BY_SIGNAL = 124, 99, 128  # as in jail, which this module cannot import: it loads libraries of Linux
_REPORT_BYTES = 65_536
_GRACE_S = 10.0
"""How long the jail may take to begin and to end, beside the program's time."""
_READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache")
_HINT = " (hint: some systems forbid user namespaces: Docker needs --security-opt seccomp=unconfined, Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)"
_USERS = itertools.count()


class Limits(Struct, frozen=True, kw_only=True):
    """What one program may use: seconds of the clock and of CPU, memory of each of its processes, and files in memory."""

    seconds: float = 10.0
    memory_mb: int = 1024
    processes: int = 32
    files: int = 64
    disk_mb: int = 64


class Ended(Struct, frozen=True):
    """What a program wrote (64 KB at most), and how it ended: empty, or what killed it."""

    report: bytes
    killed: str


@functools.cache
def why_not() -> str | None:
    """Why programs cannot be isolated on this machine; None: they can. Tries it once."""
    if sys.platform != "linux":
        return "it needs Linux"
    if shutil.which("unshare") is None:
        return "it needs the program unshare (util-linux)"
    try:
        done = run("print('inside')", b"", Limits(), isolated=True)
    except ScorerError as error:
        return f"{error}{_HINT}"
    return None if done.report == b"inside\n" else f"a first program did not come through: {done.killed or done.report!r}"


def run(script: str, stdin: bytes, limits: Limits, *, isolated: bool) -> Ended:
    """Run a Python script to its end, or to its limits. Blocks. Raises `ScorerError` where it could not be started."""
    with tempfile.TemporaryDirectory(prefix="evalrunner-", ignore_cleanup_errors=True) as folder:
        root, given, written = Path(folder, "root"), Path(folder, "given"), Path(folder, "written")
        root.mkdir()
        given.write_bytes(stdin)
        user = _unused_user() if isolated and os.geteuid() == 0 else None
        settings = _settings(script, limits, user, str(root) if isolated else None)
        jail = [sys.executable, "-I", "-S", "-c", (_SCRIPTS / "jail.py").read_text(encoding="utf-8"), json.dumps(settings)]
        with given.open("rb") as source, written.open("wb") as sink:
            process = subprocess.Popen(  # noqa: S603 - our own script; what is not ours runs inside it
                [*_unshare(user), *jail] if isolated else jail, stdin=source, stdout=sink, stderr=sink, env={}, cwd=root, start_new_session=True
            )
            try:
                process.wait(limits.seconds + _GRACE_S)
            except subprocess.TimeoutExpired:
                _kill(process)
        with written.open("rb") as result:
            report = result.read(_REPORT_BYTES)
    return _ended(process.returncode, report, limits)


def _settings(script: str, limits: Limits, user: int | None, root: str | None) -> dict[str, Any]:
    most = {
        "CPU": int(limits.seconds) + 1,
        "AS": limits.memory_mb * 2**20,
        "NOFILE": limits.files,
        "FSIZE": limits.disk_mb * 2**20,
        "CORE": 0,
    } | ({"NPROC": limits.processes} if root else {})  # counts all of a user's processes, so that only one apart can have it
    return {
        "command": [sys.executable, "-I", "-X", "utf8", "-c", script],
        "readable": list(dict.fromkeys([*_READABLE, sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix])),
        "user": user,
        "seconds": limits.seconds,
        "disk_mb": limits.disk_mb,
        "limits": most,
        "root": root,
    }


def _unused_user() -> int:
    """Root's programs run as a user that nobody is: its processes are counted apart, and no file is its own."""
    return 2_000_000_000 + (os.getpid() * 64 + next(_USERS) % 64) % 100_000_000


def _unshare(user: int | None) -> list[str]:
    rights = [] if user is not None else ["--user", "--map-root-user"]
    return [str(shutil.which("unshare")), *rights, "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL", "--"]


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ended(code: int, report: bytes, limits: Limits) -> Ended:
    if code == 0:
        return Ended(report, "")
    if code == _TIME_IS_UP:
        return Ended(report, f"not done within {limits.seconds:g} s")
    if code > _BY_SIGNAL or code < 0:
        number = abs(code) % _BY_SIGNAL
        known = {signal.SIGXCPU: f"more than {limits.seconds:g} s of CPU", signal.SIGKILL: "killed (too much time, memory or output)"}
        return Ended(report, known.get(signal.Signals(number), f"died of {signal.Signals(number).name}"))
    raise ScorerError(report.decode("utf-8", "replace").strip().rpartition("\n")[2][:300] or f"the jail ended with exit code {code}")
