"""Server-sent events: bytes in, events out; no I/O, no decoding.

Follows the WHATWG event stream grammar (LF, CRLF and CR, one optional space, multi-line data, comments, byte order mark) with three differences that
real providers need: comments are reported, since a proxy's keep-alive must not pass for data; DashScope's status (`:HTTP_STATUS/200` or a `status:`
line) is kept; and an event that the end of the stream leaves without its blank line is still given out, marked as cut.
"""

from __future__ import annotations

from msgspec import Struct

BOM = b"\xef\xbb\xbf"
_STATUS = b"HTTP_STATUS/"


class Event(Struct):
    """One event. `data` is None when it had no data line (a comment alone, a bare `event:`); `name` is empty unless an `event:` line gave one.
    `cut`: the stream ended inside it.
    """

    data: bytes | None
    name: bytes = b""
    comment: bytes | None = None
    status: int | None = None
    cut: bool = False


class Parser:
    """Incremental: any way of cutting the same bytes into `feed` calls gives the same events."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # pieces of a line without its end
        self._lines: list[bytes] = []  # data lines of the event that is open
        self._event = Event(None)
        self._open = False
        self._at_start = True
        self._skip_lf = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if self._rest:
            if b"\n" not in data and b"\r" not in data:
                self._rest.append(data)  # joined once at the line's end, so that a long line costs linear time
                return []
            data = b"".join((*self._rest, data))
            self._rest.clear()
        events: list[Event] = []
        position, size = 0, len(data)
        lf_only = b"\r" not in data and not self._skip_lf
        while position < size:
            if lf_only and not self._open and data.startswith(b"data: ", position):  # what nearly every event looks like: one data line, one blank line
                end = data.find(b"\n", position)
                if end >= 0 and data.startswith(b"\n", end + 1):
                    events.append(Event(data[position + 6 : end]))
                    position = end + 2
                    self._at_start = False
                    continue
            position = self._step(data, position, events)
        return events

    def close(self) -> list[Event]:
        """What the end of the stream leaves: at most one event, marked `cut`."""
        events: list[Event] = []
        if self._rest:
            self._line(b"".join(self._rest), events)
            self._rest.clear()
        if self._open:
            self._event.cut = True
            self._dispatch(events)
        return events

    def _step(self, data: bytes, position: int, events: list[Event]) -> int:
        """Take one line, or keep what is left of it; returns where the next one begins."""
        if self._skip_lf:
            self._skip_lf = False
            if data.startswith(b"\n", position):
                return position + 1
        end = data.find(b"\n", position)
        carriage = data.find(b"\r", position, end if end >= 0 else len(data))
        if carriage >= 0:
            end = carriage
            self._skip_lf = True
        if end < 0:
            self._rest.append(data[position:])
            return len(data)
        self._line(data[position:end], events)
        return end + 1

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        if not line:
            if self._open:
                self._dispatch(events)
            return
        self._open = True
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._lines.append(value)
        elif field == b"event":
            self._event.name = value
        elif not field:
            self._event.comment = value
            if value.startswith(_STATUS):
                self._event.status = _integer(value[len(_STATUS) :])
        elif field == b"status":
            self._event.status = _integer(value)

    def _dispatch(self, events: list[Event]) -> None:
        if self._lines:
            self._event.data = b"\n".join(self._lines)
            self._lines.clear()
        events.append(self._event)
        self._event = Event(None)
        self._open = False


def _integer(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 4 else None
