"""`evalrunner show`: a run's summary in the terminal, or as JSON."""

import argparse
import shlex
from pathlib import Path

import msgspec

from evalrunner.cli.tables import print_summary
from evalrunner.plain import escaped
from evalrunner.results import open_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    parser.add_argument("--json", action="store_true", help="every table of the report, as JSON")


def main(args: argparse.Namespace) -> int:
    run = open_run(args.run)
    summary = run.summary()
    if args.json:
        print(escaped(msgspec.json.format(msgspec.json.encode(summary)).decode()))
    else:
        print_summary(summary)
        if run.state == "killed":
            print(f"! The run was killed; what was recorded is safe. Go on with: evalrunner resume {shlex.quote(str(args.run))}")
    return 0
