"""The scorer of numbers, and how it reads them: as people and LaTeX write them, by patterns and bounded arithmetic. Nothing that a model wrote is evaluated."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple

import regex as re

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.text import REGEX_SECONDS

LONGEST = 4000
"""Characters past which a "number" is noise; keeps a model's output from buying unbounded arithmetic. So do the widths of the exponents below."""
LARGEST_BASE = 10**6

_LETTER = r"\p{Latin}\p{Greek}\p{Cyrillic}"
"""Scripts that have digits in names and units ("H2O", "m2"). After a Chinese character a number begins, and a minus is one."""
_SIGN = rf"(?:(?<![{_LETTER}\d)\]}}])(?P<minus>[-−–]))?(?:\\?[$€£¥₹])?"
_FRACTION = r"(?:(?P<whole>\d{1,9})\s)?(?<!\d/)(?P<over>\d+)/(?P<under>\d+)(?![/.]?\d)"
_DECIMAL = r"(?:(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)"
_TIMES_TEN = rf"(?:[eE](?P<e>[-+]?\d{{1,4}})(?![{_LETTER}\d])|\s?(?:[×x*]|\\times|\\cdot)\s?10\^(?P<ten>[-+]?\d{{1,4}})(?!\d))"
_NUMBER = re.compile(
    rf"{_SIGN}(?<![{_LETTER}\d_^]|\d\.)(?:{_FRACTION}|(?P<decimal>{_DECIMAL})(?:{_TIMES_TEN}|\^(?P<power>[-+]?\d{{1,3}})(?!\d))?)",
)
_REWRITTEN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"(?<=\d)(?:\{,\}|\\[, ]|[\u00a0\u2009\u202f_'’])(?=\d{3}(?!\d))"), ","),  # 1{,}234
    (re.compile(r"([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"), r"^\1"),
    (re.compile(r"([₀₁₂₃₄₅₆₇₈₉]+)"), r"_\1"),
    (re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞]|\\[dt]?frac)"), " "),  # 3½
]
_REWRITTEN_PLAIN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"\\[dt]?frac\s?(?:\{\s?(-?)(\d+)\s?\}|(\d))\s?(?:\{\s?(\d+)\s?\}|(\d))"), r"\1\2\3/\4\5"),
    (re.compile(r"\^\{\s?([-+]?\d+)\s?\}"), r"^\1"),
    (re.compile(r"_\{[^{}]*\}"), ""),
    (re.compile(r"(?<!\d)\^[-+]?\d+"), ""),  # m², not a number of its own
    (re.compile(r"(?<![A-Za-z])(?:RMB|CNY|USD|EUR|GBP|JPY|HKD|Rs\.?)(?=\d)"), " "),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}"), r" \1"),
]
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


class Number(NamedTuple):
    """A number in a text: as it was written, without thousands commas, and what it is worth."""

    text: str
    value: Fraction


def numeric(*, tolerance: float = 0.0, relative: bool = False, take: Literal["first", "last"] = "last") -> Scorer:
    r"""1 when the last (or first) number in the answer is within `tolerance` of the last number in the target. A \boxed{…} comes before the rest.

    `relative`: the tolerance is a share of the target (0.01 = 1 %). Raises ValueError for a negative tolerance.
    """
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance: must be at least 0, not {tolerance!r}")
    allowed = Fraction(str(tolerance))

    def score(request: Request, completion: Completion) -> Score:
        wanted = _wanted(request.target or "")
        found = number(completion.output or "", take)
        if found is None:
            return Score(value=0.0, why=f"no number in the answer, expected {wanted.text}")
        close = abs(found.value - wanted.value) <= (abs(wanted.value) * allowed if relative else allowed)
        return Score(value=1.0) if close else Score(value=0.0, why=f"found {found.text}, expected {wanted.text}")

    return RowScorer(score, target=_wanted)


def _wanted(target: str) -> Number:
    if (wanted := number(target)) is None:
        raise ScorerError(f"the target {target!r} has no number to compare with")
    return wanted


def number(text: str, take: Literal["first", "last"] = "last") -> Number | None:
    r"""The last (or first) number in a text, of its last box that has one if any has. Raises ScorerError where reading takes too long.

    "1,234.50", "-$5", "3 1/2", "½", "1.2×10⁵", "\frac{3}{4}" are numbers. Digits in words, exponents of units and indices are none ("H2O", "m²", "x_1"); a
    minus after a word or number is a dash. A percentage is the number before the sign; the parts of dates, times and ranges are numbers.
    """
    plain = _plain(text)
    for part in (*reversed(_BOXED.findall(plain)), plain):
        for match in _matches(part) if take == "first" else reversed(_matches(part)):
            if (value := _value(match)) is not None:
                return Number(match.group().replace(",", ""), value)
    return None


def _plain(text: str) -> str:
    for pattern, plain in _REWRITTEN:
        text = pattern.sub(plain, text)
    text = unicodedata.normalize("NFKC", text).replace("\N{FRACTION SLASH}", "/").replace("^\N{MINUS SIGN}", "^-")
    for pattern, plain in _REWRITTEN_PLAIN:
        text = pattern.sub(plain, text)
    return text


def _matches(plain: str) -> list[re.Match[str]]:
    try:
        return list(_NUMBER.finditer(plain, timeout=REGEX_SECONDS))
    except TimeoutError:
        raise ScorerError(f"the answer's numbers could not be read within {REGEX_SECONDS:g} s") from None


def _value(match: re.Match[str]) -> Fraction | None:
    """None where it is too long, too large or undefined."""
    if len(match.group()) > LONGEST:
        return None
    try:
        value = _unsigned(match.group)
    except (ZeroDivisionError, ValueError):  # `regex` knows digits of newer alphabets than Python does
        return None
    return -value if value is not None and match["minus"] else value


def _unsigned(group: Callable[[str], str | None]) -> Fraction | None:
    if over := group("over"):
        return Fraction(int(group("whole") or 0)) + Fraction(int(over), int(group("under") or 0))
    value = Fraction((group("decimal") or "").replace(",", ""))
    if power := group("power"):
        return value ** int(power) if value <= LARGEST_BASE and value.denominator <= LARGEST_BASE else None
    return value * Fraction(10) ** int(group("e") or group("ten") or 0)
