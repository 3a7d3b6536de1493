"""The hot path's transport: what a stream on a connection that ends with it must not lose."""

import asyncio

from scripted_server import CLOSE, chunked, scripted

from evalrunner.clients.on_aiohttp import AiohttpTransport
from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.records import Timeouts


async def test_the_last_read_of_a_response_that_ends_its_connection_is_whole():
    """A server that answers `Connection: close` (llama.cpp's, when asked to) loses no byte of its stream, however the end was cut into reads."""
    pause = asyncio.Event()
    steps = chunked(b"first", pause, b"second", b"[DONE]", headers={"connection": "close"})
    joined = [steps[0] + steps[1], steps[2], b"".join(steps[3:]), CLOSE]
    async with scripted(joined) as server:
        transport = AiohttpTransport(server.url, Timeouts(), SYSTEM_CLOCK)
        async with transport.post(f"{server.url}/chat/completions", headers={"Connection": "close"}, body=b"{}", progress=None) as reply:
            got = [read.data for read in await reply.reads()]
            pause.set()
            while reads := await reply.reads():
                got += [read.data for read in reads]
        await transport.aclose()
    assert b"".join(got) == b"firstsecond[DONE]"
