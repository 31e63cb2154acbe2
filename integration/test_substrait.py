"""Substrait plans through ADBC, made by DataFusion of PyPI: the queries of TPC-H, and what is no plan or none that is offered."""

from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import datafusion
import duckdb
import grpc
import pytest
from datafusion import substrait

from answers import QUERIES, assert_same
from data import TABLES
from gateway import Gateway, configured
from wire import Client, field, packed, prepared, unpacked


@pytest.fixture(scope="module")
def producer(tpch: Path) -> datafusion.SessionContext:
    """Makes plans over tables of the same names."""
    # As here: 0.06 - 0.01 is 0.05.
    exact = datafusion.SessionConfig().set("datafusion.sql_parser.parse_float_as_decimal", "true")
    context = datafusion.SessionContext(exact)
    for name in TABLES:
        context.register_parquet(name, str(tpch / f"{name}.parquet"))
    return context


@pytest.fixture
def cursor(warehouse: Gateway) -> Iterator[flightsql.Cursor]:
    with flightsql.connect(warehouse.uri, autocommit=True) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
def test_a_plan_gives_the_answer_of_duckdb(
    query: Path, cursor: flightsql.Cursor, producer: datafusion.SessionContext, judge: duckdb.DuckDBPyConnection
) -> None:
    sql = query.read_text()
    cursor.execute(substrait.Serde.serialize_bytes(sql, producer))
    assert_same(cursor.fetchall(), judge.execute(sql).fetchall())


def test_a_plan_is_prepared_and_described(cursor: flightsql.Cursor, producer: datafusion.SessionContext) -> None:
    plan = substrait.Serde.serialize_bytes("select n_name, n_nationkey from nation where n_nationkey < 2", producer)
    cursor.adbc_prepare(plan)
    cursor.execute(plan)
    assert cursor.fetch_arrow_table().column_names == ["n_name", "n_nationkey"]
    assert cursor.adbc_execute_schema(plan).names == ["n_name", "n_nationkey"]


def test_plans_are_on_record_by_their_tables(
    warehouse: Gateway, cursor: flightsql.Cursor, producer: datafusion.SessionContext
) -> None:
    cursor.execute(substrait.Serde.serialize_bytes("select r_name, n_name from region, nation", producer))
    cursor.fetchall()
    cursor.execute("select count(*) from system.main.queries where statement = 'SUBSTRAIT PLAN OF nation, region'")
    assert cursor.fetchone() == (1,)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (b"select 1", "the bytes are no Substrait plan"),
        (b"", "it has no relation"),
    ],
    ids=["text", "nothing"],
)
def test_what_is_no_plan_is_refused(plan: bytes, message: str, cursor: flightsql.Cursor) -> None:
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=message):
        cursor.execute(plan)


# Fields of ReadRel: files, one of the name of a table; what somebody else knows how to read; and a table by its metadata.
ELSEWHERE = {
    "local_files": field(6, field(1, field(3, b"file:///srv/region.parquet") + field(9, b""))),
    "local_files of a pattern": field(6, field(1, field(2, b"s3://bucket/*.parquet") + field(9, b"")) * 2),
    "local_files of nothing": field(6, b""),
    "extension_table": field(8, field(1, field(1, b"type.example.com/a.Table"))),
    "iceberg_table": field(9, field(1, field(1, b"file:///srv/metadata.json"))),
}


# A nullable number of 64 bits, a column of it, and the table of that column.
NUMBER = field(7, b"\x10\x01")
COLUMNS = field(1, b"r_regionkey") + field(2, field(1, NUMBER) + b"\x18\x02")
REGION = field(1, b"region")
TABLE = field(1, field(2, COLUMNS) + field(7, REGION))


def plan(relation: bytes, columns: int = 1) -> bytes:
    """The plan of a relation."""
    return field(3, field(2, field(1, relation) + field(2, b"r_regionkey") * columns))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_reads_from_elsewhere_is_refused_by_name(name: str, cursor: flightsql.Cursor) -> None:
    elsewhere = field(1, field(2, COLUMNS) + ELSEWHERE[name])
    said = f"a Substrait plan cannot read from {name.split()[0]} here"
    # Also where a table of the same name is read beside it.
    for refused in (plan(elsewhere), plan(field(12, field(2, TABLE) + field(3, elsewhere)), 2)):
        for ask in (cursor.execute, cursor.adbc_execute_schema):
            with pytest.raises(adbc_driver_manager.NotSupportedError, match=said):
                ask(refused)
        # Its module takes what is not supported to prepare for what need not be prepared.
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="must call Prepare"):
            cursor.adbc_prepare(refused)


# Relations: rows of a table put into it, a table made, rows of it changed; and a column of a parameter beside the table's own.
WRITES = "a Substrait plan cannot write here; send the statement as SQL"
REFUSED = {
    "write": (field(19, field(1, REGION) + field(3, COLUMNS) + b"\x20\x01" + field(5, TABLE)), WRITES),
    "ddl": (field(20, field(1, REGION) + field(3, COLUMNS) + b"\x28\x01\x30\x01"), WRITES),
    "update": (field(22, field(1, REGION) + field(2, COLUMNS)), WRITES),
    "parameter": (
        field(7, field(2, TABLE) + field(3, field(14, field(1, NUMBER)))),
        "a Substrait plan cannot take parameters here; put the values into it",
    ),
}


def prepare(client: Client, plan: bytes) -> bytes:
    """The handle of a plan that is prepared."""
    body = packed("ActionCreatePreparedSubstraitPlanRequest", field(1, field(1, plan)))
    [result] = client.action("CreatePreparedSubstraitPlan", body)
    return unpacked(result)


@pytest.mark.parametrize("name", REFUSED)
def test_what_writes_or_has_parameters_is_refused(name: str, warehouse: Gateway, cursor: flightsql.Cursor) -> None:
    relation, said = REFUSED[name]
    refused = plan(relation, 2)
    for ask in (cursor.execute, cursor.adbc_execute_schema):
        with pytest.raises(adbc_driver_manager.NotSupportedError, match=said):
            ask(refused)
    cursor.adbc_statement.set_substrait_plan(refused)
    with pytest.raises(adbc_driver_manager.NotSupportedError, match=said):
        cursor.adbc_statement.execute_update()
    with Client(warehouse.flight) as client, pytest.raises(grpc.RpcError) as error:
        prepare(client, refused)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, said)


def test_a_plan_takes_no_values(warehouse: Gateway) -> None:
    with Client(warehouse.flight) as client:
        handle = prepare(client, plan(TABLE))
        assert sorted(row["r_regionkey"] for row in client.run(prepared(handle))) == [0, 1, 2, 3, 4]
        with pytest.raises(grpc.RpcError, match="the statement has 0 parameters and 1 was given"):
            client.run(prepared(client.bind(handle, a=1)))


def test_a_plan_that_writes_nothing_is_no_update(cursor: flightsql.Cursor) -> None:
    cursor.adbc_statement.set_substrait_plan(plan(TABLE))
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="the statement writes nothing; send it as a query"):
        cursor.adbc_statement.execute_update()


@pytest.mark.parametrize("prepares", [False, True], ids=["statement", "prepared"])
def test_a_plan_is_part_of_its_transaction(prepares: bool, tmp_path: Path, producer: datafusion.SessionContext) -> None:
    def ids(connection: flightsql.Connection) -> list[tuple]:
        with connection.cursor() as cursor:
            if prepares:
                cursor.adbc_prepare(kept)
            cursor.execute(kept)
            return cursor.fetchall()

    producer.sql("create or replace table kept as select cast(1 as bigint) as id")
    kept = substrait.Serde.serialize_bytes("select id from kept order by id", producer)
    catalog = '[defaults]\ncatalog = "demo"\n[catalogs.demo]\nkind = "memory"\nwritable = true\n'
    # A transaction is open at one process.
    with (
        configured(tmp_path, catalog, replicas=1) as gateway,
        flightsql.connect(gateway.uri) as within,
        flightsql.connect(gateway.uri, autocommit=True) as without,
        without.cursor() as cursor,
    ):
        cursor.execute("create table kept as select cast(1 as bigint) as id")
        for end, left in ((within.rollback, [(1,)]), (within.commit, [(1,), (2,)])):
            with within.cursor() as writes:
                writes.execute("insert into kept values (2)")
            assert (ids(within), ids(without)) == ([(1,), (2,)], [(1,)])
            end()
            assert ids(without) == left


def test_a_table_that_is_not_there_is_named(cursor: flightsql.Cursor, producer: datafusion.SessionContext) -> None:
    producer.sql("create table regions as select 1 as a")
    said = r'table "tpch.main.regions" does not exist; did you mean "region"'
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=said):
        cursor.execute(substrait.Serde.serialize_bytes("select a from regions", producer))
