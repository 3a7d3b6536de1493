import time

from hypothesis import given
from hypothesis import strategies as st

from evalrunner.clients.sse import Event, Parser

HOSTILE = {
    "plain": b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n',
    "crlf": b'data: {"a":1}\r\n\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\r\n\r\n',
    "cr": b'data: {"a":1}\r\rdata: [DONE]\r\r',
    "mixed ends": b'data: {"a":1}\r\n\ndata: x\r\r\ndata: y\n\r\n',
    "no space, bom": b'\xef\xbb\xbfdata:{"a":1}\n\ndata:  two spaces\n\n',
    "comments and pings": b": keep-alive\n\n:\n\n: a\ndata: x\n\nevent: ping\ndata: {}\n\ndata:\n\n",
    "several data lines": b"data: one\ndata: two\ndata\n\n",
    "native": 'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"text":"我"}}\n\nid:2\nevent:error\nstatus:429\ndata:{"code":"Throttling"}\n\n'.encode(),
    "separators inside json": 'data: {"t":"\u2028\u2029\u0085\x0b\x0c"}\n\n'.encode(),
    "utf-8": 'data: {"t":"日本語😀"}\n\n'.encode(),
    "unknown fields": b"retry: 10\nid: 7\nfoo: bar\nnonsense\n\ndata: x\n\n",
    "blank lines alone": b"\n\n\r\n\r\n\n",
    "cut": b"data: a\n\ndata: {half",
    "cut after its line": b"data: a\n\ndata: [DONE]\n",
}


def events(*pieces):
    parser = Parser()
    found = [event for piece in pieces for event in parser.feed(piece)]
    return [*found, *parser.close()]


def test_plain_stream():
    """Each `data:` line followed by a blank line is one event, without the optional space."""
    assert events(HOSTILE["plain"]) == [Event(b'{"a":1}'), Event(b'{"b":2}'), Event(b"[DONE]")]


def test_line_ends():
    """LF, CRLF and CR end lines, also mixed; U+2028 and its like inside JSON do not."""
    assert events(HOSTILE["crlf"]) == events(HOSTILE["plain"])
    assert events(HOSTILE["cr"]) == [Event(b'{"a":1}'), Event(b"[DONE]")]
    assert events(HOSTILE["mixed ends"]) == [Event(b'{"a":1}'), Event(b"x"), Event(b"y")]
    assert len(events(HOSTILE["separators inside json"])) == 1


def test_space_and_byte_order_mark():
    """One space after the colon is dropped, a second one is data; a byte order mark at the start is not."""
    assert events(HOSTILE["no space, bom"]) == [Event(b'{"a":1}'), Event(b" two spaces")]


def test_comments_are_told_from_data():
    """Keep-alive comments are events without data, so that they cannot hold off the idle deadline; a comment inside an event belongs to it."""
    assert events(HOSTILE["comments and pings"]) == [
        Event(None, comment=b"keep-alive"),
        Event(None, comment=b""),
        Event(b"x", comment=b"a"),
        Event(b"{}", name=b"ping"),
        Event(b""),
    ]


def test_several_data_lines_are_one_event():
    """Data lines of one event are joined by a line feed, as the standard says."""
    assert events(HOSTILE["several data lines"]) == [Event(b"one\ntwo\n")]


def test_native_dashscope():
    """DashScope's own stream gives name, status (as a comment or a line) and data, without spaces after the colons."""
    first, second = events(HOSTILE["native"])
    assert (first.name, first.status, first.data) == (b"result", 200, '{"output":{"text":"我"}}'.encode())
    assert (second.name, second.status, second.data) == (b"error", 429, b'{"code":"Throttling"}')


def test_end_inside_an_event():
    """What the end of the stream leaves without its blank line is given out once, marked as cut."""
    assert events(HOSTILE["cut"]) == [Event(b"a"), Event(b"{half", cut=True)]
    assert events(HOSTILE["cut after its line"]) == [Event(b"a"), Event(b"[DONE]", cut=True)]


def test_every_split_in_two():
    """Wherever a stream is cut into two reads, its events are the same."""
    for name, stream in HOSTILE.items():
        whole = events(stream)
        for at in range(len(stream) + 1):
            assert events(stream[:at], stream[at:]) == whole, (name, at)


@given(st.sampled_from(sorted(HOSTILE)), st.data())
def test_any_cutting(name, draw):
    """However a stream is cut into reads, byte by byte or with empty reads between, its events are the same."""
    stream = HOSTILE[name]
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    assert events(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))) == events(stream)
    assert events(*(stream[i : i + 1] for i in range(len(stream)))) == events(stream)


LINES = st.sampled_from([b"data: x", b"data:", b": c", b"event: e", b"", b"data: \xe2\x80\xa8", b"id: 1", b"status: 200", b"\xef\xbb\xbf"])


@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30), st.data())
def test_any_lines_any_cutting(lines, draw):
    """The same holds for any sequence of lines with any ends."""
    stream = b"".join(line + end for line, end in lines)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    assert events(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))) == events(stream)


@given(st.binary(max_size=300))
def test_any_bytes(stream):
    """No sequence of bytes makes the parser fail, and none is cut into different events by reading it byte by byte."""
    assert events(*(stream[i : i + 1] for i in range(len(stream)))) == events(stream)


def test_long_line_in_small_reads_is_linear():
    """A line of many megabytes that comes in small reads is one event, and takes time in proportion to its length."""
    line = b"x" * (16 << 20)
    parser = Parser()
    began = time.process_time()
    assert parser.feed(b"data: ") == []
    for at in range(0, len(line), 4096):
        assert parser.feed(line[at : at + 4096]) == []
    assert parser.feed(b"\n\n") == [Event(line)]
    assert time.process_time() - began < 1  # quadratic: half a minute
