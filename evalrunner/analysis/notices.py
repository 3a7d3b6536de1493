"""What a reader must know before trusting the tables, found in the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from evalrunner.analysis.cells import MAX_TAG_VALUES, tag_factors
from evalrunner.analysis.failures import Attempts
from evalrunner.analysis.rows import Rows
from evalrunner.analysis.stats import ALPHA, holm
from evalrunner.analysis.tables import CellSummary, ModelSummary, Notice, Totals

INFRASTRUCTURE_LIMIT = 0.01
TRUNCATED_LIMIT = 0.01
MOST_OF_A_REASON = 200


def notices(
    rows: Rows,
    tries: Attempts | None,
    cells: Sequence[CellSummary],
    models: Sequence[ModelSummary],
    totals: Totals,
    manifest: Mapping[str, Any],
) -> list[Notice]:
    """All notices, those about missing data first."""
    found = [
        *_unfinished(cells, totals, manifest),
        *_infrastructure(models),
        *_answers(tries, cells, models),
        *_unscored(rows, cells),
        *_stalls(rows),
        *_money(rows, cells, manifest),
    ]
    for tag, values in ((tag, len(factor.names)) for tag, factor in tag_factors(rows).items()):
        if values > MAX_TAG_VALUES:
            found.append(_notice("tag_values", f"Tag {tag} has {values} values, too many to slice by.", tag=tag, values=values))
    return found


def _notice(kind: str, text: str, **values: Any) -> Notice:
    return Notice(kind=kind, text=text, values=values)


def _unfinished(cells: Sequence[CellSummary], totals: Totals, manifest: Mapping[str, Any]) -> Iterator[Notice]:
    if totals.done == 0:
        yield _notice("empty", "No request has a row yet.")
    elif totals.missing > 0:
        state = manifest.get("state") or "interrupted"
        yield _notice("missing", f"The run is {state}: {totals.missing} of {totals.planned} requests have no row.", state=state, missing=totals.missing)
    unseen = totals.planned - sum(cell.planned for cell in cells)
    if cells and unseen > 0:
        yield _notice("cells_missing", f"{unseen} planned requests belong to cells that have not started; those cells are not shown.", requests=unseen)


def _infrastructure(models: Sequence[ModelSummary]) -> Iterator[Notice]:
    for one in models:
        if one.infrastructure_share is not None and one.infrastructure_share > INFRASTRUCTURE_LIMIT:
            share = one.infrastructure_share
            text = f"{share:.1%} of {one.model}'s requests failed for reasons that say nothing about the model; its scores leave them out (see the bounds)."
            yield _notice("infrastructure", text, model=one.model, share=share, count=one.infrastructure)
    failed, done = np.array([one.infrastructure for one in models]), np.array([one.done for one in models])
    if len(models) < 2 or not failed.any():
        return
    tables = [np.array([[f, d - f], [failed.sum() - f, (done - failed).sum() - (d - f)]]) for f, d in zip(failed, done, strict=True)]
    p = holm([float(scipy.stats.fisher_exact(table).pvalue) for table in tables])
    if p.min() < ALPHA:
        worst = max(models, key=lambda one: one.infrastructure_share or 0.0)
        text = f"Infrastructure errors differ between models ({worst.model} has the most): compare their scores with the bounds in view."
        yield _notice("infrastructure_differs", text, model=worst.model, p=float(p.min()))


def _answers(tries: Attempts | None, cells: Sequence[CellSummary], models: Sequence[ModelSummary]) -> Iterator[Notice]:
    for one in models:
        cut = one.outcomes.get("truncated", 0)
        if one.answered and cut / one.answered > TRUNCATED_LIMIT:
            yield _notice("truncated", f"{cut} answers of {one.model} were cut at the token limit and scored as they are.", model=one.model, count=cut)
        if len(one.response_models) > 1:
            names = list(one.response_models)
            yield _notice("response_models", f"{one.model} was answered by {len(names)} different models: {', '.join(names)}.", model=one.model, names=names)
        if maybe := one.outcomes.get("timeout", 0) + one.outcomes.get("broken_stream", 0):
            yield _notice("maybe_billed", f"{maybe} requests of {one.model} broke off; the provider may bill them all the same.", model=one.model, count=maybe)
    yield from _set_apart(cells)
    if tries is not None and (replaced := int(np.count_nonzero(tries.replaced))):
        yield _notice("replaced", f"{replaced} answers held characters that UTF-8 cannot; they were replaced by U+FFFD.", count=replaced)


def _unscored(rows: Rows, cells: Sequence[CellSummary]) -> Iterator[Notice]:
    """Answers without a score, with one reason: a scorer that fails on all of them does so for the same."""
    unscored: dict[str, int] = {}
    for cell in cells:
        for name, estimate in cell.scores.items():
            unscored[name] = unscored.get(name, 0) + cell.answered - estimate.scored
    for name, count in unscored.items():
        if count > 0:
            why = " ".join((rows.first_reason(f"score_{name}") or "the scorer failed on them").split())
            why = why if len(why) <= MOST_OF_A_REASON else why[: MOST_OF_A_REASON - 1] + "…"
            yield _notice("unscored", f"{count} answers have no score of {name}; of the first: {why}", scorer=name, count=count, why=why)


def _stalls(rows: Rows) -> Iterator[Notice]:
    if count := int(np.count_nonzero(rows.stalled)):
        longest = float(np.nanmax(rows.number("stalled_ms")))
        text = f"Latencies leave out {count} requests: this process stood still while they were under way, for up to {longest / 1000:.1f} s."
        yield _notice("stalled", text, count=count, seconds=round(longest / 1000, 1))


def _set_apart(cells: Sequence[CellSummary]) -> Iterator[Notice]:
    """Cells with a score and no tie group, where others have one."""
    ranked = {(cell.prompt_set, name) for cell in cells for name, estimate in cell.scores.items() if estimate.tie_group}
    for cell in cells:
        for name, estimate in cell.scores.items():
            if estimate.n and estimate.tie_group is None and (cell.prompt_set, name) in ranked:
                text = f"{cell.label} has {name} for {estimate.n} samples only, less than half of what others have: it is not ranked."
                yield _notice("set_apart", text, cell=cell.label, scorer=name, count=estimate.n)


def _money(rows: Rows, cells: Sequence[CellSummary], manifest: Mapping[str, Any]) -> Iterator[Notice]:
    missing = int(np.count_nonzero(rows.answered & np.isnan(rows.number("completion_tokens"))))
    if missing:
        yield _notice("usage_missing", f"{missing} answers came without token counts; tokens and cost leave them out.", count=missing)
    source = rows.factor("usage_source")
    guessed = int(np.count_nonzero(source.codes == source.names.index("estimate"))) if "estimate" in source.names else 0
    if guessed:
        yield _notice("usage_estimated", f"{guessed} token counts are our estimate, not the provider's.", count=guessed)
    priced = {model["name"] for model in (manifest.get("plan") or {}).get("models", []) if model.get("price")}
    unknown = sum(cell.cost.unknown for cell in cells if cell.model in priced)
    if unknown:
        yield _notice("cost_unknown", f"The cost of {unknown} answers is unknown; totals are lower bounds.", count=unknown)
    if mixed := [cell.label for cell in cells if cell.cost.total is None and cell.cost.unknown < cell.answered]:
        yield _notice("currencies", f"Costs in several currencies are not added up: {', '.join(mixed)}.", cells=mixed)
