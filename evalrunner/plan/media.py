"""Images, audio and files that messages name: found, checked and hashed before anything is sent.

In a message a part becomes `{image: as written, sha256: …}`: what is stored and hashed is the name and the content, never the path on this machine nor
base64. A URL stays as it is and is never fetched. Every failure is a ValueError about one part; whoever knows the place adds it.

A path that is typed in the config may be anywhere. One that comes out of a data row or a template stays under the data's folder, by the rules of every
system: a run that is refused on Windows is refused here too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from evalrunner.cost.media import audio_seconds, image_size, media_type
from evalrunner.cost.models import ModelFacts
from evalrunner.cost.tokens import audio_tokens, image_tokens
from evalrunner.plan.config_values import DEVICE_NAMES
from evalrunner.records import Message

KINDS = ("image", "audio", "file")
MAX_DATA_URI = 10_485_760
MAX_MEDIUM = (MAX_DATA_URI - 64) * 3 // 4  # bytes whose data URI, with its head, is no longer than that
MAX_FILE = 150 * 2**20
_REMOTE = re.compile(r"(https?|oss)://[^/]", re.IGNORECASE)
_UNSEEN_IMAGE, _UNSEEN_SECONDS = (1024, 1024), 10.0  # what a URL is taken for where tokens are estimated
_NAMES = {"image": "an image", "audio": "audio"}


class Medium(Struct, frozen=True):
    """One file or data URI: how the part shows it, where it is, and how large it is to a model."""

    shown: str
    sha256: str
    source: str
    size: tuple[int, int] | None = None
    seconds: float | None = None


class MediaFolder:
    """The media of one prompt set. Those of its rows are looked for under the folder of the `data`, or, for rows that are typed in the config themselves
    (None), under the `config`'s folder or wherever they point. Each file is read and checked once.
    """

    def __init__(self, data: Path | None, config: Path) -> None:
        self._data, self._config = data, config
        self._known: dict[tuple[str, str, bool], Medium] = {}
        self._by_hash: dict[str, Medium] = {}

    @property
    def hash(self) -> str | None:
        """Of the content of all media seen so far; None while there are none."""
        return sha256("".join(sorted(self._by_hash)).encode()).hexdigest()[:32] if self._by_hash else None

    def resolved(self, messages: list[Message]) -> tuple[list[Message], dict[str, str]]:
        """The messages of one row with every part that is not a URL named by its hash, and where each hash is found. Raises ValueError."""
        sources: dict[str, str] = {}
        if not any(isinstance(message.get("content"), list) for message in messages):
            return messages, sources
        return [self._message(message, sources) for message in messages], sources

    def part(self, part: dict[str, Any], sources: dict[str, str], *, typed: bool) -> dict[str, Any]:
        """One part in its resolved form; `typed`: its path stands in the config. Adds to `sources`. Raises ValueError."""
        kind = next((kind for kind in KINDS if kind in part), None)
        if kind is None or "sha256" in part:
            return part
        medium = self._medium(kind, part[kind], typed=typed or self._data is None)
        if medium is None:
            return part
        sources[medium.sha256] = medium.source
        return {**part, kind: medium.shown, "sha256": medium.sha256}

    def tokens(self, part: Mapping[str, Any], facts: ModelFacts) -> int:
        """What an image or a recording will cost a model, by the published formulas; a URL is taken for an image of 1024 × 1024 or ten seconds."""
        known = self._by_hash.get(str(part.get("sha256")))
        if "image" in part:
            return image_tokens(*((known and known.size) or _UNSEEN_IMAGE), facts.image)
        if "audio" in part:
            return audio_tokens((known and known.seconds) or _UNSEEN_SECONDS, facts.audio_rate)
        return 0

    def _message(self, message: Message, sources: dict[str, str]) -> Message:
        content = message.get("content")
        if not isinstance(content, list):
            return message
        return {**message, "content": [self.part(part, sources, typed=False) for part in content]}

    def _medium(self, kind: str, text: str, *, typed: bool) -> Medium | None:
        """None for a URL, which is the provider's to fetch."""
        if not text.strip():
            raise ValueError(f"the {kind} is empty")
        if _REMOTE.match(text) and kind != "file":
            return None
        if text[:5].lower() == "data:" and kind != "file":
            medium = _from_uri(kind, text)
        elif (kind, text, typed) in self._known:
            return self._known[kind, text, typed]
        else:
            folder = self._config if typed or self._data is None else self._data
            medium = self._known[kind, text, typed] = _from_file(kind, text, located(text, folder, trusted=typed))
        self._by_hash[medium.sha256] = medium
        return medium


def parts_of(messages: Sequence[Message]) -> Iterator[Mapping[str, Any]]:
    """Every image, audio and file part."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and any(kind in part for kind in KINDS):
                yield part


def located(text: str, folder: Path, *, trusted: bool) -> Path:
    """The file a path names, without symlinks. Raises ValueError where it is none, or out of bounds."""
    if "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) and not Path(text).drive:
        raise ValueError(f"{text[:100]!r} is neither a path nor an http(s) address")
    if not trusted and _wanders(text):
        raise ValueError(f"{text!r} leads out of {folder}: a path out of the data stays under the data's folder")
    try:
        home, path = folder.resolve(strict=True), (folder / text).resolve(strict=True)
    except (OSError, RuntimeError):
        raise ValueError(f"there is no file {text!r} in {folder}") from None
    if not trusted and not path.is_relative_to(home):
        raise ValueError(f"{text!r} leads out of {folder}: a path out of the data stays under the data's folder")
    if not path.is_file():
        raise ValueError(f"{text!r} in {folder} is not a file")
    return path


def _wanders(text: str) -> bool:
    """Whether a path is absolute, climbs, or names a device, on any system and also once percent signs are decoded."""
    forms = (text, unquote(text))
    return any(form[:1] in "/\\" or ":" in form or any(_odd(step) for step in re.split(r"[\\/]", form)) for form in forms)


def _odd(step: str) -> bool:
    bare = step.rstrip(" .")
    return (not bare and len(step) > 1) or bare.partition(".")[0].strip().lower() in DEVICE_NAMES


def _from_file(kind: str, text: str, path: Path) -> Medium:
    most = MAX_FILE if kind == "file" else MAX_MEDIUM
    try:
        size = path.stat().st_size
        if size > most:
            raise ValueError(f"{text!r} has {size:,} bytes; at most {most:,} can be sent")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{text!r} cannot be read: {error.strerror or error}") from None
    if kind == "file":
        if not content:
            raise ValueError(f"{text!r} is empty")
        return Medium(text, sha256(content).hexdigest(), str(path))
    return _checked(kind, text, content, str(path))


def _from_uri(kind: str, text: str) -> Medium:
    head, comma, encoded = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError(f"{text[:40]!r}… is not a data URI with base64")
    if len(text) > MAX_DATA_URI:
        raise ValueError(f"a data URI of {len(text):,} characters; at most {MAX_DATA_URI:,} can be sent")
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{text[:40]!r}… is not base64") from None
    return _checked(kind, head, content, text)


def _checked(kind: str, shown: str, content: bytes, source: str) -> Medium:
    said = media_type(content)
    if said is None or not said.startswith(kind):
        raise ValueError(f"{shown!r} is not {_NAMES[kind]} of a known format{f', but {said}' if said else ''}")
    digest = sha256(content).hexdigest()
    if kind == "audio":
        return Medium(shown, digest, source, seconds=audio_seconds(content))
    size = image_size(content)
    if size and min(size) <= 10:
        raise ValueError(f"{shown!r} is {size[0]} × {size[1]}; both sides must be more than 10 pixels")
    if size and max(size) > 200 * min(size):
        raise ValueError(f"{shown!r} is {size[0]} × {size[1]}; the longer side may be at most 200 times the shorter")
    return Medium(shown, digest, source, size=size)
