"""Clients that are killed while they put rows: every table is as it was before, in memory, in files and in PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest

import clients
import postgres
from gateway import Gateway, configured, eventually
from postgres import Database
from wire import reserved, running

TEXT = """
[catalogs.memory]
kind = "memory"
size = "1GiB"
writable = true

[catalogs.files]
kind = "files"
location = "{folder}"
writable = true

[catalogs.postgres]
kind = "postgres"
url = "{url}"
password = "{password}"
writable = true
"""
MODES = ["create", "append", "replace"]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """An empty server."""
    with postgres.server() as database:
        yield database


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def gateway(database: Database, lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a catalog of each kind that takes rows."""
    text = TEXT.format(folder=lake, url=database.url, password=postgres.PASSWORD)
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
