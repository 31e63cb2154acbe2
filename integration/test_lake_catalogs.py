"""Iceberg tables that Spark wrote, registered in Nessie and in a Hive Metastore: read there, they give Spark's answers. Nessie
has tables in buckets alone. Of a table that it was given and nobody has changed it names the file of metadata that it was given,
as the metastore does: such a file tells of all versions."""

from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as flightsql
import pytest
from pyiceberg.catalog.rest import RestCatalog

import jdbc
import lakes
import metastore
import moved
import nessie
import s3
from gateway import Gateway, configured
from test_iceberg_catalogs import kept_in, section, writes_to
from test_lake import TABLES, answer, checksum, expected_of, read

ICEBERG = {name: table for name, table in TABLES.items() if table["catalog"] == "iceberg"}
# Nessie knows no format 3.
CATALOGS = {"hive": [*ICEBERG], "nessie": [name for name in ICEBERG if name not in ("ice_dv", "ice_upgraded")]}
NOW = [(catalog, name) for catalog, names in CATALOGS.items() for name in names]
VERSIONS = [(catalog, name, version) for catalog, name in NOW for version in ICEBERG[name]["versions"]]
# Of the tables whose columns, and whose partitions, have changed most.
QUERIES = [
    (catalog, name, query, sql.replace("iceberg.db.", f"{catalog}.db."), expected)
    for catalog, name in (("hive", "ice_evolved"), ("nessie", "ice_spec"))
    for query, sql, expected in ICEBERG[name]["queries"]
]

each_table = pytest.mark.parametrize(("catalog", "name"), NOW, ids=[f"{catalog}-{name}" for catalog, name in NOW])
each_version = pytest.mark.parametrize(
    ("catalog", "name", "version"),
    VERSIONS,
    ids=[f"{catalog}-{name}@{version['id']}" for catalog, name, version in VERSIONS],
)
each_query = pytest.mark.parametrize(
    ("sql", "expected"),
    [(sql, expected) for *_, sql, expected in QUERIES],
    ids=[f"{catalog}-{name}-{query}" for catalog, name, query, *_ in QUERIES],
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway over both catalogs, cache off."""
    root, warehouse = tmp_path_factory.mktemp("s3") / "root", tmp_path_factory.mktemp("hive")
    moved.put(root)
    with (
        s3.server(root) as bucket,
        nessie.server(bucket, f"s3://{moved.BUCKET}") as of_nessie,
        metastore.server(warehouse) as of_hive,
    ):
        known = RestCatalog("nessie", uri=of_nessie.uri, warehouse=nessie.WAREHOUSE, **writes_to(bucket))
        known.create_namespace("db")
        for name in CATALOGS["nessie"]:
            known.register_table(("db", name), moved.address_of(moved.newest(name)))
        with metastore.catalog(of_hive, f"file://{warehouse}") as known:
            known.create_namespace("db")
            for name in CATALOGS["hive"]:
                known.register_table(("db", name), f"file://{moved.newest(name)}")
        store = {**kept_in(bucket), "location": f"s3://{moved.BUCKET}"}
        text = section("nessie", catalog="rest", uri=of_nessie.uri, warehouse=nessie.WAREHOUSE, **store)
        text += section("hive", catalog="hive", uri=of_hive.uri, location=str(lakes.folder() / "iceberg"))
        with configured(tmp_path_factory.mktemp("catalogs"), '[cache]\nsize = "0"\n' + text) as running:
            yield running


@pytest.fixture(scope="module")
def by_jdbc(gateway: Gateway) -> dict:
    """What JDBC gives for each statement of these tests."""
    statements = [checksum(name, ICEBERG[name]["now"], catalog=catalog) for catalog, name in NOW]
    statements += [checksum(name, version, f"@{version['id']}", catalog) for catalog, name, version in VERSIONS]
    statements += [sql for *_, sql, _ in QUERIES]
    return jdbc.values(jdbc.probe("query", gateway.flight, *statements))


@each_table
def test_adbc_reads_what_spark_reads_now(catalog: str, name: str, cursor: flightsql.Cursor) -> None:
    now = ICEBERG[name]["now"]
    assert answer(cursor, checksum(name, now, catalog=catalog)) == expected_of(now)
    assert answer(cursor, f"select count(*) from {catalog}.db.{name}") == [[now["rows"]]]


@each_version
def test_adbc_reads_what_spark_reads_of_each_version(catalog: str, name: str, version: dict, cursor: flightsql.Cursor) -> None:
    assert answer(cursor, checksum(name, version, f"@{version['id']}", catalog)) == expected_of(version)


@each_query
def test_adbc_gives_the_answer_of_spark(sql: str, expected: list, cursor: flightsql.Cursor) -> None:
    assert answer(cursor, sql) == expected, sql


@each_table
@pytest.mark.timeout(300)
def test_jdbc_reads_what_spark_reads_now(catalog: str, name: str, by_jdbc: dict) -> None:
    now = ICEBERG[name]["now"]
    assert read(by_jdbc, checksum(name, now, catalog=catalog)) == expected_of(now)


@each_version
@pytest.mark.timeout(300)
def test_jdbc_reads_what_spark_reads_of_each_version(catalog: str, name: str, version: dict, by_jdbc: dict) -> None:
    assert read(by_jdbc, checksum(name, version, f"@{version['id']}", catalog)) == expected_of(version)


@each_query
@pytest.mark.timeout(300)
def test_jdbc_gives_the_answer_of_spark(sql: str, expected: list, by_jdbc: dict) -> None:
    assert read(by_jdbc, sql) == expected, sql
