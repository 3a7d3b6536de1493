r"""Request parameters a config may set, with their documented ranges: one field each, sent at top level as it is.

From Alibaba's chat API, OpenAI's, vLLM's and llama.cpp's. Anything else goes through `extra_body`. In a grid a list is swept, except where the value
itself is a list (`stop: ["\n"]` is one value, `stop: [["\n"], ["###"]]` two). A null is left out of the request.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


def _whole(value: Any) -> Any:
    """`1e3` is a float to YAML and a whole number to its writer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)  # last in an Annotated, so that ranges stay ranges in the JSON Schema
Whole = Annotated[int, WHOLE]
Natural = Annotated[int, Field(ge=0), WHOLE]
Positive = Annotated[int, Field(ge=1), WHOLE]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Object = dict[str, Any]


def _unknown_only(value: Object) -> Object:
    for name in value:
        if name in Parameters.model_fields:
            raise ValueError(f"{name} is a parameter of its own: write it beside extra_body")
        if name in ELSEWHERE:
            raise ValueError(f"{name} cannot be sent this way: {ELSEWHERE[name]}")
    return value


class Parameters(BaseModel):
    """Every known request parameter."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True, title="Request parameters")

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0..2; the live Qwen service refuses 2.0 itself."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Above 0, at most 1."""
    top_k: Annotated[int, Field(ge=-1), WHOLE] | None = None
    """Candidates kept; -1 (vLLM), 0 or above 100 (Qwen) switch it off."""
    min_p: Share | None = None
    typical_p: Share | None = None
    repetition_penalty: Above0 | None = None
    repeat_penalty: Above0 | None = None
    """llama.cpp's name of repetition_penalty."""
    repeat_last_n: Annotated[int, Field(ge=-1), WHOLE] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_tokens: Positive | None = None
    """Caps the answer; the chain of thought of a Qwen model is not counted."""
    max_completion_tokens: Positive | None = None
    """Caps chain of thought and answer together."""
    min_tokens: Natural | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1), WHOLE] | None = None
    """Sent as given, in every trial."""
    stop: str | list[str] | list[Whole] | None = None
    """One text or a list of them (or of token ids)."""
    stop_token_ids: list[Whole] | None = None
    include_stop_str_in_output: bool | None = None
    bad_words: list[str] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    response_format: Object | None = None
    """`{type: text}`, `{type: json_object}` or `{type: json_schema, json_schema: {…}}`."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    enable_thinking: bool | None = None
    thinking_budget: Positive | None = None
    """Most tokens of the chain of thought; not together with reasoning_effort."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    preserve_thinking: bool | None = None
    enable_search: bool | None = None
    search_options: Object | None = None
    enable_code_interpreter: bool | None = None
    skill: list[Any] | None = None
    translation_options: Object | None = None
    parallel_tool_calls: bool | None = None
    tool_stream: bool | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: Object | None = None
    vl_high_resolution_images: bool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    service_tier: str | None = None
    user: str | None = None
    metadata: Object | None = None
    store: bool | None = None
    prediction: Object | None = None
    chat_template_kwargs: Object | None = None
    structured_outputs: Object | None = None
    """vLLM's constrained decoding."""
    grammar: str | None = None
    """llama.cpp's GBNF grammar."""
    json_schema: Object | None = None
    """llama.cpp's own form of response_format."""
    cache_prompt: bool | None = None
    mirostat: Annotated[int, Field(ge=0, le=2), WHOLE] | None = None
    mirostat_tau: NotNegative | None = None
    mirostat_eta: NotNegative | None = None
    samplers: list[str] | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    dry_multiplier: NotNegative | None = None
    dry_base: NotNegative | None = None
    dry_allowed_length: Natural | None = None
    extra_body: Annotated[Object, AfterValidator(_unknown_only)] | None = None
    """Any other field, merged into the request at top level."""


LISTS = frozenset({"stop", "stop_token_ids", "bad_words", "skill", "modalities", "samplers"})
"""Parameters whose value is itself a list."""

ELSEWHERE = {
    "model": "models are listed under `models`",
    "messages": "messages come from `prompt_sets`",
    "stream": "`stream` is a key of its own, beside `grid`",
    "stream_options": "usage is asked for in every stream; use `stream: true` beside `grid`",
    "n": "use `trials`: n > 1 gives answers that share one request's limits and time",
    "tools": "tools belong to a prompt set",
    "tool_choice": "tool_choice belongs to a prompt set",
    "max_new_tokens": "it is called max_tokens here",
    "timeout": "see `timeouts`",
}
"""Fields of the wire that a config sets in another place."""


def _as_lists(value: Any) -> Any:
    """Each entry as the list of its values, so that a scalar is a list of one."""
    if not isinstance(value, dict):
        return value
    return {name: entry if _is_swept(name, entry) else [entry] for name, entry in value.items()}


def _is_swept(name: str, entry: Any) -> bool:
    return isinstance(entry, list) and (name not in LISTS or any(isinstance(item, list) for item in entry))


def _distinct(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("is an empty list: there is nothing to run")
    for index, value in enumerate(values):
        for earlier, other in enumerate(values[:index]):
            if value == other and isinstance(value, bool) == isinstance(other, bool):
                raise PydanticCustomError("twice", "the same value twice, at positions {first} and {second}", {"first": earlier + 1, "second": index + 1})
    return values


def _swept(field: FieldInfo) -> Any:
    one = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return (Annotated[list[one], AfterValidator(_distinct)] | None, None)  # type: ignore[valid-type]  # made at run time


_FIELDS: dict[str, Any] = {name: _swept(field) for name, field in Parameters.model_fields.items()}
_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_Swept: Any = create_model("_Swept", __config__=_CONFIG, **_FIELDS)


class Grid(_Swept):
    """Request parameters with the values each one takes."""

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return _as_lists(value)

    @property
    def values(self) -> dict[str, list[Any]]:
        """Parameter -> values, in the order of `Parameters`: the same in every process."""
        return {name: getattr(self, name) for name in Parameters.model_fields if name in self.model_fields_set}
