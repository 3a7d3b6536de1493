"""`evalrunner resume`: go on with a run where it stopped."""

import argparse
from pathlib import Path

from evalrunner.cli.session import carry_out
from evalrunner.pipeline import Watch, resume
from evalrunner.results import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")


def main(args: argparse.Namespace) -> int:
    async def session(watch: Watch) -> Run:
        return await resume(args.run, watch)

    return carry_out(session)
