"""The config's types: one frozen model per block, one field per key of contract.md, section 2. Short forms become long ones before validation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from evalrunner.plan.parameters import Grid, NotNegative, Positive, Share, Whole
from evalrunner.plan.prompts import ROLES, check_template
from evalrunner.plan.scoring import check_scorer

DEVICE_NAMES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECRET_HEADERS = re.compile(r"authorization|cookie|(?:^|[-_])(?:key|token|secret|password)(?:$|[-_])", re.IGNORECASE)


def _slug(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", value) or value.endswith(".") or value.partition(".")[0].lower() in DEVICE_NAMES:
        raise ValueError("must be a name that can be a folder: letters, digits, '.', '_' and '-', at most 80, beginning with a letter or digit")
    return value


def _label(value: str) -> str:
    if not 0 < len(value) <= 120 or value != value.strip() or not value.isprintable():
        raise ValueError("must be 1 to 120 printable characters without spaces at its ends")
    return value


def _column(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,59}", value) or value.endswith("_why"):
        raise ValueError("must be letters, digits and '_' (it becomes the column score_<name>), and not end in _why")
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        if not (found := _DURATION.fullmatch(value.strip())):
            raise ValueError("should be a time like 500ms, 10s, 2m or 1h")
        return float(found[1]) * _UNITS[found[2]]
    return value


def _reference(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        raise ValueError("must be a reference to an environment variable, like ${MY_API_KEY}: secrets are never written into a config")
    return value


def _base_url(value: str) -> str:
    try:
        url = urlsplit(REFERENCE.sub("reference", value))
        _ = url.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not value.startswith("${") and (url.scheme not in {"http", "https"} or not url.hostname):
        raise ValueError("must begin with http:// or https:// and name a host")
    if url.username or url.password:
        raise ValueError("must not hold a user or password (use api_key: ${MY_API_KEY})")
    if url.query or url.fragment:
        raise ValueError("must not hold a query or fragment (a key belongs into api_key)")
    if re.search(r"/(chat/completions|completions|models|generation)/?$", url.path):
        raise ValueError("is what the official SDKs take: leave out everything after …/v1")
    return value.rstrip("/")


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError(f"{name!r} is not the name of an HTTP header")
        if not text.isprintable():
            raise ValueError(f"the value of {name} must be one line of printable text")
        if name.lower() in {"content-type", "content-length", "host", "transfer-encoding", "connection"}:
            raise ValueError(f"{name} is set by the client")
        if _SECRET_HEADERS.search(name) and not REFERENCE.search(text):
            raise ValueError(f"the value of {name} must be a reference to an environment variable, like ${{MY_KEY}}: secrets are never written into a config")
    return value


Slug = Annotated[str, AfterValidator(_slug)]
Label = Annotated[str, AfterValidator(_label)]
ColumnName = Annotated[str, AfterValidator(_column)]
Template = Annotated[str, AfterValidator(check_template)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, le=7 * 86_400),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}], "examples": ["10s", "2m"]}),
]
SecretReference = Annotated[str, AfterValidator(_reference), WithJsonSchema({"type": "string", "pattern": f"^{REFERENCE.pattern}$"})]
Rate = Annotated[float, Field(gt=0)]


class Block(BaseModel):
    """What every block shares: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class LimitsBlock(Block):
    """What one account and model may do; left out: not limited (concurrency: 16)."""

    concurrency: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
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
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}
    """Sent with every request; values may hold ${ENV_NAME}."""
    seed_compat: bool = False
    """Accept what the seed document says and the live service refuses."""
    terminal: Literal["required", "optional"] = "required"
    """`optional` accepts streams that end without a finish reason or [DONE]."""


class SimulatorOptions(Options):
    """Options of `kind: simulator`."""

    accuracy: Annotated[Annotated[Share, Tag("one")] | Annotated[dict[str, Share], Tag("many")], Discriminator(_one_or_many)] | None = None
    """Share of right answers, for all models or by model."""
    brain: str | dict[str, Any] | None = None
    """Who answers."""
    faults: str | list[Any] | dict[str, Any] | None = None
    """What goes wrong, and when."""
    latency: NotNegative | dict[str, Any] | None = None
    """How long answers take."""
    seed: Whole | None = None
    """Makes answers, faults and latencies repeatable."""
    limits: dict[str, Any] | None = None
    """RPM and TPM the simulator enforces."""


class LocalOptions(Options):
    """Options of `kind: local`."""

    model: str | None = None
    """A built-in name, or the path of a GGUF file; left out: the model's id."""
    threads: Positive | None = None
    """Left out: one less than the cores."""
    slots: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """Requests answered side by side."""
    context: Annotated[Whole, Field(ge=256)] | None = None
    """Tokens of context per slot."""


class PluginOptions(Options):
    """Options of a plug-in's kind: whatever its factory takes."""

    model_config = ConfigDict(extra="allow")


class ProviderBlock(Block):
    """One account: where requests go, with which key, how fast."""

    kind: str
    """openai, dashscope, simulator, local, a plug-in's name or module:attribute. A built-in provider may leave it out."""
    base_url: Annotated[str, AfterValidator(_base_url)] | None = None
    """What the official SDKs take: …/v1, without /chat/completions."""
    api_key: SecretReference | None = None
    """A reference to an environment variable."""
    limits: LimitsBlock = LimitsBlock()
    options: Options = Options()
    """What this kind understands."""


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
    return {"openai": "openai", "dashscope": "openai", "simulator": "simulator", "local": "local", None: "openai"}.get(kind, "plugin")


Provider = Annotated[
    Annotated[ProviderBlock, Tag("openai")]
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
    """A part of a message: one of text, image, audio; each a template."""

    text: Template | None = None
    image: Template | None = None
    """A path or URL."""
    audio: Template | None = None
    """A path or URL."""

    @model_validator(mode="after")
    def _one(self) -> PartBlock:
        if len(self.model_fields_set) != 1:
            raise ValueError("needs exactly one of text, image, audio")
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
            raise ValueError("developer is not a role of the Qwen API (use system)")
        if role not in ROLES:
            raise ValueError(f"should be one of {', '.join(ROLES)}")
        return role


def _short_prompt(value: Any) -> Any:
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
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_results: dict[str, Template] | str | None = None
    max_turns: Positive = 10

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


class RetryBlock(Block):
    """How often and how long a request is tried again."""

    max_attempts: Annotated[Whole, Field(ge=1, le=100)] = 6
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
    """Nothing is sent past it."""

    cost: NotNegative | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    requests: Positive | None = None


class GateBlock(Block):
    """One condition of `run` and `compare`."""

    metric: str
    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    baseline: str | None = None
    where: dict[str, Any] = {}


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
    trials: Annotated[Whole, Field(ge=1, le=100_000)] = 1
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
