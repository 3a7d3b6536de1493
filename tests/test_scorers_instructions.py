"""Instruction checks in the manner of IFEval: each followed once and broken once."""

import pytest
from make_records import make_completion, make_request
from test_scorers import score

from evalrunner.engine.scoring import score_with
from evalrunner.errors import ScorerError
from evalrunner.scorers.instructions import CHECKS, instructions

ENGLISH = "this is a plain english sentence about the weather in the mountains"
CASES = [
    ("keywords:existence", {"keywords": ["sun", "Rain"]}, "Sun and rain", "sun only"),
    ("keywords:frequency", {"keyword": "go", "frequency": 2, "relation": "at least"}, "go go", "go"),
    ("keywords:frequency", {"keyword": "go", "frequency": 2, "relation": "less than"}, "go", "go go"),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rocket", "a rock"),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "## x", "#"),
    ("language:response_language", {"language": "de"}, "Das ist ein einfacher deutscher Satz über das Wetter", ENGLISH),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "Version 3.11 is out."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "一句话。", "一句。两句。"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("length_constraints:number_words", {"num_words": 6, "relation": "less than"}, "今天有雨。", "今天天气很好。"),
    ("keywords:forbidden_words", {"forbidden_words": ["坏"]}, "很好", "很坏的天气"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "今天"}, "今天有雨", "明天有雨"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "week"}, "a\n\nWeek, b", "week a\n\nb"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] [age]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "x\nP.P.S. y", "x p.p.s is inside"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "**a**"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1 a\nSECTION 2 b", "SECTION 1"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi! Say hi."),
    ("startend:end_checker", {"end_phrase": "The end."}, "... the end.", "The end. Or not"),
    ("startend:quotation", {}, '"all of it"', '"a" b'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "ONE two", "ONE TWO"),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.title()),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]


@pytest.mark.parametrize(("name", "options", "followed", "broken"), CASES)
def test_each_instruction(name, options, followed, broken):
    """Every instruction has an answer that follows it and one that does not; silence follows none."""
    scorer = instructions(checks=[{"id": name, **options}])
    assert score(scorer, followed).value == 1
    wrong = score(scorer, broken)
    assert (wrong.value, wrong.why) == (0, f"not followed: {name}")
    assert score(scorer, " ").value == 0


def test_no_instruction_is_left_untested():
    """The table above covers the table of checks."""
    assert {case[0] for case in CASES} == set(CHECKS)


def test_ifeval_rows_work_as_they_are():
    """The data file's two columns drive the checks; nulls among the arguments are not arguments."""
    row = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {"num_words": None}]}
    assert score(instructions(), "no comma", **row).value == 0
    assert score(instructions(level="instruction"), "no comma", **row).value == 0.5


def test_mistakes_are_told_early():
    """An unknown id or argument in the config is refused at once; in the data it is a null score with the reason."""
    with pytest.raises(ValueError, match="no instruction is called"):
        instructions(checks=[{"id": "length:words"}])
    with pytest.raises(ValueError, match="takes num_words, relation, not words"):
        instructions(checks=[{"id": "length_constraints:number_words", "words": 3}])
    with pytest.raises(ScorerError, match="needs a list"):
        score(instructions(), "x")


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("detectable_format:number_highlighted_sections", "*" + "a" * 200_000),
        ("detectable_format:json_format", "x" + " " * 200_000 + "x"),
        ("detectable_format:number_bullet_lists", "\n" * 200_000 + "x"),
        ("detectable_format:title", "<<" * 100_000),
        ("length_constraints:number_sentences", "." * 200_000 + "x"),
    ],
)
async def test_an_answer_that_takes_a_pattern_for_ever_has_no_score(check, text):
    """A model may write anything, also what our own patterns would backtrack over for hours: they are cut off after a second."""
    scorer = instructions(checks=[{"id": check}])
    assert (await score_with({"mine": scorer}, make_request(), make_completion(text)))["mine"].why == "the scorer failed: TimeoutError: regex timed out"


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"id": "length_constraints:number_words", "num_words": "many"}, "number_words: num_words: input should be a valid integer"),
        ({"id": "length_constraints:number_words", "num_words": -1}, "greater than or equal to 0"),
        ({"id": "length_constraints:number_words", "relation": "at mst"}, "relation: input should be 'at least' or 'less than'"),
        ({"id": "keywords:existence", "keywords": "sun"}, "keywords: input should be a valid list"),
        ({"id": "keywords:existence"}, "keywords: field required"),
        ({"id": "language:response_language", "language": "german"}, "language: string should match"),
        ({"id": 7}, "no instruction is called 7"),
    ],
)
def test_arguments_have_kinds(check, told):
    """An argument of the wrong kind, a relation that is none, or one that is missing is refused, in the config and in a row of the data."""
    with pytest.raises(ValueError, match=told):
        instructions(checks=[check])
    name, arguments = check["id"], {key: value for key, value in check.items() if key != "id"}
    with pytest.raises(ValueError, match=told):
        instructions().check({"instruction_id_list": [name], "kwargs": [arguments]})


def test_numbers_of_a_table_may_be_floats():
    """A Parquet or CSV file may hold 2.0 or "2" where 2 is meant."""
    for number in (2.0, "2"):
        row = {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": number}]}
        assert score(instructions(), "* a\n* b", **row).value == 1
