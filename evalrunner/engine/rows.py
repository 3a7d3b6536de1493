"""From the attempts of one request to its attempt rows and its record. No waiting, no sending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from evalrunner.analysis import metrics
from evalrunner.clock import Clock
from evalrunner.cost.catalogue import cost
from evalrunner.engine.retry import Tries, fate, retry_after_s
from evalrunner.errors import EndpointError, RequestError
from evalrunner.records import ANSWERED, Attempt, Completion, Outcome, Record, Request, Score, Timing, Usage

OUTCOME_OF_FINISH = {"length": Outcome.TRUNCATED, "content_filter": Outcome.FILTERED}
NO_SCORES: Mapping[str, Score] = {}


class Open:
    """A request on its way to its record: its attempts so far, in order, and the stamps between them. `request` is what the present turn sends."""

    __slots__ = (
        "_clock",
        "_first",
        "_free_ns",
        "_limited_ns",
        "attempts",
        "earlier",
        "first_ns",
        "request",
        "scheduled_ns",
        "stalled_ms",
        "tries",
        "turn",
        "waited_ms",
    )

    def __init__(self, request: Request, clock: Clock) -> None:
        self.request = self._first = request
        self.earlier: list[Completion] = []
        self.attempts: list[Attempt] = []
        self.tries = Tries()
        self.turn = 1
        self.scheduled_ns = self.first_ns = self._free_ns = self._limited_ns = 0
        self.waited_ms = 0.0
        self.stalled_ms: float | None = None
        self._clock = clock

    def admitted(self, asked_ns: int, slot_ns: int, admitted_ns: int) -> None:
        """A permit was asked for, then there was a slot, then the buckets allowed it. The first slot is when the request was due."""
        if not self.attempts:
            self.scheduled_ns = self._free_ns = slot_ns
        elif self.first_ns:
            self._limited_ns += admitted_ns - asked_ns

    def failed(self, error: RequestError | EndpointError, started_ns: int, ended_ns: int) -> Attempt:
        """The attempt ended with `error`; the stamps are ours, for errors that carry none."""
        if error.timing is not None:
            started_ns, ended_ns = error.timing.started_ns, error.timing.ended_ns
        usage = error.usage
        asked = retry_after_s(error)
        attempt = self._attempt(
            started_ns,
            ended_ns,
            outcome=fate(error).outcome,
            latency_ms=(ended_ns - started_ns) / 1e6,
            http_status=error.http_status,
            error_code=error.code,
            error_message=error.message,
            retry_after_ms=asked * 1000 if asked is not None else None,
            ttft_ms=metrics.ttft_ms(error.timing) if error.timing is not None else None,
            response_id=error.response_id,
            usage=usage,
            cost=cost(usage, self.request.cell.model.price, thought=bool(usage and usage.reasoning_tokens)),
            raw=error.raw,
        )
        self.tries = self.tries.after(error, (ended_ns - self.first_ns - self._limited_ns) / 1e9)
        return attempt

    @property
    def refusals(self) -> int:
        """How often this turn was refused in the words for a wrong key or model."""
        return sum(attempt.outcome == Outcome.AUTH for attempt in self.attempts if attempt.turn == self.turn)

    def reject(self) -> None:
        """The last attempt was refused for what was asked, although it reads like a refusal of key or model."""
        said = f"{self.attempts[-1].error_message} (this request alone is refused: the model answers others)"
        self.attempts[-1] = msgspec.structs.replace(self.attempts[-1], outcome=Outcome.REJECTED, error_message=said)

    def answered(self, completion: Completion) -> Attempt:
        timing, usage = completion.timing, completion.usage
        thought = bool(completion.reasoning) or bool(usage and usage.reasoning_tokens)
        return self._attempt(
            timing.started_ns,
            timing.ended_ns,
            outcome=outcome_of(completion),
            latency_ms=metrics.latency_ms(timing),
            http_status=completion.http_status,
            ttft_ms=metrics.ttft_ms(timing),
            response_id=completion.response_id,
            usage=usage,
            cost=cost(usage, self.request.cell.model.price, thought=thought),
            raw=completion.raw,
        )

    def stalled(self, ms: float | None) -> None:
        """While the last attempt was under way, this process did not listen for so long."""
        if ms is not None:
            self.stalled_ms = max(ms, self.stalled_ms or 0.0)

    def go_on(self, completion: Completion, request: Request) -> None:
        """A turn has been answered with tool calls; `request` is the next one. It is tried as often and as long as any request."""
        self.earlier.append(completion)
        self.request = request
        self.turn += 1
        self.tries = Tries()
        self.first_ns = self._limited_ns = 0

    def whole(self, last: Completion) -> Completion:
        """The answer of all turns: what the last one says, the conversation before it, tokens and times added up."""
        if not self.earlier:
            return last
        turns = [*self.earlier, last]
        usage = None
        if None not in (spent := [turn.usage for turn in turns]):
            for one in spent:
                usage = add_usage(usage, one)
        conversation = tuple(self.request.messages[len(self._first.messages) :])
        return msgspec.structs.replace(last, conversation=conversation, usage=usage, timing=joined([turn.timing for turn in turns]))

    def record(self, completion: Completion | None, scores: Mapping[str, Score] = NO_SCORES) -> Record:
        """The row: `completion` is the final answer, None if there is none and the last attempt says why."""
        last = self.attempts[-1]
        price = self.request.cell.model.price
        usage, paid = _totals(self.attempts)
        timing = completion.timing if completion is not None else None
        return Record(
            request=self._first,
            outcome=Outcome(last.outcome),
            attempts=tuple(self.attempts),
            scheduled_us=self._clock.wall_us(self.scheduled_ns),
            started_us=self.attempts[0].started_us,
            finished_us=self._clock.wall_us(self._free_ns),
            wait_ms=self.waited_ms,
            completion=completion,
            error_code=last.error_code,
            error_message=last.error_message,
            http_status=last.http_status,
            turns=self.turn,
            usage=usage,
            cost=paid,
            currency=price.currency if price is not None and paid is not None else None,
            user_latency_ms=metrics.user_latency_ms(self.scheduled_ns, timing) if timing is not None else None,
            user_ttft_ms=metrics.user_ttft_ms(self.scheduled_ns, timing) if timing is not None else None,
            stalled_ms=self.stalled_ms,
            scores=scores,
        )

    def _attempt(self, started_ns: int, ended_ns: int, **said: object) -> Attempt:
        wait_ms = (started_ns - self._free_ns) / 1e6
        self.first_ns = self.first_ns or started_ns
        self.waited_ms += wait_ms
        self._free_ns = ended_ns
        attempt = Attempt(
            key=self.request.key,
            turn=self.turn,
            attempt=1 + sum(earlier.turn == self.turn for earlier in self.attempts),
            started_us=self._clock.wall_us(started_ns),
            wait_ms=wait_ms,
            **said,  # type: ignore[arg-type]
        )
        self.attempts.append(attempt)
        return attempt


def outcome_of(completion: Completion) -> Outcome:
    return OUTCOME_OF_FINISH.get(completion.finish_reason or "", Outcome.OK)


def joined(turns: Sequence[Timing]) -> Timing:
    """The turns of one conversation as one timing: see `records.Timing`. Output fields are None unless every turn has them."""
    first, last = turns[0], turns[-1]
    together = msgspec.structs.replace(
        first,
        ended_ns=last.ended_ns,
        last_output_ns=last.last_output_ns,
        paused_ns=sum(after.started_ns - metrics.last_ns(turn) for turn, after in pairwise(turns)),
    )
    outputs = [turn.first_output_ns for turn in turns]
    if None in outputs:
        return msgspec.structs.replace(together, last_output_ns=None, output_events=None, output_reads=None, first_output_tokens=None)
    return msgspec.structs.replace(
        together,
        output_events=sum(turn.output_events or 0 for turn in turns),
        output_reads=min(turn.output_reads or 0 for turn in turns),
        first_output_tokens=sum(1 if turn.first_output_tokens is None else turn.first_output_tokens for turn in turns),
        silent_ns=sum((after or 0) - metrics.last_ns(turn) for turn, after in zip(turns, outputs[1:], strict=False)),
    )


def _totals(attempts: list[Attempt]) -> tuple[Usage | None, float | None]:
    """Usage and cost of all attempts that returned usage. What is unknown for one of them, or for an answer, is unknown for all."""
    billed = [attempt for attempt in attempts if attempt.usage is not None]
    if not billed or any(attempt.usage is None and attempt.outcome in ANSWERED for attempt in attempts):
        return None, None
    usage = billed[0].usage
    for attempt in billed[1:]:
        usage = add_usage(usage, attempt.usage)
    costs = [attempt.cost for attempt in billed]
    return usage, None if None in costs else sum(c for c in costs if c is not None)


def add_usage(one: Usage | None, other: Usage | None) -> Usage | None:
    """Field by field; what is unknown in both stays unknown."""
    if one is None or other is None:
        return one or other
    sums = {name: _plus(getattr(one, name), getattr(other, name)) for name in Usage.__struct_fields__ if name != "source"}
    return msgspec.structs.replace(one, **sums, source="estimate" if "estimate" in (one.source, other.source) else "api")


def _plus(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
