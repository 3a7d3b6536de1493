"""What the simulator refuses, with the service's words and in its order; and what it breaks on purpose."""

import asyncio
import base64
import contextlib

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import CHAT, TEXT, png, simulated, wav

from evalrunner.simulator import native_dialect, openai_dialect, validators
from evalrunner.simulator.app import Simulator, parse_settings
from evalrunner.simulator.calls import Refusal

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}]}
ENGINE = "<400> InternalError.Algo.InvalidParameter: "
UNANSWERED = (
    f'{ENGINE}An assistant message with "tool_calls" must be followed by tool messages responding to each "tool_call_id". '
    "The following tool_call_ids did not have response messages: message[2].role"
)

REFUSED = [
    ({"model": None}, 400, "you must provide a model parameter."),
    ({"messages": []}, 400, "[] is too short - 'messages'"),
    ({"messages": None}, 400, "'messages' is a required property"),
    ({"messages": "Hi"}, 400, "'Hi' is not of type 'array' - 'messages'"),
    (
        {"messages": [{"role": "developer", "content": "x"}]},
        400,
        "'developer' is not one of ['system', 'assistant', 'user', 'tool', 'function'] - 'messages.0.role'",
    ),
    ({"messages": [{"role": "user"}]}, 400, "The content field is a required field."),
    ({"messages": [{"role": "user", "content": 5}]}, 400, "5 is not of type 'string' - 'messages.0.content'"),
    ({"messages": [{"role": "system", "content": "x"}]}, 400, f"{ENGINE}The input messages do not contain elements with the role of user."),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, 400, f"{ENGINE}input content must be a string."),
    ({"temperature": 2.0}, 400, f"{ENGINE}Temperature should be in [0.0, 2.0)"),
    ({"temperature": "hot"}, 400, "'hot' is not of type 'number' - 'temperature'"),
    ({"temperature": True}, 400, "True is not of type 'number' - 'temperature'"),
    ({"top_p": 0}, 400, f"{ENGINE}Range of top_p should be (0.0, 1.0]"),
    ({"top_k": -1}, 400, f"{ENGINE}Parameter top_k be greater than or equal to 0"),
    ({"repetition_penalty": 0}, 400, f"{ENGINE}Repetition_penalty should be greater than 0.0"),
    ({"presence_penalty": 3}, 400, f"{ENGINE}Presence_penalty should be in [-2.0, 2.0]"),
    ({"max_tokens": 0}, 400, f"{ENGINE}Range of max_tokens should be [1, 16384]"),
    ({"max_tokens": 99_999}, 400, f"{ENGINE}Range of max_tokens should be [1, 16384]"),
    ({"n": 5}, 400, f"{ENGINE}Range of n should be [1, 4]"),
    ({"n": 2, "tools": [TOOL]}, 400, f"{ENGINE}The n parameter must be 1 when tools are used"),
    ({"seed": -1}, 400, "-1 is lesser than the minimum of 0 - 'seed'"),
    ({"thinking_budget": 0}, 400, f"{ENGINE}The thinking_budget parameter must be a positive integer"),
    ({"reasoning_effort": "enormous"}, 400, f"{ENGINE}'enormous' is not one of low, medium, xhigh - 'reasoning_effort'"),
    ({"reasoning_effort": "low", "thinking_budget": 5}, 400, f"{ENGINE}reasoning_effort and thinking_budget are mutually exclusive"),
    (
        {"response_format": {"type": "json_object"}},
        400,
        f"{ENGINE}'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
    ),
    (
        {"model": "qwen-plus", "enable_thinking": True, "response_format": {"type": "json_schema"}},
        400,
        f"{ENGINE}Json mode response is not supported when enable_thinking is true",
    ),
    ({"tools": [{"type": "function", "function": {"name": "search"}}]}, 400, f"{ENGINE}Tool names are not allowed to be [search]"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, 400, "'a b' does not match '^[a-zA-Z0-9_-]{1,64}$' - 'tools.0.function.name'"),
    ({"tools": [{"type": "function"}]}, 400, "'name' is a required property - 'tools.0.function'"),
    ({"tools": [TOOL], "tool_choice": "required"}, 400, f'{ENGINE}tool_choice is one of the strings that should be ["none","auto"]'),
    ({"tools": [TOOL], "tool_choice": {"function": {"name": "x"}}}, 400, f"{ENGINE}tool_choice names a function that is not among the tools"),
    ({"model": "qwen-long", "tools": [TOOL]}, 400, f"{ENGINE}The tool call is not supported."),
    (
        {"messages": [*HI, {"role": "tool", "tool_call_id": "c1", "content": "x"}]},
        400,
        f'{ENGINE}messages with role "tool" must be a response to a preceeding message with "tool_calls".',
    ),
    (
        {"messages": [*HI, CALLED, *HI]},
        400,
        UNANSWERED,
    ),
    ({"messages": [*HI, {"role": "assistant", "content": "Hello"}]}, 500, "list index out of range"),
    ({"model": "qwen3-32b"}, 400, f"{ENGINE}parameter.enable_thinking must be set to false for non-streaming calls"),
    ({"model": "qwq-plus"}, 400, f"{ENGINE}This model only support stream mode, please enable the stream parameter to access the model."),
    ({"model": "qwen3-omni-flash", "modalities": ["text", "audio"]}, 400, f"{ENGINE}'audio' output only support with stream=true"),
    ({"model": "qwq-plus", "stream": True, "enable_thinking": False}, 400, f"{ENGINE}The value of the enable_thinking parameter is restricted to True."),
    ({"model": "qwen-max", "enable_thinking": True}, 400, "The model does not support enable_thinking."),
    ({"model": "qwen-vl-max", "enable_search": True}, 400, f"{ENGINE}This model does not support enable_search."),
    ({"model": "qwen-max", "messages": [{"role": "user", "content": "word " * 31_000}]}, 400, f"{ENGINE}Range of input length should be [1, 30720]"),
    ({"model": "qwen-audio-turbo"}, 404, "Unsupported model qwen-audio-turbo for OpenAI compatibility mode."),
    ({"model": "qwen-nonsense"}, 404, "The model `qwen-nonsense` does not exist or you do not have access to it."),
    ({"messages": [{"role": "user", "content": "forbidden fruit"}]}, 400, "Input data may contain inappropriate content."),
]


@pytest.mark.parametrize(("change", "status", "message"), REFUSED, ids=lambda value: str(value)[:60])
async def test_a_mistake_is_refused_in_the_services_words(change, status, message):
    """Each documented refusal has its status and its exact message, and the words of an error body."""
    body = {"model": "qwen-turbo", "messages": HI, **change}
    async with simulated(blocked=["forbidden"]) as it:
        answered = await it.post(CHAT, body)
    error = (answered.json if not body.get("stream") else answered.events[0])["error"]
    assert (answered.status, error["message"]) == (status, message)
    assert set(error) == {"code", "param", "message", "type"}


def image(url):
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (png(1, 500), f"{ENGINE}The image length and width do not meet the model restrictions. [height:500 or width:1 must be larger than 10]"),
        (png(11, 2_300), f"{ENGINE}absolute aspect ratio must be smaller than 200"),
        ("data:image/png;base64,AAAA", f"{ENGINE}The image format is illegal and cannot be opened."),
        ("data:image/png;base64,A", "The provided URL does not appear to be valid. Ensure it is correctly formatted."),
        ("", "The provided URL does not appear to be valid. Ensure it is correctly formatted."),
        ("data:image/png;base64," + "A" * 10_485_761, f"{ENGINE}Exceeded limit on max bytes per data-uri item : 10485760"),
        ("https://nowhere.invalid/x.png", "Failed to download multimodal content: https://nowhere.invalid/x.png"),
    ],
    ids=lambda value: value[:40],
)
async def test_an_image_nobody_can_use_is_refused(url, message):
    """Size, shape, format and address of an image are checked."""
    async with simulated() as it:
        answered = await it.post(CHAT, {"model": "qwen-vl-max", "messages": image(url)})
    assert (answered.status, answered.json["error"]["message"]) == (400, message)


async def test_media_belong_to_models_that_take_them():
    """Sound is not for a vision model, an empty sound for none; `audio_url` is refused as on the live service."""
    sound = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": wav(1), "format": "wav"}}]}]
    empty = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "data:;base64,", "format": "wav"}}]}]
    linked = [{"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "https://example.com/a.mp3"}}]}]
    async with simulated() as it:
        seen = await it.post(CHAT, {"model": "qwen-vl-max", "messages": sound})
        nothing = await it.post(CHAT, {"model": "qwen-omni-turbo", "messages": empty, "stream": True})
        seed_form = await it.post(CHAT, {"model": "qwen-omni-turbo", "messages": linked, "stream": True})
    assert seen.json["error"]["message"] == f"{ENGINE}The model does not support audio input."
    assert nothing.events[0]["error"]["message"] == f"{ENGINE}The audio is empty"
    assert "audio_url" in seed_form.events[0]["error"]["message"]


async def test_seed_compat_accepts_what_the_seed_document_says():
    """With the switch, temperature 2.0 and audio_url on the compatible endpoint work; without it they are refused as live."""
    sound = [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "audio_url", "audio_url": {"url": "https://example.com/a.mp3"}}]}]
    async with simulated(seed_compat=True) as it:
        assert (await it.chat(temperature=2.0)).status == 200
        assert (await it.post(CHAT, {"model": "qwen-audio-turbo", "messages": sound})).status == 200


async def test_checks_come_in_the_documented_order():
    """Key, model, schema, parameters, order of messages, moderation, rate: of several mistakes the first in this order is told."""
    body = {"model": "nope", "messages": [], "temperature": 9}
    wrong_order = [{"role": "user", "content": "forbidden"}, {"role": "tool", "content": "x", "tool_call_id": "y"}]
    async with simulated(unauthorised=["sk-bad"], blocked=["forbidden"], limits={"rpm": 0.1}) as it:
        said = [
            await it.post(CHAT, body, Authorization="Bearer sk-bad"),
            await it.post(CHAT, body),
            await it.post(CHAT, body | {"model": "qwen-turbo"}),
            await it.post(CHAT, body | {"model": "qwen-turbo", "messages": wrong_order}),
            await it.post(CHAT, body | {"model": "qwen-turbo", "messages": wrong_order, "temperature": 1}),
            await it.post(CHAT, {"model": "qwen-turbo", "messages": wrong_order[:1]}),
            await it.post(CHAT, {"model": "qwen-turbo", "messages": HI}),
        ]
    assert [answered.json["error"]["message"].removeprefix(ENGINE)[:30] for answered in said] == [
        "Incorrect API key provided. Fo",
        "The model `nope` does not exis",
        "[] is too short - 'messages'",
        "Temperature should be in [0.0,",
        'messages with role "tool" must',
        "Input data may contain inappro",
        "You have exceeded your current",
    ]


@pytest.mark.parametrize(("key", "status"), [("Bearer sk-good", 200), ("Bearer sk-other", 401), ("Bearer ", 401), ("", 401), ("Basic sk-good", 401)])
async def test_a_key_is_asked_for(key, status):
    """Any key that is not empty will do, unless the settings name the one that does."""
    async with simulated(api_key="sk-good") as it:
        answered = await it.post(CHAT, {"model": "qwen-turbo", "messages": HI}, Authorization=key)
        native = await it.post(TEXT, {"model": "qwen-turbo", "input": {"messages": HI}}, Authorization=key)
    assert (answered.status, native.status) == (status, status)
    if status == 401:
        assert answered.json["error"]["code"] == "invalid_api_key"
        assert native.json["code"] == "InvalidApiKey"


async def test_a_body_nobody_can_read_is_refused():
    """Broken JSON, and JSON that is no object, are a 400 and not a crash."""
    async with simulated() as it:
        for raw in (b"{", b"[1]", b"", b"\xff", b"null"):
            answered = await it.post(CHAT, raw)
            assert (answered.status, answered.json["error"]["code"]) == (400, "invalid_request_error")


async def test_a_refused_stream_is_an_event_under_400():
    """A stream refused for its parameters has the text of an event as its body, as the live service does; other refusals are plain JSON."""
    async with simulated() as it:
        refused, unknown = await it.chat(stream=True, temperature=2), await it.chat(model="nope", stream=True)
    assert refused.status == 400
    assert refused.raw.startswith(b'data: {"error":')
    assert refused.headers["content-type"].startswith("text/event-stream")
    assert unknown.json["error"]["code"] == "model_not_found"


async def test_moderation_stops_an_answer_too():
    """An answer with a blocked word is a 400, or an error in mid-stream under 200."""
    answers = [["a question", "one two three four five six seven forbidden"]]
    async with simulated(blocked=["forbidden"], answers=answers) as it:
        whole, streamed = await it.chat("a question"), await it.chat("a question", stream=True)
        native = await it.native("a question", stream=True)
    assert (whole.status, whole.json["error"]["message"]) == (400, "Output data may contain inappropriate content.")
    assert streamed.status == 200
    assert streamed.events[-1]["error"]["code"] == "data_inspection_failed"
    assert native.events[-1]["code"] == "DataInspectionFailed"
    assert b"event:error" in native.raw


async def test_faults_strike_by_number_by_content_and_by_attempt():
    """A script names requests by their number, every so-many-th, a share of the contents, or the first attempts of a request only."""
    async with simulated(limits=False, faults=[{"kind": "error", "at": [2]}, {"kind": "error", "every": 4, "code": "limit_requests"}]) as it:
        by_number = [(await it.chat()).status for _ in range(8)]
    async with simulated(limits=False, faults=[{"kind": "error", "share": 0.3, "attempts": 1}], seed=3) as it:
        first = [(await it.chat(f"{number}")).status for number in range(100)]
        second = [(await it.chat(f"{number}")).status for number in range(100)]
    async with simulated(limits=False, faults=[{"kind": "error", "share": 0.3, "attempts": 1}], seed=3) as it:
        again = [(await it.chat(f"{number}")).status for number in reversed(range(100))]
    assert by_number == [200, 500, 200, 429, 200, 200, 200, 429]
    assert 15 < first.count(500) < 45
    assert set(second) == {200}
    assert again[::-1] == first


@pytest.mark.parametrize(
    ("condition", "strikes"),
    [({"model": "qwen-turbo"}, 1), ({"model": "x"}, 0), ({"contains": "17"}, 1), ({"contains": "18"}, 0), ({"stream": True}, 0), ({"key": "sk-test"}, 1)],
)
async def test_a_fault_can_be_narrowed_down(condition, strikes):
    """Every condition of a fault must hold."""
    async with simulated(faults=[{"kind": "error", "dialect": "openai", **condition}]) as it:
        assert ((await it.chat()).status == 500) == bool(strikes)
        assert (await it.native()).status == 200


async def test_scripted_errors_are_what_the_script_says():
    """Status, code, message, Retry-After, headers, a redirect, a body of one's own, an error inside a 200."""
    faults = [
        {"kind": "error", "contains": "A", "code": "insufficient_quota", "retry_after": "3", "headers": {"x-should-retry": "true"}},
        {"kind": "error", "contains": "B", "status": 418, "code": "teapot", "message": "I am one"},
        {"kind": "redirect", "contains": "C", "location": "https://elsewhere.example/"},
        {"kind": "body", "contains": "D", "body": '{"choices": [{}]} trailing'},
        {"kind": "body_error", "contains": "E", "code": "GatewayTimeout"},
        {"kind": "empty", "contains": "F"},
        {"kind": "no_usage", "contains": "G"},
        {"kind": "partial", "contains": "H"},
        {"kind": "invalid_json", "contains": "I"},
    ]
    async with simulated(faults=faults) as it:
        quota, teapot, _, own, inside, empty, unused, partial, broken = [await it.chat(letter) if letter != "C" else None for letter in "ABCDEFGHI"]
        async with it.session.post(it.base + CHAT, json={"messages": [{"content": "C"}]}, allow_redirects=False) as redirect:
            assert (redirect.status, redirect.headers["location"]) == (307, "https://elsewhere.example/")
        streamed = {letter: await it.chat(letter, stream=True) for letter in "EFH"}
    assert (quota.status, quota.json["error"]["code"], quota.headers["retry-after"], quota.headers["x-should-retry"]) == (
        429,
        "insufficient_quota",
        "3",
        "true",
    )
    assert (teapot.status, teapot.json["error"]["message"]) == (418, "I am one")
    assert own.raw == b'{"choices": [{}]} trailing'
    assert (inside.status, inside.json["error"]["code"]) == (200, "GatewayTimeout")
    assert empty.json["choices"] == []
    assert "usage" not in unused.json
    assert (partial.json["choices"][0]["finish_reason"], partial.headers["x-dashscope-partialresponse"]) == (None, "true")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        _ = broken.json
    assert streamed["E"].events[0]["error"]["code"] == "GatewayTimeout"
    assert streamed["F"].events == []
    assert all(event["choices"][0]["finish_reason"] is None for event in streamed["H"].events)


async def test_streams_break_where_the_script_says():
    """After so many output events: an error under 200, an end without [DONE], a broken event, a silence; and the events before it are whole."""
    faults = [
        {"kind": "stream_error", "contains": "alpha", "after": 2, "code": "internal_error"},
        {"kind": "cut", "contains": "beta", "after": 1},
        {"kind": "invalid_json", "contains": "gamma", "after": 1},
        {"kind": "stall", "contains": "delta", "after": 2, "delay_ms": 80},
        {"kind": "slow", "contains": "zeta", "delay_ms": 80},
    ]
    words = " a b c d e f g h i j k l m n o p"
    loop = asyncio.get_running_loop()
    async with simulated(faults=faults) as it:
        failed, cut, broken = [await it.chat(name + words, stream=True) for name in ("alpha", "beta", "gamma")]
        took = []
        for name in ("delta", "zeta"):
            began = loop.time()
            assert (await it.chat(name + words, stream=True)).text.startswith(name)
            took.append(loop.time() - began)
    assert [("error" in event) for event in failed.events] == [False, False, False, True]
    assert len(cut.events) == 2
    assert b"[DONE]" not in cut.raw + failed.raw
    assert b"half a\n\n" in broken.raw
    assert min(took) >= 0.08


@pytest.mark.parametrize(
    ("fault", "stream"), [({"kind": "disconnect"}, False), ({"kind": "disconnect", "after": 1}, False), ({"kind": "disconnect", "after": 1}, True)]
)
async def test_connections_can_be_reset(fault, stream):
    """A reset before the answer, in the middle of a body, in the middle of a stream."""
    async with simulated(faults=[fault]) as it:
        with pytest.raises(aiohttp.ClientError):
            await it.chat("a b c d e f g h i j k", stream=stream)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + (300).to_bytes(2, "little") + (200).to_bytes(2, "little"),
        b"BM" + bytes(16) + (300).to_bytes(4, "little") + (200).to_bytes(4, "little"),
        b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + (200).to_bytes(2, "big") + (300).to_bytes(2, "big") + bytes(9),
        b"RIFF1234WEBPVP8X" + bytes(8) + (299).to_bytes(3, "little") + (199).to_bytes(3, "little"),
        b"RIFF1234WEBPVP8L" + bytes(5) + (299 | 199 << 14).to_bytes(4, "little") + bytes(5),
        b"RIFF1234WEBPVP8 " + bytes(10) + (300).to_bytes(2, "little") + (200).to_bytes(2, "little"),
    ],
    ids=["gif", "bmp", "jpeg", "webp-extended", "webp-lossless", "webp"],
)
async def test_every_usual_image_format_is_measured(data):
    """300 × 200 pixels cost the same in any format."""
    url = "data:image/x;base64," + base64.b64encode(data).decode()
    async with simulated() as it:
        measured, expected = [await it.post(CHAT, {"model": "qwen-vl-max", "messages": image(one)}) for one in (url, png(300, 200))]
    assert measured.json["usage"] == expected.json["usage"]


async def test_media_that_are_not_sent_are_taken_at_a_usual_size():
    """A URL is never fetched: it stands for 1024 × 1024, ten seconds, twenty frames; limits of pixels are kept; compressed sound is measured by its bytes."""

    def parts(*given):
        return [{"role": "user", "content": list(given)}]

    link = {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}}
    async with simulated() as it:
        used = [
            (
                await it.post(
                    CHAT, {"model": model, "messages": parts(part), "stream": model != "qwen3-vl-plus", "stream_options": {"include_usage": True}, **more}
                )
            )
            for model, part, more in (
                ("qwen3-vl-plus", link, {}),
                ("qwen3-vl-plus", link | {"max_pixels": 65_536}, {}),
                ("qwen3-vl-plus", link, {"vl_high_resolution_images": True}),
                ("qwen3-vl-plus", {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}, {}),
                ("qwen3-vl-plus", {"type": "video", "video": ["https://example.com/1.jpg"] * 4}, {}),
                ("qwen-omni-turbo", {"type": "input_audio", "input_audio": {"data": "https://example.com/a.mp3", "format": "mp3"}}, {}),
                ("qwen-omni-turbo", {"type": "input_audio", "input_audio": {"data": base64.b64encode(bytes(64_000)).decode(), "format": "mp3"}}, {}),
            )
        ]
    details = [(one.events[-1] if one.raw.startswith(b"data:") else one.json)["usage"]["prompt_tokens_details"] for one in used]
    assert [one.get("image_tokens") or one.get("video_tokens") or one["audio_tokens"] for one in details] == [1_026, 66, 1_026, 10_242, 2_050, 250, 100]


async def test_a_server_can_hang():
    """A request that is never answered ends when the client gives up, and the simulator still shuts down."""
    async with simulated(faults=[{"kind": "hang"}]) as it:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(it.chat(), 0.1)


async def test_an_unknown_path_is_told_in_the_dialect_of_its_prefix():
    """A misspelt URL gives a readable 404."""
    async with simulated() as it:
        assert (await it.post("/compatible-mode/v1/chat/completion", {})).json["error"]["code"] == "not_found"
        assert (await it.post("/api/v1/nothing", {})).json["code"] == "NotFound"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["", "user", "tool", "x", "json"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "url", "name", "function", "id"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(["model", "messages", "stop", "tool_choice", "parameters", "input", *validators._TYPES])
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"]), "content": JSON}, optional={"tool_calls": JSON, "tool_call_id": JSON, "partial": JSON}
)


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(FIELDS, JSON, max_size=4), st.lists(MESSAGE, max_size=3), st.sampled_from(["qwen-turbo", "qwen-vl-max", "qwen-long", "qwen3-omni-flash"])
)
async def test_no_body_crashes_it(changes, messages, model):
    """Whatever JSON is sent, in either dialect, is answered or refused by name."""
    simulator = Simulator(parse_settings({}))
    params = {name: value for name, value in changes.items() if name not in {"model", "messages", "input"}}
    for body, dialect, endpoint in (
        ({"model": model, "messages": messages, **changes}, openai_dialect, ""),
        ({"model": model, "input": {"messages": messages}, "parameters": params, **changes}, native_dialect, "text"),
    ):
        with contextlib.suppress(Refusal):
            call = simulator._read(body, {}, dialect, endpoint)
            reply = await simulator.engine.reply(call, "id")
            assert dialect.whole(call, reply)
            assert dialect.frames(call, reply, 4)
