"""What no block of a config can see alone: names that must differ, names that must exist, keys and hosts that belong together.

Works on the data as written, so that it speaks in the same breath as the types do, and is silent about blocks that are wrong themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalrunner.cost.models import native_only
from evalrunner.errors import PluginError
from evalrunner.plan.asked import asked_mistakes
from evalrunner.plan.config_types import ModelFields, ScorerFields, Settings, column_name, short_model, short_scorer
from evalrunner.plan.mistakes import Mistake, shown
from evalrunner.plan.providers import BUILT_IN, misdirected
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.yaml_source import KeyPath
from evalrunner.plugins import AskingScorer, find, inner_scorers
from evalrunner.scorers.bounded import bounded
from evalrunner.scorers.combine import inner_scorer

COMPARES = dict.fromkeys(("exact", "includes", "numeric", "choice", "token_f1", "rouge", "bleu", "chrf", "similarity", "embedding", "tool_calls"), None) | {
    "regex": "group",
    "json": "field",
}
"""Scorers that compare with the target: always, or when an option is given."""


def cross_checks(written: Mapping[str, Any]) -> Iterator[Mistake]:
    """Every mistake between the blocks of a config."""
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
    yield from _asked(written, providers)


def _kind(name: str, block: Mapping[str, Any]) -> Iterator[Mistake]:
    kind = block.get("kind")
    if isinstance(kind, str):
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
        routed = provider.startswith("dashscope") and "base_url" not in given  # the built-in one knows both addresses
        if kind == "openai" and not routed and native_only(identity) and not _mapping(given.get("options")).get("seed_compat"):
            yield Mistake(
                ("models", index, "id"),
                f"{identity} speaks DashScope's native protocol only (hint: provider dashscope, or one of kind: dashscope with a base_url …/api/v1)",
            )


def _loader(index: int, block: Mapping[str, Any]) -> Iterator[Mistake]:
    data, loader = block.get("data"), block.get("loader")
    name = loader if loader is not None else Path(data).suffix.lower() if isinstance(data, str) else None
    if isinstance(name, str):
        try:
            find("loaders", name)
        except PluginError as error:
            yield Mistake(("prompt_sets", index, "data" if loader is None else "loader"), str(error))


def missing_targets(settings: Settings) -> Iterator[Mistake]:
    """A scorer that compares needs something to compare with: without it every answer would be paid for and none scored."""
    for number, block in enumerate(settings.prompt_sets):
        for index, scorer in enumerate(block.scorers if block.target is None else ()):
            for kind, options, path in _parts(scorer.kind, scorer.options, ("prompt_sets", number, "scorers", index)):
                needs = COMPARES.get(kind, "")
                if needs in (None, *options) and not options.get("accept"):
                    why = f"with `{needs}` " if needs else ""
                    yield Mistake(path[:-1], f"{kind} {why}compares with the target, and there is none (hint: add target:)")


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


def _asked(written: Mapping[str, Any], providers: Mapping[str, Mapping[str, Any]]) -> Iterator[Mistake]:
    """The models that scorers ask, of the scorers that can be built at all."""
    models = []
    for block in written["models"] if isinstance(written.get("models"), list) else ():
        with suppress(ValidationError):
            models.append(ModelFields.model_validate(short_model(block)))
    for number, block in enumerate(_blocks(written.get("prompt_sets"))):
        for index, scorer in enumerate(block["scorers"] if isinstance(block.get("scorers"), list) else ()):
            try:
                fields = ScorerFields.model_validate(short_scorer(scorer))
            except (ValueError, TypeError):
                continue
            for kind, options, path in _parts(fields.kind, fields.options, ("prompt_sets", number, "scorers", index)):
                try:
                    built = bounded(kind, options)
                except (ValueError, TypeError):
                    continue
                if isinstance(built, AskingScorer):
                    yield from asked_mistakes(built, options, path, models, providers)


def _parts(kind: str, options: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[str, Mapping[str, Any], KeyPath]]:
    """The scorer itself with the path of its options, or each of those it is made of."""
    path = (*path, kind)
    inner = inner_scorers(kind, options)
    if not isinstance(inner, list):
        yield kind, options, path
        return
    for index, written in enumerate(inner):
        with suppress(ValueError):
            yield from _parts(*inner_scorer(written), (*path, "scorers", index))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _blocks(value: Any, lengthen: Callable[[Any], Any] = lambda item: item) -> Iterator[Mapping[str, Any]]:
    """The items of a list as mappings, an empty one for each that is none: positions stay right."""
    return (_mapping(lengthen(item)) for item in (value if isinstance(value, list) else ()))
