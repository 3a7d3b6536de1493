import re

import pytest

from evalrunner.cost.models import known, lookup


@pytest.mark.parametrize("model", known())
def test_every_row_says_what_a_plan_needs(model):
    """Each model of the catalogue has an id, an endpoint, its prices with source and date, and tiers in ascending order."""
    facts = lookup(model)
    assert facts is not None
    assert facts.id == model
    assert facts.endpoint in {"text", "multimodal"}
    assert facts.max_input is None or facts.context is None or facts.max_input <= facts.context
    for region, price in facts.prices.items():
        assert price.currency == ("USD" if region == "usd" else "CNY")
        assert price.source
        assert re.fullmatch(r"\d{4}-\d{2}", price.date or "")
        ends = [tier.up_to for tier in price.tiers]
        assert ends == sorted(ends, key=lambda end: end or 10**12)
        assert all(tier.input > 0 and tier.output > 0 for tier in price.tiers)
    assert not (facts.modal_cn and facts.prices), "a price per direction would be wrong for a model that is priced by modality"


def test_the_models_of_the_seed_document_are_known():
    """Every model the project starts from has its documented context, dialects and endpoint."""
    assert {model: (lookup(model).context, lookup(model).endpoint) for model in ("qwen-turbo", "qwen-plus", "qwen-max", "qwen-long")} == {
        "qwen-turbo": (131_072, "text"),
        "qwen-plus": (1_000_000, "text"),
        "qwen-max": (32_768, "text"),
        "qwen-long": (10_000_000, "text"),
    }
    assert lookup("qwen-vl-plus").inputs == {"image", "video"}
    assert lookup("qwen-vl-max").endpoint == "multimodal"
    assert lookup("qwen-audio-turbo").dialects == ("native",)


def test_qwen_plus_has_its_three_tiers_and_a_thinking_price():
    """Prices are those of the price page of October 2026."""
    tiers = lookup("qwen-plus").prices["cn"].tiers
    assert [(tier.up_to, tier.input, tier.output, tier.thinking) for tier in tiers] == [
        (128_000, 0.8, 2, 8),
        (256_000, 2.4, 20, 24),
        (1_000_000, 4.8, 48, 64),
    ]


def test_a_dated_id_shares_its_aliases_facts_but_never_a_guessed_price():
    """Snapshots work without a row of their own; a price is given only where the documents say it is the same model."""
    alias, same, other = lookup("qwen-plus"), lookup("qwen-plus-2025-12-01"), lookup("qwen-plus-2025-07-28")
    assert same.prices == alias.prices
    assert other.prices == {}
    assert other.context == alias.context
    assert other.rates["cn"] == (60, 100_000)
    assert lookup("qwen3.8-max-0902").prices == lookup("qwen3.8-max").prices
    assert lookup("qwen-plus-latest").rates["cn"] == (15_000, 1_200_000)


def test_variants_think_always_or_never():
    """`-thinking-2507` models only think, `-instruct-2507` never do."""
    assert lookup("qwen3-235b-a22b-thinking-2507").thinking == "only"
    assert lookup("qwen3-235b-a22b-instruct-2507").thinking == "none"
    assert lookup("qwen3-235b-a22b").thinking == "on"


@pytest.mark.parametrize("model", ["gpt-5", "", "qwen-nonsense", "-latest", "qwen-nonsense-2025-01-01"])
def test_an_unknown_model_is_none(model):
    """Nothing is made up about a model nobody documented."""
    assert lookup(model) is None
