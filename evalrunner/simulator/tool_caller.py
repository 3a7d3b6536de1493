"""The brain that calls tools: as the data set says where the question is known, else the tool whose words the question shares, its arguments read from it.
Once they have returned, it says what they did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from evalrunner.cost.tokens import texts
from evalrunner.simulator.brains import Calls, Lookup, Solution, expected_calls, last_text, wrong_value
from evalrunner.simulator.calls import Call

_WORD = re.compile(r"[a-z]{3,}|[\u4e00-\u9fff]")
_SEPARATOR = re.compile(r"今天|明天|现在|目前|的|天气|怎么样|如何|吗|请问|查询|一下|什么|几|多少|告诉我|帮我|是|？|，|。|\?|!|,")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_NAMED = re.compile(r"[\"'“‘「]([^\"'”’」]+)[\"'”’」]|\b(?:in|of|for|at|to|from)\s+((?:[A-Z][\w-]*\s?)+)|(?<=\w )((?:[A-Z][\w-]+\s?)+)")


class ToolCaller:
    """`eager`: call a tool even where the question shares no word with any; else only where one is asked for, known or plainly meant."""

    def __init__(self, lookup: Lookup, *, eager: bool) -> None:
        self._lookup, self._eager = lookup, eager

    def __call__(self, call: Call) -> Solution | None:
        if not call.tools:
            return None
        if results := _results(call.messages):
            return Solution("", "\n".join(results), None)
        prompt = last_text(call)
        found = self._lookup.find(prompt)
        calls = expected_calls(found[1]) if found else None
        if calls is None and (guessed := self._guess(call, prompt)) is not None:
            calls = [guessed]
        if calls is None:
            return None
        if not call.params.get("parallel_tool_calls"):
            calls = calls[:1] if found is None or len(calls) > 1 else calls
        names = [tool["function"]["name"] for tool in call.tools]
        plain = {name.replace(".", "_"): name for name in names}  # the service refuses dots, so data sets with dots are asked without
        right = [(plain.get(name.replace(".", "_"), name), arguments) for name, arguments in calls]
        accepted = _accepted(found[1]) if found else {}
        return Solution(found[0] if found else prompt, right, lambda draw: _wrong(right, names, accepted, draw))

    def _guess(self, call: Call, prompt: str) -> tuple[str, dict[str, Any]] | None:
        choice = call.params.get("tool_choice")
        forced = choice["function"]["name"] if isinstance(choice, dict) else None
        words = set(_WORD.findall(prompt.lower()))
        best, shared = None, -1
        for tool in call.tools:
            function = tool["function"]
            described = set(_WORD.findall(f"{function['name']} {function.get('description') or ''}".lower()))
            if (forced is None or function["name"] == forced) and len(words & described) > shared:
                best, shared = function, len(words & described)
        if best is None or not (forced or self._eager or shared > 0):
            return None
        return best["name"], fill(best.get("parameters") or {}, prompt)


def _results(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the tools returned, if nobody said anything since."""
    last = list(takewhile(lambda message: message["role"] == "tool", reversed(messages)))
    return [text for message in reversed(last) for text in texts(message)]


def fill(schema: Mapping[str, Any], prompt: str) -> Any:
    """A value for a JSON schema, out of what the prompt says: its numbers, names and quotations in order, an enum's value where it is mentioned."""
    numbers = _NUMBER.findall(prompt)
    names = [next(group for group in match if group).strip() for match in _NAMED.findall(prompt)]
    names += [part for part in _SEPARATOR.split(prompt) if part and not part.isascii()]
    return _fill(schema, prompt, numbers, names)


def _fill(schema: Mapping[str, Any], prompt: str, numbers: list[str], names: list[str]) -> Any:
    if options := schema.get("enum"):
        return next((option for option in options if str(option).lower() in prompt.lower()), options[0])
    kind = schema.get("type")
    if kind in {"integer", "number", "float"}:
        number = float(numbers.pop(0)) if numbers else 1.0
        return int(number) if kind == "integer" else number
    if kind == "boolean":
        return True
    if kind == "array":
        return [_fill(schema.get("items") or {}, prompt, numbers, names)]
    if kind in {"object", "dict"} or "properties" in schema:
        properties = schema.get("properties") or {}
        return {name: _fill(properties[name], prompt, numbers, names) for name in schema.get("required") or properties if name in properties}
    return names.pop(0) if names else prompt[:40]


def _accepted(answer: Any) -> dict[str, set[str]]:
    """What else a data set takes for each argument of its first call, where it lists several values."""
    first = answer[0] if isinstance(answer, list) and answer else answer
    [arguments] = first.values() if isinstance(first, Mapping) and len(first) == 1 else [{}]
    return {name: {_plain(value) for value in values} for name, values in arguments.items() if isinstance(values, list)}


def _plain(value: Any) -> str:
    return "".join(filter(str.isalnum, str(value).lower()))


def _wrong(calls: Calls, names: list[str], accepted: Mapping[str, set[str]], draw: int) -> Calls:
    """One argument is off, and not what the data set takes instead; a call without arguments goes to another tool, or is not made as asked."""
    (name, arguments), *rest = calls
    others = [other for other in names if other != name]
    if arguments and (draw % 4 or not others):
        tries = (wrong_value(arguments, draw + further) for further in range(16))
        off = (given for given in tries if any(_plain(given[key]) not in accepted.get(key, {_plain(right)}) for key, right in arguments.items()))
        return [(name, next(off, {**arguments, "unknown": True})), *rest]
    return [(others[draw % len(others)] if others else name, arguments or {"unknown": True}), *rest]
