"""How the benchmarks measure: contenders that take turns, scans over Flight, other processes, and goals."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
import pyarrow.flight as flight

HERE = Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("NEXUS_BENCH_ROUNDS", "5"))
SCALE = os.environ.get("NEXUS_BENCH_SCALE", "1")
MB = 1_000_000

# Rows, seconds, CPU seconds.
Scan = tuple[int, float, float]


def turns(contenders: dict[str, Callable[[], object]]) -> dict[str, list]:
    """Each contender once a round, in turn, so that a slower moment of the machine meets all of them."""
    results: dict[str, list] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, run in contenders.items():
            result = run()
            if number:
                results[name].append(result)
    return results


def scan(client: flight.FlightClient, command: bytes, server: psutil.Process) -> Scan:
    """Every row of an answer: rows, seconds, CPU seconds of the server."""
    before, started = server.cpu_times(), time.perf_counter()
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    rows = sum(chunk.data.num_rows for chunk in client.do_get(info.endpoints[0].ticket))
    seconds, after = time.perf_counter() - started, server.cpu_times()
    return rows, seconds, after.user + after.system - before.user - before.system


@contextmanager
def in_process(*arguments: object, path: Path | None = None) -> Iterator[Callable[[], Scan]]:
    """Another engine in a process of its own, by the arguments of inprocess.py: a function that runs one scan."""
    with child("inprocess.py", *arguments, path=path) as process:
        assert process.stdout.readline().strip() == "ready"

        def once() -> Scan:
            process.stdin.write("\n")
            process.stdin.flush()
            rows, seconds, cpu = process.stdout.readline().split()
            return int(rows), float(seconds), float(cpu)

        yield once


@contextmanager
def child(program: str, *arguments: object, path: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, ended with the block; what is in `path` comes before its own packages."""
    command = [sys.executable, HERE / program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def report_scans(scans: dict[str, list[Scan]]) -> dict[str, float]:
    """Prints the scans; returns rows a second."""
    print(f"{'lineitem, scale ' + SCALE:<30}{'M rows/s':>10}{'seconds':>9}{'min-max':>14}{'CPU s':>8}{'rows':>10}")
    rates = {}
    for name, results in scans.items():
        rows, seconds = results[0][0], [result[1] for result in results]
        rates[name] = rows / median(seconds)
        cpu = median(result[2] for result in results)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        print(f"{name:<30}{rates[name] / MB:>10.2f}{median(seconds):>9.2f}{spread:>14}{cpu:>8.2f}{rows:>10}")
    return rates


def goal(name: str, value: float, direction: str | None, bound: float | None) -> bool:
    """Prints a number beside its goal; whether that is met, or there is none."""
    met = direction is None or (value >= bound if direction == ">=" else value <= bound)
    said = f"goal {direction} {bound:g}: {'met' if met else 'NOT MET'}" if direction else ""
    print(f"{name:<42}{value:>8.3f}  {said}")
    return met


def load() -> str:
    """The load of the last minute."""
    return f"{os.getloadavg()[0]:.2f}"
