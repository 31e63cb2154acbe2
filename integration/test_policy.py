"""A policy as users meet it: what they see, what they are told, and a file that changes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import datafusion
import grpc
import pyarrow as pa
import pytest
import requests
from datafusion import substrait as producer

from gateway import Gateway, configured, eventually, nexus, users
from wire import Client, bound, decode, field, ingest, packed, prepared, reload_failures, statement, substrait

POLICY = """
[groups]
staff = ["ann", "bob"]

[[rules]]
users = ["root"]
tables = ["*.*.*"]
allow = ["read", "write", "native", "admin"]

[[rules]]
users = ["wil"]
tables = ["shop.main.hid*"]

[[rules]]
users = ["wil"]
tables = ["shop.main.*"]
allow = ["read", "write"]

[[rules]]
users = ["bob"]
tables = ["docs.main.accounts"]
allow = ["read"]
filter = "id < 10"

[[rules]]
users = ["bob"]
tables = ["system.*.*"]
allow = ["read"]

[[rules]]
groups = ["staff"]
tables = ["shop.main.people"]
columns = ["salary"]

[[rules]]
groups = ["staff"]
tables = ["shop.main.people"]
allow = ["read"]
filter = "country = 'NO' OR name = $user"
masks = { email = "left(email, 1) || '…'" }
"""
ROWS = {
    "name": ["ann", "bob", "cid"],
    "country": ["SE", "NO", "SE"],
    "email": ["ann@example.com", "bob@example.com", "cid@example.com"],
    "salary": [1, 2, 3],
}


def connect(gateway: Gateway, user: str) -> flightsql.Connection:
    return flightsql.connect(gateway.uri, db_kwargs={"username": user, "password": user}, autocommit=True)


def rows(gateway: Gateway, user: str, sql: str) -> list[dict]:
    with connect(gateway, user) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().to_pylist()


def refused(gateway: Gateway, user: str, sql: str) -> str:
    with pytest.raises(adbc_driver_manager.Error) as error:
        rows(gateway, user, sql)
    return str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policy")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Gateway]:
    (folder / "policy.toml").write_text(POLICY)
    catalogs = "".join(f'[catalogs.{name}]\nkind = "memory"\nwritable = true\n' for name in ("shop", "secret"))
    text = "\n".join(
        [
            users("root", "ann", "bob", "eve", "wil"),
            '[policy]\nfile = "policy.toml"',
            catalogs,
            '[catalogs.docs]\nkind = "files"\nlocation = "docs"',
            '[defaults]\ncatalog = "shop"',
        ]
    )
    (folder / "docs").mkdir()
    # What does not fit the type that the many rows before it have is told, with its value.
    numbers = "".join(f"{number}\n" for number in range(200_000))
    (folder / "docs" / "accounts.csv").write_text(f"id\n{numbers}hidden-account\n")
    with configured(folder, text, replicas=1) as gateway:
        with connect(gateway, "root") as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("people", pa.table(ROWS), mode="create")
            cursor.adbc_ingest("hidden", pa.table(ROWS), mode="create")
        yield gateway


def test_each_sees_a_part(gateway: Gateway) -> None:
    sql = "select * from people order by name"
    assert rows(gateway, "ann", sql) == [
        {"name": "ann", "country": "SE", "email": "a…"},
        {"name": "bob", "country": "NO", "email": "b…"},
    ]
    assert rows(gateway, "bob", sql) == [{"name": "bob", "country": "NO", "email": "b…"}]
    assert len(rows(gateway, "root", sql)) == 3
    assert rows(gateway, "root", sql)[0]["email"] == "ann@example.com"


def test_what_is_denied_is_not_there(gateway: Gateway) -> None:
    assert 'table \\"shop.main.hidden\\" does not exist; there are \\"people\\"'.replace("\\", "") in refused(
        gateway, "ann", "select * from hidden"
    )
    assert 'catalog "secret" does not exist' in refused(gateway, "ann", "select * from secret.main.people")
    assert "salary" not in refused(gateway, "ann", "select salari from people")
    assert 'catalog "shop" does not exist' in refused(gateway, "eve", "select * from people")
    assert "you may not write" in refused(gateway, "ann", "insert into people values ('x', 'y', 'z')")


def test_a_hidden_row_cannot_be_read_from_an_error_or_a_plan(gateway: Gateway) -> None:
    rows(gateway, "bob", "select 1 / (case when name = 'cid' then 0 else 1 end) as v from people")
    rows(gateway, "bob", "select * from people where 1 / (case when name = 'cid' then 0 else 1 end) = 1")
    plan = str(rows(gateway, "bob", "explain analyze verbose select count(*) from people"))
    assert "country" not in plan
    assert "what the policy shows" in plan


@pytest.mark.parametrize(("user", "wanted"), [("ann", {"shop": ["people"]}), ("eve", {}), ("root", None)])
def test_lists(user: str, wanted: dict | None, gateway: Gateway) -> None:
    with connect(gateway, user) as connection:
        listed = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    there = {}
    # Where there is no catalog this driver shows one without a name.
    for catalog in (catalog for catalog in listed if catalog["catalog_name"]):
        schemas = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in catalog["catalog_db_schemas"]}
        there[catalog["catalog_name"]] = [table["table_name"] for table in schemas.get("main", [])]
        for table in schemas.get("main", []):
            if user == "ann":
                assert [column["column_name"] for column in table["table_columns"]] == ["name", "country", "email"]
    if wanted is None:
        assert there["shop"] == ["hidden", "people"]
        assert {"secret", "system"} <= there.keys()
    else:
        assert there == wanted


def test_an_error_beneath_tells_nothing_of_what_is_hidden(gateway: Gateway) -> None:
    assert "hidden-account" in refused(gateway, "root", "select count(id) from docs.main.accounts")
    said = refused(gateway, "bob", "select count(id) from docs.main.accounts")
    assert "a table of which you see a part cannot be read; ask who sees all of it" in said
    assert "hidden" not in said
    assert "accounts.csv" not in said
    assert "hidden-account" in gateway.logged()


def test_who_is_no_admin_sees_in_system_what_is_theirs(gateway: Gateway) -> None:
    rows(gateway, "root", "select 'a secret of root'")
    rows(gateway, "bob", "select 'one of bob'")
    of_all = "select distinct principal from system.queries order by principal"
    assert [row["principal"] for row in rows(gateway, "bob", of_all)] == ["bob"]
    assert {"root", "bob"} <= {row["principal"] for row in rows(gateway, "root", of_all)}
    assert "root" not in str(rows(gateway, "bob", "select * from system.queries"))
    assert "root" not in str(rows(gateway, "bob", "select * from system.sessions"))
    assert [row["catalog"] for row in rows(gateway, "bob", "select catalog from system.sources")] == ["docs", "shop", "system"]
    assert 'table "system.main.settings" does not exist' in refused(gateway, "bob", "select * from system.settings")
    assert "settings" not in str(rows(gateway, "bob", "select table_name from system.information_schema.tables"))
    assert rows(gateway, "root", "select count(*) > 9 as c from system.settings") == [{"c": True}]


def test_http_goes_by_it_too(gateway: Gateway) -> None:
    answer = requests.post(f"{gateway.url}/v1/sql", data=b"select count(*) as c from people", auth=("bob", "bob"), timeout=10)
    assert answer.json() == {"c": 1}
    assert requests.get(f"{gateway.url}/readyz", timeout=10).status_code == 200


STATEMENTS = [
    "select * from {t}",
    "select count(*) as c from shop.main.{t}",
    "select nothing from {t} as x where x.nothing = 1",
    "select p.name from people p join {t} h on p.name = h.name",
    "select name from people where name in (select name from {t})",
    "with x as (select * from {t}) select * from x",
    "insert into {t} values ('x', 'SE', 'x@example.com', 1)",
    "insert into {t} (name) select name from people",
    "insert into people select * from {t}",
    "update {t} set salary = 0",
    "update {t} set name = 'x' where nothing = 1",
    "delete from {t}",
    "delete from {t} where name = 'cid'",
    "truncate table {t}",
    "drop table {t}",
    "drop table if exists {t}",
    "create table {t} as select 1 as a",
    "create table if not exists {t} as select 1 as a",
    "create or replace table {t} as select 1 as a",
    "create table {t} (a bigint)",
    "alter table {t} add column a bigint",
    "describe {t}",
    "show columns from {t}",
    "show create table {t}",
    "explain select * from {t}",
    "explain analyze select * from {t}",
    "explain delete from {t}",
    "select column_name, data_type from information_schema.columns where table_name = '{t}'",
    "select * from information_schema.tables where table_name = '{t}'",
]


def plan(table: str, columns: list[str] | None = None) -> bytes:
    """A Substrait plan of all of a table with these columns, or those of `people`."""
    context = datafusion.SessionContext()
    context.from_arrow(pa.table(ROWS).select(columns or list(ROWS)), table)
    return producer.Serde.serialize_bytes(f"select * from {table}", context)


def command_of(name: str) -> Callable[[Client, str], object]:
    """A list of the catalog, of one table."""
    of_table = b"" if name == "CommandGetTables" else field(1, b"shop")
    more = b"\x28\x01" if name == "CommandGetTables" else b""
    return lambda client, table: client.run(packed(name, of_table + field(2, b"main") + field(3, table.encode()) + more))


CALLS: dict[str, Callable[[Client, str], object]] = {
    "ingest": lambda client, table: client.put(ingest(table, pa.RecordBatch.from_pydict(ROWS))),
    "ingest of other columns": lambda client, table: client.put(ingest(table, pa.RecordBatch.from_pydict({"a": [1]}))),
    "Substrait": lambda client, table: client.run(substrait(plan(table))),
    "Substrait that is put": lambda client, table: client.put([field(1, b"\x08\x02" + field(2, substrait(plan(table))))]),
} | {name: command_of(f"CommandGet{name}") for name in ("PrimaryKeys", "ExportedKeys", "ImportedKeys", "Tables")}
for sql in STATEMENTS:
    CALLS[f"{sql}, run"] = lambda client, table, sql=sql: client.rows(sql.format(t=table))
    CALLS[f"{sql}, described"] = lambda client, table, sql=sql: client.schema(statement(sql.format(t=table)))
    CALLS[f"{sql}, prepared"] = lambda client, table, sql=sql: len(client.prepare(sql.format(t=table)))
    CALLS[f"{sql}, put"] = lambda client, table, sql=sql: client.update(sql.format(t=table))


def answered(call: Callable[[Client, str], object], client: Client, table: str) -> str:
    """The answer of a call about a table, or all that its error says, without the name of the table."""
    try:
        said = repr(call(client, table))
    except grpc.RpcError as error:
        trailers = {name: value for name, value in error.trailing_metadata() or () if name == "grpc-status-details-bin"}
        said = f"{error.code()} {error.details()} {trailers}"
    return said.replace(table, "TABLE")


# To whom something that is not there looks like what is: by no rule about either, and by one about both.
PAIRS = [("ann", "hidden", "absent"), ("wil", "hidden", "hidder")]


@pytest.mark.parametrize(("user", "denied", "missing"), PAIRS)
def test_what_is_denied_looks_like_what_is_missing(user: str, denied: str, missing: str, gateway: Gateway) -> None:
    differ, failed = [], 0
    with Client(gateway.flight, user, user) as client:
        client.headers = [("authorization", client.handshake())]
        for name, call in CALLS.items():
            one, other = answered(call, client, denied), answered(call, client, missing)
            differ += [f"{name}:\n{one}\n{other}"] if one != other else []
            failed += one.startswith("StatusCode.")
        for sql in STATEMENTS:
            answers = []
            for table in (denied, missing):
                text = sql.format(t=table).encode()
                answer = requests.post(f"{gateway.url}/v1/sql", data=text, headers=dict(client.headers), timeout=10)
                headers = {key: value for key, value in answer.headers.items() if key not in ("age", "date", "x-nexus-query")}
                answers.append(f"{answer.status_code} {headers} {answer.text}".replace(table, "TABLE"))
            differ += [f"{sql} over HTTP:\n{answers[0]}\n{answers[1]}"] if answers[0] != answers[1] else []
            failed += not answers[0].startswith("200")
    assert not differ, "\n\n".join(differ)
    assert failed > 100
    assert rows(gateway, "root", "select count(*) as c from hidden") == [{"c": 3}]


def test_what_was_given_before_a_change_is_worth_nothing_after_it(gateway: Gateway, folder: Path) -> None:
    file, sql = folder / "policy.toml", "select count(*) as c from people"
    revoked = POLICY[: POLICY.rindex("[[rules]]")]
    with Client(gateway.flight, "bob", "bob") as bob:
        bob.headers = [("authorization", bob.handshake())]
        fetched, fresh = (bob.info(statement(sql)).tickets[0] for _ in range(2))
        assert decode(bob.get(fetched)) == [{"c": 1}]
        of_plan = bob.info(substrait(plan("people", ["name"]))).tickets[0]
        handle, transaction = bob.prepare("select name from people where name = $1"), bob.begin()
        own = bob.bind(handle, **{"1": "bob"})
        uses: dict[str, Callable[[], object]] = {
            "a ticket that was used": lambda: decode(bob.get(fetched)),
            "a ticket that was not": lambda: decode(bob.get(fresh)),
            "a ticket of a plan": lambda: decode(bob.get(of_plan)),
            "a prepared statement": lambda: bob.run(prepared(own)),
            "what a prepared statement is": lambda: bob.schema(prepared(handle)),
            "a prepared statement that is put": lambda: bob.put(bound("CommandPreparedStatementUpdate", handle, **{"1": "x"})),
            "a transaction": lambda: bob.rows(sql, transaction=transaction),
        }
        uses["a transaction"]()
        file.write_text(revoked)
        try:
            assert eventually(lambda: "does not exist" in answered(lambda client, _: client.rows(sql), bob, "-"), 10)
            for name, use in uses.items():
                with pytest.raises(grpc.RpcError) as error:
                    use()
                assert error.value.code() is grpc.StatusCode.NOT_FOUND, f"{name}: {error.value.details()}"
        finally:
            file.write_text(POLICY)
        # It was for the policy alone that they were of no use.
        assert eventually(lambda: answered(lambda client, _: client.rows(sql), bob, "-") == "[{'c': 1}]", 10)
        assert decode(bob.get(fresh)) == [{"c": 1}]
        assert bob.run(prepared(own)) == [{"name": "bob"}]


def test_a_changed_file_takes_and_a_broken_one_does_not(gateway: Gateway, folder: Path) -> None:
    file, sql = folder / "policy.toml", "select count(*) as c from people"
    kept = "select count(*) as entries from system.cache"
    assert rows(gateway, "bob", sql) == [{"c": 1}]
    [before] = rows(gateway, "root", kept)
    file.write_text(POLICY.replace("country = 'NO'", "country = 'SE'"))
    # What was kept for those who see a part is given up.
    assert eventually(lambda: rows(gateway, "root", kept)[0]["entries"] < before["entries"], 10)
    assert eventually(lambda: rows(gateway, "bob", sql) == [{"c": 3}], 10)
    for broken in ("nonsense", POLICY.replace("name = $user", "name ="), POLICY.replace('"staff"]', '"nobody"]')):
        said, failures = gateway.logged().count("and what was there before stays"), reload_failures(gateway.url, "policy")
        file.write_text(broken)
        assert eventually(lambda said=said: gateway.logged().count("and what was there before stays") > said, 10)
        assert reload_failures(gateway.url, "policy") > failures
        assert rows(gateway, "bob", sql) == [{"c": 3}]
    file.write_text(POLICY)
    assert eventually(lambda: rows(gateway, "bob", sql) == [{"c": 1}], 10)


OF_ROOT = """
[[rules]]
users = ["root"]
tables = ["*.*.*"]
allow = ["read", "admin"]
"""
OF_ANN = """
[[rules]]
users = ["ann"]
tables = ["docs.main.people"]
allow = ["read"]
"""
OF_BOB = """
[[rules]]
users = ["bob"]
tables = ["docs.main.people"]
allow = ["read"]
filter = "country = '{}'"
"""
COUNT = "select count(*) as c from docs.main.people"


@pytest.fixture
def hourly(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that gives what it has kept for an hour without asking where it is from. Bob has a token too, `bob.token`."""
    made, _, lines = nexus("token", "--user", "bob").stdout.partition("\n")
    (tmp_path / "bob.token").write_text(made)
    (tmp_path / "tokens.toml").write_text(lines)
    (tmp_path / "policy.toml").write_text(OF_ROOT + OF_ANN + OF_BOB.format("NO"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "people.csv").write_text("name,country\nann,SE\nbob,NO\ncid,SE\n")
    known = users("root", "ann", "bob", "eve").replace("[auth]\n", '[auth]\ntokens = "tokens.toml"\n', 1)
    catalog = '[policy]\nfile = "policy.toml"\n[catalogs.docs]\nkind = "files"\nlocation = "docs"\n'
    with configured(tmp_path, f"{known}\n{catalog}", replicas=1, check="1h") as gateway:
        yield gateway


def counted(gateway: Gateway, user: str = "", token: str = "", **headers: str) -> tuple[int, str | None, int | None]:
    """What somebody is told of the rows: the status, what the cache had to do with it, and how many there are."""
    auth = (user, user) if user else None
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers |= {"authorization": f"Bearer {token}"} if token else {}
    answer = requests.post(f"{gateway.url}/v1/sql", data=COUNT.encode(), auth=auth, headers=headers, timeout=10)
    return answer.status_code, answer.headers.get("x-nexus-cache"), answer.json().get("c")


def test_what_is_kept_for_long_is_for_who_may_have_it_now(hourly: Gateway, tmp_path: Path) -> None:
    made = (tmp_path / "bob.token").read_text()
    asks: dict[str, Callable[..., tuple]] = {
        "ann": lambda **headers: counted(hourly, "ann", **headers),
        "bob": lambda **headers: counted(hourly, "bob", **headers),
        "bob by token": lambda **headers: counted(hourly, token=made, **headers),
    }
    seen = {"ann": 3, "bob": 1, "bob by token": 1}
    for name, ask in asks.items():
        assert ask()[::2] == (200, seen[name])
    with (tmp_path / "docs" / "people.csv").open("a") as file:
        file.write("dan,SE\n")
    # The file is not looked at.
    assert {name: ask() for name, ask in asks.items()} == {name: (200, "hit", count) for name, count in seen.items()}
    any_age = {"cache_control": "only-if-cached, max-stale"}
    # What is no way in is none to what is kept either.
    assert counted(hourly, token=made[:-1] + ("A" if made[-1] != "A" else "B"), **any_age)[0] == 401
    assert counted(hourly, "eve", **any_age)[0] == 404
    (tmp_path / "tokens.toml").write_text("")
    assert eventually(lambda: asks["bob by token"](**any_age)[0] == 401, 10)
    assert asks["bob"]() == (200, "hit", 1)
    (tmp_path / "policy.toml").write_text(OF_ROOT + OF_BOB.format("SE"))
    assert eventually(lambda: asks["ann"](**any_age)[0] == 404, 10)
    assert asks["ann"]()[0] == 404
    assert asks["bob"](**any_age)[0] == 409
    assert asks["bob"]() == (200, "miss", 3)


def test_only_who_is_admin_of_the_cache_gives_up_what_it_keeps(hourly: Gateway) -> None:
    def given_up(user: str, what: object, **headers: str) -> requests.Response:
        page = f"{hourly.url}/v1/cache/invalidate"
        return requests.post(page, json=what, auth=(user, user), headers=headers, timeout=10)

    for _ in range(2):
        told = counted(hourly, "ann")
    assert told == (200, "hit", 3)
    for user in ("ann", "bob", "eve"):
        # They are told what is told of any call.
        other = requests.post(f"{hourly.url}/v1/sql", data=b"call f()", auth=(user, user), timeout=10)
        for what in ({"table": "docs.main.people"}, {"table": "docs.main.nothing"}, {"tag": "x"}):
            answer = given_up(user, what)
            assert (answer.status_code, answer.json()) == (other.status_code, other.json()) == (501, other.json())
    # Nor is it for a page of others, in the name of who may.
    assert given_up("root", {"table": "docs.main.people"}, origin="https://elsewhere.example").status_code == 403
    assert counted(hourly, "ann") == (200, "hit", 3)
    assert given_up("root", {"table": "docs.main.people"}).json() == {"count": 1}
    assert counted(hourly, "ann") == (200, "miss", 3)
