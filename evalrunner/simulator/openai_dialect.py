"""The OpenAI-compatible mode on the wire: bodies, stream events, errors."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from msgspec import json

from evalrunner.cost.models import ModelFacts
from evalrunner.cost.tokens import thinks
from evalrunner.simulator.calls import Call, Choice, Refusal, Reply
from evalrunner.simulator.chance import unit
from evalrunner.simulator.streams import Frame, pieces

DONE = b"data: [DONE]\n\n"
_NOT_PARAMS = {"model", "messages", "stream"}
_SILENCE = base64.b64encode(bytes(4_800)).decode()  # 0.1 s of PCM at 24 kHz


def read(body: Mapping[str, Any], facts: ModelFacts, headers: Mapping[str, str]) -> Call:  # noqa: ARG001 - both dialects are read alike
    """The call in a body whose schema was checked."""
    params = {name: value for name, value in body.items() if name not in _NOT_PARAMS and value is not None}
    thinking = thinks(facts.thinking, params.get("enable_thinking")) and params.get("reasoning_effort") != "none"
    return Call(
        dialect="openai", model=body["model"], facts=facts, messages=body["messages"], params=params, stream=body.get("stream") is True, thinking=thinking
    )


def messages_of(body: Mapping[str, Any]) -> Any:
    return body.get("messages")


def params_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return body


def wants_stream(body: Mapping[str, Any], headers: Mapping[str, str]) -> bool:  # noqa: ARG001 - as above
    return body.get("stream") is True


def refused(refusal: Refusal, request_id: str, *, stream: bool) -> tuple[bytes, str]:
    """(body, content type). A stream that is refused for its parameters gets the text of an event, under the refusal's status."""
    body = error_body(refusal, request_id)
    if stream and refusal.status == 400:
        return b"data: " + body + b"\n\n", "text/event-stream;charset=UTF-8"
    return body, "application/json"


def error_body(refusal: Refusal, request_id: str) -> bytes:
    error = {"code": refusal.code, "param": refusal.param, "message": refusal.message, "type": refusal.type}
    return json.encode({"error": error, "id": f"chatcmpl-{request_id}", "request_id": request_id})


def error_frame(refusal: Refusal, request_id: str) -> bytes:
    return b"data: " + error_body(refusal, request_id) + b"\n\n"


def whole(call: Call, reply: Reply, *, usage: bool = True) -> bytes:
    """The body of an answer that is not streamed."""
    choices = []
    for index, choice in enumerate(reply.choices):
        message: dict[str, Any] = {"role": "assistant", "content": choice.text}
        if call.thinking:
            message["reasoning_content"] = choice.reasoning
        if choice.tool_calls:
            message["tool_calls"] = [
                {"id": one.id, "type": "function", "index": place, "function": {"name": one.name, "arguments": one.arguments}}
                for place, one in enumerate(choice.tool_calls)
            ]
        choices.append({"message": message, "finish_reason": choice.finish_reason, "index": index, "logprobs": _logprobs(call, choice)})
    body = {"choices": choices, "object": "chat.completion", **({"usage": usage_of(reply)} if usage else {}), **_envelope(call, reply)}
    return json.encode(body)


def frames(call: Call, reply: Reply, chunk_tokens: int, *, usage: bool = True) -> list[Frame]:
    """The stream: a chunk with the role alone, output chunks, the finish chunk, usage only if it was asked for, and [DONE]."""
    found: list[Frame] = []
    for index, choice in enumerate(reply.choices):
        found += _choice_frames(call, reply, choice, index, chunk_tokens)
    found.sort(key=lambda frame: frame.token)
    last = found[-1].token if found else 0
    if usage and (call.params.get("stream_options") or {}).get("include_usage"):
        chunk = {"choices": [], "object": "chat.completion.chunk", "usage": usage_of(reply), **_envelope(call, reply)}
        found.append(Frame(last, b"data: " + json.encode(chunk) + b"\n\n", output=False))
    return [*found, Frame(last, DONE, output=False)]


def _choice_frames(call: Call, reply: Reply, choice: Choice, index: int, chunk_tokens: int) -> list[Frame]:
    tail = json.encode({"object": "chat.completion.chunk", "usage": None, **_envelope(call, reply)})[1:]
    found: list[Frame] = []
    token = 0

    def send(delta: dict[str, Any], tokens: int = 0, finish: str | None = None) -> None:
        nonlocal token
        token += tokens
        head = json.encode({"delta": delta, "index": index, "logprobs": None, "finish_reason": finish})
        found.append(Frame(token, b'data: {"choices":[' + head + b"]," + tail + b"\n\n", tokens > 0))

    send({"content": None, "role": "assistant", "reasoning_content": ""} if call.thinking else {"content": "", "role": "assistant"})
    for text, tokens in pieces(choice.reasoning, chunk_tokens):
        send({"content": None, "reasoning_content": text}, tokens)
    aloud = "audio" in (call.params.get("modalities") or ()) and "audio" in call.facts.outputs
    for text, tokens in pieces(choice.text, chunk_tokens):
        if aloud:
            send({"audio": {"transcript": text}}, tokens)
            send({"audio": {"data": _SILENCE, "id": f"audio_{reply.id}", "expires_at": reply.created + 86_400}})
        else:
            send({"content": text, "reasoning_content": None} if call.thinking else {"content": text}, tokens)
    for place, one in enumerate(choice.tool_calls):
        send({"tool_calls": [{"index": place, "id": one.id, "type": "function", "function": {"name": one.name, "arguments": ""}}], "content": None}, 1)
        for text, tokens in pieces(one.arguments, chunk_tokens):
            # Later pieces have an empty id and no name: clients that take these at their word lose the first ones.
            send({"tool_calls": [{"index": place, "id": "", "type": "function", "function": {"name": None, "arguments": text}}], "content": None}, tokens)
    if choice.finish_reason is not None:
        send({"content": "", "reasoning_content": None} if call.thinking else {"content": ""}, finish=choice.finish_reason)
    return found


def usage_of(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    details: dict[str, Any] = {"cached_tokens": tokens.cached}
    if tokens.media:
        details |= {f"{kind}_tokens": count for kind, count in tokens.media.items()}
        details["text_tokens"] = tokens.prompt - sum(tokens.media.values())
    if tokens.written or tokens.explicit:
        details |= {"cache_creation_input_tokens": tokens.written, "cache_creation": {"ephemeral_5m_input_tokens": tokens.written}, "cache_type": "ephemeral"}
    usage: dict[str, Any] = {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": details,
    }
    if tokens.reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": tokens.reasoning, "text_tokens": tokens.completion}
    return usage


def _envelope(call: Call, reply: Reply) -> dict[str, Any]:
    return {"created": reply.created, "system_fingerprint": None, "model": call.model, "id": f"chatcmpl-{reply.id}"}


def _logprobs(call: Call, choice: Choice) -> dict[str, Any] | None:
    """Made up, but the same each time: a chosen token is likely, each alternative half as likely as the one before."""
    if not call.params.get("logprobs"):
        return None
    content = []
    for text, _ in pieces(choice.text, 1):
        chosen = -unit(call.model, text)
        others = [{"token": text if not rank else f"{text}~{rank}", "logprob": chosen - 0.693 * rank} for rank in range(call.params.get("top_logprobs") or 0)]
        content.append({"token": text, "bytes": list(text.encode()), "logprob": chosen, "top_logprobs": [{**one, "bytes": None} for one in others]})
    return {"content": content}
