"""A config's mistakes in plain words: what pydantic found, with the key path as written and the key that was probably meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from msgspec import Struct
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from evalrunner.plan.config_types import ModelFields, Options, PromptSetBlock, ProviderBlock, Settings
from evalrunner.plan.parameters import ELSEWHERE, Grid, Parameters
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.yaml_source import KeyPath

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "string_pattern_mismatch": "of the form {pattern}",
}
_HOMES: dict[str, type[BaseModel]] = {
    "grid": Parameters,
    "prompt_sets": PromptSetBlock,
    "models": ModelFields,
    "providers": ProviderBlock,
    "a provider's options": Options,
    "the top level": Settings,
}


class Mistake(Struct, frozen=True):
    """What is wrong at a key path. `at_key`: the key itself is, not its value."""

    path: KeyPath
    what: str
    at_key: bool = False


def mistakes(errors: Sequence[ErrorDetails], written: Any) -> Iterator[Mistake]:
    """Pydantic's errors as mistakes in `written`; what several branches of a choice say about one place becomes one sentence."""
    expected: dict[KeyPath, list[str]] = {}
    values: dict[KeyPath, Any] = {}
    for error in errors:
        path = _as_written(error["loc"], written)
        if (form := _EXPECTED.get(error["type"])) is not None:
            expected.setdefault(path, []).append(form.format(**error.get("ctx", {})))
            values[path] = error["input"]
        else:
            yield _mistake(error, path)
    for path, forms in expected.items():
        hint = " (hint: write true or false)" if "true or false" in forms and isinstance(values[path], str) else ""
        yield Mistake(path, f"should be {' or '.join(dict.fromkeys(forms))}{_instead(values[path], path)}{hint}")


def shown(path: KeyPath) -> str:
    """`prompt_sets[0].prompts.plain`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _mistake(error: ErrorDetails, path: KeyPath) -> Mistake:
    context: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return Mistake((*path, error["loc"][-1]), "is missing")
        case "extra_forbidden":
            return Mistake(path, f"unknown key{_meant(path)}", at_key=True)
        case "too_short":
            return Mistake(path, "is empty")
        case "value_error":
            return Mistake(path, str(context["error"]))
        case "unknown_option" | "wrong_option":
            given = _instead(context["given"], path) if "given" in context else ""
            return Mistake((*path, *context["path"]), f"{error['msg']}{given}", at_key=not given)
        case _:
            return Mistake(path, error["msg"][:1].lower() + error["msg"][1:])


def _as_written(location: Sequence[int | str], written: Any) -> KeyPath:
    """The part of pydantic's location that is in the file: without the names of union branches and the steps of long forms."""
    path: list[int | str] = []
    for part in location:
        if isinstance(written, dict) and len(written) == 1 and part not in written:
            [(kind, options)] = written.items()  # a scorer's short form: its name and options are one level down
            if isinstance(options, dict) and part in options:
                path.append(kind)
                written = options
        if part in (written if isinstance(written, dict) else range(len(written)) if isinstance(written, list) else ()):
            path.append(part)
            written = written[part]
    return tuple(path)


def _instead(value: Any, path: KeyPath) -> str:
    if {"api_key", "headers"} & set(path):
        return ""  # whatever stands there may be a secret
    text = "null" if value is None else "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else repr(value)
    return f", not {text if len(text) <= 60 else text[:57] + '…'}"


def _meant(path: KeyPath) -> str:
    key = str(path[-1])
    blocks = list(_blocks_at(path[:-1]))
    if Grid in blocks:
        if key in ELSEWHERE:
            return f" (hint: {ELSEWHERE[key]})"
        return nearest(key, Parameters.model_fields) or " (hint: any other field of the request goes through extra_body: {…})"
    known = [name for block in blocks for name in block.model_fields]
    if key in known:
        return " (hint: another kind has it, this one does not)"
    if near := nearest(key, known):
        return near
    homes = [home for home, block in _HOMES.items() if key in block.model_fields]
    return f" (hint: it belongs under {homes[0]})" if homes else f" (hint: known here: {', '.join(known)})"


def _blocks_at(path: KeyPath) -> set[type[BaseModel]]:
    blocks: set[type[BaseModel]] = {Settings}
    for part in path:
        fields = [block.model_fields[part] for block in blocks if isinstance(part, str) and part in block.model_fields]
        if fields:
            blocks = {inner for field in fields for inner in _blocks(field.annotation)}
    return blocks


def _blocks(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _blocks(argument)
