"""TPC-H through ADBC: all 22 queries give DuckDB's answers over the same files."""

from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import pytest

from answers import QUERIES, assert_same
from conftest import SCALE
from data import TABLES
from gateway import Gateway

# Rows per table at scale 1; the two small ones have a fixed size, and lineitem is within a percent of six million.
ROWS = {"customer": 150_000, "orders": 1_500_000, "part": 200_000, "partsupp": 800_000, "supplier": 10_000}


def test_there_are_twenty_two_queries() -> None:
    assert [query.stem for query in QUERIES] == [f"q{number:02}" for number in range(1, 23)]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
@pytest.mark.timeout(300)
def test_adbc_gives_the_answer_of_duckdb(query: Path, warehouse: Gateway, judge: duckdb.DuckDBPyConnection) -> None:
    sql = query.read_text()
    expected = judge.execute(sql).fetchall()
    with flightsql.connect(warehouse.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        assert_same(cursor.fetchall(), expected)


@pytest.mark.parametrize("table", TABLES)
def test_tables_have_the_rows_of_their_scale(table: str, warehouse: Gateway, judge: duckdb.DuckDBPyConnection) -> None:
    count = f"select count(*) from {table}"
    with flightsql.connect(warehouse.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(count)
        got = cursor.fetchone()
    assert got == judge.execute(count).fetchone()
    if table in ROWS:
        assert got == (round(ROWS[table] * float(SCALE)),)
