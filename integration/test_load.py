"""Many clients at once, clients that are killed, and statements that are cancelled: every answer is right or an error, in time,
and nothing stays behind. `make soak` runs the full sizes."""

import json
import random
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import duckdb
import psutil
import pyarrow as pa
import pytest

import clients
import jdbc
import postgres
from gateway import Gateway, configured, eventually, users
from postgres import Database
from wire import Client, reserved, running, statement

SEED = """
create table people as select n as id, 'name ' || n as name from generate_series(1, 100000) n;
create view endless as select a.id, b.name from people a cross join people b;
create view slow as select pg_sleep(60)::text as slept;
"""

TEXT = """
[limits]
concurrency = {slots}
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

[catalogs.tpch]
kind = "files"
location = "{tpch}"
"""


def sizes(short: tuple, full: tuple) -> pytest.MarkDecorator:
    """A short form for every run, and the full one for `make soak`."""
    soak = pytest.param(*full, marks=[pytest.mark.soak, pytest.mark.timeout(900)], id="full")
    return pytest.mark.parametrize(SIZES[len(short)], [pytest.param(*short, id="short"), soak])


# How many statements run at once.
SLOTS = 8
SIZES = {1: "times", 2: "many, seconds"}
# The seconds within which what nobody waits for has ended everywhere.
SOON = 2
COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
OPTION = "adbc.flight.sql.session.option."


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server whose views can stream for ever."""
    with postgres.server("max_connections=200") as database:
        database.sql(SEED)
        yield database


@pytest.fixture(scope="module")
def gateway(database: Database, tpch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the database and the files of TPC-H."""
    text = TEXT.format(url=database.url, tpch=tpch, slots=SLOTS)
    with configured(tmp_path_factory.mktemp("load"), text, environment={"PASSWORD": postgres.PASSWORD}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def brief(database: Database, tpch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Another, whose sessions end when they were not heard of for ten seconds."""
    text = TEXT.format(url=database.url, tpch=tpch, slots=SLOTS) + '[tickets]\nsession_ttl = "10s"\n'
    with configured(tmp_path_factory.mktemp("brief"), text, environment={"PASSWORD": postgres.PASSWORD}) as gateway:
        yield gateway


# Of everything each sees what the other does not.
USERS = {"ann": 0, "bob": 1}
POLICY = (
    "\n".join(
        f"""[[rules]]
users = ["ann", "bob"]
tables = ["{table}"]
allow = ["read"]
filter = "({key} % 2 = 0) = ($user = 'ann')"
"""
        for table, key in {
            "shop.public.people": "id",
            "tpch.main.lineitem": "l_orderkey",
            "tpch.main.orders": "o_orderkey",
        }.items()
    )
    + """[[rules]]
users = ["root"]
tables = ["*.*.*"]
allow = ["read", "admin"]
"""
)


@pytest.fixture(scope="module")
def parted(database: Database, tpch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A third, where two users see different rows."""
    folder = tmp_path_factory.mktemp("parted")
    (folder / "policy.toml").write_text(POLICY)
    text = TEXT.format(url=database.url, tpch=tpch, slots=SLOTS) + users("root", *USERS) + '\n[policy]\nfile = "policy.toml"\n'
    with configured(folder, text, environment={"PASSWORD": postgres.PASSWORD}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def questions(judge: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[int, str]]]:
    """For each user statements with the checksums of their answers, by DuckDB. `{fresh}` in them is for another condition."""
    kinds = [
        "select l_orderkey, l_comment from tpch.main.lineitem where l_suppkey % 97 = PART{fresh}",
        "select id, name from shop.public.people where id % 97 = PART{fresh}",
        "select id, o_comment from shop.public.people join tpch.main.orders on o_orderkey = id where id % 97 = PART{fresh}",
        "select o_custkey, max(o_comment) from tpch.main.orders where o_custkey % 97 = PART{fresh} group by o_custkey",
    ]
    asked = [kind.replace("PART", str(part)) for kind in kinds for part in range(0, 97, 12)]
    here = [sql.replace("tpch.main.", "").replace("shop.public.", "").format(fresh="") for sql in asked]
    seen = {}
    for user, odd in USERS.items():
        rows = {
            "people": f"select n as id, 'name ' || n as name from range(1, 100001) r(n) where n % 2 = {odd}",
            "lineitem": f"select * from lineitem where l_orderkey % 2 = {odd}",
            "orders": f"select * from orders where o_orderkey % 2 = {odd}",
        }
        parts = ", ".join(f"{name} as ({sql.replace(f'from {name} ', f'from main.{name} ')})" for name, sql in rows.items())
        seen[user] = [
            (checksum(judge.sql(f"with {parts} {sql}").to_arrow_table()), text) for sql, text in zip(here, asked, strict=True)
        ]
    return seen


def checksum(rows: pa.Table) -> int:
    """Of rows of a number and a text: the sum of the CRC-32 of each `number:text`."""
    pairs = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    return sum(zlib.crc32(f"{number}:{text}".encode()) for number, text in pairs)


def value(gateway: Gateway, sql: str) -> object:
    """The first value of a statement, by a client without a session."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()[0][0]


def established(gateway: Gateway, port: int) -> int:
    """How many connections the gateway has to a port, or at one of its own."""
    connections = psutil.Process(gateway.pid).net_connections("tcp")
    ends = [(end.laddr, end.raddr) for end in connections if end.status == psutil.CONN_ESTABLISHED]
    return sum(port in (here.port, there.port) for here, there in ends)


def opened(gateway: Gateway, database: Database) -> int:
    """The file descriptors of the gateway, without connections of clients and good ones to the database, which it keeps."""
    known = established(gateway, port(gateway)) + established(gateway, database.port)
    return psutil.Process(gateway.pid).num_fds() - known


def port(gateway: Gateway) -> int:
    """Where its clients of Flight connect."""
    return int(gateway.flight.rpartition(":")[2])


def signed_in(gateway: Gateway, user: str) -> flightsql.Connection:
    """A connection of a user with a session."""
    login = {"username": user, "password": user}
    return flightsql.connect(gateway.uri, db_kwargs={**COOKIES, **login}, autocommit=True)


# What clients that come and go ask, with one parameter.
VISITED = ["select id, name from shop.public.people where id > ?", "select count(*) from tpch.main.lineitem where l_orderkey > ?"]
# The seconds after which they are killed at the latest: some have been through all by then, some have not begun.
LIVES = 4


def visitor(gateway: Gateway, user: str, by_jdbc: bool) -> AbstractContextManager[subprocess.Popen[str]]:
    """A client that comes and goes."""
    if by_jdbc:
        return jdbc.talking("visit", gateway.flight, *VISITED, **({"user": user, "password": user} if user else {}))
    return clients.visiting(gateway.uri, user, *VISITED)


@sizes((8, 5), (64, 180))
def test_every_answer_is_whole(
    many: int,
    seconds: int,
    parted: Gateway,
    database: Database,
    questions: dict[str, list[tuple[int, str]]],
    tmp_path: Path,
    figure: Callable[[str], None],
) -> None:
    """Half of the clients are of ADBC, half of JDBC; half of each are one user, and half of these get no answer that was kept.
    Beside them others come and go, of which about one is killed each second, wherever it is."""
    assert all(ann[0] != bob[0] for ann, bob in zip(*questions.values(), strict=True))
    pairs = []
    for user, known in questions.items():
        url = jdbc.URL.format(address=parted.flight, encryption="false") + f"&user={user}&password={user}"
        # For what is random no answer is kept.
        for name, condition in {"kept": "", "fresh": " and random() < 2"}.items():
            path = tmp_path / f"{user}-{name}"
            path.write_text("".join(f"{wanted}\t{sql.format(fresh=condition)}\n" for wanted, sql in known))
            pairs += [url, path]
        with signed_in(parted, user) as connection, connection.cursor() as cursor:
            cursor.execute(known[0][1].format(fresh=""))
            cursor.fetchall()
    assert eventually(lambda: running(parted) == 0 and established(parted, port(parted)) == 0, 10)
    files, seed = opened(parted, database), random.randrange(1 << 32)
    print(f"seed {seed}")
    end = time.monotonic() + seconds
    right, wrong, killed = [0] * (many // 2), [], [0, 0]

    def ask(number: int) -> None:
        chosen = random.Random(number)
        user = list(USERS)[number // 2 % 2]
        try:
            with signed_in(parted, user) as connection, connection.cursor() as cursor:
                # The session is that of the login: the driver takes the cookie of a statement once more when that is closed.
                connection.adbc_connection.set_options(**{f"{OPTION}cache": ["use", "bypass"][number % 2]})
                while time.monotonic() < end or right[number] == 0:
                    # The first is one that is kept.
                    wanted, sql = chosen.choice(questions[user]) if right[number] else questions[user][0]
                    cursor.execute(sql.format(fresh=""))
                    got = checksum(cursor.fetch_arrow_table())
                    assert got == wanted, f"{got} in place of {wanted}: {sql}"
                    right[number] += 1
        except Exception as error:
            wrong.append(repr(error))

    def disturb(number: int) -> None:
        chosen = random.Random(seed + number)
        try:
            while time.monotonic() < end:
                user = chosen.choice(list(USERS))
                clients.killed(visitor(parted, user, by_jdbc=number == 1), chosen.uniform(0, LIVES))
                killed[number] += 1
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(many // 2)]
    threads += [threading.Thread(target=disturb, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    login = {"user": "root", "password": "root"}
    [java] = jdbc.probe("load", parted.flight, many // 2, seconds, *pairs, wait=seconds + 120, **login)
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert (wrong, java["value"]["wrong"]) == ([], [])
    by_jdbc = java["value"]["right"]
    assert len(by_jdbc) == many // 2
    assert min(*right, *by_jdbc, *killed) > 0
    assert eventually(lambda: running(parted) == 0 and reserved(parted) == 0 and not database.running(), SOON)
    assert eventually(lambda: established(parted, port(parted)) == 0 and opened(parted, database) <= files + 5, 10), files
    for user in USERS:
        assert used(parted, user, "like 'select l_orderkey%' and statement not like '%random%'") >= {"hit", "bypass"}
        assert used(parted, user, "like 'select %random() < 2%'") == {"bypass"}
    figure(
        f"answers that are whole: {sum(right)} by ADBC and {sum(by_jdbc)} by JDBC; {sum(killed)} clients killed beside them, "
        f"seed {seed}"
    )


def used(gateway: Gateway, user: str, condition: str) -> set[str]:
    """What the cache had to do with statements of a user."""
    with signed_in(gateway, "root") as connection, connection.cursor() as cursor:
        asked = f"select distinct cache from system.main.queries where principal = '{user}' and statement {condition}"
        cursor.execute(asked)
        return {row[0] for row in cursor.fetchall()}


KINDS = [
    ("reads", "select * from shop.public.endless where id > ?"),
    ("reads", "select l.* from tpch.main.lineitem l, generate_series(1, 1000) where l.l_orderkey > ?"),
    ("writes", "select count(*) from shop.public.written, generate_series(1, 3) where id > ?"),
    ("ingests", "shop", "public", "written", "append"),
    ("waits", "select * from shop.public.endless where id > ?"),
]
# The most sessions of one user that may have temporary tables at once.
TEMPORARY = 24
# How many clients come and go at once.
VISITORS = 4


def has_room(gateway: Gateway) -> bool:
    """Whether no session has a temporary table, by making as many as there may be."""
    try:
        with ExitStack() as stack:
            for _ in range(TEMPORARY):
                connection = stack.enter_context(flightsql.connect(gateway.uri, db_kwargs=COOKIES, autocommit=True))
                with connection.cursor() as cursor:
                    cursor.execute("create temporary table mine as select 7 as n")
                    cursor.fetchall()
        return True
    except adbc_driver_manager.Error as error:
        if f"you have temporary tables in {TEMPORARY} sessions" not in str(error):
            raise
        return False


@contextmanager
def full(gateway: Gateway) -> Iterator[None]:
    """Has all statements that may run do so, so that one more waits."""
    with Client(gateway.flight) as client:
        lines = client.info(statement("select l.l_orderkey from tpch.main.lineitem l, generate_series(1, 100000)"))
        fill = [client.get(lines.tickets[0], 600) for _ in range(SLOTS)]
        for stream in fill:
            next(stream)
        try:
            yield
        finally:
            for stream in fill:
                stream.cancel()


@sizes((2,), (50,))
def test_clients_that_are_killed_leave_nothing(
    times: int, brief: Gateway, database: Database, figure: Callable[[str], None]
) -> None:
    """Neither of what runs, nor of their sessions, with options and temporary tables, once these have had their time. First
    those that come and go, at any time from their start on, and then those that are where they were to get to."""
    database.sql("create table if not exists written (id bigint)")
    sessions = "select count(*) from system.main.sessions"
    assert value(brief, "select count(*) from shop.public.people") == 100_000
    assert value(brief, sessions) == 0
    assert eventually(lambda: running(brief) == 0 and established(brief, port(brief)) == 0, 10)
    files = opened(brief, database)

    def has_ended() -> bool:
        return running(brief) == 0 and reserved(brief) == 0 and not database.running() and not database.copying()

    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chosen, took = random.Random(seed), []
    with ThreadPoolExecutor(VISITORS) as pool:
        lives = [chosen.uniform(0, LIVES) for _ in range(VISITORS * times)]
        each = [pool.submit(clients.killed, visitor(brief, "", number % 2 == 1), life) for number, life in enumerate(lives)]
    for one in each:
        one.result()
    assert eventually(has_ended, SOON)
    for _ in range(times):
        # Those of the rounds before may leave too little room for the tables of one more.
        assert eventually(lambda: value(brief, sessions) <= TEMPORARY - 2 * len(KINDS), 20)
        with ExitStack() as stack:
            started = [stack.enter_context(clients.started(brief.uri, *kind)) for kind in KINDS]
            java = stack.enter_context(jdbc.talking("cancel", brief.flight, "select * from shop.public.endless", 1, "watched"))
            for client in started:
                assert client.stdout.readline() == "ready\n"
            assert java.stdout.readline() == "there\n"
            assert eventually(lambda: len(database.copying()) == 1, 10)
            time.sleep(chosen.random() / 2)
            *others, waiting = started
            killed = time.monotonic()
            for client in (*others, java):
                client.kill()
                client.wait()
            assert eventually(has_ended, SOON)
            took.append(time.monotonic() - killed)
            # The one that is left is killed while it waits for others.
            with full(brief):
                clients.go_on(waiting)
                assert eventually(lambda: running(brief) == SLOTS + 1, 10)
                waiting.kill()
                waiting.wait()
                assert eventually(lambda: running(brief) == SLOTS, SOON)
    assert eventually(has_ended, SOON)
    # Those of the last round are still there to be seen.
    assert value(brief, sessions) >= len(KINDS) - 1
    assert not has_room(brief)
    # Transactions that nobody ends are rolled back when they were left alone for long enough.
    idle = "application_name = 'nexus-gateway' and state like 'idle in transaction%'"
    assert eventually(lambda: database.sql(f"select count(*) from pg_stat_activity where {idle}") == [["0"]], 10)
    assert database.sql("select count(*) from written") == [["0"]]
    assert eventually(lambda: value(brief, sessions) == 0, 20)
    assert eventually(lambda: has_room(brief), SOON)
    assert (running(brief), reserved(brief)) == (0, 0)
    assert eventually(lambda: established(brief, port(brief)) == 0 and opened(brief, database) <= files + 5, 10), files
    # Each of those that were there at once, and the one of JDBC, had two at the most.
    assert established(brief, database.port) <= 2 * (len(KINDS) + 1)
    figure(
        f"{times * (len(KINDS) + 1 + VISITORS)} clients killed, seed {seed}: what ran had ended at the latest after "
        f"{max(took):.2f} s; {opened(brief, database) - files:+} files"
    )


def cancelled(
    gateway: Gateway, sql: str, is_there: Callable[[], bool], has_ended: Callable[[], bool], streams: bool = False
) -> float:
    """Runs a statement and, once it is where it should be, cancels it as ADBC does.

    Returns how long it took until its client was told and it had ended, which is soon. Where it streams, it is cancelled once
    there are rows: between two calls the driver has none that it could cancel.
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
        assert not has_ended()
        asked = time.monotonic()
        cursor.adbc_cancel()
        thread.join(SOON)
        assert not thread.is_alive()
        assert failed, "a statement that was cancelled ended well"
        assert "cancel" in str(failed[0]).casefold()
        assert eventually(has_ended, asked + SOON - time.monotonic())
        return time.monotonic() - asked


@sizes((5,), (100,))
def test_what_is_cancelled_ends_at_the_database(
    times: int, gateway: Gateway, database: Database, figure: Callable[[str], None]
) -> None:
    """While its rows stream, while it is planned, and while it waits for others."""
    endless, listing = "select * from shop.public.endless", "col_description("

    def has_ended() -> bool:
        return not database.running() and running(gateway) == 0 and reserved(gateway) == 0

    def is_planned() -> bool:
        return len(database.running(listing)) == 1 == len(database.running())

    def streams() -> bool:
        return len(database.running("endless")) == 1

    took = {"streaming": [cancelled(gateway, endless, streams, has_ended, streams=True) for _ in range(times)]}
    with database.locked("pg_catalog.pg_description"):
        took["planned"] = [cancelled(gateway, "select * from shop.public.slow", is_planned, has_ended) for _ in range(times)]
    with full(gateway):

        def waits() -> bool:
            return running(gateway) == SLOTS + 1 and not database.running()

        took["waiting"] = [cancelled(gateway, endless, waits, lambda: running(gateway) == SLOTS) for _ in range(times)]
        assert not database.running()
    assert eventually(has_ended, 10)
    longest = ", ".join(f"{max(seconds):.2f} s {phase}" for phase, seconds in took.items())
    figure(f"{times} cancelled by ADBC in each phase had ended at the latest after {longest}")


@sizes((5,), (100,))
def test_what_jdbc_cancels_ends_at_the_database(
    times: int, gateway: Gateway, database: Database, figure: Callable[[str], None]
) -> None:
    """Once there is a row: until a statement is planned this driver tells the server of no cancel."""
    took = []
    with jdbc.talking("cancel", gateway.flight, "select * from shop.public.endless", times, "watched") as probe:
        for _ in range(times):
            assert probe.stdout.readline() == "there\n"
            assert len(database.running("endless")) == 1 == running(gateway)
            asked = time.monotonic()
            clients.go_on(probe)
            assert probe.stdout.readline() == "cancelled\n"
            # Its client has not read on, and the statement is still open there.
            left = asked + SOON - time.monotonic()
            assert eventually(lambda: not database.running() and running(gateway) == 0 and reserved(gateway) == 0, left)
            took.append(time.monotonic() - asked)
            clients.go_on(probe)
        answer = json.loads(probe.stdout.readline())
        assert probe.wait(30) == 0
    assert answer["value"] == {"said": ["cancelled"] * times, "after": [["1"]]}
    figure(f"{times} cancelled by JDBC had ended at the latest after {max(took):.2f} s")


@sizes((5,), (100,))
def test_what_jdbc_cancels_waits_no_longer(
    times: int, gateway: Gateway, database: Database, figure: Callable[[str], None]
) -> None:
    """By another thread than the one that waits for the first row."""
    took = []
    with jdbc.talking("ask", gateway.flight, "select * from shop.public.endless", times) as probe:
        with full(gateway):
            for _ in range(times):
                assert probe.stdout.readline() == "asked\n"
                assert eventually(lambda: running(gateway) == SLOTS + 1, 10)
                assert not database.running()
                asked = time.monotonic()
                clients.go_on(probe)
                assert probe.stdout.readline() == "cancelled\n"
                assert eventually(lambda: running(gateway) == SLOTS, asked + SOON - time.monotonic())
                took.append(time.monotonic() - asked)
                assert not database.running()
                clients.go_on(probe)
        answer = json.loads(probe.stdout.readline())
        assert probe.wait(30) == 0
    assert answer["value"]["after"] == [["1"]]
    said = answer["value"]["said"]
    assert len(said) == times
    assert all("cancel" in each["error"].casefold() for each in said), said
    figure(f"{times} cancelled by JDBC while they waited had gone at the latest after {max(took):.2f} s")


@sizes((1,), (100,))
def test_a_jdbc_client_that_is_killed_is_planned_no_longer(
    times: int, gateway: Gateway, database: Database, figure: Callable[[str], None]
) -> None:
    """Its driver has no other way to end a statement that is being planned."""
    took = []
    for _ in range(times):
        asking = jdbc.talking("ask", gateway.flight, "select * from shop.public.slow", 1)
        with asking as probe, database.locked("pg_catalog.pg_description"):
            assert probe.stdout.readline() == "asked\n"
            assert eventually(lambda: len(database.running("col_description(")) == 1, 10)
            killed = time.monotonic()
            probe.kill()
            assert eventually(lambda: not database.running() and running(gateway) == 0 and reserved(gateway) == 0, SOON)
            took.append(time.monotonic() - killed)
    figure(f"what {times} killed JDBC clients had planned ended at the latest after {max(took):.2f} s")
