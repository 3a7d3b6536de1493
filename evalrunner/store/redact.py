"""The one place where secrets are masked: in records as they are encoded, in messages, logs and tracebacks before they are shown."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "[secret]"
MIN_LENGTH = 8
"""Shorter values (EMPTY, test, none) are placeholders of local servers; masking them would eat ordinary words."""

_SEEN: set[str] = set()
_SECRET_NAME = re.compile("key|token|secret|passw|credential", re.IGNORECASE)
# What a credential's name is followed by, but for the words with which our own messages go on after a key of a config.
_CREDENTIALS = (
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s?#\"'<>]*@", re.IGNORECASE), rf"\1{MASK}@"),
    (
        re.compile(
            r"""((?:authorization|[\w-]*api[_-]?key|x-auth-token|cookie)(?:["']?\s*[:=]\s*(?:b?["'])?|["'],\s*b?["'])(?:(?:bearer|basic|token)\s+)?)(?!(?:must|should|is|unknown)\b)[^\s"',;&#…]+""",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"([?&](?:key|token|access_token|secret|password|sig|signature)=)[^&\s\"'#]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\bsk-[\w-]{16,}"), MASK),
)


class Redactor:
    """Replaces every known secret by `[secret]`: as it is, and in the forms in which servers and libraries echo it (base64, URL-encoded, JSON-escaped).

    The values are the resolved secrets of the config, and passwords of proxies; those under 8 characters are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        values = {value.strip() for value in (*secrets, *_proxy_passwords())}
        _SEEN.update(values)
        forms = {form for value in values if len(value) >= MIN_LENGTH for form in _forms(value)}
        self._texts = sorted(forms, key=len, reverse=True)
        self._bytes = [form.encode("utf-8", "replace") for form in self._texts]

    def touches(self, data: bytes) -> bool:
        """Whether a secret is in `data`."""
        return any(form in data for form in self._bytes)

    def bytes(self, data: bytes) -> bytes:
        if self.touches(data):
            for form in self._bytes:
                data = data.replace(form, MASK.encode())
        return data

    def text(self, text: str) -> str:
        for form in self._texts:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value with every string in it masked; names and numbers stay, so that its shape does."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self.value(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def message(self, text: str) -> str:
        """For errors, logs and tracebacks: known secrets, and whatever looks like a credential (user:password@ in a URL, Authorization, ?key=)."""
        text = self.text(text)
        for pattern, mask in _CREDENTIALS:
            text = pattern.sub(mask, text)
        return text


def remember(secrets: Iterable[str]) -> None:
    """Mask these wherever `masked` is asked, whatever comes to know them first."""
    _SEEN.update(value.strip() for value in secrets)


def masked(text: str) -> str:
    """For what leaves the process by no way of the store's, as tracebacks and warnings do: without any secret that the process has seen, and without what
    the environment calls one.
    """
    return Redactor([*_SEEN, *(value for name, value in os.environ.items() if _SECRET_NAME.search(name))]).message(text)


def _proxy_passwords() -> Iterator[str]:
    for name, address in os.environ.items():
        if name.lower().endswith("_proxy") and "@" in address:
            password = address.rpartition("@")[0].rpartition("//")[2].partition(":")[2]
            yield from (password, unquote(password))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield from _in_base64(secret.encode("utf-8", "replace"))
    for encoded in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), encoded)
    for escaped in (_escaped(secret, ascii_only=False), _escaped(secret, ascii_only=True)):
        yield escaped
        yield _escaped(escaped, ascii_only=False)
        yield escaped.replace("/", "\\/")


def _escaped(text: str, *, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _in_base64(secret: bytes) -> Iterator[str]:
    """The characters that only depend on the secret, for each of its three places in a group of three bytes (`user:secret` moves it)."""
    for before in range(3):
        after = -(before + len(secret)) % 3
        padded = bytes(before) + secret + bytes(after)
        first = -(-before * 8 // 6)
        last = (before + len(secret)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(padded)[first:last].decode()
