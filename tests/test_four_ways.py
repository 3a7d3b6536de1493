"""One study through both dialects, streamed or not."""

from pathlib import Path

import pytest

from evalrunner.pipeline import run
from evalrunner.plan.config import load_config

CONFIGS = Path(__file__).parent.parent / "configs"

STUDY = """\
name: four-ways
providers:
  simulator:
    options: {dialect: DIALECT, seed: 3, accuracy: 0.7, limits: false, input: INPUT}
models:
  - {id: qwen-plus, provider: simulator, label: plus}
  - {id: qwen3.7-plus, provider: simulator, label: multimodal}
grid: {temperature: 0.7, enable_thinking: [false, true]}
stream: STREAM
prompt_sets:
  - name: sums
    data: sums.jsonl
    prompts:
      plain: "{{ question }} Answer with the number only."
      conversation:
        - {role: system, content: "You are careful with numbers."}
        - {role: user, content: "{{ question }}"}
    target: "{{ answer }}"
    scorers: [numeric]
"""
SAME = ["prompt", "sample_id", "model", "param_enable_thinking", "outcome", "output", "reasoning", "finish_reason"]
SAME += ["prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens", "score_numeric"]


async def table(folder, dialect, *, stream, text=STUDY):
    """The rows of one run, sorted, without what may differ: keys, ids, times."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sums.jsonl").write_text("".join(f'{{"question": "What is {n} + {3 * n}?", "answer": {4 * n}}}\n' for n in range(50)))
    path = folder / "study.yaml"
    path.write_text(text.replace("DIALECT", dialect).replace("STREAM", str(stream).lower()).replace("INPUT", "prompt" if dialect == "native" else "messages"))
    done = await run(load_config(path), folder / f"{dialect}-{stream}")
    assert done.exit_code == 0
    return done.results()[SAME].sort_values(SAME[:4]).reset_index(drop=True)


async def test_the_same_answers_tokens_and_scores(tmp_path):
    """Fifty samples, two wordings, two models, thinking or not: every answer, token count and score is the same through all four ways."""
    first = await table(tmp_path, "openai", stream=False)
    assert len(first) == 50 * 2 * 2 * 2
    assert 0.5 < first["score_numeric"].mean() < 0.9
    assert first["reasoning_tokens"].notna().any()
    for dialect, stream in (("openai", True), ("native", False), ("native", True)):
        assert (await table(tmp_path, dialect, stream=stream)).equals(first), (dialect, stream)


@pytest.mark.parametrize("name", ["vision", "tools"])
async def test_pictures_and_tools_too(tmp_path, name):
    """The shipped studies with pictures and with tools give the same rows through all four ways."""
    columns = [
        "prompt",
        "sample_id",
        "model",
        "outcome",
        "output",
        "called",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "score",
    ]
    found = []
    for dialect in ("openai", "native"):
        for stream in ("true", "false"):
            overrides = [f"providers.simulator.options.dialect={dialect}", "providers.simulator.options.limits=false", f"stream={stream}"]
            done = await run(load_config(CONFIGS / f"{name}.yaml", overrides, limit=10), tmp_path / f"{dialect}-{stream}")
            rows = done.results()
            rows["score"] = rows.filter(regex="^score_[^_]+$|^score_tool_calls$").mean(axis=1)
            rows["called"] = rows["tool_calls"].fillna("").str.replace(r'"id":"[^"]*"', "", regex=True)
            found.append(rows[columns].sort_values(columns[:3]).reset_index(drop=True))
    assert set(found[0]["outcome"]) == {"ok"}
    assert all(other.equals(found[0]) for other in found[1:])
