"""A study of function calls, from the config to the table, on the simulator."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from evalrunner.pipeline import run
from evalrunner.plan.config import load_config
from evalrunner.records import Sample
from evalrunner.scorers.tool_calls import tool_calls
from evalrunner.store.answers import completion_of, request_of

CITIES = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Delhi", "Dakar"]
CONFIG = """\
name: tools
providers:
  simulator:
    options:
      {dialect: DIALECT, brain: tool_caller, accuracy: ACCURACY, limits: false, answers: {data: rows.jsonl, question: question, answer: calls}}
models: [{id: MODEL, provider: simulator, price: {input: 1, output: 2, currency: CNY}}]
grid: {parallel_tool_calls: true}
stream: [true, false]
prompt_sets:
  - name: weather
    data: rows.jsonl
    id: id
    prompts: {plain: "{{ question }}"}
    tools_from: functions
    tool_results: RESULTS
    target: "{{ calls | tojson }}"
    scorers: [tool_calls, {includes: {accept: skies}}]
"""
WEATHER = {"name": "weather.now", "parameters": {"type": "dict", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
CLOCK = {"name": "clock", "parameters": {"type": "dict", "properties": {}}}


@pytest.fixture
def folder(tmp_path):
    rows = [
        {
            "id": city,
            "question": f"Weather and time in {city}?",
            "functions": [WEATHER, CLOCK],
            "calls": [{"clock": {}}, {"weather.now": {"city": [city, city.upper()]}}],
            "skies": [f"clear over {city}"],
        }
        for city in CITIES
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


async def table(folder, results, accuracy="1.0", dialect="openai", model="qwen-plus"):
    path = folder / "tools.yaml"
    path.write_text(CONFIG.replace("RESULTS", results).replace("ACCURACY", accuracy).replace("DIALECT", dialect).replace("MODEL", model))
    place = folder / ("run" if dialect == "openai" else dialect)
    done = await run(load_config(path), place)
    assert done.exit_code == 0
    return pd.read_parquet(place / "results"), pd.read_parquet(place / "attempts")


async def test_calls_are_answered_scored_and_kept(folder):
    """Streamed or not: parallel calls, one of them without arguments, are answered; the last answer is the row's, the conversation stands beside it."""
    frame, attempts = await table(folder, '{weather.now: "clear over {{ city }}", clock: noon}')
    assert len(frame) == 2 * len(CITIES)
    assert set(frame["outcome"]) == {"ok"}
    assert set(frame["turns"]) == {2}
    assert set(frame["score_tool_calls"]) == {1.0}
    assert set(frame["score_includes"]) == {1.0}
    assert frame["tool_calls"].isna().all()
    row = frame.iloc[0]
    said, *results = json.loads(row["conversation"])
    calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in said["tool_calls"]]
    assert calls == [("clock", {}), ("weather_now", {"city": row["sample_id"]})]
    assert [result["content"] for result in results] == ["noon", f"clear over {row['sample_id']}"]
    assert [message["role"] for message in json.loads(row["messages"])] == ["user"]
    turns = attempts.groupby("key")[["prompt_tokens", "completion_tokens", "cost"]].sum()
    for name in turns:
        assert frame.set_index("key")[name].sort_index().to_numpy() == pytest.approx(turns[name].sort_index().to_numpy())
    assert frame.groupby("stream")["score_tool_calls"].mean().to_dict() == {False: 1.0, True: 1.0}


async def test_streams_give_the_same_conversation(folder):
    """Deltas with empty ids and null names become the same calls as a whole body's."""
    frame, _ = await table(folder, '{weather.now: "clear over {{ city }}", clock: noon}', accuracy="0.5")
    pairs = frame.pivot_table(index="sample_id", columns="stream", values=["output", "conversation", "score_tool_calls"], aggfunc="first")
    for name in ("output", "conversation", "score_tool_calls"):
        assert (pairs[name][True] == pairs[name][False]).all()


@pytest.mark.parametrize("model", ["qwen-plus", "qwen3.7-plus"])
async def test_both_dialects_give_the_same_conversation(folder, model):
    """Asked natively, streamed or not, at the text endpoint or (while it thinks) at the multimodal one: the same calls, results, answers, tokens and scores."""
    results = '{weather.now: "clear over {{ city }}", clock: noon}'
    columns = ["sample_id", "output", "reasoning", "conversation", "turns", "outcome", "finish_reason", "cost", "score_tool_calls", "score_includes"]
    columns += ["prompt_tokens", "completion_tokens", "reasoning_tokens", "total_tokens"]
    ways = []
    for dialect in ("openai", "native"):
        frame, _ = await table(folder, results, accuracy="0.5", dialect=dialect, model=model)
        ways += [frame[frame["stream"] == stream][columns].sort_values("sample_id").reset_index(drop=True) for stream in (True, False)]
    assert set(ways[0]["turns"]) == {2}
    assert {len(json.loads(said)) for said in ways[0]["conversation"]} == {3}, "two calls at once, each with its result"
    assert set(ways[0]["score_tool_calls"]) == {0.0, 1.0}
    assert ways[0]["reasoning"].notna().all() == (model == "qwen3.7-plus")
    assert all(way.equals(ways[0]) for way in ways[1:])


async def test_wrong_calls_are_scored_wrong(folder):
    """A model that is always wrong has 0 everywhere, each with its reason; its mistakes were told to it, and every row is answered."""
    frame, _ = await table(folder, '{weather.now: "clear over {{ city }}", clock: noon}', accuracy="0")
    assert set(frame["score_tool_calls"]) == {0.0}
    assert frame["score_tool_calls_why"].str.len().min() > 0


async def test_stored_conversations_can_be_scored_again(folder):
    """What `rescore` reads back has the calls of every turn: the same scorer gives the same score."""
    await table(folder, '{weather.now: "clear over {{ city }}", clock: noon}', accuracy="0.5")
    rows = pq.read_table(folder / "run" / "results").to_pylist()
    again = [tool_calls()(request_of(row, Sample(id=row["sample_id"], data={}, hash=""), row["target"], None), completion_of(row)).value for row in rows]
    assert again == [row["score_tool_calls"] for row in rows]
    assert set(again) == {0.0, 1.0}


async def test_a_plug_in_answers(folder, monkeypatch):
    """`module:attribute` is called with the function's name, its arguments and the sample; the report shows what it said."""
    (folder / "weather_station.py").write_text("async def answer(name, arguments, sample):\n    return [name, arguments, sample.id]\n")
    monkeypatch.syspath_prepend(str(folder))
    frame, _ = await table(folder, "weather_station:answer")
    results = json.loads(frame.iloc[0]["conversation"])[1:]
    assert json.loads(results[1]["content"]) == ["weather_now", {"city": frame.iloc[0]["sample_id"]}, frame.iloc[0]["sample_id"]]
