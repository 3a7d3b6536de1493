"""How an answer is cut into stream events, and when each is due."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_PIECE = re.compile(r"\s*(?:[\u3400-\u9fff]{1,2}|[^\W\d_]{1,8}|\d|_+|[^\w\s]+)|\s+")


class Frame(NamedTuple):
    """One event: the token it completes (0: sent when the stream opens, before any), its bytes, whether it carries output."""

    token: int
    data: bytes
    output: bool = True


def pieces(text: str, size: int) -> Iterator[tuple[str, int]]:
    """The text in chunks of about `size` tokens (the service sends several at once), each with the number of its tokens. The first has one, so that
    the first output comes at the time to first token and not some tokens later.
    """
    found = _PIECE.findall(text)
    start, end = 0, 1
    while part := found[start:end]:
        yield "".join(part), len(part)
        start, end = end, end + size
