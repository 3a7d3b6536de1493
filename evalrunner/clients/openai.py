"""The OpenAI dialect: chat completions, streamed or not, as DashScope's compatible mode, vLLM, llama.cpp and OpenAI itself speak it.

    request -> body -> Endpoint.post -> reads -> sse.Parser -> ChatReader -> Answer -> Completion

Everything between the reads and the completion is pure. Bodies and events are decoded by msgspec into just the fields that are used; what it refuses
(lone surrogates, NaN, broken UTF-8) goes a slower, lenient way, so that an answer that was paid for is never lost to one bad character.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from evalrunner.clients.answer import Answer
from evalrunner.clients.endpoint import Endpoint
from evalrunner.clients.failures import in_band
from evalrunner.clients.sse import BOM, Event, Parser
from evalrunner.clients.transport import Reply, Transport
from evalrunner.clock import Clock
from evalrunner.errors import BadOutputError, BrokenStreamError, EndpointError, PluginError, RequestError, TransportError
from evalrunner.plugins import Account
from evalrunner.records import Completion, Message, Request, Usage

_OPTIONS = {"terminal": ("required", "optional"), "seed_compat": (True, False)}
_PATH = "/chat/completions"


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
        """The body of an answer that is not streamed."""
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
            if event.cut:
                return  # the connection was lost inside this event: a broken stream, not a bad answer
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
        if answer.stream and "json" not in reply.headers.get("content-type", ""):
            await _stream(reply, reader)
            broken = not reader.complete
        else:
            await _whole(reply, reader)
            broken = answer.finish_reason is None or reply.headers.get("x-dashscope-partialresponse") == "true"
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
    if "type" in part:
        return part  # wire form already: a conversation out of the data
    if "text" in part:
        return {"type": "text", **part}
    raise PluginError(f"message parts of kind {', '.join(part)!r} are not available yet; text is")


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
