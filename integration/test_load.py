"""Many clients at once, clients that are killed, statements that are cancelled, and a database that dies: every answer is
right or an error, in time, and nothing stays behind. `make soak` runs the full sizes."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import duckdb
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import jdbc
import postgres
from gateway import Gateway, configured, eventually
from postgres import Database
from wire import Client, statement

SEED = """
create table people as select n as id, 'name ' || n as name from generate_series(1, 100000) n;
create view endless as select a.id, b.name from people a cross join people b;
create view long as select a.id, repeat(a.name, 10) as name from people a cross join generate_series(1, 20);
create view slow as select pg_sleep(60)::text as slept;
"""

TEXT = """
[limits]
concurrency = 8
queue = 200
queue_wait = "120s"
transaction_idle = "3s"

[catalogs.shop]
kind = "postgres"
url = "{url}"
password = "${{env:PASSWORD}}"
writable = true
pool = 20
connect_timeout = 30
read_timeout = 10

[catalogs.kept]
kind = "postgres"
url = "{url}"
password = "${{env:PASSWORD}}"
connect_timeout = 30
read_timeout = 10
ttl = "1h"

[catalogs.tpch]
kind = "files"
location = "{tpch}"
"""


def sizes(short: tuple, full: tuple) -> pytest.MarkDecorator:
    """A short form for every run, and the full one for `make soak`."""
    soak = pytest.param(*full, marks=[pytest.mark.soak, pytest.mark.timeout(900)], id="full")
    return pytest.mark.parametrize(SIZES[len(short)], [pytest.param(*short, id="short"), soak])


SIZES = {1: "times", 2: "clients, seconds"}


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server whose views can stream for ever."""
    with postgres.server("max_connections=200") as database:
        database.sql(SEED)
        yield database


@pytest.fixture(scope="module")
def gateway(database: Database, tpch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the database and the files of TPC-H."""
    text = TEXT.format(url=database.url, tpch=tpch)
    with configured(tmp_path_factory.mktemp("load"), text, environment={"PASSWORD": postgres.PASSWORD}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def questions(judge: duckdb.DuckDBPyConnection) -> list[tuple[int, str]]:
    """Statements with the checksums of their answers, by DuckDB."""
    judge.execute("create or replace table people as select n as id, 'name ' || n as name from range(1, 100001) r(n)")
    kinds = [
        "select l_orderkey, l_comment from tpch.main.lineitem where l_suppkey % 97 = {part}",
        "select id, name from shop.public.people where id % 97 = {part}",
        "select p.id, o_comment from shop.public.people p join tpch.main.orders on o_orderkey = p.id where p.id % 97 = {part}",
        "select o_custkey, max(o_comment) from tpch.main.orders where o_custkey % 97 = {part} group by o_custkey",
    ]
    asked = [kind.format(part=part) for kind in kinds for part in range(0, 97, 12)]
    here = [sql.replace("tpch.main.", "").replace("shop.public.", "") for sql in asked]
    return [(checksum(judge.sql(sql).to_arrow_table()), asked) for sql, asked in zip(here, asked, strict=True)]


def checksum(rows: pa.Table) -> int:
    """Of rows of a number and a text: the sum of the numbers and of the CRC-32 of the texts."""
    texts = rows.column(1).to_pylist()
    return pc.sum(rows.column(0).cast(pa.int64())).as_py() + sum(zlib.crc32(text.encode()) for text in texts)


def metric(gateway: Gateway, name: str) -> int:
    """What the gateway says of itself."""
    with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next((int(float(line.split()[1])) for line in lines if line.startswith(f"{name} ")), 0)


def running(gateway: Gateway) -> int:
    """How many statements run or wait at the gateway now."""
    return metric(gateway, "nexus_statements_running")


def reserved(gateway: Gateway) -> int:
    """The bytes that its statements hold of the memory limit."""
    return metric(gateway, "nexus_memory_reserved_bytes")


@sizes((8, 5), (64, 180))
def test_every_answer_is_whole(
    clients: int, seconds: int, gateway: Gateway, questions: list[tuple[int, str]], tmp_path: Path
) -> None:
    """Half of the clients are of ADBC, and half of JDBC."""
    listed = tmp_path / "questions"
    listed.write_text("".join(f"{wanted}\t{sql}\n" for wanted, sql in questions))
    end = time.monotonic() + seconds
    right, wrong = [0] * (clients // 2), []

    def ask(number: int) -> None:
        chosen = random.Random(number)
        try:
            with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
                while time.monotonic() < end:
                    wanted, sql = chosen.choice(questions)
                    cursor.execute(sql)
                    got = checksum(cursor.fetch_arrow_table())
                    assert got == wanted, f"{got} in place of {wanted}: {sql}"
                    right[number] += 1
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients // 2)]
    for thread in threads:
        thread.start()
    url = jdbc.URL.format(address=gateway.flight, encryption="false")
    [java] = jdbc.probe("load", gateway.flight, url, clients // 2, seconds, listed)
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert (wrong, java["value"]["wrong"]) == ([], [])
    assert min(right) > 0
    assert java["value"]["right"] >= clients // 2
    print(f"{sum(right)} answers by ADBC and {java['value']['right']} by JDBC")


CLIENT = """
import sys
import adbc_driver_flightsql.dbapi as flightsql
with flightsql.connect(sys.argv[1], autocommit=sys.argv[2] != "writes") as connection, connection.cursor() as cursor:
    if sys.argv[2] == "writes":
        cursor.execute("insert into shop.public.written select id from shop.public.people")
    print("ready", flush=True)
    while True:
        cursor.execute(sys.argv[3])
        for batch in cursor.fetch_record_batch():
            pass
"""


@sizes((3,), (50,))
def test_clients_that_are_killed_leave_nothing(times: int, gateway: Gateway, database: Database) -> None:
    database.sql("create table if not exists written (id bigint)")
    process = psutil.Process(gateway.pid)
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from shop.public.people")
        cursor.fetchall()
    assert eventually(lambda: running(gateway) == 0, 10)
    files = process.num_fds()
    chosen = random.Random(7)
    for _ in range(times):
        kinds = [
            ("reads", "select * from shop.public.endless"),
            ("reads", "select l.* from tpch.main.lineitem l, generate_series(1, 1000)"),
            ("writes", "select count(*) from shop.public.written, generate_series(1, 3)"),
        ]
        started = [
            subprocess.Popen([sys.executable, "-c", CLIENT, gateway.uri, *kind], stdout=subprocess.PIPE, text=True)
            for kind in kinds
        ]
        for client in started:
            assert client.stdout.readline() == "ready\n"
        time.sleep(chosen.random() / 2)
        for client in started:
            client.kill()
            client.wait()
    assert eventually(lambda: running(gateway) == 0, 10)
    assert eventually(lambda: not database.running() and reserved(gateway) == 0, 2)
    # Transactions that nobody ends are rolled back when they were left alone for long enough.
    idle = "application_name = 'nexus-gateway' and state like 'idle in transaction%'"
    assert eventually(lambda: database.sql(f"select count(*) from pg_stat_activity where {idle}") == [["0"]], 10)
    assert database.sql("select count(*) from written") == [["0"]]
    # Connections to the database are kept for the next statement, as many as the pool has.
    assert eventually(lambda: process.num_fds() <= files + 20, 10), (files, process.num_fds())


@contextmanager
def locked(database: Database, table: str) -> Iterator[None]:
    """Holds a table so that nobody reads it."""
    environment = {**os.environ, "PGPASSWORD": postgres.PASSWORD}
    address = ["-h", "127.0.0.1", "-p", str(database.port), "-U", postgres.USER, "-d", "postgres"]
    command = [str(postgres.program("psql")), *address, "-X", "-q", "-A", "-t"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as psql:
        psql.stdin.write(f"begin; lock table {table} in access exclusive mode; select 'held';\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "held\n"
        try:
            yield
        finally:
            psql.stdin.write("rollback;\n")
            psql.stdin.close()


def cancelled(gateway: Gateway, sql: str, is_there: Callable[[], bool], streams: bool = False) -> None:
    """Runs a statement and, once it is where it should be, cancels it as ADBC does.

    Where it streams that is once there are rows: between two calls the driver has none that it could cancel.
    """
    failed: list[Exception] = []
    has_rows = threading.Event()
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:

        def run() -> None:
            try:
                cursor.execute(sql)
                for _ in cursor.fetch_record_batch():
                    has_rows.set()
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert eventually(is_there, 10), failed
        assert not streams or has_rows.wait(10)
        cursor.adbc_cancel()
        thread.join(2)
        assert not thread.is_alive()
        assert failed, "a statement that was cancelled ended well"


@sizes((5,), (34,))
def test_what_is_cancelled_ends_at_the_database(times: int, gateway: Gateway, database: Database) -> None:
    for _ in range(times):
        cancelled(gateway, "select * from shop.public.endless", lambda: len(database.running()) == 1, streams=True)
        assert eventually(lambda: not database.running() and reserved(gateway) == 0, 2)
    with locked(database, "pg_catalog.pg_description"):
        for _ in range(times):
            cancelled(gateway, "select * from shop.public.slow", lambda: len(database.running()) == 1)
            assert eventually(lambda: not database.running() and reserved(gateway) == 0, 2)
    with Client(gateway.flight) as client:
        endless = client.info(statement("select l.l_orderkey from tpch.main.lineitem l, generate_series(1, 100000)"))
        streams = [client.get(endless.tickets[0], 600) for _ in range(8)]
        for stream in streams:
            next(stream)
        for _ in range(times):
            # All that may run do, so that one more waits.
            cancelled(gateway, "select * from shop.public.endless", lambda: running(gateway) == 9)
            assert not database.running()
        for stream in streams:
            stream.cancel()
    assert eventually(lambda: running(gateway) == 0 and reserved(gateway) == 0, 10)


@sizes((5,), (100,))
def test_what_jdbc_cancels_ends_at_the_database(times: int, gateway: Gateway, database: Database) -> None:
    """Once there is a row: until a statement is planned this driver tells the server of no cancel."""
    [answer] = jdbc.probe("cancel", gateway.flight, "select * from shop.public.endless", times)
    assert answer["value"] == {"said": ["cancelled"] * times, "after": [["1"]]}
    assert eventually(lambda: not database.running() and reserved(gateway) == 0, 2)


@sizes((3,), (50,))
def test_a_database_that_is_killed_is_an_error(times: int, gateway: Gateway, database: Database) -> None:
    """Where one of its processes is killed, PostgreSQL ends all the others, and starts anew."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        for _ in range(times):
            cursor.execute("select id, name from kept.public.long")
            reader = cursor.fetch_record_batch()
            assert reader.read_next_batch().num_rows > 0
            assert eventually(lambda: len(database.running("long")) == 1, 5)
            os.kill(database.running("long")[0], signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises((adbc_driver_manager.Error, OSError)):
                for _ in reader:
                    pass
            assert time.monotonic() - killed < 5
            assert eventually(database.answers, 30)
        # What was cut is not kept.
        cursor.execute("select id, name from kept.public.long")
        assert cursor.fetch_arrow_table().num_rows == 2_000_000
