"""The models that scorers ask: which ones a config means, and whether it can mean them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from evalrunner.engine.judging import Judge
from evalrunner.plan.config_types import ModelFields
from evalrunner.plan.mistakes import Mistake, mistakes
from evalrunner.plan.parameters import Grid
from evalrunner.plan.providers import BUILT_IN
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.yaml_source import KeyPath
from evalrunner.plugins import AskedModel, AskingScorer, Scorer
from evalrunner.records import Model

Scorers = Mapping[str, Scorer | AskingScorer]


def fields_of(asked: AskedModel, models: Sequence[ModelFields]) -> ModelFields:
    """The model that is meant: one of the config's by its name or id, else one of its provider's. Raises pydantic's ValidationError."""
    provider = {"provider": asked.provider} if asked.provider else {}
    if not isinstance(asked.model, str):
        return ModelFields.model_validate({**provider, **asked.model})
    reachable = [model for model in models if asked.provider in {None, model.provider}]
    for found in (*(one for one in reachable if one.name == asked.model), *(one for one in reachable if one.id == asked.model)):
        return found
    return ModelFields.model_validate({"id": asked.model, **provider})


def asked_fields(scorers: Sequence[Scorers], models: Sequence[ModelFields]) -> dict[tuple[str, int], ModelFields]:
    """(scorer's column, number of its model) -> the model that is meant; one that shares its name with another is told apart by its provider."""
    found: dict[tuple[str, int], ModelFields] = {}
    taken = {model.name: model for model in models}
    for name, scorer in ((name, scorer) for group in scorers for name, scorer in group.items()):
        for number, asked in enumerate(scorer.needs if isinstance(scorer, AskingScorer) else ()):
            fields = fields_of(asked, models)
            if taken.setdefault(fields.name, fields) != fields:
                fields = fields.model_copy(update={"label": f"{fields.name} ({fields.provider}, {name})"})
                taken.setdefault(fields.name, fields)
            found[name, number] = fields
    return found


def judges_of(scorers: Sequence[Scorers], fields: Mapping[tuple[str, int], ModelFields], models: Mapping[str, Model]) -> dict[tuple[str, int], Judge]:
    """The same places -> model (of `models`, by name) and parameters: defaults, the model's own where they are not swept, then the scorer's."""
    judges = {}
    for name, scorer in ((name, scorer) for group in scorers for name, scorer in group.items()):
        for number, asked in enumerate(scorer.needs if isinstance(scorer, AskingScorer) else ()):
            meant = fields[name, number]
            own = {param: values[0] for param, values in meant.params.values.items() if len(values) == 1}
            params = {param: value for param, value in {**asked.defaults, **own, **asked.params}.items() if value is not None}
            judges[name, number] = Judge(model=models[meant.name], params=params)
    return judges


def asked_mistakes(
    scorer: AskingScorer, options: Mapping[str, Any], path: KeyPath, models: Sequence[ModelFields], known: Mapping[str, Any]
) -> Iterator[Mistake]:
    """What is wrong with the models it asks. `path`: of the scorer's `options`; `known`: the providers the config writes, by name."""
    for number, asked in enumerate(scorer.needs):
        place = (*path, "model") if "model" in options else (*path, "models", number)
        try:
            fields = fields_of(asked, models)
        except ValidationError as error:
            yield from _under(place, error, ("models", 0), {"models": [asked.model]})
            continue
        provider = fields.provider
        if provider not in BUILT_IN and provider not in known:
            where = (*path, "provider") if "provider" in options else place
            yield Mistake(where, f"no provider is called {provider!r}{nearest(provider, [*BUILT_IN, *known])}")
        block = known.get(provider)
        kind = (block.get("kind") if isinstance(block, dict) else None) or (BUILT_IN[provider].kind if provider in BUILT_IN else None)
        if kind == "local" and (served := next((one.id for one in models if one.provider == provider and one.id != fields.id), None)):
            yield Mistake(place, f"the provider {provider} serves one model, {served!r} (hint: define a second provider of kind local)")
        try:
            given = Grid.model_validate({name: value for name, value in asked.params.items() if value is not None})
        except ValidationError as error:
            yield from _under((*path, "params"), error, ("grid",), {"grid": dict(asked.params)})
            continue
        for name, values in given.values.items():
            if len(values) > 1:
                yield Mistake((*path, "params", name), "a judge has one value for each parameter, not a list")


def _under(path: KeyPath, error: ValidationError, home: KeyPath, written: Any) -> Iterator[Mistake]:
    """Pydantic's errors as mistakes below `path`, with the hints for what stands at `home` in a config."""
    errors: list[Any] = [{**one, "loc": (*home, *one["loc"])} for one in error.errors(include_url=False)]
    for mistake in mistakes(errors, written):
        yield Mistake((*path, *mistake.path[len(home) :]), mistake.what, mistake.at_key)
