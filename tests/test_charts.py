"""The promises of the charts: axes a person can read, nothing outside the plot, text that is never markup."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrunner.report import charts

finite = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)
positive = st.floats(min_value=1e-6, max_value=1e9)


@given(finite, finite)
def test_linear_axis_covers_the_data_with_few_round_ticks(a, b):
    """Every value lies on the axis, and the axis has between 2 and 12 evenly spaced ticks."""
    axis = charts.linear_axis(min(a, b), max(a, b))
    slack = (axis.high - axis.low) * 1e-6
    assert axis.low - slack <= min(a, b)
    assert max(a, b) <= axis.high + slack
    assert 2 <= len(axis.ticks) <= 12


@given(positive, positive)
def test_log_axis_covers_the_data_and_has_at_least_two_ticks(a, b):
    """A single value still gets an axis, and ten decades do not get a hundred ticks."""
    axis = charts.log_axis(min(a, b), max(a, b))
    assert axis.low <= min(a, b) * 1.001
    assert axis.high >= max(a, b) * 0.999
    assert 1 <= len(axis.ticks) <= 20


@given(finite, st.floats(min_value=-10, max_value=10))
def test_nothing_is_drawn_outside_the_axis(value, low):
    """Whatever the value, its place is between 0 and 100 %."""
    assert 0 <= charts.linear_axis(low, low + 1).at(value) <= 100


def test_ticks_are_written_as_a_person_would():
    """0.25, 0.5 and 100, not 0.25000000000000006."""
    assert [text for _, text in charts.linear_axis(0, 1).ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [text for _, text in charts.linear_axis(72, 97, count=4, clip=(0, 100)).ticks] == ["70", "80", "90", "100"]
    assert [text for _, text in charts.log_axis(90, 2100).ticks] == ["50", "100", "200", "500", "1,000", "2,000", "5,000"]


def test_a_share_axis_never_leaves_0_to_100():
    """An interval that ends at 100 % does not make a tick at 120 %."""
    axis = charts.linear_axis(0.5, 99.9, clip=(0, 100))
    assert (axis.low, axis.high) == (0, 100)


def test_pareto_keeps_what_nothing_beats():
    """Cheaper and better wins; equal points do not beat each other."""
    assert charts.pareto([(1, 0.5), (2, 0.9), (3, 0.8), (1, 0.5)]) == [False, False, True, False]


POINTS = [charts.Point("a", 1, 80, (0.8, 1.3), (75, 85), 1), charts.Point("b", 4, 70, None, (60, 78), 2, dominated=True)]
SERIES = [charts.Series("a", [1.0, 2.0, 3.0], [0.0, 0.5, 1.0], 1)]


@pytest.mark.parametrize(
    "drawing",
    [
        charts.scatter(POINTS, x_unit="ms"),
        charts.scatter(POINTS, x_unit="CNY", log_x=True),
        charts.distribution(SERIES, unit="ms"),
        charts.interval(80.0, (70.0, 88.0), charts.linear_axis(0, 100), bounds=(60.0, 90.0)),
        charts.stack([("o-ok", 9, "ok: 9"), ("o-timeout", 1, "timeout: 1")]),
        charts.columns([(0.0, [("o-ok", 3)]), (1.0, [("o-ok", 1), ("o-timeout", 2)])], width=1.0, unit="s"),
        charts.swatch(3),
        charts.key("o-ok"),
    ],
)
def test_every_chart_is_well_formed_and_styled_by_class_alone(drawing):
    """A Content-Security-Policy without inline styles has nothing to refuse."""
    tree = ET.fromstring(f"<div>{drawing}</div>")  # noqa: S314 - our own drawing
    assert len(list(tree.iter())) > 1
    assert not [node for node in tree.iter() if "style" in node.attrib or any(name.startswith("on") for name in node.attrib)]


def test_names_in_charts_are_text():
    """A model called <script> is a label, not an element."""
    evil = '"><script>alert(1)</script>'
    drawing = charts.scatter([charts.Point(evil, 1, 50, tip=evil)], x_unit=evil)
    assert "<script" not in drawing
    assert "&lt;script&gt;alert(1)" in drawing


def test_dominated_points_differ_by_shape_too():
    """Colour is never the only sign: what is beaten is hollow."""
    assert "hollow" in charts.scatter(POINTS, x_unit="ms")


def test_nothing_measured_draws_nothing():
    """No axes around no data."""
    assert charts.distribution([charts.Series("a", [0.0], [1.0])], unit="ms") == ""
    assert charts.scatter([], x_unit="ms") == ""


@given(st.lists(st.tuples(st.text(max_size=60), positive, st.floats(0, 100)), min_size=1, max_size=8))
@settings(max_examples=40)
def test_any_names_and_places_give_a_drawing(points):
    """Long, empty, Chinese or odd names never break a scatter."""
    drawing = charts.scatter([charts.Point(name, x, y) for name, x, y in points], x_unit="ms", log_x=True)
    assert drawing.count("<path") == len(points)


def test_a_name_without_room_on_a_phone_is_for_wider_pages():
    """A long name beside a curve never runs out of a narrow chart; a short one stays."""
    long, short = "a-model-with-quite-a-long-name-2026", "max"
    drawing = charts.distribution([charts.Series(long, [10.0, 20.0], [0.0, 1.0]), charts.Series(short, [10.0, 100.0], [0.0, 1.0], 2)], unit="ms")
    classes = {text: name.split() for name, text in re.findall(r'class="(label[^"]*)"[^>]*>([^<]*)<', drawing)}
    assert "roomy" in classes[f"{long[: charts.LABEL - 1]}…"]
    assert "roomy" not in classes[short]


def test_prompt_sets_share_the_axis_they_are_asked_to_share():
    """What lies elsewhere widens the axis, so that two charts can be compared by eye."""
    point = [charts.Point("a", 2.0, 50.0), charts.Point("b", 3.0, 60.0)]
    ticks = re.findall(r">([\d.]+)</text>", charts.scatter(point, x_unit="CNY", reach=[2.0, 3.0, 90.0]))
    assert "100" in ticks
    assert "100" not in re.findall(r">([\d.]+)</text>", charts.scatter(point, x_unit="CNY"))
