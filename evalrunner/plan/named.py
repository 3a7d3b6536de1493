"""The plug-ins a config names, and only those: what is imported for it, from where."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalrunner.plugins import BUILT_IN, Kind, inner_scorers


def plugins_named(written: Mapping[str, Any]) -> list[tuple[Kind, str]]:
    """(kind, name) of each plug-in in a config as written, mistakes and all; what is built in is left out."""
    return list(dict.fromkeys((kind, name) for kind, name in _names(written) if isinstance(name, str) and name not in BUILT_IN[kind]))


def look_beside(folder: Path) -> None:
    """Let `module:attribute` find modules in a config's folder: the last place that is looked in, so that nothing there shadows what is installed."""
    if (place := str(folder.resolve())) not in sys.path:
        sys.path.append(place)


def _names(written: Mapping[str, Any]) -> Iterator[tuple[Kind, Any]]:
    providers = written.get("providers")
    for block in providers.values() if isinstance(providers, dict) else ():
        yield "clients", block.get("kind") if isinstance(block, dict) else None
    blocks = written.get("prompt_sets")
    for block in blocks if isinstance(blocks, list) else ():
        if isinstance(block, dict):
            data = block.get("data")
            yield "loaders", block.get("loader") or (Path(data).suffix.lower() if isinstance(data, str) else None)
            yield "tools", block.get("tool_results")
            yield from (("scorers", kind) for kind in _kinds(block.get("scorers")))


def _kinds(scorers: Any) -> Iterator[Any]:
    for scorer in scorers if isinstance(scorers, list) else ():
        kind, options = next(iter(scorer.items())) if isinstance(scorer, dict) and len(scorer) == 1 else (scorer, None)
        yield kind
        if isinstance(options, dict):
            yield from _kinds(inner_scorers(kind, options))
