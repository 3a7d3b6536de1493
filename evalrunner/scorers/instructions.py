"""Instruction checks in the manner of IFEval (Zhou et al. 2023, arXiv 2311.07911): was the answer as long, formatted and worded as it was told to be?

The ids and their arguments are IFEval's, so its data files work as they are; the checks are our own reading of the paper's table of instructions.
"""

import inspect
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

import py3langid
import regex as re
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.structured import parse_json
from evalrunner.scorers.text import REGEX_SECONDS, stands_in

Check = Callable[..., bool]
Instruction = tuple[str, Mapping[str, Any]]
"""An id of `CHECKS` and its arguments."""

Relation = Literal["at least", "less than"]
Number = Annotated[int, Field(ge=0)]
Words = Annotated[str, Field(min_length=1)]
WORD = re.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\w--\p{Han}--\p{Hiragana}--\p{Katakana}]+", re.VERSION1)
"""As the scorers of overlap count: where words have no spaces between them, each character is one."""
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
    fixed = [_instruction(check.get("id"), {name: value for name, value in check.items() if name != "id"}) for check in checks or []]

    def score(request: Request, completion: Completion) -> Score:
        try:
            wanted = fixed or _of_sample(request.sample.data, ids, arguments)
        except ValueError as error:
            raise ScorerError(str(error)) from None
        text = completion.output or ""
        broken = [name for name, options in wanted if not (text.strip() and CHECKS[name](text, **options))]
        share = 1 - len(broken) / len(wanted)
        value = share if level == "instruction" else float(not broken)
        return Score(value=value, why=f"not followed: {', '.join(broken)}" if broken else "")

    return score if fixed else RowScorer(score, [ids, arguments], lambda data: _of_sample(data, ids, arguments))


def _of_sample(data: Mapping[str, Any], ids: str, arguments: str) -> list[Instruction]:
    """Raises ValueError."""
    names, options = data.get(ids), data.get(arguments)
    if not isinstance(names, list) or not names or not isinstance(options, list) or len(names) != len(options):
        raise ValueError(f"the sample needs a list {ids!r} and a list {arguments!r} of the same length")
    if wrong := [option for option in options if not isinstance(option, dict | None)]:
        raise ValueError(f"each of {arguments!r} should be a mapping, not {wrong[0]!r:.80}")
    return [_instruction(name, {key: value for key, value in (option or {}).items() if value is not None}) for name, option in zip(names, options, strict=True)]


def _instruction(name: Any, options: Mapping[str, Any]) -> Instruction:
    """An instruction with its arguments as their kinds say. Raises ValueError."""
    if not isinstance(name, str) or name not in CHECKS:
        raise ValueError(f"checks: no instruction is called {name!r}; known: {', '.join(CHECKS)}")
    try:
        return name, dict(_arguments(name).model_validate(options))
    except ValidationError as error:
        first = error.errors()[0]
    takes = list(_arguments(name).model_fields)
    if first["type"] == "extra_forbidden":
        raise ValueError(f"checks: {name} takes {', '.join(takes) or 'no arguments'}, not {first['loc'][0]}")
    raise ValueError(f"checks: {name}: {'.'.join(map(str, first['loc']))}: {first['msg'][:1].lower()}{first['msg'][1:]}")


@cache
def _arguments(name: str) -> type[BaseModel]:
    """The keyword arguments of a check, with their kinds."""
    hints = get_type_hints(CHECKS[name], include_extras=True)
    keywords = [one for one in inspect.signature(CHECKS[name]).parameters.values() if one.kind is one.KEYWORD_ONLY]
    fields: dict[str, Any] = {one.name: (hints[one.name], ... if one.default is one.empty else one.default) for one in keywords}
    return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)


def _related(count: int, relation: Relation, number: int) -> bool:
    return count < number if relation == "less than" else count >= number


def _words(text: str) -> list[str]:
    return [str(word) for word in WORD.findall(text)]


def _keyword_frequency(text: str, *, keyword: Words, frequency: Number = 1, relation: Relation = "at least") -> bool:
    return _related(len(re.findall(re.escape(keyword), text, re.IGNORECASE)), relation, frequency)


def _letter_frequency(text: str, *, letter: Words, let_frequency: Number = 1, let_relation: Relation = "at least") -> bool:
    return _related(text.casefold().count(letter.casefold()), let_relation, let_frequency)


def _keywords(text: str, *, keywords: list[Words]) -> bool:
    return all(re.search(re.escape(word), text, re.IGNORECASE) for word in keywords)


def _forbidden(text: str, *, forbidden_words: list[Words]) -> bool:
    return not any(stands_in(word.casefold(), text.casefold()) for word in forbidden_words)


def _language(text: str, *, language: Annotated[str, Field(pattern=r"^[a-z]{2}(-[A-Za-z]+)?$")]) -> bool:
    return str(py3langid.classify(text)[0]) == language.split("-", maxsplit=1)[0]


def _sentences(text: str, *, num_sentences: Number = 1, relation: Relation = "at least") -> bool:
    parts = [part for part in SENTENCE_END.split(text, timeout=REGEX_SECONDS) if WORD.search(part)]
    return _related(len(parts), relation, num_sentences)


def _paragraphs(text: str, *, num_paragraphs: Number = 1) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text.strip().removeprefix("***").removesuffix("***"), timeout=REGEX_SECONDS)]
    return all(parts) and len(parts) == num_paragraphs


def _number_words(text: str, *, num_words: Number = 1, relation: Relation = "at least") -> bool:
    return _related(len(_words(text)), relation, num_words)


def _first_word(text: str, *, num_paragraphs: Number = 1, nth_paragraph: Annotated[int, Field(ge=1)] = 1, first_word: Words) -> bool:
    parts = [part.strip() for part in re.split(r"\n\s*\n", text, timeout=REGEX_SECONDS) if part.strip()]
    if len(parts) != num_paragraphs or nth_paragraph > len(parts):
        return False
    wanted, words = _words(first_word.casefold()), _words(parts[nth_paragraph - 1].casefold())
    return words[: len(wanted)] == wanted


def _placeholders(text: str, *, num_placeholders: Number = 1) -> bool:
    return len(re.findall(r"\[[^\[\]]+\]", text)) >= num_placeholders


def _postscript(text: str, *, postscript_marker: Words = "P.S.") -> bool:
    return re.search(rf"^\s*{re.escape(postscript_marker)}", text, re.MULTILINE | re.IGNORECASE, timeout=REGEX_SECONDS) is not None


def _bullets(text: str, *, num_bullets: Number = 1) -> bool:
    return len(re.findall(r"^\s*(?:\*(?!\*)|-)\s*\S", text, re.MULTILINE, timeout=REGEX_SECONDS)) == num_bullets


def _constrained(text: str) -> bool:
    return any(answer in text for answer in CONSTRAINED)


def _highlights(text: str, *, num_highlights: Number = 1) -> bool:
    return len(re.findall(r"\*\*[^\n*]*[^\s*][^\n*]*\*\*|(?<!\*)\*[^\n*]*[^\s*][^\n*]*\*(?!\*)", text, timeout=REGEX_SECONDS)) >= num_highlights


def _sections(text: str, *, section_spliter: Words = "Section", num_sections: Number = 1) -> bool:
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


def _repeat(text: str, *, prompt_to_repeat: Words) -> bool:
    return text.strip().casefold().startswith(prompt_to_repeat.strip().casefold())


def _end(text: str, *, end_phrase: Words) -> bool:
    return text.strip().strip('"').casefold().endswith(end_phrase.strip().casefold())


def _quoted(text: str) -> bool:
    plain = text.strip()
    return len(plain) > 1 and plain[0] == '"' and plain[-1] == '"'


def _capital_words(text: str, *, capital_frequency: Number = 1, capital_relation: Relation = "at least") -> bool:
    return _related(sum(word.isupper() for word in _words(text)), capital_relation, capital_frequency)


def _all_capital(text: str) -> bool:
    return text.isupper() and _language(text.lower(), language="en")


def _all_lower(text: str) -> bool:
    return text.islower() and _language(text, language="en")


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
