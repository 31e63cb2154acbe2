"""Secrets of lakes: tokens and keys that catalogs give are renewed before they end, and none is anywhere to be seen, whatever
goes wrong with servers that repeat what they were asked with."""

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

import grpc
import pyarrow as pa
import pytest
import requests
from deltalake import write_deltalake
from pyiceberg.catalog.rest import RestCatalog

import glue
import iceberg_rest
import postgres
import s3
import unity
import vending
from canaries import Heard, nowhere
from gateway import configured, eventually, nexus
from hudi_writer import HudiTable, new_group
from postgres import Database
from servers import Server
from test_iceberg_catalogs import BUCKET, section, writes_to, written
from wire import Client

Fault = Callable[[vending.Handler], None]
# Each of another catalog: of those that are asked by HTTP, and of the others.
ASKED = ["rest.shop.orders", "token.shop.orders", "glue.shop.orders", "unity.main.orders"]
TABLES = [*ASKED, "sql.shop.orders", "folder.shop.orders", "hudi.main.orders"]
# Those that can never be read: with wrong secrets, of a metastore that is not there any more, and one that nobody has.
NEVER = ["wrong.shop.orders", "locked.shop.orders", "badkeys.shop.orders", "hive.shop.orders", "glue.shop.nothing"]
SUM = "select sum(id) as total from {}"


def repeated(call: vending.Handler) -> str:
    """What a request has of secrets."""
    headers = (call.headers.get(name, "") for name in ("authorization", "x-amz-security-token"))
    return " ".join([*headers, call.carried.decode()])


def answer(call: vending.Handler, status: int, kind: str, body: str, **headers: str) -> None:
    call.reply(status, [("content-type", kind), *headers.items()], b"" if call.command == "HEAD" else body.encode())


def error(status: int, kind: str) -> Fault:
    """An error in the words of REST catalogs, of OAuth2 and of Unity Catalog, or in those of AWS where that is asked."""

    def fault(call: vending.Handler) -> None:
        said = f"not for {repeated(call)}"
        body = {"error": {"message": said, "type": kind, "code": status}, "error_description": said, "message": said}
        if "x-amz-target" in call.headers:
            body = {"__type": kind, "Message": said}
        answer(call, status, "application/json", json.dumps(body))

    return fault


def plain(call: vending.Handler) -> None:
    answer(call, 400, "text/plain", repeated(call))


def torn(call: vending.Handler) -> None:
    """JSON that ends within a text."""
    answer(call, 200, "application/json", json.dumps({"access_token": repeated(call)})[:-3])


def another_type(call: vending.Handler) -> None:
    """JSON with texts where something else should be."""
    names = ["metadata-location", "config", "storage-credentials", "namespaces", "identifiers", "defaults", "overrides"]
    names += ["schemas", "tables", "columns", "name", "DatabaseList", "TableList", "token_type", "aws_temp_credentials"]
    body = {name: [repeated(call)] for name in names} | {"Table": repeated(call)}
    answer(call, 200, "application/json", json.dumps(body))


def only_a_text(call: vending.Handler) -> None:
    answer(call, 200, "application/json", json.dumps(repeated(call)))


def redirect(call: vending.Handler) -> None:
    """It leads to an address that has all in it."""
    address = f"http://127.0.0.1:{call.server.server_address[1]}/?token={quote(repeated(call), safe='')}"
    answer(call, 307, "text/plain", "", location=address)


def broken_off(call: vending.Handler) -> None:
    call.send_response(200)
    call.send_header("content-length", "100000")
    call.end_headers()
    call.wfile.write(repeated(call).encode())
    call.close_connection = True


def store_error(status: int, code: str) -> Fault:
    """An error of S3, on one line."""

    def fault(call: vending.Handler) -> None:
        body = f"<Error><Code>{code}</Code><Message>not for {escape(repeated(call))}</Message></Error>"
        answer(call, status, "application/xml", body)

    return fault


def no_list(call: vending.Handler) -> None:
    """A list with texts where something else should be."""
    said = escape(repeated(call))
    entry = f"<Contents><Key>{said}</Key><Size>{said}</Size><LastModified>{said}</LastModified></Contents>"
    answer(call, 200, "application/xml", f"<ListBucketResult><IsTruncated>{said}</IsTruncated>{entry}</ListBucketResult>")


OF_CATALOGS = {
    "401": error(401, "NotAuthorizedException"),
    "403": error(403, "AccessDeniedException"),
    "409": error(409, "InvalidInputException"),
    "419": error(419, "AuthenticationTimeoutException"),
    "500": error(500, "InternalServiceException"),
    **{fault.__name__: fault for fault in (plain, torn, another_type, only_a_text, redirect, broken_off)},
}
OF_STORES = {
    "403": store_error(403, "AccessDenied"),
    "403 of the key": store_error(403, "InvalidAccessKeyId"),
    "400": store_error(400, "InvalidRequest"),
    "412": store_error(412, "PreconditionFailed"),
    **{fault.__name__: fault for fault in (no_list, redirect)},
}


def canary(name: str) -> str:
    return f"canary-{name}-{os.urandom(8).hex()}"


@dataclass
class Made:
    """Tables, and the servers that know them."""

    bucket: s3.Bucket
    database: Database
    rest: Server
    # Of a user of the database who may read what the catalog keeps there.
    password: str
    # Where that of the Iceberg table is.
    metadata: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root, password = tmp_path_factory.mktemp("s3") / "root", canary("sql-password")
    (root / BUCKET).mkdir(parents=True)
    rows = pa.table({"id": pa.array(range(10), pa.int64())})
    with ExitStack() as ends:
        bucket = ends.enter_context(s3.server(root, f"CANARYKEY{os.urandom(8).hex()}", canary("store-secret")))
        database = ends.enter_context(postgres.server())
        rest = ends.enter_context(iceberg_rest.server(database, "sql", f"s3://{BUCKET}/warehouse", root))
        writer = RestCatalog("rest", uri=rest.uri, **writes_to(bucket))
        written(writer)
        tables = "iceberg_tables, iceberg_namespace_properties"
        database.sql(f"create role app login password '{password}'; grant select on {tables} to app")
        delta, hudi = root / BUCKET / "delta" / "main" / "orders", root / BUCKET / "hudi" / "orders"
        delta.mkdir(parents=True)
        write_deltalake(delta, rows)
        HudiTable(hudi, rows.schema).commit({new_group(): rows.to_batches()})
        yield Made(bucket, database, rest, password, writer.load_table(("shop", "orders")).metadata_location)


@dataclass
class Lakes(Heard):
    """A gateway over a catalog of each kind, and what it must not say."""

    rest: vending.Catalog
    unity: unity.Catalog
    glue: glue.Catalog
    secrets: dict[str, str]


@pytest.fixture
def lakes(made: Made, tmp_path: Path) -> Iterator[Lakes]:
    names = ("client-secret", "own-session", "wrong-secret", "wrong-password", "wrong-key")
    secrets = {name: canary(name) for name in names} | {"sql-password": made.password}
    # The id of a key is a setting that admins see.
    secrets["store-secret"] = made.bucket.secret
    secrets["audit-key"] = base64.b64encode(os.urandom(32)).decode()
    with ExitStack() as ends:
        rest = ends.enter_context(vending.catalog(made.rest.uri, made.bucket))
        known = ends.enter_context(unity.catalog(made.bucket))
        aws = ends.enter_context(glue.catalog())
        rest.secret, secrets["unity-token"], secrets["token"] = secrets["client-secret"], known.token, rest.token()
        rest.store.ends[secrets["own-session"]] = float("inf")
        known.add("main", "orders", f"s3://{BUCKET}/delta/main/orders")
        aws.add("shop", "orders", made.metadata)
        place = {"location": f"s3://{BUCKET}", "endpoint": rest.store.endpoint, "region": vending.REGION, "allow_http": True}
        own = {**place, "access_key_id": made.bucket.key, "secret_access_key": made.bucket.secret}
        own["session_token"] = secrets["own-session"]
        folder = {**own, "location": f"s3://{BUCKET}/warehouse"}
        sql = {"catalog": "sql", "uri": f"postgresql://app@127.0.0.1:{made.database.port}/postgres", **own}
        server = {"catalog": "rest", "uri": rest.uri, **place}
        text = (
            f'[cache]\nsize = "0"\n[log]\nlevel = "trace"\n[audit]\nfolder = "trail"\nkey = "{secrets["audit-key"]}"\n'
            + section("rest", **server, credential=f"{vending.ID}:{secrets['client-secret']}", scope="catalog")
            + section("wrong", **server, credential=f"{vending.ID}:{secrets['wrong-secret']}")
            + section("token", **server, token=secrets["token"])
            + section("sql", **sql, password=made.password)
            + section("locked", **sql, password=secrets["wrong-password"])
            + section("glue", **own, catalog="glue", uri=aws.uri)
            + section("hive", **own, catalog="hive", uri="thrift://127.0.0.1:1")
            + section("folder", **folder)
            + section("badkeys", **{**folder, "secret_access_key": secrets["wrong-key"]})
            + of("hudi", section("hudi", **{**own, "location": f"s3://{BUCKET}/hudi"}))
            + of_unity(known)
        )
        gateway = ends.enter_context(configured(tmp_path, text, replicas=1))
        yield Lakes(gateway, None, tmp_path, rest, known, aws, secrets)


def of(kind: str, section: str) -> str:
    """The same of another kind."""
    return section.replace('kind = "iceberg"', f'kind = "{kind}"')


def of_unity(catalog: unity.Catalog) -> str:
    """A catalog of Delta tables that are read with keys which that gives."""
    place = {"location": f"s3://{BUCKET}/delta", "endpoint": catalog.store.endpoint, "region": vending.REGION}
    asked = {"catalog": "unity", "uri": catalog.uri, "warehouse": unity.WAREHOUSE, "token": catalog.token}
    return of("delta", section("unity", **place, **asked, allow_http=True))


def put(fault: Fault | None, *servers: object) -> None:
    for server in servers:
        server.fault = fault


# At the loudest, and over seven kinds of catalogs.
@pytest.mark.timeout(300)
def test_secrets_of_lakes_are_nowhere_to_be_seen(lakes: Lakes) -> None:
    def checks() -> None:
        done = nexus("config", "check", lakes.folder / "nexus.toml", "--connect")
        lakes.said.append(done.stdout + done.stderr)

    for table in TABLES:
        asked = [f"{explain} {SUM.format(table)}" for explain in ("", "explain", "explain verbose", "explain analyze")]
        asked.append(f"select table_name from {table.partition('.')[0]}.information_schema.tables")
        for sql in asked:
            code, said = lakes.asks(sql)
            assert code == 200, said
    for table in NEVER:
        assert lakes.asks(SUM.format(table))[0] != 200, table
        lakes.fails(SUM.format(table))
    servers, stores = (lakes.rest, lakes.unity, lakes.glue), (lakes.rest.store, lakes.unity.store)
    for name, fault in OF_CATALOGS.items():
        put(fault, *servers)
        codes = {table: lakes.asks(SUM.format(table))[0] for table in ASKED}
        assert 200 not in codes.values(), (name, codes)
        assert grpc.StatusCode.INTERNAL not in {lakes.fails(SUM.format(table)) for table in ASKED}, name
        if name in ("403", "redirect"):
            checks()
    put(None, *servers)
    for name, fault in OF_STORES.items():
        put(fault, *stores)
        # What is kept of a table that was read before may be enough for an answer.
        failed = {table for table in TABLES if lakes.asks(SUM.format(table))[0] != 200}
        assert {"folder.shop.orders", "hudi.main.orders"} <= failed, (name, failed)
        assert grpc.StatusCode.INTERNAL not in {lakes.fails(SUM.format(table)) for table in failed}, name
    # It is asked five times.
    put(store_error(500, "InternalError"), *stores)
    assert lakes.asks(SUM.format("folder.shop.orders"))[0] == 503
    checks()
    put(None, *stores)
    for table in TABLES:
        assert lakes.asks(SUM.format(table))[0] == 200, table
    for table in ("queries", "sessions", "settings", "sources", "cache", "engines"):
        lakes.asks(f"select * from system.{table}")
    lakes.said.append(requests.get(f"{lakes.gateway.url}/metrics", timeout=10).text)
    places = lakes.places(len(OF_CATALOGS) * len(ASKED))
    for place, words in places.items():
        at = words.find("canary-")
        assert at < 0, f"{place}: …{words[max(at - 200, 0) : at]}"
    # Some of those that were given, of which there is one for each statement.
    given = [*lakes.rest.tokens, *lakes.rest.store.ends, *lakes.unity.store.ends]
    some = {f"given {at}": secret for at, secret in enumerate([*given[:4], *given[-4:]])}
    nowhere(lakes.secrets | some, places)


def test_tokens_and_keys_are_renewed_before_they_end(made: Made, tmp_path: Path) -> None:
    """Who asks all the time never asks with one that has ended: each is given while the one before it holds."""
    life = 6
    with ExitStack() as ends:
        rest = ends.enter_context(vending.catalog(made.rest.uri, made.bucket, token_life=life, key_life=life))
        known = ends.enter_context(unity.catalog(made.bucket, key_life=life))
        known.add("main", "orders", f"s3://{BUCKET}/delta/main/orders")
        place = {"location": f"s3://{BUCKET}", "endpoint": rest.store.endpoint, "region": vending.REGION, "allow_http": True}
        asked = {"catalog": "rest", "uri": rest.uri, "credential": f"{vending.ID}:{vending.SECRET}"}
        text = '[cache]\nsize = "0"\n' + section("rest", **place, **asked) + of_unity(known)
        gateway = ends.enter_context(configured(tmp_path, text, replicas=1))
        client = ends.enter_context(Client(gateway.flight))
        began = time.monotonic()

        def are_renewed() -> bool:
            for table in ("rest.shop.orders", "unity.main.orders"):
                assert len(client.rows(SUM.format(table))) == 1
            return len(rest.tokens) > 2 and len(known.store.ends) > 2

        assert eventually(are_renewed, 60)
        # Each of two is used for half of its life at least.
        assert time.monotonic() - began > life * 0.9
        for given in (rest.tokens, known.store.ends):
            assert all(later - life < before for before, later in pairwise(given.values()))
        assert rest.store.refused == known.store.refused == 0
        assert "canary-" not in gateway.logged()
