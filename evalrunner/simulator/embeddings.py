"""Embeddings that need no model: words hashed into a vector, so that texts are as near as the words they share. The same text has the same vector always."""

from __future__ import annotations

import math
import re
from hashlib import blake2b
from typing import Any

from evalrunner.cost.tokens import count_text
from evalrunner.simulator.calls import Refusal

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
_DIMENSIONS = 1024


def embeddings(body: Any) -> dict[str, Any]:
    """The reply to an OpenAI-style embeddings request. Raises `Refusal`."""
    model, texts = body.get("model"), body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(model, str) or not model.startswith("text-embedding"):
        raise Refusal("model_not_found", f"The model `{model}` does not exist or you do not have access to it.")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise Refusal("invalid_request_error", "input must be a text or a list of texts, none of them empty.")
    dimensions = body.get("dimensions", _DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
        raise Refusal("invalid_request_error", "dimensions must be a whole number from 1 to 4096.")
    tokens = sum(map(count_text, texts))
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": _vector(text, dimensions)} for index, text in enumerate(texts)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(text: str, dimensions: int) -> list[float]:
    vector = [0.0] * dimensions
    for word in _WORD.findall(text.casefold()) or [text]:
        digest = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
        vector[digest % dimensions] += 1.0 if digest >> 63 else -1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]
