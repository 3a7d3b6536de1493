"""What evalrunner costs, beside a bare aiohttp loop, in one run against a local server that is never the bottleneck.

    python benchmarks/overhead.py [--only NAME,NAME] [--rounds 3]

Needs gcc. Each figure is a whole process (start-up, Parquet and report included unless it says "marginal"); pairs run in turn, A B A B, and the ratio is
the median over rounds of A / B, so that a machine whose speed drifts does not decide. Marginal = (cost of many - cost of few) / (many - few).
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

HERE = Path(__file__).parent


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description="evalrunner beside a bare loop")
    parser.add_argument("--only", default=",".join(BENCHMARKS), help=f"some of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, fast_server(Path(folder)) as url:
        bench = Bench(Path(folder), url, args.rounds)
        for name in args.only.split(","):
            print(f"\n## {name}: {(BENCHMARKS[name].__doc__ or '').strip()}")
            BENCHMARKS[name](bench)


class Bench:
    """Runs the two programs on the same server and remembers nothing."""

    def __init__(self, folder: Path, url: str, rounds: int) -> None:
        self.folder, self.url, self.rounds, self._count = folder, url, rounds, 0
        self.results = folder  # of the last program: Parquet, a file or a directory

    def ours(self, n: int, concurrency: int, path: str = "", *, stream: bool = False) -> Cost:
        self._count += 1
        config = self.folder / f"config-{self._count}.yaml"
        data = self.folder / f"data-{n}.jsonl"
        if not data.exists():
            data.write_text("".join(f'{{"a": {i}, "b": {i + 1}, "sum": {2 * i + 1}}}\n' for i in range(n)))
        config.write_text(
            json.dumps(
                {
                    "name": "overhead",
                    "providers": {"fast": {"kind": "openai", "base_url": f"{self.url}{path}/v1", "limits": {"concurrency": concurrency}}},
                    "models": [{"id": "mock", "provider": "fast"}],
                    "grid": {"temperature": 0, "max_tokens": 64},
                    "stream": stream,
                    "preflight": False,
                    "prompt_sets": [
                        {
                            "name": "sums",
                            "data": data.name,
                            "prompts": {"plain": "What is {{ a }} + {{ b }}? Answer with the number only."},
                            "target": "{{ sum }}",
                            "scorers": ["includes"],
                        }
                    ],
                }
            )
        )
        out = self.folder / f"run-{self._count}"
        self.results = out / "results"
        return spend([sys.executable, "-m", "evalrunner", "run", str(config), "--out", str(out)])

    def bare(self, n: int, concurrency: int, path: str = "", *, stream: bool = False) -> Cost:
        self._count += 1
        out = self.folder / f"bare-{self._count}"
        self.results = out / "results.parquet"
        return spend([sys.executable, str(HERE / "reference_loop.py"), str(n), str(concurrency), f"{self.url}{path}/v1", str(out), *(["--stream"] * stream)])

    def pairs(self, ours: Callable[[], float], bare: Callable[[], float]) -> tuple[float, float, float]:
        """Medians of ours, of the bare loop's, and of the ratios round by round."""
        both = [(ours(), bare()) for _ in range(self.rounds)]
        return statistics.median(a for a, _ in both), statistics.median(b for _, b in both), statistics.median(a / b for a, b in both)


def requests(bench: Bench) -> None:
    """requests, zero-latency server: requests per second of the whole process, marginal CPU per request"""
    few, many = 500, 4500
    for concurrency in (64, 256):
        rates = bench.pairs(lambda c=concurrency: many / bench.ours(many, c).wall_s, lambda c=concurrency: many / bench.bare(many, c).wall_s)
        show(f"c={concurrency}: requests per second, start to finish", rates, "req/s")
        cpu = bench.pairs(
            lambda c=concurrency: 1000 * (bench.ours(many, c).cpu_s - bench.ours(few, c).cpu_s) / (many - few),
            lambda c=concurrency: 1000 * (bench.bare(many, c).cpu_s - bench.bare(few, c).cpu_s) / (many - few),
        )
        show(f"c={concurrency}: marginal CPU per request", cpu, "ms")


def latency(bench: Bench) -> None:
    """2,000 requests, 64 in flight, 50 ms server: wall time of the whole process"""
    show("wall", bench.pairs(lambda: bench.ours(2000, 64, "/d50000").wall_s, lambda: bench.bare(2000, 64, "/d50000").wall_s), "s")


def streams(bench: Bench) -> None:
    """64 streams at once of 100 chunks each, 20 ms apart: marginal CPU per stream event"""
    few, many, events = 64, 448, 100

    def marginal(program: Callable[..., Cost]) -> float:
        costs = [program(n, 64, "/d1000,n100,g20000", stream=True).cpu_s for n in (many, few)]
        return 1000 * (costs[0] - costs[1]) / ((many - few) * events)

    show("CPU per event", bench.pairs(lambda: marginal(bench.ours), lambda: marginal(bench.bare)), "ms")


def first_tokens(bench: Bench) -> None:
    """64 streams at once of 100 chunks each, 20 ms apart, the first after 50 ms: how much later than that the first token is stamped"""
    late: dict[float, list[tuple[float, float]]] = {0.5: [], 0.99: []}

    def stamped(program: Callable[..., Cost]) -> list[float]:
        program(448, 64, "/d50000,n100,g20000", stream=True)
        return sorted(ms - 50 for ms in pq.read_table(bench.results, columns=["ttft_ms"])["ttft_ms"].to_pylist())

    for _ in range(bench.rounds):
        ours, bare = stamped(bench.ours), stamped(bench.bare)
        for share, pairs in late.items():
            pairs.append((ours[int(share * (len(ours) - 1))], bare[int(share * (len(bare) - 1))]))
    for share, pairs in late.items():
        ours_ms, bare_ms = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        show(f"first token, p{100 * share:.0f}", (ours_ms, bare_ms, statistics.median(a / b for a, b in pairs)), "ms")


def memory(bench: Bench) -> None:
    """peak memory of a run of 1,000 and of 100,000 requests"""
    for n in (1_000, 100_000):
        cost = bench.ours(n, 256)
        print(f"{n:>9,} requests: peak {cost.peak_mb:.0f} MB, wall {cost.wall_s:.1f} s, {n / cost.wall_s:,.0f} req/s, CPU {cost.cpu_s:.1f} s")


def startup(bench: Bench) -> None:
    """`evalrunner --help`, wall time (median of 9)"""
    times = [spend([sys.executable, "-m", "evalrunner", "--help"]).wall_s for _ in range(9)]
    print(f"median {1000 * statistics.median(times):.0f} ms, largest {1000 * max(times):.0f} ms")
    del bench


BENCHMARKS = {"startup": startup, "requests": requests, "latency": latency, "streams": streams, "first_tokens": first_tokens, "memory": memory}


def show(what: str, figures: tuple[float, float, float], unit: str) -> None:
    ours, bare, ratio = figures
    print(f"{what:<50} evalrunner {ours:>9.3f} {unit:<6} bare loop {bare:>9.3f} {unit:<6} ratio {ratio:.2f}")


def spend(command: list[str]) -> Cost:
    """Run a command to its end; its wall time, CPU time and peak memory. Exits with what it printed if it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{output.read().decode()}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


@contextmanager
def fast_server(folder: Path) -> Iterator[str]:
    """Build and start the C server on a free port of 127.0.0.1."""
    binary = folder / "fast_server"
    subprocess.run(["gcc", "-O3", "-march=native", "-o", str(binary), str(HERE / "fast_server.c"), "-lm"], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([str(binary), str(port)])
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
