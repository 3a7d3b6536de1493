"""What the security promises rest on, where no other test holds it (docs/reliability.md has the whole list)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import evalrunner
from evalrunner.plugins import find
from evalrunner.records import Cell, Completion, Model, Request, Sample, Timing

SOURCES = sorted(Path(evalrunner.__file__).parent.rglob("*.py"))
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
RUNS_CODE = {"scorers/program.py"}
"""What runs a model's code, inside the jail of the `code` scorer, in a process of its own."""
UNPACKS = {"serving/local_model.py"}
"""One member by name, out of a wheel that pip fetched."""


def uses(source):
    """Every module that a file imports, and every built-in that it calls."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]
            yield from (alias.name for alias in node.names if alias.name in {"read_pickle", "to_pickle"})
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield f"{node.func.id}()"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield f".{node.func.attr}()"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(Path(evalrunner.__file__).parent)))
def test_nothing_is_unpickled_and_nothing_a_model_said_is_run(source):
    """No pickle in any form, no eval, no exec, no archive unpacked: but for the one file that is made to run code in its jail, and one that opens a wheel."""
    name, found = source.relative_to(Path(evalrunner.__file__).parent).as_posix(), set(uses(source))
    assert not found & UNPICKLING
    assert not found & {".read_pickle()", ".to_pickle()", "read_pickle"}
    assert name in RUNS_CODE or not found & {"eval()", "exec()", ".eval()", ".query()"}
    assert not found & {"tarfile", ".extractall()", ".unpack_archive()", ".system()", ".popen()"}
    assert name in UNPACKS or "zipfile" not in found


@pytest.mark.parametrize("text", ["__import__('os').system('touch owned')", "9**9**9", "9" * 100_000, "(" * 50_000, "1e999999999", "1/0", "{{ 7 * 7 }}"])
def test_a_number_is_read_and_never_worked_out(text, tmp_path, monkeypatch):
    """An answer that is a program stays a text: it is wrong, at once, and nothing happens."""
    monkeypatch.chdir(tmp_path)
    cell = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="p"), params={}, stream=False)
    request = Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[], target="49")
    answer = Completion(output=text, finish_reason="stop", timing=Timing(started_ns=0, ended_ns=1))
    began = time.perf_counter()
    score = find("scorers", "numeric")()(request, answer)
    assert time.perf_counter() - began < 1
    assert score.value in {0, None}
    assert not list(tmp_path.iterdir())


def test_what_lies_about_in_a_folder_is_not_run(tmp_path):
    """A checked-out repository cannot take over: neither its .env nor modules with the names of tests, plug-ins or our libraries are read."""
    owned = f"open({str(tmp_path / 'owned')!r}, 'w').close()\n"
    for name in ("conftest.py", "evalrunner_plugins.py", "yaml.py", "json.py", "scorers.py", "plugins/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(owned)
    (tmp_path / ".env").write_text("SOME_KEY=sk-from-a-file\n")
    (tmp_path / "c.yaml").write_text(
        'name: c\nproviders: {p: {kind: openai, base_url: "http://nx.invalid/v1", api_key: "${SOME_KEY}"}}\nmodels: [{id: m, provider: p}]\n'
        "prompt_sets: [{name: s, samples: [{q: one}], prompts: {p: '{{ q }}'}, target: x, scorers: [exact]}]\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "SOME_KEY"}
    command = [Path(sys.executable).with_name("evalrunner"), "run", "c.yaml"]
    said = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "SOME_KEY is not set" in said.stderr
    assert not (tmp_path / "owned").exists()
