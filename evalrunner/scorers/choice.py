"""Multiple choice: which letter did the answer choose? English and Chinese."""

import unicodedata

import regex as re

from evalrunner.errors import ScorerError
from evalrunner.plugins import Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.text import REGEX_SECONDS


def choice(*, letters: str = "ABCD", choices: str | None = None) -> Scorer:
    r"""1 when the letter the answer settles on is the target's, else 0.

    What counts, in this order: the last explicit statement ("the answer is (B)", "答案：B", "选 B", "\boxed{B}"), a letter that begins the answer
    ("B. Paris", "(B)"), the only letter that stands alone. With `choices` (a data column with the options in order) an answer that names exactly one
    option's text counts too. Raises ValueError for fewer than two letters.
    """
    known = letters.upper()
    if len(set(known)) < 2 or len(set(known)) != len(known):
        raise ValueError(f"letters: give each letter once, at least two, not {letters!r}")
    one = f"[{re.escape(known)}{re.escape(known.lower())}]"
    alone = rf"(?<![A-Za-z0-9'’])({one})(?![A-Za-z0-9'’])"
    stated = re.compile(
        rf"(?:answer|choice|option)(?:\s+is)?\s*[:=]?\s*[*_(\[\s]*{alone}|(?:答案|选项|选择|应选|故选|选)(?:是|为)?\s*[:]?\s*[*(\[【「\s]*{alone}|\\boxed\{{\s*(?:\\text\{{)?{alone}",
        re.IGNORECASE,
    )
    first = re.compile(rf"[*_(\[【\s]*{alone}\s*(?:$|[.:,)\]】、*\n])")
    capital = re.compile(alone.replace(known.lower(), ""))

    def chosen(text: str, options: list[str]) -> str | None:
        if matches := list(stated.finditer(text, timeout=REGEX_SECONDS)):
            return next(group for group in matches[-1].groups() if group).upper()
        if match := first.match(text, timeout=REGEX_SECONDS):
            return str(match.group(1)).upper()
        single = {match.group(1) for match in capital.finditer(text, timeout=REGEX_SECONDS)} - ({"A", "I"} if len(text.split()) > 3 else set())
        if len(single) == 1:
            return str(single.pop())
        named = [letter for letter, option in zip(known, options, strict=False) if option and option.casefold() in text.casefold()]
        return named[0] if len(named) == 1 else None

    def score(request: Request, completion: Completion) -> Score:
        target = unicodedata.normalize("NFKC", request.target or "").strip().upper()
        wanted = target if target in known and len(target) == 1 else None
        if wanted is None:
            raise ScorerError(f"the target {request.target!r} is not one of the letters {known}")
        column = request.sample.data.get(choices) if choices else None
        options = [unicodedata.normalize("NFKC", str(option)).strip() for option in column] if isinstance(column, list | tuple) else []
        found = chosen(unicodedata.normalize("NFKC", completion.output or "").strip(), options)
        if found == wanted:
            return Score(value=1.0)
        return Score(value=0.0, why=f"chose {found}, expected {wanted}" if found else f"no choice found, expected {wanted}")

    return score
