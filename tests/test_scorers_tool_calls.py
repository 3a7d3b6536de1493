"""The scorer of function calls, as a user meets it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.errors import ScorerError
from evalrunner.records import Cell, Completion, Model, Request, Sample, Timing
from evalrunner.scorers.tool_calls import arguments_of, tool_calls

CELL = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="x"), params={}, stream=False)


def call(function, /, **arguments):
    return {"id": "c", "name": function, "arguments": json.dumps(arguments)}


def score(target, *calls, conversation=(), **options):
    target = target if target is None or isinstance(target, str) else json.dumps(target)
    request = Request(key="k", cell=CELL, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[], target=target)
    timing = Timing(started_ns=0, ended_ns=1)
    return tool_calls(**options)(request, Completion(output="", finish_reason="stop", timing=timing, tool_calls=tuple(calls), conversation=tuple(conversation)))


def said(*calls):
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": one} for one in calls]}


PLAIN = [{"name": "f", "arguments": {"a": 1, "b": "Rome"}}]
BFCL = [{"f": {"city": ["New York", "NYC"], "days": [3], "unit": ["C", ""]}}]


@pytest.mark.parametrize(
    ("target", "calls", "why"),
    [
        (PLAIN, [call("f", a=1, b="Rome")], None),
        (PLAIN, [call("f", a=1.0, b="rome")], None),
        (PLAIN[0], [call("f", a=1, b="Rome")], None),
        (PLAIN, [call("f", a=1)], "b is missing"),
        (PLAIN, [call("f", a=1, b="Rome", c=2)], "c is not expected"),
        (PLAIN, [call("f", a=2, b="Rome")], "a is 2, expected 1"),
        (PLAIN, [call("f", a="1", b="Rome")], 'a is "1", expected 1'),
        (PLAIN, [call("f", a=True, b="Rome")], "a is true, expected 1"),
        (PLAIN, [call("g", a=1, b="Rome")], "called g, expected f"),
        (PLAIN, [], "no call was made, expected f"),
        (PLAIN, [call("f", a=1, b="Rome"), call("f", a=1, b="Rome")], "not expected: f("),
        (PLAIN, [{"id": "c", "name": "f", "arguments": '{"a": 1, '}], "the arguments of f are not JSON"),
        ([{"function": {"name": "f", "arguments": '{"a": 1}'}}], [call("f", a=1)], None),
        ([{"name": "now", "arguments": {}}], [{"id": "c", "name": "now", "arguments": ""}], None),
        ([], [], None),
        ([], [call("f")], "not expected: f("),
        (BFCL, [call("f", city="NYC", days=3)], None),
        (BFCL, [call("f", city="new-york", days=3.0, unit="c")], None),
        (BFCL, [call("f", city="Boston", days=3)], 'city is "Boston", expected "New York" or "NYC"'),
        (BFCL, [call("f", city="NYC")], "days is missing"),
        (BFCL, [call("f", city="NYC", days=3, unit="F")], 'unit is "F", expected "C"'),
        ([{"math.area": {"r": [2]}}], [call("math_area", r=2)], None),
        ([{"f": {"points": [[1.0, 2.5]]}}], [call("f", points=[1, 2.5])], None),
        ([{"f": {"points": [[1.0, 2.5]]}}], [call("f", points=[2.5, 1])], "points is [2.5, 1]"),
        ([{"f": {"names": [["Ann", "Bob"]]}}], [call("f", names=["ann", "bob"])], None),
        ([{"f": {"grid": [[[1, 2], [3, 4]]]}}], [call("f", grid=[[1, 2], [3, 4]])], None),
        ([{"f": {"where": [{"min": [3, 4], "max": [9, ""]}]}}], [call("f", where={"min": 4})], None),
        ([{"f": {"where": [{"min": [3, 4], "max": [9, ""]}]}}], [call("f", where={"min": 4, "max": 8})], "where is"),
        ([{"f": {"rows": [[{"x": [1]}, {"x": [2]}]]}}], [call("f", rows=[{"x": 1}, {"x": 2}])], None),
        ([{"name": "f", "arguments": {"o": {"list": [1, 2]}}}], [call("f", o={"list": [1, 2]})], None),
        ([{"name": "f", "arguments": {"o": {"list": [1, 2]}}}], [call("f", o={"list": 1})], "o is"),
        ([{"f": {"flag": [True, ""]}}], [call("f", flag=1)], "flag is 1, expected true"),
        ([{"f": {"days": ["", 0]}}], [call("f", days=0)], None),
        ([{"f": {"city": ["北京"]}}], [call("f", city="上海")], 'city is "上海", expected "北京"'),
    ],
)
def test_calls_are_compared_with_the_target(target, calls, why):
    """The right function with the right arguments is 1; anything else is 0, and the reason says what differs."""
    found = score(target, *calls)
    assert found.value == (1.0 if why is None else 0.0)
    assert (why or "") in found.why
    assert bool(found.why) is (why is not None)


def test_order_is_free_unless_it_is_asked_for():
    """Parallel calls may come in any order; `ordered` wants the target's."""
    target = [{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {"a": 2}}]
    swapped = [call("f", a=2), call("f", a=1)]
    assert score(target, *swapped).value == 1
    assert score(target, *swapped, ordered=True).value == 0
    assert score(target, *reversed(swapped), ordered=True).value == 1


def test_overlapping_acceptable_values_find_their_pairing():
    """A call that fits two expected ones is given to the one that needs it."""
    target = [{"f": {"a": [1, 2]}}, {"f": {"a": [1]}}]
    assert score(target, call("f", a=1), call("f", a=2)).value == 1
    assert score(target, call("f", a=2), call("f", a=2)).why == "f: a is 2, expected 1"


def test_the_reason_pairs_what_belongs_together():
    """Of two calls the right one is not blamed for the wrong one."""
    target = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": 1}}]
    assert score(target, call("g", b=2), call("f", a=1)).why == "g: b is 2, expected 1"
    assert score(target, call("f", a=1)).why == "g was not called"


@pytest.mark.parametrize(("texts", "value"), [("loose", 1), ("exact", 0)])
def test_texts_can_be_compared_to_the_letter(texts, value):
    """Case, spaces and the punctuation BFCL ignores matter with `texts: exact` only."""
    assert score([{"name": "f", "arguments": {"x": "St. John's, N.L."}}], call("f", x="st johns nl"), texts=texts).value == value
    assert score([{"name": "f", "arguments": {"x": "a"}}], call("f", x="a"), texts=texts).value == 1


def test_text_without_letters_is_not_all_alike():
    """'-' and '*' both vanish in the comparison, and still differ."""
    assert score([{"name": "f", "arguments": {"op": "-"}}], call("f", op="*")).value == 0
    assert score([{"name": "f", "arguments": {"op": "-"}}], call("f", op="-")).value == 1


@pytest.mark.parametrize(("turn", "value"), [("all", 1), ("first", 0), ("last", 0)])
def test_calls_of_all_turns_count_unless_one_is_named(turn, value):
    """Where calls were answered and the model went on, the calls of the whole conversation are compared, or one turn's."""
    talk = [
        said(call("f", a=1)),
        {"role": "tool", "tool_call_id": "c", "content": "x"},
        said(call("g", b=2)),
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ]
    assert score([{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": 2}}], conversation=talk, turn=turn).value == value
    assert score([{"name": "f", "arguments": {"a": 1}}], conversation=talk, turn="first").value == 1
    assert score([{"name": "g", "arguments": {"b": 2}}], conversation=talk, turn="last").value == 1


@pytest.mark.parametrize("target", [None, "Rome", '"f"', "[1]", '[{"f": 1}]', '[{"f": {}, "g": {}}]', '[{"name": "f", "arguments": "{"}]'])
def test_a_target_that_is_none_is_no_score(target):
    """A target nobody can compare with gives null and the reason, never a wrong 0."""
    with pytest.raises(ScorerError, match="target"):
        score(target, call("f"))


@pytest.mark.parametrize("options", [{"texts": "fuzzy"}, {"turn": "second"}])
def test_options_have_a_few_values(options):
    """A wrong value is a ValueError before anything is sent."""
    with pytest.raises(ValueError, match=next(iter(options))):
        tool_calls(**options)


JSON = st.recursive(
    st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.text(min_size=1, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(min_size=1, max_size=5), JSON, max_size=3)


@given(st.lists(st.tuples(st.sampled_from("fgh"), ARGUMENTS), max_size=4), st.randoms())
def test_calls_equal_themselves_in_any_order(calls, rng):
    """Whatever the arguments hold, the target's own calls are right, shuffled too, and one more or one fewer is wrong."""
    target = [{"name": name, "arguments": arguments} for name, arguments in calls]
    made = [{"id": "", "name": name, "arguments": json.dumps(arguments)} for name, arguments in calls]
    rng.shuffle(made)
    assert score(target, *made, texts="exact").value == 1
    assert score(target, *made).value == 1
    assert score(target, *made, call("extra")).value == 0
    if made:
        assert score(target, *made[1:]).value == 0


@given(ARGUMENTS, st.lists(JSON, min_size=1, max_size=3), st.data())
def test_every_acceptable_value_is_accepted(arguments, more, data):
    """BFCL's form: any of the values of an argument is right, one that may be left out is right without it, too."""
    # objects inside acceptable values list acceptable values themselves, so each is wrapped as BFCL does it
    accepted = {name: [wrapped(one) for one in (value, *more)] for name, value in arguments.items()}
    chosen = {name: data.draw(st.sampled_from([value, *more])) for name, value in arguments.items()}
    assert score([{"f": accepted}], call("f", **chosen)).value == 1
    optional = {name: [*values, ""] for name, values in accepted.items()}
    assert score([{"f": optional}], call("f")).value == 1


def wrapped(value):
    if isinstance(value, dict):
        return {name: [wrapped(inner)] for name, inner in value.items()}
    return [wrapped(inner) for inner in value] if isinstance(value, list) else value


@given(st.text(max_size=30) | st.none() | st.dictionaries(st.text(), st.integers()))
def test_arguments_are_an_object_or_an_error(text):
    """Whatever a model writes there: an object, or a ValueError that says what it is not."""
    try:
        assert isinstance(arguments_of({"name": "f", "arguments": text}), dict)
    except ValueError as error:
        assert "the arguments of f are not" in str(error)  # noqa: PT017 - either of two ends is right
