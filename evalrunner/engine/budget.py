"""What a run may spend: the worst case of a request is reserved before it is sent and settled with what it cost. Pure; the runner waits.

`requests` counts HTTP attempts, retries included. The preflight is not counted. The worst case is certain where the catalogue knows the model or the config
caps its output (`WorstCase` says how); for other models it is learned, and what an answer costs beyond it is the only way to spend more than the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import json

from evalrunner.cost.catalogue import CACHE_WRITE
from evalrunner.cost.models import lookup
from evalrunner.cost.tokens import texts, thinks
from evalrunner.errors import BudgetError, EndpointError, RateLimitedError, RejectedError, RequestError, ServerError
from evalrunner.records import Model, Price, Request, Usage

MOST_THOUGHT = 262_144
"""Tokens of a chain of thought that no parameter caps: what the highest `reasoning_effort` is documented to allow, and no more than the model's context."""
UNKNOWN_OUTPUT = 8_192
"""Tokens of an answer of a model that is not in the catalogue, without `max_tokens`: at least this, and twice the longest answer so far."""
CAP_SLACK = 10
"""`max_completion_tokens` is documented to hold within ten tokens."""
TEMPLATE_TOKENS = 100
"""What a chat template adds to a conversation, beside `MESSAGE_TOKENS` for each message."""
MESSAGE_TOKENS = 20
MEDIA_TOKENS = 20_000
"""An image in the highest resolution, or a quarter of an hour of sound."""
DOCUMENT_TOKENS = 10_000_000
"""A document whose bytes say nothing about its text, for a model whose longest input is not known."""
PLAIN = frozenset({".txt", ".md", ".csv", ".json", ".jsonl", ".html", ".xml", ".yaml"})
"""Documents that are text as they are: no more tokens than bytes."""
ROUNDING = 1e-9


class Budget:
    """`spent` and `sent` may start with what earlier sessions of the run used up. `kept`: reservations of answers whose cost never came to be known."""

    def __init__(self, *, cost: float | None = None, currency: str | None = None, requests: int | None = None, spent: float = 0.0, sent: int = 0) -> None:
        self.cost = cost
        self.currency = currency
        self.requests = requests
        self.spent = spent
        self.sent = sent
        self.kept = 0.0
        self._reserved = 0.0
        self._under_way = 0

    def reserve(self, worst: float) -> bool:
        """Take room for one attempt; False if there may be some once what is under way has been settled. Raises `BudgetError` when there never will be."""
        if self.requests is not None and self.sent >= self.requests:
            raise BudgetError(f"budget: {self.sent:,} requests were sent, of {self.requests:,}")
        if self.cost is not None and self.spent + self.kept + self._reserved + worst > self.cost + ROUNDING:
            if self._under_way:
                return False
            raise BudgetError(f"budget: {self.described()}, and the next request could cost up to {worst:.4g}")
        self.sent += 1
        self._under_way += 1
        self._reserved += worst
        return True

    def settle(self, worst: float, actual: float | None) -> None:
        """The attempt that reserved `worst` has ended; None if nobody knows what it cost: then the budget is charged with all of it."""
        self._under_way -= 1
        self._reserved = self._reserved - worst if self._under_way else 0.0
        if actual is None:
            self.kept += worst
        else:
            self.spent += actual

    def described(self) -> str:
        """Spend against the budget, in a few words."""
        parts = []
        if self.cost is not None:
            kept = f" (and {self.kept:.4g} kept for answers of unknown cost)" if self.kept else ""
            parts.append(f"{self.currency} {self.spent:.4g}{kept} of {self.cost:g} spent")
        if self.requests is not None:
            parts.append(f"{self.sent:,} of {self.requests:,} requests sent")
        return ", ".join(parts)


class WorstCase:
    """The most that one attempt of a model's requests can cost.

    Input: a token is at least one byte of UTF-8, so the bytes of the conversation bound it, those of its plain documents too, and the model's longest input
    does, which is all there is to bound a PDF. Output:
    `max_completion_tokens`; else `max_tokens` (or the model's longest output) and, where the model thinks, `thinking_budget` (or `MOST_THOUGHT`).
    Each at the dearest price in reach.
    """

    def __init__(self, model: Model) -> None:
        self._price = model.price
        self._facts = lookup(model.id)
        self._longest = UNKNOWN_OUTPUT

    def of(self, request: Request) -> float:
        """In the price's currency; 0 without a price."""
        if self._price is None:
            return 0.0
        prompt = self._prompt_tokens(request)
        input_price, output_price = _dearest(self._price, prompt)
        return (prompt * input_price + self._output_tokens(request.cell.params) * output_price) / 1e6

    def learn(self, usage: Usage) -> None:
        self._longest = max(self._longest, 2 * (usage.completion_tokens or 0))

    def _prompt_tokens(self, request: Request) -> int:
        tokens = TEMPLATE_TOKENS + (len(json.encode(request.tools)) if request.tools else 0)
        for message in request.messages:
            content, calls = message.get("content"), message.get("tool_calls")
            tokens += MESSAGE_TOKENS + sum(len(text.encode("utf-8", "replace")) for text in texts(message))
            tokens += len(json.encode(calls)) if calls else 0
            tokens += sum(_part_tokens(part, request.media) for part in content) if isinstance(content, list) else 0
        longest = self._facts.max_input or self._facts.context if self._facts else None
        return min(tokens, longest) if longest else tokens

    def _output_tokens(self, params: Mapping[str, Any]) -> int:
        facts = self._facts
        if both := params.get("max_completion_tokens"):
            return int(both) + CAP_SLACK
        answer = int(params.get("max_tokens") or (facts.max_output if facts else None) or self._longest)
        if facts is None or not thinks(facts.thinking, params.get("enable_thinking")):
            return answer
        return answer + int(params.get("thinking_budget") or min(MOST_THOUGHT, facts.context or MOST_THOUGHT))


def _part_tokens(part: Any, media: Mapping[str, str]) -> int:
    """Of a part beside its text, which is counted already."""
    if not isinstance(part, dict) or "file" not in part:
        return MEDIA_TOKENS * ("text" not in part)
    path = Path(media.get(str(part.get("sha256"))) or "")
    return path.stat().st_size if path.suffix.lower() in PLAIN and path.is_file() else DOCUMENT_TOKENS


def owed(error: RequestError | EndpointError) -> float | None:
    """What a failed attempt without usage costs: nothing where it was refused, None where the provider may have begun to answer."""
    refused = (error.http_status or 0) >= 400 or isinstance(error, RateLimitedError | RejectedError | ServerError | EndpointError)
    return 0.0 if refused or error.phase == "connect" else None


def _dearest(price: Price, prompt_tokens: int) -> tuple[float, float]:
    """(input, output) price per million, over every tier that a request of at most so many input tokens can fall into."""
    first_beyond = next((index for index, tier in enumerate(price.tiers) if tier.up_to is None or prompt_tokens <= tier.up_to), len(price.tiers))
    reachable = price.tiers[: first_beyond + 1]
    written = [CACHE_WRITE * tier.input if tier.cache_write is None else tier.cache_write for tier in reachable]
    return max([*(tier.input for tier in reachable), *written]), max(max(tier.output, tier.thinking or 0.0) for tier in reachable)
