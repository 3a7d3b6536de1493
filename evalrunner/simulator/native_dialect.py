"""The native DashScope mode on the wire: `input` and `parameters`, cumulative or incremental events, flat errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import json

from evalrunner.cost.models import ModelFacts
from evalrunner.cost.tokens import thinks
from evalrunner.simulator.calls import Call, Choice, Refusal, Reply
from evalrunner.simulator.streams import Frame, pieces

_MESSAGE_BY_DEFAULT = ("qwen3-max", "qwen3-vl", "qwq", "qwen3-235b", "qwen3-32b", "qwen3-30b", "qwen3-14b", "qwen3-8b")


def read(body: Mapping[str, Any], facts: ModelFacts, headers: Mapping[str, str]) -> Call:
    """The call in a body whose schema was checked."""
    given = params_of(body)
    params = {name: value for name, value in given.items() if value is not None}
    thinking = thinks(facts.thinking, params.get("enable_thinking")) and params.get("reasoning_effort") != "none"
    usual = "message" if body["model"].startswith(_MESSAGE_BY_DEFAULT) else "text"
    return Call(
        dialect="native",
        model=body["model"],
        facts=facts,
        messages=messages_of(body),
        params=params,
        stream=wants_stream(body, headers),
        thinking=thinking,
        cumulative=not params.get("incremental_output", False),
        plain=facts.endpoint == "text" and params.get("result_format", usual) == "text",
    )


def messages_of(body: Mapping[str, Any]) -> Any:
    given = body.get("input")
    if not isinstance(given, dict):
        return None
    if isinstance(prompt := given.get("prompt"), str) and not given.get("messages"):
        return [{"role": "user", "content": prompt}]
    return given.get("messages")


def params_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    given = body.get("parameters")
    return given if isinstance(given, dict) else {}


def wants_stream(body: Mapping[str, Any], headers: Mapping[str, str]) -> bool:  # noqa: ARG001 - both dialects are asked alike
    return headers.get("X-DashScope-SSE", "").lower() == "enable"


def refused(refusal: Refusal, request_id: str, *, stream: bool) -> tuple[bytes, str]:
    """(body, content type). A refused stream is one error event, under the refusal's status."""
    if stream:
        return error_frame(refusal, request_id), "text/event-stream;charset=UTF-8"
    return error_body(refusal, request_id), "application/json"


def error_body(refusal: Refusal, request_id: str) -> bytes:
    message = "Invalid API-key provided." if refusal.code == "invalid_api_key" else refusal.message
    return json.encode({"code": refusal.native, "message": message, "request_id": request_id})


def error_frame(refusal: Refusal, request_id: str) -> bytes:
    return _event(1, error_body(refusal, request_id), name="error", status=refusal.status)


def whole(call: Call, reply: Reply, *, usage: bool = True) -> bytes:
    """The body of an answer that is not streamed."""
    if call.plain:
        first = reply.choices[0] if reply.choices else None
        output: dict[str, Any] = {"finish_reason": first.finish_reason, "text": first.text} if first else {}
    else:
        output = {"choices": [_choice(call, choice.text, choice.reasoning, choice.finish_reason) for choice in reply.choices]}
        for one, choice in zip(output["choices"], reply.choices, strict=True):
            if choice.tool_calls:
                one["message"]["tool_calls"] = _tool_calls(choice)
    return json.encode({"output": output, **({"usage": usage_of(reply)} if usage else {}), "request_id": reply.id})


def frames(call: Call, reply: Reply, chunk_tokens: int, *, usage: bool = True) -> list[Frame]:
    """The stream: usage grows with every event, the finish reason is the string "null" until the last, and there is no [DONE]."""
    stream = _Stream(call, reply, usage=usage)
    for choice in reply.choices[:1]:
        for text, tokens in pieces(choice.reasoning, chunk_tokens):
            stream.send("", text, tokens)
        for text, tokens in pieces(choice.text, chunk_tokens):
            stream.send(text, "", tokens)
        for place, one in enumerate(choice.tool_calls):
            stream.send("", "", 1, {"index": place, "id": one.id, "type": "function", "function": {"name": one.name, "arguments": ""}})
            for text, tokens in pieces(one.arguments, chunk_tokens):
                stream.send("", "", tokens, {"index": place, "id": "" if not call.cumulative else one.id, "function": {"arguments": text}, "type": "function"})
        if choice.finish_reason is not None:
            stream.finish(choice.finish_reason)
    return stream.frames


class _Stream:
    """Builds the events of one choice; remembers what was said, for cumulative output."""

    def __init__(self, call: Call, reply: Reply, *, usage: bool) -> None:
        self._call, self._reply, self._usage = call, reply, usage
        self._text, self._reasoning, self._tokens = "", "", 0
        self._calls: dict[int, dict[str, Any]] = {}
        self.frames: list[Frame] = []

    def send(self, text: str, reasoning: str, tokens: int, tool_call: dict[str, Any] | None = None) -> None:
        self._text, self._reasoning, self._tokens = self._text + text, self._reasoning + reasoning, self._tokens + tokens
        if tool_call:
            known = self._calls.setdefault(tool_call["index"], {**tool_call, "function": {**tool_call["function"], "arguments": ""}})
            known["function"]["arguments"] += tool_call["function"]["arguments"]
        if self._call.cumulative:
            self._event(self._text, self._reasoning, "null", list(self._calls.values()))
        else:
            self._event(text, reasoning, "null", [tool_call] if tool_call else [])

    def finish(self, reason: str) -> None:
        self._tokens = self._reply.tokens.completion
        if self._call.cumulative:
            self._event(self._text, self._reasoning, reason, list(self._calls.values()), output=False)
        else:
            self._event("", "", reason, [], output=False)

    def _event(self, text: str, reasoning: str, finish: str, tool_calls: list[dict[str, Any]], *, output: bool = True) -> None:
        call, token = self._call, self.frames[-1].token if self.frames and not output else self._tokens
        if call.plain:
            said: dict[str, Any] = {"finish_reason": finish, "text": text}
        else:
            said = {"choices": [_choice(call, text, reasoning, finish)]}
            if tool_calls:
                said["choices"][0]["message"]["tool_calls"] = tool_calls
        body: dict[str, Any] = {"output": said}
        if self._usage:
            body["usage"] = usage_of(self._reply, min(self._tokens, self._reply.tokens.completion))
        body["request_id"] = self._reply.id
        self.frames.append(Frame(token, _event(len(self.frames) + 1, json.encode(body)), output))


def usage_of(reply: Reply, output_tokens: int | None = None) -> dict[str, Any]:
    tokens = reply.tokens
    output = tokens.completion if output_tokens is None else output_tokens
    usage: dict[str, Any] = {"input_tokens": tokens.prompt, "output_tokens": output, "total_tokens": tokens.prompt + output}
    usage |= {f"{kind}_tokens": count for kind, count in tokens.media.items()}
    if tokens.media:
        usage["input_tokens_details"] = {"text_tokens": tokens.prompt - sum(tokens.media.values())}
    if tokens.reasoning:
        usage["output_tokens_details"] = {"reasoning_tokens": min(tokens.reasoning, output), "text_tokens": output}
    usage["prompt_tokens_details"] = {"cached_tokens": tokens.cached}
    if tokens.written or tokens.explicit:
        usage["prompt_tokens_details"] |= {"cache_creation_input_tokens": tokens.written, "cache_type": "ephemeral"}
    return usage


def _choice(call: Call, text: str, reasoning: str, finish: str | None) -> dict[str, Any]:
    content: Any = ([{"text": text}] if text else []) if call.facts.endpoint == "multimodal" else text
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if call.thinking:
        message["reasoning_content"] = reasoning
    return {"finish_reason": finish, "message": message}


def _tool_calls(choice: Choice) -> list[dict[str, Any]]:
    return [
        {"index": place, "id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for place, one in enumerate(choice.tool_calls)
    ]


def _event(number: int, data: bytes, name: str = "result", status: int = 200) -> bytes:
    return b"id:%d\nevent:%b\n:HTTP_STATUS/%d\ndata:%b\n\n" % (number, name.encode(), status, data)
