"""Progress on stderr: a tqdm bar on a terminal, one plain line every ten seconds elsewhere."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TextIO

from tqdm import tqdm

from evalrunner.engine.tally import Tally
from evalrunner.plain import clean
from evalrunner.records import ANSWERED

BAR_SECONDS, LINE_SECONDS = 0.2, 10.0
RATE_WINDOW_S = 30.0
"""The ETA and tokens/s look back this far, so that a change of pace shows within half a minute."""


class Pace:
    """How fast a run goes, over the last `RATE_WINDOW_S`. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int, dict[str, int]]] = []
        self.tokens_per_s = 0.0
        self.left_s: float | None = None
        """Until the slowest model is through at its present pace; None while one that has requests left shows none."""

    def note(self, now: float, tally: Tally) -> None:
        self._seen.append((now, tally.completion_tokens, dict(tally.left)))
        while len(self._seen) > 2 and self._seen[1][0] < now - RATE_WINDOW_S:
            self._seen.pop(0)
        began, tokens, left = self._seen[0]
        if now <= began:
            return
        self.tokens_per_s = (tally.completion_tokens - tokens) / (now - began)
        open_models = {name: count for name, count in tally.left.items() if count > 0}
        done = {name: left.get(name, count) - count for name, count in open_models.items()}
        self.left_s = max(((now - began) * count / done[name] for name, count in open_models.items()), default=None) if all(done.values()) else None


def describe(tally: Tally, pace: Pace, now_us: int) -> str:
    """One line of facts: ok, errors, retrying, parked models, tokens/s, spend, ETA. What is zero and uninteresting is left out.

    The pace is the limiter's wherever limits bind, so the ETA holds under them.
    """
    ok = sum(tally.by_outcome[outcome] for outcome in ANSWERED)
    parts = [f"ok {ok:,}"]
    if errors := tally.done - ok:
        parts.append(f"errors {errors:,}")
    if tally.retrying:
        parts.append(f"retrying {tally.retrying:,}")
    parked = [f"{name} {_span((until - now_us) / 1e6)}" for name, until in sorted(tally.parked.items()) if until > now_us]
    if parked:
        parts.append(f"parked {', '.join(parked)}")
    if tally.stopped:
        parts.append(f"stopped {', '.join(sorted(tally.stopped))}")
    if pace.tokens_per_s:
        parts.append(f"{pace.tokens_per_s:,.0f} tok/s")
    if tally.budget is not None:
        parts.append(tally.budget.described())
    if tally.budget is None or tally.budget.cost is None:
        parts.extend(f"{amount:,.4g} {currency}" for currency, amount in sorted(tally.cost.items()))
    if pace.left_s is not None:
        parts.append(f"ETA {_span(pace.left_s)}")
    return " · ".join(parts)


@asynccontextmanager
async def shown(tally: Tally, *, already: int = 0, out: TextIO | None = None) -> AsyncIterator[None]:
    """Show `tally` on stderr while the block runs, and once more at its end."""
    out = out or sys.stderr
    pace, terminal = Pace(), out.isatty()
    bar = tqdm(total=tally.planned, initial=already, file=out, unit="req", disable=not terminal, dynamic_ncols=True, bar_format=_FORMAT)

    def show() -> None:
        with suppress(OSError):  # the terminal is gone, the run is not
            draw()

    def draw() -> None:
        pace.note(time.monotonic(), tally)
        line = clean(describe(tally, pace, time.time_ns() // 1000))
        if terminal:
            bar.total, bar.n = tally.planned, already + tally.done
            bar.set_postfix_str(line, refresh=True)
        else:
            out.write(f"{already + tally.done:,}/{tally.planned:,} · {line}\n")
            out.flush()

    async def keep_showing() -> None:
        while True:
            await asyncio.sleep(BAR_SECONDS if terminal else LINE_SECONDS)
            show()

    task = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        show()
        with suppress(OSError):
            bar.close()


_FORMAT = "{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]{postfix}"


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
