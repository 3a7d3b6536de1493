"""A study of function calls in the form of BFCL: what the report says is what the simulated model did.

The rows are made here. With the environment variable BFCL_FOLDER, which holds the leaderboard's own files as `bfcl_simple_python.jsonl`,
`bfcl_simple_python_answers.jsonl` and the same for `bfcl_multiple`, those are asked too.
"""

import json
import os
from pathlib import Path

import aiohttp
import pytest

from evalrunner.pipeline import run
from evalrunner.plan.config import load_config
from evalrunner.simulator.app import parse_settings, serve

STUDY = """\
name: bfcl
providers:
  compatible: {kind: openai, base_url: BASE/compatible-mode/v1, api_key: '${BFCL_KEY}'}
  native: {kind: dashscope, base_url: BASE/api/v1, api_key: '${BFCL_KEY}'}
models:
  - {id: qwen-turbo, provider: compatible}
  - {id: qwen-plus, provider: native}
prompt_sets:
  - name: calls
    data: rows.jsonl
    id: id
    prompts: {plain: "{{ question[0][0].content }}"}
    tools_from: function
    target: "{{ ground_truth | tojson }}"
    scorers: [tool_calls]
"""
NUMBER = {"type": "integer", "description": "How many."}
PLACE = {"type": "dict", "properties": {"city": {"type": "string"}, "floors": {"type": "array", "items": {"type": "float"}}}}


def made(count):
    """Rows with dots in names, types of other languages, nested objects, several acceptable values and arguments that may be left out."""
    for number in range(count):
        properties = {"rooms": NUMBER, "place": PLACE, "heated": {"type": "boolean"}, "unit": {"type": "string"}}
        wanted = {"name": "house.price", "description": "The price.", "parameters": {"type": "dict", "properties": properties, "required": ["rooms", "place"]}}
        other = {"name": "weather", "description": "The weather.", "parameters": {"type": "dict", "properties": {"city": {"type": "string"}}}}
        place = {"city": [f"Town {number}", f"T{number}"], "floors": [[1.5, float(number)]]}
        yield {
            "id": f"made_{number}",
            "question": [[{"role": "user", "content": f"What is house {number} worth, with {number} rooms?"}]],
            "function": [wanted, other] if number % 2 else [wanted],
            "ground_truth": [{"house.price": {"rooms": [number], "place": [place], "heated": [True, ""], "unit": ["", "EUR", "euro"]}}],
        }


def published(name):
    if "BFCL_FOLDER" not in os.environ:
        pytest.skip("BFCL_FOLDER is not set")
    asked, answers = (
        [json.loads(line) for line in (Path(os.environ["BFCL_FOLDER"]) / f"bfcl_{name}.jsonl").read_text().splitlines()] for name in (name, f"{name}_answers")
    )
    truth = {row["id"]: row["ground_truth"] for row in answers}
    return [{**row, "ground_truth": truth[row["id"]]} for row in asked]


@pytest.mark.parametrize("accuracy", [0.0, 0.85, 1.0])
@pytest.mark.parametrize("name", ["made", "simple_python", "multiple"])
async def test_the_reported_accuracy_is_the_models(tmp_path, name, accuracy):
    """Of each model as many answers are scored right as the simulator counts, in either dialect: its error rate is found again, exactly."""
    rows = list(made(400)) if name == "made" else published(name)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [[row["question"][0][0]["content"], row["ground_truth"]] for row in rows]
    settings = parse_settings({"brain": "tool_caller", "answers": answers, "accuracy": accuracy, "limits": False, "seed": 5})
    async with serve(settings) as base, aiohttp.ClientSession() as session:
        (tmp_path / "study.yaml").write_text(STUDY.replace("BASE", base))
        done = await run(load_config(tmp_path / "study.yaml", ["preflight=false"], environ={"BFCL_KEY": "any"}), tmp_path / "run")
        async with session.get(f"{base}/simulator/stats", headers={"Authorization": "Bearer any"}) as response:
            right = (await response.json())["right"]
    frame = done.results()
    assert (len(frame), set(frame["outcome"])) == (2 * len(rows), {"ok"})
    scored = frame.groupby("model")["score_tool_calls"].sum()
    assert {model: int(found) for model, found in scored.items()} == {model: right.get(model, 0) for model in ("qwen-plus", "qwen-turbo")}
    assert (scored / len(rows)).to_numpy() == pytest.approx(accuracy, abs=0.06)
