"""A run on disk, as people use it from Python: its rows as data frames, its summary, its report. Sends nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrunner.analysis.compare import Comparison, Options
from evalrunner.analysis.gates import GateResult
from evalrunner.analysis.summary import Summary, summarise
from evalrunner.decisions import Chosen, compare_runs
from evalrunner.errors import ConfigError, RunError, StoreError
from evalrunner.reporting import page_of, page_of_several
from evalrunner.store.files import Files, whole_file
from evalrunner.store.lock import state_of
from evalrunner.store.manifest import REPORT
from evalrunner.store.run_dir import read_attempts, read_judgements, read_manifest, read_results, rows_of

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A run directory, finished or not. `exit_code` is what the command line would have returned; 0 for a run that was only opened.

    `gates`: what became of the config's gate, limit by limit and cell by cell. A `Run` is a path to whoever takes one.
    """

    def __init__(self, path: str | os.PathLike[str], exit_code: int = 0, message: str = "", gates: Sequence[GateResult] = ()) -> None:
        self.path = Path(path)
        self.exit_code = exit_code
        self.message = message
        self.gates = tuple(gates)
        self.manifest: Mapping[str, Any] = read_manifest(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.state})"

    @property
    def state(self) -> str:
        """`running`, `complete`, `interrupted`; or `killed`: the manifest says running, but no process is."""
        return state_of(self.path, self.manifest)

    def results(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per request, with the columns of `results/*.parquet`; also while the run goes on. Raises StoreError."""
        frame: pd.DataFrame = read_results(self.path, columns).to_pandas()
        return frame

    def attempts(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per HTTP exchange. Raises StoreError."""
        frame: pd.DataFrame = read_attempts(self.path, columns).to_pandas()
        return frame

    def judgements(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per question that a scorer asked a model. Raises StoreError."""
        frame: pd.DataFrame = read_judgements(self.path, columns).to_pandas()
        return frame

    def summary(self) -> Summary:
        """Every table of the report, as values; `.to_frame()` is a data frame with a row for each cell. Raises StoreError."""
        manifest = {**self.manifest, "state": self.state}
        return summarise(rows_of(self.path, "results"), rows_of(self.path, "attempts"), manifest, read_judgements(self.path))


def open_run(path: str | Path) -> Run:
    """The run in a directory. Raises StoreError where there is none, or it was written by a newer version."""
    return Run(path)


def compare(
    baseline: str | os.PathLike[str],
    candidate: str | os.PathLike[str],
    *,
    margins: Mapping[str, float] | None = None,
    renames: Mapping[str, str] | None = None,
    leave_out_changed: bool = False,
    leave_out_changed_scorers: bool = False,
) -> Comparison:
    """A candidate against a baseline, sample by sample: runs, run directories, or cells of them as in `f"{run.path}[prompt=plain]"`.

    `margins`: how much worse a metric may be, in its own unit · `renames`: baseline name -> candidate name of a prompt set, prompt or model ·
    `leave_out_changed`: leave out samples whose data differ, instead of refusing; `leave_out_changed_scorers`: scores that were computed differently.
    Raises RunError for what cannot be compared, and for a metric or name that is not there.
    """
    options = Options(margins=margins or {}, renames=renames or {}, leave_out_changed=leave_out_changed, leave_out_changed_scorers=leave_out_changed_scorers)
    return compare_runs(baseline, candidate, options)


def make_report(  # noqa: PLR0913 - keywords, each with its default
    run: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | Path | None = None,
    *,
    lang: str = "en",
    baseline: str | os.PathLike[str] | None = None,
    margins: Mapping[str, float] | None = None,
    renames: Mapping[str, str] | None = None,
    files: Files | None = None,
) -> Path:
    """Write the run's report as one HTML file (default: `report.html` in its directory) and return its path. Same records, same bytes.

    `run`: also several over the same samples, side by side in one page · `baseline`: a run, or cells of one, that this one (or those chosen of it,
    `f"{run.path}[prompt=new]"`; the page is of the whole run all the same) is held against, sample by sample; without it the baseline of the run's gate,
    if that is there · `margins`, `renames`: as `compare` takes them; the gate's own `max_drop` is the margin of its metric · `files`: the seam to the disk.
    Raises RunError, also for a baseline that does not fit, and StoreError where the run's own report cannot be written.
    """
    runs = [Chosen(one) for one in ([run] if isinstance(run, str | os.PathLike) else run)]
    target = Path(out) if out is not None else runs[0].path / REPORT
    options = Options(margins=margins or {}, renames=renames or {})
    if len(runs) == 1:
        page = page_of(runs[0], baseline=baseline, options=options, lang=lang)
    elif out is None or baseline is not None or any(one.where for one in runs):
        raise ConfigError("a report of several runs is of the whole of them, has no baseline, and needs a place (hint: --out FILE)")
    else:
        page = page_of_several(runs, options=options, lang=lang)
    try:
        with whole_file(target, files) as hidden:
            hidden.write_text(page, encoding="utf-8")
    except RunError as error:
        if out is not None:
            raise
        raise StoreError(f"{error}; the rows are safe. Free some space or see to the disk, then: evalrunner report {runs[0].path}") from error
    return target
