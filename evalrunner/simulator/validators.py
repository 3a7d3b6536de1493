"""What the service refuses, in its words and its order: schema, parameters, order of messages, media, length.

Key and model come before, moderation and rates after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from evalrunner.cost.tokens import texts
from evalrunner.simulator.calls import Call, Refusal, engine_refusal
from evalrunner.simulator.media import media_of

ROLES = ("system", "assistant", "user", "tool", "function")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EFFORTS = {"none", "minimal", "low", "medium", "high", "xhigh", "max"}

_Kinds = tuple[type, ...]
_NUMBER, _INTEGER, _BOOLEAN, _STRING, _ARRAY, _OBJECT = (int, float), (int,), (bool,), (str,), (list,), (dict,)
_TYPE_NAMES: dict[_Kinds, str] = {_NUMBER: "number", _INTEGER: "integer", _BOOLEAN: "boolean", _STRING: "string", _ARRAY: "array", _OBJECT: "object"}
_TYPES: dict[str, _Kinds] = (
    dict.fromkeys(("temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty"), _NUMBER)
    | dict.fromkeys(("top_k", "max_tokens", "max_completion_tokens", "n", "seed", "thinking_budget", "top_logprobs"), _INTEGER)
    | dict.fromkeys(("enable_thinking", "enable_search", "parallel_tool_calls", "logprobs", "incremental_output", "vl_high_resolution_images"), _BOOLEAN)
    | dict.fromkeys(("stream_options", "response_format", "audio"), _OBJECT)
    | dict.fromkeys(("tools", "modalities"), _ARRAY)
    | dict.fromkeys(("reasoning_effort", "result_format"), _STRING)
)
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda value: 0 <= value < 2, "Temperature should be in [0.0, 2.0)"),
    "top_p": (lambda value: 0 < value <= 1, "Range of top_p should be (0.0, 1.0]"),
    "top_k": (lambda value: value >= 0, "Parameter top_k be greater than or equal to 0"),
    "repetition_penalty": (lambda value: value > 0, "Repetition_penalty should be greater than 0.0"),
    "presence_penalty": (lambda value: -2 <= value <= 2, "Presence_penalty should be in [-2.0, 2.0]"),
    "n": (lambda value: 1 <= value <= 4, "Range of n should be [1, 4]"),
    "thinking_budget": (lambda value: value > 0, "The thinking_budget parameter must be a positive integer"),
    "top_logprobs": (lambda value: 0 <= value <= 5, "Range of top_logprobs should be [0, 5]"),
}


def check_schema(params: Mapping[str, Any], messages: Any) -> None:
    """The shape of a body, as the gateway's JSON schema says it."""
    if messages is None:
        raise Refusal("invalid_request_error", "'messages' is a required property")
    _check_type(messages, _ARRAY, "messages")
    if not messages:
        raise Refusal("invalid_request_error", "[] is too short - 'messages'")
    for number, message in enumerate(messages):
        _check_message(message, f"messages.{number}")
    for name, value in params.items():
        if value is not None and (wanted := _TYPES.get(name)):
            _check_type(value, wanted, name)
    seed = params.get("seed")
    if seed is not None and not 0 <= seed < 2**63:
        raise Refusal("invalid_value", f"{seed} is lesser than the minimum of 0 - 'seed'" if seed < 0 else f"{seed} is too large - 'seed'", status=400)


def check_params(call: Call, *, seed_compat: bool) -> None:
    """Ranges, and what goes with what."""
    params = call.params
    for name, value in params.items():
        if value is not None and (rule := _RANGES.get(name)) and not rule[0](value) and not (seed_compat and name == "temperature" and value == 2):
            raise engine_refusal(rule[1])
    for name in ("max_tokens", "max_completion_tokens"):
        most = call.facts.max_output
        if (value := params.get(name)) is not None and (value < 1 or (most is not None and value > most)):
            raise engine_refusal(f"Range of {name} should be [1, {most or 'N'}]")
    _check_stream(call)
    _check_thinking(call)
    _check_tools(call)
    _check_format(call)
    if params.get("enable_search") and call.facts.inputs:
        raise engine_refusal("This model does not support enable_search.")


def check_messages(call: Call, *, seed_compat: bool) -> None:
    """Who may follow whom, and what a message of this model may hold."""
    messages = call.messages
    if not any(message["role"] == "user" for message in messages):
        raise engine_refusal("The input messages do not contain elements with the role of user.")
    _check_order(messages)
    for message in messages:
        if not call.facts.inputs and isinstance(message.get("content"), list):
            raise engine_refusal("input content must be a string.")
        if call.dialect == "openai" and not seed_compat and any("audio_url" in medium.part for medium in media_of(message)):
            raise Refusal("invalid_request_error", "Invalid value: audio_url. Supported values are: 'text','image_url','video_url','video' and 'input_audio'.")


def check_length(call: Call) -> None:
    most = call.facts.max_input or call.facts.context
    if most is not None and call.prompt_tokens > most:
        raise engine_refusal(f"Range of input length should be [1, {most}]")


def said(call: Call) -> list[str]:
    """Every text of the conversation, for moderation."""
    return [text for message in call.messages for text in texts(message)]


def _check_message(message: Any, where: str) -> None:
    _check_type(message, _OBJECT, where)
    if message.get("role") not in ROLES:
        raise Refusal("invalid_request_error", f"{message.get('role')!r} is not one of {list(ROLES)} - '{where}.role'")
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise Refusal("invalid_parameter_error", "The content field is a required field.")
    if content is not None and not isinstance(content, str | list):
        _check_type(content, _STRING, f"{where}.content")
    if message.get("tool_calls"):
        _check_type(message["tool_calls"], _ARRAY, f"{where}.tool_calls")
        for number, one in enumerate(message["tool_calls"]):
            _check_type(one, _OBJECT, f"{where}.tool_calls.{number}")


def _check_type(value: Any, wanted: _Kinds, where: str) -> None:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not _BOOLEAN):
        raise Refusal("invalid_request_error", f"{value!r} is not of type {_TYPE_NAMES[wanted]!r} - {where!r}")


def _check_order(messages: list[dict[str, Any]]) -> None:
    open_ids: list[str] = []
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_ids:
                raise engine_refusal('messages with role "tool" must be a response to a preceeding message with "tool_calls".')
            open_ids.remove(str(message["tool_call_id"]))
        elif open_ids:
            raise engine_refusal(_unanswered(number))
        else:
            open_ids = [str(one.get("id")) for one in message.get("tool_calls") or ()]
    if open_ids:
        raise engine_refusal(_unanswered(len(messages)))
    last = messages[-1]
    if last["role"] not in {"user", "tool"} and not last.get("partial"):
        raise Refusal("internal_error", "list index out of range")


def _check_stream(call: Call) -> None:
    if call.facts.stream_only and not call.stream:
        if "audio" in (call.params.get("modalities") or ()):
            raise engine_refusal("'audio' output only support with stream=true")
        raise engine_refusal("This model only support stream mode, please enable the stream parameter to access the model.")


def _check_thinking(call: Call) -> None:
    asked, facts = call.params.get("enable_thinking"), call.facts
    if asked and facts.thinking == "none":
        raise Refusal("InvalidParameter.NotSupportEnableThinking")
    if asked is False and facts.thinking == "only":
        raise engine_refusal("The value of the enable_thinking parameter is restricted to True.")
    if call.thinking and facts.open and not call.stream:
        raise engine_refusal("parameter.enable_thinking must be set to false for non-streaming calls")
    effort = call.params.get("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        raise engine_refusal(f"{effort!r} is not one of low, medium, xhigh - 'reasoning_effort'")
    if effort is not None and call.params.get("thinking_budget") is not None:
        raise engine_refusal("reasoning_effort and thinking_budget are mutually exclusive")
    if call.dialect == "native" and call.thinking and facts.endpoint == "text":
        if call.plain:
            raise engine_refusal('The result_format parameter must be "message" when enable_thinking is true')
        if call.stream and call.cumulative:
            raise engine_refusal('incremental_output must be "true" when enable_thinking is true')


def _check_tools(call: Call) -> None:
    tools = call.params.get("tools") or ()
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise Refusal("invalid_request_error", f"'name' is a required property - 'tools.{number}.function'")
        if name == "search":
            raise engine_refusal("Tool names are not allowed to be [search]")
        if not _TOOL_NAME.fullmatch(name):
            raise Refusal("invalid_request_error", f"{name!r} does not match '^[a-zA-Z0-9_-]{{1,64}}$' - 'tools.{number}.function.name'")
    if tools and (call.params.get("n") or 1) > 1:
        raise engine_refusal("The n parameter must be 1 when tools are used")
    if tools and call.plain:
        raise engine_refusal('The result_format parameter must be "message" when tools are used')
    if tools and (call.facts.inputs == {"audio"} or call.model.startswith(("qwen-long", "qwen-math"))):
        raise engine_refusal("The tool call is not supported.")
    _check_choice(call.params.get("tool_choice"), [tool["function"]["name"] for tool in tools], thinking=call.thinking)


def _check_choice(choice: Any, names: list[str], *, thinking: bool) -> None:
    if choice is None or choice in ("auto", "none"):
        return
    if not isinstance(choice, dict):
        raise engine_refusal('tool_choice is one of the strings that should be ["none","auto"]')
    function = choice.get("function")
    if not isinstance(function, dict) or function.get("name") not in names:
        raise engine_refusal("tool_choice names a function that is not among the tools")
    if thinking:
        raise engine_refusal("The tool_choice parameter does not support being set to an object in thinking mode")


def _check_format(call: Call) -> None:
    kind = (call.params.get("response_format") or {}).get("type")
    if kind in {"json_object", "json_schema"} and call.thinking:
        raise engine_refusal("Json mode response is not supported when enable_thinking is true")
    if kind == "json_object" and not any("json" in text.lower() for text in said(call)):
        raise engine_refusal("'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.")


def _unanswered(number: int) -> str:
    return (
        'An assistant message with "tool_calls" must be followed by tool messages responding to each "tool_call_id". '
        f"The following tool_call_ids did not have response messages: message[{number}].role"
    )
