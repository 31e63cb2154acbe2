"""A database that dies or freezes while its rows are read, by ADBC by itself and in a transaction, by JDBC and by HTTP: each is
told in time, nothing that was cut ends well, and nothing of it is kept. `make soak` runs the full size."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pytest
import requests

import clients
import jdbc
import postgres
from gateway import Gateway, configured, eventually
from postgres import Database
from test_load import opened, sizes, value
from wire import reserved, running

# Rows that are more than anybody holds back on the way.
SEED = """
create table people as select n as id, repeat('name ' || n, 40) as name from generate_series(1, 100000) n;
create view long as select id, name from people cross join generate_series(1, 4);
create table written (id bigint);
"""
ROWS = 400_000
# The seconds after which a database that says nothing is given up.
SILENT = 5
# What is read from a catalog whose answers are kept: of each number it is another statement with the same rows.
LONG = "select id, name from kept.public.long where id > -{}"
SMALL = "select id, name from kept.public.long where id <= 100"
# Reads on to the end, and gives whether that was told to be none.
Breaks = Callable[[], bool]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres.server() as database:
        database.sql(SEED)
        # What is written to the disk outlives a kill.
        database.sql("checkpoint")
        yield database


@pytest.fixture(scope="module")
def gateway(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    waits = {"connect_timeout": 30, "read_timeout": SILENT}
    text = database.catalog("shop", writable=True, **waits) + database.catalog("kept", ttl="1h", **waits)
    with configured(tmp_path_factory.mktemp("dies"), text) as gateway:
        yield gateway


def use(gateway: Gateway, sql: str) -> str:
    """What the cache had to do with a statement at the last time."""
    return value(gateway, f"select cache from system.main.queries where statement = '{sql}' order by started desc limit 1")


@contextmanager
def reading(gateway: Gateway, database: Database, statements: list[str]) -> Iterator[list[Breaks]]:
    """Each of three statements in another way, and one in a transaction that has written, which cannot be committed at the end:
    all have their first rows."""
    ways = [by_jdbc, by_http, by_adbc]
    with ExitStack() as stack:
        begun = [stack.enter_context(way(gateway, sql)) for way, sql in zip(ways, statements, strict=True)]
        # This one fetches by a cursor, which runs only while rows are asked for.
        begun.append(stack.enter_context(in_transaction(gateway, "select id, name from shop.public.long")))
        assert eventually(lambda: len(database.running("long")) == len(ways), 5)
        assert running(gateway) == len(begun)
        yield begun


@contextmanager
def by_jdbc(gateway: Gateway, sql: str) -> Iterator[Breaks]:
    with jdbc.talking("follow", gateway.flight, sql) as probe:
        assert probe.stdout.readline() == "there\n"

        def breaks() -> bool:
            clients.go_on(probe)
            return probe.stdout.readline() == "broke off\n"

        yield breaks


@contextmanager
def by_http(gateway: Gateway, sql: str) -> Iterator[Breaks]:
    headers = {"accept": "application/x-ndjson", "content-type": "text/plain; charset=utf-8"}
    with requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), headers=headers, stream=True, timeout=60) as answer:
        chunks = answer.iter_content(1 << 16)
        assert next(chunks)
        assert answer.status_code == 200

        def breaks() -> bool:
            try:
                for _ in chunks:
                    pass
            except requests.exceptions.RequestException:
                return True
            return False

        yield breaks


@contextmanager
def by_adbc(gateway: Gateway, sql: str) -> Iterator[Breaks]:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        yield first_rows(cursor, sql)


@contextmanager
def in_transaction(gateway: Gateway, sql: str) -> Iterator[Breaks]:
    with flightsql.connect(gateway.uri) as connection:
        with connection.cursor() as cursor:
            cursor.execute("insert into shop.public.written values (1)")
            yield first_rows(cursor, sql)
        with pytest.raises(adbc_driver_manager.Error, match="rolled back"):
            connection.commit()


def first_rows(cursor: flightsql.Cursor, sql: str) -> Breaks:
    """Reads no more of a statement than these."""
    cursor.execute(sql)
    reader = cursor.fetch_record_batch()
    assert reader.read_next_batch().num_rows > 0

    def breaks() -> bool:
        try:
            for _ in reader:
                pass
        except (adbc_driver_manager.Error, OSError):
            return True
        return False

    return breaks


def all_break(begun: list[Breaks], within: float) -> bool:
    """Reads on in each way at once; whether all are told within so many seconds that their rows have broken off."""
    told: list[bool] = []
    threads = [threading.Thread(target=lambda breaks=breaks: told.append(breaks()), daemon=True) for breaks in begun]
    for thread in threads:
        thread.start()
    return eventually(lambda: len(told) == len(begun), within) and all(told)


def nothing_is_left(gateway: Gateway, database: Database, statements: list[str]) -> None:
    """Of what was cut: no answer that is kept, no row that was written, and nothing that runs."""
    assert eventually(lambda: running(gateway) == 0 and reserved(gateway) == 0 and not database.running(), SILENT)
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)
            assert cursor.fetch_arrow_table().num_rows == ROWS
            assert use(gateway, sql) == "miss"
        assert value(gateway, "select count(*) from shop.public.written") == 0


@sizes((2,), (50,))
def test_a_database_that_is_killed_is_an_error(
    times: int, gateway: Gateway, database: Database, figure: Callable[[str], None]
) -> None:
    """One of its processes, whereupon PostgreSQL ends all the others and starts anew, or all of them, in turn."""
    # The catalog is one whose answers are kept.
    for _ in range(2):
        value(gateway, SMALL)
    assert use(gateway, SMALL) == "hit"
    statements = [LONG.format(number) for number in range(3)]
    took, files = [], opened(gateway, database)
    for number in range(times):
        whole = number % 2 == 1
        with reading(gateway, database, statements) as begun:
            process = database.running("long")[0]
            killed = time.monotonic()
            if whole:
                database.kill()
            else:
                os.kill(process, signal.SIGKILL)
            assert all_break(begun, killed + 5 - time.monotonic())
            took.append(time.monotonic() - killed)
        if whole:
            with pytest.raises(adbc_driver_manager.Error):
                value(gateway, "select count(*) from kept.public.people")
            database.start()
        assert eventually(database.answers, 30)
    nothing_is_left(gateway, database, statements)
    assert eventually(lambda: opened(gateway, database) <= files + 5, 10), files
    figure(
        f"{times} databases killed: an error at the latest after {max(took):.2f} s; {opened(gateway, database) - files:+} files"
    )


def test_a_database_that_is_frozen_is_an_error(gateway: Gateway, database: Database) -> None:
    """Once it was silent for as long as it may be."""
    statements = [LONG.format(number) for number in range(3, 6)]
    with reading(gateway, database, statements) as begun, database.frozen():
        # What is on its way comes first, and the silence is counted from there.
        assert all_break(begun, SILENT + 10)
    nothing_is_left(gateway, database, statements)


@pytest.mark.parametrize("what", ["an update", "a commit"])
def test_what_is_written_to_a_database_that_is_frozen_is_an_error(what: str, gateway: Gateway, database: Database) -> None:
    with flightsql.connect(gateway.uri) as connection, connection.cursor() as cursor:
        cursor.execute("insert into shop.public.written values (2)")
        update = partial(cursor.execute, "update shop.public.written set id = 3")
        work = {"an update": update, "a commit": connection.commit}[what]
        with database.frozen():
            began = time.monotonic()
            with pytest.raises(adbc_driver_manager.Error, match=f"silent for {SILENT} s"):
                work()
            assert time.monotonic() - began < SILENT + 1
        with contextlib.suppress(adbc_driver_manager.Error):
            connection.rollback()
    assert eventually(lambda: not database.running(), 10)
