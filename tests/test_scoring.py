"""Scorers beside the run: what they raise, how long async ones may take, and what is still to come. Plain ones of others: test_apart."""

from __future__ import annotations

import sys

import pytest
from make_records import make_completion, make_request

from evalrunner.engine.scoring import score_with
from evalrunner.errors import UnaskedError
from evalrunner.records import STILL_TO_COME, Score
from evalrunner.scorers.bounded import bounded

MODULE = """
import asyncio
from evalrunner import Score

def hanging():
    async def score(request, completion):
        await asyncio.sleep(60)
    return score

def failing():
    async def score(request, completion):
        raise TimeoutError("of the database")
    return score

class Callable:
    async def __call__(self, request, completion):
        await asyncio.sleep(60)
"""


@pytest.fixture(autouse=True, scope="module")
def plug_in(tmp_path_factory):
    """A module beside a config, as a user writes one."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "scoring_parts.py").write_text(MODULE)
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


async def scored(scorer):
    return (await score_with({"mine": scorer}, make_request(), make_completion()))["mine"]


@pytest.mark.parametrize("name", ["hanging", "Callable"])
async def test_an_async_scorer_that_hangs_is_cut_off(name):
    """It holds nothing up meanwhile, and its score is null with the reason; an object that is called is a scorer, too."""
    assert await scored(bounded(f"scoring_parts:{name}", {}, 0.1)) == Score(value=None, why="the scorer did not finish within 0.1 s and was cut off")


async def test_a_timeout_of_its_own_is_the_scorers_failure():
    """A scorer's own TimeoutError is not taken for the limit."""
    assert (await scored(bounded("scoring_parts:failing", {}))).why == "the scorer failed: TimeoutError: of the database"


async def test_what_could_not_be_asked_is_still_to_come():
    """The reason says so in the words that a resume looks for."""

    async def stopped(_request, _completion):
        raise UnaskedError("the budget is spent")

    assert (await scored(stopped)).why == f"{STILL_TO_COME}the budget is spent"


async def test_what_is_no_score_costs_no_answer():
    """A scorer that returns a number or nothing has no score, and the reason says so."""

    async def number(_request, _completion):
        return 1.0

    assert await scored(number) == Score(value=None, why="the scorer failed: it returned no Score: float")
    assert (await scored(lambda _request, _completion: None)).why == "the scorer failed: it returned no Score: NoneType"
