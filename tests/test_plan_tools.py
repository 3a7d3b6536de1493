"""Function definitions and their answers, as a config and a data set may write them; every mistake is found before anything is sent."""

import json
from copy import deepcopy

import pytest

from evalrunner.errors import ConfigError, DatasetError
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.plan.tools import Templates, definition, definitions
from evalrunner.records import Sample

HEAD = """\
name: demo
models: [{id: m, provider: local}]
prompt_sets:
  - name: set
    samples: [{question: hi, city: Rome, functions: [{name: a.b, parameters: {type: dict, properties: {x: {type: float}}}}]}]
    prompts: {plain: "{{ question }}"}
"""
F = "    tools: [{name: f, parameters: {type: object, properties: {x: {type: string}}}}]\n"
DASHSCOPE = HEAD.replace("local", "dashscope")


def plan_of(tmp_path, text):
    path = tmp_path / "demo.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(load_config(path, environ={"DASHSCOPE_API_KEY": "k"}))


def first(tmp_path, text):
    plan = plan_of(tmp_path, text)
    plan.validate()
    return next(plan.requests(plan.models[0]))


def problem(tmp_path, text):
    with pytest.raises((ConfigError, DatasetError)) as caught:
        plan_of(tmp_path, text).validate()
    [found] = caught.value.problems
    return found.split(": ", 1)[1]


def test_both_forms_of_a_definition_are_sent_as_one(tmp_path):
    """The inner part alone, or OpenAI's whole form; what is sent is OpenAI's, parameters included where there are none."""
    inner = {"name": "now", "description": "The time."}
    sent = {"type": "function", "function": {**inner, "parameters": {"type": "object", "properties": {}}}}
    assert definition(inner) == definition({"type": "function", "function": inner}) == definition(sent) == sent
    assert first(tmp_path, HEAD + F).tools[0]["function"]["name"] == "f"


def test_dialects_of_data_sets_become_json_schema():
    """BFCL's types, at every depth, and dots in names; a property that is called `type` is a property. The row itself is left as it was."""
    written = {
        "name": "geo.area",
        "parameters": {
            "type": "dict",
            "properties": {
                "type": {"type": "string", "description": "float"},
                "sides": {"type": "tuple", "items": {"type": "float"}},
                "options": {"type": "dict", "properties": {"exact": {"type": "bool"}}},
                "anything": {"type": "any", "description": "x"},
                "either": {"anyOf": [{"type": "int"}, {"type": "str"}]},
            },
            "required": ["sides"],
        },
        "notes": "of the data set's own",
    }
    before = deepcopy(written)
    function = definition(written)["function"]
    assert written == before
    assert function["name"] == "geo_area"
    assert "notes" not in function
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "type": {"type": "string", "description": "float"},
            "sides": {"type": "array", "items": {"type": "number"}},
            "options": {"type": "object", "properties": {"exact": {"type": "boolean"}}},
            "anything": {"description": "x"},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
        "required": ["sides"],
    }


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("[{type: function}]", "tools[0]: should be a function"),
        ("[{name: get weather}]", "tools[0]: the name 'get weather' should be 1 to 64 letters"),
        (f"[{{name: {'x' * 65}}}]", "should be 1 to 64 letters"),
        ("[{name: f, parametres: {}}]", "tools[0]: the function f: unknown key 'parametres' (hint: did you mean 'parameters'?)"),
        ("[{name: f, parameters: {type: array}}]", "tools[0]: the function f: parameters should be a JSON Schema of type object"),
        ("[{name: f, parameters: {properties: {x: {type: strin}}}}]", "tools[0]: the function f: parameters are no JSON Schema: $.properties.x.type"),
        ("[{name: f, parameters: {properties: [x]}}]", "tools[0]: the function f: parameters are no JSON Schema"),
        ("[{name: f, description: [x]}]", "tools[0]: the function f: description should be text"),
        ("[{name: a.b}, {name: a_b}]", "tools: two functions are called 'a_b'"),
        ("[]", "tools: is empty"),
    ],
)
def test_wrong_definitions_are_refused(tmp_path, written, told):
    """What the service would refuse, or no model could use, is told with its place in the config."""
    assert told in problem(tmp_path, HEAD + f"    tools: {written}\n")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (F + "    tool_choice: always\n", "tool_choice: should be auto, none, required or {type: function"),
        (F + "    tool_choice: {type: function, function: {name: g}}\n", "tool_choice: no function is called 'g'"),
        (F + "    tool_choice: {name: f}\n", "tool_choice: should be auto, none, required or {type: function"),
        ("    tool_choice: auto\n", "tool_choice: needs tools or tools_from"),
        ("    tool_results: {f: x}\n", "tool_results: needs tools or tools_from"),
        (F + "    max_turns: 3\n", "max_turns: needs tool_results"),
        (F + "    tool_results: {g: x}\n", "tool_results.g: no function is called so"),
        (F + "    tool_results: {f: '{{ x '}\n", "tool_results.f: line 1 of the template"),
        (F + "    tool_results: nothing\n", "tool_results: should be a template for each function, or a plug-in as module:attribute"),
        (F + "    tool_results: 'no_such_module:f'\n", "tool_results: tool 'no_such_module:f' cannot be loaded"),
        (F + "    tool_results: {f: x}\n    max_turns: 0\n", "max_turns: should be at least 1"),
        (F + "    tools_from: functions\n", "takes tools (the same for every row) or tools_from (a column), not both"),
        ("    tools_from: funcs\n", "tools of 'set': no field is called 'funcs'"),
        ("    tools_from: city\n", "tools of 'set': is not a JSON list of functions"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, more, told):
    """A key that would do nothing, or something else than was meant, is a mistake with its place."""
    assert told in problem(tmp_path, HEAD + more)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (F + "    tool_choice: required\n", "tool_choice: DashScope does not know tool_choice required"),
        ("    tools: [{name: search}]\n", "tools: DashScope takes no"),
    ],
)
def test_what_dashscope_alone_refuses_is_refused_for_dashscope_alone(tmp_path, more, told):
    """`required` and a function called search work elsewhere."""
    assert told in problem(tmp_path, DASHSCOPE + more)
    assert first(tmp_path, HEAD + more).tools


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        ("qwen-plus", False),
        ("{id: qwen-plus, params: {enable_thinking: [false, true]}}", True),
        ("{id: qwen3.7-plus, provider: dashscope-native}", True),
        ("{id: qwen3.7-plus, params: {enable_thinking: false}}", False),
        ("{id: qwen3.8-max, params: {reasoning_effort: [none, low]}}", True),
        ("{id: qwen3.8-max, params: {reasoning_effort: none}}", False),
        ("qwq-plus", True),
        ("qwen-new", False),
    ],
)
def test_no_function_is_forced_on_a_model_that_thinks(tmp_path, model, refused):
    """DashScope refuses every such request, so the config is refused first; where no point of the grid thinks, it is taken."""
    text = DASHSCOPE.replace("{id: m, provider: dashscope}", model) + F + "    tool_choice: {type: function, function: {name: f}}\n"
    if refused:
        assert "tool_choice: no function can be forced on qw" in problem(tmp_path, text)
    else:
        assert first(tmp_path, text).tool_choice


def test_rows_bring_their_own_functions(tmp_path):
    """`tools_from` takes a column with a list, its JSON text, or one function; what DashScope refuses is told with the row."""
    assert first(tmp_path, HEAD + "    tools_from: functions\n").tools == [
        {"type": "function", "function": {"name": "a_b", "parameters": {"type": "object", "properties": {"x": {"type": "number"}}}}}
    ]
    assert definitions(json.dumps([{"name": "f"}])) == definitions({"name": "f"})
    assert "samples[0]" not in problem(tmp_path, DASHSCOPE.replace("a.b", "search") + "    tools_from: functions\n")
    forced = "    tools_from: functions\n    tool_choice: {type: function, function: {name: c}}\n"
    assert "no function is called 'c'" in problem(tmp_path, HEAD + forced)


def test_what_is_asked_with_other_tools_is_another_request(tmp_path):
    """Functions, choice, results and turns are in the key; without tools, the key is what it was."""
    results = F + "    tool_results: {f: x}\n"
    variants = [
        "",
        F,
        F.replace("name: f", "name: g"),
        F + "    tool_choice: auto\n",
        results,
        results.replace("f: x}\n", "f: z}\n"),
        results + "    max_turns: 2\n",
    ]
    keys = [first(tmp_path, HEAD + more).key for more in variants]
    assert len(set(keys)) == len(keys)


def test_results_are_templates_over_arguments_and_row():
    """The call's arguments stand over the row's fields; both are there by name, too. A missing one is an error that gives no column away."""
    sample = Sample(id="1", data={"city": "Rome", "answer": 42}, hash="h")
    answer = Templates({"a.b": "{{ city }} {{ sample.city }} {{ arguments | tojson }} {{ day | default('today') }}", "f": "{{ nothing }}"})
    assert answer("a_b", {"city": "Oslo"}, sample) == 'Oslo Rome {"city": "Oslo"} today'
    with pytest.raises(ValueError, match="g is not available"):
        answer("g", {}, sample)
    with pytest.raises(ValueError, match=r"^no field is called 'nothing'$"):
        answer("f", {}, sample)


def test_what_a_model_writes_is_never_a_template():
    """Arguments are data: Jinja in them stays text."""
    answer = Templates({"f": "{{ x }}"})
    assert answer("f", {"x": "{{ 7 * 7 }}"}, Sample(id="1", data={}, hash="h")) == "{{ 7 * 7 }}"
