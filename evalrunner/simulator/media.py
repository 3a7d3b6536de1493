"""Images, audio and video in messages: found in either dialect's form, measured without being fetched, counted in tokens.

A data URI is decoded as far as its header. Nothing is ever downloaded: a URL stands for an image of 1024 × 1024, ten seconds of sound or twenty frames,
and one whose host ends in `.invalid` cannot be fetched.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace

from evalrunner.cost.media import audio_seconds, image_size
from evalrunner.cost.models import ImageRule, ModelFacts
from evalrunner.cost.tokens import audio_tokens, image_tokens, video_tokens
from evalrunner.simulator.calls import Refusal, engine_refusal

MAX_DATA_URI = 10_485_760
_REMOTE_IMAGE, _REMOTE_SECONDS, _REMOTE_FRAMES = (1024, 1024), 10.0, 20
_HIGH_RESOLUTION = 16_384  # visual tokens


class Media(NamedTuple):
    """One part: what it is, where its bytes are (a URL, or base64 data), and the part itself."""

    kind: str
    url: str
    part: Mapping[str, Any]


def media_of(message: Mapping[str, Any]) -> Iterator[Media]:
    """The media parts of a message, in order: `image_url`, `audio_url`, `input_audio`, `video_url`, `video`; natively `image`, `audio`, `video`."""
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        for name, kind in (("image_url", "image"), ("audio_url", "audio"), ("video_url", "video"), ("input_audio", "audio")):
            if isinstance(holder := part.get(name), dict):
                yield Media(kind, str(holder.get("data" if name == "input_audio" else "url") or ""), part)
        for kind in ("image", "audio", "video"):
            if isinstance(found := part.get(kind), str | list):
                yield Media(kind, found if isinstance(found, str) else str((found or [""])[0]), part)


def media_tokens(messages: list[dict[str, Any]], facts: ModelFacts, *, high_resolution: bool) -> dict[str, int]:
    """Tokens by modality. Raises `Refusal` for media the model does not take or the service cannot use."""
    total: Counter[str] = Counter()
    for message in messages:
        for medium in media_of(message):
            if medium.kind not in facts.inputs:
                raise engine_refusal(f"The model does not support {medium.kind} input.")
            total[medium.kind] += _tokens(medium, facts, high_resolution=high_resolution)
    return dict(total)


def _tokens(medium: Media, facts: ModelFacts, *, high_resolution: bool) -> int:
    data = _data(medium.url)
    if medium.kind == "audio":
        return audio_tokens(_REMOTE_SECONDS if data is None else _seconds(data), facts.audio_rate)
    rule = _rule(medium.part, facts.image, high_resolution=high_resolution)
    if medium.kind == "video":
        frames = medium.part.get("video")
        return video_tokens(*_REMOTE_IMAGE, len(frames) if isinstance(frames, list) else _REMOTE_FRAMES, rule)
    width, height = _REMOTE_IMAGE if data is None else _size(data)
    if min(width, height) <= 10:
        raise engine_refusal(f"The image length and width do not meet the model restrictions. [height:{height} or width:{width} must be larger than 10]")
    if max(width, height) > 200 * min(width, height):
        raise engine_refusal("absolute aspect ratio must be smaller than 200")
    return image_tokens(width, height, rule)


def _rule(part: Mapping[str, Any], rule: ImageRule, *, high_resolution: bool) -> ImageRule:
    if high_resolution:
        return replace(rule, max_pixels=_HIGH_RESOLUTION * rule.factor**2)
    limits = {name: part[name] for name in ("min_pixels", "max_pixels") if isinstance(part.get(name), int)}
    return replace(rule, **limits) if limits else rule


def _data(url: str) -> bytes | None:
    """The bytes of a data URI or of bare base64; None for what would have to be fetched."""
    scheme = url[:5].lower()
    if scheme in {"http:", "https", "oss:/"}:
        if (urlsplit(url).hostname or "").endswith(".invalid"):
            raise Refusal("InvalidURL", f"Failed to download multimodal content: {url[:200]}")
        return None
    if not url:
        raise Refusal("invalid_parameter_error", "The provided URL does not appear to be valid. Ensure it is correctly formatted.")
    encoded = url.partition(",")[2] if scheme == "data:" else url
    if len(encoded) > MAX_DATA_URI:
        raise engine_refusal(f"Exceeded limit on max bytes per data-uri item : {MAX_DATA_URI}")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("invalid_parameter_error", "The provided URL does not appear to be valid. Ensure it is correctly formatted.") from None


def _size(data: bytes) -> tuple[int, int]:
    size = image_size(data)
    if size is None:
        raise engine_refusal("The image format is illegal and cannot be opened.")
    return size


def _seconds(data: bytes) -> float:
    if not data:
        raise engine_refusal("The audio is empty")
    return audio_seconds(data)
