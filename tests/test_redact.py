"""Secrets never reach the disk, the terminal or the report."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrunner.store.redact import MASK, Redactor

CANARY = 'sk-CANARY/8f+3"é\\x'
secrets = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=8, max_size=60).filter(lambda text: len(text.strip()) >= 8)
around = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    "form",
    [
        lambda secret: secret,
        quote,
        lambda secret: re.sub("%..", lambda code: code[0].lower(), quote(secret, safe="")),
        quote_plus,
        lambda secret: json.dumps(secret)[1:-1],
        lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
        lambda secret: json.dumps(json.dumps(secret, ensure_ascii=False), ensure_ascii=False)[3:-3],
        lambda secret: msgspec.json.encode(secret).decode()[1:-1],
    ],
)
@given(before=around, after=around)
def test_a_secret_is_masked_in_every_form_in_which_it_is_echoed(form, before: str, after: str) -> None:
    """As it is, URL-encoded, or inside JSON, or JSON inside JSON: nothing of it is left, in text or in bytes."""
    redactor = Redactor([CANARY])
    text = before + form(CANARY) + after
    assert form(CANARY) not in redactor.text(text)
    assert MASK in redactor.text(text)
    assert form(CANARY).encode() not in redactor.bytes(text.encode())
    assert redactor.touches(text.encode())


@given(secret=secrets, before=st.binary(max_size=9), after=st.binary(max_size=9), url=st.booleans())
def test_a_secret_inside_base64_is_masked_wherever_it_starts(secret: str, before: bytes, after: bytes, *, url: bool) -> None:
    """`Basic <base64 of user:key>` and base64 bodies shift the key by one or two bytes; at most its first and last character could be told."""
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode(before + secret.strip().encode() + after).decode()
    masked = Redactor([secret]).text(text)
    assert MASK in masked
    assert len(masked.replace(MASK, "")) <= (len(before) + len(after) + 6) * 4 / 3 + 4


@given(secret=secrets, text=st.text(st.characters(blacklist_categories=["Cs"])))
def test_masking_is_complete_whatever_surrounds_it(secret: str, text: str) -> None:
    """No secret is left after masking, and masking twice changes nothing."""
    redactor = Redactor([secret])
    masked = redactor.text(text + secret + text)
    assert secret.strip() not in masked.replace(MASK, "\x00")
    assert redactor.text(masked) == masked or secret.strip() in MASK * 2


@given(st.binary())
def test_bytes_without_a_secret_are_the_same_object(data: bytes) -> None:
    """Masking costs a search and no copy where there is nothing to mask."""
    assert Redactor(["sk-CANARY-0123456789"]).bytes(data) is data


@pytest.mark.parametrize("placeholder", ["", "EMPTY", "none", "test", " ollama "])
def test_short_placeholders_are_no_secrets(placeholder: str) -> None:
    """Local servers take any key; masking `test` would eat the word out of every answer."""
    assert Redactor([placeholder]).text(f"this is a {placeholder} of words") == f"this is a {placeholder} of words"


def test_a_json_value_keeps_its_shape() -> None:
    """Only strings are masked: a secret made of digits breaks no number, and names stay."""
    value = {"at": 1764000012345678, "12345678": ["say 12345678", None, True, ("12345678",)]}
    assert Redactor(["12345678"]).value(value) == {"at": 1764000012345678, "12345678": [f"say {MASK}", None, True, [MASK]]}


@pytest.mark.parametrize(
    "text",
    [
        "Cannot connect to proxy http://user:CANARY@proxy.example:3128",
        "clone of https://CANARY@git.example/repo.git failed",
        "http://us:CANARY@with@at.example/path?x=1",
        "headers: {'Authorization': 'Bearer CANARY'}",
        "Authorization: Basic CANARY",
        '"x-api-key": "CANARY"',
        "X-DashScope-Api-Key=CANARY",
        "b'api-key', b'CANARY'",
        "GET https://host/v1?model=x&key=CANARY&y=1",
        "https://host/f?access_token=CANARY#top",
        "with bearer CANARY-1234567",
        "my key is sk-CANARY0123456789abcdef",
        "OPENAI_API_KEY='CANARY'",
    ],
)
def test_messages_lose_whatever_looks_like_a_credential(text: str) -> None:
    """Errors, logs and tracebacks are masked even where the secret is not one of ours; host and parameter names stay readable."""
    masked = Redactor().message(text)
    assert "CANARY" not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text", ["see https://host.example/path for mail@example.com", "the key is under the mat", "Invalid API-key provided.", "token usage: 12 key=value"]
)
def test_messages_keep_what_is_none(text: str) -> None:
    """A masked message must still say what went wrong."""
    assert Redactor().message(text) == text


@pytest.mark.parametrize("said", ["c.yaml:3:5: providers.mine.api_key: must be a reference to an environment variable", "export DASHSCOPE_API_KEY=…"])
def test_our_own_words_about_keys_are_left_alone(said):
    """A message that names the key of a config, or shows how to set a variable, can still be read."""
    assert Redactor().message(said) == said
