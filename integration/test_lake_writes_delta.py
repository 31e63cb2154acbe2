"""Delta tables that clients write, in a folder and in a bucket: what arrives is read by deltalake, and tables of deltalake and
of Spark take rows."""

import datetime
import shutil
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

import lakes
from gateway import Gateway, configured, eventually
from written import connected, execute, fetch, ingest, place

UTC = datetime.UTC
ROWS = pa.table(
    {"id": pa.array([1, 2, None], pa.int64()), "name": ["one", None, "三"], "price": [Decimal("1.50"), None, Decimal("-2.25")]}
)
TYPES = pa.table(
    {
        "i8": pa.array([-128, None], pa.int8()),
        "i16": pa.array([-32768, None], pa.int16()),
        "i32": pa.array([-(2**31), None], pa.int32()),
        "i64": pa.array([2**63 - 1, None], pa.int64()),
        "f32": pa.array([0.5, None], pa.float32()),
        "f64": pa.array([float("inf"), None], pa.float64()),
        "n": pa.array([Decimal("-12345678901234567890.12"), None], pa.decimal128(22, 2)),
        "flag": pa.array([True, None], pa.bool_()),
        "text": pa.array(["文 %/", None], pa.string()),
        "b": pa.array([b"\x00\xff", None], pa.binary()),
        "d": pa.array([datetime.date(1969, 12, 31), None], pa.date32()),
        "ts": pa.array([datetime.datetime(2024, 1, 1, 0, 0, 0, 1), None], pa.timestamp("us")),
        "tz": pa.array([datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), None], pa.timestamp("us", "UTC")),
        "l": pa.array([["a", None], None], pa.list_(pa.string())),
        "s": pa.array([{"x": 1.5}, None], pa.struct([("x", pa.float64())])),
    }
)
PARTS = pa.table(
    {
        "id": pa.array(range(6), pa.int64()),
        "region": ["华 北", "50%", "a/b=c", None, "50%", None],
        "day": pa.array([datetime.date(2024, 1, 1 + n % 2) for n in range(6)], pa.date32()),
    }
)


@pytest.fixture(scope="module", params=["folder", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    """A gateway over an empty place, and the folder where its files arrive."""
    with place(
        request.param,
        tmp_path_factory.mktemp("written"),
        '[cache]\nsize = "0"\n[catalogs.lake]\nkind = "delta"\nwritable = true\n',
    ) as made:
        yield made


@pytest.fixture
def connection(lake: tuple[Gateway, Path]) -> Iterator[flightsql.Connection]:
    with connected(lake[0]) as connection:
        yield connection


def ordered(rows: list[tuple]) -> list[tuple]:
    return sorted(rows, key=str)


def listed(table: pa.Table) -> list[tuple]:
    return ordered(list(zip(*table.to_pydict().values(), strict=True)))


def arrived(folder: Path, name: str = "t", **options: object) -> list[tuple]:
    """What deltalake finds there."""
    return listed(DeltaTable(folder / name).to_pyarrow_table(**options))


def files(folder: Path) -> list[str]:
    """What is there of a table besides folders."""
    return sorted(path.name for path in (folder / "t").rglob("*") if path.is_file())


def test_ingest_in_every_mode(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    folder, rows = lake[1], listed(ROWS)
    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        ingest(connection, ROWS, "append")
    assert ingest(connection, ROWS, "create") == 3
    with pytest.raises(adbc_driver_manager.Error, match="exists already"):
        ingest(connection, ROWS, "create")
    assert ingest(connection, ROWS, "append") == 3
    assert ingest(connection, ROWS, "create_append") == 3
    assert arrived(folder) == ordered(rows * 3)
    assert ordered(fetch(connection, "select * from t")) == ordered(rows * 3)
    assert ingest(connection, TYPES, "replace") == 2
    assert arrived(folder) == listed(TYPES)
    assert DeltaTable(folder / "t").version() == 3
    assert fetch(connection, "select i8, i64, n, text, d, ts from t where flag") == [
        tuple(TYPES.column(name)[0].as_py() for name in ("i8", "i64", "n", "text", "d", "ts"))
    ]
    assert fetch(connection, 'select count(*) from "t@2"') == [(9,)]


def test_what_would_be_lost_is_refused(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    for column in (pa.array([1], pa.uint32()), pa.array([1], pa.time64("us")), pa.array([1], pa.timestamp("ns"))):
        with pytest.raises(adbc_driver_manager.Error, match="cast"):
            ingest(connection, pa.table({"c": column}), "create")
    assert eventually(lambda: files(lake[1]) == [], 10)
    with pytest.raises(adbc_driver_manager.Error):
        execute(connection, 'create table "t@1" as select 1 as a')


def test_a_stream_that_breaks_off_leaves_nothing(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise ValueError("no more")

    for mode in ("create", "replace"):
        with pytest.raises((adbc_driver_manager.Error, ValueError)):
            ingest(connection, pa.RecordBatchReader.from_batches(ROWS.schema, broken()), mode)
    assert eventually(lambda: files(lake[1]) == [], 10)
    ingest(connection, ROWS, "create")
    before = files(lake[1])
    with pytest.raises((adbc_driver_manager.Error, ValueError)):
        ingest(connection, pa.RecordBatchReader.from_batches(ROWS.schema, broken()), "append")
    assert eventually(lambda: files(lake[1]) == before, 10)
    assert arrived(lake[1]) == listed(ROWS)


def test_statements_that_write(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    assert execute(connection, "create table t (id bigint, name varchar)") == 0
    assert arrived(lake[1]) == []
    assert execute(connection, "insert into t values (1, 'one'), (2, 'two'), (3, '三')") == 3
    assert execute(connection, "insert into t (name) select 'late'") == 1
    assert execute(connection, "update t set name = upper(name) where id < 3") == 2
    assert execute(connection, "delete from t where id = 3") == 1
    assert arrived(lake[1]) == ordered([(1, "ONE"), (2, "TWO"), (None, "late")])
    assert execute(connection, "create table u as select id * 2 as twice from t where id is not null") == 2
    assert ordered(fetch(connection, "select twice from u join t on twice = id")) == [(2,)]
    assert execute(connection, "delete from t") == 3
    assert arrived(lake[1]) == []
    assert execute(connection, "drop table t") == 0
    assert files(lake[1]) == []
    assert fetch(connection, "select table_name from lake.information_schema.tables where table_schema = 'main'") == [("u",)]
    assert execute(connection, "create table t as select 'anew' as a") == 1
    assert arrived(lake[1]) == [("anew",)]


def test_a_table_of_deltalake_with_partitions(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    folder, rows = lake[1], listed(PARTS)
    write_deltalake(folder / "t", PARTS, partition_by=["region", "day"])
    assert ordered(fetch(connection, "select * from t")) == rows
    assert ingest(connection, PARTS, "append") == 6
    assert execute(connection, "insert into t values (6, '', date '2024-01-03')") == 1
    late = (6, None, datetime.date(2024, 1, 3))
    assert arrived(folder) == ordered([*rows, *rows, late])
    # By partitions, and by the bounds of files.
    assert arrived(folder, filters=[("region", "=", "50%")]) == ordered([row for row in rows if row[1] == "50%"] * 2)
    assert arrived(folder, filters=[("id", ">", 4)]) == ordered([row for row in rows if row[0] > 4] * 2 + [late])
    assert execute(connection, "update t set region = '南' where region = 'a/b=c'") == 2
    assert execute(connection, "delete from t where id < 2") == 4
    kept = [(number, "南" if region == "a/b=c" else region, day) for number, region, day in rows if number >= 2]
    assert arrived(folder) == ordered([*kept, *kept, late])
    assert ordered(fetch(connection, "select * from t")) == ordered([*kept, *kept, late])
    write_deltalake(folder / "t", PARTS, mode="append")
    assert fetch(connection, "select count(*) from t") == [(2 * len(kept) + 7,)]


def check_found(folder: Path, name: str, value: object) -> None:
    for comparison in ("=", ">=", "<="):
        found = DeltaTable(folder / "t").to_pyarrow_table(filters=[(name, comparison, value)])
        assert value in found.column(name).to_pylist(), (name, comparison, value)


def test_bounds_leave_out_no_row(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    texts = [letter * 40 + end for letter in ("a", "é", "\U0010ffff") for end in ("", "x")]
    times = [datetime.datetime(2024, 1, 1, 0, 0, second, 999_999, UTC) for second in range(6)]
    rows = pa.table({"text": texts, "at": pa.array(times, pa.timestamp("us", "UTC")), "f": [float("nan"), *map(float, range(5))]})
    execute(connection, "create table t (text varchar, at timestamp with time zone, f double)")
    for row in range(6):
        assert ingest(connection, rows.slice(row, 1), "append") == 1
    for text, time in zip(texts, times, strict=True):
        for name, value in (("text", text), ("at", time)):
            check_found(lake[1], name, value)
    for number in range(5):
        check_found(lake[1], "f", float(number))
    assert fetch(connection, "select count(*) from t where f > 3") == [(2,)]


def test_many_writers_lose_nothing(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    execute(connection, "create table t (id bigint)")
    failed: list[BaseException] = []

    def writer(number: int) -> None:
        try:
            with flightsql.connect(lake[0].uri, autocommit=True) as own:
                for row in range(8):
                    execute(own, f"insert into t values ({number * 8 + row})")
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    writers = [threading.Thread(target=writer, args=(number,)) for number in range(3)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert not failed
    assert fetch(connection, "select count(*), count(distinct id) from t") == [(24, 24)]
    assert DeltaTable(lake[1] / "t").version() == 24
    assert [row[0] for row in arrived(lake[1])] == sorted(range(24), key=lambda number: str((number,)))
    assert {name for name in files(lake[1]) if "checkpoint.parquet" in name} == {
        f"{version:020}.checkpoint.parquet" for version in (10, 20)
    }


@pytest.mark.parametrize("name", ["delta_partitioned", "delta_dv", "delta_name", "delta_id", "delta_ntz"])
def test_a_table_of_spark_takes_rows(name: str, tmp_path: Path) -> None:
    shutil.copytree(lakes.folder() / "delta" / "main" / name, tmp_path / "data" / "t")
    catalog = f'[cache]\nsize = "0"\n[catalogs.lake]\nkind = "delta"\nwritable = true\nlocation = "{tmp_path / "data"}"\n'
    asked = "select count(*) as n, sum(id) as ids, sum(k) as ks, count(distinct id) as d from t"

    def others() -> list[tuple]:
        table = QueryBuilder().register("t", DeltaTable(tmp_path / "data" / "t")).execute(asked).read_all()
        return listed(pa.table(table))

    with configured(tmp_path, catalog, replicas=1) as gateway, flightsql.connect(gateway.uri, autocommit=True) as connection:
        [(n, ids, ks, d)] = fetch(connection, asked)
        assert others() == [(n, ids, ks, d)]
        assert execute(connection, "insert into t select * from t") == n
        assert fetch(connection, asked) == others() == [(2 * n, 2 * ids, 2 * ks, d)]
        gone = execute(connection, "delete from t where k = 3")
        assert 0 < gone < 2 * n
        assert fetch(connection, asked) == others()
        assert others()[0][0] == 2 * n - gone
