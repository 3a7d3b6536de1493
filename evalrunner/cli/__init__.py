"""The command line: arguments in, progress out, an exit code.

One small file per command, imported only when that command is called, so that `--help` stays quick. Each has `add_arguments(parser)` and `main(args) -> int`.
"""

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from evalrunner.cli.saying import say
from evalrunner.errors import EvalRunnerError, RunError
from evalrunner.plain import plain
from evalrunner.store.redact import masked

COMMANDS = {
    "init": "write a config and a small data set that run at once on this machine",
    "check": "validate a config and its data, and print the grid; sends nothing",
    "run": "run a config: progress, Parquet, report",
    "resume": "go on with a run where it stopped; repeats nothing that is answered",
    "compare": "compare two runs sample by sample: differences, flips, a verdict; exit code 1 on a regression",
    "rescore": "score stored answers again with other scorers; asks judges only",
    "report": "make one HTML file from a stored run",
    "show": "print a run's summary",
    "export": "write a run's results as CSV or JSON Lines",
    "simulate": "serve the Qwen API on this machine, for demos, tests and dry runs",
    "schema": "print the config's JSON Schema",
    "doctor": "say what is wrong with this set-up, and what to do about it",
}


MISTAKE = 70
"""The exit code of a program that failed in a way nobody foresaw; 1 would be a failed gate."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (contract.md, section 3)."""
    args = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    name = next((arg for arg in args if not arg.startswith("-")), None)
    if name not in COMMANDS:
        parser.parse_args(args)  # prints help, the version or what is wrong, and exits
        parser.print_help(sys.stderr)
        return 2
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")  # gives back what it does not use: a quarter less for the report of a million rows
    if logging.lastResort is not None:  # libraries warn through it, with addresses and headers
        logging.lastResort.setFormatter(_Masked())
    command = importlib.import_module(f"evalrunner.cli.{name}_command")
    own = argparse.ArgumentParser(prog=f"evalrunner {name}", description=f"{COMMANDS[name][:1].upper()}{COMMANDS[name][1:]}.", allow_abbrev=False)
    command.add_arguments(own)
    try:
        return int(command.main(own.parse_args(args[args.index(name) + 1 :])))
    except EvalRunnerError as error:
        say(f"evalrunner {name}: {masked(str(error))}")
        return error.exit_code if isinstance(error, RunError) else 2
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away, as `| head` does
        return 0
    except Exception:  # noqa: BLE001 - a mistake of ours, or of a plug-in: Python would show it with whatever secrets are in its text
        say(f"{masked(traceback.format_exc())}evalrunner {name}: stopped by a mistake in the program; what was recorded is safe")
        return MISTAKE
    finally:
        _flush()


def _flush() -> None:
    """What a reader who is gone does not take is dropped: Python would try again at its end, and end with 120 instead of our exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Masked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(masked(super().format(record)))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="evalrunner",
        description="Choose a model, guard a prompt, price a workload: evaluation runs within rate limits, into Parquet and one HTML report.",
        epilog=f"commands:\n{listing}\n\n`evalrunner COMMAND --help` says more. Start with `evalrunner init`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="evalrunner COMMAND …",
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415 - reads the file system; `--help` need not wait for it

        print(f"evalrunner {version('evalrunner')}")
        parser.exit()
