"""Other people's clients, scorers and loaders: a package of their own, installed by pip, or a module beside the config."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

PACKAGE = Path(__file__).parent / "plugin_package"
BY_NAME = {"client": "canned", "loader": None, "scorer": "shorter_than"}
BY_PATH = {
    "client": "evalrunner_example.clients:canned",
    "loader": "evalrunner_example.loaders:load_lines",
    "scorer": "evalrunner_example.scorers:shorter_than",
}


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder that pip installed the package into, as into any site-packages; hatchling comes with the extra `test`, so no index is needed."""
    target = tmp_path_factory.mktemp("site")
    command = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target), str(PACKAGE)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert done.returncode == 0, done.stderr
    return target


def evalrunner(*args, site=None, cwd=None):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ({"PYTHONPATH": str(site)} if site else {})
    return subprocess.run([sys.executable, "-m", "evalrunner", *map(str, args)], capture_output=True, text=True, check=False, env=env, cwd=cwd)


def write_config(folder, *, client="canned", loader=None, scorer="shorter_than", options=None):
    (folder / "questions.txt").write_text("first\n\nsecond\n", encoding="utf-8")
    config = {
        "name": "third-party",
        "providers": {"mine": {"kind": client, "options": {"answers": {"Say first.": "one two three", "Say second.": "one two three four five six"}}}},
        "models": [{"id": "canned-1", "provider": "mine"}],
        "preflight": False,
        "prompt_sets": [
            {
                "name": "lines",
                "data": "questions.txt",
                "prompts": {"say": "Say {{ line }}."},
                "scorers": [{scorer: {"name": "short", **(options or {"words": 5})}}],
            }
            | ({"loader": loader} if loader else {})
        ],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("names", [BY_NAME, BY_PATH], ids=["entry points", "module:attribute"])
def test_a_package_brings_a_client_a_scorer_and_a_loader(installed, tmp_path, names):
    """One function each, and a config can name them: the run reads its rows, asks its client and keeps its scores."""
    said = evalrunner("run", write_config(tmp_path, **names), "--out", tmp_path / "run", site=installed)
    assert said.returncode == 0, said.stderr
    rows = pd.read_parquet(tmp_path / "run" / "results").sort_values("sample_id")
    assert rows["output"].tolist() == ["one two three", "one two three four five six"]
    assert rows["score_short"].tolist() == [1.0, 0.0]
    assert rows["score_short_why"].tolist() == ["3 words", "6 words"]


def test_check_lists_what_a_config_imports(installed, tmp_path):
    """`check` names each plug-in and the package that brings it, and nothing that is built in."""
    said = evalrunner("check", write_config(tmp_path), site=installed)
    assert said.returncode == 0, said.stderr
    for name, target in (("canned", "clients:canned"), (".txt", "loaders:load_lines"), ("shorter_than", "scorers:shorter_than")):
        [line] = [line for line in said.stdout.splitlines() if f" {name} " in line]
        assert f"evalrunner_example.{target} of evalrunner-example 0.1.0" in line


def test_options_of_a_plug_in_are_checked_like_any_other(installed, tmp_path):
    """A wrong option, type or value of somebody else's scorer is told at its line before anything is sent."""
    path = write_config(tmp_path)
    settings = yaml.safe_load(path.read_text())
    settings["prompt_sets"][0]["scorers"] = [
        {"shorter_than": {"name": f"s{n}", **options}} for n, options in enumerate(({"wrods": 5}, {"words": "many"}, {"words": 0}))
    ]
    path.write_text(yaml.safe_dump(settings))
    said = evalrunner("check", path, site=installed)
    assert said.returncode == 2
    for place, told in (("[0].shorter_than.wrods", "did you mean 'words'"), ("[1].shorter_than.words", "valid integer"), ("[2]", "must be at least 1")):
        [line] = [line for line in said.stderr.splitlines() if f"scorers{place}" in line]
        assert told in line
        assert "config.yaml:" in line


def test_nothing_is_imported_that_the_config_does_not_name(installed, tmp_path):
    """An installed package stays unread until a config names it, and then only the part that is named."""
    write_config(tmp_path, client="simulator", loader="evalrunner_example.loaders:load_lines", scorer="exact", options={"ignore_case": True})
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["providers"]["mine"] = {"kind": "simulator"}
    config["prompt_sets"][0]["target"] = "x"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    code = "import sys; from evalrunner.plan.config import load_config; load_config(sys.argv[1]); print(sorted(m for m in sys.modules if 'example' in m))"
    env = os.environ | {"PYTHONPATH": str(installed)}
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "config.yaml")], capture_output=True, text=True, check=True, env=env)
    assert said.stdout.strip() == "['evalrunner_example', 'evalrunner_example.loaders']"


def test_a_module_beside_the_config_is_found_from_anywhere(tmp_path):
    """`module:attribute` finds a module in the config's folder, wherever the command is started, and the run can be resumed from elsewhere."""
    (tmp_path / "study").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study" / "my_parts.py").write_text(
        "".join((PACKAGE / "evalrunner_example" / f"{part}s.py").read_text() for part in ("client", "scorer", "loader"))
    )
    names = {"client": "my_parts:canned", "loader": "my_parts:load_lines", "scorer": "my_parts:shorter_than"}
    config = write_config(tmp_path / "study", **names)
    said = evalrunner("run", config, "--out", tmp_path / "run", cwd=tmp_path / "elsewhere")
    assert said.returncode == 0, said.stderr
    assert evalrunner("resume", tmp_path / "run", cwd=tmp_path / "elsewhere").returncode == 0
    said = evalrunner("check", config, cwd=tmp_path / "elsewhere")
    assert f"my_parts:canned in {tmp_path / 'study' / 'my_parts.py'}" in " ".join(said.stdout.split())


def test_the_config_folder_shadows_nothing(tmp_path):
    """Files beside a config cannot take the place of installed modules, and are not looked at where the config names no module."""
    for name in ("json", "yaml", "tokenize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "mine.py").write_text((PACKAGE / "evalrunner_example" / "scorers.py").read_text())
    config = write_config(tmp_path, client="simulator", scorer="mine:shorter_than")
    settings = yaml.safe_load(config.read_text())
    settings["providers"]["mine"] = {"kind": "simulator"}
    settings["prompt_sets"][0] |= {"data": None, "samples": [{"line": "x"}], "target": "x"}
    del settings["prompt_sets"][0]["data"]
    code = "import sys, json; from evalrunner.plan.config import load_config; load_config(sys.argv[1]); print(json.dumps(sys.path))"
    for scorer, place in (("mine:shorter_than", -1), ("exact", None)):
        settings["prompt_sets"][0]["scorers"] = [{scorer: {"words": 5}}] if place else [scorer]
        config.write_text(yaml.safe_dump(settings))
        said = subprocess.run([sys.executable, "-P", "-c", code, str(config)], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        path = json.loads(said.stdout)
        assert (path.index(str(tmp_path)) == len(path) - 1) if place else (str(tmp_path) not in path)
