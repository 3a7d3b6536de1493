"""The scorer that reads the answer as JSON."""

import json
import unicodedata
from typing import Any

import jsonschema
import regex as re
from referencing import Registry

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score

FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)```", re.DOTALL)


def json_(
    *,
    schema: dict[str, Any] | None = None,
    field: str | list[str] | None = None,
    extract: bool = True,
    ignore_case: bool = False,
) -> Scorer:
    """Reads the answer as JSON. Alone: 1 when it is valid. With `schema` (JSON Schema): 1 when it fits.

    With `field` (one dotted path or a list): the share of these fields that equal the target's, the target being JSON too; 0 when a given `schema` does
    not fit. `extract` allows prose or a code fence around the JSON. Numbers compare as numbers, texts without outer space. Raises ValueError for a
    schema that is none.
    """
    if schema is not None:
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ValueError(f"schema: {error.message}") from None
    # An empty registry: a $ref to an address is an error, never a download.
    validator = jsonschema.Draft202012Validator(schema, registry=Registry()) if schema is not None else None
    fields = [field] if isinstance(field, str) else field
    if fields == []:
        raise ValueError("field: names no field")

    def score(request: Request, completion: Completion) -> Score:
        try:
            given = parse_json(completion.output or "", extract=extract)
        except ValueError as error:
            return Score(value=0.0, why=f"not valid JSON: {error}")
        if validator and (mistake := next(iter(validator.iter_errors(given)), None)) is not None:
            return Score(value=0.0, why=f"{mistake.json_path}: {mistake.message}"[:500])
        if fields is None:
            return Score(value=1.0)
        wanted = _wanted(request.target or "")
        wrong = [path for path in fields if not _equal(_at(given, path), _at(wanted, path), ignore_case=ignore_case)]
        return Score(value=1.0 - len(wrong) / len(fields), why=f"wrong: {', '.join(wrong)}" if wrong else "")

    return RowScorer(score, target=_wanted) if fields else score


def _wanted(target: str) -> Any:
    try:
        return parse_json(target, extract=False)
    except ValueError as error:
        raise ScorerError(f"the target is not JSON: {error}") from None


def parse_json(text: str, *, extract: bool) -> Any:
    """The JSON value in a text. With `extract`: the whole text, else the last code fence, else the first object or array that parses. Raises ValueError."""
    try:
        return _decode(text.strip())
    except ValueError:
        if not extract:
            raise
    for fenced in reversed(FENCE.findall(text, timeout=1.0)):
        try:
            return _decode(fenced.strip())
        except ValueError:
            continue
    for start in [i for i, char in enumerate(text) if char in "{["][:50]:
        try:
            return json.JSONDecoder().raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    raise ValueError("no JSON object or array in the answer")


_MISSING = object()


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def _equal(given: Any, wanted: Any, *, ignore_case: bool) -> bool:
    if given is _MISSING or wanted is _MISSING:
        return False
    if isinstance(given, str) and isinstance(wanted, str):
        a, b = (unicodedata.normalize("NFKC", text).strip() for text in (given, wanted))
        return a.casefold() == b.casefold() if ignore_case else a == b
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(_equal(a, b, ignore_case=ignore_case) for a, b in zip(given, wanted, strict=True))
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(_equal(given[name], wanted[name], ignore_case=ignore_case) for name in wanted)
    return bool(given == wanted)
