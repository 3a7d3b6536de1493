"""A summary as a table in the terminal. Names come from configs and data, so control characters are shown, not obeyed."""

import shutil
import sys
import unicodedata
from collections.abc import Sequence

from evalrunner.analysis.tables import Agreement, CellSummary, Summary
from evalrunner.plain import clean, plain
from evalrunner.report.quantities import count, digits, duration, money, share, span

UNKNOWN = "–"
LEAST_MISSED = ("tokens in", "out", "p95", "TPOT p50", "stream", "cost / 1,000", "TTFT p50", "latency p50")
"""The order in which columns are left out of a terminal that is too narrow."""


def print_summary(summary: Summary) -> None:
    """The leaderboard, what a reader must know before trusting it, and the totals, on stdout."""
    rows = [_row(cell, summary) for cell in summary.cells]
    used = [name for name in _header(summary) if any(row[name] != UNKNOWN for row in rows)]
    print(plain(aligned(_fitting(used, rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))))
    for line in judge_lines(summary):
        print(clean(line))
    for notice in summary.notices:
        print(f"! {clean(notice.text)}")
    print(_totals(summary))


def judge_lines(summary: Summary) -> list[str]:
    """What is to be known of each judge: its cost, apart from the run's, its bias, and how far it agrees with people and with other judges."""
    lines = []
    for judge in summary.judges:
        parts = [f"{count(judge.asked)} asked"]
        parts += [f"{count(number)} {word}" for number, word in ((judge.unreadable, "unreadable"), (judge.unanswered, "unanswered")) if number]
        parts += [money(amount, currency) or "" for currency, amount in judge.spend.items()]
        if judge.pairs:
            first = f", prefers the first {share(judge.first)} of the time" if judge.first is not None else ""
            parts.append(f"order decided {judge.flips} of {judge.pairs} pairs [{span(judge.flips_low, judge.flips_high)}]{first}")
        if judge.calibration is not None:
            parts.append(f"with people {_agreement(judge.calibration)}")
        lines.append(f"judge {judge.scorer} · {judge.judge}: {' · '.join(parts)}")
    lines += [f"judge {pair.scorer} · {pair.first} and {pair.second}: {_agreement(pair.agreement)}" for pair in summary.judge_pairs]
    return lines


def _agreement(found: Agreement) -> str:
    kappa = f", kappa {found.kappa:.2f} [{found.kappa_low:.2f} to {found.kappa_high:.2f}]" if found.kappa is not None else ""
    return f"agrees {share(found.share)} [{span(found.low, found.high)}]{kappa} (n = {found.n})"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns: the first line is the header; texts to the left, what has a digit first to the right."""
    widths = [max(_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [all(row[i] == UNKNOWN or row[i][:1].isdigit() or row[i][:1] in "<>" for row in rows[1:]) for i in range(len(rows[0]))]
    lines = ["  ".join(_pad(text, width, right) for text, width, right in zip(row, widths, numeric, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def _fitting(names: list[str], rows: Sequence[dict[str, str]], columns: int | None) -> list[list[str]]:
    """The table with as many columns as the terminal is wide for; the report has them all."""
    for dropped in (None, *LEAST_MISSED):
        names = [name for name in names if name != dropped]
        table = [names, *([row[name] for name in names] for row in rows)]
        if columns is None or sum(max(_width(row[i]) for row in table) + 2 for i in range(len(names))) - 2 <= columns:
            break
    return table


def _header(summary: Summary) -> list[str]:
    return [
        *(["prompt set"] if "prompt_set" in summary.varying else []),
        "prompt", "model", "params", "stream",
        *summary.scorers,
        "answered", "latency p50", "p95", "TTFT p50", "TPOT p50", "tokens in", "out", "cost / 1,000",
    ]  # fmt: skip


def _row(cell: CellSummary, summary: Summary) -> dict[str, str]:
    def middle(metric: str, p: float = 0.5) -> str:
        spread = cell.latency.get(metric)
        value = next((quantile.value for quantile in spread.quantiles if quantile.p == p), None) if spread else None
        return duration(value) or UNKNOWN

    varying = {name: value for name, value in cell.params.items() if name in summary.varying}
    row = {
        "prompt set": clean(cell.prompt_set),
        "prompt": clean(cell.prompt),
        "model": clean(cell.model),
        "params": clean(" ".join(f"{name}={value}" for name, value in varying.items())) or UNKNOWN,
        "stream": ("yes" if cell.stream else "no") if "stream" in summary.varying else UNKNOWN,
        "answered": f"{cell.answered:,} of {cell.planned:,}",
        "latency p50": middle("latency_ms"),
        "p95": middle("latency_ms", 0.95),
        "TTFT p50": middle("ttft_ms"),
        "TPOT p50": middle("tpot_ms"),
        "tokens in": _mean(cell, "input"),
        "out": _mean(cell, "output"),
        "cost / 1,000": money(cell.cost.per_1000, cell.cost.currency) or UNKNOWN,
    }
    for scorer in summary.scorers:
        estimate = cell.scores.get(scorer)
        value = share(estimate.value) if estimate else None
        row[scorer] = f"{value} [{span(estimate.low, estimate.high)}]" if estimate and value else UNKNOWN
    return row


def _mean(cell: CellSummary, kind: str) -> str:
    tokens = cell.tokens.get(kind)
    return (digits(tokens.mean) if tokens else None) or UNKNOWN


def _totals(summary: Summary) -> str:
    totals = summary.totals
    parts = [f"{totals.answered:,} of {totals.planned:,} answered"]
    if totals.active_s:
        parts.append(f"in {duration(totals.active_s * 1000)}")
    parts.extend(money(amount, currency) or "" for currency, amount in totals.spend.items())
    parts.extend(f"{count(totals.tokens[kind].sum)} tokens {name}" for kind, name in (("input", "in"), ("output", "out")) if totals.tokens[kind].sum)
    return " · ".join(parts)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
