"""Unity Catalog as its published OpenAPI has it, so far as tables are read: a stub, behind which is no real server.

The addresses and names are those of `api/all.yaml` of Unity Catalog OSS: `catalogs`, `schemas`, `tables` with pages, and
`temporary-table-credentials`.
"""

import json
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import s3
import vending

ROOT = "/api/2.1/unity-catalog/"
WAREHOUSE = "main"
# How many names are on a page.
PAGE = 2


class Catalog(ThreadingHTTPServer):
    """One catalog, which asks for a token, and gives keys of a store that end after so many seconds."""

    def __init__(self, store: vending.Store, key_life: float) -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        self.store, self.key_life = store, key_life
        self.token = f"canary-token-{secrets.token_hex(16)}"
        # By schema and name.
        self.tables: dict[tuple[str, str], dict] = {}
        # How often it was asked for keys.
        self.asked = 0
        # What it does instead of an answer, where something is wrong with it.
        self.fault: Callable[[vending.Handler], None] | None = None
        self.sent = 0
        self.over = threading.Event()

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, schema: str, name: str, location: str, **other: object) -> None:
        """A new table of Delta, unless it is said to be another; one of the same name is another table then."""
        names = {"name": name, "catalog_name": WAREHOUSE, "schema_name": schema, "table_id": str(uuid.uuid4())}
        kind = {"table_type": "EXTERNAL", "data_source_format": "DELTA", "columns": []}
        self.tables[schema, name] = {**names, **kind, "storage_location": location, **other}


class _Calls(vending.Handler):
    def do_GET(self) -> None:
        body, address = self.body(), urlsplit(self.path)
        query = dict(parse_qsl(address.query))
        parts = [unquote(part) for part in address.path.removeprefix(ROOT).split("/")]
        if self.server.fault:
            self.server.fault(self)
        elif self.headers.get("authorization") != f"Bearer {self.server.token}":
            self.refuse(401, "UNAUTHENTICATED", "the token is not known here")
        elif query.get("catalog_name", WAREHOUSE) != WAREHOUSE:
            self.refuse(404, "NOT_FOUND", "there is no such catalog")
        else:
            self.answer([self.command, *parts], query, body)

    do_POST = do_GET

    def answer(self, asked: list[str], query: dict[str, str], body: bytes) -> None:
        tables = self.server.tables
        match asked:
            case ["GET", "catalogs", name] if name == WAREHOUSE:
                self.json(200, {"name": name})
            case ["GET", "schemas"]:
                schemas = sorted({schema for schema, _ in tables})
                self.page("schemas", [{"name": name, "catalog_name": WAREHOUSE} for name in schemas], query)
            case ["GET", "tables"] if found := self.known(schema=query["schema_name"]):
                self.page("tables", found, query)
            case ["GET", "tables", name] if found := self.known(*name.split(".")[1:]):
                self.json(200, found[0])
            case ["POST", "temporary-table-credentials"]:
                self.give_key(json.loads(body))
            case _:
                self.refuse(404, "NOT_FOUND", "there is nothing of this name")

    def known(self, schema: str, name: str | None = None) -> list[dict]:
        """The tables of a schema, or the one of a name; case is not heeded."""
        tables = [table for (of, _), table in self.server.tables.items() if of.casefold() == schema.casefold()]
        return [table for table in tables if name is None or table["name"].casefold() == name.casefold()]

    def page(self, name: str, listed: list[dict], query: dict[str, str]) -> None:
        """A part of a list; 0 results are as many as the server likes."""
        most = int(query["max_results"]) or PAGE
        start = int(query.get("page_token", 0))
        end = start + min(most, PAGE)
        more = {"next_page_token": str(end)} if end < len(listed) else {}
        self.json(200, {name: listed[start:end], **more})

    def give_key(self, wanted: dict[str, str]) -> None:
        """A new key of the store, for who reads a table."""
        self.server.asked += 1
        known = {table["table_id"] for table in self.server.tables.values()}
        if wanted["operation"] != "READ" or wanted["table_id"] not in known:
            self.refuse(404, "TABLE_NOT_FOUND", "there is no table of this id")
            return
        key = self.server.store.vended(self.server.key_life)
        names = ("access_key_id", "secret_access_key", "session_token")
        credentials = {name: key[f"s3.{name.replace('_', '-')}"] for name in names}
        ends = int(key["s3.session-token-expires-at-ms"])
        self.json(200, {"aws_temp_credentials": credentials, "expiration_time": ends})

    def refuse(self, status: int, code: str, message: str) -> None:
        self.json(status, {"error_code": code, "message": message, "details": []})


@contextmanager
def catalog(bucket: s3.Bucket, key_life: float = 600) -> Iterator[Catalog]:
    """Serves a catalog without tables, and its store in front of a bucket's, until the block ends."""
    with vending.Store(bucket) as store, Catalog(store, key_life) as catalog, vending.serving(store, catalog):
        yield catalog
