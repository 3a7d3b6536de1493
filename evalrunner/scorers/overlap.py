"""Scorers that measure how much of the target's wording an answer has: token F1, BLEU, chrF, ROUGE, edit similarity. All need the extra `text`.

Chinese has no spaces to split at: a token is a run of letters or digits, or a single Han, Kana or Hangul character.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import regex as re
from rapidfuzz.distance import Indel, LCSseq
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from evalrunner.plugins import RowScorer, Scorer
from evalrunner.records import Completion, Request, Score
from evalrunner.scorers.text import right_answers

TOKEN = re.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]|[\p{L}\p{M}\p{N}--\p{Han}--\p{Hiragana}--\p{Katakana}--\p{Hangul}]+", re.VERSION1)


def tokens(text: str) -> list[str]:
    """Lower-case words, numbers and single CJK characters; punctuation is left out."""
    return TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def token_f1(*, accept: str | None = None) -> Scorer:
    """F1 of the shared tokens, counted with multiplicity (SQuAD's measure, Rajpurkar 2016, without its dropping of English articles)."""
    return _best(lambda given, wanted: _shared(_ngrams(tokens(given), 1), _ngrams(tokens(wanted), 1)), accept)


def rouge(*, variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL", accept: str | None = None) -> Scorer:
    """F-measure of shared n-grams, or of the longest common subsequence (Lin 2004), over tokens that know Chinese."""

    def measure(given: str, wanted: str) -> float:
        a, b = tokens(given), tokens(wanted)
        if variant == "rougeL":
            return 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a or b else 0.0
        return _shared(_ngrams(a, int(variant[-1])), _ngrams(b, int(variant[-1])))

    return _best(measure, accept)


def bleu(*, accept: str | None = None) -> Scorer:
    """Sentence BLEU of sacrebleu / 100, effective order; every accepted answer is a reference; Chinese targets use its `zh` tokeniser."""
    latin, chinese = BLEU(effective_order=True), BLEU(effective_order=True, tokenize="zh")

    def score(request: Request, completion: Completion) -> Score:
        references = right_answers(request, accept)
        metric = chinese if re.search(r"\p{Han}", references[0]) else latin
        return Score(value=metric.sentence_score(completion.output or "", references).score / 100)

    return RowScorer(score, [accept])


def chrf(*, accept: str | None = None) -> Scorer:
    """chrF2 of sacrebleu / 100 (character n-grams, so it needs no tokeniser); every accepted answer is a reference."""
    metric = CHRF()

    def score(request: Request, completion: Completion) -> Score:
        return Score(value=metric.sentence_score(completion.output or "", right_answers(request, accept)).score / 100)

    return RowScorer(score, [accept])


def similarity(*, ignore_case: bool = False, accept: str | None = None) -> Scorer:
    """1 - (insertions + deletions) / (both lengths): the share of characters an edit from answer to target may keep."""

    def measure(given: str, wanted: str) -> float:
        a, b = (unicodedata.normalize("NFKC", text).strip() for text in (given, wanted))
        return Indel.normalized_similarity(a.casefold(), b.casefold()) if ignore_case else Indel.normalized_similarity(a, b)

    return _best(measure, accept)


def _best(measure: Callable[[str, str], float], accept: str | None) -> Scorer:
    def score(request: Request, completion: Completion) -> Score:
        return Score(value=max(measure(completion.output or "", wanted) for wanted in right_answers(request, accept)))

    return RowScorer(score, [accept])


def _shared(given: Counter[tuple[Hashable, ...]], wanted: Counter[tuple[Hashable, ...]]) -> float:
    """F1 of two multisets; 0 where both are empty."""
    both = given.total() + wanted.total()
    return 2 * (given & wanted).total() / both if both else 0.0


def _ngrams(words: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
