"""Function definitions and what answers their calls: checked before anything is sent, the same for every row or each row's own.

Data sets write definitions in dialects. What is taken: OpenAI's `{type: function, function: {…}}` or the inner part alone; BFCL's and other languages'
names of types (`dict`, `float`, `tuple`, …), which become JSON Schema's; dots in names, which become underscores because the API takes none.
Every failure is a ValueError about one definition, row or key; whoever knows the place adds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jsonschema
import msgspec

from evalrunner.apart import SECONDS, Apart, Failed, apart, is_async, within
from evalrunner.engine.tools import Answer
from evalrunner.errors import PluginError
from evalrunner.plan.prompts import Text
from evalrunner.plan.sandbox import nearest
from evalrunner.plugins import find
from evalrunner.records import Sample

Definition = dict[str, Any]

CHOICES = ("auto", "none", "required")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELDS = frozenset({"name", "description", "parameters", "strict"})
_TYPES = (
    dict.fromkeys(("dict", "Dict", "map", "hashmap", "HashMap", "Object"), "object")
    | dict.fromkeys(("float", "double", "decimal", "Float"), "number")
    | dict.fromkeys(("int", "long", "Integer"), "integer")
    | dict.fromkeys(("str", "char", "String"), "string")
    | dict.fromkeys(("bool", "Boolean"), "boolean")
    | dict.fromkeys(("list", "tuple", "set", "List", "Array", "ArrayList"), "array")
    | dict.fromkeys(("any", "Any"), None)
)
"""None: a value of any type, which JSON Schema says by saying nothing."""
_SCHEMAS = ("items", "additionalProperties", "not", "contains")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions", "patternProperties")


def definition(value: Any) -> Definition:
    """One function as it is sent. Raises ValueError."""
    function = value.get("function") if isinstance(value, Mapping) and value.get("type") == "function" else value
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("should be a function: {name: …, description: …, parameters: {…}}")  # noqa: TRY004 - every failure here is a ValueError
    name = function["name"].replace(".", "_")
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name {name!r} should be 1 to 64 letters, digits, '_' and '-'")
    sent = {key: function[key] for key in function if key in _FIELDS and function[key] is not None}  # data sets keep notes of their own beside these
    for key in function:
        if key not in _FIELDS and (near := nearest(key, _FIELDS)):
            raise ValueError(f"the function {name}: unknown key {key!r}{near}")
    if not isinstance(sent.get("description", ""), str):
        raise ValueError(f"the function {name}: description should be text")  # noqa: TRY004 - as above
    parameters = _schema(sent.get("parameters", {"type": "object", "properties": {}}))
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise ValueError(f"the function {name}: parameters should be a JSON Schema of type object")
    if wrong := _wrong_schema(json.dumps(parameters)):
        raise ValueError(f"the function {name}: parameters are no JSON Schema: {wrong}")
    return {"type": "function", "function": {**sent, "name": name, "parameters": {"type": "object", **parameters}}}


def definitions(value: Any) -> list[Definition]:
    """All functions of one request. Raises ValueError."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("is not a JSON list of functions") from None
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        raise ValueError("should be a list of functions")
    found = [definition(one) for one in value]
    check_names([one["function"]["name"] for one in found])
    return found


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError where two functions are called the same."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two functions are called {twice[0]!r}")


def check_choice(choice: Any, names: Sequence[str] | None = None) -> None:
    """`names`: the functions there are, None where each row brings its own. Raises ValueError."""
    if isinstance(choice, str):
        if choice not in CHOICES:
            raise ValueError(f"should be {', '.join(CHOICES)} or {{type: function, function: {{name: …}}}}, not {choice!r}{nearest(choice, CHOICES)}")
        return
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict) or choice.get("type") != "function" or not isinstance(function.get("name"), str):
        raise ValueError(f"should be {', '.join(CHOICES)} or {{type: function, function: {{name: …}}}}")
    if names is not None and function["name"] not in names:
        raise ValueError(f"no function is called {function['name']!r}{nearest(function['name'], names)}")


def refused_by_dashscope(names: Sequence[str], choice: Any) -> str | None:
    """What of this DashScope takes not, though others do."""
    if "search" in names:
        return "DashScope takes no function called search (hint: call it web_search)"
    if choice == "required":
        return "DashScope does not know tool_choice required (hint: auto, none, or one function: {type: function, function: {name: …}})"
    return None


class Tools:
    """The functions of a prompt set: `given` for every row, or those in the row's `column`. `dashscope`: some of its models are asked there."""

    def __init__(self, given: list[Definition] | None, column: str | None, choice: Any, *, dashscope: bool) -> None:
        self.choice = choice
        self._given, self._column, self._dashscope = given, column, dashscope

    def of(self, fields: Mapping[str, Any]) -> list[Definition]:
        """As they are sent for one row. Raises ValueError."""
        if self._column is None:
            return self._given or []
        if self._column not in fields:
            raise ValueError(f"no field is called {self._column!r}{nearest(self._column, fields)}")
        found = definitions(fields[self._column])
        names = [tool["function"]["name"] for tool in found]
        if isinstance(self.choice, dict):
            check_choice(self.choice, names)
        if self._dashscope and (refused := refused_by_dashscope(names, None)):
            raise ValueError(refused)
        return found


class Templates:
    """Answers calls from templates, one per function. They see the row's fields, over them the call's arguments, and both as `sample` and `arguments`."""

    def __init__(self, templates: Mapping[str, str]) -> None:
        self._templates = {name.replace(".", "_"): Text(text) for name, text in templates.items()}

    def __call__(self, name: str, arguments: Mapping[str, Any], sample: Sample) -> str:
        if name not in self._templates:
            raise ValueError(f"{name} is not available")
        try:
            return self._templates[name].render({**sample.data, **arguments, "sample": sample.data, "arguments": arguments})
        except ValueError as error:  # the model reads this: the hint would tell it the names of the row's fields
            raise ValueError(str(error).partition(" (hint: ")[0]) from None


def answer(written: Mapping[str, str] | str, seconds: float = SECONDS) -> Answer:
    """What `tool_results` names: templates by function, or a plug-in, which has `seconds` for an answer. Raises ValueError."""
    if not isinstance(written, str):
        return Templates(written)
    if ":" not in written:
        raise ValueError("should be a template for each function, or a plug-in as module:attribute")
    try:
        function = find("tools", written)
        return _limited(function, seconds) if is_async(function) else _apart(apart("tools", written, {}, seconds))
    except PluginError as error:
        raise ValueError(str(error)) from None


def _limited(function: Any, seconds: float) -> Answer:
    return lambda name, arguments, sample: within(seconds, function(name, arguments, sample))


def _apart(process: Apart) -> Answer:
    async def result(name: str, arguments: Mapping[str, Any], sample: Sample) -> Any:
        reply = await process(name, arguments, sample)
        if isinstance(reply, Failed):
            raise ValueError(reply.message or reply.kind)  # noqa: TRY004 - whatever the tool raised, the model is told
        return reply.result

    return result


def _schema(value: Any) -> Any:
    """A schema with JSON Schema's names of types, wherever a schema may stand in it; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    return dict(_renamed(value))


def _renamed(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key == "type" and isinstance(value, str):
            if (kind := _TYPES.get(value, value)) is not None:
                yield key, kind
        elif key == "type" and isinstance(value, list):
            yield key, [_TYPES.get(kind, kind) if isinstance(kind, str) else kind for kind in value]
        elif key in _SCHEMAS:
            yield key, _schema(value)
        elif key in _LISTS and isinstance(value, list):
            yield key, [_schema(one) for one in value]
        elif key in _MAPS and isinstance(value, Mapping):
            yield key, {name: _schema(one) for name, one in value.items()}
        else:
            yield key, value


@lru_cache(maxsize=4096)
def _wrong_schema(text: str) -> str:
    """What is wrong with a schema, empty if nothing; kept, because each lane and prompt asks again."""
    try:
        jsonschema.Draft202012Validator.check_schema(msgspec.json.decode(text))
    except jsonschema.SchemaError as error:
        return f"{error.json_path}: {error.message}"[:300]
    return ""
