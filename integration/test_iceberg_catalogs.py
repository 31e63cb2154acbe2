"""Iceberg tables by each kind of catalog: written by pyiceberg, read through the gateway; and what goes wrong with catalogs."""

import datetime
import json
import random
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import psutil
import pyarrow as pa
import pyarrow.compute as compute
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import DateType, LongType, NestedField, StringType

import iceberg_rest
import metastore
import nessie
import postgres
import s3
import vending
from gateway import Gateway, configured, eventually
from postgres import Database
from servers import Server
from wire import Client, statement

BUCKET = "lake"
COLUMNS = Schema(
    NestedField(1, "id", LongType(), doc="by which it is told apart"),
    NestedField(2, "name", StringType()),
    NestedField(3, "day", DateType()),
)
# The most that may be kept of an answer that a catalog gives, with what is on the way.
BOUND = 192 << 20


@dataclass(frozen=True)
class Answer:
    """What a snapshot of a table holds: how many rows, and the sum of their ids."""

    snapshot: int
    count: int
    total: int


def orders(ids: range | list[int]) -> pa.Table:
    day = datetime.date(2026, 1, 1)
    days = [day + datetime.timedelta(number % 365) for number in ids]
    names = [f"订单 {number}" for number in ids]
    return pa.table({"id": pa.array(ids, pa.int64()), "name": names, "day": days})


def written(catalog: Catalog, namespace: str = "shop", name: str = "orders") -> list[Answer]:
    """A new table with a snapshot for each kind of change; gives what is in each, the last one first."""
    catalog.create_namespace_if_not_exists(namespace)
    table = catalog.create_table((namespace, name), COLUMNS, properties={"comment": "what was sold"})
    answers: list[Answer] = []

    def holds(*parts: range) -> None:
        ids = [number for part in parts for number in part]
        answers.insert(0, Answer(table.current_snapshot().snapshot_id, len(ids), sum(ids)))

    table.append(orders(range(1000)))
    holds(range(1000))
    table.append(orders(range(1000, 1500)))
    holds(range(1500))
    table.delete("id < 100")
    holds(range(100, 1500))
    table.overwrite(orders(range(5000, 5010)), overwrite_filter="id >= 1000")
    holds(range(100, 1000), range(5000, 5010))
    return answers


def section(name: str, **options: object) -> str:
    """A catalog of a configuration."""
    lines = "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())
    return f'\n[catalogs.{name}]\nkind = "iceberg"\n{lines}'


def kept_in(bucket: s3.Bucket) -> dict[str, object]:
    """The options of a store with its key."""
    keys = {"access_key_id": bucket.key, "secret_access_key": bucket.secret}
    return {"location": f"s3://{BUCKET}", "endpoint": bucket.endpoint, "region": vending.REGION, "allow_http": True, **keys}


def writes_to(bucket: s3.Bucket) -> dict[str, str]:
    """The same for pyiceberg."""
    keys = {"s3.access-key-id": bucket.key, "s3.secret-access-key": bucket.secret, "s3.region": vending.REGION}
    return {"s3.endpoint": bucket.endpoint, "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", **keys}


def holds(client: Client, table: str, answer: Answer) -> None:
    """Whether a table has the rows of a snapshot."""
    found = client.rows(f"select count(*) as n, sum(id) as total, count(name) as names from {table}")
    assert found == [{"n": answer.count, "total": answer.total, "names": answer.count}], table


def refused(client: Client, sql: str, within: float) -> grpc.RpcError:
    """The error of a statement, which comes in time."""
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        client.rows(sql, timeout=within + 30)
    took = time.monotonic() - began
    assert took < within, f"{took:.1f} s: {error.value.details()}"
    return error.value


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    root = tmp_path_factory.mktemp("s3") / "root"
    (root / BUCKET).mkdir(parents=True)
    with s3.server(root) as running:
        yield running


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres.server() as running:
        yield running


@pytest.fixture(scope="module")
def rest(database: Database, bucket: s3.Bucket) -> Iterator[Server]:
    """Iceberg's REST server; its catalog is called `sql` in the database, as that of the gateway which reads it there."""
    with iceberg_rest.server(database, "sql", f"s3://{BUCKET}/warehouse", bucket.root) as running:
        yield running


@pytest.fixture(scope="module")
def writer(rest: Server, bucket: s3.Bucket) -> RestCatalog:
    return RestCatalog("rest", uri=rest.uri, **writes_to(bucket))


@pytest.fixture(scope="module")
def in_bucket(writer: RestCatalog) -> list[Answer]:
    answers = written(writer)
    writer.create_namespace(("shop", "old"))
    writer.create_namespace("空")
    writer.create_table(("shop", "old", "orders"), COLUMNS)
    return answers


@pytest.fixture(scope="module")
def hive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("hive")
    with metastore.server(folder) as running:
        yield running, folder


@pytest.fixture(scope="module")
def in_folder(hive: tuple[Server, Path]) -> list[Answer]:
    server, folder = hive
    with metastore.catalog(server, f"file://{folder}") as catalog:
        written(catalog, name="other")
        return written(catalog)


@pytest.fixture(scope="module")
def client(
    database: Database, bucket: s3.Bucket, rest: Server, hive: tuple[Server, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    server, folder = hive
    url = f"postgresql://{postgres.USER}@127.0.0.1:{database.port}/postgres"
    text = (
        section("rest", catalog="rest", uri=rest.uri, **kept_in(bucket))
        + section("sql", catalog="sql", uri=url, password=postgres.PASSWORD, **kept_in(bucket))
        + section("hive", catalog="hive", uri=server.uri, location=str(folder))
        + section("folder", **{**kept_in(bucket), "location": f"s3://{BUCKET}/warehouse"})
    )
    with configured(tmp_path_factory.mktemp("catalogs"), text) as gateway, Client(gateway.flight) as client:
        yield client
        for secret in (s3.SECRET, postgres.PASSWORD):
            assert secret not in gateway.logged()


@pytest.mark.parametrize("catalog", ["rest", "sql", "hive", "folder"])
def test_each_snapshot(catalog: str, client: Client, in_bucket: list[Answer], in_folder: list[Answer]) -> None:
    answers = in_folder if catalog == "hive" else in_bucket
    holds(client, f"{catalog}.shop.orders", answers[0])
    for answer in answers:
        holds(client, f'{catalog}.shop."orders@{answer.snapshot}"', answer)
    assert client.rows(f"select name, day from {catalog}.shop.orders where id = 400") == [
        {"name": "订单 400", "day": datetime.date(2026, 2, 5)}
    ]
    unknown = refused(client, f'select * from {catalog}.shop."orders@7"', 10)
    assert unknown.code() is grpc.StatusCode.NOT_FOUND, unknown.details()


@pytest.mark.parametrize("catalog", ["rest", "sql", "hive"])
def test_the_listing(catalog: str, client: Client, in_bucket: list[Answer], in_folder: list[Answer]) -> None:
    names = f"select schema_name from {catalog}.information_schema.schemata where schema_name <> 'information_schema'"
    listed = f"""select table_schema, table_name from {catalog}.information_schema.tables
        where table_schema <> 'information_schema' and table_name not like '%$%'"""
    schemas = {row["schema_name"] for row in client.rows(names)}
    tables = {(row["table_schema"], row["table_name"]) for row in client.rows(listed)}
    if catalog == "hive":
        assert {"default", "shop"} <= schemas
        assert tables == {("shop", "orders"), ("shop", "other")}
    else:
        assert schemas == {"shop", "shop.old", "空"}
        assert tables == {("shop", "orders"), ("shop.old", "orders")}
        assert client.rows(f'select * from {catalog}."shop.old".orders') == []
    columns = f"""select column_name, column_comment from {catalog}.information_schema.columns
        where table_schema = 'shop' and table_name = 'orders' order by ordinal_position"""
    assert [tuple(row.values()) for row in client.rows(columns)] == [
        ("id", "by which it is told apart"),
        ("name", None),
        ("day", None),
    ]


@pytest.mark.parametrize("catalog", ["rest", "sql"])
def test_a_change_is_seen_by_the_next_statement(catalog: str, client: Client, writer: RestCatalog) -> None:
    name = f"changing_{catalog}"
    first, *_ = written(writer, name=name)
    holds(client, f"{catalog}.shop.{name}", first)
    table = writer.load_table(("shop", name))
    for number in range(6000, 6003):
        table.append(orders([number]))
        [row] = client.rows(f"select max(id) as last from {catalog}.shop.{name}")
        assert row == {"last": number}
    with table.update_schema() as change:
        change.rename_column("name", "title")
    assert client.rows(f"select title from {catalog}.shop.{name} where id = 6002") == [{"title": "订单 6002"}]
    writer.drop_table(("shop", name))
    gone = refused(client, f"select * from {catalog}.shop.{name}", 10)
    assert gone.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), gone.details()


def test_nessie(bucket: s3.Bucket, tmp_path: Path) -> None:
    """It shows one snapshot of a table. Its keys are long, and the server of the bucket makes names of files of them in Base64:
    with a folder before them these would be too long."""
    with nessie.server(bucket, f"s3://{BUCKET}") as running:
        catalog = RestCatalog("nessie", uri=running.uri, warehouse=nessie.WAREHOUSE, **writes_to(bucket))
        answer, *_ = written(catalog)
        text = section("nessie", catalog="rest", uri=running.uri, warehouse=nessie.WAREHOUSE, **kept_in(bucket))
        with configured(tmp_path, text) as gateway, Client(gateway.flight) as client:
            holds(client, "nessie.shop.orders", answer)
            assert s3.SECRET not in gateway.logged()


@contextmanager
def guarded(catalog: vending.Catalog, folder: Path, **options: object) -> Iterator[tuple[Gateway, Client]]:
    """A gateway that has no key of the store, and asks in somebody's name; it says no secret in its log."""
    place = {"location": f"s3://{BUCKET}", "endpoint": catalog.store.endpoint, "region": vending.REGION, "allow_http": True}
    text = section("lake", catalog="rest", uri=catalog.uri, **place, **options)
    with configured(folder, text) as gateway, Client(gateway.flight) as client:
        yield gateway, client
        assert "canary-" not in gateway.logged()
        assert s3.SECRET not in gateway.logged()


CREDENTIAL = {"credential": f"{vending.ID}:{vending.SECRET}", "scope": "catalog"}


def test_a_token_and_a_key_are_used_as_long_as_they_hold(
    rest: Server, bucket: s3.Bucket, in_bucket: list[Answer], tmp_path: Path
) -> None:
    with vending.catalog(rest.uri, bucket) as catalog, guarded(catalog, tmp_path, **CREDENTIAL) as (_, client):
        for _ in range(5):
            holds(client, "lake.shop.orders", in_bucket[0])
        assert catalog.asked == 1
        assert 1 <= catalog.loads <= 2 * 5
        assert catalog.store.refused == 0


def test_a_token_and_a_key_that_end_are_renewed(rest: Server, bucket: s3.Bucket, in_bucket: list[Answer], tmp_path: Path) -> None:
    with (
        vending.catalog(rest.uri, bucket, token_life=3, key_life=2) as catalog,
        guarded(catalog, tmp_path, **CREDENTIAL) as (_, client),
    ):
        holds(client, "lake.shop.orders", in_bucket[0])
        asked, loads = catalog.asked, catalog.loads
        assert eventually(lambda: catalog.tokens_ended() and catalog.store.all_ended(), 10)
        holds(client, "lake.shop.orders", in_bucket[0])
        assert catalog.asked > asked
        assert catalog.loads > loads


@pytest.mark.parametrize("renewed", [True, False])
def test_a_key_that_ends_while_rows_are_read(
    renewed: bool, rest: Server, bucket: s3.Bucket, writer: RestCatalog, tmp_path: Path
) -> None:
    """Another is fetched; where nobody gives one any more, the reading ends with an error."""
    count = 16_000_000
    numbers = pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(random.Random(7).randbytes(4 * count))])
    many = pa.table({"number": numbers})
    # Files that come one after another, and more in all than anybody holds back on the way.
    properties = {"write.target-file-size-bytes": str(4 << 20), "write.parquet.compression-codec": "uncompressed"}
    writer.create_namespace_if_not_exists("shop")
    writer.create_table("shop.many", many.schema, properties=properties).append(many)
    with (
        vending.catalog(rest.uri, bucket, key_life=3) as catalog,
        guarded(catalog, tmp_path, **CREDENTIAL) as (gateway, _),
        flightsql.connect(gateway.uri, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("select number from lake.shop.many")
        batches = cursor.fetch_record_batch()
        first, loads = batches.read_next_batch(), catalog.loads
        if not renewed:
            catalog.revoke()
            catalog.secret = "another"
        assert eventually(catalog.store.all_ended, 10)
        if renewed:
            found = [(batch.num_rows, compute.sum(batch["number"]).as_py()) for batch in chain([first], batches)]
            assert tuple(map(sum, zip(*found, strict=True))) == (count, compute.sum(numbers).as_py())
            assert catalog.loads > loads
        else:
            with pytest.raises(Exception, match="(?i)unauthenticated") as error:
                list(batches)
            assert "canary-" not in str(error.value)
    writer.drop_table("shop.many")


def test_a_key_that_is_not_renewed(rest: Server, bucket: s3.Bucket, in_bucket: list[Answer], tmp_path: Path) -> None:
    with (
        vending.catalog(rest.uri, bucket, token_life=2, key_life=2) as catalog,
        guarded(catalog, tmp_path, **CREDENTIAL) as (_, client),
    ):
        holds(client, "lake.shop.orders", in_bucket[0])
        catalog.secret = "another"
        assert eventually(lambda: catalog.tokens_ended() and catalog.store.all_ended(), 10)
        error = refused(client, "select sum(id) as total from lake.shop.orders", 10)
        assert error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED), error.details()
        assert "canary-" not in error.details()
        catalog.secret = vending.SECRET
        holds(client, "lake.shop.orders", in_bucket[0])


def test_a_token_that_is_revoked(rest: Server, bucket: s3.Bucket, in_bucket: list[Answer], tmp_path: Path) -> None:
    """With who one is another is asked for; a token that stands in the configuration is the only one."""
    with vending.catalog(rest.uri, bucket) as catalog:
        (tmp_path / "renews").mkdir()
        with guarded(catalog, tmp_path / "renews", **CREDENTIAL) as (_, client):
            holds(client, "lake.shop.orders", in_bucket[0])
            catalog.revoke()
            holds(client, "lake.shop.orders", in_bucket[0])
            assert catalog.asked == 2
        with guarded(catalog, tmp_path, token=catalog.token()) as (_, client):
            holds(client, "lake.shop.orders", in_bucket[0])
            catalog.revoke()
            error = refused(client, "select sum(id) as total from lake.shop.orders", 10)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error.details()
            assert "canary-" not in error.details()
            assert catalog.asked == 2


def test_a_secret_that_is_wrong(rest: Server, bucket: s3.Bucket, in_bucket: list[Answer], tmp_path: Path) -> None:
    with (
        vending.catalog(rest.uri, bucket) as catalog,
        guarded(catalog, tmp_path, credential=f"{vending.ID}:canary-wrong") as (_, client),
    ):
        error = refused(client, "select * from lake.shop.orders", 10)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error.details()
        assert "canary-" not in error.details()
        assert client.rows("select 1 as v") == [{"v": 1}]


def test_a_table_has_the_name_alone_that_is_listed(database: Database, bucket: s3.Bucket, tmp_path: Path) -> None:
    """Also where the columns of a database heed no case. The table is out of the location, which is seen only by its own name."""
    database.sql("create database heedless")
    made = """
        create collation heedless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create table iceberg_namespace_properties (catalog_name text, namespace text);
        create table iceberg_tables (catalog_name text, table_namespace varchar(255) collate heedless,
            table_name varchar(255) collate heedless, metadata_location text);
        insert into iceberg_tables values ('lake', 'shop', 'orders', 's3://elsewhere/v1.metadata.json');
    """
    database.sql(made, "heedless")
    options = {"catalog": "sql", "uri": f"postgresql://{postgres.USER}@127.0.0.1:{database.port}/heedless"}
    text = section("lake", **options, password=postgres.PASSWORD, **kept_in(bucket))
    with configured(tmp_path, text) as gateway, Client(gateway.flight) as client:
        for name, code in {
            "shop.orders": grpc.StatusCode.PERMISSION_DENIED,
            'shop."Orders"': grpc.StatusCode.NOT_FOUND,
            '"Shop".orders': grpc.StatusCode.NOT_FOUND,
        }.items():
            error = refused(client, f"select * from lake.{name}", 10)
            assert error.code() is code, error.details()


FAULTS = {vending.garbage: 10, vending.endless: 60, vending.silent: 75}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_catalog_that_makes_no_sense(
    fault: Callable, rest: Server, bucket: s3.Bucket, in_bucket: list[Answer], tmp_path: Path
) -> None:
    """It is an error in time that says which, little of it is kept, and it is over when the catalog is well again."""
    with vending.catalog(rest.uri, bucket) as catalog, guarded(catalog, tmp_path, token=catalog.token()) as (gateway, client):
        before = psutil.Process(gateway.pid).memory_info().rss
        catalog.fault = fault
        error = refused(client, "select * from lake.shop.orders", FAULTS[fault])
        assert error.code() in (
            grpc.StatusCode.DATA_LOSS,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.UNAVAILABLE,
        ), error.details()
        assert "lake" in error.details()
        assert catalog.sent < BOUND
        assert psutil.Process(gateway.pid).memory_info().rss - before < BOUND
        catalog.fault = None
        holds(client, "lake.shop.orders", in_bucket[0])


class _Impostor(socketserver.BaseRequestHandler):
    """Answers a call of Thrift with what is none, or with lengths that nothing follows."""

    def handle(self) -> None:
        self.request.recv(1 << 16)
        self.request.sendall(self.server.answer)


REPLY = metastore.REPLY + (17).to_bytes(4, "big") + b"get_all_databases" + bytes(4)
THRIFT = {
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "cut": metastore.REPLY[:3],
    "name": metastore.REPLY + (0x7FFFFFFF).to_bytes(4, "big"),
    # The first field of the answer is a list of texts, which has two thousand million of them.
    "list": REPLY + b"\x0f\x00\x00\x0b" + (0x7FFFFFFF).to_bytes(4, "big"),
    "negative": REPLY + b"\x0f\x00\x00\x0b" + (0xFFFFFFFF).to_bytes(4, "big"),
    # Structs within one another.
    "deep": REPLY + b"\x0c\x00\x07" * 100_000,
}


@pytest.mark.parametrize("answer", THRIFT)
def test_a_metastore_that_makes_no_sense(answer: str, tmp_path: Path) -> None:
    with ExitStack() as ends:
        server = ends.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Impostor))
        server.daemon_threads, server.answer = True, THRIFT[answer]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        ends.callback(server.shutdown)
        text = section("hive", catalog="hive", uri=f"thrift://127.0.0.1:{server.server_address[1]}", location=str(tmp_path))
        gateway = ends.enter_context(configured(tmp_path, text))
        client = ends.enter_context(Client(gateway.flight))
        before = psutil.Process(gateway.pid).memory_info().rss
        error = refused(client, "select * from hive.shop.orders", 10)
        assert error.code() in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE), error.details()
        assert psutil.Process(gateway.pid).memory_info().rss - before < BOUND


def test_a_metastore_that_dies(client: Client, hive: tuple[Server, Path], in_folder: list[Answer]) -> None:
    """What it has told of is read to the end; what comes then is told soon, and all is well when it is there again."""
    server, _ = hive
    holds(client, "hive.shop.orders", in_folder[0])
    [ticket] = client.info(statement("select id from hive.shop.orders cross join generate_series(1, 20000)")).tickets
    messages = client.get(ticket, 60)
    first = [next(messages), next(messages)]
    server.kill()
    for table in ("orders", "other"):
        error = refused(client, f"select sum(id) as total from hive.shop.{table}", 5)
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
        assert server.uri.removeprefix("thrift://") in error.details() or "metastore" in error.details()
    assert sum(1 for _ in [*first, *messages]) > len(first)
    server.start()
    holds(client, "hive.shop.orders", in_folder[0])


def test_a_metastore_that_is_frozen(client: Client, hive: tuple[Server, Path], in_folder: list[Answer]) -> None:
    server, _ = hive
    with server.frozen():
        error = refused(client, "select sum(id) as total from hive.shop.other", 75)
        assert error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE), error.details()
        assert client.rows("select 1 as v") == [{"v": 1}]
    holds(client, "hive.shop.orders", in_folder[0])
