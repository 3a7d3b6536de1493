"""Rows and parts: every value of a record in its column, in types that any Parquet reader takes."""

from __future__ import annotations

import ast
import base64
import math
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_records import START_US, SmallPlan, make_attempt, make_completion, make_record, make_request

import evalrunner
from evalrunner.records import Cell, Completion, Outcome, Record, Sample, Score, Timing, Usage
from evalrunner.store import parts
from evalrunner.store.redact import Redactor
from evalrunner.store.rows import Columns, columns_of, encode, joined

COLUMNS = Columns(params={"max_tokens": "integer", "temperature": "number"}, scores=["exact"])
RESULTS = """run_id key prompt_set prompt sample_id model provider:string model_id sample_hash:string stream:bool trial:int32 params:string
param_max_tokens:int64 param_temperature:double tags:map<string, string> messages target:string outcome:string output reasoning tool_calls conversation:string
finish_reason response_id response_model error_code error_message:string http_status attempts turns:int32
prompt_tokens completion_tokens reasoning_tokens cached_tokens total_tokens:int64 usage_source:string cost:double currency:string
scheduled_at started_at finished_at:timestamp[us, tz=UTC] wait_ms:double latency_ms ttft_ms ttft_content_ms tpot_ms decode_ms:double
user_latency_ms user_ttft_ms:double chunks:int32 tokens_per_chunk stalled_ms:double score_exact:double score_exact_why:string"""
ATTEMPTS = """key:string turn attempt:int32 started_at:timestamp[us, tz=UTC] http_status:int32 outcome error_code error_message:string
retry_after_ms wait_ms latency_ms ttft_ms:double response_id:string prompt_tokens completion_tokens reasoning_tokens cached_tokens cache_write_tokens:int64
cost:double raw:string"""


def types(contract: str) -> dict[str, str]:
    """`a b:type c:type` as column -> type."""
    found, waiting = {}, []
    for piece in contract.replace("map<string, string>", "map").replace("[us, tz=UTC]", "").split():
        name, _, arrow = piece.partition(":")
        waiting.append(name)
        if arrow:
            found |= dict.fromkeys(waiting, arrow)
            waiting = []
    return found


def tables(*records: Record, columns: Columns = COLUMNS, redactor: Redactor | None = None) -> dict[str, pa.Table]:
    return parts.tables(b"\n".join(encode(record, "r1", columns, redactor or Redactor())[0] for record in records), columns)


def result(record: Record, **more: Any) -> dict[str, Any]:
    return tables(record, **more)["results"].to_pylist()[0]


@pytest.mark.parametrize(("name", "contract"), [("results", RESULTS), ("attempts", ATTEMPTS)])
def test_columns_are_those_of_the_contract(name: str, contract: str) -> None:
    """Names and types, in their order: scripts of users depend on them."""
    schema = parts.schemas(COLUMNS)[name]
    assert {field.name: str(field.type).replace("map<string, string>", "map").replace("[us, tz=UTC]", "") for field in schema} == types(contract)
    assert schema.names == list(types(contract))


def test_an_answer_fills_its_row() -> None:
    """Identity, answer, tokens, money, times and scores of a record are in its row."""
    request = make_request(3, trial=2)
    row = result(make_record(request, completion=make_completion("6", reasoning="3 + 3", tool_calls=({"id": "c1", "name": "f", "arguments": "{}"},))))
    expected = {
        "run_id": "r1",
        "key": request.key,
        "prompt_set": "questions",
        "prompt": "plain",
        "sample_id": "s3",
        "model": "turbo",
        "model_id": "qwen-turbo",
        "provider": "simulator",
        "trial": 2,
        "stream": True,
        "params": '{"max_tokens":16,"temperature":0.0}',
        "param_temperature": 0.0,
        "tags": [("level", "easy")],
        "messages": '[{"role":"user","content":"How much is 3 + 3?"}]',
        "outcome": "ok",
        "output": "6",
        "reasoning": "3 + 3",
        "tool_calls": '[{"id":"c1","name":"f","arguments":"{}"}]',
        "total_tokens": 17,
        "cached_tokens": None,
        "usage_source": "api",
        "cost": 0.00042,
        "scheduled_at": pd.Timestamp(START_US, unit="us", tz="UTC"),
        "latency_ms": 300.0,
        "ttft_ms": 100.0,
        "tpot_ms": 50.0,
        "chunks": 5,
        "score_exact": 1.0,
        "score_exact_why": "equal",
    }
    assert {name: row[name] for name in expected} == expected


def test_a_failure_has_no_answer_and_no_zero() -> None:
    """What is unknown is null: tokens, cost, latency and scores of a request without an answer."""
    row = result(make_record(make_request(), outcome=Outcome.TIMEOUT))
    assert row["outcome"] == "timeout"
    assert (row["error_code"], row["error_message"], row["http_status"], row["attempts"]) == ("InternalError", "the server failed", 500, 1)
    for name in ("output", "prompt_tokens", "usage_source", "cost", "currency", "latency_ms", "ttft_ms", "chunks", "score_exact", "score_exact_why"):
        assert row[name] is None


def test_attempts_have_rows_of_their_own() -> None:
    """Every exchange of a request, the unreadable body of one in base64."""
    request = make_request()
    tries = (
        make_attempt(request.key, 1, outcome="bad_output", raw=b"\xff\x00{", retry_after_ms=3000.0),
        make_attempt(request.key, 2, usage=Usage(cache_write_tokens=7)),
    )
    table = tables(make_record(request, attempts=tries), make_record(make_request(1), attempts=()))["attempts"]
    first, second = table.to_pylist()
    assert base64.b64decode(first["raw"]) == b"\xff\x00{"
    assert (first["attempt"], first["outcome"], first["retry_after_ms"], first["cache_write_tokens"]) == (1, "bad_output", 3000.0, None)
    assert (second["attempt"], second["key"], second["cache_write_tokens"], second["raw"]) == (2, request.key, 7, None)


@pytest.mark.parametrize(("value", "kept"), [(0.1, 0.1), (1, 1), (True, 1), (1e-300, 1e-300), (1 + 1e-15, 1), (-1e-15, 0)])
def test_a_score_is_kept_as_it_is(value: float, kept: float) -> None:
    """What is from 0 to 1, give or take a float's rounding."""
    assert result(make_record(make_request(), scores={"exact": Score(value=value)}))["score_exact"] == kept


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 5, -0.1, 1.001])
def test_a_score_that_is_not_from_0_to_1_is_null_with_a_reason(value: float) -> None:
    """A scorer that counts from 1 to 5 makes no 500 %: its scores are missing, and say why."""
    row = result(make_record(make_request(), scores={"exact": Score(value=value, why="good")}))
    assert row["score_exact"] is None
    assert row["score_exact_why"] == f"the scorer gave {value:g}, which is not from 0 to 1 (good)"


def test_a_score_that_is_no_number_is_null_with_a_reason() -> None:
    """A plug-in's mistake costs its score, not the row."""
    row = result(make_record(make_request(), scores={"exact": Score(value="high")}))
    assert row["score_exact"] is None
    assert "'high'" in row["score_exact_why"]


texts = st.text(st.characters(), max_size=50) | st.sampled_from(
    ["\ud800", "a\x00b", "\u2028\u2029", "\u202eRTL", "=1+1", "</script>", "\r\n", '"\\"', "\ufeff", "\ud83d\ude00"]
)


@given(texts, texts, texts)
def test_any_text_comes_back(output: str, tag: str, name: str) -> None:
    """Through journal and Arrow as it was; only what UTF-8 cannot hold becomes U+FFFD."""
    kept = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _is_paired(text) else _replaced(text) for text in (output, tag, name)]
    request = make_request(sample=Sample(id=name, data={}, hash="h", tags={tag: output}), messages=[{"role": "user", "content": output}])
    row = result(make_record(request, completion=make_completion(output), error_message=None))
    assert row["output"] in {kept[0], _replaced(output)}
    assert row["sample_id"] in {kept[2], _replaced(name)}
    assert [(key, value) for key, value in row["tags"]] == [(_replaced(tag), _replaced(output))]
    assert msgspec.json.decode(row["messages"])[0]["content"] == _replaced(output)


def _is_paired(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _replaced(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


def test_a_megabyte_in_one_line_is_one_row() -> None:
    """Long answers have no limit here."""
    answer = "x\u2028" * 1_000_000
    assert result(make_record(make_request(), completion=make_completion(answer)))["output"] == answer


odd = st.sampled_from([2**64, -(2**70), 1.5, "12", None, True, [1], {"a": 1}, 7, b"bytes"])


@settings(deadline=None)
@given(odd, odd, odd, odd)
def test_odd_values_of_plug_ins_never_cost_a_row(tokens: Any, code: Any, param: Any, sample_id: Any) -> None:
    """A value that does not fit its column becomes text or null there; the answer and the rows beside it stay."""
    cell = make_request().cell
    request = make_request(5, cell=Cell(prompt_set="q", prompt="p", model=cell.model, params={"temperature": param}, stream=False))
    odd_record = make_record(request, usage=Usage(prompt_tokens=tokens), error_code=code, completion=make_completion("answer", response_id=sample_id))
    table = tables(make_record(make_request(1)), odd_record, make_record(make_request(2)))["results"]
    assert table["output"].to_pylist() == ["2", "answer", "4"]
    assert table["prompt_tokens"].to_pylist()[::2] == [12, 12]
    assert table.to_pylist()[1]["prompt_tokens"] in {tokens if type(tokens) is int and abs(tokens) < 2**63 else None, None}


def test_both_ways_from_journal_to_table_agree() -> None:
    """The fallback for odd values gives what Arrow's reader gives where nothing is odd."""
    records = [make_record(request, outcome=outcome) for request, outcome in zip(SmallPlan(6).all_requests(), Outcome, strict=False)]
    lines = b"\n".join(encode(record, "r1", COLUMNS, Redactor())[0] for record in records)
    schema = pa.schema(
        [
            ("row", parts._wire(parts.schemas(COLUMNS)["results"], {"score_exact"})),
            ("attempts", pa.list_(parts._wire(parts.schemas(COLUMNS)["attempts"], set()))),
        ]
    )
    slow = parts._value_by_value(lines, schema)
    for name in ("row", "attempts"):
        fast = {"row": "results", "attempts": "attempts"}[name]
        rows = slow[name].combine_chunks()
        again = parts._stored(rows if name == "row" else rows.flatten(), parts.schemas(COLUMNS)[fast])
        assert again.equals(parts.tables(lines, COLUMNS)[fast])


def test_of_two_rows_with_one_key_the_last_counts() -> None:
    """No reader sees a key twice."""
    requests = [make_request(number) for number in (1, 2, 1, 3, 2)]
    table = tables(*(make_record(request, completion=make_completion(str(place))) for place, request in enumerate(requests)))["results"]
    assert table["output"].to_pylist() == ["2", "3", "4"]


def test_a_part_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Schema and values survive the file, so that parts of many sessions make one table."""
    table = tables(*(make_record(request) for request in SmallPlan(10).all_requests()))["results"]
    rows, data = parts.parquet([table.slice(0, 7), table.slice(7)], table.schema)
    (tmp_path / "part.parquet").write_bytes(data)
    assert rows == 20
    assert parts.schema_of(tmp_path / "part.parquet").equals(table.schema)
    assert parts.read(tmp_path / "part.parquet").equals(table)
    assert parts.read(tmp_path / "part.parquet", ["outcome", "no such column", "key"]).column_names == ["outcome", "key"]


def test_small_tables_are_gathered_into_groups() -> None:
    """Row groups of a merged part are not as small as what was merged."""
    table = pa.table({"key": list("abcdefghij")})
    groups = list(parts.in_groups((table.slice(start, 1) for start in range(10)), 4))
    assert [group.num_rows for group in groups] == [4, 4, 2]
    assert pa.concat_tables(groups)["key"].to_pylist() == list("abcdefghij")


def test_a_part_of_an_older_version_gets_the_columns_it_lacks() -> None:
    """Unknown then is null now; what is of another type is converted."""
    schema = pa.schema([("key", pa.string()), ("cost", pa.float64()), ("new", pa.int32())])
    assert parts.conform(pa.table({"cost": [1, 2], "key": ["a", "b"]}), schema).to_pylist() == [
        {"key": "a", "cost": 1.0, "new": None},
        {"key": "b", "cost": 2.0, "new": None},
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "integer"),
        (5, "integer"),
        ([0, 0.7], "number"),
        ([None, 1.0], "number"),
        ([True, False], "bool"),
        (["low", "high"], "string"),
        ([1, "auto"], "json"),
        ({"type": "json_object"}, "json"),
        ([2**64], "json"),
        ([True, 1], "json"),
        ([None], "json"),
    ],
)
def test_a_parameter_column_has_the_type_of_its_values(values: Any, kind: str) -> None:
    """So that numbers can be compared as numbers, and anything else is still there as JSON text."""
    plan = SmallPlan()
    described = {**plan.describe(), "grid": {"max_tokens": 16, "temperature": values}}
    plan.describe = lambda: described  # type: ignore[method-assign]
    assert columns_of(plan).params["temperature"] == kind
    for value in values if isinstance(values, list) else [values]:
        request = make_request(cell=msgspec.structs.replace(make_request().cell, params={"temperature": value}))
        stored = result(make_record(request), columns=columns_of(plan))["param_temperature"]
        assert value == (msgspec.json.decode(stored) if kind == "json" and value is not None else stored)


def test_the_values_of_one_model_count_too() -> None:
    """A parameter that only one model sends has a column of its own."""
    plan = SmallPlan()
    plan.param_names = ["enable_thinking", "max_tokens", "temperature"]
    described = {**plan.describe(), "models": [{"name": "turbo", "params": {"enable_thinking": False}}]}
    plan.describe = lambda: described  # type: ignore[method-assign]
    assert columns_of(plan).params == {"enable_thinking": "bool", "max_tokens": "integer", "temperature": "number"}


def test_joined_columns_keep_what_either_has() -> None:
    """A config that changed between run and resume takes no column away."""
    old = Columns(params={"a": "integer", "b": "string"}, scores=["x"])
    new = Columns(params={"a": "number", "c": "bool"}, scores=["y", "x"])
    assert joined(old, new) == Columns(params={"a": "number", "b": "string", "c": "bool"}, scores=["x", "y"])


def test_secrets_are_masked_wherever_they_stand() -> None:
    """Echoed in an answer, an error, a tag or a raw body: `[secret]` stands there, keys and numbers stay."""
    secret = "1234" * 2
    request = make_request(
        key="a12345678b", sample=Sample(id="s", data={}, hash="h", tags={"t": secret}), messages=[{"role": "user", "content": f'"{secret}"'}]
    )
    completion = Completion(output=f"key {secret}!", finish_reason="stop", timing=Timing(started_ns=0, ended_ns=1), response_id=secret)
    attempt = make_attempt(request.key, raw=f"x{secret}".encode(), error_message=f"bad key {secret}", started_us=1764_12345678_000)
    record = make_record(request, completion=completion, attempts=(attempt,), error_message="proxy http://u:hunter2@host failed")
    body, masked = encode(record, "r1", COLUMNS, Redactor([secret]))
    found = parts.tables(body, COLUMNS)
    row, tried = found["results"].to_pylist()[0], found["attempts"].to_pylist()[0]
    assert masked
    assert (row["output"], row["response_id"], row["tags"]) == ("key [secret]!", "[secret]", [("t", "[secret]")])
    assert row["error_message"] == "proxy http://[secret]@host failed"
    assert row["key"] == tried["key"] == "a12345678b"
    assert msgspec.json.decode(row["messages"]) == [{"role": "user", "content": '"[secret]"'}]
    assert (tried["error_message"], base64.b64decode(tried["raw"])) == ("bad key [secret]", b"x[secret]")
    assert tried["started_at"] == pd.Timestamp(1764_12345678_000, unit="us", tz="UTC")


def test_nothing_in_the_package_can_unpickle() -> None:
    """Stored runs are data: no module imports a format that can execute what it loads."""
    for path in Path(evalrunner.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, path
