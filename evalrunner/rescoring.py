"""Other scorers on stored answers. Nothing is sent; only what is new or changed is computed, and no answer is touched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evalrunner.engine.scoring import score_with
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.pipeline import config_of_run
from evalrunner.plan.config import Config
from evalrunner.plan.grid import Plan, make_plan
from evalrunner.plugins import Scorer
from evalrunner.records import ANSWERED, Sample, Score
from evalrunner.results import make_report
from evalrunner.store.answers import completion_of, request_of, stored_answers
from evalrunner.store.redact import Redactor

EXAMPLES = 5

Due = Mapping[str, Mapping[str, Scorer]]
"""Prompt set -> the scorers that are to be computed for it."""


class Rescored(NamedTuple):
    """How many rows each scorer scored; empty where every score was there already. `messages`: what the store had to report."""

    counts: Mapping[str, int]
    messages: list[str]


def rescore(run: Path, config: Config | None = None, *, again: bool = False) -> Rescored:
    """Compute the scorers of `config` (default: the run's own) that are new to `run`, or whose options changed, and make its report again.

    Scorers named `module:attribute` are computed every time, because their code may have changed; with `again` all are. Rows without an answer stay
    without a score; scores that the config does not name stay as they are. Raises RunError, also where the data are no longer those that were asked.
    """
    plan = make_plan(config or config_of_run(run))
    with stored_answers(run, redactor=Redactor(plan.secrets())) as stored:
        due = _due(plan, stored.manifest.plan, again=again)
        if not due:
            return Rescored({}, stored.messages)
        samples = _samples(plan, due)
        scores = [asyncio.run(_scores(rows, due, samples)) for rows in stored.parts()]
        stored.rescore(scores, _described(stored.manifest.plan, plan))
        messages = stored.messages
    make_report(run)
    return Rescored(Counter(name for part in scores for found in part.values() for name in found), messages)


def _due(plan: Plan, stored: Mapping[str, Any], *, again: bool) -> Due:
    """What is new, changed, or cannot be known to be unchanged. Raises `ConfigError` for a scorer that asks a model, or no prompt set in common."""
    written = {one["name"]: (one["kind"], one["options"]) for one in plan.describe()["scorers"]}
    known = {one["name"]: (one["kind"], one["options"]) for one in stored.get("scorers") or ()}
    had = {one["name"]: set(one["scorers"]) for one in stored.get("prompt_sets") or ()}
    common = [one for one in plan.prompt_sets if one.name in had]
    if not common:
        raise ConfigError(f"no prompt set of this config is in the run (it has {', '.join(had)})")
    due = {}
    for prompt_set in common:
        names = [
            name for name in prompt_set.scorers if again or name not in had[prompt_set.name] or known.get(name) != written[name] or ":" in written[name][0]
        ]
        if asking := [name for name in names if not callable(prompt_set.scorers[name])]:
            raise ConfigError(f"{', '.join(asking)} of {prompt_set.name} asks a model, and rescore sends nothing yet")
        if names:
            due[prompt_set.name] = {name: scorer for name in names if callable(scorer := prompt_set.scorers[name])}
    return due


def _samples(plan: Plan, due: Due) -> Mapping[tuple[str, str], Sample]:
    return {(one.name, sample.id): sample for one in plan.prompt_sets if one.name in due for sample in one.data}


async def _scores(rows: list[dict[str, Any]], due: Due, samples: Mapping[tuple[str, str], Sample]) -> dict[str, dict[str, Score]]:
    found, changed = {}, []
    for row in rows:
        if row["prompt_set"] not in due:
            continue
        scorers = due[row["prompt_set"]]
        if row["outcome"] not in ANSWERED:
            found[row["key"]] = {name: Score(value=None) for name in scorers}
            continue
        sample = samples.get((row["prompt_set"], row["sample_id"]))
        if sample is None or sample.hash != row["sample_hash"]:
            changed.append(row["sample_id"])
            continue
        found[row["key"]] = await score_with(scorers, request_of(row, sample), completion_of(row))
    if changed:
        some = list(dict.fromkeys(changed))
        raise DatasetError(
            f"{len(some)} samples of this run are not in the data any more as they were asked: {', '.join(some[:EXAMPLES])}"
            f"{', …' if len(some) > EXAMPLES else ''} (hint: score them with the data of then, or run again)"
        )
    return found


def _described(stored: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The manifest's plan with the scorers of now: those of the config, and what was there before."""
    new = plan.describe()
    names = {one["name"] for one in new["scorers"]}
    fresh = {one["name"]: one["scorers"] for one in new["prompt_sets"]}
    sets = [{**one, "scorers": list(dict.fromkeys([*fresh.get(one["name"], []), *one["scorers"]]))} for one in stored["prompt_sets"]]
    used = {name for one in sets for name in one["scorers"]}
    scorers = [one for one in new["scorers"] if one["name"] in used] + [one for one in stored["scorers"] if one["name"] not in names]
    return {**stored, "scorers": scorers, "prompt_sets": sets}
