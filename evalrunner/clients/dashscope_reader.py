"""Bytes of DashScope's native dialect into an `Answer`: both result formats, incremental and cumulative events. Pure."""

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
    tool_calls: list[ToolCall] | None = None


class _Choice(Struct):
    message: _Message | None = None
    finish_reason: str | None = None


class _Output(Struct):
    """`choices` with result_format message, `text` and `finish_reason` with result_format text."""

    choices: list[_Choice] | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Event(Struct):
    """A whole body or one event of a stream; a `code` is an error, whatever the status says."""

    output: _Output | None = None
    usage: dict[str, Any] | None = None
    request_id: Any = None
    code: Any = None


_DECODER = msgspec.json.Decoder(_Event)


class NativeReader(Reader[_Event]):
    """`cumulative`: every event of the stream repeats what came before it (`incremental_output: false`)."""

    def __init__(self, answer: Answer, *, cumulative: bool = False) -> None:
        super().__init__(answer, _DECODER, dashscope=True)
        self._cumulative = cumulative
        self._arguments: dict[int, str] = {}

    def _take(self, said: _Event, event: Event) -> None:
        answer = self.answer
        if said.request_id and answer.response_id is None:
            answer.response_id = str(said.request_id)
        if event.name == b"error" or said.code:
            self._fail(event)
        before = answer.first_output_ns is None
        if (output := said.output) is not None:
            choice = output.choices[0] if output.choices else _Choice(_Message(output.text), output.finish_reason)
            if choice.finish_reason and choice.finish_reason != "null":
                answer.finish_reason = choice.finish_reason
            if choice.message is not None:
                self._output(choice.message)
        if said.usage:
            self._count(_usage(said.usage), before=before)

    def _output(self, message: _Message) -> None:
        content = self._grown(self.answer.text, text_of(message.content))
        thought = self._grown(self.answer.reasoning, message.reasoning_content or "")
        for place, call in enumerate(message.tool_calls or ()):
            function = call.function or Function()
            arguments = function.arguments
            if self._cumulative and isinstance(arguments, str):
                index = place if call.index is None else call.index
                known = self._arguments.get(index)
                self._arguments[index] = arguments
                arguments = arguments.removeprefix(known or "")
                self.answer.tool(index, call.id, function.name, arguments)
                content |= known is None or arguments != ""
            else:
                content |= self.answer.tool(call.index, call.id, function.name, arguments)
        if content or thought:
            self.answer.mark(self._stamp_ns, content=content)

    def _grown(self, pieces: list[str], said: str) -> bool:
        """Add what an event said to the pieces there are; false if it was nothing new."""
        if not said or (self._cumulative and pieces == [said]):
            return False
        if self._cumulative:
            pieces.clear()
        pieces.append(said)
        return True


def _usage(said: dict[str, Any]) -> Usage:
    """The multimodal endpoint leaves out the total, and either endpoint may count cached tokens under either name of the prompt's details."""
    prompt, answer = count(said, "input_tokens"), count(said, "output_tokens")
    total = count(said, "total_tokens")
    details = {**_mapping(said.get("input_tokens_details")), **_mapping(said.get("prompt_tokens_details"))}
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=answer,
        total_tokens=prompt + answer if total is None and prompt is not None and answer is not None else total,
        reasoning_tokens=count(said.get("output_tokens_details"), "reasoning_tokens"),
        cached_tokens=count(details, "cached_tokens"),
        cache_write_tokens=count(details, "cache_creation_input_tokens"),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
