"""Other scorers on stored answers: nothing is sent, nothing paid for is lost, nothing is computed twice."""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evalrunner as er
from evalrunner.cli import main
from evalrunner.store import lock
from evalrunner.store.files import Files

CONFIG = """
name: again
providers:
  simulator:
    kind: simulator
    limits: {{concurrency: 64}}
    options: {{brain: arithmetic, accuracy: 0.8, limits: false, latency: 0, faults: {faults}}}
models: [{{id: qwen-plus, provider: simulator}}]
trials: 2
preflight: false
allow_unanswered: 1
retry: {{max_attempts: 1}}
prompt_sets:
  - {{name: sums, data: sums.jsonl, id: id, prompts: {{p: "{{{{ question }}}}"}}, target: "{{{{ answer }}}}", scorers: {scorers}}}
"""


class Bench:
    """A folder with 60 sums and configs that differ in their scorers."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "sums.jsonl"
        self.data.write_text("".join(f'{{"id": "s{n}", "question": "What is {n} + 7?", "answer": {n + 7}}}\n' for n in range(60)), encoding="utf-8")

    def config(self, scorers, name="config", faults="[]"):
        path = self.folder / f"{name}.yaml"
        path.write_text(CONFIG.format(scorers=scorers, faults=faults), encoding="utf-8")
        return str(path)

    def run(self, scorers="[numeric]", faults="[{kind: error, status: 500, share: 0.1}]"):
        assert main(["run", self.config(scorers, faults=faults), "--out", str(self.folder / "run"), "--yes"]) == 0
        return str(self.folder / "run")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_new_scorer_joins_those_there_are(bench, capsys):
    """`rescore RUN CONFIG` adds a column with reasons, leaves the old scores, answers and attempts as they are, and the report shows both."""
    run = bench.run()
    before, attempts = er.open_run(run).results(), er.open_run(run).attempts()
    capsys.readouterr()
    assert main(["rescore", run, bench.config("[numeric, exact, {includes: {name: inside}}]", "more")]) == 0
    said = capsys.readouterr().err
    after = er.open_run(run).results()
    assert after[list(before.columns)].equals(before)
    assert er.open_run(run).attempts().equals(attempts)
    answered = after["outcome"].isin(["ok", "truncated"])
    assert 0 < (~answered).sum() < 60
    assert f"computed exact for {answered.sum()} answers" in said
    assert (after.loc[answered, "score_exact"] == after.loc[answered, "score_numeric"]).all()
    assert after.loc[~answered, ["score_exact", "score_exact_why", "score_inside"]].isna().all(axis=None)
    assert er.open_run(run).summary().scorers == ("numeric", "exact", "inside")
    assert "inside" in (bench.folder / "run" / "report.html").read_text(encoding="utf-8")
    assert pq.ParquetDataset(bench.folder / "run" / "results").read().column_names == list(after.columns)


def test_only_what_is_new_or_changed_is_computed(bench, capsys):
    """The same scorers again are nothing to do; another option computes that scorer alone; `--all` computes all."""
    run = bench.run("[numeric, exact]", faults="[]")
    capsys.readouterr()
    for scorers, options, computed in [
        ("[numeric, exact]", [], []),
        ("[{numeric: {tolerance: 1000}}, exact]", [], ["numeric"]),
        ("[{numeric: {tolerance: 1000}}, exact]", [], []),
        ("[exact]", ["--all"], ["exact"]),
    ]:
        assert main(["rescore", run, bench.config(scorers, "new"), *options]) == 0
        said = capsys.readouterr().err
        assert [line.split()[1] for line in said.splitlines() if line.startswith("computed")] == computed
        assert ("nothing to do" in said) == (not computed)
    assert er.open_run(run).results()["score_numeric"].eq(1).all()
    assert main(["rescore", run]) == 0


def test_a_scorer_of_one_s_own_is_computed_every_time(bench, monkeypatch):
    """Its code may have changed. It sees the answer, the row of data and the target, as it did during the run."""
    (bench.folder / "mine.py").write_text(
        "from evalrunner import Score\ndef seen():\n"
        "    def score(request, completion):\n"
        "        whole = request.sample.data['answer'] == int(request.target) and request.messages and completion.usage and completion.timing.ended_ns\n"
        "        return Score(value=float(bool(whole and completion.output)), why=request.cell.prompt)\n"
        "    return score\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(bench.folder))
    run = bench.run(faults="[]")
    config = bench.config("['mine:seen']", "mine")
    for _ in range(2):
        assert main(["rescore", run, config]) == 0
    results = er.open_run(run).results()
    assert results["score_seen"].eq(1).all()
    assert set(results["score_seen_why"]) == {"p"}
    sys.modules.pop("mine")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda bench: bench.data.write_text(bench.data.read_text().replace("What is 1 + 7", "How much is 1 + 7")), 2, "1 samples of this run are not in"),
        (lambda bench: bench.data.write_text("".join(bench.data.read_text().splitlines(keepends=True)[:50])), 2, "10 samples of this run"),
    ],
    ids=["changed", "gone"],
)
def test_data_that_changed_are_refused_and_nothing_is_written(bench, capsys, change, code, said):
    """A sample that is not what was asked cannot be scored with what is there now: it is named, and the run stays as it was."""
    run = bench.run(faults="[]")
    manifest = (bench.folder / "run" / "manifest.json").read_bytes()
    change(bench)
    assert main(["rescore", run, bench.config("[exact]", "new")]) == code
    assert said in capsys.readouterr().err
    assert (bench.folder / "run" / "manifest.json").read_bytes() == manifest


def test_answers_that_came_later_are_scored_and_no_other(bench, capsys):
    """A run stopped at its budget, scored by `exact`, and gone on with: the next `rescore` computes `exact` for the answers that lack it, once."""
    assert main(["run", bench.config("[numeric]"), "--out", str(bench.folder / "run"), "--yes", "--max-requests", "50"]) == 3
    run, more = str(bench.folder / "run"), bench.config("[numeric, exact]", "more")
    for command, said in [
        (["rescore", run, more], "computed exact for 50 answers\n"),
        (["resume", run, "--max-requests", "1000"], ""),
        (["rescore", run, more], "computed exact for 70 answers\n"),
        (["rescore", run, more], "nothing to do"),
    ]:
        capsys.readouterr()
        assert main(command) == 0
        printed = capsys.readouterr().err
        assert said in printed
        assert "computed numeric" not in printed
    results = er.open_run(run).results()
    assert (results["score_exact"] == results["score_numeric"]).all()


class Embeddings(ThreadingHTTPServer):
    """An endpoint for embeddings that refuses what it is asked after the first `served` questions, until `served` grows; `asked` counts."""

    daemon_threads = True

    def __init__(self, served):
        self.served, self.asked = served, 0
        super().__init__(("127.0.0.1", 0), EmbeddingsReply)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def scorer(self):
        return f"{{embedding: {{model: e, base_url: 'http://127.0.0.1:{self.server_port}/v1'}}}}"


class EmbeddingsReply(BaseHTTPRequestHandler):
    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        self.server.asked += 1
        well = self.server.asked <= self.server.served
        vectors = {"data": [{"index": index, "embedding": [1.0, 0.0]} for index in range(len(texts))]} if well else {"error": "no credit"}
        body = json.dumps(vectors).encode()
        self.send_response(200 if well else 402)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words):
        """Tests are quiet."""


def test_what_an_endpoint_refused_is_asked_again_and_nothing_else(bench, capsys):
    """Scores that are null because an embedding endpoint refused (402) are computed by the next `rescore`: one question for each, none for the others."""
    with Embeddings(served=100) as endpoint:
        run = bench.run(f"[numeric, {endpoint.scorer}]", faults="[]")
        assert er.open_run(run).results()["score_embedding"].isna().sum() == 20
        endpoint.served, endpoint.asked = 15, 0
        for asked, left in [(20, 5), (5, 0), (0, 0)]:
            capsys.readouterr()
            endpoint.asked = 0
            assert main(["rescore", run]) == 0
            assert endpoint.asked == asked
            assert er.open_run(run).results()["score_embedding"].isna().sum() == left
        assert "nothing to do" in capsys.readouterr().err
        endpoint.shutdown()


def test_a_null_that_a_scorer_came_to_by_itself_is_its_result(bench, capsys):
    """`latency` has no time to first token where nothing was streamed, and will have none: that is nothing to do, unless `--all` says so."""
    stream = bench.config("[{latency: {max_ms: 1000, metric: ttft_ms}}]")
    assert main(["run", stream, "--set", "stream=false", "--out", str(bench.folder / "run"), "--yes"]) == 0
    run = str(bench.folder / "run")
    assert er.open_run(run).results()["score_latency_why"].str.startswith("ttft_ms is undefined").all()
    for options, said in [([], "nothing to do"), (["--all"], "computed latency for 120 answers")]:
        capsys.readouterr()
        assert main(["rescore", run, *options]) == 0
        assert said in capsys.readouterr().err


def test_cost_is_scored_by_the_price_of_the_run_or_of_the_new_config(bench):
    """The rows know no price; the config's model does: a `cost` scorer that comes later is as good as one that was there, at the prices that are written."""
    run = bench.run(faults="[]")
    priced = "[{id: qwen-plus, provider: simulator, price: {input: PRICE, output: PRICE, currency: CNY}}]"
    scores = []
    for price in ("1", "1000000"):
        config = bench.config("[numeric, {cost: {max: 0.01}}]", "cost")
        text = (bench.folder / "cost.yaml").read_text(encoding="utf-8")
        (bench.folder / "cost.yaml").write_text(text.replace("[{id: qwen-plus, provider: simulator}]", priced.replace("PRICE", price)), encoding="utf-8")
        assert main(["rescore", run, config, "--all"]) == 0
        scores.append(set(er.open_run(run).results()["score_cost"]))
    assert scores == [{1.0}, {0.0}]


def test_the_gate_of_the_config_is_checked(bench, capsys):
    """A gate that the new score breaks is exit 1 with its line, also when every score is there already; one that holds is exit 0."""
    run = bench.run(faults="[]")
    path = bench.config("[numeric, exact]", "gated")
    written = (bench.folder / "gated.yaml").read_text(encoding="utf-8")
    for limit, code, verdict in [(0.99, 1, "FAILED"), (0.5, 0, "passed"), (0.99, 1, "FAILED")]:
        (bench.folder / "gated.yaml").write_text(f"{written}gate: [{{metric: score_exact, min: {limit}}}]\n", encoding="utf-8")
        capsys.readouterr()
        assert main(["rescore", run, path]) == code
        assert f"verdict  {verdict}" in capsys.readouterr().out


def test_the_report_keeps_what_changed_since_the_baseline(bench):
    """A run that is gated against a baseline has that comparison in its report after `rescore`, as after `run`; a drop is exit 1."""
    bench.run(faults="[]")
    (bench.folder / "run").rename(bench.folder / "blessed")
    config = bench.config("[numeric]")
    text = (bench.folder / "config.yaml").read_text(encoding="utf-8").replace("accuracy: 0.8", "accuracy: 0.3")
    (bench.folder / "config.yaml").write_text(f"{text}gate: [{{metric: score_numeric, max_drop: 0.05, baseline: blessed}}]\n", encoding="utf-8")
    run, report = str(bench.folder / "run"), bench.folder / "run" / "report.html"
    assert main(["run", config, "--out", run, "--yes"]) == 1
    before = report.read_text(encoding="utf-8")
    assert main(["rescore", run, "--all"]) == 1
    assert report.read_text(encoding="utf-8") == before


def test_half_a_run_decides_nothing(bench, capsys):
    """The answers of a run that stopped at its budget are scored, and its gate waits for the rest."""
    config = bench.config("[numeric]")
    (bench.folder / "config.yaml").write_text((bench.folder / "config.yaml").read_text() + "gate: [{metric: score_numeric, min: 0.99}]\n", encoding="utf-8")
    assert main(["run", config, "--out", str(bench.folder / "run"), "--yes", "--max-requests", "50"]) == 3
    capsys.readouterr()
    assert main(["rescore", str(bench.folder / "run"), "--all"]) == 0
    said = capsys.readouterr()
    assert "its gate is checked when it is complete" in said.err
    assert "verdict" not in said.out


def test_a_live_run_and_a_foreign_config_are_refused(bench, capsys):
    """A run that is in use is exit 6; a config without a prompt set of the run is exit 2."""
    run = bench.run(faults="[]")
    with open(lock.take(bench.folder / "run", Files(), "now")):  # noqa: PTH123 - a descriptor
        assert main(["rescore", run, bench.config("[exact]", "new")]) == 6
    other = bench.folder / "other.yaml"
    other.write_text((bench.folder / "new.yaml").read_text().replace("name: sums,", "name: others,"), encoding="utf-8")
    assert main(["rescore", run, str(other)]) == 2
    assert "no prompt set of this config is in the run (it has sums)" in capsys.readouterr().err


def test_thousands_of_rows_are_scored_again(bench):
    """20,000 stored answers get their score, report included."""
    run = bench.folder / "run"
    bench.run(faults="[]")
    manifest = json.loads((run / "manifest.json").read_text())
    (part,) = [run / one["file"] for one in manifest["parts"] if one["file"].startswith("results")]
    table = pq.read_table(part)
    rows = table.take(pa.array(list(range(120)) * 167))
    rows = rows.set_column(rows.schema.get_field_index("key"), rows.schema.field("key"), pa.array([f"k{n}" for n in range(len(rows))]))
    pq.write_table(rows, part)
    for one in manifest["parts"]:
        if run / one["file"] == part:
            one |= {"rows": len(rows), "sha256": hashlib.sha256(part.read_bytes()).hexdigest()}
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert main(["rescore", str(run), bench.config("[exact]", "new")]) == 0
    assert er.open_run(run).results(["score_exact"]).notna().all(axis=None)


def test_a_column_that_is_not_there_scores_nothing(bench, capsys):
    """`rescore` looks for the columns of its scorers as `run` does, and leaves the run as it was where one is missing."""
    run = bench.run()
    assert main(["rescore", run, bench.config("[numeric, exact: {accept: answr}]", "new")]) == 2
    assert "no row has a field called 'answr' (hint: did you mean 'answer'?)" in capsys.readouterr().err
    assert "score_exact" not in er.open_run(run).results()
