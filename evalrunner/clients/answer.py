"""What has come back of one answer so far, in no dialect: the pieces, the stamps, and the `Completion` they become. Pure: no I/O, no clock.

A dialect appends what an event carried and calls `mark` once if any of it was output; the transport's deadlines look at the two `Progress` fields.
"""

from __future__ import annotations

import json
from typing import Any

from evalrunner.errors import BadOutputError, FilteredError
from evalrunner.records import Completion, Timing, Usage


class Answer:
    """Collects one answer. The same events in the same order give the same text, however they were cut into reads."""

    def __init__(self, started_ns: int, *, stream: bool) -> None:
        self.started_ns = started_ns
        self.stream = stream
        self.first_output_ns: int | None = None
        self.last_data_ns: int | None = None
        self.ended_ns: int | None = None
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.first_output_tokens: int | None = None
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.http_status: int | None = None
        self.unreadable: list[bytes] = []
        """Bodies or events, as they came, in which a strict reader found what UTF-8 or JSON cannot hold."""
        self._tools: dict[int, dict[str, Any]] = {}
        self._first_content_ns: int | None = None
        self._last_output_ns: int | None = None
        self._events = 0
        self._reads = 0

    @property
    def empty(self) -> bool:
        """Nothing has come that anyone could read: no text, no thought, no tool call."""
        return not (any(self.text) or any(self.reasoning) or any(self.refusal) or self._tools)

    def tool(self, index: int | None, call_id: str | None, name: str | None, arguments: object) -> bool:
        """Add a piece of a tool call; true if it said anything. Later pieces come with an empty id and no name, which overwrite nothing."""
        if index is None:  # servers that leave it out send whole calls, each with its id
            index = len(self._tools) if call_id or not self._tools else max(self._tools)
        call = self._tools.setdefault(index, {"id": "", "name": "", "arguments": []})
        if call_id:
            call["id"] = call_id
        if name:
            call["name"] = name
        if arguments:
            call["arguments"].append(arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))
        return bool(name or arguments)

    def mark(self, stamp_ns: int, *, content: bool) -> None:
        """Count one output event, completed by the read at `stamp_ns`; `content`: it was more than reasoning."""
        if self.first_output_ns is None:
            self.first_output_ns = stamp_ns
        if content and self._first_content_ns is None:
            self._first_content_ns = stamp_ns
        if stamp_ns != self._last_output_ns:
            self._last_output_ns = stamp_ns
            self._reads += 1
        self._events += 1

    def timing(self, now_ns: int) -> Timing:
        """The stamps so far; `now_ns` is the end where none has come."""
        ended_ns = self.ended_ns if self.ended_ns is not None else now_ns
        if not self.stream:
            return Timing(started_ns=self.started_ns, ended_ns=ended_ns)
        return Timing(
            started_ns=self.started_ns,
            ended_ns=ended_ns,
            first_output_ns=self.first_output_ns,
            first_content_ns=self._first_content_ns,
            last_output_ns=self._last_output_ns,
            output_events=self._events,
            output_reads=self._reads,
            first_output_tokens=self.first_output_tokens,
        )

    def completion(self, now_ns: int) -> Completion:
        """The finished answer. Raises `FilteredError` for finish reason content_filter, `BadOutputError` where there is nothing at all."""
        if self.finish_reason == "content_filter":
            raise FilteredError("the answer was stopped by content inspection", code="content_filter")
        if self.empty:
            raise BadOutputError("the answer has neither text nor tool calls")
        output, reasoning = "".join(self.text) or "".join(self.refusal), "".join(self.reasoning) or None
        calls = tuple({**call, "arguments": "".join(call["arguments"])} for _, call in sorted(self._tools.items()))
        replaced = False
        if self.unreadable:
            mended = _mend([output, reasoning, list(calls)])
            replaced = "\ufffd" in json.dumps([output, reasoning, calls, mended], ensure_ascii=False)
            output, reasoning, calls = mended[0], mended[1], tuple(mended[2])
        return Completion(
            output=output,
            reasoning=reasoning,
            tool_calls=calls,
            finish_reason=self.finish_reason,
            timing=self.timing(now_ns),
            usage=self.usage,
            response_id=self.response_id,
            response_model=self.response_model,
            http_status=self.http_status,
            replaced=replaced,
            raw=b"\n".join(self.unreadable) if replaced else None,
        )


def _mend(value: Any) -> Any:
    """Join surrogate pairs that were cut into two events; halves without a partner become U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {key: _mend(inner) for key, inner in value.items()}
    return [_mend(inner) for inner in value] if isinstance(value, list) else value
