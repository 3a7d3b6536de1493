"""Sends every request of a run within its limits and turns each into one record.

A lane is one model: its client, its limiter, its requests. Lanes share nothing but their account, so one that is throttled blocks no other. A lane has more
workers than slots: a worker that waits before a retry holds no slot, and the others go on. A worker pulls its next request when it is free, so the number of
open requests is bounded and a plan of any size is never a list.

What ends early gets no row and can be resumed: requests that were never sent, and those that wait for a slot or a retry when the run or their account stops.
What is in flight is waited for and recorded; where it is not waited for any longer, an answer is recorded that is still being scored.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from evalrunner.clock import SYSTEM_CLOCK, Clock
from evalrunner.engine.asides import CHORE_WORKERS, Asides, Chore
from evalrunner.engine.budget import Budget, owed
from evalrunner.engine.ending import End, Stop
from evalrunner.engine.lanes import Door, Lane, OpenLane, cancel, open_lanes
from evalrunner.engine.limiter import Permit
from evalrunner.engine.preflight import ask, shows_it_is_right, small
from evalrunner.engine.retry import GiveUp, Halt, RetryPolicy, decision
from evalrunner.engine.rows import NO_SCORES, Open
from evalrunner.engine.tally import Listener, Tally
from evalrunner.engine.tools import ToolAnswers
from evalrunner.errors import AccountError, BadOutputError, BudgetError, EndpointError, RequestError, RunError
from evalrunner.records import ANSWERED, Completion, Outcome, Record, Request, Score, Usage

__all__ = ["End", "Lane", "Stop", "execute"]

T = TypeVar("T")
Add = Callable[[Record], Awaitable[None]]
ScoreAll = Callable[[Request, Completion], Awaitable[Mapping[str, Score]]]
Failure = RequestError | EndpointError
NO_TOOLS: Mapping[str, ToolAnswers] = {}
NO_ADDS: Mapping[str, Add] = {}

SPARE_WORKERS = 4
"""At least so many more workers than slots; mostly there are twice as many."""


async def no_scores(request: Request, completion: Completion) -> Mapping[str, Score]:  # noqa: ARG001 - the shape of a `ScoreAll`
    return NO_SCORES


async def execute(  # noqa: PLR0913 - one keyword per seam, each with its default
    lanes: Sequence[Lane],
    add: Add,
    *,
    score: ScoreAll = no_scores,
    first: Mapping[str, Add] = NO_ADDS,
    tools: Mapping[str, ToolAnswers] = NO_TOOLS,
    asides: Asides | None = None,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
    budget: Budget | None = None,
    stop: Stop | None = None,
    tally: Tally | None = None,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
) -> End:
    """Run all lanes side by side until their requests are done, or something stops them.

    `tools` answer the tool calls of a prompt set, by its name: each turn waits for the limiter and is retried like a request of its own.
    `first` is told of an answer of a prompt set, by its name, before its scorers begin, where they may take their time.
    `score` is awaited for answered requests, outside their service time and without a slot; what it asks through `asides` waits and is retried like a
    request, and ends with the run. Then `add`, once per request, in the order in which they end. Raises nothing but
    CancelledError: what went wrong is in the `End`, and everything that was in flight has been added.
    """
    run = _Run(add, score, first, tools, policy, budget, stop or Stop(), tally or Tally(), clock, rng or random.Random())
    return await run.all(lanes, asides or Asides())


class _Run:
    def __init__(  # noqa: PLR0913, PLR0917 - what `execute` was given
        self,
        add: Add,
        score: ScoreAll,
        first: Mapping[str, Add],
        tools: Mapping[str, ToolAnswers],
        policy: RetryPolicy,
        budget: Budget | None,
        stop: Stop,
        tally: Tally,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.add = add
        self.score = score
        self.first = first
        self.tools = tools
        self.policy = policy
        self.budget = budget
        self.room = asyncio.Event()
        self.shortfall: str | None = None
        self.stop = stop
        self.tally = tally
        self.clock = clock
        self.rng = rng
        self.error: Exception | None = None
        self.lanes: list[OpenLane] = []
        self.stopped: dict[str, Exception] = {}

    async def all(self, lanes: Sequence[Lane], asides: Asides) -> End:
        self.lanes = open_lanes([*lanes, *asides.lanes])
        asked = {lane.model: lane for lane in self.lanes if lane.side}
        asides.bind(lambda model, request: self._aside(asked[model], request))
        workers = [asyncio.create_task(self._work(lane)) for lane in self.lanes for _ in range(lane.limiter.slots + max(SPARE_WORKERS, lane.limiter.slots))]
        workers += [asyncio.create_task(self._do(asides.chores)) for _ in range(CHORE_WORKERS)]
        self.stop.bind(self._release_waiting, partial(cancel, workers))
        self.tally.started_us = self.clock.wall_us(self.clock.now_ns())
        self.listener = Listener(self.tally)
        try:
            await asyncio.gather(*workers)
        finally:
            self.listener.close()
            cancel(workers)
            await asyncio.gather(*workers, return_exceptions=True)
        own = [lane for lane in self.lanes if not lane.side]
        nobody_left = bool(own) and all(lane.stopped for lane in own)
        return End(reason=self.stop.reason, shortfall=self.shortfall, error=self.error, stopped=self.stopped, nobody_left=nobody_left)

    async def _work(self, lane: OpenLane) -> None:
        try:
            while not self._over(lane) and (request := next(lane.requests, None)) is not None:
                record = await self._serve(lane, request)
                if record is not None:
                    await self.add(record)
                    self.tally.kept(record)
                await asyncio.sleep(0)  # a client that never waits must not starve signals and other workers
        except asyncio.CancelledError:
            if not self._over(lane):
                raise
        except Exception as error:  # noqa: BLE001 - handed on in the End, after the others have drained
            self._fail(error)

    async def _do(self, chores: Iterator[Chore]) -> None:
        try:
            while self.stop.reason is None and self.error is None and (chore := next(chores, None)) is not None:
                await chore()
        except asyncio.CancelledError:
            if self.stop.reason is None and self.error is None:
                raise
        except Exception as error:  # noqa: BLE001 - handed on in the End, after the others have drained
            self._fail(error)

    async def _aside(self, lane: OpenLane, request: Request) -> Record | None:
        """What came of a request that has no row; None if it was stopped before that. Whoever waits for it goes on."""
        opened = Open(request, self.clock)
        try:
            result = await self._ask(lane, opened)
        except asyncio.CancelledError:
            if not self._over(lane):
                raise
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            return None
        return None if result is None else opened.record(result if isinstance(result, Completion) else None)

    async def _serve(self, lane: OpenLane, request: Request) -> Record | None:
        """The record of one request; None if it was stopped before it had one."""
        opened = Open(request, self.clock)
        result = await self._converse(lane, opened)
        if result is None:
            return None
        if not isinstance(result, Completion):
            return opened.record(None)
        answer = opened.whole(result)
        if opened.attempts[-1].outcome not in ANSWERED:
            return opened.record(answer)
        try:
            if (first := self.first.get(request.cell.prompt_set)) is not None:
                await first(opened.record(answer))
            return opened.record(answer, await self.score(request, answer))
        except Exception as error:  # noqa: BLE001 - an answer that was paid for is kept, with or without scores
            self._fail(error)
            return opened.record(answer)

    async def _converse(self, lane: OpenLane, opened: Open) -> Completion | Failure | None:
        """All turns: the last one's answer or error, or None if it was stopped before that."""
        tools = self.tools.get(opened.request.cell.prompt_set)
        while True:
            result = await self._ask(lane, opened)
            if tools is None or not isinstance(result, Completion) or opened.attempts[-1].outcome != Outcome.OK:
                return result
            following = await self._wait(lane, tools.next_turn(opened.request, result, opened.turn))
            if following is None:
                return result
            opened.go_on(result, following)

    async def _ask(self, lane: OpenLane, opened: Open) -> Completion | Failure | None:
        """One turn, with all its attempts: an answer, the error that was the last, or None if it was stopped between two of them."""
        while not self._over(lane):
            result = await self._send(lane, opened)
            if result is None or isinstance(result, Completion):
                return result
            if lane.limiter.dark_s() > self.policy.max_elapsed_s:
                self._lock(lane.doors["model"], result)
                continue
            step = decision(result, opened.tries, self.policy, self.rng)
            if isinstance(step, GiveUp):
                return result
            if isinstance(step, Halt):
                door = lane.doors[step.scope]
                if door.prober is opened:
                    await self._doubt(lane, opened, result, door)
                elif door.verdict is not None:
                    await door.verdict.wait()
                if door.error is not None or opened.attempts[-1].outcome == Outcome.REJECTED or opened.refusals >= self.policy.max_attempts:
                    return result
                continue
            budgeted = lane.retries.spend(self.clock.now_ns() / 1e9) if step.uses_attempt else 0.0
            self.tally.retrying += 1
            try:
                await self._wait(lane, self.clock.sleep(max(step.seconds, budgeted)))
            finally:
                self.tally.retrying -= 1
        return None

    async def _doubt(self, lane: OpenLane, opened: Open, refusal: Failure, door: Door) -> None:
        """Is it the key or the model that is refused, or this request alone? One small question, past queue and holds, decides, for all who wait.

        Refused, too: the door is locked. Else it opens; a request refused twice is then rejected, unless the provider says that the money is gone.
        """
        permit = lane.limiter.seize(opened.request.key)
        try:
            if self._over(lane):
                return
            told = await ask(small(opened.request), lane.client, self.clock)
            if isinstance(told, EndpointError) and lane.doors[told.scope] is door:
                self._lock(door, told)
            elif opened.refusals > 1 and shows_it_is_right(told):
                if isinstance(refusal, AccountError):
                    self._lock(door, refusal)
                else:
                    opened.reject()
        finally:
            lane.limiter.abandon(permit)
            door.open()

    async def _send(self, lane: OpenLane, opened: Open) -> Completion | Failure | None:
        """One attempt: wait for the limiter and the budget, send, settle, note it. None, and the run stops, if the budget has no room left for it."""
        asked_ns = self.clock.now_ns()
        tokens = lane.forecast.tokens(opened.request) if lane.limiter.counts_tokens else 0
        permit = await self._wait(lane, lane.limiter.acquire(opened.request.key, tokens))
        opened.admitted(asked_ns, permit.slot_ns, permit.admitted_ns)
        worst = await self._afford(lane, opened.request, permit)
        return None if worst is None else await self._exchange(lane, opened, permit, worst)

    async def _afford(self, lane: OpenLane, request: Request, permit: Permit) -> float | None:
        """Reserve the worst case of an attempt: what was reserved, or None, with the permit given back and the run stopped, if it will never fit."""
        if self.budget is None:
            return 0.0
        worst = lane.worst_case.of(request) if self.budget.cost is not None else 0.0
        try:
            while not self.budget.reserve(worst):
                await self._wait(lane, self.room.wait())
        except BudgetError as error:
            lane.limiter.abandon(permit)
            self.shortfall = str(error)
            self.stop.request("budget")
            return None
        except asyncio.CancelledError:
            lane.limiter.abandon(permit)
            raise
        return worst

    def _settle(self, worst: float, actual: float | None) -> None:
        if self.budget is not None:
            self.budget.settle(worst, actual)
            self.room.set()
            self.room.clear()  # whoever waits has been woken; whoever comes later waits for the next one

    async def _exchange(self, lane: OpenLane, opened: Open, permit: Permit, worst: float) -> Completion | Failure:
        started_ns, began = self.clock.now_ns(), self.listener.began()
        self.tally.in_flight += 1
        result: Completion | Failure
        try:
            result = await lane.client.complete(opened.request)
        except (RequestError, EndpointError) as error:
            result = error
        except (asyncio.CancelledError, RunError):
            lane.limiter.abandon(permit)
            self._settle(worst, None)
            raise
        except Exception as error:  # noqa: BLE001 - somebody's client: the request fails, the run goes on
            result = BadOutputError(f"the client failed: {type(error).__name__}: {error}")
        finally:
            self.tally.in_flight -= 1
        opened.stalled(self.listener.stalled_ms(began))
        usage = result.usage
        if usage is not None:
            lane.forecast.learn(opened.request, usage)
            lane.worst_case.learn(usage)
        if isinstance(result, Completion):
            lane.limiter.release(permit, used=_tokens(usage))
            lane.retries.earn()
            attempt = opened.answered(result)
        else:
            ended_ns = self.clock.now_ns()
            if isinstance(result, EndpointError):
                lane.doors[result.scope].refused(opened)
            lane.limiter.release(permit, result, _tokens(usage))
            attempt = opened.failed(result, started_ns, ended_ns)
            if (parked_ns := lane.limiter.parked_until_ns) > ended_ns:
                self.tally.parked[lane.model.name] = self.clock.wall_us(parked_ns)
        self._settle(worst, attempt.cost if usage is not None or isinstance(result, Completion) else owed(result))
        self.tally.attempted(attempt, lane.model.price.currency if lane.model.price else None)
        return result

    async def _wait(self, lane: OpenLane, awaitable: Awaitable[T]) -> T:
        """Await something of our own making, from which a stop releases at once."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - workers are tasks
        lane.waiting.add(task)
        try:
            return await awaitable
        finally:
            lane.waiting.discard(task)

    def _over(self, lane: OpenLane) -> bool:
        return lane.stopped or self.stop.reason is not None or self.error is not None

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self._release_waiting()

    def _lock(self, door: Door, error: Exception) -> None:
        door.error = error
        self.stopped[door.name] = error
        self.tally.stopped[door.name] = str(error)
        for lane in door.lanes:
            lane.stopped = True
            lane.release_waiting()

    def _release_waiting(self) -> None:
        for lane in self.lanes:
            lane.release_waiting()


def _tokens(usage: Usage | None) -> int | None:
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return usage.prompt_tokens + usage.completion_tokens
