"""All of lineitem: from the cache beside a bare Flight server; from Parquet beside DataFusion in-process, whole and in parts."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq

from bench.measure import (
    SCALE,
    UNCACHED,
    Scan,
    bare,
    by_default,
    cpu,
    goal,
    in_process,
    report_scans,
    scan,
    told,
    told_of,
    turns,
)
from data import tpch_files
from gateway import Gateway
from wire import Client, metric, statement

SQL = "select * from lineitem"
# Room for all of it, as a gateway has that is to answer so: also while it is made, when it counts as memory of its user.
CACHED = UNCACHED.replace('size = "0"', 'size = "3GiB"\nentry = "3GiB"') + '[limits]\nmemory = "8GiB"\n'
READERS = 2


def cached(folder: Path) -> list[bool]:
    """Prints what the cache and a bare Flight server send; whether the goals are met."""
    files = tpch_files(SCALE)
    file = files / "lineitem.parquet"
    text = CACHED.format(folder=files)
    with by_default(folder, text) as gateway, bare(lineitem=file) as (address, process):
        through, beside = flight.connect(gateway.uri), flight.connect(address)
        expected = told(_read(file))
        # It is made here, and kept.
        assert told_of(through, statement(SQL)) == expected, "the answer is wrong when it is made"
        before = metric(gateway.url, "nexus_cache_hits_total")
        scans = turns(
            {
                "gateway, from the cache": lambda: scan(through, statement(SQL), psutil.Process(gateway.pid)),
                "bare flight, ready batches": lambda: scan(beside, b"lineitem", process),
            }
        )
        assert told_of(through, statement(SQL)) == expected, "the answer is wrong when it is given again"
        assert told_of(beside, b"lineitem") == expected, "the bare server is wrong"
        hits = metric(gateway.url, "nexus_cache_hits_total") - before
        assert hits == len(scans["gateway, from the cache"]) + 2, f"only {hits:g} answers came from the cache"
        held = psutil.Process(gateway.pid).memory_info().rss
    rates, used = report_scans(scans)
    print(f"(the gateway has {held / 1e6:,.0f} MB resident with the answer in its cache)\n")
    ours, theirs = scans
    return [
        goal("from the cache, rows/s / bare flight", rates[ours] / rates[theirs], ">=", 1.15),
        goal("from the cache, server CPU s / bare flight", used[ours] / used[theirs], "<=", 0.85),
    ]


def parquet(folder: Path) -> list[bool]:
    """Prints what the gateway reads and sends, in one stream and in parts, and DataFusion reads; whether the goals are met.

    The bare server says what a client takes at most, which has its part of the same processors."""
    files = tpch_files(SCALE)
    with (
        by_default(folder, UNCACHED.format(folder=files)) as gateway,
        in_process("datafusion", files) as engine,
        bare(lineitem=files / "lineitem.parquet") as (address, process),
    ):
        through, beside = flight.connect(gateway.uri), flight.connect(address)
        in_parts = Parts(gateway)
        scans = turns(
            {
                "gateway, one stream": lambda: scan(through, statement(SQL), psutil.Process(gateway.pid)),
                "datafusion in-process": partial(engine, SQL),
                "gateway, 2 endpoints, 2 readers": in_parts.scan,
                "bare flight, ready batches": lambda: scan(beside, b"lineitem", process),
            }
        )
        expected = told(_read(files / "lineitem.parquet"))
        assert told_of(through, statement(SQL)) == expected, "the answer is wrong"
        assert in_parts.told() == expected, "the parts are not the answer"
    rates, used = report_scans(scans)
    print()
    ours, theirs, parts, ready = scans
    goal("bare flight, ready batches, rows/s / DataFusion in-process", rates[ready] / rates[theirs])
    return [
        goal("from Parquet, rows/s / DataFusion in-process", rates[ours] / rates[theirs], ">=", 0.75),
        goal("from Parquet, CPU s / DataFusion in-process", used[ours] / used[theirs], "<=", 1.4),
        goal("from Parquet, rows/s in 2 endpoints / in one stream", rates[parts] / rates[ours], ">=", 1.1),
    ]


class Parts:
    """Reads the answer in as many parts as there are readers, each over a connection of its own."""

    def __init__(self, gateway: Gateway) -> None:
        with Client(gateway.flight) as asking:
            cookie = asking.session(endpoints=str(READERS))
        self.options = flight.FlightCallOptions(headers=[(b"cookie", cookie.encode())])
        self.readers = [flight.connect(gateway.uri) for _ in range(READERS)]
        self.server = psutil.Process(gateway.pid)

    def scan(self) -> Scan:
        """All of them at once: rows, seconds, CPU seconds of the server."""
        before, started = cpu(self.server), time.perf_counter()
        with ThreadPoolExecutor(READERS) as threads:
            rows = sum(threads.map(_count, self._streams()))
        seconds = time.perf_counter() - started
        return rows, seconds, cpu(self.server) - before

    def told(self) -> tuple[int, int]:
        """What tells the whole answer from others."""
        counts, sums = zip(*(told(stream.to_reader()) for stream in self._streams()), strict=True)
        return sum(counts), sum(sums)

    def _streams(self) -> list[flight.FlightStreamReader]:
        info = self.readers[0].get_flight_info(flight.FlightDescriptor.for_command(statement(SQL)), self.options)
        assert len(info.endpoints) == READERS, f"the answer has {len(info.endpoints)} parts"
        parts = zip(self.readers, info.endpoints, strict=True)
        return [reader.do_get(endpoint.ticket, self.options) for reader, endpoint in parts]


def _count(stream: flight.FlightStreamReader) -> int:
    return sum(chunk.data.num_rows for chunk in stream)


def _read(file: Path) -> pa.RecordBatchReader:
    """The rows of a file, a few at a time."""
    opened = pq.ParquetFile(file)
    return pa.RecordBatchReader.from_batches(opened.schema_arrow, opened.iter_batches())
