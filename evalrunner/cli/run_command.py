"""`evalrunner run`: carry out a config."""

import argparse
from pathlib import Path

from evalrunner.cli.confirmation import confirmed
from evalrunner.cli.saying import say
from evalrunner.cli.session import add_session_arguments, budget_overrides, carry_out
from evalrunner.pipeline import Watch, run
from evalrunner.plan.config import load_config
from evalrunner.results import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file; `evalrunner init` writes one")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's directory (default: reports/<name>/<run id>)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples of each prompt set")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change one key of the config, as in grid.temperature=0.5"
    )
    add_session_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask before a plan that is large or may be dear")


def main(args: argparse.Namespace) -> int:
    config = load_config(args.config, overrides=[*args.overrides, *budget_overrides(args)], limit=args.limit)
    if not args.yes and not confirmed(config):
        say("nothing was sent")
        return 2

    async def session(watch: Watch) -> Run:
        return await run(config, args.out, watch)

    return carry_out(session, args)
