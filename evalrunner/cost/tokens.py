"""Tokens, counted offline as the Qwen service counts them.

Text is counted with the vocabulary of Qwen2 and Qwen3 where an installed package ships it (`dashscope` or `qwen-agent`, read through `tiktoken`); else, and
always deterministically, it is approximated (`_approximate` says how; within 10 % of the vocabulary over sets of English and Chinese questions). Models from
Qwen3.5 on use a newer vocabulary that no package ships: for them either count is an estimate. `exact(model)` tells.

The constants of messages, tools and media were measured against Alibaba's own examples (Alibaba Model Studio's documents, 2026).
"""

from __future__ import annotations

import base64
import importlib
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec import json

from evalrunner.cost.models import ImageRule, lookup

_VOCABULARIES = {"dashscope": "resources/qwen.tiktoken", "qwen_agent": "utils/qwen.tiktoken"}
_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_NEWER_VOCABULARY = re.compile(r"qwen3\.[5-9]|qwen[4-9]")

_MESSAGE = 5  # <|im_start|>role\n ... <|im_end|>\n
_ANSWER = 3  # <|im_start|>assistant\n
_TOOLS = 77  # the fixed text of the Hermes template
_TOOL_CALL = 19  # <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call>
_TOOL_RESULT = 9  # <tool_response> ... </tool_response>
_NO_THOUGHT = 4  # <think>\n\n</think>\n\n, what a hybrid model is handed when it shall not think
_THOUGHT = 2  # <think>\n, seen on Qwen3.8
_MEDIA = 2  # the marks around an image or a video

_PIECES = re.compile(
    r"(?P<word>[A-Za-z]+)|(?P<digit>\d)|(?P<han>[\u3400-\u9fff\uf900-\ufaff]+)|(?P<kana>[\u3040-\u30ff\uac00-\ud7af]+)|(?P<line>\s*[\r\n]+)|(?P<space>\s+(?=\d)|\s{2,})|(?P<blank>\s)"
    r"|(?P<mark>[!-/:-@\[-`{-~]+)|(?P<wide>[\u3000-\u303f\uff00-\uffef\u2010-\u2027])|(?P<letters>[^\W\d_]+)|(?P<other>.)",
    re.DOTALL,
)


def exact(model: str) -> bool:
    """Whether text for this model is counted with its own vocabulary."""
    return _encoding() is not None and model.startswith("qw") and not _NEWER_VOCABULARY.match(model)


def count_text(text: str) -> int:
    """Tokens of plain text; marks like `<|im_start|>` inside it count as text."""
    return _count_short(text) if len(text) <= 2_000 else _count(text)


def count_messages(
    messages: Iterable[Mapping[str, Any]], model: str = "", *, tools: Iterable[Mapping[str, Any]] | None = None, thinking: bool | None = None
) -> int:
    """Prompt tokens of a conversation: its texts, tool calls and tool definitions with what the template adds; media are the caller's to add.

    content + 5 per message + 3 for the answer's opening; tools: 77 + the JSON of each and a newline; a tool call 19 + its name and arguments; a tool result 9;
    hybrid models 4 when not thinking, Qwen3.8 2 when thinking. `thinking`: None takes the model's default.
    """
    total, has_system = _ANSWER + overhead(model, thinking=thinking), False
    for message in messages:
        total += _MESSAGE + sum(count_text(text) for text in texts(message))
        has_system = has_system or message.get("role") == "system"
        total += _TOOL_RESULT if message.get("role") == "tool" else 0
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            total += _TOOL_CALL + count_text(str(function.get("name") or "")) + count_text(str(function.get("arguments") or ""))
    if definitions := [count_text(json.encode(tool).decode()) + 1 for tool in tools or ()]:
        total += _TOOLS + sum(definitions) + (0 if has_system else _MESSAGE)
    return total


def overhead(model: str, *, thinking: bool | None = None) -> int:
    """What the template adds to the prompt for thinking or for not thinking. A constant per model: calibrate it on the first real call's usage."""
    facts = lookup(model)
    if facts is None or facts.thinking == "none":
        return 0
    if thinks(facts.thinking, thinking):
        return _THOUGHT if model.startswith("qwen3.8") else 0
    return _NO_THOUGHT


def thinks(default: str, asked: bool | None) -> bool:
    """Whether a model with this thinking default (none, off, on, only) thinks when `enable_thinking` is `asked`."""
    return default == "only" or (default != "none" and (default == "on" if asked is None else asked))


def texts(message: Mapping[str, Any]) -> list[str]:
    """The texts of one message, whether its content is a string or a list of parts of either dialect; and the reasoning that is passed back."""
    content = message.get("content")
    found = [content] if isinstance(content, str) else [part["text"] for part in content or () if isinstance(part, dict) and isinstance(part.get("text"), str)]
    reasoning = message.get("reasoning_content")
    return [*found, reasoning] if isinstance(reasoning, str) else found


def image_tokens(width: int, height: int, rule: ImageRule | None = None) -> int:
    """h̄·w̄ / f² + 2: both sides rounded to multiples of f, scaled down to at most `max_pixels` or up to at least `min_pixels`."""
    rule = rule or ImageRule()
    f = rule.factor
    h, w = max(f, round(height / f) * f), max(f, round(width / f) * f)
    if h * w > rule.max_pixels:
        beta = math.sqrt(height * width / rule.max_pixels)
        h, w = max(f, math.floor(height / beta / f) * f), max(f, math.floor(width / beta / f) * f)
    elif h * w < rule.min_pixels:
        beta = math.sqrt(rule.min_pixels / (height * width))
        h, w = math.ceil(height * beta / f) * f, math.ceil(width * beta / f) * f
    return h * w // (f * f) + _MEDIA


def video_tokens(width: int, height: int, frames: int, rule: ImageRule | None = None) -> int:
    """ceil(frames / 2) · h̄·w̄ / f² + 2."""
    return math.ceil(frames / 2) * (image_tokens(width, height, rule) - _MEDIA) + _MEDIA


def audio_tokens(seconds: float, per_second: float = 25.0) -> int:
    """Seconds × the model's rate, rounded up; less than a second counts as one."""
    return math.ceil(max(1.0, seconds) * per_second)


def truncate(text: str, tokens: int) -> str:
    """The longest beginning of `text` that has at most so many tokens."""
    if count_text(text) <= tokens:
        return text
    fitting = bisect_right(range(1, len(text)), tokens, key=lambda end: count_text(text[:end]))
    return text[:fitting]


def _count(text: str) -> int:
    encoding = _encoding()
    text = unicodedata.normalize("NFC", text)
    if encoding is None:
        return _approximate(text)
    # The encoder recurses on what it is given: very long texts go in parts.
    return sum(len(encoding.encode_ordinary(text[start : start + 50_000])) for start in range(0, len(text), 50_000))


_count_short = lru_cache(maxsize=4_096)(_count)


def _approximate(text: str) -> int:
    """Without a vocabulary. A digit, a full-width mark, a line break with its blanks: 1. A word of Latin letters: 1 per 9 letters begun. Han: 0.68 a
    character; kana and hangul: 0.9. ASCII marks: 1 per 3 begun. Other blanks: 1, but nothing before a word. Other letters: 1 per 2 begun; other signs: 2.
    """
    total = 0.0
    for match in _PIECES.finditer(text):
        size = match.end() - match.start()
        match match.lastgroup:
            case "word":
                total += -(-size // 9)
            case "han":
                total += max(1.0, 0.68 * size)
            case "kana":
                total += max(1.0, 0.9 * size)
            case "blank":
                pass
            case "mark":
                total += -(-size // 3)
            case "letters":
                total += -(-size // 2)
            case "other":
                total += 2
            case _:
                total += 1
    return math.ceil(total)


@cache
def _encoding() -> Any:
    """The encoder, or None where no vocabulary or no `tiktoken` is installed. Takes half a second, once."""
    for package, path in _VOCABULARIES.items():
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            file = Path(folder) / path
            if file.is_file() and find_spec("tiktoken"):
                ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file.read_bytes().splitlines() if line)}
                return importlib.import_module("tiktoken").Encoding("qwen", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
    return None
