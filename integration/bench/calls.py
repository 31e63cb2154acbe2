"""Small answers: how long one takes and what it costs the server, and how many a second many clients get of one that is kept."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import psutil
import pyarrow.flight as flight
import pyarrow.parquet as pq

from bench.frozen import two_calls
from bench.measure import SCALE, UNCACHED, bare, by_default, cpu, goal, stream, turns
from data import tpch_files
from wire import called_by_go, metric, statement

CALLS = 500
# What a tile of a dashboard shows; how many look at it, for how long, and how often each does who waits in between.
ROWS = 1_000
DASHBOARD = f"""select o_orderdate, o_orderpriority, count(*) as orders, sum(o_totalprice) as total, min(o_clerk) as clerk
from orders group by o_orderdate, o_orderpriority order by o_orderdate, o_orderpriority limit {ROWS}"""
CLIENTS, SECONDS, EVERY = 32, 3, 0.05
CACHED = UNCACHED.replace('size = "0"', 'size = "256MiB"')


@dataclass
class Calls:
    """Seconds of each call, all that they took together, and the CPU seconds of the server."""

    times: list[float]
    wall: float
    used: float


def single(folder: Path) -> list[bool]:
    """Prints what one row takes; whether the goals are met."""
    files = tpch_files(SCALE)
    with by_default(folder, UNCACHED.format(folder=files)) as gateway, bare() as (address, process):
        through, beside = flight.connect(gateway.uri), flight.connect(address)
        for client, command in ((through, statement("select 1")), (beside, b"one")):
            assert stream(client, command).read_all().column(0).to_pylist() == [1]
        results = turns(
            {
                "gateway, two calls": partial(_several, through, statement("select 1"), psutil.Process(gateway.pid)),
                "bare flight, two calls": partial(_several, beside, b"one", process),
            }
        )
    halves, used = _report("SELECT 1, one client", results)
    ours, theirs = results
    return [
        goal("SELECT 1, p50 / bare flight", halves[ours] / halves[theirs], "<=", 1.3),
        goal("SELECT 1, server CPU a call / bare flight", used[ours] / used[theirs], "<=", 1.3),
    ]


def dashboard(folder: Path) -> list[bool]:
    """Prints how an answer from the cache is given to many clients; whether the goals are met."""
    files, table = tpch_files(SCALE), folder / "dashboard.parquet"
    command = statement(DASHBOARD)
    with by_default(folder, CACHED.format(folder=files)) as gateway:
        with flight.connect(gateway.uri) as client:
            rows = stream(client, command).read_all()
        assert rows.num_rows == ROWS
        pq.write_table(rows, table)
        with bare(dashboard=table) as (address, process):
            with flight.connect(address) as client:
                assert client.do_get(flight.Ticket(b"dashboard")).read_all().equals(rows), "the bare server has other rows"
            misses = metric(gateway.url, "nexus_cache_misses_total")
            ours = partial(many, gateway.flight, command, psutil.Process(gateway.pid))
            theirs = partial(many, address.removeprefix("grpc://"), b"dashboard", process)
            results = turns(
                {
                    "gateway, without a pause": ours,
                    "bare flight, without a pause": theirs,
                    "gateway, each 20 times a second": partial(ours, every=EVERY),
                    "bare flight, each 20 times a second": partial(theirs, every=EVERY),
                }
            )
        assert metric(gateway.url, "nexus_cache_misses_total") == misses, "an answer did not come from the cache"
        with flight.connect(gateway.uri) as client:
            assert stream(client, command).read_all().equals(rows), "the answer is another by now"
    _report(f"{ROWS:,} rows, {CLIENTS} clients", results)
    rates = {name: median(len(each.times) / each.wall for each in rounds) for name, rounds in results.items()}
    for name, rate in rates.items():
        print(f"{name:<42}{rate:>9,.0f} requests/s")
    print()
    ours, theirs, paced, _ = results
    last = median(quantiles(each.times, n=100)[98] for each in results[paced])
    return [
        goal(f"{CLIENTS} clients without a pause, requests/s / bare flight", rates[ours] / rates[theirs], ">=", 0.8),
        # Without a pause all wait for all others, and how long says how many they are.
        goal(f"{CLIENTS} clients, each {1 / EVERY:g} times a second, p99, ms", last * 1000, "<=", 10),
    ]


def many(address: str, command: bytes, server: psutil.Process, every: float = 0) -> Calls:
    """What many clients get at once, each over a connection of its own, once `every` so many seconds or without a pause. They are
    a program of Go, which takes a small part of what clients of Python do; it holds that each answer has all of its rows."""
    before = cpu(server)
    said = called_by_go("load", address, command.hex(), CLIENTS, SECONDS, ROWS, every, timeout=60)
    return Calls(said["times"], said["seconds"], cpu(server) - before)


def _several(client: flight.FlightClient, command: bytes, server: psutil.Process) -> Calls:
    """So many statements, one after the other."""
    before, started = cpu(server), time.perf_counter()
    times = [two_calls(client, command) for _ in range(CALLS)]
    return Calls(times, time.perf_counter() - started, cpu(server) - before)


def _report(what: str, results: dict[str, list[Calls]]) -> tuple[dict[str, float], dict[str, float]]:
    """Prints calls; returns the medians of the rounds' medians, and of the CPU seconds a call."""
    print(f"{what + ', milliseconds':<42}{'p50':>9}{'p99':>9}{'CPU':>9}")
    halves, used = {}, {}
    for name, rounds in results.items():
        halves[name] = median(median(each.times) for each in rounds)
        used[name] = median(each.used / len(each.times) for each in rounds)
        last = median(quantiles(each.times, n=100)[98] for each in rounds)
        print(f"{name:<42}{halves[name] * 1000:>9.3f}{last * 1000:>9.3f}{used[name] * 1000:>9.3f}")
    print()
    return halves, used
