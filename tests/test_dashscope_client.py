"""The native dialect over a network: what is sent where, and what comes of every kind of answer."""

import json

import httpx
import pytest
from scripted_server import RST, answer, chunked, scripted
from simulated import simulated
from test_dashscope_reader import event, message

from evalrunner.clients.dashscope import NativeDialect, dashscope_client
from evalrunner.clients.on_httpx import HttpxTransport
from evalrunner.clients.openai import openai_client
from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.errors import AuthError, BrokenStreamError, PluginError, RateLimitedError, RejectedError
from evalrunner.plugins import Account, find
from evalrunner.records import Cell, Model, Request, Sample, Timeouts

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": CITY}}


def request(model="qwen-turbo", *, stream=False, params=None, messages=None, **fields):
    cell = Cell(prompt_set="s", prompt="p", model=Model(name="m", id=model, provider="p"), params=params or {}, stream=stream)
    messages = messages or [{"role": "user", "content": "What is 17 + 25?"}]
    return Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=messages, **fields)


def account(url, **fields):
    return Account(name="p", **{"base_url": url, "kind": "dashscope", "api_key": "sk-1", "timeouts": Timeouts(total=5.0), **fields})


async def ask(url, asked=None, factory=dashscope_client, **fields):
    client = factory(account(url, **fields), SYSTEM_CLOCK)
    try:
        return await client.complete(asked or request())
    finally:
        await client.aclose()


def test_body():
    """Parameters go under `parameters`, those of extra_body too, where they may choose the other forms of result and stream."""
    asked = request(params={"temperature": 0.7, "enable_thinking": False, "extra_body": {"top_k": 5}}, seed=1000, tools=[TOOL], tool_choice="auto")
    assert NativeDialect().body(asked) == {
        "model": "qwen-turbo",
        "input": {"messages": [{"role": "user", "content": "What is 17 + 25?"}]},
        "parameters": {
            "result_format": "message",
            "temperature": 0.7,
            "enable_thinking": False,
            "top_k": 5,
            "seed": 1000,
            "tools": [TOOL],
            "tool_choice": "auto",
        },
    }
    streamed = NativeDialect().body(request(stream=True, params={"seed": 7}, seed=1000))["parameters"]
    assert streamed == {"result_format": "message", "incremental_output": True, "seed": 7}
    other = {"extra_body": {"result_format": "text", "incremental_output": False}}
    assert NativeDialect().body(request(stream=True, params=other))["parameters"] == {"result_format": "text", "incremental_output": False}


def test_input_prompt():
    """With `input: prompt` a user message that stands alone is sent as input.prompt; a conversation stays one."""
    dialect = NativeDialect(prompt=True)
    assert dialect.body(request())["input"] == {"prompt": "What is 17 + 25?"}
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert dialect.body(request(messages=conversation))["input"] == {"messages": conversation}


def test_messages():
    """The multimodal endpoint gets lists of parts, the text endpoint strings; tool calls and their results go through as they are."""
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "4"},
        {"role": "user", "content": [{"text": "and"}, {"image": "https://x.example/i.png", "min_pixels": 4096}]},
    ]
    sent = NativeDialect().body(request("qwen3-vl-plus", messages=messages))["input"]["messages"]
    assert sent[0] == {"role": "user", "content": [{"text": "Hi"}]}
    assert sent[1] == {"role": "assistant", "content": [], "tool_calls": calls}
    assert sent[2:] == messages[2:]
    assert NativeDialect().body(request(messages=messages[:3]))["input"]["messages"] == messages[:3]
    with pytest.raises(PluginError, match="not 3"):
        NativeDialect().body(request(messages=[{"role": "user", "content": [3]}]))


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("qwen-turbo", "text"),
        ("qwen3-max", "text"),
        ("qwen-long", "text"),
        ("qwen3.5-plus", "multimodal"),
        ("qwen-vl-max-2025-08-13", "multimodal"),
        ("qwen-audio-turbo", "multimodal"),
        ("qwen9-vl-mine", "multimodal"),
        ("qwen2.5-7b-instruct", "text"),
    ],
)
async def test_where_it_goes(model, family):
    """One POST to the endpoint of the model's family, which is guessed from the name of a model nobody knows; a stream says so in a header."""
    async with scripted(answer(message("stop", content="4")), chunked(event(message("stop", content="4")))) as server:
        base = server.url.removesuffix("/v1") + "/api/v1"
        await ask(base, request(model))
        await ask(base + "/", request(model, stream=True))
    plain, streamed = server.requests
    assert plain.path == streamed.path == f"/api/v1/services/aigc/{family}-generation/generation"
    assert (plain.headers["authorization"], plain.json["model"], plain.headers.get("x-dashscope-sse")) == ("Bearer sk-1", model, None)
    assert (streamed.headers["x-dashscope-sse"], streamed.headers["accept"]) == ("enable", "text/event-stream")


async def test_an_unknown_model_with_an_image():
    """An image decides where even the name does not."""
    async with scripted(answer(message("stop", content="4"))) as server:
        await ask(server.url, request("mine", messages=[{"role": "user", "content": [{"image": "https://x.example/i.png"}]}]))
    assert "multimodal" in server.requests[0].path


async def test_answers():
    """Whole and streamed answers, incremental and cumulative, are the same answer with the same usage."""
    found = {}
    async with simulated(limits=False) as it:
        for name, asked in {
            "whole": request(),
            "text": request(params={"extra_body": {"result_format": "text"}}),
            "stream": request(stream=True),
            "cumulative": request(stream=True, params={"extra_body": {"incremental_output": False}}),
            "cumulative text": request(stream=True, params={"extra_body": {"incremental_output": False, "result_format": "text"}}),
        }.items():
            found[name] = await ask(f"{it.base}/api/v1", asked)
    assert {one.output for one in found.values()} == {"42"}
    assert len({one.usage for one in found.values()}) == 1
    assert {one.finish_reason for one in found.values()} == {"stop"}
    assert found["whole"].timing.first_output_ns is None
    assert found["stream"].timing.first_output_ns is not None


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals(stream):
    """A refusal's flat body is read, in its form as an event too; its id is kept."""
    said = {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "r"}
    body = event(said, 1, "error", 401) if stream else json.dumps(said)
    async with scripted(answer(body, status=401)) as server:
        with pytest.raises(AuthError, match="Invalid API-key") as caught:
            await ask(server.url, request(stream=stream))
    assert (caught.value.response_id, caught.value.http_status, caught.value.code) == ("r", 401, "InvalidApiKey")


async def test_throttling_and_parameters_of_the_simulator():
    """The simulator's refusals have the classes they should have."""
    async with simulated(limits={"rpm": 1}) as it:
        await ask(f"{it.base}/api/v1")
        with pytest.raises(RateLimitedError):
            await ask(f"{it.base}/api/v1")
        with pytest.raises(RejectedError, match="max_tokens"):
            await ask(f"{it.base}/api/v1", request("qwen-plus", params={"max_tokens": 10**7}))


async def test_streams_that_break():
    """A stream without its finish reason is broken, cut or not; after it, a lost connection does no harm."""
    cut, whole = chunked(event(message(content="4")), RST), chunked(event(message(content="4")), event(message("stop", content="")), RST)
    async with scripted(chunked(event(message(content="4"))), cut, whole) as server:
        for _ in range(2):
            with pytest.raises(BrokenStreamError) as caught:
                await ask(server.url, request(stream=True))
            assert (caught.value.usage.completion_tokens, caught.value.response_id) == (1, "902fee3b")
        assert (await ask(server.url, request(stream=True))).output == "4"


async def test_a_tool_conversation():
    """Tools, calls and their results make a round trip."""
    async with simulated(limits=False) as it:
        question = {"role": "user", "content": "What is the weather in Paris?"}
        first = await ask(f"{it.base}/api/v1", request("qwen-plus", messages=[question], tools=[TOOL], stream=True))
        [called] = first.tool_calls
        asked = {"id": called["id"], "type": "function", "function": {"name": called["name"], "arguments": called["arguments"]}}
        answered = [
            question,
            {"role": "assistant", "content": "", "tool_calls": [asked]},
            {"role": "tool", "tool_call_id": called["id"], "content": "It is 4."},
        ]
        second = await ask(f"{it.base}/api/v1", request("qwen-plus", messages=answered, tools=[TOOL]))
    assert (called["name"], first.finish_reason, second.finish_reason) == ("get_weather", "tool_calls", "stop")
    assert second.output


async def test_each_model_in_the_dialect_it_needs():
    """An account of DashScope's compatible mode asks Qwen-Audio natively, unless it is told to do as the seed document says."""
    audio = [{"role": "user", "content": [{"audio": "https://x.example/a.mp3"}, {"text": "What is said?"}]}]
    async with scripted(answer(message("stop", content="4")), answer({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]})) as server:
        base = server.url.removesuffix("/v1") + "/compatible-mode/v1"
        await ask(base, request("qwen-audio-turbo", messages=audio), openai_client, kind="simulator")
        await ask(base, request("qwen-audio-turbo", messages=audio), openai_client, kind="simulator", options={"seed_compat": True})
    native, compatible = server.requests
    assert native.path == "/api/v1/services/aigc/multimodal-generation/generation"
    assert native.json["input"]["messages"] == audio
    assert compatible.path == "/compatible-mode/v1/chat/completions"
    assert compatible.json["messages"][0]["content"][0] == {"type": "audio_url", "audio_url": {"url": "https://x.example/a.mp3"}}


@pytest.mark.parametrize("region", ["", "-intl"])
@pytest.mark.parametrize(
    ("model", "path"), [("qwen-audio-turbo", "/api/v1/services/aigc/multimodal-generation/generation"), ("qwen-turbo", "/v1/chat/completions")]
)
async def test_the_live_hosts(region, model, path):
    """On DashScope's own hosts both addresses follow from either; the key goes to no other host."""
    seen = []

    def respond(sent):
        seen.append(sent)
        return httpx.Response(401, json={"code": "InvalidApiKey", "message": "Invalid API-key provided."})

    live = account(f"https://dashscope{region}.aliyuncs.com/compatible-mode/v1", kind="openai")
    client = openai_client(live, SYSTEM_CLOCK, HttpxTransport(live.base_url, live.timeouts, SYSTEM_CLOCK, httpx.MockTransport(respond)))
    with pytest.raises(AuthError):
        await client.complete(request(model))
    await client.aclose()
    assert (seen[0].url.host, seen[0].url.path.removeprefix("/compatible-mode")) == (f"dashscope{region}.aliyuncs.com", path)


def test_mistakes_in_a_provider():
    """An option the kind does not have is said before anything is sent."""
    for options, text in (({"inputs": "prompt"}, "inputs.*known: terminal, seed_compat, input"), ({"input": "text"}, "'messages', 'prompt'")):
        with pytest.raises(PluginError, match=text):
            dashscope_client(account("http://x.example/api/v1", options=options), SYSTEM_CLOCK)
    assert find("clients", "dashscope") is dashscope_client
