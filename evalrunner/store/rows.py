"""A record as one journal body: its row of `results` in column names, and its rows of `attempts` (contract.md, section 5).

Three kinds of column travel in another form than they are stored in, because JSON or its reader cannot hold them: times as microseconds, scores as text
(older runs have NaN and infinities), tags as a list of pairs.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from evalrunner.analysis import metrics
from evalrunner.records import Attempt, Cell, Completion, Judgement, Plan, Record, Score, Usage
from evalrunner.store.redact import Redactor

ROUNDING = 1e-9
"""A score may be past 0 or 1 by as much as sums of floats are wrong."""

ParamKind = Literal["integer", "number", "bool", "string", "json"]

_encode = msgspec.json.Encoder(enc_hook=str).encode
_encode_sorted = msgspec.json.Encoder(enc_hook=str, order="sorted").encode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_IDENTITY = frozenset({"run_id", "key", "sample_hash"})
_ANSWER = b'"answer":'
_BEGINNING = 32
"""Within so many bytes a journal line says what it is."""


class _Keyed(Struct):
    key: str


class _Written(Struct):
    """As much of a journal line, or of a body in it, as tells what it is about."""

    row: _Keyed | None = None
    answer: msgspec.Raw = msgspec.Raw()


_decode_written = msgspec.json.Decoder(_Written).decode


class Columns(Struct, frozen=True):
    """What a plan adds to the fixed columns: its parameters with the kind of their values, and its scorers."""

    params: Mapping[str, ParamKind]
    scores: Sequence[str]


def columns_of(plan: Plan) -> Columns:
    """The columns of `plan`. The kind of a parameter is read off every value that `describe()` lists for it: in `grid`, and in the `params` of a model."""
    described = plan.describe()
    sources = [described.get("grid") or {}, *(model.get("params") or {} for model in described.get("models") or [])]
    return Columns(
        params={name: _kind(value for source in sources if name in source for value in _swept(source[name])) for name in plan.param_names},
        scores=list(plan.scorer_names),
    )


def joined(old: Columns, new: Columns) -> Columns:
    """Every column of both: a changed config takes nothing away from the rows there are."""
    params = {**old.params, **new.params}
    for name in old.params.keys() & new.params.keys():
        kinds = {old.params[name], new.params[name]}
        params[name] = new.params[name] if len(kinds) == 1 else "number" if kinds == {"integer", "number"} else "json"
    return Columns(params=params, scores=[*old.scores, *(name for name in new.scores if name not in old.scores)])


def encode(record: Record, run_id: str, columns: Columns, redactor: Redactor) -> tuple[bytes, bool]:
    """The journal body of `record`, and whether a secret had to be masked in it."""
    row = _row(record, run_id, columns)
    attempts = [_attempt_row(attempt, redactor) for attempt in record.attempts]
    if row["error_message"]:
        row["error_message"] = redactor.message(row["error_message"])
    body = _json(_encode, {"row": row, "attempts": attempts})
    if not redactor.touches(body):
        return body, _echoed(record, redactor)
    masked = redactor.value([row, *attempts])
    for before, after in zip([row, *attempts], masked, strict=True):
        after.update((name, before[name]) for name in _IDENTITY & before.keys())
    return _json(_encode, {"row": masked[0], "attempts": masked[1:]}), True


def encode_answer(body: bytes) -> bytes:
    """The journal body of a row (as `encode` gives it) whose scores are not there yet; not a row itself."""
    return b"{%b%b}" % (_ANSWER, body)


def answers_alone(segments: Iterable[Sequence[bytes]]) -> dict[str, bytes]:
    """Key -> body, as `encode` gave it, of the answers in journal segments that no row followed."""
    lines = [line for lines in segments for line in lines]
    if not any(_ANSWER in line[:_BEGINNING] for line in lines):
        return {}
    found = [_decode_written(line) for line in lines]
    rows = {one.row.key for one in found if one.row is not None}
    answers = [(_decode_written(one.answer).row, bytes(one.answer)) for one in found if one.answer]
    return {row.key: body for row, body in answers if row is not None and row.key not in rows}


def encode_judgement(judgement: Judgement, redactor: Redactor) -> bytes:
    """The journal body of one judgement."""
    row = msgspec.to_builtins(judgement, enc_hook=str)
    row["started_at"] = row.pop("started_us")
    if row["error_message"]:
        row["error_message"] = redactor.message(row["error_message"])
    body = _json(_encode, {"judgement": row})
    return body if not redactor.touches(body) else _json(_encode, {"judgement": redactor.value(row) | {"key": judgement.key, "id": judgement.id}})


def encode_scores(row: Mapping[str, Any], scores: Mapping[str, Score], redactor: Redactor) -> bytes:
    """The journal body of a stored row (as it travels, `unscored.py`) with other scores; its attempts are where they are."""
    fresh = dict(row)
    for name, score in scores.items():
        fresh |= {f"score_{name}": None, f"score_{name}_why": None} | _score(name, score)
    body = _json(_encode, {"row": fresh, "attempts": []})
    if not redactor.touches(body):
        return body
    return _json(_encode, {"row": redactor.value(fresh) | {name: row[name] for name in _IDENTITY}, "attempts": []})


def _echoed(record: Record, redactor: Redactor) -> bool:
    """Whether a secret stood where it was masked before the body was made."""
    texts = [record.error_message, *(attempt.error_message for attempt in record.attempts)]
    return any(redactor.text(text) != text for text in texts if text) or any(redactor.touches(attempt.raw) for attempt in record.attempts if attempt.raw)


def _row(record: Record, run_id: str, columns: Columns) -> dict[str, Any]:
    request, usage = record.request, record.usage
    cell, sample = request.cell, request.sample
    row: dict[str, Any] = {
        "run_id": run_id,
        "key": request.key,
        "prompt_set": cell.prompt_set,
        "prompt": cell.prompt,
        "sample_id": sample.id,
        "model": cell.model.name,
        "provider": cell.model.provider,
        "model_id": cell.model.id,
        "sample_hash": sample.hash,
        "stream": cell.stream,
        "trial": request.trial,
        "params": _text(_encode_sorted, cell.params),
        "tags": [{"key": name, "value": value} for name, value in sample.tags.items()],
        "messages": _text(_encode, request.messages),
        "target": request.target,
        "outcome": record.outcome,
        "error_code": record.error_code,
        "error_message": record.error_message,
        "http_status": record.http_status,
        "attempts": len(record.attempts),
        "turns": record.turns,
        "cost": record.cost,
        "currency": record.currency,
        "scheduled_at": record.scheduled_us,
        "started_at": record.started_us,
        "finished_at": record.finished_us,
        "wait_ms": record.wait_ms,
        "user_latency_ms": record.user_latency_ms,
        "user_ttft_ms": record.user_ttft_ms,
        "stalled_ms": record.stalled_ms,
    }
    if usage is not None:
        row |= _tokens(usage)
        row["total_tokens"] = usage.total_tokens
        row["usage_source"] = usage.source
    if record.completion is not None:
        row |= _answer(record.completion)
    row |= _params(cell, columns.params)
    for name in columns.scores:
        row |= _score(name, record.scores.get(name))
    return row


def _answer(completion: Completion) -> dict[str, Any]:
    timing, usage = completion.timing, completion.usage
    return {
        "output": completion.output,
        "reasoning": completion.reasoning,
        "tool_calls": _text(_encode, completion.tool_calls) if completion.tool_calls else None,
        "conversation": _text(_encode, completion.conversation) if completion.conversation else None,
        "finish_reason": completion.finish_reason,
        "response_id": completion.response_id,
        "response_model": completion.response_model,
        "latency_ms": metrics.latency_ms(timing),
        "ttft_ms": metrics.ttft_ms(timing),
        "ttft_content_ms": metrics.ttft_content_ms(timing),
        "tpot_ms": metrics.tpot_ms(timing, usage),
        "decode_ms": metrics.decode_ms(timing),
        "chunks": timing.output_events,
        "tokens_per_chunk": metrics.tokens_per_chunk(timing, usage),
    }


def _attempt_row(attempt: Attempt, redactor: Redactor) -> dict[str, Any]:
    row = {
        "key": attempt.key,
        "turn": attempt.turn,
        "attempt": attempt.attempt,
        "started_at": attempt.started_us,
        "http_status": attempt.http_status,
        "outcome": attempt.outcome,
        "error_code": attempt.error_code,
        "error_message": redactor.message(attempt.error_message) if attempt.error_message else None,
        "retry_after_ms": attempt.retry_after_ms,
        "wait_ms": attempt.wait_ms,
        "latency_ms": attempt.latency_ms,
        "ttft_ms": attempt.ttft_ms,
        "response_id": attempt.response_id,
        "cost": attempt.cost,
        # masked before it is encoded: a secret inside base64 could not be cut out without breaking the rest
        "raw": None if attempt.raw is None else base64.b64encode(redactor.bytes(attempt.raw)).decode(),
    }
    if attempt.usage is not None:
        row |= _tokens(attempt.usage)
        row["cache_write_tokens"] = attempt.usage.cache_write_tokens
    return row


def _tokens(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def _params(cell: Cell, kinds: Mapping[str, ParamKind]) -> dict[str, Any]:
    row = {}
    for name, kind in kinds.items():
        value = cell.params.get(name)
        row[f"param_{name}"] = _text(_encode_sorted, value) if kind == "json" and value is not None else value
    return row


def _score(name: str, score: Score | None) -> dict[str, Any]:
    if score is None:
        return {}
    value, why = score.value, score.why
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        number, why = None, f"the scorer gave {value!r}, which is not a number"
    if number is not None and not -ROUNDING <= number <= 1 + ROUNDING:  # NaN is not within either
        number, why = None, f"the scorer gave {number:g}, which is not from 0 to 1{f' ({why})' if why else ''}"
    return {f"score_{name}": None if number is None else repr(min(1.0, max(0.0, number))), f"score_{name}_why": why or None}


def _kind(values: Iterable[Any]) -> ParamKind:
    known = [value for value in values if value is not None]
    types = {type(value) for value in known}
    if types and types <= {int, float} and all(-(2**63) <= value < 2**63 for value in known):
        return "integer" if types == {int} else "number"
    if types == {bool}:
        return "bool"
    return "string" if types == {str} else "json"


def _swept(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _text(encode: Any, value: Any) -> str:
    return _json(encode, value).decode()


def _json(encode: Any, value: Any) -> bytes:
    try:
        return encode(value)  # type: ignore[no-any-return]
    except UnicodeEncodeError:
        return encode(_utf8(value))  # type: ignore[no-any-return]


def _utf8(value: Any) -> Any:
    """What UTF-8 cannot hold becomes U+FFFD: a paid answer is never lost to one character."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_utf8(name): _utf8(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_utf8(item) for item in value]
    return value
