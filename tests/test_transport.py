import asyncio
import gc
import gzip
import shutil
import socket
import ssl
import subprocess
import time
import traceback
from types import SimpleNamespace

import httpx
import pytest
from scripted_server import CLOSE, HANG, RST, answer, chunk, chunked, completion, scripted, sse

from evalrunner.clients import on_aiohttp
from evalrunner.clients.on_aiohttp import AiohttpTransport
from evalrunner.clients.on_httpx import HttpxTransport
from evalrunner.clients.openai import openai_client
from evalrunner.clients.transport import MAX_BYTES, Deadlines, proxy_for
from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.errors import AuthError, BadOutputError, BrokenStreamError, DeadlineError, PluginError, ServerError, TransportError
from evalrunner.plugins import Account
from evalrunner.records import Cell, Model, Request, Sample, Timeouts

BOTH = pytest.mark.parametrize("kind", ["aiohttp", "httpx"])
SHORT = Timeouts(connect=5.0, total=5.0, first_token=5.0, idle=5.0)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """Tests see only the proxies they set."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def ask(url, kind="aiohttp", *, stream=False, **timeouts):
    """One request through a client, so that the errors are those an engine would see."""
    limits = Timeouts(**{"connect": 5.0, "total": 5.0, "first_token": 5.0, "idle": 5.0, **timeouts})
    client = openai_client(Account(name="p", kind="openai", base_url=url, api_key="sk-CANARY", transport=kind, timeouts=limits), SYSTEM_CLOCK)
    cell = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="p"), params={}, stream=stream)
    request = Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[{"role": "user", "content": "2 + 2?"}])
    try:
        return await client.complete(request)
    finally:
        await client.aclose()


async def fail(kind, url, transport, **options):
    """The error of a request that must fail within a second."""
    async with asyncio.timeout(3):
        with pytest.raises(kind) as caught:
            await ask(url, transport, **options)
    return caught.value


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@BOTH
async def test_nobody_there(kind):
    """A refused connection and a name that does not exist are failures of the network, and the host is named."""
    port = free_port()
    refused = await fail(TransportError, f"http://127.0.0.1:{port}/v1", kind)
    assert (refused.phase, f"127.0.0.1:{port}" in refused.message) == ("connect", True)
    unknown = await fail(TransportError, "http://nx.invalid/v1", kind)
    assert (unknown.phase, "nx.invalid" in unknown.message) == ("connect", True)


@BOTH
async def test_reset_and_closed_before_headers(kind):
    """A connection lost before any header is a failure of the network; a body cut short is one too, and what came of it is kept."""
    body = completion()
    async with scripted([RST], [CLOSE], [answer(body)[0][:-20], RST], [b"HTTP/1.1 200 OK\r\nconte", CLOSE], [b"SSH-2.0-x\r\n\r\n", CLOSE]) as server:
        for _ in range(2):
            assert (await fail(TransportError, server.url, kind)).phase == "wait"
        cut = await fail(TransportError, server.url, kind)
        for _ in range(2):
            await fail(TransportError, server.url, kind)
    assert cut.phase == "body"
    assert cut.http_status == 200
    assert kind == "httpx" or cut.raw.startswith(b'{"choices"')


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory):
    """A server context whose certificate nobody trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", path / "key.pem", "-out", path / "cert.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path / "cert.pem", path / "key.pem")
    return context


@BOTH
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the server's half of a handshake that was given up
async def test_certificate_that_cannot_be_trusted(kind, self_signed):
    """A bad certificate stops the account; nothing is sent, and nothing falls back to insecure."""
    seen = []
    listener = await asyncio.start_server(lambda *_: seen.append(1), "127.0.0.1", 0, ssl=self_signed)
    port = listener.sockets[0].getsockname()[1]
    error = await fail(AuthError, f"https://127.0.0.1:{port}/v1", kind)
    listener.close()
    assert "certificate" in error.message
    assert not seen


@BOTH
async def test_tls_to_a_plain_server(kind):
    """https to a server that speaks plain http fails as a connection."""

    async def plain(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
        error = await fail(TransportError, f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", kind)
    assert error.phase == "connect"


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_refused(kind, status):
    """No redirect is followed, the other host receives nothing, and the error names both."""
    async with scripted(repeat=True) as other:
        away = answer(b"", status=status, headers={"location": f"{other.url}/x"})
        async with scripted(away) as server:
            error = await fail(AuthError, server.url, kind)
    assert (len(server.requests), other.requests, other.connections) == (1, [], 0)
    assert f"127.0.0.1:{server.port}" in error.message
    assert f"127.0.0.1:{other.port}" in error.message


@BOTH
async def test_no_cookies(kind):
    """What a gateway sets as a cookie is never sent back: answers do not depend on it."""
    async with scripted(answer(completion(), headers={"set-cookie": "acw_tc=1; Path=/"}), answer(completion())) as server:
        transport = (AiohttpTransport if kind == "aiohttp" else HttpxTransport)(server.url, SHORT, SYSTEM_CLOCK)
        for _ in range(2):
            async with transport.post(server.url, headers={}, body=b"{}", progress=None) as reply:
                while await reply.reads():
                    pass
        await transport.aclose()
    assert server.connections == 1
    assert "cookie" not in server.requests[1].headers


@BOTH
async def test_total_deadline(kind):
    """A server that accepts and says nothing, or one byte at a time, is given up when the total time has passed."""
    slow = [step for byte in answer(completion())[0] for step in (bytes([byte]), 0.02)]
    async with scripted([HANG], slow, [answer(completion())[0][:-5], HANG]) as server:
        for _ in range(3):
            began = time.monotonic()
            error = await fail(DeadlineError, server.url, kind, total=0.15)
            assert (error.phase, error.message) == ("total", "no complete answer within 0.15 s")
            assert 0.1 < time.monotonic() - began < 1


@BOTH
async def test_first_token_deadline(kind):
    """A stream must bring output in time: headers, a role, comments and pings are none."""
    busy = sse(chunk("", role="assistant"), *[step for _ in range(40) for step in (b": keep-alive\n\n", 0.01)], chunk("4", "stop"))
    async with scripted([HANG], sse(chunk("", role="assistant"), HANG), busy) as server:
        for _ in range(3):
            error = await fail(DeadlineError, server.url, kind, stream=True, first_token=0.15)
            assert (error.phase, error.timing.first_output_ns) == ("first_token", None)


@BOTH
async def test_idle_deadline(kind):
    """Once output has begun, data must go on: comments and pings do not count as data."""
    pings = [step for _ in range(40) for step in (b": keep-alive\n\n", b"event: ping\ndata: {}\n\n", 0.01)]
    async with scripted(sse(chunk("4"), HANG), sse(chunk("4"), *pings, chunk("2", "stop"))) as server:
        for _ in range(2):
            error = await fail(DeadlineError, server.url, kind, stream=True, idle=0.15)
            assert (error.phase, error.timing.output_events) == ("idle", 1)


@BOTH
async def test_data_holds_off_the_idle_deadline(kind):
    """Silence before the first token is normal, and every event of data, even one without text, begins the idle time anew."""
    empty = [step for _ in range(8) for step in (chunk(""), 0.04)]
    async with scripted(sse(0.25, chunk("4"), 0.04, *empty, chunk("2", "stop"))) as server:
        assert (await ask(server.url, kind, stream=True, idle=0.2)).output == "42"


async def test_connect_deadline():
    """A host that does not answer at all is given up after the connect time."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]  # fill the queue that nobody empties
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        error = await fail(DeadlineError, f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "aiohttp", connect=0.15)
        for one in waiting:
            one.close()
    assert (error.phase, error.message) == ("connect", "no connection within 0.15 s")


class HandClock:
    """A clock that stands still until it is moved."""

    ns = 0

    def now_ns(self):
        return self.ns

    def wall_us(self, ns):
        return ns // 1000

    async def sleep(self, seconds):
        self.ns += int(seconds * 1e9)


def test_which_deadline_is_next():
    """The nearest deadline and its phase: total always, first token until there is output, then idle from the last data."""
    clock, seen = HandClock(), SimpleNamespace(first_output_ns=None, last_data_ns=None)
    deadlines = Deadlines(Timeouts(total=600, first_token=300, idle=120), clock, seen)
    assert deadlines.left() == (300, "first_token")
    clock.ns = int(290e9)
    seen.first_output_ns = seen.last_data_ns = clock.ns
    assert deadlines.left() == (120, "idle")
    seen.last_data_ns = int(350e9)
    clock.ns = int(469e9)
    assert deadlines.check() == 1
    clock.ns = seen.last_data_ns = int(590e9)
    assert deadlines.left() == (10, "total")
    clock.ns = int(600e9)
    with pytest.raises(DeadlineError) as caught:
        deadlines.check()
    assert caught.value.phase == "total"
    assert Deadlines(Timeouts(total=600), clock, None).left() == (600, "total")


def bomb(size):
    return gzip.compress(b" " * size, compresslevel=1)


@BOTH
async def test_compressed_answers(kind):
    """A gzip body is read; one that unpacks to far more than any answer is refused without being unpacked whole; a broken one is unreadable."""
    packed = {"content-encoding": "gzip"}
    good = gzip.compress(answer(completion("4"))[0].partition(b"\r\n\r\n")[2])
    async with scripted(
        answer(good, headers=packed), answer(bomb(MAX_BYTES + (8 << 20)), headers=packed), answer(b"not gzip at all", headers=packed)
    ) as server:
        assert (await ask(server.url, kind)).output == "4"
        error = await fail(BadOutputError, server.url, kind)
        await fail(BadOutputError, server.url, kind)
    assert "64 MB" in error.message


@BOTH
async def test_endless_body(kind, monkeypatch):
    """A stream that never stops sending is cut at the limit, not at the end of memory."""
    monkeypatch.setattr(f"evalrunner.clients.on_{kind}.MAX_BYTES", 3 << 20)
    async with scripted(chunked(*[b":" * (1 << 20)] * 8)) as server:
        assert "larger than" in (await fail(BadOutputError, server.url, kind, stream=True)).message


@BOTH
async def test_one_line_of_a_megabyte(kind):
    """No line is too long for a stream."""
    async with scripted(sse(chunk("x" * (1 << 20)), chunk("", "stop"))) as server:
        assert len((await ask(server.url, kind, stream=True)).output) == 1 << 20


async def test_stamps_do_not_wait_for_our_tasks():
    """Reads are stamped when the socket delivers them, in order, though they are handed over together."""
    async with scripted(chunked(b"a", 0.03, b"b", 0.03, b"c")) as server:
        transport = AiohttpTransport(server.url, SHORT, SYSTEM_CLOCK)
        reads = []
        calls = 0
        async with transport.post(server.url, headers={}, body=b"{}", progress=None) as reply:
            while more := await reply.reads():
                reads += more
                calls += 1
        await transport.aclose()
    assert [read.data for read in reads] == [b"a", b"b", b"c"]
    assert reads[1].stamp_ns - reads[0].stamp_ns > 20e6 < reads[2].stamp_ns - reads[1].stamp_ns
    assert calls == 2  # the first read at once, the rest in one go


async def test_stamps_of_a_second_response():
    """On a kept connection, a response whose headers come in two reads has its own stamps, not those of its headers or of the one before."""
    slow = chunked(b"first", 0.03, b"second")
    slow[:1] = [slow[0][:20], 0.03, slow[0][20:], 0.03]
    async with scripted(answer(b"x" * 1000), slow) as server:
        transport = AiohttpTransport(server.url, SHORT, SYSTEM_CLOCK)
        reads = []
        for _ in range(2):
            began = SYSTEM_CLOCK.now_ns()
            async with transport.post(server.url, headers={}, body=b"{}", progress=None) as reply:
                while more := await reply.reads():
                    reads += more
        await transport.aclose()
    assert [len(read.data) for read in reads] == [1000, 5, 6]
    assert reads[1].stamp_ns - began > 50e6
    assert reads[2].stamp_ns - reads[1].stamp_ns > 20e6
    assert server.connections == 1


async def test_a_large_fast_body_is_complete(monkeypatch):
    """Bodies far beyond the read buffer come whole and in order, and each byte belongs to one read."""
    monkeypatch.setattr(on_aiohttp, "_BUFFER", 1 << 12)
    body = b"".join(b"%07d\n" % number for number in range(1 << 17))
    async with scripted(chunked(*[body[at : at + 9999] for at in range(0, len(body), 9999)])) as server:
        transport = AiohttpTransport(server.url, SHORT, SYSTEM_CLOCK)
        pieces = []
        async with transport.post(server.url, headers={}, body=b"{}", progress=None) as reply:
            while reads := await reply.reads():
                assert all(read.data for read in reads)
                pieces += reads
        await transport.aclose()
    assert b"".join(read.data for read in pieces) == body
    assert [read.stamp_ns for read in pieces] == sorted(read.stamp_ns for read in pieces)


async def test_connections_are_kept_or_closed():
    """An answer read to its end leaves its connection to the next request; one that was left early closes it, which stops the generation."""
    async with scripted(answer(completion()), sse(chunk("4", "stop")), answer(completion()), sse(chunk("4"), HANG), answer(completion())) as server:
        transport = AiohttpTransport(server.url, SHORT, SYSTEM_CLOCK)
        for _ in range(3):
            async with transport.post(server.url, headers={}, body=b"{}", progress=None) as reply:
                while await reply.reads():
                    pass
        assert server.connections == 1
        async with transport.post(server.url, headers={}, body=b"{}", progress=None) as reply:
            await reply.reads()
        async with transport.post(server.url, headers={}, body=b"{}", progress=None) as reply:
            assert reply.status == 200
        await transport.aclose()
    assert server.connections == 2
    gc.collect()


@BOTH
async def test_cancelling(kind):
    """A request that is cancelled ends at once, whether it waits for headers or for the body."""
    async with scripted([HANG], sse(chunk("4"), HANG)) as server:
        for stream in (False, True):
            task = asyncio.create_task(ask(server.url, kind, stream=stream))
            await server.received(1 + stream)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_large_request_body():
    """A request of many megabytes (an image as a data URI) goes out whole, and without a warning."""
    async with scripted(lambda received: answer({"size": len(received.body)})) as server:
        transport = AiohttpTransport(server.url, SHORT, SYSTEM_CLOCK)
        async with transport.post(server.url, headers={}, body=b"x" * (5 << 20), progress=None) as reply:
            assert (await reply.reads())[0].data == b'{"size": 5242880}'
        await transport.aclose()


PROXY = "http://user:s%40cret@127.0.0.1:{}"


@BOTH
async def test_proxy_from_the_environment(kind, monkeypatch):
    """HTTP_PROXY is honoured, its credentials go to the proxy only, and neither they nor the key are in an error."""
    async with scripted(answer(completion()), answer(b"denied", status=407), [RST]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", PROXY.format(proxy.port))
        assert (await ask("http://api.example.test/v1", kind)).output == "4"
        errors = [await fail(AuthError, "http://api.example.test/v1", kind), await fail(TransportError, "http://api.example.test/v1", kind)]
    first = proxy.requests[0]
    assert first.path == "http://api.example.test/v1/chat/completions"
    assert first.headers["proxy-authorization"] == "Basic dXNlcjpzQGNyZXQ="
    monkeypatch.setenv("HTTP_PROXY", PROXY.format(free_port()))
    errors.append(await fail(TransportError, "http://api.example.test/v1", kind))
    for error in errors:
        assert not {word for word in ("s%40cret", "s@cret", "dXNlc", "CANARY") if word in f"{error} {error.raw}"}


@BOTH
async def test_proxy_for_https(kind, monkeypatch):
    """For https the proxy is asked for a tunnel; one that refuses is a failed connection, and its credentials are in no message."""
    async with scripted(answer(b"", status=407), answer(b"", status=503, reason="")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", PROXY.format(proxy.port))
        for _ in range(2):
            error = await fail(TransportError, "https://api.example.test/v1", kind)
            assert error.phase == "connect"
            assert not {word for word in ("s%40cret", "s@cret", "dXNlc", "CANARY") if word in "".join(traceback.format_exception(error))}
    assert (proxy.requests[0].method, proxy.requests[0].path) == ("CONNECT", "api.example.test:443")
    assert "authorization" not in proxy.requests[0].headers


def test_which_proxy(monkeypatch):
    """The scheme's proxy, else the one for all; NO_PROXY is honoured, and a loopback host never goes through one."""
    monkeypatch.setenv("https_proxy", "http://p:1")
    monkeypatch.setenv("all_proxy", "q:2")
    monkeypatch.setenv("no_proxy", "internal.example,10.0.0.5:8000")
    assert proxy_for("https://dashscope.aliyuncs.com/v1") == "http://p:1"
    assert proxy_for("http://vllm.example:8000/v1") == "http://q:2"
    for direct in ("https://a.internal.example/v1", "http://10.0.0.5:8000/v1", "http://127.0.0.1:9/v1", "http://localhost:9/v1", "http://[::1]:9/v1"):
        assert proxy_for(direct) is None


async def test_errors_of_the_server_come_with_their_body():
    """A status that is no answer is read by its body, and only its beginning."""
    async with scripted(
        answer(b"x" * (1 << 20), status=500), answer({"error": {"message": "m", "code": "c"}}, status=503, headers={"retry-after": "2"})
    ) as server:
        assert len((await fail(ServerError, server.url, "aiohttp")).message) < 400
        assert (await fail(ServerError, server.url, "aiohttp")).retry_after_s == 2


async def test_mock_transport():
    """httpx.MockTransport stands in for the network: clients can be tested without one."""
    transport = HttpxTransport("http://x.example", SHORT, SYSTEM_CLOCK, httpx.MockTransport(lambda request: httpx.Response(200, content=request.content[::-1])))
    async with transport.post("http://x.example/v1", headers={}, body=b"abc", progress=None) as reply:
        assert [read.data for read in await reply.reads()] == [b"cba"]
        assert await reply.reads() == []
    await transport.aclose()


async def test_an_aiohttp_without_our_protocol_is_said_aloud():
    """Should a release of aiohttp build its protocol another way, requests fail with a way out instead of losing their stamps in silence."""
    async with scripted(answer(completion())) as server:
        transport = AiohttpTransport(server.url, SHORT, SYSTEM_CLOCK)
        session = transport._open()
        session.connector._factory = lambda: on_aiohttp.ResponseHandler(asyncio.get_running_loop())
        with pytest.raises(PluginError, match="transport: httpx"):
            async with transport.post(server.url, headers={}, body=b"{}", progress=None):
                pass
        await transport.aclose()


async def test_late_bytes_are_not_the_next_answer():
    """What a server sends after its answer, or after we gave up, is never read as the answer to another request."""
    twice = answer(completion("first"))[0] + answer(completion("late"))[0]
    async with scripted([twice], answer(completion("second")), sse(chunk("cut"), HANG), answer(completion("third"))) as server:
        client = openai_client(Account(name="p", kind="openai", base_url=server.url, timeouts=Timeouts(idle=0.1)), SYSTEM_CLOCK)
        cell = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="p"), params={}, stream=False)
        request = Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[])
        assert [(await client.complete(request)).output for _ in range(2)] == ["first", "second"]
        await client.aclose()


@BOTH
async def test_a_stream_that_is_cut_by_its_length(kind):
    """A chunked body whose last chunk never comes is a cut stream, not a short answer."""
    async with scripted([*sse(chunk("4"), done=False, end=False), CLOSE]) as server:
        await fail(BrokenStreamError, server.url, kind, stream=True)
