"""A Hive Metastore over a database, and pyiceberg as its writer. It is there after 5 s, in 220 MiB."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyiceberg.catalog.hive as hive
import pytest
from hive_metastore.ttypes import GetTableRequest

import postgres
from fetch import HERE, jar_folder
from postgres import Database
from servers import Server, free_port, java

PROPERTY = "<property><name>{}</name><value>{}</value></property>"
OPENS = ("java.base/java.lang", "java.base/java.net", "java.base/java.util")
# A call of Thrift in its strict binary protocol: version and kind, name, sequence, and the end of its fields. It has none.
NAME = b"get_all_databases"
CALL = b"\x80\x01\x00\x01" + len(NAME).to_bytes(4, "big") + NAME + bytes(4) + b"\x00"
REPLY = b"\x80\x01\x00\x02"
# How pyiceberg waits for the lock of a table: not for seconds, since those who come later wait for it too.
PATIENCE = {"lock-check-min-wait-time": "0.05", "lock-check-max-wait-time": "0.2", "lock-check-retries": "200"}


@contextmanager
def server(warehouse: Path, database: Database | None = None) -> Iterator[Server]:
    """Serves until the block ends; tables without a place of their own are in the folder. What it knows is in a Derby of its own,
    or in a database, as it has to be where more than one writes: over Derby a call of Hive 4.0 for a lock holds what another
    waits for, and waits for that one to be over."""
    port = free_port()
    if database:
        database.sql("create database metastore")
    with tempfile.TemporaryDirectory(prefix="metastore-") as name:
        folder = Path(name)
        keeps = {"URL": f"jdbc:derby:;databaseName={folder}/database;create=true", "UserName": "APP", "Password": "mine"}
        keeps["DriverName"] = "org.apache.derby.jdbc.EmbeddedDriver"
        if database:
            keeps = {"URL": f"jdbc:postgresql://127.0.0.1:{database.port}/metastore", "UserName": postgres.USER}
            keeps |= {"Password": postgres.PASSWORD, "DriverName": "org.postgresql.Driver"}
        settings = {
            "metastore.thrift.port": port,
            "metastore.thrift.bind.host": "127.0.0.1",
            "metastore.warehouse.dir": f"file://{warehouse}",
            **{f"javax.jdo.option.Connection{name}": value for name, value in keeps.items()},
            # Of each of several pools.
            "datanucleus.connectionPool.maxPoolSize": "4",
            "datanucleus.schema.autoCreateAll": "true",
            "metastore.schema.verification": "false",
            # Those by default are in jars of Hive that are not here.
            "metastore.expression.proxy": "org.apache.hadoop.hive.metastore.DefaultPartitionExpressionProxy",
            "metastore.task.threads.always": "org.apache.hadoop.hive.metastore.events.EventCleanerTask",
            "metastore.task.threads.remote": "",
            "metastore.compactor.initiator.on": "false",
        }
        properties = "".join(PROPERTY.format(*setting) for setting in settings.items())
        (folder / "metastore-site.xml").write_text(f"<configuration>{properties}</configuration>")
        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENS]
        # Java compiles the one file by itself.
        driver = next(jar_folder("iceberg_rest").glob("postgresql-*.jar"))
        program = ["-cp", f"{folder}:{jar_folder('metastore')}/*:{driver}"]
        program += [HERE / "metastore" / "Serve.java", keeps["URL"], keeps["UserName"], keeps["Password"]]
        command = java("17", *opened, *program)
        with Server("the metastore", f"thrift://127.0.0.1:{port}", folder, command, partial(answers, port)).running() as running:
            yield running


def answers(port: int) -> bool:
    """Whether a metastore lists its databases."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(CALL)
            return connection.recv(len(REPLY), socket.MSG_WAITALL) == REPLY
    except OSError:
        return False


class _Client(hive.Client):
    """Pyiceberg's own, which asks for tables by a call that Hive 4 has no more."""

    def get_table(self, dbname: str, tbl_name: str) -> object:
        return self.get_table_req(GetTableRequest(dbName=dbname, tblName=tbl_name)).table


@contextmanager
def catalog(metastore: Server, warehouse: str, **properties: str) -> Iterator[hive.HiveCatalog]:
    """A catalog of pyiceberg that writes to a metastore, until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hive, "Client", _Client)
        yield hive.HiveCatalog("hive", uri=metastore.uri, warehouse=warehouse, **PATIENCE, **properties)
