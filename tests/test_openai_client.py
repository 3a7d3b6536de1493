import httpx
import pytest
from scripted_server import RST, answer, chunk, chunked, completion, scripted, sse

from evalrunner.clients.on_httpx import HttpxTransport
from evalrunner.clients.openai import OpenAIDialect, openai_client
from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.errors import (
    AccountError,
    BadOutputError,
    BrokenStreamError,
    ConfigError,
    FilteredError,
    PluginError,
    RateLimitedError,
    RejectedError,
    ServerError,
)
from evalrunner.plugins import Account, find
from evalrunner.records import Cell, Model, Request, Sample, Timeouts, Usage

MODEL = Model(name="turbo", id="qwen-turbo", provider="p")


def request(*, stream=False, params=None, messages=None, **fields):
    cell = Cell(prompt_set="s", prompt="p", model=MODEL, params=params or {}, stream=stream)
    return Request(
        key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=messages or [{"role": "user", "content": "2 + 2?"}], **fields
    )


def account(url="http://x.example/v1", **fields):
    return Account(name="p", **{"base_url": url, "kind": "openai", "api_key": "sk-1", "timeouts": Timeouts(total=5.0), **fields})


async def ask(url, *, stream=False, **fields):
    client = openai_client(account(url, **fields), SYSTEM_CLOCK)
    try:
        return await client.complete(request(stream=stream))
    finally:
        await client.aclose()


async def ask_mock(respond, *, stream=False, **fields):
    """One request through the second transport, without a network."""
    given_account = account(**fields)
    transport = HttpxTransport(given_account.base_url, given_account.timeouts, SYSTEM_CLOCK, httpx.MockTransport(respond))
    client = openai_client(given_account, SYSTEM_CLOCK, transport)
    try:
        return await client.complete(request(stream=stream))
    finally:
        await client.aclose()


def test_body():
    """Parameters go to the top level as they are, those of extra_body too; a trial's seed does not replace one that is given."""
    params = {"temperature": 0.7, "enable_thinking": False, "extra_body": {"top_k": 5}}
    assert OpenAIDialect().body(request(params=params, seed=1000)) == {
        "model": "qwen-turbo",
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "temperature": 0.7,
        "enable_thinking": False,
        "top_k": 5,
        "seed": 1000,
    }
    assert OpenAIDialect().body(request(params={"seed": 7}, seed=1000))["seed"] == 7


def test_body_of_a_stream():
    """A stream asks for usage, and keeps other stream options."""
    body = OpenAIDialect().body(request(stream=True, params={"stream_options": {"x": 1}}))
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True, "x": 1})
    assert "stream" not in OpenAIDialect().body(request())


def test_body_with_tools():
    """Tools and the choice among them are sent as given."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = OpenAIDialect().body(request(tools=tools, tool_choice="auto"))
    assert (body["tools"], body["tool_choice"]) == (tools, "auto")
    assert "tool_choice" not in OpenAIDialect().body(request(tools=tools))


def test_messages():
    """Text stays a string, since some models refuse lists; text parts get the wire form, parts in wire form stay, other media are refused in words."""
    image = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"text": "a"}, "b", image]},
        {"role": "tool", "tool_call_id": "1", "content": "4"},
    ]
    sent = OpenAIDialect().body(request(messages=messages))["messages"]
    assert sent[0] == messages[0]
    assert sent[1]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, image]
    assert sent[2] == messages[2]
    with pytest.raises(PluginError, match=r"not video"):
        OpenAIDialect().body(request(messages=[{"role": "user", "content": [{"video": "a.mp4"}]}]))
    with pytest.raises(PluginError, match="not 3"):
        OpenAIDialect().body(request(messages=[{"role": "user", "content": [3]}]))


async def test_what_goes_over_the_wire():
    """One POST to chat/completions with the key as a bearer token, the account's headers, and our name; a stream is asked for uncompressed."""
    async with scripted(answer(completion()), sse(chunk("4", "stop"))) as server:
        await ask(server.url + "/", headers={"X-DashScope-WorkSpace": "w"})
        await ask(server.url, stream=True, api_key=None)
    plain, streamed = server.requests
    assert (plain.method, plain.path, plain.json["model"]) == ("POST", "/v1/chat/completions", "qwen-turbo")
    assert plain.headers["authorization"] == "Bearer sk-1"
    assert plain.headers["x-dashscope-workspace"] == "w"
    assert plain.headers["user-agent"].startswith("evalrunner/")
    assert (streamed.headers["accept-encoding"], streamed.json["stream"], "authorization" in streamed.headers) == ("identity", True, False)


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_whole_answer(transport):
    """A whole answer gives text, usage, ids and the time of its last byte; first-token times are unknown, not zero."""
    async with scripted(answer(completion("4", reasoning_content="2+2"))) as server:
        found = await ask(server.url, transport=transport)
    assert (found.output, found.reasoning, found.finish_reason, found.response_id, found.response_model, found.http_status) == (
        "4",
        "2+2",
        "stop",
        "chatcmpl-1",
        "qwen-plus",
        200,
    )
    assert found.usage == Usage(prompt_tokens=22, completion_tokens=1, total_tokens=23)
    assert found.timing.ended_ns > found.timing.started_ns
    assert found.timing.first_output_ns is found.timing.output_events is None


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_streamed_answer(transport):
    """A streamed answer has its stamps in order, on either transport."""
    async with scripted(
        sse(chunk("", role="assistant"), 0.02, chunk("4"), 0.02, chunk("2"), 0.02, chunk("", "stop"), chunk(usage={"prompt_tokens": 3}))
    ) as server:
        found = await ask(server.url, stream=True, transport=transport)
    timing = found.timing
    assert (found.output, timing.output_events, timing.output_reads) == ("42", 2, 2)
    assert timing.started_ns + 15e6 < timing.first_output_ns < timing.last_output_ns - 15e6 < timing.ended_ns - 30e6


async def test_seed_document_answers():
    """The answers printed in the document the project starts from are read, tool call included."""
    printed = {"id": "chatcmpl-xxx", "object": "chat.completion", "created": 1, "model": "qwen-turbo"}
    hello = printed | {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }
    call = {"id": "call_xxx", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}
    tools = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    async with scripted(answer(hello), answer(tools)) as server:
        assert (await ask(server.url)).output == "Hello!"
        found = await ask(server.url)
    assert found.tool_calls == ({"id": "call_xxx", "name": "get_weather", "arguments": '{"city": "北京"}'},)
    assert (found.output, found.usage) == ("", None)


PARTIAL = {"x-dashscope-partialresponse": "true"}


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        (answer(completion(finish_reason=None)), BrokenStreamError),
        (answer(completion(), headers=PARTIAL), BrokenStreamError),
        (answer(completion() | {"choices": []}), BadOutputError),
        (answer(completion("")), BadOutputError),
        (answer(completion(None)), BadOutputError),
        (answer(completion("No.", "content_filter")), FilteredError),
        (answer(b'{"choices": [{"mess'), BadOutputError),
        (answer(b'{"choices": []} garbage'), BadOutputError),
        (answer('{"choices": []}'.encode("utf-16")), BadOutputError),
        (answer({"error": {"code": 504, "message": "upstream"}}), ServerError),
        (answer({"error": {"code": 400, "message": "bad"}}), RejectedError),
        (answer({"code": "InvalidParameter", "message": "url error, please check url！", "request_id": "7"}), RejectedError),
        (answer({"error": {"message": "too long", "code": "context_length_exceeded"}}, status=400), RejectedError),
        (answer(b'data: {"error":{"code":"data_inspection_failed","message":"x"}}\n\n', status=400), FilteredError),
    ],
)
async def test_answers_that_are_none(steps, kind):
    """Partial, empty, unreadable and refused answers each have their class; what is known of the attempt comes along."""
    async with scripted(steps) as server:
        with pytest.raises(kind) as caught:
            await ask(server.url)
    error = caught.value
    assert error.timing.ended_ns > error.timing.started_ns
    assert error.http_status in {200, 400, 504}
    if kind in (BrokenStreamError, FilteredError) and error.http_status == 200:
        assert error.usage.completion_tokens == 1
        assert error.response_id == "chatcmpl-1"


async def test_throttling_by_provider():
    """The words of OpenAI's unpaid bill are DashScope's throttle: whose they are is known from the host or the kind of provider."""
    said = {"error": {"message": "You exceeded your current quota, please check your plan and billing details.", "code": "insufficient_quota"}}

    def respond(_):
        return httpx.Response(429, json=said, headers={"retry-after": "3"})

    for theirs in (
        {"kind": "simulator"},
        {"base_url": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"},
        {"base_url": "https://w.cn-beijing.maas.aliyuncs.com/v1"},
    ):
        with pytest.raises(RateLimitedError) as caught:
            await ask_mock(respond, **theirs)
        assert caught.value.retry_after_s == 3
    with pytest.raises(AccountError):
        await ask_mock(respond, base_url="https://aliyuncs.com.example/v1")


async def test_stream_that_ends_early():
    """A stream that ends without a finish reason or [DONE] is broken, and keeps its stamps; `terminal: optional` takes it as it is."""
    early = sse(chunk("4"), done=False)
    async with scripted(early, early, chunked(b'data: {"choices":[{"delta":{"content":"4"}}]}\n\ndata: {"cho')) as server:
        with pytest.raises(BrokenStreamError) as caught:
            await ask(server.url, stream=True)
        assert (await ask(server.url, stream=True, options={"terminal": "optional"})).output == "4"
        with pytest.raises(BrokenStreamError):
            await ask(server.url, stream=True)
    assert caught.value.timing.first_output_ns is not None
    assert caught.value.response_id == "chatcmpl-1"


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_reset_in_a_stream(transport):
    """A connection lost in mid-stream breaks the answer, and what came before it is known; after the finish reason it does no harm."""
    async with scripted(sse(chunk("4"), RST), sse(chunk("4"), chunk("", "stop"), RST), chunked(b": hi\n\n", RST)) as server:
        with pytest.raises(BrokenStreamError) as caught:
            await ask(server.url, stream=True, transport=transport)
        assert (caught.value.phase, caught.value.timing.output_events) == ("stream", 1)
        assert (await ask(server.url, stream=True, transport=transport)).output == "4"
        with pytest.raises(BrokenStreamError):
            await ask(server.url, stream=True, transport=transport)


async def test_what_came_before_a_reset_counts():
    """Reads that came in good order before the connection was lost are not lost with it: neither the stamps, nor an answer that was complete."""
    async with scripted(sse(chunk("4"), 0.03, chunk("2"), 0.03, RST), sse(chunk("4"), 0.03, chunk("2", "stop"), 0.03, RST)) as server:
        with pytest.raises(BrokenStreamError) as caught:
            await ask(server.url, stream=True)
        assert caught.value.timing.output_events == 2
        assert (await ask(server.url, stream=True)).output == "42"


async def test_done_without_an_end():
    """A server that leaves the connection open after [DONE] does not hold the answer back."""
    async with scripted(sse(chunk("4", "stop"), end=False)) as server:
        assert (await ask(server.url, stream=True)).output == "4"


async def test_a_whole_answer_to_a_stream():
    """A server that answers a stream with one JSON body is understood, errors inside it too; first-token times are unknown then."""
    async with scripted(answer(completion("4")), answer({"error": {"code": 429, "message": "slow"}})) as server:
        found = await ask(server.url, stream=True)
        with pytest.raises(RateLimitedError):
            await ask(server.url, stream=True)
    assert (found.output, found.timing.first_output_ns, found.timing.output_events) == ("4", None, None)


async def test_a_stream_where_none_was_asked_for():
    """A gateway that always streams is understood too."""
    async with scripted(sse(chunk("4"), chunk("2", "stop"))) as server:
        found = await ask(server.url)
    assert (found.output, found.timing.first_output_ns) == ("42", None)


async def test_usage_after_the_answer_that_cannot_be_read():
    """Once the finish reason has come, damage in what follows does not cost the answer."""
    async with scripted(sse(chunk("4", "stop"), b"data: {half\n\n")) as server:
        found = await ask(server.url, stream=True)
    assert (found.output, found.usage) == ("4", None)


async def test_two_answers_never_mix():
    """Each call begins anew: what a broken attempt brought is in no later answer."""
    async with scripted(sse(chunk("wrong "), RST), sse(chunk("right", "stop"))) as server:
        client = openai_client(account(server.url), SYSTEM_CLOCK)
        with pytest.raises(BrokenStreamError):
            await client.complete(request(stream=True))
        assert (await client.complete(request(stream=True))).output == "right"
        await client.aclose()


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"options": {"terminl": "optional"}}, PluginError, "terminl.*known: terminal"),
        ({"options": {"terminal": "maybe"}}, PluginError, "maybe"),
        ({"transport": "carrier-pigeon"}, PluginError, "known: aiohttp, httpx"),
        ({"base_url": "ftp://x"}, ConfigError, "base_url"),
        ({"base_url": "/v1"}, ConfigError, "base_url"),
        ({"base_url": "http://[x/v1"}, ConfigError, "base_url"),
        ({"base_url": "http://x:99999/v1"}, ConfigError, "base_url"),
        ({"base_url": "http://user:sk-1@x/v1"}, ConfigError, "credentials"),
        ({"headers": {"a b": "x"}}, ConfigError, "a b"),
        ({"headers": {"x-extra": "x\r\ny: z"}}, ConfigError, "x-extra"),
        ({"api_key": "sk-1\nx"}, ConfigError, "authorization"),
        ({"api_key": "sk-…"}, ConfigError, "authorization"),
    ],
)
def test_mistakes_in_a_provider(fields, kind, text):
    """What can never work is said before anything is sent, and the key is not in the message."""
    with pytest.raises(kind, match=text) as caught:
        openai_client(account(**fields), SYSTEM_CLOCK)
    assert "sk-" not in str(caught.value)


def test_built_in_names():
    """The kinds openai, local and simulator are found by name."""
    assert all(find("clients", name) is openai_client for name in ("openai", "local", "simulator"))
