"""The config's types: one frozen model per block, one field per key of contract.md, section 2. Short forms become long ones before validation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from evalrunner.plan.config_values import BaseUrl, ColumnName, Headers, Label, Rate, Seconds, SecretReference, Slug, Template
from evalrunner.plan.parameters import WHOLE, Grid, NotNegative, Positive, Share, Whole
from evalrunner.plan.prompts import ROLES
from evalrunner.plan.sandbox import nearest
from evalrunner.plan.scoring import check_scorer
from evalrunner.plan.tools import answer, check_choice, check_names, definition


class Block(BaseModel):
    """What every block shares: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class LimitsBlock(Block):
    """What one account and model may do; left out: not limited (concurrency: 16)."""

    concurrency: Annotated[int, Field(ge=1, le=10_000), WHOLE] | None = None
    """Requests at the same time."""
    rpm: Rate | None = None
    """Requests per minute."""
    tpm: Rate | None = None
    """Tokens per minute, input and output."""
    shared: bool | None = None
    """One bucket for all models of the account, instead of one each."""


class TierBlock(Block):
    """Prices per million tokens for requests of at most `up_to` input tokens."""

    up_to: Positive | None = None
    """Most input tokens of a request; left out: any."""
    input: NotNegative
    output: NotNegative
    cached: NotNegative | None = None
    cache_write: NotNegative | None = None
    thinking: NotNegative | None = None


class PriceBlock(Block):
    """Prices per million tokens; either `input` and `output`, or `tiers`."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """Three letters: CNY, USD, …"""
    input: NotNegative | None = None
    output: NotNegative | None = None
    cached: NotNegative | None = None
    cache_write: NotNegative | None = None
    thinking: NotNegative | None = None
    tiers: list[TierBlock] | None = None
    source: str | None = None
    date: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> PriceBlock:
        plain = (self.input, self.output, self.cached, self.cache_write, self.thinking)
        if self.tiers is None and (self.input is None or self.output is None):
            raise ValueError("needs input and output, or tiers")
        if self.tiers is not None and any(value is not None for value in plain):
            raise ValueError("takes input and output, or tiers, not both")
        ends = [tier.up_to or 2**62 for tier in self.tiers or ()]
        if self.tiers == [] or ends != sorted(set(ends)):
            raise ValueError("tiers must be in ascending order of up_to; only the last may leave it out")
        return self


def _one_or_many(value: Any) -> str:
    return "many" if isinstance(value, list | dict) else "one"


class Options(Block):
    """What every kind understands. Plug-ins may take more."""

    transport: Literal["aiohttp", "httpx"] = "aiohttp"
    """The HTTP library under this provider."""
    headers: Headers = {}
    """Sent with every request; values may hold ${ENV_NAME}."""
    seed_compat: bool = False
    """Accept what the seed document says and the live service refuses."""
    terminal: Literal["required", "optional"] = "required"
    """`optional` accepts streams that end without a finish reason or [DONE]."""


class DashScopeOptions(Options):
    """Options of `kind: dashscope`."""

    input: Literal["messages", "prompt"] = "messages"
    """`prompt` sends a user message that stands alone as `input.prompt`."""


class SimulatorOptions(DashScopeOptions):
    """Options of `kind: simulator`. `*` stands for all models not named; the inner forms are in the simulator's own documentation."""

    dialect: Literal["openai", "native"] = "openai"
    """How the simulator is spoken to."""
    accuracy: Annotated[Annotated[Share, Tag("one")] | Annotated[dict[str, Share], Tag("many")], Discriminator(_one_or_many)] | None = None
    """Share of right answers, for all models or by model."""
    judge_accuracy: Annotated[Annotated[Share, Tag("one")] | Annotated[dict[str, Share], Tag("many")], Discriminator(_one_or_many)] | None = None
    """Share of right verdicts, where a model is asked to judge."""
    brain: str | dict[str, Any] | None = None
    """Who answers: auto, arithmetic, lookup, echo, tool_caller, `{lookup: answers}` or the base URL of another server."""
    answers: str | list[Any] | dict[str, Any] | None = None
    """What the lookup brain knows: a data file, or rows."""
    effects: list[dict[str, Any]] | None = None
    """What a wording does to accuracy and length."""
    correlation: dict[str, Any] | None = None
    """How much the models' mistakes have in common."""
    faults: list[dict[str, Any]] | None = None
    """What goes wrong, and when."""
    latency: NotNegative | dict[str, Any] | None = None
    """Milliseconds, for all models or by model: ttft_ms, per_token_ms, jitter."""
    limits: bool | NotNegative | dict[str, Any] | None = None
    """RPM and TPM the simulator enforces, by model; false: none; left out: the service's."""
    seed: Whole | None = None
    """Makes answers, faults and latencies repeatable."""
    models: list[str] | None = None
    """Ids it accepts beside the catalogue's."""
    blocked: list[str] | None = None
    """Words its moderation refuses."""
    unauthorised: list[str] | None = None
    """Keys it refuses."""
    cache: bool | None = None
    """Imitate the implicit context cache."""
    chunk_tokens: Positive | None = None
    """Tokens in each piece of a stream."""
    batch_seconds: NotNegative | None = None
    clock_scale: NotNegative | None = None
    """Multiplies every delay."""


class LocalOptions(Options):
    """Options of `kind: local`."""

    model: str | None = None
    """A built-in name, or the path of a GGUF file; left out: the model's id."""
    threads: Positive | None = None
    """Left out: one less than the cores."""
    slots: Positive | None = None
    """Requests answered side by side."""
    context: Positive | None = None
    """Tokens of context per slot."""


class PluginOptions(Options):
    """Options of a plug-in's kind: whatever its factory takes."""

    model_config = ConfigDict(extra="allow")


class ProviderBlock(Block):
    """One account: where requests go, with which key, how fast."""

    kind: str
    """openai, dashscope, simulator, local, a plug-in's name or module:attribute. A built-in provider may leave it out."""
    base_url: BaseUrl | None = None
    """What the official SDKs take: …/v1, without /chat/completions."""
    api_key: SecretReference | None = None
    """A reference to an environment variable."""
    limits: LimitsBlock = LimitsBlock()
    options: Options = Options()
    """What this kind understands."""


class DashScopeProvider(ProviderBlock):
    """An account that is spoken to in DashScope's native protocol."""

    options: DashScopeOptions = DashScopeOptions()


class SimulatorProvider(ProviderBlock):
    """A Qwen API on this machine, started by the run."""

    options: SimulatorOptions = SimulatorOptions()


class LocalProvider(ProviderBlock):
    """A model on this machine, started by the run."""

    options: LocalOptions = LocalOptions()


class PluginProvider(ProviderBlock):
    """A provider of a plug-in's kind."""

    options: PluginOptions = PluginOptions()


def _provider_kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", "openai")
    return {"openai": "openai", "dashscope": "dashscope", "simulator": "simulator", "local": "local", None: "openai"}.get(kind, "plugin")


Provider = Annotated[
    Annotated[ProviderBlock, Tag("openai")]
    | Annotated[DashScopeProvider, Tag("dashscope")]
    | Annotated[SimulatorProvider, Tag("simulator")]
    | Annotated[LocalProvider, Tag("local")]
    | Annotated[PluginProvider, Tag("plugin")],
    Discriminator(_provider_kind),
]


def short_model(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


class ModelFields(Block):
    """A model in its long form."""

    id: Label
    """As it is sent."""
    provider: str = "dashscope"
    label: Label | None = None
    """Its name in tables; left out: the id."""
    limits: LimitsBlock = LimitsBlock()
    """Replace the provider's, one by one."""
    price: PriceBlock | None = None
    """Replaces the catalogue's."""
    params: Grid = Grid()
    """Request parameters of this model only; they replace the grid's."""

    @property
    def name(self) -> str:
        return self.label or self.id


ModelBlock = Annotated[ModelFields, BeforeValidator(short_model)]


class PartBlock(Block):
    """A part of a message: one of text, image, audio, file; each a template. A path that is written out is relative to this file; one that a template makes is
    relative to the data's folder and stays in it.
    """

    text: Template | None = None
    image: Template | None = None
    """A path or URL."""
    audio: Template | None = None
    """A path or URL."""
    file: Template | None = None
    """A document for qwen-long, by its path."""

    @model_validator(mode="after")
    def _one(self) -> PartBlock:
        if len(self.model_fields_set) != 1:
            raise ValueError("needs exactly one of text, image, audio, file")
        return self


class MessageBlock(Block):
    """One message of a prompt; `content` is a template, or a list of parts."""

    role: str
    content: Annotated[Annotated[Template, Tag("one")] | Annotated[list[PartBlock], Tag("many"), Field(min_length=1)], Discriminator(_one_or_many)]
    partial: bool | None = None
    """With role assistant, as the last message: the model goes on from this text."""

    @field_validator("role")
    @classmethod
    def _known(cls, role: str) -> str:
        if role == "developer":
            raise ValueError("developer is not a role of the Qwen API (hint: use system)")
        if role not in ROLES:
            raise ValueError(f"should be one of {', '.join(ROLES)}")
        return role


def _short_prompt(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise ValueError("should be text (one user message) or a list of messages")  # noqa: TRY004 - pydantic collects ValueErrors
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _conversation(messages: list[MessageBlock]) -> list[MessageBlock]:
    if not any(message.role == "user" for message in messages):
        raise ValueError("needs a message with role user")
    if messages[-1].role not in {"user", "tool"} and not messages[-1].partial:
        raise ValueError("must end with a user message (or an assistant message with partial: true)")
    return messages


PromptBlock = Annotated[list[MessageBlock], BeforeValidator(_short_prompt), AfterValidator(_conversation)]


def short_scorer(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and len(value) == 1:
        [(kind, options)] = value.items()
        if options is None or isinstance(options, dict):
            options = dict(options or {})
            return {"kind": kind, "options": options} | ({"name": options.pop("name")} if "name" in options else {})
    raise ValueError("should be a scorer's name, or `name: {options}` with one name")


def column_name(kind: str, name: str) -> str:
    """The scorer's name, or one made from its kind (of module:attribute, the attribute)."""
    return name or re.sub(r"\W+", "_", kind.rpartition(":")[2], flags=re.ASCII)


class ScorerFields(Block):
    """A scorer: its kind, the name of its column, and its options."""

    kind: str
    name: ColumnName = ""
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _binds(self) -> ScorerFields:
        check_scorer(self.kind, self.options)
        return self

    @property
    def column(self) -> str:
        return column_name(self.kind, self.name)


ScorerBlock = Annotated[ScorerFields, BeforeValidator(short_scorer)]


def _checked(key: str, check: Callable[..., object], *values: Any) -> None:
    try:
        check(*values)
    except ValueError as error:
        raise PydanticCustomError("unknown_option", "{what}", {"path": [key], "what": str(error)}) from None


class PromptSetBlock(Block):
    """A data set, the prompts applied to it, its target and its scorers."""

    name: Label
    data: str | None = None
    """A .jsonl, .json, .csv, .tsv, .parquet or .yaml file, relative to this file."""
    samples: list[dict[str, Any]] | None = None
    """The rows themselves, instead of `data`."""
    loader: str | None = None
    """module:attribute or a plug-in's name, where the file's ending does not tell how to read it."""
    id: str | None = None
    """Column of the sample's id; left out: the row number."""
    tags: list[str] = []
    """Columns to slice by in the report."""
    limit: Positive | None = None
    """The first N rows."""
    sample: Positive | None = None
    """N rows chosen at random, the same ones for the same seed."""
    seed: Whole = 0
    """Of `sample`."""
    prompts: Annotated[dict[Label, PromptBlock], Field(min_length=1)] | None = None
    """Templates (Jinja) by name; a string is one user message."""
    messages_from: str | None = None
    """Column with a ready conversation, instead of `prompts`."""
    target: Template | None = None
    """Template of the expected answer."""
    scorers: list[ScorerBlock] = []
    tools: Annotated[list[Annotated[dict[str, Any], AfterValidator(definition)]], Field(min_length=1)] | None = None
    """Functions the model may call: `{name, description, parameters}`, or OpenAI's form around it."""
    tools_from: str | None = None
    """Column with each row's own functions, instead of `tools`; BFCL's names of types are understood."""
    tool_choice: Annotated[Annotated[str, Tag("one")] | Annotated[dict[str, Any], Tag("many")], Discriminator(_one_or_many)] | None = None
    """auto, none, required, or `{type: function, function: {name: …}}`. What forces a call holds for the first turn."""
    tool_results: Annotated[Annotated[str, Tag("one")] | Annotated[dict[str, Template], Tag("many")], Discriminator(_one_or_many)] | None = None
    """What functions return, so that the conversation goes on: a template for each (it sees the call's arguments and the row's fields), or
    `module:attribute`, called as (name, arguments, sample).
    """
    max_turns: Positive | None = None
    """Most answers of the model in one conversation; left out: 8."""

    @model_validator(mode="after")
    def _one_of_each(self) -> PromptSetBlock:
        if (self.data is None) == (self.samples is None):
            raise ValueError("needs either data (a file) or samples (rows)")
        if (self.prompts is None) == (self.messages_from is None):
            raise ValueError("needs either prompts or messages_from")
        if self.limit is not None and self.sample is not None:
            raise ValueError("takes limit (the first rows) or sample (a random choice), not both")
        if self.samples == []:
            raise ValueError("samples is empty")
        if repeated := [tag for tag in self.tags if self.tags.count(tag) > 1]:
            raise ValueError(f"the tag {repeated[0]!r} is named twice")
        return self

    @field_validator("tools")
    @classmethod
    def _different(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        check_names([tool["function"]["name"] for tool in tools or ()])
        return tools

    @model_validator(mode="after")
    def _tools(self) -> PromptSetBlock:
        if self.tools and self.tools_from:
            raise ValueError("takes tools (the same for every row) or tools_from (a column), not both")
        if not (self.tools or self.tools_from) and (idle := [key for key in ("tool_choice", "tool_results") if getattr(self, key) is not None]):
            raise PydanticCustomError("unknown_option", "needs tools or tools_from", {"path": [idle[0]]})
        if self.max_turns is not None and self.tool_results is None:
            raise PydanticCustomError("unknown_option", "needs tool_results", {"path": ["max_turns"]})
        names = [tool["function"]["name"] for tool in self.tools] if self.tools else None
        if self.tool_choice is not None:
            _checked("tool_choice", check_choice, self.tool_choice, names)
        if self.tool_results is not None:
            _checked("tool_results", answer, self.tool_results)
        for name in self.tool_results if isinstance(self.tool_results, dict) else ():
            if names is not None and name.replace(".", "_") not in names:
                raise PydanticCustomError("unknown_option", "no function is called so{hint}", {"path": ["tool_results", name], "hint": nearest(name, names)})
        return self


class RetryBlock(Block):
    """How often and how long a request is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=100), WHOLE] = 6
    """Attempts that failed for other reasons than a 429."""
    max_elapsed: Seconds = 1800.0
    """From the first attempt of a request; a 429 uses up this time only."""


class TimeoutsBlock(Block):
    """Deadlines of one attempt."""

    connect: Seconds = 10.0
    total: Seconds = 600.0
    first_token: Seconds = 300.0
    """Streams only."""
    idle: Seconds = 120.0
    """Streams only: between two pieces of data; pings are not data."""


class BudgetBlock(Block):
    """Nothing is sent past it, in the whole run: resumed sessions and retries count."""

    cost: NotNegative | None = None
    """In `currency`; every model needs a price."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    """Of `cost`; left out: that of the prices."""
    requests: Positive | None = None
    """HTTP requests sent, retries included; the preflight is not counted."""

    @model_validator(mode="after")
    def _limits(self) -> BudgetBlock:
        if self.cost is None and self.requests is None:
            raise ValueError("needs cost, requests, or both")
        return self


class GateBlock(Block):
    """One condition of `run` and `compare`, decided by the 95 % interval; every cell it is about must hold it."""

    metric: str
    """score_<scorer>, coverage, latency_ms, ttft_ms.p95, completion_tokens, cost, cost.per_1000, …"""
    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    """How much worse than the baseline, whichever way is worse, in the metric's own unit."""
    baseline: str | None = None
    """A run directory, relative to this file."""
    where: dict[str, Any] = {}
    """Which cells: model, prompt, prompt_set, stream or a parameter; left out: all."""


def _streams(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Settings(Block):
    """A whole config."""

    name: Slug
    """Runs go to reports/<name>/<run id>/."""
    description: str = ""
    providers: dict[Slug, Provider] = {}
    """dashscope, dashscope-intl, dashscope-native, openai, simulator and local are built in."""
    models: Annotated[list[ModelBlock], Field(min_length=1)]
    """An id (provider dashscope), or the long form."""
    grid: Grid = Grid()
    """Request parameters; every combination runs: a list is swept, a scalar is fixed."""
    stream: Annotated[list[bool], BeforeValidator(_streams), Field(min_length=1)] = [True]
    """May be a list: [true, false]."""
    trials: Annotated[int, Field(ge=1, le=100_000), WHOLE] = 1
    """Repeats of every request; without a seed, trial k sends seed 1000 + k."""
    allow_unanswered: Share = 0.0
    """Share of requests that may end without an answer before exit code 4."""
    prompt_sets: Annotated[list[PromptSetBlock], Field(min_length=1)]
    retry: RetryBlock = RetryBlock()
    timeouts: TimeoutsBlock = TimeoutsBlock()
    preflight: bool = True
    """One small check per model before the grid."""
    budget: BudgetBlock | None = None
    gate: list[GateBlock] = []
