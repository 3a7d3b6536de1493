"""The pictures and recordings that come with the project show and sound what their rows say."""

import json
import struct
import wave
import zlib
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from evalrunner.pipeline import run
from evalrunner.plan.config import load_config
from evalrunner.report.samples import _question

ROOT = Path(__file__).parent.parent
COLOURS = {"red": (220, 30, 30), "green": (30, 150, 60), "blue": (40, 70, 210), "yellow": (240, 200, 20)}
FILLED = {"circle": (0.33, 0.37), "square": (0.34, 0.39), "triangle": (0.19, 0.23)}


def rows(name):
    return [json.loads(line) for line in (ROOT / "datasets" / name).read_text(encoding="utf-8").splitlines()]


def pixels(path):
    """The pixels of an RGB image without filters."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"IDAT")
    raw = zlib.decompress(data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")])
    lines = [raw[y * (3 * width + 1) + 1 : (y + 1) * (3 * width + 1)] for y in range(height)]
    return [tuple(line[x : x + 3]) for line in lines for x in range(0, 3 * width, 3)]


@pytest.mark.parametrize("row", rows("pictures.jsonl"), ids=lambda row: row["id"])
def test_pictures(row):
    """The colour is that of the pixels, the shape is known by how much of the picture it fills."""
    found = pixels(ROOT / "datasets" / row["image"])
    inside = [pixel for pixel in found if pixel != (255, 255, 255)]
    if row["kind"] == "colour":
        assert set(inside) == {COLOURS[row["answer"]]}
    else:
        low, high = FILLED[row["answer"]]
        assert low < len(inside) / len(found) < high


@pytest.mark.parametrize("row", rows("recordings.jsonl"), ids=lambda row: row["id"])
def test_recordings(row):
    """The beeps are counted between silences; high ones swing more often."""
    with wave.open(str(ROOT / "datasets" / row["audio"])) as file:
        data = file.readframes(file.getnframes())
    quiet = [all(abs(sample - 128) < 20 for sample in data[at : at + 80]) for at in range(0, len(data), 80)]
    beeps = sum(not still for still, _ in groupby(quiet))
    swings = sum((one - 128) * (other - 128) < 0 for one, other in pairwise(data)) / beeps
    assert row["answer"] == (str(beeps) if row["kind"] == "count" else "high" if swings > 150 else "low")


@pytest.mark.parametrize(("name", "score"), [("vision", "includes"), ("audio", "includes"), ("thinking", "numeric")])
async def test_the_configs_run_offline(tmp_path, name, score):
    """Each study is answered in full on the simulator; what is stored of a picture or a recording is its name and hash."""
    done = await run(load_config(ROOT / "configs" / f"{name}.yaml", limit=4), tmp_path / "run")
    found = done.results()
    assert (done.exit_code, set(found["outcome"])) == (0, {"ok"})
    assert found[f"score_{score}"].mean() > 0.5
    assert found["messages"].str.len().max() < 1_000
    if name == "thinking":
        thought = found["reasoning"].notna()
        assert (found.loc[thought, "reasoning_tokens"] > 0).all()
        assert 0 < thought.sum() < len(found)
    else:
        assert found["messages"].str.contains('"sha256"').all()
        assert {_question(text)[:9] for text in found["messages"]} <= {"[media/pi", "[media/re"}
