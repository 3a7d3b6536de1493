"""Prompt sets: samples × prompts, rendered; and the one pass that finds every mistake in them before anything is sent."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from msgspec import Struct

from evalrunner.engine.tools import ToolAnswers
from evalrunner.errors import DatasetError
from evalrunner.plan.config_types import PromptSetBlock
from evalrunner.plan.datasets import Dataset, id_hash
from evalrunner.plan.loaders import MAX_PROBLEMS
from evalrunner.plan.media import MediaFolder
from evalrunner.plan.prompts import Conversation, Prompt, Text
from evalrunner.plan.refusals import Takers
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.tools import Tools
from evalrunner.plugins import AskingScorer, ReadsRows, ReadsTarget, Scorer
from evalrunner.records import Message, Sample

NO_MEDIA: Mapping[str, str] = {}


class PromptSet(Struct, frozen=True, kw_only=True):
    """A data set, the prompts applied to it, its target and its scorers; `written` is its block of the config."""

    name: str
    data: Dataset
    written: PromptSetBlock
    prompts: tuple[Prompt | Conversation, ...]
    target: Text | None
    scorers: Mapping[str, Scorer | AskingScorer]
    media: MediaFolder
    tools: Tools | None = None
    tool_answers: ToolAnswers | None = None
    takers: Takers


class Rendered(NamedTuple):
    """One sample as one prompt asks it; `media` as in `Request`."""

    messages: list[Message]
    media: Mapping[str, str]
    target: str | None


def render(prompt_set: PromptSet, prompt: Prompt | Conversation, sample: Sample) -> Rendered:
    """Messages and target of one sample. Raises `DatasetError` naming the row and the prompt."""
    try:
        messages, media = _messages(prompt_set, prompt, sample)
    except ValueError as error:
        raise DatasetError(f"{sample.origin}: {_of_prompt(prompt_set, prompt)}: {error}") from None
    return Rendered(messages, media, target_of(prompt_set, sample))


def target_of(prompt_set: PromptSet, sample: Sample) -> str | None:
    """The target of one sample. Raises `DatasetError` naming the row."""
    try:
        return _target(prompt_set, sample)
    except ValueError as error:
        raise DatasetError(f"{sample.origin}: {_of_target(prompt_set)}: {error}") from None


def tools_of(prompt_set: PromptSet, sample: Sample) -> list[dict[str, Any]] | None:
    """The functions of one sample. Raises `DatasetError` naming the row."""
    if prompt_set.tools is None:
        return None
    try:
        return prompt_set.tools.of(sample.data)
    except ValueError as error:
        raise DatasetError(f"{sample.origin}: tools of {prompt_set.name!r}: {error}") from None


def validate(prompt_sets: Sequence[PromptSet]) -> None:
    """Render everything once. Raises `DatasetError`: twenty mistakes at most, the same one in many rows as one line."""
    found = _Findings()
    for prompt_set in prompt_sets:
        seen = array("Q")
        columns = ScorerColumns(prompt_set)
        try:
            for sample in prompt_set.data.samples(found.add):
                seen.append(id_hash(sample.id))
                columns.look(sample, _validate_sample(prompt_set, sample, found), found)
            found.lines += columns.missing()
            found.lines += prompt_set.data.duplicates(seen)
        except DatasetError as error:  # the file itself; what was found in its rows before still counts
            found.lines += error.problems
    found.finish()


def check_columns(prompt_set: PromptSet, samples: Iterable[Sample]) -> None:
    """That the columns which scorers read are there. Raises `DatasetError`. What one row lacks is no mistake where its answer is already paid for."""
    columns = ScorerColumns(prompt_set)
    for sample in samples:
        columns.note(sample)
    if lines := columns.missing():
        raise DatasetError(*lines)


class ScorerColumns:
    """What the scorers of a prompt set read from the rows themselves, and whether they can."""

    def __init__(self, prompt_set: PromptSet) -> None:
        self._name = prompt_set.name
        self._data = prompt_set.data
        self._scorers = {name: scorer for name, scorer in prompt_set.scorers.items() if isinstance(scorer, ReadsRows)}
        scorers: Mapping[str, object] = prompt_set.scorers
        self._targeted = {name: scorer for name, scorer in scorers.items() if isinstance(scorer, ReadsTarget)}
        self._wanted = {column: name for name, scorer in self._scorers.items() for column in scorer.columns}
        self._known: list[str] = []

    def look(self, sample: Sample, target: str | None, found: _Findings) -> None:
        """Holds one row against the scorers."""
        self.note(sample)
        checks: list[tuple[str, Callable[[], None]]] = [(name, partial(scorer.check, sample.data)) for name, scorer in self._scorers.items()]
        if target is not None:
            checks += [(name, partial(scorer.check_target, target)) for name, scorer in self._targeted.items()]
        for name, check in checks:
            try:
                check()
            except ValueError as error:
                found.add(sample.origin, f"scorer {name!r} of {self._name!r}: {error}")

    def note(self, sample: Sample) -> None:
        """Which columns there are."""
        self._known = self._known or list(sample.data)
        for column in [column for column in self._wanted if column in sample.data]:
            del self._wanted[column]

    def missing(self) -> list[str]:
        """A line for each column that no row has, whether chosen or not: with `limit` the first rows may lack what later ones have."""
        return [
            f"scorer {name!r} of {self._name!r}: no row has a field called {column!r}{nearest(column, self._known)}"
            for column, name in self._wanted.items()
            if not self._data.has_field(column)
        ]


def _validate_sample(prompt_set: PromptSet, sample: Sample, found: _Findings) -> str | None:
    """The target, if it has one that can be rendered."""
    target = None
    for prompt in prompt_set.prompts:
        try:
            messages, _ = _messages(prompt_set, prompt, sample)
        except ValueError as error:
            found.add(sample.origin, f"{_of_prompt(prompt_set, prompt)}: {error}")
        else:
            for why in prompt_set.takers.unsuited(messages, prompt_set.media):
                found.add(sample.origin, f"{_of_prompt(prompt_set, prompt)}: {why}")
    try:
        target = _target(prompt_set, sample)
    except ValueError as error:
        found.add(sample.origin, f"{_of_target(prompt_set)}: {error}")
    try:
        if prompt_set.tools is not None:
            prompt_set.tools.of(sample.data)
    except ValueError as error:
        found.add(sample.origin, f"tools of {prompt_set.name!r}: {error}")
    return target


def _messages(prompt_set: PromptSet, prompt: Prompt | Conversation, sample: Sample) -> tuple[list[Message], Mapping[str, str]]:
    messages, media = prompt_set.media.resolved(prompt.messages(sample.data))
    return messages, {**prompt.media, **media} if prompt.media or media else NO_MEDIA


def _target(prompt_set: PromptSet, sample: Sample) -> str | None:
    if prompt_set.target is None:
        return None
    target = prompt_set.target.render(sample.data)
    if not target.strip():
        raise ValueError("is empty")
    return target


def _of_prompt(prompt_set: PromptSet, prompt: Prompt | Conversation) -> str:
    return f"prompt {prompt.name!r} of {prompt_set.name!r}"


def _of_target(prompt_set: PromptSet) -> str:
    return f"target of {prompt_set.name!r}"


class _Findings:
    """Mistakes by row; one that many rows share is told once, with its number."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._rows: dict[str, list[str | int]] = {}

    def add(self, place: str, what: str) -> None:
        """`what` at `place`."""
        shared = self._rows.setdefault(what, [place, 0])
        shared[1] = int(shared[1]) + 1

    def finish(self) -> None:
        told = [f"{place}: {what}" + (f" (and in {int(count) - 1:,} more rows)" if count != 1 else "") for what, (place, count) in self._rows.items()]
        problems = [*told, *self.lines]
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS:] = [f"… and {len(problems) - MAX_PROBLEMS:,} more mistakes"]
        if problems:
            raise DatasetError(*problems)
