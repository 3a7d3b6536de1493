"""The values that flow through the house, front to back: Sample, Cell, Request, Completion, Attempt, Score, Record. Frozen and typed; no behaviour.

The words are contract.md's, section 1. Times are nanoseconds of `Clock.now_ns` where the name ends in `_ns`, microseconds since the epoch (UTC) in
`_us`, milliseconds in `_ms`. None means unknown or undefined, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct, field

Message = dict[str, Any]
"""`{"role": ..., "content": str | list of parts}`; a part is `{"text": ...}`, `{"image": …}`, `{"audio": …}` or `{"file": …}`. Media are URLs, or name what
they are by a `sha256` beside them, which `Request.media` finds.
"""


class Outcome(StrEnum):
    """The one final state of a request (contract.md, section 5)."""

    OK = "ok"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    REJECTED = "rejected"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TRANSPORT = "transport"
    TIMEOUT = "timeout"
    BROKEN_STREAM = "broken_stream"
    BAD_OUTPUT = "bad_output"
    AUTH = "auth"


ANSWERED = frozenset({Outcome.OK, Outcome.TRUNCATED})
"""Outcomes that have an answer to score."""
FINAL = ANSWERED | {Outcome.FILTERED, Outcome.REJECTED}
"""Outcomes that are never sent again; the rest are tried again by `resume`."""


class PriceTier(Struct, frozen=True, kw_only=True):
    """Prices per million tokens for requests of at most `up_to` input tokens (None: any). A None price is unknown; cached, cache_write and thinking
    fall back as `cost.catalogue` says.
    """

    up_to: int | None = None
    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None
    thinking: float | None = None


class Price(Struct, frozen=True, kw_only=True):
    """Tiers in ascending order of `up_to`, and where they come from."""

    currency: str
    tiers: tuple[PriceTier, ...]
    source: str | None = None
    date: str | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """What one account and model may do at once, per minute, and in tokens per minute. `shared`: one bucket for all models of the account."""

    concurrency: int = 16
    rpm: float | None = None
    tpm: float | None = None
    shared: bool = False


class Timeouts(Struct, frozen=True, kw_only=True):
    """Deadlines in seconds. `first_token` and `idle` hold for streams only; pings and comments are not data."""

    connect: float = 10.0
    total: float = 600.0
    first_token: float = 300.0
    idle: float = 120.0


class Model(Struct, frozen=True, kw_only=True):
    """`name` is what tables show (the label, else the id); `id` is what is sent; `provider` names the account."""

    name: str
    id: str
    provider: str
    price: Price | None = None


class Sample(Struct, frozen=True, kw_only=True):
    """One row of a data set. `hash` covers `data`; `origin` is `file:line` (or `file:row`), for messages."""

    id: str
    data: Mapping[str, Any]
    hash: str
    tags: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""


class Cell(Struct, frozen=True, kw_only=True):
    """One point of the grid: prompt set × prompt × model × params × stream. `params` are sent as they are, top level."""

    prompt_set: str
    prompt: str
    model: Model
    params: Mapping[str, Any]
    stream: bool


class Request(Struct, frozen=True, kw_only=True):
    """Cell × sample × trial. `key` is a content hash: anything that changes the output changes it. `seed` is the trial's own, when the config gives none.
    `media`: where the parts are that name a SHA-256, a path on this machine or a data URI.
    """

    key: str
    cell: Cell
    sample: Sample
    trial: int
    messages: list[Message]
    target: str | None = None
    seed: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    media: Mapping[str, str] = field(default_factory=dict)


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the provider counts them: prompt includes cached and cache-write tokens, completion includes reasoning. `source`: `api` or `estimate`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    total_tokens: int | None = None
    source: str = "api"


class Timing(Struct, frozen=True, kw_only=True):
    """Stamps of one attempt, taken at the socket read. The output fields are None for non-streams.

    started: hand-over to the transport · first_output / last_output: the read that completed the first / last output event (non-empty reasoning,
    content, refusal, tool name or arguments) · first_content: the same for content or tool events · ended: [DONE], EOF or last body byte ·
    output_events: how many · output_reads: how many distinct reads completed them.

    Of a tool conversation: first stamps of its first turn, last ones of its last, counts added up (output_reads: the fewest of a turn), and what lies between
    the turns · paused: from the end of one to the start of the next · silent: from the last output of one to the first of the next.
    """

    started_ns: int
    ended_ns: int
    first_output_ns: int | None = None
    first_content_ns: int | None = None
    last_output_ns: int | None = None
    output_events: int | None = None
    output_reads: int | None = None
    first_output_tokens: int | None = None
    paused_ns: int = 0
    silent_ns: int = 0


class Completion(Struct, frozen=True, kw_only=True):
    """What came back. `tool_calls` are `{"id", "name", "arguments"}` with arguments as the JSON text the model wrote.
    `replaced`: characters UTF-8 cannot hold were replaced by U+FFFD, and `raw` keeps the body as it came. `conversation`: what lies between the messages first
    sent and this answer where tool calls were answered: of each earlier turn the assistant's message and the tools' results, as they were sent back.
    """

    output: str | None
    finish_reason: str | None
    timing: Timing
    reasoning: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    usage: Usage | None = None
    response_id: str | None = None
    response_model: str | None = None
    http_status: int | None = 200
    replaced: bool = False
    raw: bytes | None = None
    conversation: tuple[Message, ...] = ()


class Score(Struct, frozen=True, kw_only=True):
    """0..1, or None when there is no answer to score or the scorer failed; `why` in either case."""

    value: float | None
    why: str = ""


STILL_TO_COME = "still to come: "
"""How the reason of a score begins that a model could not be asked for, or that a stop cut off: `resume` sees to it."""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a judge said: its word, what that is worth (0..1), and why."""

    verdict: str
    score: float
    reason: str = ""


class Judgement(Struct, frozen=True, kw_only=True):
    """One question of a scorer to a model, and what came of it: a row of the judgements table (docs/judge.md).

    `key`: of the request that is judged · `id`: hash of who was asked what, without what is random in it · `order`: `ab` or `ba` where two answers are
    compared, else empty · `score` is None where there is no verdict; then `reason` says why · `label`: a person's, on the same scale ·
    tokens and `cost` add up over the attempts and are no part of the request's.
    """

    key: str
    id: str
    scorer: str
    judge: str
    judge_id: str
    provider: str
    sample_id: str
    order: str
    outcome: str
    verdict: str | None = None
    score: float | None = None
    reason: str = ""
    label: float | None = None
    output: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    attempts: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    cost: float | None = None
    currency: str | None = None
    started_us: int | None = None
    wait_ms: float | None = None
    latency_ms: float | None = None


class Attempt(Struct, frozen=True, kw_only=True):
    """One HTTP exchange: a row of the attempts table (contract.md, section 5). `attempt` counts from 1 within its turn."""

    key: str
    turn: int
    attempt: int
    started_us: int
    outcome: str
    wait_ms: float
    latency_ms: float
    http_status: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    retry_after_ms: float | None = None
    ttft_ms: float | None = None
    response_id: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    raw: bytes | None = None


class Record(Struct, frozen=True, kw_only=True):
    """The row that holds all of one request. `completion` is None when there is no answer; then `error_*` say why.

    `wait_ms` is all waiting of our own; the service times of the last attempt are in `completion.timing`; `user_latency_ms` and `user_ttft_ms` count
    from `scheduled_us`. `stalled_ms`: our own process did not listen for so long while an attempt was under way, so its times are not the server's.
    """

    request: Request
    outcome: Outcome
    attempts: tuple[Attempt, ...]
    scheduled_us: int
    started_us: int | None
    finished_us: int | None
    wait_ms: float
    completion: Completion | None = None
    error_code: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    turns: int = 1
    usage: Usage | None = None
    cost: float | None = None
    currency: str | None = None
    user_latency_ms: float | None = None
    user_ttft_ms: float | None = None
    stalled_ms: float | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)


class Plan(Protocol):
    """What the rooms below `plan` may know of a plan. Lazy: iterating makes the requests."""

    @property
    def name(self) -> str: ...
    @property
    def models(self) -> Sequence[Model]: ...
    @property
    def size(self) -> int:
        """Requests in all."""

    @property
    def param_names(self) -> Sequence[str]:
        """Every parameter of the grid, sorted; each becomes a column `param_<name>`."""

    @property
    def scorer_names(self) -> Sequence[str]:
        """Every scorer of the plan, in order; each becomes `score_<name>` and `score_<name>_why`."""

    def requests(self, model: Model) -> Iterator[Request]:
        """The model's requests, sample by sample, always in the same order."""

    def describe(self) -> Mapping[str, Any]:
        """What the manifest keeps: config text, origin, hashes of config and data, resolved settings with secrets as references. JSON-able."""
