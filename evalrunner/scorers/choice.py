"""Multiple choice: which letter did the answer choose? English and Chinese."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import regex as re

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.text import REGEX_SECONDS, stands_in

_LATEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|boldsymbol)\s?\{([^{}]*)\}")
_MARKS = re.compile(r"[*_`$]+|^#+ ?|(?<=\n)#+ ?|\\[()\[\]]")
_OPEN = r"[\s(\[{【「《\"'“‘<]{0,9}"
_CLOSE = r"[)\]}】」》\"'”’>]{0,9}"
_END = r"\s*(?:$|[.,;:!?)\]}】」\n。、])"
_ENDS = re.compile(_END)
_NEXT_WORD = re.compile(r" ([a-z]+)")
_FILLER = (
    r"(?:(?:most likely|likely|probably|clearly|definitely|indeed|therefore|thus|then|simply|either|both|option|choice|letter|选项|选择|选)[\s,:]{0,3}){0,5}"
)
_AFTER_A = "because since as and but or not so is which while given due although though if by"
"""Words that may follow the letter A or I; before any other word they are the article and the pronoun."""

_SAID_TO_BE_THE_ANSWER = (
    r"(?:(?<![a-z])(?:answer|ans|(?:correct|right|best) (?:answer|option|choice|one|letter))(?: (?:choice|option))?(?: (?:to|for|of) [^.\n]{0,80}?)?"
    r"\s?(?:is|was|would be|should be|must be|[:=>\]】]|[-–—] )[\s:]*)" + _FILLER,
    r"答案[^A-Za-z。.!?\n不非]{0,12}\s?",
    r"(?:(?<!不)[应该当]|[故此以题]|正确|合适|符合)(?:的)?选(?:项|择|择项|答案)?(?:应为|应该是|是|为)?[\s:,]*" + _FILLER,
    r"(?:正确|合适|符合题意)的(?:一项)?是[\s:]*" + _FILLER,
    r"\\boxed\{",
)
_CHOSEN = (
    r"(?<!(?:not|n't|never|n’t) )(?<![a-z])(?:choose|chose|pick|select|go with|going with|opt for|settle on|choice is|option is)\s[\s:]*" + _FILLER,
    r"(?<![不勿别未误错筛])选(?:择)?(?:选项|答案)?[\s:]*",
)
_CONCLUDED = r"(?:(?<![a-z])(?:so|thus|therefore|hence|it is|it's|i think|i'd say)(?: it is| it's)?(?:,|:)? |(?:所以|因此|故|我认为|我觉得)(?:应该)?是?)"
_CALLED_CORRECT = (
    r"(?:(?:is|must be)(?: (?:clearly|therefore|thus|indeed))?(?: the)?(?: (?:only|most))? (?:correct|right|best|answer)"
    r"|(?:选项|项)?\s?(?:的?说法)?(?:是|为)?最?(?:正确|对的))"
)
_REJECTED_BEFORE = r"(?:\bnot|n['’]t(?: be)?|\bnor|\bneither|\bexcept|不是|不选|并非|排除)\s?(?:option |choice |选项)?"
_REJECTED_AFTER = r"(?:选项|项)?\s?(?:is|was|are)?\s?(?:not\b|n['’]t\b|isn['’]t\b|wrong|incorrect|false|错|不对|不正确|不符|有误|排除)"


def choice(*, letters: str = "ABCD", choices: str | None = None) -> Scorer:
    r"""1 when the letter the answer settles on is the target's, else 0.

    What counts, in this order: the last letter said to be the answer ("the answer is (B)", "答案：B", "故选 B", "\boxed{B}"), the last one chosen ("I pick B",
    "选 B", "so B."), a last line that is a letter, a letter that begins the answer ("B. Paris"), the only one called correct, the only one that stands
    alone. With `choices` (a data column with the options in order) an answer that names exactly one option's text counts too. Who settles on two settles
    on none.

    Raises ValueError for fewer than two letters.
    """
    known = letters.upper()
    if len(set(known)) < 2 or len(set(known)) != len(known):
        raise ValueError(f"letters: give each letter once, at least two, not {letters!r}")
    reader = _Reader(known)

    def score(request: Request, completion: Completion) -> Score:
        wanted = _wanted(request.target or "", known)
        found = reader.chosen(_plain(completion.output or ""), _options(request.sample.data, choices))
        if found == wanted:
            return Score(value=1.0)
        return Score(value=0.0, why=f"chose {found}, expected {wanted}" if found else f"no choice found, expected {wanted}")

    return RowScorer(score, [choices], lambda data: _check_options(data, choices), lambda target: _wanted(target, known))


def _wanted(target: str, known: str) -> str:
    wanted = unicodedata.normalize("NFKC", target).strip(" \n\t().[]").upper()
    if wanted not in known or len(wanted) != 1:
        raise ScorerError(f"the target {target!r} is not one of the letters {known}")
    return wanted


def _options(data: Mapping[str, Any], column: str | None) -> list[str]:
    written = data.get(column) if column else None
    return [_plain(str(option)) for option in written] if isinstance(written, list | tuple) else []


def _check_options(data: Mapping[str, Any], column: str | None) -> None:
    if column and not isinstance(data.get(column), list | tuple | None):
        raise ValueError(f"choices: {column!r} should be a list of the options, not {data[column]!r:.80}")


def _plain(text: str) -> str:
    """Without Markdown's and LaTeX's marks, and with single spaces, so that the patterns need not know them."""
    text = _MARKS.sub("", _LATEX.sub(r"\1", unicodedata.normalize("NFKC", text)))
    return re.sub(r" ?\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip()


class _Reader:
    """The patterns for one set of letters."""

    def __init__(self, known: str) -> None:
        self._known = known
        one = f"[{re.escape(known)}{re.escape(known.lower())}]"
        letter = rf"(?<![\p{{Latin}}\d'’])(?P<letter>{one})(?![\p{{Latin}}\d'’+#]|-\w)"
        self._said = self._compiled("|".join(_SAID_TO_BE_THE_ANSWER), letter)
        self._chosen = self._compiled("|".join(_CHOSEN), letter)
        self._concluded = re.compile(rf"{_CONCLUDED}{_OPEN}{letter}(?={_CLOSE}{_END})", re.IGNORECASE)
        self._last = re.compile(rf"(?:^|\n){_OPEN}{letter}{_CLOSE}[.。]?$")
        self._first = re.compile(
            rf"{_OPEN}(?:(?:option|choice) |选项)?{_OPEN}{letter}{_CLOSE}\s?(?:$|[.:,;、\n]|[-–—] |because\b)|{_OPEN}{letter}\s?[)\]】]", re.IGNORECASE
        )
        self._correct = re.compile(rf"{letter}{_CLOSE}\s?{_CALLED_CORRECT}", re.IGNORECASE)
        self._alone = re.compile(letter)
        self._rejected = re.compile(rf"{_REJECTED_BEFORE}{_OPEN}{letter}|{letter}{_CLOSE}\s?{_REJECTED_AFTER}", re.IGNORECASE)
        self._another = re.compile(
            rf"{_CLOSE}\s?(?:[/&+,、和或与及]|还是|and\b|or\b)\s?(?:and |or )?{_OPEN}{letter}{_CLOSE}(?:\s?(?:and|or)\b|\s?[和或与及/]|{_END})", re.IGNORECASE
        )
        self._label = re.compile(rf"(?:^|\n){_OPEN}{letter}[.):、]")

    @staticmethod
    def _compiled(before: str, letter: str) -> re.Pattern[str]:
        return re.compile(rf"(?:{before}){_OPEN}{letter}", re.IGNORECASE)

    def chosen(self, text: str, options: Sequence[str]) -> str | None:
        """The letter `text` settles on, in capitals."""
        for pattern in (self._said, self._chosen, self._concluded):
            if matches := [match for match in pattern.finditer(text, timeout=REGEX_SECONDS) if _is_letter(match)]:
                return None if self._another.match(text, matches[-1].end("letter"), timeout=REGEX_SECONDS) else _letter(matches[-1])
        if match := self._last.search(text, timeout=REGEX_SECONDS):
            return _letter(match)
        first = None if self._lists_options(text) else self._first.match(text, timeout=REGEX_SECONDS)
        if first and not self._another.match(text, first.end("letter"), timeout=REGEX_SECONDS):
            return _letter(first)
        return _only(map(_letter, filter(_is_letter, self._correct.finditer(text, timeout=REGEX_SECONDS)))) or self._mentioned(text, options)

    def _lists_options(self, text: str) -> bool:
        """Whether the text repeats the options: lines that begin with A, B, …"""
        return [_letter(match) for match in self._label.finditer(text, timeout=REGEX_SECONDS)][:2] == list(self._known[:2])

    def _mentioned(self, text: str, options: Sequence[str]) -> str | None:
        named = [letter for letter, option in zip(self._known, options, strict=False) if stands_in(option.casefold(), text.casefold())]
        for option in options:
            text = re.sub(re.escape(option), " ", text, flags=re.IGNORECASE) if len(option) > 1 else text  # the C of "vitamin C" chooses nothing
        article = {"A", "I"} if len(text.split()) > 3 else set()
        single = _only(
            match["letter"]
            for match in self._alone.finditer(self._rejected.sub(" ", text, timeout=REGEX_SECONDS))
            if match["letter"] in set(self._known) - article
        )
        return single or _only(named)


def _letter(match: re.Match[str]) -> str:
    return str(match["letter"]).upper()


def _is_letter(match: re.Match[str]) -> bool:
    """Whether a letter in a sentence is meant as one: not the article, and lower-case only in brackets or at the end of a phrase."""
    text, start, end = match.string, match.start("letter"), match.end("letter")
    if match["letter"].islower():
        return text[start - 1 : start] in tuple("([{【「\"'“‘") or _ENDS.match(text, end) is not None
    follows = _NEXT_WORD.match(text, end)
    return match["letter"] not in "AI" or follows is None or follows[1] in _AFTER_A.split()


def _only(letters: Iterator[str] | Sequence[str]) -> str | None:
    found = set(letters)
    return found.pop() if len(found) == 1 else None
