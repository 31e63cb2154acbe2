"""Rows that the gateway puts into Iceberg tables: pyiceberg, which made them, reads the same back, and both write at once."""

import datetime
import math
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyiceberg.avro.file import AvroFile
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import EqualTo
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, Table
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, TruncateTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

import glue
import iceberg_rest
import jdbc
import metastore
import moved
import postgres
import s3
import vending
from gateway import configured, eventually
from iceberg_places import Place, first_metadata, in_folder, known_to, section
from postgres import Database
from servers import Server
from test_lake import TABLES, checksum, expected_of

BUCKET = "lake"
# Those of them whose tables pyiceberg writes to as well.
SHARED = ["rest", "sql", "hive"]
ORDERS = Schema(
    NestedField(1, "id", LongType(), required=True),
    NestedField(2, "name", StringType()),
    NestedField(3, "at", TimestampType()),
)
# In each kind of partition: the last moments of a day before 1970, NULL, and letters that no folder has as they are.
ROWS = pa.table(
    {
        "id": pa.array(range(6), pa.int64()),
        "name": ["a/b", "名a", None, "a/b", "x=y z", ""],
        "at": pa.array([-86_400_500_000, -1, None, 0, 1_767_225_600_000_000, -86_400_500_001], pa.timestamp("us")),
    },
    schema=pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("at", pa.timestamp("us"))]),
)
PARTS = PartitionSpec(
    PartitionField(2, 1000, IdentityTransform(), "name"),
    PartitionField(1, 1001, BucketTransform(4), "id_bucket"),
    PartitionField(3, 1002, DayTransform(), "at_day"),
    PartitionField(2, 1003, TruncateTransform(2), "name_trunc"),
)
TYPES = Schema(
    NestedField(1, "id", LongType(), required=True),
    NestedField(2, "flag", BooleanType()),
    NestedField(3, "small", IntegerType()),
    NestedField(4, "ratio", FloatType()),
    NestedField(5, "wide", DoubleType()),
    NestedField(6, "price", DecimalType(9, 2)),
    NestedField(7, "large", DecimalType(30, 3)),
    NestedField(8, "day", DateType()),
    NestedField(9, "clock", TimeType()),
    NestedField(10, "at", TimestampType()),
    NestedField(11, "moment", TimestamptzType()),
    NestedField(12, "text", StringType()),
    NestedField(13, "key", UUIDType()),
    NestedField(14, "bytes", BinaryType()),
    NestedField(15, "four", FixedType(4)),
    NestedField(16, "list", ListType(17, StringType(), element_required=False)),
    NestedField(18, "map", MapType(19, StringType(), 20, LongType(), value_required=False)),
    NestedField(21, "point", StructType(NestedField(22, "x", LongType()), NestedField(23, "y", StringType()))),
)
KEY = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")
VALUES = {
    "id": pa.array([1, 2, 3], pa.int64()),
    "flag": pa.array([True, None, False]),
    "small": pa.array([-(2**31), None, 2**31 - 1], pa.int32()),
    "ratio": pa.array([1.5, None, float("nan")], pa.float32()),
    "wide": pa.array([-2.25, None, float("inf")], pa.float64()),
    "price": pa.array([Decimal("-1.50"), None, Decimal("9999999.99")], pa.decimal128(9, 2)),
    "large": pa.array([Decimal("-123456789012345678901.500"), None, Decimal("0.001")], pa.decimal128(30, 3)),
    "day": pa.array([datetime.date(1969, 12, 31), None, datetime.date(2026, 1, 1)], pa.date32()),
    "clock": pa.array([datetime.time(0, 0, 0, 1), None, datetime.time(23, 59, 59)], pa.time64("us")),
    "at": pa.array([-1, None, 1_767_225_600_000_000], pa.timestamp("us")),
    "moment": pa.array([-1, None, 1_767_225_600_000_000], pa.timestamp("us", "UTC")),
    "text": pa.array(["a" * 17, None, "名" * 16 + "\U0010ffff"]),
    "key": pa.array([KEY.bytes, None, bytes(16)], pa.binary(16)),
    "bytes": pa.array([b"\xff" * 17, None, b"\x00" * 20], pa.binary()),
    "four": pa.array([b"abcd", None, b"\xff\x00\xff\x00"], pa.binary(4)),
    "list": pa.array([["a", None], None, []], pa.list_(pa.string())),
    "map": pa.array([[("k", 1), ("l", None)], None, []], pa.map_(pa.string(), pa.int64())),
    "point": pa.array([{"x": 1, "y": "一"}, None, {"x": None, "y": None}], pa.struct([("x", pa.int64()), ("y", pa.string())])),
}
# How pyiceberg is told a value of what is no number; columns that it compares otherwise than Arrow does are left out.
LITERALS: dict[str, Callable[[object], object]] = {
    **dict.fromkeys(("id", "flag", "small", "wide", "price", "large", "text", "bytes"), lambda value: value),
    "day": lambda value: value.isoformat(),
    "at": lambda value: value.isoformat(),
    "moment": lambda value: value.isoformat(),
}


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres.server() as running:
        yield running


@pytest.fixture(scope="module")
def hive(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A metastore, and the folder of its tables."""
    folder = tmp_path_factory.mktemp("hive")
    with metastore.server(folder, database) as running:
        yield running, folder


@pytest.fixture(scope="module")
def places(database: Database, hive: tuple[Server, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """The same tables by a REST and by a SQL catalog, and others in a folder, by a metastore and by what stands for Glue."""
    root = tmp_path_factory.mktemp("s3") / "root"
    (root / BUCKET).mkdir(parents=True)
    server, warehouse = hive
    with (
        s3.server(root) as bucket,
        glue.catalog() as stub,
        metastore.catalog(server, f"file://{warehouse}") as hive_writer,
    ):
        store = {"location": f"s3://{BUCKET}", "endpoint": bucket.endpoint, "region": vending.REGION, "allow_http": True}
        store |= {"access_key_id": s3.KEY, "secret_access_key": s3.SECRET}
        keys = {"s3.access-key-id": s3.KEY, "s3.secret-access-key": s3.SECRET, "s3.region": vending.REGION}
        keys |= {"s3.endpoint": bucket.endpoint, "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
        url = f"postgresql://{postgres.USER}@127.0.0.1:{database.port}/postgres"
        known_to_hive = known_to(hive_writer)

        def make_in_glue(name: str, schema: Schema, spec: PartitionSpec | None = None, version: int = 2) -> None:
            location, first = f"s3://{BUCKET}/glue/{name}", f"metadata/00000-{uuid.uuid4()}.metadata.json"
            path = root / BUCKET / "glue" / name / first
            path.parent.mkdir(parents=True)
            path.write_text(first_metadata(schema, spec, location, version))
            stub.add("shop", name, f"{location}/{first}")

        def make_in_hive(name: str, schema: Schema, spec: PartitionSpec | None = None, version: int = 2, **more: str) -> None:
            if version < 3:
                known_to_hive[0](name, schema, spec, version, **more)
                return
            first = warehouse / "of_format_3" / name / "metadata" / "00000.metadata.json"
            first.parent.mkdir(parents=True)
            first.write_text(first_metadata(schema, spec, f"file://{first.parent.parent}", version))
            hive_writer.register_table(("shop", name), f"file://{first}")

        def load_from_glue(name: str) -> Table:
            return StaticTable.from_metadata(stub.table("shop", name)["Parameters"]["metadata_location"], keys)

        with iceberg_rest.server(database, "sql", f"s3://{BUCKET}/warehouse", bucket.root) as rest:
            text = section("rest", catalog="rest", uri=rest.uri, **store)
            text += section("sql", catalog="sql", uri=url, password=postgres.PASSWORD, **store)
            text += section("hive", catalog="hive", uri=server.uri, location=str(warehouse))
            text += section("glue", catalog="glue", uri=stub.uri, **store)
            with (
                configured(tmp_path_factory.mktemp("catalogs"), text) as gateway,
                in_folder(tmp_path_factory.mktemp("folder")) as folder,
            ):
                known = known_to(RestCatalog("rest", uri=rest.uri, **keys))
                both = {name: Place(gateway, f"{name}.shop", *known, root / BUCKET) for name in ("rest", "sql")}
                by_hive = Place(gateway, "hive.shop", make_in_hive, known_to_hive[1], warehouse)
                by_glue = Place(gateway, "glue.shop", make_in_glue, load_from_glue, root / BUCKET)
                yield {**both, "hive": by_hive, "glue": by_glue, "folder": folder}


@pytest.fixture(params=["rest", "sql", "hive", "glue", "folder"])
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    return places[request.param]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A table of the test's own."""
    return "t" + uuid.uuid5(uuid.NAMESPACE_OID, request.node.nodeid).hex[:12]


def execute(place: Place, sql: str) -> int:
    with flightsql.connect(place.gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.rowcount


def fetched(place: Place, sql: str) -> list[tuple]:
    with flightsql.connect(place.gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def ingest(place: Place, name: str, rows: pa.Table | pa.RecordBatchReader, mode: str = "append") -> int:
    catalog, schema = place.catalog.split(".")
    with flightsql.connect(place.gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        return cursor.adbc_ingest(name, rows, mode=mode, catalog_name=catalog, db_schema_name=schema)


def normal(rows: pa.Table) -> list[dict]:
    """Rows by their ids, in values that compare: NaN is a word, and a UUID its bytes."""

    def value(of: object) -> object:
        if isinstance(of, uuid.UUID):
            return of.bytes
        return "nan" if isinstance(of, float) and math.isnan(of) else of

    found = [{column: value(of) for column, of in row.items()} for row in rows.to_pylist()]
    return sorted(found, key=lambda row: row["id"])


def test_pyiceberg_reads_all_types(place: Place, name: str) -> None:
    place.make(name, TYPES)
    rows = pa.table(VALUES)
    assert ingest(place, name, rows.slice(0, 2)) == 2
    assert ingest(place, name, rows.slice(2, 1)) == 1
    table = place.load(name)
    assert normal(table.scan().to_arrow()) == normal(rows)
    assert fetched(place, f"select count(*), min(id), max(text) from {place.catalog}.{name}") == [
        (3, 1, VALUES["text"][2].as_py())
    ]
    # Each value is found by it, in the files that bounds leave.
    for column, literal in LITERALS.items():
        for row in rows.to_pylist():
            if row[column] is not None:
                scan = table.scan(row_filter=EqualTo(column, literal(row[column])))
                assert row["id"] in scan.to_arrow()["id"].to_pylist(), (column, row[column])
    assert len(list(table.scan(row_filter=EqualTo("id", 3)).plan_files())) == 1
    assert len(list(table.scan(row_filter=EqualTo("text", "a" * 18)).plan_files())) == 1
    assert len(list(table.scan(row_filter=EqualTo("text", "b")).plan_files())) == 0


def expected_partitions() -> set[tuple]:
    """Those of the rows by pyiceberg's own transforms."""
    columns = [ROWS["id"].to_pylist(), ROWS["name"].to_pylist(), ROWS["at"].cast(pa.int64()).to_pylist()]
    made = [
        [field.transform.transform(ORDERS.find_type(field.source_id))(value) for value in columns[field.source_id - 1]]
        for field in PARTS.fields
    ]
    return set(zip(*made, strict=True))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_partitions_are_those_of_pyiceberg(version: int, place: Place, name: str) -> None:
    place.make(name, ORDERS, PARTS, version)
    assert ingest(place, name, ROWS) == ROWS.num_rows
    table = place.load(name)
    assert normal(table.scan().to_arrow()) == normal(ROWS)
    files = [task.file for task in table.scan().plan_files()]
    assert {tuple(file.partition[at] for at in range(len(PARTS.fields))) for file in files} == expected_partitions()
    for row in ROWS.to_pylist():
        if row["name"] is not None:
            found = table.scan(row_filter=EqualTo("name", row["name"])).to_arrow()
            assert row["id"] in found["id"].to_pylist()
    where = f"select id from {place.catalog}.{name} where at < timestamp '1970-01-01' order by id"
    assert fetched(place, where) == [(0,), (1,), (5,)]


def test_rows_by_statements(place: Place, name: str) -> None:
    place.make(name, ORDERS)
    table = f"{place.catalog}.{name}"
    assert execute(place, f"insert into {table} values (1, 'one', null), (2, null, timestamp '2026-01-01 00:00:00')") == 2
    before = place.load(name).current_snapshot()
    assert execute(place, f"insert into {table} (id, name) select id + 10, name from {table}") == 2
    after = place.load(name).current_snapshot()
    assert after.parent_snapshot_id == before.snapshot_id
    assert after.summary["added-records"] == "2"
    assert after.summary["total-records"] == "4"
    old = f'{place.catalog}."{name}@{before.snapshot_id}"'
    assert fetched(place, f"select id from {old} order by id") == [(1,), (2,)]
    assert fetched(place, f"select id, name from {table} where at is null order by id") == [(1, "one"), (11, "one"), (12, None)]
    assert normal(place.load(name).scan().to_arrow()) == normal(
        pa.table(
            {
                "id": [1, 2, 11, 12],
                "name": ["one", None, "one", None],
                "at": [None, datetime.datetime(2026, 1, 1), None, None],
            }
        )
    )
    with pytest.raises(adbc_driver_manager.Error, match="takes no NULL"):
        execute(place, f"insert into {table} (name) values ('x')")


def first_rows(table: Table) -> list[int]:
    """The number of the first row of each manifest of a table of format 3, which pyiceberg does not tell."""
    with AvroFile(table.io.new_input(table.current_snapshot().manifest_list)) as listed:
        place = [field.name for field in listed.schema.fields].index("first_row_id")
        return sorted(manifest[place] for manifest in listed if manifest[place] is not None)


def test_rows_of_format_3_are_numbered(place: Place, name: str) -> None:
    """By ingest, and by statements of ADBC and JDBC. The REST catalog is Iceberg's own, and takes no number twice."""
    place.make(name, ORDERS, PARTS, 3)
    table = f"{place.catalog}.{name}"
    assert ingest(place, name, ROWS) == ROWS.num_rows
    assert execute(place, f"insert into {table} select id + 10, name, at from {table}") == ROWS.num_rows
    insert = f"insert into {table} values (100, 'jdbc', timestamp '2026-01-01 00:00:00'), (101, null, null)"
    assert jdbc.values(jdbc.probe("update", place.gateway.flight, insert)) == {insert: 2}
    loaded = place.load(name)
    assert loaded.metadata.format_version == 3
    assert [(snapshot.first_row_id, snapshot.added_rows) for snapshot in loaded.metadata.snapshots] == [(0, 6), (6, 6), (12, 2)]
    assert loaded.metadata.next_row_id == 14
    assert first_rows(loaded) == [0, 6, 12]
    rows = normal(loaded.scan().to_arrow())
    more = [{**row, "id": row["id"] + 10} for row in normal(ROWS)]
    last = [{"id": 100, "name": "jdbc", "at": datetime.datetime(2026, 1, 1)}, {"id": 101, "name": None, "at": None}]
    assert rows == normal(ROWS) + more + last
    assert fetched(place, f"select id, name, at from {table} order by id") == [tuple(row.values()) for row in rows]
    select = f"select id from {table} where at < timestamp '1970-01-01 00:00:00' order by id"
    read = jdbc.values(jdbc.probe("query", place.gateway.flight, select))[select]["rows"]
    assert [int(number) for [number] in read] == [0, 1, 5, 10, 11, 15]


@pytest.fixture(scope="module")
def of_spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Tables that Spark wrote, of each format and with deletes of each kind, in a bucket that holds them together."""
    root = tmp_path_factory.mktemp("spark") / "root"
    address = moved.put(root)
    folder = root / address.removeprefix("s3://") / "db"
    with s3.server(root) as bucket:
        keys = {"s3.access-key-id": s3.KEY, "s3.secret-access-key": s3.SECRET, "s3.region": vending.REGION}
        keys |= {"s3.endpoint": bucket.endpoint, "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}

        def load(name: str) -> Table:
            files = (folder / name / "metadata").glob("v*.metadata.json")
            newest = max(files, key=lambda path: int(path.name[1:].split(".")[0]))
            return StaticTable.from_metadata(f"{address}/db/{name}/metadata/{newest.name}", keys)

        store = {"location": address, "endpoint": bucket.endpoint, "region": vending.REGION, "allow_http": True}
        store |= {"access_key_id": s3.KEY, "secret_access_key": s3.SECRET}
        with configured(tmp_path_factory.mktemp("gateway"), section("spark", **store)) as gateway:
            yield Place(gateway, "spark.db", lambda: None, load, folder)


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table["catalog"] == "iceberg"])
def test_rows_go_behind_those_of_spark(name: str, of_spark: Place) -> None:
    """What is deleted stays deleted, and what was is as it was."""
    before, table = of_spark.load(name), f"{of_spark.catalog}.{name}"
    was = before.current_snapshot().snapshot_id
    assert execute(of_spark, f"insert into {table} (id) values (1000000), (1000001)") == 2
    assert execute(of_spark, f"insert into {table} (id) select id + 2 from {table} where id >= 1000000") == 2
    now = TABLES[name]["now"]
    assert fetched(of_spark, f"select count(*), max(id) from {table}") == [(now["rows"] + 4, 1_000_003)]
    [old] = [version for version in TABLES[name]["versions"] if version["id"] == str(was)]
    assert [list(row) for row in fetched(of_spark, checksum(name, old, f"@{was}", "spark"))] == expected_of(old)
    after = of_spark.load(name)
    assert [snapshot.snapshot_id for snapshot in after.metadata.snapshots][:-2] == [
        snapshot.snapshot_id for snapshot in before.metadata.snapshots
    ]
    if after.metadata.format_version == 3:
        assert after.metadata.next_row_id == before.metadata.next_row_id + 4
        assert first_rows(after)[-2:] == [before.metadata.next_row_id, before.metadata.next_row_id + 2]
    # Pyiceberg does not read deletes by equality.
    if not name.startswith("ice_eq"):
        ids = after.scan(selected_fields=("id",)).to_arrow()["id"].to_pylist()
        assert sorted(ids) == [number for [number] in fetched(of_spark, f"select id from {table} order by id")]


@pytest.mark.parametrize(
    ("sql", "asked"),
    [
        ("create table {place}.made as select 1 as id", "CREATE TABLE"),
        ("create or replace table {table} as select 1 as id", "CREATE TABLE"),
        ("drop table {table}", "DROP TABLE"),
        ("delete from {table}", "DELETE"),
        ("update {table} set name = 'x'", "UPDATE"),
    ],
)
def test_more_than_rows_is_refused(sql: str, asked: str, places: dict[str, Place]) -> None:
    place, name = places["folder"], "refuses"
    if not (place.files / name).exists():
        place.make(name, ORDERS)
    with pytest.raises(adbc_driver_manager.Error, match=f'"iceberg" does not offer {asked}; it takes rows for tables'):
        execute(place, sql.format(place=place.catalog, table=f"{place.catalog}.{name}"))
    with pytest.raises(adbc_driver_manager.Error, match='"iceberg" does not offer replacing tables; it takes rows for tables'):
        ingest(place, name, ROWS, "replace")
    with pytest.raises(adbc_driver_manager.Error, match='"iceberg" does not offer making tables; it takes rows for tables'):
        ingest(place, "made", ROWS, "create")


@pytest.mark.parametrize("catalog", SHARED)
def test_a_table_that_has_changed(catalog: str, places: dict[str, Place], name: str) -> None:
    place = places[catalog]
    place.make(name, ORDERS)
    assert execute(place, f"insert into {place.catalog}.{name} values (1, 'a', null)") == 1
    table = place.load(name)
    with table.update_schema() as change:
        change.rename_column("name", "title")
        change.add_column("amount", IntegerType())
    with table.update_spec() as change:
        change.add_field("title", IdentityTransform(), "title_part")
    assert execute(place, f"insert into {place.catalog}.{name} (id, title, amount) values (2, 'b', 7)") == 1
    rows = normal(place.load(name).scan().to_arrow())
    assert [(row["id"], row["title"], row["amount"]) for row in rows] == [(1, "a", None), (2, "b", 7)]
    assert fetched(place, f"select id, title, amount from {place.catalog}.{name} order by id") == [(1, "a", None), (2, "b", 7)]


def test_all_who_write_at_once_are_there(place: Place, name: str) -> None:
    """Two connections of the gateway, and pyiceberg where a catalog lets it: each commit is a snapshot, and none is lost."""
    place.make(name, ORDERS)
    times, failed = 4, []

    def by_gateway(first: int) -> None:
        for number in range(first, first + times):
            assert execute(place, f"insert into {place.catalog}.{name} values ({number}, 'gateway', null)") == 1

    def by_pyiceberg(first: int) -> None:
        for number in range(first, first + times):
            row = pa.table({"id": [number], "name": ["pyiceberg"], "at": [None]}, schema=ROWS.schema)
            while True:
                try:
                    place.load(name).append(row)
                    break
                except CommitFailedException:
                    pass

    def run(write: Callable[[int], None], first: int) -> None:
        try:
            write(first)
        except Exception as error:
            failed.append(error)

    writers = [(by_gateway, 0), (by_gateway, 100)]
    if place.catalog.split(".")[0] in SHARED:
        writers.append((by_pyiceberg, 200))
    threads = [threading.Thread(target=run, args=writer) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    expected = sorted(first + number for _, first in writers for number in range(times))
    table = place.load(name)
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == expected
    assert len(table.metadata.snapshots) == len(expected)
    assert fetched(place, f"select count(*) from {place.catalog}.{name}") == [(len(expected),)]


def test_rows_that_break_off_leave_nothing(place: Place, name: str) -> None:
    place.make(name, ORDERS, PARTS)

    def endless() -> Iterator[pa.RecordBatch]:
        for _ in range(20):
            yield from ROWS.to_batches()
        raise ValueError("the rows broke off")

    def files() -> set[Path]:
        return {path for path in place.files.rglob("*") if path.suffix in (".avro", ".parquet")}

    before = files()
    with pytest.raises(Exception, match="broke off"):
        ingest(place, name, pa.RecordBatchReader.from_batches(ROWS.schema, endless()))

    assert eventually(lambda: files() == before, 10)
    assert place.load(name).current_snapshot() is None
    assert fetched(place, f"select count(*) from {place.catalog}.{name}") == [(0,)]


def parameters(hive: tuple[Server, Path], name: str) -> dict[str, str]:
    """What a metastore keeps of a table besides its columns."""
    server, warehouse = hive
    with metastore.catalog(server, f"file://{warehouse}") as catalog, catalog._client as client:
        return client.get_table("shop", name).parameters


def test_a_table_without_locks(places: dict[str, Place], hive: tuple[Server, Path], name: str) -> None:
    """Its property says that the metastore compares; then each commit is there as well, and all else that it knew."""
    place = places["hive"]
    place.make(name, ORDERS, **{"engine.hive.lock-enabled": "false"})
    before = parameters(hive, name)
    errors = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 4):
                assert execute(place, f"insert into {place.catalog}.{name} values ({number}, null, null)") == 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    table = place.load(name)
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == [*range(4), *range(100, 104)]
    after = parameters(hive, name)
    assert after.pop("metadata_location") == table.metadata_location
    assert after.pop("previous_metadata_location") == table.metadata.metadata_log[-1].metadata_file
    assert after.pop("numFiles") == "8"
    told = ("metadata_location", "numFiles", "totalSize")
    assert {key: value for key, value in after.items() if key not in told} == {
        key: value for key, value in before.items() if key not in told
    }


def test_a_metastore_that_is_killed_while_rows_are_written(
    places: dict[str, Place], hive: tuple[Server, Path], name: str
) -> None:
    """The error says which server it was; each statement is there as a whole or not at all, and all that were said to be are."""
    place, (server, _) = places["hive"], hive
    place.make(name, ORDERS)
    said, failed = [], []

    def write() -> None:
        try:
            for number in count():
                execute(place, f"insert into {place.catalog}.{name} values ({number}, 'a', null), ({number}, 'b', null)")
                said.append(number)
        except adbc_driver_manager.Error as error:
            failed.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    assert eventually(lambda: len(said) >= 2, 60)
    server.kill()
    thread.join(120)
    server.start()
    assert "metastore" in failed[0], failed
    found = Counter(place.load(name).scan().to_arrow()["id"].to_pylist())
    assert set(found.values()) == {2}
    assert set(said) <= set(found) <= {*said, len(said)}
    assert fetched(place, f"select count(*) from {place.catalog}.{name}") == [(2 * len(found),)]


def test_a_metastore_that_dies_before_the_end_of_the_rows(places: dict[str, Place], hive: tuple[Server, Path], name: str) -> None:
    place, (server, _) = places["hive"], hive
    place.make(name, ORDERS)

    def rows() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        server.kill()
        yield from ROWS.to_batches()

    with pytest.raises(adbc_driver_manager.Error, match="metastore"):
        ingest(place, name, pa.RecordBatchReader.from_batches(ROWS.schema, rows()))
    server.start()
    assert place.load(name).current_snapshot() is None
    assert eventually(lambda: not [*(place.files / "shop.db" / name).rglob("*.parquet")], 10)
    assert execute(place, f"insert into {place.catalog}.{name} values (1, 'a', null)") == 1
