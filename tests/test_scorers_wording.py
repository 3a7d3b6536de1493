"""The scorers of wording."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from test_scorers import score

from evalrunner.scorers.overlap import bleu, chrf, rouge, similarity, token_f1, tokens


def test_tokens_know_chinese():
    """Latin words and numbers whole, Han characters one by one, punctuation gone."""
    assert tokens("Qwen3 是 一个LLM，very-good！") == ["qwen3", "是", "一", "个", "llm", "very", "good"]


@pytest.mark.parametrize("scorer", [token_f1(), rouge(), rouge(variant="rouge1"), bleu(), chrf(), similarity()])
@pytest.mark.parametrize("text", ["the cat sat on the mat", "今天的天气非常好，我们去公园"])
def test_equal_is_one_and_unrelated_near_nothing(scorer, text):
    """Each measure is 1 for the target itself and (nearly) 0 for something else, in both scripts."""
    assert score(scorer, text, text).value == pytest.approx(1)
    assert score(scorer, "zzzz", text).value < 0.1
    assert score(scorer, "", text).value == 0


def test_chinese_word_order_counts_partly():
    """ROUGE on Chinese is not all or nothing, which it would be if the text were one token."""
    assert 0.5 < score(rouge(), "我今天吃了苹果", "今天我吃了苹果").value < 1


@given(st.text("abc de", max_size=40), st.text("abc de", max_size=40))
def test_rouge_agrees_with_the_reference_implementation(given_text, wanted):
    """For Latin text the three variants equal Google's rouge-score."""
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(wanted, given_text)
    for variant, expected in theirs.items():
        if tokens(given_text) and tokens(wanted):
            assert score(rouge(variant=variant), given_text, wanted).value == pytest.approx(expected.fmeasure)


def test_any_accepted_answer_counts():
    """The best of several right answers decides."""
    assert score(token_f1(accept="also"), "the Netherlands", "Holland", also=["the netherlands"]).value == 1
    assert score(similarity(ignore_case=True, accept="also"), "HOLLAND", "x", also="holland").value == 1
