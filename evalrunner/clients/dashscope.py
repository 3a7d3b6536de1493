"""DashScope's native dialect: `input` and `parameters`, to the endpoint of the model's family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evalrunner.clients.answer import Answer
from evalrunner.clients.chat import ChatClient, check_options
from evalrunner.clients.dashscope_reader import NativeReader
from evalrunner.clients.endpoint import Endpoint
from evalrunner.clients.media import address, beside, kind_of
from evalrunner.clients.transport import Transport
from evalrunner.clock import Clock
from evalrunner.cost.models import lookup
from evalrunner.errors import PluginError
from evalrunner.plugins import Account
from evalrunner.records import Message, Request

_OPTIONS = {"terminal": ("required", "optional"), "seed_compat": (True, False), "input": ("messages", "prompt")}

_MULTIMODAL = re.compile(r"vl|audio|omni|qvq|ocr|qwen3\.[5-9]|qwen[4-9]")
"""Families of the multimodal endpoint, for ids the catalogue does not know."""


def dashscope_client(account: Account, clock: Clock, transport: Transport | None = None) -> ChatClient:
    """The factory of kind `dashscope`. Options: `input: prompt` sends a user message that stands alone as `input.prompt`."""
    check_options(account, _OPTIONS)
    dialect = NativeDialect(prompt=account.options.get("input") == "prompt")
    endpoint = Endpoint(account, clock, transport)
    return ChatClient(endpoint, clock, lambda _: dialect, terminal_optional=account.options.get("terminal") == "optional")


class NativeDialect:
    """`prompt`: a user message that stands alone is sent as `input.prompt`."""

    def __init__(self, *, prompt: bool = False) -> None:
        self._prompt = prompt

    def url(self, endpoint: Endpoint, request: Request) -> str:
        family = "multimodal" if _multimodal(request) else "text"
        return f"{endpoint.native}/services/aigc/{family}-generation/generation"

    def headers(self, *, stream: bool) -> Mapping[str, str]:
        return {"x-dashscope-sse": "enable"} if stream else {}

    def reader(self, answer: Answer, endpoint: Endpoint, body: Mapping[str, Any]) -> NativeReader:  # noqa: ARG002 - only DashScope speaks it
        return NativeReader(answer, cumulative=not body["parameters"].get("incremental_output"))

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON object for one request. `extra_body` goes among the parameters, where it may replace what is set here: result_format, incremental_output."""
        cell = request.cell
        parameters: dict[str, Any] = {"result_format": "message", **cell.params}
        if cell.stream:
            parameters["incremental_output"] = True
        parameters |= parameters.pop("extra_body", None) or {}
        if request.seed is not None:
            parameters.setdefault("seed", request.seed)
        if request.tools:
            parameters["tools"] = request.tools
            if request.tool_choice is not None:
                parameters["tool_choice"] = request.tool_choice
        return {"model": cell.model.id, "input": self._input(request), "parameters": parameters}

    def _input(self, request: Request) -> dict[str, Any]:
        messages = request.messages
        if self._prompt and len(messages) == 1 and isinstance(messages[0].get("content"), str):
            return {"prompt": messages[0]["content"]}
        listed = _multimodal(request)
        return {"messages": [_wire(message, request, listed=listed) for message in messages]}


def _multimodal(request: Request) -> bool:
    model = request.cell.model.id
    facts = lookup(model)
    if facts is not None:
        return facts.endpoint == "multimodal"
    return bool(_MULTIMODAL.search(model)) or any(kind_of(part) for message in request.messages for part in _parts(message))


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _wire(message: Message, request: Request, *, listed: bool) -> Message:
    """The multimodal endpoint takes lists of parts, but for what a tool said; the text endpoint takes strings."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [_part(part, request) for part in content]}
    if listed and message.get("role") != "tool":
        return {**message, "content": [{"text": content}] if content else []}
    return message


def _part(part: Any, request: Request) -> Any:
    if isinstance(part, str):
        return {"text": part}
    if not isinstance(part, dict):
        raise PluginError(f"a message part is text or a mapping, not {part!r:.50}")
    kind = kind_of(part)
    return part if kind is None else {kind: address(part, kind, request.media), **beside(part)}
