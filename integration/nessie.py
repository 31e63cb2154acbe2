"""Nessie, whose Iceberg REST catalog shows the current snapshot of a table alone; its warehouse is a bucket, itself in memory.

It is there after 5 s, in 300 MiB.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import s3
from fetch import jar_folder
from servers import Server, free_port, java, says_ok

WAREHOUSE = "warehouse"


@contextmanager
def server(bucket: s3.Bucket, location: str) -> Iterator[Server]:
    """Serves until the block ends; its warehouse, called WAREHOUSE, is at a location `s3://…` of a server of buckets."""
    port, management = free_port(), free_port()
    uri = f"http://127.0.0.1:{port}/iceberg"
    store = "nessie.catalog.service.s3.default-options"
    settings = {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": port,
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": management,
        "nessie.version.store.type": "IN_MEMORY",
        "nessie.catalog.default-warehouse": WAREHOUSE,
        f"nessie.catalog.warehouses.{WAREHOUSE}.location": location,
        f"{store}.endpoint": bucket.endpoint,
        f"{store}.region": "us-east-1",
        f"{store}.path-style-access": "true",
        f"{store}.access-key": "urn:nessie-secret:quarkus:bucket",
        "bucket.name": s3.KEY,
        "bucket.secret": s3.SECRET,
    }
    [jar] = jar_folder("nessie").iterdir()
    command = java("25", *(f"-D{name}={value}" for name, value in settings.items()), "-jar", jar)

    def answers() -> bool:
        return says_ok(f"http://127.0.0.1:{port}/api/v2/trees/main") and says_ok(f"{uri}/v1/config?warehouse={WAREHOUSE}")

    with (
        tempfile.TemporaryDirectory(prefix="nessie-") as folder,
        Server("Nessie", uri, Path(folder), command, answers).running() as running,
    ):
        yield running
