"""A run that never happened: rows, attempts and a manifest with every kind of outcome, from a seed. For tests of the report and for looking at it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from evalrunner.analysis.summary import summarise
from evalrunner.analysis.tables import Summary
from evalrunner.report.samples import SampleRows

MODELS = {"qwen-turbo": 0.74, "qwen-plus": 0.86, "qwen-max": 0.89, "qwen3-8b": 0.61}
PROMPTS = {"plain": 0.0, "careful": 0.03}
PRICES = {"qwen-turbo": (0.3, 0.6), "qwen-plus": (0.8, 2.0), "qwen-max": (2.4, 9.6)}
SPEED = {"qwen-turbo": 6.0, "qwen-plus": 11.0, "qwen-max": 19.0, "qwen3-8b": 8.0}
FAILURES = ("rate_limited", "server_error", "timeout", "broken_stream", "filtered", "rejected", "transport")
TOPICS = ("algebra", "geometry", "counting")
START = datetime(2025, 3, 1, 9, 0, tzinfo=UTC)


class Fabricated(NamedTuple):
    """What a run directory would hold."""

    results: pa.Table
    attempts: pa.Table
    manifest: dict[str, Any]

    @property
    def summary(self) -> Summary:
        return summarise(self.results, self.attempts, self.manifest)

    @property
    def rows(self) -> SampleRows:
        return SampleRows(self.results, self.attempts)


def fabricate(
    samples: int = 200,
    *,
    models: Sequence[str] = tuple(MODELS),
    prompts: Sequence[str] = tuple(PROMPTS),
    trials: int = 1,
    failing: float = 0.02,
    scorers: Sequence[str] = ("exact",),
    words: int = 40,
    strings: Mapping[str, str] | None = None,
    seed: int = 7,
) -> Fabricated:
    """`failing`: share of requests without an answer · `words`: length of answers · `strings`: texts put in place of fields of that name."""
    rng = np.random.default_rng(seed)
    put = strings or {}
    hard = rng.normal(0, 1.2, samples)
    rows, attempts = [], []
    for sample in range(samples):
        a, b = int(rng.integers(12, 99)), int(rng.integers(12, 99))
        for model in models:
            for prompt in prompts:
                for trial in range(trials):
                    row = _row(rng, (model, prompt, trial), (a, b, float(hard[sample])), failing, words)
                    row |= {"key": f"{sample}-{model}-{prompt}-{trial}", "sample_id": f"s{sample + 1}", "sample_hash": f"{sample:08x}"}
                    row["tags"] = [("level", str(sample % 3 + 1)), ("topic", TOPICS[sample % 7 % 3])]
                    for k, name in enumerate(scorers):
                        row[f"score_{name}"] = None if row["score"] is None else row["score"] if k == 0 else round(float(rng.uniform(0.3, 1)), 2)
                        row[f"score_{name}_why"] = "no answer to score" if row["score"] is None else f"{row['output'][-3:]!r} against {row['target']!r}"
                    row = {
                        name: put.get(name, value) if value is not None or name in ("reasoning", "tool_calls", "conversation") else value
                        for name, value in row.items()
                        if name != "score"
                    }
                    if "sample_id" in put:
                        row["sample_id"] = f"{put['sample_id']} {sample + 1}"
                    if "tags" in put:
                        row["tags"] = [(put["tags"], put["tags"] if sample % 2 else "other")]
                    rows.append(row)
                    attempts += _attempts(rng, row, put)
    order = rng.permutation(len(rows))
    results = pa.Table.from_pylist([rows[k] for k in order], schema=_schema(rows[0]))
    manifest = _manifest(samples, models, prompts, trials, scorers, put)
    return Fabricated(results, pa.Table.from_pylist(attempts), manifest)


def _row(rng: np.random.Generator, place: tuple[str, str, int], question: tuple[int, int, float], failing: float, words: int) -> dict[str, Any]:
    model, prompt, trial = place
    a, b, hard = question
    known = MODELS.get(model, 0.7) + PROMPTS.get(prompt, 0.0)
    right = bool(rng.normal(hard, 1) < np.log(known / (1 - known)) * 1.05)
    outcome = str(rng.choice(FAILURES)) if rng.random() < failing * (3 if model == "qwen3-8b" else 1) else ("truncated" if rng.random() < 0.005 else "ok")
    answered = outcome in ("ok", "truncated")
    pace = SPEED.get(model, 10.0)
    n_out = int(rng.integers(words // 2, words * 2)) if prompt == "careful" else int(rng.integers(4, 12))
    ttft = float(rng.lognormal(np.log(pace * 22), 0.35))
    tpot = float(rng.lognormal(np.log(pace), 0.2))
    latency = ttft + tpot * n_out
    retried = bool(rng.random() < 0.04)
    wait = float(rng.exponential(60)) + (2100.0 if retried or not answered else 0.0)
    at = START + timedelta(milliseconds=float(rng.uniform(0, 240_000)))
    n_in = 31 if prompt == "careful" else 22
    price = PRICES.get(model)
    reasons = "First the tens, then the ones. " * max(1, n_out // 8)
    answer = str(a * b if right else a * b + int(rng.integers(1, 30)))
    instruction = "Think step by step, then give" if prompt == "careful" else "Give only"
    return {
        "run_id": "20250301-090000-ab12",
        "prompt_set": "arithmetic",
        "prompt": prompt,
        "model": model,
        "provider": "dashscope",
        "model_id": model,
        "stream": True,
        "trial": trial,
        "params": '{"max_tokens":256,"temperature":0.0}',
        "param_temperature": 0.0,
        "param_max_tokens": 256,
        "messages": json.dumps([{"role": "user", "content": f"What is {a} × {b}? {instruction} the number."}], ensure_ascii=False),
        "target": str(a * b),
        "outcome": outcome,
        "output": (f"{reasons}The answer is {answer}" if prompt == "careful" else answer) if answered else None,
        "reasoning": None,
        "tool_calls": None,
        "conversation": None,
        "finish_reason": ("length" if outcome == "truncated" else "stop") if answered else None,
        "response_id": f"chatcmpl-{rng.integers(1 << 40):x}" if answered else None,
        "response_model": f"{model}-2025-01-25" if answered else None,
        "error_code": None if answered else "Throttling.RateQuota" if outcome == "rate_limited" else outcome,
        "error_message": None if answered else f"The request ended as {outcome}.",
        "http_status": {"rate_limited": 429, "server_error": 503, "filtered": 400, "rejected": 400}.get(outcome, 200 if answered else None),
        "attempts": 2 if retried or not answered else 1,
        "turns": 1,
        "prompt_tokens": n_in if answered else None,
        "completion_tokens": n_out if answered else None,
        "reasoning_tokens": None,
        "cached_tokens": 8 if answered and model == "qwen-max" else None,
        "total_tokens": n_in + n_out if answered else None,
        "usage_source": "api" if answered else None,
        "cost": (n_in * price[0] + n_out * price[1]) / 1e6 if price and answered else None,
        "currency": "CNY" if price and answered else None,
        "scheduled_at": at,
        "started_at": at + timedelta(milliseconds=wait),
        "finished_at": at + timedelta(milliseconds=wait + latency),
        "wait_ms": wait,
        "latency_ms": latency if answered else None,
        "ttft_ms": ttft if answered else None,
        "ttft_content_ms": ttft if answered else None,
        "tpot_ms": tpot if answered else None,
        "decode_ms": latency - ttft if answered else None,
        "user_latency_ms": wait + latency if answered else None,
        "user_ttft_ms": wait + ttft if answered else None,
        "chunks": n_out if answered else None,
        "tokens_per_chunk": 1.0 if answered else None,
        "stalled_ms": None,
        "score": float(right) if answered else None,
    }


def _attempts(rng: np.random.Generator, row: Mapping[str, Any], put: Mapping[str, str]) -> list[dict[str, Any]]:
    found = []
    for attempt in range(1, row["attempts"] + 1):
        last = attempt == row["attempts"]
        outcome = row["outcome"] if last else "rate_limited"
        message = None if outcome in ("ok", "truncated") else put.get("error_message", f"The request ended as {outcome}.")
        found.append(
            {
                "key": row["key"],
                "turn": 1,
                "attempt": attempt,
                "started_at": row["started_at"],
                "http_status": row["http_status"] if last else 429,
                "outcome": outcome,
                "error_code": None if message is None else put.get("error_code", "Throttling.RateQuota" if outcome == "rate_limited" else outcome),
                "error_message": message,
                "retry_after_ms": None if last else 2000.0,
                "wait_ms": row["wait_ms"] if last else 0.0,
                "latency_ms": row["latency_ms"] or float(rng.uniform(20, 90)),
                "ttft_ms": row["ttft_ms"],
                "response_id": row["response_id"],
                "prompt_tokens": row["prompt_tokens"],
                "completion_tokens": row["completion_tokens"],
                "reasoning_tokens": None,
                "cached_tokens": None,
                "cache_write_tokens": None,
                "cost": row["cost"] if last else None,
                "raw": None,
            }
        )
    return found


def _schema(row: Mapping[str, Any]) -> pa.Schema:
    kinds = {"stream": pa.bool_(), "tags": pa.map_(pa.string(), pa.string())}
    kinds |= dict.fromkeys(("trial", "http_status", "attempts", "turns", "chunks"), pa.int32())
    kinds |= dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens", "param_max_tokens"), pa.int64())
    kinds |= dict.fromkeys(("scheduled_at", "started_at", "finished_at"), pa.timestamp("us", "UTC"))

    def kind(name: str) -> pa.DataType:
        if name in kinds:
            return kinds[name]
        number = name.endswith("_ms") or name in ("cost", "tokens_per_chunk", "param_temperature") or (name.startswith("score_") and not name.endswith("_why"))
        return pa.float64() if number else pa.string()

    return pa.schema([(name, kind(name)) for name in row])


def _manifest(samples: int, models: Sequence[str], prompts: Sequence[str], trials: int, scorers: Sequence[str], put: Mapping[str, str]) -> dict[str, Any]:
    size = samples * len(models) * len(prompts) * trials
    template = "What is {{ a }} × {{ b }}? Give only the number."
    price = {
        m: {"currency": "CNY", "tiers": [{"up_to": None, "input": p[0], "output": p[1]}], "source": "catalogue", "date": "2025-01-01"}
        for m, p in PRICES.items()
    }
    plan = {
        "size": size,
        "trials": trials,
        "grid": {"temperature": [0.0], "max_tokens": [256]},
        "stream": [True],
        "params": ["max_tokens", "temperature"],
        "models": [{"name": put.get("model", m), "id": put.get("model", m), "provider": "dashscope", "price": price.get(m)} for m in models],
        "scorers": [{"name": name, "kind": name, "options": {}} for name in scorers],
        "prompt_sets": [
            {
                "name": put.get("prompt_set", "arithmetic"),
                "data": put.get("data", "../datasets/arithmetic.jsonl"),
                "data_hash": "sha256:9f2c11d07f4a2b",
                "samples": samples,
                "prompts": {put.get("prompt", p): put.get("template", template) for p in prompts},
                "target": "{{ answer }}",
                "tags": ["level", "topic"],
                "scorers": list(scorers),
            }
        ],
        "providers": [
            {
                "name": put.get("provider", "dashscope"),
                "kind": "openai",
                "base_url": "https://example.invalid/compatible-mode/v1",
                "api_key": "${DASHSCOPE_API_KEY}",
            }
        ],
        "retry": {},
        "timeouts": {},
    }
    return {
        "schema": 1,
        "evalrunner": "0.1.0",
        "python": "3.11.7",
        "platform": "Linux-6.1",
        "host": put.get("host", "bench-01"),
        "run_id": put.get("run_id", "20250301-090000-ab12"),
        "name": put.get("name", "model-selection"),
        "description": put.get("description", "Which Qwen is good enough for arithmetic?"),
        "state": "complete",
        "reason": put.get("reason"),
        "started_at": "2025-03-01T09:00:00Z",
        "finished_at": "2025-03-01T09:04:07Z",
        "command": ["evalrunner", "run", put.get("command", "configs/model-selection.yaml")],
        "git": {"commit": put.get("commit", "4f2a9c1"), "dirty": True},
        "config": {"origin": put.get("origin", "../../configs/model-selection.yaml"), "hash": "sha256:77aa"},
        "plan": plan,
        "counts": {"planned": size, "done": size, "by_outcome": {}, "missing": 0},
        "resumes": [],
        "parts": [],
    }
