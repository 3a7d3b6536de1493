"""`evalrunner doctor`: what is wrong with this set-up, and what to do about it. Each line is ok, a warning or a problem."""

import argparse
import asyncio
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.request import getproxies

from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.engine.preflight import preflight
from evalrunner.errors import RunError
from evalrunner.loop import new_loop
from evalrunner.open_files import allow, needed
from evalrunner.pipeline import connected
from evalrunner.plain import plain
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import Plan, make_plan
from evalrunner.plan.providers import provider
from evalrunner.plugins import EXTRAS
from evalrunner.serving import launch
from evalrunner.serving.local_model import SMOLLM2, weights_path
from evalrunner.store.files import Files
from evalrunner.store.redact import Redactor

LIBRARIES = ("aiohttp", "httpx", "pydantic", "msgspec", "pyarrow", "pandas", "numpy", "scipy")
LITTLE_SPACE_GB = 1.0
NO_SPACE_GB = 0.05
DEFAULT_CONCURRENCY = 16


class Finding(NamedTuple):
    """`hint` says what to do; `exit_code` is that of a problem."""

    level: Literal["ok", "warning", "problem"]
    what: str
    hint: str = ""
    exit_code: int = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="a YAML file: also checks it, its environment variables and its hosts")
    parser.add_argument("--offline", action="store_true", help="ask no host; otherwise each model gets one small request")


def main(args: argparse.Namespace) -> int:
    found = list(_machine())
    if args.config is None:
        found.append(_open_files(DEFAULT_CONCURRENCY))
    else:
        found += _config(args.config, offline=args.offline)
    redactor = Redactor()
    for finding in found:
        first, *more = [*finding.what.splitlines(), *([f"→ {finding.hint}"] if finding.hint else [])]
        print(plain(redactor.message("\n".join([f"{finding.level:<8} {first}", *(f"{'':<8} {line}" for line in more)]))))
    return max((finding.exit_code for finding in found if finding.level == "problem"), default=0)


def _machine() -> Iterator[Finding]:
    yield Finding("ok", f"evalrunner {version('evalrunner')}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    yield from _libraries()
    yield from _extras()
    weights = weights_path(SMOLLM2)
    kept = "is in the cache" if weights.is_file() else f"is not fetched yet ({SMOLLM2.megabytes} MB, with the first run that needs it)"
    yield Finding("ok", f"the embedded model {kept}: {weights}")
    yield from _reports(Path("reports"))
    for scheme, address in sorted(getproxies().items()):
        yield Finding("ok", f"proxy from the environment: {scheme} {address}")


def _libraries() -> Iterator[Finding]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            yield Finding("problem", f"{name} is not installed", "pip install --force-reinstall evalrunner")
    yield Finding("ok", "libraries: " + ", ".join(f"{name} {number}" for name, number in found.items()))


def _extras() -> Iterator[Finding]:
    for extra in dict.fromkeys(EXTRAS.values()):
        missing = [module for module, of in EXTRAS.items() if of == extra and find_spec(module) is None]
        hint = f"where you need it: pip install 'evalrunner[{extra}]'" if missing else ""
        yield Finding("ok", f"extra {extra}: " + (f"not installed ({', '.join(missing)})" if missing else "installed"), hint)


def _reports(folder: Path) -> Iterator[Finding]:
    """Space and locks where runs are kept: in the folder, or where it would be made."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free / 1e9
    level: Literal["ok", "warning", "problem"] = "problem" if free < NO_SPACE_GB else "warning" if free < LITTLE_SPACE_GB else "ok"
    yield Finding(level, f"{place}: {free:,.1f} GB free", "" if level == "ok" else "free some space, or keep runs elsewhere with --out")
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            Files().lock(file.fileno())
        yield Finding("ok", f"{place}: can be written and locked")
    except OSError as error:
        yield Finding("problem", f"{place}: {error.strerror or error}", "runs need a local directory that can be written and locked: name one with --out")


def _open_files(connections: int) -> Finding:
    try:
        allow(connections)
    except RunError as error:
        return Finding("problem", str(error))
    return Finding("ok", f"open files: enough for {connections:,} connections at a time, which need about {needed(connections):,}")


def _config(path: Path, *, offline: bool) -> Iterator[Finding]:
    try:
        plan = make_plan(load_config(path))
    except RunError as error:
        yield Finding("problem", str(error), f"evalrunner schema and the README say what {path} may hold")
        return
    variables = list(_variables(plan))
    yield from variables
    if any(finding.level == "problem" for finding in variables):
        return
    yield _open_files(plan.connections(plan.everybody))
    redactor = Redactor(plan.secrets())
    try:
        launch.check(plan.accounts.values(), plan.config.folder)
        plan.validate()
        yield Finding("ok", f"{path}: {plan.size:,} requests")
        if not offline:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                yield from runner.run(_asked(plan))
    except RunError as error:
        yield Finding("problem", redactor.message(str(error)), exit_code=error.exit_code)


def _variables(plan: Plan) -> Iterator[Finding]:
    """Whether what the config refers to is set, and looks like a value; never the value."""
    providers = [provider(name, plan.config.settings.providers.get(name)) for name in dict.fromkeys(model.provider for model in plan.everybody)]
    users = {name: written.name for written in providers for name in sorted(written.references())}
    for name, user in users.items():
        value = plan.config.environ.get(name, "")
        used = f"{name} (provider {user})"
        if not value:
            yield Finding("problem", f"{used} is not set", f"export {name}=…")
        elif value != value.strip() or value[0] in "\"'" or value.lower().startswith("bearer "):
            yield Finding("warning", f"{used} is set, with blanks, quotes or `Bearer` around its value", f"set {name} to the bare value")
        else:
            yield Finding("ok", f"{used} is set")


async def _asked(plan: Plan) -> Sequence[Finding]:
    """One small request per model, judges too, of those that the run does not start itself."""
    outside = {name: account for name, account in plan.accounts.items() if account.base_url}
    models = [model for model in plan.everybody if model.provider in outside]
    async with connected(outside.values(), SYSTEM_CLOCK) as clients:
        await preflight(plan, models, clients, SYSTEM_CLOCK)
    return [Finding("ok", f"{model.name} answers ({model.provider}, {outside[model.provider].base_url})") for model in models]
