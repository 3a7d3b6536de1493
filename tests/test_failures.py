import json
import math
import socket
import ssl

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.clients import failures
from evalrunner.clients.failures import CODES, EXCEPTIONS, STATUSES, TEXTS, TYPES, from_exception, in_band, refusal
from evalrunner.clients.retry_after import retry_after_s
from evalrunner.errors import (
    FATES,
    AccountError,
    AuthError,
    BadOutputError,
    DeadlineError,
    FilteredError,
    RateLimitedError,
    RejectedError,
    ServerError,
    TransportError,
    UnknownModelError,
)

NOW = 1_764_000_000.0
QUOTA = "You exceeded your current quota, please check your plan and billing details."
THROTTLED = "Too many requests. Your requests are being throttled due to system capacity limits. Please try again later."


def compat(code, message="…", kind="invalid_request_error"):
    return {"error": {"code": code, "param": None, "message": message, "type": kind}, "id": "chatcmpl-7", "request_id": "7"}


def native(code, message="…"):
    return {"code": code, "message": message, "request_id": "7"}


DASHSCOPE = [  # the service's documented errors: status, native body, compatible body, class
    (400, native("InvalidParameter"), compat("invalid_parameter_error"), RejectedError),
    (400, native("InvalidParameter"), compat("invalid_request_error", "you must provide a model parameter."), RejectedError),
    (400, native("DataInspectionFailed"), compat("data_inspection_failed", "Input data may contain inappropriate content."), FilteredError),
    (400, native("Arrearage"), compat("Arrearage"), AccountError),
    (400, native("InvalidURL"), compat("InvalidURL"), RejectedError),
    (400, native("InvalidURL.ConnectionRefused"), compat("InvalidURL.ConnectionRefused"), RejectedError),
    (400, native("InvalidURL.Timeout"), compat("InvalidURL.Timeout"), BadOutputError),
    (400, native("InvalidFile.Format"), compat("InvalidFile.Format"), RejectedError),
    (400, native("BadRequest.TooLarge"), compat("BadRequest.TooLarge"), RejectedError),
    *((400, native(code), compat(code), RejectedError) for code in ("BadRequest.EmptyInput", "BadRequest.EmptyParameters", "BadRequest.EmptyModel")),
    (400, native("BadRequest.IllegalInput"), compat("BadRequest.IllegalInput"), RejectedError),
    (400, native("InvalidParameter.NotSupportEnableThinking"), None, RejectedError),
    (400, native("InvalidParameter", "Model not exist."), None, UnknownModelError),
    (400, None, compat("invalid_parameter_error", "File parsing in progress, please try again later."), ServerError),
    (400, None, compat("invalid_parameter_error", "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 6000]"), RejectedError),
    (400, None, compat("invalid_parameter_error", "<400> InternalError.Algo.DataInspectionFailed: Input data …"), FilteredError),
    (401, native("InvalidApiKey"), compat("invalid_api_key"), AuthError),
    (403, native("AccessDenied"), compat("access_denied", "Access denied."), AuthError),
    (403, native("Model.AccessDenied"), compat("access_denied", "Model access denied."), UnknownModelError),
    (403, native("Workspace.AccessDenied"), compat("Workspace.AccessDenied"), AuthError),
    (403, native("App.AccessDenied"), compat("App.AccessDenied"), AuthError),
    (403, native("AccessDenied.Unpurchased"), compat("AccessDenied.Unpurchased"), AccountError),
    (403, native("AllocationQuota.FreeTierOnly"), compat("AllocationQuota.FreeTierOnly"), AccountError),
    (403, None, compat("insufficient_quota", "The free tier of the model has been exhausted."), AccountError),
    (404, native("ModelNotFound"), compat("model_not_found"), UnknownModelError),
    (404, native("Model.NotExist"), compat("model_not_supported", "Unsupported model x for OpenAI compatibility mode."), UnknownModelError),
    (413, native("RequestTooLarge"), compat("request_too_large"), RejectedError),
    (429, native("Throttling.RateQuota"), compat("limit_requests", kind="limit_requests"), RateLimitedError),
    (429, native("Throttling.BurstRate"), compat("limit_burst_rate"), RateLimitedError),
    (429, native("Throttling.AllocationQuota"), compat("insufficient_quota", QUOTA, "insufficient_quota"), RateLimitedError),
    (429, None, compat("insufficient_quota", "Allocated quota exceeded, please increase your quota limit."), RateLimitedError),
    (429, native("Throttling", "Requests throttling triggered."), None, RateLimitedError),
    (429, native("CommodityNotPurchased"), compat("CommodityNotPurchased"), AccountError),
    (429, native("PrepaidBillOverdue"), compat("PrepaidBillOverdue"), AccountError),
    (429, native("PostpaidBillOverdue"), compat("PostpaidBillOverdue"), AccountError),
    (500, native("InternalError"), compat("internal_error"), ServerError),
    (500, native("InternalError.Algo"), compat("internal_server_error"), ServerError),
    (500, native("SystemError"), None, ServerError),
    (500, native("ModelServiceFailed"), None, ServerError),
    (500, native("InternalError.Timeout"), compat("request_timeout"), ServerError),
    (500, native("RequestTimeOut"), None, ServerError),
    (500, native("ResponseTimeout"), None, ServerError),
    (500, native("InternalError.Algo", "list index out of range"), compat("internal_error", "list index out of range"), RejectedError),
    (503, native("ModelServingError", THROTTLED), None, ServerError),
    (503, native("ModelUnavailable"), None, ServerError),
    (503, native("ServiceUnavailable"), None, ServerError),
    (504, native("GatewayTimeout"), None, ServerError),
]

OTHERS = [  # status, body, class: providers that are not DashScope
    (429, {"error": {"message": QUOTA, "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}}, AccountError),
    (429, {"error": {"message": QUOTA + " https://platform.openai.com/docs", "code": "insufficient_quota"}, "request_id": "7"}, AccountError),
    (429, compat("insufficient_quota", QUOTA), RateLimitedError),  # DashScope behind a gateway: its body has a request_id
    (429, {"error": {"message": "Allocated quota exceeded, please increase your quota limit.", "code": "insufficient_quota"}}, RateLimitedError),
    (429, {"error": {"message": "Rate limit reached for gpt-x", "type": "tokens", "code": "rate_limit_exceeded"}}, RateLimitedError),
    (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error_x"}}, AccountError),
    (401, {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": None}}, AuthError),
    (403, {"error": {"message": "Country not supported", "code": "unsupported_country_region_territory"}}, AuthError),
    (403, {"error": {"code": 403, "message": "Forbidden upstream", "metadata": {"provider_name": "P"}}}, RejectedError),
    (403, {"error": {"code": 403, "message": "Flagged", "metadata": {"provider_name": "P", "flagged_input": "x"}}}, FilteredError),
    (404, {"error": {"code": 404, "message": "No endpoint for model x", "metadata": {"provider_name": "P"}}}, RejectedError),
    (404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "param": None, "code": 404}, UnknownModelError),
    (404, {"detail": "Not Found"}, AuthError),
    (400, {"error": {"message": "maximum context length is 8192 tokens", "code": "context_length_exceeded"}}, RejectedError),
    (400, {"error": {"message": "…", "code": "content_filter"}}, FilteredError),
    (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, RejectedError),
    (200, {"error": {"code": 504, "message": "upstream"}}, ServerError),
    (200, {"error": {"code": "429", "message": "slow down"}}, RateLimitedError),
    (200, {"error": {"code": 400, "message": "bad"}}, RejectedError),
    (200, {"error": {"code": None, "type": "invalid_request_error", "message": "bad"}}, RejectedError),
    (200, {"error": {"type": "overloaded_error", "message": "busy"}}, ServerError),
    (200, {"error": "something odd"}, ServerError),
    (200, native("Throttling.RateQuota"), RateLimitedError),
    (200, native("InvalidParameter"), RejectedError),
]


def told(status, value, headers=None, *, dashscope=True):
    body = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return refusal(status, headers or {}, body, dashscope=dashscope, now_s=NOW)


@pytest.mark.parametrize(("status", "body", "kind"), [(s, body, kind) for s, flat, nested, kind in DASHSCOPE for body in (flat, nested) if body])
def test_dashscope_table(status, body, kind):
    """Every documented error of DashScope, in both dialects, has its class; code, message and request id are kept as said."""
    error = told(status, body)
    assert type(error) is kind
    assert type(in_band(body, dashscope=True, status=status)) is kind
    said = body.get("error", body)
    assert (error.http_status, error.code, error.message) == (status, said["code"], said["message"])
    assert error.response_id in {"7", "chatcmpl-7"}


@pytest.mark.parametrize(("status", "body", "kind"), OTHERS)
def test_other_providers(status, body, kind):
    """The same words can mean another thing elsewhere: OpenAI's insufficient_quota is an unpaid bill, a router's 403 is about one request."""
    assert type(told(status, body, dashscope=False)) is kind


@pytest.mark.parametrize("code", CODES)
def test_every_code(code):
    """Every code of the table counts more than the HTTP status (which only tells an unpaid bill from a throttle)."""
    for status in (200, 400, 403, 500):
        assert type(told(status, native(code.upper()), dashscope=False)) is CODES[code]


@pytest.mark.parametrize("status", [*STATUSES, 400, 405, 413, 418, 422, 451, 500, 501, 502, 503, 504, 520, 529, 599])
def test_every_status(status):
    """Without a code that is known, the status decides, whatever the body."""
    default = RejectedError if status < 500 else ServerError
    for body in (b"", b"<html>Sorry</html>", b'{"message": "?"}', b"[1]", b"\xff\xfe", b'{"code": "never seen"}'):
        error = told(status, body, dashscope=False)
        assert type(error) is STATUSES.get(status, default)
        assert error.http_status == status
        assert error.message


@pytest.mark.parametrize(("text", "kind"), TEXTS)
def test_every_text(text, kind):
    """The few texts that alone tell two errors apart count more than the code."""
    assert type(told(400, compat("invalid_parameter_error", f"So: {text.upper()}!"))) is kind


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_inside_a_200(kind):
    """Inside a 200, an error that has only a type is read by its type."""
    assert type(in_band({"error": {"type": kind, "message": "…"}}, dashscope=False)) is TYPES[kind]


def test_every_class_has_a_fate():
    """Whatever the tables say, the engine knows what to do with it."""
    for kind in [*CODES.values(), *STATUSES.values(), *TYPES.values(), *(kind for kind, _ in EXCEPTIONS.values())]:
        assert kind in FATES


def test_burst_is_marked():
    """The burst limit asks for a slower ramp, so it can be told from a rate that is too high."""
    assert told(429, compat("limit_burst_rate")).burst
    assert told(429, native("Throttling.BurstRate")).burst
    assert not told(429, compat("limit_requests")).burst


@pytest.mark.parametrize(
    "form", ["data: {}\n\n", "data:{}\n", "data: {}\r\n\r\n", "\ufeffdata: {}", "id:1\nevent:error\n:HTTP_STATUS/400\ndata:{}\n\n", "data: {}\ndata: {}"]
)
def test_refused_stream(form):
    """DashScope refuses a stream in the form of a stream, under HTTP 400: it reads like the plain body."""
    body = form.replace("{}", json.dumps(compat("data_inspection_failed", "Input data may …"))).encode()
    error = told(400, body)
    assert type(error) is FilteredError
    assert error.message == "Input data may …"


def test_body_that_is_no_json():
    """A proxy's page becomes a short excerpt, on one line; the request id comes from the header then."""
    error = told(502, b"<html>\n<title>Bad  Gateway</title>" + b"x" * 9000, {"x-request-id": "r-1"})
    assert error.message.startswith("HTTP 502: <html> <title>Bad Gateway</title>x")
    assert len(error.message) < 330
    assert error.response_id == "r-1"
    assert told(500, b"").message == "HTTP 500 without a body"
    assert type(told(500, b"[" * 100_000)) is ServerError


RETRY_AFTER = [
    ({}, None),
    ({"retry-after": "3"}, 3.0),
    ({"retry-after": " 2.5 "}, 2.5),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "NaN"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "1e9"}, 3600.0),
    ({"retry-after": "inf"}, 3600.0),
    ({"retry-after": "Mon, 24 Nov 2025 16:00:30 GMT"}, 30.0),
    ({"retry-after": "Mon, 24 Nov 2025 15:00:30 GMT"}, 0.0),
    ({"retry-after": "Mon, 99 Nov 2025"}, None),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ({"x-ratelimit-reset": "1m30s"}, 90.0),
    ({"x-ratelimit-reset-requests": "6ms", "x-ratelimit-reset-tokens": "1m30s"}, 90.0),
    ({"x-ratelimit-reset-requests": "12", "x-ratelimit-reset-tokens": "1.5s"}, 12.0),
    ({"X-RateLimit-Reset": "2h"}, 3600.0),
    ({"x-ratelimit-reset": "later 5s"}, None),
    ({"x-ratelimit-reset": str(NOW + 40)}, 40.0),
    ({"x-ratelimit-reset": str(1000 * (NOW + 40))}, 40.0),
    ({"x-ratelimit-reset": "-3", "retry-after": "soon"}, None),
    ({"retry-after": "5", "x-ratelimit-reset": "1m"}, 5.0),
]


@pytest.mark.parametrize("status", [500, 503, 400, 401])
def test_resets_are_read_after_a_429_only(status):
    """`x-ratelimit-reset` stands on every answer and says when a minute is over, not when a broken server is well; an explicit Retry-After holds with both."""
    headers = {"x-ratelimit-reset-requests": "59s"}
    assert told(status, b"", headers).retry_after_s is None
    assert told(status, b"", headers | {"retry-after": "3"}).retry_after_s == 3
    assert told(429, b"", headers).retry_after_s == 59


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
def test_retry_after(headers, seconds):
    """Seconds, dates, milliseconds and reset times are understood and capped at an hour; garbage counts as nothing said."""
    found = retry_after_s(headers, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-3))
    assert told(429, compat("limit_requests"), headers).retry_after_s == found


@given(st.text(), st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]))
def test_no_header_breaks_it(text, name):
    """No header text raises, and what is understood is a wait between 0 and an hour."""
    seconds = retry_after_s({name: text}, NOW)
    assert seconds is None or (0 <= seconds <= 3600 and not math.isnan(seconds))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "code", "message", "type", "metadata", "id", "detail"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([200, 400, 404, 429, 500]))
def test_no_body_breaks_it(value, status):
    """Whatever JSON a server sends, it becomes one of our errors with a message that is text."""
    error = told(status, value)
    assert type(error) in FATES
    assert error.message
    assert error.code is None or isinstance(error.code, str)


def connector_error(kind, cause):
    key = aiohttp.client_reqrep.ConnectionKey("h", 443, True, True, None, None, None)
    return kind(key, cause)


UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed")
FOREIGN = [
    (connector_error(aiohttp.ClientConnectorCertificateError, UNTRUSTED), AuthError, "connect"),
    (connector_error(aiohttp.ClientConnectorSSLError, ssl.SSLError(1, "WRONG_VERSION_NUMBER")), TransportError, "connect"),
    (connector_error(aiohttp.ClientConnectorDNSError, OSError(-2, "Name or service not known")), TransportError, "connect"),
    (connector_error(aiohttp.ClientConnectorError, ConnectionRefusedError(111, "refused")), TransportError, "connect"),
    (connector_error(aiohttp.ClientProxyConnectionError, ConnectionRefusedError(111, "refused")), TransportError, "connect"),
    (aiohttp.ConnectionTimeoutError("slow"), DeadlineError, "connect"),
    (aiohttp.ServerDisconnectedError(), TransportError, "wait"),
    (aiohttp.ClientOSError(104, "reset"), TransportError, "wait"),
    (aiohttp.ClientPayloadError("not completed"), TransportError, "wait"),
    (aiohttp.http_exceptions.BadStatusLine("x"), TransportError, "wait"),
    (aiohttp.http_exceptions.ContentEncodingError("gzip"), BadOutputError, "body"),
    (ConnectionResetError(104, "reset"), TransportError, "wait"),
    (socket.gaierror(-3, "Temporary failure in name resolution"), TransportError, "connect"),
    (OSError(24, "Too many open files"), TransportError, "wait"),
    (httpx.ConnectError("refused"), TransportError, "connect"),
    (httpx.ConnectTimeout("slow"), DeadlineError, "connect"),
    (httpx.ProxyError("407"), TransportError, "connect"),
    (httpx.ReadError(""), TransportError, "wait"),
    (httpx.WriteError("broken pipe"), TransportError, "wait"),
    (httpx.RemoteProtocolError("garbage"), TransportError, "wait"),
    (httpx.DecodingError("gzip"), BadOutputError, "body"),
]


@pytest.mark.parametrize(("foreign", "kind", "phase"), FOREIGN, ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None)
def test_every_exception(foreign, kind, phase):
    """Every failure of the network libraries is one of ours, names the host and says where it broke."""
    error = from_exception(foreign, host="api.example:443", phase="wait")
    assert (type(error), error.phase) == (kind, phase)
    assert error.message.startswith("api.example:443: ")
    assert len(error.message) > len("api.example:443: ")


@pytest.mark.parametrize(
    ("kind", "cause", "words"),
    [
        (aiohttp.ClientConnectorError, ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "refused, nothing listens there"),
        (aiohttp.ClientConnectorDNSError, OSError(-2, "Name or service not known"), "Name or service not known"),
        (
            aiohttp.ClientConnectorSSLError,
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
            "[SSL: WRONG_VERSION_NUMBER] wrong version number",
        ),
        (aiohttp.ClientConnectorError, TimeoutError(), "TimeoutError"),
    ],
)
def test_a_connection_that_is_not_made_is_told_in_one_plain_line(kind, cause, words):
    """Host once, then the reason: no `ssl:default` for a server that is asked without TLS."""
    assert from_exception(connector_error(kind, cause), host="h:1", phase="connect").message == f"h:1: cannot connect: {words}"


def test_untrusted_certificate_behind_another_error():
    """A certificate that cannot be trusted stops the account however deep the library hides it: it is never retried, never ignored."""
    outer = httpx.ConnectError("failed")
    outer.__cause__ = OSError("inner")
    outer.__cause__.__context__ = UNTRUSTED
    assert type(from_exception(outer, host="h", phase="connect")) is AuthError


def test_a_mistake_of_ours_is_not_hidden():
    """An exception that is no network failure is a bug, and stays one."""
    with pytest.raises(KeyError):
        from_exception(KeyError("x"), host="h", phase="wait")


def test_tables_are_lower_case():
    """Lookups fold case, so the keys must be folded."""
    assert all(code == code.lower() for code in [*CODES, *failures.BURST, *TYPES, *(text for text, _ in TEXTS)])
