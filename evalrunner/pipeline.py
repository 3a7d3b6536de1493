"""The whole flow: plan → engine → store → analysis → report. Read this first, `_carry_out` above all.

`run` and `resume` differ in where the plan and the directory come from; `_carry_out` is what they share.
"""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from evalrunner.analysis.gates import gates_state
from evalrunner.apart import is_async
from evalrunner.clients.bounded import Bounded
from evalrunner.clock import SYSTEM_CLOCK, Clock
from evalrunner.decisions import EXIT_CODES, check_baseline, check_run
from evalrunner.engine.asides import Asides
from evalrunner.engine.budget import Budget
from evalrunner.engine.chores import JUDGING, chores, counted
from evalrunner.engine.judging import Judging
from evalrunner.engine.limiter import Limiter
from evalrunner.engine.preflight import preflight
from evalrunner.engine.retry import RetryPolicy
from evalrunner.engine.runner import End, Lane, Stop, execute
from evalrunner.engine.scoring import NOT_WAITED_FOR, score_with
from evalrunner.engine.tally import Tally
from evalrunner.errors import BudgetError, EvalRunnerError, StoreError, UnreachableError
from evalrunner.loop import settled_heap
from evalrunner.open_files import allow
from evalrunner.plan.config import Config, load_config
from evalrunner.plan.grid import Plan, make_plan
from evalrunner.plugins import BUILT_IN, Account, Client, find
from evalrunner.records import ANSWERED, Completion, Model, Record, Request, Score
from evalrunner.results import Run, make_report
from evalrunner.serving.launch import check, launch, to_stderr
from evalrunner.store import spending
from evalrunner.store.files import Files
from evalrunner.store.git import git_state
from evalrunner.store.in_flight import Noted
from evalrunner.store.manifest import REPORT
from evalrunner.store.place import new_run_id, run_path
from evalrunner.store.redact import Redactor
from evalrunner.store.run_dir import About, RunDir, Settings, read_manifest

Follow = Callable[[Tally, int], AbstractAsyncContextManager[None]]
"""Shows a run's tally while it goes on; the number is of requests answered in earlier sessions."""


class Watch(NamedTuple):
    """How a run is followed and stopped from outside: the seams that command line, Python API and tests fill differently."""

    follow: Follow = lambda _tally, _already: nullcontext()
    say: Callable[[str], None] = to_stderr
    stop: Stop | None = None
    clock: Clock = SYSTEM_CLOCK
    store: Settings = Settings()


class Ready(NamedTuple):
    """What lanes are made of; `limiters` grows with them."""

    clients: Mapping[str, Client]
    limiters: dict[str, Limiter]
    clock: Clock


async def run(config: Config, out: Path | None = None, watch: Watch = Watch()) -> Run:  # noqa: B008 - immutable
    """Carry out a config in a new directory (default `reports/<name>/<run id>`). Raises RunError when nothing could be sent."""
    plan = make_plan(config)
    plan.validate()
    plan.check_baselines(check_baseline)
    check(plan.accounts.values(), plan.config.folder)
    for line in plan.warnings():
        watch.say(line)
    run_id = new_run_id(watch.clock.wall_us(watch.clock.now_ns()))
    about = About(
        run_id=run_id,
        description=config.settings.description or "",
        config_text=config.text,
        config_path=config.path,
        command=["evalrunner", *sys.argv[1:]],
        git=git_state(config.path.parent),
    )
    redactor = Redactor(plan.secrets())
    run_dir = RunDir.create(out or run_path(Path("reports"), plan.name, run_id), plan, about, redactor=redactor, settings=watch.store)
    return await _carry_out(plan, run_dir, redactor, watch)


async def resume(path: Path, watch: Watch = Watch(), overrides: Sequence[str] = ()) -> Run:  # noqa: B008 - immutable
    """Go on with the run in `path`. What is answered is never sent again; what has no answer is. `overrides` change its config, as in a higher budget.

    Raises RunError.
    """
    plan = make_plan(config_of_run(path, overrides))
    plan.validate()
    plan.check_baselines(check_baseline)
    redactor = Redactor(plan.secrets())
    return await _carry_out(plan, RunDir.resume(path, plan, redactor=redactor, settings=watch.store), redactor, watch)


async def judge(path: Path, watch: Watch = Watch(), overrides: Sequence[str] = ()) -> Run:  # noqa: B008 - immutable
    """Have the answers in `path` judged whose scores are still to come, and ask nothing else. Raises RunError."""
    plan = make_plan(config_of_run(path, overrides))
    plan.validate()
    redactor = Redactor(plan.secrets())
    return await _carry_out(plan, RunDir.resume(path, plan, redactor=redactor, settings=watch.store), redactor, watch, only_judges=True)


async def _carry_out(plan: Plan, run_dir: RunDir, redactor: Redactor, watch: Watch, *, only_judges: bool = False) -> Run:
    policy = RetryPolicy(max_attempts=plan.retry.max_attempts, max_elapsed_s=plan.retry.max_elapsed)
    stop, tally = watch.stop or Stop(), Tally(planned=plan.size, warn=watch.say)
    try:
        async with run_dir:
            for message in run_dir.messages:
                watch.say(message)
            if run_dir.nothing_left:
                if not (run_dir.path / REPORT).exists():
                    make_report(run_dir.path, files=watch.store.files)
                return _judged(plan, run_dir.path, 0, "nothing left to do: every request has its answer")
            plan.inform_judges(run_dir.run_id)
            if only_judges:
                tally.planned = len(run_dir.unscored())
                watch.say(f"{tally.planned:,} stored answers are to be judged; nothing else is asked")
            for line in run_dir.resumed.told() if run_dir.resumed and not only_judges else ():
                watch.say(line)
            sizes = {model.name: plan.size_of(model) for model in plan.models}
            tally.left = {JUDGING: tally.planned} if only_judges else spending.left(run_dir.path, sizes) if run_dir.resumed else sizes
            tally.budget = _budget(plan, run_dir)
            everybody = list(dict.fromkeys([*(() if only_judges else plan.models), *(one.model for one in plan.judges.values())]))
            allow(plan.connections(everybody))
            used = {model.provider: plan.accounts[model.provider] for model in everybody}
            async with launch(used.values(), plan.config.folder, watch.say) as accounts, connected(accounts, watch.clock) as clients:
                if plan.preflight:
                    started_here = {name for name, account in plan.accounts.items() if not account.base_url}
                    await preflight(plan, [model for model in everybody if model.provider not in started_here], clients, watch.clock)
                ready = Ready(clients, {}, watch.clock)
                lanes = [] if only_judges else [_lane(plan, run_dir, ready, model) for model in plan.models]
                due = chores(run_dir.unscored(), chain.from_iterable(map(plan.requests, plan.models)), lambda: scorers, run_dir.rescore)
                judges = dict.fromkeys(judge.model for judge in plan.judges.values())
                side_lanes = [_lane(plan, run_dir, ready, model, side=True) for model in judges]
                asides = Asides(side_lanes, (counted(one, tally) for one in due) if only_judges else due)
                judging = Judging(plan.judges, asides, run_dir.judged, run_dir.judgements(), random.SystemRandom())
                scorers = {prompt_set.name: judging.bound(prompt_set.scorers) for prompt_set in plan.prompt_sets}
                tools = {prompt_set.name: prompt_set.tool_answers for prompt_set in plan.prompt_sets if prompt_set.tool_answers}

                async def score(request: Request, completion: Completion) -> Mapping[str, Score]:
                    return await score_with(scorers[request.cell.prompt_set], request, completion, stop)

                already = run_dir.resumed.answered if run_dir.resumed and not only_judges else 0
                first = {name: _kept(run_dir, found) for name, found in scorers.items() if any(map(is_async, found.values()))}
                async with watch.follow(tally, already):
                    with settled_heap():
                        end = await execute(
                            lanes,
                            run_dir.add,
                            score=score,
                            first=first,
                            tools=tools,
                            asides=asides,
                            policy=policy,
                            budget=tally.budget,
                            stop=stop,
                            tally=tally,
                            clock=watch.clock,
                        )
            await _close(run_dir, end, tally.budget, half=only_judges and run_dir.counts["missing"] > 0)
    except EvalRunnerError as error:
        go_on = f"\nGo on with: evalrunner resume {shlex.quote(str(run_dir.path))}; after a change of the config, run it into another directory"
        error.args = (redactor.message(f"{error}{go_on if isinstance(error, UnreachableError) else ''}"),)
        raise
    code = exit_code(end, _of_answers(run_dir.counts) if only_judges else run_dir.counts, plan.allow_unanswered)
    said = redactor.message(end.why or "")
    return concluded_later(plan, run_dir.path, code, said) if only_judges else concluded(plan, run_dir.path, code, said, watch.store.files)


async def _close(run_dir: RunDir, end: End, budget: Budget | None, *, half: bool) -> None:
    """The books of a session; `half`: it did all it was to do, and the run still lacks something. Raises what ended it."""
    unrecorded = spending.without_rows(run_dir.path, (budget.spent + budget.kept, budget.sent)) if budget else None
    if end.error is not None:
        if not isinstance(end.error, StoreError):
            await run_dir.finish("interrupted", str(end.error), unrecorded)
        raise end.error
    await run_dir.finish("interrupted" if end.reason or end.stopped or half else "complete", end.why, unrecorded)


def concluded(plan: Plan, path: Path, code: int, message: str = "", files: Files | None = None) -> Run:
    """The run with its report made and its gates checked."""
    make_report(path, files=files)
    return _judged(plan, path, code, message)


def concluded_later(plan: Plan, path: Path, code: int = 0, message: str = "") -> Run:
    """The same for stored answers that were scored again: those of a run that was cut short are still half a run, and decide nothing."""
    if not read_manifest(path)["counts"].get("missing"):
        return concluded(plan, path, code, message)
    make_report(path)
    return Run(path, code, message or ("the run was cut short: its gate is checked when it is complete" if plan.gates else ""))


def _judged(plan: Plan, path: Path, code: int, message: str) -> Run:
    """The run with its gates checked; not where it was cut short, because half a run decides nothing."""
    gates = check_run(path, plan.gates) if code in {0, UNANSWERED} else []
    return Run(path, code or EXIT_CODES[gates_state(gates)], message, gates)


def _lane(plan: Plan, run_dir: RunDir, ready: Ready, model: Model, *, side: bool = False) -> Lane:
    """One for each model of the plan; a judge's is at its side, without requests of its own."""
    requests: Iterator[Request] = iter(()) if side else run_dir.missing(plan.requests(model))
    client = Noted(ready.clients[model.provider], run_dir.in_flight)
    return Lane(model=model, client=client, limiter=_limiter(plan, model, ready), requests=requests, side=side)


def _kept(run_dir: RunDir, scorers: Iterable[str]) -> Callable[[Record], Awaitable[None]]:
    """Keeps an answer whose scorers may take their time; a kill in between leaves their scores to come."""
    return lambda record: run_dir.answered(replace(record, scores=dict.fromkeys(scorers, NOT_WAITED_FOR)))


def _limiter(plan: Plan, model: Model, ready: Ready) -> Limiter:
    """What a provider counts together has one limiter."""
    name, limits = plan.bucket(model)
    return ready.limiters.setdefault(name, Limiter(limits, ready.clock, plan.retry.max_elapsed))


def _of_answers(counts: Mapping[str, Any]) -> dict[str, Any]:
    """What was without an answer before a session that only judges is the business of `resume`."""
    return {**counts, "planned": sum(counts["by_outcome"].get(outcome, 0) for outcome in ANSWERED)}


def _budget(plan: Plan, run_dir: RunDir) -> Budget | None:
    """What is left of the plan's budget."""
    if plan.budget is None:
        return None
    spent, sent = spending.in_all(run_dir.path)
    return Budget(**plan.budget.model_dump(), spent=spent, sent=sent)


@asynccontextmanager
async def connected(accounts: Iterable[Account], clock: Clock) -> AsyncIterator[dict[str, Client]]:
    """A client for each account, by its name; closed with the block."""
    async with AsyncExitStack() as stack:
        clients: dict[str, Client] = {}
        for account in accounts:
            client: Client = find("clients", account.kind)(account, clock)
            if account.kind not in BUILT_IN["clients"]:
                client = Bounded(client, account.timeouts.total)
            stack.push_async_callback(client.aclose)
            clients[account.name] = client
        yield clients


def config_of_run(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config in force for a run (the one it was made from, or is judged by since), as it is kept there, with paths relative to where it came from, and
    `overrides`. Raises RunError.
    """
    manifest = read_manifest(path)
    plan = manifest["plan"]
    overrides = [*(old for old in plan["overrides"] if old not in overrides), *overrides]
    return load_config(
        path / manifest["config"].get("file", "config.yaml"), origin=path / manifest["config"]["origin"], overrides=overrides, limit=plan["limit"]
    )


def exit_code(end: End, counts: Mapping[str, Any], allow_unanswered: float) -> int:
    """contract.md, section 3; where several apply, the first of 130/143, 5, 3, 4."""
    if end.reason in STOPPED_BY:
        return STOPPED_BY[end.reason]
    if end.nobody_left:
        return UnreachableError.exit_code
    if end.reason == "budget":
        return BudgetError.exit_code
    answered = sum(counts["by_outcome"].get(outcome, 0) for outcome in ANSWERED)
    unanswered = counts["planned"] - answered + counts.get("unscored", 0)
    too_many = not answered or unanswered > allow_unanswered * counts["planned"]
    return UNANSWERED if unanswered and (too_many or end.stopped) else 0


STOPPED_BY = {"interrupted": 130, "terminated": 143}
"""What `Stop.request` is told by a signal -> exit code."""
UNANSWERED = 4
"""The exit code of a run that is done but lacks too many answers."""
