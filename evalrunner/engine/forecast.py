"""How many tokens a request will use, for the limiter's reservation: learned from the answers of its model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evalrunner.records import Request, Usage

CHARS_PER_TOKEN = 3.0
OUTPUT_TOKENS = 500
"""Until the first answer, and where no `max_tokens` says less."""
MEDIA_CHARS = 4000
"""An image or a recording is reserved like so many characters; the ratio learned from usage corrects it."""
MEMORY = 0.05
"""The weight of one more answer, once there were 20."""


class Forecast:
    """`tokens` before sending, `learn` after; a mean of what came back, so that reservations are right on average and settlement evens out the rest."""

    def __init__(self) -> None:
        self._seen = 0
        self._tokens_per_char = 1 / CHARS_PER_TOKEN
        self._output = float(OUTPUT_TOKENS)

    def tokens(self, request: Request) -> int:
        limit = request.cell.params.get("max_completion_tokens") or request.cell.params.get("max_tokens")
        output = min(self._output, limit) if isinstance(limit, int) else self._output
        return max(1, round(_chars(request) * self._tokens_per_char + output))

    def learn(self, request: Request, usage: Usage) -> None:
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return
        self._seen += 1
        weight = max(1 / self._seen, MEMORY)
        self._tokens_per_char += weight * (usage.prompt_tokens / max(1, _chars(request)) - self._tokens_per_char)
        self._output += weight * (usage.completion_tokens - self._output)


def _chars(request: Request) -> int:
    return sum(_content(message.get("content")) for message in request.messages) + (len(str(request.tools)) if request.tools else 0)


def _content(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, Iterable):
        return 0
    return sum(len(text) if isinstance(part, dict) and isinstance(text := part.get("text"), str) else MEDIA_CHARS for part in content)
