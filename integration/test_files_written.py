"""Tables of files that clients write, in a folder and in a bucket: what arrives is read by others than the gateway."""

import os
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import duckdb
import pyarrow as pa
import pytest
import requests

from gateway import Gateway, configured, eventually
from written import connected, execute, fetch, ingest, place

ROWS = pa.table(
    {"id": pa.array([1, 2, None], pa.int64()), "name": ["one", None, "三"], "price": [Decimal("1.50"), None, Decimal("-2.25")]}
)
TYPES = pa.table(
    {
        "d": pa.array([20_000, None], pa.date32()),
        "ts": pa.array([1, None], pa.timestamp("us")),
        "tz": pa.array([1, None], pa.timestamp("us", "UTC")),
        "b": pa.array([b"\x00\xff", None], pa.binary()),
        "l": pa.array([["a", None], []], pa.list_(pa.string())),
        "s": pa.array([{"x": 1.5}, None], pa.struct([("x", pa.float64())])),
    }
)


@pytest.fixture(scope="module", params=["folder", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    """A gateway over an empty place, and the folder where its files arrive."""
    with place(request.param, tmp_path_factory.mktemp("written"), '[catalogs.lake]\nkind = "files"\nwritable = true\n') as made:
        yield made


@pytest.fixture
def connection(lake: tuple[Gateway, Path]) -> Iterator[flightsql.Connection]:
    with connected(lake[0]) as connection:
        yield connection


def arrived(folder: Path, columns: str = "*") -> list[tuple]:
    """What another reader of Parquet finds there."""
    return duckdb.sql(f"select {columns} from read_parquet('{folder}/t/*.parquet') order by all").fetchall()


def files(folder: Path) -> list[str]:
    table = folder / "t"
    return sorted(path.name for path in table.iterdir()) if table.is_dir() else []


def test_ingest_in_every_mode(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    folder = lake[1]
    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        ingest(connection, ROWS, "append")
    assert ingest(connection, ROWS, "create") == 3
    with pytest.raises(adbc_driver_manager.Error, match="exists already"):
        ingest(connection, ROWS, "create")
    assert ingest(connection, ROWS, "append") == 3
    assert ingest(connection, ROWS, "create_append") == 3
    rows = sorted(zip(*ROWS.to_pydict().values(), strict=True), key=str)
    assert sorted(arrived(folder), key=str) == sorted(rows * 3, key=str)
    assert sorted(fetch(connection, "select * from t"), key=str) == sorted(rows * 3, key=str)
    assert ingest(connection, TYPES, "replace") == 2
    assert files(folder) == [name for name in files(folder) if name.endswith(".parquet")]
    assert len(files(folder)) == 1
    assert fetch(connection, "select count(*), count(d), count(tz), count(l) from t") == [(2, 1, 1, 2)]
    assert arrived(folder, "d, b, l, s")[0][1] == b"\x00\xff"


def test_a_stream_that_breaks_off_leaves_nothing(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise ValueError("no more")

    for mode in ("create", "replace"):
        with pytest.raises((adbc_driver_manager.Error, ValueError)):
            ingest(connection, pa.RecordBatchReader.from_batches(ROWS.schema, broken()), mode)
    assert files(lake[1]) == []
    ingest(connection, ROWS, "create")
    with pytest.raises((adbc_driver_manager.Error, ValueError)):
        ingest(connection, pa.RecordBatchReader.from_batches(ROWS.schema, broken()), "append")
    assert len(arrived(lake[1])) == 3


# What a file holds back before its first rows are sent, and what of these is one part.
ROW_GROUP, PART = 64 << 20, 16 << 20


@pytest.mark.parametrize("lake", ["bucket"], indirect=True)
def test_the_parts_of_a_stream_that_breaks_off_are_removed(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    root = lake[1].parents[1]
    schema = pa.schema({"noise": pa.binary()})
    begun: list[bool] = []

    def uploads() -> list[str]:
        """What the server has of uploads that have not ended."""
        return [path.name for path in root.glob(".upload*")]

    def are_there() -> bool:
        """At least two parts, and no other on its way."""
        return sum(".part-" in name for name in uploads()) >= 2 and not any(root.glob(".tmp.*"))

    def broken() -> Iterator[pa.RecordBatch]:
        # What cannot be made smaller, and more than a group of rows, whose parts are sent.
        for _ in range((ROW_GROUP + 2 * PART) >> 20):
            yield pa.record_batch([pa.array([os.urandom(1 << 16) for _ in range(16)], pa.binary())], schema=schema)
        begun.append(eventually(are_there, 30))
        raise ValueError("no more")

    assert uploads() == []
    with pytest.raises((adbc_driver_manager.Error, ValueError)):
        ingest(connection, pa.RecordBatchReader.from_batches(schema, broken()), "create")
    assert begun == [True]
    assert eventually(lambda: uploads() == [], 10)
    assert files(lake[1]) == []


def test_statements_that_write(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    assert execute(connection, "create table t (id bigint, name varchar)") == 0
    assert execute(connection, "insert into t values (1, 'one'), (2, 'two'), (3, '三')") == 3
    assert execute(connection, "insert into t (name) select 'late'") == 1
    assert execute(connection, "update t set name = upper(name) where id < 3") == 2
    assert execute(connection, "delete from t where id = 3") == 1
    assert arrived(lake[1]) == [(1, "ONE"), (2, "TWO"), (None, "late")]
    assert execute(connection, "create table u as select id * 2 as twice from t where id is not null") == 2
    assert sorted(fetch(connection, "select twice from u join t on twice = id")) == [(2,)]
    assert execute(connection, "drop table t") == 0
    assert files(lake[1]) == []
    assert fetch(connection, "select table_name from lake.information_schema.tables where table_schema = 'main'") == [("u",)]


def test_many_writers_lose_nothing(lake: tuple[Gateway, Path], connection: flightsql.Connection) -> None:
    execute(connection, "create table t (id bigint)")
    failed: list[BaseException] = []

    def writer(number: int) -> None:
        try:
            with flightsql.connect(lake[0].uri, autocommit=True) as own:
                for row in range(10):
                    execute(own, f"insert into t values ({number * 10 + row})")
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    writers = [threading.Thread(target=writer, args=(number,)) for number in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert not failed
    assert fetch(connection, "select count(*), count(distinct id) from t") == [(40, 40)]


def test_a_name_that_is_too_long_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    catalog = f'[catalogs.lake]\nkind = "files"\nwritable = true\nlocation = "{tmp_path / "data"}"\n'
    with configured(tmp_path, catalog, replicas=1) as gateway:

        def create(name: str) -> requests.Response:
            return requests.post(f"{gateway.url}/v1/sql", data=f"create table {name} as select 1 as a".encode(), timeout=10)

        assert create("l" * 255).status_code == 200
        answer = create("l" * 256)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["kind"], error["retryable"]) == ("invalid", False)
        assert error["message"] == "the file system takes no name as long as this"


def test_there_are_no_transactions(connection: flightsql.Connection, lake: tuple[Gateway, Path]) -> None:
    execute(connection, "create table t (id bigint)")
    said = pytest.raises(adbc_driver_manager.Error, match='the catalog "lake" of kind "files" has no transactions')
    with flightsql.connect(lake[0].uri) as other, said:
        execute(other, "insert into t values (1)")
