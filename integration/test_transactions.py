"""Transactions by SQL: of a session, for clients that have no calls for them. By hand, what drivers leave alone of those calls:
savepoints, and statements that write and that nobody prepared."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import grpc
import pyarrow as pa
import pytest

import jdbc
import postgres
from gateway import Gateway, configured, eventually, nexus
from postgres import Database
from wire import Client, called_by_go, carried, field, first, numbers, packed, parse

COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server with a schema of that name."""
    with postgres.server() as database:
        database.sql("create schema main")
        yield database


@pytest.fixture(scope="module")
def before(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with its database as the catalog `demo`."""
    with configured(tmp_path_factory.mktemp("postgres"), database.catalog("demo", writable=True), replicas=1) as gateway:
        yield gateway


@pytest.fixture(scope="module", params=["memory", "postgres"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a catalog `demo` that has transactions."""
    if request.param == "postgres":
        yield request.getfixturevalue("before")
        return
    with configured(tmp_path_factory.mktemp("memory"), '[catalogs.demo]\nkind = "memory"\nwritable = true\n', replicas=1) as own:
        yield own


@pytest.fixture
def connection(gateway: Gateway) -> Iterator[flightsql.Connection]:
    """A connection that keeps cookies and has no transaction of its own."""
    with flightsql.connect(gateway.uri, db_kwargs=COOKIES, autocommit=True) as connection:
        yield connection


def run(connection: flightsql.Connection, *statements: str) -> None:
    for statement in statements:
        with connection.cursor() as cursor:
            cursor.execute(statement)


def ids(connection: flightsql.Connection) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("select id from demo.main.t order by id")
        return [row[0] for row in cursor.fetchall()]


@pytest.fixture
def table(connection: flightsql.Connection) -> Iterator[None]:
    run(connection, "create table demo.main.t (id bigint)")
    yield
    run(connection, "rollback", "drop table demo.main.t")


def test_jdbc(gateway: Gateway) -> None:
    said = jdbc.values(jdbc.probe("transactions", gateway.flight))
    assert (said["begin"], said["insert"]) == (0, 1)
    # The probe writes whole numbers as text.
    seen = {name: [int(row[0]) for row in rows] for name, rows in said.items() if isinstance(rows, list)}
    assert (seen["within"], seen["without"]) == ([1], [])
    assert (seen["marked"], seen["back"]) == ([1, 2], [1])
    assert "open already" in str(said["again"])
    assert (seen["committed"], seen["rolledBack"], seen["alone"]) == ([1], [1], [1, 4])


def test_adbc(gateway: Gateway, connection: flightsql.Connection, table: None) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as other:
        run(connection, "begin", "insert into demo.main.t values (1)", "savepoint a", "insert into demo.main.t values (2)")
        run(connection, "savepoint a", "insert into demo.main.t values (3)")
        assert (ids(connection), ids(other)) == ([1, 2, 3], [])
        run(connection, "rollback to savepoint a")
        assert ids(connection) == [1, 2]
        run(connection, "release savepoint a", "rollback to savepoint a")
        assert ids(connection) == [1]
        run(connection, "commit")
        assert ids(other) == [1]
        run(connection, "begin", "delete from demo.main.t", "rollback")
        assert (ids(connection), ids(other)) == ([1], [1])


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["begin", "begin"], "a transaction of this session is open already; end it by COMMIT or ROLLBACK"),
        (["savepoint s"], "no transaction of this session is open; begin one by BEGIN"),
        (["begin", "rollback to savepoint s"], 'there is no savepoint "s"; set it by SAVEPOINT'),
        (["start transaction read only"], "a transaction with modes is not offered"),
        (["commit and chain"], "AND CHAIN is not offered"),
    ],
)
def test_what_cannot_be(connection: flightsql.Connection, table: None, statements: list[str], message: str) -> None:
    with pytest.raises(adbc_driver_manager.Error) as error:
        run(connection, *statements)
    assert message in str(error.value)


def test_ending_what_has_not_begun_is_no_mistake(connection: flightsql.Connection) -> None:
    run(connection, "commit", "rollback")


def test_nexus_sql(gateway: Gateway, connection: flightsql.Connection, table: None) -> None:
    statements = [
        "begin",
        "insert into demo.main.t values (7)",
        "select count(*) from demo.main.t",
        "rollback",
        "select count(*) from demo.main.t",
    ]
    commands = [word for statement in statements for word in ("-c", statement)]
    done = nexus("sql", "--url", gateway.uri, "--format", "csv", *commands)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["0", "1", "1", "0", "0"], done.stdout
    assert ids(connection) == []


def test_a_client_without_cookies_is_told(gateway: Gateway) -> None:
    with (
        flightsql.connect(gateway.uri, autocommit=True) as connection,
        pytest.raises(adbc_driver_manager.Error, match="with_cookie_middleware"),
    ):
        run(connection, "begin")


def test_what_the_driver_began_is_the_drivers_to_end(tmp_path: Path) -> None:
    text = '[defaults]\ncatalog = "kept"\n[catalogs.kept]\nkind = "memory"\nwritable = true\n'
    with (
        configured(tmp_path, text, replicas=1) as gateway,
        flightsql.connect(gateway.uri, db_kwargs=COOKIES) as connection,
        connection.cursor() as cursor,
    ):
        for refused in ("begin", "commit", "/* a */ rollback"):
            with pytest.raises(adbc_driver_manager.Error, match="driver"):
                cursor.execute(refused)
        cursor.execute("create table t (a bigint)")
        cursor.execute("insert into t values (1)")
        cursor.execute("savepoint s")
        cursor.execute("insert into t values (2)")
        cursor.execute("rollback to savepoint s")
        cursor.execute("release savepoint s")
        connection.commit()
        with flightsql.connect(gateway.uri, autocommit=True) as other, other.cursor() as seen:
            seen.execute("select a from t")
            assert seen.fetchall() == [(1,)]


@pytest.mark.parametrize("by", ["sql", "driver"])
def test_a_session_takes_along_what_it_has_not_committed(by: str, database: Database, before: Gateway) -> None:
    """At once, and not when it has been left alone for minutes."""
    held = f"main.held_by_{by}"

    def holders() -> str:
        [[count]] = database.sql(
            "select count(*) from pg_stat_activity join pg_locks using (pid)"
            f" where state = 'idle in transaction' and relation = '{held}'::regclass"
        )
        return count

    database.sql(f"create table {held} (id bigint)")
    with flightsql.connect(before.uri, db_kwargs=COOKIES, autocommit=by == "sql") as connection:
        run(connection, *(["begin"] if by == "sql" else []), f"insert into demo.{held} values (1)")
        assert int(holders()) > 0
    assert eventually(lambda: holders() == "0", 1)
    database.sql(f"set lock_timeout = '1s'; alter table {held} add column name text")
    assert database.sql(f"select count(*) from {held}") == [["0"]]


def test_a_session_takes_along_no_other_transaction(gateway: Gateway, table: None) -> None:
    with Client(gateway.flight) as client, Client(gateway.flight) as lasting, Client(gateway.flight) as without:
        client.session()
        lasting.session()
        ended, others = client.begin(), [(lasting, lasting.begin()), (without, without.begin())]
        client.update("insert into demo.main.t values (1)", ended)
        assert client.action("CloseSession", b"") == [b"\x08\x01"]
        with pytest.raises(grpc.RpcError) as error:
            seen(without, ended)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "the transaction is not open here" in error.value.details()
        for other, transaction in others:
            other.update("insert into demo.main.t values (2)", transaction)
            other.end(transaction)
        assert seen(without) == [2, 2]


def seen(client: Client, transaction: bytes = b"") -> list[int]:
    return [row["id"] for row in client.rows("select id from demo.main.t order by id", transaction=transaction)]


def test_savepoints_by_call(gateway: Gateway, table: None) -> None:
    with Client(gateway.flight) as client, Client(gateway.flight) as other:
        transaction = client.begin()
        client.update("insert into demo.main.t values (1)", transaction)
        first = client.savepoint(transaction, "s")
        client.update("insert into demo.main.t values (2)", transaction)
        # Each has a handle of its own, whatever it is called.
        second = client.savepoint(transaction, "s")
        client.update("insert into demo.main.t values (3)", transaction)
        assert (seen(client, transaction), seen(other)) == ([1, 2, 3], [])
        client.end_savepoint(second, releases=False)
        assert seen(client, transaction) == [1, 2]
        client.end_savepoint(second, releases=True)
        with pytest.raises(grpc.RpcError) as error:
            client.end_savepoint(second, releases=False)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert "the savepoint is not one of this transaction" in error.value.details()
        assert seen(client, transaction) == [1, 2]
        # One that was gone back to is still there.
        for row in (4, 5):
            client.end_savepoint(first, releases=False)
            assert seen(client, transaction) == [1]
            client.update(f"insert into demo.main.t values ({row})", transaction)
        client.end_savepoint(first, releases=True)
        assert (seen(client, transaction), seen(other)) == ([1, 5], [])
        client.end(transaction)
        assert seen(other) == [1, 5]
        with pytest.raises(grpc.RpcError) as error:
            client.end_savepoint(first, releases=True)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_savepoints_by_go(gateway: Gateway, table: None) -> None:
    said = called_by_go("savepoints", gateway.flight)
    assert (said["marked"], said["back"], said["gone"]) == ([1, 2], [1, 3], "NotFound")
    assert (said["without"], said["committed"]) == ([], [1, 3])


def test_what_is_prepared_says_to_go_whether_it_writes(gateway: Gateway, table: None) -> None:
    said = called_by_go("prepared", gateway.flight)
    assert [(sql.split()[0], writes) for sql, writes in said.items()] == [
        ("select", False),
        ("insert", True),
        ("delete", True),
        ("begin", True),
    ]


@pytest.mark.parametrize("prepares", [False, True], ids=["statement", "prepared"])
def test_what_writes_runs_when_it_is_described_and_once(
    prepares: bool, gateway: Gateway, connection: flightsql.Connection
) -> None:
    """The driver asks for the partitions of an answer by GetFlightInfo, and reads them by DoGet where it is told to."""

    def described(sql: str) -> bytes:
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_sql_query(sql)
            if prepares:
                cursor.adbc_statement.prepare()
            [partition], _, _ = cursor.adbc_statement.execute_partitions()
            return partition

    def fetched(partition: bytes) -> list[tuple]:
        with connection.cursor() as cursor:
            cursor.adbc_read_partition(partition)
            return cursor.fetchall()

    made = described("create table demo.main.t (id bigint)")
    try:
        inserted = described("insert into demo.main.t values (1), (2)")
        assert ids(connection) == [1, 2]
        deleted = described("delete from demo.main.t where id = 2")
        assert ids(connection) == [1]
        for _ in range(2):
            assert [fetched(each) for each in (made, inserted, deleted)] == [[(0,)], [(2,)], [(1,)]]
        assert ids(connection) == [1]
    finally:
        dropped = described("drop table demo.main.t")
    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        ids(connection)
    described("create table demo.main.t (id bigint)")
    assert fetched(dropped) == [(0,)]
    assert ids(connection) == []
    described("drop table demo.main.t")


@pytest.mark.parametrize("autocommit", [True, False])
def test_updates_that_adbc_did_not_prepare(autocommit: bool, gateway: Gateway, connection: flightsql.Connection) -> None:
    with flightsql.connect(gateway.uri, autocommit=autocommit) as other, other.cursor() as cursor:

        def update(sql: str) -> int:
            cursor.adbc_statement.set_sql_query(sql)
            return cursor.adbc_statement.execute_update()

        assert update("create table demo.main.t (id bigint)") == 0
        assert update("insert into demo.main.t values (1), (2), (3)") == 3
        assert update("update demo.main.t set id = id + 10 where id > 1") == 2
        assert update("delete from demo.main.t where id = 99") == 0
        with pytest.raises(adbc_driver_manager.Error, match="the statement writes nothing; send it as a query"):
            update("select id from demo.main.t")
        if not autocommit:
            with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
                ids(connection)
            other.commit()
        assert ids(connection) == [1, 12, 13]
        assert update("drop table demo.main.t") == 0
        if not autocommit:
            other.commit()


@pytest.mark.parametrize("ends", ["autocommit", "commit", "rollback"])
def test_many_rows_of_parameters(ends: str, gateway: Gateway, connection: flightsql.Connection) -> None:
    rows = [(id, f"name {id}" if id % 3 else None, Decimal(id) / 4 if id % 5 else None) for id in range(10_000)]

    def there(by: flightsql.Connection) -> list[tuple]:
        with by.cursor() as cursor:
            cursor.execute("select id, name, price from demo.main.many order by id")
            return cursor.fetchall()

    run(connection, "create table demo.main.many (id bigint, name varchar, price decimal(9, 2))")
    try:
        with flightsql.connect(gateway.uri, autocommit=ends == "autocommit") as other, other.cursor() as cursor:
            cursor.executemany("insert into demo.main.many values (?, ?, ?)", rows)
            assert cursor.rowcount == len(rows)
            assert there(other) == rows
            if ends != "autocommit":
                assert there(connection) == []
                other.commit() if ends == "commit" else other.rollback()
            assert there(connection) == ([] if ends == "rollback" else rows)
    finally:
        run(connection, "drop table demo.main.many")


def test_updates_that_nobody_prepared(gateway: Gateway) -> None:
    with Client(gateway.flight) as client:
        assert client.update("create table demo.main.t (id bigint)") == 0
        try:
            assert client.update("insert into demo.main.t values (1), (2), (3), (4)") == 4
            assert client.update("update demo.main.t set id = id + 10 where id > 1") == 3
            assert client.update("delete from demo.main.t where id in (1, 12)") == 2
            assert client.update("delete from demo.main.t where id = 99") == 0
            assert seen(client) == [13, 14]
            transaction = client.begin()
            assert client.update("insert into demo.main.t select id from demo.main.t", transaction) == 2
            client.end(transaction, commits=False)
            assert seen(client) == [13, 14]
            with pytest.raises(grpc.RpcError) as error:
                client.update("select id from demo.main.t")
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "the statement writes nothing; send it as a query" in error.value.details()
        finally:
            client.update("drop table demo.main.t")


def test_rows_that_are_put_belong_to_their_transaction(gateway: Gateway) -> None:
    rows = pa.record_batch({"id": pa.array([1, 2], pa.int64())})
    create, append = b"\x08\x01\x10\x01", b"\x08\x02\x10\x02"
    with Client(gateway.flight) as client, Client(gateway.flight) as other:

        def put(options: bytes, transaction: bytes = b"") -> int:
            names = field(2, b"t") + field(3, b"main") + field(4, b"demo")
            body = field(1, options) + names + (field(6, transaction) if transaction else b"")
            [result] = client.put(carried(packed("CommandStatementIngest", body), rows))
            return numbers(first(parse(result), 1))[1]

        def absent() -> None:
            with pytest.raises(grpc.RpcError, match="does not exist"):
                seen(other)

        for commits in (False, True):
            transaction = client.begin()
            assert put(create, transaction) == 2
            assert seen(client, transaction) == [1, 2]
            absent()
            client.end(transaction, commits)
            if not commits:
                absent()
        try:
            assert seen(other) == [1, 2]
            transaction = client.begin()
            assert put(append, transaction) == 2
            client.update("delete from demo.main.t where id = 1", transaction)
            assert (seen(client, transaction), seen(other)) == ([2, 2], [1, 2])
            client.end(transaction, commits=False)
            assert seen(other) == [1, 2]
            # Without one they are there at once.
            assert put(append) == 2
            assert seen(other) == [1, 1, 2, 2]
        finally:
            client.update("drop table demo.main.t")


def test_adbc_puts_rows_outside_of_its_transaction(gateway: Gateway, connection: flightsql.Connection, table: None) -> None:
    with flightsql.connect(gateway.uri) as other, other.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table({"id": [1]}), mode="append", catalog_name="demo", db_schema_name="main")
        assert ids(connection) == [1]
        other.rollback()
        assert ids(connection) == [1]
