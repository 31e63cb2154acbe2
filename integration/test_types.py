"""Every Arrow type through both profiles: exact in the native one, no error and no wrong value through JDBC."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest

import jdbc
from gateway import Gateway, configured
from types_table import COLUMNS, Column


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway over one Arrow file for each type."""
    folder: Path = tmp_path_factory.mktemp("typed")
    data = folder / "data"
    data.mkdir()
    for column in COLUMNS:
        with pa.ipc.new_file(data / f"t_{column.name}.arrow", column.table.schema) as writer:
            writer.write_table(column.table)
    text = f'[defaults]\ncatalog = "typed"\n[catalogs.typed]\nkind = "files"\nlocation = "{data}"\n'
    with configured(folder, text) as gateway:
        yield gateway


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_the_native_profile_changes_nothing(column: Column, typed: Gateway) -> None:
    with flightsql.connect(typed.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"select v from t_{column.name}")
        got = cursor.fetch_arrow_table()
    expected = column.table
    assert got.schema.field("v").type == expected.schema.field("v").type
    assert got.to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_parameter_of_every_type_with_null(column: Column, typed: Gateway) -> None:
    [rows] = column.table.combine_chunks().to_batches()
    with flightsql.connect(typed.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select ? as v", rows)
        assert cursor.fetch_arrow_table().to_pylist() == column.table.to_pylist()


def test_list_views_that_show_the_same_values_again_and_again_are_refused(typed: Gateway) -> None:
    """As lists those of a few kilobytes would be megabytes, or as many places of values that have no bytes."""
    for values in (pa.array(range(1_000), pa.int64()), pa.nulls(1_000)):
        starts, lengths = (pa.array([number] * 1_000, pa.int32()) for number in (0, 1_000))
        views = pa.ListViewArray.from_arrays(starts, lengths, values)
        refused = pytest.raises(adbc_driver_manager.Error, match="the parameters have more than 262144 bytes")
        with flightsql.connect(typed.uri, autocommit=True) as connection, connection.cursor() as cursor, refused:
            cursor.execute("select ? as v", pa.record_batch({"v": views}))


@pytest.mark.parametrize(
    ("kind", "name", "value", "written", "shown"),
    [
        ("YearMonth", "month_interval", "14 months", "1 years 2 mons", "P14M"),
        ("DayTime", "day_time_interval", "3 days 1.5 seconds", "3 days 1.500 secs", "PT72H1.5S"),
    ],
)
def test_an_interval_that_pyarrow_has_no_array_of(
    kind: str, name: str, value: str, written: str, shown: str, typed: Gateway
) -> None:
    sql = f"select arrow_cast('{value}', 'Interval({kind})') as v"
    with flightsql.connect(typed.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"select cast(v as varchar), arrow_typeof(v) from ({sql})")
        assert cursor.fetchall() == [(written, f"Interval({kind})")]
        cursor.execute(sql)
        assert str(cursor.fetch_record_batch().schema.field("v").type) == name
    [answer] = jdbc.probe("types", typed.flight, sql)
    assert [row["object"] for row in answer["value"]] == [shown]


def shown(typed: Gateway, jdk: str, zone: str = "UTC", query: str = "") -> dict:
    """What each getter of JDBC gave, by type and row."""
    queries = [f"select v from t_{column.name}" for column in COLUMNS]
    lines = jdbc.probe("types", typed.flight, *queries, jdk=jdk, zone=zone, query=query)
    return {line["name"].removeprefix("select v from t_"): line["value"] for line in lines}


@pytest.fixture(scope="module", params=jdbc.VERSIONS, ids=lambda version: f"jdk{version}")
def seen(request: pytest.FixtureRequest, typed: Gateway) -> dict:
    """The same on a JVM whose zone is UTC."""
    return shown(typed, request.param)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_jdbc_shows_the_value(column: Column, seen: dict) -> None:
    rows = seen[column.name]
    assert isinstance(rows, list), rows
    assert [row["object"] for row in rows] == [*column.shown, None]
    for row, value, shown in zip(rows, column.values, column.shown, strict=False):
        assert failed(row["string"]) is None
        assert says(row["string"], value, shown, column.type), (row["string"], value)
        assert row["wasNull"] is True
    assert rows[-1]["string"] is None


def says(text: str, value: object, shown: object, data_type: pa.DataType) -> bool:
    """Whether `getString` says the value: each kind in the words that the driver has for it."""
    if isinstance(shown, list | dict):
        return json.loads(text, parse_int=str) == shown
    if isinstance(value, bytes):
        return text == value.decode(errors="replace")
    if isinstance(value, Decimal):
        return Decimal(text) == value
    if pa.types.is_float32(data_type):
        return pa.scalar(float(text), data_type).as_py() == value
    if pa.types.is_interval(data_type):
        return text == shown.replace(" P", "")
    return text == shown


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_typed_getters_agree(column: Column, seen: dict) -> None:
    for row, value in zip(seen[column.name], column.values, strict=False):
        for getter in GETTERS.get(row["typeName"], []):
            got = row[getter]
            assert failed(got) is None, f"{getter}: {got}"
            assert type(value)(got) == value if getter in ("int", "long", "double", "decimal") else got == row["object"], (
                f"{getter}: {got}"
            )


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York"])
def test_a_jvm_in_another_zone_needs_one_key_in_the_url(zone: str, typed: Gateway) -> None:
    """This driver shifts timestamps by the zone of the JVM, unless the URL says in which zone to show them."""
    rows = shown(typed, "17", zone, "&timeZone=UTC")
    for column in COLUMNS:
        if column.name.startswith("timestamp"):
            assert [row["object"] for row in rows[column.name]] == [*column.shown, None]


GETTERS = {
    "TINYINT": ["int", "long", "decimal"],
    "SMALLINT": ["int", "long", "decimal"],
    "INTEGER": ["int", "long", "decimal"],
    "BIGINT": ["long", "decimal"],
    "DECIMAL": ["decimal"],
    "FLOAT": ["double"],
    "DOUBLE": ["double"],
    "TIME": ["time"],
    "VARBINARY": ["bytes"],
    "BINARY": ["bytes"],
    "DATE": ["date"],
    "TIMESTAMP": ["timestamp"],
    "BOOLEAN": ["boolean"],
}


def failed(value: object) -> object:
    """The error of a getter, if it gave one."""
    return value.get("error") if isinstance(value, dict) else None
