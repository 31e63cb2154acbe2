"""A filter opens no file of a lake table but those that it needs: its answer is right where all others are gone. Hudi tells what
is in a file by its partition at most; else each of its files is opened, and no rows are read but of those that a filter needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.types import DateType, LongType, NestedField, StringType, TimestampType

import many_files
from gateway import configured
from many_files import file_of, keys
from wire import Client

KINDS = ("iceberg", "delta", "hudi")
COUNT = 50
# The files that are there.
LEFT = (0, 17, 49)
# Conditions that leave out files by their partitions, or by the bounds of what is in them, and the keys that they leave.
BY_PART: dict[str, list[int]] = {
    "part = 17": [*keys(17)],
    "part in (0, 49)": [*keys(0), *keys(49)],
    "part < 1 or part = 49": [*keys(0), *keys(49)],
    "part between 17 and 17 and key % 2 = 0": [170, 172, 174, 176, 178],
    "part >= 49": [*keys(49)],
    "part is null": [],
    "part = 50": [],
}
BY_BOUNDS: dict[str, list[int]] = BY_PART | {
    "key = 175": [175],
    "key between 170 and 172": [170, 171, 172],
    "key in (3, 498)": [3, 498],
    "column_1 = date '2000-06-24'": [175],
    "column_2 >= cast('4.95' as decimal(15, 2))": [495, 496, 497, 498, 499],
    "column_3 < '000000000003'": [0, 1, 2],
    "key is null": [],
    "key = 500": [],
}
TABLES: dict[str, tuple[Callable[..., object], bool, dict[str, list[int]]]] = {
    "iceberg.main.partitioned": (many_files.iceberg, True, BY_PART),
    "iceberg.main.bounded": (many_files.iceberg, False, BY_BOUNDS),
    "delta.main.partitioned": (many_files.delta, True, BY_PART),
    "delta.main.bounded": (many_files.delta, False, BY_BOUNDS),
}
# Of the second its metadata tells what the partitions are of.
HUDI, HUDI_TOLD = "hudi.main.partitioned", "hudi.main.told"
# Whether a partition has NULL it does not tell.
TOLD = {condition: left for condition, left in BY_PART.items() if condition != "part is null"}
CASES = [(table, condition, left) for table, (*_, cases) in TABLES.items() for condition, left in cases.items()]

each_table = pytest.mark.parametrize("table", TABLES)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A gateway over tables of which most files were removed, or have no rows any more."""
    folder = tmp_path_factory.mktemp("pruning")
    for name in ("partitioned", "told"):
        for part, file in enumerate(many_files.hudi(folder / "hudi" / name, COUNT, name == "told")):
            if part not in LEFT:
                many_files.hollowed(file)
    for table, (make, partitioned, _) in TABLES.items():
        kind, _, name = table.split(".")
        make(folder / kind / name, COUNT, partitioned)
        for part in set(range(COUNT)) - set(LEFT):
            file_of(folder / kind / name, part).unlink()
    catalogs = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{folder / kind}"\n' for kind in KINDS]
    with configured(folder, '[cache]\nsize = "0"\n' + "".join(catalogs)) as gateway, Client(gateway.flight) as opened:
        yield opened


@pytest.mark.parametrize(("table", "condition", "left"), CASES, ids=[f"{table}-{condition}" for table, condition, _ in CASES])
def test_no_other_file_is_opened(table: str, condition: str, left: list[int], client: Client) -> None:
    sql = f"select key from {table} where {condition}"
    assert sorted(row["key"] for row in client.rows(sql)) == left
    assert many_files.opened(client, sql) == len({key // many_files.ROWS for key in left})


@pytest.mark.parametrize(("condition", "left"), BY_BOUNDS.items(), ids=BY_BOUNDS)
def test_rows_of_no_other_file_of_hudi_are_read(condition: str, left: list[int], client: Client) -> None:
    sql = f"select key from {HUDI} where {condition}"
    assert sorted(row["key"] for row in client.rows(sql)) == left
    assert many_files.opened(client, sql, "row_groups") == len({key // many_files.ROWS for key in left})


@pytest.mark.parametrize(("condition", "left"), TOLD.items(), ids=TOLD)
def test_no_file_of_another_partition_of_hudi_is_opened(condition: str, left: list[int], client: Client) -> None:
    sql = f"select key from {HUDI_TOLD} where {condition}"
    assert sorted(row["key"] for row in client.rows(sql)) == left
    assert many_files.opened(client, sql) == len({key // many_files.ROWS for key in left})


@each_table
def test_a_filter_that_needs_another_file_fails(table: str, client: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.rows(f"select key from {table} where part in (16, 17)")
    assert "the table's metadata names this file, and it is not there" in error.value.details()


def test_a_filter_that_needs_other_rows_of_hudi_fails(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.rows(f"select key from {HUDI} where part in (16, 17)")
    assert "part=16/" in error.value.details()


@pytest.mark.parametrize("table", [*TABLES, HUDI])
def test_all_rows_are_counted_without_a_file(table: str, client: Client) -> None:
    assert client.rows(f"select count(*) as n from {table}") == [{"n": COUNT * many_files.ROWS}]


@each_table
def test_ends_are_told_without_a_file(table: str, client: Client) -> None:
    """By the partitions of the files where they have some, else by the bounds of what is in them."""
    column, most = ("part", COUNT - 1) if table.endswith("partitioned") else ("key", COUNT * many_files.ROWS - 1)
    sql = f"select min({column}) as least, max({column}) as most from {table}"
    assert client.rows(sql) == [{"least": 0, "most": most}]
    assert many_files.opened(client, sql) == 0


FIELDS = (
    NestedField(1, "id", LongType()),
    NestedField(2, "name", StringType()),
    NestedField(3, "day", DateType()),
    NestedField(4, "at", TimestampType()),
)
NUMBERS = range(120)
# The last one has NULL in every column but the first.
NAMES = [f"{chr(97 + number // 10)}{chr(97 + number % 10)}{number}" for number in NUMBERS[:-1]] + [None]
DAYS = [date(2015, 12, 20) + timedelta(25 * number) for number in NUMBERS[:-1]] + [None]
TIMES = [datetime(2019, 12, 31, 10) + timedelta(minutes=20 * number) for number in NUMBERS[:-1]] + [None]
# Tables that are partitioned by what is made of a column, and conditions with the numbers that they leave.
HIDDEN: dict[str, tuple[Transform, str, dict[str, list[int]]]] = {
    "by_number": (
        BucketTransform(8),
        "id",
        {"id = 7": [7], "id in (7, 60, 61)": [7, 60, 61], "id = 7 or id = 8": [7, 8], "id = 7 and name = 'x'": []},
    ),
    "by_text": (BucketTransform(8), "name", {"name = 'ah7'": [7], "name in ('ah7', 'ga60')": [7, 60]}),
    "by_date": (BucketTransform(8), "day", {f"day = date '{DAYS[7]}'": [7]}),
    "by_time": (BucketTransform(8), "at", {f"at = timestamp '{TIMES[7]}'": [7]}),
    "by_tens": (TruncateTransform(10), "id", {"id = 75": [75], "id between 75 and 82": [*range(75, 83)], "id > 117": [118, 119]}),
    "by_letter": (
        TruncateTransform(1),
        "name",
        {"name = 'ah7'": [7], "name like 'c%'": [*range(20, 30)], "name < 'b'": [*range(10)], "name is null": [119]},
    ),
    "by_year": (YearTransform(), "day", {"day < date '2016-01-01'": [0], f"day = date '{DAYS[7]}'": [7]}),
    "by_month": (MonthTransform(), "day", {f"day <= date '{DAYS[2]}'": [0, 1, 2], "day is null": [119]}),
    "by_day": (DayTransform(), "at", {"at < timestamp '2019-12-31 11:00:00'": [0, 1, 2], f"at = timestamp '{TIMES[70]}'": [70]}),
    "by_hour": (
        HourTransform(),
        "at",
        {"at >= timestamp '2020-01-01 00:00:00' and at < timestamp '2020-01-01 02:00:00'": [*range(42, 48)]},
    ),
}
HIDDEN_CASES = [(table, condition, left) for table, (*_, cases) in HIDDEN.items() for condition, left in cases.items()]


@dataclass
class Hidden:
    """A gateway over the tables, and the numbers that each file of each table had."""

    client: Client
    files: dict[str, list[set[int]]]


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hidden]:
    """Tables with a file for each partition, less the files that no condition needs."""
    folder, files = tmp_path_factory.mktemp("hidden"), {}
    rows = pa.table({"id": pa.array(NUMBERS, pa.int64()), "name": NAMES, "day": DAYS, "at": pa.array(TIMES, pa.timestamp("us"))})
    for table, (transform, column, _) in HIDDEN.items():
        [source] = [field.field_id for field in FIELDS if field.name == column]
        spec = PartitionSpec(PartitionField(source, 1000, transform, "part"))
        place = folder / "data" / table
        made = new_table_metadata(Schema(*FIELDS), spec, UNSORTED_SORT_ORDER, f"file://{place}", {"format-version": "2"})
        (place / "metadata").mkdir(parents=True)
        (place / "metadata" / "v1.metadata.json").write_text(made.model_dump_json())
    text = f'[catalogs.lake]\nkind = "iceberg"\nlocation = "{folder / "data"}"\nwritable = true\n'
    with configured(folder, '[cache]\nsize = "0"\n' + text) as gateway, Client(gateway.flight) as opened:
        with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
            for table in HIDDEN:
                cursor.adbc_ingest(table, rows, mode="append", catalog_name="lake", db_schema_name="main")
        for table, (*_, cases) in HIDDEN.items():
            needed = {number for left in cases.values() for number in left}
            held = {file: _numbers(file) for file in (folder / "data" / table).rglob("*.parquet")}
            for file in [file for file, numbers in held.items() if not numbers & needed]:
                file.unlink()
            files[table] = list(held.values())
        yield Hidden(opened, files)


def _numbers(file: Path) -> set[int]:
    return set(pq.read_table(file, columns=["id"])["id"].to_pylist())


@pytest.mark.parametrize(
    ("table", "condition", "left"), HIDDEN_CASES, ids=[f"{table}-{condition}" for table, condition, _ in HIDDEN_CASES]
)
def test_no_file_of_another_hidden_partition_is_opened(table: str, condition: str, left: list[int], hidden: Hidden) -> None:
    sql = f"select id from lake.main.{table} where {condition}"
    assert sorted(row["id"] for row in hidden.client.rows(sql)) == left
    needed = sum(bool(numbers & set(left)) for numbers in hidden.files[table])
    assert many_files.opened(hidden.client, sql) == needed < len(hidden.files[table])
