"""Every Arrow type through both profiles: exact in the native one, no error and no wrong value through JDBC."""

from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

import jdbc
from gateway import Gateway, configured
from types_table import COLUMNS, Column

# A JVM in another zone than UTC shows timestamps shifted, through this driver, unless the URL says in which zone to show them.
JVMS = [
    ("17", "UTC", ""),
    ("25", "UTC", ""),
    ("17", "Asia/Shanghai", "&timeZone=UTC"),
    ("25", "America/New_York", "&timeZone=UTC"),
]
# What the driver shows wrong in a zone other than UTC whatever it is sent: a time as `java.sql.Time` is one of UTC.
SHIFTED_BY_THE_DRIVER = {"time32_s", "time32_ms", "time64_us", "time64_ns"}


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


@pytest.fixture(scope="module", params=JVMS, ids=lambda jvm: f"jdk{jvm[0]}-{jvm[1].replace('/', '-')}")
def seen(request: pytest.FixtureRequest, typed: Gateway) -> dict:
    """What each getter of JDBC gave, by type and row."""
    jdk, zone, query = request.param
    queries = [f"select v from t_{column.name}" for column in COLUMNS]
    lines = jdbc.probe("types", typed.flight, *queries, jdk=jdk, zone=zone, query=query)
    shown = {line["name"].removeprefix("select v from t_"): line["value"] for line in lines}
    return shown if zone == "UTC" else {name: rows for name, rows in shown.items() if name not in SHIFTED_BY_THE_DRIVER}


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_jdbc_shows_the_value(column: Column, seen: dict) -> None:
    if column.name not in seen:
        return
    rows = seen[column.name]
    assert isinstance(rows, list), rows
    assert [row["object"] for row in rows] == [*column.shown, None]
    for row in rows[:-1]:
        assert failed(row["string"]) is None
        assert row["wasNull"] is True
    assert rows[-1]["string"] is None


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_typed_getters_agree(column: Column, seen: dict) -> None:
    for row, value in zip(seen.get(column.name, []), column.values, strict=False):
        for getter in GETTERS.get(row["typeName"], []):
            got = row[getter]
            assert failed(got) is None, f"{getter}: {got}"
            assert type(value)(got) == value if getter in ("long", "double", "decimal") else got == row["object"], (
                f"{getter}: {got}"
            )


GETTERS = {
    "BIGINT": ["long", "decimal"],
    "DECIMAL": ["decimal"],
    "DOUBLE": ["double"],
    "VARBINARY": ["bytes"],
    "BINARY": ["bytes"],
    "DATE": ["date"],
    "TIMESTAMP": ["timestamp"],
    "BOOLEAN": ["boolean"],
}


def failed(value: object) -> object:
    """The error of a getter, if it gave one."""
    return value.get("error") if isinstance(value, dict) else None
