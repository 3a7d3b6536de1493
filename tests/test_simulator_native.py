"""The native DashScope dialect of the simulator, and that both dialects tell the same story."""

from itertools import pairwise

import pytest
from simulated import CHAT, MULTIMODAL, TEXT, png, simulated, wav

from evalrunner.cost.models import lookup
from evalrunner.cost.tokens import image_tokens

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "获取指定城市的天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
STORY = "Tell me the story of the fox and the grapes once more"


async def test_text_and_message_are_the_two_result_formats():
    """`text` is the default of older models, `message` of newer ones; either can be asked for; a prompt is a user message."""
    async with simulated() as it:
        text, message, newer = await it.native(), await it.native(result_format="message"), await it.native(model="qwen3-max")
        prompt = await it.post(TEXT, {"model": "qwen-turbo", "input": {"prompt": "What is 17 + 25?"}})
    assert text.json["output"] == {"finish_reason": "stop", "text": "42"}
    assert message.json["output"] == {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "42"}}]}
    assert newer.json["output"]["choices"][0]["message"]["content"] == "42"
    assert prompt.json["output"] == text.json["output"]
    assert set(text.json) == {"output", "usage", "request_id"}
    assert text.json["request_id"] == text.headers["x-request-id"]
    usage = text.json["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_streams_are_cumulative_unless_asked_otherwise():
    """Each event carries the whole text so far, or with incremental_output the new piece; "null" until the last, usage in every event, no [DONE]."""
    async with simulated() as it:
        cumulative = await it.native(STORY, stream=True, result_format="message")
        incremental = await it.native(STORY, stream=True, result_format="message", incremental_output=True)
        plain = await it.native(STORY, stream=True)
    said = [event["output"]["choices"][0]["message"]["content"] for event in cumulative.events]
    assert all(later.startswith(earlier) for earlier, later in pairwise(said))
    assert said[-1] == incremental.text == STORY
    assert plain.events[-1]["output"] == {"finish_reason": "stop", "text": STORY}
    for stream in (cumulative, incremental):
        assert [event["output"]["choices"][0]["finish_reason"] for event in stream.events] == ["null"] * (len(stream.events) - 1) + ["stop"]
        counts = [event["usage"]["output_tokens"] for event in stream.events]
        assert counts == sorted(counts)
        assert b"[DONE]" not in stream.raw
    assert cumulative.raw.startswith(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{")


async def test_both_dialects_streamed_or_not_give_the_same_answers_and_tokens():
    """The same study through four ways differs in nothing but its wire."""
    async with simulated(accuracy=0.6, limits=False) as it:
        for number in range(50):
            question = f"What is {number} + {number + 5}?"
            params = {"temperature": 0.5, "seed": 7, "max_tokens": 50}
            one = await it.chat(question, **params)
            two = await it.chat(question, stream=True, stream_options={"include_usage": True}, **params)
            three = await it.native(question, result_format="message", **params)
            four = await it.native(question, stream=True, result_format="message", incremental_output=True, **params)
            assert one.text == two.text == three.text == four.text
            usage = one.json["usage"]
            assert two.events[-1]["usage"] == usage
            for native in (three.json["usage"], four.events[-1]["usage"]):
                assert (native["input_tokens"], native["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])


async def test_errors_are_flat_and_a_refused_stream_is_one_event():
    """code, message, request_id; in a stream under the refusal's status as an error event."""
    async with simulated() as it:
        flat, streamed, missing = await it.native(temperature=2), await it.native(temperature=2, stream=True), await it.native(model="nope")
        limited = await it.native("x", model="qwen-max", max_tokens=10**9)
    assert (flat.status, flat.json["code"]) == (400, "InvalidParameter")
    assert flat.json["message"].endswith("Temperature should be in [0.0, 2.0)")
    assert streamed.status == 400
    assert streamed.raw.startswith(b"id:1\nevent:error\n:HTTP_STATUS/400\ndata:{")
    assert (missing.status, missing.json["code"]) == (404, "ModelNotFound")
    assert limited.status == 400


@pytest.mark.parametrize(
    ("code", "status", "native"),
    [
        ("limit_requests", 429, "Throttling.RateQuota"),
        ("insufficient_quota", 429, "Throttling.AllocationQuota"),
        ("limit_burst_rate", 429, "Throttling.BurstRate"),
        ("Arrearage", 400, "Arrearage"),
        ("data_inspection_failed", 400, "DataInspectionFailed"),
        ("internal_error", 500, "InternalError"),
        ("access_denied", 403, "Model.AccessDenied"),
        ("ModelServingError", 503, "ModelServingError"),
        ("GatewayTimeout", 504, "GatewayTimeout"),
    ],
)
async def test_each_error_has_its_native_name(code, status, native):
    """One script, two dialects: the same error in the words of each."""
    async with simulated(faults=[{"kind": "error", "code": code}]) as it:
        compatible, flat = await it.chat(), await it.native()
    assert (compatible.status, compatible.json["error"]["code"]) == (status, code)
    assert (flat.status, flat.json["code"]) == (status, native)


async def test_the_wrong_endpoint_is_refused():
    """Text models answer at text-generation, all others at multimodal-generation."""
    async with simulated() as it:
        text, vision = await it.native(path=MULTIMODAL), await it.native(model="qwen-vl-max")
    assert text.json["message"] == vision.json["message"] == "url error, please check url！"


async def test_thinking_wants_message_format_and_incremental_output():
    """The two documented refusals, and thoughts in their own field when both are right."""
    async with simulated() as it:
        plain = await it.native(model="qwen-plus", enable_thinking=True)
        whole = await it.native(model="qwen-plus", enable_thinking=True, result_format="message", stream=True)
        right = await it.native(model="qwen-plus", enable_thinking=True, result_format="message", incremental_output=True, stream=True)
        tools = await it.native(model="qwen-plus", tools=[TOOL])
    assert plain.json["message"].endswith('The result_format parameter must be "message" when enable_thinking is true')
    assert whole.events[0]["message"].endswith('incremental_output must be "true" when enable_thinking is true')
    assert right.events[0]["output"]["choices"][0]["message"]["reasoning_content"]
    assert right.text == "42"
    assert right.events[-1]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    assert tools.json["message"].endswith('The result_format parameter must be "message" when tools are used')


async def test_images_and_sound_are_measured():
    """Tokens by the published formulas: an image by its pixels, a sound by its seconds; the content is a list of parts."""
    async with simulated() as it:
        seen = await it.post(
            MULTIMODAL, {"model": "qwen-vl-max", "input": {"messages": [{"role": "user", "content": [{"image": png(100, 100)}, {"text": "What?"}]}]}}
        )
        parts = [{"audio": wav(4)}, {"text": "这段音频在说什么?"}]
        heard = await it.post(MULTIMODAL, {"model": "qwen-audio-turbo", "input": {"messages": [{"role": "user", "content": parts}]}})
        streamed = await it.post(
            MULTIMODAL,
            {"model": "qwen-audio-turbo", "input": {"messages": [{"role": "user", "content": parts}]}, "parameters": {"incremental_output": True}},
            X_DashScope_SSE="enable",
        )
        compatible = await it.post(
            CHAT,
            {
                "model": "qwen-vl-max",
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": png(100, 100)}}, {"type": "text", "text": "What?"}]}],
            },
        )
    assert seen.json["usage"]["image_tokens"] == image_tokens(100, 100, lookup("qwen-vl-max").image) == 11
    assert heard.json["usage"]["audio_tokens"] == 100
    assert heard.json["output"]["choices"][0]["message"]["content"] == [{"text": "这段音频在说什么?"}]
    assert streamed.text == heard.text
    assert compatible.json["usage"]["prompt_tokens_details"]["image_tokens"] == seen.json["usage"]["image_tokens"]
    assert compatible.json["usage"]["prompt_tokens"] == seen.json["usage"]["input_tokens"]
    assert compatible.text == seen.text


@pytest.mark.parametrize("cumulative", [True, False])
async def test_tool_calls_come_in_pieces(cumulative):
    """Later pieces carry an empty id in incremental streams; a cumulative stream repeats the call as far as it is known."""
    async with simulated() as it:
        streamed = await it.native("北京今天天气怎么样？", stream=True, result_format="message", tools=[TOOL], incremental_output=not cumulative)
        whole = await it.native("北京今天天气怎么样？", result_format="message", tools=[TOOL])
    calls = [call for event in streamed.events for call in event["output"]["choices"][0]["message"].get("tool_calls", ())]
    expected = whole.json["output"]["choices"][0]["message"]["tool_calls"][0]
    assert expected["function"] == {"name": "get_weather", "arguments": '{"city": "北京"}'}
    if cumulative:
        assert calls[-1] == expected
    else:
        assert [call["id"] for call in calls] == [expected["id"]] + [""] * (len(calls) - 1)
        assert "".join(call["function"]["arguments"] for call in calls) == expected["function"]["arguments"]
    assert streamed.events[-1]["output"]["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_tokenizer_counts_as_the_bill_does():
    """POST /tokenizer says what a prompt will cost."""
    body = {"model": "qwen-max", "input": {"messages": [{"role": "user", "content": "What is 17 + 25?"}]}}
    async with simulated() as it:
        counted = await it.post("/api/v1/tokenizer", body)
        billed = await it.native(model="qwen-max")
    assert counted.json["usage"]["input_tokens"] == billed.json["usage"]["input_tokens"]
