"""Substrait plans through ADBC, made by DataFusion of PyPI: the queries of TPC-H, and what is no plan or none that is offered."""

from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import datafusion
import duckdb
import pytest
from datafusion import substrait

from answers import QUERIES, assert_same
from data import TABLES
from gateway import Gateway
from wire import field


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


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_reads_from_elsewhere_is_refused_by_name(name: str, cursor: flightsql.Cursor) -> None:
    def plan(*relations: bytes) -> bytes:
        [whole] = relations if len(relations) == 1 else [field(12, field(2, relations[0]) + field(3, relations[1]))]
        return field(3, field(2, field(1, whole) + field(2, b"r_regionkey") * len(relations)))

    # A nullable column of 64 bits.
    columns = field(2, field(1, b"r_regionkey") + field(2, field(1, field(7, b"\x10\x01")) + b"\x18\x02"))
    elsewhere, table = field(1, columns + ELSEWHERE[name]), field(1, columns + field(7, field(1, b"region")))
    said = f"a Substrait plan cannot read from {name.split()[0]} here"
    # Also where a table of the same name is read beside it.
    for refused in (plan(elsewhere), plan(table, elsewhere)):
        for ask in (cursor.execute, cursor.adbc_execute_schema):
            with pytest.raises(adbc_driver_manager.NotSupportedError, match=said):
                ask(refused)
        # Its module takes what is not supported to prepare for what need not be prepared.
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="must call Prepare"):
            cursor.adbc_prepare(refused)


def test_a_table_that_is_not_there_is_named(cursor: flightsql.Cursor, producer: datafusion.SessionContext) -> None:
    producer.sql("create table regions as select 1 as a")
    said = r'table "tpch.main.regions" does not exist; did you mean "region"'
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=said):
        cursor.execute(substrait.Serde.serialize_bytes("select a from regions", producer))
