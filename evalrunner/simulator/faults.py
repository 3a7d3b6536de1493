"""The fault script: what goes wrong, and for which requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, field

from evalrunner.simulator.chance import unit

FaultKind = Literal[
    "error",  # `status` with `code` and `message`; the code alone is enough for a documented one; `retry_after` as written
    "body_error",  # HTTP 200 whose body (or whose only stream event) is that error
    "stream_error",  # that error after `after` output events of a stream
    "disconnect",  # the connection is reset: at once, or with `after` in mid-answer
    "hang",  # accepts and never answers
    "slow",  # `delay_ms` before the first byte
    "stall",  # `delay_ms` of silence after `after` output events
    "cut",  # the stream ends after `after` output events, without a finish reason or [DONE]
    "invalid_json",  # half a body; in a stream, one broken event after `after`
    "empty",  # an answer with no choices
    "no_usage",  # an answer without usage
    "partial",  # what the service does at its own time-out: half the text, finish_reason null
    "redirect",  # 307 to `location`
    "body",  # `status` (200) with `body` as it is written
]


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the script. Every condition given must hold; with none it strikes every request.

    `at`: request numbers from 1, in order of arrival · `every`: each so-many-th · `share`: part of the requests, chosen by their content and the seed
    · `attempts`: only the first so many times the same request comes · `model`, `contains` (in the last message), `key` (the API key) · `dialect`, `stream`.
    """

    kind: FaultKind
    at: tuple[int, ...] | None = None
    every: int | None = None
    share: float | None = None
    attempts: int | None = None
    model: str | None = None
    contains: str | None = None
    key: str | None = None
    dialect: Literal["openai", "native"] | None = None
    stream: bool | None = None
    status: int | None = None
    code: str = "internal_error"
    message: str | None = None
    retry_after: str | float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    delay_ms: float = 1_000.0
    location: str = ""
    body: str = ""


class Subject(Struct, frozen=True, kw_only=True):
    """What a fault can look at in a request, before anything else is known about it."""

    content: bytes
    model: str
    last: str
    key: str
    dialect: str
    stream: bool


class Script:
    """Says which fault strikes a request. Counts requests as they arrive, and attempts of the same content where a rule asks for it."""

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._faults, self._seed = faults, seed
        self._number = 0
        self._attempts: Counter[int] | None = Counter() if any(fault.attempts is not None for fault in faults) else None

    def __bool__(self) -> bool:
        return bool(self._faults)

    def strikes(self, subject: Subject) -> Fault | None:
        """The first fault whose conditions hold, or None."""
        self._number += 1
        attempt = 1
        if self._attempts is not None:
            content = hash(subject.content)
            self._attempts[content] += 1
            attempt = self._attempts[content]
        for number, fault in enumerate(self._faults):
            if self._holds(fault, subject, attempt) and (fault.share is None or unit(self._seed, "fault", number, subject.content) < fault.share):
                return fault
        return None

    def _holds(self, fault: Fault, subject: Subject, attempt: int) -> bool:
        return (
            (fault.at is None or self._number in fault.at)
            and (fault.every is None or self._number % fault.every == 0)
            and (fault.attempts is None or attempt <= fault.attempts)
            and (fault.model is None or fault.model == subject.model)
            and (fault.contains is None or fault.contains in subject.last)
            and (fault.key is None or fault.key == subject.key)
            and (fault.dialect is None or fault.dialect == subject.dialect)
            and (fault.stream is None or fault.stream == subject.stream)
        )
