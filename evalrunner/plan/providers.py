"""Providers: the built-in ones, how a config changes them, and the accounts they become once the environment's secrets are filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, structs

from evalrunner.plan.config_types import LimitsBlock, LocalOptions, ModelFields, Options, ProviderBlock
from evalrunner.plan.config_values import REFERENCE
from evalrunner.plugins import Account
from evalrunner.records import Limits, Timeouts

LOCAL_SLOTS = 4
"""Measured: on two busy cores four slots give half as much again as one, and more give nothing."""


class BuiltIn(Struct, frozen=True):
    """A provider nobody needs to write down."""

    kind: str
    base_url: str | None = None
    api_key: str | None = None


BUILT_IN = {
    "dashscope": BuiltIn("openai", "https://dashscope.aliyuncs.com/compatible-mode/v1", "${DASHSCOPE_API_KEY}"),
    "dashscope-intl": BuiltIn("openai", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "${DASHSCOPE_API_KEY}"),
    "dashscope-native": BuiltIn("dashscope", "https://dashscope.aliyuncs.com/api/v1", "${DASHSCOPE_API_KEY}"),
    "openai": BuiltIn("openai", "https://api.openai.com/v1", "${OPENAI_API_KEY}"),
    "simulator": BuiltIn("simulator"),
    "local": BuiltIn("local"),
}
STARTED_HERE = frozenset({"simulator", "local"})
"""Kinds whose base_url is known only once the run has started them."""
_REGIONS = {
    "dashscope.aliyuncs.com": "cn",
    "cn-beijing.maas.aliyuncs.com": "cn",
    "dashscope-intl.aliyuncs.com": "intl",
    "ap-southeast-1.maas.aliyuncs.com": "intl",
}
_SIDE_OPTIONS = frozenset(
    {
        "transport",
        "terminal",
        "threads",
        "slots",
        "latency",
        "limits",
        "faults",
        "models",
        "unauthorised",
        "cache",
        "chunk_tokens",
        "batch_seconds",
        "clock_scale",
    }
)
"""Options that change how fast or how surely an answer comes, not what it says."""


class Provider(Struct, frozen=True, kw_only=True):
    """One account as written: secrets are still references."""

    name: str
    kind: str
    base_url: str | None
    api_key: str | None
    limits: LimitsBlock
    options: Options

    @property
    def dashscope(self) -> bool:
        """Whether Alibaba's own gateway answers there, or our simulator of it."""
        return self.kind in {"dashscope", "simulator"} or (urlsplit(self.base_url or "").hostname or "").endswith(".aliyuncs.com")

    @property
    def region(self) -> str | None:
        """The catalogue's price list for this host; None for hosts whose prices it does not know."""
        host = urlsplit(self.base_url or "").hostname or ""
        return next((region for end, region in _REGIONS.items() if host.endswith(end)), None)

    @property
    def given(self) -> dict[str, Any]:
        """The options that were written, as plain values."""
        return self.options.model_dump(exclude_unset=True)

    def identity(self) -> dict[str, Any]:
        """What of it can change an answer, as written."""
        options = {name: value for name, value in self.given.items() if name not in _SIDE_OPTIONS}
        return {"name": self.name, "kind": self.kind, "base_url": self.base_url, "options": options}

    def references(self) -> set[str]:
        """The environment variables it needs."""
        return self.secret_references() | set(REFERENCE.findall(self.base_url or ""))

    def secret_references(self) -> set[str]:
        """Those whose values nobody may see: an address is not among them."""
        return {name for text in (self.api_key or "", *self.options.headers.values()) for name in REFERENCE.findall(text)}

    def limits_of(self, model: ModelFields) -> Limits:
        """The model's limits over the provider's over the defaults."""
        slots = (self.options.slots or LOCAL_SLOTS) if isinstance(self.options, LocalOptions) else None
        limits = Limits() if slots is None else Limits(concurrency=slots)
        return structs.replace(limits, **self.limits.model_dump(exclude_none=True) | model.limits.model_dump(exclude_none=True))


def provider(name: str, block: ProviderBlock | None) -> Provider:
    """The account called `name`: built in, written, or built in with changes. A block of another kind than the built-in's inherits nothing."""
    base = BUILT_IN.get(name, BuiltIn("openai"))
    if block is None:
        options = LocalOptions() if base.kind == "local" else Options()
        return Provider(name=name, kind=base.kind, base_url=base.base_url, api_key=base.api_key, limits=LimitsBlock(), options=options)
    inherited = base if block.kind == base.kind else BuiltIn(block.kind)
    return Provider(
        name=name,
        kind=block.kind,
        base_url=block.base_url or inherited.base_url,
        api_key=block.api_key or inherited.api_key,
        limits=block.limits,
        options=block.options,
    )


def account(written: Provider, environ: Mapping[str, str], timeouts: Timeouts, models: Sequence[str]) -> Account:
    """The account with its secrets filled in. `models`: the ids asked for there: a local server loads the first when its options name none, the run's own
    simulator knows them all. Raises KeyError for a variable unset.
    """

    def filled(text: str) -> str:
        return REFERENCE.sub(lambda found: environ[found[1]], text)

    options = {name: value for name, value in written.given.items() if name not in {"headers", "transport"}}
    if written.kind == "local":
        options = {"model": models[0], "slots": LOCAL_SLOTS} | options
    if written.kind == "simulator":
        options["models"] = [*options.get("models", ()), *models]
    return Account(
        name=written.name,
        kind=written.kind,
        base_url=filled(written.base_url or "").rstrip("/"),
        api_key=filled(written.api_key) if written.api_key else None,
        headers={name: filled(text) for name, text in written.options.headers.items()},
        options=options,
        timeouts=timeouts,
        transport=written.options.transport,
    )


def unset(written: Provider, environ: Mapping[str, str]) -> list[str]:
    """The environment variables it needs and does not find."""
    return sorted(name for name in written.references() if not environ.get(name))


def misdirected(name: str, block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, reason) where a provider's block would send a key to a host it was not made for, or cannot work."""
    base = BUILT_IN.get(name)
    kind = block.get("kind", base.kind if base else None)
    url = block.get("base_url")
    if kind in STARTED_HERE and url is not None:
        yield "base_url", f"a provider of kind {kind} is started by the run and finds its own address (hint: an address is for kind: openai)"
    if base and base.api_key and kind == base.kind and url is not None and "api_key" not in block and _origin(url) != _origin(base.base_url):
        yield "base_url", f"the key of the built-in provider {name} is never sent to another host (hint: name an api_key of its own beside this base_url)"
    if kind in {"openai", "dashscope"} and url is None and not (base and base.kind == kind):
        yield "base_url", "is missing"


def _origin(url: Any) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(str(url))
        return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return str(url), None, None
