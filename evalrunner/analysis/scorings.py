"""What a score was computed by, as a manifest's plan tells it. Two scores of one name are comparable only where that is equal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from evalrunner.errors import ConfigError

LONGEST = 60

Scorings = Mapping[str, Mapping[str, Any]]
"""Column -> scorer, options, judges and target by which it is filled."""


def scorings_of(plan: Mapping[str, Any], prompt_set: str) -> Scorings | None:
    """The scores of a prompt set. None where the plan does not know the set."""
    found = next((one for one in plan.get("prompt_sets") or () if one["name"] == prompt_set and "scorers" in one), None)
    if found is None:
        return None
    written = {one["name"]: one for one in plan.get("scorers") or ()}
    asked: dict[str, list[Any]] = {}
    for judge in plan.get("judges") or ():
        asked.setdefault(judge["scorer"], []).append({name: judge.get(name) for name in ("id", "provider", "params")})
    return {f"score_{name}": _scoring(written.get(name) or {}, found.get("target"), asked.get(name)) for name in found["scorers"]}


def _scoring(written: Mapping[str, Any], target: str | None, judges: list[Any] | None) -> dict[str, Any]:
    options = {name: value for name, value in (written.get("options") or {}).items() if name != "calibration"}  # people's labels change no score
    return {"scorer": written.get("kind"), **options, "target": target, **({"judges": judges} if judges else {})}


def one_sided(baseline: Scorings | None, candidate: Scorings | None) -> dict[str, str]:
    """Scores that only one side has, with the side in words."""
    if baseline is None or candidate is None:
        return {}
    missing = {name: "only the baseline has this scorer" for name in baseline if name not in candidate}
    return missing | {name: "only the candidate has this scorer" for name in candidate if name not in baseline}


def changed(baseline: Scorings | None, candidate: Scorings | None) -> dict[str, str]:
    """Scores that both sides have, computed differently: what differs, in words."""
    found = {}
    for name in (baseline or {}).keys() & (candidate or {}).keys():
        old, new = (baseline or {})[name], (candidate or {})[name]
        parts = [f"{key}: {_text(old.get(key))} → {_text(new.get(key))}" for key in {**old, **new} if old.get(key) != new.get(key)]
        if parts:
            found[name] = "; ".join(parts)
    return dict(sorted(found.items()))


def refuse_changed_scorers(found: Iterable[tuple[str, Mapping[str, str]]], names: tuple[str, str]) -> None:
    """Raises `ConfigError` where scores of a prompt set were computed differently, saying how."""
    told = dict.fromkeys(
        f"{prompt_set}: {name} was computed differently in {names[0]} and {names[1]} ({how})" for prompt_set, one in found for name, how in one.items()
    )
    if told:
        hint = "`evalrunner rescore RUN CONFIG` scores both alike, where the target is the same; compare --allow-changed-scorers leaves such scores out"
        raise ConfigError(*told, f"(hint: {hint})")


def _text(value: Any) -> str:
    if value is None:
        return "none"
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
