"""What the pairwise matrix and the factor view promise: paired by sample, corrected for many looks, and only like compared with like."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evalrunner.analysis import pairs as pairing
from evalrunner.analysis.cells import score_units
from evalrunner.analysis.factors import factors
from evalrunner.analysis.pairs import pairs
from evalrunner.analysis.rows import Rows


def rows_of(cells, *, samples=40, seed=1, own=None):
    """Rows for cells given as (model, prompt, temperature, chance of being right); `own`: parameters that belong to one model."""
    rng = np.random.default_rng(seed)
    records = []
    for model, prompt, temperature, chance in cells:
        params = {"temperature": temperature, **(own or {}).get(model, {})}
        for sample in range(samples):
            right = bool(rng.random() < chance)
            records.append(
                {
                    "prompt_set": "set",
                    "prompt": prompt,
                    "model": model,
                    "provider": "p",
                    "params": json.dumps(params, sort_keys=True),
                    "stream": True,
                    "sample_id": f"s{sample:03}",
                    "trial": 0,
                    "outcome": "ok",
                    "score_exact": float(right),
                    "latency_ms": 100.0 * (1 + temperature) + sample,
                    "cost": 0.5,
                    "currency": "CNY" if model != "dollar" else "USD",
                }
            )
    plan = {"prompt_sets": [{"name": "set", "prompts": {"plain": "", "careful": ""}}], "models": [{"name": n} for n in ("a", "b", "c", "dollar")]}
    return Rows(pa.Table.from_pylist(records), {**plan, "grid": {"temperature": [0.0, 0.7]}})


def found(rows):
    scored = {"exact": score_units(rows, "exact")}
    return pairs(rows, scored), factors(rows, scored)


def test_pairs_agree_with_another_library():
    """Wins, losses, exact McNemar p and Holm's adjustment are those of statsmodels."""
    rows = rows_of([("a", "plain", 0.0, 0.9), ("b", "plain", 0.0, 0.6), ("c", "plain", 0.0, 0.5)])
    scores = rows.number("score_exact").reshape(3, 40)
    compared, _ = found(rows)
    assert [(one.first, one.second) for one in compared] == [(0, 1), (0, 2), (1, 2)]
    for one in compared:
        mine, theirs = scores[one.first], scores[one.second]
        counts = [[np.sum((mine == a) & (theirs == b)) for b in (1, 0)] for a in (1, 0)]
        assert (one.wins, one.losses, one.ties) == (counts[0][1], counts[1][0], counts[0][0] + counts[1][1])
        assert one.p == pytest.approx(mcnemar(counts, exact=True).pvalue)
        assert one.difference == pytest.approx(mine.mean() - theirs.mean())
        assert one.low <= one.difference <= one.high
    assert [one.p_holm for one in compared] == pytest.approx(multipletests([one.p for one in compared], method="holm")[1])


def test_of_very_many_cells_the_best_are_compared(monkeypatch):
    """A sweep of a hundred cells makes a table that can still be read: the best by score, in the order of the plan."""
    monkeypatch.setattr(pairing, "MAX_CELLS", 2)
    compared, _ = found(rows_of([("a", "plain", 0.0, 0.9), ("b", "plain", 0.0, 0.1), ("c", "plain", 0.0, 0.8)]))
    assert [(one.first, one.second) for one in compared] == [(0, 2)]


def test_a_factor_is_averaged_over_the_others():
    """What the prompt did is the mean over models and temperatures of the paired differences; each sample counts once."""
    cells = [(m, p, t, 0.5 + 0.3 * (p == "careful")) for m in "ab" for p in ("plain", "careful") for t in (0.0, 0.7)]
    rows = rows_of(cells, samples=60)
    _, effects = found(rows)
    by_name = {(one.factor, one.metric): one for one in effects}
    scores = rows.number("score_exact").reshape(2, 2, 2, 60)
    prompt = by_name["prompt", "score_exact"]
    assert (prompt.level, prompt.reference, prompt.cells, prompt.n) == ("careful", "plain", 4, 60)
    assert prompt.difference == pytest.approx(scores[1].mean() - scores[0].mean())
    assert 0 < prompt.low < prompt.difference < prompt.high < 0.5
    assert (by_name["temperature", "latency_ms"].difference, by_name["temperature", "latency_ms"].level) == (pytest.approx(70.0), 0.7)
    assert by_name["model", "score_exact"].low < 0 < by_name["model", "score_exact"].high


def test_unlike_cells_are_not_compared():
    """A level is held against the reference only where everything else is equal; a setting that one model has for itself belongs to that model."""
    _, effects = found(rows_of([("a", "plain", 0.0, 0.5), ("b", "careful", 0.0, 0.5)]))
    assert effects == []
    _, effects = found(rows_of([("a", "plain", 0.0, 0.5), ("b", "plain", 0.0, 0.5)], own={"b": {"enable_thinking": False}}))
    assert {one.factor for one in effects} == {"model"}


def test_currencies_are_not_compared():
    """What a model costs in dollars is not less than what another costs in yuan."""
    _, effects = found(rows_of([("a", "plain", 0.0, 0.5), ("dollar", "plain", 0.0, 0.5)]))
    assert {one.metric for one in effects} == {"score_exact", "latency_ms"}
