"""Clients of ADBC as processes of their own, which can be killed, and statements that run beside a test.

Each process says `ready` when it is where it is to be killed, but for those that come and go, which may be killed anywhere.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import adbc_driver_flightsql.dbapi as flightsql

# Makes a session with an option and a temporary table, and then it `reads` a statement over and over, does so in a transaction
# that `writes`, or puts rows in a mode into a table where it `ingests`. One that `waits` reads too, from when it is sent a line.
# None reads as fast as it can: others have to get to where they are killed.
CLIENT = """
import sys, time
import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
uri, kind, *rest = sys.argv[1:]
many = pa.record_batch({"id": pa.array(range(1_000_000), pa.int64())})
def rows():
    # More than anybody holds back on the way.
    for _ in range(4):
        yield many
    print("ready", flush=True)
    while True:
        yield many.slice(0, 1)
        time.sleep(0.01)
if kind == "waits":
    print("ready", flush=True)
    sys.stdin.readline()
cookies = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
with flightsql.connect(uri, db_kwargs=cookies, autocommit=True) as connection, connection.cursor() as cursor:
    if kind != "waits":
        cursor.execute("create temporary table mine as select 7 as n")
        connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.time_zone": "Asia/Shanghai"})
        cursor.execute("select count(*) from temp.main.mine where n > ?", (0,))
        assert cursor.fetchall() == [(1,)]
    if kind == "ingests":
        catalog, schema, table, mode = rest
        endless = pa.RecordBatchReader.from_batches(many.schema, rows())
        cursor.adbc_ingest(table, endless, mode=mode, catalog_name=catalog, db_schema_name=schema)
    if kind == "writes":
        connection.adbc_connection.set_autocommit(False)
        cursor.execute("insert into shop.public.written select id from shop.public.people where id > ?", (0,))
    if kind != "waits":
        print("ready", flush=True)
    while True:
        cursor.execute(rest[0], (0,))
        for batch in cursor.fetch_record_batch():
            time.sleep(0.01)
"""

# Connects, by a user where there is one, prepares a statement, binds 0, reads its first rows and closes all, with each of the
# statements in turn, without an end.
VISITOR = """
import itertools, sys
import adbc_driver_flightsql.dbapi as flightsql
uri, user, *statements = sys.argv[1:]
options = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
if user:
    options |= {"username": user, "password": user}
for sql in itertools.cycle(statements):
    with flightsql.connect(uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql, (0,))
        cursor.fetchone()
"""


@contextmanager
def started(uri: str, kind: str, *rest: str) -> Iterator[subprocess.Popen[str]]:
    """One of them; it is ended with the block."""
    with _process(CLIENT, uri, kind, *rest) as process:
        yield process


@contextmanager
def visiting(uri: str, user: str, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """One that comes and goes, as nobody where the user is empty; it is ended with the block."""
    with _process(VISITOR, uri, user, *statements) as process:
        yield process


@contextmanager
def _process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def killed(client: AbstractContextManager[subprocess.Popen[str]], after: float) -> None:
    """Starts a client, and kills it so many seconds later, wherever it is then; it does not end by itself."""
    with client as process:
        try:
            code = process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            return
    raise AssertionError(f"a client ended by itself with {code}")


def go_on(client: subprocess.Popen[str]) -> None:
    """Sends a line to a client that waits for it."""
    client.stdin.write("\n")
    client.stdin.flush()


@contextmanager
def executing(cursor: flightsql.Cursor, sql: str) -> Iterator[list[Exception]]:
    """A statement that another thread runs, which ends soon after the block; gives what it fails with."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            cursor.execute(sql)
            cursor.fetchall()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield failed
    thread.join(10)
    assert not thread.is_alive()
