"""The built-in text and structured scorers, as a user meets them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.errors import ScorerError
from evalrunner.records import Cell, Completion, Model, Request, Sample, Timing
from evalrunner.scorers.numeric import numeric
from evalrunner.scorers.structured import json_, parse_json
from evalrunner.scorers.text import exact, includes, regex

CELL = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="x"), params={}, stream=False)


def score(scorer, output, target=None, **data):
    request = Request(key="k", cell=CELL, sample=Sample(id="1", data=data, hash="h"), trial=0, messages=[], target=target)
    return scorer(request, Completion(output=output, finish_reason="stop", timing=Timing(started_ns=0, ended_ns=1)))


@pytest.mark.parametrize(
    ("options", "output", "target", "value"),
    [
        ({}, " Paris \n", "Paris", 1),
        ({}, "paris", "Paris", 0),
        ({"ignore_case": True}, "PARIS", "Paris", 1),
        ({}, "Paris.", "Paris", 0),
        ({"ignore_punctuation": True}, "“Paris。”", "Paris", 1),
        ({}, "１２３", "123", 1),
        ({}, "a  b\nc", "a b c", 1),
        ({"ignore_space": True}, "北 京", "北京", 1),
        ({}, "", "x", 0),
        ({}, None, "x", 0),
    ],
)
def test_exact_compares_the_whole_answer(options, output, target, value):
    """exact: outer space and full-width forms never matter, everything else only when an option says so."""
    assert score(exact(**options), output, target).value == value


@pytest.mark.parametrize(
    ("options", "output", "target", "value"),
    [
        ({}, "The capital is paris, of course", "Paris", 1),
        ({}, "a party", "art", 0),
        ({"whole_words": False}, "a party", "art", 1),
        ({}, "it is 3120 m", "12", 0),
        ({}, "it is 12m high", "12", 0),
        ({}, "答案是北京。", "北京", 1),
        ({}, "是北京NBA", "北京", 1),
        ({}, "costs $5.", "$5", 1),
        ({}, "it is 12.5 m", "12", 0),
        ({}, "it is 12.5 m", "5", 0),
        ({}, "it is 12.", "12", 1),
        ({}, "1,200 people", "200", 0),
        ({}, "1,200 people", "1", 0),
        ({}, "1,200 people", "1,200", 1),
        ({}, "1,2,3", "2", 1),
        ({}, "который", "кот", 0),
        ({}, "это кот.", "Кот", 1),
        ({}, "καλημέρα", "καλή", 0),
        ({}, "수도는 서울입니다", "서울", 1),
        ({}, "首都は東京です", "東京", 1),
        ({"ignore_case": False}, "paris", "Paris", 0),
        ({}, "", "Paris", 0),
        ({}, "anything", "", 0),
    ],
)
def test_includes_looks_for_whole_words(options, output, target, value):
    """includes: the target stands somewhere, as a word of its own in scripts that have spaces."""
    assert score(includes(**options), output, target).value == value


def test_further_right_answers_come_from_a_data_column():
    """`accept: column` lets any of several answers be right, whether the column holds a list or one value."""
    assert score(exact(accept="also"), "Holland", "Netherlands", also=["Holland"]).value == 1
    assert score(includes(accept="also"), "It is 7.", "seven", also=7).value == 1
    assert score(exact(accept="also"), "Belgium", "Netherlands", also=None).value == 0


def test_no_target_is_no_score():
    """Without a target there is nothing to be wrong about: the score is null with a reason, not 0."""
    with pytest.raises(ScorerError, match="no target"):
        score(exact(), "x")


def test_regex_finds_or_extracts():
    """regex: alone it asks whether the pattern is there; with a group it compares what was captured with the target."""
    assert score(regex(pattern=r"\bANSWER: \w+"), "so ANSWER: B").value == 1
    assert score(regex(pattern="x"), "abc").value == 0
    last = regex(pattern=r"answer: (\w)", group=1, take="last", ignore_case=True)
    assert score(last, "Answer: A ... no, answer: C", "C").value == 1
    assert "found 'A'" in score(regex(pattern=r"answer: (?P<x>\w)", group="x"), "answer: A", "C").why


def test_regex_that_never_ends_is_cut_off():
    """A pattern that backtracks without end costs one null score with the reason, not the run."""
    with pytest.raises(ScorerError, match="did not finish"):
        score(regex(pattern=r"(.*)(.*)(.*)(.*)(.*)[^a]"), "a" * 2000)


@pytest.mark.parametrize("options", [{"pattern": "("}, {"pattern": "a", "group": 1}, {"pattern": "a", "group": -1}, {"pattern": "(a)", "group": "name"}])
def test_regex_options_are_checked_before_anything_is_sent(options):
    """A pattern that does not compile, or a group it lacks, is refused when the scorer is made."""
    with pytest.raises(ValueError, match=r"pattern|group"):
        regex(**options)


@given(st.text())
def test_no_answer_can_break_a_scorer(output):
    """Whatever a model writes, every scorer gives 0 or 1."""
    for scorer in (exact(), includes(), regex(pattern="a+b"), numeric(), json_()):
        assert score(scorer, output, "1").value in (0, 1)


SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("options", "output", "target", "value"),
    [
        ({}, '{"a": 1}', None, 1),
        ({}, 'Sure!\n```json\n{"a": 1}\n```\nDone.', None, 1),
        ({}, 'The object is {"a": 1}.', None, 1),
        ({"extract": False}, 'The object is {"a": 1}.', None, 0),
        ({}, "no json", None, 0),
        ({}, "[" * 100_000, None, 0),
        ({"schema": SCHEMA}, '{"name": "Ann", "age": 3}', None, 1),
        ({"schema": SCHEMA}, '{"age": 3}', None, 0),
        ({"field": "name"}, '{"name": " Ann "}', '{"name": "Ann"}', 1),
        ({"field": ["name", "age"]}, '{"name": "Ann", "age": 4}', '{"name": "Ann", "age": 3}', 0.5),
        ({"field": ["a.b", "c.0"]}, '{"a": {"b": 1.0}, "c": ["X"]}', '{"a": {"b": 1}, "c": ["x"]}', 0.5),
        ({"field": ["c.0"], "ignore_case": True}, '{"c": ["X"]}', '{"c": ["x"]}', 1),
        ({"field": "gone"}, "{}", "{}", 0),
        ({"field": "yes"}, '{"yes": 1}', '{"yes": true}', 0),
        ({"field": "yes"}, '{"yes": [1]}', '{"yes": [true]}', 0),
        ({"field": "c"}, '{"c": [" x", {"y": 1.0}]}', '{"c": ["x", {"y": 1}]}', 1),
        ({"field": "c", "ignore_case": True}, '{"c": ["X"]}', '{"c": ["x"]}', 1),
        ({"field": "c"}, '{"c": ["x", "y"]}', '{"c": ["x"]}', 0),
    ],
)
def test_json_is_read_checked_and_compared(options, output, target, value):
    """json: valid, valid by a schema, or the share of fields that equal the target's."""
    assert score(json_(**options), output, target).value == value


def test_json_schema_is_checked_before_anything_is_sent_and_never_downloaded():
    """A schema that is none is refused when the scorer is made; a $ref to an address is an error of that answer, not a download."""
    with pytest.raises(ValueError, match="names no field"):
        json_(field=[])
    with pytest.raises(ValueError, match="schema"):
        json_(schema={"type": "objekt"})
    with pytest.raises(Exception, match="Unresolvable"):
        score(json_(schema={"$ref": "http://127.0.0.1:9/x.json"}), "{}")


def test_the_last_code_fence_wins():
    """Models think aloud in fences; the last one is the answer."""
    assert parse_json("```json\n[1]\n```\nbetter:\n```\n[2]\n```", extract=True) == [2]
