"""The three protocols a third party can implement, and how a name in YAML becomes an object.

A name is a built-in (the tables of strings below, imported on use), an entry point of the groups `evalrunner.clients`, `evalrunner.scorers`,
`evalrunner.loaders`, or `module:attribute`. Each names a factory; its keyword arguments are the options a user may write, bound before anything is sent.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Struct, field

from evalrunner.clock import Clock
from evalrunner.errors import PluginError, ScorerError
from evalrunner.records import Completion, Judgement, Message, Request, Score, Timeouts, Verdict

Kind = Literal["clients", "scorers", "loaders", "tools"]

BUILT_IN: dict[str, dict[str, str]] = {
    "clients": {
        "dashscope": "evalrunner.clients.dashscope:dashscope_client",
        "openai": "evalrunner.clients.openai:openai_client",
        "local": "evalrunner.clients.openai:openai_client",
        "simulator": "evalrunner.clients.openai:openai_client",
    },
    "scorers": {
        "code": "evalrunner.scorers.code:code",
        "combine": "evalrunner.scorers.combine:combine",
        "cost": "evalrunner.scorers.service:cost",
        "embedding": "evalrunner.scorers.embedding:embedding",
        "exact": "evalrunner.scorers.text:exact",
        "includes": "evalrunner.scorers.text:includes",
        "regex": "evalrunner.scorers.text:regex",
        "choice": "evalrunner.scorers.choice:choice",
        "token_f1": "evalrunner.scorers.overlap:token_f1",
        "rouge": "evalrunner.scorers.overlap:rouge",
        "bleu": "evalrunner.scorers.overlap:bleu",
        "chrf": "evalrunner.scorers.overlap:chrf",
        "similarity": "evalrunner.scorers.overlap:similarity",
        "instructions": "evalrunner.scorers.instructions:instructions",
        "judge": "evalrunner.scorers.judge:judge",
        "latency": "evalrunner.scorers.service:latency",
        "numeric": "evalrunner.scorers.numeric:numeric",
        "json": "evalrunner.scorers.structured:json_",
        "tool_calls": "evalrunner.scorers.tool_calls:tool_calls",
    },
    "loaders": {
        ".jsonl": "evalrunner.plan.loaders:load_jsonl",
        ".json": "evalrunner.plan.loaders:load_json",
        ".csv": "evalrunner.plan.loaders:load_csv",
        ".tsv": "evalrunner.plan.loaders:load_tsv",
        ".parquet": "evalrunner.plan.loaders:load_parquet",
        ".yaml": "evalrunner.plan.loaders:load_yaml",
        ".yml": "evalrunner.plan.loaders:load_yaml",
    },
    "tools": {},  # what answers tool calls is always a plug-in: see engine.tools.Answer
}

EXTRAS = {"rapidfuzz": "text", "sacrebleu": "text", "py3langid": "text", "xllamacpp": "local"}
"""Which extra brings a library that not every user needs."""


class Account(Struct, frozen=True, kw_only=True):
    """One provider as a client factory receives it. `api_key` never leaves this object but into the Authorization header; repr hides it."""

    name: str
    kind: str
    base_url: str
    api_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)
    transport: str = "aiohttp"

    def __repr__(self) -> str:
        return f"Account({self.name!r}, kind={self.kind!r}, base_url={self.base_url!r})"


class Client(Protocol):
    """Sends one request and reads one answer. Raises `errors.RequestError` or `errors.EndpointError`; knows nothing of retries or limits.

    The factory is called once per account as `factory(account, clock)`.
    """

    async def complete(self, request: Request) -> Completion: ...
    async def aclose(self) -> None: ...


ClientFactory = Callable[[Account, Clock], Client]
Scorer = Callable[[Request, Completion], Score | Awaitable[Score]]
"""Scores one answer; raises `ScorerError` (or anything) for a null score with a reason. Factories take their options as keyword arguments."""


class AskedModel(Struct, frozen=True, kw_only=True):
    """A model that a scorer asks. `model`: the name of one in the config's `models`, or an id at `provider`, or a block as under `models`. `defaults` and
    `params` are sent along, the model's own parameters between the two; None takes one away.
    """

    model: str | Mapping[str, Any]
    provider: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)


class Question(Struct, frozen=True, kw_only=True):
    """What a scorer asks about one answer. `read` finds the verdict in the reply or raises `ScorerError`; `identity`: what is asked, without what is random
    in it: what was answered once is not asked again. `order` and `label` are kept with the answer.
    """

    asked: AskedModel
    messages: list[Message]
    identity: Any
    read: Callable[[str], Verdict]
    order: str = ""
    label: float | None = None


Ask = Callable[[Request, Question], Awaitable[Judgement]]
"""Brings a question about the answer to a request to its model: limits, retries, budget and records are the run's. Raises `ScorerError` where the model
has no answer; a reply that `read` did not understand is a judgement without a score.
"""


@runtime_checkable
class ReadsRows(Protocol):
    """A scorer that reads the data itself, and can be held against it before anything is sent."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the data that it reads; one that no row has is a mistake."""

    def check(self, data: Mapping[str, Any]) -> None:
        """Raises ValueError for a row that it cannot score."""


@runtime_checkable
class ReadsTarget(Protocol):
    """A scorer that cannot compare with every target."""

    def check_target(self, target: str) -> None:
        """Raises ValueError for one that it cannot compare with."""


class RowScorer:
    """A scorer with the columns that it reads (None is none) and, where it has them, its checks of a row and of a target, which raise what it would."""

    def __init__(
        self, score: Scorer, columns: Sequence[str | None] = (), check: Callable[[Mapping[str, Any]], object] = bool, target: Callable[[str], object] = bool
    ) -> None:
        functools.update_wrapper(self, score)
        self._score = score
        self._check, self._target = check, target
        self.columns = tuple(column for column in columns if column is not None)

    def __call__(self, request: Request, completion: Completion) -> Score | Awaitable[Score]:
        return self._score(request, completion)

    def check(self, data: Mapping[str, Any]) -> None:
        """See `ReadsRows`."""
        _as_value_error(self._check, data)

    def check_target(self, target: str) -> None:
        """See `ReadsTarget`."""
        _as_value_error(self._target, target)


@runtime_checkable
class AskingScorer(ReadsRows, Protocol):
    """A scorer that asks models. Its factory returns one of these in place of a function; the run makes the function of it with `bound`."""

    @property
    def needs(self) -> Sequence[AskedModel]:
        """Every model that it asks."""

    def bound(self, ask: Ask, rng: random.Random) -> Scorer:
        """The scorer itself. `rng` is for what no answer may foresee."""


Loader = Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]
"""Yields (line or row number from 1, row) in order, lazily where the format allows; raises `DatasetError` with `file:line:`."""


def find(kind: Kind, name: str) -> Callable[..., Any]:
    """The factory called `name`. Raises `PluginError` naming the nearest known name."""
    if target := BUILT_IN[kind].get(name):
        return _load(kind, name, target)
    if ":" in name:
        return _load(kind, name, name)
    found = entry_points(group=f"evalrunner.{kind}", name=name)
    for entry in found:
        return _load(kind, name, entry.value)
    known = sorted({*BUILT_IN[kind], *(entry.name for entry in entry_points(group=f"evalrunner.{kind}"))})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"hint: did you mean {near[0]!r}?" if near else f"hint: known: {', '.join(known)}; or name your own as module:attribute"
    raise PluginError(f"no {kind.removesuffix('s')} is called {name!r} ({hint})")


def origin(kind: Kind, name: str) -> str:
    """Where a plug-in comes from: its module and attribute, with the package that brings it or the file that it is. Raises `PluginError`."""
    if ":" in name:
        module = sys.modules.get(name.partition(":")[0])
        return f"{name} in {getattr(module, '__file__', None) or 'a module without a file'}" if module else name
    for entry in entry_points(group=f"evalrunner.{kind}", name=name):
        return f"{entry.value} of {entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
    raise PluginError(f"no {kind.removesuffix('s')} is called {name!r}")


def _as_value_error(check: Callable[[Any], object], what: Any) -> None:
    try:
        check(what)
    except ScorerError as error:
        raise ValueError(str(error)) from None


def inner_scorers(kind: object, options: Mapping[str, Any]) -> Any:
    """What a scorer that is made of others names as those, as written; None for any other."""
    return options.get("scorers") if kind == "combine" else None


def bind(factory: Callable[..., Any], name: str, options: Mapping[str, Any]) -> None:
    """Check `options` against the factory's keyword arguments without calling it. Raises `PluginError` naming the option."""
    signature = inspect.signature(factory)
    try:
        signature.bind(**options)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no options"
        raise PluginError(f"{name}: {error} (it takes: {takes})") from None


def _load(kind: str, name: str, target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        extra = EXTRAS.get(getattr(error, "name", None) or "")
        hint = f"; install it with: pip install 'evalrunner[{extra}]'" if extra else ""
        raise PluginError(f"{kind.removesuffix('s')} {name!r} cannot be loaded: {error}{hint}") from error
    if not callable(loaded):
        raise PluginError(f"{kind.removesuffix('s')} {name!r}: {target} is not callable")
    return loaded  # type: ignore[no-any-return]
