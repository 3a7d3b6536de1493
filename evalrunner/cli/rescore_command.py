"""`evalrunner rescore`: other scorers on stored answers. Sends nothing."""

import argparse
import sys
from pathlib import Path

from evalrunner.cli.tables import print_summary
from evalrunner.plan.config import load_config
from evalrunner.rescoring import rescore
from evalrunner.results import open_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="a config with the new scorers (default: the run's own)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change one key of CONFIG")
    parser.add_argument("--all", action="store_true", dest="again", help="compute every scorer again, not only what is new or changed")


def main(args: argparse.Namespace) -> int:
    config = load_config(args.config, overrides=args.overrides) if args.config else None
    found = rescore(args.run, config, again=args.again)
    for message in found.messages:
        print(message, file=sys.stderr)
    for name, rows in found.counts.items():
        print(f"computed {name} for {rows:,} rows", file=sys.stderr)
    if not found.counts:
        print("nothing to do: every score is there (--all computes them again)", file=sys.stderr)
    print_summary(open_run(args.run).summary())
    print(f"\nresults  {args.run / 'results'}\nreport   {args.run / 'report.html'}")
    return 0
