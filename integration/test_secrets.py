"""Secrets that must not be seen: put where there is one, and looked for in all that the gateway says, at its loudest."""

import base64
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import grpc
import pytest
import requests
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import postgres
from canaries import Heard, forms, nowhere
from gateway import configured, eventually, nexus
from issuer import AUDIENCE, ISSUER, Issuer, good, rsa_key, serving, token
from wire import SERVICE, action, basic, descriptor, metric, packed, statement
from wire import field as part

TEXT = """
[log]
level = "trace"
[tls]
certificate = "server.pem"
key = "server.key"
[audit]
folder = "trail"
key = "{audit_key}"
[tickets]
keys = ["{ticket_key}", "{old_ticket_key}"]
[auth]
mode = "basic"
tokens = "tokens.toml"
[auth.users.ann]
password_hash = "{hash}"
[auth.users.bob]
password_hash = "${{file:bob.hash}}"
[auth.jwt]
issuer = "{issuer}"
audience = "{audience}"
jwks = "${{env:JWKS}}"
[catalogs.shop]
kind = "memory"
writable = true
[catalogs.crm]
kind = "postgres"
url = "postgres://crm@127.0.0.1:1/crm"
password = "${{env:CRM_PASSWORD}}"
[catalogs.erp]
kind = "postgres"
url = "postgres://erp@127.0.0.1:1/erp"
password = "{erp_password}"
[catalogs.books]
kind = "postgres"
url = "postgres://app@127.0.0.1:{port}/postgres"
password = "${{env:BOOKS_PASSWORD}}"
[catalogs.lake]
kind = "files"
location = "s3://bucket/prefix"
endpoint = "http://127.0.0.1:1"
allow_http = true
access_key_id = "AKIA"
secret_access_key = "{secret_key}"
session_token = "{session_token}"
"""
FAILURES = [
    "select",
    "select 1 +",
    "select * from nowhere",
    "select * from shop.main.nowhere",
    "select nothing from shop.main.goods",
    "select 1 / 0 from shop.main.goods",
    "select cast(name as int) from shop.main.goods",
    "select * from crm.main.t",
    "select * from erp.public.t",
    "select * from lake.main.t",
    "select table_name from erp.information_schema.tables",
    "select table_name from lake.information_schema.tables",
    "insert into erp.public.t values (1)",
    "create table lake.main.t as select 1 as a",
    "drop table shop.main.nowhere",
    "delete from crm.public.t",
    "explain select * from erp.public.t",
    "explain analyze select * from lake.main.t",
    "select unknown_function(1)",
    "select sum(name) from shop.main.goods",
    "select $1",
    "begin",
    "set x = 1",
    "copy t to 'x'",
    "create external table t stored as csv location '/etc'",
    "select * from '/etc/passwd'",
    "select repeat('x', 2000000000)",
    "select 1; select 2",
    "select regexp_like(name, '(') from shop.main.goods",
    "update shop.main.goods set nothing = 1",
    "select * from books.public.nowhere",
    "select nothing from books.public.t",
    "select 1 / (id - 7) from books.public.t",
    "select * from books.public.hidden",
    "insert into books.public.t values (1)",
    "explain select * from books.public.nowhere",
    "select (select id from books.public.t union all select 1)",
    "create view shop.main.v as select 1",
]
# What tells of a source and does not fail.
PLANS = [f"{explain} select id from books.public.t where id > 1" for explain in ("explain", "explain verbose", "explain analyze")]


@dataclass
class Open(Heard):
    """A gateway with what it must not say."""

    issuer: Issuer
    secrets: dict[str, str]
    environment: dict[str, str]


def of_key(pem: bytes) -> dict[str, str]:
    """What tells a private key of an elliptic curve: the lines of its file, and its number."""
    number = load_pem_private_key(pem, None).private_numbers().private_value
    lines = [line for line in pem.decode().splitlines() if len(line) >= 32 and "-----" not in line]
    return {f"tls_key_line_{at}": line for at, line in enumerate(lines)} | {
        "tls_key_number": str(number),
        "tls_key_hex": f"{number:064x}",
    }


def test_forms_are_found_within_longer_texts() -> None:
    secret = "canary/+?&\xfe-1"
    longer = [f"{'x' * before}{secret}yz" for before in range(3)]
    encoded = [base64.b64encode(text.encode()).decode() for text in longer]
    encoded += [quote(secret, safe=""), str(list(secret.encode())), f"x{secret}".encode().hex()]
    for text in encoded:
        assert [name for name, form in forms(secret) if form in text], text


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder, key = tmp_path_factory.mktemp("secrets"), rsa_key("rsa")
    random = {name: base64.b64encode(os.urandom(32)).decode() for name in ("audit_key", "ticket_key", "old_ticket_key")} | {
        name: f"canary-{name.replace('_', '-')}-{os.urandom(6).hex()}"
        for name in (
            "erp_password",
            "secret_key",
            "session_token",
            "password",
            "bob_password",
            "crm_password",
            "jwks_query",
            "books_password",
        )
    }
    hashed, of_bob = (nexus("hash-password", stdin=random[name]).stdout.strip() for name in ("password", "bob_password"))
    (folder / "bob.hash").write_text(of_bob)
    made, _, lines = nexus("token", "--user", "ann").stdout.partition("\n")
    (folder / "tokens.toml").write_text(lines)
    by_key = token(key, "RS256", good())
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    issued.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    with ExitStack() as ends:
        issuer, database = ends.enter_context(serving(key)), ends.enter_context(postgres.server())
        database.sql(
            "create table t as select n as id from generate_series(1, 9) n; create table hidden as select 1 as id;"
            f"create role app login password '{random['books_password']}'; grant select on t to app"
        )
        text = TEXT.format(**random, hash=hashed, issuer=ISSUER, audience=AUDIENCE, port=database.port)
        environment = {name.upper(): random[name] for name in ("crm_password", "books_password")}
        environment["JWKS"] = f"{issuer.address}?key={random['jwks_query']}"
        gateway = ends.enter_context(configured(folder, text, replicas=1, environment=environment))
        secrets = (
            random
            | of_key(issued.private_key_pem.bytes())
            | {
                "hash": hashed.rsplit("$", 1)[1],
                "bob_hash": of_bob.rsplit("$", 1)[1],
                "api_token": made,
                "api_token_hash": lines.split('sha256 = "')[1][:64],
                "jwt": by_key,
                "jwt_signature": by_key.rsplit(".", 1)[1],
                "basic": basic("ann", random["password"]).split()[1],
            }
        )
        yield Open(gateway, folder / "authority.pem", folder, issuer, secrets, environment)


def test_twenty_secrets_are_nowhere_to_be_seen(loud: Open) -> None:
    secrets, gateway = loud.secrets, loud.gateway
    ways = [f"Bearer {secrets['api_token']}", f"Bearer {secrets['jwt']}", basic("ann", secrets["password"])]
    assert loud.asks("create table shop.main.goods as select 'tea' as name, 1 as id", ways[0])[0] == 200
    for way in ways:
        assert '"a":1' in loud.asks("select 1 as a", way)[1]
    failed = [sql for number, sql in enumerate(FAILURES) if loud.asks(sql, ways[number % 2])[0] != 200]
    assert failed == FAILURES
    assert len(set(failed)) >= 30
    codes = {sql: loud.fails(sql, ways[number % 2]) for number, sql in enumerate(FAILURES)}
    assert len(set(codes.values())) >= 5, codes
    assert grpc.StatusCode.INTERNAL not in codes.values(), codes
    for sql in PLANS:
        code, said = loud.asks(sql, ways[0])
        # It is the source that reads it, with what it was given.
        assert (code, "books" in said) == (200, True), said
    refused = [f"Bearer {wrong}" for wrong in (secrets["api_token"][:-1], secrets["jwt"][:-2], secrets["jwt"] + ".x")]
    for wrong in (*refused, basic("ann", secrets["password"] + "x"), basic("bob", secrets["password"])):
        assert loud.asks("select 1", wrong)[0] == 401
        assert loud.fails("select 1", wrong) is grpc.StatusCode.UNAUTHENTICATED
    # What the gateway itself gives, at Flight.
    with loud.client(ways[2]) as client:
        secrets["granted"] = client.handshake().removeprefix("Bearer ")
        [prepared] = client.action(
            "CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", part(1, b"select 1"))
        )
        secrets["handle"] = base64.urlsafe_b64encode(prepared[80:140]).decode()
        _, call = client.channel.unary_unary(SERVICE + "GetFlightInfo").with_call(
            descriptor(statement("select 1")), metadata=client.headers, timeout=10
        )
        cookies = [value for name, value in call.initial_metadata() if name == "set-cookie"]
        secrets["session"] = cookies[0].split("=", 1)[1].split(";")[0]
        for name, body in [("CancelQuery", b"x"), ("Nothing", b""), ("EndTransaction", b"\x0a\x01x")]:
            with pytest.raises(grpc.RpcError) as error:
                list(client.stream(SERVICE + "DoAction", action(name, body)))
            loud.said.append(str(error.value))
    assert len(set(secrets.values())) >= 20
    for table in ("queries", "sessions", "settings", "sources", "cache", "engines"):
        assert loud.asks(f"select * from system.{table}", ways[0])[0] == 200
    loud.said.append(requests.get(f"{gateway.url}/metrics", timeout=10, verify=str(loud.roots)).text)
    # The address of the issuer's keys is a secret as well, which answers with an error, and then not at all.
    unknown, failures = token(rsa_key("unknown"), "RS256"), 'nexus_reload_failures_total{what="keys of the issuer"}'
    for fails in (lambda: setattr(loud.issuer, "status", 503), lambda: (loud.issuer.shutdown(), loud.issuer.server_close())):
        fails()
        before = metric(gateway.url, failures, verify=str(loud.roots))

        def is_told(before: float = before) -> bool:
            assert loud.asks("select 1", f"Bearer {unknown}")[0] == 401
            return metric(gateway.url, failures, verify=str(loud.roots)) > before

        assert eventually(is_told, 20), gateway.tail()
    # A key of which a part is missing is not taken, and not quoted; nor is one that is asked for in plain.
    with pytest.raises(requests.RequestException):
        requests.get(f"http://{gateway.http}/livez", timeout=10).raise_for_status()
    commands = [["config", "check", loud.folder / "nexus.toml", "--connect"]]
    commands.append(["audit", "verify", "--config", loud.folder / "nexus.toml"])
    loud.said += [done.stdout + done.stderr for done in (nexus(*each, environment=loud.environment) for each in commands)]
    torn = (loud.folder / "server.key").read_text().splitlines(keepends=True)
    (loud.folder / "server.key").write_text("".join(torn[:-2] + torn[-1:]))
    failures = 'nexus_reload_failures_total{what="tls"}'
    assert eventually(lambda: metric(gateway.url, failures, verify=str(loud.roots)) > 0, 10), gateway.tail()
    for command in commands:
        done = nexus(*command, environment=loud.environment)
        loud.said.append(done.stdout + done.stderr)
    nowhere(secrets, loud.places(len(FAILURES)))
