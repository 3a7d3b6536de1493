"""A run of 1,000,000 requests against a local server, killed in the middle and resumed: does it stay as fast and as small as it began, and who can read it?

    python benchmarks/million.py [--requests 1000000] [--keep DIR]

Needs gcc, and pandas, duckdb and polars to read the results. Prints requests per second by tenth of the run, memory, the time from `resume` to its first
request, how many requests were bought twice, and what each reader sees.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from overhead import fast_server

CONCURRENCY = 128
TRIALS = 10
POLL_S = 0.25

READERS = {
    "pandas": "import pandas as pd; f = pd.read_parquet(sys.argv[1], columns=['key', 'outcome']); print(len(f), f.key.nunique(), (f.outcome == 'ok').sum())",
    "DuckDB": (
        "import duckdb; print(*duckdb.sql(f\"select count(*), count(distinct key), count(*) filter (outcome = 'ok')"
        " from '{sys.argv[1]}/*.parquet'\").fetchall()[0])"
    ),
    "Polars": (
        "import polars as pl; f = pl.read_parquet(sys.argv[1] + '/*.parquet', columns=['key', 'outcome']); "
        "print(len(f), f['key'].n_unique(), (f['outcome'] == 'ok').sum())"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="leave the run in this directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, fast_server(Path(scratch)) as url:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        study(folder, url, args.requests)


def study(folder: Path, url: str, requests: int) -> None:
    (folder / "data.jsonl").write_text("".join(f'{{"a": {i}, "b": {i + 1}, "sum": {2 * i + 1}}}\n' for i in range(requests // TRIALS)))
    (folder / "config.yaml").write_text(json.dumps(config(url)))
    run = folder / "run"
    first = Session(url, requests, "run", str(folder / "config.yaml"), "--out", str(run), "--yes")
    first.follow(until=requests // 2)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second = Session(url, requests, "resume", str(run))
    second.follow()
    print(f"killed after {first.sent:,} requests; resume sent its first request after {second.first_s:.1f} s, in all {second.sent - first.sent:,} more")
    print(f"bought twice: {second.sent - requests}; exit code {second.process.wait()}; wall {first.wall_s + second.wall_s:.0f} s")
    print(f"peak memory: {first.peak_mb:.0f} MB before the kill, {second.peak_mb:.0f} MB after it, report included")
    parts = sorted((run / "results").glob("*.parquet"))
    print(f"results: {len(parts)} parts, {sum(part.stat().st_size for part in parts) / 1e6:.0f} MB; report {(run / 'report.html').stat().st_size / 1e6:.1f} MB")
    for name, code in READERS.items():
        began = time.perf_counter()
        said = subprocess.run([sys.executable, "-c", f"import sys; {code}", str(run / "results")], capture_output=True, text=True, check=False)
        print(f"{name}: rows, keys, ok = {said.stdout.strip() or said.stderr.strip()[-200:]} in {time.perf_counter() - began:.1f} s")


def config(url: str) -> dict[str, object]:
    prompt_set = {
        "name": "sums",
        "data": "data.jsonl",
        "prompts": {"plain": "What is {{ a }} + {{ b }}? Answer with the number only."},
        "target": "{{ sum }}",
        "scorers": ["includes"],
    }
    return {
        "name": "million",
        "providers": {"fast": {"kind": "openai", "base_url": f"{url}/v1", "limits": {"concurrency": CONCURRENCY}}},
        "models": [{"id": "mock", "provider": "fast"}],
        "grid": {"temperature": 0, "max_tokens": 64},
        "stream": False,
        "trials": TRIALS,
        "preflight": False,
        "prompt_sets": [prompt_set],
    }


class Session:
    """One process of the command line, watched from outside: what the server has counted, and how much memory the process has."""

    def __init__(self, url: str, requests: int, *command: str) -> None:
        self.url, self.requests = url, requests
        self.sent = served(url)
        self.first_s = self.wall_s = self.peak_mb = 0.0
        self.began = time.perf_counter()
        with Path(os.devnull).open("w") as nowhere:
            self.process = subprocess.Popen([sys.executable, "-m", "evalrunner", *command], stdout=nowhere, stderr=nowhere)

    def follow(self, until: int | None = None) -> None:
        """Print the pace of each tenth until the process ends, or the server has had `until` requests."""
        before, tenth = self.sent, self.requests // 10
        mark, mark_s, reached = before, self.began, before // tenth
        while self.process.poll() is None:
            time.sleep(POLL_S)
            now, self.sent = time.perf_counter(), served(self.url)
            self.peak_mb = max(self.peak_mb, memory_mb(self.process.pid, "VmHWM"))
            if not self.first_s and self.sent > before:
                self.first_s = now - self.began
                mark_s = now
                mark = self.sent
            if self.sent // tenth > reached:
                rss = memory_mb(self.process.pid, "VmRSS")
                print(f"{self.sent:>9,} requests: {(self.sent - mark) / max(now - mark_s, POLL_S):6,.0f} per second, {rss:.0f} MB", flush=True)
                mark, mark_s, reached = self.sent, now, self.sent // tenth
            if until is not None and self.sent >= until:
                break
        self.wall_s = time.perf_counter() - self.began


def served(url: str) -> int:
    with urllib.request.urlopen(f"{url}/stats", timeout=60) as answer:  # noqa: S310 - our own server
        return int(json.load(answer)["requests"])


def memory_mb(pid: int, field: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(field)), 0.0)


if __name__ == "__main__":
    main()
