"""Sorts and aggregates five times as large as the memory: equal answers by way of the disk, or an error that says why."""

import contextlib
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gateway import Gateway, configured, eventually

SOAK = os.environ.get("NEXUS_TPCH_SCALE") == "1"
MEBIBYTES = 256 if SOAK else 64
# A row of the sort is a number and a text of 64 letters, with the offset of that.
ROWS = 5 * (MEBIBYTES << 20) // 76
TEXT = "sha256(value::varchar)"
SORT = f"select value, encode({TEXT}, 'hex') as text from generate_series(1, {ROWS}) order by text"
GROUP = f"select encode({TEXT}, 'hex') as text, count(*) as c from generate_series(1, {ROWS}) group by 1"
# By DuckDB: how many groups there are, and a hash of all of them in any order.
HASH = "count(*), sum(c)::bigint, bit_xor(hash(text)), sum(hash(text)::hugeint * c)"
GROUPS = f"(select sha256(value::varchar) as text, 1::bigint as c from range(1, {ROWS + 1}) t(value))"


@pytest.fixture(scope="module")
def spilling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    """A gateway of little memory, and the folder that it puts rows into."""
    folder = tmp_path_factory.mktemp("spill")
    disk = folder / "disk"
    disk.mkdir()
    text = f'[limits]\nmemory = "{MEBIBYTES}MiB"\nqueue_wait = "10m"\n[cache]\nsize = "0"\n'
    with configured(folder, text, replicas=1, environment={"TMPDIR": str(disk)}) as gateway:
        yield gateway, disk


def sorted_rows(gateway: Gateway) -> tuple[object, ...]:
    """What the rows of the sort are; fails where they are not in order."""

    def in_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        last = ""
        for batch in batches:
            texts = batch.column("text")
            assert texts.null_count == 0
            assert last <= texts[0].as_py()
            assert len(batch) == 1 or pc.all(pc.less_equal(texts[:-1], texts[1:])).as_py()
            last = texts[-1].as_py()
            yield batch

    return judged(gateway, SORT, "count(*), sum(value)::bigint, bool_and(text = sha256(value::varchar))", in_order)


def grouped(gateway: Gateway) -> tuple[object, ...]:
    """The hash of the groups."""
    return judged(gateway, GROUP, HASH, iter)


def judged(
    gateway: Gateway, sql: str, what: str, seen: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
) -> tuple[object, ...]:
    """What DuckDB says of an answer."""
    failed: list[Exception] = []

    def batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        # Who reads them would tell of its own errors alone.
        try:
            yield from seen(reader)
        except (adbc_driver_manager.Error, OSError, AssertionError) as error:
            failed.append(error)

    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        reader = cursor.fetch_record_batch()
        with judge() as database:
            database.register("rows", pa.RecordBatchReader.from_batches(reader.schema, batches(reader)))
            found = database.execute(f"select {what} from rows").fetchone()
    if failed:
        raise failed[0]
    return found


def judge() -> duckdb.DuckDBPyConnection:
    database = duckdb.connect()
    database.execute("set threads = 2; set enable_progress_bar = false")
    return database


@cache
def right() -> tuple[object, ...]:
    """The hash of the groups that there are."""
    with judge() as database:
        return database.execute(f"select {HASH} from {GROUPS}").fetchone()


def left(disk: Path) -> list[Path]:
    """The files that were not taken away again."""
    try:
        return [path for path in disk.rglob("*") if path.is_file()]
    except FileNotFoundError:
        # Of a folder that is taken away right now.
        return left(disk)


def outcome(gateway: Gateway, kind: str) -> str:
    """What comes of one: the answer, which is right, or an error that says who wanted more memory."""
    try:
        match kind:
            case "sort":
                assert sorted_rows(gateway) == (ROWS, ROWS * (ROWS + 1) // 2, True)
            case _:
                assert grouped(gateway) == right()
        return kind
    except (adbc_driver_manager.Error, OSError) as error:
        said = str(error)
    assert "ResourceExhausted" in said
    # By DataFusion's name of it.
    assert re.search(r"the memory limit is reached: \w+.* needs ", said), said
    return "error"


@pytest.mark.timeout(1800 if SOAK else 120)
def test_many_at_once(spilling: tuple[Gateway, Path]) -> None:
    gateway, disk = spilling
    outcomes: list[str] = []

    def work(number: int) -> None:
        outcomes.append(outcome(gateway, ("sort", "aggregate")[number % 2]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(900)
    # Whose assertion failed has no outcome.
    assert len(outcomes) == 32
    print("\n", Counter(outcomes))
    assert eventually(lambda: not left(disk), 20), left(disk)


@pytest.mark.parametrize("kind", ["sort", "aggregate"])
def test_one(kind: str, spilling: tuple[Gateway, Path]) -> None:
    gateway, disk = spilling
    seen, over = threading.Event(), threading.Event()

    def look() -> None:
        while not over.is_set() and not seen.is_set():
            # One may be gone by the time that it is asked for.
            with contextlib.suppress(FileNotFoundError):
                if any(path.stat().st_size for path in left(disk)):
                    seen.set()
            over.wait(0.005)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        came = outcome(gateway, kind)
    finally:
        over.set()
        looking.join()
    print("\n", kind, "->", came, "by way of the disk" if seen.is_set() else "without the disk")
    # An answer of five times the memory was somewhere else meanwhile.
    assert seen.is_set()
    # It has all the memory, whatever there was before.
    assert came == kind
    assert eventually(lambda: not left(disk), 20), left(disk)
