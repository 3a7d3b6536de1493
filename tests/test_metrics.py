"""Every number has one formula; what is undefined is None, never 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.analysis import metrics
from evalrunner.records import Timing, Usage

MS = 1_000_000
STREAM = Timing(
    started_ns=100 * MS,
    first_output_ns=150 * MS,
    first_content_ns=250 * MS,
    last_output_ns=550 * MS,
    ended_ns=560 * MS,
    output_events=11,
    output_reads=10,
)
WHOLE = Timing(started_ns=100 * MS, ended_ns=400 * MS)
USAGE = Usage(prompt_tokens=10, completion_tokens=41)


def test_a_stream_has_every_time():
    """The textbook stream: first token 50 ms, first answer token 150 ms, done 450 ms after the start, 10 ms of tail kept apart."""
    assert metrics.ttft_ms(STREAM) == 50
    assert metrics.ttft_content_ms(STREAM) == 150
    assert metrics.latency_ms(STREAM) == 450
    assert metrics.close_ms(STREAM) == 10
    assert metrics.decode_ms(STREAM) == 400


def test_tokens_are_spread_over_the_decoding_time():
    """40 tokens after the first in 400 ms are 10 ms each, 100 a second; over the whole service time they are fewer."""
    assert metrics.tpot_ms(STREAM, USAGE) == 10
    assert metrics.decode_tok_s(STREAM, USAGE) == 100
    assert metrics.e2e_tok_s(STREAM, USAGE) == pytest.approx(41 / 0.45)
    assert metrics.tokens_per_chunk(STREAM, USAGE) == pytest.approx(41 / 11)


def test_the_first_chunk_counts_its_own_tokens_where_the_api_says():
    """Where usage comes with every chunk, the tokens of the first one are not spread over time they did not take."""
    timing = Timing(started_ns=0, first_output_ns=0, last_output_ns=90 * MS, ended_ns=90 * MS, output_events=4, output_reads=4, first_output_tokens=11)
    assert metrics.tpot_ms(timing, USAGE) == 3


def test_without_a_stream_only_the_whole_time_is_defined():
    """A non-stream has a latency to its last byte; everything about first tokens is None."""
    assert metrics.latency_ms(WHOLE) == 300
    undefined = [metrics.ttft_ms, metrics.ttft_content_ms, metrics.close_ms, metrics.decode_ms]
    assert [f(WHOLE) for f in undefined] == [None] * 4
    assert metrics.tpot_ms(WHOLE, USAGE) is None
    assert metrics.tokens_per_chunk(WHOLE, USAGE) is None
    assert metrics.user_ttft_ms(0, WHOLE) is None


@pytest.mark.parametrize(
    ("events", "reads", "tokens"),
    [(1, 1, 5), (5, 1, 5), (5, 5, 1), (5, 5, None)],
    ids=["one event", "one read brought everything", "one token", "tokens unknown"],
)
def test_time_per_token_needs_time_and_tokens(events, reads, tokens):
    """TPOT is None, not 0, where nothing can be measured."""
    timing = Timing(started_ns=0, first_output_ns=1, last_output_ns=2 * MS, ended_ns=2 * MS, output_events=events, output_reads=reads)
    assert metrics.tpot_ms(timing, Usage(completion_tokens=tokens)) is None
    assert metrics.decode_tok_s(timing, Usage(completion_tokens=tokens)) is None


def test_an_answer_that_never_left_the_thinking_channel_has_no_answer_time():
    """Reasoning alone has a first token, but no first token of an answer."""
    timing = Timing(started_ns=0, first_output_ns=MS, last_output_ns=2 * MS, ended_ns=3 * MS, output_events=2, output_reads=2)
    assert metrics.ttft_ms(timing) == 1
    assert metrics.ttft_content_ms(timing) is None


def test_missing_usage_is_unknown_not_zero():
    """No usage, no token metrics."""
    assert metrics.e2e_tok_s(STREAM, None) is None
    assert metrics.tokens_per_chunk(STREAM, None) is None
    assert metrics.tpot_ms(STREAM, None) is None


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_the_users_time_is_our_waiting_plus_service(wait, first, rest):
    """A user's latency is the service time plus the wait before it, whatever the numbers."""
    timing = Timing(started_ns=wait, first_output_ns=wait + first, last_output_ns=wait + first + rest, ended_ns=wait + first + rest)
    assert metrics.user_latency_ms(0, timing) == pytest.approx(wait / 1e6 + metrics.latency_ms(timing))
    ttft = metrics.ttft_ms(timing)
    assert ttft is not None
    assert metrics.user_ttft_ms(0, timing) == pytest.approx(wait / 1e6 + ttft)
