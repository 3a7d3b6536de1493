"""Data that were edited between a run and its resume: the table is that of the plan as it is now, and nothing that was paid for is thrown away."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from crash_harness import FaultyFiles, Killed
from make_records import SmallPlan, make_record
from scripted_server import Received, answer, completion, scripted
from simulated import png

from evalrunner.errors import StoreError
from evalrunner.pipeline import Watch, resume, run
from evalrunner.plan.config import load_config
from evalrunner.records import Outcome, Request
from evalrunner.results import Run
from evalrunner.store.run_dir import About, RunDir, Settings, read_attempts, read_results

SAMPLES, EDITED = 10, 2
PRICE = 23e-6
"""What every answer of the scripted server costs."""


def write(folder: Path, wording: Callable[[int], str], number: int = SAMPLES) -> None:
    (folder / "data.jsonl").write_text("".join(json.dumps({"id": f"s{at}", "q": wording(at)}) + "\n" for at in range(number)))


def edited(at: int) -> str:
    return f"edited {at}" if at < EDITED else f"question {at}"


class Study:
    """A run of `SAMPLES` questions, all answered, and a server that counts what it is asked and fails what it is told to."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.run = folder, folder / "run"
        provider = {"kind": "openai", "base_url": url, "limits": {"concurrency": 4}}
        prompt_set = {"name": "s", "data": "data.jsonl", "id": "id", "prompts": {"p": "{{ q }}"}, "target": "{{ q }}", "scorers": ["exact"]}
        config = {
            "name": "changed",
            "providers": {"mine": provider},
            "models": [{"id": "m", "provider": "mine", "price": {"input": 1, "output": 1, "currency": "CNY"}}],
            "stream": False,
            "preflight": False,
            "retry": {"max_attempts": 1},
            "budget": {"cost": 1, "currency": "CNY"},
            "grid": {"max_tokens": 8},
            "gate": [{"metric": "score_exact", "min": 0.1}],
            "prompt_sets": [prompt_set],
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        write(folder, "question {}".format)

    async def first(self) -> Run:
        return await run(load_config(self.folder / "config.yaml"), self.run)

    async def again(self, said: list[str] | None = None) -> Run:
        return await resume(self.run, Watch(say=(said if said is not None else []).append))

    def table(self) -> dict[str, str | None]:
        frame = pd.read_parquet(self.run / "results")
        assert frame["sample_id"].is_unique
        return dict(zip(frame["sample_id"], frame["output"], strict=True))


def expected(wording: Callable[[int], str], number: int = SAMPLES) -> dict[str, str]:
    return {f"s{at}": wording(at) for at in range(number)}


async def test_edited_samples_take_the_place_of_what_was_asked_before(tmp_path: Path) -> None:
    """One row for each sample, with the answer to the data as they are; the old answers are kept beside, told, and still count as spent."""
    asked, said = [], []  # type: ignore[var-annotated]
    async with scripted(_replying(asked), repeat=True) as server:
        study = Study(tmp_path, server.url)
        await study.first()
        asked.clear()
        write(tmp_path, edited)
        made = await study.again(said)
    assert sorted(asked) == ["edited 0", "edited 1"]
    assert (made.exit_code, study.table()) == (0, expected(edited))
    assert made.manifest["counts"] == {"planned": 10, "done": 10, "by_outcome": {"ok": 10}, "missing": 0}
    old = pd.read_parquet(study.run / "superseded")
    assert sorted(old["output"]) == ["question 0", "question 1"]
    assert any("data of s changed" in line for line in said)
    assert any(line.startswith("2 rows are of requests that are not planned any more: kept in superseded/") for line in said)
    assert "resuming: 8 answered, 2 without a row, 0 without an answer and sent again" in said
    assert read_attempts(study.run, ["cost"])["cost"].to_pylist() == pytest.approx([PRICE] * 12)
    assert made.manifest["unrecorded"] == {"cost": 0.0, "requests": 0}
    assert made.summary().totals.planned == made.summary().totals.answered == 10


async def test_edited_samples_that_fail_are_without_an_answer(tmp_path: Path) -> None:
    """The old answers do not stand in for the new ones: exit 4, no verdict of gates on half a table, and the next resume asks them again."""
    failing: set[str] = {"edited 0", "edited 1"}
    async with scripted(_replying([], failing), repeat=True) as server:
        study = Study(tmp_path, server.url)
        await study.first()
        write(tmp_path, edited)
        made = await study.again()
        assert made.exit_code == 4
        assert made.manifest["counts"]["by_outcome"] == {"ok": 8, "server_error": 2}
        failing.clear()
        made = await study.again()
    assert (made.exit_code, study.table()) == (0, expected(edited))


async def test_data_that_come_back_find_their_answers(tmp_path: Path) -> None:
    """An edit that is taken back costs nothing: the old answers are in the table again, and nothing is asked."""
    asked, said = [], []  # type: ignore[var-annotated]
    async with scripted(_replying(asked), repeat=True) as server:
        study = Study(tmp_path, server.url)
        await study.first()
        write(tmp_path, edited)
        await study.again()
        asked.clear()
        write(tmp_path, "question {}".format)
        made = await study.again(said)
    assert asked == []
    assert (made.exit_code, study.table()) == (0, expected("question {}".format))
    assert any(line.startswith("2 rows of superseded/ are of requests that are planned again") for line in said)


async def test_samples_that_are_gone_leave_the_table(tmp_path: Path) -> None:
    """Fewer samples, fewer rows: a resume after rows were deleted has nothing to ask and counts what is left."""
    async with scripted(_replying([]), repeat=True) as server:
        study = Study(tmp_path, server.url)
        await study.first()
        write(tmp_path, "question {}".format, SAMPLES - 3)
        made = await study.again()
    assert (made.exit_code, study.table()) == (0, expected("question {}".format, SAMPLES - 3))
    assert made.manifest["counts"] == {"planned": 7, "done": 7, "by_outcome": {"ok": 7}, "missing": 0}


async def test_other_pictures_are_other_requests(tmp_path: Path) -> None:
    """A picture that was replaced under its old name changes the data, though no row of them does."""
    asked: list[str] = []
    async with scripted(_replying(asked), repeat=True) as server:
        study = Study(tmp_path, server.url)
        text = (tmp_path / "config.yaml").read_text()
        parts = json.dumps([{"role": "user", "content": [{"text": "{{ q }}"}, {"image": "one.png"}]}])
        (tmp_path / "config.yaml").write_text(text.replace('"{{ q }}"}, "target"', f'{parts}}}, "target"'))
        (tmp_path / "one.png").write_bytes(base64.b64decode(png(16, 16).partition(",")[2]))
        await study.first()
        asked.clear()
        (tmp_path / "one.png").write_bytes(base64.b64decode(png(16, 17).partition(",")[2]))
        said: list[str] = []
        made = await study.again(said)
    assert len(asked) == SAMPLES
    assert any("media of s changed" in line for line in said)
    assert len(pd.read_parquet(made.path / "results")) == len(pd.read_parquet(made.path / "superseded")) == SAMPLES


async def test_an_open_row_of_a_sample_that_was_edited_is_not_open_for_ever(tmp_path: Path) -> None:
    """What timed out and is planned no more is not waited for."""
    plan = SmallPlan(5)
    async with RunDir.create(tmp_path / "run", plan, About(run_id="r1")) as run_dir:
        for at, request in enumerate(plan.all_requests()):
            await run_dir.add(make_record(request, outcome=Outcome.OK if at else Outcome.TIMEOUT))
        await run_dir.finish("complete")
    changed = SmallPlan(5, data_hash="d1", edited=1)
    assert await finished(tmp_path / "run", changed) == 2
    async with RunDir.resume(tmp_path / "run", changed) as run_dir:
        assert run_dir.nothing_left


async def test_a_table_that_was_mixed_by_an_earlier_version_is_sorted_out(tmp_path: Path) -> None:
    """More rows than requests are planned can only be rows of two data sets: the next resume takes them apart."""
    plan, changed = SmallPlan(5), SmallPlan(5, data_hash="d1", edited=2)
    async with RunDir.create(tmp_path / "run", plan, About(run_id="r1")) as run_dir:
        for request in [*plan.all_requests(), *list(changed.all_requests())[:4]]:
            await run_dir.add(make_record(request))
        await run_dir.finish("complete")
    async with RunDir.resume(tmp_path / "run", plan) as run_dir:
        assert run_dir.counts["done"] == 10
        await run_dir.finish("complete")
    assert len(pd.read_parquet(tmp_path / "run" / "superseded")) == 4


async def test_wherever_sorting_out_breaks_no_row_is_lost_and_none_is_there_twice(tmp_path: Path) -> None:
    """Killed, or the disk full, at file operations all over the resume after an edit: the next one ends with the table of the new data, and every old row."""
    changed = SmallPlan(6, data_hash="d1", edited=2)
    await filled(tmp_path / "before", SmallPlan(6))
    for how in ("killed", "full"):
        for at in range(1 if how == "killed" else 2, 10_000, 6):
            root = tmp_path / f"{how}-{at}"
            shutil.copytree(tmp_path / "before", root / "run")
            files = FaultyFiles(root, at, how)
            done = False
            try:
                await finished(root / "run", changed, files)
                done = True
            except (Killed, StoreError):
                pass
            table = read_results(root / "run", ["key"])["key"].to_pylist()
            assert len(set(table)) == len(table)
            await finished(root / "run", changed, FaultyFiles(root))
            assert sorted(pd.read_parquet(root / "run" / "results")["key"]) == sorted(request.key for request in changed.all_requests())
            assert len(pd.read_parquet(root / "run" / "superseded")) == 4
            if done and files.operations < at:
                break


async def filled(path: Path, plan: SmallPlan) -> None:
    """A complete run of some parts."""
    async with RunDir.create(path, plan, About(run_id="r1"), settings=Settings(segment_rows=5, merge_rows=5)) as run_dir:
        for request in plan.all_requests():
            await run_dir.add(make_record(request))
            await asyncio.sleep(0)
        await run_dir.finish("complete")


async def finished(path: Path, plan: SmallPlan, files: FaultyFiles | None = None) -> int:
    """Resume to the end; returns how many were asked."""
    settings = Settings(segment_rows=5, **({"files": files} if files else {}))
    async with RunDir.resume(path, plan, settings=settings) as run_dir:
        left: list[Request] = list(run_dir.missing(plan.all_requests()))
        for request in left:
            await run_dir.add(make_record(request))
        await run_dir.finish("complete")
    return len(left)


def _replying(asked: list[str], failing: set[str] = frozenset()) -> Callable[[Received], Any]:  # type: ignore[assignment]
    def reply(received: Received) -> Any:
        content = received.json["messages"][-1]["content"]
        question = content if isinstance(content, str) else content[0]["text"]
        asked.append(question)
        return answer({"error": {"message": "failed"}}, status=500) if question in failing else answer(completion(question))

    return reply
