"""What a table must say, worked out without the program: from what a server does to each request, and the rules of docs/reliability.md.

It imports nothing of ours. A question's script is what the server does at its first, second, … attempt; the last reply repeats. `expected`
plays sessions of a run against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FINAL = {"ok", "truncated", "filtered", "rejected"}
"""Never asked again; the rest is asked again by every resume."""


@dataclass(frozen=True)
class Reply:
    """One thing a server does, and what it must become. `steps`: for the scripted server, whole and streamed (None: the same).

    `again`: how it is tried again — `wait` as often as it takes, `backoff` until the attempts are used up, `once`, or `never`.
    `tokens`: completion tokens that it bills; those of failed attempts count, too.
    """

    steps: Any
    outcome: str
    again: Literal["wait", "backoff", "once", "never"] = "backoff"
    streamed: Any = None
    output: str | None = None
    status: int | None = None
    code: str | None = None
    tokens: int | None = None


@dataclass
class Row:
    """A row of the results, and the outcomes of every attempt so far, those of earlier sessions included."""

    outcome: str
    output: str | None
    http_status: int | None
    error_code: str | None
    attempts: int
    completion_tokens: int | None
    score: float | None
    tried: list[str] = field(default_factory=list)


def expected(scripts: Mapping[str, Sequence[Reply]], *, sessions: int, max_attempts: int, target: str) -> dict[str, Row]:
    """The table by question after so many sessions, the first one and its resumes."""
    table: dict[str, Row] = {}
    for question, script in scripts.items():
        tried: list[Reply] = []
        for _ in range(sessions):
            if question not in table or table[question].outcome not in FINAL:
                tries = _one_session(script, len(tried), max_attempts)
                tried += tries
                table[question] = _row(tries, tried, target)
    return table


def _one_session(script: Sequence[Reply], already: int, max_attempts: int) -> list[Reply]:
    tries: list[Reply] = []
    used = once = 0
    while True:
        reply = script[min(already + len(tries), len(script) - 1)]
        tries.append(reply)
        used += reply.again in {"backoff", "once"}
        once += reply.again == "once"
        if reply.again == "never" or (reply.again != "wait" and (used >= max_attempts or (reply.again == "once" and once > 1))):
            return tries


def _row(tries: Sequence[Reply], all_tries: Sequence[Reply], target: str) -> Row:
    last, billed = tries[-1], [reply.tokens for reply in tries if reply.tokens is not None]
    answered = last.outcome in {"ok", "truncated"}
    return Row(
        outcome=last.outcome,
        output=last.output,
        http_status=last.status,
        error_code=last.code,
        attempts=len(tries),
        completion_tokens=sum(billed) if billed else None,
        score=float(last.output == target) if answered else None,
        tried=[reply.outcome for reply in all_tries],
    )
