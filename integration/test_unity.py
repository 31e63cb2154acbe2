"""Delta tables of Unity Catalog, by a stub of what is published of it: Spark's tables with keys that the server gives, what is
not read, and what goes wrong."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import lakes
import s3
import unity
import vending
from gateway import configured, eventually
from test_iceberg_catalogs import refused
from test_lake import CLONED, MOVED, TABLES, checksum, expected_of
from wire import Client

NAMES = list(dict.fromkeys(name for name, _ in MOVED if TABLES[name]["catalog"] == "delta"))
BUCKET = "lake"
PLACE = f"s3://{BUCKET}/delta"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    root = tmp_path_factory.mktemp("s3") / "root"
    shutil.copytree(lakes.folder() / "delta", root / BUCKET / "delta", copy_function=shutil.copyfile)
    with s3.server(root) as running:
        yield running


@contextmanager
def served(bucket: s3.Bucket, key_life: float = 600) -> Iterator[unity.Catalog]:
    """A server that has Spark's tables, and others."""
    with unity.catalog(bucket, key_life) as catalog:
        for name in [*NAMES, CLONED]:
            catalog.add("main", name, f"{PLACE}/main/{name}")
        catalog.add("空", "plain", f"{PLACE}/main/delta_plain/", table_type="MANAGED")
        catalog.add("空", "text", f"{PLACE}/text", data_source_format="CSV")
        catalog.add("空", "seen", "", table_type="VIEW", data_source_format=None)
        catalog.add("空", "hidden", f"{PLACE}/main/delta_plain", row_filter={"function_name": "f"})
        catalog.add("空", "elsewhere", "s3://another/delta")
        yield catalog


@contextmanager
def reading(catalog: unity.Catalog, folder: Path, **options: object) -> Iterator[Client]:
    """A client of a gateway that reads by the server; it has no key of the store, and says no secret in its log."""
    place = {"location": PLACE, "endpoint": catalog.store.endpoint, "region": vending.REGION}
    said = {"catalog": "unity", "uri": catalog.uri, "warehouse": unity.WAREHOUSE, "token": catalog.token, "allow_http": True}
    values = {**said, **place, **options}
    lines = "".join(f"{option} = {json.dumps(value)}\n" for option, value in values.items() if value is not None)
    text = f'[cache]\nsize = "0"\n\n[catalogs.lake]\nkind = "delta"\n{lines}'
    with configured(folder, text) as gateway, Client(gateway.flight) as client:
        yield client
        assert "canary-" not in gateway.logged()
        assert s3.SECRET not in gateway.logged()


@pytest.fixture(scope="module")
def catalog(bucket: s3.Bucket) -> Iterator[unity.Catalog]:
    with served(bucket) as running:
        yield running


@pytest.fixture(scope="module")
def client(catalog: unity.Catalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with reading(catalog, tmp_path_factory.mktemp("unity")) as client:
        yield client


def holds(client: Client, name: str, version: dict, suffix: str = "") -> None:
    """Whether a table has the rows that Spark reads."""
    assert [list(row.values()) for row in client.rows(checksum(name, version, suffix, "lake"))] == expected_of(version), name


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_read_with_keys_of_its_own(name: str, client: Client, catalog: unity.Catalog) -> None:
    asked = catalog.asked
    holds(client, name, TABLES[name]["now"])
    for version in TABLES[name]["versions"]:
        holds(client, name, version, f"@{version['id']}")
    # The first reader asks, whichever test it is of.
    assert catalog.asked <= asked + 1
    assert catalog.store.refused == 0


def test_the_listing(client: Client) -> None:
    names = "select schema_name from lake.information_schema.schemata where schema_name <> 'information_schema'"
    assert {row["schema_name"] for row in client.rows(names)} == {"main", "空"}
    listed = """select table_schema, table_name from lake.information_schema.tables
        where table_schema = '空' and table_name not like '%$%'"""
    assert {row["table_name"] for row in client.rows(listed)} == {"plain", "elsewhere"}


@pytest.mark.parametrize(
    ("table", "code", "why"),
    [
        ("text", grpc.StatusCode.UNIMPLEMENTED, "its format is CSV"),
        ("seen", grpc.StatusCode.UNIMPLEMENTED, "it is VIEW"),
        ("hidden", grpc.StatusCode.UNIMPLEMENTED, "hides a part of it"),
        ("elsewhere", grpc.StatusCode.PERMISSION_DENIED, f"which is not within {PLACE}"),
        ("nothing", grpc.StatusCode.NOT_FOUND, "does not exist"),
    ],
)
def test_what_is_not_read_is_refused_by_its_reason(table: str, code: grpc.StatusCode, why: str, client: Client) -> None:
    error = refused(client, f'select * from lake."空".{table}', 10)
    assert error.code() is code, error.details()
    assert why in error.details()


@pytest.mark.parametrize(
    "name", ['main."Delta_Plain"', '"Main".delta_plain', 'main."Delta_Plain@0"', '"MAIN"."delta_plain$files"']
)
def test_a_table_has_the_name_alone_that_is_listed(name: str, client: Client) -> None:
    """The server heeds no case, and rules of a policy do."""
    error = refused(client, f"select * from lake.{name}", 10)
    assert error.code() is grpc.StatusCode.NOT_FOUND, error.details()


def test_a_managed_table_and_its_history(client: Client) -> None:
    [count] = client.rows('select count(*) as n from lake."空".plain')
    assert str(count["n"]) == str(TABLES["delta_plain"]["now"]["rows"])
    history = client.rows('select version from lake."空"."plain$history"')
    assert len(history) == len(TABLES["delta_plain"]["versions"])


def test_keys_that_end_are_asked_for_again(bucket: s3.Bucket, tmp_path: Path) -> None:
    with served(bucket, key_life=2) as catalog, reading(catalog, tmp_path) as client:
        holds(client, "delta_dv", TABLES["delta_dv"]["now"])
        asked = catalog.asked
        assert eventually(catalog.store.all_ended, 10)
        holds(client, "delta_dv", TABLES["delta_dv"]["now"])
        assert catalog.asked > asked


def test_a_table_that_was_made_anew_is_read_with_new_keys(bucket: s3.Bucket, tmp_path: Path) -> None:
    """It is of another id, and the keys for the old one are given no more."""
    with served(bucket, key_life=2) as catalog, reading(catalog, tmp_path) as client:
        holds(client, "delta_dv", TABLES["delta_dv"]["now"])
        catalog.add("main", "delta_dv", f"{PLACE}/main/delta_dv")
        assert eventually(catalog.store.all_ended, 10)
        holds(client, "delta_dv", TABLES["delta_dv"]["now"])


def test_keys_that_are_configured_are_not_asked_for(bucket: s3.Bucket, tmp_path: Path) -> None:
    keys = {"endpoint": bucket.endpoint, "access_key_id": s3.KEY, "secret_access_key": s3.SECRET}
    with served(bucket) as catalog, reading(catalog, tmp_path, **keys) as client:
        holds(client, "delta_plain", TABLES["delta_plain"]["now"])
        assert catalog.asked == 0


def test_tables_of_a_folder(bucket: s3.Bucket, tmp_path: Path) -> None:
    nothing = {"endpoint": None, "region": None}
    with unity.catalog(bucket) as catalog, reading(catalog, tmp_path, location=str(lakes.folder()), **nothing) as client:
        for name in ("delta_plain", CLONED):
            catalog.add("main", name, f"file://{lakes.folder()}/delta/main/{name}")
            holds(client, name, TABLES[name]["now"])
        catalog.add("main", "out", f"file://{tmp_path}")
        error = refused(client, "select * from lake.main.out", 10)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error.details()


def test_a_token_that_is_wrong(bucket: s3.Bucket, tmp_path: Path) -> None:
    with served(bucket) as catalog, reading(catalog, tmp_path, token="canary-wrong") as client:
        error = refused(client, "select * from lake.main.delta_plain", 10)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error.details()
        assert "canary-" not in error.details()
        assert "check token" in error.details()
        assert client.rows("select 1 as v") == [{"v": 1}]


@pytest.mark.parametrize("fault", [vending.garbage, vending.endless], ids=lambda fault: fault.__name__)
def test_a_server_that_makes_no_sense(fault: Callable, bucket: s3.Bucket, tmp_path: Path) -> None:
    with served(bucket) as catalog, reading(catalog, tmp_path) as client:
        catalog.fault = fault
        error = refused(client, "select * from lake.main.delta_plain", 60)
        assert error.code() is grpc.StatusCode.DATA_LOSS, error.details()
        assert "catalogs.lake.uri" in error.details()
        catalog.fault = None
        holds(client, "delta_plain", TABLES["delta_plain"]["now"])
