"""The JDBC driver beside its queries: metadata, prepared statements, the connection's options, cancellation."""

import pytest

import jdbc
from data import TABLES
from gateway import Gateway
from jdbc import rows

KEYS = {"partsupp": ["ps_partkey", "ps_suppkey"], "lineitem": ["l_orderkey", "l_linenumber"], "orders": ["o_orderkey"]}


@pytest.fixture(scope="module", params=jdbc.VERSIONS, ids=lambda version: f"jdk{version}")
def metadata(request: pytest.FixtureRequest, embedded: Gateway) -> dict:
    """Every method of DatabaseMetaData and what it gave."""
    return jdbc.values(jdbc.probe("metadata", embedded.flight, jdk=request.param))


def test_no_method_of_the_metadata_fails(metadata: dict) -> None:
    failed = {name: value["error"] for name, value in metadata.items() if isinstance(value, dict) and "error" in value}
    assert not failed
    assert len(metadata) > 150


def test_the_product_is_named(metadata: dict) -> None:
    assert metadata["getDatabaseProductName()"] == "nexus-gateway"
    assert metadata["getDatabaseProductVersion()"]
    assert metadata["getIdentifierQuoteString()"] == '"'
    assert metadata["getSQLKeywords()"]


def test_catalogs_schemas_and_table_types(metadata: dict) -> None:
    catalogs = [row["TABLE_CAT"] for row in rows(metadata["getCatalogs()"])]
    assert catalogs == sorted(catalogs)
    assert {"demo", "tpch", "system"} <= set(catalogs)
    schemas = {row["TABLE_SCHEM"] for row in rows(metadata["getSchemas"])}
    assert schemas == {"information_schema", "main"}
    assert "TABLE" in str(metadata["getTableTypes()"]["rows"])


def test_tables(metadata: dict) -> None:
    listed = rows(metadata["getTables"])
    assert [row["TABLE_NAME"] for row in listed] == TABLES
    assert {(row["TABLE_CAT"], row["TABLE_SCHEM"]) for row in listed} == {("tpch", "main")}
    assert [row["TABLE_NAME"] for row in rows(metadata["getTables typed"])] == ["lineitem"]
    assert rows(metadata["getTables none"]) == []


def test_columns(metadata: dict) -> None:
    listed = rows(metadata["getColumns"])
    assert [row["COLUMN_NAME"] for row in listed][:4] == ["o_orderkey", "o_custkey", "o_orderstatus", "o_totalprice"]
    assert [row["ORDINAL_POSITION"] for row in listed] == [str(number) for number in range(1, 10)]
    types = {row["COLUMN_NAME"]: row["TYPE_NAME"] for row in listed}
    assert types["o_orderkey"] == "BIGINT"
    assert types["o_orderdate"] == "DATE"
    assert types["o_comment"] == "VARCHAR"
    price = next(row for row in listed if row["COLUMN_NAME"] == "o_totalprice")
    assert (price["TYPE_NAME"], price["COLUMN_SIZE"], price["DECIMAL_DIGITS"]) == ("DECIMAL", "15", "2")
    assert [row["COLUMN_NAME"] for row in rows(metadata["getColumns one"])] == ["l_shipdate", "l_shipinstruct", "l_shipmode"]


def test_keys(metadata: dict) -> None:
    assert [row["COLUMN_NAME"] for row in rows(metadata["getPrimaryKeys"])] == KEYS["partsupp"]
    imported = {(row["FKCOLUMN_NAME"], row["PKTABLE_NAME"]) for row in rows(metadata["getImportedKeys"])}
    assert ("l_orderkey", "orders") in imported
    exported = {(row["FKTABLE_NAME"], row["FKCOLUMN_NAME"]) for row in rows(metadata["getExportedKeys"])}
    assert exported == {("lineitem", "l_orderkey")}
    crossed = rows(metadata["getCrossReference"])
    assert [(row["PKCOLUMN_NAME"], row["FKCOLUMN_NAME"]) for row in crossed] == [("r_regionkey", "n_regionkey")]


@pytest.fixture(scope="module", params=jdbc.VERSIONS, ids=lambda version: f"jdk{version}")
def prepared(request: pytest.FixtureRequest, embedded: Gateway) -> dict:
    """The rows of each prepared statement, on a JVM in UTC: this driver shifts the timestamps it binds by the zone."""
    return jdbc.values(jdbc.probe("prepared", embedded.flight, jdk=request.param))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("int", [["GERMANY"]]),
        ("long", [["GERMANY"]]),
        ("string", [["7"]]),
        ("quote", [["0"]]),
        ("unicode", [["中文 é 😀"]]),
        ("double", [["2.5"]]),
        ("timestamp", [["2026-02-28 23:59:59.5"]]),
        # The driver cuts the microseconds; of a text nothing is cut.
        ("cut", [["2026-02-28 23:59:59.123"]]),
        ("whole", [["2026-02-28 23:59:59.123456"]]),
        ("time", [["12:34:56"]]),
        ("boolean", [["false"]]),
        ("null", [["true"]]),
        ("byte", [["-5"]]),
        ("short", [["-300"]]),
        ("float", [["1.5"]]),
        ("bytes", [["0001ff"]]),
        ("exact", [["12345678901234567.125"]]),
        ("object", [["ab"]]),
        ("zoned", [["true"]]),
        ("list", [[["1", None, "3"]]]),
        ("array", [[["a", None, ""]]]),
        ("text", [["?", "ALGERIA"]]),
        ("limit", [["0"], ["1"]]),
        ("in", [["6"], ["18"]]),
        ("again", [[["ALGERIA"]], [["ARGENTINA"]], [["BRAZIL"]]]),
        ("parameters", {"count": 1, "type": "Int(64, true)", "columns": 1}),
    ],
)
def test_prepared_statements_take_parameters(name: str, expected: object, prepared: dict) -> None:
    assert prepared[name] == expected


def test_null_of_every_type_is_a_parameter(prepared: dict) -> None:
    nulls = {name: rows for name, rows in prepared.items() if name.startswith("null ")}
    assert nulls == dict.fromkeys(nulls, [["true"]])
    assert len(nulls) == 16


@pytest.mark.parametrize("kind", ["duration", "interval", "map", "struct"])
def test_of_some_types_the_driver_binds_only_null(kind: str, prepared: dict) -> None:
    assert "is not yet supported" in prepared[f"unbound {kind}"]["error"]
    assert prepared[f"unbound NULL {kind}"] == []


# Types that the driver has no setter for, by a cast of a text: the text, and what it shows of them.
CAST = {
    "UInt8": ("255", "255"),
    "UInt16": ("65535", "65535"),
    "UInt32": ("4294967295", "4294967295"),
    "UInt64": ("18446744073709551615", "18446744073709551615"),
    "Float16": ("-1.5", "-1.5"),
    "Decimal32(9, 2)": ("-9999999.99", "-9999999.99"),
    "Decimal64(18, 2)": ("9999999999999999.99", "9999999999999999.99"),
    "Decimal256(76, 10)": ("9" * 66 + ".0123456789", "9" * 66 + ".0123456789"),
    "LargeUtf8": ("é中😀", "é中😀"),
    "Utf8View": ("longer than the twelve bytes of a view", "longer than the twelve bytes of a view"),
    "LargeBinary": ("né", "6ec3a9"),
    "BinaryView": ("longer than twelve", "6c6f6e676572207468616e207477656c7665"),
    "FixedSizeBinary(4)": ("four", "666f7572"),
    "Date64": ("2024-02-29", "2024-02-29"),
    "Timestamp(s)": ("2026-02-28 23:59:59", "2026-02-28 23:59:59.0"),
    "Timestamp(ms)": ("2026-02-28 23:59:59.123", "2026-02-28 23:59:59.123"),
    "Timestamp(µs)": ("2026-02-28 23:59:59.123456", "2026-02-28 23:59:59.123456"),
    "Timestamp(ns)": ("2026-02-28 23:59:59.123456789", "2026-02-28 23:59:59.123456789"),
    "Time32(s)": ("12:34:56", "12:34:56"),
    "Time64(ns)": ("12:34:56", "12:34:56"),
    "Dictionary(Int32, Utf8)": ("x", "x"),
    "Dictionary(UInt8, Utf8View)": ("x", "x"),
}


@pytest.fixture(scope="module")
def cast(embedded: Gateway) -> dict:
    """The rows of a value and of a NULL of each."""
    words = [word for name, (text, _) in CAST.items() for word in (as_type(name), text)]
    return jdbc.values(jdbc.probe("cast", embedded.flight, *words))


def as_type(name: str) -> str:
    """A parameter as another type: text becomes bytes of a fixed size by way of others."""
    text = "arrow_cast(?, 'Binary')" if name.startswith("FixedSizeBinary") else "?"
    return f"arrow_cast({text}, '{name}')"


@pytest.mark.parametrize("name", CAST)
def test_a_text_is_a_parameter_of_a_type_without_a_setter(name: str, cast: dict) -> None:
    assert cast[as_type(name)] == [[CAST[name][1], name]]
    assert cast[f"NULL {as_type(name)}"] == [[None, name]]


@pytest.mark.parametrize("name", ["decimal", "date", "two"])
def test_prepared_counts_are_those_of_literals(name: str, prepared: dict, embedded: Gateway) -> None:
    literal = {
        "decimal": "select count(*) from lineitem where l_discount = 0.05",
        "date": "select count(*) from orders where o_orderdate < date '1995-01-01'",
        "two": "select count(*) from orders where o_orderkey between 1 and 100",
    }[name]
    [answer] = jdbc.probe("query", embedded.flight, literal)
    assert prepared[name] == answer["value"]["rows"]
    assert int(prepared[name][0][0]) > 0


def test_the_url_names_the_catalog(embedded: Gateway) -> None:
    [answer] = jdbc.probe("query", embedded.flight, "select count(*) > 0 from settings", query="&catalog=system")
    assert answer["value"]["rows"] == [["true"]]


def test_the_columns_of_an_answer_are_described(embedded: Gateway) -> None:
    statement = "select cast(1.5 as decimal(12,2)) as d, cast(1 as bigint) as b, 'x' as t"
    [answer] = jdbc.probe("query", embedded.flight, statement)
    about = [(column["name"], column["typeName"], column["precision"], column["scale"]) for column in answer["value"]["columns"]]
    assert about == [("d", "DECIMAL", 12, 2), ("b", "BIGINT", 19, 0), ("t", "VARCHAR", 0, 0)]


def test_an_unknown_catalog_in_the_url_is_refused(embedded: Gateway) -> None:
    done = jdbc.run_probe("query", embedded.flight, "select 1", query="&catalog=no_such_catalog")
    assert done.returncode != 0
    assert "Cannot set session option for catalog" in done.stderr, done.stderr


def test_an_error_reaches_the_client_in_words(embedded: Gateway) -> None:
    bad, good = jdbc.probe("query", embedded.flight, "select * from lineitm", "select 1")
    assert "lineitem" in bad["value"]["error"]
    assert good["value"]["rows"] == [["1"]]


def test_a_statement_is_cancelled(embedded: Gateway) -> None:
    endless = "select a.l_orderkey from lineitem a, lineitem b, lineitem c"
    [answer] = jdbc.probe("cancel", embedded.flight, endless, 3)
    assert answer["value"] == {"said": ["cancelled"] * 3, "after": [["1"]]}
