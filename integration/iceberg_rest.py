"""Iceberg's own REST catalog server over a PostgreSQL database: it has all snapshots of its tables, and asks nobody who he is.

It writes metadata files as files: those of `s3://BUCKET/KEY` to the folder that an S3 server shows. It is there after
2 s, in 180 MiB.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import postgres
from fetch import HERE, jar_folder
from postgres import Database
from servers import Server, free_port, java, says_ok


@contextmanager
def server(database: Database, name: str, warehouse: str, root: Path) -> Iterator[Server]:
    """Serves until the block ends; `name` is that of the catalog in the database, `root` the folder with the buckets."""
    port = free_port()
    address = f"jdbc:postgresql://127.0.0.1:{database.port}/postgres"
    # Java compiles the one file by itself.
    program = ["-cp", f"{jar_folder('iceberg_rest')}/*", HERE / "iceberg_rest" / "Serve.java"]
    command = java("17", *program, port, name, address, postgres.USER, warehouse, root)
    with tempfile.TemporaryDirectory(prefix="iceberg-rest-") as folder:
        uri, secrets = f"http://127.0.0.1:{port}", {"PASSWORD": postgres.PASSWORD}
        # It reads the database for this.
        answers = partial(says_ok, f"{uri}/v1/namespaces")
        with Server("Iceberg's REST server", uri, Path(folder), command, answers, secrets).running() as running:
            yield running
