"""Similarity of meaning: cosine of the answer's and the target's embeddings, from any OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import httpx
import numpy as np
import regex as re
from pydantic import Field

from evalrunner.clock import SYSTEM_CLOCK, Clock
from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.text import right_answers

AT_ONCE = 8
BATCH = 10
"""Texts in one request: what DashScope takes."""
REMEMBERED = 1000
PATIENCE_S = 120.0
"""Twice the minute by which services count."""
CAP_S = 30.0
AGAIN = frozenset({408, 409, 425, 429})
Vector = np.ndarray[Any, np.dtype[np.float64]]
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def embedding(
    *,
    model: str,
    base_url: str,
    api_key: str | None = None,
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None,
    seconds: Annotated[float, Field(gt=0)] = 30.0,
    accept: str | None = None,
) -> Scorer:
    """Cosine similarity of answer and target (or the nearest accepted answer), 0 where it is negative; with `threshold`: 1 when it is at least that.

    One request of `seconds` at most to `base_url`/embeddings for each answer, beside the run's limits and budget; where the endpoint fails and nothing has
    come from it for two minutes, the score is null. `api_key` is a reference to an environment variable. Raises ValueError for a key that is written out
    or not set, and an address that is none.
    """
    if not re.match(r"https?://[^/\s]", base_url):
        raise ValueError("base_url: must begin with http:// or https:// and name a host")
    endpoint = Endpoint(base_url.rstrip("/") + "/embeddings", model, _key(api_key), seconds)

    async def score(request: Request, completion: Completion) -> Score:
        wanted = [text for text in right_answers(request, accept) if text.strip()]
        if not wanted:
            raise ScorerError("there is nothing to compare with: the target is empty")
        answer = (completion.output or "").strip()
        if not answer:
            return Score(value=0.0, why="the answer is empty")
        given, *others = await endpoint.vectors([answer, *wanted])
        nearest = max(_cosine(given, other) for other in others)
        if threshold is None:
            return Score(value=min(1.0, max(0.0, nearest)))
        return Score(value=float(nearest >= threshold), why=f"similarity {nearest:.3f}")

    return RowScorer(score, [accept])


class Endpoint:
    """The vectors of texts. At most `AT_ONCE` requests at a time; what can be asked again is, with growing waits, until nothing has come for `PATIENCE_S`.

    All but the first text of a call (the answer) are remembered: the same target is asked for in every cell and trial, one after the other.
    """

    def __init__(self, url: str, model: str, key: str | None, seconds: float, clock: Clock = SYSTEM_CLOCK, rng: random.Random | None = None) -> None:
        self._url, self._model, self._key, self._seconds = url, model, key, seconds
        self._clock, self._rng = clock, rng or random.Random()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._known: dict[str, Vector] = {}
        self._down_since_ns: int | None = None

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """One for each text, in order. Raises ScorerError."""
        known = {text: self._known[text] for text in texts[1:] if text in self._known}
        new = [texts[0], *dict.fromkeys(text for text in texts[1:] if text not in known)]
        async with self._places:  # also while waiting: an endpoint in trouble is asked less
            found = dict(zip(new, [one for start in range(0, len(new), BATCH) for one in await self._patiently(new[start : start + BATCH])], strict=True))
        vectors = [found[text] if text in found else known[text] for text in texts]
        self._known |= {text: found[text] for text in new[1:]}
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        if any(vector.shape != vectors[0].shape for vector in vectors):
            raise ScorerError("no embedding: the endpoint's vectors differ in length")
        return vectors

    async def _patiently(self, texts: Sequence[str]) -> list[Vector]:
        began_ns, tries = self._clock.now_ns(), 0
        while True:
            try:
                found = await self._asked(texts)
            except _AgainError as error:
                now_ns, tries = self._clock.now_ns(), tries + 1
                self._down_since_ns = self._down_since_ns or now_ns
                wait = max(self._rng.uniform(0, min(CAP_S, 2.0**tries)), error.retry_after_s)
                if (now_ns - min(began_ns, self._down_since_ns)) / 1e9 + wait > PATIENCE_S:
                    raise ScorerError(f"{error} (asked {tries} times)" if tries > 1 else str(error)) from None
                await self._clock.sleep(wait)
            else:
                self._down_since_ns = None
                return found

    async def _asked(self, texts: Sequence[str]) -> list[Vector]:
        """Raises ScorerError, and _AgainError where another try may do."""
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with asyncio.timeout(self._seconds), httpx.AsyncClient(timeout=self._seconds, verify=_trusted()) as client:  # httpx's own begins anew
                reply = await client.post(self._url, json={"model": self._model, "input": list(texts)}, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            raise _AgainError(f"no embedding: no answer within {self._seconds:g} s") from None
        except httpx.TransportError as error:
            raise _AgainError(f"no embedding: {type(error).__name__}: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ScorerError(f"no embedding: {type(error).__name__}: {error}") from None
        if reply.status_code != httpx.codes.OK:
            said = reply.text[:200].replace(self._key, "…") if self._key else reply.text[:200]
            told = f"no embedding: HTTP {reply.status_code}: {said}"
            raise _AgainError(told, _retry_after_s(reply)) if reply.status_code in AGAIN or reply.status_code >= 500 else ScorerError(told)
        return _vectors(reply, len(texts))


class _AgainError(ScorerError):
    """Another try may do, after `retry_after_s` at the earliest."""

    def __init__(self, what: str, retry_after_s: float = 0.0) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


def _retry_after_s(reply: httpx.Response) -> float:
    try:
        seconds = float(reply.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
    return seconds if seconds > 0 else 0.0  # NaN is not


def _vectors(reply: httpx.Response, count: int) -> list[Vector]:
    try:
        vectors = [np.asarray(one["embedding"], dtype=float) for one in sorted(reply.json()["data"], key=lambda one: int(one["index"]))]
    except (ValueError, KeyError, TypeError):
        vectors = []
    if len(vectors) != count or any(vector.shape != vectors[0].shape or vector.ndim != 1 for vector in vectors):
        raise ScorerError("no embedding: the endpoint's answer does not hold one vector for each text")
    return vectors


def _key(reference: str | None) -> str | None:
    if reference is None:
        return None
    if not (found := _REFERENCE.fullmatch(reference)):
        raise ValueError("api_key: must be a reference to an environment variable, like ${MY_API_KEY}: secrets are never written into a config")
    if not (key := os.environ.get(found[1])):
        raise ValueError(f"api_key: the environment variable {found[1]} is not set")
    return key


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading the certificates takes longer than a request


def _cosine(one: Vector, other: Vector) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not np.isfinite(lengths) or lengths == 0:
        raise ScorerError("no similarity: an embedding is all zeros, or not finite")
    return float(one @ other) / lengths
