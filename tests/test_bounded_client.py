"""Clients of others keep the deadlines of a run, whether or not they look at them."""

from __future__ import annotations

import asyncio

import pytest
from make_records import make_completion, make_request

from evalrunner.clients.bounded import Bounded
from evalrunner.errors import BadOutputError, DeadlineError


class Theirs:
    """Does what it is told to."""

    def __init__(self, answer):
        self.answer = answer

    async def complete(self, request):
        if self.answer == "hang":
            await asyncio.sleep(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def aclose(self):
        await asyncio.sleep(60)


async def test_a_client_that_hangs_is_a_timeout():
    """After `timeouts.total` and a little the request has failed like any that came too late, so that it is tried again; closing waits no longer either."""
    client = Bounded(Theirs("hang"), 0.1, 0.1)
    with pytest.raises(DeadlineError, match=r"the client did not finish within 0\.2 s") as late:
        await client.complete(make_request())
    assert late.value.phase == "total"
    await client.aclose()


async def test_what_a_client_answers_comes_through():
    """Its answer and its errors are its own; what is no answer at all is told as such."""
    answer = make_completion()
    assert await Bounded(Theirs(answer), 1).complete(make_request()) is answer
    with pytest.raises(TimeoutError, match="of its own"):
        await Bounded(Theirs(TimeoutError("of its own")), 1).complete(make_request())
    with pytest.raises(BadOutputError, match="no Completion but a str"):
        await Bounded(Theirs("hello"), 1).complete(make_request())
