"""What is asked beside the requests of a run: scorers that ask models, through the same limiters, retries and budget, and with no row in the results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from evalrunner.engine.lanes import Lane
from evalrunner.records import Model, Record, Request

AskAside = Callable[[Model, Request], Awaitable[Record | None]]
Chore = Callable[[], Awaitable[None]]

CHORE_WORKERS = 16


class Asides:
    """`lanes`: one for each model that may be asked, with `side=True` and no requests. `chores`: what else is to be done while the run goes on, in which
    `ask` may be used; each once, some side by side.
    """

    def __init__(self, lanes: Sequence[Lane] = (), chores: Iterable[Chore] = ()) -> None:
        self.lanes = lanes
        self.chores: Iterator[Chore] = iter(chores)
        self._ask: AskAside = _too_early

    async def ask(self, model: Model, request: Request) -> Record | None:
        """What came of `request`; None if the run was stopped before it had an answer. While the run goes on only."""
        return await self._ask(model, request)

    def bind(self, ask: AskAside) -> None:
        """Called by the run when it begins."""
        self._ask = ask


async def _too_early(model: Model, request: Request) -> Record | None:
    raise RuntimeError(f"nobody asks {model.name} about {request.key} before the run begins")
