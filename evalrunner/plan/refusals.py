"""What DashScope is known to refuse, from the catalogue of its models: told before anything is sent.

Only what its documents rule out for every request is refused here; what depends on an account or a date is the service's to say. Other services make
their own rules, and so does an account with `seed_compat`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from evalrunner.cost.models import ModelFacts, known, lookup
from evalrunner.cost.tokens import count_messages, exact, texts, thinks
from evalrunner.plan.config_types import ModelFields, Settings
from evalrunner.plan.media import MediaFolder, parts_of
from evalrunner.plan.mistakes import Mistake
from evalrunner.plan.providers import Provider, provider
from evalrunner.plan.yaml_source import KeyPath
from evalrunner.records import Message

_MARGIN = 1.25  # an approximate count must be so much too long before a prompt is refused
_BYTES_AROUND = 100  # of template around a message, at most


class _Asked(Struct, frozen=True):
    """One model as the config asks it: what its catalogue row says, and each parameter's values with their place."""

    index: int
    name: str
    provider: Provider
    facts: ModelFacts | None
    params: Mapping[str, tuple[KeyPath, list[Any]]]
    streams: Sequence[bool]

    def values(self, name: str) -> list[Any]:
        return self.params[name][1] if name in self.params else [None]


def refusals(settings: Settings) -> Iterator[Mistake]:
    """Every combination in the grid that no request of it could survive."""
    for asked in _models(settings):
        yield from _ranges(asked)
        if asked.facts is not None:
            yield from _thinking(asked, asked.facts)
            yield from _streams(asked, asked.facts)
            yield from _forced(asked, asked.facts, settings)


def unknown_models(settings: Settings) -> Iterator[Mistake]:
    """Models the catalogue does not know: no mistake, but nothing about them can be checked."""
    for asked in _models(settings):
        named = {name for option in ("models", "accuracy", "latency", "limits") for name in _names(asked.provider.given.get(option))}
        if asked.facts is None and asked.name not in named:
            near = difflib.get_close_matches(asked.name, known(), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            yield Mistake(
                ("models", asked.index), f"the catalogue does not know {asked.name!r}{hint}: its price and limits are unknown and nothing of it is checked"
            )


class Takers:
    """The models a prompt set is sent to, and what their prompts may hold."""

    def __init__(self, settings: Settings) -> None:
        asked = list(_models(settings))
        self._facts = {one.name: one.facts for one in asked if one.facts is not None}
        readers = {one.index for one in asked if one.name.startswith("qwen-long")}
        self._without_files = dict.fromkeys(model.id for index, model in enumerate(settings.models) if index not in readers)
        self._least = min((limit for facts in self._facts.values() if (limit := _longest(facts))), default=None)

    def unsuited(self, messages: Sequence[Message], media: MediaFolder) -> Iterator[str]:
        """Why a model cannot take these messages: a kind of media, or their length."""
        parts = list(parts_of(messages))
        if any("file" in part for part in parts):
            yield from (f"{name} takes no files (hint: qwen-long does)" for name in self._without_files)
        for kind, called in (("image", "images"), ("audio", "audio")):
            if any(kind in part for part in parts):
                yield from (f"{name} takes no {called}" for name, facts in self._facts.items() if kind not in facts.inputs)
        if self._least is None or (not parts and _bytes(messages) < self._least):
            return
        for name, facts in self._facts.items():
            if (limit := _longest(facts)) is not None:
                tokens = count_messages(messages, name) + sum(media.tokens(part, facts) for part in parts)
                if tokens > limit * (1 if exact(name) else _MARGIN):
                    yield f"about {tokens:,} tokens are too long for {name}, which takes {limit:,}"


def _models(settings: Settings) -> Iterator[_Asked]:
    """Those that DashScope, or our simulator of it, is asked for."""
    for index, model in enumerate(settings.models):
        written = provider(model.provider, settings.providers.get(model.provider))
        if written.dashscope:
            yield _Asked(index, model.id, written, lookup(model.id), _params(settings, index, model), settings.stream)


def _params(settings: Settings, index: int, model: ModelFields) -> dict[str, tuple[KeyPath, list[Any]]]:
    found: dict[str, tuple[KeyPath, list[Any]]] = {name: (("grid", name), values) for name, values in settings.grid.values.items()}
    return found | {name: (("models", index, "params", name), values) for name, values in model.params.values.items()}


def _ranges(asked: _Asked) -> Iterator[Mistake]:
    compatible = asked.provider.options.seed_compat
    most = asked.facts.max_output if asked.facts else None
    for name, (path, values) in asked.params.items():
        for value in values:
            if name == "temperature" and value is not None and value >= 2 and not compatible:
                yield Mistake(path, f"DashScope takes temperatures below 2, not {value} (hint: 1.99, or the provider's option seed_compat)")
            elif name == "top_k" and value is not None and value < 0:
                yield Mistake(path, f"DashScope takes no negative top_k, not {value} (hint: 0 or null switches it off)")
            elif name == "top_logprobs" and value is not None and value > 5:
                yield Mistake(path, f"DashScope takes at most 5 top_logprobs, not {value}")
            elif name == "max_tokens" and value is not None and most is not None and value > most:
                yield Mistake(path, f"{asked.name} writes at most {most:,} tokens, not {value:,}")


def _thinking(asked: _Asked, facts: ModelFacts) -> Iterator[Mistake]:
    for value in asked.values("enable_thinking"):
        path = asked.params["enable_thinking"][0] if value is not None else ("stream",)
        if value and facts.thinking == "none":
            yield Mistake(path, f"{asked.name} cannot think")
        elif value is False and facts.thinking == "only":
            yield Mistake(path, f"{asked.name} cannot do without thinking")
        elif facts.open and thinks(facts.thinking, value) and False in asked.streams:
            yield Mistake(path, f"{asked.name} thinks in streams only (hint: stream: true, or enable_thinking: false)")
    both = [name for name in ("thinking_budget", "reasoning_effort") if any(value is not None for value in asked.values(name))]
    if len(both) == 2:
        yield Mistake(asked.params["reasoning_effort"][0], "DashScope takes thinking_budget or reasoning_effort, not both")


def _streams(asked: _Asked, facts: ModelFacts) -> Iterator[Mistake]:
    if facts.stream_only and False in asked.streams:
        yield Mistake(("stream",), f"{asked.name} answers in streams only (hint: stream: true)")


def _forced(asked: _Asked, facts: ModelFacts, settings: Settings) -> Iterator[Mistake]:
    thinking = any(thinks(facts.thinking, value) for value in asked.values("enable_thinking"))
    if thinking and any(effort != "none" for effort in asked.values("reasoning_effort")):
        for index, prompt_set in enumerate(settings.prompt_sets):
            if isinstance(prompt_set.tool_choice, dict):
                off = "auto" if facts.thinking == "only" else "enable_thinking: false, or auto"
                yield Mistake(("prompt_sets", index, "tool_choice"), f"no function can be forced on {asked.name} while it thinks (hint: {off})")


def _longest(facts: ModelFacts) -> int | None:
    return facts.max_input or facts.context


def _bytes(messages: Sequence[Message]) -> int:
    """At least the tokens: none is shorter than a byte."""
    return sum(_BYTES_AROUND + sum(len(text.encode()) for text in texts(message)) + len(str(message.get("tool_calls") or "")) for message in messages)


def _names(option: Any) -> list[str]:
    return [str(name) for name in option] if isinstance(option, list | dict) else []
