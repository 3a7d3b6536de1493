"""Runs the scorers of a request on its answer. A scorer that fails costs its own score, never the answer; one that hangs is cut off.

A scorer that is a plain function runs where it is called, so the whole run stands still meanwhile; after `SCORER_SECONDS` a timer of the system interrupts it.
That works in the main thread, on systems that have such timers, and for Python code: a loop inside a C library goes on until it returns.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import FrameType

from evalrunner.errors import ScorerError, UnaskedError
from evalrunner.plugins import Scorer
from evalrunner.records import STILL_TO_COME, Completion, Request, Score

SCORER_SECONDS = 30.0
OURS = "evalrunner.scorers."
"""Built-in scorers end by themselves (those that take long have a limit of their own), and the timer costs ten microseconds."""
AGAIN_S = 1.0
"""A scorer that catches the interruption is interrupted again."""


class _TooLong(BaseException):
    """Not an Exception, so that a scorer's own `except Exception` lets it pass."""


async def score_with(scorers: Mapping[str, Scorer], request: Request, completion: Completion, *, patient: Container[str] = ()) -> dict[str, Score]:
    """One score per scorer, by name; null with the reason where the scorer raised or took too long.

    `patient`: those that ask models; their time is the run's.
    """
    return {name: await _score(scorer, request, completion, None if name in patient else SCORER_SECONDS) for name, scorer in scorers.items()}


async def _score(scorer: Scorer, request: Request, completion: Completion, seconds: float | None) -> Score:
    limit = None
    ours = (getattr(scorer, "__module__", None) or "").startswith(OURS)
    try:
        with nullcontext() if ours else _interrupted_after(SCORER_SECONDS):
            score = scorer(request, completion)
        if not inspect.isawaitable(score):
            return score
        async with asyncio.timeout(None if ours else seconds) as limit:
            return await score
    except UnaskedError as error:
        why = f"{STILL_TO_COME}{error}"
    except ScorerError as error:
        why = str(error)
    except (_TooLong, Exception) as error:  # noqa: BLE001 - other people's code: whatever it raises is the reason
        why = f"the scorer failed: {type(error).__name__}: {error}"
        if isinstance(error, _TooLong) or (isinstance(error, TimeoutError) and limit is not None and limit.expired()):
            why = f"the scorer did not finish within {SCORER_SECONDS:g} s and was cut off"
    return Score(value=None, why=why)


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _TooLong
