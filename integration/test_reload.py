"""Secrets in files that `${file:…}` names: each is replaced under a running gateway, and one that breaks leaves the old one."""

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pytest
import requests

import postgres
import s3
from gateway import Gateway, configured, eventually, nexus
from postgres import Database
from wire import Client, basic, reload_failures, says, statement

TEXT = """
[log]
level = "trace"
[auth]
mode = "basic"
tokens = "tokens.toml"
[auth.users.ann]
password_hash = "${{file:ann.hash}}"
[auth.users.bob]
password_hash = "${{file:bob.hash}}"
[tickets]
keys = ["${{file:ticket.keys}}"]
[limits]
grace = "${{file:grace}}"
[catalogs.kept]
kind = "memory"
size = "${{file:size}}"
writable = true
[catalogs.crm]
kind = "postgres"
url = "postgres://app@127.0.0.1:{port}/postgres"
password = "${{file:crm.password}}"
[catalogs.lake]
kind = "files"
location = "s3://sales"
endpoint = "{endpoint}"
region = "us-east-1"
allow_http = true
access_key_id = "${{file:lake.id}}"
secret_access_key = "${{file:lake.secret}}"
"""


@dataclass
class Open:
    """A gateway whose secrets are in files, and all that was ever in them."""

    gateway: Gateway
    folder: Path
    database: Database
    token: str
    secrets: list[str] = field(default_factory=list)

    def put(self, name: str, value: str) -> None:
        """Puts a file in place of another as a whole."""
        self.secrets.append(value)
        (self.folder / f"{name}.new").write_text(f"{value}\n")
        (self.folder / f"{name}.new").replace(self.folder / name)

    def failures(self) -> float:
        """How often something broken was met."""
        return reload_failures(self.gateway.url, "secrets")

    @property
    def headers(self) -> dict[str, str]:
        """By what a call comes in that is not about passwords."""
        return {"authorization": f"Bearer {self.token}"}

    def asks(self, sql: str, **headers: str) -> tuple[int, str]:
        """The code and the text of an answer over HTTP."""
        answer = requests.post(f"{self.gateway.url}/v1/sql", data=sql.encode(), headers=headers or self.headers, timeout=60)
        return answer.status_code, answer.text

    def reads(self, sql: str) -> bool:
        """Whether a statement is answered."""
        return self.asks(sql)[0] == 200

    def granted(self, user: str, password: str) -> str:
        """The token that a handshake gives for a password."""
        with Client(self.gateway.flight, user, password) as client:
            return client.handshake().removeprefix("Bearer ")


def hashed(password: str) -> str:
    return nexus("hash-password", stdin=password).stdout.strip()


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("reload")
    sales = folder / "root" / "sales"
    sales.mkdir(parents=True)
    (sales / "goods.csv").write_text("name\ntea\n")
    with ExitStack() as ends:
        database = ends.enter_context(postgres.server())
        database.sql("create table t as select 7 as id; create role app login password 'canary-first'; grant select on t to app")
        bucket = ends.enter_context(s3.server(folder / "root"))
        token, _, lines = nexus("token", "--user", "etl").stdout.partition("\n")
        (folder / "tokens.toml").write_text(lines)
        made = Open(None, folder, database, token)
        for name, value in {
            "ann.hash": hashed("canary-ann"),
            "bob.hash": hashed("bob's"),
            "ticket.keys": new_key(),
            "crm.password": "canary-first",
            "lake.id": s3.KEY,
            "lake.secret": s3.SECRET,
        }.items():
            made.put(name, value)
        (folder / "size").write_text("1MiB")
        (folder / "grace").write_text("10s")
        text = TEXT.format(port=database.port, endpoint=bucket.endpoint)
        made.gateway = ends.enter_context(configured(folder, text, replicas=1))
        yield made


def test_a_password_is_changed_and_what_was_given_for_the_old_one_ends(running: Open) -> None:
    ann, bob = running.granted("ann", "canary-ann"), running.granted("bob", "bob's")
    assert says(running.gateway.url, ann)[0] == 200
    running.put("ann.hash", hashed("canary-second"))
    old, new = basic("ann", "canary-ann"), basic("ann", "canary-second")
    assert eventually(lambda: running.asks("select 1", authorization=new)[0] == 200, 10)
    assert running.asks("select 1", authorization=old)[0] == 401
    code, text = says(running.gateway.url, ann)
    assert (code, "of a password that was changed" in text) == (401, True)
    with Client(running.gateway.flight, authorization=f"Bearer {ann}") as client, pytest.raises(grpc.RpcError) as refused:
        client.rows("select 1 as a")
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    # Those of others go on.
    assert says(running.gateway.url, bob)[0] == 200
    assert says(running.gateway.url, running.granted("ann", "canary-second"))[0] == 200


def test_ticket_keys_are_rotated(running: Open) -> None:
    with Client(running.gateway.flight, **running.headers) as client:

        def made_by(key: str) -> bool:
            [ticket] = client.info(statement("select 1 as a")).tickets
            return hashlib.sha256(base64.b64decode(key)).digest()[:4] in ticket

        old, new = (running.folder / "ticket.keys").read_text().strip(), new_key()
        assert made_by(old)
        [ticket] = client.info(statement("select 1 as a")).tickets
        token = running.granted("bob", "bob's")
        # The first seals, all open.
        running.put("ticket.keys", f"{new}\n{old}")
        running.secrets.append(new)
        assert eventually(lambda: made_by(new), 10)
        assert len(list(client.get(ticket))) > 0
        assert says(running.gateway.url, token)[0] == 200
        # Without it what it sealed is nobody's.
        running.put("ticket.keys", new)
        assert eventually(lambda: says(running.gateway.url, token)[0] == 401, 10)
        with pytest.raises(grpc.RpcError, match="was not made by this server"):
            list(client.get(ticket))
        assert client.rows("select 1 as a") == [{"a": 1}]


def test_the_password_of_a_database_is_changed(running: Open) -> None:
    database, sql = running.database, "select id from crm.public.t"
    idle = "select count(*) > 0 from pg_stat_activity where usename = 'app' and state = 'idle'"
    options = {"adbc.flight.sql.authorization_header": f"Bearer {running.token}"}
    with flightsql.connect(running.gateway.uri, db_kwargs=options) as held, held.cursor() as cursor:
        cursor.execute(sql)
        assert cursor.fetchall() == [(7,)]
        assert running.reads(sql)
        assert eventually(lambda: database.sql(idle) == [["t"]], 10)
        database.sql("alter role app password 'canary-second'")
        running.put("crm.password", "canary-second")
        # What was opened by the old one is closed, but for what is in use.
        assert eventually(lambda: database.sql(idle) == [["f"]], 10)
        assert running.reads(sql)
        cursor.execute(sql)
        assert cursor.fetchall() == [(7,)]
        held.rollback()
    # Without the new password in its file nothing new is opened.
    database.sql("alter role app password 'canary-third'")
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'")
    assert eventually(lambda: "password authentication failed" in running.asks(sql)[1], 10)
    running.put("crm.password", "canary-third")
    assert eventually(lambda: running.reads(sql), 10)


def test_the_keys_of_a_bucket_are_changed(running: Open) -> None:
    sql = "select name from lake.main.goods"
    assert running.reads(sql)
    running.put("lake.secret", "canary-wrong")
    assert eventually(lambda: running.asks(sql)[0] in (401, 403), 10)
    running.put("lake.secret", s3.SECRET)
    assert eventually(lambda: running.reads(sql), 10)
    running.put("lake.id", "canary-id")
    assert eventually(lambda: not running.reads(sql), 10)
    running.put("lake.id", s3.KEY)
    assert eventually(lambda: running.reads(sql), 10)


def test_what_cannot_change_says_so_and_rows_in_memory_stay(running: Open) -> None:
    assert running.reads("create table kept.main.rows as select 1 as a")
    (running.folder / "size").write_text("2MiB")
    (running.folder / "grace").write_text("11s")

    def said(key: str) -> bool:
        lines = running.gateway.logged().splitlines()
        return any(key in line for line in lines if "count from the next start on" in line)

    # One may be seen before the other.
    assert eventually(lambda: said("catalogs.kept.size") and said("limits.grace"), 10)
    assert running.reads("select a from kept.main.rows")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ann.hash", "canary-broken", "auth.users.ann.password_hash: this is not an argon2id hash (from {file})"),
        ("ann.hash", None, "auth.users.ann.password_hash: the file {file} cannot be read: no such file or directory"),
        ("bob.hash", "", "auth.users.bob.password_hash: the file {file} is empty"),
        ("ticket.keys", "canary-broken", "tickets.keys: the value of its reference is not valid (from {file})"),
        ("ticket.keys", "", "tickets.keys: the file {file} is empty"),
        ("crm.password", "", "catalogs.crm.password: the file {file} is empty"),
        ("crm.password", None, "catalogs.crm.password: the file {file} cannot be read: no such file or directory"),
        ("lake.secret", "", "catalogs.lake.secret_access_key: the file {file} is empty"),
    ],
)
def test_a_file_that_breaks_leaves_the_old_and_is_counted(running: Open, name: str, content: str | None, message: str) -> None:
    path, whole, before = running.folder / name, (running.folder / name).read_text(), running.failures()
    said = message.format(file=path)
    times = running.gateway.logged().count(said)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert eventually(lambda: running.failures() > before, 10)
    assert eventually(lambda: running.gateway.logged().count(said) > times, 10)
    assert running.reads("select 1")
    assert says(running.gateway.url, running.granted("bob", "bob's"))[0] == 200
    assert running.reads("select id from crm.public.t")
    assert running.reads("select name from lake.main.goods")
    # Whole again, it is taken over again.
    taken = running.gateway.logged().count("a file has changed and was read again")
    running.put(name, whole.strip())
    assert eventually(lambda: running.gateway.logged().count("a file has changed and was read again") > taken, 10)


def test_no_value_is_in_the_log(running: Open) -> None:
    logged = running.gateway.logged()
    assert " TRACE " in logged
    assert "canary-" not in logged
    seen = {line for secret in running.secrets for line in (secret, secret.rsplit("$", 1)[-1]) if line != s3.KEY}
    assert len(seen) >= 6
    assert [secret for secret in seen if secret in logged] == []
