"""The event loop everything runs on: uvloop where it is made for the platform, else asyncio's own; and what keeps it from standing still."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

new_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop as new_loop
except ImportError:
    new_loop = asyncio.new_event_loop


@contextmanager
def settled_heap() -> Iterator[None]:
    """What is there now is left out of garbage collection: a full one over all that was imported held every stream for 70 ms."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
