import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.clients.answer import Answer
from evalrunner.clients.dashscope_reader import NativeReader
from evalrunner.errors import AccountError, BadOutputError, FilteredError, RateLimitedError, RejectedError, ServerError, UnknownModelError
from evalrunner.records import Usage


def event(value, number=1, name="result", status=200):
    return f"id:{number}\nevent:{name}\n:HTTP_STATUS/{status}\ndata:{json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def message(finish="null", tokens=1, **fields):
    return {
        "output": {"choices": [{"message": {"role": "assistant", **fields}, "finish_reason": finish}]},
        "usage": {"input_tokens": 22, "output_tokens": tokens, "total_tokens": 22 + tokens},
        "request_id": "902fee3b",
    }


def text(said, finish="null"):
    return {"output": {"finish_reason": finish, "text": said}, "usage": {"input_tokens": 3, "output_tokens": 1}, "request_id": "902fee3b"}


def call(index, call_id, name, arguments):
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


A, NOW = {"id": "call_a", "name": "add", "arguments": '{"a": 1}'}, {"id": "call_b", "name": "now", "arguments": ""}
RECORDED = {  # cumulative or not, events as the service sends them, what they give: output, reasoning, tool calls, finish reason, output events
    "incremental": (False, [message(content="我是"), message(content="通义\n\n"), message("stop", 3, content="")], ("我是通义\n\n", None, (), "stop", 2)),
    "cumulative": (True, [message(content="我是"), message(content="我是通义"), message("stop", 3, content="我是通义")], ("我是通义", None, (), "stop", 2)),
    "text": (False, [text("Hel"), text("lo"), text("", "stop")], ("Hello", None, (), "stop", 2)),
    "cumulative text": (True, [text("Hel"), text("Hello"), text("Hello", "stop")], ("Hello", None, (), "stop", 2)),
    "pieces that repeat": (False, [message(content="ha"), message(content="ha"), message("stop", content="haha")], ("hahahaha", None, (), "stop", 3)),
    "multimodal": (
        False,
        [message(content=[]), message(content=[{"text": "a\u2028b"}]), message(content=[{"text": " 😀"}]), message("length", content=[])],
        ("a\u2028b 😀", None, (), "length", 2),
    ),
    "thinking": (
        False,
        [
            message(content="", reasoning_content="Let me"),
            message(content="", reasoning_content=" see"),
            message(content="4", reasoning_content=""),
            message("stop", content="", reasoning_content=""),
        ],
        ("4", "Let me see", (), "stop", 3),
    ),
    "cumulative thinking": (
        True,
        [
            message(content="", reasoning_content="Let me"),
            message(content="", reasoning_content="Let me see"),
            message(content="4", reasoning_content="Let me see"),
            message("stop", content="4", reasoning_content="Let me see"),
        ],
        ("4", "Let me see", (), "stop", 3),
    ),
    "tools": (
        False,
        [
            message(content="", tool_calls=[call(0, "call_a", "add", "")]),
            message(content="", tool_calls=[call(0, "", "", '{"a"')]),
            message(content="", tool_calls=[call(1, "call_b", "now", "")]),
            message(content="", tool_calls=[call(0, "", None, ": 1}")]),
            message("tool_calls", content=""),
        ],
        ("", None, (A, NOW), "tool_calls", 4),
    ),
    "cumulative tools": (
        True,
        [
            message(content="", tool_calls=[call(0, "call_a", "add", "")]),
            message(content="", tool_calls=[call(0, "call_a", "add", '{"a"')]),
            message(content="", tool_calls=[call(0, "call_a", "add", '{"a": 1}'), call(1, "call_b", "now", "")]),
            message("tool_calls", content="", tool_calls=[call(0, "call_a", "add", '{"a": 1}'), call(1, "call_b", "now", "")]),
        ],
        ("", None, (A, NOW), "tool_calls", 3),
    ),
    "heartbeats and an end": (
        False,
        [b":\n\n", b": ping\n\n", message(content="4"), b"event:ping\ndata:{}\n\n", message("stop", content=""), b"event:done\ndata:{}\n\n"],
        ("4", None, (), "stop", 1),
    ),
    "a long line": (False, [message(content="x" * 200_000), message("stop", content="")], ("x" * 200_000, None, (), "stop", 1)),
}


def stream_of(name, line_end=b"\n"):
    raw = b"".join(part if isinstance(part, bytes) else event(part, number) for number, part in enumerate(RECORDED[name][1], 1))
    return raw.replace(b"\n", line_end)


def read(*pieces, cumulative=False):
    reader = NativeReader(Answer(0, stream=True), cumulative=cumulative)
    for stamp, piece in enumerate(pieces, 1):
        reader.feed(stamp, piece)
    reader.close()
    return reader.answer.completion(99)


def told(found):
    return found.output, found.reasoning, found.tool_calls, found.finish_reason, found.timing.output_events


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_streams(name, line_end):
    """Incremental or cumulative, text or message: a stream gives its text, thoughts, tool calls and finish reason, and "null" is no reason."""
    assert told(read(stream_of(name, line_end), cumulative=RECORDED[name][0])) == RECORDED[name][2]


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - {"a long line"}))
def test_every_split_in_two(name):
    """Wherever the bytes of a stream are cut into two reads, the answer is the same."""
    for line_end in (b"\n", b"\r\n"):
        stream = stream_of(name, line_end)
        for at in range(len(stream) + 1):
            assert told(read(stream[:at], stream[at:], cumulative=RECORDED[name][0])) == RECORDED[name][2], at


@given(st.sampled_from(sorted(RECORDED)), st.integers(0, 2**32), st.sampled_from([b"\n", b"\r\n"]))
def test_any_cutting(name, seed, line_end):
    """The same for cuts into many reads."""
    stream, rng = stream_of(name, line_end), random.Random(seed)
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(1, 40)))
    pieces = (stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))
    assert told(read(*pieces, cumulative=RECORDED[name][0])) == RECORDED[name][2]


def test_usage():
    """Usage grows with the events and the last one counts; its names are translated, its total is added up where it is left out, its first value is kept."""
    found = read(event(message(content="4", tokens=2)), event(message("stop", 9, content="")))
    assert found.usage == Usage(prompt_tokens=22, completion_tokens=9, total_tokens=31)
    assert (found.timing.first_output_tokens, found.response_id, found.response_model) == (2, "902fee3b", None)
    details = {
        "input_tokens": 30,
        "output_tokens": 12,
        "image_tokens": 20,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 20},
        "output_tokens_details": {"reasoning_tokens": 7, "text_tokens": 12},
        "prompt_tokens_details": {"cached_tokens": 8, "cache_creation_input_tokens": 4, "cache_type": "ephemeral"},
    }
    found = read(event(message("stop", content="4") | {"usage": details}))
    assert found.usage == Usage(prompt_tokens=30, completion_tokens=12, total_tokens=42, reasoning_tokens=7, cached_tokens=8, cache_write_tokens=4)
    assert read(event(message("stop", content="4") | {"usage": {"input_tokens": 1}})).usage == Usage(prompt_tokens=1)
    assert read(event(message("stop", content="4") | {"usage": None})).usage is None


@pytest.mark.parametrize(
    ("said", "status", "kind"),
    [
        ({"code": "DataInspectionFailed", "message": "Output data may contain inappropriate content."}, 400, FilteredError),
        ({"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded"}, 429, RateLimitedError),
        ({"code": "Arrearage", "message": "Access denied"}, 400, AccountError),
        ({"code": "InvalidParameter", "message": "Range of max_tokens should be [1, 8192]"}, 400, RejectedError),
        ({"code": "InvalidParameter", "message": "Model not exist."}, 400, UnknownModelError),
        ({"code": "InternalError.Algo", "message": "An internal error has occured"}, 500, ServerError),
        ({"message": "no code at all"}, 503, ServerError),
    ],
)
def test_errors_inside_a_stream(said, status, kind):
    """An error event ends the answer, read by its code, and by the status it claims for itself where the code tells nothing."""
    with pytest.raises(kind) as caught:
        read(event(message(content="4")), event({**said, "request_id": "902fee3b"}, 2, "error", status))
    assert caught.value.http_status == status


def test_a_code_is_an_error_whatever_the_status():
    """HTTP 200 with a code is an error, in a whole body and in an event; an empty code is none."""
    said = {"code": "Throttling.RateQuota", "message": "…", "request_id": "902fee3b"}
    with pytest.raises(RateLimitedError):
        read(event(said))
    reader = NativeReader(Answer(0, stream=False))
    with pytest.raises(RateLimitedError):
        reader.whole(1, json.dumps(said).encode())
    reader.whole(2, json.dumps({**message("stop", content="4"), "code": "", "message": ""}).encode())
    assert told(reader.answer.completion(9)) == ("4", None, (), "stop", None)


@pytest.mark.parametrize("data", [b"data:{half\n\n", b"data:[1]\n\n", b'data:{"output":3}\n\n'])
def test_unreadable_event(data):
    """An event nobody can read is a bad output, and its bytes are kept; once the finish reason is there it does no harm."""
    with pytest.raises(BadOutputError) as caught:
        read(event(message(content="4")), data)
    assert caught.value.raw == data[5:].strip()
    assert read(event(message("stop", content="4")), data).output == "4"


def test_nothing_at_all():
    """An answer with neither text nor thoughts nor tool calls is a bad output."""
    with pytest.raises(BadOutputError):
        read(event({"output": {"choices": []}}), event(message("stop", content=[])))
