"""Arithmetic as it is asked: `17 + 4 * 3`, `What is twelve times five?`, `三十五加七等于多少？`. A parser of its own; nothing is executed."""

from __future__ import annotations

import re
from fractions import Fraction

_WORDS = dict(  # noqa: C408 - a table of words reads best without quotes
    zero=0, one=1, two=2, three=3, four=4, five=5, six=6, seven=7, eight=8, nine=9, ten=10, eleven=11, twelve=12, thirteen=13, fourteen=14,
    fifteen=15, sixteen=16, seventeen=17, eighteen=18, nineteen=19, twenty=20, thirty=30, forty=40, fifty=50, sixty=60, seventy=70, eighty=80, ninety=90,
)  # fmt: skip
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "十": 10, "百": 100, "千": 1_000, "万": 10_000}
_WORDS |= dict(zip("零一二两三四五六七八九", (0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))

_ENGLISH = "|".join(word for word in [*_WORDS, *_SCALES] if word.isascii())
_NUMBER_WORDS = re.compile(rf"\b(?:{_ENGLISH})(?:[\s-]+(?:and\s+)?(?:{_ENGLISH}))*\b|[零一二两三四五六七八九十百千万]+", re.IGNORECASE)
_REWRITES = [
    (re.compile(pattern, re.IGNORECASE), sign)
    for pattern, sign in (
        (r"\bplus\b|\badded to\b|加上?|＋", "+"),
        (r"\bminus\b|减去?|[−–]", "-"),
        (r"\bmultiplied by\b|\btimes\b|乘以?|[×·]|(?<=\d)\s*x\s*(?=\d)", "*"),
        (r"\bdivided by\b|除以|÷", "/"),
        (r"\bto the power of\b|\^", "**"),
        (r"%\s*of\b|\bpercent of\b", "/100*"),
        (r"\bmod(?:ulo)?\b", "%"),
        (r"（", "("),
        (r"）", ")"),
    )
]
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_EXPRESSION = re.compile(rf"[(\s]*-?[(\s]*{_NUMBER}(?:[)\s]*(?:\*\*|[-+*/%])[(\s-]*{_NUMBER})+[)\s]*")
_TOKEN = re.compile(rf"\s*({_NUMBER}|\*\*|[-+*/%()])")
_LARGEST = 10**30


def solve(text: str) -> tuple[str, str] | None:
    """(expression, value) of the last expression with an operator in `text`, the value as a person would write it; None when none has a value.

    The expression is without blanks and words, so that the same sum in another wording is the same question.
    """
    text = _NUMBER_WORDS.sub(lambda match: f" {_number_of(match[0])} ", text)
    for pattern, sign in _REWRITES:
        text = pattern.sub(sign, text)
    for expression in reversed(_EXPRESSION.findall(text)):
        for attempt in (expression, expression.strip("() ")):
            try:
                return "".join(attempt.split()), _written(_Parser(attempt).value())
            except (ValueError, ZeroDivisionError):
                continue
    return None


def _number_of(words: str) -> int:
    """`three hundred and twenty-one`, `三百二十一`: units add up, a scale multiplies what stands before it."""
    total, part = 0, 0
    for word in re.findall(r"[a-z]+|[^\x00-\x7f]", words.lower()):
        if scale := _SCALES.get(word):
            total, part = (total + max(1, part) * scale, 0) if scale < 1_000 else ((total + part or 1) * scale, 0)
        else:
            part += _WORDS.get(word, 0)
    return total + part


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.4f}".rstrip("0").rstrip(".")


class _Parser:
    """sum := product (+|- product)*, product := power (*|/|% power)*, power := sign (** power)?"""

    def __init__(self, expression: str) -> None:
        self._tokens = _TOKEN.findall(expression)
        self._at = 0

    def value(self) -> Fraction:
        value = self._sum()
        if self._at != len(self._tokens):
            raise ValueError(self._tokens[self._at])
        return value

    def _next(self, *wanted: str) -> str | None:
        if self._at < len(self._tokens) and (not wanted or self._tokens[self._at] in wanted):
            self._at += 1
            return str(self._tokens[self._at - 1])
        return None

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._next("+", "-"):
            value += self._product() if sign == "+" else -self._product()
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while sign := self._next("*", "/", "%"):
            other = self._power()
            value = value * other if sign == "*" else value / other if sign == "/" else value % other
            if abs(value) > _LARGEST:
                raise ValueError("too large")
        return value

    def _power(self) -> Fraction:
        if self._next("-"):
            return -self._power()
        base = self._atom()
        if not self._next("**"):
            return base
        exponent = self._power()
        if exponent.denominator != 1 or abs(exponent) > 64 or abs(base) > 10_000:
            raise ValueError("too large")
        return Fraction(base**exponent.numerator)

    def _atom(self) -> Fraction:
        if self._next("("):
            value = self._sum()
            if not self._next(")"):
                raise ValueError("unbalanced")
            return value
        return Fraction((self._next() or "").replace(",", ""))
