"""Other people's plain functions (scorers, tools) in a process of their own, because nothing else can be cut off: not a loop, not a library in C.

The process is started at the first call and made from the plug-in's name and options. It gets calls and gives results as msgpack, one after the other. One that
takes too long is killed with all it has started, and the next call starts another. It has our module path, a few variables of the environment, no input, and
prints to stderr; it ends when we do.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Literal, TypeVar

import msgspec
from msgspec import Struct, msgpack

from evalrunner.errors import PluginError, ScorerError
from evalrunner.plugins import find
from evalrunner.records import Completion, Request, Sample

T = TypeVar("T")
SECONDS = 30.0
"""How long one call may take."""
START_SECONDS = 120.0
"""How long a plug-in may take to be imported and made."""
LATE_SECONDS = 5
"""So much later it is killed by a timer of the system, should we be gone and C code have the interpreter."""
ENVIRONMENT = (
    "PATH HOME USER LANG LANGUAGE LC_ALL LC_CTYPE TZ TMPDIR TEMP TMP XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME LD_LIBRARY_PATH DYLD_LIBRARY_PATH "
    "VIRTUAL_ENV CONDA_PREFIX CUDA_VISIBLE_DEVICES OMP_NUM_THREADS HF_HOME NLTK_DATA"
)
"""What a process gets of ours; besides, what its options name as `${NAME}`. Keys are not among it."""
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from evalrunner.apart import serve; serve()"
_LENGTH = 8


class ApartError(Exception):
    """The process has no result; the text goes on after a name: "did not finish …"."""


class Done(Struct, frozen=True, tag=True):
    """What came back, as msgpack knows it: a `Score` is a mapping."""

    result: Any


class Failed(Struct, frozen=True, tag=True):
    """What was raised: the name of its class, and its text."""

    kind: str
    message: str


class _Made(Struct, frozen=True):
    """What a process needs to make the function again."""

    plugin: Literal["scorers", "tools"]
    name: str
    options: dict[str, Any]
    seconds: float

    def make(self) -> Any:
        found = find(self.plugin, self.name)
        return found(**self.options) if self.plugin == "scorers" else found

    @property
    def arguments(self) -> Any:
        return tuple[Request, Completion] if self.plugin == "scorers" else tuple[str, dict[str, Any], Sample]


class Apart:
    """One function in its process. May be called from any thread and event loop; calls wait for one another."""

    def __init__(self, made: _Made) -> None:
        self._child = _Child(made)
        self._pool = ThreadPoolExecutor(1, "evalrunner-apart")
        weakref.finalize(self, self._child.end)

    async def __call__(self, *args: Any) -> Done | Failed:
        """Raises `ApartError` where the process has no result. Cancelled, it ends the process."""
        given_up = threading.Event()
        call = self._pool.submit(self._child.call, args, given_up)
        try:
            return await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            given_up.set()  # for a process that is just being started, which `end` cannot see yet
            if not call.cancel() and call.running():
                self._child.end()
            raise


_alive: weakref.WeakValueDictionary[bytes, Apart] = weakref.WeakValueDictionary()


def apart(plugin: Literal["scorers", "tools"], name: str, options: Mapping[str, Any], seconds: float = SECONDS) -> Apart:
    """The function that a plug-in's name and options mean, in a process; the same one where they are the same. Raises `PluginError`."""
    module = name.partition(":")[0]
    if ":" in name and getattr(sys.modules.get(module), "__spec__", None) is None:
        raise PluginError(f"{name!r} runs in a process of its own, which cannot import {module} (hint: write it into a file beside the config)")
    made = _Made(plugin, name, dict(options), seconds)
    key = msgspec.json.encode(made)
    found = _alive.get(key) or Apart(made)
    _alive[key] = found
    return found


def is_async(function: Any) -> bool:
    """Whether a call gives something to await, as far as can be told before it."""
    function = inspect.unwrap(function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - the method is looked at


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Raises `ApartError` where it took longer; a TimeoutError of its own is its own."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await awaitable
    except TimeoutError:
        if limit.expired():
            raise ApartError(_too_long(seconds)) from None
        raise


def _too_long(seconds: float) -> str:
    return f"did not finish within {seconds:g} s and was cut off"


class _Child:
    """The process as a thread sees it that may wait."""

    def __init__(self, made: _Made) -> None:
        self._made = made
        self._path = list(sys.path)
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, args: tuple[Any, ...], given_up: threading.Event) -> Done | Failed:
        try:
            message = msgpack.encode(args)
        except (TypeError, ValueError, OverflowError) as error:
            raise ApartError(f"cannot be given what it needs: {error}") from None
        process = self._process
        if process is None or process.poll() is not None:
            self.end()
            process = self._start()
            made = self._exchange(process, msgpack.encode(self._made), START_SECONDS, given_up)
            if isinstance(made, Failed):
                self.end()
                raise ApartError(f"cannot be made in a process of its own: {made.kind}: {made.message}")
        return self._exchange(process, message, self._made.seconds, given_up)

    def end(self) -> int | None:
        """Kill the process and all it has started; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        code = process.poll()
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not written yet cannot be any more
                pipe.close()  # type: ignore[union-attr]
        return code

    def _start(self) -> subprocess.Popen[bytes]:
        wanted = {*ENVIRONMENT.split(), *_REFERENCE.findall(str(self._made.options))}
        environ = {name: value for name, value in os.environ.items() if name in wanted}
        command = [sys.executable, "-I", "-u", "-X", "utf8", "-c", _SERVE, *self._path]
        try:
            # a session of its own: Ctrl-C is for us, and what is in flight is still scored
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, start_new_session=True)  # noqa: S603 - ourselves
        except OSError as error:
            raise ApartError(f"cannot be started in a process of its own: {error}") from None
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], message: bytes, seconds: float, given_up: threading.Event) -> Done | Failed:
        if given_up.is_set():
            self.end()
            raise ApartError("was not waited for")
        expired = threading.Event()
        timer = threading.Timer(seconds, _cut_off, (process, expired))
        timer.daemon = True
        timer.start()
        reply = None
        with contextlib.suppress(OSError, ValueError):  # a pipe that is broken, or closed by `end`
            _write(process.stdin, message)
            reply = _read(process.stdout)
        timer.cancel()
        timer.join()  # so that it can kill no later call
        if reply is None and not expired.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)  # its pipes are closed: the exit code is about to come
        if reply is None or expired.is_set():
            code = self.end()
            raise ApartError(_too_long(seconds) if expired.is_set() else f"ended its process (exit code {'unknown' if code is None else code})")
        return msgpack.decode(reply, type=Done | Failed)


def _cut_off(process: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def serve() -> None:
    """The process's own side. Its first message says what to make, every other is a call."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _nothing_to_read_and_stderr_to_print_to()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(source, inbox), daemon=True).start()
    made = msgpack.decode(inbox.get(), type=_Made)
    with asyncio.Runner() as runner:
        _die_after(START_SECONDS)
        try:
            function = made.make()
        except BaseException as error:  # noqa: BLE001 - a plug-in may raise anything
            _write(sink, _encoded(_failed(error)))
            return
        _write(sink, _encoded(Done(None)))
        while True:
            _die_after(None)
            message = inbox.get()
            _die_after(made.seconds)
            _write(sink, _encoded(_called(runner, function, msgpack.decode(message, type=made.arguments))))


def _called(runner: asyncio.Runner, function: Any, args: tuple[Any, ...]) -> Done | Failed:
    try:
        result = function(*args)
        return Done(runner.run(_awaited(result)) if inspect.isawaitable(result) else result)
    except BaseException as error:  # noqa: BLE001 - sys.exit, too
        return _failed(error)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _failed(error: BaseException) -> Failed:
    kind = ScorerError.__name__ if isinstance(error, ScorerError) else type(error).__name__
    return Failed(kind, str(error).encode("utf-8", "replace").decode())


def _encoded(reply: Done | Failed) -> bytes:
    try:
        return msgpack.encode(reply, enc_hook=float)  # numpy's numbers are the likeliest that msgpack does not know
    except (TypeError, ValueError, OverflowError) as error:
        return msgpack.encode(_failed(error))


def _nothing_to_read_and_stderr_to_print_to() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(nothing, 1)


def _listen(source: IO[bytes], inbox: queue.SimpleQueue[bytes]) -> None:
    while (message := _read(source)) is not None:
        inbox.put(message)
    os._exit(0)  # whoever started us is gone


def _die_after(seconds: float | None) -> None:
    """A timer whose signal kills, whatever code is running."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(0 if seconds is None else int(seconds) + LATE_SECONDS)


def _write(sink: IO[bytes] | None, message: bytes) -> None:
    assert sink is not None  # noqa: S101 - a pipe
    sink.write(len(message).to_bytes(_LENGTH) + message)
    sink.flush()


def _read(source: IO[bytes] | None) -> bytes | None:
    assert source is not None  # noqa: S101 - a pipe
    length = source.read(_LENGTH)
    if len(length) < _LENGTH:
        return None
    message = source.read(size := int.from_bytes(length))
    return message if len(message) == size else None
