"""`evalrunner report`: one HTML file from stored records. Sends nothing."""

import argparse
from pathlib import Path

from evalrunner.results import make_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: report.html in the run's directory)")
    parser.add_argument("--baseline", metavar="RUN", help="a run, or cells of one as in 'RUN[prompt=plain]', to hold this one against, sample by sample")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="the language it opens in (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    print(make_report(args.run, args.out, lang=args.lang, baseline=args.baseline))
    return 0
