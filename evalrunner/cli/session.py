"""What `run` and `resume` share: options, an event loop, signals, progress, and the last lines."""

import argparse
import asyncio
import os
import shlex
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType

from evalrunner.analysis.gates import gates_state
from evalrunner.cli.compare_command import add_inconclusive
from evalrunner.cli.progress import shown
from evalrunner.cli.saying import command, reader_may_leave, say
from evalrunner.cli.tables import print_summary
from evalrunner.cli.verdict_files import gate_markdown, tell_github
from evalrunner.cli.verdict_words import conclusion, gate_lines
from evalrunner.engine.runner import Stop
from evalrunner.errors import BudgetError
from evalrunner.loop import new_loop
from evalrunner.pipeline import STOPPED_BY, Watch
from evalrunner.records import ANSWERED
from evalrunner.results import Run
from evalrunner.store.run_dir import Settings

REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "terminated"}
GRACE_S = 30.0


def add_session_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-cost", type=float, metavar="X", help="the budget in money, in place of the config's budget.cost; counts from the run's first request"
    )
    parser.add_argument("--max-requests", type=int, metavar="N", help="the budget in HTTP requests, retries included, in place of the config's budget.requests")
    parser.add_argument(
        "--grace", type=float, default=GRACE_S, metavar="SECONDS", help="how long Ctrl-C or SIGTERM waits for what is in flight (default: %(default)g)"
    )
    parser.add_argument(
        "--durable", action="store_true", help="write every row through to the disk at once; otherwise a power cut may take the last second or 64 rows"
    )
    add_inconclusive(parser)


def budget_overrides(args: argparse.Namespace) -> list[str]:
    """The options of a budget as changes to the config, validated like it and kept with the run."""
    given = {"budget.cost": args.max_cost, "budget.requests": args.max_requests}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def carry_out(session: Callable[[Watch], Awaitable[Run]], args: argparse.Namespace) -> int:
    """Run a session to its end and say where its results are. A signal drains once, for at most `--grace`, and leaves at once the second time."""
    stop = Stop()
    store = Settings(risk_rows=1) if args.durable else Settings()

    async def main() -> Run | None:
        signals = _Signals(stop, args.grace)
        try:
            return await session(Watch(follow=lambda tally, already: shown(tally, already=already), say=say, stop=stop, store=store))
        except asyncio.CancelledError:
            if stop.reason is None:
                raise
            return None
        finally:
            signals.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        run = runner.run(main())
    if run is None:
        say("stopped before anything was sent")
        return STOPPED_BY[stop.reason or ""]
    return last_lines(run, args)


def last_lines(run: Run, args: argparse.Namespace) -> int:
    """Say what came of a run; returns the exit code."""
    inconclusive_fails = args.inconclusive == "fail"
    with reader_may_leave():
        _print_outcome(run, inconclusive_fails=inconclusive_fails)
    return 1 if inconclusive_fails and run.exit_code == 0 and gates_state(run.gates) == "inconclusive" else run.exit_code


class _Signals:
    """Turns the first signal into a drain and the second into an exit. A signal that was ignored when we started (`nohup`, `&`) stays ignored.

    Plain handlers, because the loop's own wait for it: while it is blocked, as in a validation or a report, nobody could leave.
    """

    def __init__(self, stop: Stop, grace_s: float) -> None:
        self._stop = stop
        self._grace_s = grace_s
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None
        obeyed = [number for number in REASONS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._signalled) for number in obeyed}

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, before in self._before.items():
            signal.signal(number, before)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        reason = REASONS[signal.Signals(number)]
        if self._asked:
            _tell("\nLeaving; what was in flight is lost, everything recorded is safe.")
            os._exit(STOPPED_BY[reason])
        self._asked = True
        _tell(f"\nStopping: nothing more is sent, what is in flight is waited for, {self._grace_s:g} s at most. Once more to leave at once.")
        if not self._stop.bound and asyncio.current_task(self._loop) is self._main:
            self._stop.request(reason)
            raise asyncio.CancelledError  # out of a validation, which does not come to the loop
        self._loop.call_soon_threadsafe(self._drain, reason)

    def _drain(self, reason: str) -> None:
        self._timer = self._loop.call_later(self._grace_s, self._too_long)
        self._stop.request(reason)
        if not self._stop.bound and self._main is not None:
            self._main.cancel()  # nothing is in flight yet: a download or the preflight need not end

    def _too_long(self) -> None:
        say(f"Not answered within {self._grace_s:g} s: what is still in flight is dropped; `evalrunner resume` asks it again.")
        self._stop.abort()


def _print_outcome(run: Run, *, inconclusive_fails: bool) -> None:
    if run.message:
        say(run.message)
    print_summary(run.summary())
    print(f"\nresults  {run.path / 'results'}\nreport   {run.path / 'report.html'}")
    if run.gates:
        print("\n".join(["", *gate_lines(run.gates), f"verdict  {conclusion(run.gates)}"]))
        summary = gate_markdown(run.gates, f"{run.manifest['name']}: {conclusion(run.gates)}")
        for line in tell_github(run.gates, summary, inconclusive_fails=inconclusive_fails):
            command(line)
    missing = run.manifest["counts"]["planned"] - sum(run.manifest["counts"]["by_outcome"].get(outcome, 0) for outcome in ANSWERED)
    if missing:
        say(f"{missing:,} of {run.manifest['counts']['planned']:,} requests are without an answer. Go on with: {_go_on(run)}")
    elif unscored := run.manifest["counts"].get("unscored"):
        say(f"{unscored:,} answers are still to be scored. Go on with: {_go_on(run)}")


def _go_on(run: Run) -> str:
    return f"evalrunner resume {shlex.quote(str(run.path))}{_higher_budget(run) if run.exit_code == BudgetError.exit_code else ''}"


def _higher_budget(run: Run) -> str:
    options = {"cost": " --max-cost X", "requests": " --max-requests N"}
    return "".join(option for key, option in options.items() if key in run.manifest["plan"]["budget"])


def _tell(line: str) -> None:
    """`say` for a signal's handler, which may have interrupted another print."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())
