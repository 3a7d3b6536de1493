"""The OpenAI dialect: chat completions, streamed or not, as DashScope's compatible mode, vLLM, llama.cpp and OpenAI itself speak it.

Request -> request_body -> Endpoint.post -> reads -> sse.Parser -> ChatReader -> Answer -> Completion
"""

from __future__ import annotations

from typing import Any

import msgspec

from evalrunner.clients.answer import Answer
from evalrunner.clients.endpoint import Endpoint
from evalrunner.clients.openai_reader import ChatReader
from evalrunner.clients.transport import Reply, Transport
from evalrunner.clock import Clock
from evalrunner.errors import BrokenStreamError, EndpointError, PluginError, RequestError, TransportError
from evalrunner.plugins import Account
from evalrunner.records import Completion, Message, Request

_OPTIONS = {"terminal": ("required", "optional"), "seed_compat": (True, False)}
_PATH = "/chat/completions"


class OpenAIClient:
    """Sends one request and reads one answer (see `plugins.Client`). Raises what `clients.failures` makes of everything else."""

    def __init__(self, account: Account, clock: Clock, transport: Transport | None = None) -> None:
        if account.kind == "openai":
            _check_options(account)
        self._clock = clock
        self._endpoint = Endpoint(account, clock, transport)
        self._terminal_optional = account.options.get("terminal") == "optional"

    async def complete(self, request: Request) -> Completion:
        stream = request.cell.stream
        body = msgspec.json.encode(request_body(request))
        answer = Answer(self._clock.now_ns(), stream=stream)
        try:
            async with self._endpoint.post(_PATH, body, stream=stream, progress=answer) as reply:
                if not 200 <= reply.status < 300:
                    await self._endpoint.refuse(reply)
                answer.http_status = reply.status
                await self._read(reply, answer)
            return answer.completion(self._clock.now_ns())
        except (RequestError, EndpointError) as error:
            _tell(error, answer, self._clock.now_ns())
            raise

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def _read(self, reply: Reply, answer: Answer) -> None:
        reader = ChatReader(answer, dashscope=self._endpoint.dashscope)
        form = reply.headers.get("content-type", "")
        if "event-stream" in form or (answer.stream and "json" not in form):  # some gateways give one where the other was asked for
            await _stream(reply, reader)
            broken = not reader.complete
        else:
            await _whole(reply, reader)
            partial = reply.headers.get("x-dashscope-partialresponse") == "true"  # DashScope's time was up
            broken = partial or (answer.finish_reason is None and not answer.empty)
        if broken and not self._terminal_optional:
            raise BrokenStreamError("the answer ended without a finish reason", phase="stream" if answer.stream else "body")


def openai_client(account: Account, clock: Clock) -> OpenAIClient:
    """The factory of kinds `openai`, `local` and `simulator`. Options of `openai`: `terminal: optional` accepts answers without a finish reason or [DONE]."""
    return OpenAIClient(account, clock)


async def _stream(reply: Reply, reader: ChatReader) -> None:
    try:
        while not reader.done and (reads := await reply.reads()):
            for stamp_ns, data in reads:
                reader.feed(stamp_ns, data)
        reader.close()
    except TransportError as error:
        if not reader.complete:
            raise BrokenStreamError(f"the stream was cut: {error.message}", phase="stream") from error


async def _whole(reply: Reply, reader: ChatReader) -> None:
    pieces = []
    stamp_ns = reader.answer.started_ns
    try:
        while reads := await reply.reads():
            pieces += [read.data for read in reads]
            stamp_ns = reads[-1].stamp_ns
    except TransportError as error:
        error.raw = b"".join(pieces) or None
        raise
    reader.whole(stamp_ns, b"".join(pieces))


def request_body(request: Request) -> dict[str, Any]:
    """The JSON object for one request: parameters at the top level, those under `extra_body` too, as in the official SDK's wire form."""
    cell = request.cell
    body: dict[str, Any] = {"model": cell.model.id, "messages": [_wire(message) for message in request.messages], **cell.params}
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


def _wire(message: Message) -> Message:
    content = message.get("content")
    return message if not isinstance(content, list) else {**message, "content": [_part(part) for part in content]}


def _part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise PluginError(f"a message part is text or a mapping, not {part!r:.50}")
    if "type" in part:
        return part  # wire form already: a conversation out of the data
    if "text" in part:
        return {"type": "text", **part}
    raise PluginError(f"message parts of kind {', '.join(part)!r} are not available yet; text is")


def _tell(error: RequestError | EndpointError, answer: Answer, now_ns: int) -> None:
    """Give an error what is known of the attempt it ends."""
    error.timing = answer.timing(now_ns)
    error.usage = error.usage or answer.usage
    error.response_id = error.response_id or answer.response_id
    if error.http_status is None:
        error.http_status = answer.http_status


def _check_options(account: Account) -> None:
    for name, value in account.options.items():
        if name not in _OPTIONS:
            raise PluginError(f"provider {account.name}: kind openai has no option {name!r} (known: {', '.join(_OPTIONS)})")
        if value not in _OPTIONS[name]:
            raise PluginError(f"provider {account.name}: option {name} is one of {_OPTIONS[name]}, not {value!r}")
