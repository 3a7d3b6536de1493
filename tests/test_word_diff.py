"""What the side-by-side view of a flip promises: nothing lost, nothing invented, and what differs marked."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from evalrunner.report.word_diff import word_diff

words = st.lists(st.sampled_from(["the", "answer", "is", "42", "四", "十", "二", " ", "\n", "!", "é", "👍"]), max_size=60).map("".join)


@given(words | st.text(max_size=60), words | st.text(max_size=60))
def test_both_texts_can_be_read_in_full(before, after):
    """The pieces of either side add up to it; what is not marked stands in both."""
    old, new = word_diff(before, after)
    assert ("".join(piece.text for piece in old), "".join(piece.text for piece in new)) == (before, after)
    assert "".join(p.text for p in old if p.kind == "same") == "".join(p.text for p in new if p.kind == "same")


def test_only_what_differs_is_marked():
    """A changed number in a sentence, a changed character in a Chinese one."""
    old, new = word_diff("So the answer is 42, I think.", "So the answer is 41, I think.")
    assert [p.text for p in old if p.kind == "changed"] == ["42"]
    assert [p.text for p in new if p.kind == "changed"] == ["41"]
    assert [p.text for p in word_diff("答案是四十二。", "答案是四十三。")[1] if p.kind == "changed"] == ["三"]


def test_texts_with_nothing_in_common_are_marked_whole():
    """No confetti where two answers share no more than a few little words."""
    old, new = word_diff("Paris is the capital, as everybody knows well enough.", "I cannot help you with that kind of question, the rules forbid it.")
    assert [sum(piece.kind == "changed" for piece in side) for side in (old, new)] == [1, 1]


def test_long_answers_are_shown_around_the_difference():
    """A difference at the end of ten thousand words is in view, in little time; the rest is cut, with a mark."""
    long = "word " * 10_000
    begin = time.process_time()
    old, new = word_diff(long + "right", long + "wrong")
    assert [p.text for p in new if p.kind == "changed"] == ["wrong"]
    assert old[0].kind == "cut"
    assert sum(len(p.text) for p in old) < 400
    scattered = word_diff(" ".join(f"a{k} b" for k in range(10_000)), " ".join(f"c{k} b" for k in range(10_000)))
    assert all(sum(len(p.text) for p in side) < 4_000 for side in scattered)
    assert time.process_time() - begin < 3
