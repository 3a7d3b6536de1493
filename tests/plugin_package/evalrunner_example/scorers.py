"""A scorer with one option: `scorers: [shorter_than: {words: 5}]`."""

from evalrunner import Completion, Request, Score, Scorer


def shorter_than(*, words: int) -> Scorer:
    """1 when the answer has fewer words than `words`. Raises ValueError for none at all."""
    if words < 1:
        raise ValueError(f"words: must be at least 1, not {words}")

    def score(request: Request, completion: Completion) -> Score:
        count = len((completion.output or "").split())
        return Score(value=float(count < words), why=f"{count} words")

    return score
