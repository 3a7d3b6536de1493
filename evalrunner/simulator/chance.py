"""Chance without a generator: every draw is a function of what it is drawn for, so that answers do not depend on the order in which requests arrive.

Whether a model answers right. With Φ the normal distribution, p the model's accuracy (plus the effects that match the prompt) and
h(...) a hash into (0, 1):

    z = √question · Φ⁻¹(h(seed, subject)) + √model · Φ⁻¹(h(seed, subject, model)) + √(1 - question - model) · Φ⁻¹(h(seed, subject, request))
    right  ⇔  z ≤ Φ⁻¹(p)

z is standard normal, so a model is right with probability p exactly. The first term is the difficulty that all models share, the second what this model
finds hard whatever the wording, the third what changes with wording, sampling parameters and the request's `seed`. `Correlation` holds the two weights.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist

from msgspec import Struct

_NORMAL = NormalDist()


class Correlation(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of an answer's luck is the question's, and how much the model's own on that question; the rest changes with every request."""

    question: float = 0.5
    model: float = 0.3


def draw(*parts: object) -> int:
    """A number of 64 bits that depends on nothing but the parts."""
    return int.from_bytes(blake2b("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest())


def unit(*parts: object) -> float:
    """A number in (0, 1)."""
    return (draw(*parts) + 0.5) / 2**64


def normal(*parts: object) -> float:
    """A standard normal number."""
    return _NORMAL.inv_cdf(min(max(unit(*parts), 1e-15), 1 - 1e-15))


def is_right(accuracy: float, *, seed: int, subject: str, model: str, request: str, correlation: Correlation) -> bool:
    """The formula at the top of this module."""
    if accuracy <= 0 or accuracy >= 1:
        return accuracy >= 1
    rest = 1 - correlation.question - correlation.model
    z = math.sqrt(correlation.question) * normal(seed, "question", subject) + math.sqrt(correlation.model) * normal(seed, "model", subject, model)
    if rest > 0:
        z += math.sqrt(rest) * normal(seed, "request", subject, model, request)
    return z <= _NORMAL.inv_cdf(accuracy)
