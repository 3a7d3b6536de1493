"""The code scorer: what an answer's program is, whether it passes, and that it reaches nothing and nobody."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.errors import ScorerError
from evalrunner.records import Cell, Completion, Model, Request, Sample, Timing
from evalrunner.scorers import code as code_module
from evalrunner.scorers import isolation
from evalrunner.scorers.code import code, programs
from evalrunner.scorers.isolation import Limits, run, why_not

PROMPT = 'from typing import List\n\n\ndef double(xs: List[int]) -> List[int]:\n    """Double each."""\n'
TESTS = "def check(candidate):\n    assert candidate([]) == []\n    assert candidate([1, 2]) == [2, 4]\n"
RIGHT = "    return [2 * x for x in xs]\n"
WHOLE = "def double(xs: List[int]) -> List[int]:\n    return [2 * x for x in xs]"

isolated = pytest.mark.skipif(why_not() is not None, reason=f"programs cannot be isolated here: {why_not()}")


async def score(output, scorer=None, **data):
    data = {"prompt": PROMPT, "test": TESTS, "entry_point": "double"} | data
    cell = Cell(prompt_set="s", prompt="p", model=Model(name="m", id="m", provider="x"), params={}, stream=False)
    request = Request(key="k", cell=cell, sample=Sample(id="1", data=data, hash="h"), trial=0, messages=[])
    return await (scorer or code(seconds=5))(request, Completion(output=output, finish_reason="stop", timing=Timing(started_ns=0, ended_ns=1)))


ANSWERS = {
    "a completion": RIGHT,
    "a completion without its first spaces": "return [2 * x for x in xs]\n",
    "a completion that runs on": f"{RIGHT}\n\nThis is the answer.\n",
    "a body in a fence": "```python\nreturn [2 * x for x in xs]\n```",
    "the function, with the prompt's imports": f"Here it is:\n\n```python\n{WHOLE}\n```\nIt doubles.",
    "the function without a fence": WHOLE,
    "the last of several": f"```python\ndef double(xs):\n    return xs\n```\nBetter:\n```py\n{WHOLE}\n```\n```bash\nrm -rf /\n```",
    "an indented fence, never closed": f"1. So:\n   ```python\n   {WHOLE.replace(chr(10), chr(10) + '   ')}",
    "a program of its own": f"```\nfrom __future__ import annotations\nfrom typing import List\n{WHOLE}\nif __name__ == '__main__':\n    input()\n```",
}


@isolated
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_code_is_found_as_models_write_it(answer):
    """A whole function or the rest of one, fenced or bare, with prose around it: the program is the same."""
    assert await score(answer) == await score(RIGHT)
    assert (await score(answer)).value == 1


WRONG = {
    "wrong": ("    return xs\n", "assert candidate([1, 2]) == [2, 4] → AssertionError"),
    "raises": ("    return [1 / 0]\n", "assert candidate([]) == [] → ZeroDivisionError: division by zero"),
    "not Python": ("```python\ndef double(xs:\n```", "not Python"),
    "nothing": ("", "assert candidate([]) == []"),
    "leaves early": (f"import os\nos._exit(0)\n{WHOLE}", "ended before its tests did"),
    "leaves politely": (f"import sys\nsys.exit(0)\n{WHOLE}", "SystemExit: 0 in 'sys.exit(0)'"),
    "crashes": (f"import ctypes\nctypes.string_at(0)\n{WHOLE}", "SIGSEGV"),
}


@isolated
@pytest.mark.parametrize(("answer", "why"), WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_says_which_line_failed(answer, why):
    """The reason is the test that failed and what it raised; to end before the tests is no way to pass them."""
    got = await score(answer)
    assert got.value == 0
    assert why in got.why


@isolated
async def test_tests_may_be_a_list_of_statements():
    """Data in the manner of MBPP, `test_list` and no prompt, needs two options."""
    scorer = code(tests="test_list", prompt=None, entry_point=None)
    assert (await score("```python\ndef f(x): return x\n```", scorer, test_list=["assert f(1) == 1", "assert f(2) == 2"])).value == 1
    assert (await score("def f(x): return 1", scorer, test_list=["assert f(1) == 1", "assert f(2) == 2"])).why == "assert f(2) == 2 → AssertionError"


@isolated
@pytest.mark.parametrize(
    ("data", "what"), [({"test": None}, "no tests"), ({"test": "def check(:"}, "tests are not Python"), ({"entry_point": ""}, "does not name")]
)
async def test_what_is_wrong_with_the_data_is_no_fault_of_the_answer(data, what):
    """Without tests that can run there is no score, and the reason says so."""
    with pytest.raises(ScorerError, match=what):
        await score(RIGHT, **data)


HOSTILE = {
    "a fork bomb": ("while True: os.fork()", ""),
    "a patient fork bomb": ("while True:\n    try: os.fork()\n    except OSError: pass", "not done within 1 s"),
    "killing its parent": ("os.kill(os.getppid(), 9)", None),
    "killing everybody": ("os.kill(-1, 9)", None),
    "killing its group": ("os.kill(0, 9)", "killed"),
    "a 10 GB file": ("with open('big', 'wb') as file:\n    for _ in range(10_000): file.write(b'0' * 1_000_000)", "File too large"),
    "many files": ("for n in range(1000):\n    with open(f'{n}', 'wb') as file: file.write(b'0' * 1_000_000)", "No space left"),
    "10 GB of memory": ("x = bytearray(10 * 2**30)", "MemoryError"),
    "10 GB of output": ("for _ in range(10_000): print('x' * 1_000_000)", None),
    "a flood into every open file": ("for n in range(3, 64):\n    try:\n        while True: os.write(n, b'x' * 1_000_000)\n    except OSError: pass", None),
    "an endless loop": ("while True: pass", "not done within 1 s"),
    "sleep": ("import time; time.sleep(1000)", "not done within 1 s"),
    "a process that stays behind": ("if os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(1000)", None),
    "writing where Python lives": ("open(os.__file__, 'a')", os.__file__),
    "another root": ("import ctypes\nif ctypes.CDLL(None).umount2(b'/usr', 2) or ctypes.CDLL(None).chroot(b'..'): raise OSError('no')", "no"),
}


@isolated
@pytest.mark.parametrize(("line", "why"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_answer_is_contained(line, why):
    """It is over in time, costs at most its own score, and leaves no process behind."""
    began, before = time.monotonic(), _processes()
    got = await score(f"import os\n{line}\n{WHOLE}", code(seconds=1))
    assert time.monotonic() - began < 30
    assert why is None or (got.value == 0 and why in got.why)
    async with asyncio.timeout(30):  # jails of tests in other workers come and go; one that stays is ours
        while _processes() > before:  # noqa: ASYNC110 - no event tells that another process is gone
            await asyncio.sleep(0.05)


@isolated
async def test_an_answer_has_no_network():
    """Not even this machine's own address answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        got = await score(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)\n{WHOLE}")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert "Network is unreachable" in got.why


@isolated
async def test_an_answer_sees_no_secret(tmp_path, monkeypatch):
    """The environment is empty, and there are no files but Python's own: no home, no project, no other process."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-secret")
    (tmp_path / "key").write_text("sk-secret")
    places = [str(tmp_path / "key"), str(Path(__file__)), "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ", "/proc/1/environ"]
    look = f"import os\nraise SystemExit(str([os.environ.get('DASHSCOPE_API_KEY'), [p for p in {places} if os.path.exists(p)], os.listdir()]))"
    assert "SystemExit: [None, [], []]" in (await score(f"{look}\n{WHOLE}")).why


async def test_without_isolation_nothing_runs_unless_the_config_says_unsafe(monkeypatch):
    """The refusal comes before anything is sent and says what would allow it; with `unsafe` the time limit and the empty environment are left."""
    monkeypatch.setattr(code_module, "why_not", lambda: "it needs Linux")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-secret")
    with pytest.raises(ValueError, match=r"cannot be isolated: it needs Linux; `unsafe: true` runs them"):
        code()
    scorer = code(unsafe=True, seconds=1)
    assert (await score(RIGHT, scorer)).value == 1
    assert "None" in (await score(f"import os\nraise SystemExit(os.environ.get('DASHSCOPE_API_KEY'))\n{WHOLE}", scorer)).why
    began = time.monotonic()
    assert (await score(f"import os\nos.fork()\nwhile True: pass\n{WHOLE}", scorer)).value == 0
    assert time.monotonic() - began < 5


@isolated
def test_a_jail_that_cannot_be_built_is_a_reason_and_not_a_zero(monkeypatch):
    """When `unshare` fails, the score is null: nobody knows what the program would have done."""
    monkeypatch.setattr("evalrunner.scorers.isolation._unshare", lambda _: ["/bin/false"])
    with pytest.raises(ScorerError, match="exit code 1"):
        run("print(1)", b"", Limits(), isolated=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="run by an ordinary user, every other test here is this one")
@pytest.mark.skipif(not shutil.which("python3", path="/usr/bin"), reason="needs a Python that every user may start")
@isolated
def test_an_ordinary_user_has_the_same_jail():
    """Without root, a user namespace gives the rights to build the jail, and the program inside has none of them."""
    with tempfile.TemporaryDirectory() as root:
        os.chown(root, 65534, 65534)
        look = "import ctypes, os; print(os.listdir('/tmp'), os.path.exists('/proc'), ctypes.CDLL(None).unshare(0x10000000), flush=True); open('/usr/x', 'w')"
        settings = isolation._settings(look, Limits(seconds=5), None, root) | {"readable": isolation._READABLE}
        settings["command"][0] = "/usr/bin/python3"
        jail = Path(isolation.__file__).with_name("jail.py").read_text()
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*nobody, *isolation._unshare(None), "/usr/bin/python3", "-I", "-S", "-c", jail, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={}, cwd="/")
    if done.returncode == 1 and "unshare" in done.stderr:
        pytest.skip(f"ordinary users have no namespaces here: {done.stderr}")
    assert done.stdout == "[] False -1\n"
    assert "Read-only file system: '/usr/x'" in done.stderr


@given(st.text(max_size=200), st.sampled_from(["", PROMPT]), st.sampled_from(["", "double"]))
def test_any_answer_is_some_program(text, prompt, name):
    """Whatever a model writes, there is something to run, or to refuse."""
    assert all(isinstance(program, str) for program in programs(text, prompt, name))
    assert programs(text, prompt, name)


def _processes():
    """How many processes there are that hold a jail."""
    found = 0
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += b"Process 1 of an isolated program" in place.read_bytes()
        except OSError:
            continue
    return found
