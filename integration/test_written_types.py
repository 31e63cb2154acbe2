"""Every Arrow type that clients put into a new table of each kind that takes rows: as it was, or refused by name."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest

import postgres
from gateway import Gateway, configured
from types_table import COLUMNS, Column, array
from wire import reserved, running

# With what a file of Parquet would take and not give back.
EVERY = [
    *COLUMNS,
    Column("dictionary_of_booleans", pa.dictionary(pa.int8(), pa.bool_()), [True, False], []),
    Column("dictionary_of_halves", pa.dictionary(pa.int8(), pa.float16()), [1.5], []),
    Column("dictionary_of_long_decimals", pa.dictionary(pa.int8(), pa.decimal128(19, 2)), [Decimal("1.50")], []),
    Column("decimal_of_one_digit", pa.decimal32(1, 0), [Decimal(7)], []),
]
SCHEMA = {"memory": "main", "files": "main", "postgres": "public"}
# What a kind has no type for.
REFUSED = {
    "memory": set(),
    "files": {
        "interval",
        "dictionary_of_views",
        "dictionary_of_lists",
        "dictionary_of_dictionaries",
        "dense_union",
        "sparse_union",
        "dense_union_of_unsigned",
        "sparse_union_of_views",
        "run_end_encoded",
        "decimal_of_one_digit",
    },
    "postgres": {
        "decimal256",
        "date64",
        "duration_s",
        "duration_ms",
        "duration_us",
        "duration_ns",
        "large_list_view",
        "large_list_view_of_views",
        "struct",
        "map",
        "struct_of_dictionaries",
        "dense_union",
        "sparse_union",
        "dense_union_of_unsigned",
        "sparse_union_of_views",
        "run_end_encoded",
    },
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def gateway(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a catalog of each kind that takes rows."""
    with postgres.server() as database:
        text = postgres.catalogs(lake, database)
        with configured(tmp_path_factory.mktemp("types"), text, replicas=1) as gateway:
            yield gateway


def put(cursor: flightsql.Cursor, catalog: str, table: str, columns: list[Column]) -> pa.Table:
    """Makes a table of columns that have the names of their types; gives its rows."""
    length = max(len(column.values) for column in columns) + 1
    rows = {}
    for column in columns:
        # PostgreSQL has no text with a NUL in it.
        values = [None if catalog == "postgres" and value == "a\x00b" else value for value in column.values]
        rows[column.name] = array([*values, *[None] * (length - len(values))], column.type)
    made = pa.table(rows)
    cursor.adbc_ingest(table, made, mode="create", catalog_name=catalog, db_schema_name=SCHEMA[catalog])
    return made


@pytest.mark.parametrize("catalog", SCHEMA)
def test_types_are_written_as_they_are(catalog: str, cursor: flightsql.Cursor) -> None:
    """All at once, since each ingest waits a moment for its end."""
    rows = put(cursor, catalog, "every", [column for column in EVERY if column.name not in REFUSED[catalog]])
    cursor.execute(f"select * from {catalog}.{SCHEMA[catalog]}.every")
    got = cursor.fetch_arrow_table()
    assert got.column_names == rows.column_names
    different = {name: got[name] for name in rows.column_names if got[name].to_pylist() != rows[name].to_pylist()}
    assert not different


# What no statement writes a value of, neither from parameters nor from literals; a database has lists in their place.
ONLY_INGESTED = {"list_view", "large_list_view", "list_view_of_views", "large_list_view_of_views"}


@pytest.mark.parametrize("catalog", SCHEMA)
def test_rows_of_parameters_of_every_type_are_inserted(catalog: str, cursor: flightsql.Cursor) -> None:
    """A row of each by itself, and many with NULLs at once, which are the same as when they are put in."""
    left_out = REFUSED[catalog] | (set() if catalog == "postgres" else ONLY_INGESTED)
    columns = [column for column in EVERY if column.name not in left_out]
    [rows] = put(cursor, catalog, "bound", columns).combine_chunks().to_batches()
    table = f"{catalog}.{SCHEMA[catalog]}.bound"
    places = ", ".join("?" for _ in columns)
    for batch in (rows.slice(0, 1), rows):
        cursor.execute(f"delete from {table}")
        cursor.executemany(f"insert into {table} values ({places})", batch)
        assert cursor.rowcount == batch.num_rows
        cursor.execute(f"select * from {table}")
        got = cursor.fetch_arrow_table()
        assert not {name: got[name] for name in got.column_names if got[name].to_pylist() != batch[name].to_pylist()}


@pytest.mark.parametrize("catalog", SCHEMA)
def test_dictionaries_of_every_batch_are_written(catalog: str, cursor: flightsql.Cursor) -> None:
    """Together they have more values than their keys can tell apart."""
    keys = pa.array(range(100), pa.int8())
    texts = [pa.array([f"{number}-{key}" for key in range(100)]) for number in range(3)]
    rows = pa.table({"v": pa.chunked_array([pa.DictionaryArray.from_arrays(keys, each) for each in texts])})
    cursor.adbc_ingest("packed", rows, mode="create", catalog_name=catalog, db_schema_name=SCHEMA[catalog])
    cursor.execute(f"select v from {catalog}.{SCHEMA[catalog]}.packed")
    assert cursor.fetch_arrow_table()["v"].to_pylist() == rows["v"].to_pylist()


@pytest.mark.parametrize(
    ("catalog", "column"),
    [(catalog, column) for catalog in SCHEMA for column in EVERY if column.name in REFUSED[catalog]],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_type_that_a_kind_does_not_have_is_refused_by_name(
    catalog: str, column: Column, gateway: Gateway, lake: Path, cursor: flightsql.Cursor
) -> None:
    table = f"t_{column.name}"
    writes: list[Callable[[], object]] = [lambda: put(cursor, catalog, table, [column])]
    if catalog == "files":
        # The same by a statement.
        put(cursor, "memory", table, [column])
        writes.append(lambda: cursor.execute(f"create table files.main.{table} as select * from memory.main.{table}"))
    for write in writes:
        named = f'holds the column "{column.name}" of the type .*; cast it'
        with pytest.raises(adbc_driver_manager.NotSupportedError, match=named) as error:
            write()
        assert str(lake) not in str(error.value)
    cursor.execute(f"select 1 from {catalog}.information_schema.tables where table_name = '{table}'")
    assert cursor.fetchall() == []
    assert not (lake / table).exists()
    assert (running(gateway), reserved(gateway)) == (0, 0)
