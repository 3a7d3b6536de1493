"""The small check before the grid."""

import pytest

from evalrunner.engine.preflight import preflight
from evalrunner.errors import (
    AuthError,
    BadOutputError,
    BrokenStreamError,
    ConfigError,
    RateLimitedError,
    RejectedError,
    TransportError,
    UnknownModelError,
    UnreachableError,
)
from evalrunner.records import Cell, Completion, Model, Request, Sample, Timing

ANSWER = Completion(output="Hi", finish_reason="length", timing=Timing(started_ns=0, ended_ns=1))


class Clients(dict):
    """Clients by account whose answers are given per model id: a Completion, or an error to raise."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def __missing__(self, account):
        return self

    async def complete(self, request):
        self.asked.append(request)
        answer = self.answers.get(request.cell.model.id, ANSWER)
        if isinstance(answer, Exception):
            raise answer
        return answer


class OnePlan:
    """A plan whose models each have one request with every kind of parameter."""

    def requests(self, model):
        params = {"temperature": 0.7, "max_tokens": 2000, "enable_thinking": False}
        cell = Cell(prompt_set="s", prompt="p", model=model, params=params, stream=True)
        yield Request(key="k", cell=cell, sample=Sample(id="1", data={}, hash="h"), trial=0, messages=[{"role": "user", "content": "long " * 1000}])


class NoWait:
    """A clock on which waiting takes no time, and is counted."""

    def __init__(self):
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)


def models(*names, provider="acme"):
    return [Model(name=name, id=name, provider=provider) for name in names]


async def check(asked, clients):
    clock = NoWait()
    await preflight(OnePlan(), asked, clients, clock)
    return clock


async def test_it_is_small():
    """Each model is asked once, for one token, with what decides over thinking and nothing else of the grid."""
    clients = Clients()
    await check(models("a", "b"), clients)
    assert [request.cell.model.id for request in clients.asked] == ["a", "b"]
    assert clients.asked[0].cell.params == {"enable_thinking": False, "max_tokens": 1}
    assert len(str(clients.asked[0].messages)) < 50
    assert clients.asked[0].cell.stream


@pytest.mark.parametrize("refusal", [RejectedError("max_tokens too small"), RateLimitedError("slow down")])
async def test_a_refused_question_still_shows_that_key_host_and_name_are_right(refusal):
    """What the provider says of the small question itself is no reason to stop."""
    await check(models("a"), Clients(a=refusal))


@pytest.mark.parametrize(
    "error", [BadOutputError("the answer cannot be read", raw=b"<html>"), BrokenStreamError("no finish reason"), BadOutputError("neither")]
)
async def test_a_host_that_answers_as_something_else_stops(error):
    """A web page under base_url, with 200: nothing of the grid is sent, and the message says where to look."""
    with pytest.raises(UnreachableError, match=r"a \(acme\): .*not as this API does.*check base_url"):
        await check(models("a"), Clients(a=error))


async def test_a_mistake_of_a_client_is_no_mistake_of_the_program():
    """A plug-in that raises what it likes stops the run before anything is sent, with its words and exit code 5, and not as a crash of ours."""
    with pytest.raises(UnreachableError, match="the client failed: KeyError: 'choices'"):
        await check(models("a"), Clients(a=KeyError("choices")))


async def test_a_thought_that_one_token_cuts_off_is_an_answer():
    """A model that thinks has no text after one token: its answer is empty, and its own."""
    await check(models("a"), Clients(a=BadOutputError("the answer has neither text nor tool calls", response_id="chatcmpl-1")))


async def test_a_wrong_key_costs_one_request_per_account():
    """A key that is wrong is wrong for all models of the account; other accounts are still checked, and all is told at once."""
    clients = Clients(a=AuthError("bad key"), c=AuthError("bad key too"))
    with pytest.raises(UnreachableError, match=r"(?s)a \(acme\): bad key.*c \(other\): bad key too") as caught:
        await check([*models("a", "b"), *models("c", "d", provider="other")], clients)
    assert caught.value.exit_code == 5
    assert sorted(request.cell.model.id for request in clients.asked) == ["a", "c"]


async def test_unknown_models_are_a_mistake_in_the_config():
    """Every unknown model is named, and the exit code is the config's."""
    with pytest.raises(ConfigError, match=r"(?s)a .*no such model.*b .*no such model") as caught:
        await check(models("a", "b"), Clients(a=UnknownModelError("no such model"), b=UnknownModelError("no such model")))
    assert caught.value.exit_code == 2


async def test_a_path_where_nothing_is_points_to_base_url():
    """A base URL without its /v1 is the usual reason for a 404 that is about no model: the message says where to look."""
    with pytest.raises(UnreachableError, match=r"nothing at /v2; check base_url"):
        await check(models("a"), Clients(a=AuthError("nothing at /v2.", http_status=404)))


async def test_a_host_that_does_not_answer_is_asked_again_before_giving_up():
    """One lost packet does not stop a study; a dead host does, by name."""
    clients = Clients(a=TransportError("cannot connect to nx.invalid"))
    with pytest.raises(UnreachableError, match=r"nx\.invalid; check base_url"):
        await check(models("a"), clients)
    assert len(clients.asked) == 3
