"""Tables of a database whose versions a statement of the catalog tells: what is kept is given as long as it tells the same."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import postgres
from gateway import Gateway, configured, nexus, users
from postgres import Database

# `stamps` has a row for each table, which each statement that writes to it counts up in its own transaction.
SEED = """
create table stamps (name text primary key, stamp bigint not null);
create table orders (id int, price int);
insert into stamps values ('orders', 1);
create function stamped() returns trigger language plpgsql as $$ begin
    update stamps set stamp = stamp + 1 where name = 'orders';
    return null;
end $$;
create trigger stamped after insert or update or delete or truncate on orders for each statement execute function stamped();
insert into orders values (1, 10), (2, 20);
create view rich as select * from orders where price > 10;
create table empty (id int, changed timestamp);
create table plain (id int);
create table broken (id int);
insert into broken values (1);
create sequence counted;
create table secrets (note text);
insert into secrets values ('hidden-note');
"""
STAMP = "select stamp from stamps where name = 'orders'"
SUM = "select sum(price) as s from orders"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server that writes each statement to its log."""
    with postgres.server("log_statement=all") as database:
        database.sql(SEED)
        yield database


def text(database: Database, versions: dict[str, str]) -> str:
    """The configuration, with these statements by table."""
    tables = "".join(
        f"[catalogs.shop.tables.{json.dumps(table)}]\nversion_sql = {json.dumps(sql)}\n" for table, sql in versions.items()
    )
    defaults = '[defaults]\ncatalog = "shop"\nschema = "public"\n'
    return defaults + database.catalog("shop", writable=True) + tables


@pytest.fixture(scope="module")
def gateway(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that looks versions up for each statement."""
    versions = {"public.orders": STAMP, "public.rich": STAMP, "public.empty": "select max(changed) from empty"}
    with configured(tmp_path_factory.mktemp("versions"), text(database, versions), replicas=1) as gateway:
        yield gateway


def post(gateway: Gateway, sql: str, **options: object) -> requests.Response:
    return requests.post(f"{gateway.url}/v1/sql", data=sql, timeout=30, **options)


def ask(gateway: Gateway, sql: str) -> tuple[str, list[dict]]:
    """What the cache had to do with a statement, and its rows."""
    answer = post(gateway, sql)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-nexus-cache"], [json.loads(line) for line in answer.text.splitlines()]


def test_a_hit_until_the_next_commit(database: Database, gateway: Gateway) -> None:
    for sql in (SUM, "select sum(price) as s from rich"):
        before = ask(gateway, sql)[1]
        assert ask(gateway, sql) == ("hit", before)
        database.sql("update orders set price = price + 1")
        how, after = ask(gateway, sql)
        assert (how, after[0]["s"] > before[0]["s"]) == ("miss", True)
        assert ask(gateway, sql) == ("hit", after)
        # What was not committed changes nothing.
        database.sql("begin; delete from orders; rollback")
        assert ask(gateway, sql) == ("hit", after)


def test_a_write_through_the_gateway_ends_it(gateway: Gateway) -> None:
    [before] = ask(gateway, SUM)[1]
    assert ask(gateway, SUM)[0] == "hit"
    ask(gateway, "insert into orders values (3, 100)")
    assert ask(gateway, SUM) == ("miss", [{"s": before["s"] + 100}])


def test_a_table_without_a_version_is_read_each_time(database: Database, gateway: Gateway) -> None:
    for table in ("plain", "empty"):
        sql = f"select count(*) as n from {table}"
        assert [ask(gateway, sql) for _ in range(2)] == [("bypass", [{"n": 0}])] * 2
        assert "unknown version" in post(gateway, sql).headers["x-nexus-cache-reason"]
    # The least that is to be read gives it one.
    database.sql("insert into empty values (1, '2026-11-30')")
    assert [ask(gateway, "select count(*) as n from empty") for _ in range(2)] == [("miss", [{"n": 1}]), ("hit", [{"n": 1}])]


def test_the_version_is_a_hash_of_what_is_read_in_a_transaction_that_cannot_write(database: Database, gateway: Gateway) -> None:
    before = len(database.log.read_text())
    explained = post(gateway, f"explain {SUM}").text
    asked = database.log.read_text()[before:]
    [version] = re.findall(r"shop\.public\.orders: postgres, version ([0-9a-f]{64})\b", explained)
    # It is not told to who tries what it may be.
    assert version not in {hashlib.sha256(stamp.to_bytes(8)).hexdigest() for stamp in range(10_000)}
    assert asked.index("BEGIN READ ONLY") < asked.index(STAMP) < asked.index("ROLLBACK")


def test_a_hit_within_the_interval_asks_nothing_of_the_database(database: Database, tmp_path: Path) -> None:
    with configured(tmp_path, text(database, {"public.orders": STAMP}), replicas=1, check="1h") as gateway:
        [row] = ask(gateway, SUM)[1]
        before = len(database.log.read_text())
        assert [ask(gateway, SUM) for _ in range(3)] == [("hit", [row])] * 3
        assert not re.search("statement:|execute", database.log.read_text()[before:])
        database.sql("update orders set price = price + 1")
        assert ask(gateway, SUM) == ("hit", [row])
        # What this gateway has written is seen at once, and with it what others have.
        ask(gateway, "insert into plain values (1)")
        how, [later] = ask(gateway, SUM)
        assert (how, later["s"] > row["s"]) == ("miss", True)
    database.sql("truncate plain")


# What is wrong with a statement, and what is said of it.
WRONG = {
    "select id, id from broken": "it gives 2 columns",
    "select generate_series(1, 3)": "it gives more than one row",
    "select max(nothing) from broken": 'column \\"nothing\\" does not exist',
    "select max(id) from nowhere": 'relation \\"nowhere\\" does not exist',
    "select $1::int": "it has parameters",
    "select nextval('counted')": "read-only transaction",
    "select 1; select 2": "multiple commands",
    "commit": "it gives no value",
}


@pytest.mark.parametrize("sql", WRONG)
def test_a_statement_that_tells_no_version_is_refused_by_its_key(sql: str, database: Database, tmp_path: Path) -> None:
    key = "catalogs.shop.tables.public.broken.version_sql"
    with configured(tmp_path, text(database, {"public.broken": sql}), replicas=1) as gateway:
        for _ in range(2):
            answer = post(gateway, "select id from broken")
            assert answer.status_code != 200
            for part in (key, WRONG[sql], "max(changed)"):
                assert part in answer.text, answer.text
        # Nothing of it is left on a connection.
        assert ask(gateway, "select count(*) as n from plain")[0] == "bypass"
    checked = nexus("config", "check", tmp_path / "nexus.toml", "--connect")
    assert checked.returncode != 0
    assert re.search(rf"nexus\.toml:\d+: {re.escape(key)}: ", checked.stderr), checked.stderr


def test_a_table_that_is_not_there_is_found_by_the_check(database: Database, tmp_path: Path) -> None:
    (tmp_path / "nexus.toml").write_text(text(database, {"public.orderz": STAMP}))
    checked = nexus("config", "check", tmp_path / "nexus.toml", "--connect")
    assert checked.returncode != 0
    assert "catalogs.shop.tables.public.orderz.version_sql" in checked.stderr, checked.stderr


def test_an_unknown_key_is_refused_where_it_stands(database: Database, tmp_path: Path) -> None:
    written = text(database, {"public.orders": STAMP}).replace("version_sql", "version")
    (tmp_path / "nexus.toml").write_text(written)
    checked = nexus("config", "check", tmp_path / "nexus.toml")
    line = written.splitlines().index(f"version = {json.dumps(STAMP)}") + 1
    assert f"nexus.toml:{line}: catalogs.shop.tables.public.orders.version: unknown key" in checked.stderr, checked.stderr


POLICY = """
[[rules]]
users = ["root"]
tables = ["*.*.*"]
allow = ["read"]

[[rules]]
users = ["ann"]
tables = ["shop.public.broken"]
allow = ["read"]

[[rules]]
users = ["bob"]
tables = ["shop.public.broken"]
allow = ["read"]
filter = "id > 0"
"""


def test_what_a_statement_that_fails_tells_is_for_who_sees_all(database: Database, tmp_path: Path) -> None:
    """It may read other tables than the one whose version it tells."""
    (tmp_path / "policy.toml").write_text(POLICY)
    wrong = text(database, {"public.broken": "select max(note::int) from secrets"})
    known = users("root", "ann", "bob", "eve") + '\n[policy]\nfile = "policy.toml"\n'
    with configured(tmp_path, known + wrong, replicas=1) as gateway:

        def says(user: str) -> str:
            answer = post(gateway, "select id from broken", auth=(user, user))
            assert answer.status_code != 200
            return answer.text

        assert "hidden-note" in says("root")
        assert "for a reason that may be of what you do not see" in says("ann")
        assert "a table of which you see a part cannot be read" in says("bob")
        for user in ("ann", "bob"):
            assert not re.search("hidden|secrets|version|integer", says(user)), says(user)
        assert "hidden-note" in gateway.logged()
        # For who does not find the table nothing is asked.
        before = len(database.log.read_text())
        assert "does not exist" in says("eve")
        assert "secrets" not in database.log.read_text()[before:]
