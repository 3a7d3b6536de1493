"""Instruction checks in the manner of IFEval (Zhou et al. 2023, arXiv 2311.07911): was the answer as long, formatted and worded as it was told to be?

The ids and their arguments are IFEval's, so its data files work as they are; the checks are our own reading of the paper's table of instructions.
"""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

import py3langid
import regex as re

from evalrunner.errors import ScorerError
from evalrunner.plugins import Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.structured import parse_json
from evalrunner.scorers.text import REGEX_SECONDS

Check = Callable[..., bool]
WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"'”’)]|$)|[。！？]+")
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def instructions(
    *,
    checks: list[dict[str, Any]] | None = None,
    ids: str = "instruction_id_list",
    arguments: str = "kwargs",
    level: Literal["prompt", "instruction"] = "prompt",
) -> Scorer:
    """1 when every instruction was followed (`level: prompt`), or the share of them that was (`level: instruction`).

    The instructions are `checks` (each `{id: ..., argument: value}`), else the sample's: a column of ids and one of arguments, in the same order.
    Raises ValueError for an id or argument that no check takes.
    """
    fixed = [(str(check.get("id")), {name: value for name, value in check.items() if name != "id"}) for check in checks or []]
    for name, options in fixed:
        _check_options(name, options)

    def score(request: Request, completion: Completion) -> Score:
        wanted = fixed or _of_sample(request.sample.data, ids, arguments)
        text = completion.output or ""
        broken = [name for name, options in wanted if not (text.strip() and CHECKS[name](text, **options))]
        share = 1 - len(broken) / len(wanted)
        value = share if level == "instruction" else float(not broken)
        return Score(value=value, why=f"not followed: {', '.join(broken)}" if broken else "")

    return score


def _of_sample(data: Mapping[str, Any], ids: str, arguments: str) -> list[tuple[str, dict[str, Any]]]:
    names, options = data.get(ids), data.get(arguments)
    if not isinstance(names, list) or not names or not isinstance(options, list) or len(names) != len(options):
        raise ScorerError(f"the sample needs a list {ids!r} and a list {arguments!r} of the same length")
    wanted = [(str(name), {key: value for key, value in (option or {}).items() if value is not None}) for name, option in zip(names, options, strict=True)]
    try:
        for name, option in wanted:
            _check_options(name, option)
    except ValueError as error:
        raise ScorerError(str(error)) from None
    return wanted


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    if name not in CHECKS:
        raise ValueError(f"checks: no instruction is called {name!r}; known: {', '.join(CHECKS)}")
    takes = CHECKS[name].__kwdefaults__ or {}
    if unknown := [option for option in options if option not in takes]:
        raise ValueError(f"checks: {name} takes {', '.join(takes) or 'no arguments'}, not {', '.join(unknown)}")


def _related(count: int, relation: str, number: int) -> bool:
    return count < number if relation == "less than" else count >= number


def _words(text: str) -> list[str]:
    return [str(word) for word in WORD.findall(text)]


def _keyword_frequency(text: str, *, keyword: str = "", frequency: int = 1, relation: str = "at least") -> bool:
    return _related(len(re.findall(re.escape(keyword), text, re.IGNORECASE)), relation, frequency)


def _letter_frequency(text: str, *, letter: str = "", let_frequency: int = 1, let_relation: str = "at least") -> bool:
    return _related(text.casefold().count(letter.casefold()), let_relation, let_frequency)


def _keywords(text: str, *, keywords: list[str] | None = None) -> bool:
    return all(re.search(re.escape(word), text, re.IGNORECASE) for word in keywords or [])


def _forbidden(text: str, *, forbidden_words: list[str] | None = None) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words or [])


def _language(text: str, *, language: str = "en") -> bool:
    return str(py3langid.classify(text)[0]) == language.split("-", maxsplit=1)[0]


def _sentences(text: str, *, num_sentences: int = 1, relation: str = "at least") -> bool:
    parts = [part for part in SENTENCE_END.split(text, timeout=REGEX_SECONDS) if WORD.search(part)]
    return _related(len(parts), relation, num_sentences)


def _paragraphs(text: str, *, num_paragraphs: int = 1) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text.strip().removeprefix("***").removesuffix("***"), timeout=REGEX_SECONDS)]
    return all(parts) and len(parts) == num_paragraphs


def _number_words(text: str, *, num_words: int = 1, relation: str = "at least") -> bool:
    return _related(len(_words(text)), relation, num_words)


def _first_word(text: str, *, num_paragraphs: int = 1, nth_paragraph: int = 1, first_word: str = "") -> bool:
    parts = [part.strip() for part in re.split(r"\n\s*\n", text, timeout=REGEX_SECONDS) if part.strip()]
    if len(parts) != num_paragraphs or nth_paragraph > len(parts):
        return False
    return [word.casefold() for word in _words(parts[nth_paragraph - 1])[:1]] == [first_word.casefold()]


def _placeholders(text: str, *, num_placeholders: int = 1) -> bool:
    return len(re.findall(r"\[[^\[\]]+\]", text)) >= num_placeholders


def _postscript(text: str, *, postscript_marker: str = "P.S.") -> bool:
    return re.search(rf"^\s*{re.escape(postscript_marker)}", text, re.MULTILINE | re.IGNORECASE, timeout=REGEX_SECONDS) is not None


def _bullets(text: str, *, num_bullets: int = 1) -> bool:
    return len(re.findall(r"^\s*(?:\*(?!\*)|-)\s*\S", text, re.MULTILINE, timeout=REGEX_SECONDS)) == num_bullets


def _constrained(text: str) -> bool:
    return any(answer in text for answer in CONSTRAINED)


def _highlights(text: str, *, num_highlights: int = 1) -> bool:
    return len(re.findall(r"\*\*[^\n*]*[^\s*][^\n*]*\*\*|(?<!\*)\*[^\n*]*[^\s*][^\n*]*\*(?!\*)", text, timeout=REGEX_SECONDS)) >= num_highlights


def _sections(text: str, *, section_spliter: str = "Section", num_sections: int = 1) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


def _json(text: str) -> bool:
    try:
        parse_json(re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE, timeout=REGEX_SECONDS), extract=False)
    except ValueError:
        return False
    return True


def _title(text: str) -> bool:
    return any(title.strip("< >") for title in re.findall(r"<<[^\n]+>>", text, timeout=REGEX_SECONDS))


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    inner = [part for i, part in enumerate(parts) if part or 0 < i < len(parts) - 1]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def _repeat(text: str, *, prompt_to_repeat: str = "") -> bool:
    return text.strip().casefold().startswith(prompt_to_repeat.strip().casefold())


def _end(text: str, *, end_phrase: str = "") -> bool:
    return text.strip().strip('"').casefold().endswith(end_phrase.strip().casefold())


def _quoted(text: str) -> bool:
    plain = text.strip()
    return len(plain) > 1 and plain[0] == '"' and plain[-1] == '"'


def _capital_words(text: str, *, capital_frequency: int = 1, capital_relation: str = "at least") -> bool:
    return _related(sum(word.isupper() for word in _words(text)), capital_relation, capital_frequency)


def _all_capital(text: str) -> bool:
    return text.isupper() and _language(text.lower())


def _all_lower(text: str) -> bool:
    return text.islower() and _language(text)


def _no_comma(text: str) -> bool:
    return not re.search("[,，]", unicodedata.normalize("NFC", text))


CHECKS: dict[str, Check] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _end,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _all_capital,
    "change_case:english_lowercase": _all_lower,
    "punctuation:no_comma": _no_comma,
}
"""IFEval's ids -> check(text, **arguments)."""
