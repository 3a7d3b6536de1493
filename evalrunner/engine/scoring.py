"""Runs the scorers of a request on its answer. A scorer that fails costs its own score, never the answer; that none hangs is the work of `scorers.bounded`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping

from evalrunner.engine.ending import Stop
from evalrunner.errors import ScorerError, UnaskedError
from evalrunner.plugins import Scorer
from evalrunner.records import STILL_TO_COME, Completion, Request, Score


async def score_with(scorers: Mapping[str, Scorer], request: Request, completion: Completion) -> dict[str, Score]:
    """One score per scorer, by name; null with the reason where the scorer has none."""
    return {name: await _score(scorer, request, completion) for name, scorer in scorers.items()}


async def score_until(stop: Stop, scorers: Mapping[str, Scorer], request: Request, completion: Completion) -> dict[str, Score]:
    """The same; where `stop` cuts it off, every score is still to come: the answer is paid for and gets its row all the same."""
    try:
        return await score_with(scorers, request, completion)
    except asyncio.CancelledError:
        if stop.reason is None:
            raise
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        return dict.fromkeys(scorers, Score(value=None, why=f"{STILL_TO_COME}the run stopped before it was computed"))


async def _score(scorer: Scorer, request: Request, completion: Completion) -> Score:
    try:
        score = scorer(request, completion)
        found: object = await score if inspect.isawaitable(score) else score
    except UnaskedError as error:
        why = f"{STILL_TO_COME}{error}"
    except ScorerError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - other people's code: whatever it raises is the reason
        why = f"the scorer failed: {type(error).__name__}: {error}"
    else:
        if isinstance(found, Score):
            return found
        why = f"the scorer failed: it returned no Score: {type(found).__name__}"
    return Score(value=None, why=why)
