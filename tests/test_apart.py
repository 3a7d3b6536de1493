"""Plain functions of other people run in a process of their own: whatever they do there, the run goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from make_records import make_completion, make_request

from evalrunner.engine.scoring import score_with
from evalrunner.engine.tools import ToolAnswers
from evalrunner.errors import PluginError
from evalrunner.plan.tools import answer
from evalrunner.records import Score
from evalrunner.scorers.bounded import bounded

SECONDS = 0.5
MODULE = """
import asyncio, os, re, sys, time
from evalrunner import Score
from evalrunner.errors import ScorerError

def always(do):
    def scorer(*, key=""):
        def score(request, completion):
            return do(request, completion)
        return score
    return scorer

def forever(request, completion):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass

def sorry(request, completion):
    raise ScorerError("no number in the text")

def prints(request, completion):
    print("heard by nobody" , flush=True)
    os.write(1, b"nor this")
    return Score(value=1.0)

good = always(lambda request, completion: Score(value=0.5, why=request.sample.id + completion.output))
endless = always(forever)
endless_in_c = always(lambda request, completion: Score(value=float(bool(re.match("^(a+)+$", "a" * 60 + "!")))))
failing = always(lambda request, completion: 1 / 0)
sorry = always(sorry)
leaving = always(lambda request, completion: sys.exit(3))
gone = always(lambda request, completion: os._exit(4))
wordy = always(lambda request, completion: "quite good")
asking = always(lambda request, completion: input())
printing = always(prints)
environment = always(lambda request, completion: Score(value=1.0, why=" ".join(os.environ.values())))
process = always(lambda request, completion: Score(value=1.0, why=f"{os.getpid()} {os.getpgid(0)}"))

def elsewhere(*, module):
    if os.getpid() != int(module):
        raise ImportError("not here")
    return lambda request, completion: None

def once(*, marker):
    def score(request, completion):
        if not os.path.exists(marker):
            open(marker, "w").close()
            forever(request, completion)
        return Score(value=1.0)
    return score

def tool(name, arguments, sample):
    if arguments["say"] == "nothing":
        time.sleep(60)
    return {"name": name, "said": arguments["say"], "row": sample.data["question"]}

async def async_tool(name, arguments, sample):
    if arguments["say"] == "nothing":
        await asyncio.sleep(60)
    return {"name": name, "said": arguments["say"], "row": sample.data["question"]}
"""


@pytest.fixture(autouse=True, scope="module")
def plug_in(tmp_path_factory):
    """A module beside a config, as a user writes one."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "apart_parts.py").write_text(MODULE)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


async def scored(name, *, seconds=30.0, **options):
    return (await score_with({"mine": bounded(f"apart_parts:{name}", options, seconds)}, make_request(), make_completion()))["mine"]


async def test_a_scorer_of_others_gets_the_request_and_gives_its_score():
    """That it runs elsewhere is not to be seen: it has the sample and the answer, and its value and reason come back."""
    assert await scored("good") == Score(value=0.5, why=make_request().sample.id + make_completion().output)


@pytest.mark.parametrize("name", ["endless", "endless_in_c"])
async def test_a_scorer_that_hangs_is_killed_and_the_run_goes_on(name):
    """A loop that catches everything and a pattern that backtracks in C: the score is null with the reason, and nothing else waits meanwhile."""
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.create_task(heart())
    assert await scored(name, seconds=SECONDS) == Score(value=None, why="the scorer did not finish within 0.5 s and was cut off")
    beating.cancel()
    assert beats > 5
    assert (await scored("good")).value == 0.5


async def test_a_pattern_in_a_schema_cannot_hang_the_run():
    """`json` with a pattern that backtracks without end has no score for that answer, and one for the next."""
    scorer = bounded("json", {"schema": {"type": "string", "pattern": "^(a+)+$"}}, SECONDS)
    texts = ['"' + "a" * 60 + '!"', '"aaa"', '"ab"']
    found = [(await score_with({"json": scorer}, make_request(), make_completion(output=text)))["json"] for text in texts]
    assert [score.value for score in found] == [None, 1.0, 0.0]
    assert "did not finish" in found[0].why


async def test_combined_scorers_keep_their_limits():
    """Inside `combine` a scorer of others that ends its process costs the combined score, with its name and the reason."""
    combined = bounded("combine", {"scorers": ["exact", "apart_parts:gone"]})
    score = (await score_with({"both": combined}, make_request(), make_completion()))["both"]
    assert score == Score(value=None, why="gone: the scorer ended its process (exit code 4)")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("failing", "the scorer failed: ZeroDivisionError: division by zero"),
        ("sorry", "no number in the text"),
        ("leaving", "the scorer failed: SystemExit: 3"),
        ("wordy", "the scorer failed: it returned no Score: Expected `object`, got `str`"),
        ("asking", "the scorer failed: EOFError: EOF when reading a line"),
    ],
)
async def test_whatever_a_scorer_does_its_score_is_null_with_the_reason(name, why):
    """It raises, exits, returns nonsense or waits for a keyboard: one score is lost, and one line says why."""
    assert await scored(name) == Score(value=None, why=why)


async def test_a_scorer_that_cannot_be_made_again_says_so():
    """What its module needs may be missing in the other process: that is the reason of its null scores."""
    score = await scored("elsewhere", module=str(os.getpid()))
    assert score == Score(value=None, why="the scorer cannot be made in a process of its own: ImportError: not here")


async def test_what_a_scorer_prints_is_not_among_our_data(capfd):
    """stdout is for results that others read: a plug-in's prints go to stderr."""
    assert (await scored("printing")).value == 1.0
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "heard by nobody" in printed.err


async def test_a_scorer_sees_no_key_that_it_does_not_name(monkeypatch):
    """The environment of its process has the variable that its options name, and no other secret."""
    monkeypatch.setenv("MINE_KEY", "sk-canary-mine")
    monkeypatch.setenv("OTHER_KEY", "sk-canary-other")
    seen = (await scored("environment", key="${MINE_KEY}")).why
    assert "sk-canary-mine" in seen
    assert "sk-canary-other" not in seen


async def test_one_process_is_kept_and_ctrl_c_is_not_for_it():
    """Answers do not pay for a start each, equal scorers share the process, and a Ctrl-C in the terminal does not reach what drains."""
    scorers = [bounded("apart_parts:process", {}) for _ in range(2)]
    said = {(await score_with({"mine": scorer}, make_request(), make_completion()))["mine"].why for scorer in scorers for _ in range(3)}
    [(pid, group)] = [why.split() for why in said]
    assert (pid, group) != (str(os.getpid()), str(os.getpgid(0)))
    assert group != str(os.getpgid(0))


async def test_a_run_that_is_cancelled_does_not_wait_for_a_scorer(tmp_path):
    """What hangs is killed with the call that waited for it, not at its limit of a minute: the next call is served."""
    marker = tmp_path / "hangs"
    scorer = bounded("apart_parts:once", {"marker": str(marker)}, 60)
    call = asyncio.create_task(score_with({"mine": scorer}, make_request(), make_completion()))
    for _ in range(3000):
        await asyncio.sleep(0.01)
        if marker.exists():
            break
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(40):
        assert (await score_with({"mine": scorer}, make_request(), make_completion()))["mine"].value == 1.0


def test_any_thread_and_any_event_loop_may_score():
    """Notebooks and programs with threads use the same scorer, one loop after the other."""
    found = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(asyncio.run(scored("good")).value))
        thread.start()
        thread.join()
    assert found == [0.5, 0.5]


@pytest.mark.parametrize("name", ["endless", "good"])
def test_a_process_does_not_outlive_its_run(plug_in, tmp_path, name):
    """After `kill -9` of the run its scorers end, also those that hang."""
    program = f"""
import asyncio, os, sys
sys.path[:0] = [{str(plug_in)!r}, {str(Path(__file__).parent)!r}]
from make_records import make_completion, make_request
from evalrunner.scorers.bounded import bounded
scorer = bounded("apart_parts:{name}", {{}}, 60)
async def main():
    call = asyncio.ensure_future(scorer(make_request(), make_completion()))
    while not os.path.exists({str(tmp_path / "children")!r}):
        await asyncio.sleep(0.05)
        children = open(f"/proc/self/task/{{os.getpid()}}/children").read() or "".join(
            open(f"/proc/self/task/{{one}}/children").read() for one in os.listdir("/proc/self/task"))
        if children.strip():
            await asyncio.sleep(1)
            open({str(tmp_path / "children")!r}, "w").write(children)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for pid in (tmp_path / "children").read_text().split():
        for _ in range(200):
            if not running(int(pid)):
                break
            time.sleep(0.05)
        assert not running(int(pid))


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_no_other_process_can_import_is_refused():
    """A function of the program that is running has no module to import it from: the error says where to put it."""
    sys.modules["made_up"] = type(sys)("made_up")
    sys.modules["made_up"].scorer = lambda: lambda request, completion: None
    try:
        with pytest.raises(PluginError, match="write it into a file beside the config"):
            bounded("made_up:scorer", {})
    finally:
        del sys.modules["made_up"]


@pytest.mark.parametrize("name", ["tool", "async_tool"])
async def test_a_tool_of_others_has_a_limit_too(name):
    """It is called with name, arguments and row; what it raises, and that it did not end, is told to the model, and the run goes on."""
    tools = ToolAnswers(answer(f"apart_parts:{name}", SECONDS), 8)
    definition = {"type": "function", "function": {"name": "look", "parameters": {}}}
    call = {"id": "1", "name": "look", "arguments": '{"say": "hello"}'}
    wrong = {"id": "2", "name": "look", "arguments": '{"cry": "hello"}'}
    endless = {"id": "3", "name": "look", "arguments": '{"say": "nothing"}'}
    following = await tools.next_turn(make_request(tools=[definition]), make_completion(tool_calls=(call, wrong, endless)), 1)
    assert [message["content"] for message in following.messages[-3:]] == [
        '{"name":"look","said":"hello","row":"How much is 0 + 0?"}',
        '{"error":"\'say\'"}',
        '{"error":"did not finish within 0.5 s and was cut off"}',
    ]
