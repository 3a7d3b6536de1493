"""Other scorers on stored answers: only what is new, changed or missing is computed, and no answer is touched.

Nothing is sent here. Scores that models must be asked for are left "still to come", under a config that says whom to ask: `pipeline.judge` asks, and so does
a `resume`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from evalrunner.apart import is_async
from evalrunner.decisions import check_baseline
from evalrunner.engine.scoring import score_with
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.pipeline import concluded_later, config_of_run
from evalrunner.plan.config import Config
from evalrunner.plan.grid import Gold, Place, Plan, make_plan
from evalrunner.plan.prompt_sets import check_columns, target_of
from evalrunner.plugins import AskingScorer, Scorer
from evalrunner.records import ANSWERED, STILL_TO_COME, Price, Score
from evalrunner.results import Run
from evalrunner.scorers.combine import Combination, judges_in
from evalrunner.scorers.judge import Judge
from evalrunner.store.answers import Change, Corrected, NewConfig, StoredAnswers, completion_of, request_of, stored_answers
from evalrunner.store.manifest import with_scorers_of
from evalrunner.store.redact import Redactor
from evalrunner.store.run_dir import read_judgements

EXAMPLES = 5
AT_ONCE = 16
"""Rows scored side by side: some scorers wait."""
TO_ASK = Score(value=None, why=f"{STILL_TO_COME}its judge was not asked yet")
WHERE = ("key", "prompt_set", "sample_id", "outcome")

Row = Mapping[str, Any]
Scores = dict[str, dict[str, Score]]


class Rescored(NamedTuple):
    """How many answers each scorer scored; empty where every score was there already. `labels`: how many judgements have another label of a person ·
    `messages`: what a person must know · `run`: with its gates checked; None where models must be asked for the rest first.
    """

    counts: Mapping[str, int]
    labels: int
    messages: list[str]
    run: Run | None


def rescore(path: Path, config: Config | None = None, *, again: bool = False) -> Rescored:
    """Compute what `config` (default: the run's own) asks for and the run in `path` lacks: scorers that are new, or whose options changed, and of the others
    the scores that are missing, or that failed where they had to ask somebody. Then make the report again and check the gate.

    Scorers named `module:attribute` are computed every time, because their code may have changed; with `again` all are. Scores that the config does not
    name stay as they are. Gold answers may have been corrected, in the data or by another target; what was asked must be as it was. Raises RunError.

    A config that asks models, or corrects gold answers, must ask what the run asked, and is in force from then on: scores that models must be asked for
    wait for `pipeline.judge`.
    """
    plan = make_plan(config or config_of_run(path))
    plan.check_baselines(check_baseline)
    redactor = Redactor(plan.secrets())
    with stored_answers(path, redactor=redactor) as stored:
        work = _Work(plan, stored, redactor)
        if work.then:
            _check_the_same(plan, stored, work.then)
        plan.inform_judges(stored.manifest.run_id)
        judgements = read_judgements(path, ["key", "scorer", "outcome", "label"]).to_pylist()
        work.find(judgements, again=again)
        if work.asking and not work.then:
            _check_the_same(plan, stored, {})
        in_force = bool(work.then or work.asking)
        if work.wanted or work.then or work.labels:
            scores = asyncio.run(work.scores())
            stored.rescore(
                Change(
                    plan=with_scorers_of(stored.manifest.plan, plan.describe()) if in_force else _described(stored.manifest.plan, plan),
                    scorers=work.scorers,
                    scores=scores,
                    corrected=work.corrected,
                    labels=work.labels,
                    config=NewConfig(config.text, config.path) if in_force and config is not None else None,
                    said=work.said,
                )
            )
        to_judge = bool(work.asking or (plan.judges and stored.manifest.counts.get("unscored")))
        messages = [*stored.messages, *work.said]
    return Rescored(work.counts, sum(map(len, work.labels.values())), messages, None if to_judge else concluded_later(plan, path))


class _Work:
    """What is to be computed for which row of a run. `then`: the gold answers that are other ones now, as they were · `corrected`: the rows of those, by
    their key · `wanted`: the scorers of each answer that lacks some, by its key · `labels`: what people say now of what is judged already, by scorer and key.
    """

    def __init__(self, plan: Plan, stored: StoredAnswers, redactor: Redactor) -> None:
        had = {one["name"]: one["scorers"] for one in stored.manifest.plan.get("prompt_sets") or ()}
        self._sets = {one.name: one for one in plan.prompt_sets if one.name in had}
        if not self._sets:
            raise ConfigError(f"no prompt set of this config is in the run (it has {', '.join(had)})")
        self._plan, self._stored, self._redactor = plan, stored, redactor
        self._samples = {(one.name, sample.id): sample for one in self._sets.values() for sample in one.data}
        self._targets = {place: target_of(self._sets[place[0]], sample) for place, sample in self._samples.items()}
        self.then: dict[Place, Gold] = {}
        self.corrected: dict[str, Corrected] = {}
        self.wanted: dict[str, list[str]] = {}
        self.labels: dict[str, dict[str, float]] = {}
        self._correct()
        for name in {name for name, _ in self.then}:
            if left := [scorer for scorer in had[name] if scorer not in self._sets[name].scorers]:
                raise ConfigError(
                    f"gold answers of {name} were corrected, and this config does not say how to score {', '.join(left)} again (hint: it needs every scorer "
                    "that the run has)"
                )

    @property
    def scorers(self) -> list[str]:
        """Every one that the answers have a score of."""
        return list(dict.fromkeys(name for one in self._sets.values() for name in one.scorers))

    @property
    def asking(self) -> set[str]:
        """Those that must ask models."""
        return {name for names in self.wanted.values() for name in names} & {scorer for scorer, _ in self._plan.judges}

    @property
    def counts(self) -> Mapping[str, int]:
        """How many answers each of the others scores."""
        asking = self.asking
        return Counter(name for names in self.wanted.values() for name in names if name not in asking)

    @property
    def said(self) -> list[str]:
        """What became of the gold answers."""
        named = {name: [sample for prompt_set, sample in self.then if prompt_set == name] for name, _ in self.then}
        return [
            f"{len(samples):,} samples of {name} were corrected ({_some(samples)}): their rows have the target of now and, where the data changed, the new "
            "sample_hash, by which runs are paired"
            for name, samples in named.items()
        ]

    def find(self, judgements: Sequence[Row], *, again: bool) -> None:
        """Fill `wanted` and `labels`. Raises `DatasetError` for answers to what was other data."""
        due, changed = _due(self._plan, self._stored.manifest.plan, again=again), []
        failed = {(one["key"], one["scorer"]) for one in judgements if one["outcome"] not in ANSWERED}
        labels: dict[tuple[str, str], set[float | None]] = {}
        scored: set[str] = set()
        for one in judgements:
            labels.setdefault((one["key"], one["scorer"]), set()).add(one["label"])
        names = [*WHERE, "sample_hash", *(f"score_{name}{end}" for name in self.scorers for end in ("", "_why"))]
        for row in (row for file in self._stored.files for row in self._stored.rows(file, names)):
            if row["prompt_set"] not in self._sets or row["outcome"] not in ANSWERED:
                continue
            scorers = self._sets[row["prompt_set"]].scorers
            lacks = [
                name
                for name, scorer in scorers.items()
                if name in due or self._outdated(row, scorer) or _lacks(row, name, scorer, (row["key"], name) in failed)
            ]
            if lacks:
                self.wanted[row["key"]] = lacks
                scored.add(row["prompt_set"])
            if not self._as_asked(row, gone=not lacks):
                changed.append(row["sample_id"])
            self._compare_labels(row, labels)
        for name in scored:
            check_columns(self._sets[name], [sample for (prompt_set, _), sample in self._samples.items() if prompt_set == name])
        if changed:
            raise DatasetError(
                f"{len(set(changed))} samples of this run are not in the data any more as they were asked: {_some(changed)} (hint: only what neither "
                "prompts nor tools use may be corrected, by a config that asks what the run asked; else score them with the data of then, or run again)"
            )

    def _as_asked(self, row: Row, *, gone: bool) -> bool:
        """Whether the data still have the sample as it was, but for its gold answer. `gone`: whether they need not have it at all."""
        sample = self._samples.get((row["prompt_set"], row["sample_id"]))
        return gone if sample is None else sample.hash == row["sample_hash"] or row["key"] in self.corrected

    def _compare_labels(self, row: Row, labels: Mapping[tuple[str, str], set[float | None]]) -> None:
        sample = self._samples.get((row["prompt_set"], row["sample_id"]))
        for name, scorer in self._sets[row["prompt_set"]].scorers.items():
            judges = list(judges_in(scorer))
            if len(judges) == 1 and (row["key"], name) in labels and sample is not None:  # of several in a combination, the books do not say which is which
                label = judges[0].label_of(row["key"], sample.data)
                if label is not None and labels[row["key"], name] != {label}:
                    self.labels.setdefault(name, {})[row["key"]] = label

    async def scores(self) -> dict[str, Scores]:
        """File -> key -> new scores."""
        return {file: await self._scores(file) for file in self._stored.files}

    async def _scores(self, file: str) -> Scores:
        places = asyncio.Semaphore(AT_ONCE)

        async def scored(row: Row) -> tuple[str, dict[str, Score]]:
            async with places:
                return row["key"], await self._scored(row)

        return dict(await asyncio.gather(*(scored(row) for row in self._stored.rows(file) if row["key"] in self.wanted)))

    async def _scored(self, row: Row) -> dict[str, Score]:
        place, names = (row["prompt_set"], row["sample_id"]), self.wanted[row["key"]]
        scorers = {name: self._sets[place[0]].scorers[name] for name in names}
        computed = {name: scorer for name, scorer in scorers.items() if not isinstance(scorer, AskingScorer)}
        request = request_of(row, self._samples[place], self._gold(place, row["target"]).target, self._price(row["model"]))
        return dict.fromkeys(names, TO_ASK) | await score_with(computed, request, completion_of(row))

    def _price(self, model: str) -> Price | None:
        """As the config has it; of a model that it does not name, as the run had it."""
        for known in self._plan.models:
            if known.name == model:
                return known.price
        stored = (one.get("price") for one in self._stored.manifest.plan.get("models") or () if one["name"] == model)
        return msgspec.convert(next(stored, None), Price | None)

    def _gold(self, place: Place, target: str | None) -> Gold:
        """What it is now; a config without a target leaves `target`."""
        return Gold(self._samples[place].hash, target if self._sets[place[0]].target is None else self._targets[place])

    def _outdated(self, row: Row, scorer: Scorer | AskingScorer) -> bool:
        """Scored against another gold answer. A judge is asked again only where it may have seen what changed."""
        if row["key"] not in self.corrected:
            return False
        place = row["prompt_set"], row["sample_id"]
        if not isinstance(scorer, AskingScorer) or isinstance(scorer, Combination) or self.then[place].target != self._targets[place]:
            return True
        return bool({*scorer.columns} - ({scorer.calibration.label} if isinstance(scorer, Judge) else set()))

    def _correct(self) -> None:
        """Find the samples with another gold answer. A row was asked the same where its key is that of a request of now with the gold answer of then."""
        places = {}
        for row in (row for file in self._stored.files for row in self._stored.rows(file, ("key", "prompt_set", "sample_id", "sample_hash", "target"))):
            place, was = (row["prompt_set"], row["sample_id"]), Gold(row["sample_hash"], row["target"])
            if place in self._samples and was != self._masked(self._gold(place, was.target)) and self._may_change(place, was):
                self.then.setdefault(place, was)
                places[row["key"]] = place
        for model in self._plan.models if self.then else ():
            for old, new in zip(self._plan.requests(model, self.then), self._plan.requests(model), strict=True):
                if old.key in places:
                    gold = self._masked(Gold(new.sample.hash, new.target))
                    self.corrected[old.key] = Corrected(new.key, gold.sample_hash, gold.target, self._redactor.value(dict(new.sample.tags)))
        asked_the_same = {places[key] for key in self.corrected}
        self.then = {place: was for place, was in self.then.items() if place in asked_the_same or was.sample_hash == self._samples[place].hash}

    def _may_change(self, place: Place, was: Gold) -> bool:
        """Answers of tools may depend on any field of the row."""
        return self._sets[place[0]].tool_answers is None or was.sample_hash == self._samples[place].hash

    def _masked(self, gold: Gold) -> Gold:
        """As it is stored."""
        return gold._replace(target=gold.target and self._redactor.text(gold.target))


def _due(plan: Plan, stored: Mapping[str, Any], *, again: bool) -> set[str]:
    """The scorers whose options changed, or that cannot be known to be unchanged. A calibration changes no score."""
    written, known = (
        {one["name"]: (one["kind"], {**one["options"], "calibration": None}) for one in described.get("scorers") or ()}
        for described in (plan.describe(), stored)
    )
    return {name for name, scorer in written.items() if again or ":" in scorer[0] or (name in known and known[name] != scorer)}


def _lacks(row: Row, name: str, scorer: Scorer | AskingScorer, failed: bool) -> bool:
    """Never computed, or failed although another try may not: where somebody had to be asked. A null that a scorer came to by itself is its result."""
    why = row.get(f"score_{name}_why")
    if row.get(f"score_{name}") is not None or (why or "").startswith(STILL_TO_COME):
        return False
    return not why or failed or _waits(scorer)


def _waits(scorer: Scorer | AskingScorer) -> bool:
    return any(_waits(part) for _, part in scorer.parts) if isinstance(scorer, Combination) else is_async(scorer)


def _check_the_same(plan: Plan, stored: StoredAnswers, then: Mapping[Place, Gold]) -> None:
    """What a run checks before it asks, and that a `resume` under this plan would ask nothing that the run does not. Raises RunError."""
    plan.validate()
    old = stored.manifest.plan
    keys = {request.key for model in plan.models for request in plan.requests(model, then)}
    strange = [row["sample_id"] for file in stored.files for row in stored.rows(file, ("key", "sample_id")) if row["key"] not in keys]
    if [model.name for model in plan.models] != [one["name"] for one in old["models"]]:
        other = "models"
    elif len(keys) != old["size"]:
        other = f"requests ({len(keys):,} instead of {old['size']:,})"
    elif strange:
        other = f"requests (prompts, parameters, data or a provider's options; samples {_some(strange)})"
    else:
        return
    set_then = "".join(f" --set {text}" for text in old.get("overrides") or ())
    hint = f"change what scores the answers in the config of the run{f', and give again what it was given:{set_then}' if set_then else ''}"
    raise ConfigError(f"this config has other {other} than the run; one with a judge or other gold answers takes the place of the run's own (hint: {hint})")


def _some(samples: Sequence[str]) -> str:
    names = list(dict.fromkeys(samples))
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")


def _described(stored: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The manifest's plan with the scorers of now: those of the config, and what was there before."""
    new = plan.describe()
    names = {one["name"] for one in new["scorers"]}
    fresh = {one["name"]: one["scorers"] for one in new["prompt_sets"]}
    sets = [{**one, "scorers": list(dict.fromkeys([*fresh.get(one["name"], []), *one["scorers"]]))} for one in stored["prompt_sets"]]
    used = {name for one in sets for name in one["scorers"]}
    scorers = [one for one in new["scorers"] if one["name"] in used] + [one for one in stored["scorers"] if one["name"] not in names]
    return {**stored, "scorers": scorers, "prompt_sets": sets}
