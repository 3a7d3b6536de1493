"""The official SDKs, unmodified, are the judges: what they can do with the service they can do with the simulator.

`dashscope` is synchronous, so it runs in a thread beside the simulator.
"""

import asyncio
import json
from http import HTTPStatus

import pytest
from simulated import png, simulated, wav

openai = pytest.importorskip("openai")
dashscope = pytest.importorskip("dashscope")

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "获取指定城市的天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "城市名称"}}, "required": ["city"]},
    },
}
QUESTION = [{"role": "user", "content": "北京今天天气怎么样？"}]


def client(it, key="sk-test"):
    return openai.AsyncOpenAI(api_key=key, base_url=f"{it.base}/compatible-mode/v1", max_retries=0, timeout=20)


async def generation(it, **given):
    return await asyncio.to_thread(_called, dashscope.Generation.call, it, given)


async def conversation(it, **given):
    return await asyncio.to_thread(_called, dashscope.MultiModalConversation.call, it, given)


def _called(call, it, given):
    """A streamed answer as the list of its responses."""
    answer = call(base_address=f"{it.base}/api/v1", api_key=given.pop("api_key", "sk-test"), **given)
    return list(answer) if given.get("stream") else answer


async def test_openai_chat_and_stream():
    """Answer, usage and stream as objects of the SDK."""
    async with simulated() as it, client(it) as sdk:
        whole = await sdk.chat.completions.create(model="qwen-turbo", messages=[{"role": "user", "content": "What is 17 + 25?"}])
        stream = await sdk.chat.completions.create(
            model="qwen-plus",
            messages=[{"role": "user", "content": "What is 17 + 25?"}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"enable_thinking": True},
        )
        chunks = [chunk async for chunk in stream]
        models = [model.id async for model in sdk.models.list()]
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("42", "stop")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "42"
    assert "".join(delta.reasoning_content or "" for delta in deltas)
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens > 0
    assert {"qwen-turbo", "qwen-vl-max"} <= set(models)


async def test_openai_tools_round_trip():
    """Question, call, result, answer; and the same call out of a stream."""
    async with simulated() as it, client(it) as sdk:
        asked = await sdk.chat.completions.create(model="qwen-turbo", messages=QUESTION, tools=[TOOL])
        call = asked.choices[0].message.tool_calls[0]
        result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 25, "weather": "sunny"}'}
        answered = await sdk.chat.completions.create(model="qwen-turbo", messages=[*QUESTION, asked.choices[0].message, result], tools=[TOOL])
        stream = await sdk.chat.completions.create(model="qwen-turbo", messages=QUESTION, tools=[TOOL], stream=True)
        pieces = [piece async for chunk in stream for piece in chunk.choices[0].delta.tool_calls or ()]
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "北京"})
    assert answered.choices[0].finish_reason == "stop"
    assert "sunny" in answered.choices[0].message.content
    assert "".join(piece.function.arguments for piece in pieces) == call.function.arguments


async def test_openai_image_and_omni_audio():
    """An image as a data URI; Omni takes sound and speaks."""
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": png(64, 64)}}, {"type": "text", "text": "What is it?"}]}]
    sound = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": wav(2), "format": "wav"}}, {"type": "text", "text": "Hello"}]}]
    async with simulated() as it, client(it) as sdk:
        seen = await sdk.chat.completions.create(model="qwen-vl-plus", messages=picture)
        stream = await sdk.chat.completions.create(
            model="qwen3-omni-flash", messages=sound, stream=True, modalities=["text", "audio"], audio={"voice": "Cherry", "format": "wav"}
        )
        spoken = [chunk.choices[0].delta.audio async for chunk in stream if getattr(chunk.choices[0].delta, "audio", None)]
    assert seen.usage.prompt_tokens_details.image_tokens > 0
    assert "".join(piece.transcript or "" for piece in spoken) == "Hello"
    assert any(piece.data for piece in spoken)


ERRORS = [
    ("invalid_parameter_error", openai.BadRequestError),
    ("data_inspection_failed", openai.BadRequestError),
    ("Arrearage", openai.BadRequestError),
    ("invalid_api_key", openai.AuthenticationError),
    ("access_denied", openai.PermissionDeniedError),
    ("AllocationQuota.FreeTierOnly", openai.PermissionDeniedError),
    ("model_not_found", openai.NotFoundError),
    ("limit_requests", openai.RateLimitError),
    ("limit_burst_rate", openai.RateLimitError),
    ("insufficient_quota", openai.RateLimitError),
    ("internal_error", openai.InternalServerError),
    ("request_timeout", openai.InternalServerError),
    ("ModelServingError", openai.InternalServerError),
    ("GatewayTimeout", openai.InternalServerError),
]


@pytest.mark.parametrize(("code", "exception"), ERRORS)
async def test_openai_raises_its_own_exception_for_each_error(code, exception):
    """Status and body are such that the SDK classifies them as it does live."""
    async with simulated(faults=[{"kind": "error", "code": code}]) as it, client(it) as sdk:
        with pytest.raises(exception) as raised:
            await sdk.chat.completions.create(model="qwen-turbo", messages=QUESTION)
    assert raised.value.body["code"] == code


async def test_openai_meets_the_services_stream_traps():
    """A refused stream has a body the SDK cannot parse; an error under 200 is a bare APIError; a cut stream just ends."""
    faults = [{"kind": "stream_error", "contains": "北京", "after": 1}, {"kind": "cut", "contains": "Rome", "after": 1}]
    async with simulated(faults=faults) as it, client(it) as sdk:
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.chat.completions.create(model="qwen-turbo", messages=QUESTION, stream=True, temperature=2)
        with pytest.raises(openai.APIError) as failed:
            _ = [chunk async for chunk in await sdk.chat.completions.create(model="qwen-turbo", messages=QUESTION, stream=True)]
        cut = [chunk async for chunk in await sdk.chat.completions.create(model="qwen-turbo", messages=[{"role": "user", "content": "Rome"}], stream=True)]
    assert "Temperature should be in [0.0, 2.0)" in refused.value.body, "text, not JSON"
    assert failed.value.body["code"] == "internal_error"
    assert not hasattr(failed.value, "status_code")
    assert all(choice.finish_reason is None for chunk in cut for choice in chunk.choices)


async def test_openai_files_and_batches():
    """Upload, create, poll, download: a batch runs through its states and answers every line."""
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "qwen-plus", "messages": [{"role": "user", "content": f"{number} + 1"}]},
        }
        for number in range(5)
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    async with simulated(batch_seconds=0) as it, client(it) as sdk:
        file = await sdk.files.create(file=("study.jsonl", content), purpose="batch")
        batch = await sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        done = await sdk.batches.retrieve(batch.id)
        output = (await sdk.files.content(done.output_file_id)).text
        listed = [one.id async for one in sdk.batches.list()]
    assert (batch.status, done.status) == ("validating", "completed")
    assert (done.request_counts.total, done.request_counts.completed) == (5, 5)
    answers = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in map(json.loads, output.splitlines())}
    assert answers == {str(number): str(number + 1) for number in range(5)}
    assert listed == [batch.id]


async def test_dashscope_chat_and_stream():
    """Whole, cumulative and incremental, message and text."""
    question = [{"role": "user", "content": "Tell me the story of the fox and the grapes"}]
    async with simulated() as it:
        whole = await generation(it, model="qwen-turbo", messages=question, result_format="message")
        text = await generation(it, model="qwen-turbo", prompt="What is 17 + 25?")
        cumulative = await generation(it, model="qwen-turbo", messages=question, result_format="message", stream=True)
        incremental = await generation(it, model="qwen-turbo", messages=question, result_format="message", stream=True, incremental_output=True)
    assert whole.status_code == HTTPStatus.OK
    said = whole.output.choices[0].message.content
    assert text.output.text == "42"
    assert cumulative[-1].output.choices[0].message.content == said
    assert "".join(part.output.choices[0].message.content for part in incremental) == said
    assert cumulative[-1].usage.output_tokens == incremental[-1].usage.output_tokens == whole.usage.output_tokens
    assert [part.output.choices[0].finish_reason for part in incremental][-1] == "stop"


async def test_dashscope_thinking_and_tools_round_trip():
    """Thoughts apart from the answer; question, call, result, answer."""
    async with simulated() as it:
        thought = await generation(
            it,
            model="qwen-plus",
            messages=[{"role": "user", "content": "1 + 1"}],
            result_format="message",
            enable_thinking=True,
            stream=True,
            incremental_output=True,
        )
        asked = await generation(it, model="qwen-turbo", messages=QUESTION, result_format="message", tools=[TOOL])
        message = asked.output.choices[0].message
        call = message.tool_calls[0]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
        answered = await generation(it, model="qwen-turbo", messages=[*QUESTION, dict(message), result], result_format="message", tools=[TOOL])
    assert "".join(part.output.choices[0].message.reasoning_content for part in thought)
    assert json.loads(call["function"]["arguments"]) == {"city": "北京"}
    assert answered.output.choices[0].message.content == "sunny"


async def test_dashscope_image_and_audio(tmp_path):
    """Multimodal calls: an image, a sound, streamed or not."""
    sound = [{"role": "user", "content": [{"audio": wav(3)}, {"text": "这段音频在说什么?"}]}]
    async with simulated() as it:
        seen = await conversation(it, model="qwen-vl-plus", messages=[{"role": "user", "content": [{"image": png(64, 64)}, {"text": "What is it?"}]}])
        heard = await conversation(it, model="qwen-audio-turbo", messages=sound)
        streamed = await conversation(it, model="qwen-audio-turbo", messages=sound, stream=True, incremental_output=True)
    assert seen.output.choices[0].message.content == [{"text": "What is it?"}]
    assert seen.usage["image_tokens"] > 0
    assert heard.usage["audio_tokens"] == 75
    assert "".join(part["text"] for one in streamed for part in one.output.choices[0].message.content) == "这段音频在说什么?"


@pytest.mark.parametrize(
    ("code", "status", "native"),
    [
        ("invalid_parameter_error", 400, "InvalidParameter"),
        ("data_inspection_failed", 400, "DataInspectionFailed"),
        ("invalid_api_key", 401, "InvalidApiKey"),
        ("access_denied", 403, "Model.AccessDenied"),
        ("model_not_found", 404, "ModelNotFound"),
        ("Arrearage", 400, "Arrearage"),
        ("AllocationQuota.FreeTierOnly", 403, "AllocationQuota.FreeTierOnly"),
        ("limit_requests", 429, "Throttling.RateQuota"),
        ("limit_burst_rate", 429, "Throttling.BurstRate"),
        ("insufficient_quota", 429, "Throttling.AllocationQuota"),
        ("internal_error", 500, "InternalError"),
        ("request_timeout", 500, "RequestTimeOut"),
        ("ModelUnavailable", 503, "ModelUnavailable"),
        ("GatewayTimeout", 504, "GatewayTimeout"),
    ],
)
async def test_dashscope_reports_each_error(code, status, native):
    """The SDK returns status and code instead of raising, streamed or not."""
    async with simulated(faults=[{"kind": "error", "code": code}]) as it:
        whole = await generation(it, model="qwen-turbo", messages=QUESTION)
        streamed = await generation(it, model="qwen-turbo", messages=QUESTION, stream=True)
    assert (whole.status_code, whole.code) == (status, native)
    assert (streamed[-1].status_code, streamed[-1].code) == (status, native)


async def test_dashscope_sees_an_error_in_mid_stream():
    """An error event under 200 ends the SDK's generator with the code."""
    async with simulated(faults=[{"kind": "stream_error", "after": 1, "code": "data_inspection_failed"}]) as it:
        parts = await generation(it, model="qwen-turbo", messages=QUESTION, stream=True)
    assert parts[-1].code == "DataInspectionFailed"
