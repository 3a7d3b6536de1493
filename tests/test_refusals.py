"""What a live service would refuse is told before anything is sent, with its place and its reason."""

import pytest

from evalrunner.cli import main
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan

STUDY = """\
name: study
models: MODELS
MORE
prompt_sets:
  - name: sums
    samples: [{question: 1 + 1, picture: "https://x.example/a.png"}]
    prompts: {plain: PROMPT}
"""


def plan(folder, models="[qwen-plus]", more="", prompt='"{{ question }}"', environ=None):
    path = folder / "study.yaml"
    path.write_text(STUDY.replace("MODELS", models).replace("MORE", more).replace("PROMPT", prompt))
    return make_plan(load_config(path, environ=environ or {"DASHSCOPE_API_KEY": "sk-1"}))


REFUSED = {
    "temperature": ("[qwen-plus]", "grid: {temperature: [0, 2.0]}", r":3:21: grid.temperature: DashScope takes temperatures below 2, not 2.0 \(hint: 1.99"),
    "a model's own": (
        "[{id: qwen-max, params: {max_tokens: 8193}}]",
        "",
        r":2:46: models\[0\].params.max_tokens: qwen-max writes at most 8,192 tokens, not 8,193",
    ),
    "of an unknown model": ("[qwen-new]", "grid: {temperature: 2}", "takes temperatures below 2"),
    "top_k": ("[qwen-plus]", "grid: {top_k: -1}", "no negative top_k"),
    "top_logprobs": ("[qwen-plus]", "grid: {top_logprobs: 6}", "at most 5 top_logprobs"),
    "n": ("[qwen-plus]", "grid: {n: 2}", "grid.n: unknown key .hint: use `trials`"),
    "thinking": ("[qwen-max]", "grid: {enable_thinking: [true, false]}", "grid.enable_thinking: qwen-max cannot think"),
    "not thinking": ("[qwq-plus]", "grid: {enable_thinking: false}", "qwq-plus cannot do without thinking"),
    "two budgets": ("[qwen3.8-max]", "grid: {thinking_budget: 100, reasoning_effort: low}", "thinking_budget or reasoning_effort, not both"),
    "thinking without a stream": (
        "[qwen3-32b]",
        "stream: [true, false]",
        r":3:9: stream: qwen3-32b thinks in streams only \(hint: stream: true, or enable_thinking: false",
    ),
    "no stream": ("[qwen3-omni-flash]", "stream: false", "stream: qwen3-omni-flash answers in streams only"),
    "audio in the compatible mode": (
        "[{id: qwen-audio-turbo, provider: p}]",
        "providers: {p: {kind: openai, base_url: 'https://dashscope.aliyuncs.com/compatible-mode/v1'}}",
        r"qwen-audio-turbo speaks DashScope's native protocol only \(hint: provider dashscope",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_combinations(tmp_path, name):
    """A combination that no request could survive is a mistake at its place, with the reason."""
    models, more, text = REFUSED[name]
    with pytest.raises(ConfigError, match=text):
        plan(tmp_path, models, more)


@pytest.mark.parametrize(
    ("models", "more"),
    [
        ("[{id: qwen-plus, provider: p}]", "grid: {temperature: 2.0}\nproviders: {p: {kind: openai, base_url: 'http://h/v1'}}"),
        ("[{id: qwen-plus, provider: simulator}]", "grid: {temperature: 2.0}\nproviders: {simulator: {options: {seed_compat: true}}}"),
        ("[{id: qwen-audio-turbo, provider: p}]", "providers: {p: {kind: openai, base_url: 'http://h/v1', options: {seed_compat: true}}}"),
        ("[qwen-audio-turbo]", ""),
        ("[qwen3-32b]", "grid: {enable_thinking: false}\nstream: false"),
        ("[qwen3-32b]", ""),
        ("[qwen3.8-max]", "grid: {thinking_budget: 100}"),
        ("[qwen-plus]", "grid: {enable_thinking: [true, false], top_k: [0, null], max_tokens: 32768}\nstream: [true, false]"),
        ("[{id: qwen-turbo, provider: dashscope-native}]", ""),
    ],
)
def test_what_is_possible(tmp_path, models, more):
    """Other services make their own rules, `seed_compat` takes what the seed document says, and each model has its own."""
    plan(tmp_path, models, more).validate()


@pytest.mark.parametrize(
    ("models", "prompt", "text"),
    [
        ("[qwen-plus, qwen-vl-plus]", '[{role: user, content: [{image: "{{ picture }}"}]}]', "qwen-plus takes no images"),
        ("[qwen-vl-plus]", "[{role: user, content: [{audio: 'https://x.example/a.mp3'}]}]", "qwen-vl-plus takes no audio"),
        ("[qwen-plus]", "[{role: user, content: [{file: study.yaml}, {text: What?}]}]", r"qwen-plus takes no files \(hint: qwen-long does\)"),
    ],
)
def test_media_a_model_does_not_take(tmp_path, models, prompt, text):
    """They are refused with row, prompt and model."""
    with pytest.raises(DatasetError, match=rf"study.yaml:\d+:\d+: prompt 'plain' of 'sums': {text}") as caught:
        plan(tmp_path, models, prompt=prompt).validate()
    assert len(caught.value.problems) == 1


def test_a_prompt_longer_than_the_context(tmp_path):
    """The row is named, with the estimate and the model's limit; models that have room take it."""
    prompt = "\"{{ 'word and ' * 20000 }}\""
    with pytest.raises(DatasetError, match=r"about \d\d,\d\d\d tokens are too long for qwen-max, which takes 30,720") as caught:
        plan(tmp_path, "[qwen-max, qwen-plus]", prompt=prompt).validate()
    assert len(caught.value.problems) == 1
    plan(tmp_path, "[qwen-plus]", prompt=prompt).validate()


def test_a_model_without_a_price_is_a_warning(tmp_path):
    """What would have no cost is named in one line, with what to write; models that run here cost nothing and are not."""
    providers = "providers: {p: {kind: openai, base_url: 'http://h/v1'}}"
    [line] = plan(tmp_path, "[{id: mine, provider: p}, {id: yours, provider: p}, {id: qwen-plus, provider: simulator}]", providers).warnings()
    assert "no price is known for mine, yours: " in line
    assert "price: {input: " in line


def test_an_unknown_model_is_a_warning(tmp_path, capsys, monkeypatch):
    """It may be newer than the catalogue: `check` says so, and goes on. What a simulator is told about is known."""
    assert plan(tmp_path).warnings() == []
    [line] = plan(tmp_path, "[qwen-plux]").warnings()
    assert "study.yaml:2:10: models[0]: the catalogue does not know 'qwen-plux' (did you mean 'qwen-plus'?)" in line
    priced = "[{id: mine, provider: p, price: {input: 0, output: 0, currency: EUR}}]"
    assert plan(tmp_path, priced, "providers: {p: {kind: openai, base_url: 'http://h/v1'}}").warnings() == []
    assert plan(tmp_path, "[{id: mine, provider: simulator}]", "providers: {simulator: {options: {accuracy: {mine: 1}}}}").warnings() == []
    plan(tmp_path, "[qwen-plux]")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-1")
    assert main(["check", str(tmp_path / "study.yaml")]) == 0
    assert "does not know 'qwen-plux'" in capsys.readouterr().err
