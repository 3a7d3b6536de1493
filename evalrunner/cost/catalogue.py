"""What a request costs: usage × price, with the tier its input chooses.

A price list that leaves something out falls back to Alibaba's published rules: a cache hit costs 20 % of the input price, writing a cache entry 125 %,
thinking the output price. (An explicit cache hit costs 10 %, but usage does not tell the two kinds apart, and a budget must not be under-counted.) Other
providers have other rules: give `cached`, `cache_write` and `thinking` in the config where they matter.
"""

from __future__ import annotations

from evalrunner.records import Price, PriceTier, Usage

CACHE_HIT = 0.20
CACHE_WRITE = 1.25


def cost(usage: Usage | None, price: Price | None, *, thought: bool) -> float | None:
    """(uncached input × input + cached × cached + cache writes × cache_write + output × output or thinking) / 1,000,000, in the price's currency.

    `thought`: thinking was on and produced thoughts; then every output token has the thinking price. None, never 0, where the price, the tier or a
    token count is unknown. Cached and cache-write tokens that the provider does not report count as ordinary input.
    """
    if usage is None or price is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    tier = tier_for(usage.prompt_tokens, price)
    if tier is None:
        return None
    cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    plain = max(0, usage.prompt_tokens - cached - written)
    cached_price = tier.input * CACHE_HIT if tier.cached is None else tier.cached
    write_price = tier.input * CACHE_WRITE if tier.cache_write is None else tier.cache_write
    output_price = tier.thinking if thought and tier.thinking is not None else tier.output
    return (plain * tier.input + cached * cached_price + written * write_price + usage.completion_tokens * output_price) / 1e6


def tier_for(prompt_tokens: int, price: Price) -> PriceTier | None:
    """The tier that holds for every token of a request with so much input; None above the last one, whose price nobody published."""
    for tier in price.tiers:
        if tier.up_to is None or prompt_tokens <= tier.up_to:
            return tier
    return None
