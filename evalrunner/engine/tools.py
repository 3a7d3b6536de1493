"""Answers the tool calls of a model, so that the conversation goes on: one more turn, with the calls and their results behind what was said before.

Whatever a model gets wrong (no such function, arguments that are no JSON object) and whatever a tool raises goes back to the model as the tool's result.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from evalrunner.records import Completion, Message, Request, Sample
from evalrunner.scorers.tool_calls import arguments_of

Answer = Callable[[str, Mapping[str, Any], Sample], str | Awaitable[str]]
"""Called as (function's name, arguments, sample). What it raises is told to the model. Text is sent as it is, anything else as JSON."""

_KEEPS_THOUGHTS = "qwen3.8"
"""Models that want the thoughts of earlier turns back, unless `preserve_thinking` says otherwise (Alibaba Model Studio, deep thinking, 2026)."""
_WRITTEN = 500


class ToolAnswers(Struct, frozen=True):
    """What answers the calls of one prompt set, and how many turns a conversation may have."""

    answer: Answer
    max_turns: int

    async def next_turn(self, request: Request, completion: Completion, turn: int) -> Request | None:
        """The request that goes on after `completion`, the answer of turn `turn` (from 1); None where the model has stopped, or must."""
        if not completion.tool_calls or turn >= self.max_turns:
            return None
        calls = [{**call, "id": call["id"] or f"call_{turn}_{number}"} for number, call in enumerate(completion.tool_calls)]
        results = [{"role": "tool", "tool_call_id": call["id"], "content": await self._result(call, request)} for call in calls]
        forced = isinstance(request.tool_choice, dict) or request.tool_choice == "required"  # once: forced in each turn, a model would never stop
        return msgspec.structs.replace(
            request,
            messages=[*request.messages, _said(request, completion, calls), *results],
            tool_choice=None if forced else request.tool_choice,
        )

    async def _result(self, call: Mapping[str, Any], request: Request) -> str:
        names = [tool["function"]["name"] for tool in request.tools or ()]
        if call["name"] not in names:
            return _error(f"no function is called {call['name']!r}; there are: {', '.join(names)}")
        try:
            arguments = arguments_of(call)
        except ValueError as error:
            return _error(f"{error}; you wrote: {call['arguments'][:_WRITTEN]}")
        try:
            result = self.answer(call["name"], arguments, request.sample)
            text = await result if inspect.isawaitable(result) else result
            return text if isinstance(text, str) else msgspec.json.encode(text).decode()
        except Exception as error:  # noqa: BLE001 - other people's code, or a template and what a model wrote: whatever it raises is the result
            return _error(str(error) or type(error).__name__)


def _said(request: Request, completion: Completion, calls: list[dict[str, Any]]) -> Message:
    """The model's own message, as it is sent back."""
    message: Message = {"role": "assistant", "content": completion.output or ""}
    keeps = request.cell.params.get("preserve_thinking")
    if completion.reasoning and (request.cell.model.id.startswith(_KEEPS_THOUGHTS) if keeps is None else keeps):
        message["reasoning_content"] = completion.reasoning
    message["tool_calls"] = [{"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": _sendable(call)}} for call in calls]
    return message


def _sendable(call: Mapping[str, Any]) -> str:
    """The arguments as they were written; `{}` for none, and for what servers would stumble over (the result then quotes it)."""
    try:
        return str(call["arguments"]) if arguments_of(call) else "{}"
    except ValueError:
        return "{}"


def _error(message: str) -> str:
    return msgspec.json.encode({"error": message}).decode()
