"""Numbers in answers: as people, Chinese texts and LaTeX write them, and what is not one."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scorers import score

from evalrunner.errors import ScorerError
from evalrunner.scorers.numeric import LONGEST, number, numeric

LAST = [
    # plain
    ("$18.", "18"),
    ("1,234.50", "1234.5"),
    ("1,234, which is much", "1234"),
    ("123,456,789", "123456789"),
    ("１，０００元", "1000"),
    ("５０％", "50"),
    ("50%", "50"),
    (".5", "0.5"),
    ("No.5", "5"),
    ("and so on...5", "5"),
    ("3.", "3"),
    ("x = 5", "5"),
    ("(5)", "5"),
    ("90°", "90"),
    ("5km", "5"),
    ("the 5th", "5"),
    ("1e3", "1000"),
    ("1.5e-3", "0.0015"),
    ("1'000", "1000"),
    ("1\u202f000", "1000"),
    ("1_000", "1000"),
    # signs
    ("x = -5", "-5"),
    ("−5", "-5"),
    ("x = –5", "-5"),
    ("y=+2", "2"),
    ("3-4", "4"),
    ("10−5", "5"),
    ("pages 3–5", "5"),
    ("covid-19", "19"),
    # money
    ("-$5", "-5"),
    ("$5-$10", "10"),
    ("\\$18.00", "18"),
    ("US$5", "5"),
    ("RMB100", "100"),
    ("¥1,200", "1200"),
    ("￥1,200", "1200"),
    # Chinese
    ("答案是12个", "12"),
    ("答案是-5", "-5"),
    ("第3题", "3"),
    # units and names
    ("The area is 12 m².", "12"),
    ("12 m2", "12"),
    ("12 m^2", "12"),
    ("12\\text{ m}^{2}", "12"),
    ("5 kg·m⁻³", "5"),
    ("7 CO₂", "7"),
    ("7 H2O", "7"),
    ("7, says Qwen3", "7"),
    ("x_1 = 4", "4"),
    ("7 x_{12}", "7"),
    ("9 = x^2", "9"),
    # fractions
    ("3/4", "3/4"),
    ("½", "1/2"),
    ("-½", "-1/2"),
    ("3½", "7/2"),
    ("3 1/2 cups", "7/2"),
    ("-3 1/2", "-7/2"),
    ("\\frac{3}{4}", "3/4"),
    ("\\dfrac34", "3/4"),
    ("-\\frac{1}{2}", "-1/2"),
    ("2\\frac{1}{2}", "5/2"),
    ("24 / 3", "3"),
    ("1.5/2", "2"),
    # powers
    ("10^5", "100000"),
    ("2^{10}", "1024"),
    ("10⁻³", "1/1000"),
    ("1.2×10^5", "120000"),
    ("1.2 \\times 10^{5}", "120000"),
    ("1.2 x 10⁵", "120000"),
    # LaTeX
    ("1{,}234", "1234"),
    ("$1{,}234.5$", "1234.5"),
    ("1\\,234", "1234"),
    ("\\boxed{42} in step 3", "42"),
    ("\\boxed{41}, no: \\boxed{42}. (See 7.)", "42"),
    ("\\boxed{1{,}234\\text{ km}} in 5 h", "1234"),
    ("\\boxed{\\frac{3}{4}} of 8", "3/4"),
    ("\\boxed{x}, so 5", "5"),
    # parts
    ("2024-05-01", "1"),
    ("11/30/2026", "2026"),
    ("12:30", "30"),
    ("in 2024,2025", "2025"),
    ("1,23,4", "4"),
    ("1.2.3", "1.2"),
    # none
    ("none", None),
    ("v1.2.3", None),
    ("CO₂", None),
    ("m²", None),
    ("5/0", None),
    ("0^-1", None),
    ("9" * (LONGEST + 1), None),
    ("9999999^999", None),
]


@pytest.mark.parametrize(("text", "value"), LAST)
def test_numbers_are_read_as_people_write_them(text, value):
    """The last number of a text is what a person would read there; digits of units, formulas and names are none."""
    found = number(text)
    assert (found and found.value) == (value and Fraction(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234.50 or -7", "1234.5"), ("v1.2 has 3", "3"), ("2024-05-01", "2024"), ("12:30", "12"), ("7 or \\boxed{3} or 8", "3"), ("1,23,4", "1")],
)
def test_the_first_number(text, value):
    """`take: first` reads the same numbers from the front."""
    assert number(text, "first").value == Fraction(value)


@pytest.mark.parametrize(
    ("options", "output", "target", "value"),
    [
        ({}, "16 - 3 - 4 = 9, so 9 * 2 = $18.00", "... #### 18", 1),
        ({}, "18 eggs, or 19", "18", 0),
        ({"take": "first"}, "18 eggs, or 19", "18", 1),
        ({"tolerance": 0.5}, "3.6", "4", 1),
        ({"tolerance": 0.01, "relative": True}, "1009", "1,000", 1),
        ({"tolerance": 0.01, "relative": True}, "1011", "1,000", 0),
        ({}, "0.1", "0.10", 1),
        ({}, "1/4", "3/4", 0),
        ({}, "0.75", "\\frac{3}{4}", 1),
        ({}, "1e9999", "1", 0),
        ({}, "no idea", "1", 0),
    ],
)
def test_numeric_compares_the_last_number(options, output, target, value):
    """numeric: exact arithmetic within the tolerance, absolute or as a share of the target."""
    assert score(numeric(**options), output, target).value == value


def test_numeric_needs_a_number_to_compare_with():
    """A target without a number is a null score with the reason; a tolerance that is none is refused at once."""
    with pytest.raises(ScorerError, match="no number"):
        score(numeric(), "1", "one")
    for tolerance in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="tolerance"):
            numeric(tolerance=tolerance)


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_any_integer_is_read_back(integer):
    """A number written with thousands commas is found again, sign and all."""
    assert score(numeric(), f"the answer is {integer:,}", str(integer)).value == 1


@settings(deadline=None)
@given(st.lists(st.sampled_from(["1", "9,", "/", "^", "{", "}", ".", " ", "-", "\\frac", "\\boxed{", "e", "²", "½", "$", "_", "0"]), max_size=60).map("".join))
def test_no_answer_breaks_it(output):
    """Whatever a model writes, the score is 0 or 1."""
    assert score(numeric(), output, "1").value in (0, 1)
