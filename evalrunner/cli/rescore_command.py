"""`evalrunner rescore`: other scorers on stored answers. Asks judges only."""

import argparse
from pathlib import Path

from evalrunner.cli.saying import say
from evalrunner.cli.session import add_session_arguments, budget_overrides, carry_out, last_lines
from evalrunner.pipeline import Watch, judge
from evalrunner.plan.config import load_config
from evalrunner.rescoring import rescore
from evalrunner.results import Run
from evalrunner.store.run_dir import read_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="a config with the new scorers (default: the run's own)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change one key of CONFIG")
    parser.add_argument("--all", action="store_true", dest="again", help="compute every scorer again, not only what is new or changed")
    add_session_arguments(parser)


def main(args: argparse.Namespace) -> int:
    config = None
    if args.config:
        overrides = [*args.overrides, *budget_overrides(args)]
        config = load_config(args.config, overrides=overrides, limit=read_manifest(args.run)["plan"].get("limit"))
    found = rescore(args.run, config, again=args.again)
    for message in found.messages:
        say(message)
    for name, rows in found.counts.items():
        say(f"computed {name} for {rows:,} answers")
    if found.labels:
        say(f"{found.labels:,} judged answers have another label of a person")
    if found.run is not None:
        if not (found.counts or found.labels):
            say("nothing to do: every score is there (--all computes them again)")
        return last_lines(found.run, args)

    async def session(watch: Watch) -> Run:
        return await judge(args.run, watch, budget_overrides(args))

    return carry_out(session, args)
