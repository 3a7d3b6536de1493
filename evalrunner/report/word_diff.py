"""Two texts side by side, with what differs marked: words of alphabets, single characters of Chinese, Japanese and Korean. Bounded in time and size."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

CONTEXT = 40
"""Tokens that are kept before the first difference and after the last."""
MOST = 400
"""Tokens of the differing middle that are compared and shown."""
UNLIKE = 0.3
"""Below this likeness the two texts are simply two texts: marks on every other word would help nobody."""

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|\s+|[^\W{_CJK}]+|.", re.DOTALL)


class Piece(NamedTuple):
    """A stretch of text; "cut" stands for text that is left out."""

    kind: Literal["same", "changed", "cut"]
    text: str


def word_diff(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """The pieces of either text, in order."""
    a, b = _TOKEN.findall(before[: 1000 * MOST]), _TOKEN.findall(after[: 1000 * MOST])
    head = _common(a, b)
    tail = _common(a[head:][::-1], b[head:][::-1])
    inner = [side[head : len(side) - tail] for side in (a, b)]
    blocks = _blocks(inner[0][:MOST], inner[1][:MOST])
    found = []
    for side, tokens, whole in ((0, inner[0], a), (1, inner[1], b)):
        pieces = [Piece("cut", "…")] if head > CONTEXT else []
        pieces.append(Piece("same", "".join(whole[max(0, head - CONTEXT) : head])))
        at = 0
        for block in blocks:
            start, size = block[side], block[2]
            pieces += [Piece("changed", "".join(tokens[at:start])), Piece("same", "".join(tokens[start : start + size]))]
            at = start + size
        pieces.append(Piece("changed", "".join(tokens[at:MOST])))
        if len(tokens) > MOST:
            pieces.append(Piece("cut", "…"))
        else:
            pieces.append(Piece("same", "".join(whole[len(whole) - tail :][:CONTEXT])))
            pieces += [Piece("cut", "…")] if tail > CONTEXT else []
        found.append([piece for piece in pieces if piece.text])
    return found[0], found[1]


def _common(a: list[str], b: list[str]) -> int:
    return next((k for k, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _blocks(a: list[str], b: list[str]) -> list[tuple[int, int, int]]:
    """What both have in common: (place in the first, place in the second, tokens); a lone space between two changes is no common ground."""
    matching = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    blocks = [(i, j, n) for i, j, n in matching if "".join(a[i : i + n]).strip()]
    shared = sum(not token.isspace() for i, _, n in blocks for token in a[i : i + n])
    whole = sum(not token.isspace() for token in (*a, *b))
    return blocks if 2 * shared >= UNLIKE * whole else []
