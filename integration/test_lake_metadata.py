"""What the tables about Iceberg tables tell, such as `"t$files"`: the same as pyiceberg reads from the metadata that Spark wrote.
And tables that are named by one file of metadata."""

from collections.abc import Iterator
from urllib.parse import unquote_plus

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
from pyiceberg.table import StaticTable, Table

import lakes
import moved
import s3
from gateway import Gateway, configured
from test_iceberg_catalogs import kept_in, section
from test_lake import TABLES, answer, checksum, expected_of

ICEBERG = {name: table for name, table in TABLES.items() if table["catalog"] == "iceberg"}
# What tells rows of a table apart.
KEYS = {
    "snapshots": ["snapshot_id"],
    "history": ["made_current_at"],
    "refs": ["name"],
    "manifests": ["path"],
    "files": ["file_path", "content", "record_count"],
}
# Partitions are text here and structs there.
LEFT_OUT = {"partition"}
SUMS = [
    "record_count",
    "file_count",
    "total_data_file_size_in_bytes",
    "position_delete_record_count",
    "position_delete_file_count",
    "equality_delete_record_count",
    "equality_delete_file_count",
]

each_table = pytest.mark.parametrize("name", ICEBERG)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    root = tmp_path_factory.mktemp("s3") / "root"
    moved.put(root)
    with s3.server(root) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(bucket: s3.Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway over the folder of tables, and over some of their files of metadata, in the folder and in the bucket."""
    text = section("iceberg", location=str(lakes.folder() / "iceberg"))
    for name in ICEBERG:
        now = moved.newest(name)
        text += section(f"now_{name}", location=str(now), schema="db")
        text += section(f"bucket_{name}", **{**kept_in(bucket), "location": moved.address_of(now)}, schema="db")
    text += section("then", location=str(moved.newest("ice_plain").with_name("v3.metadata.json")), writable=True)
    text += section("gone", location=str(moved.newest("ice_plain").with_name("v300.metadata.json")))
    with configured(tmp_path_factory.mktemp("metadata"), '[cache]\nsize = "0"\n' + text) as running:
        yield running


def by_pyiceberg(name: str) -> Table:
    return StaticTable.from_metadata(f"file://{moved.newest(name)}")


def told(cursor: flightsql.Cursor, name: str, about: str) -> pa.Table:
    cursor.execute(f'select * from iceberg.db."{name}${about}"')
    return cursor.fetch_arrow_table()


def rows(of: pa.Table, columns: list[str], keys: list[str]) -> list[dict]:
    """Rows in an order of their own; maps without an order, and no map is an empty one, as times are in UTC without its name."""

    def value(of: object, kind: pa.DataType) -> object:
        if pa.types.is_map(kind):
            return dict(of or [])
        return of.replace(tzinfo=None) if pa.types.is_timestamp(kind) and of is not None else of

    kinds = {column: of.schema.field(column).type for column in columns}
    made = [{column: value(row[column], kind) for column, kind in kinds.items()} for row in of.select(columns).to_pylist()]
    return sorted(made, key=lambda row: [row[key] for key in keys])


@each_table
@pytest.mark.parametrize("about", KEYS)
def test_tables_about_tables_tell_what_pyiceberg_reads(name: str, about: str, cursor: flightsql.Cursor) -> None:
    ours, theirs = told(cursor, name, about), getattr(by_pyiceberg(name).inspect, about)()
    columns = [column for column in ours.column_names if column in theirs.column_names and column not in LEFT_OUT]
    assert len(columns) >= len(ours.column_names) - 1
    assert rows(ours, columns, KEYS[about]) == rows(theirs, columns, KEYS[about])


@each_table
def test_partitions_of_files_are_those_that_pyiceberg_reads(name: str, cursor: flightsql.Cursor) -> None:
    table = by_pyiceberg(name)
    expected = []
    for manifest in table.current_snapshot().manifests(table.io):
        spec = table.specs()[manifest.partition_spec_id]
        for entry in manifest.fetch_manifest_entry(table.io):
            path = unquote_plus(spec.partition_to_path(entry.data_file.partition, table.schema()))
            expected.append((entry.data_file.file_path, path or None))
    found = told(cursor, name, "files")
    assert sorted(zip(found["file_path"].to_pylist(), found["partition"].to_pylist(), strict=True)) == sorted(expected)


@each_table
def test_partitions_come_to_what_pyiceberg_reads(name: str, cursor: flightsql.Cursor) -> None:
    ours, theirs = told(cursor, name, "partitions"), by_pyiceberg(name).inspect.partitions()
    # It tells no spec of a table without partitions.
    columns = [column for column in ("spec_id", *SUMS) if column in theirs.column_names]
    assert rows(ours, columns, columns) == rows(theirs, columns, columns)
    files = told(cursor, name, "files")
    assert set(ours["partition"].to_pylist()) == set(files["partition"].to_pylist())


@each_table
@pytest.mark.parametrize("where", ["now", "bucket"])
def test_a_file_of_metadata_is_a_table(where: str, name: str, cursor: flightsql.Cursor) -> None:
    catalog, table = f"{where}_{name}", ICEBERG[name]
    assert answer(cursor, checksum(name, table["now"], catalog=catalog)) == expected_of(table["now"])
    for version in table["versions"]:
        assert answer(cursor, checksum(name, version, f"@{version['id']}", catalog)) == expected_of(version)
    listed = f"select table_schema, table_name from {catalog}.information_schema.tables where table_name not like '%$%'"
    assert [row for row in answer(cursor, listed) if row[0] != "information_schema"] == [["db", name]]


def test_a_file_of_metadata_is_the_table_of_then(cursor: flightsql.Cursor) -> None:
    table = StaticTable.from_metadata(f"file://{moved.newest('ice_plain').with_name('v3.metadata.json')}")
    snapshots = answer(cursor, 'select snapshot_id from "then".main."ice_plain$snapshots"')
    assert sorted(snapshots) == sorted([snapshot.snapshot_id] for snapshot in table.snapshots())
    rows = table.scan().to_arrow().num_rows
    assert 0 < rows != ICEBERG["ice_plain"]["now"]["rows"]
    assert answer(cursor, 'select count(*) as n, count(distinct id) as ids from "then".main.ice_plain') == [[rows, rows]]
    with pytest.raises(flightsql.Error, match="takes no rows here"):
        cursor.execute('insert into "then".main.ice_plain (id) values (1)')


def test_a_file_of_metadata_that_is_not_there(cursor: flightsql.Cursor) -> None:
    with pytest.raises(flightsql.Error, match='there is no file "v300.metadata.json"'):
        cursor.execute("select * from gone.main.ice_plain")
