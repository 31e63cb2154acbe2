"""information_schema and the catalog `system`: what is there, as tables, quickly."""

import time
from collections.abc import Iterator

import pytest

from data import TABLES
from gateway import Gateway, configured
from wire import Client


@pytest.fixture
def wire(embedded: Gateway) -> Iterator[Client]:
    """A plain connection to the demo."""
    with Client(embedded.flight) as client:
        yield client


def test_tables_columns_and_keys(wire: Client) -> None:
    names = wire.rows("select table_name from tpch.information_schema.tables where table_schema = 'main' order by 1")
    assert [row["table_name"] for row in names] == TABLES
    columns = wire.rows(
        "select column_name, ordinal_position from information_schema.columns where table_name = 'region' order by 2"
    )
    assert [(row["column_name"], row["ordinal_position"]) for row in columns] == [
        ("r_regionkey", 1),
        ("r_name", 2),
        ("r_comment", 3),
    ]
    constraints = "select constraint_type, count(*) as n from information_schema.table_constraints"
    keys = wire.rows(f"{constraints} where table_name = 'nation' group by 1 order by 1")
    assert keys == [{"constraint_type": "FOREIGN KEY", "n": 1}, {"constraint_type": "PRIMARY KEY", "n": 1}]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("table_name = 'nation'", ["nation"]),
        ("table_name in ('nation', 'region', 'nowhere')", ["nation", "region"]),
        ("table_name like 'part%'", ["part", "partsupp"]),
        ("table_schema = 'nowhere'", []),
        ("table_catalog = 'tpch' and table_schema = 'main' and lower(table_name) = 'part'", ["part"]),
        ("table_name = 'nation' or table_name = 'part'", ["nation", "part"]),
    ],
)
def test_filters(filters: str, expected: list[str], wire: Client) -> None:
    rows = wire.rows(f"select table_name from information_schema.tables where {filters} order by 1")
    assert [row["table_name"] for row in rows] == expected


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A folder of ten thousand tables."""
    folder = tmp_path_factory.mktemp("wide")
    data = folder / "data"
    data.mkdir()
    for number in range(10_000):
        (data / f"t{number:05}.csv").write_text("a,b\n1,x\n")
    text = f'[defaults]\ncatalog = "wide"\n[catalogs.wide]\nkind = "files"\nlocation = "{data}"\n'
    with configured(folder, text) as gateway, Client(gateway.flight) as client:
        yield client


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select table_name from information_schema.tables where table_schema = 'main'", 10_000),
        ("select column_name from information_schema.columns where table_name = 't04242'", 2),
        ("select table_name from information_schema.tables where table_name = 't04242'", 1),
        ("select * from t04242", 1),
    ],
)
def test_ten_thousand_tables_in_less_than_a_second(sql: str, rows: int, wide: Client) -> None:
    wide.rows(sql)
    started = time.monotonic()
    got = wide.rows(sql)
    elapsed = time.monotonic() - started
    assert len(got) == rows
    assert elapsed < 1, f"{elapsed:.2f} s"


def test_the_catalog_system(wire: Client) -> None:
    wire.rows("select 'a statement to be found' as v")
    listed = wire.rows(
        "select table_schema, table_name from system.information_schema.tables where table_schema <> 'information_schema'"
    )
    assert {"queries", "sessions", "settings"} <= {row["table_name"] for row in listed}
    for row in listed:
        wire.rows(f"select * from system.{row['table_schema']}.{row['table_name']}")
    [schema] = {row["table_schema"] for row in listed if row["table_name"] == "queries"}
    found = wire.rows(f"select statement from system.{schema}.queries where statement like '%to be found%'")
    assert found
