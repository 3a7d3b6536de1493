"""`evalrunner check`: validate a config and its data, print the grid, send nothing."""

import argparse
import math
from pathlib import Path

from evalrunner.analysis.power import minimal_detectable_effect
from evalrunner.cli.saying import say
from evalrunner.cli.tables import aligned
from evalrunner.decisions import check_baseline
from evalrunner.errors import ConfigError
from evalrunner.plain import plain
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.plugins import origin
from evalrunner.serving.launch import check

FLIPPED = 0.2
"""Share of the samples that two cells judge differently, for a rule of thumb before anything is known: what two prompts of one model often do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples of each prompt set")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change one key of the config")


def main(args: argparse.Namespace) -> int:
    config = load_config(args.config, overrides=args.overrides, limit=args.limit)
    plan = make_plan(config)
    try:
        check(plan.accounts.values(), config.folder)
    except ConfigError as error:  # a key is needed to send, and this sends nothing
        say("\n".join(f"warning: {problem}" for problem in error.problems))
    plan.validate()
    for line in plan.warnings():
        say(line)
    plan.check_baselines(check_baseline)
    rows = [["prompt set", "samples", "prompts", "models", "cells", "trials", "requests"]]
    sizes = [(one.name, len(one.data), len(one.prompts)) for one in plan.prompt_sets]
    points = plan.cells // sum(prompts for _, _, prompts in sizes)
    for name, samples, prompts in sizes:
        counts = (samples, prompts, len(plan.models), prompts * points, plan.trials, samples * prompts * points * plan.trials)
        rows.append([name, *(f"{count:,}" for count in counts)])
    print(plain(aligned(rows)))
    if plan.scorer_names and (least := min(samples for _, samples, _ in sizes)):
        print(f"\nwith {least:,} sample{'s' if least > 1 else ''}, {_hidden(least)} (two cells, one sample in {1 / FLIPPED:.0f} flips)")
    if config.plugins:
        named = [[kind.removesuffix("s"), name, origin(kind, name)] for kind, name in config.plugins]
        print(plain(f"\n{aligned([['plug-in', 'name', 'imported from'], *named])}"))
    print(f"\n{args.config}: {plan.size:,} requests; nothing was sent")
    return 0


def _hidden(samples: int) -> str:
    seen = 100 * minimal_detectable_effect(math.sqrt(FLIPPED), samples)
    return f"differences below about {seen:.2g} points cannot be seen" if seen < 100 else "no difference can be seen"
