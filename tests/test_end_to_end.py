"""From a config to a decision, as a user runs it: real processes, real sockets, the simulator as the service."""

import json
import re
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

CONFIG = """
name: sums
description: Which model adds better?
providers:
  simulator:
    limits: {concurrency: 8}
    options: {brain: arithmetic, seed: 3, accuracy: {qwen-plus: 1.0, qwen-turbo: 0.5}, limits: false}
models:
  - {id: qwen-plus, provider: simulator, price: {input: 0.8, output: 2, currency: CNY}}
  - {id: qwen-turbo, provider: simulator}
grid: {temperature: [0.0, 0.7], max_tokens: 32}
stream: [true, false]
trials: 2
prompt_sets:
  - name: sums
    data: sums.jsonl
    id: id
    tags: [level]
    prompts:
      plain: "What is {{ a }} + {{ b }}?"
      polite: [{role: system, content: "Be brief."}, {role: user, content: "Please: {{ a }} + {{ b }} = ?"}]
    target: "{{ a + b }}"
    scorers: [numeric, includes]
"""
SAMPLES = 6
REQUESTS = SAMPLES * 2 * 2 * 2 * 2 * 2  # prompts, models, temperatures, stream, trials

IDENTITY = ["run_id", "key", "prompt_set", "prompt", "sample_id", "model", "provider"]
COLUMNS = {
    "string": [
        *IDENTITY, "model_id", "sample_hash", "params", "messages", "target", "outcome", "output", "reasoning", "tool_calls", "conversation", "finish_reason",
        "response_id", "response_model", "error_code", "error_message", "usage_source", "currency", "score_numeric_why", "score_includes_why",
    ],
    "bool": ["stream"],
    "int32": ["trial", "http_status", "attempts", "turns", "chunks"],
    "int64": ["prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens"],
    "double": [
        "cost", "wait_ms", "latency_ms", "ttft_ms", "ttft_content_ms", "tpot_ms", "decode_ms", "user_latency_ms", "user_ttft_ms", "tokens_per_chunk",
        "stalled_ms", "score_numeric", "score_includes", "param_temperature",
    ],
    "timestamp[us, tz=UTC]": ["scheduled_at", "started_at", "finished_at"],
    "map<string, string>": ["tags"],
}  # fmt: skip


def evalrunner(*args, cwd, code=0, **kwargs):
    said = subprocess.run([sys.executable, "-m", "evalrunner", *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False, **kwargs)
    assert said.returncode == code, said.stderr
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "sums.yaml").write_text(CONFIG)
    (folder / "sums.jsonl").write_text(
        "".join(json.dumps({"id": f"s{i}", "a": 10 + i, "b": 3 * i, "level": "odd" if i % 2 else "even"}) + "\n" for i in range(SAMPLES))
    )
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    said = evalrunner("run", "sums.yaml", cwd=folder)
    path = folder / re.search(r"^results +(\S+)/results$", said.stdout, re.MULTILINE)[1]
    return said, path


def test_a_run_prints_its_table_and_where_it_is(finished):
    """stdout has the leaderboard and the two paths; stderr has the progress; the directory is where the contract says."""
    said, path = finished
    assert re.fullmatch(r"reports/sums/\d{8}T\d{6}Z-[0-9a-f]{6}", str(path.relative_to(path.parents[2])))
    assert "qwen-plus" in said.stdout
    assert f"{REQUESTS} of {REQUESTS} answered" in said.stdout
    assert f"{REQUESTS}/{REQUESTS}" in said.stderr
    assert sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".")) == [
        "attempts",
        "config.yaml",
        "manifest.json",
        "report.html",
        "results",
    ]
    assert (path / "config.yaml").read_text() == CONFIG


def test_the_table_has_the_columns_of_the_contract(finished):
    """pandas reads the folder as it is; every column of the contract is there with its type, and no key twice."""
    _, path = finished
    schema = pq.read_table(path / "results").schema
    for kind, names in COLUMNS.items():
        for name in names:
            found = str(schema.field(name).type).replace(" ('tags')", "")  # the name of the map's items
            assert found == kind or found.startswith(f"dictionary<values={kind}"), (name, found)
    frame = pd.read_parquet(str(path) + "/results")
    assert len(frame) == REQUESTS
    assert frame["key"].is_unique
    assert frame[IDENTITY].notna().all(axis=None)
    assert set(frame["outcome"]) == {"ok"}


def test_what_is_unknown_is_null(finished):
    """A non-stream has no TTFT; a model without a price has no cost; neither is ever 0."""
    frame = pd.read_parquet(str(finished[1]) + "/results")
    assert frame.loc[~frame["stream"], ["ttft_ms", "tpot_ms", "chunks"]].isna().all(axis=None)
    assert (frame.loc[frame["stream"], "ttft_ms"] > 0).all()
    assert frame.loc[frame["model"] == "qwen-turbo", "cost"].isna().all() or (frame.loc[frame["model"] == "qwen-turbo", "cost"] > 0).all()
    assert (frame.loc[frame["model"] == "qwen-plus", "cost"] > 0).all()


def test_scores_are_what_the_simulator_was_told(finished):
    """The model that is always right scores 1, the other does not; both scorers agree on whole numbers."""
    frame = pd.read_parquet(str(finished[1]) + "/results")
    by_model = frame.groupby("model", observed=True)["score_numeric"].mean()
    assert by_model["qwen-plus"] == 1
    assert 0.2 < by_model["qwen-turbo"] < 0.8


def test_trials_send_seeds_of_their_own(finished):
    """With two trials and no seed in the grid the answers of a doubtful model differ between trials; the rows say which trial they are."""
    frame = pd.read_parquet(str(finished[1]) + "/results")
    assert sorted(frame["trial"].unique()) == [0, 1]
    turbo = frame[frame["model"] == "qwen-turbo"].pivot_table(
        index=["prompt", "sample_id", "params", "stream"], columns="trial", values="score_numeric", observed=True
    )
    assert (turbo[0] != turbo[1]).any()


def test_a_finished_run_has_nothing_to_resume(finished, folder):
    """`resume` of a complete run says so, sends nothing and exits 0."""
    _, path = finished
    before = (path / "manifest.json").read_bytes()
    assert "nothing left to do" in evalrunner("resume", path, cwd=folder).stderr
    assert (path / "manifest.json").read_bytes() == before


def test_show_export_and_report_read_the_run(finished, folder):
    """The summary as JSON, the rows as CSV and JSON Lines, the same report bytes twice."""
    _, path = finished
    summary = json.loads(evalrunner("show", path, "--json", cwd=folder).stdout)
    assert summary["totals"]["answered"] == REQUESTS
    evalrunner("export", path, "--csv", "rows.csv", cwd=folder)
    evalrunner("export", path, "--jsonl", "rows.jsonl", cwd=folder)
    assert len(pd.read_csv(folder / "rows.csv")) == REQUESTS
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == REQUESTS
    assert json.loads(rows[0]["messages"])[-1]["role"] == "user"
    one = evalrunner("report", path, "--out", "one.html", cwd=folder).stdout.strip()
    two = evalrunner("report", path, "--out", "two.html", cwd=folder).stdout.strip()
    assert (folder / one).read_bytes() == (folder / two).read_bytes() == (path / "report.html").read_bytes()


def test_errors_are_rows_and_resume_mends_them(folder):
    """Requests that fail for good are rows with their class and no score; the exit code says so; resume sends those alone and replaces their rows."""
    faults = "[{kind: error, code: internal_error, share: 1.0, model: qwen-turbo}]"
    said = evalrunner(
        "run", "sums.yaml", "--out", "failing", "--set", f"providers.simulator.options.faults={faults}", "--set", "retry.max_attempts=1", cwd=folder, code=4
    )
    assert "evalrunner resume failing" in said.stderr
    frame = pd.read_parquet(folder / "failing" / "results")
    failed = frame[frame["model"] == "qwen-turbo"]
    assert set(failed["outcome"]) == {"server_error"}
    assert failed["score_numeric"].isna().all()
    again = evalrunner("resume", "failing", cwd=folder, code=4)
    half = REQUESTS // 2
    assert f"resuming: {half} answered, 0 without a row, {half} without an answer and sent again" in again.stderr
    assert f"{REQUESTS}/{REQUESTS}" in again.stderr
    after = pd.read_parquet(folder / "failing" / "results")
    assert len(after) == REQUESTS
    kept = after[after["model"] == "qwen-plus"].set_index("key")["response_id"]
    assert kept.equals(frame[frame["model"] == "qwen-plus"].set_index("key")["response_id"].reindex(kept.index))


def test_a_run_directory_in_use_is_refused(finished, folder):
    """A directory that holds something else is never written into."""
    _, path = finished
    said = evalrunner("run", "sums.yaml", "--out", path, cwd=folder, code=6)
    assert str(path) in said.stderr


def test_nothing_is_sent_when_something_is_wrong(folder):
    """A config with a mistake and a data file with a mistake exit 2 and leave no directory."""
    (folder / "bad.yaml").write_text(CONFIG.replace("{{ b }}?", "{{ c }}?"))
    said = evalrunner("run", "bad.yaml", "--out", "bad", cwd=folder, code=2)
    assert "sums.jsonl:1" in said.stderr
    assert not (folder / "bad").exists()
