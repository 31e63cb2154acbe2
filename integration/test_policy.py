"""A policy as users meet it: what they see, what they are told, and a file that changes."""

from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
import requests

from gateway import Gateway, configured, eventually, users
from wire import reload_failures

POLICY = """
[groups]
staff = ["ann", "bob"]

[[rules]]
users = ["root"]
tables = ["*.*.*"]
allow = ["read", "write", "native", "admin"]

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
            users("root", "ann", "bob", "eve"),
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


def test_a_changed_file_takes_and_a_broken_one_does_not(gateway: Gateway, folder: Path) -> None:
    file, sql = folder / "policy.toml", "select count(*) as c from people"
    kept = "select entries from system.cache"
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
