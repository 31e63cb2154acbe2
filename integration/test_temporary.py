"""Temporary tables: by ingest and by SQL, of one session, over the tables of the same names, and gone with it."""

from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow
import pytest

from gateway import Gateway, configured, nexus

COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
TEXT = """
[defaults]
catalog = "demo"
[limits]
temporary = "1MiB"
[catalogs.demo]
kind = "memory"
writable = true
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with configured(tmp_path_factory.mktemp("temporary"), TEXT, replicas=1) as gateway:
        yield gateway


def connect(gateway: Gateway, **options: str) -> flightsql.Connection:
    return flightsql.connect(gateway.uri, db_kwargs={**COOKIES, **options}, autocommit=True)


@pytest.fixture
def connection(gateway: Gateway) -> Iterator[flightsql.Connection]:
    with connect(gateway) as connection:
        yield connection


def run(connection: flightsql.Connection, statement: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def put(connection: flightsql.Connection, values: list, mode: str = "create", **options: object) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_ingest("t", pyarrow.table({"a": values}), mode=mode, temporary=True, **options)


def test_ingest_in_every_mode(gateway: Gateway, connection: flightsql.Connection) -> None:
    put(connection, [1])
    with pytest.raises(adbc_driver_manager.Error, match="exists"):
        put(connection, [2])
    put(connection, [2], "append")
    assert run(connection, "select a from t order by a") == [(1,), (2,)]
    put(connection, [3], "replace")
    put(connection, [4], "create_append")
    assert run(connection, "select a from temp.main.t order by a") == [(3,), (4,)]
    with connect(gateway) as other, pytest.raises(adbc_driver_manager.Error, match='"demo.main" does not exist'):
        run(other, "select a from t")
    with connect(gateway) as other, pytest.raises(adbc_driver_manager.Error, match='"temp" does not exist'):
        run(other, "select a from temp.main.t")


def test_statements_change_it(connection: flightsql.Connection) -> None:
    run(connection, "create temporary table t (a bigint, b varchar)")
    run(connection, "insert into t values (1, 'x'), (2, 'y')")
    run(connection, "update t set b = 'z' where a = 2")
    run(connection, "delete from t where a = 1")
    assert run(connection, "select * from t") == [(2, "z")]
    run(connection, "create temp table u as select a + 1 as a from t")
    assert run(connection, "select u.a from t join u on u.a > t.a") == [(3,)]
    run(connection, "drop table t")
    with pytest.raises(adbc_driver_manager.Error, match='"demo.main" does not exist'):
        run(connection, "select * from t")
    assert run(connection, "select * from u") == [(3,)]


def test_it_stands_before_a_table_of_its_name(gateway: Gateway, connection: flightsql.Connection) -> None:
    run(connection, "create table t as select 'for all' as a")
    run(connection, "create temporary table t as select a || ', and mine' as a from t")
    assert run(connection, "select a from t") == [("for all, and mine",)]
    assert run(connection, "select a from demo.main.t") == [("for all",)]
    run(connection, "create or replace table t as select 'changed' as a")
    with connect(gateway) as other:
        assert run(other, "select a from t") == [("changed",)]
    # The first is the session's own.
    run(connection, "drop table t")
    assert run(connection, "select a from t") == [("changed",)]
    run(connection, "drop table t")


def test_it_is_listed_to_its_session(gateway: Gateway, connection: flightsql.Connection) -> None:
    put(connection, [1])
    assert run(connection, "select table_name from temp.information_schema.tables where table_schema = 'main'") == [("t",)]
    listed = connection.adbc_get_objects(depth="tables", catalog_filter="temp").read_all().to_pylist()
    [schema] = [schema for schema in listed[0]["catalog_db_schemas"] if schema["db_schema_name"] == "main"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["t"]
    with connect(gateway) as other:
        assert other.adbc_get_objects(depth="catalogs", catalog_filter="temp").read_all().num_rows == 0


def test_it_is_part_of_a_transaction(gateway: Gateway, connection: flightsql.Connection) -> None:
    put(connection, [1])
    run(connection, "begin")
    run(connection, "insert into t values (2)")
    assert run(connection, "select count(*) from t") == [(2,)]
    run(connection, "rollback")
    assert run(connection, "select a from t") == [(1,)]


def test_it_goes_with_its_session(gateway: Gateway) -> None:
    # As many as may be at once, and half as many again: a session that is closed leaves room.
    for _ in range(48):
        with connect(gateway) as connection:
            put(connection, [1])
            connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.time_zone": "UTC"})


def test_what_cannot_be_is_told(gateway: Gateway, connection: flightsql.Connection) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as without:
        with pytest.raises(adbc_driver_manager.Error, match="turn cookies on"):
            put(without, [1])
        with pytest.raises(adbc_driver_manager.Error, match="turn cookies on"):
            run(without, "create temporary table t (a bigint)")
    with pytest.raises(adbc_driver_manager.Error, match="no catalog and schema of its client's choice"):
        put(connection, [1], catalog_name="demo", db_schema_name="main")
    with pytest.raises(adbc_driver_manager.Error, match='a temporary table is in the catalog "temp"'):
        run(connection, "create temporary table demo.main.t (a bigint)")
    with pytest.raises(adbc_driver_manager.Error, match="more than 1MiB"):
        put(connection, list(range(1 << 18)))
    with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
        run(connection, "select a from t")


def test_the_command_line(gateway: Gateway) -> None:
    done = nexus("sql", "--url", gateway.uri, stdin="create temporary table t as select 7 as a;\nselect a from t;\n")
    assert done.returncode == 0, done.stderr
    assert "7" in done.stdout


def test_a_name_means_the_temporary_table_as_long_as_there_is_one(connection: flightsql.Connection) -> None:
    run(connection, "create table named (a bigint)")
    run(connection, "insert into named values (1)")
    statement = "select a from named"
    assert run(connection, statement) == [(1,)]
    run(connection, "create temporary table named as select 2 as a")
    assert run(connection, statement) == [(2,)]
    run(connection, "drop table temp.main.named")
    assert run(connection, statement) == [(1,)]
    run(connection, "drop table named")
