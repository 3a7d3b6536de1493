"""What a user may write, and what a user is told about what may not be written."""

import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrunner.errors import ConfigError, DatasetError
from evalrunner.plan.config import config_schema, load_config
from evalrunner.plan.config_types import LocalOptions, SimulatorOptions
from evalrunner.plan.grid import make_plan
from evalrunner.plan.yaml_source import MAX_BYTES, Source, read_yaml
from evalrunner.serving.local_model import LocalOptions as LocalSettings
from evalrunner.simulator.settings import SimulatorSettings

ROOT = Path(__file__).parents[1]
HEAD = """\
name: demo
models: [qwen-turbo]
prompt_sets:
  - name: sums
    samples: [{question: 1 + 1, answer: 2}]
    prompts: {plain: "{{ question }}"}
"""


def models(text: str) -> str:
    return HEAD.replace("[qwen-turbo]", text)


def prompt(text: str) -> str:
    return HEAD.replace('"{{ question }}"', text)


def providers(text: str) -> str:
    return f"{HEAD}providers: {{{text}}}\n"


def headers(text: str) -> str:
    return providers(f"openai: {{options: {{headers: {text}}}}}")


def bomb(form: str, width: int) -> str:
    return "".join(f"{new}: &{new} {form.format(','.join([f'*{old}'] * width))}\n" for old, new in pairwise("abcdefg"))


def write(folder: Path, text: str) -> Path:
    path = folder / "demo.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str, **options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_plan(load_config(path, overrides, **options))
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


BROKEN = {
    "unknown key at the top": (HEAD + "trails: 3\n", "7:1: trails: unknown key (hint: did you mean 'trials'?)"),
    "unknown key of a model": (models("[{id: a, providr: openai}]"), "2:18: models[0].providr: unknown key (hint: did you mean 'provider'?)"),
    "a parameter at the top": (HEAD + "temperature: 0.5\n", "7:1: temperature: unknown key (hint: it belongs under grid)"),
    "a key of a prompt set at the top": (HEAD + "scorers: [exact]\n", "7:1: scorers: unknown key (hint: it belongs under prompt_sets)"),
    "unknown parameter": (HEAD + "grid: {temprature: 1}\n", "7:8: grid.temprature: unknown key (hint: did you mean 'temperature'?)"),
    "a parameter nobody knows": (HEAD + "grid: {zork: 1}\n", "7:8: grid.zork: unknown key (hint: any other field of the request goes through extra_body: {…})"),
    "n": (HEAD + "grid: {n: 2}\n", "7:8: grid.n: unknown key (hint: use `trials`: n > 1 gives answers that share one request's limits and time)"),
    "parameter out of range": (HEAD + "grid: {temperature: [0.0, 3]}\n", "7:27: grid.temperature[1]: should be at most 2.0, not 3"),
    "parameter of the wrong type": (HEAD + "grid: {max_tokens: 1.5}\n", "7:20: grid.max_tokens: should be a whole number, not 1.5"),
    "a known parameter smuggled in": (HEAD + "grid: {extra_body: {n: 2}}\n", "7:20: grid.extra_body: n cannot be sent this way: use `trials`"),
    "the same point twice": (HEAD + "grid: {top_p: [0.5, 0.7, 0.5]}\n", "7:15: grid.top_p: the same value twice, at positions 1 and 3"),
    "nothing to sweep": (HEAD + "grid: {top_p: []}\n", "7:15: grid.top_p: is an empty list: there is nothing to run"),
    "wrong type": (HEAD + "trials: many\n", "7:9: trials: should be a whole number, not 'many'"),
    "YAML 1.1's yes": (HEAD + "preflight: yes\n", "7:12: preflight: should be true or false, not 'yes' (hint: write true or false)"),
    "out of range": (HEAD + "allow_unanswered: 5\n", "7:19: allow_unanswered: should be at most 1.0, not 5"),
    "not a time": (HEAD + "timeouts: {idle: 5x}\n", "7:18: timeouts.idle: should be a time like 500ms, 10s, 2m or 1h"),
    "missing key": (HEAD.replace("name: demo\n", ""), "1:1: name: is missing"),
    "missing in a list": (models("[{label: a}]"), "2:10: models[0].id: is missing"),
    "a name that leaves its folder": (HEAD.replace("demo", "../x"), "1:7: name: must be a name that can be a folder"),
    "a device's name": (HEAD.replace("demo", "CON"), "1:7: name: must be a name that can be a folder"),
    "a name far too long": (HEAD.replace("demo", "x" * 300), "1:7: name: must be a name that can be a folder"),
    "a leading dash": (HEAD.replace("demo", "-rf"), "1:7: name: must be a name that can be a folder"),
    "two models of one name": (models("[a, {id: b, label: a}]"), "2:13: models[1]: two models are called 'a' (the other is models[0]"),
    "no such provider": (
        models("[{id: a, provider: dashscop}]"),
        "2:28: models[0].provider: no provider is called 'dashscop' (hint: did you mean 'dashscope'?)",
    ),
    "no such kind": (providers("p: {kind: simulater}"), "7:23: providers.p.kind: no client is called 'simulater' (hint: did you mean 'simulator'?)"),
    "no such scorer": (HEAD + "    scorers: [exactt]\n", "7:15: prompt_sets[0].scorers[0]: no scorer is called 'exactt' (hint: did you mean 'exact'?)"),
    "no such option of a scorer": (
        HEAD + "    scorers: [{numeric: {tolerence: 1}}]\n",
        "7:26: prompt_sets[0].scorers[0].numeric.tolerence: unknown option (hint: did you mean 'tolerance'?)",
    ),
    "a value a scorer refuses": (HEAD + "    scorers: [{numeric: {tolerance: -1}}]\n", "7:26: prompt_sets[0].scorers[0].numeric.tolerance: must be at least 0"),
    "one scorer twice": (
        HEAD + "    scorers: [exact, exact]\n",
        "7:22: prompt_sets[0].scorers[1]: two scorers are called 'exact' (the other is prompt_sets[0].scorers[0]",
    ),
    "a scorer's name that is no column": (
        HEAD + "    scorers: [{exact: {name: a b}}]\n",
        "7:30: prompt_sets[0].scorers[0].exact.name: must be letters, digits and '_'",
    ),
    "a template that does not end": (HEAD + '    target: "{{ answer"\n', "7:13: prompt_sets[0].target: line 1 of the template: unexpected end of template"),
    "a template that reads files": (
        HEAD + "    target: \"{% include 'x' %}\"\n",
        "7:13: prompt_sets[0].target: line 1 of the template: include is not available in prompts",
    ),
    "a filter nobody knows": (
        HEAD + '    target: "{{ answer | uper }}"\n',
        "7:13: prompt_sets[0].target: line 1 of the template: no filter is called 'uper' (hint: did you mean 'upper'?)",
    ),
    "a role nobody knows": (
        prompt("[{role: developer, content: x}]"),
        "6:30: prompt_sets[0].prompts.plain[0].role: developer is not a role of the Qwen API (hint: use system)",
    ),
    "no user message": (prompt("[{role: system, content: x}]"), "6:22: prompt_sets[0].prompts.plain: needs a message with role user"),
    "an unknown kind of file": (
        HEAD.replace("samples: [{question: 1 + 1, answer: 2}]", "data: x.jsonn"),
        "5:11: prompt_sets[0].data: no loader is called '.jsonn' (hint: did you mean '.json'?)",
    ),
    "data twice": (HEAD + "    data: x.jsonl\n", "4:5: prompt_sets[0]: needs either data (a file) or samples (rows)"),
    "a key written down": (
        providers("p: {kind: openai, base_url: http://h/v1, api_key: sk-CANARY}"),
        "7:63: providers.p.api_key: must be a reference to an environment variable, like ${MY_API_KEY}",
    ),
    "a key in a header": (
        providers("openai: {options: {headers: {X-Api-Key: sk-CANARY}}}"),
        "7:41: providers.openai.options.headers: the value of X-Api-Key must be a reference",
    ),
    "a key in a URL": (providers("p: {kind: openai, base_url: 'https://h/v1?key=sk-CANARY'}"), "7:41: providers.p.base_url: must not hold a query"),
    "a password in a URL": (providers("p: {kind: openai, base_url: 'https://u:sk-CANARY@h/v1'}"), "7:41: providers.p.base_url: must not hold a user"),
    "the whole path of the endpoint": (
        providers("p: {kind: openai, base_url: https://h/v1/chat/completions}"),
        "7:41: providers.p.base_url: is what the official SDKs take: leave out everything after …/v1",
    ),
    "a built-in key to another host": (
        providers("dashscope: {base_url: https://evil.example/v1}"),
        "7:35: providers.dashscope.base_url: the key of the built-in provider dashscope is never sent to another host",
    ),
    "a built-in key without TLS": (
        providers("dashscope: {base_url: http://dashscope.aliyuncs.com/compatible-mode/v1}"),
        "7:35: providers.dashscope.base_url: the key of the built-in provider dashscope is never sent to another host",
    ),
    "no address": (providers("p: {kind: openai}"), "7:16: providers.p.base_url: is missing"),
    "an address for what the run starts": (
        providers("local: {base_url: http://h/v1}"),
        "7:31: providers.local.base_url: a provider of kind local is started by the run",
    ),
    "an option of another kind": (
        providers("openai: {options: {slots: 3}}"),
        "7:32: providers.openai.options.slots: unknown key (hint: another kind has it, this one does not)",
    ),
    "two models on one local server": (
        models("[{id: a, provider: local}, {id: b, provider: local}]"),
        "2:41: models[1].id: the provider local serves one model, 'a'",
    ),
    "a model that speaks natively only": (
        models("[{id: qwen-audio-turbo, provider: openai}]"),
        "2:15: models[0].id: qwen-audio-turbo speaks DashScope's native protocol only (hint: provider dashscope, or one of kind: dashscope",
    ),
    "a header that is none": (headers("{'a b': c}"), "7:41: providers.openai.options.headers: 'a b' is not the name of an HTTP header"),
    "a header of two lines": (headers('{X-A: "b\\nc"}'), "7:41: providers.openai.options.headers: the value of X-A must be one line"),
    "a header of the client's": (headers("{Host: x}"), "7:41: providers.openai.options.headers: Host is set by the client"),
    "no URL": (providers("p: {kind: openai, base_url: 'http://h:port/v1'}"), "7:41: providers.p.base_url: is not a URL"),
    "another protocol": (providers("p: {kind: openai, base_url: 'ftp://h/v1'}"), "7:41: providers.p.base_url: must begin with http:// or https://"),
    "a label of two lines": (models('[{id: a, label: "b\\nc"}]'), "2:25: models[0].label: must be 1 to 120 printable characters"),
    "no rows": (HEAD.replace("[{question: 1 + 1, answer: 2}]", "[]"), "4:5: prompt_sets[0]: samples is empty"),
    "limit and sample": (HEAD + "    limit: 1\n    sample: 1\n", "4:5: prompt_sets[0]: takes limit (the first rows) or sample (a random choice), not both"),
    "a tag twice": (HEAD + "    tags: [answer, answer]\n", "4:5: prompt_sets[0]: the tag 'answer' is named twice"),
    "no prompts": (HEAD.replace("prompts: {plain", "seed: 3 #"), "4:5: prompt_sets[0]: needs either prompts or messages_from"),
    "a number as prompt": (prompt("5"), "6:22: prompt_sets[0].prompts.plain: should be text (one user message) or a list of messages"),
    "an answer as last message": (
        prompt("[{role: user, content: x}, {role: assistant, content: y}]"),
        "6:22: prompt_sets[0].prompts.plain: must end with a user message",
    ),
    "a scorer that is a number": (HEAD + "    scorers: [5]\n", "7:15: prompt_sets[0].scorers[0]: should be a scorer's name, or"),
    "a scorer that cannot be imported": (HEAD + "    scorers: ['no.such:thing']\n", "7:15: prompt_sets[0].scorers[0]: scorer 'no.such:thing' cannot be loaded"),
    "a list as key": (HEAD + "grid: {[a]: 1}\n", "7:8: a key must be text"),
    "a merge of text": (HEAD + "retry: {<<: a}\n", "7:13: a merge key (<<) takes a mapping or a list of mappings"),
    "a tag that does not fit": (HEAD + "trials: !!int many\n", "7:9: 'many' is not !!int"),
    "prices twice": (
        models("[{id: a, price: {currency: CNY, input: 1, tiers: [{input: 1, output: 1}]}}]"),
        "2:25: models[0].price: takes input and output, or tiers, not both",
    ),
    "tiers in the wrong order": (
        models("[{id: a, price: {currency: CNY, tiers: [{input: 1, output: 1}, {up_to: 5, input: 1, output: 1}]}}]"),
        "2:25: models[0].price: tiers must be in ascending order",
    ),
    "half a price": (models("[{id: a, price: {currency: CNY, input: 1}}]"), "2:25: models[0].price: needs input and output, or tiers"),
    "a key written twice": (HEAD + "trials: 1\ntrials: 2\n", "8:1: trials: written twice (hint: first at line 7, column 1)"),
    "tabs": (HEAD + "grid:\n\ttop_p: 1\n", "8:1: found character that cannot start any token (hint: indent with spaces, not tabs)"),
    "code": (HEAD + "description: !!python/object/apply:os.system ls\n", "7:14: the tag !!python/object/apply:os.system is not allowed: this is plain data"),
    "an alias bomb": (HEAD + "x: &a [y,y,y,y,y,y,y,y,y]\n" + bomb("[{}]", 9), "12:4: its aliases unfold to more than 100,000 values"),
    "a merge bomb": (HEAD + "x: &a {y: 1}\n" + bomb("{{<<: [{}]}}", 20), "11:12: its aliases unfold to more than 100,000 values"),
    "an alias of itself": (HEAD + "x: &a [*a]\n", "7:4: this alias contains itself"),
    "bottomless": (HEAD + "x: " + "[" * 100 + "]" * 100 + "\n", "7:67: nested more than 64 levels deep"),
    "two documents": (HEAD + "---\na: 1\n", "7:1: a second document begins here"),
    "nothing": ("# nothing\n", "1:1: the file is empty"),
    "a list": ("- a\n", "1:1: should be a mapping with name, models and prompt_sets"),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_mistake_is_one_clear_message_at_its_place(tmp_path, text, expected):
    """Line, column, key path, what is wrong and what was meant; no secret is repeated."""
    found = problems(write(tmp_path, text))
    assert found[0].startswith(expected)
    assert not any("CANARY" in problem for problem in found)
    assert len(found) == 1 or "is not !!int" in expected


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path):
    """Nobody has to run ten times to find ten mistakes; they come in reading order."""
    text = (
        HEAD.replace("demo", "a/b").replace("[qwen-turbo]", "[{id: a, providr: b}]")
        + "    scorers: [exactt]\ngrid: {top_p: 2}\ntrials: 0\ntrials: 1\ngate: 5\n"
    )
    found = problems(write(tmp_path, text))
    assert [problem.split(": ")[1] for problem in found] == ["name", "models[0].providr", "prompt_sets[0].scorers[0]", "grid.top_p", "trials", "gate"]


def test_short_forms_mean_their_long_forms(tmp_path):
    """A model by its id, a prompt by its text, a scorer by its name, one value for a list of one, times with units, numbers as people write them."""
    text = HEAD + "    target: x\n    scorers: [exact, {numeric: {tolerance: 0.5, name: close}}]\n"
    text += "grid: {max_tokens: 1e3, stop: [a, b], seed: 7}\nstream: false\n"
    text += "retry: {max_elapsed: 2m}\nproviders: {dashscope: {limits: {tpm: 5_000_000}}}\n"
    settings = load_config(write(tmp_path, text)).settings
    assert (settings.models[0].id, settings.models[0].provider, settings.models[0].name) == ("qwen-turbo", "dashscope", "qwen-turbo")
    assert settings.prompt_sets[0].prompts["plain"][0].role == "user"
    assert [(scorer.column, scorer.kind, scorer.options) for scorer in settings.prompt_sets[0].scorers] == [
        ("exact", "exact", {}),
        ("close", "numeric", {"tolerance": 0.5}),
    ]
    assert settings.grid.values == {"max_tokens": [1000], "seed": [7], "stop": [["a", "b"]]}
    assert settings.stream == [False]
    assert settings.retry.max_elapsed == 120
    assert settings.providers["dashscope"].limits.tpm == 5_000_000


def test_a_list_is_swept_unless_the_value_is_a_list_itself(tmp_path):
    """`stop: [a, b]` is one value, `stop: [[a], [b]]` are two, `temperature: [0, 1]` are two."""
    text = HEAD + "grid: {temperature: [0, 1], stop: [[a], [b, c]], stop_token_ids: [1, 2]}\n"
    assert load_config(write(tmp_path, text)).settings.grid.values == {"temperature": [0.0, 1.0], "stop": [["a"], ["b", "c"]], "stop_token_ids": [[1, 2]]}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1e3", 1000.0),
        ("5_000_000", 5_000_000),
        ("2001-01-01", "2001-01-01"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        (".5", 0.5),
        ("-3", -3),
        ("!!str 5", "5"),
        ("!!float 3", 3.0),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("1_", 1),
        ("_1", "_1"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written, value):
    """No Norway problem, no octal or sexagesimal surprise; numbers with exponents and underscores are numbers."""
    found = Source(f"a: {written}\n", "x").value["a"]
    assert (found, type(found)) == (value, type(value))


def test_merge_keys_fill_in_and_never_replace(tmp_path):
    """Anchors and `<<` work as in other tools, and a mistake in merged text is shown where it is written."""
    source = Source("base: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\nd: {y: 4, <<: [*b, {z: 5}]}\n", "f")
    assert source.value["c"] == {"x": 1, "y": 3}
    assert source.value["d"] == {"x": 1, "y": 4, "z": 5}
    assert source.place(("c", "x")) == "f:1:14"
    text = HEAD.replace("[qwen-turbo]", "[&m {id: a, limits: {rpm: 0}}, {<<: *m, id: b}]")
    assert [problem.split(": ")[:2] for problem in problems(write(tmp_path, text))] == [["2:35", "models[0].limits.rpm"], ["2:35", "models[1].limits.rpm"]]


_TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(_JSON)
def test_json_is_yaml(value):
    """What a program writes as JSON is read as it was meant."""
    assert Source(json.dumps({"a": value}, ensure_ascii=False), "x").value == {"a": value}


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    """Any text is a config, or a ConfigError: never another exception."""
    with suppress(ConfigError):
        Source(text, "x")


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path):
    """50 MB of YAML are data in the wrong place."""
    path = tmp_path / "demo.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert problems(path) == [" larger than 16 MB (hint: rows belong into a .jsonl or .csv file named by `data:`)"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: \xff", "1:7: not UTF-8: byte 0xff; save the file as UTF-8"),
        ("a: ü".encode("utf-16"), "1:1: not UTF-8: byte 0xff; save the file as UTF-8 (hint: this is UTF-16)"),
    ],
)
def test_a_file_must_be_utf_8(tmp_path, content, expected):
    """Another encoding is named, with the place; a byte order mark does no harm."""
    path = tmp_path / "demo.yaml"
    path.write_bytes(content)
    assert problems(path) == [expected]
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load_config(path).settings.name == "demo"


def test_a_missing_file_is_said_so(tmp_path):
    """No traceback for a wrong path."""
    assert "cannot be read: No such file or directory" in problems(tmp_path / "none.yaml")[0]


def test_set_changes_what_the_file_says(tmp_path):
    """Dotted paths, list items by number or name, YAML values, new keys."""
    path = write(tmp_path, HEAD + "grid: {temperature: 0.5}\n")
    settings = load_config(path, ["trials=2", "grid.temperature=[0, 1]", "prompt_sets.sums.limit=1", "models[0]=qwen-max", "retry.max_elapsed=5s"]).settings
    assert (settings.trials, settings.grid.values, settings.models[0].id) == (2, {"temperature": [0.0, 1.0]}, "qwen-max")
    assert (settings.prompt_sets[0].limit, settings.retry.max_elapsed) == (1, 5)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trials=0", "--set trials=0: trials: should be at least 1, not 0"),
        ("trails=3", "--set trails=3: trails: unknown key (hint: did you mean 'trials'?)"),
        ("trials", "--set trials: should be key.path=value"),
        ("models[3]=a", "--set models[3]=a: no item is '3'; there are 1, counted from 0"),
        ("name.x=1", "--set name.x=1: name is a plain value and has no 'x' (hint: set it as a whole)"),
        ("grid=[", "--set grid=[: value:2:1: did not find expected node content, while parsing a flow node"),
        ("grid.top_p=[0.5, 7]", "--set grid.top_p=[0.5, 7]: grid.top_p[1]: should be at most 1.0, not 7"),
        ("prompt_sets.0.target={% raw", "--set prompt_sets.0.target={% raw: value:1:"),
    ],
)
def test_a_mistake_in_set_names_it(tmp_path, override, expected):
    """What came from the command line is not blamed on the file."""
    assert problems(write(tmp_path, HEAD), override)[0].startswith(expected)


def test_limit_keeps_the_first_samples_of_every_set(tmp_path):
    """`--limit 1` is a quick look; `--limit 0` is a mistake."""
    path = write(tmp_path, HEAD.replace("[{question: 1 + 1, answer: 2}]", "[{question: a}, {question: b}]"))
    assert make_plan(load_config(path)).size == 2
    assert make_plan(load_config(path, limit=1)).size == 1
    assert problems(path, limit=0) == ["--limit: should be at least 1, not 0"]


def test_the_schema_accepts_every_shipped_config():
    """What we ship validates in an editor as it does in `check`."""
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        assert [error.message for error in validator.iter_errors(read_yaml(path).value)] == [], path
        load_config(path)


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        HEAD + "    scorers: [{numeric: {tolerance: 0}}, {json: }, exact]\n",
        HEAD + "grid: {temperature: [0, 1], stop: [a], max_tokens: 5}\nstream: [true, false]\ntimeouts: {idle: 5s}\n",
        providers("dashscope: {limits: {rpm: 5}}, simulator: {options: {accuracy: 0.5}}, p: {kind: openai, base_url: 'http://h/v1'}"),
    ],
)
def test_the_schema_knows_the_short_forms(text):
    """An editor does not underline what the program accepts."""
    assert list(jsonschema.Draft202012Validator(config_schema()).iter_errors(Source(text, "x").value)) == []


@pytest.mark.parametrize(
    "extra",
    [
        "trails: 1",
        "grid: {temperature: 3}",
        "grid: {zork: 1}",
        "budget: {cost: -1}",
        "stream: maybe",
        "timeouts: {idle: soon}",
        "providers: {p: {base_url: 'http://h/v1'}}",
    ],
)
def test_the_schema_refuses_what_the_program_refuses(extra):
    """An editor underlines the common mistakes."""
    assert list(jsonschema.Draft202012Validator(config_schema()).iter_errors(Source(HEAD + extra + "\n", "x").value))


def test_every_option_of_what_a_run_starts_can_be_written():
    """The config knows the options that simulator and local model know (a simulator's key is the provider's)."""
    common = {"transport", "headers", "seed_compat", "terminal", "dialect", "input"}
    assert set(SimulatorOptions.model_fields) - common == set(SimulatorSettings.__struct_fields__) - {"seed_compat", "api_key"}
    assert set(LocalOptions.model_fields) - common == set(LocalSettings.__struct_fields__)


def test_an_option_of_the_wrong_type_is_named(tmp_path):
    """A scorer's option that cannot be what it should be is told at its place, before the scorer meets an answer."""
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: t\nmodels: [{id: m, provider: simulator}]\nprompt_sets:\n  - name: s\n    samples: [{q: hi}]\n"
        "    prompts: {p: hi}\n    target: x\n    scorers: [numeric: {tolerance: abc}]\n"
    )
    with pytest.raises(ConfigError, match=r"c\.yaml:8:36: prompt_sets\[0\]\.scorers\[0\]\.numeric\.tolerance: input should be a valid number.*not 'abc'"):
        load_config(config)


def test_a_data_file_that_is_not_there_is_one_message(tmp_path):
    """A wrong path in `data` names the file, and the one that was probably meant."""
    (tmp_path / "cities.jsonl").write_text('{"q": "hi"}\n')
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: t\nmodels: [{id: m, provider: simulator}]\nprompt_sets:\n  - name: s\n    data: citys.jsonl\n"
        "    prompts: {p: hi}\n    target: x\n    scorers: [exact]\n"
    )
    with pytest.raises(DatasetError, match=r"did you mean 'cities\.jsonl'"):
        make_plan(load_config(config)).validate()
