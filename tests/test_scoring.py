"""Scorers beside the run: what they raise, how long they may take, and what is still to come."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time

import pytest
from make_records import make_completion, make_request

from evalrunner.engine import scoring
from evalrunner.engine.scoring import score_with
from evalrunner.errors import UnaskedError
from evalrunner.records import STILL_TO_COME, Score


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """The limit is half a minute in earnest; here it is short."""
    monkeypatch.setattr(scoring, "SCORER_SECONDS", 0.2)
    monkeypatch.setattr(scoring, "AGAIN_S", 0.1)


async def scored(scorer, **options):
    return (await score_with({"mine": scorer}, make_request(), make_completion(), **options))["mine"]


def forever(_request, _completion):
    while True:
        with contextlib.suppress(Exception):  # it catches everything that a scorer may
            time.sleep(0.001)


async def test_a_scorer_that_hangs_is_cut_off_and_the_run_goes_on():
    """Endless Python is interrupted, even where it catches every exception; the score is null and says why."""
    began = time.monotonic()
    score = await scored(forever)
    assert score.value is None
    assert "cut off" in score.why
    assert time.monotonic() - began < 5
    assert (await scored(lambda _request, _completion: Score(value=1.0))).value == 1.0


async def test_an_async_scorer_that_hangs_is_cut_off():
    """It holds nothing up meanwhile, and its score is null with the reason."""

    async def hangs(_request, _completion):
        await asyncio.sleep(60)

    assert "did not finish" in (await scored(hangs)).why


async def test_a_timeout_of_its_own_is_the_scorers_failure():
    """A scorer's own TimeoutError is not taken for the limit."""

    async def fails(_request, _completion):
        raise TimeoutError("of the database")

    assert (await scored(fails)).why == "the scorer failed: TimeoutError: of the database"


async def test_scorers_that_ask_models_take_their_time():
    """Waiting for a model's limits is no hanging."""

    async def asks(_request, _completion):
        await asyncio.sleep(0.4)
        return Score(value=1.0)

    assert (await scored(asks, patient={"mine"})).value == 1.0


async def test_what_could_not_be_asked_is_still_to_come():
    """The reason says so in the words that a resume looks for."""

    async def stopped(_request, _completion):
        raise UnaskedError("the budget is spent")

    assert (await scored(stopped)).why == f"{STILL_TO_COME}the budget is spent"


async def test_the_timer_leaves_no_trace():
    """A program's own SIGALRM handler is there afterwards, and nothing goes off later."""
    mine = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        await scored(lambda _request, _completion: Score(value=1.0))
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, mine)


def test_other_threads_score_without_a_timer():
    """Signals belong to the main thread: elsewhere a scorer runs as it is."""
    found = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(scored(lambda _request, _completion: Score(value=0.5)))))
    thread.start()
    thread.join()
    assert found[0].value == 0.5
