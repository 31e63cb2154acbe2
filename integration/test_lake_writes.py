"""Rows that the gateway puts into Iceberg tables: pyiceberg, which made them, reads the same back, and both write at once."""

import datetime
import json
import math
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import EqualTo
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
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

import iceberg_rest
import postgres
import s3
import vending
from gateway import Gateway, configured, eventually

BUCKET = "lake"
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


@dataclass
class Place:
    """A gateway over tables that pyiceberg makes: how a table is made and loaded there, and where its files come to be."""

    gateway: Gateway
    catalog: str
    make: Callable[..., None]
    load: Callable[[str], Table]
    files: Path


def section(name: str, **options: object) -> str:
    lines = "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())
    return f'\n[catalogs.{name}]\nkind = "iceberg"\nwritable = true\n{lines}'


@contextmanager
def in_folder(folder: Path) -> Iterator[Place]:
    """Tables that only a folder holds together."""
    data = folder / "data"
    data.mkdir()

    def make(name: str, schema: Schema, spec: PartitionSpec | None = None, version: int = 2) -> None:
        metadata = data / name / "metadata"
        metadata.mkdir(parents=True)
        properties = {"format-version": str(version)}
        made = new_table_metadata(schema, spec or PartitionSpec(), UNSORTED_SORT_ORDER, f"file://{data / name}", properties)
        (metadata / "v1.metadata.json").write_text(made.model_dump_json())

    def load(name: str) -> Table:
        newest = max((data / name / "metadata").glob("v*.metadata.json"), key=lambda path: int(path.name[1:].split(".")[0]))
        return StaticTable.from_metadata(f"file://{newest}")

    with configured(folder, section("lake", location=str(data))) as gateway:
        yield Place(gateway, "lake.main", make, load, data)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """The same tables by a REST and by a SQL catalog, and others in a folder."""
    root = tmp_path_factory.mktemp("s3") / "root"
    (root / BUCKET).mkdir(parents=True)
    with s3.server(root) as bucket, postgres.server() as database:
        store = {"location": f"s3://{BUCKET}", "endpoint": bucket.endpoint, "region": vending.REGION, "allow_http": True}
        store |= {"access_key_id": s3.KEY, "secret_access_key": s3.SECRET}
        keys = {"s3.access-key-id": s3.KEY, "s3.secret-access-key": s3.SECRET, "s3.region": vending.REGION}
        keys |= {"s3.endpoint": bucket.endpoint, "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
        url = f"postgresql://{postgres.USER}@127.0.0.1:{database.port}/postgres"
        with iceberg_rest.server(database, "sql", f"s3://{BUCKET}/warehouse", bucket.root) as server:
            writer = RestCatalog("rest", uri=server.uri, **keys)
            writer.create_namespace("shop")

            def make(name: str, schema: Schema, spec: PartitionSpec | None = None, version: int = 2) -> None:
                properties = {"format-version": str(version)}
                writer.create_table(("shop", name), schema, partition_spec=spec or PartitionSpec(), properties=properties)

            def load(name: str) -> Table:
                return writer.load_table(("shop", name))

            text = section("rest", catalog="rest", uri=server.uri, **store)
            text += section("sql", catalog="sql", uri=url, password=postgres.PASSWORD, **store)
            with (
                configured(tmp_path_factory.mktemp("catalogs"), text) as gateway,
                in_folder(tmp_path_factory.mktemp("folder")) as folder,
            ):
                both = {name: Place(gateway, f"{name}.shop", make, load, root / BUCKET) for name in ("rest", "sql")}
                yield {**both, "folder": folder}


@pytest.fixture(params=["rest", "sql", "folder"])
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


@pytest.mark.parametrize("version", [1, 2])
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


@pytest.mark.parametrize(
    "sql",
    [
        "create table {place}.made as select 1 as id",
        "create or replace table {table} as select 1 as id",
        "drop table {table}",
        "delete from {table}",
        "update {table} set name = 'x'",
    ],
)
def test_more_than_rows_is_refused(sql: str, places: dict[str, Place]) -> None:
    place, name = places["folder"], "refuses"
    if not (place.files / name).exists():
        place.make(name, ORDERS)
    with pytest.raises(adbc_driver_manager.Error, match="takes rows for tables that are there"):
        execute(place, sql.format(place=place.catalog, table=f"{place.catalog}.{name}"))
    with pytest.raises(adbc_driver_manager.Error, match="takes rows for tables that are there"):
        ingest(place, name, ROWS, "replace")


@pytest.mark.parametrize("catalog", ["rest", "sql"])
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
    if place.catalog != "lake.main":
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
