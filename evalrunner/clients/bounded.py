"""A client of others that ends in time, whether or not it looks at its deadlines."""

from __future__ import annotations

from contextlib import suppress

from evalrunner.apart import ApartError, within
from evalrunner.errors import BadOutputError, DeadlineError
from evalrunner.plugins import Client
from evalrunner.records import Completion, Request

GRACE_S = 10.0
"""So much longer than `timeouts.total`: a client that keeps its deadline says better what happened."""


class Bounded:
    """`total_s`: the deadline that the client was given for one answer."""

    def __init__(self, client: Client, total_s: float, grace_s: float = GRACE_S) -> None:
        self._client = client
        self._seconds = total_s + grace_s
        self._grace_s = grace_s

    async def complete(self, request: Request) -> Completion:
        try:
            answer: object = await within(self._seconds, self._client.complete(request))
        except ApartError as error:
            raise DeadlineError(f"the client {error}", phase="total") from None
        if not isinstance(answer, Completion):
            raise BadOutputError(f"the client returned no Completion but a {type(answer).__name__}")
        return answer

    async def aclose(self) -> None:
        with suppress(ApartError):
            await within(self._grace_s, self._client.aclose())
