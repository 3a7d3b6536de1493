"""Several scorers as one: their weighted mean, their least or their greatest."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from evalrunner.errors import ScorerError
from evalrunner.plugins import ReadsRows, RowScorer, Scorer, bind, find
from evalrunner.records import Completion, Request, Score


def combine(*, scorers: list[str | dict[str, Any]], weights: list[float] | None = None, how: Literal["mean", "min", "max"] = "mean") -> Scorer:
    """One score of several: `mean` (with `weights`), `min` (all of them must be content) or `max` (one is enough). Null where one of them is.

    `scorers` are written as under a prompt set. Raises ValueError for weights that do not fit, `PluginError` for a scorer or option that is not known.
    """
    if not scorers:
        raise ValueError("scorers: is empty")
    if weights is not None and how != "mean":
        raise ValueError(f"weights: have no meaning for how: {how}")
    if weights is not None and (len(weights) != len(scorers) or min(weights) < 0 or sum(weights) <= 0):
        raise ValueError(f"weights: should be {len(scorers)} numbers of at least 0, one per scorer, not all 0")
    shares = [weight / sum(weights) for weight in weights] if weights else [1 / len(scorers)] * len(scorers)
    named = [_built(*inner_scorer(written)) for written in scorers]

    async def score(request: Request, completion: Completion) -> Score:
        scores = [(label, await _scored(label, scorer, request, completion)) for label, scorer in named]
        values = [one.value for _, one in scores if one.value is not None]
        if len(values) < len(scores):
            raise ScorerError("; ".join(f"{label}: {one.why}" for label, one in scores if one.value is None))
        value = sum(share * one for share, one in zip(shares, values, strict=True)) if how == "mean" else min(values) if how == "min" else max(values)
        return Score(value=min(1.0, value), why=_why(scores))

    parts: list[object] = [scorer for _, scorer in named]
    reading = [part for part in parts if isinstance(part, ReadsRows)]

    def check(data: Mapping[str, Any]) -> None:
        for scorer in reading:
            scorer.check(data)

    return RowScorer(score, [column for scorer in reading for column in scorer.columns], check)


def inner_scorer(written: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(kind, options) of a scorer as written. Raises ValueError."""
    if isinstance(written, str):
        return written, {}
    if isinstance(written, Mapping) and len(written) == 1:
        [(kind, options)] = written.items()
        if isinstance(kind, str) and (options is None or isinstance(options, dict)):
            return kind, options or {}
    raise ValueError("should be a scorer's name, or `name: {options}` with one name")


def _built(kind: str, options: dict[str, Any]) -> tuple[str, Scorer]:
    factory = find("scorers", kind)
    bind(factory, kind, options)
    scorer = factory(**options)
    if not callable(scorer):
        raise ValueError(f"scorers: {kind} asks a model, and stands on its own")  # noqa: TRY004 - what was written is a value
    return kind.rpartition(":")[2], scorer


async def _scored(label: str, scorer: Scorer, request: Request, completion: Completion) -> Score:
    try:
        score = scorer(request, completion)
        return await score if inspect.isawaitable(score) else score
    except ScorerError as error:
        return Score(value=None, why=str(error))
    except Exception as error:
        raise ScorerError(f"{label} failed: {type(error).__name__}: {error}") from error


def _why(scores: Sequence[tuple[str, Score]]) -> str:
    """Each scorer's reason; nothing where all are content."""
    if all(score.value == 1 and not score.why for _, score in scores):
        return ""
    return "; ".join(f"{label} {score.value:.3g}" + (f" ({score.why})" if score.why else "") for label, score in scores)
