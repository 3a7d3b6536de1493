"""What a gate says, before there is anything to measure: its rules, the metrics they may name, and the cells they are about. Light to import: a config
is checked with it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct, convert, field

TOKENS = {
    "input": "prompt_tokens",
    "output": "completion_tokens",
    "reasoning": "reasoning_tokens",
    "cached": "cached_tokens",
    "total": "total_tokens",
}
LATENCIES = ("latency_ms", "ttft_ms", "ttft_content_ms", "tpot_ms", "user_latency_ms", "user_ttft_ms", "wait_ms")
SPEEDS = ("decode_tok_s", "e2e_tok_s")
PERCENTILES = ("p50", "p90", "p95", "p99")
COSTS = ("cost", "cost.total", "cost.per_1000")
STREAMED = frozenset({"ttft_ms", "ttft_content_ms", "tpot_ms", "user_ttft_ms", "decode_tok_s"})
"""What only a stream has: rules for these are about streamed cells."""

DIMENSIONS = ("prompt_set", "prompt", "model", "provider", "stream")
"""Of a cell, beside its parameters."""
MOST_CHOICES = 8


class CellKey(NamedTuple):
    """What makes a cell; `params` is the JSON text of its grid point."""

    prompt_set: str
    prompt: str
    model: str
    provider: str
    params: str
    stream: bool

    def values(self) -> dict[str, Any]:
        """The parameters by name."""
        return json.loads(self.params) if self.params else {}


class Rule(Struct, frozen=True, kw_only=True):
    """One condition of a config's `gate`. `max_drop`: how much worse than the baseline, in the metric's unit, whichever way is worse for it.

    Metrics: `score_<scorer>`, `coverage`, latencies and speeds (`ttft_ms`: the mean; `ttft_ms.p95`), token columns (`completion_tokens`: the mean per
    request), `cost` (per request), `cost.total`, `cost.per_1000`, `cost.per_correct.<scorer>`. `where` chooses cells; without it every cell must pass.
    """

    metric: str
    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    where: dict[str, Any] = field(default_factory=dict)


class Gate(Struct, frozen=True, kw_only=True):
    """A rule, and the run directory that its `max_drop` is measured against."""

    rule: Rule
    baseline: Path | None = None


def rule_of(written: Mapping[str, Any]) -> Rule:
    """A rule as a config writes it; its baseline is not part of it. Raises `msgspec.ValidationError`."""
    return convert({name: value for name, value in written.items() if name != "baseline" and value is not None}, Rule)


def metric_problem(metric: str, scorers: Sequence[str]) -> str | None:
    """What is wrong with the name of a metric, or None."""
    known = known_metrics(scorers)
    if metric in known:
        return None
    near = difflib.get_close_matches(metric, known, n=1)
    return f"no metric is called {metric!r}" + (f" (did you mean {near[0]!r}?)" if near else f" (known: {_in_short(known)})")


def _in_short(known: Sequence[str]) -> str:
    """Each metric once: percentiles are told after all of them, not beside each."""
    whole = ", ".join(name for name in known if name.rpartition(".")[2] not in PERCENTILES)
    return f"{whole}; times and speeds as {', '.join(f'ttft_ms.{p}' for p in PERCENTILES)}, too"


def known_metrics(scorers: Sequence[str]) -> list[str]:
    """Every metric a rule may name."""
    timed = [*LATENCIES, *SPEEDS]
    scored = [name for scorer in scorers for name in (f"score_{scorer}", f"cost.per_correct.{scorer}")]
    return [*scored, "coverage", *timed, *(f"{name}.{p}" for name in timed for p in PERCENTILES), *TOKENS.values(), *COSTS]


def matches(key: CellKey, where: Mapping[str, Any]) -> bool:
    """Whether a cell has every value of `where`: dimensions by name, anything else a parameter."""
    return all(as_text(value) == as_text(_dimension(key, name)) for name, value in where.items())


def choices(keys: Sequence[CellKey], where: Mapping[str, Any]) -> str:
    """What `where` could have named, for who chose no cell."""
    known = dict.fromkeys((*DIMENSIONS, *(name for key in keys for name in key.values())))
    if unknown := [name for name in where if name not in known]:
        return f"{unknown[0]} is no part of a cell; these are: {', '.join(known)}"
    wrong = [name for name, value in where.items() if not any(matches(key, {name: value}) for key in keys)]
    there = {name: list(dict.fromkeys(as_text(_dimension(key, name)) for key in keys))[:MOST_CHOICES] for name in wrong or where}
    return "; ".join(f"{name} is {' or '.join(values)}" for name, values in there.items())


def is_about(rule: Rule, key: CellKey, scorers: Sequence[str]) -> bool:
    """Whether a rule is about a cell: `where` says so, a score is asked only of prompt sets with its scorer (`scorers`), TTFT only of streams."""
    scorer = rule.metric.removeprefix("score_").removeprefix("cost.per_correct.")
    if not key.stream and rule.metric.partition(".")[0] in STREAMED:
        return False
    return matches(key, rule.where) and (scorer == rule.metric or scorer in scorers)


def planned_cells(plan: Mapping[str, Any]) -> Iterator[tuple[CellKey, Sequence[str]]]:
    """Every cell of a manifest's plan, as its rows name it, with the scorers of its prompt set; none where the plan does not say."""
    for model in plan.get("models") or ():
        written = {**(plan.get("grid") or {}), **(model.get("params") or {})}
        grid = {name: values if isinstance(values, list) else [values] for name, values in written.items()}
        points = [{name: value for name, value in zip(grid, point, strict=True) if value is not None} for point in product(*grid.values())]
        for one in plan.get("prompt_sets") or ():
            for prompt, params, stream in product(one.get("prompts") or (), points, plan.get("stream") or ()):
                key = CellKey(one["name"], prompt, model["name"], model.get("provider") or "", json.dumps(params, sort_keys=True), stream)
                yield key, one.get("scorers") or ()


def unserved(plan: Mapping[str, Any], served: Iterable[CellKey], where: Mapping[str, Any]) -> list[tuple[CellKey, Sequence[str]]]:
    """The planned cells that `where` chooses and that have no row."""
    known = {_canonical(key) for key in served}
    return [(key, scorers) for key, scorers in planned_cells(plan) if matches(key, where) and _canonical(key) not in known]


def _canonical(key: CellKey) -> CellKey:
    return key._replace(params=json.dumps(key.values(), sort_keys=True))


def alone(key: CellKey, names: Sequence[str]) -> dict[str, Any]:
    """The `where` that finds this cell and no other; `names`: every parameter there is."""
    plain = {name: getattr(key, name) for name in CellKey._fields if name != "params"}
    return {**plain, **{name: key.values().get(name) for name in names}}


def as_text(value: Any) -> str:
    """A value as text, so that 0.70 from a command line, 0.7 from a config and 0 beside 0.0 meet."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _dimension(key: CellKey, name: str) -> Any:
    return getattr(key, name) if name in DIMENSIONS else key.values().get(name)
