"""The scorer of function calls: which functions an answer calls, and with which arguments.

The target is JSON, in one of two forms (a list; alone stands for a list of one; `[]`: nothing may be called):

    [{"name": "get_weather", "arguments": {"city": "Rome"}}]             these arguments, no more and no fewer
    [{"get_weather": {"city": ["Rome", "Roma"], "unit": ["C", ""]}}]     as BFCL has it: acceptable values of each argument, "" where it may be left out
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import regex as re

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score

_IGNORED = re.compile(r"[\s,./\-_*^'\"‘’“”]+")
"""What BFCL ignores in texts (Berkeley Function-Calling Leaderboard, its AST checker), and quotation marks, which it makes alike."""
_SHOWN = 80

Same = Callable[[Any, Any], bool]


class Expected(NamedTuple):
    """One call of a target: of each argument the acceptable values; `optional` ones may be left out."""

    name: str
    arguments: Mapping[str, Sequence[Any]]
    optional: frozenset[str]
    nested: bool
    """Whether objects inside the values list acceptable values, too."""


def arguments_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """What a call's arguments say; none at all is `{}`. Raises ValueError where they are no JSON object."""
    text = call.get("arguments") or ""
    if isinstance(text, dict):
        return text
    try:
        arguments = json.loads(text, parse_constant=_refuse) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the arguments of {call.get('name')} are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of {call.get('name')} are not a JSON object")  # noqa: TRY004 - what a model wrote is a value, not a type
    return arguments


def tool_calls(*, ordered: bool = False, texts: Literal["loose", "exact"] = "loose", turn: Literal["all", "first", "last"] = "all") -> Scorer:
    """1 when the answer makes the target's calls, all of them and no others, else 0; the reason says what differs.

    `ordered`: in the target's order. `texts`: `loose` compares them as BFCL does, without case, spaces, quotes and `, . / - _ * ^`. `turn`: whose calls
    count where tool calls were answered and the conversation went on: of all turns, the first, or the last. Numbers compare as numbers, 5 and 5.0 alike.
    Dots in a function's name are underscores: the API takes no dots.
    """
    if texts not in ("loose", "exact") or turn not in ("all", "first", "last"):
        raise ValueError(f"texts is loose or exact, not {texts!r}" if texts not in ("loose", "exact") else f"turn is all, first or last, not {turn!r}")

    def same(given: Any, wanted: Any) -> bool:
        if isinstance(given, str) and isinstance(wanted, str):
            return given == wanted or (texts == "loose" and _loose(given) == _loose(wanted) != "")
        if isinstance(given, bool) or isinstance(wanted, bool):
            return given is wanted
        return bool(given == wanted)

    def score(request: Request, completion: Completion) -> Score:
        expected = expected_calls(request.target)
        given = _calls(completion, turn)
        mistakes = [[_mistake(call, wanted, same) for call in given] for wanted in expected]
        partners = dict(enumerate(range(min(len(expected), len(given))))) if ordered else _partners(mistakes, len(given))
        wrong = [_told(wanted, number, partners, given, mistakes) for number, wanted in enumerate(expected)]
        wrong += [f"not expected: {_shown(given[place])}" for place in range(len(given)) if place not in partners.values()]
        found = [reason for reason in wrong if reason]
        return Score(value=0.0, why="; ".join(found)[:1000]) if found else Score(value=1.0)

    return RowScorer(score, target=expected_calls)


def expected_calls(target: str | None) -> list[Expected]:
    """The calls of a target. Raises ScorerError for one that has neither form."""
    if target is None:
        raise ScorerError("there is nothing to compare with: the prompt set has no target")
    try:
        said = json.loads(target)
    except (ValueError, RecursionError) as error:
        raise ScorerError(f"the target is not JSON: {error}") from None
    return [_expected(call) for call in (said if isinstance(said, list) else [said])]


def _expected(call: Any) -> Expected:
    if isinstance(call, dict) and isinstance(call.get("function"), dict) and isinstance(call["function"].get("name"), str):
        call = call["function"]
    if isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments", {}), dict | str):
        try:
            arguments = arguments_of(call)
        except ValueError as error:
            raise ScorerError(f"the target: {error}") from None
        return Expected(_name(call["name"]), {name: [value] for name, value in arguments.items()}, frozenset(), nested=False)
    if isinstance(call, dict) and len(call) == 1:
        [(name, accepted)] = call.items()
        if isinstance(accepted, dict):
            return Expected(_name(name), *_acceptable(accepted), nested=True)
    raise ScorerError(f"the target holds no call of the form {{name, arguments}} or {{function: {{argument: [values]}}}}: {call!r:.100}")


def _acceptable(arguments: Mapping[str, Any]) -> tuple[dict[str, list[Any]], frozenset[str]]:
    """(acceptable values, what may be left out); a value alone stands for a list of one."""
    listed = {name: values if isinstance(values, list) else [values] for name, values in arguments.items()}
    return listed, frozenset(name for name, values in listed.items() if "" in values)


def _calls(completion: Completion, turn: str) -> list[Mapping[str, Any]]:
    earlier = [[one["function"] for one in message["tool_calls"]] for message in completion.conversation if message.get("tool_calls")]
    turns = [*earlier, list(completion.tool_calls)]
    if len(turns) > 1 and not turns[-1]:
        del turns[-1]  # the model had stopped calling
    chosen = turns if turn == "all" else [turns[0]] if turn == "first" else [turns[-1]]
    return [call for calls in chosen for call in calls]


def _mistake(call: Mapping[str, Any], wanted: Expected, same: Same) -> str:
    """What is wrong with `call` if it is meant to be `wanted`; empty: nothing."""
    if _name(str(call.get("name"))) != wanted.name:
        return f"called {call.get('name')}, expected {wanted.name}"
    try:
        arguments = arguments_of(call)
    except ValueError as error:
        return str(error)
    wrong = _differences(arguments, wanted.arguments, wanted.optional, lambda given, other: _equal(given, other, same, nested=wanted.nested))
    return f"{wanted.name}: {', '.join(wrong)}" if wrong else ""


def _differences(given: Mapping[str, Any], accepted: Mapping[str, Sequence[Any]], optional: frozenset[str], equal: Same) -> list[str]:
    wrong = [f"{name} is missing" for name in accepted if name not in given and name not in optional]
    for name, value in given.items():
        if name not in accepted:
            wrong.append(f"{name} is not expected")
        elif not any(equal(value, other) for other in accepted[name]):
            told = " or ".join(_json(other) for other in accepted[name] if other != "") or "nothing"
            wrong.append(f"{name} is {_json(value)}, expected {told}")
    return wrong


def _equal(given: Any, wanted: Any, same: Same, *, nested: bool) -> bool:
    def equal(one: Any, other: Any) -> bool:
        return _equal(one, other, same, nested=nested)

    if isinstance(given, dict) and isinstance(wanted, dict):
        listed, optional = _acceptable(wanted) if nested else ({name: [value] for name, value in wanted.items()}, frozenset[str]())
        return not _differences(given, listed, optional, equal)
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(equal, given, wanted))
    return same(given, wanted)


def _partners(mistakes: Sequence[Sequence[str]], calls: int) -> dict[int, int]:
    """Expected call -> given call, as many right pairs as can be made (augmenting paths); what is left is paired as it best explains itself."""
    holder: dict[int, int] = {}

    def assign(wanted: int, tried: set[int]) -> bool:
        for place in range(calls):
            if not mistakes[wanted][place] and place not in tried:
                tried.add(place)
                if place not in holder or assign(holder[place], tried):
                    holder[place] = wanted
                    return True
        return False

    for wanted in range(len(mistakes)):
        assign(wanted, set())
    partners = {wanted: place for place, wanted in holder.items()}
    for wanted, row in enumerate(mistakes):
        free = [place for place in range(calls) if place not in partners.values()]
        if wanted not in partners and free:
            partners[wanted] = min(free, key=lambda place: row[place].startswith("called "))
    return partners


def _told(wanted: Expected, number: int, partners: Mapping[int, int], given: Sequence[Any], mistakes: Sequence[Sequence[str]]) -> str:
    if number in partners:
        return mistakes[number][partners[number]]
    return f"{wanted.name} was not called" if given else f"no call was made, expected {wanted.name}"


def _name(name: str) -> str:
    return name.replace(".", "_")


def _loose(text: str) -> str:
    return _IGNORED.sub("", unicodedata.normalize("NFKC", text)).casefold()


def _shown(call: Mapping[str, Any]) -> str:
    return f"{call.get('name')}({call.get('arguments') or ''})"[:_SHOWN]


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")
