"""What a provider or the network said, as one of our errors: the one place that reads codes, statuses, messages and foreign exceptions.

The order: a few texts that alone tell two errors apart, then the code, then the HTTP status, then the type. Sources: Alibaba's error code pages for both
dialects, OpenAI's error guide, vLLM, llama.cpp and OpenRouter as they answer. The tables below are the documentation; tests go through every line.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from evalrunner.clients.retry_after import retry_after_s
from evalrunner.errors import (
    AccountError,
    AuthError,
    BadOutputError,
    DeadlineError,
    EndpointError,
    FilteredError,
    RateLimitedError,
    RejectedError,
    RequestError,
    ServerError,
    TransportError,
    UnknownModelError,
)

ProviderError = RequestError | EndpointError

CODES: dict[str, type[ProviderError]] = {
    # too fast
    "limit_requests": RateLimitedError,
    "limit_burst_rate": RateLimitedError,
    "throttling": RateLimitedError,
    "throttling.ratequota": RateLimitedError,
    "throttling.burstrate": RateLimitedError,
    "throttling.allocationquota": RateLimitedError,
    "rate_limit_exceeded": RateLimitedError,
    "rate_limit_error": RateLimitedError,
    "too_many_requests": RateLimitedError,
    # the money is gone
    "insufficient_quota": AccountError,
    "arrearage": AccountError,
    "allocationquota.freetieronly": AccountError,
    "accessdenied.unpurchased": AccountError,
    "commoditynotpurchased": AccountError,
    "prepaidbilloverdue": AccountError,
    "postpaidbilloverdue": AccountError,
    "billing_hard_limit_reached": AccountError,
    "billing_not_active": AccountError,
    "insufficient_balance": AccountError,
    # the key, or what it may do
    "invalid_api_key": AuthError,
    "invalidapikey": AuthError,
    "access_denied": AuthError,
    "accessdenied": AuthError,
    "authentication_error": AuthError,
    "account_deactivated": AuthError,
    "unsupported_country_region_territory": AuthError,
    # the model
    "model_not_found": UnknownModelError,
    "modelnotfound": UnknownModelError,
    "model.notexist": UnknownModelError,
    "model_not_supported": UnknownModelError,
    "model.accessdenied": UnknownModelError,
    # content inspection
    "data_inspection_failed": FilteredError,
    "datainspectionfailed": FilteredError,
    "content_filter": FilteredError,
    "content_policy_violation": FilteredError,
    # the request
    "invalidparameter": RejectedError,
    "invalid_parameter_error": RejectedError,
    "invalid_request_error": RejectedError,
    "invalid_value": RejectedError,
    "context_length_exceeded": RejectedError,
    "badrequest": RejectedError,
    "invalidurl": RejectedError,
    "invalidfile": RejectedError,
    "invalidurl.timeout": BadOutputError,  # the provider could not fetch our media in time: its fate, one more attempt, is the right one
    # the provider
    "internalerror": ServerError,
    "internal_error": ServerError,
    "internal_server_error": ServerError,
    "server_error": ServerError,
    "systemerror": ServerError,
    "modelservicefailed": ServerError,
    "modelservingerror": ServerError,
    "modelunavailable": ServerError,
    "serviceunavailable": ServerError,
    "service_unavailable": ServerError,
    "gatewaytimeout": ServerError,
    "request_timeout": ServerError,
    "requesttimeout": ServerError,
    "responsetimeout": ServerError,
    "overloaded_error": ServerError,
    "engine_overloaded": ServerError,
}
"""By code, in lower case. A dotted code that is not listed counts as its last part, else as its first: `InvalidFile.Format`,
`InternalError.Algo.InvalidParameter`."""

STATUSES: dict[int, type[ProviderError]] = {
    401: AuthError,
    402: AccountError,
    403: AuthError,
    404: AuthError,  # no model is named, so it is the path: a wrong base_url
    407: AuthError,
    408: ServerError,
    409: ServerError,
    425: ServerError,
    429: RateLimitedError,
}
"""By HTTP status, where the code tells nothing. Other 4xx: RejectedError; anything else that is not an answer: ServerError."""

TYPES: dict[str, type[ProviderError]] = {
    "permission_error": AuthError,
    "not_found_error": UnknownModelError,
    "api_error": ServerError,
    "timeout_error": ServerError,
}
"""By type, for errors inside a 200 that have neither code nor status."""

TEXTS: tuple[tuple[str, type[ProviderError]], ...] = (
    ("file parsing in progress", ServerError),  # 400 invalid_parameter_error, but true only for a moment
    ("list index out of range", RejectedError),  # 500, but the order of our messages is to blame
    ("model not exist", UnknownModelError),  # 400 InvalidParameter in some native paths
    ("model access denied", UnknownModelError),  # 403 access_denied, the same code as for the whole account
    ("inappropriate content", FilteredError),  # engines wrap it in InvalidParameter
)
"""Texts that alone tell two errors of one code apart."""

BURST = frozenset({"limit_burst_rate", "throttling.burstrate"})

EXCEPTIONS: dict[str, tuple[type[ProviderError], str | None]] = {
    "SSLCertVerificationError": (AuthError, "connect"),
    "ClientConnectorCertificateError": (AuthError, "connect"),
    "ServerFingerprintMismatch": (AuthError, "connect"),
    "ConnectionTimeoutError": (DeadlineError, "connect"),
    "ConnectTimeout": (DeadlineError, "connect"),
    "ClientConnectorError": (TransportError, "connect"),
    "ConnectError": (TransportError, "connect"),
    "ProxyError": (TransportError, "connect"),
    "ClientHttpProxyError": (TransportError, "connect"),
    "gaierror": (TransportError, "connect"),
    "ClientError": (TransportError, None),
    "TransportError": (TransportError, None),
    "HttpProcessingError": (TransportError, None),
    "OSError": (TransportError, None),
}
"""By the name of a class of aiohttp, httpx, ssl or socket (or of one it inherits from), so that this table needs neither library; None: the caller's phase."""

_UNREADABLE = frozenset({"ContentEncodingError", "DecodingError"})  # aiohttp's and httpx's; either may be wrapped
_ENGINE = re.compile(r"^<(\d{3})>\s*([\w.]+):")


class Said(Struct, frozen=True):
    """An error in the provider's words. `status` is HTTP's, or the one an error inside a 200 claims for itself."""

    status: int
    message: str
    code: str | None = None
    type: str | None = None
    response_id: str | None = None
    forwarded: bool = False  # a router's error about one upstream and one request
    flagged: bool = False
    request_id: bool = False  # the body has DashScope's request_id
    opaque: bool = False  # not JSON: the message is an excerpt


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, dashscope: bool, now_s: float) -> ProviderError:
    """The error for an HTTP answer that is none: JSON of either dialect, the SSE form DashScope gives to refused streams, or anything else.

    `headers` are looked up in lower case; `now_s` is the wall clock, for a Retry-After that is a date.
    """
    value = _payload(body)
    said = say(value, status) if value is not None else Said(status, _excerpt(status, body), opaque=True)
    error = classify(said, dashscope=dashscope)
    error.response_id = said.response_id or headers.get("x-request-id")
    error.retry_after_s = retry_after_s(headers, now_s, resets=isinstance(error, RateLimitedError))
    return error


def in_band(value: object, *, dashscope: bool, status: int = 200) -> ProviderError:
    """The error for an `error` object, or a flat code and message, inside an HTTP 200 or a stream."""
    return classify(say(value, status), dashscope=dashscope)


def say(value: object, status: int) -> Said:
    """Read the shapes providers use: `{"error": {…} | "…"}`, flat `{code, message, request_id}`, `{"detail": …}`."""
    outer = value if isinstance(value, dict) else {"message": value}
    inner = outer.get("error")
    fields: dict[str, Any] = inner if isinstance(inner, dict) else {"message": inner, **outer} if isinstance(inner, str) else outer
    metadata = fields.get("metadata")
    routed = metadata if isinstance(metadata, dict) else {}
    code, kind = _text(fields.get("code")), _text(fields.get("type"))
    if status == 200 and code and code.isdigit() and 400 <= int(code) < 600:
        status = int(code)
    message = _text(fields.get("message")) or _text(fields.get("detail")) or _text(fields.get("error")) or json.dumps(value, ensure_ascii=False)[:500]
    said_id = outer.get("id") or outer.get("request_id") or fields.get("request_id")
    return Said(
        status,
        message,
        code=code,
        type=kind,
        response_id=_text(said_id),
        forwarded="provider_name" in routed,
        flagged="flagged_input" in routed,
        request_id="request_id" in outer,
    )


def classify(said: Said, *, dashscope: bool) -> ProviderError:
    """The class for what was said, with status, code and message filled in."""
    kind = _class(said, dashscope=dashscope)
    error = kind(said.message, http_status=said.status, code=said.code or said.type)
    if isinstance(error, RateLimitedError) and (said.code or "").lower() in BURST:
        error.burst = True
    return error


def from_exception(error: BaseException, *, host: str, phase: str) -> ProviderError:
    """The error for a foreign exception; `host` is named in the message, `phase` is where the exchange was (connect, wait, stream, body)."""
    words = ""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, ssl.SSLCertVerificationError):
            return AuthError(f"{host}: its TLS certificate cannot be trusted: {getattr(chain, 'verify_message', '') or chain}", phase="connect")
        if type(chain).__name__ in _UNREADABLE:
            return BadOutputError(f"{host}: {chain}", phase="body")
        words = (
            words or _unconnected(chain) or getattr(chain, "message", "") or ("" if hasattr(chain, "request_info") else str(chain))
        )  # whose text holds the URL
        chain = chain.__cause__ or chain.__context__
    for base in type(error).__mro__:
        if found := EXCEPTIONS.get(base.__name__):
            kind, own_phase = found
            return kind(f"{host}: {words or type(error).__name__}", phase=own_phase or phase)
    raise error


def _unconnected(error: BaseException) -> str:
    """In place of aiohttp's words for a connection that was not made: they repeat the host and say `ssl:default` without TLS, too."""
    cause = getattr(error, "os_error", None)
    if cause is None or "Proxy" in type(error).__name__:  # a proxy's own host stands in its words alone
        return ""
    if isinstance(cause, ConnectionRefusedError):
        return "cannot connect: refused, nothing listens there"
    return f"cannot connect: {getattr(cause, 'strerror', None) or str(cause) or type(cause).__name__}"


def _class(said: Said, *, dashscope: bool) -> type[ProviderError]:
    message = said.message.lower()
    engine = _ENGINE.match(said.message)
    status = int(engine[1]) if engine and said.status == 200 else said.status
    by_code = (_by_code(engine[2]) if engine else None) or _by_code(said.code)
    return _by_text(said, message, dashscope=dashscope) or by_code or _by_status(said, status, message)


def _by_text(said: Said, message: str, *, dashscope: bool) -> type[ProviderError] | None:
    """Where the code alone would mislead."""
    for text, kind in TEXTS:
        if text in message and said.status != 429:
            return kind
    if "insufficient_quota" in (said.code, said.type):
        return _quota(said, message, dashscope=dashscope)
    if said.flagged:
        return FilteredError
    return RejectedError if said.forwarded and said.status in (403, 404) else None


def _quota(said: Said, message: str, *, dashscope: bool) -> type[ProviderError]:
    """OpenAI's 429 `insufficient_quota` is an unpaid bill, DashScope's is its tokens-per-minute throttle, in the same words; with 403 both mean money."""
    if said.status == 403 or "free tier" in message:
        return AccountError
    if dashscope or "allocated quota exceeded" in message:
        return RateLimitedError
    return RateLimitedError if said.request_id and "platform.openai.com" not in message else AccountError


def _by_code(code: str | None) -> type[ProviderError] | None:
    if not code:
        return None
    lower = code.lower()
    parts = lower.split(".")
    return CODES.get(lower) or CODES.get(parts[-1]) or CODES.get(parts[0])


def _by_status(said: Said, status: int, message: str) -> type[ProviderError]:
    if status == 404 and "model" in message and not said.opaque:
        return UnknownModelError
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return RejectedError
    if status == 200 and said.type:
        return _by_code(said.type) or TYPES.get(said.type.lower(), ServerError)
    return ServerError


def _payload(body: bytes) -> object:
    """The JSON in a body, plain or as the first readable `data:` line; None when there is none."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    lines = [line[5:] for line in re.split(r"\r\n|\r|\n", text) if line.startswith("data:")]
    for candidate in (text, *lines):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def _excerpt(status: int, body: bytes) -> str:
    words = " ".join(body[:2000].decode("utf-8", errors="replace").split())
    return f"HTTP {status}: {words[:300]}" if words else f"HTTP {status} without a body"


def _text(value: object) -> str | None:
    """Codes and ids come as strings or numbers; anything else is no text."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    return str(value) if isinstance(value, (str, int)) else None
