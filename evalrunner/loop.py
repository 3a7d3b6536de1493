"""The event loop everything runs on: uvloop where it is made for the platform, else asyncio's own."""

import asyncio
from collections.abc import Callable

new_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop as new_loop
except ImportError:
    new_loop = asyncio.new_event_loop
