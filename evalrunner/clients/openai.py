"""The OpenAI dialect: chat completions, streamed or not, as DashScope's compatible mode, vLLM, llama.cpp and OpenAI itself speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from evalrunner.clients.answer import Answer
from evalrunner.clients.chat import ChatClient, Dialect, check_options
from evalrunner.clients.dashscope import NativeDialect
from evalrunner.clients.endpoint import Endpoint
from evalrunner.clients.media import address, beside, kind_of
from evalrunner.clients.openai_reader import ChatReader
from evalrunner.clients.transport import Transport
from evalrunner.clock import Clock
from evalrunner.cost.models import native_only
from evalrunner.errors import PluginError
from evalrunner.plugins import Account
from evalrunner.records import Message, Model, Request

_OPTIONS = {"terminal": ("required", "optional"), "seed_compat": (True, False)}


def openai_client(account: Account, clock: Clock, transport: Transport | None = None) -> ChatClient:
    """The factory of kinds `openai`, `local` and `simulator`. Options of `openai`: `terminal: optional` accepts answers without a finish reason or [DONE];
    `seed_compat` asks Qwen-Audio here too. On DashScope a model that has only the native dialect is asked natively.
    """
    options = account.options
    if account.kind == "openai":
        check_options(account, _OPTIONS)
    endpoint = Endpoint(account, clock, transport)
    seed_compat = options.get("seed_compat") is True
    compatible: Dialect = OpenAIDialect(dashscope=endpoint.dashscope, seed_compat=seed_compat)
    native: Dialect = NativeDialect(prompt=options.get("input") == "prompt")

    def dialect_of(model: Model) -> Dialect:
        if account.kind == "simulator" and options.get("dialect") == "native":
            return native
        return native if endpoint.both and not seed_compat and native_only(model.id) else compatible

    return ChatClient(endpoint, clock, dialect_of, terminal_optional=options.get("terminal") == "optional")


class OpenAIDialect:
    """`dashscope`: the service behind it is DashScope, whose forms of media differ a little; `seed_compat`: audio goes to Qwen-Audio as `audio_url`."""

    def __init__(self, *, dashscope: bool = False, seed_compat: bool = False) -> None:
        self._dashscope = dashscope
        self._seed_compat = seed_compat

    def url(self, endpoint: Endpoint, request: Request) -> str:  # noqa: ARG002 - every model has the same
        return f"{endpoint.compatible}/chat/completions"

    def headers(self, *, stream: bool) -> Mapping[str, str]:  # noqa: ARG002 - the body says it
        return {}

    def reader(self, answer: Answer, endpoint: Endpoint, body: Mapping[str, Any]) -> ChatReader:  # noqa: ARG002 - every answer reads alike
        return ChatReader(answer, dashscope=endpoint.dashscope)

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON object for one request: parameters at the top level, those under `extra_body` too, as in the official SDK's wire form."""
        cell = request.cell
        body: dict[str, Any] = {"model": cell.model.id, "messages": [self._wire(message, request) for message in request.messages], **cell.params}
        body |= body.pop("extra_body", None) or {}
        if request.seed is not None:
            body.setdefault("seed", request.seed)
        if request.tools:
            body["tools"] = request.tools
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice
        if cell.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True, **(body.get("stream_options") or {})}
        return body

    def _wire(self, message: Message, request: Request) -> Message:
        content = message.get("content")
        return message if not isinstance(content, list) else {**message, "content": [self._part(part, request) for part in content]}

    def _part(self, part: Any, request: Request) -> Any:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        if not isinstance(part, dict):
            raise PluginError(f"a message part is text or a mapping, not {part!r:.50}")
        if "type" in part:
            return part  # wire form already: a plug-in's own
        if "text" in part:
            return {"type": "text", **part}
        kind = kind_of(part)
        if kind is None:
            raise PluginError(f"a message part is one of text, image, audio, not {', '.join(part)}")
        url = address(part, kind, request.media)
        if kind == "image":
            return {"type": "image_url", "image_url": {"url": url}, **beside(part)}
        if self._seed_compat and native_only(request.cell.model.id):
            return {"type": "audio_url", "audio_url": {"url": url}, **beside(part)}
        return {"type": "input_audio", "input_audio": self._input_audio(url), **beside(part)}

    def _input_audio(self, url: str) -> dict[str, str]:
        """DashScope wants `data:;base64,…` where others want the base64 alone."""
        head, _, encoded = url.partition(";base64,")
        if not url.startswith("data:"):
            return {"data": url, "format": _ending(url)}
        form = head.rpartition("/")[2].removeprefix("x-")
        return {"data": f"data:;base64,{encoded}" if self._dashscope else encoded, "format": {"mpeg": "mp3", "mp4": "m4a"}.get(form, form)}


def _ending(url: str) -> str:
    name = urlsplit(url).path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else "wav"
