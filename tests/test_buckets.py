"""One bucket for what a provider counts together, however many names the config has for it."""

from __future__ import annotations

import pytest

from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.records import Limits

SETS = 'prompt_sets: [{name: s, samples: [{q: one}], prompts: {p: "{{ q }}"}}]\n'


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Label -> (bucket, limits), of a config with these lines."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-one")
    monkeypatch.setenv("OTHER", "sk-two")

    def plan(text):
        (tmp_path / "c.yaml").write_text(f"name: a\n{text}\n{SETS}")
        made = make_plan(load_config(tmp_path / "c.yaml"))
        return {model.name: made.bucket(model) for model in made.models}

    return plan


def test_two_ways_to_one_account_are_one_bucket_for_each_model(planned):
    """`dashscope` and `dashscope-native` are one host and key: the same model waits for the same limiter, with the stricter of what was declared for it."""
    found = planned("""
providers: {dashscope: {kind: openai, limits: {rpm: 600, tpm: 5000}}, dashscope-native: {kind: dashscope, limits: {rpm: 60, concurrency: 99}}}
models: [{id: qwen-max, label: a}, {id: qwen-max, provider: dashscope-native, label: b}, {id: qwen-turbo, provider: dashscope-native, label: c}]""")
    assert found["a"] == found["b"]
    assert found["a"][1] == Limits(concurrency=16, rpm=60, tpm=5000)
    assert found["c"][0] != found["a"][0]
    assert found["c"][1].tpm is None


def test_shared_is_for_all_that_have_the_key(planned):
    """One block that shares its limits makes one bucket of everything at that host with that key; another key there has its own, and no key is in a name."""
    found = planned("""
providers:
  one: {kind: openai, base_url: "http://host:1/v1", api_key: "${OTHER}", limits: {rpm: 600, shared: true}}
  two: {kind: openai, base_url: "http://host:1/v2", api_key: "${OTHER}", limits: {rpm: 60}}
  three: {kind: openai, base_url: "http://host:1/v1", api_key: "${DASHSCOPE_API_KEY}"}
models: [{id: m, provider: one, label: a}, {id: n, provider: two, label: b}, {id: m, provider: three, label: c}]""")
    assert found["a"] == found["b"]
    assert found["a"][1].rpm == 60
    assert found["c"][0] != found["a"][0]
    assert "sk-" not in str(found)


def test_what_the_run_starts_itself_has_no_host_yet(planned):
    """Two simulators are two places."""
    found = planned("""
providers: {one: {kind: simulator}, two: {kind: simulator}}
models: [{id: m, provider: one, label: a}, {id: m, provider: two, label: b}]""")
    assert found["a"][0] != found["b"][0]


@pytest.mark.parametrize(("shared", "connections"), [("true", 16 + 2 * 8), ("false", 2 * 16 + 2 * 8)])
def test_connections_are_counted_as_the_limiters_hand_them_out(tmp_path, shared, connections):
    """Models that share limits share connections: no run is refused for open files it will not have. Of a simulator we have both ends."""
    (tmp_path / "c.yaml").write_text(f"""
name: a
providers:
  one: {{kind: openai, base_url: "http://host:1/v1", limits: {{shared: {shared}}}}}
  own: {{kind: simulator, limits: {{concurrency: 8}}}}
models: [{{id: m, provider: one, label: a}}, {{id: n, provider: one, label: b}}, {{id: qwen-turbo, provider: own}}]
{SETS}""")
    plan = make_plan(load_config(tmp_path / "c.yaml"))
    assert plan.connections(plan.everybody) == connections
