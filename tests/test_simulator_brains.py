"""The scripted brains: right answers, and wrong ones that look right."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import CHAT, simulated

from evalrunner.simulator.arithmetic import solve
from evalrunner.simulator.brains import Lookup, expected_calls, said, wrong_text, wrong_value
from evalrunner.simulator.calls import Call
from evalrunner.simulator.chance import Correlation, is_right
from evalrunner.simulator.tool_caller import ToolCaller, fill


def evaluate(text):
    found = solve(text)
    return found and found[1]


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("What is 17 + 4 * 3? Answer with the number only.", "29"),
        ("What is twelve times five?", "60"),
        ("三十五加七等于多少？只回答数字。", "42"),
        ("三百二十一减一百零五是多少？", "216"),
        ("What is three hundred and twenty-one plus five?", "326"),
        ("(3 + 4) × 2 =", "14"),
        ("1,200 / 7", "171.4286"),
        ("Compute 2^10.", "1024"),
        ("20% of 50", "10"),
        ("What is 5 minus -3?", "8"),
        ("7 - (2 - 5)", "10"),
        ("2 + 2 is 4. And 3 + 3?", "6"),
        ("(see 3 + 4)", "7"),
        ("1 / 0", None),
        ("9 ** 9 ** 9", None),
        ("Hello, how are you?", None),
        ("There are 12 apples.", None),
    ],
)
def test_arithmetic_is_understood_in_digits_and_words(question, value):
    """Expressions, English and Chinese number words, percentages; the last expression counts, as the question follows the examples."""
    assert evaluate(question) == value


@settings(deadline=None)
@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*"))
def test_arithmetic_agrees_with_python(left, right, sign):
    """Whatever is asked of it, the brain computes what Python would."""
    expected = {"+": left + right, "-": left - right, "*": left * right}[sign]
    assert evaluate(f"What is {left} {sign} {right}?") == str(expected)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_no_question_breaks_it(text):
    """Any text has a value or none."""
    value = evaluate(text)
    assert value is None or re.fullmatch(r"-?\d+(\.\d+)?", value)


@settings(deadline=None)
@given(
    st.one_of(st.integers(-(10**6), 10**6).map(str), st.sampled_from(["B", "(C)", "True", "no", "3.50", "1,200", "45%", "是", '{"a": 1, "b": "x"}', "Paris"])),
    st.integers(0, 2**64),
)
def test_a_wrong_answer_is_wrong_and_of_the_same_kind(right, draw):
    """Numbers stay numbers, letters letters, JSON JSON with the same fields: and never the right answer."""
    wrong = wrong_text(right, "Choose: A) x B) y C) z D) w", draw, ["London", "Rome"])
    assert wrong != right
    if right.startswith("{"):
        assert set(json.loads(wrong)) == {"a", "b"}
        assert json.loads(wrong) != json.loads(right)
    elif re.fullmatch(r"[-\d.,%]+", right):
        assert re.fullmatch(r"-?[\d.]+%?", wrong)
    elif right in {"B", "(C)"}:
        assert re.fullmatch(r"\(?[A-D]\)?", wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(JSON, st.integers(0, 2**64))
def test_a_wrong_value_differs_from_the_right_one(value, draw):
    """For any JSON value there is a wrong one."""
    assert wrong_value(value, draw) != value


def test_luck_has_the_asked_probability_for_each_model():
    """Over many questions the share of right answers is the accuracy, whatever the correlations are."""
    for correlation in (Correlation(), Correlation(0, 0), Correlation(1, 0), Correlation(0.2, 0.8)):
        right = sum(is_right(0.8, seed=1, subject=str(number), model="m", request="r", correlation=correlation) for number in range(4_000))
        assert right / 4_000 == pytest.approx(0.8, abs=0.03)


def test_one_sum_in_two_wordings_is_one_question():
    """What a question is called does not depend on the prompt around it, so that wordings share its difficulty."""
    assert solve("What is 12 + 3? Answer with the number only.") == solve("Think carefully: twelve plus three") == ("12+3", "15")


async def test_answers_come_from_a_data_set_whatever_the_prompt_around_them():
    """A known question is found inside any template; the longest match wins; others fall to arithmetic, then to an echo."""
    answers = [
        {"question": "Capital of France?", "answer": "Paris"},
        {"question": "What is the Capital of France? And of Spain?", "answer": "Paris, Madrid"},
        {"question": "Janet has 16 eggs", "answer": "16 - 4 = 12\n#### 12"},
        {"question": "Extract: 3 lamps", "answer": {"item": "lamp", "quantity": 3}},
        {"question": "How many?", "answer": 7},
    ]
    async with simulated(answers=answers) as it:
        said_ = [
            (await it.chat(prompt)).text
            for prompt in (
                "Question: Capital of  France?\nAnswer briefly.",
                "What is the Capital of France? And of Spain?",
                "Janet has 16 eggs. Step by step, please.",
                "Extract: 3 lamps",
                "How many?",
                "What is 2 + 3?",
                "Hello",
            )
        ]
    assert said_ == ["Paris", "Paris, Madrid", "12", '{"item":"lamp","quantity":3}', "7", "5", "Hello"]


async def test_data_sets_are_read_from_files(tmp_path):
    """.jsonl, .json, .csv, with the usual column names or named ones, several at once."""
    (tmp_path / "a.jsonl").write_text('{"question": "alpha?", "answer": "A1"}\n\n{"question": "beta?", "answer": 2}\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("ask,say\ngamma?,G3\n", encoding="utf-8")
    (tmp_path / "c.json").write_text('[{"input": "delta?", "target": "D4"}]', encoding="utf-8")
    sources = [str(tmp_path / "a.jsonl"), {"data": str(tmp_path / "b.csv"), "question": "ask", "answer": "say"}, str(tmp_path / "c.json")]
    async with simulated(brain={"lookup": sources}) as it:
        assert [(await it.chat(question)).text for question in ("alpha?", "beta?", "gamma?", "delta?")] == ["A1", "2", "G3", "D4"]


async def test_the_echo_brain_says_what_was_said():
    """For tests that need an answer they can foretell."""
    async with simulated(brain="echo") as it:
        assert (await it.chat("What is 1 + 1?")).text == "What is 1 + 1?"


def test_tool_calls_of_data_sets_are_read_in_three_forms():
    """{name, arguments}, {function: {argument: value}}, and BFCL's lists of acceptable values, whose optional arguments are left out."""
    assert expected_calls({"name": "f", "arguments": {"x": 1}}) == [("f", {"x": 1})]
    assert expected_calls([{"f": {"x": 1}}, {"g": {}}]) == [("f", {"x": 1}), ("g", {})]
    assert expected_calls([{"f": {"base": [10, 11], "unit": ["", "units"], "at": [{"city": ["Rome", "Roma"]}]}}]) == [
        ("f", {"base": 10, "at": {"city": "Rome"}})
    ]
    assert expected_calls("text") is None
    assert expected_calls({"a": 1, "b": 2}) is None
    assert said({"a": 1}) == '{"a":1}'


def test_arguments_are_read_from_the_question():
    """Numbers, quotations, names, enums and nested objects find their place."""
    schema = {
        "type": "object",
        "required": ["base", "height", "unit", "city", "tags", "deep", "sure"],
        "properties": {
            "base": {"type": "integer"},
            "height": {"type": "number"},
            "unit": {"enum": ["cm", "inch"]},
            "city": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "deep": {"type": "object", "properties": {"n": {"type": "integer"}}},
            "sure": {"type": "boolean"},
        },
    }
    filled = fill(schema, 'Area with base 10 and height 5.5 in inch for Rome, "red", 3')
    assert filled == {"base": 10, "height": 5.5, "unit": "inch", "city": "Rome", "tags": ["red"], "deep": {"n": 3}, "sure": True}


def test_tool_calls_inside_lists_are_read():
    """BFCL lists what is acceptable inside objects inside lists, too."""
    answer = [{"find": {"where": [[{"field": ["age", "years"], "above": [25], "below": ["", 90]}]]}}]
    assert expected_calls(answer) == [("find", {"where": [{"field": "age", "above": 25}]})]


@settings(deadline=None)
@given(st.integers(0, 2**64))
def test_a_wrong_call_is_none_of_the_acceptable_ones(number):
    """What the data set takes instead is no mistake: each wrong call is wrong whatever is drawn."""
    answer = [{"book": {"hotel": ["Hilton Hotel", "Hilton", "Hil"], "nights": [1, 2, 3, 0, 11], "city": ["Rome, Italy", "Rome,"]}}]
    call = Call(
        dialect="openai",
        model="m",
        facts=None,
        messages=[{"role": "user", "content": "Book it"}],
        params={"tools": [tool("book")]},
        stream=False,
        thinking=False,
    )
    solution = ToolCaller(Lookup([("Book it", answer)]), eager=True)(call)
    assert solution.right == [("book", {"hotel": "Hilton Hotel", "nights": 1, "city": "Rome, Italy"})]
    [(name, arguments)] = solution.wrong(number)
    [accepted] = answer[0].values()
    assert name == "book"
    assert any(arguments[key] not in accepted[key] for key in accepted) or "unknown" in arguments


def tool(name, description="", **properties):
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": {"type": "object", "properties": properties, "required": list(properties)}},
    }


AREA = tool("area", "Area of a triangle", base={"type": "integer"}, height={"type": "integer"})
WEATHER = tool("get_weather", "Weather of a city", city={"type": "string"})
NOW = tool("now", "What time is it")


async def test_tools_are_called_as_the_question_wants():
    """The tool whose words the question shares, its arguments from the question; none where nothing fits; the one that is forced; none on request."""
    async with simulated() as it:
        ask = [
            await it.chat("Area of a triangle with base 10 and height 5", tools=[WEATHER, AREA]),
            await it.chat("Hello", tools=[WEATHER, AREA]),
            await it.chat("Hello", tools=[WEATHER, AREA], tool_choice={"type": "function", "function": {"name": "get_weather"}}),
            await it.chat("Area of a triangle with base 10 and height 5", tools=[AREA], tool_choice="none"),
            await it.chat("What time is it", tools=[NOW]),
        ]
    messages = [answered.json["choices"][0]["message"] for answered in ask]
    called = [[(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())] for message in messages]
    assert called == [[("area", '{"base": 10, "height": 5}')], [], [("get_weather", '{"city": "Hello"}')], [], [("now", "")]]
    assert ask[0].json["choices"][0]["finish_reason"] == "tool_calls"
    assert messages[0]["content"] == ""
    assert ask[0].json["usage"]["prompt_tokens"] > ask[3].json["usage"]["prompt_tokens"]


async def test_streamed_tool_calls_keep_the_services_traps():
    """The first piece has id and name, later ones id "" and name null; joined by index they are the call."""
    async with simulated() as it:
        streamed = await it.chat("Area of a triangle with base 10 and height 5", tools=[AREA], stream=True)
    pieces = [call for event in streamed.events for call in event["choices"][0]["delta"].get("tool_calls", ())]
    assert pieces[0]["function"] == {"name": "area", "arguments": ""}
    assert {(piece["id"], piece["function"]["name"]) for piece in pieces[1:]} == {("", None)}
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"base": 10, "height": 5}'


async def test_a_data_set_of_tool_calls_is_answered_with_the_known_error_rate():
    """BFCL-like rows: right calls are the expected ones, wrong ones differ, names with dots are matched to tools without."""
    answers = [[f"Area of number {number}, please", [{"geo.area": {"base": [number], "height": [5]}}]] for number in range(200)]
    area = tool("geo_area", "", base={"type": "integer"}, height={"type": "integer"})
    async with simulated(answers=answers, accuracy=0.8, limits=False, brain="tool_caller") as it:
        right = 0
        for number in range(200):
            answered = await it.chat(f"Area of number {number}, please", tools=[area])
            call = answered.json["choices"][0]["message"]["tool_calls"][0]["function"]
            right += call == {"name": "geo_area", "arguments": f'{{"base": {number}, "height": 5}}'}
        stats = (await it.get("/simulator/stats")).json
    assert right == stats["right"]["qwen-turbo"]
    assert right / 200 == pytest.approx(0.8, abs=0.1)


async def test_parallel_calls_only_when_allowed():
    """parallel_tool_calls is off by default."""
    answers = [["Weather in Rome and Oslo", [{"get_weather": {"city": "Rome"}}, {"get_weather": {"city": "Oslo"}}]]]
    async with simulated(answers=answers) as it:
        one = await it.chat("Weather in Rome and Oslo", tools=[WEATHER])
        both = await it.chat("Weather in Rome and Oslo", tools=[WEATHER], parallel_tool_calls=True)
    assert len(one.json["choices"][0]["message"]["tool_calls"]) == 1
    assert [call["index"] for call in both.json["choices"][0]["message"]["tool_calls"]] == [0, 1]


async def test_the_conversation_goes_on_after_a_tools_result():
    """With the result in hand the model answers in words, and the result is part of the bill."""
    called = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny, 25 degrees"},
    ]
    async with simulated() as it:
        answered = await it.post(CHAT, {"model": "qwen-turbo", "messages": messages, "tools": [WEATHER]})
    assert answered.text == "sunny, 25 degrees"
    assert answered.json["choices"][0]["finish_reason"] == "stop"
