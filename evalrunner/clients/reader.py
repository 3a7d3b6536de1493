"""Bytes of an answer, streamed or whole, into an `Answer`: what both dialects share. Pure: no I/O, no clock.

msgspec decodes just the fields that are used. What it refuses (lone surrogates, NaN, broken UTF-8) goes a slower, lenient way, so that an answer that
was paid for is never lost to one bad character.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from evalrunner.clients.answer import Answer
from evalrunner.clients.failures import in_band
from evalrunner.clients.sse import BOM, Event, Parser
from evalrunner.errors import BadOutputError
from evalrunner.records import Usage


class Function(Struct):
    """What a tool call calls; arguments are the JSON text, or a piece of it."""

    name: str | None = None
    arguments: Any = None


class ToolCall(Struct):
    """A tool call, or a piece of one: later pieces have an empty id and no name."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


Said = TypeVar("Said")
"""What one dialect says in one event, or in a whole body: the fields that are used."""


class Reader(ABC, Generic[Said]):
    """Reads the bytes of one answer. Feed it the reads of a stream and `close` it, or give it the `whole` body. A dialect says what one event means."""

    def __init__(self, answer: Answer, decoder: msgspec.json.Decoder[Said], *, dashscope: bool) -> None:
        self.answer = answer
        self.done = False
        self._decoder = decoder
        self._dashscope = dashscope
        self._parser = Parser()
        self._stamp_ns = answer.started_ns

    @abstractmethod
    def _take(self, said: Said, event: Event) -> None:
        """Add what one event (or the whole body) says to the answer; raise `self._failure` where it is an error."""

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
        body = body.removeprefix(BOM)
        self._take(self._decode(body), Event(body))

    def _event(self, event: Event) -> None:
        data = event.data
        if not data or self.done or event.name in (b"ping", b"done"):
            return
        self.answer.last_data_ns = self._stamp_ns
        if data == b"[DONE]":
            self.done = True
            self.answer.ended_ns = self._stamp_ns
            return
        try:
            said = self._decode(data)
        except BadOutputError:
            if event.cut or self.complete:
                return  # the connection was lost inside this event, or only the usage after the answer is
            raise
        self._take(said, event)

    def _decode(self, data: bytes) -> Said:
        try:
            return self._decoder.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        try:
            said: Said = msgspec.convert(json.loads(data.decode("utf-8", "replace")), self._decoder.type, strict=False)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadOutputError(f"the answer cannot be read: {error}", raw=data) from None
        self.answer.unreadable.append(data)
        return said

    def _fail(self, event: Event) -> NoReturn:
        """Raise what the event says is wrong."""
        raise in_band(json.loads((event.data or b"").decode("utf-8-sig", "replace")), dashscope=self._dashscope, status=event.status or 200)

    def _count(self, usage: Usage, *, before: bool) -> None:
        """Keep the newest usage; `before`: no output had come before this event, so its tokens are those of the first output."""
        self.answer.usage = usage
        if before and self.answer.first_output_ns is not None:
            self.answer.first_output_tokens = usage.completion_tokens


def text_of(content: str | list[Any] | None) -> str:
    """The text of a message's content, whether it is one string or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content or ""


def count(said: Any, name: str) -> int | None:
    """A counter as the provider says it; a missing or odd one is None, never 0."""
    value = said.get(name) if isinstance(said, dict) else None
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15 else None
