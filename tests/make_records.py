"""Plans, requests and records for tests that need some: real types, small and reproducible. `make_record(request)` takes any field of `Record`.

plan = SmallPlan(samples=30, trials=2)
for request in plan.all_requests():
    record = make_record(request, outcome=Outcome.OK, scores={"exact": Score(value=1.0)})
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalrunner.records import Attempt, Cell, Completion, Model, Outcome, Record, Request, Sample, Score, Timing, Usage

START_US = 1_764_000_000_000_000
"""2025-11-24 16:00 UTC, when every record of these starts."""


class SmallPlan:
    """A plan of `samples` × temperatures × `trials` for one model, the first `edited` with other data. `describe()` has the shape that the manifest keeps."""

    def __init__(
        self,
        samples: int = 30,
        *,
        trials: int = 1,
        temperatures: Sequence[float] = (0.0, 0.7),
        scorers: Sequence[str] = ("exact",),
        data_hash: str = "d0",
        edited: int = 0,
    ) -> None:
        self.name = "small"
        self.models = [Model(name="turbo", id="qwen-turbo", provider="simulator")]
        self.param_names = ["max_tokens", "temperature"]
        self.scorer_names = list(scorers)
        self._samples = samples
        self._trials = trials
        self._temperatures = list(temperatures)
        self._data_hash = data_hash
        self._edited = edited

    @property
    def size(self) -> int:
        return self._samples * self._trials * len(self._temperatures)

    def requests(self, model: Model) -> Iterator[Request]:
        for number in range(self._samples):
            for temperature in self._temperatures:
                for trial in range(self._trials):
                    yield make_request(number + 1000 * (number < self._edited), model=model, params={"max_tokens": 16, "temperature": temperature}, trial=trial)

    def all_requests(self) -> Iterator[Request]:
        for model in self.models:
            yield from self.requests(model)

    def describe(self) -> Mapping[str, Any]:
        return {
            "size": self.size,
            "trials": self._trials,
            "grid": {"max_tokens": 16, "temperature": self._temperatures},
            "stream": [True],
            "params": self.param_names,
            "models": [{"name": "turbo", "id": "qwen-turbo", "provider": "simulator", "price": None}],
            "scorers": [{"name": name, "kind": name, "options": {}} for name in self.scorer_names],
            "prompt_sets": [
                {
                    "name": "questions",
                    "data": "questions.jsonl",
                    "data_hash": self._data_hash,
                    "samples": self._samples,
                    "prompts": {"plain": "{{ question }}"},
                    "target": None,
                }
            ],
        }


def make_request(number: int = 0, *, model: Model | None = None, params: Mapping[str, Any] | None = None, trial: int = 0, **changes: Any) -> Request:
    """The request of sample `number`; its key is a hash of what it is made from."""
    model = model or Model(name="turbo", id="qwen-turbo", provider="simulator")
    params = {"max_tokens": 16, "temperature": 0.0} if params is None else params
    question = f"How much is {number} + {number}?"
    fields: dict[str, Any] = {
        "key": hashlib.sha256(repr((number, model.name, sorted(params.items()), trial)).encode()).hexdigest()[:32],
        "cell": Cell(prompt_set="questions", prompt="plain", model=model, params=params, stream=True),
        "sample": Sample(id=f"s{number}", data={"question": question}, hash=f"h{number}", tags={"level": "easy"}),
        "trial": trial,
        "messages": [{"role": "user", "content": question}],
        "target": str(2 * number),
    }
    return Request(**{**fields, **changes})


def make_completion(output: str = "42", **changes: Any) -> Completion:
    """A streamed answer: first token after 100 ms, the last after 300 ms."""
    fields: dict[str, Any] = {
        "output": output,
        "finish_reason": "stop",
        "timing": Timing(
            started_ns=0,
            ended_ns=310_000_000,
            first_output_ns=100_000_000,
            first_content_ns=100_000_000,
            last_output_ns=300_000_000,
            output_events=5,
            output_reads=5,
        ),
        "usage": Usage(prompt_tokens=12, completion_tokens=5, total_tokens=17),
        "response_id": "chatcmpl-1",
        "response_model": "qwen-turbo-2026",
    }
    return Completion(**{**fields, **changes})


def make_attempt(key: str, attempt: int = 1, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "key": key,
        "turn": 1,
        "attempt": attempt,
        "started_us": START_US,
        "outcome": "ok",
        "wait_ms": 1.5,
        "latency_ms": 300.0,
        "http_status": 200,
    }
    return Attempt(**{**fields, **changes})


def make_record(request: Request, *, outcome: Outcome = Outcome.OK, **changes: Any) -> Record:
    """What came of `request`: answered, unless `outcome` says otherwise."""
    answered = outcome in {Outcome.OK, Outcome.TRUNCATED}
    completion = make_completion(request.target or "") if answered else None
    fields: dict[str, Any] = {
        "request": request,
        "outcome": outcome,
        "attempts": (make_attempt(request.key, outcome=str(outcome), usage=completion.usage if completion else None),),
        "scheduled_us": START_US,
        "started_us": START_US + 1_500,
        "finished_us": START_US + 311_500,
        "wait_ms": 1.5,
        "completion": completion,
        "error_code": None if answered else "InternalError",
        "error_message": None if answered else "the server failed",
        "http_status": 200 if answered else 500,
        "usage": completion.usage if completion else None,
        "cost": 0.00042 if answered else None,
        "currency": "CNY" if answered else None,
        "user_latency_ms": 301.5 if answered else None,
        "user_ttft_ms": 101.5 if answered else None,
        "scores": {"exact": Score(value=1.0, why="equal")} if answered else {},
    }
    return Record(**{**fields, **changes})
