"""The tables of each cell: scores with intervals, latency, speed, tokens, cost; and the same scores by tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from scipy import special

from evalrunner.analysis.intervals import mean_intervals, quantile_ranks, wilson
from evalrunner.analysis.power import pass_all_k, pass_at_k
from evalrunner.analysis.rows import LATENCIES, TOKENS, Factor, Floats, Ints, Rows, factor
from evalrunner.analysis.stats import tie_groups
from evalrunner.analysis.tables import Cost, Distribution, Estimate, Mean, Quantile, Repeat, Slice, TokenCount

PERCENTILES = (0.5, 0.9, 0.95, 0.99)
MAX_TAG_VALUES = 50
_CURVE = np.linspace(0.0, 1.0, 101)


class Scored(NamedTuple):
    """One scorer's results by unit (a sample in a cell): how many of its requests have a score, their sum, their mean (NaN without any)."""

    requests: Ints
    total: Floats
    mean: Floats


def score_units(rows: Rows, scorer: str) -> Scored:
    """The scores of `scorer`, added up by sample and cell. Unanswered requests never count."""
    return by_unit(rows, f"score_{scorer}")


def by_unit(rows: Rows, column: str) -> Scored:
    """A column over the answered requests that have it, added up by sample and cell."""
    return _added_up(rows, rows.number(column))


def _added_up(rows: Rows, values: Floats) -> Scored:
    have = rows.answered & ~np.isnan(values)
    size = len(rows.first)
    count = np.bincount(rows.unit[have], minlength=size)
    total = np.bincount(rows.unit[have], weights=values[have], minlength=size).astype(np.float64)
    return Scored(count, total, np.where(count > 0, total / np.maximum(count, 1), np.nan))


def estimates(scored: Scored, group: Ints, planned: Ints) -> list[Estimate]:
    """One estimate per group; `group` gives each unit's (-1: none), `planned` the requests of each group."""
    size = len(planned)
    use = (scored.requests > 0) & (group >= 0)
    at, mean, count = group[use], scored.mean[use], scored.requests[use]
    n = np.bincount(at, minlength=size)
    requests = np.bincount(at, weights=count, minlength=size)
    total = np.bincount(at, weights=scored.total[use], minlength=size)
    safe = np.maximum(n, 1)
    value = np.bincount(at, weights=mean, minlength=size) / safe
    mixed = np.bincount(at, weights=(mean != 0) & (mean != 1), minlength=size)
    plain = (requests == n) & (mixed == 0)
    first, second, third = (np.bincount(at, weights=mean**power, minlength=size) for power in (1, 2, 3))
    low, high = mean_intervals(n, first, second, third)
    plain_low, plain_high = wilson(value * safe, safe)
    low, high = np.where(plain, plain_low, low), np.where(plain, plain_high, high)
    found = []
    for i in range(size):
        known = n[i] > 0
        least = max(int(planned[i]), int(requests[i]))
        found.append(
            Estimate(
                value=float(value[i]) if known else None,
                low=float(low[i]) if known else None,
                high=float(high[i]) if known else None,
                n=int(n[i]),
                scored=int(requests[i]),
                planned=least,
                total=float(total[i]) if known else None,
                method=("wilson" if plain[i] else "bayesian bootstrap") if known else "none",
                low_bound=float(total[i]) / least if least else None,
                high_bound=float(total[i] + least - requests[i]) / least if least else None,
            )
        )
    return found


def tie_group_numbers(rows: Rows, scored: Scored) -> list[int | None]:
    """Each cell's tie group among the cells of its prompt set (metrics.md, "tie groups")."""
    numbers: list[int | None] = [None] * len(rows.cells)
    for members in cells_by_set(rows).values():
        for at, number in zip(members, tie_groups(sample_table(rows, scored, members)), strict=True):
            numbers[at] = number
    return numbers


def cells_by_set(rows: Rows) -> dict[str, list[int]]:
    """The cells of each prompt set, in order: only these are compared with each other."""
    found: dict[str, list[int]] = {}
    for at, key in enumerate(rows.cells):
        found.setdefault(key.prompt_set, []).append(at)
    return found


def sample_table(rows: Rows, scored: Scored, members: Sequence[int]) -> Floats:
    """One row per cell of `members` (ascending), one column per sample that any of them has a value for; NaN where there is none."""
    unit_cell, unit_sample = rows.cell[rows.first], rows.sample[rows.first]
    here = np.isin(unit_cell, members) & (scored.requests > 0)
    samples, column = np.unique(unit_sample[here], return_inverse=True)
    table = np.full((len(members), len(samples)), np.nan)
    table[np.searchsorted(members, unit_cell[here]), column] = scored.mean[here]
    return table


def mean_requests(rows: Rows, scored: Scored, members: Sequence[int]) -> Floats:
    """For each cell of `members`: how many requests a sample with a value has, on average; at least 1."""
    unit_cell, have = rows.cell[rows.first], scored.requests > 0
    size = len(rows.cells)
    units, requests = np.bincount(unit_cell[have], minlength=size), np.bincount(unit_cell[have], weights=scored.requests[have], minlength=size)
    return np.maximum(requests / np.maximum(units, 1), 1.0)[list(members)]


def repeats(rows: Rows, scored: Scored, trials: int) -> list[tuple[Repeat, ...]]:
    """Per cell: pass@k and pass^k for k up to `trials`; empty with one trial, or where a sum of scores is not whole."""
    unit_cell = rows.cell[rows.first]
    found: list[tuple[Repeat, ...]] = []
    for cell in range(len(rows.cells)):
        use = (unit_cell == cell) & (scored.requests > 0)
        n, right = scored.requests[use], scored.total[use]
        ks = range(1, trials + 1) if trials > 1 and np.all(right == np.rint(right)) else ()
        enough = [(k, n >= k) for k in ks]
        found.append(
            tuple(
                Repeat(k=k, n=int(mask.sum()), any=float(pass_at_k(n[mask], right[mask], k).mean()), all=float(pass_all_k(n[mask], right[mask], k).mean()))
                for k, mask in enough
                if mask.any()
            )
        )
    return found


def distributions(values: Floats, group: Ints, size: int) -> list[Distribution]:
    """The distribution of `values` in each of `size` groups; NaN is left out."""
    have = ~np.isnan(values) & (group >= 0)
    at, known = group[have], values[have]
    order = np.lexsort((known, at))
    known = known[order]
    ends = np.cumsum(np.bincount(at, minlength=size))
    return [_distribution(part) for part in np.split(known, ends[:-1])] if size else []


def _distribution(ordered: Floats) -> Distribution:
    n = len(ordered)
    if n == 0:
        return Distribution(n=0, mean=None, min=None, max=None, quantiles=tuple(_quantile(ordered, p) for p in PERCENTILES))
    return Distribution(
        n=n,
        mean=float(ordered.mean()),
        sd=float(ordered.std(ddof=1)) if n > 1 else None,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        quantiles=tuple(_quantile(ordered, p) for p in PERCENTILES),
        curve=tuple(_interpolated(ordered, _CURVE).tolist()),
    )


def _quantile(ordered: Floats, p: float) -> Quantile:
    n, needed = len(ordered), round(5 / (1 - p))
    if n < needed:
        return Quantile(p=p, value=None, low=None, high=None, n=n, needed=needed)
    value = float(_interpolated(ordered, np.array([p]))[0])
    ranks = quantile_ranks(n, p)
    low, high = (float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])) if ranks else (None, None)
    return Quantile(p=p, value=value, low=low, high=high, n=n, needed=needed)


def _interpolated(ordered: Floats, p: Floats) -> Floats:
    """Hyndman-Fan type 7 (numpy's linear) on sorted values."""
    place = p * (len(ordered) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    return np.asarray(ordered[below] + (place - below) * (ordered[above] - ordered[below]), dtype=np.float64)


def latencies(rows: Rows) -> list[dict[str, Distribution]]:
    """Per cell: every latency of metrics.md over the answered requests."""
    found = {name: distributions(np.where(rows.answered, rows.number(name), np.nan), rows.cell, len(rows.cells)) for name in LATENCIES}
    return [{name: found[name][at] for name in LATENCIES} for at in range(len(rows.cells))]


def speeds(rows: Rows) -> list[dict[str, Distribution]]:
    """Per cell: output tokens per second of each answered request, once they flow (1000 / TPOT) and end to end (N / e2e)."""
    found = {name: distributions(values, rows.cell, len(rows.cells)) for name, values in _speeds(rows).items()}
    return [{name: found[name][at] for name in found} for at in range(len(rows.cells))]


def _speeds(rows: Rows) -> dict[str, Floats]:
    tpot, latency = rows.number("tpot_ms"), rows.number("latency_ms")
    with np.errstate(divide="ignore", invalid="ignore"):
        decode = np.where(rows.answered & (tpot > 0), 1000 / tpot, np.nan)
        overall = np.where(rows.answered & (latency > 0), rows.number("completion_tokens") / latency * 1000, np.nan)
    return {"decode_tok_s": decode, "e2e_tok_s": overall}


def means(rows: Rows) -> list[dict[str, Mean]]:
    """Per cell: the mean of every column that has one."""
    found: list[dict[str, Mean]] = [{} for _ in rows.cells]
    columns = ((name, rows.number(name)) for name in (*LATENCIES, *TOKENS.values(), "cost"))
    unit_cell, size = rows.cell[rows.first], len(rows.cells)
    for name, values in chain(columns, _speeds(rows).items()):
        units = _added_up(rows, values)
        have = units.requests > 0
        at, known = unit_cell[have], units.mean[have]
        n = np.bincount(at, minlength=size)
        value = np.bincount(at, weights=known, minlength=size) / np.maximum(n, 1)
        variance = np.bincount(at, weights=(known - value[at]) ** 2, minlength=size) / np.maximum(n - 1, 1)
        half = special.stdtrit(np.maximum(n - 1, 1), 0.975) * np.sqrt(variance / np.maximum(n, 1))
        low, high = value - half, value + half
        for cell in np.flatnonzero(n).tolist():
            ends = (float(low[cell]), float(high[cell])) if n[cell] > 1 else (None, None)
            found[cell][name] = Mean(value=float(value[cell]), low=ends[0], high=ends[1], n=int(n[cell]))
    return found


def token_counts(rows: Rows, group: Ints, size: int) -> list[dict[str, TokenCount]]:
    """Per group: tokens of every kind."""
    counts = {}
    for name, column in TOKENS.items():
        values = rows.number(column)
        known = ~np.isnan(values)
        n = np.bincount(group[known], minlength=size)
        total = np.bincount(group[known], weights=values[known], minlength=size)
        unknown = np.bincount(group[rows.answered & ~known], minlength=size)
        counts[name] = [
            TokenCount(sum=int(total[i]) if n[i] else None, mean=float(total[i] / n[i]) if n[i] else None, n=int(n[i]), unknown=int(unknown[i]))
            for i in range(size)
        ]
    return [{name: counts[name][i] for name in TOKENS} for i in range(size)]


def costs(rows: Rows, scores: Sequence[Mapping[str, Estimate]]) -> list[Cost]:
    """Per cell: what was paid. Two currencies in one cell have no total."""
    size, cost, currency = len(rows.cells), rows.number("cost"), rows.factor("currency")
    known = ~np.isnan(cost)
    total = np.bincount(rows.cell[known], weights=cost[known], minlength=size)
    paid = np.bincount(rows.cell[known], minlength=size)
    answered = known & rows.answered
    mean_sum, mean_n = np.bincount(rows.cell[answered], weights=cost[answered], minlength=size), np.bincount(rows.cell[answered], minlength=size)
    unknown = np.bincount(rows.cell[rows.answered & ~known], minlength=size)
    kinds = [np.unique(currency.codes[known & (rows.cell == i)]) for i in range(size)]
    found = []
    for i in range(size):
        sure = paid[i] > 0 and len(kinds[i]) == 1
        whole = float(total[i]) if sure else None
        per_correct = {name: whole / one.total if whole is not None and unknown[i] == 0 and one.total else None for name, one in scores[i].items()}
        found.append(
            Cost(
                total=whole,
                currency=currency.names[kinds[i][0]] if sure and kinds[i][0] >= 0 else None,
                per_1000=float(1000 * mean_sum[i] / mean_n[i]) if sure and mean_n[i] else None,
                per_correct=per_correct,
                unknown=int(unknown[i]),
            )
        )
    return found


def tag_factors(rows: Rows) -> dict[str, Factor]:
    """Every tag with its value per unit. Samples without the tag have code -1."""
    if not rows.any("tags"):
        return {}
    tags = pc.take(rows.array("tags"), rows.first)
    return {name: factor(pc.map_lookup(tags, name, "first")) for name in sorted(pc.unique(tags.keys).to_pylist())}


def slices(rows: Rows, tags: Mapping[str, Factor], scored: Mapping[str, Scored], scorers: Sequence[Sequence[str]]) -> list[Slice]:
    """The scores of each cell by tag value; `scorers` names those of each cell. A tag of more than MAX_TAG_VALUES values is no slice."""
    unit_cell = rows.cell[rows.first]
    done = np.bincount(rows.unit, minlength=len(rows.first))
    answered = np.bincount(rows.unit[rows.answered], minlength=len(rows.first))
    found = []
    for tag, (codes, values) in tags.items():
        if len(values) > MAX_TAG_VALUES:
            continue
        size = len(rows.cells) * len(values)
        group = np.where(codes >= 0, unit_cell * len(values) + codes, -1)
        inside = group >= 0
        counts = [np.bincount(group[inside], weights=weights[inside], minlength=size).astype(np.int64) for weights in (np.ones_like(done), done, answered)]
        by_scorer = {name: estimates(one, group, counts[1]) for name, one in scored.items()}
        for at in np.flatnonzero(counts[0]).tolist():
            cell, value = divmod(at, len(values))
            found.append(
                Slice(
                    tag=tag,
                    value=values[value],
                    cell=cell,
                    samples=int(counts[0][at]),
                    done=int(counts[1][at]),
                    answered=int(counts[2][at]),
                    scores={name: by_scorer[name][at] for name in scorers[cell]},
                )
            )
    return found
