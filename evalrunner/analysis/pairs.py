"""Every two cells of a prompt set against each other, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from msgspec.structs import replace

from evalrunner.analysis.cells import Scored, cells_by_set, mean_requests, sample_table
from evalrunner.analysis.paired import score_difference
from evalrunner.analysis.rows import Floats, Rows
from evalrunner.analysis.stats import holm, sign_flip_p
from evalrunner.analysis.tables import Pair

MAX_CELLS = 24
"""Cells of a prompt set that are compared two by two: the best by mean score. More would make a table that nobody reads."""


def pairs(rows: Rows, scored: Mapping[str, Scored]) -> list[Pair]:
    """Per prompt set and scorer: all pairs, each in the order of the plan. Two cells without a common sample are no pair."""
    found: list[Pair] = []
    for prompt_set, members in cells_by_set(rows).items():
        for scorer, one in scored.items():
            table, trials = sample_table(rows, one, members), mean_requests(rows, one, members)
            have = ~np.isnan(table)
            n = have.sum(axis=1)
            means = np.where(n > 0, np.nansum(table, axis=1) / np.maximum(n, 1), -np.inf)
            best = sorted(at for at in np.argsort(-means, kind="stable")[:MAX_CELLS].tolist() if n[at])
            compared = []
            for a, b in combinations(best, 2):
                both = have[a] & have[b]
                if both.any():
                    compared.append(_pair((prompt_set, scorer, members[a], members[b]), table[a][both], table[b][both], float(min(trials[a], trials[b]))))
            adjusted = holm([pair.p for pair in compared])
            found += [replace(pair, p_holm=float(p)) for pair, p in zip(compared, adjusted, strict=True)]
    return found


def _pair(place: tuple[str, str, int, int], mine: Floats, theirs: Floats, trials: float) -> Pair:
    result, d = score_difference(theirs, mine, trials), mine - theirs
    p = sign_flip_p(d)
    prompt_set, scorer, first, second = place
    return Pair(
        prompt_set=prompt_set,
        scorer=scorer,
        first=first,
        second=second,
        n=result.n,
        wins=int(np.count_nonzero(d > 0)),
        ties=int(np.count_nonzero(d == 0)),
        losses=int(np.count_nonzero(d < 0)),
        difference=result.value,
        low=result.low,
        high=result.high,
        p=p,
        p_holm=p,
    )
