"""Verdicts: what a judge may say, what each word is worth, and how the last one is read out of what it said."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import regex as re

from evalrunner.errors import ScorerError
from evalrunner.records import Verdict

Scale = Mapping[str, float]
"""Verdict -> score, 0..1, in the order in which the judge is told of them."""

PASS_FAIL: Scale = {"pass": 1.0, "fail": 0.0}
PREFERENCE: Scale = {"A": 1.0, "tie": 0.5, "B": 0.0}
LABELS_OF_PREFERENCE: Scale = {"answer": 1.0, "tie": 0.5, "reference": 0.0}
MOST_STEPS = 101
_AS_TEXT = {"true": True, "false": False}
"""As a spreadsheet writes them."""
_DECODER = json.JSONDecoder()
_RANGE = re.compile(r"(\d{1,3})\s*-\s*(\d{1,3})")


def scale_of(written: str | Mapping[str | int, float]) -> Scale:
    """`pass-fail`, `1-5` (any two whole numbers: the lowest is 0, the highest 1), or verdicts with their scores. Raises ValueError."""
    if not isinstance(written, str):
        scale = {str(word).strip(): float(value) for word, value in written.items()}
        if len({word.casefold() for word in scale}) < 2 or not all(0 <= value <= 1 for value in scale.values()) or len(scale) != len(written):
            raise ValueError("scale: give at least two different verdicts, each with its score from 0 to 1")
        return scale
    if written == "pass-fail":
        return PASS_FAIL
    if (steps := _RANGE.fullmatch(written.strip())) and 0 < (width := int(steps[2]) - int(steps[1])) < MOST_STEPS:
        return {str(int(steps[1]) + step): step / width for step in range(width + 1)}
    raise ValueError(f"scale: {written!r} is neither pass-fail, two whole numbers such as 1-5, nor a mapping of verdicts to scores")


def read_verdict(text: str, scale: Scale) -> Verdict:
    """The last JSON object in `text` with a valid verdict: whatever a judge quotes before it comes to its own does not count. Raises ScorerError."""
    known = {word.casefold(): word for word in scale}
    for start in reversed([at for at, char in enumerate(text) if char == "{"]):
        try:
            found, _ = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        word = known.get(_word(found.get("verdict"))) if isinstance(found, dict) else None
        if word is not None:
            reason = found.get("reason")
            return Verdict(verdict=word, score=scale[word], reason=reason.strip() if isinstance(reason, str) else "")
    raise ScorerError(f"the judge gave no verdict that can be read: {text[-200:]!r}")


def label_of(value: Any, scale: Scale) -> float | None:
    """A person's label on the same scale: a verdict, or true / false for the best and the worst. None where the row has none. Raises ValueError."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return max(scale.values()) if value else min(scale.values())
    for word, score in scale.items():
        if word.casefold() == _word(value):
            return score
    if _word(value) in _AS_TEXT:
        return label_of(_AS_TEXT[_word(value)], scale)
    numeric = [score for score in scale.values() if str(value) in {str(score), f"{score:g}"}]
    if numeric and not any(word.isdigit() for word in scale):
        return numeric[0]
    raise ValueError(f"the label {value!r} is none of {', '.join(scale)}")


def _word(value: Any) -> str:
    """As it is compared: `4`, `4.0` and `"4"` are one verdict."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if isinstance(value, bool) or value is None else str(value).strip().casefold()
