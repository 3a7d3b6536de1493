"""Assertions about the service, not the words: was this answer quick enough, was it cheap enough?"""

from typing import Annotated, Literal

from pydantic import Field

from evalrunner.analysis.metrics import latency_ms, ttft_ms
from evalrunner.cost.catalogue import cost as cost_of
from evalrunner.errors import ScorerError
from evalrunner.plugins import Scorer
from evalrunner.records import Completion, Request, Score


def latency(*, max_ms: Annotated[float, Field(gt=0)], metric: Literal["latency_ms", "ttft_ms"] = "latency_ms") -> Scorer:
    """1 when the answer's service time (or its time to first token) is at most `max_ms` milliseconds, else 0; null where it is undefined."""

    def score(_: Request, completion: Completion) -> Score:
        taken = latency_ms(completion.timing) if metric == "latency_ms" else ttft_ms(completion.timing)
        if taken is None:
            raise ScorerError(f"{metric} is undefined for this answer (it was not streamed, or had no output)")
        return Score(value=1.0) if taken <= max_ms else Score(value=0.0, why=f"{metric} {taken:,.0f} > {max_ms:g}")

    return score


def cost(*, max: Annotated[float, Field(gt=0)], currency: str | None = None) -> Scorer:  # noqa: A002 - the word a user writes, as in a gate
    """1 when the answer cost at most `max`, in the currency of the model's price, else 0; null where usage or price is unknown.

    `currency`: a model priced in another one has no score. Failed attempts before the answer are not in it.
    """

    def score(request: Request, completion: Completion) -> Score:
        price, usage = request.cell.model.price, completion.usage
        if price is not None and currency not in (None, price.currency):
            raise ScorerError(f"the model's price is in {price.currency}, not {currency}")
        paid = cost_of(usage, price, thought=bool(completion.reasoning) or bool(usage and usage.reasoning_tokens))
        if paid is None or price is None:
            raise ScorerError("the price of this answer is unknown" if price is not None else "the model has no price")
        return Score(value=1.0) if paid <= max else Score(value=0.0, why=f"cost {paid:.6g} {price.currency} > {max:g}")

    return score
