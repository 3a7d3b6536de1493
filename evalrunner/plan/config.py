"""A config file -> `Config`: read, overridden, validated, every mistake at once as `file:line:column: key.path: what (hint: …)`."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalrunner.errors import ConfigError, PluginError
from evalrunner.plan.config_schema import build_schema
from evalrunner.plan.config_types import Settings, column_name, short_model, short_scorer
from evalrunner.plan.mistakes import Mistake, mistakes, shown
from evalrunner.plan.providers import BUILT_IN, misdirected
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.yaml_source import KeyPath, Source, read_yaml
from evalrunner.plugins import find

NOT_YET = (
    "budget",
    "gate",
    "tools",
    "tool_choice",
    "tool_results",
    "max_turns",
    "models.*.provider=dashscope-native",
    "prompt_sets.*.prompts.*.*.content.*.image",
    "prompt_sets.*.prompts.*.*.content.*.audio",
    "prompt_sets.*.scorers.*=judge",
    "prompt_sets.*.scorers.*.judge",
    "prompt_sets.*.tools",
    "prompt_sets.*.tool_choice",
    "prompt_sets.*.tool_results",
    "prompt_sets.*.max_turns",
    "providers.*.kind=dashscope",
)
"""What the contract promises and the code cannot do yet: key paths (`*` is any one step), some with the one value that is refused."""


@dataclass(frozen=True)
class Config:
    """A valid config. `path` is where it comes from: relative paths start at its folder. Secrets in it are references; `environ` resolves them."""

    settings: Settings
    path: Path
    text: str
    environ: Mapping[str, str]
    places: Places
    overrides: tuple[str, ...] = ()
    limit: int | None = None

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
    written, set_paths = _overridden(source.value, overrides)
    places = Places(source, set_paths)
    found, settings = _validated(written)
    if limit is not None and limit < 1:
        found.append(Mistake((), f"--limit: should be at least 1, not {limit}"))
    problems = [*source.problems, *(places.line(mistake) for mistake in found)]
    if problems or settings is None:
        raise ConfigError(*sorted(dict.fromkeys(problems), key=_reading_order))
    return Config(
        settings=settings,
        path=Path(origin) if origin is not None else file,
        text=file.read_text(encoding="utf-8-sig"),
        environ=os.environ if environ is None else environ,
        places=places,
        overrides=tuple(overrides),
        limit=limit,
    )


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a config, short forms included, without what is not available yet."""
    return build_schema(NOT_YET)


def _validated(written: dict[str, Any]) -> tuple[list[Mistake], Settings | None]:
    refused = [path for pattern in NOT_YET for path in _matches(written, pattern)]
    found: list[Mistake] = [Mistake(path, "not available yet", at_key=True) for path in refused]
    settings = None
    try:
        settings = Settings.model_validate(_with_kinds(written))
    except ValidationError as error:
        found += mistakes(error.errors(include_url=False), written)
    found += _across(written)
    hidden = set(refused)
    kept = [mistake for mistake in found if mistake.path in hidden or not any(mistake.path[: len(path)] == path for path in hidden)]
    return [mistake for mistake in kept if mistake.path not in hidden or mistake.what == "not available yet"], settings


def _across(written: Mapping[str, Any]) -> Iterator[Mistake]:
    """What no block can see alone; silent about blocks that are wrong themselves."""
    providers = {name: block for name, block in _mapping(written.get("providers")).items() if isinstance(block, dict)}
    for name, block in providers.items():
        for key, reason in misdirected(name, block):
            yield Mistake(("providers", name, key), reason)
        yield from _kind(name, block)
    yield from _models(written, providers)
    names: dict[Any, int] = {}
    for index, prompt_set in enumerate(_blocks(written.get("prompt_sets"))):
        called = prompt_set.get("name")
        if isinstance(called, str) and names.setdefault(called, index) != index:
            yield Mistake(("prompt_sets", index, "name"), f"two prompt sets are called {called!r} (the other is prompt_sets[{names[called]}])")
        yield from _loader(index, prompt_set)
    yield from _scorer_names(written)


def _kind(name: str, block: Mapping[str, Any]) -> Iterator[Mistake]:
    kind = block.get("kind")
    if isinstance(kind, str) and kind != "dashscope":
        try:
            find("clients", kind)
        except PluginError as error:
            yield Mistake(("providers", name, "kind"), str(error))


def _models(written: Mapping[str, Any], providers: Mapping[str, Mapping[str, Any]]) -> Iterator[Mistake]:
    names: dict[str, int] = {}
    served: dict[str, str] = {}
    known = [*BUILT_IN, *_mapping(written.get("providers"))]
    for index, block in enumerate(_blocks(written.get("models"), short_model)):
        identity, provider = block.get("id"), block.get("provider", "dashscope")
        name = block.get("label") or identity
        if not isinstance(identity, str) or not isinstance(name, str) or not isinstance(provider, str):
            continue
        if names.setdefault(name, index) != index:
            yield Mistake(("models", index), f"two models are called {name!r} (the other is models[{names[name]}]; hint: give one a label)")
        if provider not in known:
            yield Mistake(("models", index, "provider"), f"no provider is called {provider!r}{nearest(provider, known)}")
            continue
        given = providers.get(provider, {})
        kind = given.get("kind") or (BUILT_IN[provider].kind if provider in BUILT_IN else None)
        if kind == "local" and served.setdefault(provider, identity) != identity:
            yield Mistake(
                ("models", index, "id"), f"the provider {provider} serves one model, {served[provider]!r} (hint: define a second provider of kind local)"
            )
        if kind == "openai" and identity.startswith("qwen-audio") and not _mapping(given.get("options")).get("seed_compat"):
            yield Mistake(("models", index, "id"), f"{identity} speaks DashScope's native protocol only, which is not available yet")


def _loader(index: int, block: Mapping[str, Any]) -> Iterator[Mistake]:
    data, loader = block.get("data"), block.get("loader")
    name = loader if loader is not None else Path(data).suffix.lower() if isinstance(data, str) else None
    if isinstance(name, str):
        try:
            find("loaders", name)
        except PluginError as error:
            yield Mistake(("prompt_sets", index, "data" if loader is None else "loader"), str(error))


def _scorer_names(written: Mapping[str, Any]) -> Iterator[Mistake]:
    """One column per name: the same scorer may serve several prompt sets, two different ones need two names."""
    known: dict[str, tuple[Any, KeyPath]] = {}
    for number, block in enumerate(_blocks(written.get("prompt_sets"))):
        here: set[str] = set()
        for index, scorer in enumerate(block["scorers"] if isinstance(block.get("scorers"), list) else ()):
            try:
                fields: dict[str, Any] = dict(short_scorer(scorer))
                kind, name, options = fields["kind"], fields.pop("name", ""), fields.get("options", {})
                column = column_name(kind, name)
            except (ValueError, TypeError, AttributeError):
                continue
            path = ("prompt_sets", number, "scorers", index)
            first, where = known.setdefault(column, ((kind, options), path))
            if column in here or first != (kind, options):
                yield Mistake(path, f"two scorers are called {column!r} (the other is {shown(where)}; hint: give one a name: {kind}: {{name: …}})")
            here.add(column)


def _with_kinds(written: Mapping[str, Any]) -> dict[str, Any]:
    """Built-in providers may leave out their kind, which decides what their options are."""
    providers = written.get("providers")
    if not isinstance(providers, dict):
        return dict(written)
    filled = {name: {"kind": BUILT_IN[name].kind, **block} if isinstance(block, dict) and name in BUILT_IN else block for name, block in providers.items()}
    return {**written, "providers": filled}


def _overridden(value: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[tuple[KeyPath, str]]]:
    """The data with every `key.path=value` put in, and the paths they went to. Raises `ConfigError`."""
    changed, places, problems = copy.deepcopy(value), [], []
    for text in overrides:
        name, equals, given = text.partition("=")
        try:
            if not equals or not name.strip():
                raise ValueError("should be key.path=value")
            places.append((_put(changed, name.strip().replace("[", ".").replace("]", "").split("."), Source(given, "value").value), text))
        except (ValueError, ConfigError) as error:
            problems.append(f"--set {text}: {error}")
    if problems:
        raise ConfigError(*problems)
    return changed, places


def _put(target: Any, steps: list[str], value: Any) -> KeyPath:
    """Set the value at the end of `steps`; list items go by index or by their name, label or id. Raises ValueError."""
    path: list[int | str] = []
    for number, step in enumerate(steps):
        key: int | str = _index(target, step) if isinstance(target, list) else step
        path.append(key)
        if number == len(steps) - 1:
            target[key] = value
            break
        if isinstance(target, dict) and target.get(key) is None:
            target[key] = {}
        target = target[key]
        if not isinstance(target, dict | list):
            raise ValueError(  # noqa: TRY004 - the value is right, the path is not
                f"{shown(tuple(path))} is a plain value and has no {steps[number + 1]!r} (hint: set it as a whole)"
            )
    return tuple(path)


def _index(items: list[Any], step: str) -> int:
    names = [{str(item.get(key)) for key in ("name", "label", "id")} if isinstance(item, dict) else {str(item)} for item in items]
    for index, known in enumerate(names):
        if step in known or step == str(index):
            return index
    raise ValueError(f"no item is {step!r}; there are {len(items)}, counted from 0")


def _matches(value: Any, pattern: str) -> Iterator[KeyPath]:
    """Every path in `value` that `pattern` names."""
    name, equals, wanted = pattern.partition("=")

    def walk(inner: Any, steps: list[str], path: KeyPath) -> Iterator[KeyPath]:
        if not steps:
            if not equals or inner == wanted:
                yield path
            return
        items: Iterator[tuple[Any, Any]] = iter(inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ())
        for key, item in items:
            if steps[0] in {"*", key}:
                yield from walk(item, steps[1:], (*path, key))

    return walk(value, name.split("."), ())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _blocks(value: Any, lengthen: Callable[[Any], Any] = lambda item: item) -> Iterator[Mapping[str, Any]]:
    """The items of a list as mappings, an empty one for each that is none: positions stay right."""
    return (_mapping(lengthen(item)) for item in (value if isinstance(value, list) else ()))


def _relative(path: Path) -> str:
    """As short as it can be shown and still be opened from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _reading_order(problem: str) -> tuple[int, int]:
    found = re.match(r".*?:(\d+):(\d+): ", problem)
    return (int(found[1]), int(found[2])) if found else (2**31, 0)
