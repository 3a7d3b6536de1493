"""`evalrunner run`: carry out a config."""

import argparse
from pathlib import Path

from evalrunner.cli.session import carry_out
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


def main(args: argparse.Namespace) -> int:
    config = load_config(args.config, overrides=args.overrides, limit=args.limit)

    async def session(watch: Watch) -> Run:
        return await run(config, args.out, watch)

    return carry_out(session)
