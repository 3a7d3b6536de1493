"""Answers of earlier sessions that have a score still to come: each is a chore of this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from evalrunner.engine.asides import Chore
from evalrunner.engine.scoring import score_with
from evalrunner.engine.tally import Tally
from evalrunner.plugins import Scorer
from evalrunner.records import STILL_TO_COME, Outcome, Request, Score
from evalrunner.store.answers import completion_of
from evalrunner.store.known import is_open

JUDGING = "judging"
"""What progress calls a session that asks judges only."""

Rescore = Callable[[Mapping[str, Any], Mapping[str, Score]], Awaitable[None]]


def chores(
    rows: dict[str, dict[str, Any]], requests: Iterable[Request], scorers: Callable[[], Mapping[str, Mapping[str, Scorer]]], rescore: Rescore
) -> Iterator[Chore]:
    """One for each of `rows`, by the key of its request; computes no score but those that are still to come."""

    async def score(request: Request, row: dict[str, Any]) -> None:
        waiting = {name: scorer for name, scorer in scorers()[request.cell.prompt_set].items() if (row[f"score_{name}_why"] or "").startswith(STILL_TO_COME)}
        scores = await score_with(waiting, request, completion_of(row))
        if not all(is_open(found) for found in scores.values()):
            await rescore(row, scores)

    for request in requests if rows else ():
        if (row := rows.pop(request.key, None)) is not None:
            yield partial(score, request, row)


def counted(chore: Chore, tally: Tally) -> Chore:
    """Progress of a session that does nothing else."""

    async def count() -> None:
        await chore()
        tally.done += 1
        tally.by_outcome[Outcome.OK] += 1
        tally.left[JUDGING] -= 1

    return count
