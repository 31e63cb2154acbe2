"""Answers in several endpoints, for those who ask for them: all parts together are the answer, whoever makes each."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import grpc
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gateway import Gateway, configured, eventually
from wire import SERVICE, Client, decode, descriptor, field, first, numbers, parse, running, statement

COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
CONFIG = """
[tickets]
keys = ["{key}"]
[catalogs.lake]
kind = "files"
location = "{folder}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight files of one table, and one file of another."""
    made = tmp_path_factory.mktemp("lake")
    (made / "many").mkdir()
    for number in range(8):
        rows = range(number * 1000, number * 1000 + 1000)
        parquet.write_table(pa.table({"id": rows, "name": [f"n{row}" for row in rows]}), made / "many" / f"{number}.parquet")
    parquet.write_table(pa.table({"id": range(10)}), made / "one.parquet")
    return made


@pytest.fixture(scope="module")
def gateways(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gateway]]:
    """Two with one key."""
    text = CONFIG.format(key=base64.b64encode(os.urandom(32)).decode(), folder=folder)
    with (
        configured(tmp_path_factory.mktemp("a"), text, replicas=1) as one,
        configured(tmp_path_factory.mktemp("b"), text, replicas=1) as two,
    ):
        yield [one, two]


@pytest.fixture
def connection(gateways: list[Gateway]) -> Iterator[flightsql.Connection]:
    """A connection that wants four parts."""
    with flightsql.connect(gateways[0].uri, db_kwargs=COOKIES, autocommit=True) as connection:
        connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.endpoints": "4"})
        yield connection


def parts(connection: flightsql.Connection, sql: str) -> list[bytes]:
    with connection.cursor() as cursor:
        return cursor.adbc_execute_partitions(sql)[0]


def read(connection: flightsql.Connection, part: bytes) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.adbc_read_partition(part)
        return cursor.fetchall()


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select * from many", [(row, f"n{row}") for row in range(8000)]),
        ("select id * 2 as twice from many where id % 3 = 0", [(row * 2,) for row in range(0, 8000, 3)]),
    ],
)
def test_all_parts_are_the_answer(connection: flightsql.Connection, gateways: list[Gateway], sql: str, rows: list[tuple]) -> None:
    made = parts(connection, sql)
    assert len(made) == 4
    with flightsql.connect(gateways[1].uri, autocommit=True) as elsewhere:
        shares = [read(connection if at % 2 else elsewhere, part) for at, part in enumerate(made)]
    assert all(0 < len(share) < len(rows) for share in shares)
    assert sorted(row for share in shares for row in share) == rows
    with connection.cursor() as cursor:
        cursor.execute(sql)
        assert sorted(cursor.fetchall()) == rows


def test_one_large_file_is_shared_out_by_its_row_groups(
    connection: flightsql.Connection, gateways: list[Gateway], folder: Path
) -> None:
    rows = range(200_000)
    text = [os.urandom(32).hex() for _ in rows]
    made = folder / "large.parquet"
    parquet.write_table(pa.table({"id": rows, "text": text}), made, row_group_size=10_000, compression="none")
    assert made.stat().st_size > 10 * 1024 * 1024
    shared = parts(connection, "select id, text from large where id <> 7")
    assert len(shared) == 4
    with flightsql.connect(gateways[1].uri, autocommit=True) as elsewhere:
        shares = [read(connection if at % 2 else elsewhere, part) for at, part in enumerate(shared)]
    assert all(10_000 <= len(share) < len(rows) for share in shares)
    assert sorted(row for share in shares for row in share) == [(row, text[row]) for row in rows if row != 7]


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from many",
        "select id from many order by id",
        "select id from many limit 5000",
        "select distinct name from many",
        "select id, now() as at from many",
        "select id from many where random() < 2",
        "select a.id from many a join many b on a.id = b.id",
        "select id, row_number() over () as n from many",
        "select id from many union all select id from one",
        "select id from one",
        "select 1",
        "select * from lake.information_schema.tables",
    ],
)
def test_what_comes_as_a_whole(connection: flightsql.Connection, sql: str) -> None:
    assert len(parts(connection, sql)) == 1


def in_four(client: Client, sql: str) -> tuple[bytes, list[bytes]]:
    """The FlightInfo of a statement in a session of four parts, and its endpoints, as they came."""
    client.session(endpoints="4")
    info = client.unary(SERVICE + "GetFlightInfo", descriptor(statement(sql)))
    return info, [value for number, value in parse(info) if number == 3]


def ticket(endpoint: bytes) -> bytes:
    return first(parse(first(parse(endpoint), 1)), 1)


@pytest.mark.parametrize(("length", "count"), [(1 << 10, 4), (600 << 10, 3), (1000 << 10, 2)])
def test_a_long_statement_comes_in_fewer_parts(gateways: list[Gateway], length: int, count: int) -> None:
    with Client(gateways[0].flight) as client:
        info, endpoints = in_four(client, f"select id from many /* {'x' * length} */")
        assert len(endpoints) == count
        # What clients of gRPC take in a message where nobody tells them otherwise.
        assert len(info) < 4 << 20
        shares = [decode(client.get(ticket(endpoint))) for endpoint in endpoints]
        assert sorted(row["id"] for share in shares for row in share) == list(range(8000))


def test_one_part_is_renewed_by_itself(gateways: list[Gateway]) -> None:
    def expires(endpoint: bytes) -> tuple[int, int]:
        said = numbers(first(parse(endpoint), 3))
        return said[1], said.get(2, 0)

    with Client(gateways[0].flight) as client, Client(gateways[1].flight) as elsewhere:
        _, endpoints = in_four(client, "select id from many")
        [renewed] = elsewhere.action("RenewFlightEndpoint", field(1, endpoints[2]))
        assert expires(renewed) > max(map(expires, endpoints))
        shares = [{row["id"] for row in decode(client.get(ticket(endpoint)))} for endpoint in endpoints]
        assert {row["id"] for row in decode(elsewhere.get(ticket(renewed)))} == shares[2]
        assert [len(share) for share in shares] == [2000] * 4
        assert set.union(*shares) == set(range(8000))


def test_all_parts_are_cancelled_together(gateways: list[Gateway]) -> None:
    def refused(messages: Iterator[bytes]) -> None:
        with pytest.raises(grpc.RpcError) as error:
            list(messages)
        assert error.value.code() is grpc.StatusCode.CANCELLED

    with Client(gateways[0].flight) as client:
        # More than is on its way at once, of each part.
        info, endpoints = in_four(client, "select repeat(name, 20000) as wide from many")
        assert len(endpoints) == 4
        streams = [client.get(ticket(endpoint)) for endpoint in endpoints]
        for stream in streams:
            next(stream)
        assert running(gateways[0]) == 4
        assert client.action("CancelFlightInfo", field(1, info)) == [b"\x08\x01"]
        for stream in streams:
            refused(stream)
        assert eventually(lambda: running(gateways[0]) == 0, 5)
        for endpoint in endpoints:
            refused(client.get(ticket(endpoint)))


def test_nobody_gets_parts_unasked(gateways: list[Gateway]) -> None:
    with flightsql.connect(gateways[0].uri, autocommit=True) as connection:
        assert len(parts(connection, "select * from many")) == 1


def test_parts_of_a_table_that_has_changed(connection: flightsql.Connection, folder: Path) -> None:
    made = parts(connection, "select id from many")
    late = folder / "many" / "late.parquet"
    parquet.write_table(pa.table({"id": [-1], "name": ["late"]}), late)
    try:
        for part in made:
            with pytest.raises(adbc_driver_manager.Error, match="has changed since its answer was parted"):
                read(connection, part)
    finally:
        late.unlink()
    assert sum(len(read(connection, part)) for part in parts(connection, "select id from many")) == 8000


def test_a_location_is_named_where_one_is_configured(gateways: list[Gateway], folder: Path, tmp_path: Path) -> None:
    with Client(gateways[0].flight) as client:
        assert client.info(statement("select 1")).locations == []
    text = CONFIG.format(key=base64.b64encode(os.urandom(32)).decode(), folder=folder)
    placed = f'[flight]\nlisten = "127.0.0.1:0"\nlocation = "grpc://gateway.example.com:31337"\n{text}'
    with configured(tmp_path, placed, replicas=1) as gateway, Client(gateway.flight) as client:
        [location] = client.info(statement("select 1")).locations
        assert b"grpc://gateway.example.com:31337" in location
