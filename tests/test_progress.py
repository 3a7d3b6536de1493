"""What the progress line says."""

from collections import Counter

from evalrunner.cli.progress import Pace, describe
from evalrunner.engine.tally import Tally


def test_the_line_leaves_out_what_is_nothing():
    """A run that goes well says ok and speed, not a row of zeros."""
    assert describe(Tally(planned=10, by_outcome=Counter()), Pace(), 0) == "ok 0"


def test_trouble_is_named():
    """Errors, retries, parked models with the time left, stopped accounts and spend each have their word."""
    tally = Tally(done=7, retrying=2, by_outcome=Counter(ok=4, truncated=1, server_error=2), parked={"qwen-max": 12_000_000, "over": 5}, cost={"CNY": 0.1234})
    tally.stopped = {"dashscope": "bad key"}
    assert describe(tally, Pace(), 2_000_000) == "ok 5 · errors 2 · retrying 2 · parked qwen-max 10s · stopped dashscope · 0.1234 CNY"


def test_the_eta_is_that_of_the_slowest_model():
    """Two models side by side: the fast one's pace does not make the end look near."""
    tally, pace = Tally(left={"fast": 100, "slow": 100}), Pace()
    pace.note(0.0, tally)
    tally.left = {"fast": 0, "slow": 90}
    tally.completion_tokens = 500
    pace.note(10.0, tally)
    assert pace.left_s == 90.0
    assert describe(tally, pace, 0) == "ok 0 · 50 tok/s · ETA 1m30s"


def test_there_is_no_eta_before_every_model_has_shown_its_pace():
    """A model that has answered nothing yet could take for ever: no guess is made."""
    tally, pace = Tally(left={"a": 10, "b": 10}), Pace()
    pace.note(0.0, tally)
    tally.left = {"a": 5, "b": 10}
    pace.note(1.0, tally)
    assert pace.left_s is None


def test_the_pace_looks_back_half_a_minute():
    """What a run did an hour ago says nothing of the next minute."""
    tally, pace = Tally(left={"a": 1000}), Pace()
    for second in range(0, 100, 10):
        tally.left = {"a": 1000 - (second if second <= 50 else 50 + (second - 50) * 10)}
        pace.note(float(second), tally)
    assert pace.left_s == 55.0
