"""Runs the scorers of a request on its answer. A scorer that fails costs its own score, never the answer; that none hangs is the work of `scorers.bounded`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping

from evalrunner.engine.ending import Stop
from evalrunner.errors import ScorerError, UnaskedError
from evalrunner.plugins import Scorer
from evalrunner.records import STILL_TO_COME, Completion, Request, Score

NOT_WAITED_FOR = Score(value=None, why=f"{STILL_TO_COME}the run stopped before it was computed")
ON_AND_ON = Stop()


async def score_with(scorers: Mapping[str, Scorer], request: Request, completion: Completion, stop: Stop = ON_AND_ON) -> dict[str, Score]:
    """One score per scorer, by name; null with the reason where the scorer has none. Once `stop` waits for nothing, the rest is still to come."""
    return {name: NOT_WAITED_FOR if stop.aborted else await _score(scorer, request, completion, stop) for name, scorer in scorers.items()}


async def _score(scorer: Scorer, request: Request, completion: Completion, stop: Stop) -> Score:
    try:
        score = scorer(request, completion)
        found: object = await score if inspect.isawaitable(score) else score
    except asyncio.CancelledError:
        if not stop.aborted:
            raise
        if (task := asyncio.current_task()) is not None:
            task.uncancel()  # the answer was paid for: the worker goes on, and writes it down
        return NOT_WAITED_FOR
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
