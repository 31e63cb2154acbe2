"""A policy before a database: what the database itself says of hidden rows, columns and tables does not pass."""

from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
import requests

import postgres
from gateway import Gateway, configured, users
from wire import Client, decode, field, packed

# As long as names of PostgreSQL are: a longer one that begins with it must not be taken for it.
LONGEST = "n" * 63
SEED = f"""
create table {LONGEST} as select 1 as id;
create schema {LONGEST};
create table base (name text, country text, pin text);
insert into base values ('bob', 'NO', '2'), ('cid', 'SE', 'hidden-pin'), ('dan', 'SE', '5');
create view people as select name, country, pin::int as pin from base;
create table odd (name text, hidden_spot point);
create table child (id int primary key, note text check (note <> 'bad'), hush text not null default 'hidden-' || md5('seed'));
insert into child values (1, 'a'), (500, 'row');
create table hidden_customers (c_key int primary key, hidden_ssn text);
create table orders (o_key int primary key, o_cust int references hidden_customers);
create table seen (k int primary key);
create table hidden_dependant (k int references seen);
create view hidden_view as select * from seen;
"""
POLICY = """
[[rules]]
users = ["root"]
tables = ["*.*.*"]
allow = ["read", "write"]

[[rules]]
users = ["ann"]
tables = ["shop.public.people"]
allow = ["read"]
filter = "left(country, 2) = 'NO'"

[[rules]]
users = ["ann"]
tables = ["shop.public.odd"]
allow = ["write"]

[[rules]]
users = ["ann"]
tables = ["shop.public.child"]
columns = ["hush"]
allow = ["write"]

[[rules]]
users = ["ann"]
tables = ["shop.public.child", "shop.public.orders", "shop.public.seen"]
allow = ["read", "write"]

[[rules]]
users = ["ann"]
tables = ["shop.public.*_scratch", "shop.*_scratch.*"]
allow = ["read", "write"]

[[rules]]
users = ["bob"]
tables = ["shop.public.child"]
allow = ["read"]
masks = { Hush = "'***'" }
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "policy.toml").write_text(POLICY)
    with postgres.server() as database:
        database.sql(SEED)
        source, inside = database.catalog("shop", writable=True), database.catalog("inside", schemas=["pg_catalog"])
        defaults = '[defaults]\ncatalog = "shop"\nschema = "public"'
        text = "\n".join([users("root", "ann", "bob"), '[policy]\nfile = "policy.toml"', source, inside, defaults])
        with configured(folder, text, replicas=1) as gateway:
            yield gateway


def says(gateway: Gateway, user: str, sql: str) -> str:
    """The answer to a statement, or the error."""
    return requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), auth=(user, user), timeout=30).text


WRITES = [
    "insert into child (id, note) values (3, 'bad')",
    "insert into child (id, note) values (500, 'twice')",
    "insert into orders values (1, 42)",
    "drop table seen",
    "drop table odd",
    "create or replace table odd as select 1 as a",
    "update child set note = 'bad' where id = 1",
]


@pytest.mark.parametrize("sql", WRITES)
def test_what_stands_against_a_write_tells_nothing_of_what_is_hidden(sql: str, gateway: Gateway) -> None:
    said = says(gateway, "ann", sql)
    assert '"error"' in said
    for hidden in ("hidden", "hush", "customers", "point"):
        assert hidden not in said, said


def test_who_sees_all_of_it_is_told(gateway: Gateway) -> None:
    assert "hidden_dependant" in says(gateway, "root", "drop table seen")
    assert "child_note_check" in says(gateway, "root", "insert into child (id, note) values (3, 'bad')")


def test_ingest_tells_nothing_either(gateway: Gateway) -> None:
    rows, of_ann = pa.table({"id": [8], "note": ["bad"]}), {"username": "ann", "password": "ann"}
    with (
        flightsql.connect(gateway.uri, db_kwargs=of_ann, autocommit=True) as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match="does not take this write") as error,
    ):
        cursor.adbc_ingest("child", rows, mode="append")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    "sql",
    [
        "drop table {}_scratch",
        "create table {}_scratch as select 2 as id",
        "create or replace table {}_scratch as select 2 as id",
        "insert into {}_scratch select 2",
        "update {}_scratch set id = 2",
        "delete from {}_scratch",
        "create table {}_scratch.other as select 2 as id",
    ],
)
def test_a_rule_for_longer_names_does_not_reach_what_they_would_be_cut_to(sql: str, gateway: Gateway) -> None:
    assert '"error"' in says(gateway, "ann", sql.format(LONGEST))
    assert says(gateway, "root", f"select id from {LONGEST}") == '{"id":1}\n'
    assert "does not exist" in says(gateway, "root", f"select * from {LONGEST}.other")


def test_a_condition_tells_not_whether_a_hidden_row_is_there(gateway: Gateway) -> None:
    with_hidden = says(gateway, "ann", "select name from people where name = 'cid' and pin is not null")
    without = says(gateway, "ann", "select name from people where name = 'zzz' and pin is not null")
    assert with_hidden == without
    assert "hidden-pin" not in with_hidden


def test_keys_name_no_table_that_is_hidden(gateway: Gateway) -> None:
    commands = {
        "CommandGetImportedKeys": field(3, b"orders"),
        "CommandGetExportedKeys": field(3, b"hidden_customers"),
        "CommandGetPrimaryKeys": field(3, b"hidden_customers"),
    }
    with Client(gateway.flight, "ann", "ann") as client, Client(gateway.flight, "root", "root") as root:
        for name, body in commands.items():
            command = packed(name, body)
            assert [row for ticket in client.info(command).tickets for row in decode(client.get(ticket))] == [], name
            assert [row for ticket in root.info(command).tickets for row in decode(root.get(ticket))] != [], name


def test_a_mask_of_a_column_in_other_letters_hides_the_table(gateway: Gateway) -> None:
    said = says(gateway, "bob", "select * from child")
    assert "does not fit its columns" in said


@pytest.mark.parametrize(
    "sql",
    [
        "select definition from pg_catalog.pg_views",
        "select rolname from pg_catalog.pg_roles",
        "explain select definition from pg_catalog.pg_views",
        "update pg_catalog.pg_settings set setting = 'nexus' where name = 'role'",
        "insert into pg_catalog.pg_description (objoid) values (1)",
        "delete from pg_catalog.pg_description",
        "drop table pg_catalog.pg_description",
        "create table pg_catalog.made as select 1 as a",
        "create or replace table pg_catalog.pg_description as select 1 as a",
    ],
)
def test_the_schemas_of_the_system_are_not_there(sql: str, gateway: Gateway) -> None:
    said = says(gateway, "root", sql)
    assert '"kind":"not_found"' in said, said
    assert "does not exist" in said, said


def test_rows_do_not_go_into_the_schemas_of_the_system(gateway: Gateway) -> None:
    of_root = {"username": "root", "password": "root"}
    with flightsql.connect(gateway.uri, db_kwargs=of_root, autocommit=True) as connection, connection.cursor() as cursor:
        for mode in ("append", "create"):
            with pytest.raises(adbc_driver_manager.Error, match="does not exist"):
                cursor.adbc_ingest("made", pa.table({"a": [1]}), mode=mode, db_schema_name="pg_catalog")


def test_a_schema_of_the_system_that_is_named_is_there(gateway: Gateway) -> None:
    schemas = "select schema_name from {}.information_schema.schemata where schema_name like 'pg%'"
    assert says(gateway, "root", schemas.format("inside")) == '{"schema_name":"pg_catalog"}\n'
    assert says(gateway, "root", schemas.format("shop")) == ""
    assert "hidden_view" in says(gateway, "root", "select viewname from inside.pg_catalog.pg_views where viewname like 'hidden%'")
