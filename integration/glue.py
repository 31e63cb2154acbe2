"""What the API reference of AWS Glue says of databases and tables, so far as Iceberg's are read and written: a stub, behind which
is no real server. Who asks is not looked at.

Each change of a table makes another version of it, and is refused where it names an older one.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import vending


class Catalog(ThreadingHTTPServer):
    """The tables of one account."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        # By schema and name, as Glue tells of them.
        self.tables: dict[tuple[str, str], dict] = {}
        self.changing = threading.Lock()
        # What it does instead of an answer, where something is wrong with it.
        self.fault: Callable[[vending.Handler], None] | None = None

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, schema: str, name: str, metadata: str) -> None:
        """A new table of Iceberg, of which Glue knows more than the gateway does."""
        parameters = {"table_type": "ICEBERG", "metadata_location": metadata, "made_by": "the test"}
        storage = {"Location": metadata.rpartition("/metadata/")[0], "Columns": [{"Name": "id", "Type": "bigint"}]}
        said = {"CreateTime": 1.7e9, "CreatedBy": "the test", "VersionId": "0"}
        names = {"Name": name, "DatabaseName": schema, "TableType": "EXTERNAL_TABLE", "Owner": "me"}
        self.tables[schema, name] = {**names, **said, "StorageDescriptor": storage, "Parameters": parameters}

    def table(self, schema: str, name: str) -> dict:
        """A table as it is now."""
        return self.tables[schema, name]


class _Calls(vending.Handler):
    def do_POST(self) -> None:
        asked, tables = json.loads(self.body()), self.server.tables
        if self.server.fault:
            self.server.fault(self)
            return
        schema, wanted = asked.get("DatabaseName"), asked.get("TableInput", asked).get("Name")
        match self.headers["x-amz-target"].removeprefix("AWSGlue."):
            case "GetDatabases":
                self.json(200, {"DatabaseList": [{"Name": name} for name in sorted({schema for schema, _ in tables})]})
            case "GetTables":
                self.json(200, {"TableList": [table for (of, _), table in sorted(tables.items()) if of == schema]})
            case "GetTable" if (schema, wanted) in tables:
                self.json(200, {"Table": tables[schema, wanted]})
            case "UpdateTable" if (schema, wanted) in tables:
                with self.server.changing:
                    self.update(tables, (schema, wanted), asked)
            case _:
                self.refuse("EntityNotFoundException")

    def update(self, tables: dict[tuple[str, str], dict], key: tuple[str, str], asked: dict) -> None:
        before = tables[key]
        if asked["VersionId"] != before["VersionId"]:
            self.refuse("ConcurrentModificationException")
            return
        said = {name: before[name] for name in ("DatabaseName", "CreateTime", "CreatedBy")}
        tables[key] = {**said, **asked["TableInput"], "VersionId": str(int(before["VersionId"]) + 1)}
        self.json(200, {})

    def refuse(self, kind: str) -> None:
        self.json(400, {"__type": kind, "Message": "it is not as you say"})


@contextmanager
def catalog() -> Iterator[Catalog]:
    """Serves a catalog without tables until the block ends."""
    with Catalog() as catalog:
        threading.Thread(target=catalog.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield catalog
        finally:
            catalog.shutdown()
