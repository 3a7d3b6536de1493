"""The README does what it says: every block in it is run, or is what a run printed."""

import asyncio
import re
import shlex
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.simulator.app import parse_settings, serve

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- ([\w-]+) -->\n)?```(\w+)\n(.*?)```", README, re.DOTALL)


def blocks(language):
    return [pytest.param(text, id=str(number)) for number, (_, kind, text) in enumerate(BLOCKS) if kind == language]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that looks like a clone, to run in."""
    for name in ("configs", "datasets"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_kind_of_block_is_known():
    """No block slips past these tests by its language."""
    assert {kind for _, kind, _ in BLOCKS} == {"bash", "yaml", "python", "text"}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configs_are_valid(text, clone, monkeypatch):
    """Every config in the README passes the same validation as `evalrunner check`."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-not-a-key")
    (clone / "config.yaml").write_text(text, encoding="utf-8")
    plan = make_plan(load_config("config.yaml"))
    plan.validate()
    assert plan.accounts
    assert plan.size > 0


class Simulator:
    """A simulator in a thread of its own, for code that blocks."""

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._serving = serve(parse_settings({"brain": "arithmetic"}))
        self.base = self._loop.run_until_complete(self._serving.__aenter__())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._serving.__aexit__(None, None, None))
        self._loop.close()


@pytest.mark.parametrize("text", blocks("python"))
def test_python_blocks_run(text, clone, capsys):
    """Every Python block runs as it is printed (the simulator's port apart)."""
    with Simulator() as simulator:
        code = text.replace("http://127.0.0.1:8000", simulator.base)
        names: dict[str, object] = {}
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own README
        for client in [value for value in names.values() if hasattr(value, "close") and type(value).__module__.startswith("openai")]:
            client.close()
    said = capsys.readouterr().out
    assert "print(" not in text or said.strip()
    if "2 + 2" in text:
        assert "4" in said


def test_commands_exist():
    """Every command the README types, or lists, is one of ours and takes the options shown."""
    listed = re.findall(r"^\| `(\w+)", README[README.index("| command | |") :].split("\n\n")[0], re.MULTILINE)
    help_text = subprocess.run([sys.executable, "-m", "evalrunner", "--help"], capture_output=True, text=True, check=True).stdout
    offered = re.findall(r"^  (\w+)  ", help_text[help_text.index("commands:") :], re.MULTILINE)
    assert sorted(listed) == sorted(offered)
    typed = [line for _, kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.startswith("evalrunner ")]
    for line in typed:
        name, *words = shlex.split(line)[1:]
        usage = subprocess.run([sys.executable, "-m", "evalrunner", name, "--help"], capture_output=True, text=True, check=True).stdout
        for word in words:
            assert not word.startswith("--") or word in usage, line


@pytest.mark.parametrize("name", ["tools", "vision", "audio", "thinking"])
def test_the_same_file_runs_live(name, clone, monkeypatch):
    """What the README types to ask the real models is a sound plan of the shipped file, with every request at DashScope and nothing at the simulator."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-not-a-key")
    [line] = [line for _, kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.startswith(f"evalrunner run configs/{name}.yaml")]
    words = shlex.split(line)
    plan = make_plan(load_config(words[2], [word for before, word in pairwise(words) if before == "--set"], limit=int(words[words.index("--limit") + 1])))
    plan.validate()
    assert [account.base_url for account in plan.accounts.values()] == ["https://dashscope.aliyuncs.com/compatible-mode/v1"]
    assert plan.accounts["dashscope"].api_key == "sk-not-a-key"
    assert not [line for line in plan.warnings() if "no price is known for" not in line]  # the catalogue has none for some models of audio


def test_ci_runs_the_command_of_the_readme():
    """CI takes its test command from the README, so that the two cannot differ."""
    found = [text for mark, kind, text in BLOCKS if mark == "test-command" and kind == "bash"]
    assert len(found) == 1
    assert found[0].count("\n") == 1
    assert found[0].startswith("python3 -m venv .venv && ")
    assert "<!-- test-command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.local_model
def test_the_first_command_runs_the_embedded_model(clone):
    """The last part of the README's first command, on two samples: answers of the real model, Parquet, a report."""
    pytest.importorskip("xllamacpp", reason="needs the extra [local]")
    command = next(text for mark, _, text in BLOCKS if mark == "run-command").rpartition(".venv/bin/evalrunner ")[2]
    said = subprocess.run(
        [sys.executable, "-m", "evalrunner", *shlex.split(command), "--limit", "2", "--out", "run"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert (clone / "run" / "report.html").stat().st_size > 10_000
    assert list((clone / "run" / "results").glob("*.parquet"))


def test_printed_output_is_what_such_a_run_prints():
    """The output shown after the first command has the table that command prints."""
    shown = next(text for mark, kind, text in BLOCKS if mark == "run-output" and kind == "text")
    for word in ("prompt set", "answered", "questions", "arithmetic", "report.html"):
        assert word in shown
