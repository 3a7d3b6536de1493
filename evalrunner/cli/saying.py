"""The way to stderr, for progress and messages, and to stdout for verdicts. A terminal that is gone is no error: the work is not."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from evalrunner.plain import plain


def say(text: str) -> None:
    """Print what may have words of others in it."""
    command(plain(text))


def command(text: str) -> None:
    """Print what is made to be obeyed, as an annotation for CI is; nobody's words but as `verdict_files` escapes them."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """For what is printed beside an exit code: a reader of stdout who went away, as `| head` does, takes nothing from the code."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
