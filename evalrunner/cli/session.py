"""What `run` and `resume` share: an event loop, signals, progress, and the last lines."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable

from evalrunner.cli.progress import shown
from evalrunner.cli.tables import print_summary
from evalrunner.engine.runner import Stop
from evalrunner.loop import new_loop
from evalrunner.pipeline import Watch
from evalrunner.records import ANSWERED
from evalrunner.results import Run

REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "terminated"}


def carry_out(session: Callable[[Watch], Awaitable[Run]]) -> int:
    """Run a session to its end and say where its results are. Ctrl-C drains once, leaves at once the second time."""

    async def main() -> Run:
        stop = Stop()
        loop = asyncio.get_running_loop()
        for number, reason in REASONS.items():
            loop.add_signal_handler(number, _asked_to_stop, stop, reason)
        return await session(Watch(follow=lambda tally, already: shown(tally, already=already), stop=stop))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        run = runner.run(main())
    _last_lines(run)
    return run.exit_code


def _asked_to_stop(stop: Stop, reason: str) -> None:
    if stop.reason is None:
        _say("\nStopping: nothing more is sent, what is in flight is waited for. Once more to leave at once.")
        stop.request(reason)
    else:
        _say("\nLeaving; what was in flight is lost, everything recorded is safe.")
        os._exit(130 if reason == "interrupted" else 143)


def _last_lines(run: Run) -> None:
    if run.message:
        _say(run.message)
    print_summary(run.summary())
    print(f"\nresults  {run.path / 'results'}\nreport   {run.path / 'report.html'}")
    missing = run.manifest["counts"]["planned"] - sum(run.manifest["counts"]["by_outcome"].get(outcome, 0) for outcome in ANSWERED)
    if missing:
        _say(f"{missing:,} of {run.manifest['counts']['planned']:,} requests are without an answer. Go on with: evalrunner resume {shlex.quote(str(run.path))}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
