"""Bytes of the OpenAI dialect into an `Answer`: pure, so that every way of cutting a stream can be tried without a network."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from evalrunner.clients.answer import Answer
from evalrunner.clients.reader import Function, Reader, ToolCall, count, text_of
from evalrunner.clients.sse import Event
from evalrunner.records import Usage


class _Message(Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    audio: Any = None


class _Choice(Struct):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    """A whole body or one event of a stream. `error`, `code` and `message` appear where the answer is none."""

    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    id: Any = None
    model: Any = None
    error: Any = None
    code: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)


class ChatReader(Reader[_Chunk]):
    """Reads chat completions and their chunks."""

    def __init__(self, answer: Answer, *, dashscope: bool) -> None:
        super().__init__(answer, _DECODER, dashscope=dashscope)

    def _take(self, said: _Chunk, event: Event) -> None:
        answer = self.answer
        if event.name == b"error" or said.error or (said.code and not said.choices):
            self._fail(event)
        if answer.response_id is None and said.id:
            answer.response_id = str(said.id)
        if answer.response_model is None and said.model:
            answer.response_model = str(said.model)
        before = answer.first_output_ns is None and bool(said.choices)
        if said.choices:
            choice = said.choices[0]
            if choice.finish_reason and choice.finish_reason != "null":
                answer.finish_reason = choice.finish_reason
            if (message := choice.delta or choice.message) is not None:
                self._output(message)
        if said.usage:
            self._count(_usage(said.usage), before=before)

    def _output(self, message: _Message) -> None:
        answer = self.answer
        content = thought = False
        if text := text_of(message.content):
            answer.text.append(text)
            content = True
        if text := message.reasoning_content or (message.reasoning if isinstance(message.reasoning, str) else ""):
            answer.reasoning.append(text)
            thought = True
        if message.refusal:
            answer.refusal.append(message.refusal)
            content = True
        if message.audio and isinstance(message.audio, dict):
            answer.text.append(str(message.audio.get("transcript") or ""))
            content = True
        for call in message.tool_calls or ():
            function = call.function or Function()
            content |= answer.tool(call.index, call.id, function.name, function.arguments)
        if content or thought:
            answer.mark(self._stamp_ns, content=content)


def _usage(said: dict[str, Any]) -> Usage:
    prompt = said.get("prompt_tokens_details") or {}
    answer = said.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=count(said, "prompt_tokens"),
        completion_tokens=count(said, "completion_tokens"),
        total_tokens=count(said, "total_tokens"),
        reasoning_tokens=count(answer, "reasoning_tokens"),
        cached_tokens=count(prompt, "cached_tokens"),
        cache_write_tokens=count(prompt, "cache_creation_input_tokens"),
    )
