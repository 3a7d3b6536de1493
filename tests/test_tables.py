"""Tables in the terminal."""

from evalrunner.cli.tables import UNKNOWN, _fitting, aligned
from evalrunner.plain import clean


def test_columns_line_up_in_any_script():
    """Chinese characters take two columns; numbers stand to the right, names to the left."""
    assert aligned([["model", "n"], ["通义", "5"], ["qwen-max", "1,200"], ["x", UNKNOWN]]).splitlines() == [
        "model         n",
        "────────  ─────",
        "通义          5",
        "qwen-max  1,200",
        "x             –",
    ]


def test_a_name_cannot_move_the_cursor():
    """Escape sequences and direction marks that come with data are shown as replacement characters."""
    assert clean("a\x1b[2Jb\u202ec") == "a�[2Jb�c"


def test_a_narrow_terminal_loses_the_least_missed_columns_first():
    """Model and score stay to the last; without a terminal nothing is left out."""
    rows = [{"model": "m" * 10, "score": "90 %", "latency p50": "12 ms", "tokens in": "100"}]
    names = list(rows[0])
    assert _fitting(names, rows, None)[0] == names
    assert _fitting(names, rows, 200)[0] == names
    assert _fitting(names, rows, 32)[0] == ["model", "score", "latency p50"]
    assert _fitting(names, rows, 10)[0] == ["model", "score"]
