"""A PostgreSQL database behind the gateway, through ADBC; what arrives there is read from the server itself."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight
import pytest

import clients
import jdbc
import postgres
from gateway import Gateway, configured, eventually
from postgres import Database

SEED = """
create type mood as enum ('sad', 'it''s ok');
create domain price as numeric(9,2);
create schema other;
create table customer (id bigint primary key, name text not null, born date);
comment on table customer is 'who buys';
comment on column customer.name is 'as on the card';
create table orders (
    customer bigint references customer, number int, total price, primary key (customer, number));
create view rich as select * from customer where id > 1;
insert into customer values (1, 'Ann', '1980-02-03'), (2, 'O''Brien \\ Söhne', null), (3, '数据', '2001-12-31');
insert into orders values (1, 1, 10.50), (1, 2, null), (3, 1, 0.01);
create table odd (id int, place point);
create table other.there (id int);
create table numbers as select n as id, (n % 7)::int as small, repeat('x', 200) as filler from generate_series(1, 200000) n;
create view endless as select a.id, b.filler from numbers a cross join numbers b;
create view slow as select pg_sleep(60)::text as slept;
create table types (
    id int, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric(38,10), big numeric, t text, v varchar(5),
    c char(4), m name, y bytea, d date, ti time, ts timestamp, tz timestamptz, iv interval, u uuid, j json, jb jsonb, e mood,
    p price, ai int[], at text[], an numeric(5,2)[]);
insert into types (id) values (1);
insert into types values (2, true, -32768, -2147483648, -9223372036854775808, 'NaN', '-Infinity',
    -9999999999999999999999999999.9999999999, 'NaN', '', 'äöüß!', 'ab', 'naïve', '', '0001-01-01', '00:00', '0001-01-01 00:00',
    '1970-01-01 00:00:00.000001+00', '-1 month 2 days -3.5 seconds', '00000000-0000-0000-0000-000000000000', '{"a" : 1}',
    '{"a" : 1}', 'it''s ok', -9999999.99, '{}', '{}', '{}');
insert into types values (3, false, 32767, 2147483647, 9223372036854775807, 3.4028235e38, 5e-324,
    0.0000000001, 123456789012345678901234567890123456789012345678901234567890.000100, '🚀 "quoted", \\', 'abcde', 'abcd', 'm',
    '\\x00ff', '9999-12-31', '23:59:59.999999', '9999-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00', '1 year 1 hour',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '[]', 'null', 'sad', 0, '{1,null,-2147483648}', '{"a,b",null,"{}"}', '{1.50,null}');
"""

TEXT = """
[defaults]
catalog = "shop"
schema = "public"

[catalogs.shop]
kind = "postgres"
url = "{url}"
password = "${{env:PASSWORD}}"
writable = true
pool = 5
connect_timeout = 3
read_timeout = 5
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server that writes each statement to its log."""
    with postgres.server("log_statement=all") as database:
        database.sql(SEED)
        yield database


@pytest.fixture(scope="module")
def gateway(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the database as its catalog."""
    text = TEXT.format(url=database.url)
    with configured(tmp_path_factory.mktemp("postgres"), text, environment={"PASSWORD": postgres.PASSWORD}) as gateway:
        yield gateway


@pytest.fixture
def connection(gateway: Gateway) -> Iterator[flightsql.Connection]:
    """A connection that commits each statement."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection:
        yield connection


@pytest.fixture
def made(database: Database) -> Iterator[str]:
    """The name of a table that is gone afterwards."""
    yield "made"
    database.sql("drop table if exists made")


def fetch(connection: flightsql.Connection, sql: str, parameters: object = None) -> list[tuple]:
    """All rows of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def execute(connection: flightsql.Connection, sql: str, parameters: object = None) -> int:
    """Runs a statement that writes; gives the rows that it affected."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount


def test_the_listing_has_keys_and_comments(connection: flightsql.Connection) -> None:
    listed = connection.adbc_get_objects(depth="all", catalog_filter="shop").read_all().to_pylist()
    schemas = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in listed[0]["catalog_db_schemas"]}
    assert set(schemas) == {"information_schema", "other", "public"}
    tables = {table["table_name"]: table for table in schemas["public"]}
    assert {"customer", "orders", "odd", "rich", "types"} <= set(tables)
    assert (tables["customer"]["table_type"], tables["rich"]["table_type"]) == ("TABLE", "VIEW")
    columns = {column["column_name"]: column for column in tables["customer"]["table_columns"]}
    assert set(columns) == {"id", "name", "born"}
    described = connection.adbc_get_table_schema("customer", catalog_filter="shop", db_schema_filter="public")
    assert described.field("name").metadata[b"ARROW:FLIGHT:SQL:REMARKS"] == b"as on the card"
    comments = "select column_name, column_comment from information_schema.columns where table_name = 'customer'"
    assert fetch(connection, comments) == [("id", None), ("name", "as on the card"), ("born", None)]
    keys = """select c.constraint_type, u.column_name from information_schema.table_constraints c
        join information_schema.key_column_usage u on c.constraint_name = u.constraint_name
        where c.table_name = 'orders' order by c.constraint_type, u.ordinal_position"""
    assert fetch(connection, keys) == [("FOREIGN KEY", "customer"), ("PRIMARY KEY", "customer"), ("PRIMARY KEY", "number")]
    nullable = "select column_name, is_nullable from information_schema.columns where table_name = 'customer'"
    assert fetch(connection, nullable) == [("id", "NO"), ("name", "NO"), ("born", "YES")]
    tables = "select table_name, table_comment from information_schema.tables where table_name in ('customer', 'orders')"
    assert sorted(fetch(connection, tables)) == [("customer", "who buys"), ("orders", None)]
    names = "select table_name from information_schema.tables where table_schema = 'public' and table_name like 'r%'"
    assert fetch(connection, names) == [("rich",)]


def test_jdbc_lists_keys_and_comments(gateway: Gateway) -> None:
    def listing(table: str) -> dict[str, list[dict]]:
        said = jdbc.values(jdbc.probe("listing", gateway.flight, "shop", "public", table))
        return {name: jdbc.rows(listed) for name, listed in said.items()}

    def told(rows: list[dict], *names: str) -> list[tuple]:
        return [tuple(row[name] for name in names) for row in rows]

    customer, orders = listing("customer"), listing("orders")
    columns = told(customer["columns"], "COLUMN_NAME", "TYPE_NAME", "IS_NULLABLE", "REMARKS")
    assert columns == [("id", "BIGINT", "NO", None), ("name", "VARCHAR", "NO", "as on the card"), ("born", "DATE", "YES", None)]
    assert told(orders["columns"], "COLUMN_SIZE", "DECIMAL_DIGITS")[-1] == ("9", "2")
    assert told(customer["tables"], "TABLE_NAME", "TABLE_TYPE") == [("customer", "TABLE")]
    assert told(customer["primary"], "COLUMN_NAME", "KEY_SEQ", "PK_NAME") == [("id", "1", "customer_pkey")]
    keys = [("customer", "1", "orders_pkey"), ("number", "2", "orders_pkey")]
    assert told(orders["primary"], "COLUMN_NAME", "KEY_SEQ", "PK_NAME") == keys
    key = ("FKTABLE_NAME", "FKCOLUMN_NAME", "PKTABLE_NAME", "PKCOLUMN_NAME", "FK_NAME", "UPDATE_RULE", "DELETE_RULE")
    no_action = "3"
    held = [("orders", "customer", "customer", "id", "orders_customer_fkey", no_action, no_action)]
    assert told(orders["imported"], *key) == told(customer["exported"], *key) == held
    assert (orders["exported"], customer["imported"]) == ([], [])


PLANNED = ["parsing", "tables", "planning", "analysis", "optimizer", "physical plan"]


def times(told: dict[str, str]) -> dict[str, float]:
    """What `EXPLAIN` says that each part took, in milliseconds."""
    lines = re.findall(r"^([a-z ]+): (\d+\.\d+) ms$", told["times"], re.MULTILINE)
    assert len(lines) == len(told["times"].splitlines()), told["times"]
    return {part: float(took) for part, took in lines}


def test_explain_analyze_tells_the_rows_and_the_time_of_a_scan(connection: flightsql.Connection) -> None:
    told = dict(fetch(connection, "explain analyze select name from customer where id > 1"))
    assert told["answer"] == "2 rows, 30B"
    assert list(times(told)) == [*PLANNED, "first rows", "all rows"]
    [scan] = [line for line in told["physical_plan"].splitlines() if "PostgresScan" in line]
    assert re.search(r"metrics=\[output_rows=2, time_elapsed_reading=\d*\.?\d+.?s\]", scan), scan


def test_explain_tells_what_the_server_is_asked(connection: flightsql.Connection) -> None:
    told = dict(fetch(connection, "explain select id from numbers where small = 3 limit 2"))
    assert told["route"] == "here, by DataFusion"
    assert told["cache"].startswith("bypass: a table is of unknown version")
    assert told["tables"] == "shop.public.numbers: postgres, of unknown version"
    assert list(times(told)) == PLANNED
    [scan] = [line.strip() for line in told["physical_plan"].splitlines() if "PostgresScan" in line]
    assert scan == 'PostgresScan: SELECT "id" FROM "public"."numbers" WHERE ("small" = (3)::int4) LIMIT 2'


def test_a_type_that_is_not_read_is_named(connection: flightsql.Connection) -> None:
    with pytest.raises(adbc_driver_manager.Error, match='column "place" of "public.odd" has the type point, which is not'):
        fetch(connection, "select id from odd")
    with pytest.raises(adbc_driver_manager.Error, match='table "shop.public.custmer" does not exist; did you mean "customer"'):
        fetch(connection, "select * from custmer")


def test_every_type_is_exact(connection: flightsql.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("select * from types order by id")
        rows = cursor.fetch_arrow_table()
    types = {field.name: field.type for field in rows.schema}
    assert (types["n"], types["big"], types["p"]) == (pa.decimal128(38, 10), pa.string(), pa.decimal128(9, 2))
    assert (types["ts"], types["tz"]) == (pa.timestamp("us"), pa.timestamp("us", "UTC"))
    assert (types["iv"], types["an"]) == (pa.month_day_nano_interval(), pa.list_(pa.decimal128(5, 2)))
    nulls, low, high = rows.to_pylist()
    assert set(nulls.values()) == {1, None}
    assert low.pop("f4") != low.pop("f4", 0)
    expected = {
        "id": 2, "b": True, "i2": -(2**15), "i4": -(2**31), "i8": -(2**63), "f8": float("-inf"),
        "n": Decimal("-9999999999999999999999999999.9999999999"), "big": "NaN", "t": "", "v": "äöüß!", "c": "ab  ", "m": "naïve",
        "y": b"", "d": date(1, 1, 1), "ti": clock(0), "ts": datetime(1, 1, 1), "tz": datetime(1970, 1, 1, 0, 0, 0, 1, UTC),
        "iv": pa.MonthDayNano([-1, 2, -3_500_000_000]), "u": "00000000-0000-0000-0000-000000000000", "j": '{"a" : 1}',
        "jb": '{"a": 1}', "e": "it's ok", "p": Decimal("-9999999.99"), "ai": [], "at": [], "an": [],
    }  # fmt: skip
    assert low == expected
    expected = {
        "id": 3, "b": False, "i2": 2**15 - 1, "i4": 2**31 - 1, "i8": 2**63 - 1, "f4": 3.4028234663852886e38, "f8": 5e-324,
        "n": Decimal("0.0000000001"), "big": "123456789012345678901234567890123456789012345678901234567890.000100",
        "t": '🚀 "quoted", \\', "v": "abcde", "c": "abcd", "m": "m", "y": b"\x00\xff", "d": date(9999, 12, 31),
        "ti": clock(23, 59, 59, 999999), "ts": datetime(9999, 12, 31, 23, 59, 59, 999999),
        "tz": datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), "iv": pa.MonthDayNano([12, 0, 3_600_000_000_000]),
        "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "j": "[]", "jb": "null", "e": "sad", "p": Decimal("0.00"),
        "ai": [1, None, -(2**31)], "at": ["a,b", None, "{}"], "an": [Decimal("1.50"), None],
    }  # fmt: skip
    assert high == expected


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("'infinity'::date", "infinity"),
        ("'-infinity'::timestamptz", "infinity"),
        ("'24:00'::time", "24:00"),
        ("'NaN'::numeric(5,2)", "NaN"),
        ("'{{1,2},{3,4}}'::int[]", "an array of more than one dimension"),
    ],
)
def test_a_value_that_cannot_be_is_named(value: str, what: str, database: Database, connection: flightsql.Connection) -> None:
    database.sql(f"drop view if exists strange; create view strange as select {value} as v")
    with pytest.raises(adbc_driver_manager.Error, match=f'the column "v" of the type .* holds {what}, which cannot be read'):
        fetch(connection, "select v from strange")


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("select id from numbers where small = 3 limit 2", 'SELECT "id" FROM "public"."numbers" WHERE ("small" = (3)::int4)'),
        ("select count(*) from rich", 'SELECT FROM "public"."rich"'),
        ("select id from customer where name = 'O''Brien \\ Söhne'", "(\"name\" = E'O''Brien \\\\ Söhne'::text)"),
        (
            "select name from customer where born >= date '1980-02-03' or born is null",
            '(("born" >= \'1980-02-03\'::date) OR ("born" IS NULL))',
        ),
        ("select number from orders where total in (10.50, 0.01)", "'10.50'::numeric"),
        ("select id from customer where name > 'B'", 'SELECT "id", "name" FROM "public"."customer"'),
        ("select id from types where u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid"),
        ("select id from types where u = 'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'", 'SELECT "id", "u" FROM "public"."types"'),
    ],
)
def test_what_is_pushed_down(sql: str, sent: str, database: Database, connection: flightsql.Connection) -> None:
    before = len(database.log.read_text())
    assert bool(fetch(connection, sql)) == ("A0EE" not in sql)
    own = [line for line in database.log.read_text()[before:].splitlines() if "execute s" in line and '"public"' in line]
    assert len(own) == 1, own
    assert sent in own[0]
    assert own[0].endswith("LIMIT 2") == ("limit" in sql)


def test_all_rows_come_in_small_memory(connection: flightsql.Connection) -> None:
    assert fetch(connection, "select count(*), sum(id), min(length(filler)) from numbers") == [(200_000, 20_000_100_000, 200)]
    assert fetch(connection, "select count(*) from numbers a join numbers b on a.id = b.id where b.small = 0") == [(28_571,)]


ROWS = pa.table(
    {"id": pa.array([1, 2, None], pa.int64()), "name": ["one", None, "三"], "at": pa.array([0, 1, 2], pa.timestamp("us"))}
)


def test_ingest_in_every_mode(database: Database, made: str, connection: flightsql.Connection) -> None:
    def ingest(rows: pa.Table, mode: str) -> int:
        with connection.cursor() as cursor:
            return cursor.adbc_ingest(made, rows, mode=mode)

    def count() -> int:
        return int(database.sql(f"select count(*) from {made}")[0][0])

    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        ingest(ROWS, "append")
    assert (ingest(ROWS, "create"), count()) == (3, 3)
    with pytest.raises(adbc_driver_manager.Error, match="exists already") as error:
        ingest(ROWS, "create")
    assert error.value.status_code is adbc_driver_manager.AdbcStatusCode.ALREADY_EXISTS
    assert (ingest(ROWS, "append"), count()) == (3, 6)
    assert (ingest(ROWS, "create_append"), count()) == (3, 9)
    assert (ingest(ROWS.slice(0, 1), "replace"), count()) == (1, 1)
    assert database.sql(f"select id, name, at from {made}") == [["1", "one", "1970-01-01 00:00:00"]]


@pytest.mark.parametrize("mode", ["create", "append", "replace"])
def test_rows_arrive_by_copy(mode: str, database: Database, made: str, connection: flightsql.Connection) -> None:
    if mode != "create":
        database.sql("create table made (id bigint, name text, at timestamp)")
    before = len(database.log.read_text())
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest(made, ROWS, mode=mode) == 3
    asked = database.log.read_text()[before:]
    assert len(re.findall(r"execute s\d+: COPY .* FROM STDIN BINARY", asked)) == 1, asked
    assert "INSERT" not in asked
    assert database.sql("select count(*), max(name) from made") == [["3", "三"]]


def test_what_is_read_is_written_the_same(database: Database, made: str, connection: flightsql.Connection) -> None:
    database.sql("create table made (like types)")
    assert execute(connection, "insert into made select * from types") == 3
    assert database.sql("select * from made order by id") == database.sql("select * from types order by id")


LONGEST = "x" * 63
TABLES = "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"


@pytest.fixture
def neighbour(database: Database) -> Iterator[None]:
    """A schema, a table in it and one beside it with the longest name that there is."""
    database.sql(f"create schema {LONGEST}; create table {LONGEST}.{LONGEST} as select 1 as id; create table {LONGEST} (id int)")
    yield
    database.sql(f"drop schema {LONGEST} cascade; drop table if exists {LONGEST}")


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(("schema", "table"), [("public", LONGEST + "yz"), (LONGEST + "yz", LONGEST), (LONGEST, LONGEST + "y")])
def test_a_name_that_would_be_cut_is_none(schema: str, table: str, database: Database, connection: flightsql.Connection) -> None:
    name, before = f"{schema}.{table}", sorted(database.sql(TABLES))
    reads = [f"select * from {name}"]
    writes = [f"insert into {name} values (2)", f"update {name} set id = 2", f"delete from {name}", f"drop table {name}"]
    makes = [
        f"create {how} as select 2 as id" for how in (f"table {name}", f"table if not exists {name}", f"or replace table {name}")
    ]
    for statements, why in ((reads + writes, "does not exist"), (makes, "nothing can be called .* 1 to 63 bytes")):
        for sql in statements:
            with pytest.raises(adbc_driver_manager.Error, match=why):
                execute(connection, sql)
    for mode in ("append", "create", "create_append", "replace"):
        why = "does not exist" if mode == "append" else "nothing can be called"
        with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match=why):
            cursor.adbc_ingest(table, pa.table({"id": [2]}), mode=mode, db_schema_name=schema)
    execute(connection, f"drop table if exists {name}")
    assert sorted(database.sql(TABLES)) == before
    assert database.sql(f"select * from {LONGEST}.{LONGEST} union all select * from {LONGEST}") == [["1"]]


@pytest.mark.parametrize("mode", ["create", "create_append", "replace"])
def test_a_column_is_not_called_otherwise(mode: str, database: Database, made: str, connection: flightsql.Connection) -> None:
    if mode == "replace":
        database.sql("create table made as select 1 as id")
    before = database.sql("select attname from pg_attribute where attrelid = to_regclass('made') order by attnum")
    with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="nothing can be called"):
        cursor.adbc_ingest(made, pa.table({"id": [2], LONGEST + "y": [2]}), mode=mode)
    assert database.sql("select attname from pg_attribute where attrelid = to_regclass('made') order by attnum") == before
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest(made, pa.table({LONGEST: [2]}), mode=mode) == 1
    assert database.sql(f"select {LONGEST} from made") == [["2"]]


def test_large_and_broken_ingest(database: Database, made: str, connection: flightsql.Connection) -> None:
    assert execute(connection, "create table made as select * from numbers") == 200_000
    assert database.sql("select count(*), sum(id) from made") == [["200000", "20000100000"]]

    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": pa.array([1], pa.int32())})
        raise ValueError("the program has an error")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"id": pa.int32()}), broken())
    with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="."):
        cursor.adbc_ingest("made", reader, mode="replace")
    assert database.sql("select count(*) from made") == [["200000"]]


def test_a_constraint_that_does_not_hold_is_told(database: Database, made: str, connection: flightsql.Connection) -> None:
    database.sql("create table made (id int primary key, n int default 7, name varchar(3))")
    assert execute(connection, "insert into made (id) values (1)") == 1
    with pytest.raises(adbc_driver_manager.Error, match="duplicate key.*already exists"):
        execute(connection, "insert into made (id) values (2), (1)")
    with pytest.raises(adbc_driver_manager.Error, match="value too long"):
        execute(connection, "update made set name = 'long'")
    assert database.sql("select * from made") == [["1", "7", ""]]


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_a_transaction_is_seen_when_it_commits(
    commits: bool, database: Database, made: str, gateway: Gateway, connection: flightsql.Connection
) -> None:
    database.sql("create table made as select n as id from generate_series(1, 1000) n")
    with flightsql.connect(gateway.uri) as other:
        assert execute(other, "insert into made select id + 1000 from made") == 1000
        assert execute(other, "delete from made where id <= 10") == 10
        with pytest.raises(adbc_driver_manager.Error, match="no_such"):
            execute(other, "insert into made select id from no_such")
        assert fetch(other, "select count(*), count(distinct a.id) from made a join made b on a.id = b.id") == [(1990, 1990)]
        assert fetch(other, "select id from made limit 1") != []
        assert fetch(connection, "select count(*) from made") == [(1000,)]
        other.commit() if commits else other.rollback()
        assert database.sql("select count(*) from made") == [["1990" if commits else "1000"]]
    assert eventually(lambda: idle_in_transaction(database) == 0, 2)


def idle_in_transaction(database: Database) -> int:
    """How many transactions of the gateway are open."""
    return int(database.sql("select count(*) from pg_stat_activity where state like 'idle in transaction%'")[0][0])


def test_updates_and_deletes(database: Database, made: str, connection: flightsql.Connection) -> None:
    database.sql("create table made (id int, price numeric(9,2), name text, u uuid)")
    database.sql("insert into made values (1, 1.50, 'a', null), (2, null, 'b', null), (3, 3, null, null)")
    assert execute(connection, "update made set price = price + 1.25, name = 'x' || name where id < 3") == 2
    assert execute(connection, "update made set u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' where name is null") == 1
    assert execute(connection, "update made set price = ?, id = id + 10 where name = ?", (Decimal("7.5"), "xb")) == 1
    rows = [["1", "2.75", "xa", ""], ["3", "3.00", "", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"], ["12", "7.50", "xb", ""]]
    assert database.sql("select * from made order by id") == rows
    assert execute(connection, "delete from made where id in (1, 3) and price between 2 and 3.0") == 2
    with pytest.raises(adbc_driver_manager.Error, match="cannot be said in PostgreSQL"):
        execute(connection, "delete from made where upper(name) = 'XB'")
    with pytest.raises(adbc_driver_manager.Error, match='new value of "name" cannot be said'):
        execute(connection, "update made set name = reverse(name)")
    assert execute(connection, "drop table made") in (0, -1)
    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        execute(connection, "drop table made")


def test_a_statement_that_is_left_ends_there(database: Database, gateway: Gateway) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as connection:
        leave(database, connection, "select * from slow")


def leave(database: Database, connection: flightsql.Connection, sql: str) -> None:
    """Cancels a statement over the view `slow` and holds that it ends at the server."""
    with connection.cursor() as cursor:
        with clients.executing(cursor, sql) as failed:
            assert eventually(lambda: len(database.running("slow")) == 1, 10)
            cursor.adbc_cancel()
            assert eventually(lambda: len(database.running("slow")) == 0, 1)
        assert failed


def test_rows_that_nobody_reads_end_there(database: Database, gateway: Gateway) -> None:
    with flight.connect(gateway.uri) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(query("select filler from endless")))
        reader = client.do_get(info.endpoints[0].ticket)
        assert reader.read_chunk().data.num_rows > 0
        reader.cancel()
    assert eventually(lambda: len(database.running("endless")) == 0, 1)


def query(sql: str) -> bytes:
    """CommandStatementQuery in an Any."""

    def field(number: int, value: bytes) -> bytes:
        length, size = b"", len(value)
        while size > 0x7F:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + value

    kind = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return field(1, kind) + field(2, field(1, sql.encode()))


def test_a_backend_that_dies_is_an_error(database: Database, connection: flightsql.Connection) -> None:
    where = "application_name = 'nexus-gateway' and query like '%endless%'"
    with connection.cursor() as cursor:
        cursor.execute("select id, filler from endless")
        reader = cursor.fetch_record_batch()
        assert reader.read_next_batch().num_rows > 0
        assert eventually(lambda: len(database.running("endless")) == 1, 5)
        database.sql(f"select pg_terminate_backend(pid) from pg_stat_activity where {where}")
        with pytest.raises((adbc_driver_manager.Error, OSError), match="terminating connection|broke off"):
            for _ in reader:
                pass
    assert fetch(connection, "select count(*) from customer") == [(3,)]


def test_a_server_that_is_frozen_is_an_error(database: Database, connection: flightsql.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("select id, filler from endless")
        reader = cursor.fetch_record_batch()
        assert reader.read_next_batch().num_rows > 0
        # Each clock is that of its time-out, and a second.
        with database.frozen():
            started = time.monotonic()
            with pytest.raises((adbc_driver_manager.Error, OSError), match="silent for 5 s"):
                for _ in reader:
                    pass
            assert time.monotonic() - started < 5 + 1
            started = time.monotonic()
            with pytest.raises(adbc_driver_manager.Error, match="cannot be reached: no answer in time"):
                fetch(connection, "select * from customer")
            assert time.monotonic() - started < 3 + 1
    assert fetch(connection, "select count(*) from customer") == [(3,)]


def test_ten_thousand_tables_are_listed_at_once(database: Database, connection: flightsql.Connection) -> None:
    database.sql("create schema many")
    for first in range(0, 10_000, 2_000):
        loop = f"for n in {first}..{first + 1_999} loop execute 'create table many.t' || n || ' (id int)'; end loop"
        database.sql(f"do $$ begin {loop}; end $$")
    started = time.monotonic()
    rows = fetch(connection, "select count(*) from information_schema.tables where table_schema = 'many'")
    assert rows == [(10_000,)]
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("postgres:", "postgres:hunter2"), "a password in the address is shown"),
        (('/postgres"', '"'), "the address names no database"),
        (("pool = 5", "pool = 0"), "pool is not from 1 to 1000"),
        (("pool = 5", "pol = 5"), 'unknown key "pol".*did you mean "pool"'),
    ],
    ids=["password", "database", "pool", "key"],
)  # fmt: skip
def test_a_wrong_configuration_is_told(change: tuple[str, str], why: str, tmp_path: Path) -> None:
    text = TEXT.format(url="postgres://postgres@127.0.0.1:1/postgres")
    changed = text.replace("postgres@127", "postgres:hunter2@127") if "hunter2" in change[1] else text.replace(*change)
    with pytest.raises(RuntimeError, match=why) as error:
        configured(tmp_path, changed, environment={"PASSWORD": "x"})
    assert "hunter2" not in str(error.value)


def test_a_wrong_password_is_told_without_it(database: Database, tmp_path: Path) -> None:
    text = TEXT.format(url=database.url)
    with configured(tmp_path, text, environment={"PASSWORD": "hunter2"}) as gateway:
        said = pytest.raises(adbc_driver_manager.Error, match="password authentication failed.*check user and password")
        with flightsql.connect(gateway.uri, autocommit=True) as connection, said as error:
            fetch(connection, "select * from customer")
        assert "hunter2" not in str(error.value)
        assert "hunter2" not in gateway.logged()


def test_tls_holds_that_the_server_is_the_one(database: Database, tmp_path: Path) -> None:
    catalog = f"""
[catalogs.NAME]
kind = "postgres"
url = "{database.url}"
password = "{postgres.PASSWORD}"
tls = "verify"
"""
    database.sql("create or replace view encrypted as select ssl, version from pg_stat_ssl where pid = pg_backend_pid()")
    known = f"{catalog.replace('NAME', 'known')}ca = '{database.certificate}'\n"
    with (
        configured(tmp_path, known + catalog.replace("NAME", "unknown")) as gateway,
        flightsql.connect(gateway.uri, autocommit=True) as connection,
    ):
        assert fetch(connection, "select * from known.public.encrypted") == [(True, "TLSv1.3")]
        leave(database, connection, "select * from known.public.slow")
        with pytest.raises(adbc_driver_manager.Error, match="catalogs.unknown.tls: no TLS with .*invalid peer certificate"):
            fetch(connection, "select * from unknown.public.encrypted")


def test_a_write_ends_what_is_kept(database: Database, tmp_path: Path) -> None:
    database.sql("create table counted (id bigint)")
    text = TEXT.format(url=database.url) + 'ttl = "1h"\n'
    with (
        configured(tmp_path, text, replicas=1, environment={"PASSWORD": postgres.PASSWORD}) as gateway,
        flightsql.connect(gateway.uri, autocommit=True) as connection,
        flightsql.connect(gateway.uri, autocommit=True) as other,
    ):

        def count() -> int:
            return fetch(other, "select count(*) from counted")[0][0]

        assert count() == 0
        database.sql("insert into counted values (0)")
        assert count() == 0, "what others write is not seen before the ttl is over"
        with connection.cursor() as cursor:
            cursor.execute("insert into counted values (1)")
            assert count() == 2
            cursor.adbc_ingest("counted", pa.table({"id": [2]}), mode="append")
            assert count() == 3
        connection.adbc_connection.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute("insert into counted values (3)")
            assert count() == 3
        connection.adbc_connection.commit()
        assert count() == 4
