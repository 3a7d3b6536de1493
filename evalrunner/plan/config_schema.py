"""The config's JSON Schema, for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from evalrunner.plan.config_types import Settings
from evalrunner.plan.parameters import LISTS, Parameters
from evalrunner.plan.providers import BUILT_IN


def build_schema() -> dict[str, Any]:
    """Pydantic's schema, loosened where a config may be shorter."""
    schema = Settings.model_json_schema()
    defs: dict[str, Any] = schema["$defs"]
    parameters = Parameters.model_json_schema(ref_template="#/$defs/{model}")["properties"]
    defs["Grid"] = {
        "type": "object",
        "description": "Request parameters: a list is swept, a scalar is fixed.",
        "additionalProperties": False,
        "properties": {name: _one_or_many(name, one) for name, one in parameters.items()},
    }
    defs["ModelFields"] = _or(defs["ModelFields"], {"type": "string", "minLength": 1, "description": "A model of the provider dashscope."})
    scorer = defs["ScorerFields"]["properties"]["options"] | {"type": ["object", "null"]}
    defs["ScorerFields"] = _or(
        {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": scorer},
        {"type": "string", "description": "exact, includes, regex, numeric, json, a plug-in's name or module:attribute."},
    )
    prompts = defs["PromptSetBlock"]["properties"]["prompts"]
    for branch in prompts["anyOf"]:
        if "additionalProperties" in branch:
            branch["additionalProperties"] = _or(branch["additionalProperties"], {"type": "string", "description": "One user message."})
    schema["properties"]["stream"] = _or(schema["properties"]["stream"], {"type": "boolean"})
    _name_kinds(schema["properties"]["providers"], defs)
    text = json.dumps(schema)
    schema["$defs"] = {name: block for name, block in defs.items() if f'"#/$defs/{name}"' in text}
    for part in _parts(schema):
        if isinstance(part.get("title"), str):
            del part["title"]  # pydantic's are the keys once more
        if "default" in part and part["default"] is None:
            del part["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "evalrunner config"}


def _name_kinds(providers: dict[str, Any], defs: dict[str, Any]) -> None:
    """`kind` decides what a provider's options are; a built-in one knows its kind by its name."""
    kinds: dict[str, dict[str, Any]] = {
        "ProviderBlock": {"const": "openai"},
        "DashScopeProvider": {"const": "dashscope"},
        "SimulatorProvider": {"const": "simulator"},
        "LocalProvider": {"const": "local"},
    }
    for block, kind in kinds.items():
        defs[block]["properties"]["kind"] = kind | {"description": defs[block]["properties"]["kind"].get("description", "")}
        defs[block]["required"] = []
    written = {"anyOf": [{"$ref": f"#/$defs/{block}"} for block in (*kinds, "PluginProvider")], "required": ["kind"]}
    homes = {"openai": "ProviderBlock", "dashscope": "DashScopeProvider", "simulator": "SimulatorProvider", "local": "LocalProvider"}
    providers["properties"] = {
        name: {"anyOf": [{"$ref": f"#/$defs/{homes[built_in.kind]}", "properties": {"kind": {"const": built_in.kind}}}, written]}
        for name, built_in in BUILT_IN.items()
    }
    providers["additionalProperties"] = written


def _one_or_many(name: str, one: dict[str, Any]) -> dict[str, Any]:
    single = {key: value for key, value in one.items() if key not in {"default", "title"}}
    single.get("anyOf", []).sort(key=lambda branch: branch.get("type") == "null")
    many = {"type": "array", "minItems": 1, "items": {key: value for key, value in single.items() if key != "description"}}
    return {"anyOf": [single, many]} if name not in LISTS else {"anyOf": [single, many], "description": "A list is one value; a list of lists is swept."}


def _or(long: dict[str, Any], short: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {key: long[key] for key in ("description", "default") if key in long}
    return {"anyOf": [short, long], **about}


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(inner)
