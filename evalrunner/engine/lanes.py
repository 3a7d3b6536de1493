"""The lanes of a run: one per model, side by side, with what those of one account have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from evalrunner.engine.budget import WorstCase
from evalrunner.engine.forecast import Forecast
from evalrunner.engine.limiter import Limiter
from evalrunner.engine.retry import RetryBudget
from evalrunner.engine.rows import Open
from evalrunner.plugins import Client
from evalrunner.records import Model, Request


class Lane(Struct, frozen=True, kw_only=True):
    """One model's part of a run. Lanes with `shared` limits have one limiter between them. `side`: for what scorers ask, without requests of its own."""

    model: Model
    client: Client
    limiter: Limiter
    requests: Iterator[Request]
    side: bool = False


class Door:
    """Whether an account, or a model of it, can be used. Shut while `prober`, the first request that was refused, asks again; locked for good by `error`."""

    def __init__(self, name: str, lanes: Sequence[OpenLane]) -> None:
        self.name = name
        self.lanes = lanes
        self.error: Exception | None = None
        self.prober: Open | None = None
        self.verdict: asyncio.Event | None = None

    def refused(self, opened: Open) -> None:
        if self.prober is None and self.error is None:
            self.prober = opened
            self.verdict = asyncio.Event()
            for limiter in {lane.limiter for lane in self.lanes}:
                limiter.hold()

    def open(self) -> None:
        """The prober is done; what waits goes on, or has been released by `error`."""
        if self.verdict is not None:
            self.verdict.set()
            self.verdict = self.prober = None
            for limiter in {lane.limiter for lane in self.lanes}:
                limiter.resume()


class OpenLane:
    """A lane under way; `waiting` are its workers that a stop may release."""

    def __init__(self, lane: Lane, retries: RetryBudget) -> None:
        self.model = lane.model
        self.client = lane.client
        self.limiter = lane.limiter
        self.requests = lane.requests
        self.side = lane.side
        self.retries = retries
        self.forecast = Forecast()
        self.worst_case = WorstCase(lane.model)
        self.stopped = False
        self.waiting: set[asyncio.Task[None]] = set()
        self.doors: dict[str, Door] = {}

    def release_waiting(self) -> None:
        cancel(self.waiting)


def open_lanes(lanes: Sequence[Lane]) -> list[OpenLane]:
    """Lanes under way: those of one account have its door and its retry budget in common."""
    accounts = dict.fromkeys(lane.model.provider for lane in lanes)
    found: list[OpenLane] = []
    for account in accounts:
        own = [lane for lane in lanes if lane.model.provider == account]
        retries = RetryBudget(2.0 * sum(lane.limiter.slots for lane in own))
        running = [OpenLane(lane, retries) for lane in own]
        door = Door(account, running)
        for lane in running:
            lane.doors = {"account": door, "model": Door(f"{account}/{lane.model.name}", [lane])}
        found += running
    return found


def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
