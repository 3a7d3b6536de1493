"""The config's plain values: names, times, URLs, references to secrets. Each type checks one value and says what it should be."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from evalrunner.plan.prompts import check_template

DEVICE_NAMES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECRET_HEADERS = re.compile(r"authorization|cookie|(?:^|[-_])(?:key|token|secret|password)(?:$|[-_])", re.IGNORECASE)


def _slug(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", value) or value.endswith(".") or value.partition(".")[0].lower() in DEVICE_NAMES:
        raise ValueError("must be a name that can be a folder: letters, digits, '.', '_' and '-', at most 80, beginning with a letter or digit")
    return value


def _label(value: str) -> str:
    if not 0 < len(value) <= 120 or value != value.strip() or not value.isprintable():
        raise ValueError("must be 1 to 120 printable characters without spaces at its ends")
    return value


def _column(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,59}", value) or value.endswith("_why"):
        raise ValueError("must be letters, digits and '_' (it becomes the column score_<name>), and not end in _why")
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        if not (found := _DURATION.fullmatch(value.strip())):
            raise ValueError("should be a time like 500ms, 10s, 2m or 1h")
        return float(found[1]) * _UNITS[found[2]]
    return value


def _reference(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        raise ValueError("must be a reference to an environment variable, like ${MY_API_KEY}: secrets are never written into a config")
    return value


def _base_url(value: str) -> str:
    try:
        url = urlsplit(REFERENCE.sub("reference", value))
        _ = url.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not value.startswith("${") and (url.scheme not in {"http", "https"} or not url.hostname):
        raise ValueError("must begin with http:// or https:// and name a host")
    if url.username or url.password:
        raise ValueError("must not hold a user or password (use api_key: ${MY_API_KEY})")
    if url.query or url.fragment:
        raise ValueError("must not hold a query or fragment (a key belongs into api_key)")
    if re.search(r"/(chat/completions|completions|models|generation)/?$", url.path):
        raise ValueError("is what the official SDKs take: leave out everything after …/v1")
    return value.rstrip("/")


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError(f"{name!r} is not the name of an HTTP header")
        if not text.isprintable():
            raise ValueError(f"the value of {name} must be one line of printable text")
        if name.lower() in {"content-type", "content-length", "host", "transfer-encoding", "connection"}:
            raise ValueError(f"{name} is set by the client")
        if _SECRET_HEADERS.search(name) and not REFERENCE.search(text):
            raise ValueError(f"the value of {name} must be a reference to an environment variable, like ${{MY_KEY}}: secrets are never written into a config")
    return value


Slug = Annotated[str, AfterValidator(_slug)]
Label = Annotated[str, AfterValidator(_label)]
ColumnName = Annotated[str, AfterValidator(_column)]
Template = Annotated[str, AfterValidator(check_template)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, le=7 * 86_400),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}], "examples": ["10s", "2m"]}),
]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]
SecretReference = Annotated[str, AfterValidator(_reference), WithJsonSchema({"type": "string", "pattern": f"^{REFERENCE.pattern}$"})]
Rate = Annotated[float, Field(gt=0)]
