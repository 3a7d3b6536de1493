"""Images, audio and files of a request as the wire wants them: a URL goes on as it is and is never fetched, a local file becomes a data URI.

A part names what is not a URL by its SHA-256; `Request.media` says where that is. What is read is checked against it, so that the file that was checked
is the file that is sent.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from evalrunner.cost.media import media_type
from evalrunner.errors import DatasetError, PluginError

KINDS = ("image", "audio")
_OURS = frozenset({"sha256", *KINDS})


def read(part: Mapping[str, Any], media: Mapping[str, str]) -> bytes:
    """The bytes of a local file. Raises `DatasetError` if it is gone, or no longer what it was."""
    source = _source(part, media)
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise DatasetError(f"{source}: {error.strerror or error}") from None
    if sha256(content).hexdigest() != part["sha256"]:
        raise DatasetError(f"{source}: the file changed while it was in use")
    return content


def address(part: Mapping[str, Any], kind: str, media: Mapping[str, str]) -> str:
    """The part's URL or data URI."""
    if "sha256" not in part:
        return str(part[kind])
    source = _source(part, media)
    if source.startswith("data:"):
        return source
    content = read(part, media)
    return f"data:{media_type(content) or 'application/octet-stream'};base64,{base64.b64encode(content).decode()}"


def kind_of(part: Mapping[str, Any]) -> str | None:
    """`image` or `audio`; None for what is neither."""
    return next((kind for kind in KINDS if isinstance(part.get(kind), str)), None)


def beside(part: Mapping[str, Any]) -> dict[str, Any]:
    """What else a part says (min_pixels, cache_control, …): it is sent along."""
    return {name: value for name, value in part.items() if name not in _OURS}


def _source(part: Mapping[str, Any], media: Mapping[str, str]) -> str:
    source = media.get(str(part.get("sha256")))
    if source is None:
        raise PluginError(f"the request does not say where {part!r:.100} is")
    return source
