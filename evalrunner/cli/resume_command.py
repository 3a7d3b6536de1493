"""`evalrunner resume`: go on with a run where it stopped."""

import argparse
from pathlib import Path

from evalrunner.cli.session import add_session_arguments, budget_overrides, carry_out
from evalrunner.pipeline import Watch, resume
from evalrunner.results import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    add_session_arguments(parser)


def main(args: argparse.Namespace) -> int:
    async def session(watch: Watch) -> Run:
        return await resume(args.run, watch, budget_overrides(args))

    return carry_out(session, args)
