"""Runs the scorers of a request on its answer. A scorer that fails costs its own score, never the answer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from evalrunner.errors import ScorerError
from evalrunner.plugins import Scorer
from evalrunner.records import Completion, Request, Score


async def score_with(scorers: Mapping[str, Scorer], request: Request, completion: Completion) -> dict[str, Score]:
    """One score per scorer, by name; null with the reason where the scorer raised."""
    return {name: await _score(scorer, request, completion) for name, scorer in scorers.items()}


async def _score(scorer: Scorer, request: Request, completion: Completion) -> Score:
    try:
        score = scorer(request, completion)
        return await score if inspect.isawaitable(score) else score
    except ScorerError as error:
        return Score(value=None, why=str(error))
    except Exception as error:  # noqa: BLE001 - other people's code: whatever it raises is the reason
        return Score(value=None, why=f"the scorer failed: {type(error).__name__}: {error}")
