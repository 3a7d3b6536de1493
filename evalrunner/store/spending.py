"""What a run has used up and what is left of it, by its stored rows: a budget goes on from there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from evalrunner.records import FINAL
from evalrunner.store.readers import read_attempts, read_judgements, read_manifest, read_results


def in_rows(run: Path) -> tuple[float, int]:
    """What the attempts of `run` cost, and how many there were: judges' too."""
    costs = read_attempts(run, ["cost"])["cost"].to_pandas()
    judged = read_judgements(run, ["cost", "attempts"]).to_pandas()
    return float(costs.sum() + judged["cost"].sum()), len(costs) + int(judged["attempts"].sum())


def in_all(run: Path) -> tuple[float, int]:
    """The same, with what earlier sessions spent without a row."""
    (cost, requests), more = in_rows(run), read_manifest(run).get("unrecorded", {})
    return cost + more.get("cost", 0.0), requests + int(more.get("requests", 0))


def without_rows(run: Path, charged: tuple[float, int]) -> dict[str, float]:
    """What a budget was charged with beyond the rows: answers of unknown cost, and attempts of requests that were stopped on their way."""
    cost, requests = in_rows(run)
    return {"cost": max(0.0, round(charged[0] - cost, 9)), "requests": charged[1] - requests}


def left(run: Path, planned: Mapping[str, int]) -> dict[str, int]:
    """Requests without a final row, by model, of so many that are planned."""
    rows = read_results(run, ["model", "outcome"]).to_pandas()
    final = Counter(rows[rows["outcome"].isin(FINAL)]["model"].value_counts().to_dict())
    return {name: number - int(final[name]) for name, number in planned.items()}
