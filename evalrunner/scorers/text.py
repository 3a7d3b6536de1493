"""Scorers that compare text: exact, includes, regex.

A factory takes its options as keyword arguments and returns a function (request, completion) -> Score. The target is the prompt set's, rendered for the
sample; `accept` names a data column with further right answers (a list or one value).
"""

import unicodedata
from collections.abc import Callable, Iterable
from typing import Literal

import regex as re

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score

REGEX_SECONDS = 1.0
"""A pattern that backtracks without end is cut off here, and the score is null."""


def normaliser(*, ignore_case: bool, ignore_punctuation: bool, ignore_space: bool) -> Callable[[str], str]:
    """Text as scorers compare it: Unicode NFKC (full-width forms are the same characters), outer space off, then what the options say."""

    def normalise(text: str) -> str:
        text = unicodedata.normalize("NFKC", text).strip()
        if ignore_case:
            text = text.casefold()
        if ignore_punctuation:
            text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
        return "".join(text.split()) if ignore_space else " ".join(text.split())

    return normalise


def right_answers(request: Request, accept: str | None) -> list[str]:
    """The target first, then what the sample's column `accept` holds. Raises ScorerError when there is none."""
    more = request.sample.data.get(accept) if accept else None
    extra: Iterable[object] = more if isinstance(more, list | tuple) else [] if more in (None, "") else [more]
    answers = [answer for answer in (request.target, *(str(item) for item in extra)) if answer is not None]
    if not answers:
        raise ScorerError("there is nothing to compare with: the prompt set has no target")
    return answers


def exact(*, ignore_case: bool = False, ignore_punctuation: bool = False, ignore_space: bool = False, accept: str | None = None) -> Scorer:
    """1 when the whole answer equals the target (or an accepted answer), else 0."""
    normalise = normaliser(ignore_case=ignore_case, ignore_punctuation=ignore_punctuation, ignore_space=ignore_space)

    def score(request: Request, completion: Completion) -> Score:
        answers = right_answers(request, accept)
        given = normalise(completion.output or "")
        if given in {normalise(answer) for answer in answers}:
            return Score(value=1.0)
        return Score(value=0.0, why=f"expected {answers[0]!r}")

    return RowScorer(score, [accept])


_LETTER = r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Nd}]"
"""Scripts whose words stand between spaces. In others they do not (Chinese), or little words grow on to them (Korean, Arabic, Hebrew)."""
_INSIDE_WORD = re.compile(rf"(?<={_LETTER})(?={_LETTER})|(?<=\d)(?=\.\d|,\d{{3}}(?!\d))|(?<=\d\.)(?=\d)|(?<=\d,)(?=\d{{3}}(?!\d))")


def stands_in(wanted: str, text: str, *, whole_words: bool = True) -> bool:
    """Whether `wanted` stands somewhere in `text`, as a word of its own: not art in party, nor 12 in 12.5."""
    start = text.find(wanted) if wanted else -1
    while start >= 0:
        if not whole_words or not (_INSIDE_WORD.match(text, start) or _INSIDE_WORD.match(text, start + len(wanted))):
            return True
        start = text.find(wanted, start + 1)
    return False


def includes(
    *,
    ignore_case: bool = True,
    ignore_punctuation: bool = False,
    ignore_space: bool = False,
    whole_words: bool = True,
    accept: str | None = None,
) -> Scorer:
    """1 when the target (or an accepted answer) stands somewhere in the answer, else 0.

    `whole_words`: "art" does not stand in "party", nor 12 in 3120 or 12.5, nor 200 in 1,200; it means nothing where the target begins or ends with a
    Chinese character, or one of another script that has no spaces to go by.
    """
    normalise = normaliser(ignore_case=ignore_case, ignore_punctuation=ignore_punctuation, ignore_space=ignore_space)

    def score(request: Request, completion: Completion) -> Score:
        answers = right_answers(request, accept)
        text = normalise(completion.output or "")
        if any(stands_in(normalise(answer), text, whole_words=whole_words) for answer in answers):
            return Score(value=1.0)
        return Score(value=0.0, why=f"{answers[0]!r} is not in the answer")

    return RowScorer(score, [accept])


def regex(
    *,
    pattern: str,
    group: int | str | None = None,
    take: Literal["first", "last"] = "first",
    ignore_case: bool = False,
    multiline: bool = False,
    dotall: bool = False,
) -> Scorer:
    """Without `group`: 1 when `pattern` is found in the answer. With `group`: 1 when what that group captured in the first (or last) match equals the target.

    Raises ValueError for a pattern that does not compile or a group it does not have.
    """
    flags = (re.IGNORECASE if ignore_case else 0) | (re.MULTILINE if multiline else 0) | (re.DOTALL if dotall else 0)
    try:
        compiled = re.compile(pattern, flags)
    except re.error as error:
        raise ValueError(f"pattern: {error}") from None
    if group is not None and (not 0 <= group <= compiled.groups if isinstance(group, int) else group not in compiled.groupindex):
        raise ValueError(f"group: the pattern has no group {group!r}")
    normalise = normaliser(ignore_case=ignore_case, ignore_punctuation=False, ignore_space=False)

    def score(request: Request, completion: Completion) -> Score:
        try:
            matches = list(compiled.finditer(completion.output or "", timeout=REGEX_SECONDS))
        except TimeoutError:
            raise ScorerError(f"the pattern did not finish within {REGEX_SECONDS:g} s on this answer") from None
        if not matches:
            return Score(value=0.0, why="the pattern does not match")
        if group is None:
            return Score(value=1.0)
        found = matches[0 if take == "first" else -1].group(group) or ""
        wanted = right_answers(request, None)[0]
        if normalise(found) == normalise(wanted):
            return Score(value=1.0)
        return Score(value=0.0, why=f"found {found!r}, expected {wanted!r}")

    return score
