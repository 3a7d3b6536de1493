"""`evalrunner init`: a config and a small data set that run at once on the embedded model."""

import argparse
import sys
from importlib.resources import files
from pathlib import Path

from evalrunner.errors import ConfigError

TEMPLATES = ("model-selection", "prompt-regression")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", nargs="?", default=".", type=Path, metavar="DIR", help="where to write (default: here)")
    parser.add_argument("--template", choices=TEMPLATES, default=TEMPLATES[0], help="which job to start from (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    template = files("evalrunner.cli").joinpath("templates", args.template)
    targets = {args.dir / source.name: source.read_bytes() for source in template.iterdir() if source.is_file()}
    if taken := [str(path) for path in targets if path.exists()]:
        raise ConfigError(f"{', '.join(sorted(taken))}: already there; nothing was written. Name another folder: evalrunner init DIR")
    args.dir.mkdir(parents=True, exist_ok=True)
    for path, content in targets.items():
        path.write_bytes(content)
        print(path)
    config = next(path for path in targets if path.suffix == ".yaml")
    print(f"\nNow: evalrunner run {config}", file=sys.stderr)
    return 0
