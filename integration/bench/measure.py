"""How the benchmarks measure: contenders that take turns, scans over Flight, other processes, and goals."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import duckdb
import psutil
import pyarrow as pa
import pyarrow.flight as flight

from gateway import Gateway, configured

HERE = Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("NEXUS_BENCH_ROUNDS", "5"))
SCALE = os.environ.get("NEXUS_BENCH_SCALE", "1")
MB = 1_000_000
# A gateway over the files of TPC-H that keeps no answers.
UNCACHED = """
[cache]
size = "0"
[defaults]
catalog = "tpch"
[catalogs.tpch]
kind = "files"
location = "{folder}"
"""

# Rows, seconds, CPU seconds.
Scan = tuple[int, float, float]


def turns(contenders: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list]:
    """Each contender once a round, in turn, so that a slower moment of the machine meets all of them."""
    results: dict[str, list] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            result = run()
            if number:
                results[name].append(result)
    return results


def by_default(folder: Path, text: str) -> Gateway:
    """A gateway with this configuration, and all else as users have it: also `cache.check`, which the tests turn off."""
    return configured(folder, text, replicas=1, check=None)


def cpu(process: psutil.Process) -> float:
    """The CPU seconds of a process, as the system counts them."""
    times = process.cpu_times()
    return times.user + times.system


def stream(client: flight.FlightClient, command: bytes) -> flight.FlightStreamReader:
    """The answer to a command, which has one part."""
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    return client.do_get(info.endpoints[0].ticket)


def scan(client: flight.FlightClient, command: bytes, server: psutil.Process) -> Scan:
    """Every row of an answer: rows, seconds, CPU seconds of the server."""
    before, started = cpu(server), time.perf_counter()
    rows = sum(chunk.data.num_rows for chunk in stream(client, command))
    seconds = time.perf_counter() - started
    return rows, seconds, cpu(server) - before


def told(answer: pa.RecordBatchReader) -> tuple[int, int]:
    """What tells an answer from others, whatever the order of its rows: their number, and the sum of their hashes."""
    with duckdb.connect() as connection:
        connection.register("answer", answer)
        return connection.execute("select count(*), sum(hash(answer)) from answer").fetchone()


def told_of(client: flight.FlightClient, command: bytes) -> tuple[int, int]:
    """The same of the answer to a command."""
    return told(stream(client, command).to_reader())


@contextmanager
def in_process(engine: str, *arguments: object, path: Path | None = None) -> Iterator[Callable[[str], Scan]]:
    """Another engine in a process of its own, by the arguments of inprocess.py: a function that runs one statement."""
    with child("inprocess.py", engine, *arguments, path=path) as process:
        assert process.stdout.readline().strip() == "ready"

        def once(sql: str) -> Scan:
            process.stdin.write(json.dumps(sql) + "\n")
            process.stdin.flush()
            rows, seconds, used = process.stdout.readline().split()
            return int(rows), float(seconds), float(used)

        yield once


@contextmanager
def bare(**files: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The bare server with tables of files: its address and process."""
    with child("bare.py", *(f"{name}={file}" for name, file in files.items())) as process:
        yield f"grpc://127.0.0.1:{process.stdout.readline().strip()}", psutil.Process(process.pid)


@contextmanager
def child(program: str, *arguments: object, path: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, ended with the block; what is in `path` comes before its own packages."""
    # Without the folder of the program, where modules have names of packages.
    command = [sys.executable, "-P", HERE / program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def report_scans(scans: dict[str, list[Scan]]) -> tuple[dict[str, float], dict[str, float]]:
    """Prints the scans; returns rows a second, and CPU seconds."""
    print(f"{'lineitem, scale ' + SCALE:<32}{'M rows/s':>10}{'seconds':>9}{'min-max':>14}{'CPU s':>8}{'rows':>10}")
    rates, used = {}, {}
    for name, results in scans.items():
        rows, seconds = results[0][0], [result[1] for result in results]
        assert {result[0] for result in results} == {rows}, f"{name} has given different numbers of rows"
        rates[name] = rows / median(seconds)
        used[name] = median(result[2] for result in results)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        print(f"{name:<32}{rates[name] / MB:>10.2f}{median(seconds):>9.2f}{spread:>14}{used[name]:>8.2f}{rows:>10}")
    return rates, used


def goal(name: str, value: float, direction: str | None = None, bound: float = 0, aim: bool = False) -> bool:
    """Prints a number beside its goal; whether that is met, or there is none, or it is an aim alone."""
    met = direction is None or (value >= bound if direction == ">=" else value <= bound)
    said = f"{'aim' if aim else 'goal'} {direction} {bound:g}: {'met' if met else 'NOT MET'}" if direction else ""
    print(f"{name:<58}{value:>9.3f}  {said}", flush=True)
    return met or aim


def load() -> str:
    """The load of the last minute."""
    return f"{os.getloadavg()[0]:.2f}"
