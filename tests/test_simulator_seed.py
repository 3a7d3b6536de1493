"""Every request body printed in the document the project starts from ("文本模型 API (Qwen)"), sent as it is printed, gets the shape printed there.

Where a body says `[...]` or `...`, the messages printed elsewhere in the document stand in for it.
"""

import json

from simulated import CHAT, TEXT, simulated

HELLO = b"""{
    "model": "qwen-turbo",
    "messages": [
      {"role": "system", "content": "You are a helpful assistant."},
      {"role": "user", "content": "Hello!"}
    ]
  }"""
FORMAT = """{
  "messages": [
    {"role": "system", "content": "系统提示"},
    {"role": "user", "content": "用户消息"},
    {"role": "assistant", "content": "助手回复"},
    {"role": "user", "content": "后续问题"}
  ]
}"""
STREAM = """{
  "model": "qwen-turbo",
  "messages": [{"role": "user", "content": "Hello!"}],
  "stream": true
}"""
TOOLS = """{
  "tools": [
    {
      "type": "function",
      "function": {
        "name": "get_weather",
        "description": "获取指定城市的天气",
        "parameters": {
          "type": "object",
          "properties": {
            "city": {
              "type": "string",
              "description": "城市名称"
            }
          },
          "required": ["city"]
        }
      }
    }
  ]
}"""
RESULT = """{
  "messages": [
    {"role": "user", "content": "北京的天气"},
    {
      "role": "assistant",
      "tool_calls": [{"id": "call_xxx", "type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"北京\\"}"}}]
    },
    {
      "role": "tool",
      "tool_call_id": "call_xxx",
      "content": "{\\"temperature\\": 25, \\"weather\\": \\"sunny\\"}"
    }
  ]
}"""
IMAGE = """{
  "model": "qwen-vl-plus",
  "messages": [
    {
      "role": "user",
      "content": [
        {"type": "text", "text": "这张图片是什么？"},
        {"type": "image_url", "image_url": {"url": "https://example.com/image.jpg"}}
      ]
    }
  ]
}"""
AUDIO = """{
  "model": "qwen-audio-turbo",
  "messages": [
    {
      "role": "user",
      "content": [
        {"type": "text", "text": "这段音频说了什么？"},
        {"type": "audio_url", "audio_url": {"url": "https://example.com/audio.mp3"}}
      ]
    }
  ]
}"""
SDK = b"""{"model": "qwen-turbo", "messages": [{"role": "user", "content": "Hello!"}]}"""


def is_as_printed(body):
    """id, object, created, model, one choice with index, message and finish_reason, and the three counters."""
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert isinstance(body["created"], int)
    [choice] = body["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    usage = body["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    return choice


async def test_the_first_request_and_the_sdks():
    """The curl example, and the one wire form of the Python and Go examples."""
    async with simulated() as it:
        for body in (HELLO, SDK):
            answered = await it.post(CHAT, body)
            choice = is_as_printed(answered.json)
            assert answered.json["model"] == "qwen-turbo"
            assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello!", "stop")


async def test_every_model_of_the_document_answers_the_message_format():
    """System, user, assistant, user: at each of the four text models."""
    async with simulated() as it:
        for model in ("qwen-turbo", "qwen-plus", "qwen-max", "qwen-long"):
            answered = await it.post(CHAT, {"model": model, **json.loads(FORMAT)})
            assert is_as_printed(answered.json)["message"]["content"] == "后续问题"


async def test_every_parameter_of_the_table_is_taken():
    """max_tokens, temperature, top_p, stream, tools, tool_choice, at the ends of the ranges printed (temperature 2 with --seed-compat)."""
    async with simulated(seed_compat=True) as it:
        for params in (
            {"temperature": 0},
            {"temperature": 2},
            {"top_p": 1},
            {"max_tokens": 10},
            {"stream": False},
            {**json.loads(TOOLS), "tool_choice": "auto"},
        ):
            is_as_printed((await it.post(CHAT, {**json.loads(HELLO), **params})).json)


async def test_the_stream():
    """data: lines with deltas, a finish reason, [DONE]."""
    async with simulated() as it:
        answered = await it.post(CHAT, STREAM.encode())
    choices = [event["choices"][0] for event in answered.events]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "Hello!"
    assert choices[-1]["finish_reason"] == "stop"
    assert answered.raw.endswith(b"data: [DONE]\n\n")
    assert {event["id"].split("-")[0] for event in answered.events} == {"chatcmpl"}


async def test_function_calling():
    """The tool as defined is called with the arguments printed, and its result leads to an answer."""
    async with simulated() as it:
        body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "北京今天天气怎么样？"}], **json.loads(TOOLS)}
        choice = is_as_printed((await it.post(CHAT, body)).json)
        answered = await it.post(CHAT, {"model": "qwen-turbo", **json.loads(RESULT), **json.loads(TOOLS)})
    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]) == ("function", {"name": "get_weather", "arguments": '{"city": "北京"}'})
    assert is_as_printed(answered.json)["finish_reason"] == "stop"


async def test_image_and_audio():
    """The image as printed; the audio as printed with the switch for what the live service refuses, which it is without."""
    async with simulated() as it, simulated(seed_compat=True) as compatible:
        for model in ("qwen-vl-plus", "qwen-vl-max"):
            seen = await it.post(CHAT, {**json.loads(IMAGE), "model": model})
            assert is_as_printed(seen.json)["message"]["content"] == "这张图片是什么？"
        assert is_as_printed((await compatible.post(CHAT, AUDIO.encode())).json)["message"]["content"] == "这段音频说了什么？"
        assert (await it.post(CHAT, AUDIO.encode())).status == 404


async def test_the_native_endpoint():
    """The second address of the document takes the same question in its own form."""
    async with simulated() as it:
        answered = await it.post(TEXT, {"model": "qwen-turbo", "input": {"messages": json.loads(HELLO)["messages"]}})
    assert answered.json["output"]["text"] == "Hello!"


async def test_the_error_codes():
    """400, 401, 403, 429, 500 as the table prints them."""
    faults = [{"kind": "error", "code": code, "contains": code} for code in ("access_denied", "limit_requests", "internal_error")]
    async with simulated(faults=faults) as it:
        statuses = [
            (await it.chat(temperature=3)).status,
            (await it.post(CHAT, HELLO, Authorization="")).status,
            *[(await it.chat(fault["code"])).status for fault in faults],
        ]
    assert statuses == [400, 401, 403, 429, 500]
