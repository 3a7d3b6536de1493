"""Several scorers as one: their weighted mean, their least or their greatest."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from evalrunner.errors import ScorerError, UnaskedError
from evalrunner.plugins import Ask, AskingScorer, ReadsRows, ReadsTarget, RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.bounded import bounded
from evalrunner.scorers.judge import Judge


class Combination:
    """Parts and how they become one score. With a judge among them it is a scorer that asks: see `plugins.AskingScorer`."""

    def __init__(self, parts: Sequence[tuple[str, Scorer | AskingScorer]], weigh: Callable[[list[float]], float]) -> None:
        self.parts = parts
        self._weigh = weigh
        built: list[object] = [part for _, part in parts]
        self._reading = [part for part in built if isinstance(part, ReadsRows)]
        self._targeted = [part for part in built if isinstance(part, ReadsTarget)]
        self.columns = tuple(column for part in self._reading for column in part.columns)
        self.needs = tuple(asked for part in built if isinstance(part, AskingScorer) for asked in part.needs)

    def check(self, data: Mapping[str, Any]) -> None:
        """Raises ValueError for a row that one of them cannot score."""
        for part in self._reading:
            part.check(data)

    def check_target(self, target: str) -> None:
        """Raises ValueError for a target that one of them cannot compare with."""
        for part in self._targeted:
            part.check_target(target)

    def bound(self, ask: Ask, rng: random.Random) -> Scorer:
        """The scorer itself."""
        return self.of([(label, part.bound(ask, rng) if isinstance(part, AskingScorer) else part) for label, part in self.parts])

    def of(self, scorers: Sequence[tuple[str, Scorer]]) -> Scorer:
        """One scorer of several."""

        async def score(request: Request, completion: Completion) -> Score:
            scores = [(label, await _scored(label, scorer, request, completion)) for label, scorer in scorers]
            values = [one.value for _, one in scores if one.value is not None]
            if len(values) < len(scores):
                raise ScorerError("; ".join(f"{label}: {one.why}" for label, one in scores if one.value is None))
            return Score(value=min(1.0, self._weigh(values)), why=_why(scores))

        return score


def combine(*, scorers: list[str | dict[str, Any]], weights: list[float] | None = None, how: Literal["mean", "min", "max"] = "mean") -> Scorer | AskingScorer:
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

    def weigh(values: list[float]) -> float:
        return sum(share * one for share, one in zip(shares, values, strict=True)) if how == "mean" else min(values) if how == "min" else max(values)

    parts = [_built(*inner_scorer(written)) for written in scorers]
    combination = Combination(parts, weigh)
    silent = [(label, part) for label, part in parts if not isinstance(part, AskingScorer)]
    return combination if combination.needs else RowScorer(combination.of(silent), combination.columns, combination.check, combination.check_target)


def inner_scorer(written: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(kind, options) of a scorer as written. Raises ValueError."""
    if isinstance(written, str):
        return written, {}
    if isinstance(written, Mapping) and len(written) == 1:
        [(kind, options)] = written.items()
        if isinstance(kind, str) and (options is None or isinstance(options, dict)):
            return kind, options or {}
    raise ValueError("should be a scorer's name, or `name: {options}` with one name")


def _built(kind: str, options: dict[str, Any]) -> tuple[str, Scorer | AskingScorer]:
    return kind.rpartition(":")[2], bounded(kind, options)


def judges_in(scorer: Scorer | AskingScorer) -> Iterator[Judge]:
    """The judge itself, or those of a combination."""
    if isinstance(scorer, Judge):
        yield scorer
    elif isinstance(scorer, Combination):
        for _, part in scorer.parts:
            yield from judges_in(part)


async def _scored(label: str, scorer: Scorer, request: Request, completion: Completion) -> Score:
    try:
        score = scorer(request, completion)
        return await score if inspect.isawaitable(score) else score
    except UnaskedError:
        raise
    except ScorerError as error:
        return Score(value=None, why=str(error))
    except Exception as error:
        raise ScorerError(f"{label} failed: {type(error).__name__}: {error}") from error


def _why(scores: Sequence[tuple[str, Score]]) -> str:
    """Each scorer's reason; nothing where all are content."""
    if all(score.value == 1 and not score.why for _, score in scores):
        return ""
    return "; ".join(f"{label} {score.value:.3g}" + (f" ({score.why})" if score.why else "") for label, score in scores)
