"""A config file -> `Config`: read, overridden, validated, every mistake at once as `file:line:column: key.path: what (hint: …)`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalrunner.errors import ConfigError
from evalrunner.plan.config_schema import build_schema
from evalrunner.plan.config_types import Settings
from evalrunner.plan.config_values import REFERENCE
from evalrunner.plan.cross_checks import cross_checks, missing_targets
from evalrunner.plan.mistakes import Mistake, mistakes, shown
from evalrunner.plan.named import look_beside, plugins_named
from evalrunner.plan.overrides import overridden
from evalrunner.plan.providers import BUILT_IN
from evalrunner.plan.yaml_source import KeyPath, Source, read_yaml
from evalrunner.plugins import Kind
from evalrunner.store.redact import remember


@dataclass(frozen=True)
class Config:
    """A valid config. `path` is where it comes from: relative paths start at its folder. Secrets in it are references; `environ` resolves them.
    `plugins`: what it names that is not built in.
    """

    settings: Settings
    path: Path
    text: str
    environ: Mapping[str, str]
    places: Places
    overrides: tuple[str, ...] = ()
    limit: int | None = None
    plugins: tuple[tuple[Kind, str], ...] = ()

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def hash(self) -> str:
        """Of what was asked for: the text, the overrides, the limit."""
        return blake2b(json.dumps([self.text, self.overrides, self.limit]).encode(), digest_size=16).hexdigest()


class Places:
    """Where each key path was written: in the file, or on the command line."""

    def __init__(self, source: Source, overrides: Sequence[tuple[KeyPath, str]]) -> None:
        self._source = source
        self._overrides = overrides

    def line(self, mistake: Mistake) -> str:
        """The complete problem line."""
        return f"{self.of(mistake.path, at_key=mistake.at_key)}: {shown(mistake.path)}{': ' * bool(mistake.path)}{mistake.what}"

    def of(self, path: KeyPath, *, at_key: bool = False) -> str:
        """`file:line:column`, or `--set key=value`."""
        for prefix, text in reversed(self._overrides):
            if path[: len(prefix)] == prefix:
                return f"--set {text}"
        return self._source.place(path, key=at_key)


def load_config(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    limit: int | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    origin: str | os.PathLike[str] | None = None,
) -> Config:
    """Read and validate a config. `overrides` are `key.path=value` (the value is YAML); `limit` keeps the first N samples of each prompt set.

    `origin`: where the file came from, when it is the copy kept in a run. Raises `ConfigError` with every mistake.
    """
    file = Path(path)
    source = read_yaml(file, _relative(file))
    if source.value is None:
        raise ConfigError(f"{source.name}:1:1: the file is empty (hint: evalrunner init writes one to start from)")
    if not isinstance(source.value, dict):
        raise ConfigError(f"{source.place(())}: should be a mapping with name, models and prompt_sets")
    written, set_paths = overridden(source.value, overrides)
    places = Places(source, set_paths)
    plugins = plugins_named(written)
    if any(":" in name for _, name in plugins):
        look_beside(Path(origin or file).parent)
    found, settings = _validated(written)
    problems = [*source.problems, *(places.line(mistake) for mistake in found)]
    if limit is not None and limit < 1:
        problems.append(f"--limit: should be at least 1, not {limit}")
    if problems or settings is None:
        raise ConfigError(*sorted(dict.fromkeys(problems), key=_reading_order))
    text, environ = file.read_text(encoding="utf-8-sig"), os.environ if environ is None else environ
    remember(environ[name] for name in REFERENCE.findall(text) if name in environ)
    return Config(
        settings=settings,
        path=Path(origin) if origin is not None else file,
        text=text,
        environ=environ,
        places=places,
        overrides=tuple(overrides),
        limit=limit,
        plugins=tuple(plugins),
    )


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a config, short forms included."""
    return build_schema()


def _validated(written: dict[str, Any]) -> tuple[list[Mistake], Settings | None]:
    found: list[Mistake] = []
    settings = None
    try:
        settings = Settings.model_validate(_with_kinds(written))
    except ValidationError as error:
        found += mistakes(error.errors(include_url=False), written)
    found += cross_checks(written)
    if settings is not None and not found:
        found += missing_targets(settings)
    return found, settings


def _with_kinds(written: Mapping[str, Any]) -> dict[str, Any]:
    """Built-in providers may leave out their kind, which decides what their options are."""
    providers = written.get("providers")
    if not isinstance(providers, dict):
        return dict(written)
    filled = {name: {"kind": BUILT_IN[name].kind, **block} if isinstance(block, dict) and name in BUILT_IN else block for name, block in providers.items()}
    return {**written, "providers": filled}


def _relative(path: Path) -> str:
    """As short as it can be shown and still be opened from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _reading_order(problem: str) -> tuple[int, int]:
    found = re.match(r".*?:(\d+):(\d+): ", problem)
    return (int(found[1]), int(found[2])) if found else (2**31, 0)
