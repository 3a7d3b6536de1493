"""Stored runs -> a page: one run with its gate as `run` judged it and what changed against a baseline, or several runs. Reads runs and sends nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from evalrunner.analysis.compare import Options, compare
from evalrunner.analysis.flips import flipped_samples
from evalrunner.analysis.rules import Gate, as_text, metric_problem, rule_of
from evalrunner.analysis.summary import Summary, summarise
from evalrunner.decisions import Chosen, check_run
from evalrunner.errors import ConfigError, EvalRunnerError
from evalrunner.report.flips import MOST_SHOWN
from evalrunner.report.page import Judged, SampleRows, render
from evalrunner.side_by_side import together
from evalrunner.store.lock import state_of
from evalrunner.store.run_dir import read_judgements, rows_of


class _Usual(NamedTuple):
    baseline: Path
    where: Mapping[str, Any]


def page_of(run: Chosen, *, baseline: str | os.PathLike[str] | None, options: Options, lang: str) -> str:
    """A run's report. Raises as `compare_runs` for a `baseline` that does not fit; and `ConfigError` for an unknown margin."""
    results, attempts = rows_of(run.path, "results"), rows_of(run.path, "attempts")
    manifest = {**run.manifest, "state": state_of(run.path, run.manifest)}
    summary = summarise(results, attempts, manifest, read_judgements(run.path))
    _refuse_unknown(options, summary)
    return render(summary, SampleRows(results, attempts), lang=lang, judged=_judged(run, summary, baseline, options))


def page_of_several(runs: Sequence[Chosen], *, options: Options, lang: str) -> str:
    """One report of several runs over the same samples. Raises `DatasetError` where they are not."""
    with together(runs) as many:
        summary = summarise(many.results, many.attempts, many.manifest, many.judgements)
        _refuse_unknown(options, summary)
        return render(summary, SampleRows(many.results, many.attempts), lang=lang, judged=Judged(margins=options.margins, runs=many.runs))


def _refuse_unknown(options: Options, summary: Summary) -> None:
    if problems := [problem for name in options.margins if (problem := metric_problem(name, summary.scorers))]:
        raise ConfigError(*problems)


def _judged(run: Chosen, whole: Summary, baseline: str | os.PathLike[str] | None, options: Options) -> Judged:
    """`run` against its own gate and against `baseline`, else against the one run that all of it is gated against, while that is there."""
    gates = _gates(run)
    drops = [gate.rule for gate in gates if gate.rule.max_drop is not None]
    margins = {**{rule.metric: rule.max_drop or 0.0 for rule in drops}, **options.margins}
    options = replace(options, drops=drops)
    everything = Chosen(run.path) if run.where else run
    everything.summary = whole
    results = tuple(check_run(everything, gates)) if whole.run.state == "complete" else ()
    found = Judged(gates=results, margins=margins)
    if baseline is not None:
        return _held(Chosen(baseline), run, options, found)
    if run.where:
        raise ConfigError(f"{run.name}: cells are chosen to be held against a baseline (hint: --baseline)")
    with suppress(EvalRunnerError):  # then its gate is told as not judged, with the reason
        if results and (usual := _usual(gates)):
            old = Chosen(usual.baseline)
            old.where = run.where = {name: as_text(value) for name, value in usual.where.items()}
            return _held(old, run, replace(options, leave_out_changed_scorers=True), found)  # as the gate does; it has said so before the run
    return found


def _gates(run: Chosen) -> list[Gate]:
    """The gate of the config that the run was made from. A baseline was named from the config's folder, which is known from the run's."""
    folder = (run.path / ((run.manifest.get("config") or {}).get("origin") or "")).parent
    written: list[dict[str, Any]] = (run.manifest.get("plan") or {}).get("gate") or []
    named = [(rule_of(one), one.get("baseline")) for one in written]
    return [Gate(rule=rule, baseline=Path(os.path.normpath(folder / name)) if name is not None else None) for rule, name in named]


def _usual(gates: list[Gate]) -> _Usual | None:
    """What the run is gated against, where that is one run: the cells that every such limit is about, all of them where that differs."""
    named = [_Usual(gate.baseline, gate.rule.where) for gate in gates if gate.baseline is not None]
    if len({one.baseline for one in named}) != 1:
        return None
    return named[0] if all(one == named[0] for one in named) else _Usual(named[0].baseline, {})


def _held(old: Chosen, new: Chosen, options: Options, found: Judged) -> Judged:
    if old.path == new.path:
        new.results = old.results
    comparison = compare(old.side, new.side, options)
    return found._replace(comparison=comparison, flips=flipped_samples(comparison, old.results, new.results, max(MOST_SHOWN.values())))
