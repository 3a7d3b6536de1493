"""What people said of answers: a file that names each answer by the key of its request, beside the verdict. Read when it is needed, checked before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os.path import normpath
from pathlib import Path
from typing import Any

from evalrunner.errors import DatasetError
from evalrunner.plan.loaders import Problems
from evalrunner.plan.prompt_sets import PromptSet
from evalrunner.plan.sandbox import nearest
from evalrunner.plugins import find
from evalrunner.scorers.combine import judges_in
from evalrunner.scorers.judge import Judge

KEY, LABEL, RUN = "key", "label", "run_id"


def judges_with_labels(prompt_sets: tuple[PromptSet, ...]) -> Iterator[tuple[PromptSet, str, Judge]]:
    """Every judge that is held against people: its prompt set and name."""
    for prompt_set in prompt_sets:
        for name, scorer in prompt_set.scorers.items():
            for judge in judges_in(scorer):
                if any(judge.calibration):
                    yield prompt_set, name, judge


def shared_labels(prompt_sets: tuple[PromptSet, ...], answers: int) -> Iterator[str]:
    """A warning for each judge with a label in the data, which is one for all answers to a sample. `answers`: of a sample to all prompts of all sets."""
    prompts = sum(len(one.prompts) for one in prompt_sets)
    for prompt_set, name, judge in judges_with_labels(prompt_sets):
        several = answers * len(prompt_set.prompts) // prompts
        if judge.calibration.label is not None and several > 1:
            yield (
                f"scorer {name!r} of {prompt_set.name!r}: each sample has {several:,} answers and one label, which speaks of one of them at most "
                "(hint: label the answers, calibration: {labels: FILE}; docs/judge.md)"
            )


def read_labels(prompt_sets: tuple[PromptSet, ...], folder: Path, run_id: str | None = None) -> None:
    """Give the judges of a plan what their files say of the answers of a run; without one, only look whether it can be read. Paths are relative to `folder`.

    Raises `DatasetError`: a file that is none, a column that is missing, a key twice, what is no verdict.
    """
    for _, _, judge in judges_with_labels(prompt_sets):
        if judge.calibration.labels is not None:
            found = _labels(Path(normpath(folder / judge.calibration.labels)), judge, run_id)
            judge.given = found if run_id is not None else {}


def _labels(path: Path, judge: Judge, run_id: str | None) -> Mapping[str, float]:
    problems = Problems(str(path))
    found: dict[str, float] = {}
    lines: dict[tuple[str, str], int] = {}
    for line, row in find("loaders", path.suffix.lower())(path):
        if missing := [name for name in (KEY, LABEL) if name not in row]:
            hint = nearest(missing[0], row) or " (hint: `export` writes the keys)"
            raise DatasetError(f"{path}:{line}: has no column {missing[0]!r}{hint}")
        if run_id is not None and row.get(RUN, run_id) != run_id:
            continue
        try:
            label = judge.read_label(_text(row[LABEL]))
        except ValueError as error:
            problems.add(line, str(error))
            continue
        if label is None:
            continue
        key = (str(row.get(RUN, "")), str(row[KEY]))
        if lines.setdefault(key, line) != line:
            problems.add(line, f"a second label for the answer {row[KEY]} (the first is in line {lines[key]})")
        found[str(row[KEY])] = label
    problems.finish(rows=1)
    return found


def _text(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value
