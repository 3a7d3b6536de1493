"""What scorers ask beside the run: the same limits, retries, budget and stops as requests, and none of their slots. In virtual time."""

from __future__ import annotations

import asyncio

import pytest
from test_runner import DIRECT, World, requests_of, script_of

from evalrunner import errors
from evalrunner.engine.asides import Asides
from evalrunner.engine.budget import Budget
from evalrunner.engine.lanes import Lane
from evalrunner.engine.limiter import Limiter
from evalrunner.records import Limits, Model, Score


class Judged(World):
    """A world with a judge: `ask` counts as the score of every answer."""

    def judge(self, say=None, *, limits=DIRECT, limiter=None, provider="acc", **client):
        script = self.lane(0, say, name="judge", provider=provider, limits=limits, limiter=limiter, **client)
        lane = self.lanes.pop()
        self.model = lane.model
        side = Lane(model=lane.model, client=script, limiter=lane.limiter, requests=iter(()), side=True)
        self.asides = Asides([side])
        self.found = []
        return script

    async def score(self, request, completion):
        [call] = requests_of(self.model, 1)
        record = await self.asides.ask(self.model, call)
        self.found.append(record)
        return {"judge": Score(value=None if record is None else 1.0)}

    async def run(self, **options):
        return await super().run(score=self.score, asides=self.asides, **options)


async def test_judging_holds_no_slot_and_is_in_no_latency():
    """While a slow judge thinks, the candidate's only slot serves the next request; the candidate's times know nothing of the judge."""
    world = Judged()
    client = world.lane(3, limits=Limits(concurrency=1), latency=1.0)
    world.judge(latency=10.0)
    await world.run()
    assert [at for at, _ in client.sent] == [0, 1, 2]
    assert world.clock.seconds == 13
    assert [record.attempts[0].latency_ms for record in world.records] == [1000.0] * 3
    assert [record.wait_ms for record in world.records] == [0.0] * 3
    assert all(len(record.attempts) == 1 and record.cost == pytest.approx(0.0002) for record in world.records)


async def test_judge_and_candidate_share_a_limiter_without_waiting_for_ever():
    """One slot for both: they take turns, never together, and all comes to an end."""
    world = Judged()
    limiter = Limiter(Limits(concurrency=1), world.clock)
    client = world.lane(4, limiter=limiter)
    judge = world.judge(limiter=limiter)
    await world.run()
    assert world.outcomes() == {"ok": 4}
    assert len(world.found) == 4
    assert world.clock.seconds == 8
    assert not {at for at, _ in client.sent} & {at for at, _ in judge.sent}


async def test_a_judge_is_retried_like_a_request():
    """A failing judge is asked again after a back-off; what it took is in its own record."""
    world = Judged()
    world.lane(1)
    world.judge(script_of(errors.ServerError("busy", http_status=503)))
    await world.run()
    [record] = world.found
    assert [attempt.outcome for attempt in record.attempts] == ["server_error", "ok"]
    assert len(world.records[0].attempts) == 1


async def test_a_stop_lets_answers_go_without_their_judgement():
    """Whoever waits for a judge when the run stops goes on at once, unjudged; the answer has its row."""
    world = Judged()
    world.lane(4)
    world.judge(limits=Limits(concurrency=1, rpm=1))
    asyncio.get_running_loop().call_soon(lambda: asyncio.create_task(stop_after(world, 5)))
    end = await world.run()
    assert end.reason == "interrupted"
    assert world.outcomes() == {"ok": 4}
    assert world.found == [None] * 4


async def stop_after(world, seconds):
    await world.clock.sleep(seconds)
    world.stop.request("interrupted")


async def test_a_budget_holds_for_judges():
    """Nothing is sent past it, whoever sends; the answers stay."""
    world = Judged()
    client = world.lane(3)
    judge = world.judge()
    end = await world.run(budget=Budget(requests=4))
    assert end.reason == "budget"
    assert len(client.sent) + len(judge.sent) == 4
    assert world.outcomes() == {"ok": 3}
    assert sum(record is not None for record in world.found) == 1


async def test_a_judge_whose_account_refuses_stops_itself_only():
    """The candidates go on to their end; the run says who refused and that somebody is left."""
    world = Judged()
    world.lane(6)
    judge = world.judge(lambda *_: errors.AuthError("wrong key", http_status=401), provider="other")
    end = await world.run()
    assert world.outcomes() == {"ok": 6}
    assert not end.nobody_left
    assert list(end.stopped) == ["other"]
    assert world.found == [None] * 6 or all(record is None or record.outcome == "auth" for record in world.found)
    assert len(judge.sent) <= DIRECT.concurrency + 1


async def test_chores_are_done_while_the_run_goes_on():
    """Each once, with the judge at hand; a run without requests does them, too. One that fails ends the run with its error."""
    world = Judged()
    world.judge()
    done = []

    async def chore(number):
        [call] = requests_of(world.model, 1)
        done.append((number, (await world.asides.ask(world.model, call)).outcome))

    world.asides.chores = iter([lambda number=number: chore(number) for number in range(40)])
    end = await world.run()
    assert end.error is None
    assert sorted(done) == [(number, "ok") for number in range(40)]

    async def fails():
        raise errors.StoreError("disk full")

    world.asides.chores = iter([fails])
    assert "disk full" in str((await world.run()).error)


async def test_nobody_asks_before_the_run():
    """A scorer that asks too early is a mistake in the program, and told as one."""
    with pytest.raises(RuntimeError, match="before the run begins"):
        await Asides().ask(Model(name="m", id="m", provider="p"), next(requests_of(Model(name="m", id="m", provider="p"), 1)))
