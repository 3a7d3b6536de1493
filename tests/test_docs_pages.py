"""The pages that walk through a job do what they say: their commands are run in order, in a clone, with the exit codes they name."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from evalrunner.cli import main
from evalrunner.plan.config import load_config

ROOT = Path(__file__).parent.parent
PAGES = ["prompt-regression", "model-selection"]


def blocks(page):
    return re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_line_by_line(page, tmp_path, monkeypatch, capsys):
    """Files are written as shown, commands typed as shown; each ends with 0, or with the code that the page says; what it shows was printed."""
    for name in ("configs", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    said = ""
    for kind, text in blocks(page):
        first = text.splitlines()[0]
        if kind == "yaml" and first.startswith("# configs/"):
            Path(first.removeprefix("# ")).write_text(text, encoding="utf-8")
        elif kind == "bash":
            for line in text.splitlines():
                code = re.search(r"# exit (\d)$", line)
                words = shlex.split(line, comments=True)
                ended = main(words[1:]) if words[0] == "evalrunner" else subprocess.run(["bash", "-c", line], check=False).returncode
                assert (line, ended) == (line, int(code[1]) if code else 0)
            said += capsys.readouterr().out
        elif kind == "text":
            assert [line for line in text.splitlines() if line not in said and line != "..."] == []
        elif kind == "python":
            exec(compile(text, page, "exec"), {})  # noqa: S102 - our own page


@pytest.mark.parametrize("page", PAGES)
def test_every_piece_of_yaml_is_sound(page, tmp_path):
    """Workflows parse; a part of a config is one, put into a config that has the rest."""
    for kind, text in blocks(page):
        if kind != "yaml":
            continue
        found = yaml.safe_load(text)
        if "part of a config" in text:
            rest = yaml.safe_load((ROOT / "configs" / "model-selection.yaml").read_text(encoding="utf-8"))
            config = tmp_path / "config.yaml"
            config.write_text(yaml.safe_dump({**rest, **found}), encoding="utf-8")
            load_config(config)
        elif first_word(text).startswith(".github"):
            assert all("run" in step or "uses" in step for job in found["jobs"].values() for step in job["steps"])
        else:
            assert found["gate"]


def first_word(text):
    return text.removeprefix("# ").split()[0]


def test_the_page_of_a_whole_decision_has_a_sound_config(tmp_path, monkeypatch, capsys):
    """Its config passes `check` on rows of the two sets' form, and its commands are ones that exist. The sets themselves are not ours to ship."""
    monkeypatch.chdir(tmp_path)
    (kind, text), (_, commands), _ = blocks("grade-school-math")
    Path("grade-school.yaml").write_text(text, encoding="utf-8")
    for name, answer in (("gsm8k_test.jsonl", "It is 3 + 4.\\n#### 7"), ("mgsm_zh.jsonl", "7")):
        Path(name).write_text(f'{{"question": "3 + 4?", "answer": "{answer}"}}\n', encoding="utf-8")
    assert (kind, main(["check", "grade-school.yaml"])) == ("yaml", 0)
    assert "4 requests" in capsys.readouterr().out
    parsers = [shlex.split(line)[1] for line in commands.splitlines()]
    assert parsers == ["run", "compare", "report"]
