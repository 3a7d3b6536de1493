"""The answers that others are judged against, where they are those of a stored run: found by sample and trial, with equal data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from evalrunner.decisions import answers_of
from evalrunner.errors import DatasetError
from evalrunner.plan.prompt_sets import PromptSet
from evalrunner.scorers.combine import judges_in
from evalrunner.scorers.judge import OtherAnswer, said
from evalrunner.store.answers import completion_of

EXAMPLES = 5


def read_opponents(prompt_sets: Sequence[PromptSet], folder: Path, run_id: str | None = None) -> None:
    """Tell the judges that compare with a cell of a run what it answered. `run_id`: of the run that is judged · paths are relative to `folder`.

    Raises RunError: no such run or cell, several of them, no sample in common, other data.
    """
    for prompt_set in prompt_sets:
        for scorer in prompt_set.scorers.values():
            for judge in judges_in(scorer):
                if judge.other_cell is not None:
                    judge.others = _answers(prompt_set, os.path.join(folder, judge.other_cell), run_id)  # noqa: PTH118 - text behind a path


def _answers(prompt_set: PromptSet, cell: str, run_id: str | None) -> dict[tuple[str, int], OtherAnswer]:
    rows = answers_of(cell, prompt_set.name)
    hashes = {sample: row["sample_hash"] for (sample, _), row in rows.items()}
    common = [sample for sample in prompt_set.data if sample.id in hashes]
    changed = [sample.id for sample in common if sample.hash != hashes[sample.id]]
    if changed or not common:
        what = f"{len(changed)} samples have other data than in {cell}: {', '.join(changed[:EXAMPLES])}" if changed else f"no sample is in {cell}, too"
        raise DatasetError(f"{what} (hint: answers are compared where the data are the same)")
    return {place: OtherAnswer(text=said(completion_of(row)), key=row["key"] if row["run_id"] == run_id else None) for place, row in rows.items()}
