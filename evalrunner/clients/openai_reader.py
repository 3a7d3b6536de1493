"""Bytes of the OpenAI dialect into an `Answer`: pure, so that every way of cutting a stream can be tried without a network.

msgspec decodes just the fields that are used. What it refuses (lone surrogates, NaN, broken UTF-8) goes a slower, lenient way, so that an answer that
was paid for is never lost to one bad character.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from evalrunner.clients.answer import Answer
from evalrunner.clients.failures import in_band
from evalrunner.clients.sse import BOM, Event, Parser
from evalrunner.errors import BadOutputError
from evalrunner.records import Usage


class _Function(Struct):
    name: str | None = None
    arguments: Any = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Message(Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
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


class ChatReader:
    """Reads the bytes of one answer into an `Answer`. Pure: feed it reads, streamed or whole."""

    def __init__(self, answer: Answer, *, dashscope: bool) -> None:
        self.answer = answer
        self.done = False
        self._dashscope = dashscope
        self._parser = Parser()
        self._stamp_ns = answer.started_ns

    @property
    def complete(self) -> bool:
        """A finish reason or [DONE] has come: nothing that happens to the connection from here on can harm the answer."""
        return self.done or self.answer.finish_reason is not None

    def feed(self, stamp_ns: int, data: bytes) -> None:
        """One read of a stream. Raises what an error inside the stream says, `BadOutputError` for an event that is not JSON."""
        self._stamp_ns = stamp_ns
        for event in self._parser.feed(data):
            self._event(event)

    def close(self) -> None:
        """The stream has ended; what it left without a blank line counts if it can be read."""
        for event in self._parser.close():
            self._event(event)
        if self.answer.ended_ns is None:
            self.answer.ended_ns = self._stamp_ns

    def whole(self, stamp_ns: int, body: bytes) -> None:
        """The body of an answer that is not streamed, whether one was asked for or not."""
        self.answer.stream = False
        self._stamp_ns = self.answer.ended_ns = stamp_ns
        self._take(self._decode(body.removeprefix(BOM)), body)

    def _event(self, event: Event) -> None:
        data = event.data
        if not data or self.done or event.name == b"ping":
            return
        self.answer.last_data_ns = self._stamp_ns
        if data == b"[DONE]":
            self.done = True
            self.answer.ended_ns = self._stamp_ns
            return
        try:
            chunk = self._decode(data)
        except BadOutputError:
            if event.cut or self.complete:
                return  # the connection was lost inside this event, or only the usage after the answer is
            raise
        self._take(chunk, data, failed=event.name == b"error")

    def _decode(self, data: bytes) -> _Chunk:
        try:
            return _DECODER.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        try:
            chunk = msgspec.convert(json.loads(data.decode("utf-8", "replace")), _Chunk, strict=False)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadOutputError(f"the answer cannot be read: {error}", raw=data) from None
        self.answer.unreadable.append(data)
        return chunk

    def _take(self, chunk: _Chunk, data: bytes, *, failed: bool = False) -> None:
        """Add what one event (or the whole body) says to the answer."""
        answer = self.answer
        if failed or chunk.error or (chunk.code and not chunk.choices):
            raise in_band(json.loads(data.decode("utf-8-sig", "replace")), dashscope=self._dashscope)
        if answer.response_id is None and chunk.id:
            answer.response_id = str(chunk.id)
        if answer.response_model is None and chunk.model:
            answer.response_model = str(chunk.model)
        usage = None
        if chunk.usage:
            usage = answer.usage = _usage(chunk.usage)
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        if choice.finish_reason and choice.finish_reason != "null":
            answer.finish_reason = choice.finish_reason
        message = choice.delta or choice.message
        if message is not None:
            first = answer.first_output_ns is None
            self._output(message)
            if first and usage is not None and answer.first_output_ns is not None:
                answer.first_output_tokens = usage.completion_tokens

    def _output(self, message: _Message) -> None:
        answer = self.answer
        content = thought = False
        if text := message.content:
            if isinstance(text, list):
                text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
            answer.text.append(text)
            content = text != ""
        if text := message.reasoning_content or (message.reasoning if isinstance(message.reasoning, str) else None):
            answer.reasoning.append(text)
            thought = True
        if message.refusal:
            answer.refusal.append(message.refusal)
            content = True
        if message.audio and isinstance(message.audio, dict):
            answer.text.append(str(message.audio.get("transcript") or ""))
            content = True
        for call in message.tool_calls or ():
            function = call.function or _Function()
            content |= answer.tool(call.index, call.id, function.name, function.arguments)
        if content or thought:
            answer.mark(self._stamp_ns, content=content)


def _usage(said: dict[str, Any]) -> Usage:
    """Counters as the provider says them; a missing or odd one is None, never 0."""
    prompt = said.get("prompt_tokens_details") or {}
    answer = said.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=_count(said, "prompt_tokens"),
        completion_tokens=_count(said, "completion_tokens"),
        total_tokens=_count(said, "total_tokens"),
        reasoning_tokens=_count(answer, "reasoning_tokens"),
        cached_tokens=_count(prompt, "cached_tokens"),
        cache_write_tokens=_count(prompt, "cache_creation_input_tokens"),
    )


def _count(said: Any, name: str) -> int | None:
    value = said.get(name) if isinstance(said, dict) else None
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15 else None
