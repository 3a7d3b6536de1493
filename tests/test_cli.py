"""The command line as a shell sees it: what goes to which stream, and the exit codes."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from evalrunner.cli import COMMANDS, main
from evalrunner.cli.export_command import cell


def evalrunner(*args, **kwargs):
    return subprocess.run([sys.executable, "-m", "evalrunner", *map(str, args)], capture_output=True, text=True, check=False, **kwargs)


def test_help_names_every_command_that_works_and_no_other():
    """`--help` is the list of what can be done now."""
    said = evalrunner("--help")
    assert said.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in said.stdout
    for later in ("estimate", "bench", "compare", "rescore", "doctor"):
        assert later not in COMMANDS or f"\n  {later} " in said.stdout


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_cannot_be_is_a_mistake_in_the_call(port, capsys):
    """One line that says what would do, and exit code 2: no traceback of ours."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", f"--port={port}"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"evalrunner simulate: error: argument --port: should be a number from 0 to 65535, not {port!r}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    """`COMMAND --help` works for each and exits 0."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: evalrunner {name}" in said
    assert COMMANDS[name][1:] in " ".join(said.split())  # names keep their capitals: Parquet, HTML, Qwen API


def test_help_imports_nothing_heavy():
    """Start-up stays quick because the first look at the help loads no data or network library."""
    code = "import sys; from evalrunner.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('pandas','pyarrow','aiohttp','httpx','pydantic','scipy','jinja2','msgspec') if m in sys.modules], file=sys.stderr)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stderr.strip() == "[]"


@pytest.mark.parametrize(("args", "hint"), [((), "COMMAND"), (("rnu",), "invalid choice"), (("run",), "CONFIG"), (("export", "x"), "--csv")])
def test_wrong_usage_is_exit_2(args, hint):
    """A usage mistake prints what is wrong on stderr, nothing on stdout, and exits 2."""
    said = evalrunner(*args)
    assert said.returncode == 2
    assert hint in said.stderr
    assert said.stdout == ""


@pytest.mark.parametrize("template", ["model-selection", "prompt-regression"])
def test_init_writes_a_config_that_checks(tmp_path, template):
    """What `init` writes passes `check` as it is, and a second `init` in the same place overwrites nothing."""
    made = evalrunner("init", tmp_path / "new", "--template", template)
    assert made.returncode == 0, made.stderr
    paths = made.stdout.split()
    config = next(path for path in paths if path.endswith(".yaml"))
    checked = evalrunner("check", config)
    assert checked.returncode == 0, checked.stderr
    again = evalrunner("init", tmp_path / "new", "--template", template)
    assert again.returncode == 2
    assert "already there" in again.stderr


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\u200b=1", "＝1", "-Infinity"])
def test_csv_texts_that_a_spreadsheet_would_run_are_quoted(text):
    """An answer that looks like a formula arrives as text; `--raw` turns that off; numbers stay numbers."""
    assert cell(text) == f"'{text}"
    assert cell(text, raw=True) == text
    assert cell(-1.5) == -1.5
    assert cell("a-b") == "a-b"
    assert cell(None) == ""


def test_csv_cells_survive_a_round_trip():
    """Commas, quotes and line breaks inside an answer stay inside its cell."""
    out = io.StringIO()
    csv.writer(out).writerow([cell('a,"b"\nc'), cell([("tag", "x")])])
    assert next(csv.reader(io.StringIO(out.getvalue()))) == ['a,"b"\nc', json.dumps({"tag": "x"})]


SUMS = "name: t\nmodels: [{id: m, provider: PROVIDER}]\nprompt_sets:\n  - name: s\n    samples: [{q: 1 + 1}]\n    prompts: {p: '{{ q }}'}\n"


def test_a_scorer_that_compares_needs_a_target(tmp_path):
    """Without it every answer would be paid for and none scored: it is told at the scorer's place, and nothing is sent."""
    (tmp_path / "c.yaml").write_text(
        SUMS.replace("PROVIDER", "simulator") + "    scorers: [exact, {regex: {pattern: x}}, {regex: {pattern: (x), group: 1, name: y}}]\n"
    )
    said = evalrunner("check", "c.yaml", cwd=tmp_path)
    assert said.returncode == 2
    assert "c.yaml:7:15: prompt_sets[0].scorers[0]: exact compares with the target, and there is none (hint: add target:)" in said.stderr
    assert "scorers[2]" in said.stderr
    assert "scorers[1]" not in said.stderr


@pytest.mark.parametrize(
    ("samples", "words"), [(1, "with 1 sample, no difference can be seen"), (2, "with 2 samples, differences below about 89 points cannot")]
)
def test_check_says_what_so_few_samples_can_show(tmp_path, capsys, samples, words):
    """A difference of more than 100 points is none: one sample shows nothing, and that is said."""
    rows = ", ".join(f"{{id: {number}, word: a}}" for number in range(samples))
    provider = "providers: {p: {kind: simulator}}\nmodels: [{id: qwen-turbo, provider: p}]\n"
    sets = f"prompt_sets: [{{name: s, samples: [{rows}], id: id, prompts: {{p: '{{{{ word }}}}'}}, target: a, scorers: [exact]}}]\n"
    (tmp_path / "few.yaml").write_text(f"name: few\n{provider}{sets}")
    assert main(["check", str(tmp_path / "few.yaml")]) == 0
    assert words in capsys.readouterr().out


def test_check_needs_no_key(tmp_path):
    """`check` sends nothing, so a key that is not set is a warning there; `run` refuses, and no word of ours is masked."""
    (tmp_path / "c.yaml").write_text(SUMS.replace("PROVIDER", "dashscope") + "    target: '2'\n    scorers: [exact]\n")
    environ = {name: value for name, value in os.environ.items() if name != "DASHSCOPE_API_KEY"}
    said = evalrunner("check", "c.yaml", cwd=tmp_path, env=environ)
    assert said.returncode == 0
    assert "warning: c.yaml:2:10: models[0]: the environment variable DASHSCOPE_API_KEY is not set" in said.stderr
    said = evalrunner("run", "c.yaml", cwd=tmp_path, env=environ)
    assert said.returncode == 2
    assert "[secret]" not in said.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]


def test_the_runs_own_simulator_knows_the_runs_models(tmp_path):
    """Any model name can be rehearsed; `export` to `-` is the data on stdout and nothing else."""
    (tmp_path / "c.yaml").write_text(SUMS.replace("PROVIDER", "simulator") + "    target: '2'\n    scorers: [numeric]\n")
    assert evalrunner("run", "c.yaml", "--out", "run", cwd=tmp_path).returncode == 0
    rows = evalrunner("export", "run", "--jsonl", "-", cwd=tmp_path).stdout
    assert [json.loads(line)["model"] for line in rows.splitlines()] == ["m"]
