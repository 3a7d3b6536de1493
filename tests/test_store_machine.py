"""The store against a plain dict, in any order of adding, rolling, finishing, failing, dying, losing power, damage and resuming."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from crash_harness import FaultyFiles, Killed
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from make_records import SmallPlan, make_record

from evalrunner.errors import StoreError
from evalrunner.records import ANSWERED, FINAL, Outcome
from evalrunner.store.run_dir import About, RunDir, Settings, read_manifest, read_results

PLAN = SmallPlan(12)
REQUESTS = {request.key: request for request in PLAN.all_requests()}


class Store(RuleBasedStateMachine):
    """The model is `rows`: key -> (outcome, number of the record), as acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.place = tempfile.TemporaryDirectory()
        self.root = Path(self.place.name) / "disk"
        self.run = self.root / "run"
        self.files = FaultyFiles(self.root)
        self.open: RunDir | None = None
        self.rows: dict[str, tuple[str, int]] = {}
        self.number = 0
        self.damaged = False

    def teardown(self) -> None:
        if self.open is not None:
            self.abandon()
        self.loop.close()
        self.place.cleanup()

    @initialize()
    def begin(self) -> None:
        self.start()

    @precondition(lambda self: self.open is None)
    @rule()
    def start(self) -> None:
        """Create the run, or resume it on a sound disk: what was acknowledged is there, and final rows are not asked for."""
        self.files = FaultyFiles.after(self.files)
        settings = Settings(segment_rows=5, risk_rows=1, files=self.files)
        fresh = not (self.run / "manifest.json").exists()
        run_dir = RunDir.create(self.run, PLAN, About(run_id="r1"), settings=settings) if fresh else RunDir.resume(self.run, PLAN, settings=settings)
        self.loop.run(run_dir.__aenter__())
        self.open = None if run_dir.nothing_left else run_dir
        assert bool(run_dir.messages) <= self.damaged or all("cut short" in said for said in run_dir.messages)
        if self.damaged:
            self.damaged = False
            stored = self.stored()
            lost = self.rows.items() - stored.items()
            assert bool(lost) <= bool(run_dir.messages)
            self.rows = stored
        asked = {request.key for request in run_dir.missing(iter(REQUESTS.values()))}
        assert asked == {key for key in REQUESTS if self.rows.get(key, ("",))[0] not in FINAL}
        self.asked = sorted(asked)
        if self.open is None:
            self.loop.run(run_dir.__aexit__(None, None, None))

    @precondition(lambda self: self.open is not None and self.asked)
    @rule(
        outcomes=st.lists(st.sampled_from([Outcome.OK, Outcome.OK, Outcome.TIMEOUT, Outcome.REJECTED, Outcome.TRUNCATED]), min_size=1, max_size=8),
        data=st.data(),
    )
    def add(self, outcomes: list[Outcome], data: st.DataObject) -> None:
        """Rows of requests that this session has not asked yet; all at once, as workers do."""
        chosen = data.draw(st.permutations(self.asked))[: len(outcomes)]
        self.asked = sorted(set(self.asked) - set(chosen))

        async def all_at_once() -> None:
            await asyncio.gather(*(self.add_one(key, outcome) for key, outcome in zip(chosen, outcomes, strict=False)))

        self.on_disk(all_at_once())

    async def add_one(self, key: str, outcome: Outcome) -> None:
        assert self.open is not None
        self.number += 1
        number = self.number
        await self.open.add(make_record(REQUESTS[key], outcome=outcome, wait_ms=float(number)))
        self.rows[key] = (str(outcome), number)

    @precondition(lambda self: self.open is not None)
    @rule()
    def roll(self) -> None:
        assert self.open is not None
        assert self.open._journal is not None
        self.on_disk(self.open._roll(self.open._journal))

    @precondition(lambda self: self.open is not None)
    @rule(state=st.sampled_from(["complete", "interrupted"]))
    def finish(self, state: Any) -> None:
        """Everything acknowledged is in parts that anyone can read."""
        assert self.open is not None
        if self.on_disk(self.open.finish(state)):
            self.loop.run(self.open.__aexit__(None, None, None))
            self.open = None
            assert read_manifest(self.run)["state"] == state
            assert set(self.listed()) == set(self.rows)

    @precondition(lambda self: self.open is not None)
    @rule(ahead=st.integers(1, 40), how=st.sampled_from(["killed", "eio", "full"]))
    def break_soon(self, ahead: int, how: Any) -> None:
        self.files.break_at(self.files.operations + ahead, how)

    @precondition(lambda self: self.open is not None)
    @rule(power=st.booleans())
    def die(self, *, power: bool) -> None:
        """kill -9, or the power is gone: the run is durable, so either costs no row that was acknowledged."""
        self.files.break_at(self.files.operations + 1, "killed")
        self.abandon()
        if power:
            self.files.lose_power()
        self.after_crash()

    @precondition(lambda self: self.open is None and not self.damaged)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """A flipped bit or a lost end in a part or in the journal."""
        victims = sorted([*self.run.glob("results/*.parquet"), *self.run.glob("journal/*")])
        victims = [path for path in victims if path.stat().st_size]
        if victims:
            path = data.draw(st.sampled_from(victims))
            content = bytearray(path.read_bytes())
            place = data.draw(st.integers(0, len(content) - 1))
            if data.draw(st.booleans()):
                content[place] ^= 1
            else:
                del content[place:]
            path.write_bytes(content)
            self.damaged = True

    @invariant()
    def nobody_sees_a_key_twice(self) -> None:
        if self.run.is_dir() and not self.damaged and (self.run / "results").is_dir():
            listed = self.listed()
            assert len(listed) == len(set(listed))
            if (self.run / "manifest.json").exists():
                stored = self.stored()
                assert {key: row for key, row in stored.items() if key in self.rows} == self.rows

    def on_disk(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do `work`; if the disk breaks, the process is gone."""
        try:
            self.loop.run(work)
        except (Killed, StoreError):
            self.abandon()
            self.after_crash()
            return False
        return True

    def abandon(self) -> None:
        assert self.open is not None
        with contextlib.suppress(Killed, StoreError):
            self.open._fail(StoreError("the process is gone"))
            self.loop.run(self.open.__aexit__(None, None, None))
        self.open = None

    def after_crash(self) -> None:
        """What was written but not acknowledged may be there; it is known from now on."""
        if (self.run / "manifest.json").exists():
            stored = self.stored()
            for key, row in self.rows.items():
                assert stored[key] == row or stored[key][1] > row[1]
            self.rows = stored
        else:
            assert not self.rows

    def stored(self) -> dict[str, tuple[str, int]]:
        table = read_results(self.run, ["key", "outcome", "wait_ms", "output"]).to_pylist()
        assert len({row["key"] for row in table}) == len(table)
        assert all((row["output"] is not None) == (row["outcome"] in ANSWERED) for row in table)
        return {row["key"]: (row["outcome"], int(row["wait_ms"])) for row in table}

    def listed(self) -> list[str]:
        table = ds.dataset(self.run / "results", format="parquet").to_table()
        return table["key"].to_pylist() if "key" in table.column_names else []


QUICK = settings(max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))


class TestStore(Store.TestCase):  # type: ignore[misc,name-defined]
    settings = QUICK


@pytest.mark.long
class TestStoreLong(Store.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(QUICK, max_examples=1000, stateful_step_count=50)
