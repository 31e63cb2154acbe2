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


def test_a_table_that_is_not_there_is_named(cursor: flightsql.Cursor, producer: datafusion.SessionContext) -> None:
    producer.sql("create table regions as select 1 as a")
    said = r'table "tpch.main.regions" does not exist; did you mean "region"'
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=said):
        cursor.execute(substrait.Serde.serialize_bytes("select a from regions", producer))
