"""The data sets and configs that come with the project: right, consistent, and ready to run."""

import ast
import json
import operator
import re
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from evalrunner.plan.config import config_schema, load_config
from evalrunner.plan.grid import make_plan
from evalrunner.plan.yaml_source import read_yaml
from evalrunner.serving.launch import check

ROOT = Path(__file__).parent.parent
DATA = sorted((ROOT / "datasets").glob("*.jsonl"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TEMPLATES = sorted((ROOT / "evalrunner" / "cli" / "templates").glob("*/*.yaml"))
SHIPPED = [*DATA, *(ROOT / "evalrunner" / "cli" / "templates").glob("*/*.jsonl")]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: f"{path.parent.name}/{path.name}")


def value(node: ast.expr) -> float:
    """What an expression of whole numbers comes to, worked out by the tree of Python's own parser."""
    if isinstance(node, ast.Constant):
        return node.value
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
    return operators[type(node.op)](value(node.left), value(node.right))


@named(SHIPPED)
def test_rows_are_complete_and_ids_unique(path):
    """Every row of a set has the same fields, an id nobody else has, and no field with loose spaces."""
    found = rows(path)
    assert 20 <= len(found) <= 200
    assert len({row["id"] for row in found}) == len(found)
    assert {tuple(row) for row in found} == {tuple(found[0])}
    assert all(text == text.strip() != "" for row in found for text in row.values() if isinstance(text, str))
    assert max(Counter(row.get("question", row.get("text")) for row in found).values()) == 1


@named([ROOT / "datasets" / "arithmetic.jsonl", ROOT / "evalrunner" / "cli" / "templates" / "prompt-regression" / "sums.jsonl"])
def test_arithmetic_is_right(path):
    """Each answer is what its question comes to, worked out here, and a whole number."""
    for row in rows(path):
        expression = re.fullmatch(r"What is ([-+×÷() \d]+)\?", row["question"])[1].replace("×", "*").replace("÷", "/")
        assert value(ast.parse(expression, mode="eval").body) == row["answer"], row
        assert isinstance(row["answer"], int)


def test_arithmetic_has_four_levels_of_one_size():
    """A report by level compares like with like."""
    assert Counter(row["level"] for row in rows(ROOT / "datasets" / "arithmetic.jsonl")) == dict.fromkeys([1, 2, 3, 4], 30)


@named([path for path in SHIPPED if path.name == "questions.jsonl"])
def test_no_question_gives_its_answer_away(path):
    """Repeating the question scores nothing."""
    for row in rows(path):
        for answer in [row["answer"], *row["accept"]]:
            assert not re.search(rf"(?<![A-Za-z0-9]){re.escape(answer)}(?![A-Za-z0-9])", row["question"], re.IGNORECASE), row


@pytest.mark.parametrize("name", ["questions.jsonl", "multiple-choice.jsonl"])
def test_each_question_exists_in_both_languages(name):
    """The n-th English and the n-th Chinese row ask the same, so the languages can be compared."""
    found = rows(ROOT / "datasets" / name)
    english, chinese = ([row for row in found if row["language"] == language] for language in ("en", "zh"))
    assert [row["id"].removeprefix("en-") for row in english] == [row["id"].removeprefix("zh-") for row in chinese]
    assert [row["topic"] for row in english] == [row["topic"] for row in chinese]
    assert all(row["question"].isascii() for row in english)
    assert all(re.search(r"[\u4e00-\u9fff]", row["question"]) for row in chinese)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_letter_is_a_better_guess(language):
    """Answer letters are spread evenly, and the four choices differ."""
    found = [row for row in rows(ROOT / "datasets" / "multiple-choice.jsonl") if row["language"] == language]
    assert Counter(row["answer"] for row in found) == dict.fromkeys("ABCD", 10)
    assert all(len(set(row["choices"])) == len(row["choices"]) == 4 for row in found)


def test_what_is_to_be_extracted_stands_in_the_text():
    """Each answer fits the schema of the shipped config, and its values are in the text word for word."""
    config = read_yaml(ROOT / "configs" / "extraction.yaml").value
    schema = config["grid"]["response_format"]["json_schema"]["schema"]
    for row in rows(ROOT / "datasets" / "extraction.jsonl"):
        jsonschema.validate(row["answer"], schema)
        assert all(str(found) in row["text"] for found in row["answer"].values()), row


@named([*CONFIGS, *TEMPLATES])
def test_shipped_configs_are_valid(path):
    """Every config that comes with the project passes what `evalrunner check` checks, every sample against every prompt included."""
    config = load_config(path, environ={})
    plan = make_plan(config)
    check(plan.accounts.values(), config.folder)
    plan.validate()
    assert plan.size > 0


@named(CONFIGS)
def test_shipped_configs_help_an_editor(path):
    """The first line names the schema, which is the one `evalrunner schema` prints, and the config fits it."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    schema = json.loads((ROOT / "configs" / "schema.json").read_text(encoding="utf-8"))
    assert schema == config_schema(), "run: evalrunner schema > configs/schema.json"
    jsonschema.validate(read_yaml(path).value, schema)


def test_expressions_to_be_calculated_have_their_value():
    """Every way of writing an expression comes to the row's `value`, worked out here."""
    calculated = [(row, call["calculate"]["expression"]) for row in rows(ROOT / "datasets" / "tools.jsonl") for call in row["calls"] if "calculate" in call]
    assert len(calculated) == 7
    for row, expressions in calculated:
        for expression in expressions:
            assert value(ast.parse(re.sub("[×x]", "*", expression).replace("÷", "/"), mode="eval").body) == row["value"], row


def test_each_data_set_has_its_place_in_the_readme_and_in_a_config():
    """The README of the folder names every set with its real size and a config that uses it, and its licence."""
    readme = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    assert "CC0 1.0" in readme
    for path in DATA:
        line = next(line for line in readme.splitlines() if line.startswith(f"| `{path.name}`"))
        assert line.split("|")[2].split(":")[0].strip() == str(len(rows(path)))
        users = re.findall(r"`(configs/[a-z-]+\.yaml)`", line)
        assert users
        assert all(f"../datasets/{path.name}" in (ROOT / user).read_text(encoding="utf-8") for user in users)
