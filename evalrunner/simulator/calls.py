"""What flows through the simulator: a `Call` in, a `Reply` or a `Refusal` out, the same whichever dialect it came in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from evalrunner.cost.models import ModelFacts


class Code(NamedTuple):
    """A documented error: status, the OpenAI dialect's `type`, the native dialect's code, the words."""

    status: int
    type: str
    native: str
    message: str


_REQUEST = "invalid_request_error"
CODES: dict[str, Code] = {
    "invalid_parameter_error": Code(400, _REQUEST, "InvalidParameter", "The request contains an invalid parameter."),
    "invalid_request_error": Code(400, _REQUEST, "InvalidParameter", "Required body invalid, please check the request body format."),
    "InvalidParameter.NotSupportEnableThinking": Code(
        400, _REQUEST, "InvalidParameter.NotSupportEnableThinking", "The model does not support enable_thinking."
    ),
    "data_inspection_failed": Code(400, "data_inspection_failed", "DataInspectionFailed", "Input data may contain inappropriate content."),
    "Arrearage": Code(400, "Arrearage", "Arrearage", "Access denied, please make sure your account is in good standing."),
    "InvalidURL": Code(400, _REQUEST, "InvalidURL", "Failed to download multimodal content."),
    "invalid_api_key": Code(401, _REQUEST, "InvalidApiKey", "Incorrect API key provided. For details, see the documentation, error-code#apikey-error"),
    "access_denied": Code(403, "access_denied", "Model.AccessDenied", "Model access denied."),
    "AccessDenied.Unpurchased": Code(403, "access_denied", "AccessDenied.Unpurchased", "Access to model denied. Please activate the service first."),
    "AllocationQuota.FreeTierOnly": Code(403, "insufficient_quota", "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted."),
    "model_not_found": Code(404, _REQUEST, "ModelNotFound", "The model `x` does not exist or you do not have access to it."),
    "model_not_supported": Code(404, _REQUEST, "InvalidParameter", "Unsupported model x for OpenAI compatibility mode."),
    "not_found": Code(404, _REQUEST, "NotFound", "The requested object was not found."),
    "request_too_large": Code(413, _REQUEST, "RequestTooLarge", "The request exceeds the maximum allowed size of 6 MB."),
    "limit_requests": Code(429, "limit_requests", "Throttling.RateQuota", "You have exceeded your current request limit. For details, see rate-limit."),
    "limit_burst_rate": Code(
        429,
        "limit_burst_rate",
        "Throttling.BurstRate",
        "Request rate increased too quickly. To ensure system stability, please adjust your client logic to scale requests more smoothly over time.",
    ),
    "insufficient_quota": Code(
        429, "insufficient_quota", "Throttling.AllocationQuota", "You exceeded your current quota, please check your plan and billing details."
    ),
    "Throttling": Code(429, "Throttling", "Throttling", "Requests throttling triggered."),
    "PrepaidBillOverdue": Code(429, "PrepaidBillOverdue", "PrepaidBillOverdue", "The prepaid bill is overdue."),
    "internal_error": Code(
        500, "internal_error", "InternalError", "An internal error has occured, please try again later or contact service support."
    ),  # "occured" is how the service spells it
    "request_timeout": Code(500, "request_timeout", "RequestTimeOut", "Request timed out, please try again later."),
    "ModelServingError": Code(
        503,
        "ModelServingError",
        "ModelServingError",
        "Too many requests. Your requests are being throttled due to system capacity limits. Please try again later.",
    ),
    "ModelUnavailable": Code(503, "ModelUnavailable", "ModelUnavailable", "Model is unavailable, please try again later."),
    "GatewayTimeout": Code(504, "GatewayTimeout", "GatewayTimeout", "The gateway timed out."),
}


class Refusal(Exception):  # noqa: N818 - the word the documents use
    """The service will not answer. `code` is the OpenAI dialect's; `CODES` has the rest where it is a documented one."""

    def __init__(self, code: str, message: str | None = None, *, status: int | None = None, param: str | None = None) -> None:
        known = CODES.get(code) or Code(status or 500, code, code, code)
        self.code, self.type, self.native, self.param = code, known.type, known.native, param
        self.status = status or known.status
        self.message = known.message if message is None else message
        super().__init__(self.message)


def engine_refusal(message: str) -> Refusal:
    """What the engine behind the gateway refuses carries its own prefix."""
    return Refusal("invalid_parameter_error", f"<400> InternalError.Algo.InvalidParameter: {message}")


class Call(Struct, kw_only=True):
    """One generation request. `params` are those of qwen-api's section 1.2 by their OpenAI names, without model, messages and stream."""

    dialect: Literal["openai", "native"]
    model: str
    facts: ModelFacts
    messages: list[dict[str, Any]]
    params: Mapping[str, Any]
    stream: bool
    thinking: bool
    cumulative: bool = False
    plain: bool = False
    prompt_tokens: int = 0
    media_tokens: Mapping[str, int] = {}
    cached_tokens: int = 0
    written_tokens: int = 0
    explicit_cache: bool = False

    @property
    def tools(self) -> list[dict[str, Any]]:
        return [] if self.params.get("tool_choice") == "none" else self.params.get("tools") or []


class ToolCall(Struct, frozen=True):
    """`arguments` is the JSON text a model writes."""

    id: str
    name: str
    arguments: str


class Choice(Struct, frozen=True, kw_only=True):
    """One answer; `finish_reason` None is a partial one."""

    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = "stop"


class Tokens(Struct, frozen=True, kw_only=True):
    """The usage of one reply: prompt includes cached, written and media; completion includes reasoning."""

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0
    written: int = 0
    explicit: bool = False
    media: Mapping[str, int] = {}


class Reply(Struct, frozen=True, kw_only=True):
    """What the engine made of a call. `id` is the request's uuid, `speed` how much slower (> 1) or faster this request is than its model's latency."""

    id: str
    created: int
    choices: tuple[Choice, ...]
    tokens: Tokens
    speed: float = 1.0
