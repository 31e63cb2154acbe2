"""A Trino server that asks who comes, over TLS: by password, by token and by certificate; none of that is anywhere to be seen."""

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import adbc_driver_flightsql.dbapi as flightsql
import pytest
import requests
import trustme

import trino_server
from canaries import Heard, nowhere
from gateway import configured, nexus
from s3 import Bucket
from trino_server import Secured, Trino
from vending import Handler

USER = "gateway"


@dataclass
class Guarded:
    """A server with what opens it, and a folder with the files of PEM."""

    server: Trino
    folder: Path
    password: str
    secret: bytes

    def catalog(self, name: str, **options: object) -> str:
        """The section of a catalog that trusts the server's authority."""
        return self.server.catalog(name, "tpch", **{"ca": str(self.folder / "authority.pem"), **options})

    @property
    def own(self) -> dict[str, str]:
        """The options of the certificate that the server takes."""
        return {"certificate": str(self.folder / "client.pem"), "key": str(self.folder / "client.key")}


@pytest.fixture(scope="module")
def guarded(spooled: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Its segments come through the server itself."""
    folder, authority = tmp_path_factory.mktemp("guarded"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    client = authority.issue_cert("client.example", common_name=USER)
    client.private_key_pem.write_to_path(str(folder / "client.key"))
    client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    password, secret = f"canary-password-{os.urandom(6).hex()}", os.urandom(32)
    secured = Secured(folder / "server.pem", folder / "authority.pem", {USER: password}, secret)
    with trino_server.server(spooled, "COORDINATOR_PROXY", secured) as server:
        yield Guarded(server, folder, password, secret)


@pytest.fixture(scope="module")
def loud(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    """A gateway at its loudest, with a catalog for each way in, and for each that leads nowhere."""
    folder, token = tmp_path_factory.mktemp("loud"), trino_server.token(USER, guarded.secret)
    wrong = trino_server.token(USER, os.urandom(32))
    text = '[log]\nlevel = "trace"\n[audit]\nfolder = "trail"\n[cache]\nsize = "0"\n'
    text += guarded.catalog("by_password", password="${env:PASSWORD}") + guarded.catalog("by_token", token=token)
    text += guarded.catalog("by_certificate", **guarded.own)
    text += guarded.catalog("pages", password="${env:PASSWORD}", spooling=False)
    text += guarded.catalog("wrong_password", password=f"{guarded.password}x") + guarded.catalog("wrong_token", token=wrong)
    text += guarded.catalog("nobody") + guarded.catalog("stranger", token=token, ca=str(guarded.folder / "other.pem"))
    environment = {"PASSWORD": guarded.password}
    with configured(folder, text, replicas=1, environment=environment) as gateway:
        yield Heard(gateway, None, folder)


WAYS = ["by_password", "by_token", "by_certificate", "pages"]


@pytest.mark.parametrize("catalog", WAYS)
def test_each_way_in(catalog: str, loud: Heard, guarded: Guarded) -> None:
    """With rows that come in a page, and with many, which come in segments through the server."""
    with flightsql.connect(loud.gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"select u from native('{catalog}', 'select current_user as u')")
        assert cursor.fetchall() == [(USER,)]
        cursor.execute(f"select count(*), sum(l_orderkey), max(l_comment) from {catalog}.tiny.lineitem")
        expected = guarded.server.ask("select count(*), sum(l_orderkey), max(l_comment) from tpch.tiny.lineitem").rows
        assert cursor.fetchall() == [tuple(expected[0])]


@pytest.mark.parametrize(
    ("catalog", "kind", "why"),
    [
        ("wrong_password", "unauthenticated", "check user, and password or token"),
        ("wrong_token", "unauthenticated", "check user, and password or token"),
        ("nobody", "unauthenticated", "check user, and password or token"),
        ("stranger", "unavailable", "certificate"),
    ],
)
def test_who_is_not_let_in_is_told(catalog: str, kind: str, why: str, loud: Heard) -> None:
    code, said = loud.asks(f"select * from {catalog}.tiny.nation")
    assert code != 200
    assert (f'"kind":"{kind}"' in said, why in said) == (True, True), said
    loud.fails(f"select * from {catalog}.tiny.nation")


def test_none_of_it_is_anywhere_to_be_seen(loud: Heard, guarded: Guarded) -> None:
    failing = ["selec 1", "select * from tiny.natoin", "select 1 / 0 as v", "select x from tiny.nation"]
    for catalog in [*WAYS, "wrong_password", "wrong_token", "nobody", "stranger"]:
        for sql in failing:
            assert loud.asks(f"select * from native('{catalog}', '{sql}')")[0] != 200
            loud.fails(f"select * from native('{catalog}', '{sql}')")
        for explain in ("explain", "explain verbose", "explain analyze"):
            loud.asks(f"{explain} select * from {catalog}.tiny.nation where n_nationkey = 1")
        loud.asks(f"select table_name from {catalog}.information_schema.tables")
    for table in ("queries", "sessions", "settings", "sources", "cache", "engines"):
        assert loud.asks(f"select * from system.{table}")[0] == 200
    loud.said.append(requests.get(f"{loud.gateway.url}/metrics", timeout=10).text)
    environment = {"PASSWORD": guarded.password}
    done = nexus("config", "check", loud.folder / "nexus.toml", "--connect", environment=environment)
    loud.said.append(done.stdout + done.stderr)
    text = (loud.folder / "nexus.toml").read_text()
    tokens = [line.split('"')[1] for line in text.splitlines() if line.startswith("token = ")]
    assert len(set(tokens)) == 2
    key = (guarded.folder / "client.key").read_text().splitlines()[1:-1]
    secrets = {
        "password": guarded.password,
        "basic": base64.b64encode(f"{USER}:{guarded.password}".encode()).decode(),
        "token": tokens[0],
        "signature of the token": tokens[0].rpartition(".")[2],
        "wrong token": min(set(tokens) - {tokens[0]}),
    } | {f"line {number} of the key": line for number, line in enumerate(key) if len(line) >= 32}
    places = loud.places(len(failing))
    nowhere(secrets, places)


# What a request had of secrets is put into each answer.
Fault = Callable[[Handler, str], None]


def told(call: Handler, carried: str) -> None:
    call.reply(401, [("content-type", "text/plain")], f"Access Denied: not for {carried}".encode())


def a_page(call: Handler, carried: str) -> None:
    error = {"message": f"no {carried}", "errorCode": 1, "errorName": carried, "errorType": "USER_ERROR"}
    call.json(200, {"id": carried, "infoUri": carried, "stats": {"state": carried}, "error": error})


def elsewhere(call: Handler, carried: str) -> None:
    """The next page would be at another server, which must not be asked with the login."""
    call.json(200, {"id": "1", "infoUri": "", "stats": {"state": "QUEUED"}, "nextUri": f"{call.server.other}/next"})


def a_redirect(call: Handler, carried: str) -> None:
    call.reply(307, [("location", f"{call.server.other}/?{quote(carried)}")], b"")


def segments(call: Handler, carried: str) -> None:
    """A segment that is at another server."""
    column = {"name": "v", "type": "bigint", "typeSignature": {"rawType": "bigint", "arguments": []}}
    where = {"uri": f"{call.server.other}/segment", "ackUri": f"{call.server.other}/ack"}
    segment = {"type": "spooled", **where, "headers": {}, "metadata": {"rowOffset": 0, "rowsCount": 1, "segmentSize": 3}}
    data = {"encoding": "json+zstd", "metadata": {}, "segments": [segment]}
    call.json(200, {"id": "1", "infoUri": "", "stats": {"state": "FINISHED"}, "columns": [column], "data": data})


def not_json(call: Handler, carried: str) -> None:
    call.reply(200, [("content-type", "application/json")], json.dumps({"id": carried})[:-3].encode())


class _Stub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        self.fault: Fault = told
        self.other = ""
        # The credentials that came, by path.
        self.came: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Calls(Handler):
    def _answer(self) -> None:
        self.body()
        authorization = self.headers.get("authorization", "")
        self.server.came.append((self.path, authorization))
        self.server.fault(self, f"{authorization} {authorization.rpartition(' ')[2]}")

    do_GET = do_POST = do_DELETE = do_HEAD = _answer


@contextmanager
def stub() -> Iterator[_Stub]:
    """A server of HTTP that is no Trino, until the block ends."""
    with _Stub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


FAULTS = [told, a_page, elsewhere, a_redirect, segments, not_json]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Heard, _Stub, _Stub]]:
    """A gateway before a server that repeats what it is asked with, and another one that must not be asked with a login."""
    folder = tmp_path_factory.mktemp("hostile")
    with stub() as server, stub() as other:
        server.other = other.address
        text = '[engines]\nfailures = 1000\nprobe = "0s"\n'
        text += '[log]\nlevel = "trace"\n[audit]\nfolder = "trail"\n[cache]\nsize = "0"\n'
        for name, login in LOGINS.items():
            options = "".join(f'{key} = "{value}"\n' for key, value in login.items())
            text += f'[catalogs.{name}]\nkind = "trino"\nurl = "{server.address}"\nuser = "me"\ncatalog = "c"\n{options}'
        with configured(folder, text, replicas=1) as gateway:
            yield Heard(gateway, None, folder), server, other


LOGINS = {"a": {"password": "canary-password-of-a-stub"}, "b": {"token": "canary-token.of.a-stub-that-repeats"}}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_server_that_repeats_what_it_is_asked_with(fault: Fault, hostile: tuple[Heard, _Stub, _Stub]) -> None:
    heard, server, other = hostile
    server.fault, before, asked = fault, len(server.came), len(other.came)
    for catalog in LOGINS:
        for sql in (f"select * from {catalog}.s.t", f"select * from native('{catalog}', 'select 1 as v')"):
            code, said = heard.asks(sql)
            assert code != 200, said
            heard.fails(sql)
    asking = [authorization for path, authorization in server.came[before:] if path == "/v1/statement"]
    # By each statement that is not refused before.
    assert len(asking) >= 2 * len(LOGINS)
    assert all(asking)
    assert not any(authorization for _, authorization in other.came), "the login went to another server"
    if fault in (elsewhere, a_redirect):
        assert len(other.came) == asked, "what leads elsewhere is followed"
    secrets = {f"of {name}": value for name, login in LOGINS.items() for value in login.values()}
    secrets["basic"] = base64.b64encode(f"me:{LOGINS['a']['password']}".encode()).decode()
    nowhere(secrets, heard.places(0))
