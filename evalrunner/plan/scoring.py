"""Checks scorers as a config names them: their names, options and values, before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from evalrunner.errors import PluginError
from evalrunner.plan.sandbox import nearest
from evalrunner.plugins import find, inner_scorers
from evalrunner.scorers.bounded import bounded
from evalrunner.scorers.combine import inner_scorer


def check_scorer(kind: str, options: Mapping[str, Any]) -> None:
    """Build it once to see whether it can be built. Raises ValueError, or a pydantic error whose `path` leads to the option."""
    try:
        _check_names(kind, options)
        for index, written in enumerate(inner_scorers(kind, options) or ()):
            _check_inner(kind, index, written)
        bounded(kind, options)
    except PluginError as error:
        raise ValueError(str(error)) from None
    except PydanticCustomError:
        raise
    except ValueError as error:
        option, colon, what = str(error).partition(": ")
        if colon and option in options:
            raise PydanticCustomError("wrong_option", "{what}", {"path": [kind, option], "what": what}) from error
        raise ValueError(f"{kind}: {error}") from error
    except Exception as error:  # a plug-in's factory or module may raise anything
        raise ValueError(f"{kind}: {error}") from error


def _check_inner(kind: str, index: int, written: Any) -> None:
    place = [kind, "scorers", index]
    try:
        check_scorer(*inner_scorer(written))
    except PydanticCustomError as error:
        context = error.context or {}
        raise PydanticCustomError(error.type, error.message_template, {**context, "path": [*place, *context["path"]]}) from None
    except ValueError as error:
        raise PydanticCustomError("wrong_option", "{what}", {"path": place, "what": str(error)}) from None


def _check_names(kind: str, options: Mapping[str, Any]) -> None:
    factory = find("scorers", kind)
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters
    except NameError:  # annotations of a plug-in that exist for its type checker only
        parameters = inspect.signature(factory).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [*parameters, "name"]
    for option in options:
        if option not in parameters:
            hint = nearest(option, known) or f" (hint: it takes {', '.join(known)})"
            raise PydanticCustomError("unknown_option", "unknown option{hint}", {"path": [kind, option], "hint": hint})
    for option, value in options.items():
        annotation = parameters[option].annotation
        if annotation is not inspect.Parameter.empty and not isinstance(annotation, str):
            _check_type(kind, option, value, annotation)


def _check_type(kind: str, option: str, value: Any, annotation: Any) -> None:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise PydanticCustomError("wrong_option", "{what}", {"path": [kind, option], "what": what[:1].lower() + what[1:], "given": value}) from None
