"""TPC-H through the JDBC driver, on JDK 17 and JDK 25: all 22 queries give DuckDB's answers over the same files."""

from datetime import date
from decimal import Decimal

import duckdb
import pytest

import jdbc
from answers import QUERIES, assert_same
from gateway import Gateway


@pytest.fixture(scope="module", params=jdbc.VERSIONS, ids=lambda version: f"jdk{version}")
def answers(request: pytest.FixtureRequest, warehouse: Gateway) -> dict:
    """The answers to all queries, from one connection."""
    return jdbc.values(jdbc.probe("files", warehouse.flight, *QUERIES, jdk=request.param))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
@pytest.mark.timeout(300)
def test_jdbc_gives_the_answer_of_duckdb(query, answers: dict, judge: duckdb.DuckDBPyConnection) -> None:
    expected = judge.execute(query.read_text()).fetchall()
    answer = answers[query.name]
    read = [READERS[column["typeName"]] for column in answer["columns"]]
    got = [
        tuple(value if value is None else parse(value) for parse, value in zip(read, row, strict=True)) for row in answer["rows"]
    ]
    assert_same(got, expected)


READERS = {
    "INTEGER": int,
    "BIGINT": int,
    "DECIMAL": Decimal,
    "DOUBLE": float,
    "VARCHAR": str,
    "DATE": date.fromisoformat,
}
