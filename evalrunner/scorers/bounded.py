"""Scorers as a config names them, none of which can hang: whoever makes one makes it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from evalrunner.apart import SECONDS, Apart, ApartError, Failed, apart, is_async, within
from evalrunner.errors import PluginError, ScorerError
from evalrunner.plugins import BUILT_IN, AskingScorer, ReadsRows, ReadsTarget, RowScorer, Scorer, bind, find
from evalrunner.records import Completion, Request, Score


def bounded(kind: str, options: Mapping[str, Any], seconds: float = SECONDS) -> Scorer | AskingScorer:
    """Ours run where they are called, because they end by themselves; others have `seconds` for an answer, the plain ones in a process of their own.

    Raises `PluginError`, or what the factory raises for a value it does not take.
    """
    factory = find("scorers", kind)
    bind(factory, kind, options)
    scorer: Scorer | AskingScorer = factory(**options)
    if isinstance(scorer, AskingScorer) or (kind in BUILT_IN["scorers"] and not _may_hang(kind, options)):
        return scorer
    if not callable(scorer):
        raise PluginError(f"{kind}: should return a function (request, completion), not a {type(scorer).__name__}")
    cut_off = _limited(scorer, seconds) if is_async(scorer) else _apart(apart("scorers", kind, options, seconds))
    return _reading_as(scorer, cut_off)


def _may_hang(kind: str, options: Mapping[str, Any]) -> bool:
    """A pattern in a JSON Schema is matched by Python's `re`, which nothing can interrupt."""
    return kind == "json" and "pattern" in str(options.get("schema"))


def _reading_as(scorer: object, cut_off: Scorer) -> Scorer:
    """With what `scorer` says that it reads."""
    columns, check = (scorer.columns, scorer.check) if isinstance(scorer, ReadsRows) else ((), bool)
    target = scorer.check_target if isinstance(scorer, ReadsTarget) else bool
    return RowScorer(cut_off, columns, check, target)


def _apart(process: Apart) -> Scorer:
    async def score(request: Request, completion: Completion) -> Score:
        try:
            reply = await process(request, completion)
        except ApartError as error:
            raise ScorerError(f"the scorer {error}") from None
        if isinstance(reply, Failed):
            raise ScorerError(reply.message if reply.kind == ScorerError.__name__ else f"the scorer failed: {reply.kind}: {reply.message}")
        try:
            return msgspec.convert(reply.result, Score, strict=False)
        except msgspec.ValidationError as error:
            raise ScorerError(f"the scorer failed: it returned no Score: {error}") from None

    return score


def _limited(scorer: Any, seconds: float) -> Scorer:
    async def score(request: Request, completion: Completion) -> Score:
        try:
            found: Score = await within(seconds, scorer(request, completion))
        except ApartError as error:
            raise ScorerError(f"the scorer {error}") from None
        return found

    return score
