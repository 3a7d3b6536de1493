"""The whole flow: plan → engine → store → analysis → report. Read this first, `_carry_out` above all.

`run` and `resume` differ in where the plan and the directory come from; `_carry_out` is what they share.
"""

from __future__ import annotations

import random
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from evalrunner.analysis.gates import gates_state
from evalrunner.clock import SYSTEM_CLOCK, Clock
from evalrunner.decisions import EXIT_CODES, check_baseline, check_run
from evalrunner.engine.asides import Asides, Chore
from evalrunner.engine.budget import Budget
from evalrunner.engine.judging import Judging
from evalrunner.engine.limiter import Limiter
from evalrunner.engine.preflight import preflight
from evalrunner.engine.retry import RetryPolicy
from evalrunner.engine.runner import End, Lane, Stop, execute
from evalrunner.engine.scoring import score_with
from evalrunner.engine.tally import Tally
from evalrunner.errors import BudgetError, EvalRunnerError, StoreError, UnreachableError
from evalrunner.plan.config import Config, load_config
from evalrunner.plan.grid import Plan, make_plan
from evalrunner.plugins import Account, Client, Scorer, find
from evalrunner.records import ANSWERED, FINAL, STILL_TO_COME, Completion, Model, Outcome, Request, Score
from evalrunner.results import Run, make_report
from evalrunner.serving.launch import check, launch, to_stderr
from evalrunner.store.answers import completion_of
from evalrunner.store.in_flight import Noted
from evalrunner.store.known import is_open
from evalrunner.store.place import new_run_id, run_path
from evalrunner.store.redact import Redactor
from evalrunner.store.run_dir import About, RunDir, Settings, read_attempts, read_judgements, read_manifest, read_results

Follow = Callable[[Tally, int], AbstractAsyncContextManager[None]]
"""Shows a run's tally while it goes on; the number is of requests answered in earlier sessions."""


class Watch(NamedTuple):
    """How a run is followed and stopped from outside: the seams that command line, Python API and tests fill differently."""

    follow: Follow = lambda _tally, _already: nullcontext()
    say: Callable[[str], None] = to_stderr
    stop: Stop | None = None
    clock: Clock = SYSTEM_CLOCK
    store: Settings = Settings()


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
        git=_git_state(config.path.parent),
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
    redactor = Redactor(plan.secrets())
    return await _carry_out(plan, RunDir.resume(path, plan, redactor=redactor, settings=watch.store), redactor, watch, only_judges=True)


async def _carry_out(plan: Plan, run_dir: RunDir, redactor: Redactor, watch: Watch, *, only_judges: bool = False) -> Run:
    policy = RetryPolicy(max_attempts=plan.retry.max_attempts, max_elapsed_s=plan.retry.max_elapsed)
    stop, tally = watch.stop or Stop(), Tally(planned=plan.size)
    try:
        async with run_dir:
            for message in run_dir.messages:
                watch.say(message)
            if run_dir.nothing_left:
                return _judged(plan, run_dir.path, 0, "nothing left to do: every request has its answer")
            for line in _beginning(run_dir, only_judges=only_judges):
                watch.say(line)
            if only_judges:
                tally.planned = len(run_dir.unscored())
            tally.budget, tally.left = _budget(plan, run_dir), {JUDGING: tally.planned} if only_judges else _left(plan, run_dir)
            everybody = list(dict.fromkeys([*(() if only_judges else plan.models), *(one.model for one in plan.judges.values())]))
            used = {model.provider: plan.accounts[model.provider] for model in everybody}
            async with launch(used.values(), plan.config.folder, watch.say) as accounts, connected(accounts, watch.clock) as clients:
                if plan.preflight:
                    started_here = {name for name, account in plan.accounts.items() if not account.base_url}
                    await preflight(plan, [model for model in everybody if model.provider not in started_here], clients, watch.clock)
                limiters: dict[str, Limiter] = {}
                lanes = [] if only_judges else _lanes(plan, run_dir, clients, limiters, watch.clock)
                chores = _chores(plan, run_dir, lambda: scorers)
                asides = Asides(_side_lanes(plan, run_dir, clients, limiters, watch.clock), (_counted(one, tally) for one in chores) if only_judges else chores)
                judging = Judging(plan.judges, asides, run_dir.judged, run_dir.judgements(), random.SystemRandom())
                scorers = {prompt_set.name: judging.bound(prompt_set.scorers) for prompt_set in plan.prompt_sets}
                asking = {scorer for scorer, _ in plan.judges}
                tools = {prompt_set.name: prompt_set.tool_answers for prompt_set in plan.prompt_sets if prompt_set.tool_answers}

                async def score(request: Request, completion: Completion) -> Mapping[str, Score]:
                    return await score_with(scorers[request.cell.prompt_set], request, completion, patient=asking)

                async with watch.follow(tally, run_dir.resumed.answered if run_dir.resumed and not only_judges else 0):
                    end = await execute(
                        lanes,
                        run_dir.add,
                        score=score,
                        tools=tools,
                        asides=asides,
                        policy=policy,
                        budget=tally.budget,
                        stop=stop,
                        tally=tally,
                        clock=watch.clock,
                    )
            if end.error is not None:
                if not isinstance(end.error, StoreError):
                    await run_dir.finish("interrupted", redactor.message(str(end.error)), _unrecorded(tally.budget, run_dir))
                raise end.error
            unfinished = end.reason or end.stopped or (only_judges and run_dir.counts["missing"])
            await run_dir.finish("interrupted" if unfinished else "complete", _reason(end), _unrecorded(tally.budget, run_dir))
    except EvalRunnerError as error:
        go_on = f"\nGo on with: evalrunner resume {shlex.quote(str(run_dir.path))}" if isinstance(error, UnreachableError) else ""
        error.args = (redactor.message(f"{error}{go_on}"),)
        raise
    code = exit_code(end, _of_answers(run_dir.counts) if only_judges else run_dir.counts, plan.allow_unanswered)
    make_report(run_dir.path, baseline=_baseline(plan) if code in {0, UNANSWERED} else None)
    return _judged(plan, run_dir.path, code, redactor.message(_reason(end) or ""))


def _baseline(plan: Plan) -> Path | None:
    """The one run that all of this one is gated against: the report shows what changed since."""
    found = {gate.baseline for gate in plan.gates if gate.baseline is not None and not gate.rule.where}
    return found.pop() if len(found) == 1 else None


def _judged(plan: Plan, path: Path, code: int, message: str) -> Run:
    """The run with its gates checked; not where it was cut short, because half a run decides nothing."""
    gates = check_run(path, plan.gates) if code in {0, UNANSWERED} else []
    return Run(path, code or EXIT_CODES[gates_state(gates)], message, gates)


def _left(plan: Plan, run_dir: RunDir) -> dict[str, int]:
    """Requests without a final row, by model."""
    left = {model.name: plan.size_of(model) for model in plan.models}
    if run_dir.resumed is not None:
        rows = read_results(run_dir.path, ["model", "outcome"]).to_pandas()
        for name, count in rows[rows["outcome"].isin(FINAL)]["model"].value_counts().items():
            left[str(name)] = left.get(str(name), 0) - int(count)
    return left


def _lanes(plan: Plan, run_dir: RunDir, clients: Mapping[str, Client], limiters: dict[str, Limiter], clock: Clock) -> list[Lane]:
    """One lane per model."""
    return [
        Lane(
            model=model,
            client=Noted(clients[model.provider], run_dir.in_flight),
            limiter=_limiter(plan, model, limiters, clock),
            requests=run_dir.missing(plan.requests(model)),
        )
        for model in plan.models
    ]


def _side_lanes(plan: Plan, run_dir: RunDir, clients: Mapping[str, Client], limiters: dict[str, Limiter], clock: Clock) -> list[Lane]:
    """One lane per judge, beside those of the plan."""
    return [
        Lane(
            model=model,
            client=Noted(clients[model.provider], run_dir.in_flight),
            limiter=_limiter(plan, model, limiters, clock),
            requests=iter(()),
            side=True,
        )
        for model in dict.fromkeys(judge.model for judge in plan.judges.values())
    ]


def _limiter(plan: Plan, model: Model, limiters: dict[str, Limiter], clock: Clock) -> Limiter:
    """What a provider counts together has one limiter."""
    name, limits = plan.bucket(model)
    return limiters.setdefault(name, Limiter(limits, clock, plan.retry.max_elapsed))


def _chores(plan: Plan, run_dir: RunDir, scorers: Callable[[], Mapping[str, Mapping[str, Scorer]]]) -> Iterator[Chore]:
    """The answers of earlier sessions that have a score still to come; computes no other."""
    rows = run_dir.unscored()

    async def score(request: Request, row: dict[str, Any]) -> None:
        waiting = {name: scorer for name, scorer in scorers()[request.cell.prompt_set].items() if (row[f"score_{name}_why"] or "").startswith(STILL_TO_COME)}
        scores = await score_with(waiting, request, completion_of(row), patient=waiting)
        if not all(is_open(found) for found in scores.values()):
            await run_dir.rescore(row, scores)

    for model in plan.models if rows else ():
        for request in plan.requests(model):
            if (row := rows.pop(request.key, None)) is not None:
                yield partial(score, request, row)


def _beginning(run_dir: RunDir, *, only_judges: bool) -> Iterator[str]:
    found = run_dir.resumed
    if only_judges:
        yield f"{len(run_dir.unscored()):,} stored answers are to be judged; nothing else is asked"
    elif found is not None:
        yield f"resuming: {found.answered:,} answered, {found.missing:,} without a row, {found.sent_again:,} without an answer and sent again"
        if found.unscored:
            yield f"{found.unscored:,} answers are still to be judged; they are not asked again"
        if found.in_flight:
            yield f"{found.in_flight:,} of them were in flight when the last session ended: they may have been paid for, and are sent again"


def _of_answers(counts: Mapping[str, Any]) -> dict[str, Any]:
    """What was without an answer before a session that only judges is the business of `resume`."""
    return {**counts, "planned": sum(counts["by_outcome"].get(outcome, 0) for outcome in ANSWERED)}


def _counted(chore: Chore, tally: Tally) -> Chore:
    """Progress of a session that does nothing else."""

    async def counted() -> None:
        await chore()
        tally.done += 1
        tally.by_outcome[Outcome.OK] += 1
        tally.left[JUDGING] -= 1

    return counted


def _budget(plan: Plan, run_dir: RunDir) -> Budget | None:
    """What is left of the plan's budget: all that the run's stored attempts cost is spent, and what earlier sessions spent without a row."""
    if plan.budget is None:
        return None
    spent, sent = _stored(run_dir)
    more = read_manifest(run_dir.path).get("unrecorded", {})
    return Budget(**plan.budget.model_dump(), spent=spent + more.get("cost", 0.0), sent=sent + int(more.get("requests", 0)))


def _unrecorded(budget: Budget | None, run_dir: RunDir) -> dict[str, float] | None:
    """What the budget was charged with beyond the stored attempts: answers of unknown cost, and attempts of requests that were stopped on their way."""
    if budget is None:
        return None
    spent, sent = _stored(run_dir)
    return {"cost": max(0.0, round(budget.spent + budget.kept - spent, 9)), "requests": budget.sent - sent}


def _stored(run_dir: RunDir) -> tuple[float, int]:
    """What the run's rows cost, and how many requests were sent for them: judges' too."""
    costs = read_attempts(run_dir.path, ["cost"])["cost"].to_pandas()
    judged = read_judgements(run_dir.path, ["cost", "attempts"]).to_pandas()
    return float(costs.sum() + judged["cost"].sum()), len(costs) + int(judged["attempts"].sum())


@asynccontextmanager
async def connected(accounts: Iterable[Account], clock: Clock) -> AsyncIterator[dict[str, Client]]:
    """A client for each account, by its name; closed with the block."""
    async with AsyncExitStack() as stack:
        clients: dict[str, Client] = {}
        for account in accounts:
            client: Client = find("clients", account.kind)(account, clock)
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
JUDGING = "judging"
"""What progress calls a session that asks judges only."""
UNANSWERED = 4
"""The exit code of a run that is done but lacks too many answers."""


def _reason(end: End) -> str | None:
    """Why the run did not come to its end by itself, for the manifest and the terminal."""
    why = end.shortfall or end.reason
    parts = [why] if why else []
    parts += [f"{name} refused: {error}" for name, error in end.stopped.items()]
    return "; ".join(parts) or None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and state of the user's project, None where there is none."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603 - fixed words

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
