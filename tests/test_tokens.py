import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrunner.cost import tokens
from evalrunner.cost.models import ImageRule
from evalrunner.cost.tokens import audio_tokens, count_messages, count_text, exact, image_tokens, overhead, truncate, video_tokens

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
OLD_VISION = ImageRule(28, 3_136, 1_003_520)

needs_vocabulary = pytest.mark.skipif(tokens._encoding() is None, reason="the Qwen vocabulary ships with dashscope, which is not installed")


def user(text):
    return {"role": "user", "content": text}


@needs_vocabulary
@pytest.mark.parametrize(
    ("messages", "model", "expected"),
    [
        ([SYSTEM, user("What is 2+2?")], "", 26),
        ([SYSTEM, user("你好！有什么可以帮助你的吗？")], "", 26),
        ([SYSTEM, user("你是谁？")], "", 22),
        ([SYSTEM, user("你是谁？")], "qwen-plus", 26),
        ([user("你好")], "qwen3.8-max", 11),
        ([SYSTEM, user("Hello!")], "", 21),
    ],
)
def test_the_official_samples_are_counted_exactly(messages, model, expected):
    """With the vocabulary installed, the prompt tokens that Alibaba's own examples report are met to the token."""
    assert count_messages(messages, model) == expected


def test_tools_cost_their_template_and_their_json():
    """Tool definitions are billed as input: the fixed template, and each definition."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    plain, one, two = (count_messages([SYSTEM, user("Hi")], tools=tools) for tools in (None, [tool], [tool, tool]))
    assert one - plain > 77
    assert two - one == one - plain - 77
    assert count_messages([user("Hi")], tools=[tool]) - count_messages([user("Hi")]) == one - plain + 5, "a system message is added for the tools"


def test_tool_calls_and_results_are_counted():
    """A conversation that used tools costs more than its texts."""
    called = {"role": "assistant", "content": "", "tool_calls": [{"id": "x", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}]}
    result = {"role": "tool", "tool_call_id": "x", "content": "25"}
    assert count_messages([user("Hi"), called]) - count_messages([user("Hi")]) == 5 + 19 + count_text("get_weather") + count_text('{"city": "北京"}')
    assert count_messages([user("Hi"), result]) - count_messages([user("Hi")]) == 5 + 9 + count_text("25")


def test_content_parts_count_their_texts_in_either_dialect():
    """A list of parts costs what its texts cost; media are counted by their own formulas."""
    assert count_messages([user([{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}])]) == count_messages([user("Hi")])
    assert count_messages([user([{"text": "Hi"}, {"audio": "x"}])]) == count_messages([user("Hi")])
    assert count_messages([{"role": "assistant", "content": "Hi", "reasoning_content": "Hm"}]) == count_messages([user("Hi")]) + count_text("Hm")


def test_the_template_for_thinking_is_counted():
    """Hybrid models get an empty thought when they shall not think; models without a thinking mode get nothing."""
    assert [overhead("qwen-max"), overhead("qwen-plus"), overhead("qwen-plus", thinking=True), overhead("qwen3.8-max"), overhead("elsewhere")] == [
        0,
        4,
        0,
        2,
        0,
    ]


@pytest.mark.parametrize(
    ("size", "rule", "expected"),
    [
        ((1920, 1080), ImageRule(), 2_042),
        ((1024, 1024), ImageRule(), 1_026),
        ((3840, 2160), ImageRule(), 2_481),
        ((100, 100), ImageRule(), 66),
        ((1920, 1080), OLD_VISION, 1_224),
        ((1024, 1024), OLD_VISION, 1_227),
        ((3840, 2160), OLD_VISION, 1_224),
        ((100, 100), OLD_VISION, 18),
    ],
)
def test_images_cost_what_the_published_formula_says(size, rule, expected):
    """The eight worked examples of both generations of vision models."""
    assert image_tokens(*size, rule) == expected


@settings(deadline=None)
@given(st.integers(11, 8_000), st.integers(11, 8_000), st.sampled_from([ImageRule(), OLD_VISION]))
def test_an_image_never_costs_more_than_its_limit(width, height, rule):
    """`max_pixels` bounds the price of any image."""
    assert 3 <= image_tokens(width, height, rule) <= max(rule.max_pixels // rule.factor**2, max(width, height) // rule.factor + 1) + 2


def test_audio_and_video_cost_by_their_length():
    """25 tokens a second for qwen-audio-turbo; less than a second is one; two frames of a video share their tokens."""
    assert [audio_tokens(0.2), audio_tokens(1), audio_tokens(1.01), audio_tokens(4, 12.5)] == [25, 25, 26, 50]
    assert video_tokens(1024, 1024, 3) == 2 * 1_024 + 2


@settings(deadline=None)
@given(st.text(max_size=200))
def test_counting_is_repeatable_and_never_fails(text):
    """Any text has a number of tokens, the same each time, with or without the vocabulary."""
    assert count_text(text) == count_text(text) >= (1 if text.strip() else 0)
    assert tokens._approximate(text) == tokens._approximate(text) >= (1 if text.strip() else 0)


@settings(deadline=None)
@given(st.text(max_size=80), st.integers(0, 40))
def test_truncating_keeps_to_the_limit(text, limit):
    """The beginning of an answer that is cut at `max_tokens` has at most so many."""
    cut = truncate(text, limit)
    assert text.startswith(cut)
    assert count_text(cut) <= limit or cut == ""


def test_very_long_texts_are_counted():
    """A megabyte without a blank neither overflows nor takes for ever."""
    assert count_text("a" * 1_000_000) > 10_000


@needs_vocabulary
@pytest.mark.parametrize(
    "text",
    [
        "Janet has 16 eggs a day. She eats three for breakfast and bakes muffins with four. How much does she make every day at the market?",
        "小明有三十五个苹果，给了妹妹七个，又买了十二个。请问他现在一共有多少个苹果？",
        'Return a JSON object with the fields "name", "city" and "date" for this order: 3 desk lamps, Maria Lund, Aarhus.',
    ],
)
def test_the_approximation_is_near_the_vocabulary(text):
    """Without the vocabulary, the estimate of an ordinary prompt is within a quarter."""
    assert tokens._approximate(text) == pytest.approx(tokens._count(text), rel=0.25)


def test_only_models_of_the_known_vocabulary_are_exact():
    """Qwen3.5 and later use a newer vocabulary, and other makers their own: their counts are estimates and say so."""
    assert not exact("qwen3.5-plus")
    assert not exact("qwen3.8-max")
    assert not exact("gpt-5")
    assert exact("qwen-plus") == exact("qwen3-max") == (tokens._encoding() is not None)
