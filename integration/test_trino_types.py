"""Every type of Trino, with NULL, extremes and what is not a number, by ADBC and JDBC: each value is that of Trino itself."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

import clients
import jdbc
import trino_values
from gateway import Gateway, configured
from trino_server import Trino

MOMENT = "2026-02-28 23:59:59"
# Of each type some values, as Trino's SQL has them.
TYPES = {
    "boolean": ["true", "false"],
    "tinyint": ["-128", "127"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807", "9007199254740993"],
    "real": ["nan()", "-infinity()", "3.4028235e38", "1.4e-45", "-0e0", "0.1e0"],
    "double": ["nan()", "infinity()", "-1.7976931348623157e308", "4.9e-324", "-0e0", "0.1e0"],
    "decimal(1,0)": ["9", "-9"],
    "decimal(9,2)": ["9999999.99", "-0.05", "0"],
    "decimal(18,18)": ["0.999999999999999999", "-0.000000000000000001"],
    "decimal(38,10)": [f"decimal '{'9' * 28}.{'9' * 10}'", f"decimal '-{'9' * 28}.{'9' * 10}'", "0.0000000001"],
    "decimal(38,0)": [f"decimal '{'9' * 38}'", "1"],
    "varchar": ["''", "'é中😀'", "'it''s \"quoted\" \\ back'", r"U&'a\0000b'", "rpad('', 100000, 'long')"],
    "varchar(5)": ["'abcde'", "'x'"],
    "char(4)": ["'ab'", "''", "'naïf'"],
    "varbinary": ["x''", "x'00ff'", "to_utf8('longer than the twelve bytes of a view')"],
    "json": ['json \'{"a": [1, null, "x"]}\'', "json 'null'", "json '1e2'"],
    "uuid": ["uuid '00000000-0000-0000-0000-000000000000'", "uuid 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
    "ipaddress": ["ipaddress '10.0.0.1'", "ipaddress '2001:db8::1'"],
    "hyperloglog": ["approx_set(1)"],
    "date": ["date '1970-01-01'", "date '0001-01-01'", "date '9999-12-31'", "date '1900-01-01'"],
    "time(0)": ["time '00:00:00'", "time '23:59:59'"],
    "time(3)": ["time '12:34:56.789'"],
    "time(6)": ["time '23:59:59.999999'", "time '00:00:00.000001'"],
    "time(9)": ["time '23:59:59.999999999'"],
    "time(12)": ["time '23:59:59.999999999999'"],
    "time(3) with time zone": ["time '12:34:56.789 +05:30'", "time '00:00:00 -14:00'"],
    "timestamp(0)": [f"timestamp '{MOMENT}'", "timestamp '1900-01-01 00:00:00'"],
    "timestamp(3)": [f"timestamp '{MOMENT}.123'", "timestamp '0001-01-01 00:00:00'", "timestamp '9999-12-31 23:59:59.999'"],
    "timestamp(6)": [f"timestamp '{MOMENT}.123456'", "timestamp '1969-12-31 23:59:59.999999'"],
    "timestamp(9)": [f"timestamp '{MOMENT}.123456789'", "timestamp '1969-12-31 23:59:59.999999999'"],
    "timestamp(12)": [f"timestamp '{MOMENT}.123456789012'"],
    "timestamp(0) with time zone": [f"timestamp '{MOMENT} UTC'", f"timestamp '{MOMENT} Asia/Shanghai'"],
    "timestamp(3) with time zone": [f"timestamp '{MOMENT}.123 +05:30'", f"timestamp '{MOMENT} America/New_York'"],
    "timestamp(6) with time zone": [f"timestamp '{MOMENT}.123456 Europe/Paris'", "timestamp '1969-12-31 23:59:59.999999 -08:00'"],
    "timestamp(9) with time zone": [f"timestamp '{MOMENT}.123456789 Asia/Shanghai'"],
    "interval day to second": ["interval '2' day", "interval '-36 01:02:03.456' day to second", "interval '0' second"],
    "array(bigint)": ["array[1, null, -9223372036854775808]", "array[]"],
    "array(double)": ["array[nan(), null, -infinity(), 0.1e0]"],
    "array(array(varchar))": ["array[array['a', null], null, array[]]"],
    "map(varchar,decimal(5,2))": ["map(array['a', 'b\"c'], array[1.50, null])", "map()"],
    "map(bigint,array(boolean))": ["map(array[-1, 9007199254740993], array[array[true, null], null])"],
    "map(date,timestamp(3))": [f"map(array[date '2026-01-02'], array[timestamp '{MOMENT}.123'])"],
    'row(a bigint,"b c" varchar,d row(e varbinary,f date))': [
        "row(1, 'x', row(x'00ff', date '2026-01-02'))",
        "row(null, null, null)",
        "row(2, '', row(null, null))",
    ],
    "array(row(k varchar,v timestamp(6) with time zone))": [f"array[row('x', timestamp '{MOMENT}.123456 Asia/Shanghai'), null]"],
}
NAMES = {name: f"c{at:02}" for at, name in enumerate(TYPES)}
# The driver takes days before this one for those of another calendar.
GREGORIAN = date(1583, 1, 1)
EPOCH = date(1970, 1, 1)
# As many rows as the type with the most values has, and one that is NULL throughout.
ROWS = max(map(len, TYPES.values())) + 1
NAME = "memory.default.every_type"


def written() -> str:
    """The statement that makes the table. A value that is an aggregate stands in a query of its own."""
    rows = []
    for number in range(ROWS):
        values = [f"{number}"]
        for name, given in TYPES.items():
            value = given[number] if number < len(given) else "null"
            values.append(f"cast((select {value}) as {name}) as {NAMES[name]}" if value != "null" else f"cast(null as {name})")
        rows.append(f"select {', '.join(values)}")
    columns = ", ".join(["id", *NAMES.values()])
    return f"create table {NAME} as select * from ({' union all '.join(rows)}) as t({columns})"


@pytest.fixture(scope="module")
def table(trino: Trino) -> Iterator[Trino]:
    """The server with one table of all types."""
    trino.ask(written())
    yield trino
    trino.ask(f"drop table {NAME}")


@pytest.fixture(scope="module")
def gateway(table: Trino, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    defaults = '[defaults]\ncatalog = "mem"\nschema = "default"\n'
    with configured(tmp_path_factory.mktemp("types"), defaults + table.catalog("mem"), replicas=1) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def told(table: Trino) -> dict[str, tuple[dict, list]]:
    """Of each type what Trino tells: its signature, and the values."""
    answer = table.ask(f"select {', '.join(NAMES.values())} from {NAME} order by id")
    rows = trino_values.rows(answer.columns, answer.rows)
    signatures = [column["typeSignature"] for column in answer.columns]
    return {name: (signatures[at], [row[at] for row in rows]) for at, name in enumerate(TYPES)}


@pytest.fixture(scope="module")
def seen(gateway: Gateway) -> pa.Table:
    """The table by ADBC."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select * from every_type order by id")
        return cursor.fetch_arrow_table()


@pytest.fixture(scope="module")
def shown(gateway: Gateway) -> dict[str, list]:
    """What JDBC shows of each type."""
    [line] = jdbc.probe("types", gateway.flight, f"select {', '.join(NAMES.values())} from every_type order by id")
    assert isinstance(line["value"], list), line
    return {name: [row for row in line["value"] if row["name"] == NAMES[name]] for name in TYPES}


def same(left: object, right: object) -> bool:
    """Exactly, but that a zero has its sign and what is not a number is like itself; of lists and the like each part."""
    match left, right:
        case (float(), float()):
            return left == right and math.copysign(1, left) == math.copysign(1, right) or math.isnan(left) and math.isnan(right)
        case (list(), list()) | (tuple(), tuple()):
            return len(left) == len(right) and all(map(same, left, right))
        case (dict(), dict()):
            return list(left) == list(right) and all(map(same, left.values(), right.values()))
        case _:
            return type(left) is type(right) and left == right


@pytest.mark.parametrize("name", TYPES)
def test_each_value_is_that_of_trino(name: str, seen: pa.Table, told: dict) -> None:
    _, expected = told[name]
    got = trino_values.plain(seen.column(NAMES[name]))
    assert expected[len(TYPES[name])] is None
    assert None not in expected[: len(TYPES[name])]
    assert same(got, expected), f"{got}\n{expected}"


ARROW = {
    "real": pa.float32(),
    "decimal(38,10)": pa.decimal128(38, 10),
    "varchar(5)": pa.string(),
    "varbinary": pa.binary(),
    "date": pa.date32(),
    "timestamp(3)": pa.timestamp("ms"),
    "timestamp(6)": pa.timestamp("us"),
    "timestamp(9)": pa.timestamp("ns"),
    "timestamp(6) with time zone": pa.timestamp("us", "UTC"),
    "array(bigint)": pa.list_(pa.int64()),
    "map(varchar,decimal(5,2))": pa.map_(pa.string(), pa.decimal128(5, 2)),
}


@pytest.mark.parametrize("name", ARROW)
def test_what_each_type_is_here(name: str, seen: pa.Table) -> None:
    assert seen.schema.field(NAMES[name]).type == ARROW[name]


@pytest.mark.parametrize("name", TYPES)
def test_jdbc_shows_each_value(name: str, shown: dict, told: dict) -> None:
    signature, expected = told[name]
    assert len(shown[name]) == len(expected)
    for row, value in zip(shown[name], expected, strict=True):
        assert row["wasNull"] is True
        assert says(row["object"], value, signature), (row["object"], value)


def says(text: object, value: object, signature: dict, inside: bool = False) -> bool:
    """Whether `getObject`, as text, is a value of a type. Inside of others the driver shows days by their number since 1970, and
    moments as Java's `LocalDateTime` does."""
    arguments = [argument["value"] for argument in signature["arguments"]]
    match value:
        case None:
            return text is None
        case bool():
            return text == str(value).lower()
        case float():
            number = float(text)
            return same(pa.scalar(number, pa.float32()).as_py() if signature["rawType"] == "real" else number, value)
        case Decimal():
            return Decimal(text) == value
        case bytes():
            return text == value.hex()
        case datetime() | date() if (value.date() if isinstance(value, datetime) else value) < GREGORIAN:
            return bool(text) and not isinstance(text, dict)
        case datetime():
            whole, _, fraction = text.partition(".")
            moment = value.astimezone(UTC) if value.tzinfo else value
            return (whole, fraction.ljust(6, "0")) == (f"{moment:%Y-%m-%d{'T' if inside else ' '}%H:%M:%S}", f"{moment:%f}")
        case date() if inside:
            return text == str((value - EPOCH).days)
        case time():
            # The driver shows thousandths, and none where they are nothing.
            return text == value.isoformat("milliseconds").removesuffix(".000")
        case int() if signature["rawType"].startswith(("time", "interval")):
            # The driver holds fewer digits of these, or has another form: that there is a value has to do.
            return bool(text) and not isinstance(text, dict)
        case list() if signature["rawType"] == "map":
            keys = {str((key - EPOCH).days) if isinstance(key, date) else str(key): part for key, part in value}
            return list(text) == list(keys) and all(says(text[key], keys[key], arguments[1], True) for key in keys)
        case list():
            return len(text) == len(value) and all(says(*both, arguments[0], True) for both in zip(text, value, strict=True))
        case dict():
            parts = [(name, part["typeSignature"]) for name, part in zip(value, arguments, strict=True)]
            # Fields that are NULL are left out.
            there = {name: each for name, each in parts if value[name] is not None}
            return list(text) == list(there) and all(says(text[name], value[name], there[name], True) for name in there)
        case _:
            return text == str(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("interval '14' month", "1 years 2 mons"),
        # 14 months before: two years before, and ten months after that.
        ("interval '-1-2' year to month", "-2 years 10 mons"),
        ("cast(null as interval year to month)", None),
    ],
)
def test_an_interval_that_pyarrow_has_no_array_of(value: str, said: str | None, gateway: Gateway) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"select cast(v as varchar) from native('mem', $$select {value} as v$$)")
        assert cursor.fetchall() == [(said,)]
        cursor.execute(f"select v from native('mem', $$select {value} as v$$)")
        assert str(cursor.fetch_record_batch().schema.field("v").type) == "month_interval"


@pytest.mark.parametrize("day", ["-5877641-06-23", "5881580-07-11", "-0001-01-01"])
def test_a_day_beyond_those_of_python(day: str, table: Trino, gateway: Gateway) -> None:
    """Counted from the first day of 1970, as both hold it."""
    [[expected]] = table.ask(f"select date_diff('day', date '1970-01-01', date '{day}')").rows
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"select v from native('mem', $$select date '{day}' as v$$)")
        assert cursor.fetch_arrow_table().column("v").cast(pa.int32()).to_pylist() == [expected]


def test_a_column_of_nothing_but_null(gateway: Gateway) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select v from native('mem', 'select null as v')")
        assert cursor.fetchall() == [(None,)]


def test_a_year_that_nanoseconds_do_not_reach_is_an_error(gateway: Gateway) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        beyond = "timestamp '9999-12-31 00:00:00.123456789'"
        with clients.executing(cursor, f"select v from native('mem', $$select {beyond} as v$$)") as failed:
            pass
        assert '"v"' in str(failed[0])
        cursor.execute("select 1")
        assert cursor.fetchall() == [(1,)]
