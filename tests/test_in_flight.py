"""What was under way when a process died is known to the next one."""

from __future__ import annotations

from contextlib import suppress

import pytest

from evalrunner.errors import TransportError
from evalrunner.records import Cell, Completion, Model, Request, Sample, Timing
from evalrunner.store.files import Files
from evalrunner.store.in_flight import InFlight, Noted
from evalrunner.store.known import digest


def test_what_was_begun_and_not_ended_is_read_by_the_next_session(tmp_path):
    """Without a word from the first one: a kill leaves the note as it is. Slots are used again, so that it stays as small as what runs at once."""
    first = InFlight(tmp_path / "note")
    first.open(Files())
    for key in "abc":
        first.begin(key)
    first.end("b")
    first.begin("d")
    first.begin("d")
    assert sorted(InFlight(tmp_path / "note").read()) == sorted(map(digest, "acd"))
    assert (tmp_path / "note").stat().st_size == 3 * 15
    first.close()


@pytest.mark.parametrize("content", [None, b"", b"torn", bytes(30)])
def test_no_note_or_half_a_note_is_nobody(tmp_path, content):
    """It is a courtesy: whatever became of it, the resume goes on."""
    if content is not None:
        (tmp_path / "note").write_bytes(content)
    assert InFlight(tmp_path / "note").read() == []


def test_a_note_that_cannot_be_kept_costs_the_number_alone(tmp_path):
    """Nothing is noted before the file is there, or after it is closed."""
    note = InFlight(tmp_path / "note")
    note.begin("a")
    note.end("a")
    note.open(Files())
    note.close()
    note.begin("b")
    assert note.read() == []


@pytest.mark.parametrize(("outcome", "noted"), [(TransportError("cut"), 0), (KeyboardInterrupt(), 1), ("answered", 1)])
async def test_a_failure_bought_nothing_and_an_answer_may_be_lost_until_it_is_recorded(tmp_path, outcome, noted):
    """The note stays until the row is written down, and where nobody knows what became of the request."""

    class Client:
        async def complete(self, request):
            if isinstance(outcome, BaseException):
                raise outcome
            return Completion(output="x", finish_reason="stop", timing=Timing(started_ns=0, ended_ns=1))

        async def aclose(self):
            pass

    cell = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="p"), params={}, stream=False)
    request = Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[])
    note = InFlight(tmp_path / "note")
    note.open(Files())
    with suppress(TransportError, KeyboardInterrupt):
        await Noted(Client(), note).complete(request)
    assert len(note.read()) == noted
    note.close()
