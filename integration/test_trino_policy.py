"""A policy over tables of Trino: right answers, and neither what Trino is asked nor what it says tells of a hidden row."""

from collections.abc import Iterator

import pytest
import requests

from gateway import Gateway, configured, users
from trino_server import Trino

# The view fails for a row that is hidden.
SEED = [
    "create table memory.default.base (name varchar, country varchar, pin varchar)",
    "insert into memory.default.base values ('bob', 'NO', '2'), ('cid', 'SE', 'hidden-pin'), ('dan', 'SE', '5')",
    "create view memory.default.people as select name, country, cast(pin as integer) as pin from memory.default.base",
]
POLICY = """
[[rules]]
users = ["root"]
tables = ["*.*.*"]
allow = ["read", "native"]

[[rules]]
users = ["ann"]
tables = ["mem.default.base", "mem.default.people"]
allow = ["read"]
filter = "country = 'NO'"

[[rules]]
users = ["eve"]
tables = ["mem.default.base"]
allow = ["read"]
filter = "left(country, 2) = 'SE'"
masks = { name = "left(name, 1) || '…'", pin = "'***'" }

[[rules]]
users = ["cid"]
tables = ["mem.default.base"]
allow = ["read", "native"]
filter = "country = $user"

[[rules]]
users = ["cid"]
tables = ["*.*.*"]
allow = ["read", "native"]

[[rules]]
users = ["dan"]
tables = ["*.*.*"]
allow = ["read"]
"""


@pytest.fixture(scope="module")
def gateway(trino: Trino, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "policy.toml").write_text(POLICY)
    for sql in SEED:
        trino.ask(sql)
    sections = [users("root", "ann", "eve", "cid", "dan"), '[policy]\nfile = "policy.toml"', trino.catalog("mem")]
    defaults = '[defaults]\ncatalog = "mem"\nschema = "default"'
    with configured(folder, "\n".join([*sections, defaults]), replicas=1) as gateway:
        yield gateway
    trino.ask("drop view memory.default.people")
    trino.ask("drop table memory.default.base")


def says(gateway: Gateway, user: str, sql: str) -> str:
    """The answer to a statement, or the error."""
    headers = {"accept": "application/x-ndjson"}
    return requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), auth=(user, user), headers=headers, timeout=30).text


@pytest.mark.parametrize(
    ("user", "sql", "expected"),
    [
        ("root", "select count(*) as n from base", '{"n":3}\n'),
        ("ann", "select * from base", '{"name":"bob","country":"NO","pin":"2"}\n'),
        ("ann", "select count(*) as n from base where name >= 'cid'", '{"n":0}\n'),
        ("ann", "select count(*) as n from base", '{"n":1}\n'),
        ("eve", "select name, pin from base order by pin, name", '{"name":"c…","pin":"***"}\n{"name":"d…","pin":"***"}\n'),
        ("eve", "select count(*) as n from base where pin = '5'", '{"n":0}\n'),
        ("eve", "select count(*) as n from base where name = 'cid'", '{"n":0}\n'),
        ("eve", "select count(*) as n from base where name = 'd…'", '{"n":1}\n'),
        ("eve", "select country from base limit 1", '{"country":"SE"}\n'),
    ],
)
def test_each_sees_what_is_theirs(user: str, sql: str, expected: str, gateway: Gateway) -> None:
    assert says(gateway, user, sql) == expected


@pytest.mark.parametrize("condition", ["name = '{}' and pin is not null", "pin > 0 and name = '{}'", "name in ('{}', 'x')"])
def test_a_condition_tells_not_whether_a_hidden_row_is_there(condition: str, gateway: Gateway) -> None:
    """The same words of Trino, too, but for the id that it has for the statement."""
    told = []
    for name in ("cid", "zzz"):
        said = says(gateway, "ann", f"select name, pin from people where {condition.format(name)}")
        assert "hidden" not in said
        told.append(said.partition("trino has it as query")[0])
    assert told[0] == told[1]


def test_nothing_is_asked_that_could_tell(gateway: Gateway, trino: Trino) -> None:
    """What somebody else is asked about by a user who does not see all of it is in no text that arrives at Trino."""
    for number, user in enumerate(("ann", "eve")):
        for table in ("base", "people")[: 2 - number]:
            before = len(trino.asked(f'"{table}"'))
            says(gateway, user, f"select country from {table} where name = 'probe-{user}' limit 1")
            texts = trino.asked(f'"{table}"')[before:]
            assert texts, "it is read"
            assert not any("probe" in text or "LIMIT" in text for text in texts), texts
    before = len(trino.asked("probe-root"))
    assert says(gateway, "root", "select country from base where name = 'probe-root'") == ""
    assert len(trino.asked("probe-root")) == before + 1, "who sees all of it has it pushed down"


@pytest.mark.parametrize("user", ["ann", "eve", "cid", "dan"])
def test_who_does_not_see_all_has_no_native_statements(user: str, gateway: Gateway, trino: Trino) -> None:
    native = f"select name from memory.default.base /* {user} */"
    said = says(gateway, user, f"select * from native('mem', '{native}')")
    assert '"error"' in said, said
    assert '"kind":"denied"' in said or '"kind":"not_found"' in said, said
    assert "bob" not in said
    assert trino.asked(f"/* {user} */") == []


def test_who_sees_all_has_them(gateway: Gateway) -> None:
    assert says(gateway, "root", "select * from native('mem', 'select count(*) as n from memory.default.base')") == '{"n":3}\n'


@pytest.mark.parametrize("explain", ["explain", "explain verbose", "explain analyze"])
def test_plans_tell_nothing(explain: str, gateway: Gateway) -> None:
    said = says(gateway, "ann", f"{explain} select name from people where name = 'cid'")
    assert "hidden" not in said
