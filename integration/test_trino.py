"""A Trino server behind the gateway: listings, what is pushed down, native statements, parameters, errors, how statements
end. What arrives there is read from the server itself."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import psutil
import pyarrow.flight as flight
import pytest
import requests

import clients
import jdbc
import trino_values
from gateway import Gateway, configured, eventually
from s3 import Bucket
from servers import free_port
from trino_server import BUCKET, Failed, Trino
from wire import Client, statement

# The seconds within which a statement that nobody waits for is gone at Trino.
GONE = 2
# Rows that never end, and a number that never comes.
ENDLESS = "select l_orderkey, l_comment from whole.sf1000.lineitem"
COUNTED = "select n from native('whole', 'select count(*) as n from tpch.sf1000.lineitem')"
MIB = 1 << 20


@pytest.fixture(scope="module")
def gateway(trino: Trino, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway over TPC-H at its smallest scale, in segments and not, over all scales, and over tables in memory."""
    trino.ask('create table memory.default.odd (id bigint, "O\'Neil ""x""" varchar)')
    trino.ask("insert into memory.default.odd values (1, 'it''s'), (2, null), (3, '数据')")
    trino.ask("create view memory.default.rich as select id from memory.default.odd where id > 1")
    text = '[defaults]\ncatalog = "tpch"\nschema = "tiny"\n'
    text += trino.catalog("tpch", "tpch", schemas=["tiny"], client_tags=["of a test"], session=["query_max_run_time=7m"])
    text += trino.catalog("direct", "tpch", spooling=False)
    text += trino.catalog("whole", "tpch") + trino.catalog("mem")
    with configured(tmp_path_factory.mktemp("trino"), text, replicas=1) as gateway:
        yield gateway
    trino.ask("drop view memory.default.rich")
    trino.ask("drop table memory.default.odd")


@pytest.fixture
def connection(gateway: Gateway) -> Iterator[flightsql.Connection]:
    with flightsql.connect(gateway.uri, autocommit=True) as connection:
        yield connection


def fetch(connection: flightsql.Connection, sql: str, parameters: object = None) -> list[tuple]:
    """All rows of a statement."""
    return arrow(connection, sql, parameters, lambda cursor: cursor.fetchall())


def arrow(connection: flightsql.Connection, sql: str, parameters: object = None, read=lambda cursor: cursor.fetch_arrow_table()):
    """The same as a table of Arrow."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return read(cursor)


def refusal(gateway: Gateway, sql: str) -> dict:
    """The error of a statement over HTTP."""
    return requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), timeout=60).json()["error"]


def test_the_listing(connection: flightsql.Connection, trino: Trino) -> None:
    def listed(catalog: str) -> dict[str, dict]:
        [found] = connection.adbc_get_objects(depth="all", catalog_filter=catalog).read_all().to_pylist()
        return {schema["db_schema_name"]: schema["db_schema_tables"] for schema in found["catalog_db_schemas"]}

    columns = "information_schema.columns WHERE table_schema = 'tiny'"
    before = len(trino.asked(columns))
    schemas = listed("tpch")
    # The driver asks for the columns of all catalogs, of which three have the eight tables; 16 tables are opened at once.
    assert len(trino.asked(columns)) - before <= 5, "tables are asked for at once"
    assert set(schemas) == {"information_schema", "tiny"}
    answer = trino.ask("select table_name, column_name from tpch.information_schema.columns where table_schema = 'tiny'")
    expected: dict[str, set[str]] = {}
    for table, column in answer.rows:
        expected.setdefault(table, set()).add(column)
    assert {
        table["table_name"]: {column["column_name"] for column in table["table_columns"]} for table in schemas["tiny"]
    } == expected
    kinds = {table["table_name"]: table["table_type"] for table in listed("mem")["default"]}
    assert kinds == {"odd": "TABLE", "rich": "VIEW"}
    assert fetch(connection, "select * from mem.default.rich order by id") == [(2,), (3,)]


def test_names_with_quotes(connection: flightsql.Connection) -> None:
    # Trino has no letters but small ones in names.
    name = '"o\'neil ""x"""'
    assert fetch(connection, f"select {name} from mem.default.odd order by id") == [("it's",), (None,), ("数据",)]
    assert fetch(connection, f"select id from mem.default.odd where {name} = 'it''s'") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "sent", "rows"),
    [
        ("select n_name from nation where n_nationkey = 7", """FROM "tiny"."nation" WHERE ("n_nationkey" = BIGINT '7')""", 1),
        ("select n_comment from nation where n_name = 'KENYA'", """ WHERE ("n_name" = 'KENYA')""", 1),
        ("select o_orderkey from orders where o_orderdate = date '1995-01-01'", """("o_orderdate" = DATE '1995-01-01')""", 4),
        ("select s_name from supplier where s_acctbal >= 9759.38", """("s_acctbal" >= CAST('9759.38' AS decimal(12, 2)))""", 2),
        ("select n_name from nation limit 3", 'SELECT "n_name" FROM "tiny"."nation" LIMIT 3', 3),
        ("select n_name from nation where n_regionkey = 1 limit 2", """ WHERE ("n_regionkey" = BIGINT '1') LIMIT 2""", 2),
        ("select n_regionkey from nation where upper(n_name) = 'KENYA'", """ FROM "tiny"."nation\"""", 1),
    ],
)
def test_what_is_pushed_down(sql: str, sent: str, rows: int, trino: Trino, connection: flightsql.Connection) -> None:
    plan = dict(fetch(connection, f"explain {sql}"))["physical_plan"]
    [scan] = [line.strip() for line in plan.splitlines() if "TrinoScan" in line]
    text = scan.removeprefix("TrinoScan: ")
    assert text.endswith(sent)
    assert trino.asked(text) == [], "EXPLAIN reads nothing"
    assert len(fetch(connection, sql)) == rows
    assert trino.asked(text) == [text]


def test_explain_tells_what_it_does(connection: flightsql.Connection) -> None:
    told = dict(fetch(connection, "explain analyze select n_name from nation where n_regionkey = 1"))
    assert re.match("5 rows", told["answer"])
    [scan] = [line for line in told["physical_plan"].splitlines() if "TrinoScan" in line]
    assert re.search(r"metrics=\[output_rows=5, time_elapsed_reading=\d*\.?\d+.?s\]", scan), scan


def test_rows_are_counted(connection: flightsql.Connection, trino: Trino) -> None:
    [[expected]] = trino.ask("select count(*) from tpch.tiny.lineitem").rows
    for catalog in ("tpch", "direct"):
        assert fetch(connection, f"select count(*) from {catalog}.tiny.lineitem") == [(expected,)]
    assert fetch(connection, "select count(*) from nation where n_regionkey = 9") == [(0,)]


def test_what_a_statement_comes_with(connection: flightsql.Connection, trino: Trino) -> None:
    told = "select who, zone from native('tpch', $$select current_user as who, current_timezone() as zone$$)"
    assert fetch(connection, told) == [("gateway", "UTC")]
    session = trino.about(trino.asked("current_timezone", "query_id")[-1])["session"]
    assert (session["user"], session["source"], session["clientTags"]) == ("gateway", "nexus-gateway", ["of a test"])
    assert session["systemProperties"] == {"query_max_run_time": "7m"}
    queries = fetch(connection, "select query_id from system.tiny.queries where statement like 'select who%'")
    assert (session["traceToken"],) in queries


def test_tables_are_joined_with_those_of_others(connection: flightsql.Connection) -> None:
    sql = """select n.n_name, o.id from tpch.tiny.nation n join mem.default.odd o on n.n_nationkey = o.id order by o.id"""
    assert fetch(connection, sql) == [("ARGENTINA", 1), ("BRAZIL", 2), ("CANADA", 3)]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("select n_name from nation where n_nationkey = ?", (7,)),
        ("select n_nationkey from nation where n_name = ?", ("GERMANY",)),
        ("select count(*) from nation where n_name = ?", ("x' or '1'='1",)),
        ("select count(*) from orders where o_orderdate < ?", (date(1995, 1, 1),)),
        ("select count(*) from supplier where s_acctbal > ?", (Decimal("5000.00"),)),
        ("select count(*) from orders where o_orderkey between ? and ?", (100, 200)),
        ("select count(*) from nation where n_name is distinct from ?", (None,)),
    ],
)
def test_parameters(sql: str, parameters: tuple, connection: flightsql.Connection, trino: Trino) -> None:
    using = ", ".join(map(literal, parameters))
    immediate = f"execute immediate '{sql}' using {using}"
    answer = trino.ask(immediate, X_Trino_Catalog="tpch", X_Trino_Schema="tiny")
    assert fetch(connection, sql, parameters) == trino_values.rows(answer.columns, answer.rows)


def literal(value: object) -> str:
    """A parameter in Trino's SQL."""
    match value:
        case None:
            return "null"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case date():
            return f"date '{value}'"
    return str(value)


def test_jdbc_binds_and_cancels(gateway: Gateway, trino: Trino) -> None:
    bound = jdbc.values(jdbc.probe("prepared", gateway.flight))
    for name in ("int", "long"):
        assert bound[name] == [["GERMANY"]]
    assert (bound["string"], bound["quote"], bound["two"]) == ([["7"]], [["0"]], [["28"]])
    for name, condition in {"decimal": "l_discount = 0.05", "date": "o_orderdate < date '1995-01-01'"}.items():
        table = "lineitem" if name == "decimal" else "orders"
        [[expected]] = trino.ask(f"select count(*) from tpch.tiny.{table} where {condition}").rows
        assert bound[name] == [[str(expected)]]
    [line] = jdbc.probe("cancel", gateway.flight, ENDLESS, 1)
    assert line["value"] == {"said": ["cancelled"], "after": [["1"]]}
    assert eventually(lambda: trino.running("sf1000") == 0, GONE)


NATIVE = "select n_regionkey as r, count(*) as n, array_agg(n_name order by n_name) as names from tiny.nation group by 1"


def test_a_native_statement_is_a_table(connection: flightsql.Connection, trino: Trino) -> None:
    answer = trino.ask(NATIVE + " order by 1", X_Trino_Catalog="tpch")
    expected = trino_values.rows(answer.columns, answer.rows)
    assert fetch(connection, f"select * from native('tpch', '{NATIVE}') order by r") == expected
    call = f"native('tpch', $${NATIVE};  $$) as t"
    joined = f"select r_name, t.n from region join {call} on r_regionkey = t.r where t.r < 2 order by 1"
    assert fetch(connection, joined) == [("AFRICA", 5), ("AMERICA", 5)]
    # What is around it is not for Trino, and it may end in a comment.
    assert fetch(connection, "select v + 1 from native('mem', $$select 1 as v -- one$$) where v = 1") == [(2,)]


@pytest.mark.parametrize(
    ("native", "code"),
    [
        ("select *\nfrom tiny.nation were n_nationkey = 1", "SYNTAX_ERROR"),
        ("select n_name,\n  nothing from tiny.nation", "COLUMN_NOT_FOUND"),
        ("select *\nfrom tiny.natoin", "TABLE_NOT_FOUND"),
        ("select 'x' + 1 as v", "TYPE_MISMATCH"),
    ],
)
def test_an_error_of_trino_has_its_code_and_place(native: str, code: str, gateway: Gateway, trino: Trino) -> None:
    with pytest.raises(Failed) as failed:
        trino.ask(native, X_Trino_Catalog="tpch")
    expected = failed.value.error
    assert expected["errorName"] == code
    error = refusal(gateway, f"select * from native('tpch', $${native}$$)")
    place = expected["errorLocation"]
    assert f"line {place['lineNumber']}, column {place['columnNumber']}: trino: " in error["message"], error
    assert f"({code})" in error["message"]
    assert error["kind"] == ("not_found" if code == "TABLE_NOT_FOUND" else "invalid")
    assert error["hint"]


def test_other_errors(gateway: Gateway) -> None:
    error = refusal(gateway, "select v from native('tpch', 'select 1 / (n_nationkey - n_nationkey) as v from tiny.nation')")
    assert (error["kind"], "(DIVISION_BY_ZERO)" in error["message"]) == ("invalid", True), error
    assert re.search(r"\b\d{8}_\d{6}_\d{5}_\w{5}\b", json.dumps(error)), "it names the statement at Trino"
    assert refusal(gateway, "select * from natoin")["hint"].startswith('did you mean "nation"')
    assert refusal(gateway, "select * from tpch.sf1.nation")["kind"] == "not_found"
    error = refusal(gateway, "select * from native('nowhere', 'select 1 as v')")
    assert error["kind"] == "not_found"


@pytest.mark.parametrize(
    "sql",
    ["drop table {}", "insert into {} values (9, '')", "explain analyze delete from {}"],
)
def test_a_native_statement_changes_nothing(sql: str, gateway: Gateway, trino: Trino) -> None:
    table = "memory.default.odd"
    assert refusal(gateway, f"select * from native('mem', $${sql.format(table)}$$)")["kind"] == "unsupported"
    assert trino.ask(f"select count(*) from {table}").rows == [[3]]


@pytest.mark.parametrize("sql", [ENDLESS, COUNTED], ids=["rows", "a number"])
def test_a_statement_that_is_cancelled_ends_there(sql: str, connection: flightsql.Connection, trino: Trino) -> None:
    with connection.cursor() as cursor:
        with clients.executing(cursor, sql) as failed:
            assert eventually(lambda: trino.running("sf1000") == 1, 10)
            cursor.adbc_cancel()
            assert eventually(lambda: trino.running("sf1000") == 0, GONE)
        assert failed


def test_a_statement_whose_client_leaves_ends_there(gateway: Gateway, trino: Trino) -> None:
    with flight.connect(gateway.uri) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(statement(ENDLESS)))
        reader = client.do_get(info.endpoints[0].ticket)
        assert reader.read_chunk().data.num_rows > 0
        assert trino.running("sf1000") == 1
        reader.cancel()
    assert eventually(lambda: trino.running("sf1000") == 0, GONE)
    with clients.started(gateway.uri, "reads", f"{ENDLESS} where l_orderkey > ?") as process:
        assert process.stdout.readline() == "ready\n"
        assert eventually(lambda: trino.running("sf1000") == 1, 20)
        process.kill()
        assert eventually(lambda: trino.running("sf1000") == 0, GONE)


def test_a_statement_whose_time_is_over_ends_there(gateway: Gateway, trino: Trino) -> None:
    with Client(gateway.flight) as client:
        [ticket] = client.info(statement(COUNTED)).tickets
        with pytest.raises(grpc.RpcError) as error:
            list(client.get(ticket, timeout=2))
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert eventually(lambda: trino.running("sf1000") == 0, GONE)
        assert client.rows("select count(*) as n from nation") == [{"n": 25}]


COLUMNS = "l_orderkey, l_partkey, l_suppkey, l_quantity, l_extendedprice, l_shipdate, l_receiptdate, l_shipinstruct, l_comment"


def test_a_client_that_reads_slowly_takes_little_memory(gateway: Gateway) -> None:
    """Of 750 MB of rows a few segments ahead, as they came and unpacked, and the batches of three."""
    process, peak, rows = psutil.Process(gateway.pid), 0, 0
    before = process.memory_info().rss
    with flight.connect(gateway.uri) as client:
        sql = f"select {COLUMNS} from whole.sf1.lineitem"
        info = client.get_flight_info(flight.FlightDescriptor.for_command(statement(sql)))
        for number, chunk in enumerate(client.do_get(info.endpoints[0].ticket)):
            rows += chunk.data.num_rows
            if number % 64 == 0:
                time.sleep(0.1)
                peak = max(peak, process.memory_info().rss)
    assert rows == 6_001_215
    assert peak - before < 448 * MIB, f"{(peak - before) / MIB:.0f} MiB more"


@pytest.fixture
def segments(trino: Trino, spooled: Bucket) -> Callable[[], list[Path]]:
    """What lies in the bucket, where nothing is left of statements that were cut: those nobody has acknowledged."""
    assert eventually(lambda: trino.running() == 0, 5)
    folder = spooled.root / BUCKET
    for file in folder.iterdir():
        file.unlink()
    return lambda: list(folder.iterdir())


@pytest.mark.parametrize("table", ["region", "orders", "lineitem"])
def test_rows_come_in_segments_or_not(
    table: str, connection: flightsql.Connection, trino: Trino, segments: Callable[[], list[Path]]
) -> None:
    """Few rows come within a page, many by way of the bucket, and without segments all of them within pages."""
    answer = trino.ask(f"select * from tpch.tiny.{table}")
    names = [column["name"] for column in answer.columns]
    by_key = [(name, "ascending") for name in names if name in ("r_regionkey", "o_orderkey", "l_orderkey", "l_linenumber")]
    expected = sorted(trino_values.rows(answer.columns, answer.rows), key=repr)
    found = [arrow(connection, f"select * from {catalog}.tiny.{table}").sort_by(by_key) for catalog in ("whole", "direct")]
    assert found[0].equals(found[1])
    assert sorted((tuple(row.values()) for row in found[0].to_pylist()), key=repr) == expected
    assert arrow(connection, f"select * from whole.tiny.{table} where false").num_rows == 0
    # What was read is acknowledged, and so it is removed there.
    assert eventually(lambda: not segments(), 5)


@pytest.mark.parametrize(("catalog", "is_spooled"), [("whole", True), ("direct", False)])
def test_what_is_large_is_spooled_where_that_is_wanted(
    catalog: str, is_spooled: bool, gateway: Gateway, trino: Trino, segments: Callable[[], list[Path]]
) -> None:
    with flight.connect(gateway.uri) as client:
        sql = f"select l_orderkey, l_comment from {catalog}.sf1.lineitem"
        info = client.get_flight_info(flight.FlightDescriptor.for_command(statement(sql)))
        reader = client.do_get(info.endpoints[0].ticket)
        assert reader.read_chunk().data.num_rows > 0
        assert eventually(lambda: bool(segments()), 5 if is_spooled else 1) == is_spooled
        reader.cancel()
    assert eventually(lambda: trino.running("lineitem") == 0, GONE)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    text = f'[catalogs.gone]\nkind = "trino"\nurl = "{url}"\nuser = "me"\ncatalog = "tpch"\n'
    with configured(tmp_path, text, replicas=1) as gateway:
        started = time.monotonic()
        error = refusal(gateway, "select * from gone.tiny.nation")
        assert time.monotonic() - started < 5
        assert (error["kind"], error["place"]) == ("unavailable", "catalogs.gone.url"), error


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("127.0.0.1:1", "me:hunter2@127.0.0.1:1"), "a user in the address is shown"),
        (('catalog = "tpch"', ""), "catalog"),
        (('user = "me"', 'user = "me"\npassword = "hunter2"\ntoken = "hunter2"'), "there is a password and a token"),
        (('user = "me"', 'user = "me"\nsession = ["hunter2"]'), "names no session property"),
        (("127.0.0.1:1", 'example.com:1"\npassword = "hunter2'), "in plain text"),
        (('user = "me"', 'user = "me"\npool = 3'), 'unknown key "pool"'),
    ],
)
def test_a_wrong_configuration_is_told(change: tuple[str, str], why: str, tmp_path: Path) -> None:
    text = '[catalogs.t]\nkind = "trino"\nurl = "http://127.0.0.1:1"\nuser = "me"\ncatalog = "tpch"\n'
    with pytest.raises(RuntimeError, match=why) as error:
        configured(tmp_path, text.replace(*change))
    assert "hunter2" not in str(error.value)
