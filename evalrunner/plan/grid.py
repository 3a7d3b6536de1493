"""A config -> `Plan`: prompt sets × samples × prompts × models × params × stream × trials, lazily, each request with its content-hash key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import product
from os.path import normpath
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from evalrunner.analysis.rules import CellKey, Gate
from evalrunner.cost.models import lookup
from evalrunner.engine.tools import ToolAnswers
from evalrunner.errors import ConfigError, RunError
from evalrunner.plan.asked import asked_fields, judges_of
from evalrunner.plan.buckets import buckets
from evalrunner.plan.budget import budget_of
from evalrunner.plan.config import Config
from evalrunner.plan.config_types import MessageBlock, ModelFields, PriceBlock, PromptSetBlock, RetryBlock
from evalrunner.plan.config_values import REFERENCE
from evalrunner.plan.datasets import Dataset, FileRows, InlineRows, Rows, Selection
from evalrunner.plan.gates import cell_keys, gates_of
from evalrunner.plan.labels import read_labels, shared_labels
from evalrunner.plan.media import KINDS, MediaFolder
from evalrunner.plan.mistakes import Mistake
from evalrunner.plan.opponents import read_opponents
from evalrunner.plan.prompt_sets import PromptSet, render, tools_of, validate
from evalrunner.plan.prompts import Conversation, Prompt, Text
from evalrunner.plan.providers import STARTED_HERE, Provider, account, provider, unset
from evalrunner.plan.refusals import Takers, refusals, unknown_models
from evalrunner.plan.tools import Tools, answer, refused_by_dashscope
from evalrunner.plan.yaml_source import KeyPath
from evalrunner.plugins import Account, AskingScorer, Scorer, find
from evalrunner.records import Cell, Limits, Model, Price, PriceTier, Request, Timeouts
from evalrunner.scorers.bounded import bounded

FIRST_SEED = 1000
"""Trial k sends seed 1000 + k when the config gives none: the service's own default seed is fixed."""

MAX_TURNS = 8
"""Answers of the model in one tool conversation, where the config says nothing."""


Place = tuple[str, str]
"""(prompt set, sample id)"""


class Gold(NamedTuple):
    """What a sample was, beside what was asked of it."""

    sample_hash: str
    target: str | None


NOTHING: Mapping[Place, Gold] = {}


class Point(Struct, frozen=True, kw_only=True):
    """One cell with what its keys have in common."""

    cell: Cell
    identity: bytes
    seeded: bool


class Plan:
    """Every request of a config; implements `records.Plan`. Iterating makes the requests, nothing is held but small data sets."""

    def __init__(self, config: Config, prompt_sets: Sequence[PromptSet]) -> None:
        self.config = config
        self.prompt_sets = tuple(prompt_sets)
        settings = config.settings
        self.name = settings.name
        self.trials = settings.trials
        self.preflight = settings.preflight
        self.allow_unanswered = settings.allow_unanswered
        self.retry: RetryBlock = settings.retry
        self.timeouts = Timeouts(**settings.timeouts.model_dump())
        scorers = [prompt_set.scorers for prompt_set in prompt_sets]
        asked = asked_fields(scorers, settings.models)
        self._fields = {model.name: model for model in (*settings.models, *asked.values())}
        self._providers = {name: provider(name, settings.providers.get(name)) for name in dict.fromkeys(model.provider for model in self._fields.values())}
        known = {name: _model(model, self._providers[model.provider]) for name, model in self._fields.items()}
        self.models = tuple(known[model.name] for model in settings.models)
        self.judges = judges_of(scorers, asked, known)
        self.budget = budget_of(config, tuple(known.values()))
        self.gates = tuple(gates_of(self))

    @property
    def everybody(self) -> list[Model]:
        """The models that are asked: those of the grid, then judges."""
        return list(dict.fromkeys([*self.models, *(judge.model for judge in self.judges.values())]))

    @property
    def size(self) -> int:
        """Requests in all; counts the rows of the data files once."""
        return sum(self.size_of(model) for model in self.models)

    def size_of(self, model: Model) -> int:
        """Requests of one model."""
        per_sample = len(self._params(model)) * len(self.config.settings.stream) * self.trials
        return per_sample * sum(len(prompt_set.data) * len(prompt_set.prompts) for prompt_set in self.prompt_sets)

    @property
    def cells(self) -> int:
        """Points of the grid, over all prompt sets and models."""
        points = sum(len(self._params(model)) for model in self.models) * len(self.config.settings.stream)
        return points * sum(len(prompt_set.prompts) for prompt_set in self.prompt_sets)

    def grid(self) -> Iterator[Cell]:
        """Every cell."""
        for model in self.models:
            for prompt_set in self.prompt_sets:
                for prompt in prompt_set.prompts:
                    yield from (point.cell for point in self._points(model, prompt_set.name, prompt.name))

    def check_baselines(self, check: Callable[[Gate, Sequence[CellKey], Mapping[tuple[str, str], str], Mapping[str, Any]], None]) -> None:
        """Have `check` look at each gate with the cells of this plan, the hashes of its samples and what a manifest will say. Raises `ConfigError`."""
        if not any(gate.baseline for gate in self.gates):
            return
        problems, cells, described = [], cell_keys(self), self.describe()
        hashes = {(one.name, sample.id): sample.hash for one in self.prompt_sets for sample in one.data}
        for index, gate in enumerate(self.gates):
            try:
                check(gate, cells, hashes, described)
            except RunError as error:
                problems.append(self.config.places.line(Mistake(("gate", index, "baseline"), str(error))))
        if problems:
            raise ConfigError(*problems)

    @cached_property
    def param_names(self) -> list[str]:
        """Every parameter of the grid, sorted."""
        return sorted({name for model in self.models for name in self._grid(model)})

    @cached_property
    def scorer_names(self) -> list[str]:
        """Every scorer's column, in the order written."""
        return list(dict.fromkeys(name for prompt_set in self.prompt_sets for name in prompt_set.scorers))

    def scorers(self, prompt_set: str) -> list[tuple[str, Scorer | AskingScorer]]:
        """(column, scorer) of one prompt set."""
        return [(name, scorer) for one in self.prompt_sets if one.name == prompt_set for name, scorer in one.scorers.items()]

    def limits(self, model: Model) -> Limits:
        """The model's over the provider's over the defaults."""
        return self._providers[model.provider].limits_of(self._fields[model.name])

    def bucket(self, model: Model) -> tuple[str, Limits]:
        """The bucket the model's requests are counted in, by name, and what holds for that."""
        return self._buckets[model]

    def connections(self, models: Iterable[Model]) -> int:
        """How many these have open at a time at most. What the run starts itself has both ends of each."""
        found = {}
        for model in models:
            name, limits = self.bucket(model)
            found[name] = limits.concurrency * (2 if self._providers[model.provider].kind in STARTED_HERE else 1)
        return sum(found.values())

    @cached_property
    def _buckets(self) -> dict[Model, tuple[str, Limits]]:
        return buckets({model: self.limits(model) for model in self.everybody}, self.accounts)

    @cached_property
    def accounts(self) -> dict[str, Account]:
        """The providers in use, secrets filled in; no base_url yet for a kind the run starts itself. Raises `ConfigError` for a variable not set."""
        problems = []
        for index, model in enumerate(self._fields.values()):
            for name in unset(self._providers[model.provider], self.config.environ):
                written = model.provider in self.config.settings.providers
                listed = index < len(self.models)
                path: KeyPath = ("providers", model.provider) if written else ("models", index) if listed else ("prompt_sets",)
                problems.append(
                    self.config.places.line(
                        Mistake(path, f"the environment variable {name} is not set (hint: provider {model.provider} needs it; export it in your shell)")
                    )
                )
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        ids = {name: [model.id for model in self._fields.values() if model.provider == name] for name in self._providers}
        return {name: account(written, self.config.environ, self.timeouts, ids[name]) for name, written in self._providers.items()}

    def warnings(self) -> list[str]:
        """What may be meant and may be a mistake."""
        unknown = list(unknown_models(self.config.settings))
        told = {self.models[mistake.path[1]].name for mistake in unknown if isinstance(mistake.path[1], int)}
        unpriced = [model.name for model in self.everybody if model.price is None and self._providers[model.provider].kind not in STARTED_HERE]
        if unpriced := [name for name in unpriced if name not in told]:
            hint = "give each a price: {input: …, output: …, currency: …} per million tokens; 0 where it is free"
            unknown.append(Mistake(("models",), f"no price is known for {', '.join(unpriced)}: what they cost stays unknown (hint: {hint})"))
        lines = [*map(self.config.places.line, unknown), *shared_labels(self.prompt_sets, self.cells * self.trials)]
        return [f"warning: {line}" for line in lines]

    def secrets(self) -> list[str]:
        """The values that must never be written anywhere: keys and headers that came out of the environment."""
        names = {name for written in self._providers.values() for name in written.secret_references()}
        names |= {name for block in self.config.settings.prompt_sets for scorer in block.scorers for name in REFERENCE.findall(str(scorer.options))}
        return sorted({value for name in names if (value := self.config.environ.get(name))})

    def requests(self, model: Model, then: Mapping[Place, Gold] = NOTHING) -> Iterator[Request]:
        """The model's requests: prompt set, sample, prompt, params × stream, trial. Raises `DatasetError` for a row that has no prompt.

        `then`: keys are those that a request had while its sample had this hash and this target.
        """
        seeds = [FIRST_SEED + trial if self.trials > 1 else None for trial in range(self.trials)]
        for prompt_set in self.prompt_sets:
            points = {prompt.name: self._points(model, prompt_set.name, prompt.name) for prompt in prompt_set.prompts}
            choice = prompt_set.written.tool_choice
            for sample in prompt_set.data:
                tools = tools_of(prompt_set, sample)
                also = [tools, choice, prompt_set.written.tool_results, prompt_set.written.max_turns] if tools else []
                for prompt in prompt_set.prompts:
                    messages, media, target = render(prompt_set, prompt, sample)
                    gold = then.get((prompt_set.name, sample.id), Gold(sample.hash, target))
                    content = _digest([sample.id, gold.sample_hash, messages, gold.target, *also])
                    for point in points[prompt.name]:
                        for trial, seed in enumerate(seeds):
                            sent = None if point.seeded else seed
                            key = blake2b(b"%b%b%d:%d" % (point.identity, content, trial, -1 if sent is None else sent), digest_size=16).hexdigest()
                            yield Request(
                                key=key,
                                cell=point.cell,
                                sample=sample,
                                trial=trial,
                                messages=messages,
                                media=media,
                                target=target,
                                seed=sent,
                                tools=tools,
                                tool_choice=choice,
                            )

    def validate(self) -> None:
        """Render every sample with every prompt, once. Raises `DatasetError` with the first twenty mistakes; the same one in many rows is one line."""
        validate(self.prompt_sets)
        self.inform_judges()

    def inform_judges(self, run_id: str | None = None) -> None:
        """Tell the judges what people said of the answers of a run, and what others are compared with. Raises RunError; without a run that is all."""
        read_labels(self.prompt_sets, self.config.folder, run_id)
        read_opponents(self.prompt_sets, self.config.folder, run_id)

    def describe(self) -> dict[str, Any]:
        """What the manifest keeps of the plan. JSON-able; secrets are references."""
        settings = self.config.settings
        fields = {scorer.column: scorer for prompt_set in settings.prompt_sets for scorer in prompt_set.scorers}
        return {
            "size": self.size,
            "trials": self.trials,
            "grid": settings.grid.values,
            "stream": settings.stream,
            "params": self.param_names,
            "models": [_described_model(model, self._fields[model.name]) for model in self.models],
            "scorers": [{"name": name, "kind": scorer.kind, "options": scorer.options} for name, scorer in fields.items()],
            **({"judges": self._described_judges()} if self.judges else {}),
            "prompt_sets": [_described_set(prompt_set) for prompt_set in self.prompt_sets],
            "providers": [_described_provider(written) for written in self._providers.values()],
            "retry": settings.retry.model_dump(),
            "timeouts": settings.timeouts.model_dump(),
            "preflight": self.preflight,
            "budget": self.budget.model_dump(exclude_none=True) if self.budget else None,
            "allow_unanswered": self.allow_unanswered,
            "gate": [block.model_dump(exclude_defaults=True) for block in settings.gate],
            "overrides": list(self.config.overrides),
            "limit": self.config.limit,
        }

    def _described_judges(self) -> list[dict[str, Any]]:
        """Which scorer asks which model, and with which parameters."""
        return [
            {"scorer": scorer, **_described_model(judge.model, self._fields[judge.model.name]), "params": dict(judge.params)}
            for (scorer, _), judge in self.judges.items()
        ]

    def _grid(self, model: Model) -> dict[str, list[Any]]:
        return self.config.settings.grid.values | self._fields[model.name].params.values

    def _params(self, model: Model) -> list[dict[str, Any]]:
        """The model's points: its own parameters replace the grid's, nulls are left out."""
        grid = self._grid(model)
        return [{name: value for name, value in zip(grid, point, strict=True) if value is not None} for point in product(*grid.values())]

    def _points(self, model: Model, prompt_set: str, prompt: str) -> list[Point]:
        common = [self._providers[model.provider].identity(), model.id, model.name, prompt_set, prompt]
        return [
            Point(
                cell=Cell(prompt_set=prompt_set, prompt=prompt, model=model, params=params, stream=stream),
                identity=_digest([*common, params, stream]),
                seeded="seed" in params,
            )
            for params, stream in product(self._params(model), self.config.settings.stream)
        ]


def make_plan(config: Config) -> Plan:
    """Compile the prompts and build the scorers; reads no data yet. Raises `ConfigError`."""
    refused = [config.places.line(mistake) for mistake in refusals(config.settings)]
    if refused:
        raise ConfigError(*dict.fromkeys(refused))
    takers = Takers(config.settings)
    return Plan(config, [_prompt_set(config, index, block, takers) for index, block in enumerate(config.settings.prompt_sets)])


def _prompt_set(config: Config, index: int, block: PromptSetBlock, takers: Takers) -> PromptSet:
    limit, sample = block.limit, block.sample
    if config.limit is not None:
        limit = None if sample else min(limit or config.limit, config.limit)
        sample = min(sample, config.limit) if sample else None
    media = MediaFolder(None if block.data is None else Path(normpath(config.folder / block.data)).parent, config.folder)
    prompts: list[Prompt | Conversation] = [
        _prompt(config, ("prompt_sets", index, "prompts", name), messages, media) for name, messages in (block.prompts or {}).items()
    ]
    if block.messages_from is not None:
        prompts.append(Conversation(block.messages_from))
    selection = Selection(id=block.id, tags=tuple(block.tags), limit=limit, sample=sample, seed=block.seed)
    return PromptSet(
        name=block.name,
        data=Dataset(_rows(config, index, block), selection),
        written=block,
        prompts=tuple(prompts),
        target=None if block.target is None else Text(block.target),
        tools=_tools(config, index, block),
        tool_answers=None if block.tool_results is None else ToolAnswers(answer(block.tool_results), block.max_turns or MAX_TURNS),
        scorers={scorer.column: bounded(scorer.kind, scorer.options) for scorer in block.scorers},
        media=media,
        takers=takers,
    )


def _tools(config: Config, index: int, block: PromptSetBlock) -> Tools | None:
    if not (block.tools or block.tools_from):
        return None
    dashscope = any(provider(model.provider, config.settings.providers.get(model.provider)).dashscope for model in config.settings.models)
    names = [tool["function"]["name"] for tool in block.tools or ()]
    if dashscope and (refused := refused_by_dashscope(names, block.tool_choice)):
        key = "tool_choice" if block.tool_choice == "required" else "tools"
        raise ConfigError(config.places.line(Mistake(("prompt_sets", index, key), refused)))
    return Tools(block.tools, block.tools_from, block.tool_choice, dashscope=dashscope)


def _prompt(config: Config, path: KeyPath, messages: Sequence[MessageBlock], media: MediaFolder) -> Prompt:
    """A prompt whose typed paths are found already. Raises `ConfigError` at the path that is wrong."""
    sources: dict[str, str] = {}
    written: list[dict[str, Any]] = [message.model_dump(exclude_unset=True) for message in messages]
    for number, message in enumerate(written):
        for place, part in enumerate(message["content"] if isinstance(message["content"], list) else ()):
            [(kind, text)] = part.items()
            if kind in KINDS and "{" not in text:
                try:
                    message["content"][place] = media.part(part, sources, typed=True)
                except ValueError as error:
                    raise ConfigError(config.places.line(Mistake((*path, number, "content", place, kind), str(error)))) from None
    return Prompt(str(path[-1]), written, sources)


def _rows(config: Config, index: int, block: PromptSetBlock) -> Rows:
    if block.data is None:
        samples = block.samples or []
        return InlineRows(samples, [config.places.of(("prompt_sets", index, "samples", row)) for row in range(len(samples))])
    path = Path(normpath(config.folder / block.data))
    return FileRows(path, find("loaders", block.loader or path.suffix.lower()))


def _model(fields: ModelFields, written: Provider) -> Model:
    known = lookup(fields.id) if written.region else None
    price = _price(fields.price) if fields.price else known.prices.get(written.region or "") if known else None
    return Model(name=fields.name, id=fields.id, provider=fields.provider, price=price)


def _price(block: PriceBlock) -> Price:
    tiers = [tier.model_dump() for tier in block.tiers] if block.tiers else [block.model_dump(include={"input", "output", "cached", "cache_write", "thinking"})]
    return Price(currency=block.currency, tiers=tuple(PriceTier(**tier) for tier in tiers), source=block.source or "config", date=block.date)


def _digest(content: Any) -> bytes:
    """16 bytes of the content's canonical JSON."""
    return blake2b(msgspec.json.encode(content, order="deterministic"), digest_size=16).digest()


def _described_model(model: Model, fields: ModelFields) -> dict[str, Any]:
    own = {"params": fields.params.values} if fields.params.values else {}
    return {"name": model.name, "id": model.id, "provider": model.provider, "price": msgspec.to_builtins(model.price), **own}


def _described_set(prompt_set: PromptSet) -> dict[str, Any]:
    return {
        "name": prompt_set.name,
        "data": prompt_set.written.data,
        "data_hash": prompt_set.data.hash,
        **({"media_hash": prompt_set.media.hash} if prompt_set.media.hash else {}),
        "samples": len(prompt_set.data),
        "prompts": {prompt.name: prompt.template for prompt in prompt_set.prompts},
        "target": prompt_set.written.target,
        "tags": prompt_set.written.tags,
        "scorers": list(prompt_set.scorers),
        **prompt_set.written.model_dump(include={"tools", "tools_from", "tool_choice", "tool_results", "max_turns"}, exclude_none=True),
    }


def _described_provider(written: Provider) -> dict[str, Any]:
    return {"name": written.name, "kind": written.kind, "base_url": written.base_url, "api_key": written.api_key, "options": written.given}
