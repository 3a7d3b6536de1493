"""The Qwen models as data: what each can do, what it is allowed, what it costs. `models.toml` beside this file holds the rows, with sources and dates."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, convert, field
from msgspec.structs import replace

from evalrunner.records import Price

Region = Literal["cn", "intl", "usd"]

_DATED = re.compile(r"-(\d{4}(?:-\d{2}-\d{2})?|latest)$")
_VARIANT: dict[str, Literal["none", "only"]] = {"-thinking": "only", "-instruct": "none"}


class ImageRule(Struct, frozen=True):
    """How a vision model turns pixels into tokens: squares of `factor` pixels, after scaling between the two areas."""

    factor: int = 32
    min_pixels: int = 65_536
    max_pixels: int = 2_621_440


class Windows(Struct, frozen=True):
    """The limits the service was seen to enforce: (count, seconds) for requests and for tokens, input and output together."""

    requests: tuple[int, float]
    tokens: tuple[int, float]


class ModelFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the catalogue. None means not published. `thinking` is what happens when the request does not say.

    `rates` are (RPM, TPM) by region `cn`, `intl`; `prices` by region `cn`, `intl` (CNY) and `usd`; `modal_cn`, `modal_intl` are CNY per million tokens of
    one modality, for models whose price cannot be told per direction (their `prices` are empty). `open`: an open-weights model, which thinks in streams only.
    """

    id: str = ""
    context: int | None = None
    max_input: int | None = None
    max_output: int | None = None
    thinking: Literal["none", "off", "on", "only"] = "none"
    open: bool = False
    stream_only: bool = False
    dialects: tuple[Literal["openai", "native"], ...] = ("openai", "native")
    endpoint: Literal["text", "multimodal"] = "text"
    inputs: frozenset[Literal["image", "audio", "video"]] = frozenset()
    outputs: frozenset[Literal["audio"]] = frozenset()
    image: ImageRule = ImageRule()
    audio_rate: float = 25.0
    rates: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    windows: Windows | None = None
    batch: bool = False
    snapshots: tuple[str, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)
    modal_cn: Mapping[str, float] | None = None
    modal_intl: Mapping[str, float] | None = None


def lookup(model_id: str) -> ModelFacts | None:
    """The facts of a model as it is named on the wire; None for a model the catalogue does not know.

    A dated id (`qwen-plus-2025-07-28`, `-0902`, `-latest`) has its alias's facts, with the small limits of snapshots. It has the alias's prices only where
    it is documented to be the same model: a price is never guessed. `-thinking` and `-instruct` variants of a known model are treated likewise.
    """
    models, snapshot = _catalogue()
    if model_id in models:
        return models[model_id]
    if dated := _DATED.search(model_id):
        alias = lookup(model_id[: dated.start()])
        if alias is None:
            return None
        same = dated[1] in alias.snapshots
        return replace(alias, id=model_id, rates=snapshot.rates, windows=snapshot.windows, prices=alias.prices if same else {}, snapshots=())
    for suffix, thinking in _VARIANT.items():
        alias = models.get(model_id.removesuffix(suffix)) if model_id.endswith(suffix) else None
        if alias is not None:
            return replace(alias, id=model_id, thinking=thinking, prices={})
    return None


def native_only(model_id: str) -> bool:
    """Whether a model is known to have the native dialect alone."""
    facts = lookup(model_id)
    return "openai" not in facts.dialects if facts else model_id.startswith("qwen-audio")


def known() -> list[str]:
    """The ids of every row, in the order of the file."""
    return list(_catalogue()[0])


@cache
def _catalogue() -> tuple[dict[str, ModelFacts], ModelFacts]:
    data = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
    models = {model_id: _facts(model_id, row, data["source"]) for model_id, row in data["models"].items()}
    return models, convert(data["snapshot"], ModelFacts)


def _facts(model_id: str, row: dict[str, Any], source: dict[str, str]) -> ModelFacts:
    prices = {}
    for region in ("cn", "intl", "usd"):
        if tiers := row.pop(region, None):
            said = ("usd", "usd_date") if region == "usd" else ("prices", "prices_date")
            currency = "USD" if region == "usd" else "CNY"
            prices[region] = {"currency": currency, "tiers": tiers, "source": source[said[0]], "date": source[said[1]]}
    return convert({**row, "id": model_id, "prices": prices}, type=ModelFacts)
