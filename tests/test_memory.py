"""Data larger than memory: what a command keeps does not grow with the file it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MEASURED = """
import re, sys
from pathlib import Path
from evalrunner.cli import main
code = main(["check", sys.argv[1]])
print(code, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peak_mb(folder: Path, rows: int, kilobytes: int) -> float:
    """The most memory that `check` of a data set of so many rows, each with so long a prompt, has at a time."""
    with (folder / "data.jsonl").open("w") as file:
        file.writelines(f'{{"id": "{number}", "q": "{f"{number:07} " * max(1, 128 * kilobytes)}"}}\n' for number in range(rows))
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}
    prompt_set = {"name": "s", "data": "data.jsonl", "id": "id", "prompts": {"p": "{{ q }}"}}
    (folder / "big.yaml").write_text(
        json.dumps({"name": "big", "providers": {"mine": provider}, "models": [{"id": "m", "provider": "mine"}], "prompt_sets": [prompt_set]})
    )
    said = subprocess.run([sys.executable, "-c", MEASURED, "big.yaml"], cwd=folder, capture_output=True, text=True, check=True).stdout
    (folder / "data.jsonl").unlink()
    assert f"{rows:,} requests; nothing was sent" in said
    code, kilobytes_held = said.splitlines()[-1].split()
    assert code == "0"
    return int(kilobytes_held) / 1024


def test_prompts_of_100_megabytes_are_checked_without_being_held(tmp_path: Path) -> None:
    """Every row is rendered with every prompt, one at a time: long prompts cost what a few of them weigh."""
    assert peak_mb(tmp_path, 2500, 40) < peak_mb(tmp_path, 5, 40) + 50


def test_many_rows_are_known_by_their_hashes(tmp_path: Path) -> None:
    """200,000 rows cost some bytes each (their ids must differ), not what they hold."""
    assert peak_mb(tmp_path, 200_000, 0) < peak_mb(tmp_path, 5, 0) + 50
