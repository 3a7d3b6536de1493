"""What a model wrote cannot break, forge or flood the files and lines that others read."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_compare import rows, side

from evalrunner.analysis.compare import compare
from evalrunner.analysis.flips import Answer, FlippedSample, question_of
from evalrunner.analysis.gates import GateResult
from evalrunner.cli.verdict_files import junit, markdown, workflow_commands
from evalrunner.cli.verdict_words import decision_lines, safe
from evalrunner.decisions import Decision

HOSTILE = [
    "]]>",
    "\x00\x08\x1b[2J\ufffe",
    "</testcase><script>",
    "````\n```\n@everyone | [x](javascript:1) <img src=x>",
    "::error::forged\n##[error]forged",
    "\u202eabc",
]


def decision(text, state="fail"):
    """One failed gate with one lost sample, `text` wherever a model, a data set or a name can put it."""
    answer = Answer(output=text, score=0.0, why=text)
    flip = FlippedSample(pair=0, metric="score_exact", kind="lost", sample_id=text, question=text, target=text, baseline=answer, candidate=answer)
    gate = GateResult(
        metric="score_exact",
        cell=text,
        limit="max_drop",
        threshold=0.0,
        state=state,
        value=1.0,
        low=0.5,
        high=1.0,
        n=1,
        text=f"{text}: drop",
        samples_needed=9,
        pair=0,
    )
    comparison = compare(side(f"old {text}", rows([1.0], prompt=text)), side("new", rows([0.0], prompt=text)))
    return Decision(state=state, gates=(gate,), comparison=comparison, flips=(flip,))


@pytest.mark.parametrize("text", HOSTILE)
def test_junit_is_valid_xml_whatever_was_written(text):
    """Any parser reads it, and finds one failed test case with its evidence."""
    suite = ET.fromstring(junit(decision(text))).find("testsuite")  # noqa: S314 - our own text
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["1", "1", "0", "0"]
    assert len(suite.findall("testcase")) == 1


@given(st.text())
def test_junit_is_valid_xml_for_any_text(text):
    """Control characters, lone surrogates, `]]>`: nothing makes it unreadable."""
    flip = FlippedSample(
        pair=0, metric="m", kind="lost", sample_id=text, question=text, target=None, baseline=Answer(output=text, score=1.0, why=None),
        candidate=Answer(output=None, score=0.0, why=text),
    )  # fmt: skip
    gate = GateResult(metric="m", cell=text, limit="min", threshold=0.0, state="fail", value=1.0, low=0.5, high=1.0, n=1, text=text, pair=0)
    comparison = compare(side("old", rows([1.0])), side("new", rows([0.0])))
    ET.fromstring(junit(Decision(state="fail", gates=(gate,), comparison=comparison, flips=(flip,))))  # noqa: S314 - our own text


@pytest.mark.parametrize(
    ("state", "strict", "counts"),
    [("pass", False, "000"), ("inconclusive", False, "001"), ("inconclusive", True, "100"), ("no data", False, "010")],
    ids=["pass", "inconclusive", "inconclusive fails", "no data"],
)
def test_junit_counts_each_state(state, strict, counts):
    """Failed, nothing measured and inconclusive are failure, error and skipped; inconclusive is a failure where it is to fail."""
    suite = ET.fromstring(junit(decision("a", state), inconclusive_fails=strict)).find("testsuite")  # noqa: S314 - our own text
    assert "".join(suite.get(name) for name in ("failures", "errors", "skipped")) == counts


def test_five_megabytes_of_output_are_cut_with_a_note():
    """A runaway answer makes no runaway file."""
    found = junit(decision("x" * 5_000_000))
    assert len(found) < 2_000_000
    assert b"(cut: 5,000,000 characters)" in found
    assert len(markdown(decision("x" * 5_000_000))) < 100_000


def flip(at, pair=0, text="x"):
    answer = Answer(output=text, score=0.0, why=text)
    return FlippedSample(pair=pair, metric="score_exact", kind="lost", sample_id=f"s{at}", question=text, target=text, baseline=answer, candidate=answer)


def test_a_comment_has_room_in_a_pull_request():
    """Forty long answers that were lost, and hundreds of gates: GitHub takes the comment, no tag stays open, and what was cut is said."""
    one = decision("fine")
    long = replace(one, flips=tuple(flip(at, text=f"{at} " * 400) for at in range(40)))
    many = replace(one, gates=tuple(replace(one.gates[0], text="a long line of evidence " * 20) for _ in range(500)))
    for found in (markdown(long), markdown(many)):
        assert len(found) <= 60_000
        assert found.count("<details") == found.count("</details>")
        assert "more parts would make this longer than a comment may be" in found
        assert found.endswith("Intervals are 95 %.\n")
    assert "Cut here" not in markdown(one)


def test_evidence_is_that_of_the_gate_s_own_cell():
    """Two cells lost samples, one gate failed: JUnit lists the samples of its cell and no other."""
    one = decision("a")
    one = replace(one, comparison=replace(one.comparison, pairs=one.comparison.pairs * 2), flips=(flip(1), flip(2, pair=1)))
    failure = ET.fromstring(junit(one)).find("testsuite/testcase/failure").text  # noqa: S314 - our own text
    assert "lost sample s1" in failure
    assert "lost sample s2" not in failure


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_takes_everything_literally(text):
    """No link, mention, HTML or table cell of an answer takes effect, and no fence of its own ends ours."""
    written = markdown(decision(text))
    outside, inside, fence = [], [], ""
    for line in written.splitlines():
        if fence:
            fence = "" if line == fence else fence
            inside.append(line)
        elif line.startswith("```"):
            fence = line.removesuffix("text")
        else:
            outside.append(line)
    assert not fence
    assert not any(mark in line for line in outside for mark in ("@everyone", "](", "<img", "<script"))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_line_is_a_command_to_a_terminal_or_a_ci_log(text):
    """Lines begin with our own words and hold no control character; annotations stay one line with what they say escaped."""
    for line in decision_lines(decision(text)):
        assert not line.strip().startswith("::")
        assert "##[" not in line
        assert all(char.isprintable() or char == " " for char in line)
    (command,) = workflow_commands(decision(text).gates)
    assert command.startswith("::error title=evalrunner gate fail::")
    assert "\n" not in command
    assert safe("a\nb\x1b[0m") == "a b�[0m"


@pytest.mark.parametrize(
    ("messages", "question"),
    [
        ('[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]', "q"),
        ('[{"role": "user", "content": [{"text": "a"}, {"image": "x.png"}, {"text": "b"}]}]', "a\nb"),
        ('[{"role": "system", "content": "s"}]', ""),
        (None, ""),
    ],
)
def test_the_question_is_what_the_user_asked_last(messages, question):
    """Flips show the question, not the system prompt, also where it has parts."""
    assert question_of(messages) == question
