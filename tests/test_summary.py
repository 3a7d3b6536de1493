"""Records -> tables: what a summary promises about coverage, bounds, percentiles, money and mixed data."""

import json
import time
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from evalrunner.analysis.summary import summarise

START = datetime(2026, 1, 1, tzinfo=UTC)
STRINGS = ("key", "prompt_set", "prompt", "sample_id", "sample_hash", "model", "model_id", "provider", "params", "outcome", "response_model")
MORE_STRINGS = ("error_code", "error_message", "currency", "usage_source", "score_exact_why")
SMALL = ("trial", "http_status", "attempts", "turns")
TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens")
TIMES = ("scheduled_at", "started_at", "finished_at")
DOUBLES = ("latency_ms", "ttft_ms", "ttft_content_ms", "tpot_ms", "user_latency_ms", "user_ttft_ms", "wait_ms", "stalled_ms", "cost", "score_exact")
KINDS = {
    pa.string(): STRINGS + MORE_STRINGS,
    pa.int32(): SMALL,
    pa.int64(): TOKENS,
    pa.timestamp("us", tz="UTC"): TIMES,
    pa.float64(): DOUBLES,
    pa.bool_(): ("stream",),
    pa.map_(pa.string(), pa.string()): ("tags",),
}
SCHEMA = pa.schema([(name, kind) for kind, names in KINDS.items() for name in names])


def row(sample, *, score=1.0, outcome="ok", model="a", prompt="plain", trial=0, stream=True, params=None, prompt_set="set", **more):
    """One record, answered unless told otherwise."""
    answered = outcome in {"ok", "truncated"}
    record = {
        "key": f"{prompt_set}/{prompt}/{model}/{params}/{stream}/{sample}/{trial}",
        "prompt_set": prompt_set,
        "prompt": prompt,
        "sample_id": f"s{sample:04}",
        "sample_hash": f"h{sample}",
        "model": model,
        "model_id": f"{model}-id",
        "provider": "p",
        "params": json.dumps(params or {}, sort_keys=True),
        "stream": stream,
        "trial": trial,
        "outcome": outcome,
        "score_exact": score if answered else None,
        "latency_ms": 100.0 + sample,
        "ttft_ms": 10.0 + sample if stream and answered else None,
        "prompt_tokens": 7 if answered else None,
        "completion_tokens": 3 if answered else None,
        "wait_ms": 1.0,
        "http_status": 200 if answered else 500,
        "attempts": 1,
        "turns": 1,
        "scheduled_at": START + timedelta(seconds=sample),
        "finished_at": START + timedelta(seconds=sample + 1),
    }
    return {**record, **more}


def table(rows):
    return pa.Table.from_pylist([{name: one.get(name) for name in SCHEMA.names} for one in rows], schema=SCHEMA)


def manifest(samples=10, trials=1, state="complete", **plan):
    sets = [{"name": "set", "samples": samples, "prompts": {"plain": "", "careful": ""}, "tags": ["level"], "scorers": ["exact"]}]
    described = {"trials": trials, "grid": {}, "stream": [True], "models": [{"name": "b"}, {"name": "a"}], "scorers": [{"name": "exact"}], "prompt_sets": sets}
    return {"run_id": "r", "name": "n", "state": state, "plan": {**described, **plan}}


def kinds(summary):
    return [notice.kind for notice in summary.notices]


def test_unanswered_requests_are_coverage_and_bounds_never_zeros():
    """6 right, 2 wrong, 2 timed out of 10: the score is 6/8 with Wilson's interval, coverage 0.8, and between 0.6 and 0.8 whatever the two would have said."""
    rows = [row(i) for i in range(6)] + [row(i, score=0.0) for i in (6, 7)] + [row(i, outcome="timeout") for i in (8, 9)]
    (cell,) = summarise(table(rows), None, manifest()).cells
    score = cell.scores["exact"]
    assert (cell.planned, cell.done, cell.answered, cell.coverage) == (10, 10, 8, 0.8)
    assert (score.value, score.n, score.low_bound, score.high_bound) == (0.75, 8, 0.6, 0.8)
    assert (score.low, score.high) == pytest.approx(proportion_confint(6, 8, method="wilson"))
    assert cell.outcomes == {"ok": 8, "timeout": 2}


def test_a_model_that_hardly_answered_is_not_ranked_and_named():
    """Two models of twenty answers tie; a third that answered one, rightly, has no tie group, and a notice says which and why."""
    rows = [row(i, score=float(i % 4 > 0), model=model) for model in "ab" for i in range(20)]
    rows += [row(i, model="c", outcome="ok" if i == 1 else "timeout") for i in range(20)]
    summary = summarise(table(rows), None, manifest(20, models=[{"name": name} for name in "abc"]))
    assert [cell.scores["exact"].tie_group for cell in summary.cells] == [1, 1, None]
    (notice,) = [one for one in summary.notices if one.kind == "set_apart"]
    assert notice.text == "c has exact for 1 samples only, less than half of what others have: it is not ranked."


def test_a_sample_counts_once_however_often_it_was_tried():
    """The score is the mean over samples of the mean over trials, even where trials are missing; pure counting would say 3/5."""
    rows = [row(0, trial=0), row(0, trial=1), row(0, trial=2), row(1, trial=0, score=0.0), row(1, trial=1, score=0.0), row(1, trial=2, outcome="transport")]
    score = summarise(table(rows), None, manifest(samples=2, trials=3)).cells[0].scores["exact"]
    assert (score.value, score.n, score.scored, score.planned) == (0.5, 2, 5, 6)
    assert score.method == "bayesian bootstrap"


def test_an_unfinished_run_says_what_is_missing():
    """Three of ten done: planned stays ten, coverage says so, and a notice tells what is missing and which cells have not begun."""
    summary = summarise(table([row(i) for i in range(3)]), None, manifest(state="interrupted") | {"counts": {"planned": 30}})
    assert (summary.totals.planned, summary.totals.done, summary.totals.missing) == (30, 3, 27)
    assert summary.cells[0].coverage == 0.3
    assert summary.cells[0].scores["exact"].low_bound == pytest.approx(0.3)
    assert {"missing", "cells_missing"} <= set(kinds(summary))


def test_nothing_done_is_a_summary_too():
    """An empty run has no cells, no rates, and says that it is empty."""
    summary = summarise(table([]), None, manifest() | {"counts": {"planned": 10}})
    assert (summary.cells, summary.models, summary.totals.coverage, summary.totals.active_s) == ((), (), 0.0, None)
    assert kinds(summary) == ["empty"]


def test_nothing_answered_has_no_numbers_at_all():
    """Where every request failed, scores, latencies, tokens and cost are unknown, not zero."""
    summary = summarise(table([row(i, outcome="server_error") for i in range(10)]), None, manifest())
    (cell,) = summary.cells
    assert (cell.scores["exact"].value, cell.scores["exact"].method) == (None, "none")
    assert (cell.scores["exact"].low_bound, cell.scores["exact"].high_bound) == (0.0, 1.0)
    assert (cell.latency["latency_ms"].n, cell.tokens["output"].sum, cell.cost.total) == (0, None, None)
    assert "infrastructure" in kinds(summary)


def test_streamed_and_not_streamed_are_two_cells():
    """The same question streamed and not streamed is never mixed: two cells, and no first token where nothing streams."""
    summary = summarise(table([row(i, stream=stream) for i in range(5) for stream in (True, False)]), None, manifest(stream=[True, False]))
    assert [cell.stream for cell in summary.cells] == [True, False]
    assert [cell.latency["ttft_ms"].n for cell in summary.cells] == [5, 0]
    assert [cell.label for cell in summary.cells] == ["streamed", "not streamed"]
    assert summary.varying == ("stream",)


def test_cells_stand_in_the_order_of_the_plan():
    """Models and parameter values come as the config has them, not by name."""
    rows = [row(0, model=model, params={"temperature": value}) for model in "ab" for value in (0.7, 0.0)]
    summary = summarise(table(rows), None, manifest(grid={"temperature": [0.7, 0.0]}))
    assert [(cell.model, cell.params["temperature"]) for cell in summary.cells] == [("b", 0.7), ("b", 0.0), ("a", 0.7), ("a", 0.0)]
    assert summary.cells[0].label == "b · temperature=0.7"
    assert summary.varying == ("model", "temperature")


def test_percentiles_are_numpys_and_blank_where_the_sample_is_too_small():
    """p50, p90 and p95 of 120 requests are numpy's; p99 needs 500, says so and stays blank."""
    rng = np.random.default_rng(0)
    values = rng.lognormal(5, 1, 120)
    distribution = summarise(table([row(i, latency_ms=float(v)) for i, v in enumerate(values)]), None, manifest(120)).cells[0].latency["latency_ms"]
    p50, p90, p95, p99 = distribution.quantiles
    assert [p50.value, p90.value, p95.value] == pytest.approx(np.quantile(values, [0.5, 0.9, 0.95]).tolist())
    assert p95.low < p95.value < p95.high
    assert (p99.value, p99.low, p99.high, p99.needed) == (None, None, None, 500)
    assert distribution.curve == pytest.approx(np.quantile(values, np.linspace(0, 1, 101)).tolist())
    assert distribution.sd == pytest.approx(values.std(ddof=1))


def test_times_that_we_spoiled_are_left_out_and_counted():
    """Where our own process stood still, latencies are not the server's: their rows keep tokens and scores, and a notice counts them."""
    rows = [row(i, stalled_ms=5000.0 if i < 3 else None) for i in range(10)]
    summary = summarise(table(rows), None, manifest())
    [cell] = summary.cells
    assert {name: cell.latency[name].n for name in ("latency_ms", "ttft_ms")} == {"latency_ms": 7, "ttft_ms": 7}
    assert cell.answered == cell.scores["exact"].scored == 10
    [notice] = [one for one in summary.notices if one.kind == "stalled"]
    assert notice.text == "Latencies leave out 3 requests: this process stood still while they were under way, for up to 5.0 s."


def test_money_is_known_or_unknown_never_zero():
    """Cost per correct answer is all that was paid over the sum of scores; one unknown cost makes it unknown, and the total a stated lower bound."""
    known = [row(i, score=float(i < 4), cost=0.01, currency="CNY") for i in range(8)] + [row(8, outcome="timeout", cost=0.02, currency="CNY")]
    summary = summarise(table(known), None, manifest(9))
    cost = summary.cells[0].cost
    assert (cost.total, cost.currency, cost.unknown) == (pytest.approx(0.10), "CNY", 0)
    assert (cost.per_1000, cost.per_correct["exact"]) == (pytest.approx(10), pytest.approx(0.025))
    assert summary.totals.wasted == {"CNY": pytest.approx(0.02)}
    partly = summarise(table([*known, row(9)]), None, manifest(10, models=[{"name": "a", "price": {"currency": "CNY"}}]))
    assert (partly.cells[0].cost.unknown, partly.cells[0].cost.per_correct["exact"]) == (1, None)
    assert "cost_unknown" in kinds(partly)


def test_currencies_are_never_added_together():
    """Two models paid in two currencies have two totals."""
    rows = [row(0, cost=1.0, currency="CNY"), row(0, model="b", cost=2.0, currency="USD")]
    summary = summarise(table(rows), None, manifest(1))
    assert summary.totals.spend == {"CNY": 1.0, "USD": 2.0}
    mixed = summarise(table([row(0, cost=1.0, currency="CNY"), row(1, cost=2.0, currency="USD")]), None, manifest(2))
    assert mixed.cells[0].cost.total is None
    assert "currencies" in kinds(mixed)


def test_tokens_are_summed_over_those_that_report_them():
    """Two answers with usage and one without: the sum and the mean of two, one unknown, and a notice."""
    summary = summarise(table([row(0), row(1, completion_tokens=5), row(2, completion_tokens=None)]), None, manifest(3))
    tokens = summary.cells[0].tokens["output"]
    assert (tokens.sum, tokens.mean, tokens.n, tokens.unknown) == (8, 4.0, 2, 1)
    assert summary.cells[0].tokens["reasoning"].sum is None
    assert "usage_missing" in kinds(summary)


TEXTS = [(name, pa.string()) for name in ("key", "outcome", "error_code", "error_message", "raw")]
ATTEMPTS = pa.schema([*TEXTS, ("attempt", pa.int32()), ("http_status", pa.int32()), ("cost", pa.float64())])


def test_errors_and_retries_are_counted_by_model_and_kind():
    """A 429 that a retry mended is an attempt, not a failed request; its share, the retries and what they cost are shown."""
    rows = [row(0, attempts=2, cost=0.03, currency="CNY"), row(1, outcome="rejected", http_status=400, error_code="bad", error_message="no such thing")]
    tries = [
        {"key": rows[0]["key"], "attempt": 1, "http_status": 429, "outcome": "rate_limited", "error_code": "limit", "error_message": "slow down", "cost": 0.01},
        {"key": rows[0]["key"], "attempt": 2, "http_status": 200, "outcome": "ok", "cost": 0.02, "raw": "AAA="},
        {"key": rows[1]["key"], "attempt": 1, "http_status": 400, "outcome": "rejected", "error_code": "bad", "error_message": "no such thing"},
        {"key": "a request without a row", "attempt": 1, "http_status": 500, "outcome": "server_error"},
    ]
    attempts = pa.Table.from_pylist(tries, schema=ATTEMPTS)
    summary = summarise(table(rows), attempts, manifest(2))
    found = {(error.model, error.outcome, error.http_status, error.code): (error.requests, error.attempts, error.example) for error in summary.errors}
    assert found == {
        ("a", "rejected", 400, "bad"): (1, 1, "no such thing"),
        ("a", "rate_limited", 429, "limit"): (0, 1, "slow down"),
        ("", "server_error", 500, None): (0, 1, None),
    }
    effort = summary.models[0].effort
    assert (effort.attempts, effort.retries, effort.rate_limited, effort.rate_limited_share) == (3, 1, 1, pytest.approx(1 / 3))
    assert summary.totals.wasted == {"CNY": pytest.approx(0.01)}
    assert summary.models[0].infrastructure == 0
    assert "replaced" in kinds(summary)


def test_without_an_attempts_table_the_rows_say_what_they_can():
    """Attempts and retries come from the rows where the attempts table is missing."""
    effort = summarise(table([row(0, attempts=3), row(1, outcome="rate_limited", attempts=2)]), None, manifest(2)).totals.effort
    assert (effort.requests, effort.attempts, effort.retries, effort.rate_limited) == (2, 5, 3, 1)


def test_infrastructure_errors_that_differ_between_models_raise_a_banner():
    """20 % of one model's requests timed out, none of the other's: both that and the difference are said."""
    rows = [row(i, model=model, outcome="timeout" if model == "a" and i < 20 else "ok") for model in "ab" for i in range(100)]
    summary = summarise(table(rows), None, manifest(100))
    assert [notice.text.split()[2] for notice in summary.notices if notice.kind == "infrastructure"] == ["a's"]
    assert "infrastructure_differs" in kinds(summary)


def test_slices_by_tag_carry_their_own_estimates():
    """Every value of a tag has its samples, coverage and score per cell; a tag with a value for every sample is no slice but a notice."""
    rows = [row(i, score=float(i % 2), tags=[("level", "easy" if i % 2 else "hard"), ("id", str(i))]) for i in range(60)]
    rows.append(row(60, outcome="timeout", tags=[("level", "hard")]))
    summary = summarise(table(rows), None, manifest(61))
    found = {(one.tag, one.value): (one.samples, one.answered, one.scores["exact"].value, one.scores["exact"].high_bound) for one in summary.slices}
    assert found == {("level", "easy"): (30, 30, 1.0, 1.0), ("level", "hard"): (31, 30, 0.0, pytest.approx(1 / 31))}
    assert "tag_values" in kinds(summary)


def test_time_is_counted_without_pauses_between_resumes():
    """Ten seconds of work, a night's pause, ten more: rates are over twenty seconds."""
    night = timedelta(hours=9)
    later = [row(10 + i, scheduled_at=START + night + timedelta(seconds=i), finished_at=START + night + timedelta(seconds=i + 1)) for i in range(10)]
    rows = [*(row(i) for i in range(10)), *later]
    totals = summarise(table(rows), None, manifest(20)).totals
    assert (totals.active_s, totals.requests_per_s, totals.output_tokens_per_s) == (20.0, 1.0, 3.0)


def test_the_timeline_adds_up_to_the_run():
    """Every request that ended is in exactly one stretch of its model."""
    rows = [row(i, model=model, outcome="ok" if i % 3 else "timeout") for i in range(90) for model in "ab"]
    moments = summarise(table(rows), None, manifest(90)).timeline
    for model in "ab":
        assert sum(sum(one.outcomes.values()) for one in moments if one.model == model) == 90
    assert max(one.start_s for one in moments) < 91


def test_answers_that_a_scorer_failed_on_are_said():
    """An answer without a score is missing data: not zero, and counted."""
    summary = summarise(table([row(0), row(1, score=None)]), None, manifest(2))
    assert summary.cells[0].scores["exact"].value == 1.0
    assert summary.cells[0].scores["exact"].low_bound == 0.5
    assert "unscored" in kinds(summary)


@pytest.mark.parametrize("stored", [False, True])
def test_the_reason_why_answers_have_no_score_is_said(stored):
    """One reason stands beside the count, on one line: nobody has to look it up in the rows. A score that is there gives none."""
    rows = [row(0) | {"score_exact_why": "equal"}, *(row(i, score=None) | {"score_exact_why": "RuntimeError: boom\nin line 3"} for i in (1, 2))]
    results = pads.dataset(table(rows)) if stored else table(rows)
    (notice,) = [one for one in summarise(results, None, manifest(3)).notices if one.kind == "unscored"]
    assert notice.text == "2 answers have no score of exact; of the first: RuntimeError: boom in line 3"


def test_what_else_a_reader_must_know_is_said():
    """Cut answers, models that changed under their name, estimated usage, broken-off requests: each has its notice."""
    rows = [row(0, outcome="truncated", response_model="m-1"), row(1, response_model="m-2", usage_source="estimate"), row(2, outcome="broken_stream")]
    assert {"truncated", "response_models", "usage_estimated", "maybe_billed"} <= set(kinds(summarise(table(rows), None, manifest(3))))


def test_pass_at_k_is_shown_for_trials_of_right_and_wrong():
    """With three trials of a 0/1 score: the chance that one of k is right, and that all are."""
    rows = [row(i, trial=t, score=float(t <= i)) for i in range(3) for t in range(3)]
    repeats = summarise(table(rows), None, manifest(3, trials=3)).cells[0].repeats["exact"]
    assert [(one.k, one.n) for one in repeats] == [(1, 3), (2, 3), (3, 3)]
    assert [one.any for one in repeats] == pytest.approx([2 / 3, (2 / 3 + 1 + 1) / 3, 1])
    assert [one.all for one in repeats] == pytest.approx([2 / 3, (0 + 1 / 3 + 1) / 3, 1 / 3])


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 12), st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(["ok", "ok", "ok", "timeout", "rejected"]), st.floats(0, 1), st.booleans()
    ),
    max_size=60,
    unique_by=lambda one: one[:3] + one[5:],
)


@settings(max_examples=25, deadline=None)
@given(RECORDS, st.randoms(use_true_random=False))
def test_equal_records_give_equal_bytes_in_any_order_and_form(records, rng):
    """Rows in another order, in several chunks, or as a data frame give the same summary byte for byte; every mean agrees with plain Python."""
    rows = [row(s, model=m, trial=t, outcome=o, score=v, stream=f, cost=v, currency="CNY", tags=[("level", str(s % 2))]) for s, m, t, o, v, f in records]
    there = summarise(table(rows), None, manifest(13, trials=3))
    rng.shuffle(rows)
    half = len(rows) // 2
    back = summarise(pa.concat_tables([table(rows[:half]), table(rows[half:])]), None, manifest(13, trials=3))
    frame = summarise(table(rows).to_pandas(), pd.DataFrame(), manifest(13, trials=3))
    assert msgspec.json.encode(there) == msgspec.json.encode(back) == msgspec.json.encode(frame)
    for cell in there.cells:
        mine = [one for one in rows if (one["model"], one["stream"]) == (cell.model, cell.stream)]
        by_sample = {}
        for one in mine:
            if one["outcome"] == "ok":
                by_sample.setdefault(one["sample_id"], []).append(one["score_exact"])
        means = [sum(scores) / len(scores) for scores in by_sample.values()]
        assert cell.scores["exact"].value == (pytest.approx(sum(means) / len(means)) if means else None)
        assert sum(cell.outcomes.values()) == cell.done == len(mine)


def test_fifty_thousand_records_take_about_a_second():
    """50,000 records in five cells: well under 1.5 s of processor time on a free core; the limit here leaves room for a busy machine."""
    rows = table([row(i) for i in range(500)])
    cells = [
        rows.set_column(rows.schema.get_field_index("model"), "model", pa.array([f"m{at}"] * 500)).set_column(
            rows.schema.get_field_index("sample_id"), "sample_id", pa.array([f"s{at // 5}-{i}" for i in range(500)])
        )
        for at in range(100)
    ]
    whole = pa.concat_tables([one.set_column(one.schema.get_field_index("model"), "model", pa.array([f"m{at % 5}"] * 500)) for at, one in enumerate(cells)])
    begin = time.process_time()
    summary = summarise(whole, None, manifest(10_000))
    assert time.process_time() - begin < 4
    assert (summary.totals.done, len(summary.cells), summary.cells[0].samples) == (50_000, 5, 10_000)


def test_a_summary_is_json():
    """`--json` prints the summary as it is, and it reads back."""
    summary = summarise(table([row(i) for i in range(4)]), None, manifest(4))
    assert json.loads(msgspec.json.encode(summary))["cells"][0]["scores"]["exact"]["value"] == 1.0
