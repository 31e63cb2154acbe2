"""`make bench`: the gateway beside DataFusion in-process and a bare Flight server, and its lake tables beside their files, each
contender in one run with the others, taking turns. `PARTS=lake` measures that part alone."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import psutil
import pyarrow.flight as flight

# In place of this folder, so that its modules have the names by which the tests have them.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import lake  # noqa: E402
from bench.audited import CONFIG, costs  # noqa: E402
from bench.frozen import ratio, two_calls  # noqa: E402
from bench.measure import MB, ROUNDS, SCALE, child, goal, in_process, load, report_scans, scan, turns  # noqa: E402
from data import tpch_files  # noqa: E402
from gateway import Gateway, configured, demo  # noqa: E402
from wire import statement  # noqa: E402

CALLS = 500


def main() -> int:
    """Measures the parts that are asked for, or all, and returns 0 where all goals are met."""
    parts = {"gateway": gateway_alone, "lake": lake.measured}
    wanted = sys.argv[1:] or list(parts)
    for unknown in set(wanted) - set(parts):
        sys.exit(f'there is no part "{unknown}"; the parts are {", ".join(parts)}')
    print(f"{psutil.cpu_count()} processors, load {load()} at the start, {ROUNDS} rounds after one to warm up, cache off")
    met = []
    for part in wanted:
        print(f"\n== {part}\n")
        with tempfile.TemporaryDirectory() as folder:
            met += parts[part](Path(folder))
    print(f"\nload {load()} at the end")
    return 0 if all(met) else 1


def gateway_alone(folder: Path) -> list[bool]:
    """Prints a table with medians and the goals; whether each is met."""
    files = tpch_files(SCALE)
    lineitem = files / "lineitem.parquet"
    first, idle = starts(folder)
    with configured(folder, CONFIG.format(folder=files)) as gateway, bare(lineitem) as (address, bare_process):
        through = flight.connect(gateway.uri)
        beside = flight.connect(address)
        with in_process("datafusion", lineitem) as datafusion:
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
    audited = costs(folder, files, ROUNDS)
    held, calm = ratio(folder, files, ROUNDS)
    rates = report_scans(scans)
    halves = report_calls(calls)
    print(f"\nstart to first answer {first:.3f} s, idle {idle / MB:.0f} MB, peak of the scans {peak / MB:.0f} MB resident")
    print(f"p95 of a small query {held * 1000:.2f} ms while a database of another catalog is frozen, {calm * 1000:.2f} ms else")
    for name, cost in audited.items():
        print(f"{name} with a record of each statement: {cost:.3f} x")
    print()
    return [
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


def several(client: flight.FlightClient, command: bytes, count: int) -> list[float]:
    """Seconds of each of so many statements."""
    return [two_calls(client, command) for _ in range(count)]


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


def report_calls(calls: dict[str, list]) -> dict[str, float]:
    """Prints the small calls; returns the median of the rounds' medians."""
    print(f"\n{'SELECT 1, milliseconds':<30}{'p50':>10}{'p99':>9}")
    halves = {}
    for name, rounds in calls.items():
        halves[name] = median(median(times) for times in rounds)
        last = median(quantiles(times, n=100)[98] for times in rounds)
        print(f"{name:<30}{halves[name] * 1000:>10.2f}{last * 1000:>9.2f}")
    return halves


if __name__ == "__main__":
    sys.exit(main())
