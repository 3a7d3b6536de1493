"""`doctor` says what is wrong with a set-up and what to do, and never shows a secret."""

from __future__ import annotations

import asyncio
import resource

import pytest
from scripted_server import answer, completion, scripted

from evalrunner.cli import main
from evalrunner.cli.doctor_command import _open_files, _reports
from evalrunner.open_files import OTHER_FILES

SECRET = "sk-CANARY-0123456789"  # noqa: S105 - it is none
CONFIG = """
name: demo
providers:
  mine: {{kind: openai, base_url: "{url}", api_key: "${{DOCTOR_KEY}}"}}
models: [{{id: m, provider: mine}}]
stream: false
prompt_sets:
  - {{name: s, samples: [{{q: one}}], prompts: {{p: "{{{{ q }}}}"}}}}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCTOR_KEY", SECRET)


def config(folder, url="http://127.0.0.1:9/v1"):
    path = folder / "demo.yaml"
    path.write_text(CONFIG.format(url=url))
    return str(path)


async def doctor(*args):
    """The command beside a server of this loop."""
    return await asyncio.to_thread(main, ["doctor", *args])


def test_a_sound_machine_has_no_problem(capsys, monkeypatch):
    """Without a config it looks at this machine alone: versions, extras, the cache, space, locks, open files, proxies with their credentials masked."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{SECRET}@proxy.example:3128")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for words in ("Python 3.", "aiohttp ", "extra local", "embedded model", "GB free", "written and locked", "open files", "proxy.example:3128"):
        assert words in said
    assert SECRET not in said
    assert all(line.startswith(("ok ", "warning ", " ")) for line in said.splitlines())


def test_a_missing_variable_is_named_with_what_to_do(tmp_path, monkeypatch, capsys):
    """Exit 2, the variable's name, and the line that sets it; no host is asked."""
    monkeypatch.delenv("DOCTOR_KEY")
    assert main(["doctor", config(tmp_path)]) == 2
    assert "DOCTOR_KEY (provider mine) is not set" in (said := capsys.readouterr().out)
    assert "→ export DOCTOR_KEY=…" in said


@pytest.mark.parametrize("value", [f"{SECRET}\n", f'"{SECRET}"', f"Bearer {SECRET}"])
def test_a_value_that_was_pasted_wrongly_is_a_warning(tmp_path, monkeypatch, capsys, value):
    """Blanks, quotes or `Bearer` around a key are seen, and not shown."""
    monkeypatch.setenv("DOCTOR_KEY", value)
    assert main(["doctor", config(tmp_path), "--offline"]) == 0
    assert "warning  DOCTOR_KEY (provider mine) is set, with blanks, quotes or `Bearer`" in (said := capsys.readouterr().out)
    assert SECRET not in said


def test_a_mistake_in_the_config_is_told_at_its_place(tmp_path, capsys):
    """What `check` says, doctor says too."""
    path = config(tmp_path)
    (tmp_path / "demo.yaml").write_text((tmp_path / "demo.yaml").read_text() + "trails: 3\n")
    assert main(["doctor", path]) == 2
    assert "demo.yaml:9:1: trails: " in capsys.readouterr().out


async def test_a_model_that_answers_is_ok_after_one_small_request(tmp_path, capsys):
    """Host, key and name are right: one request of one token shows it; `--offline` sends none."""
    async with scripted(answer(completion()), repeat=True) as server:
        assert await doctor(config(tmp_path, server.url)) == 0
        assert f"ok       m answers (mine, {server.url})" in capsys.readouterr().out
        assert [received.json["max_tokens"] for received in server.requests] == [1]
        assert await doctor(config(tmp_path, server.url), "--offline") == 0
        assert len(server.requests) == 1


async def test_judges_are_asked_too(tmp_path, monkeypatch, capsys):
    """A judge's model gets its small request like any other, and a judge's key that is not set is told."""
    async with scripted(answer(completion()), repeat=True) as server:
        path = config(tmp_path, server.url)
        judged = ', scorers: [{judge: {model: {id: j, provider: other}, rubric: "Good?"}}]}'
        text = (tmp_path / "demo.yaml").read_text().replace('"{{ q }}"}}', '"{{ q }}"}' + judged)
        other = f'  other: {{kind: openai, base_url: "{server.url}", api_key: "${{JUDGE_KEY}}"}}\n'
        (tmp_path / "demo.yaml").write_text(text.replace("models:", f"{other}models:"))
        assert await doctor(path) == 2
        assert "JUDGE_KEY (provider other) is not set" in capsys.readouterr().out
        monkeypatch.setenv("JUDGE_KEY", SECRET)
        assert await doctor(path) == 0
        assert f"ok       j answers (other, {server.url})" in capsys.readouterr().out
        assert sorted(received.json["model"] for received in server.requests) == ["j", "m"]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"error": {"code": "invalid_api_key", "message": f"Incorrect API key provided: {SECRET}"}}, 5),
        (404, {"error": {"code": "model_not_found", "message": "The model `m` does not exist"}}, 2),
    ],
)
async def test_a_refusal_is_the_providers_word_without_the_key(tmp_path, capsys, status, body, code):
    """A wrong key is exit 5, an unknown model exit 2; a key that the provider echoes is masked."""
    async with scripted(answer(body, status=status), repeat=True) as server:
        assert await doctor(config(tmp_path, server.url)) == code
    said = capsys.readouterr().out
    assert "problem  preflight: m (mine): " in said
    assert SECRET not in said


def test_too_few_open_files_are_a_problem_with_the_number_that_is_enough():
    """More requests at once than files may be open: told before the run finds out."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    finding = _open_files(hard)
    assert finding.level == "problem"
    assert f"ulimit -n {hard + OTHER_FILES}" in finding.what
    assert _open_files(16).level == "ok"


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    """Runs could not be kept there: the finding names the folder and the option that helps."""
    locked = tmp_path / "locked"
    locked.mkdir()
    (tmp_path / "file").write_text("x")
    assert {finding.level for finding in _reports(locked)} == {"ok"}
    assert {finding.level for finding in _reports(tmp_path / "not" / "made" / "yet")} == {"ok"}
