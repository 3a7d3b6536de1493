"""Judging: a scorer's question becomes a request to its model, and what came of it a judgement that is written down before it counts."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import Any

from msgspec import Struct, json
from msgspec.structs import replace

from evalrunner.analysis import metrics
from evalrunner.engine.asides import Asides
from evalrunner.errors import ScorerError, UnaskedError
from evalrunner.plugins import AskingScorer, Question, Scorer
from evalrunner.records import ANSWERED, FINAL, Cell, Judgement, Model, Record, Request

Keep = Callable[[Judgement], Awaitable[None]]


class Judge(Struct, frozen=True, kw_only=True):
    """A model that scorers ask, with the parameters it is asked with."""

    model: Model
    params: Mapping[str, Any]


class Judging:
    """`judges` by their place in the plan, `(scorer's column, number)` · `keep` writes a judgement down · `known`: what earlier sessions bought, by id."""

    def __init__(self, judges: Mapping[tuple[str, int], Judge], asides: Asides, keep: Keep, known: Mapping[str, Judgement], rng: random.Random) -> None:
        self._judges = judges
        self._asides = asides
        self._keep = keep
        self._known = known
        self._rng = rng

    def bound(self, scorers: Mapping[str, Scorer | AskingScorer]) -> dict[str, Scorer]:
        """Functions all: those that ask know whom."""
        return {name: self._bound(name, scorer) if isinstance(scorer, AskingScorer) else scorer for name, scorer in scorers.items()}

    def _bound(self, name: str, scorer: AskingScorer) -> Scorer:
        async def ask(request: Request, question: Question) -> Judgement:
            return await self._ask(name, self._judges[name, list(scorer.needs).index(question.asked)], request, question)

        return scorer.bound(ask, self._rng)

    async def _ask(self, scorer: str, judge: Judge, about: Request, question: Question) -> Judgement:
        identity = [about.key, scorer, judge.model.provider, judge.model.id, judge.params, question.identity]
        call = _request(blake2b(json.encode(identity, order="deterministic"), digest_size=16).hexdigest(), judge, about, question)
        if (known := self._known.get(call.key)) is not None:
            return known
        record = await self._asides.ask(judge.model, call)
        if record is None:
            raise UnaskedError(f"{judge.model.name} was not asked before the run stopped")
        judgement = _judgement(scorer, about, question, record)
        await self._keep(judgement)
        if record.outcome not in ANSWERED:
            failed = f"{judge.model.name}: {record.outcome}: {record.error_message or 'no answer'}"
            raise ScorerError(failed) if record.outcome in FINAL else UnaskedError(failed)
        return judgement


def _request(key: str, judge: Judge, about: Request, question: Question) -> Request:
    cell = Cell(prompt_set=about.cell.prompt_set, prompt=about.cell.prompt, model=judge.model, params=judge.params, stream=True)
    return Request(key=key, cell=cell, sample=about.sample, trial=about.trial, messages=question.messages)


def _judgement(scorer: str, about: Request, question: Question, record: Record) -> Judgement:
    model, usage, answer = record.request.cell.model, record.usage, record.completion
    judgement = Judgement(
        key=about.key,
        id=record.request.key,
        scorer=scorer,
        judge=model.name,
        judge_id=model.id,
        provider=model.provider,
        sample_id=about.sample.id,
        order=question.order,
        outcome=record.outcome,
        label=question.label,
        output=answer.output if answer is not None else None,
        error_code=record.error_code,
        error_message=record.error_message,
        attempts=len(record.attempts),
        cost=record.cost,
        currency=record.currency,
        started_us=record.started_us,
        wait_ms=record.wait_ms,
        latency_ms=metrics.latency_ms(answer.timing) if answer is not None else None,
    )
    if usage is not None:
        tokens = {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")}
        judgement = replace(judgement, **tokens)
    if record.outcome not in ANSWERED:
        return judgement
    try:
        verdict = question.read(judgement.output or "")
    except ScorerError as error:
        return replace(judgement, reason=str(error))
    return replace(judgement, verdict=verdict.verdict, score=verdict.score, reason=verdict.reason)
