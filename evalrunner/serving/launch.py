"""Starts what a run needs on this machine, the embedded model or the simulator, and ends it with the run."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from evalrunner.errors import PluginError
from evalrunner.plain import plain
from evalrunner.plugins import Account
from evalrunner.serving import local_model
from evalrunner.serving.local_model import LocalOptions, Say
from evalrunner.simulator.settings import SimulatorSettings, parse_settings


def to_stderr(line: str) -> None:
    """Progress is not data."""
    sys.stderr.write(f"{plain(line)}\n")


def check(accounts: Iterable[Account], base: Path = Path()) -> None:
    """Raises PluginError for options that `launch` would refuse; starts nothing. `base` as for `launch`."""
    for account in accounts:
        _settings(account, base)


@asynccontextmanager
async def launch(accounts: Iterable[Account], base: Path = Path(), say: Say = to_stderr) -> AsyncIterator[tuple[Account, ...]]:
    """Yields the accounts, in order, each with a `base_url` that answers. Accounts that have one are left as they are.

    `base` is the config's folder, where a simulator's data sets are looked for; the path of a model the plan has resolved already.
    Everything started here ends with the block, however it ends. Raises PluginError for wrong options, UnreachableError for what does not start.
    """
    async with AsyncExitStack() as running:
        yield tuple([await _started(account, base, running, say) for account in accounts])


async def _started(account: Account, base: Path, running: AsyncExitStack, say: Say) -> Account:
    settings = _settings(account, base)
    if isinstance(settings, LocalOptions):
        url = await running.enter_async_context(local_model.serve(settings, say))
        # llama.cpp's server closes a connection after each stream although it promises to keep it: a pooled one would fail every second request
        return replace(account, base_url=url, headers={**account.headers, "Connection": "close"})
    if isinstance(settings, SimulatorSettings):
        from evalrunner.simulator import app as simulator  # noqa: PLC0415 - a web server that only runs against the simulator need

        url = await running.enter_async_context(simulator.serve(settings))
        # it wants a key, as the real service does
        return replace(account, base_url=f"{url}{simulator.COMPATIBLE}", api_key=account.api_key or settings.api_key or "simulator")
    return account


def _settings(account: Account, base: Path) -> LocalOptions | SimulatorSettings | None:
    if account.base_url or account.kind not in {"local", "simulator"}:
        return None
    try:
        return local_model.parse_options(account.options) if account.kind == "local" else parse_settings(account.options, base)
    except ValueError as error:
        raise PluginError(f"provider {account.name!r}: {error}") from None
