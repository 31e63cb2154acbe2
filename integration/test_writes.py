"""Writing through ADBC, pyarrow and JDBC: statements, parameters, ingest in every mode, and transactions seen from outside."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight
import pytest

import jdbc
from gateway import REPLICAS, Gateway, configured
from varint import varint
from wire import Client, field, first, numbers, packed, parse

# The rows of a memory catalog are in one process; a folder is that of all replicas.
KEPT = 'kind = "memory"\nsize = "64MiB"' if REPLICAS == 1 else 'kind = "files"\nlocation = "{folder}"'
TEXT = f"""
[defaults]
catalog = "kept"

[catalogs.kept]
{KEPT}
writable = true

[catalogs.still]
kind = "memory"
"""

TABLES = "select table_name from information_schema.tables where table_schema = 'main'"


@pytest.fixture(scope="module")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a catalog that takes rows and one that does not."""
    folder = tmp_path_factory.mktemp("writable")
    (folder / "kept").mkdir()
    with configured(folder, TEXT.format(folder=folder / "kept")) as gateway:
        yield gateway


@pytest.fixture
def connection(writable: Gateway) -> Iterator[flightsql.Connection]:
    """A connection that commits each statement; what it made is gone afterwards."""
    with flightsql.connect(writable.uri, autocommit=True) as connection:
        yield connection
        for (name,) in fetch(connection, TABLES):
            execute(connection, f'drop table "{name}"')


def fetch(connection: flightsql.Connection, sql: str, parameters: object = None) -> list[tuple]:
    """All rows of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def execute(connection: flightsql.Connection, sql: str) -> int:
    """Runs a statement that writes; gives the rows that it affected."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.rowcount


def test_statements_say_how_many_rows_they_affected(connection: flightsql.Connection) -> None:
    assert execute(connection, "create table t (id bigint, name varchar)") == 0
    assert execute(connection, "insert into t values (1, 'one'), (2, 'two')") == 2
    assert execute(connection, "update t set name = upper(name) where id = 2") == 1
    assert execute(connection, "delete from t where id = 1") == 1
    assert fetch(connection, "select * from t") == [(2, "TWO")]


def test_a_statement_runs_once_however_often_its_rows_are_fetched(writable: Gateway, connection: flightsql.Connection) -> None:
    execute(connection, "create table t (id bigint)")
    with flight.connect(writable.uri) as client:
        command = any_of("CommandStatementQuery", text(1, "insert into t values (1)"))
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
        assert fetch(connection, "select count(*) from t") == [(1,)]
        for _ in range(2):
            assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"count": 1}]
    assert fetch(connection, "select count(*) from t") == [(1,)]


def text(field: int, value: str | bytes) -> bytes:
    """A field of text or bytes."""
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def any_of(name: str, body: bytes) -> bytes:
    """A Flight SQL command in its envelope."""
    return text(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}") + text(2, body)


def test_many_rows_of_parameters(connection: flightsql.Connection) -> None:
    execute(connection, "create table t (id bigint, price decimal(9, 2), name varchar)")
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into t values (?, ?, ?)", [(1, Decimal("1.50"), "one"), (2, None, None), (3, Decimal("-0.01"), "三")]
        )
        assert cursor.rowcount == 3
    assert fetch(connection, "select * from t order by id") == [
        (1, Decimal("1.50"), "one"),
        (2, None, None),
        (3, Decimal("-0.01"), "三"),
    ]


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("create table t (id bigint)", True),
        ("/* so */ insert into numbers values (?)", True),
        ("with n as (select 1 as id) select * from n where id = ?", False),
        ("delete from numbers where id = ?", True),
        ("select 'insert into t'", False),
        ("explain select * from numbers", False),
        ("begin", True),
    ],
)
def test_a_prepared_statement_says_whether_it_writes(
    sql: str, writes: bool, writable: Gateway, connection: flightsql.Connection
) -> None:
    execute(connection, "create table numbers (id bigint)")
    with Client(writable.flight) as client:
        [result] = client.action(
            "CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", field(1, sql.encode()))
        )
    # In an Any; `is_update` is the fourth field.
    assert numbers(first(parse(result), 2)).get(4) == int(writes)
    assert [name for (name,) in fetch(connection, TABLES)] == ["numbers"]
    assert fetch(connection, "select * from numbers") == []


def test_parameters_that_are_bound_before_the_update(writable: Gateway, connection: flightsql.Connection) -> None:
    """Two calls of DoPut, as some drivers do: one binds and gives another handle, the other executes that."""
    execute(connection, "create table t (id bigint, name varchar)")
    request = packed("ActionCreatePreparedStatementRequest", field(1, b"insert into t values (?, ?)"))
    rows = pa.record_batch({"1": pa.array([1, None], pa.int64()), "2": ["one", "?"]})
    with flight.connect(writable.uri) as client:
        [result] = client.do_action(flight.Action("CreatePreparedStatement", request))
        handle = first(parse(first(parse(result.body.to_pybytes()), 2)), 1)
        bound = first(parse(put(client, "CommandPreparedStatementQuery", handle, rows)), 1)
        assert bound not in (b"", handle)
        for _ in range(2):
            # DoPutUpdateResult: `record_count`.
            assert numbers(put(client, "CommandPreparedStatementUpdate", bound, None))[1] == 2
        with pytest.raises(pa.ArrowInvalid, match="2 parameters"):
            put(client, "CommandPreparedStatementUpdate", handle, None)
    assert fetch(connection, "select id, name from t order by id nulls last") == [
        (1, "one"),
        (1, "one"),
        (None, "?"),
        (None, "?"),
    ]


def put(client: flight.FlightClient, command: str, handle: bytes, rows: pa.RecordBatch | None) -> bytes:
    """A DoPut of rows, or of none; gives what the gateway says of it."""
    schema = pa.schema([]) if rows is None else rows.schema
    writer, reader = client.do_put(flight.FlightDescriptor.for_command(packed(command, field(1, handle))), schema)
    with writer:
        if rows is not None:
            writer.write_batch(rows)
        writer.done_writing()
        return reader.read().to_pybytes()


ROWS = pa.table(
    {"id": pa.array([1, 2, None], pa.int64()), "name": ["one", None, "三"], "at": pa.array([0, 1, 2], pa.timestamp("us"))}
)


def test_ingest_in_every_mode(connection: flightsql.Connection) -> None:
    def ingest(rows: pa.Table, mode: str) -> int:
        with connection.cursor() as cursor:
            return cursor.adbc_ingest("t", rows, mode=mode)

    def count() -> int:
        return fetch(connection, "select count(*) from t")[0][0]

    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        ingest(ROWS, "append")
    assert (ingest(ROWS, "create"), count()) == (3, 3)
    with pytest.raises(adbc_driver_manager.Error, match="exists already") as error:
        ingest(ROWS, "create")
    assert error.value.status_code is adbc_driver_manager.AdbcStatusCode.ALREADY_EXISTS
    assert (ingest(ROWS, "append"), count()) == (3, 6)
    assert (ingest(ROWS, "create_append"), count()) == (3, 9)
    assert (ingest(ROWS.slice(0, 1), "replace"), count()) == (1, 1)
    assert fetch(connection, "select id, name from t") == [(1, "one")]


def test_ingested_rows_get_the_types_of_the_table(connection: flightsql.Connection) -> None:
    execute(connection, "create table t (id bigint, price decimal(9, 2))")
    with connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table({"price": ["1.5", None]}), mode="append")
        with pytest.raises(adbc_driver_manager.Error, match='has no column "prise"; did you mean "price"'):
            cursor.adbc_ingest("t", pa.table({"prise": [1]}), mode="append")
        with pytest.raises(adbc_driver_manager.Error, match="[Cc]annot cast|can't cast|cannot be"):
            cursor.adbc_ingest("t", pa.table({"price": ["much"]}), mode="append")
    assert fetch(connection, "select * from t order by price") == [(None, Decimal("1.50")), (None, None)]


def test_rows_that_break_off_leave_nothing(connection: flightsql.Connection) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise ValueError("the program has an error")

    execute(connection, "create table t as select 1 as id")
    reader = pa.RecordBatchReader.from_batches(ROWS.schema, broken())
    for mode in ["append", "replace"]:
        with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="."):
            cursor.adbc_ingest("t", reader, mode=mode)
    assert fetch(connection, "select * from t") == [(1,)]


def test_rows_that_break_off_make_no_table_however_often(connection: flightsql.Connection) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise ValueError("the program has an error")

    # The driver ends such a stream as if it were whole, and takes it back then.
    for number in range(50):
        with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
            cursor.adbc_ingest(f"broken{number}", pa.RecordBatchReader.from_batches(ROWS.schema, broken()), mode="create")
    assert fetch(connection, "select count(*) from information_schema.tables where table_name like 'broken%'") == [(0,)]


def test_more_than_the_catalog_has_room_for(connection: flightsql.Connection) -> None:
    batch = pa.record_batch({"id": pa.array(range(1_000_000), pa.int64())})
    large = pa.RecordBatchReader.from_batches(batch.schema, [batch] * 10)
    with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="more than 64MiB"):
        cursor.adbc_ingest("t", large, mode="create")
    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        fetch(connection, "select * from t")


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_a_transaction_is_seen_when_it_commits(commits: bool, writable: Gateway, connection: flightsql.Connection) -> None:
    execute(connection, "create table t as select 1 as id")
    with flightsql.connect(writable.uri) as other:
        execute(other, "insert into t values (2)")
        with other.cursor() as cursor:
            cursor.executemany("insert into t values (?)", [(4,), (5,)])
        assert fetch(other, "select count(*) from t") == [(4,)]
        assert fetch(connection, "select count(*) from t") == [(1,)]
        other.commit() if commits else other.rollback()
        assert fetch(connection, "select count(*) from t") == [(4 if commits else 1,)]
        # The connection begins the next one by itself.
        execute(other, "delete from t")
    assert fetch(connection, "select count(*) from t") == [(4 if commits else 1,)]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("create table still.main.t as select 1", 'the catalog "still" is read-only; set writable = true under'),
        ("create table system.main.t as select 1", 'a catalog of kind "system" does not offer writing \\(ingest\\)'),
        ("insert into missing values (1)", "does not exist"),
        ("drop table missing", "does not exist"),
    ],
)
def test_what_cannot_be_written_says_why(sql: str, why: str, connection: flightsql.Connection) -> None:
    with pytest.raises(adbc_driver_manager.Error, match=why):
        execute(connection, sql)


def test_http_writes_for_programs_and_not_for_pages_of_others(writable: Gateway, connection: flightsql.Connection) -> None:
    def post(statement: str, **headers: str) -> int:
        request = urllib.request.Request(f"{writable.url}/v1/sql", data=statement.encode(), headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert post("create table t as select 1 as id") == 200
    assert post("insert into t values (2)", Origin="https://elsewhere.example") == 403
    assert post("insert into t values (2)", Origin="null") == 403
    # Under a name that is led here a page of others would be of the same origin.
    assert post("insert into t values (2)", Origin="http://named.example", Host="named.example") == 403
    assert post("insert into t values (2)", Origin=writable.url) == 200
    assert fetch(connection, "select count(*) from t") == [(2,)]


@pytest.mark.parametrize("jdk", jdbc.VERSIONS)
def test_jdbc_writes_in_every_way(jdk: str, embedded: Gateway) -> None:
    said = jdbc.values(jdbc.probe("writes", embedded.flight, jdk=jdk))
    assert said["create"] == 0
    assert said["insert"] == 2
    assert said["prepared"] == 1
    # This driver sends all rows at once, and gives one count of them.
    assert said["batch"] == [5]
    assert said["execute"] == {"hasRows": False, "count": 2}
    assert said["delete"] == 2
    assert "exists already" in said["twice"]["error"]
    assert said["rows"] == [
        ["1", "one", "1.50", "2024-02-29"],
        ["2", "two", None, None],
        ["3", "three", "3.25", "2024-03-01"],
        ["10", "even", "10.50", None],
        ["11", "odd", "11.50", None],
        ["12", "even", "12.50", None],
    ]
    # What an ingest does, which this driver does not have.
    assert "zero" in said["failing"]["error"]
    assert (said["as"], said["replace"]) == (6, 2)
    assert "zero" in said["failing replace"]["error"]
    assert said["made"] == [["1"], ["2"]]
    assert (said["temporary"], said["append"]) == (2, 1)
    assert said["of session"] == [["1"], ["2"], ["7"]]
    with flightsql.connect(embedded.uri, autocommit=True) as other:
        assert fetch(other, "select count(*) from demo.by_jdbc") == [(6,)]
        with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
            fetch(other, "select * from of_jdbc")


@pytest.mark.parametrize("jdk", jdbc.VERSIONS)
def test_a_batch_of_every_type_that_jdbc_binds_with_null(jdk: str, writable: Gateway, connection: flightsql.Connection) -> None:
    assert jdbc.values(jdbc.probe("batch", writable.flight, jdk=jdk)) == {"counts": ["2"]}
    values = (
        True, -(2**7), -(2**15), -(2**31), -(2**63), 1.5, 5e-324, Decimal("-12345678901234567890123456789.000000001"),
        "中文 é 😀", b"\x00\x01\xff", date(2024, 2, 29), time(12, 34, 56), datetime(2026, 2, 28, 23, 59, 59, 123000),
        [1, None, 2**63 - 1], ["a", None, ""], datetime(2026, 2, 28, 23, 59, 59, 123000, UTC),
    )  # fmt: skip
    assert fetch(connection, "select * from batch order by a nulls last") == [values, (None,) * len(values)]
