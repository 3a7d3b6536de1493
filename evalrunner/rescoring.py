"""Other scorers on stored answers: only what is new or changed is computed, and no answer is touched.

Nothing is sent here. Scores that models must be asked for are left "still to come", under a config that says whom to ask: `pipeline.judge` asks, and so does
a `resume`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evalrunner.decisions import check_baseline
from evalrunner.engine.scoring import score_with
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.pipeline import config_of_run
from evalrunner.plan.config import Config
from evalrunner.plan.grid import Plan, make_plan
from evalrunner.plan.prompt_sets import check_columns
from evalrunner.plugins import AskingScorer, Scorer
from evalrunner.records import ANSWERED, STILL_TO_COME, Sample, Score
from evalrunner.results import make_report
from evalrunner.store.answers import NewConfig, StoredAnswers, completion_of, request_of, stored_answers
from evalrunner.store.manifest import with_scorers_of
from evalrunner.store.redact import Redactor

EXAMPLES = 5
AT_ONCE = 16
"""Rows scored side by side: some scorers wait."""
TO_ASK = Score(value=None, why=f"{STILL_TO_COME}its judge was not asked yet")

Due = Mapping[str, Mapping[str, Scorer | AskingScorer]]
"""Prompt set -> the scorers that are to be computed for it."""


class Rescored(NamedTuple):
    """How many rows each scorer scored; empty where every score was there already. `messages`: what the store had to report · `to_judge`: whether models must
    be asked for the rest.
    """

    counts: Mapping[str, int]
    messages: list[str]
    to_judge: bool = False


def rescore(run: Path, config: Config | None = None, *, again: bool = False) -> Rescored:
    """Compute the scorers of `config` (default: the run's own) that are new to `run`, or whose options changed, and make its report again.

    Scorers named `module:attribute` are computed every time, because their code may have changed; with `again` all are. Rows without an answer stay
    without a score; scores that the config does not name stay as they are. Raises RunError, also where the data are no longer those that were asked.

    Where a model must be asked, `config` must ask what the run asked, and is in force from then on: the scores wait for `pipeline.judge`.
    """
    plan = make_plan(config or config_of_run(run))
    with stored_answers(run, redactor=Redactor(plan.secrets())) as stored:
        due = _due(plan, stored.manifest.plan, again=again)
        asking = {name for scorers in due.values() for name, scorer in scorers.items() if isinstance(scorer, AskingScorer)}
        to_judge = bool(asking or (plan.judges and stored.manifest.counts.get("unscored")))
        if not due:
            return Rescored({}, stored.messages, to_judge)
        samples = _samples(plan, due)
        scores = asyncio.run(_all_scores(stored.parts(), due, samples))
        if asking:
            _check_judging(plan, stored)
            in_force = None if config is None else NewConfig(config.text, config.path)
            stored.rescore(scores, with_scorers_of(stored.manifest.plan, plan.describe()), in_force)
        else:
            stored.rescore(scores, _described(stored.manifest.plan, plan))
        messages = stored.messages
    make_report(run)
    counts = Counter(name for part in scores for found in part.values() for name in found if name not in asking)
    return Rescored(counts, messages, to_judge)


def _due(plan: Plan, stored: Mapping[str, Any], *, again: bool) -> Due:
    """What is new, changed, or cannot be known to be unchanged. Raises `ConfigError` where no prompt set is in common."""
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
        if names:
            due[prompt_set.name] = {name: prompt_set.scorers[name] for name in names}
    return due


def _check_judging(plan: Plan, stored: StoredAnswers) -> None:
    """What a run checks before it asks, and that a `resume` under this plan would ask nothing that the run does not. Raises RunError."""
    plan.validate()
    plan.check_baselines(check_baseline)
    old = stored.manifest.plan
    keys = {request.key for model in plan.models for request in plan.requests(model)}
    if [model.name for model in plan.models] != [one["name"] for one in old["models"]]:
        other = "models"
    elif len(keys) != old["size"]:
        other = f"requests ({len(keys):,} instead of {old['size']:,})"
    elif any(row["key"] not in keys for rows in stored.parts() for row in rows):
        other = "requests (prompts, parameters, data or a provider's options)"
    else:
        return
    set_then = "".join(f" --set {text}" for text in old.get("overrides") or ())
    hint = f"add the judge to the config of the run{f', and give again what it was given:{set_then}' if set_then else ''}"
    raise ConfigError(f"this config has other {other} than the run; one with a judge takes the place of the run's own (hint: {hint})")


def _samples(plan: Plan, due: Due) -> Mapping[tuple[str, str], Sample]:
    samples = {}
    for one in plan.prompt_sets:
        if one.name in due:
            chosen = list(one.data)
            check_columns(one, chosen)
            samples.update({(one.name, sample.id): sample for sample in chosen})
    return samples


async def _all_scores(parts: Iterable[list[dict[str, Any]]], due: Due, samples: Mapping[tuple[str, str], Sample]) -> list[dict[str, dict[str, Score]]]:
    return [await _scores(rows, due, samples) for rows in parts]


async def _scores(rows: list[dict[str, Any]], due: Due, samples: Mapping[tuple[str, str], Sample]) -> dict[str, dict[str, Score]]:
    places = asyncio.Semaphore(AT_ONCE)
    found: dict[str, dict[str, Score]] = {}
    changed = []

    async def score(row: Mapping[str, Any], sample: Sample, scorers: Mapping[str, Scorer | AskingScorer]) -> None:
        computed = {name: scorer for name, scorer in scorers.items() if not isinstance(scorer, AskingScorer)}
        async with places:
            found[row["key"]] = dict.fromkeys(scorers, TO_ASK) | await score_with(computed, request_of(row, sample), completion_of(row))

    waiting = []
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
        waiting.append((row, sample, scorers))
    if changed:
        some = list(dict.fromkeys(changed))
        raise DatasetError(
            f"{len(some)} samples of this run are not in the data any more as they were asked: {', '.join(some[:EXAMPLES])}"
            f"{', …' if len(some) > EXAMPLES else ''} (hint: score them with the data of then, or run again)"
        )
    await asyncio.gather(*(score(*one) for one in waiting))
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
