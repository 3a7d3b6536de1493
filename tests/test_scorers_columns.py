"""Columns of the data that scorers read: looked for, and their content checked, before anything is sent."""

import json
import sys

import pytest

from evalrunner.errors import DatasetError
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.scorers.isolation import why_not

ROWS = [
    {"q": "a", "also": ["x"], "options": ["x", "y"], "text": "x, y", "broken": "def check(f): ...", "ids": ["punctuation:no_comma"], "kwargs": [{}]},
    {"q": "b", "also": [], "options": ["x", "y"], "text": "x, y", "broken": "def check(f): ...", "ids": ["length:long"], "kwargs": [{}], "rare": 1},
]
OWN = """
from evalrunner import Score
from evalrunner.plugins import RowScorer

def mine(*, column):
    def check(data):
        if column in data and not isinstance(data[column], int):
            raise ValueError(f"{column!r} should be a number")
    return RowScorer(lambda request, completion: Score(value=1.0), [column], check)

def waiting():
    async def score(request, completion):
        return Score(value=1.0)

    def target(text):
        if len(text) < 2:
            raise ValueError(f"{text!r} is too short")
    return RowScorer(score, target=target)
"""


def plan(folder, scorer, **more):
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (folder / "own_scorer.py").write_text(OWN)
    config = {
        "name": "c",
        "providers": {"simulator": {"kind": "simulator"}},
        "models": [{"id": "qwen-turbo", "provider": "simulator"}],
        "prompt_sets": [{"name": "s", "data": "rows.jsonl", "prompts": {"p": "{{ q }}"}, "target": "{{ q }}", "scorers": [scorer], **more}],
    }
    (folder / "c.yaml").write_text(json.dumps(config))
    return make_plan(load_config(folder / "c.yaml"))


def no_field(scorer, name, hint=""):
    return f"scorer '{scorer}' of 's': no row has a field called '{name}'{hint}"


ALSO = " (hint: did you mean 'also'?)"


@pytest.mark.parametrize(
    ("scorer", "told"),
    [
        *[({name: {"accept": "alos"}}, no_field(name, "alos", ALSO)) for name in ("exact", "includes", "token_f1", "rouge", "bleu", "chrf", "similarity")],
        ({"embedding": {"model": "e", "base_url": "http://x.test/v1", "accept": "alos"}}, no_field("embedding", "alos", ALSO)),
        ({"choice": {"choices": "optoins"}}, no_field("choice", "optoins", " (hint: did you mean 'options'?)")),
        (
            {"choice": {"choices": "text"}},
            "rows.jsonl:1: scorer 'choice' of 's': choices: 'text' should be a list of the options, not 'x, y' (and in 1 more rows)",
        ),
        ({"combine": {"scorers": ["exact", {"exact": {"accept": "alos"}}]}}, no_field("combine", "alos", ALSO)),
        ({"instructions": {"ids": "ids"}}, "rows.jsonl:2: scorer 'instructions' of 's': checks: no instruction is called 'length:long'"),
        ({"instructions": {"ids": "idds"}}, no_field("instructions", "idds", " (hint: did you mean 'ids'?)")),
        ({"own_scorer:mine": {"column": "rares"}}, "no row has a field called 'rares'"),
        ({"own_scorer:mine": {"column": "text"}}, "'text' should be a number"),
    ],
)
def test_a_column_that_is_not_there_is_refused(tmp_path, scorer, told):
    """A misspelt column, or one that does not hold what the scorer reads, is told by the check that renders the prompts: no score is silently 0."""
    with pytest.raises(DatasetError) as refused:
        plan(tmp_path, scorer).validate()
    assert told in str(refused.value)
    sys.modules.pop("own_scorer", None)


@pytest.mark.parametrize(
    ("scorer", "told"),
    [
        ({"choice": {"letters": "WXYZ"}}, "scorer 'choice' of 's': the target 'a' is not one of the letters WXYZ"),
        ("numeric", "scorer 'numeric' of 's': the target 'a' has no number to compare with"),
        ({"json": {"field": "x"}}, "scorer 'json' of 's': the target is not JSON: "),
        ("tool_calls", "scorer 'tool_calls' of 's': the target is not JSON: "),
        ({"combine": {"scorers": ["exact", "numeric"]}}, "scorer 'combine' of 's': the target 'a' has no number"),
        ("own_scorer:waiting", "scorer 'waiting' of 's': 'a' is too short"),
        ({"combine": {"scorers": ["exact", "own_scorer:waiting"]}}, "scorer 'combine' of 's': 'a' is too short"),
    ],
)
def test_a_target_that_nothing_can_equal_is_refused(tmp_path, scorer, told):
    """A letter, a number, JSON or calls where the scorer compares with those: otherwise every answer would be paid for and none scored."""
    with pytest.raises(DatasetError) as refused:
        plan(tmp_path, scorer).validate()
    assert f"rows.jsonl:1: {told}" in str(refused.value)
    sys.modules.pop("own_scorer", None)


@pytest.mark.skipif(why_not() is not None, reason="programs cannot be isolated here")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, no_field("code", "test", " (hint: did you mean 'text'?)")),
        ({"tests": "broken"}, "rows.jsonl:1: scorer 'code' of 's': the tests define check(…), but the sample does not name the function to check"),
        ({"tests": "text", "prompt": "qq"}, no_field("code", "qq")),
    ],
)
def test_tests_of_programs_are_looked_for(tmp_path, options, told):
    """The columns of `code` as well; HumanEval's `prompt` and `entry_point` may be missing where the config does not name them."""
    with pytest.raises(DatasetError) as refused:
        plan(tmp_path, {"code": options}).validate()
    assert told in str(refused.value)
    plan(tmp_path, {"code": {"tests": "text"}}).validate()


def test_a_column_that_few_rows_have_is_there(tmp_path):
    """One row is enough, and it need not be among those that `limit` chooses."""
    plan(tmp_path, {"exact": {"accept": "rare"}}).validate()
    plan(tmp_path, {"exact": {"accept": "rare"}}, limit=1).validate()
    plan(tmp_path, {"exact": {"accept": "also"}}).validate()
