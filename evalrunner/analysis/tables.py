"""What a summary holds: the frozen tables that the report, `show` and `--json` read. `analysis.summary` fills them, `frames` makes data frames of them.

None means unknown or undefined, never zero. Times end in `_ms` or `_s`, shares are 0..1. Dicts keep a stated order, so that equal records give equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from evalrunner.analysis.frames import cells_frame

if TYPE_CHECKING:
    import pandas as pd


class Quantile(Struct, frozen=True, kw_only=True):
    """One percentile, Hyndman-Fan type 7, with its 95 % order-statistic interval. All three are None when `n < needed` = 5 / (1 - p)."""

    p: float
    value: float | None
    low: float | None
    high: float | None
    n: int
    needed: int


class Distribution(Struct, frozen=True, kw_only=True):
    """A measured quantity over the answered requests that have it. `quantiles` are p50, p90, p95, p99.

    `curve` is the empirical distribution for drawing: the values at 0 %, 1 %, …, 100 % (empty when n is 0).
    """

    n: int
    mean: float | None
    sd: float | None = None
    min: float | None
    max: float | None
    quantiles: tuple[Quantile, ...]
    curve: tuple[float, ...] = ()


class Estimate(Struct, frozen=True, kw_only=True):
    """A mean score with its 95 % interval over samples (metrics.md, "Quality and its uncertainty").

    `n`: samples with a score · `scored`: requests with one · `planned`: requests that should have one · `total`: the sum of the scores ·
    `low_bound`, `high_bound`: the score with every request without one counted as 0 and as 1 ·
    `tie_group`: from 1, the best, among the cells of the same prompt set; None outside a comparison, and for a cell with
    less than half as many samples as the fullest.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    scored: int
    planned: int
    total: float | None
    method: str
    low_bound: float | None
    high_bound: float | None
    tie_group: int | None = None


class Mean(Struct, frozen=True, kw_only=True):
    """A mean over the `n` samples that have the number, each the mean over its trials, with Student's t interval over samples (None for fewer than two)."""

    value: float
    low: float | None
    high: float | None
    n: int


class Repeat(Struct, frozen=True, kw_only=True):
    """What k trials promise, over the `n` samples with at least k: pass@k (`any` of them is right) and pass^k (`all` are). For 0/1 scores."""

    k: int
    n: int
    any: float
    all: float


class TokenCount(Struct, frozen=True, kw_only=True):
    """Tokens over the requests that report them; `unknown` counts the answered requests that do not."""

    sum: int | None
    mean: float | None
    n: int
    unknown: int


class Cost(Struct, frozen=True, kw_only=True):
    """What was paid, retries included. `total` sums what is known: with `unknown > 0` (answered requests without a cost) it is a lower bound.

    `per_1000`: a thousand samples, one trial each, at the mean of the answered requests with a cost · `per_correct`: total / sum of the scores, by
    scorer; None when a cost is unknown or nothing was right.
    """

    total: float | None
    currency: str | None
    per_1000: float | None
    per_correct: dict[str, float | None]
    unknown: int


class Effort(Struct, frozen=True, kw_only=True):
    """What it took: attempts, retries (attempts after the first of a turn), 429s and their share of the attempts, and all waiting of our own."""

    requests: int
    attempts: int
    retries: int
    rate_limited: int
    rate_limited_share: float | None
    wait_s: float
    wait_mean_ms: float | None


class CellSummary(Struct, frozen=True, kw_only=True):
    """One cell: prompt set × prompt × model × params × stream.

    `index`: its place in `Summary.cells` · `label`: what tells it from the others, in words · `planned`: requests of the plan · `done`: with a row ·
    `answered`: with an answer · `coverage`: answered / planned.
    `scores` by scorer · `latency`: `latency_ms`, `ttft_ms`, `ttft_content_ms`, `tpot_ms`, `user_latency_ms`, `user_ttft_ms`, `wait_ms` ·
    `speed` (tokens/s per request): `decode_tok_s`, `e2e_tok_s` · `tokens`: `input`, `output`, `reasoning`, `cached`, `total` (output includes
    reasoning, input includes cached) · `repeats` by scorer: pass@k and pass^k for k = 1 … trials, for 0/1 scores with more than one trial ·
    `means` by column (latencies, speeds, token counts, `cost` of a request): what gates are about; a column that no answer has is not in it.
    """

    index: int
    label: str
    prompt_set: str
    prompt: str
    model: str
    model_id: str
    provider: str
    params: dict[str, Any]
    stream: bool
    samples: int
    trials: int
    planned: int
    done: int
    answered: int
    coverage: float | None
    outcomes: dict[str, int]
    scores: dict[str, Estimate]
    latency: dict[str, Distribution]
    speed: dict[str, Distribution]
    tokens: dict[str, TokenCount]
    cost: Cost
    repeats: dict[str, tuple[Repeat, ...]] = field(default_factory=dict)
    means: dict[str, Mean] = field(default_factory=dict)


class ModelSummary(Struct, frozen=True, kw_only=True):
    """One model over all its cells. `infrastructure`: requests that ended in a failure that says nothing about the model (everything unanswered
    but `filtered` and `rejected`) · `response_models`: the names the API returned, with counts.
    """

    model: str
    model_id: str
    provider: str
    planned: int
    done: int
    answered: int
    infrastructure: int
    infrastructure_share: float | None
    outcomes: dict[str, int]
    response_models: dict[str, int]
    effort: Effort


class ErrorGroup(Struct, frozen=True, kw_only=True):
    """One kind of failure of one model. `requests` ended so; `attempts` did so, those that a retry mended included. `example` is the first message seen."""

    model: str
    outcome: str
    http_status: int | None
    code: str | None
    requests: int
    attempts: int
    example: str | None


class SliceGap(Struct, frozen=True, kw_only=True):
    """A cell minus the best cell of its prompt set (`against`, its place in `Summary.cells`), over the `n` samples of a slice that both have a score for."""

    against: int
    n: int
    difference: float
    low: float
    high: float


class Slice(Struct, frozen=True, kw_only=True):
    """The samples of one cell with one value of one tag. Bounds count the requests with a row only: what was never sent has no tags.

    `gaps` by scorer: the paired difference from the best cell; the best itself has none.
    """

    tag: str
    value: str
    cell: int
    samples: int
    done: int
    answered: int
    scores: dict[str, Estimate]
    gaps: dict[str, SliceGap] = field(default_factory=dict)


class Pair(Struct, frozen=True, kw_only=True):
    """Two cells of one prompt set over the `n` samples that both have a score for: `first` minus `second` (places in `Summary.cells`).

    `wins`, `ties`, `losses`: samples where the mean over the trials of `first` is greater, equal, less · `p`: sign flips, with 0/1 scores of one trial
    the exact McNemar test · `p_holm`: adjusted over the pairs of this prompt set and scorer.
    """

    prompt_set: str
    scorer: str
    first: int
    second: int
    n: int
    wins: int
    ties: int
    losses: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


class Effect(Struct, frozen=True, kw_only=True):
    """What one level of a factor did to a metric, against the factor's first level, all else being equal.

    `factor`: model, prompt, stream or a parameter · `cells`: pairs of cells that differ in nothing else; a sample counts once, with its mean over them ·
    `baseline`: the mean at `reference` · `p_holm`: adjusted over all effects of this prompt set and metric.
    """

    prompt_set: str
    factor: str
    level: Any
    reference: Any
    metric: str
    cells: int
    n: int
    baseline: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


class Agreement(Struct, frozen=True, kw_only=True):
    """How far two raters of the same `n` answers (of so many `samples`) agree: the `share` that is equal, and Cohen's `kappa`, each with its 95 % interval.

    Kappa is None where both always said the same word: then nothing tells agreement from chance.
    """

    n: int
    samples: int
    share: float
    low: float
    high: float
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None


class JudgePair(Struct, frozen=True, kw_only=True):
    """Two judges of one scorer, or the mean of all of them and people, and how far they agree."""

    scorer: str
    first: str
    second: str
    agreement: Agreement


class JudgeSummary(Struct, frozen=True, kw_only=True):
    """What one model did as a judge for one scorer.

    `asked`: questions, with those asked once more · `unreadable`: replies without a verdict · `unanswered`: questions without a reply ·
    `spend` by currency, apart from the requests' own; `unknown_cost` counts the replies without a cost · `calibration`: against the labels of people ·
    `pairs`: answers compared in both orders · `flips`: of these, where the verdict changed with the order, and its 95 % interval ·
    `first`: the share of preferences, ties left out, for what was shown first; 0.5 is no bias.
    """

    scorer: str
    judge: str
    asked: int
    unreadable: int
    unanswered: int
    tokens_in: int | None
    tokens_out: int | None
    spend: dict[str, float]
    unknown_cost: int
    calibration: Agreement | None
    pairs: int
    flips: int
    flips_low: float | None
    flips_high: float | None
    first: float | None


class Moment(Struct, frozen=True, kw_only=True):
    """What ended within one of at most 60 equal stretches of the run, by model. `start_s` counts from the first scheduled request."""

    start_s: float
    seconds: float
    model: str
    outcomes: dict[str, int]


class Totals(Struct, frozen=True, kw_only=True):
    """The run as a whole. `missing`: planned without a row · `spend` and `wasted` by currency, never added together; `wasted` was paid for attempts that
    gave no answer · `active_s`: from the first schedule to the last end, pauses between resumes left out · rates are over `active_s`.
    """

    planned: int
    done: int
    answered: int
    missing: int
    coverage: float | None
    outcomes: dict[str, int]
    spend: dict[str, float]
    wasted: dict[str, float]
    unknown_cost: int
    active_s: float | None
    requests_per_s: float | None
    output_tokens_per_s: float | None
    tokens: dict[str, TokenCount]
    effort: Effort


class Notice(Struct, frozen=True, kw_only=True):
    """Something a reader must know before trusting the tables. `kind` and `values` let a page say it in its own language; `text` says it in English."""

    kind: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)


class RunFacts(Struct, frozen=True, kw_only=True):
    """Where the records come from: the manifest, as far as a page shows it. `plan` is the manifest's, untouched."""

    run_id: str
    name: str
    description: str | None
    state: str
    reason: str | None
    started_at: str | None
    finished_at: str | None
    evalrunner: str | None
    python: str | None
    platform: str | None
    host: str | None
    command: tuple[str, ...]
    git: dict[str, Any] | None
    config: dict[str, Any]
    resumes: tuple[dict[str, Any], ...]
    plan: dict[str, Any]


class Summary(Struct, frozen=True, kw_only=True):
    """A run in tables: a pure function of its records and manifest.

    `cells` are in the order of the plan · `varying`: which of prompt_set, prompt, model, provider, stream and the parameter names take more than one value ·
    `scorers`: all names, in the plan's order · `columns`: those of the columns read that hold anything (for token counts: anything above zero) ·
    `pairs`: of each prompt set and scorer the best `pairs.MAX_CELLS` cells, every two of them · `factors`: in the order of the plan.
    """

    schema: int = 1
    run: RunFacts
    totals: Totals
    cells: tuple[CellSummary, ...]
    models: tuple[ModelSummary, ...]
    errors: tuple[ErrorGroup, ...]
    slices: tuple[Slice, ...]
    judges: tuple[JudgeSummary, ...] = ()
    judge_pairs: tuple[JudgePair, ...] = ()
    timeline: tuple[Moment, ...]
    notices: tuple[Notice, ...]
    varying: tuple[str, ...]
    scorers: tuple[str, ...]
    columns: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    factors: tuple[Effect, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """A pandas data frame with a row for each cell."""
        return cells_frame(self.cells)
