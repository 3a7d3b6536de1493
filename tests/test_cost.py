"""What a request costs, and when nobody knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.cost.catalogue import cost, tier_for
from evalrunner.records import Price, PriceTier, Usage

FLAT = Price(currency="CNY", tiers=(PriceTier(input=2.0, output=10.0),))
TIERED = Price(
    currency="CNY",
    tiers=(
        PriceTier(up_to=128_000, input=0.8, output=2.0, thinking=8.0, cached=0.16, cache_write=1.0),
        PriceTier(up_to=1_000_000, input=4.8, output=48.0, thinking=64.0),
    ),
)


def test_input_and_output_have_their_prices():
    """1,000 tokens in at 2 and 500 out at 10 per million."""
    assert cost(Usage(prompt_tokens=1000, completion_tokens=500), FLAT, thought=False) == pytest.approx(0.007)


def test_the_tier_holds_for_every_token_of_the_request():
    """One token over the border, and all tokens, output too, have the higher price."""
    low = cost(Usage(prompt_tokens=128_000, completion_tokens=1000), TIERED, thought=False)
    high = cost(Usage(prompt_tokens=128_001, completion_tokens=1000), TIERED, thought=False)
    assert low == pytest.approx((128_000 * 0.8 + 1000 * 2) / 1e6)
    assert high == pytest.approx((128_001 * 4.8 + 1000 * 48) / 1e6)


def test_thoughts_make_all_output_dearer_but_only_if_there_were_any():
    """With thoughts every output token has the thinking price; completion tokens already include reasoning."""
    usage = Usage(prompt_tokens=0, completion_tokens=1000, reasoning_tokens=600)
    assert cost(usage, TIERED, thought=True) == pytest.approx(0.008)
    assert cost(usage, TIERED, thought=False) == pytest.approx(0.002)
    assert cost(usage, FLAT, thought=True) == pytest.approx(0.010)


def test_cached_tokens_and_cache_writes_have_prices_of_their_own():
    """They are part of prompt_tokens and are not paid twice."""
    usage = Usage(prompt_tokens=10_000, completion_tokens=0, cached_tokens=6000, cache_write_tokens=3000)
    assert cost(usage, TIERED, thought=False) == pytest.approx((1000 * 0.8 + 6000 * 0.16 + 3000 * 1.0) / 1e6)


def test_a_price_list_without_cache_prices_follows_the_published_rule():
    """20 % of the input price for a hit, 125 % for a write."""
    usage = Usage(prompt_tokens=2000, completion_tokens=0, cached_tokens=1000, cache_write_tokens=1000)
    assert cost(usage, FLAT, thought=False) == pytest.approx((1000 * 0.4 + 1000 * 2.5) / 1e6)


@pytest.mark.parametrize(
    ("usage", "price"),
    [
        (None, FLAT),
        (Usage(prompt_tokens=1, completion_tokens=1), None),
        (Usage(prompt_tokens=None, completion_tokens=1), FLAT),
        (Usage(prompt_tokens=1, completion_tokens=None), FLAT),
        (Usage(prompt_tokens=1_000_001, completion_tokens=1), TIERED),
    ],
    ids=["no usage", "no price", "no input count", "no output count", "above the last tier"],
)
def test_the_unknown_is_none_never_zero(usage, price):
    """A cost of 0 would be a claim."""
    assert cost(usage, price, thought=False) is None


def test_an_open_tier_holds_for_any_length():
    """`up_to: None` is any input."""
    assert tier_for(10**9, FLAT) is FLAT.tiers[0]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_cache_hit_never_costs_more(prompt, cached, output):
    """With the fallback rules, caching can only save; a provider's odd counts never make a cost negative."""
    usage = Usage(prompt_tokens=prompt, completion_tokens=output, cached_tokens=min(cached, prompt))
    plain = cost(Usage(prompt_tokens=prompt, completion_tokens=output), FLAT, thought=False)
    found = cost(usage, FLAT, thought=False)
    assert found is not None
    assert plain is not None
    assert 0 <= found <= plain + 1e-12
