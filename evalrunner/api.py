"""Running a config from Python: `run` for scripts, `arun` for code that has an event loop already, as notebooks do."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from evalrunner import pipeline
from evalrunner.loop import new_loop
from evalrunner.plan.config import load_config
from evalrunner.results import Run


def run(config: str | Path, *, out: str | Path | None = None, overrides: Sequence[str] = (), limit: int | None = None) -> Run:
    """Carry out a config file and return the finished run; `run.exit_code` is the command line's.

    `out`: the run's directory (default `reports/<name>/<run id>`) · `overrides`: as in `--set`, `"grid.temperature=0.5"` · `limit`: only the first N
    samples of each prompt set. Raises RunError (ConfigError, DatasetError, …) when nothing could be sent.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(arun(config, out=out, overrides=overrides, limit=limit))


async def arun(config: str | Path, *, out: str | Path | None = None, overrides: Sequence[str] = (), limit: int | None = None) -> Run:
    """`run` for a running event loop; cancelling it ends the run as interrupted, resumable."""
    return await pipeline.run(load_config(config, overrides=overrides, limit=limit), Path(out) if out is not None else None)
