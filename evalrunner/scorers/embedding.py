"""Similarity of meaning: cosine of the answer's and the target's embeddings, from any OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import ssl
from functools import cache
from typing import Annotated, Any

import httpx
import numpy as np
import regex as re
from pydantic import Field

from evalrunner.errors import ScorerError
from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.text import right_answers

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

    One request of `seconds` at most to `base_url`/embeddings for each answer, beside the run's limits and budget; where it fails, the score is null. `api_key`
    is a reference to an environment variable. Raises ValueError for a key that is written out or not set, and an address that is none.
    """
    if not re.match(r"https?://[^/\s]", base_url):
        raise ValueError("base_url: must begin with http:// or https:// and name a host")
    key = _key(api_key)
    url = base_url.rstrip("/") + "/embeddings"

    async def score(request: Request, completion: Completion) -> Score:
        wanted = right_answers(request, accept)
        answer = (completion.output or "").strip()
        if not answer:
            return Score(value=0.0, why="the answer is empty")
        given, *others = await _embed(url, {"model": model, "input": [answer, *wanted]}, key, seconds)
        nearest = max(_cosine(given, other) for other in others)
        if threshold is None:
            return Score(value=min(1.0, max(0.0, nearest)))
        return Score(value=float(nearest >= threshold), why=f"similarity {nearest:.3f}")

    return RowScorer(score, [accept])


def _key(reference: str | None) -> str | None:
    if reference is None:
        return None
    if not (found := _REFERENCE.fullmatch(reference)):
        raise ValueError("api_key: must be a reference to an environment variable, like ${MY_API_KEY}: secrets are never written into a config")
    if not (key := os.environ.get(found[1])):
        raise ValueError(f"api_key: the environment variable {found[1]} is not set")
    return key


async def _embed(url: str, body: dict[str, Any], key: str | None, seconds: float) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with httpx.AsyncClient(timeout=seconds, verify=_trusted()) as client:
            reply = await client.post(url, json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ScorerError(f"no embedding: {type(error).__name__}: {error}") from None
    if reply.status_code != httpx.codes.OK:
        said = reply.text[:200].replace(key, "…") if key else reply.text[:200]
        raise ScorerError(f"no embedding: HTTP {reply.status_code}: {said}")
    try:
        vectors = [np.asarray(one["embedding"], dtype=float) for one in sorted(reply.json()["data"], key=lambda one: int(one["index"]))]
    except (ValueError, KeyError, TypeError):
        vectors = []
    if len(vectors) != len(body["input"]) or any(vector.shape != vectors[0].shape or vector.ndim != 1 for vector in vectors):
        raise ScorerError("no embedding: the endpoint's answer does not hold one vector for each text")
    return vectors


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading the certificates takes longer than a request


def _cosine(one: np.ndarray[Any, np.dtype[np.float64]], other: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not np.isfinite(lengths) or lengths == 0:
        raise ScorerError("no similarity: an embedding is all zeros, or not finite")
    return float(one @ other) / lengths
