"""Draws the pictures and sounds the recordings of this folder, with the standard library alone: `python datasets/media/make.py`."""

import json
import math
import struct
import wave
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
SIDE, RATE = 96, 8_000
COLOURS = {"red": (220, 30, 30), "green": (30, 150, 60), "blue": (40, 70, 210), "yellow": (240, 200, 20)}
SHAPES: dict[str, Callable[[float, float], bool]] = {  # both from -1 to 1, downwards
    "circle": lambda x, y: x * x + y * y < 0.45,
    "square": lambda x, y: abs(x) < 0.6 and abs(y) < 0.6,
    "triangle": lambda x, y: -0.6 < y < 0.6 and abs(x) < (y + 0.6) / 1.7,
}
PITCHES = {"low": 330, "high": 1_320}
BEEP_S, GAP_S = 0.12, 0.12


def png(shape: str, colour: str) -> bytes:
    """A coloured shape on white."""
    at = [2 * (n + 0.5) / SIDE - 1 for n in range(SIDE)]
    rows = b"".join(b"\0" + b"".join(bytes(COLOURS[colour] if SHAPES[shape](x, y) else (255, 255, 255)) for x in at) for y in at)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")


def samples(pitch: str, beeps: int) -> bytes:
    """Beeps with silence around them, 8 bits a sample."""
    silence = bytes([128]) * int(GAP_S * RATE)
    beep = bytes(128 + round(90 * math.sin(2 * math.pi * PITCHES[pitch] * n / RATE)) for n in range(int(BEEP_S * RATE)))
    return silence + (beep + silence) * beeps


def pictures() -> Iterator[dict[str, str]]:
    """Write the pictures; yields the rows about them."""
    for number, (shape, colour) in enumerate(product(SHAPES, COLOURS), 1):
        name = f"picture-{number:02}.png"
        (HERE / name).write_bytes(png(shape, colour))
        image = {"image": f"media/{name}"}
        yield {"id": f"shape-{number:02}", "kind": "shape", **image, "question": f"Which shape is in picture {number}?", "answer": shape}
        yield {"id": f"colour-{number:02}", "kind": "colour", **image, "question": f"Which colour has the shape in picture {number}?", "answer": colour}


def recordings() -> Iterator[dict[str, str]]:
    """Write the recordings; yields the rows about them."""
    for number, (pitch, beeps) in enumerate(product(PITCHES, range(1, 6)), 1):
        name = f"recording-{number:02}.wav"
        with wave.open(str(HERE / name), "wb") as file:
            file.setparams((1, 1, RATE, 0, "NONE", "not compressed"))
            file.writeframes(samples(pitch, beeps))
        audio = {"audio": f"media/{name}"}
        yield {"id": f"count-{number:02}", "kind": "count", **audio, "question": f"How many beeps are in recording {number}?", "answer": str(beeps)}
        yield {"id": f"pitch-{number:02}", "kind": "pitch", **audio, "question": f"Are the beeps in recording {number} high or low?", "answer": pitch}


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


if __name__ == "__main__":
    for name, rows in (("pictures", pictures()), ("recordings", recordings())):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (HERE.parent / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
