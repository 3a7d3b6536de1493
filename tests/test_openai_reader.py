import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.clients.answer import Answer
from evalrunner.clients.openai_reader import ChatReader
from evalrunner.errors import AccountError, BadOutputError, FilteredError, RateLimitedError, ServerError
from evalrunner.records import Usage


def event(value):
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def delta(finish_reason=None, **fields):
    return {
        "choices": [{"delta": fields, "index": 0, "logprobs": None, "finish_reason": finish_reason}],
        "usage": None,
        "model": "qwen-plus",
        "id": "chatcmpl-1",
    }


def tool_delta(index, call_id=None, name=None, arguments=None):
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"index": index, "id": call_id, "type": "function", "function": function}


USAGE = {
    "prompt_tokens": 22,
    "completion_tokens": 9,
    "total_tokens": 31,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
DONE = b"data: [DONE]\n\n"

RECORDED = {  # streams as providers send them; what each must give: output, reasoning, tool calls, finish reason, output events
    "qwen-plus": (
        [
            delta(content="", role="assistant"),
            delta(content="我是"),
            delta(content="通义\n\n"),
            delta("stop", content=""),
            {"choices": [], "usage": USAGE},
            DONE,
        ],
        ("我是通义\n\n", None, (), "stop", 2),
    ),
    "seed document": (
        [
            b'data: {"id":"chatcmpl-xxx","choices":[{"delta":{"content":"Hello"}}]}\n\n',
            b'data: {"id":"chatcmpl-xxx","choices":[{"delta":{"content":"!"}}]}\n\n',
            b'data: {"id":"chatcmpl-xxx","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
            DONE,
        ],
        ("Hello!", None, (), "stop", 2),
    ),
    "thinking": (
        [
            delta(content=None, role="assistant", reasoning_content=""),
            delta(content=None, reasoning_content="Let me"),
            delta(content=None, reasoning_content=" see"),
            delta(content=None, reasoning_content=None),
            delta(content="4", reasoning_content=None),
            delta("stop", content=""),
            DONE,
        ],
        ("4", "Let me see", (), "stop", 3),
    ),
    "reasoning under its other name": ([delta(reasoning="hm"), delta("stop", content="4"), DONE], ("4", "hm", (), "stop", 2)),
    "parallel tools": (
        [
            delta(content=None, tool_calls=[tool_delta(0, "call_a", "add", "")]),
            delta(tool_calls=[tool_delta(0, "", None, '{"a": 1')]),
            delta(tool_calls=[tool_delta(1, "call_b", "now", "")]),
            delta(tool_calls=[tool_delta(0, "", "", "}")]),
            delta("tool_calls", content=""),
            DONE,
        ],
        ("", None, ({"id": "call_a", "name": "add", "arguments": '{"a": 1}'}, {"id": "call_b", "name": "now", "arguments": ""}), "tool_calls", 4),
    ),
    "usage twice, pings, comments": (
        [
            b": keep-alive\n\n",
            delta(content="4"),
            b"event: ping\ndata: {}\n\n",
            {"choices": [], "usage": {"prompt_tokens": 1}},
            delta("length"),
            {"choices": [], "usage": USAGE},
            b":\n\n",
            DONE,
        ],
        ("4", None, (), "length", 1),
    ),
    "no [DONE]": ([delta(content="4"), delta("stop"), {"choices": [], "usage": USAGE}], ("4", None, (), "stop", 1)),
    "separators and emoji": (
        [delta(content="a\u2028b\u2029\u0085 😀\u0000\u202e"), delta("stop"), DONE],
        ("a\u2028b\u2029\u0085 😀\u0000\u202e", None, (), "stop", 1),
    ),
    "emoji cut into two events": (
        [b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n', b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n', delta("stop"), DONE],
        ("😀", None, (), "stop", 2),
    ),
    "a long line": ([delta(content="x" * 200_000), delta("stop"), DONE], ("x" * 200_000, None, (), "stop", 1)),
    "audio": ([delta(audio={"data": "UklGRg=="}), delta(audio={"transcript": "four"}), delta("stop"), DONE], ("four", None, (), "stop", 2)),
    "tools without an index, arguments as an object": (
        [
            delta(tool_calls=[{"id": "a", "function": {"name": "add", "arguments": {"x": 1}}}]),
            delta(tool_calls=[{"id": "b", "function": {"name": "now"}}, {"function": {"arguments": "{}"}}, {"id": ""}]),
            delta("tool_calls"),
            DONE,
        ],
        ("", None, ({"id": "a", "name": "add", "arguments": '{"x": 1}'}, {"id": "b", "name": "now", "arguments": "{}"}), "tool_calls", 2),
    ),
    "a refusal": ([delta(content=None, refusal="I will not"), delta("stop"), DONE], ("I will not", None, (), "stop", 1)),
}


def stream_of(name, line_end=b"\n"):
    raw = b"".join(part if isinstance(part, bytes) else event(part) for part in RECORDED[name][0])
    return raw.replace(b"\n", line_end)


def read(*pieces):
    """The completion of a stream that came in these reads, at 1, 2, 3 … nanoseconds."""
    reader = ChatReader(Answer(0, stream=True), dashscope=True)
    for stamp, piece in enumerate(pieces, 1):
        reader.feed(stamp, piece)
    reader.close()
    return reader.answer.completion(99)


def told(found):
    return found.output, found.reasoning, found.tool_calls, found.finish_reason, found.timing.output_events


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_streams(name, line_end):
    """Streams as the providers send them give their text, thoughts, tool calls and finish reason, with any line ends."""
    assert told(read(stream_of(name, line_end))) == RECORDED[name][1]


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - {"a long line"}))
def test_every_split_in_two(name):
    """Wherever the bytes of a stream are cut into two reads, the answer is the same."""
    for line_end in (b"\n", b"\r\n"):
        stream = stream_of(name, line_end)
        for at in range(len(stream) + 1):
            assert told(read(stream[:at], stream[at:])) == RECORDED[name][1], at


@given(st.sampled_from(sorted(RECORDED)), st.integers(0, 2**32), st.sampled_from([b"\n", b"\r\n"]))
def test_any_cutting(name, seed, line_end):
    """The same for cuts into many reads."""
    stream, rng = stream_of(name, line_end), random.Random(seed)
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(1, 40)))
    assert told(read(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)))) == RECORDED[name][1]


def test_usage_is_what_was_said_last():
    """Usage that comes twice counts once; its details are kept, what is not said stays unknown."""
    found = read(stream_of("usage twice, pings, comments"))
    assert found.usage == Usage(prompt_tokens=22, completion_tokens=9, total_tokens=31, cached_tokens=4, reasoning_tokens=5)
    assert read(stream_of("thinking")).usage is None


def test_stamps_are_of_the_reads_that_completed_events():
    """First and last output, and first content, carry the stamp of the read that completed their event; role-only and empty chunks are none."""
    role, thought, nothing, first = (
        event(delta(content="", role="assistant")),
        event(delta(reasoning_content="hm")),
        event(delta(content="")),
        event(delta(content=" ")),
    )
    timing = read(role, thought[:20], thought[20:], nothing, first + event(delta(content="4")), event(delta("stop", content="")), DONE).timing
    assert (timing.first_output_ns, timing.first_content_ns, timing.last_output_ns, timing.ended_ns) == (3, 5, 5, 7)
    assert (timing.output_events, timing.output_reads) == (3, 2)


def test_tokens_of_the_first_event_where_the_provider_counts_them():
    """Usage in every chunk tells how many tokens the first one brought; without it that stays unknown."""
    counted = delta(content="Hello there") | {"usage": {"completion_tokens": 2}}
    assert read(event(counted), event(delta("stop")), DONE).timing.first_output_tokens == 2
    assert read(stream_of("qwen-plus")).timing.first_output_tokens is None


@pytest.mark.parametrize(
    ("raw", "output", "replaced"),
    [
        (b'{"choices":[{"delta":{"content":"a\\ud800b"}}]}', "a\ufffdb", True),
        (b'{"choices":[{"delta":{"content":"a\xffb"}}]}', "a\ufffdb", True),
        (b'{"choices":[{"delta":{"content":"ab"},"logprobs":NaN}]}', "ab", False),
        ('{"choices":[{"delta":{"content":"a\ufffdb"}}]}'.encode(), "a\ufffdb", False),
        (b'{"choices":[{"delta":{"content":[{"type":"text","text":"a"},{"text":"b"}]}}]}', "ab", False),
        (b'{"id":7,"model":["x"],"choices":[{"delta":{"content":"ab"}}]}', "ab", False),
    ],
)
def test_odd_characters_never_cost_an_answer(raw, output, replaced):
    """What UTF-8 cannot hold becomes U+FFFD, is flagged, and the bytes are kept; NaN and odd types do no harm."""
    found = read(b"data: " + raw + b"\n\n", event(delta("stop")), DONE)
    assert (found.output, found.replaced, found.raw) == (output, replaced, raw if replaced else None)
    assert msgspec.json.decode(msgspec.json.encode(found.output)) == output


def test_odd_characters_in_a_tool_call():
    """Arguments of a tool call are mended like text, and its other fields stay as they are."""
    call = b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\\ud800}"}}]}}]}'
    found = read(b"data: " + call + b"\n\n", event(delta("tool_calls")), DONE)
    assert (found.tool_calls, found.replaced) == (({"id": "a", "name": "f", "arguments": "{\ufffd}"},), True)


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_any_text_round_trips(text):
    """Any text a server can write, lone surrogates too, gives text that UTF-8 can hold."""
    found = read(b"data: " + json.dumps(delta(content="x" + text)).encode() + b"\n\n", event(delta("stop")), DONE)
    assert found.output.encode()[:1] == b"x"
    if all(not 0xD800 <= ord(letter) < 0xE000 for letter in text):
        assert (found.output, found.replaced) == ("x" + text, False)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"error": {"message": "Output data may contain inappropriate content.", "code": "data_inspection_failed"}}, FilteredError),
        ({"error": {"code": 504, "message": "upstream"}}, ServerError),
        ({"error": {"code": "429", "message": "slow"}}, RateLimitedError),
        ({"error": "gone"}, ServerError),
        ({"code": "Throttling.RateQuota", "message": "…", "request_id": "7"}, RateLimitedError),
        ({"error": {"code": "Arrearage", "message": "…"}}, AccountError),
    ],
)
def test_errors_inside_a_stream(said, kind):
    """An error in the middle of a stream that began well is read by its own code, whether text or number."""
    with pytest.raises(kind):
        read(event(delta(content="4")), event(said))


def test_error_event_without_a_code():
    """`event: error` is one even when its data has no code."""
    with pytest.raises(ServerError, match="broke"):
        read(b'event: error\ndata: {"message": "it broke"}\n\n')
    assert read(event(delta(content="4") | {"error": None}), event(delta("stop"))).output == "4"


@pytest.mark.parametrize(
    "data",
    [
        b"data: {half\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": 3}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"choices":[{"delta":{"content":"x"}}]} {}\n\n',
    ],
)
def test_unreadable_event(data):
    """An event nobody can read is a bad output, and its bytes are kept."""
    with pytest.raises(BadOutputError) as caught:
        read(event(delta(content="4")), data)
    assert caught.value.raw == data[6:].strip()


@pytest.mark.parametrize(
    "parts", [[DONE], [event(delta(content="")), event(delta("stop")), DONE], [event({"choices": []}), event({"choices": [], "usage": USAGE}), DONE]]
)
def test_nothing_at_all(parts):
    """An answer with neither text nor thoughts nor tool calls is a bad output."""
    with pytest.raises(BadOutputError):
        read(*parts)


def test_content_filter():
    """Finish reason content_filter is a refusal, not an answer."""
    with pytest.raises(FilteredError):
        read(event(delta(content="Well, ")), event(delta("content_filter")), DONE)
