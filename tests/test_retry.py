"""What happens after a failed attempt depends on its class, never on its wording."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner import errors
from evalrunner.engine.retry import MAX_RETRY_AFTER_S, GiveUp, Halt, RetryBudget, RetryPolicy, Tries, Wait, decision, fate

POLICY = RetryPolicy()


def decide(error, tries=None, policy=POLICY, seed=0):
    return decision(error, tries or Tries().after(error, 0.0), policy, random.Random(seed))


@pytest.mark.parametrize("kind", [errors.ServerError, errors.TransportError, errors.DeadlineError, errors.BrokenStreamError])
def test_what_may_pass_is_tried_again_a_limited_number_of_times(kind):
    """Failures of server and network are tried six times in all, each wait within twice the last ceiling."""
    error = kind("x")
    tries = Tries()
    for sent in range(1, POLICY.max_attempts):
        tries = tries.after(error, 0.0)
        step = decide(error, tries)
        assert isinstance(step, Wait)
        assert step.uses_attempt
        assert 0 <= step.seconds <= 2.0 ** (sent - 1)
    assert decide(error, tries.after(error, 0.0)) == GiveUp()


def test_a_throttled_request_never_runs_out_of_attempts_only_of_time():
    """A thousand 429s use up no attempt; half an hour of them does."""
    error = errors.RateLimitedError("slow down")
    step = decide(error, Tries(wait=1000, elapsed_s=1000))
    assert isinstance(step, Wait)
    assert not step.uses_attempt
    assert step.seconds <= POLICY.cap_s
    assert decide(error, Tries(wait=1, elapsed_s=1800)) == GiveUp()


def test_throttling_leaves_the_attempts_for_other_failures():
    """After many 429s a 500 still has all its tries, and starts with the shortest wait."""
    error = errors.ServerError("x")
    step = decide(error, Tries(wait=50).after(error, 10))
    assert isinstance(step, Wait)
    assert step.seconds <= POLICY.base_s


def test_retry_after_is_obeyed_where_it_is_longer():
    """The server's wait is a lower bound; ours stands where it is longer."""
    step = decide(errors.RateLimitedError("x", retry_after_s=30))
    assert isinstance(step, Wait)
    assert step.seconds == 30
    longer = [decide(errors.ServerError("x", retry_after_s=0.1), Tries(backoff=5), seed=seed).seconds for seed in range(20)]
    assert min(longer) >= 0.1
    assert max(longer) > 1


@pytest.mark.parametrize("asked", [math.nan, -5.0, 0.0, None])
def test_a_senseless_retry_after_is_ignored(asked):
    """Garbage in a header never becomes a wait."""
    step = decide(errors.RateLimitedError("x", retry_after_s=asked))
    assert isinstance(step, Wait)
    assert step.seconds <= POLICY.base_s


def test_an_endless_retry_after_is_capped():
    """A billion seconds are an hour, and no request waits longer than its allowance: then it is asked once more, and given up."""
    assert decide(errors.RateLimitedError("x", retry_after_s=1e9)) == Wait(POLICY.max_elapsed_s, uses_attempt=False)
    error = errors.RateLimitedError("x", retry_after_s=1e9)
    assert decide(error, Tries().after(error, POLICY.max_elapsed_s)) == GiveUp()
    patient = RetryPolicy(max_elapsed_s=1e6)
    assert decide(errors.RateLimitedError("x", retry_after_s=math.inf), policy=patient) == Wait(MAX_RETRY_AFTER_S, uses_attempt=False)


def test_two_seeds_wait_differently():
    """Jitter: workers that failed together do not come back together."""
    error = errors.RateLimitedError("x")
    assert decide(error, seed=1) != decide(error, seed=2)


def test_an_unreadable_answer_is_tried_once_more():
    """BadOutput has one more attempt, whatever else failed before."""
    error = errors.BadOutputError("no text")
    first = Tries(backoff=2).after(error, 0)
    assert isinstance(decide(error, first), Wait)
    assert decide(error, first.after(error, 0)) == GiveUp()


@pytest.mark.parametrize("kind", [errors.RejectedError, errors.FilteredError])
def test_a_refusal_is_final(kind):
    """Asking again what will not be answered costs money for nothing."""
    assert decide(kind("x")) == GiveUp()


@pytest.mark.parametrize(("kind", "scope"), [(errors.AuthError, "account"), (errors.AccountError, "account"), (errors.UnknownModelError, "model")])
def test_a_bad_key_or_an_empty_account_concerns_more_than_one_request(kind, scope):
    """Key and money halt the account, an unknown name its model."""
    assert decide(kind("x")) == Halt(scope)


def test_every_class_has_its_outcome_and_a_subclass_its_parents():
    """A client's own subclass is treated as what it derives from."""

    class Burst(errors.RateLimitedError):
        burst = True

    assert fate(Burst("x")) == errors.FATES[errors.RateLimitedError]
    assert fate(errors.RequestError("x")).outcome == "bad_output"


@given(
    st.sampled_from([kind for kind in errors.FATES if issubclass(kind, errors.RequestError)]),
    st.tuples(st.integers(0, 10), st.integers(0, 10_000), st.integers(0, 3)),
    st.floats(0, 4000),
    st.one_of(st.none(), st.floats()),
    st.integers(),
)
def test_a_decision_is_always_bounded(kind, counts, elapsed, asked, seed):
    """No history, header or seed leads to a wait past the allowance, or to more attempts than allowed."""
    error = kind("x", retry_after_s=asked)
    tries = Tries(*counts).after(error, elapsed)
    step = decide(error, tries, seed=seed)
    if isinstance(step, Wait):
        assert step.seconds >= 0
        assert elapsed + step.seconds <= POLICY.max_elapsed_s
        assert tries.backoff + tries.once < POLICY.max_attempts


def test_the_retry_budget_delays_and_never_refuses():
    """Free while there are tokens, then spread a second apart, never more than a minute."""
    budget = RetryBudget(tokens=3)
    assert [budget.spend(0.0) for _ in range(5)] == [0, 0, 0, 1, 2]
    assert max(budget.spend(0.0) for _ in range(200)) == 60


def test_successes_pay_for_retries():
    """While at least half of the requests succeed, retries are free."""
    budget = RetryBudget(tokens=2)
    for _ in range(1000):
        budget.earn()
        assert budget.spend(0.0) == 0


def test_time_pays_for_retries_too():
    """After an outage the budget is whole again within a minute or so, whatever it owed."""
    budget = RetryBudget(tokens=2)
    for _ in range(500):
        budget.spend(0.0)
    assert budget.spend(63.0) == 0
