"""What a run needs on this machine: started before it, reachable during it, gone after it."""

import json

import httpx
import pytest
from embedded import embedded_weights

from evalrunner.clients.openai import openai_client
from evalrunner.clock import SYSTEM_CLOCK
from evalrunner.errors import PluginError
from evalrunner.plugins import Account
from evalrunner.records import Cell, Model, Request, Sample
from evalrunner.serving.launch import check, launch


def simulator(**options):
    return Account(name="offline", kind="simulator", base_url="", options=options)


async def ask(account: Account, question: str) -> httpx.Response:
    body = {"model": "qwen-plus", "messages": [{"role": "user", "content": question}]}
    async with httpx.AsyncClient() as client:
        return await client.post(f"{account.base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {account.api_key}"})


async def test_an_account_with_an_address_is_left_alone():
    """A provider elsewhere, of whatever kind, keeps its address and key, and nothing is started for it."""
    said = []
    given = [
        Account(name="mine", kind="openai", base_url="http://10.0.0.5:8000/v1", api_key="sk-1"),
        Account(name="far", kind="simulator", base_url="http://x/v1"),
    ]
    async with launch(given, say=said.append) as accounts:
        assert accounts == tuple(given)
    assert said == []


async def test_a_simulator_runs_for_as_long_as_the_block():
    """An account of kind simulator gets an address that answers, with a key that is accepted; after the block nothing listens there."""
    async with launch([simulator(brain="arithmetic")]) as (account,):
        answer = (await ask(account, "What is 17 + 4?")).json()
        assert "21" in answer["choices"][0]["message"]["content"]
        assert (account.name, account.kind) == ("offline", "simulator")
    with pytest.raises(httpx.ConnectError):
        await ask(account, "What is 17 + 4?")


async def test_what_was_started_ends_when_the_run_fails():
    """An error in the run leaves nothing behind, and is not replaced by another."""
    accounts = ()
    with pytest.raises(KeyError):
        async with launch([simulator(), simulator()]) as accounts:
            raise KeyError
    for account in accounts:
        with pytest.raises(httpx.ConnectError):
            await ask(account, "Hello?")


async def test_what_was_started_ends_when_its_neighbour_does_not_start():
    """A mistake in the second account leaves no server of the first."""
    with pytest.raises(PluginError, match=r"provider 'model': model: 'no\.gguf' is neither built in"):
        async with launch([simulator(), Account(name="model", kind="local", base_url="", options={"model": "no.gguf"})]):
            pass


async def test_a_simulator_finds_its_answers_beside_the_config(tmp_path):
    """A data set in a simulator's options is looked for in the config's folder, not in the current one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "facts.jsonl").write_text(json.dumps({"question": "Who planted the old pear tree?", "answer": "Grandmother Ida"}))
    async with launch([simulator(brain={"lookup": "data/facts.jsonl"})], tmp_path) as (account,):
        answer = (await ask(account, "Who planted the old pear tree?")).json()
    assert answer["choices"][0]["message"]["content"] == "Grandmother Ida"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("simulator", {"acuracy": 0.5}, "provider 'p': acuracy: there is no such option .did you mean 'accuracy'"),
        ("simulator", {"brain": {"lookup": "missing.jsonl"}}, "provider 'p': answers: .*missing.jsonl cannot be read"),
        ("local", {"slot": 2}, "provider 'p': slot: there is no such option .did you mean 'slots'"),
    ],
)
def test_wrong_options_are_found_without_starting_anything(kind, options, message):
    """`check` names the provider, the option and the one that was meant."""
    with pytest.raises(PluginError, match=message):
        check([Account(name="p", kind=kind, base_url="", options=options)])


@pytest.mark.local_model
async def test_the_embedded_model_answers_stream_after_stream():
    """llama.cpp's server ends a connection after each stream without saying so before; the account it is started for never fails of that."""
    await embedded_weights()
    given = Account(name="local", kind="local", base_url="", options={"threads": 1, "slots": 1, "context": 256})
    async with launch([given], say=lambda _line: None) as (account,):
        client = openai_client(account, SYSTEM_CLOCK)
        answers = [await client.complete(question(stream=number != 1)) for number in range(4)]
        await client.aclose()
    assert {answer.output for answer in answers} == {answers[0].output}
    assert [answer.usage.completion_tokens for answer in answers] == [4] * 4


def question(*, stream: bool) -> Request:
    model = Model(name="m", id="smollm2-135m-instruct", provider="local")
    cell = Cell(prompt_set="s", prompt="p", model=model, params={"temperature": 0.0, "max_tokens": 4}, stream=stream)
    return Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[{"role": "user", "content": "Count to ten."}])
