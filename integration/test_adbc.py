"""The ADBC driver: listings, schemas, information, prepared statements, exact values, credentials."""

import warnings
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest

from data import TABLES
from gateway import Gateway, configured, nexus

PASSWORD = "correct horse"


def fetch(connection: flightsql.Connection, sql: str, parameters: object = None) -> list[tuple]:
    """All rows of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def test_objects_at_every_depth(adbc: flightsql.Connection) -> None:
    def objects(depth: str, **filters: str) -> dict:
        listed = adbc.adbc_get_objects(depth=depth, **filters).read_all().to_pylist()
        return {catalog["catalog_name"]: catalog["catalog_db_schemas"] for catalog in listed}

    assert {"demo", "tpch", "system"} <= set(objects("catalogs"))
    schemas = objects("db_schemas", catalog_filter="tpch")
    assert {schema["db_schema_name"] for schema in schemas["tpch"]} == {"information_schema", "main"}
    [main] = objects("tables", catalog_filter="tpch", db_schema_filter="main")["tpch"]
    assert sorted(table["table_name"] for table in main["db_schema_tables"]) == TABLES
    [main] = objects("all", catalog_filter="tpch", db_schema_filter="main", table_name_filter="nation")["tpch"]
    [nation] = main["db_schema_tables"]
    columns = {column["column_name"]: column["ordinal_position"] for column in nation["table_columns"]}
    assert columns == {"n_nationkey": 1, "n_name": 2, "n_regionkey": 3, "n_comment": 4}


def test_the_schema_of_a_table(adbc: flightsql.Connection) -> None:
    schema = adbc.adbc_get_table_schema("orders", catalog_filter="tpch", db_schema_filter="main")
    assert schema.names[:3] == ["o_orderkey", "o_custkey", "o_orderstatus"]
    assert schema.field("o_totalprice").type == pa.decimal128(15, 2)
    assert schema.field("o_orderdate").type == pa.date32()
    with pytest.raises(adbc_driver_manager.Error):
        adbc.adbc_get_table_schema("no_such_table", catalog_filter="tpch", db_schema_filter="main")


def test_table_types(adbc: flightsql.Connection) -> None:
    assert any("TABLE" in kind for kind in adbc.adbc_get_table_types())


def test_information_about_the_server(adbc: flightsql.Connection) -> None:
    information = adbc.adbc_get_info()
    assert information["vendor_name"] == "nexus-gateway"
    assert information["vendor_version"]
    assert information["driver_name"].startswith("ADBC Flight SQL Driver")


@pytest.mark.parametrize("autocommit", [True, False])
def test_nothing_warns_at_connect(autocommit: bool, embedded: Gateway) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with flightsql.connect(embedded.uri, autocommit=autocommit) as connection:
            assert fetch(connection, "select 1") == [(1,)]
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("select n_name from nation where n_nationkey = ?", (7,), [("GERMANY",)]),
        ("select n_name from nation where n_nationkey = $1", (7,), [("GERMANY",)]),
        ("select n_nationkey from nation where n_name in (?, ?) order by 1", ("CHINA", "FRANCE"), [(6,), (18,)]),
        ("select cast(? as varchar)", ("x' or '1'='1 中文",), [("x' or '1'='1 中文",)]),
        ("select cast(? as bigint) is null", (None,), [(True,)]),
        ("select cast(? as double) * 2", (1.25,), [(2.5,)]),
        ("select cast(? as date)", (date(2026, 2, 28),), [(date(2026, 2, 28),)]),
        ("select not cast(? as boolean)", (True,), [(False,)]),
        ("select count(*) from lineitem where l_discount = ? and l_orderkey < 0", (Decimal("0.05"),), [(0,)]),
    ],
)
def test_parameters(sql: str, parameters: tuple, expected: list, adbc: flightsql.Connection) -> None:
    assert fetch(adbc, sql, parameters) == expected


def test_a_statement_runs_once_for_each_row_of_parameters(adbc: flightsql.Connection) -> None:
    keys = pa.record_batch({"key": pa.array([7, None, 0, 7], pa.int64())})
    assert fetch(adbc, "select n_name from nation where n_nationkey = ?", keys) == [("GERMANY",), ("ALGERIA",), ("GERMANY",)]


def test_too_many_rows_of_parameters_are_refused(adbc: flightsql.Connection) -> None:
    many = pa.record_batch({"key": pa.array(range(1_000_000), pa.int64())})
    with pytest.raises(adbc_driver_manager.Error, match="the parameters have more than 262144 bytes"):
        fetch(adbc, "select n_name from nation where n_nationkey = ?", many)


def test_a_prepared_statement_says_its_parameters_and_columns(adbc: flightsql.Connection) -> None:
    with adbc.cursor() as cursor:
        assert cursor.adbc_prepare("select n_name from nation where n_nationkey = ?").types == [pa.int64()]
        for key, name in [(0, "ALGERIA"), (24, "UNITED STATES")]:
            cursor.execute("select n_name from nation where n_nationkey = ?", (key,))
            assert cursor.fetchall() == [(name,)]


def test_the_schema_without_running(adbc: flightsql.Connection) -> None:
    with adbc.cursor() as cursor:
        schema = cursor.adbc_execute_schema("select 1 as a, 'x' as b from lineitem a, lineitem b, lineitem c")
    assert schema.names == ["a", "b"]


def arrow(connection: flightsql.Connection, sql: str) -> pa.Table:
    """A result as Arrow."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


@pytest.mark.parametrize(
    ("kind", "expression", "data_type", "value"),
    [
        ("null", "null", pa.null(), None),
        ("bool", "true", pa.bool_(), True),
        ("int8", "arrow_cast(-128, 'Int8')", pa.int8(), -128),
        ("int16", "arrow_cast(-32768, 'Int16')", pa.int16(), -32768),
        ("int32", "arrow_cast(-2147483648, 'Int32')", pa.int32(), -(2**31)),
        ("int64", "arrow_cast('-9223372036854775808', 'Int64')", pa.int64(), -(2**63)),
        ("uint8", "arrow_cast(255, 'UInt8')", pa.uint8(), 255),
        ("uint16", "arrow_cast(65535, 'UInt16')", pa.uint16(), 65535),
        ("uint32", "arrow_cast(4294967295, 'UInt32')", pa.uint32(), 2**32 - 1),
        ("uint64", "arrow_cast('18446744073709551615', 'UInt64')", pa.uint64(), 2**64 - 1),
        ("float16", "arrow_cast(arrow_cast(1.5, 'Float32'), 'Float16')", pa.float16(), 1.5),
        ("float32", "arrow_cast(1.5, 'Float32')", pa.float32(), 1.5),
        ("float64", "arrow_cast('1e308', 'Float64')", pa.float64(), 1e308),
        ("decimal32", "arrow_cast('-1234567.89', 'Decimal32(9, 2)')", pa.decimal32(9, 2), Decimal("-1234567.89")),
        (
            "decimal64",
            "arrow_cast('1234567890123456.78', 'Decimal64(18, 2)')",
            pa.decimal64(18, 2),
            Decimal("1234567890123456.78"),
        ),
        ("decimal128", "arrow_cast('0.05', 'Decimal128(38, 2)')", pa.decimal128(38, 2), Decimal("0.05")),
        ("decimal256", "arrow_cast('0.05', 'Decimal256(76, 2)')", pa.decimal256(76, 2), Decimal("0.05")),
        ("utf8", "arrow_cast('é中😀', 'Utf8')", pa.string(), "é中😀"),
        ("large utf8", "arrow_cast('é', 'LargeUtf8')", pa.large_string(), "é"),
        ("utf8 view", "arrow_cast('longer than twelve bytes', 'Utf8View')", pa.string_view(), "longer than twelve bytes"),
        ("binary", "arrow_cast('ab', 'Binary')", pa.binary(), b"ab"),
        ("large binary", "arrow_cast('ab', 'LargeBinary')", pa.large_binary(), b"ab"),
        ("binary view", "arrow_cast('ab', 'BinaryView')", pa.binary_view(), b"ab"),
        ("date32", "date '0001-01-01'", pa.date32(), date(1, 1, 1)),
        ("time64", "arrow_cast('23:59:59.999999', 'Time64(µs)')", pa.time64("us"), time(23, 59, 59, 999999)),
        (
            "timestamp",
            "arrow_cast('2026-02-28T23:59:59.123456', 'Timestamp(µs)')",
            pa.timestamp("us"),
            datetime(2026, 2, 28, 23, 59, 59, 123456),
        ),
        ("duration", "arrow_cast(90, 'Duration(s)')", pa.duration("s"), timedelta(seconds=90)),
        ("list", "make_array(1, null, 3)", None, [1, None, 3]),
        ("struct", "named_struct('a', 1, 'b', 'x')", None, {"a": 1, "b": "x"}),
        ("map", "map(['a', 'b'], [1, 2])", None, [("a", 1), ("b", 2)]),
        ("dictionary", "arrow_cast('x', 'Dictionary(Int32, Utf8)')", pa.dictionary(pa.int32(), pa.string()), "x"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 13 else "",
)
def test_every_type_as_it_is(
    kind: str, expression: str, data_type: pa.DataType | None, value: object, adbc: flightsql.Connection
) -> None:
    table = arrow(adbc, f"select {expression} as v")
    if data_type is not None:
        assert table.schema.field("v").type == data_type
    assert table.to_pylist() == [{"v": value}]


def test_a_result_without_rows_has_its_columns(adbc: flightsql.Connection) -> None:
    table = arrow(adbc, "select o_orderkey, o_comment from orders where false")
    assert (table.num_rows, table.column_names) == (0, ["o_orderkey", "o_comment"])


def test_a_million_rows_stream(adbc: flightsql.Connection) -> None:
    with adbc.cursor() as cursor:
        cursor.execute("select value, value * 2 as twice from generate_series(1, 1000000)")
        rows, total = 0, 0
        for batch in cursor.fetch_record_batch():
            rows += batch.num_rows
            total += sum(batch.column("twice").to_pylist())
    assert (rows, total) == (1_000_000, 1_000_000 * 1_000_001)


def test_a_statement_that_changes_something_is_refused_in_words(adbc: flightsql.Connection) -> None:
    with pytest.raises(adbc_driver_manager.Error) as error:
        fetch(adbc, "drop table nation")
    assert error.value.status_code is not adbc_driver_manager.AdbcStatusCode.INTERNAL
    assert fetch(adbc, "select count(*) from nation") == [(25,)]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory):
    """A gateway that asks for a password."""
    hashed = nexus("hash-password", stdin=f"{PASSWORD}\n").stdout.strip()
    assert hashed.startswith("$argon2id$")
    folder: Path = tmp_path_factory.mktemp("guarded")
    text = f'[auth]\nmode = "basic"\n[auth.users.ann]\npassword_hash = "{hashed}"\n'
    with configured(folder, text) as gateway:
        yield gateway
        assert PASSWORD not in gateway.logged()


def test_the_right_password_opens(guarded: Gateway) -> None:
    with flightsql.connect(guarded.uri, db_kwargs={"username": "ann", "password": PASSWORD}, autocommit=True) as connection:
        assert fetch(connection, "select 1") == [(1,)]
        assert fetch(connection, "select 2") == [(2,)]


@pytest.mark.parametrize(
    "login",
    [
        {"username": "ann", "password": "wrong"},
        {"username": "bob", "password": PASSWORD},
        {"username": "ann", "password": ""},
        {},
    ],
    ids=["wrong password", "unknown user", "empty password", "no credentials"],
)
def test_the_wrong_password_does_not(login: dict, guarded: Gateway) -> None:
    with pytest.raises(adbc_driver_manager.Error) as error, flightsql.connect(guarded.uri, db_kwargs=login) as connection:
        fetch(connection, "select 1")
    assert error.value.status_code is adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED
    assert PASSWORD not in str(error.value)
