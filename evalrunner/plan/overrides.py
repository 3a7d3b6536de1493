"""`--set key.path=value`: changes to a config on the command line, validated like the file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from evalrunner.errors import ConfigError
from evalrunner.plan.mistakes import shown
from evalrunner.plan.yaml_source import KeyPath, Source


def overridden(value: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[tuple[KeyPath, str]]]:
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
