"""The brains: what a question's right answer is, and what a plausible wrong one looks like. Pure; no brain knows of models, seeds or accuracies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import DecodeError, Struct, json

from evalrunner.cost.tokens import texts
from evalrunner.simulator.arithmetic import solve
from evalrunner.simulator.calls import Call

_LETTER = re.compile(r"\(?([A-H])\)?\.?$")
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?%?$")
_OPPOSITES = {
    "true": "false",
    "yes": "no",
    "correct": "incorrect",
    "valid": "invalid",
    "positive": "negative",
    "good": "bad",
    "up": "down",
    "left": "right",
    "是": "否",
    "对": "错",
    "正确": "错误",
    "有": "没有",
    "正面": "负面",
}
_OPPOSITES |= {wrong: right for right, wrong in _OPPOSITES.items()}

Calls = list[tuple[str, dict[str, Any]]]


class Solution(Struct, frozen=True):
    """`subject` names the question, whatever it is wrapped in; `wrong(draw)` is a wrong answer, None where
    there is none. A list of (name, arguments) is a tool call. `accuracy` and `request` replace the model's accuracy and the draw of this very request.
    """

    subject: str
    right: str | Calls
    wrong: Callable[[int], str | Calls] | None
    accuracy: float | None = None
    request: str | None = None


Brain = Callable[[Call], Solution | None]


def last_text(call: Call) -> str:
    """The text of the last message that a user (or a tool) wrote."""
    for message in reversed(call.messages):
        if message.get("role") in {"user", "tool"} and (found := texts(message)):
            return "\n".join(found)
    return ""


def arithmetic(call: Call) -> Solution | None:
    """The value of the last expression in the question, in digits or in words."""
    found = solve(last_text(call))
    if found is None:
        return None
    expression, value = found
    return Solution(expression, value, lambda draw: wrong_text(value, "", draw))


def echo(call: Call) -> Solution:
    """What was said, said again; never wrong."""
    return Solution("", last_text(call) or "...", None)


class Lookup:
    """Answers from a data set: finds the longest known question inside the prompt. An answer that is a tool call is left to `ToolCaller`."""

    def __init__(self, answers: Iterable[tuple[str, Any]]) -> None:
        self._answers = {_squeezed(question): answer for question, answer in answers if question.strip()}
        self._head = min((len(question) for question in self._answers), default=0)
        self._head = min(self._head, 24)
        self._heads: dict[str, list[str]] = {}
        for question in sorted(self._answers, key=len, reverse=True):
            self._heads.setdefault(question[: self._head], []).append(question)
        self._others: list[str] = [text for answer in list(self._answers.values())[:500] if (text := said(answer)) is not None]

    def __call__(self, call: Call) -> Solution | None:
        prompt = last_text(call)
        found = self.find(prompt)
        right = None if found is None else said(found[1])
        if found is None or right is None:
            return None
        return Solution(found[0], right, lambda draw: wrong_text(right, prompt, draw, self._others))

    def find(self, prompt: str) -> tuple[str, Any] | None:
        """(question, answer) of the longest question that the prompt holds."""
        prompt = _squeezed(prompt)
        if prompt in self._answers:
            return prompt, self._answers[prompt]
        best = ""
        for start in range(len(prompt) - self._head + 1 if self._heads else 0):
            for question in self._heads.get(prompt[start : start + self._head], ()):
                if len(question) > len(best) and prompt.startswith(question, start):
                    best = question
        return (best, self._answers[best]) if best else None


def said(answer: Any) -> str | None:
    """An answer of a data set as a model would say it; None for tool calls. `... #### 18` (GSM8K) is 18."""
    if isinstance(answer, str):
        return answer.rpartition("#### ")[2].strip()
    if expected_calls(answer) is not None:
        return None
    return json.encode(answer).decode()


def expected_calls(answer: Any) -> Calls | None:
    """Tool calls written as {name, arguments}, as {function: {argument: value}} or as BFCL's {function: {argument: [acceptable values]}}; else None."""
    listed = answer if isinstance(answer, list) else [answer]
    calls: Calls = []
    for one in listed:
        if not isinstance(one, Mapping):
            return None
        if isinstance(one.get("name"), str) and isinstance(one.get("arguments"), Mapping):
            calls.append((one["name"], dict(one["arguments"])))
        elif isinstance(answer, list) and len(one) == 1 and isinstance(arguments := next(iter(one.values())), Mapping):
            calls.append((next(iter(one)), {name: _first(value) for name, value in arguments.items() if not _optional(value)}))
        else:
            return None
    return calls or None


def _optional(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and value[0] == "" and len(value) > 1


def _first(value: Any) -> Any:
    """BFCL lists what is acceptable at every level: for each argument, and for each field of an object."""
    return _said(value[0]) if isinstance(value, list) and value else value


def _said(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _first(inner) for name, inner in value.items() if not _optional(inner)}
    return [_said(inner) for inner in value] if isinstance(value, list) else value


def wrong_text(right: str, prompt: str, draw: int, others: Sequence[str] = ()) -> str:
    """A plausible wrong answer: another option's letter, a number that is a little off, the opposite, a JSON object with one wrong field, another answer."""
    if right[:1] in "{[":
        return _wrong_json(right, draw)
    if letter := _LETTER.fullmatch(right):
        options = sorted({*re.findall(r"(?:^|[\s(])([A-H])[).:、．]", prompt), "A", "B", "C", "D"} - {letter[1]})
        return right.replace(letter[1], options[draw % len(options)])
    if _NUMBER.fullmatch(right):
        return _wrong_number(right, draw)
    if opposite := _OPPOSITES.get(right.lower()):
        return opposite.capitalize() if right[:1].isupper() else opposite
    alike = [other for other in others if other != right and not _NUMBER.fullmatch(other) and not _LETTER.fullmatch(other) and other[:1] not in "{["]
    return alike[draw % len(alike)] if alike else "I am not sure." if right.isascii() else "我不确定。"


def _wrong_json(right: str, draw: int) -> str:
    try:
        return json.encode(wrong_value(json.decode(right), draw)).decode()
    except DecodeError:
        return right[: len(right) // 2]


def wrong_value(value: Any, draw: int) -> Any:
    """The same JSON value with one thing wrong in it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + (1, -1, 2, 10)[draw % 4]
    if isinstance(value, list) and value:
        return [*value[:-1], wrong_value(value[-1], draw)]
    if isinstance(value, dict) and value:
        name = sorted(value)[draw % len(value)]
        return {**value, name: wrong_value(value[name], draw // 7)}
    if isinstance(value, str) and (_NUMBER.fullmatch(value) or value.lower() in _OPPOSITES):
        return wrong_text(value, "", draw)
    return value[: len(value) // 2] or "unknown" if isinstance(value, str) else "unknown"


def _wrong_number(right: str, draw: int) -> str:
    digits = right.rstrip("%").replace(",", "")
    places = len(digits.partition(".")[2])
    number = float(digits) if places else int(digits)
    off = (1, -1, 10, -10, 2, number)[draw % 6] or 1
    written = f"{number + off * 10**-places:.{places}f}" if places else str(number + int(off))
    return written + ("%" if right.endswith("%") else "")


def _squeezed(text: str) -> str:
    return " ".join(text.split())
