"""Judgements -> what is to be known of the judges: cost, flips, agreement with each other and with people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from evalrunner.analysis.agreement import agreement
from evalrunner.analysis.intervals import mean_interval
from evalrunner.analysis.tables import Agreement, JudgePair, JudgeSummary
from evalrunner.records import ANSWERED

COLUMNS = (
    "key", "scorer", "judge", "sample_id", "order", "outcome", "verdict", "score", "label", "prompt_tokens", "completion_tokens", "cost", "currency",
)  # fmt: skip
"""The columns of `judgements` that are read here."""
FIRST, SECOND = "ab", "ba"
NOTHING: Mapping[str, int | None] = {}


def judge_summaries(judgements: pa.Table | pd.DataFrame, enough: Mapping[str, int | None] = NOTHING) -> tuple[tuple[JudgeSummary, ...], tuple[JudgePair, ...]]:
    """One summary for each scorer and judge, and each two judges of a scorer, in order of their names; then the mean of all of them beside people.

    `enough`: how many verdicts a scorer needs for a score, where not all.
    """
    frame = judgements.to_pandas() if isinstance(judgements, pa.Table) else judgements
    if not len(frame):
        return (), ()
    summaries, pairs = [], []
    for scorer, asked in frame.groupby("scorer"):
        by_judge = {str(judge): rows for judge, rows in asked.groupby("judge")}
        final = {judge: _final(rows) for judge, rows in by_judge.items()}
        summaries += [_summary(str(scorer), judge, rows, final[judge]) for judge, rows in by_judge.items()]
        for first, second in combinations(final, 2):
            both = final[first].join(final[second]["score"].rename("other"), how="inner")
            if (found := agreement(_numbers(both["score"]), _numbers(both["other"]), both["sample_id"])) is not None:
                pairs.append(JudgePair(scorer=str(scorer), first=first, second=second, agreement=found))
        if len(final) > 1 and (shown := _calibration(_mean(final, enough.get(str(scorer)) or len(final)))) is not None:
            pairs.append(JudgePair(scorer=str(scorer), first=f"the mean of {len(final)} judges", second="people", agreement=shown))
    return tuple(summaries), tuple(pairs)


def _final(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each answer that the judge came to a score of, by key. Of a pair: 1 or 0 where both orders say so, else 0.5."""
    read = rows[rows["score"].notna()].drop_duplicates(["key", "order"], keep="last")
    paired = read[read["order"] != ""]
    single = read[read["order"] == ""].set_index("key")[["sample_id", "score", "label"]]
    wide = _orders(paired)
    if wide.empty:
        return single
    same = wide[FIRST] == wide[SECOND]
    facts = paired.drop_duplicates("key").set_index("key")[["sample_id", "label"]]
    return pd.concat([single, facts.join(wide[FIRST].where(same, 0.5).rename("score"), how="inner")[["sample_id", "score", "label"]]])


def _mean(final: Mapping[str, pd.DataFrame], enough: int) -> pd.DataFrame:
    """The score that is shown, of the answers that have one: one row for each, by key."""
    by_key = pd.concat(final.values()).groupby(level="key")
    mean = by_key.agg({"sample_id": "first", "score": "mean", "label": "first"})
    return mean[by_key.size() >= enough]


def _orders(paired: pd.DataFrame) -> pd.DataFrame:
    """Key -> score in either order, of the pairs that were judged in both."""
    if paired.empty:
        return pd.DataFrame()
    wide = paired.pivot_table(index="key", columns="order", values="score", aggfunc="last")
    return wide.dropna() if {FIRST, SECOND} <= set(wide.columns) else pd.DataFrame()


def _summary(scorer: str, judge: str, rows: pd.DataFrame, final: pd.DataFrame) -> JudgeSummary:
    answered = rows["outcome"].isin([str(outcome) for outcome in ANSWERED])
    wide = _orders(rows[rows["score"].notna() & (rows["order"] != "")])
    flipped = _numbers(wide[FIRST] != wide[SECOND]) if not wide.empty else np.empty(0)
    interval = mean_interval(flipped) if flipped.size else None
    decided = rows[rows["score"].isin([0.0, 1.0]) & (rows["order"] != "")]
    return JudgeSummary(
        scorer=scorer,
        judge=judge,
        asked=len(rows),
        unreadable=int((answered & rows["score"].isna()).sum()),
        unanswered=int((~answered).sum()),
        tokens_in=_sum(rows["prompt_tokens"]),
        tokens_out=_sum(rows["completion_tokens"]),
        spend={str(currency): float(costs.sum()) for currency, costs in rows[rows["cost"].notna()].groupby("currency")["cost"]},
        unknown_cost=int((answered & rows["cost"].isna()).sum()),
        calibration=_calibration(final),
        pairs=int(flipped.size),
        flips=int(flipped.sum()),
        flips_low=interval.low if interval else None,
        flips_high=interval.high if interval else None,
        first=float(((decided["score"] == 1) == (decided["order"] == FIRST)).mean()) if len(decided) else None,
    )


def _calibration(final: pd.DataFrame) -> Agreement | None:
    labelled = final[final["label"].notna()]
    return agreement(_numbers(labelled["score"]), _numbers(labelled["label"]), labelled["sample_id"])


def _sum(column: pd.Series[Any]) -> int | None:
    return int(column.sum()) if column.notna().any() else None


def _numbers(column: pd.Series[Any]) -> Any:
    return column.to_numpy(dtype=np.float64)
