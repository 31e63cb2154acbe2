"""Clients that are killed while they put rows, and statements that are cancelled while they write: every table is as it was
before, in memory, in files and in PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pytest

import clients
import postgres
from gateway import Gateway, configured, eventually
from postgres import Database
from wire import reserved, running

MODES = ["create", "append", "replace"]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server whose schema `public` is empty; another has a view without an end."""
    with postgres.server() as database:
        database.sql("create schema far; create table far.held as select 1::bigint as id")
        database.sql("create table far.n as select n::bigint as id from generate_series(1, 1000) n")
        database.sql("create view far.endless as select a.id from far.n a, far.n b, far.n c, far.n d")
        yield database


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def gateway(database: Database, lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a catalog of each kind that takes rows."""
    text = postgres.catalogs(lake, database)
    with configured(tmp_path_factory.mktemp("broken"), text, replicas=1) as gateway:
        yield gateway


@pytest.mark.parametrize(("catalog", "schema"), [("memory", "main"), ("files", "main"), ("postgres", "public")])
def test_a_client_that_is_killed_leaves_tables_as_they_were(
    catalog: str, schema: str, gateway: Gateway, database: Database, lake: Path
) -> None:
    """One for each way to put rows, all at once."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:

        def rows(sql: str) -> list[tuple]:
            cursor.execute(sql)
            return cursor.fetchall()

        place = f"{catalog}.{schema}"
        there = f"select table_name from {catalog}.information_schema.tables where table_schema = '{schema}' order by 1"
        for mode in MODES[1:]:
            rows(f"create table {place}.by_{mode} as select 7 as id")
        with ExitStack() as stack:
            started = [
                stack.enter_context(clients.started(gateway.uri, "ingests", catalog, schema, f"by_{mode}", mode))
                for mode in MODES
            ]
            for client in started:
                assert client.stdout.readline() == "ready\n"
            assert running(gateway) == len(MODES)
            assert catalog != "postgres" or eventually(lambda: len(database.copying()) == len(MODES), 10)
            for client in started:
                client.kill()
                client.wait()
        assert eventually(lambda: running(gateway) == 0 and reserved(gateway) == 0, 2)
        assert catalog != "postgres" or not database.copying()
        assert catalog != "files" or eventually(lambda: len([path for path in lake.rglob("*") if path.is_file()]) == 2, 2)
        assert rows(there) == [("by_append",), ("by_replace",)]
        for mode in MODES[1:]:
            assert rows(f"select id from {place}.by_{mode}") == [(7,)]


def cancelled(gateway: Gateway, database: Database, sql: str, there: str) -> None:
    """Cancels a statement when its part of the work is seen in the server, and holds that both end within a second."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        with clients.executing(cursor, sql) as failed:
            assert eventually(lambda: len(database.running(there)) == 1, 10), failed
            cursor.adbc_cancel()
            assert eventually(lambda: not database.running(), 1)
            assert eventually(lambda: running(gateway) == 0 and reserved(gateway) == 0, 1)
        assert [type(error) for error in failed] == [adbc_driver_manager.OperationalError]


@pytest.mark.parametrize("change", ["delete from", "update"])
def test_a_change_that_waits_for_a_lock_can_be_cancelled(change: str, gateway: Gateway, database: Database) -> None:
    what = "set id = 2 " if change == "update" else ""
    with database.locked("far.held"):
        cancelled(gateway, database, f"{change} postgres.far.held {what}where id = 1", change.upper())
    assert database.sql("select id from far.held") == [["1"]]


@pytest.mark.parametrize(("catalog", "schema"), [("memory", "main"), ("files", "main"), ("postgres", "public")])
@pytest.mark.parametrize("sql", ["create table {}.far as", "insert into {}.near"])
def test_a_write_without_an_end_that_is_cancelled_leaves_nothing(
    sql: str, catalog: str, schema: str, gateway: Gateway, database: Database, lake: Path
) -> None:
    place = f"{catalog}.{schema}"
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"create table {place}.near as select 7 as id")
        try:
            cancelled(gateway, database, f"{sql.format(place)} select id from postgres.far.endless", "endless")
            cursor.execute(f"select id from {place}.near")
            assert cursor.fetchall() == [(7,)]
            cursor.execute(f"select 1 from {catalog}.information_schema.tables where table_name = 'far'")
            assert cursor.fetchall() == []
            names = [path for name in ("near", "far") for path in (lake / name).rglob("*")]
            assert len(names) == (catalog == "files")
        finally:
            cursor.execute(f"drop table {place}.near")
