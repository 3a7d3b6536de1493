"""The plan: every combination once, lazily, in the same order, each with a key that changes with whatever changes the answer."""

import json
import subprocess
import sys
import textwrap
import time

import pytest

from evalrunner.errors import ConfigError, DatasetError
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.records import Limits

CONFIG = """\
name: demo
models: [{id: m1, provider: mine}, {id: m2, provider: mine, label: two, params: {temperature: 0.5, top_k: 3}, limits: {rpm: 60}}]
providers:
  mine:
    kind: openai
    base_url: http://${HOST}/v1
    api_key: ${KEY}
    limits: {rpm: 600, tpm: 1000}
    options: {headers: {X-Team: blue}, transport: httpx}
grid: {temperature: [0.0, 0.7], max_tokens: 8}
stream: [true, false]
trials: 2
prompt_sets:
  - name: sums
    samples: [{id: a, question: 1 + 1, answer: 2}, {id: b, question: 2 + 2, answer: 4}]
    id: id
    prompts:
      plain: "{{ question }}"
      polite: [{role: system, content: Hello}, {role: user, content: "{{ question }} please"}]
    target: "{{ answer }}"
    scorers: [exact, {numeric: {name: close}}]
  - name: words
    samples: [{text: hi}]
    prompts: {echo: "{{ text }}"}
"""
SET = "prompt_sets: [{name: s, samples: [{a: 1}], prompts: {p: x}}]\n"
ENVIRON = {"HOST": "localhost:9", "KEY": "sk-CANARY"}


def plan(folder, text=CONFIG, environ=ENVIRON, **options):
    path = folder / "demo.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(load_config(path, environ=environ, **options))


def requests(made):
    return [request for model in made.models for request in made.requests(model)]


def test_every_combination_is_there_once(tmp_path):
    """Prompt sets × samples × prompts × models × params × stream × trials, with `size` and `cells` to match."""
    made = plan(tmp_path)
    found = requests(made)
    first, second = ([request for request in found if request.cell.model == model] for model in made.models)
    assert len(first) == (2 * 2 + 1) * 2 * 2 * 2
    assert len(second) == (2 * 2 + 1) * 1 * 2 * 2
    assert made.size == len(found) == len({request.key for request in found}) == 60
    assert made.cells == 18
    assert found[0].messages == [{"role": "user", "content": "1 + 1"}]
    assert [request.target for request in (found[0], found[-1])] == ["2", None]


def test_requests_come_sample_by_sample_and_always_in_the_same_order(tmp_path):
    """A run that is cut short has whole samples."""
    made = plan(tmp_path)
    order = [(request.cell.prompt_set, request.sample.id, request.cell.prompt) for request in made.requests(made.models[0])]
    assert list(dict.fromkeys(order)) == [
        ("sums", "a", "plain"),
        ("sums", "a", "polite"),
        ("sums", "b", "plain"),
        ("sums", "b", "polite"),
        ("words", "1", "echo"),
    ]
    assert [request.key for request in requests(made)] == [request.key for request in requests(plan(tmp_path))]


def test_a_models_own_parameters_replace_the_grids(tmp_path):
    """The same key replaces, another one is added; a null leaves a parameter out."""
    made = plan(tmp_path, CONFIG.replace("max_tokens: 8", "max_tokens: [8, null]"))
    points = {model.name: {json.dumps(request.cell.params, sort_keys=True) for request in made.requests(model)} for model in made.models}
    assert points["m1"] == {'{"max_tokens": 8, "temperature": 0.0}', '{"max_tokens": 8, "temperature": 0.7}', '{"temperature": 0.0}', '{"temperature": 0.7}'}
    assert points["two"] == {'{"max_tokens": 8, "temperature": 0.5, "top_k": 3}', '{"temperature": 0.5, "top_k": 3}'}
    assert made.param_names == ["max_tokens", "temperature", "top_k"]


@pytest.mark.parametrize(("change", "seeds"), [({}, [1000, 1001]), ({"trials: 2": "trials: 1"}, [None]), ({"max_tokens: 8": "seed: 7"}, [None, None])])
def test_trials_get_seeds_of_their_own(tmp_path, change, seeds):
    """Trial k sends 1000 + k, so that trials differ although the service's default seed is fixed; a seed of the config is sent as given."""
    text = CONFIG
    for old, new in change.items():
        text = text.replace(old, new)
    assert [request.seed for request in requests(plan(tmp_path, text))][: len(seeds)] == seeds


CHANGES = {
    "model id": ("id: m1", "id: m9"),
    "model name": ("id: m1", "id: m1, label: x"),
    "provider's name": ("mine", "other"),
    "provider's address": ("http://${HOST}/v1", "http://${HOST}/v2"),
    "a header": ("X-Team: blue", "X-Team: red"),
    "a parameter": ("max_tokens: 8", "max_tokens: 9"),
    "a parameter's name": ("max_tokens: 8", "max_completion_tokens: 8"),
    "a prompt's text": ('"{{ question }}"', '"{{ question }}!"'),
    "a system message": ("content: Hello", "content: Hi"),
    "the set's name": ("name: sums", "name: sums2"),
    "a prompt's name": ("plain:", "simple:"),
    "the data": ("1 + 1", "1 + 2"),
    "data no prompt reads": ("answer: 2", "answer: 3"),
    "a sample's id": ("id: a,", "id: c,"),
    "a seed of the trial": ("trials: 2", "trials: 1"),
}


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_whatever_changes_the_output_changes_the_key(tmp_path, old, new):
    """P10: nothing answered under other circumstances is ever taken for an answer."""
    assert CONFIG.count(old), old
    before = {request.key for request in requests(plan(tmp_path))}
    after = {request.key for request in requests(plan(tmp_path, CONFIG.replace(old, new)))}
    assert before != after


def test_stream_and_trial_are_part_of_the_key(tmp_path):
    """The same messages, streamed and not, twice, are four requests."""
    found = [request for request in requests(plan(tmp_path)) if request.cell.prompt == "echo" and request.cell.params.get("temperature") == 0.7]
    assert len({request.key for request in found}) == len(found) == 4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rpm: 600", "rpm: 7"),
        ("transport: httpx", "transport: aiohttp"),
        ("${KEY}", "${HOST}"),
        ("name: demo", "name: other"),
        ("scorers: [exact,", "scorers: [includes,"),
        ("- name: words", "- name: words\n    limit: 5"),
    ],
)
def test_what_cannot_change_the_output_does_not_change_the_key(tmp_path, old, new):
    """Nothing is bought again because a limit, a key or a scorer changed."""
    assert [request.key for request in requests(plan(tmp_path))] == [request.key for request in requests(plan(tmp_path, CONFIG.replace(old, new)))]


def test_the_simulators_accuracy_is_part_of_the_key_and_its_speed_is_not(tmp_path):
    """A rehearsal with other answers is another rehearsal."""
    text = f"name: a\nmodels: [{{id: m, provider: simulator}}]\nproviders: {{simulator: {{options: OPTIONS}}}}\n{SET}"
    keys = [
        requests(plan(tmp_path, text.replace("OPTIONS", options)))[0].key for options in ("{accuracy: 0.5}", "{accuracy: 0.6}", "{accuracy: 0.5, latency: 3}")
    ]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]


def test_secrets_are_filled_in_for_the_client_alone(tmp_path):
    """The account has the key, the plan's description has its reference; `secrets` names what must be masked."""
    made = plan(tmp_path)
    account = made.accounts["mine"]
    assert (account.api_key, account.base_url, account.transport, dict(account.headers)) == ("sk-CANARY", "http://localhost:9/v1", "httpx", {"X-Team": "blue"})
    assert "CANARY" not in json.dumps(made.describe()) + repr(account) + made.config.text
    assert made.describe()["providers"] == [
        {
            "name": "mine",
            "kind": "openai",
            "base_url": "http://${HOST}/v1",
            "api_key": "${KEY}",
            "options": {"headers": {"X-Team": "blue"}, "transport": "httpx"},
        }
    ]
    assert made.secrets() == ["sk-CANARY"]


def test_a_variable_that_is_not_set_is_an_error_when_it_is_needed(tmp_path):
    """A config can be checked without its keys; the run says which variable to set. Providers not in use need nothing."""
    made = plan(tmp_path, environ={"HOST": "h"})
    made.validate()
    with pytest.raises(ConfigError, match=r"demo\.yaml:5:5: providers\.mine: the environment variable KEY is not set"):
        _ = made.accounts
    unused = plan(tmp_path, CONFIG.replace("provider: mine", "provider: simulator"), environ={})
    assert list(unused.accounts) == ["simulator"]


def test_a_missing_key_of_a_built_in_provider_names_its_variable(tmp_path):
    """The first thing a newcomer runs into says what to do."""
    made = plan(tmp_path, f"name: a\nmodels: [qwen-turbo]\n{SET}", environ={})
    with pytest.raises(ConfigError, match=r"demo\.yaml:2:10: models\[0\]: the environment variable DASHSCOPE_API_KEY is not set"):
        _ = made.accounts


def test_limits_are_the_models_over_the_providers_over_the_defaults(tmp_path):
    """Each limit by itself; a local model has as many requests at once as it has slots."""
    made = plan(tmp_path)
    assert [made.limits(model) for model in made.models] == [Limits(rpm=600, tpm=1000), Limits(rpm=60, tpm=1000)]
    local = plan(tmp_path, f"name: a\nmodels: [{{id: m, provider: local}}]\nproviders: {{local: {{options: {{slots: 2}}}}}}\n{SET}")
    assert local.limits(local.models[0]).concurrency == 2
    assert local.accounts["local"].options == {"model": "m", "slots": 2}
    assert local.accounts["local"].base_url == ""


def test_prices_come_from_the_config_or_the_catalogue(tmp_path):
    """A price written down wins; a host the catalogue does not know has none, never 0."""
    text = "name: a\nmodels: [qwen-max, {id: qwen-turbo, price: {input: 1, output: 2, currency: EUR}}, {id: qwen-plus, provider: simulator}]\n"
    made = plan(tmp_path, text + SET)
    known, given, unknown = made.models
    assert known.price.currency == "CNY"
    assert known.price.source != "config"
    assert (given.price.currency, given.price.tiers[0].input, given.price.source) == ("EUR", 1, "config")
    assert unknown.price is None


def test_scorers_are_built_and_named(tmp_path):
    """Each prompt set has its own; the table has one column for each name."""
    made = plan(tmp_path)
    assert made.scorer_names == ["exact", "close"]
    assert [name for name, scorer in made.scorers("sums") if callable(scorer)] == ["exact", "close"]
    assert made.scorers("words") == []


def test_the_description_is_what_the_manifest_keeps(tmp_path):
    """Everything that was resolved, as JSON."""
    described = json.loads(json.dumps(plan(tmp_path, overrides=["trials=1"], limit=1).describe()))
    assert (described["size"], described["trials"], described["stream"], described["params"]) == (18, 1, [True, False], ["max_tokens", "temperature", "top_k"])
    assert described["grid"] == {"temperature": [0.0, 0.7], "max_tokens": [8]}
    assert described["models"][1] == {"name": "two", "id": "m2", "provider": "mine", "price": None, "params": {"temperature": [0.5], "top_k": [3]}}
    assert described["scorers"] == [{"name": "exact", "kind": "exact", "options": {}}, {"name": "close", "kind": "numeric", "options": {}}]
    sums = described["prompt_sets"][0]
    assert (sums["name"], sums["samples"], sums["target"], sums["scorers"]) == ("sums", 1, "{{ answer }}", ["exact", "close"])
    assert sums["prompts"]["plain"] == [{"role": "user", "content": "{{ question }}"}]
    assert (described["retry"], described["timeouts"]["idle"], described["overrides"], described["limit"]) == (
        {"max_attempts": 6, "max_elapsed": 1800.0},
        120.0,
        ["trials=1"],
        1,
    )


def test_a_copy_of_the_config_finds_the_data_of_the_original(tmp_path):
    """`resume` reads the config kept in the run, with paths that start where the original lay."""
    (tmp_path / "data.csv").write_text("a\n1\n", encoding="utf-8")
    copy = tmp_path / "run" / "config.yaml"
    copy.parent.mkdir()
    copy.write_text("name: a\nmodels: [m]\nprompt_sets: [{name: s, data: data.csv, prompts: {p: '{{ a }}'}}]\n", encoding="utf-8")
    made = make_plan(load_config(copy, origin=copy.parent / "../demo.yaml"))
    assert made.size == 1
    assert next(made.requests(made.models[0])).sample.origin == f"{tmp_path / 'data.csv'}:2"


def data_problems(folder, rows, text, suffix=".jsonl"):
    content = "\n".join(json.dumps(row) for row in rows) if suffix == ".jsonl" else rows
    (folder / f"data{suffix}").write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        plan(folder, f"name: a\nmodels: [m]\nprompt_sets:\n  - name: s\n    data: data{suffix}\n{textwrap.indent(text, '    ')}\n").validate()
    return [problem.removeprefix(f"{folder}/data{suffix}:") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("rows", "text", "expected"),
    [
        ([{"question": 1}], "prompts: {p: '{{ qestion }}'}", ["1: prompt 'p' of 's': no field is called 'qestion' (hint: did you mean 'question'?)"]),
        ([{"a": 1}, {"b": 1}], "prompts: {p: '{{ a }}'}", ["2: prompt 'p' of 's': no field is called 'a' (hint: it has b)"]),
        ([{"a": None}], "prompts: {p: '{{ a }}'}", ["1: prompt 'p' of 's': a value is null: 'a' (hint: give it a default, like {{ field or '' }})"]),
        ([{"a": 1}] * 5000, "prompts: {p: '{{ b }}'}", ["1: prompt 'p' of 's': no field is called 'b' (hint: it has a) (and in 4,999 more rows)"]),
        ([{"a": 1}, {"a": " "}], "prompts: {p: '{{ a }}'}", ["2: prompt 'p' of 's': message 1 (user) is empty"]),
        ([{"a": ""}], "prompts: {p: x}\ntarget: '{{ a }}'", ["1: target of 's': is empty"]),
        ([{"a": 1}], "prompts: {p: x}\ntarget: '{{ answer }}'", ["1: target of 's': no field is called 'answer' (hint: it has a)"]),
        ([{"i": 1, "a": 1}, {"i": 2}, {"i": 1}], "id: i\nprompts: {p: x}", ["3: the id '1' is there already, at {folder}/data.jsonl:1"]),
        ([{"a": 1}], "id: i\nprompts: {p: x}", ["1: no column is called 'i', which `id` names (hint: it has 'a')"]),
        ([{"talk": [{"role": "user"}]}], "messages_from: talk", ["1: prompt 'talk' of 's': message 1: content must be text or a list of parts"]),
    ],
)
def test_validate_finds_in_one_pass_what_would_fail_later(tmp_path, rows, text, expected):
    """Missing fields, empty prompts and targets, ids used twice: with line, prompt and nearest field, before anything is sent."""
    assert data_problems(tmp_path, rows, text) == [line.replace("{folder}", str(tmp_path)) for line in expected]


def test_validate_tells_the_files_own_mistakes_too(tmp_path):
    """A ragged line and a missing field are told together."""
    found = data_problems(tmp_path, "a,b\n1,2\n3\n", "prompts: {p: '{{ c }}'}", ".csv")
    assert found == ["2: prompt 'p' of 's': no field is called 'c' (hint: it has a, b)", "3: 1 values for 2 columns (hint: quote a value that holds ',')"]


def test_validate_stops_listing_after_twenty(tmp_path):
    """A hundred different mistakes are twenty lines and a number."""
    found = data_problems(tmp_path, [{f"c{number}": 1} for number in range(100)], "prompts: {p: '{{ x }}'}")
    assert len(found) == 21
    assert found[-1] == "… and 80 more mistakes"


def test_ten_thousand_samples_are_validated_soon(tmp_path):
    """10,000 samples × 2 prompts in under 5 s; it takes a fraction of that."""
    (tmp_path / "data.jsonl").write_text(
        "".join(json.dumps({"id": f"q{n}", "q": f"What is {n} + {n}?", "a": 2 * n}) + "\n" for n in range(10_000)), encoding="utf-8"
    )
    made = plan(
        tmp_path,
        "name: a\nmodels: [m]\nprompt_sets: [{name: s, data: data.jsonl, id: id, prompts: {p: '{{ q }} Answer.', r: 'Think. {{ q }}'}, target: '{{ a }}'}]\n",
    )
    began = time.perf_counter()
    made.validate()
    assert time.perf_counter() - began < 5
    assert made.size == 20_000


def test_a_grid_of_a_million_starts_at_once_and_stays_small(tmp_path):
    """The first request is there before the data is counted; going through a part of a million leaves memory flat."""
    (tmp_path / "data.jsonl").write_text("".join(f'{{"q": "What is {n} + {n}?"}}\n' for n in range(50_000)), encoding="utf-8")
    config = (
        "name: a\nmodels: [m, n]\ngrid: {temperature: [0, 0.5, 1, 1.5, 1.9], seed: [1, 2]}\n"
        "prompt_sets: [{name: s, data: data.jsonl, prompts: {p: '{{ q }}'}}]\n"
    )
    (tmp_path / "demo.yaml").write_text(config, encoding="utf-8")
    script = """
        import sys, time
        from itertools import islice
        from evalrunner.plan.config import load_config
        from evalrunner.plan.grid import make_plan

        began = time.perf_counter()
        plan = make_plan(load_config(sys.argv[1]))
        requests = plan.requests(plan.models[0])
        next(requests)
        first = time.perf_counter() - began
        for _ in islice(requests, 150_000): pass
        peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss would count the parent's memory, too
        print(first, plan.size, peak)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "demo.yaml")], capture_output=True, text=True, check=True)
    first, size, kilobytes = ran.stdout.split()
    assert (float(first) < 2, int(size), int(kilobytes) < 300_000) == (True, 1_000_000, True)
