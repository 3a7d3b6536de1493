"""What others wrote, as it is printed: no terminal and no CI log obeys it, and no value of JSON changes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Received, answer, completion, scripted

from evalrunner.plain import escaped, plain
from evalrunner.results import make_report

EVIL = "no\x1b]52;c;cm0gLXJmIH4=\x07 \x9b2J\x1b[1A\r\n::error::pwned\u2028  ::add-mask::x\n##[command]y ##vso[task.setvariable variable=a]b \u202etxt.exe\x08"
"""Sets the clipboard, clears the screen, moves the cursor, and gives orders to two CI systems."""
WORDS = ("pwned", "add-mask", "vso[task")


def obeyed(text: str) -> list[str]:
    """What of `text` a terminal or a CI log would take for a command."""
    controls = [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} and char != "\n"]
    commands = [line for line in re.split("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text) if line.strip().startswith("::") or re.search(r"##\w*\[", line)]
    return controls + commands


@given(st.text())
def test_nothing_that_is_printed_is_obeyed(text: str) -> None:
    """Whatever the text, at any place of it."""
    assert not obeyed(plain(text))
    assert not obeyed(plain(f"error: {text}\n{EVIL}{text}"))


def test_ordinary_text_stays_as_it_is() -> None:
    """Lines, indents, signs and every script; a tab becomes blanks."""
    text = "config.yaml:3:5: model: unknown\n  hint: 通义千问 – naïve → ok · a::b ## [x] # [y]"
    assert plain(text) == text
    assert plain("a\tb") == "a   b"


@given(st.text())
def test_escaped_json_has_the_same_values(text: str) -> None:
    """And no character that is not seen."""
    found = escaped(json.dumps({text: [text, EVIL]}, ensure_ascii=False))
    assert json.loads(found) == {text: [text, EVIL]}
    assert not obeyed(found)
    assert not [char for char in found if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}]


def test_every_character_that_is_not_seen_is_escaped() -> None:
    """All there are, not those that a property test happens to find."""
    unseen = [char for char in map(chr, range(0x80, sys.maxunicode + 1)) if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}]
    assert json.loads(escaped(json.dumps(unseen, ensure_ascii=False))) == unseen
    assert escaped(json.dumps(unseen, ensure_ascii=False)).isascii()


def config_of(url: str) -> str:
    limits = {"concurrency": 1}
    prompt_set = {"name": "s", "samples": [{"q": "one"}], "prompts": {"p": "{{ q }}"}, "target": "{{ q }}", "scorers": ["exact"]}
    models: list[Any] = [{"id": name, "provider": name} for name in ("good", "bad")]
    providers = {name: {"kind": "openai", "base_url": url, "limits": limits} for name in ("good", "bad")}
    return json.dumps({"name": "evil", "providers": providers, "models": models, "stream": False, "prompt_sets": [prompt_set]})


@pytest.mark.parametrize("preflight", [True, False])
async def test_a_server_cannot_steer_the_terminal(tmp_path: Path, preflight: bool) -> None:
    """A 401 whose text is full of orders, before the run and in its middle; and an answer that is, in `show`, `compare` and `export`."""

    def reply(received: Received) -> Any:
        if received.json["model"] == "bad":
            return answer({"error": {"message": EVIL, "code": EVIL}}, status=401)
        return answer(completion(EVIL))

    async with scripted(reply, repeat=True) as server:
        (tmp_path / "evil.yaml").write_text(config_of(server.url).replace('"stream"', f'"preflight": {str(preflight).lower()}, "stream"'))
        command = (sys.executable, "-m", "evalrunner", "run", "evil.yaml", "--out", "run")
        child = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        said = b"".join(await child.communicate()).decode()
    assert child.returncode in {4, 5}, said
    assert "pwned" in said
    assert not obeyed(said)
    if not preflight:
        for args in (
            ("show", "run"),
            ("show", "run", "--json"),
            ("export", "run", "--jsonl", "-"),
            ("compare", "run", "run", "--json"),
            ("compare", "run", "run"),
        ):
            told = subprocess.run([sys.executable, "-m", "evalrunner", *args], cwd=tmp_path, capture_output=True, check=False)  # noqa: ASYNC221 - the server is closed
            assert not obeyed((told.stdout + told.stderr).decode()), args
        assert make_report(tmp_path / "run").exists()
