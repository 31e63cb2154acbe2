"""What clients write into a catalog, in a folder and in a bucket, and how they do: shared by the tests of what arrives there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql

import s3
from gateway import Gateway, configured


@contextmanager
def place(where: str, folder: Path, catalog: str) -> Iterator[tuple[Gateway, Path]]:
    """A gateway with a catalog `lake` over an empty place, `folder` or `bucket`, and the folder where its files arrive.
    `catalog` is the section of the configuration, which says all but where."""
    if where == "folder":
        (folder / "data").mkdir()
        with configured(folder, f'{catalog}location = "{folder / "data"}"\n') as gateway:
            yield gateway, folder / "data"
        return
    with s3.server(folder / "root") as bucket:
        (bucket.root / "sales").mkdir()
        keys = f'access_key_id = "{s3.KEY}"\nsecret_access_key = "{s3.SECRET}"\n'
        place = f'location = "s3://sales/2024"\nendpoint = "{bucket.endpoint}"\nallow_http = true\nregion = "us-east-1"\n{keys}'
        with configured(folder, catalog + place) as gateway:
            yield gateway, bucket.root / "sales" / "2024"


@contextmanager
def connected(gateway: Gateway) -> Iterator[flightsql.Connection]:
    """A connection, after which the tables `t` and `u` are gone."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection:
        yield connection
        for table in ("t", "u"):
            execute(connection, f"drop table if exists {table}")


def execute(connection: flightsql.Connection, sql: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.rowcount


def fetch(connection: flightsql.Connection, sql: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def ingest(connection: flightsql.Connection, rows: object, mode: str) -> int:
    with connection.cursor() as cursor:
        return cursor.adbc_ingest("t", rows, mode=mode)
