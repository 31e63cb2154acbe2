"""`make bench`: the gateway beside DataFusion in-process and a bare Flight server, in one run, taking turns."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import psutil
import pyarrow.flight as flight

HERE = Path(__file__).resolve().parent
# In place of this folder, so that its modules have the names by which the tests have them.
sys.path[0] = str(HERE.parent)

from bench.audited import CONFIG, costs  # noqa: E402
from bench.frozen import ratio, two_calls  # noqa: E402
from data import tpch_files  # noqa: E402
from gateway import Gateway, configured, demo  # noqa: E402
from wire import statement  # noqa: E402

ROUNDS = int(os.environ.get("NEXUS_BENCH_ROUNDS", "5"))
SCALE = os.environ.get("NEXUS_BENCH_SCALE", "1")
CALLS = 500
MB = 1_000_000


def main() -> int:
    """Measures, prints a table with medians and the goals, and returns 0 where all goals are met."""
    files = tpch_files(SCALE)
    lineitem = files / "lineitem.parquet"
    print(f"{psutil.cpu_count()} processors, load {load()} at the start, {ROUNDS} rounds after one to warm up, cache off\n")
    with tempfile.TemporaryDirectory() as folder:
        first, idle = starts(Path(folder))
        with configured(Path(folder), CONFIG.format(folder=files)) as gateway, bare(lineitem) as (address, bare_process):
            through = flight.connect(gateway.uri)
            beside = flight.connect(address)
            with in_process(lineitem) as datafusion:
                scans = turns(
                    {
                        "gateway": lambda: scan(through, statement("select * from lineitem"), psutil.Process(gateway.pid)),
                        "datafusion in-process": datafusion,
                        "bare flight, ready batches": lambda: scan(beside, b"all", bare_process),
                    }
                )
            peak = peak_memory(gateway)
            calls = turns(
                {
                    "gateway, two calls": partial(several, through, statement("select 1"), CALLS),
                    "bare flight, two calls": partial(several, beside, b"one", CALLS),
                    "bare flight, one DoGet": lambda: [one_call(beside, b"one") for _ in range(CALLS)],
                }
            )
        audited = costs(Path(folder), files, ROUNDS)
        held, calm = ratio(Path(folder), files, ROUNDS)
    rates = report_scans(scans)
    halves = report_calls(calls)
    print(f"\nstart to first answer {first:.3f} s, idle {idle / MB:.0f} MB, peak of the scans {peak / MB:.0f} MB resident")
    print(f"p95 of a small query {held * 1000:.2f} ms while a database of another catalog is frozen, {calm * 1000:.2f} ms else")
    for name, cost in audited.items():
        print(f"{name} with a record of each statement: {cost:.3f} x")
    print(f"load {load()} at the end\n")
    met = [
        goal("scan / DataFusion in-process", rates["gateway"] / rates["datafusion in-process"], ">=", 0.5),
        goal("scan / bare flight", rates["gateway"] / rates["bare flight, ready batches"], None, None),
        goal("SELECT 1 p50 / bare flight, two calls", halves["gateway, two calls"] / halves["bare flight, two calls"], "<=", 2),
        goal(
            "SELECT 1 p50 / bare flight, one DoGet", halves["gateway, two calls"] / halves["bare flight, one DoGet"], None, None
        ),
        goal("start to first answer, s", first, "<=", 0.3),
        goal("idle, MB", idle / MB, "<=", 80),
        *(goal(f"{name} / without", cost, "<=", 1.03) for name, cost in audited.items()),
        goal("p95 while a database is frozen / else", held / calm, "<=", 1.2),
    ]
    return 0 if all(met) else 1


def several(client: flight.FlightClient, command: bytes, count: int) -> list[float]:
    """Seconds of each of so many statements."""
    return [two_calls(client, command) for _ in range(count)]


def turns(contenders: dict[str, Callable[[], object]]) -> dict[str, list]:
    """Each contender once a round, in turn, so that a slower moment of the machine meets all of them."""
    results: dict[str, list] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, run in contenders.items():
            result = run()
            if number:
                results[name].append(result)
    return results


def scan(client: flight.FlightClient, command: bytes, server: psutil.Process) -> tuple[int, float, float]:
    """Every row of an answer: rows, seconds, CPU seconds of the server."""
    before, started = server.cpu_times(), time.perf_counter()
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    rows = sum(chunk.data.num_rows for chunk in client.do_get(info.endpoints[0].ticket))
    seconds, after = time.perf_counter() - started, server.cpu_times()
    return rows, seconds, after.user + after.system - before.user - before.system


def one_call(client: flight.FlightClient, ticket: bytes) -> float:
    """Seconds of DoGet of one row."""
    started = time.perf_counter()
    client.do_get(flight.Ticket(ticket)).read_all()
    return time.perf_counter() - started


def starts(folder: Path) -> tuple[float, float]:
    """Median seconds from the start of the demo to its first answer, and its resident bytes after that."""
    seconds, resident = [], []
    for number in range(ROUNDS + 1):
        started = time.perf_counter()
        with demo(folder / "demo.log") as gateway, flight.connect(gateway.uri) as client:
            two_calls(client, statement("select count(*) from nation"))
            if number:
                seconds.append(time.perf_counter() - started)
                resident.append(psutil.Process(gateway.pid).memory_info().rss)
    return median(seconds), median(resident)


def peak_memory(gateway: Gateway) -> int:
    """The most that was ever resident."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@contextmanager
def bare(file: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The bare server: its address and process."""
    with child("bare.py", file) as process:
        yield f"grpc://127.0.0.1:{process.stdout.readline().strip()}", psutil.Process(process.pid)


@contextmanager
def in_process(file: Path) -> Iterator[Callable[[], tuple[int, float, float]]]:
    """DataFusion in a process of its own: a function that runs one scan."""
    with child("inprocess.py", file) as process:
        assert process.stdout.readline().strip() == "ready"

        def once() -> tuple[int, float, float]:
            process.stdin.write("\n")
            process.stdin.flush()
            rows, seconds, cpu = process.stdout.readline().split()
            return int(rows), float(seconds), float(cpu)

        yield once


@contextmanager
def child(program: str, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, ended with the block."""
    command = [sys.executable, HERE / program, file]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def report_scans(scans: dict[str, list]) -> dict[str, float]:
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


def report_calls(calls: dict[str, list]) -> dict[str, float]:
    """Prints the small calls; returns the median of the rounds' medians."""
    print(f"\n{'SELECT 1, milliseconds':<30}{'p50':>10}{'p99':>9}")
    halves = {}
    for name, rounds in calls.items():
        halves[name] = median(median(times) for times in rounds)
        last = median(quantiles(times, n=100)[98] for times in rounds)
        print(f"{name:<30}{halves[name] * 1000:>10.2f}{last * 1000:>9.2f}")
    return halves


def goal(name: str, value: float, direction: str | None, bound: float | None) -> bool:
    """Prints a number beside its goal; whether that is met, or there is none."""
    met = direction is None or (value >= bound if direction == ">=" else value <= bound)
    said = f"goal {direction} {bound:g}: {'met' if met else 'NOT MET'}" if direction else ""
    print(f"{name:<42}{value:>8.3f}  {said}")
    return met


def load() -> str:
    """The load of the last minute."""
    return f"{os.getloadavg()[0]:.2f}"


if __name__ == "__main__":
    sys.exit(main())
