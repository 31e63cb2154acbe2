"""TPC-H at its smallest scale over tables of Trino, which the gateway joins, by ADBC and JDBC: the answers are those of Trino."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest

import jdbc
import trino_values
from answers import QUERIES
from gateway import Gateway, configured
from trino_server import Trino

READERS = {"INTEGER": int, "BIGINT": int, "DECIMAL": Decimal, "DOUBLE": float, "VARCHAR": str, "DATE": date.fromisoformat}


@pytest.fixture(scope="module")
def gateway(trino: Trino, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    text = '[defaults]\ncatalog = "tpch"\nschema = "tiny"\n' + trino.catalog("tpch", "tpch", schemas=["tiny"])
    with configured(tmp_path_factory.mktemp("tpch"), text, replicas=1) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def expected(trino: Trino) -> dict[str, list[tuple]]:
    """What Trino answers to each query."""
    found = {}
    for query in QUERIES:
        answer = trino.ask(query.read_text(), X_Trino_Catalog="tpch", X_Trino_Schema="tiny")
        found[query.name] = trino_values.rows(answer.columns, answer.rows)
    return found


@pytest.fixture(scope="module")
def by_jdbc(gateway: Gateway) -> dict:
    """The answers to all queries, from one connection."""
    return jdbc.values(jdbc.probe("files", gateway.flight, *QUERIES))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
def test_adbc_gives_the_answer_of_trino(query: Path, gateway: Gateway, expected: dict) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(query.read_text())
        trino_values.assert_near(cursor.fetchall(), expected[query.name])


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
def test_jdbc_gives_the_answer_of_trino(query: Path, by_jdbc: dict, expected: dict) -> None:
    answer = by_jdbc[query.name]
    read = [READERS[column["typeName"]] for column in answer["columns"]]
    got = [
        tuple(value if value is None else parse(value) for parse, value in zip(read, row, strict=True)) for row in answer["rows"]
    ]
    trino_values.assert_near(got, expected[query.name])


def test_conditions_are_decided_at_trino(gateway: Gateway, trino: Trino) -> None:
    """Of the queries above, of which each scan is a query there: what they filter by is in its text."""
    for part in ("(\"r_name\" = 'ASIA')", "(\"c_mktsegment\" = 'BUILDING')", "(\"l_shipdate\" >= DATE '1994-01-01')"):
        assert trino.asked(part), part
