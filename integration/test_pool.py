"""The connections to a database: how many there are, who has to give one back, and what the next user finds on one."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow.flight as flight
import pytest

import postgres
from gateway import Gateway, configured, eventually, users
from postgres import Database
from test_postgres import execute, fetch, idle_in_transaction, query

# `stubborn` gives rows, and then does not end before it is asked to for the third time.
SEED = """
create table t as select 1 as id;
create view endless as
    select a.id, repeat('x', 200) as filler from generate_series(1, 200000) a (id), generate_series(1, 200000) b;
create function resist() returns int language plpgsql as $$ begin
    for time in 1..2 loop
        begin
            perform pg_sleep(60);
        exception when query_canceled then null;
        end;
    end loop;
    perform pg_sleep(60);
    return 0;
end $$;
create view stubborn as select id from generate_series(1, 20000) id union all select resist();
create role weak;
create function leave(what text) returns int language plpgsql as $$ begin
    case what
        when 'setting' then perform set_config('work_mem', '77MB', false);
        when 'table' then create temporary table secrets as select 1 as id;
        when 'lock' then perform pg_advisory_lock(42);
        when 'channel' then listen secrets;
        when 'role' then perform set_config('role', 'weak', false);
    end case;
    return pg_backend_pid();
end $$;
create view found as select pg_backend_pid() as pid, current_setting('work_mem') as setting,
    to_regclass('pg_temp.secrets')::text as made, current_user::text as role,
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
    (select string_agg(channel, ',') from pg_listening_channels() channel) as channels;
grant select on found to weak;
"""
LEFT = ["setting", "table", "lock", "channel", "role"]
STREAMS = 3


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server whose views leave something on the connection that reads them."""
    with postgres.server() as database:
        database.sql(SEED + "".join(f"create view leaves_{what} as select leave('{what}') as pid;" for what in LEFT))
        yield database


@contextmanager
def pooled(folder: Path, database: Database, pool: int, more: str = "") -> Iterator[Gateway]:
    """A gateway that has so many connections to the database."""
    text = f"""
{more}
[defaults]
catalog = "shop"
schema = "public"
{database.catalog("shop", writable=True, pool=pool, connect_timeout=4)}"""
    with configured(folder, text, replicas=1) as gateway:
        yield gateway


def sessions(database: Database) -> int:
    """How many the gateway has at the server."""
    return int(database.sql("select count(*) from pg_stat_activity where application_name = 'nexus-gateway'")[0][0])


def test_quick_cancels_make_no_more_sessions_than_the_pool_has(database: Database, tmp_path: Path) -> None:
    with pooled(tmp_path, database, pool=2) as gateway:

        def cancel(_: int) -> int:
            with flight.connect(gateway.uri) as client:
                info = client.get_flight_info(flight.FlightDescriptor.for_command(query("select id from stubborn")))
                reader = client.do_get(info.endpoints[0].ticket)
                rows = reader.read_chunk().data.num_rows
                reader.cancel()
                return rows

        with ThreadPoolExecutor(6) as threads:
            cancelled = [threads.submit(cancel, number) for number in range(50)]
            most = 0
            while not all(each.done() for each in cancelled):
                if (there := sessions(database)) > 2:
                    # One that was told to end may take a moment for it.
                    time.sleep(0.05)
                    there = min(there, sessions(database))
                most = max(most, there)
        assert all(each.result() > 0 for each in cancelled)
        assert most == 2
        assert eventually(lambda: not database.running("stubborn"), 5)


def test_one_that_has_only_read_makes_room(database: Database, tmp_path: Path) -> None:
    count = "select count(*) from t"
    with pooled(tmp_path, database, pool=STREAMS) as gateway, ExitStack() as open_ones:
        readers = [open_ones.enter_context(flightsql.connect(gateway.uri)) for _ in range(STREAMS)]
        assert [fetch(reader, count) for reader in readers] == [[(1,)]] * STREAMS
        assert idle_in_transaction(database) == STREAMS
        with flightsql.connect(gateway.uri, autocommit=True) as further:
            assert execute(further, "insert into t values (2)") == 1
            assert fetch(further, count) == [(2,)]
        # The one that was left alone the longest, and no other: these see what they saw.
        assert idle_in_transaction(database) == STREAMS - 1
        assert [fetch(reader, count) for reader in readers] == [[(2,)], *[[(1,)]] * (STREAMS - 1)]
        database.sql("delete from t where id = 2")


def test_each_who_waits_is_given_one(database: Database, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=30)
    concurrency = "[limits]\nconcurrency = 8\n"
    with pooled(tmp_path, database, pool=2, more=concurrency) as gateway, ExitStack() as open_ones:
        # One of them is left alone before the other, so that they are not asked at once.
        for _ in range(2):
            reader = open_ones.enter_context(flightsql.connect(gateway.uri))
            assert fetch(reader, "select count(*) from t") == [(1,)]
            time.sleep(1)

        def hold(_: int) -> int:
            with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("select id, filler from endless")
                rows = cursor.fetch_record_batch().read_next_batch().num_rows
                both.wait()
                return rows

        with ThreadPoolExecutor(2) as threads:
            assert all(rows > 0 for rows in threads.map(hold, range(2)))


def test_what_has_written_is_kept(database: Database, tmp_path: Path) -> None:
    with pooled(tmp_path, database, pool=STREAMS) as gateway, ExitStack() as open_ones:
        writers = [open_ones.enter_context(flightsql.connect(gateway.uri)) for _ in range(STREAMS)]
        for writer in writers:
            assert execute(writer, "insert into t values (3)") == 1
        with flightsql.connect(gateway.uri, autocommit=True) as further:
            with pytest.raises(adbc_driver_manager.Error, match=f"all {STREAMS} connections of the catalog .* are in use"):
                fetch(further, "select id from t")
            for writer in writers:
                assert fetch(writer, "select count(*) from t where id = 3") == [(1,)]
                writer.rollback()
            assert fetch(further, "select id from t") == [(1,)]


def test_a_statement_that_runs_is_not_asked(database: Database, tmp_path: Path) -> None:
    concurrency = f"[limits]\nconcurrency = {STREAMS + 2}\n"
    with pooled(tmp_path, database, pool=STREAMS, more=concurrency) as gateway, ExitStack() as open_ones:
        readers = []
        for _ in range(STREAMS):
            connection = open_ones.enter_context(flightsql.connect(gateway.uri))
            cursor = open_ones.enter_context(connection.cursor())
            cursor.execute("select id, filler from endless")
            readers.append(cursor.fetch_record_batch())
            assert readers[-1].read_next_batch().num_rows > 0
        with (
            flightsql.connect(gateway.uri, autocommit=True) as further,
            pytest.raises(adbc_driver_manager.Error, match=f"all {STREAMS} connections of the catalog .* are in use"),
        ):
            fetch(further, "select id from t")
        for reader in readers:
            # More than was on its way.
            for _ in range(100):
                assert reader.read_next_batch().num_rows > 0


@pytest.fixture(scope="module")
def shared(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose two users have the one connection in turn."""
    with pooled(tmp_path_factory.mktemp("shared"), database, pool=1, more=users("ann", "bob")) as gateway:
        yield gateway


@pytest.mark.parametrize("what", LEFT)
def test_what_one_user_leaves_the_next_does_not_find(what: str, database: Database, shared: Gateway) -> None:
    clean = database.sql("select * from found")[0][1:]
    assert database.sql(f"select * from leaves_{what}; select * from found")[-1][1:] != clean, "it is nothing that is found"
    ann, bob = ({"username": name, "password": name} for name in ("ann", "bob"))
    with (
        flightsql.connect(shared.uri, db_kwargs=ann, autocommit=True) as leaving,
        flightsql.connect(shared.uri, db_kwargs=bob, autocommit=True) as finding,
    ):
        before = fetch(finding, "select * from found")
        [(pid,)] = fetch(leaving, f"select pid from leaves_{what}")
        assert fetch(finding, "select * from found") == before
        assert before[0][0] == pid, "it is another connection"
