"""`evalrunner report`: one HTML file from stored records. Sends nothing."""

import argparse
from pathlib import Path

from evalrunner.cli.compare_command import add_pairing, margins_of, renames_of
from evalrunner.results import make_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        nargs="+",
        metavar="RUN",
        help="a run's directory; several over the same samples stand side by side; with --baseline also cells: 'RUN[prompt=new]'",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: report.html in the run's directory; several runs need it)")
    parser.add_argument("--baseline", metavar="RUN", help="a run, or cells of one as in 'RUN[prompt=plain]', to hold this one against, sample by sample")
    add_pairing(parser)
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="the language it opens in (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    print(make_report(args.run, args.out, lang=args.lang, baseline=args.baseline, margins=margins_of(args), renames=renames_of(args)))
    return 0
