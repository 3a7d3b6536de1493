"""One metric, one function: from the stamps of one attempt (and its usage) to a number, or None where it is undefined, never 0.

The words: t_start hand-over to the transport · t_F first output event · t_C first content or tool event · t_L last output event · t_end [DONE], EOF or
last body byte · t_sched when the request should have started (closed loop: its slot became free; open loop: the schedule) · N completion tokens, which
include reasoning · n_F tokens in the first output chunk, where the API says, else 1. Tools disagree on these; metrics of the same name elsewhere may not
compare.
"""

from __future__ import annotations

from evalrunner.records import Timing, Usage


def ttft_ms(timing: Timing) -> float | None:
    """Time to first token: t_F - t_start. None without an output event, and for non-streams."""
    return _ms(timing.started_ns, timing.first_output_ns)


def ttft_content_ms(timing: Timing) -> float | None:
    """Time to the first token of the answer: t_C - t_start. Equals `ttft_ms` without reasoning; None if the answer never left the thinking channel."""
    return _ms(timing.started_ns, timing.first_content_ns)


def latency_ms(timing: Timing) -> float:
    """End-to-end service time: t_L - t_start; without output events (non-streams, empty answers) t_end - t_start. Of several turns: their sum."""
    return (last_ns(timing) - timing.started_ns - timing.paused_ns) / 1e6


def close_ms(timing: Timing) -> float | None:
    """What the server still took after its last output (usage, [DONE]): t_end - t_L. None without an output event."""
    return _ms(timing.last_output_ns, timing.ended_ns)


def decode_ms(timing: Timing) -> float | None:
    """D = t_L - t_F. None for fewer than two output events. Of several turns: their sum."""
    if timing.output_events is None or timing.output_events < 2 or timing.first_output_ns is None or timing.last_output_ns is None:
        return None
    return (timing.last_output_ns - timing.first_output_ns - timing.silent_ns) / 1e6


def tpot_ms(timing: Timing, usage: Usage | None) -> float | None:
    """Time per output token: D / (N - n_F). None if N is unknown, N - n_F < 1, or one read delivered everything."""
    decode, rest = decode_ms(timing), _tokens_after_first(timing, usage)
    if decode is None or rest is None or timing.output_reads is None or timing.output_reads < 2:
        return None
    return decode / rest


def decode_tok_s(timing: Timing, usage: Usage | None) -> float | None:
    """Output speed once it flows: (N - n_F) / D = 1000 / `tpot_ms`. None where that is, or is 0."""
    tpot = tpot_ms(timing, usage)
    return 1000 / tpot if tpot else None


def e2e_tok_s(timing: Timing, usage: Usage | None) -> float | None:
    """Output tokens per second of service time, the wait for the first one included: N / `latency_ms`. None if N is unknown."""
    latency = latency_ms(timing)
    if usage is None or usage.completion_tokens is None or latency <= 0:
        return None
    return usage.completion_tokens / latency * 1000


def tokens_per_chunk(timing: Timing, usage: Usage | None) -> float | None:
    """N / output events: above 1, gaps between chunks are not gaps between tokens. None for non-streams or an unknown N."""
    if usage is None or usage.completion_tokens is None or not timing.output_events:
        return None
    return usage.completion_tokens / timing.output_events


def user_latency_ms(scheduled_ns: int, timing: Timing) -> float:
    """What a user waited in all: t_L - t_sched = our own waiting + the service time of all attempts; `timing` is the last attempt's."""
    return (last_ns(timing) - scheduled_ns) / 1e6


def user_ttft_ms(scheduled_ns: int, timing: Timing) -> float | None:
    """What a user waited for the first token: t_F - t_sched, earlier attempts and our own waiting included. None where `ttft_ms` is."""
    return _ms(scheduled_ns, timing.first_output_ns)


def last_ns(timing: Timing) -> int:
    """t_L; t_end where there was no output event."""
    return timing.ended_ns if timing.last_output_ns is None else timing.last_output_ns


def _ms(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / 1e6


def _tokens_after_first(timing: Timing, usage: Usage | None) -> int | None:
    if usage is None or usage.completion_tokens is None:
        return None
    rest = usage.completion_tokens - (1 if timing.first_output_tokens is None else timing.first_output_tokens)
    return rest if rest >= 1 else None
