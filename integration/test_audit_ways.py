"""What is on record: of each way in, of what is refused before it runs, and without values where they are left out."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import datafusion
import grpc
import pyarrow as pa
import pytest
import requests
from datafusion import substrait as producer

from gateway import Gateway, configured, eventually, users
from test_audit import TEXT, files, records
from wire import (
    SERVICE,
    Client,
    bound,
    descriptor,
    field,
    first,
    ingest,
    packed,
    parse,
    prepared,
    statement,
    substrait,
    text,
)


@dataclass
class Manned:
    """A gateway with users and a trail, and a client of each of them."""

    gateway: Gateway
    folder: Path
    ann: Client
    bob: Client

    def http(self, sql: str) -> requests.Response:
        """A statement of ann over HTTP."""
        return self.post("/v1/sql", data=sql.encode())

    def post(self, page: str, headers: dict[str, str] | None = None, **body: object) -> requests.Response:
        """A request of ann to a page."""
        headers = dict(self.ann.headers) | (headers or {})
        return requests.post(f"{self.gateway.url}{page}", headers=headers, timeout=30, **body)

    def recorded(self, work: Callable[["Manned"], None]) -> tuple[list[dict], list[dict], float]:
        """The records that something leaves: the starts, and their ends in the same order, one each; and how long it took."""
        before, began = len(records(self.folder)), time.monotonic()
        work(self)

        def found() -> list[dict]:
            return [record for record in records(self.folder)[before:] if record["event"] != "opened"]

        def is_whole() -> bool:
            events = Counter((record["query"], record["event"]) for record in found())
            starts = {query for query, event in events if event == "start"}
            return bool(starts) and starts == {query for query, event in events if event == "end"}

        assert eventually(is_whole, 5), found()
        took = (time.monotonic() - began) * 1000
        starts = [record for record in found() if record["event"] == "start"]
        ends = {record["query"]: record for record in found() if record["event"] == "end"}
        assert len(found()) == 2 * len(ends) == 2 * len(starts), found()
        return starts, [ends[start["query"]] for start in starts], took


@pytest.fixture(scope="module")
def manned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manned]:
    folder = tmp_path_factory.mktemp("manned")
    with (
        configured(folder, TEXT + users("ann", "bob"), replicas=1) as gateway,
        Client(gateway.flight, "ann", "ann") as ann,
        Client(gateway.flight, "bob", "bob") as bob,
    ):
        for client in (ann, bob):
            client.headers = [("authorization", client.handshake())]
        ann.update("create table goods as select 1::bigint as id, 'tea' as name")
        yield Manned(gateway, folder, ann, bob)


GOODS = "shop.main.goods"
HERE = {"outcome": "finished", "route": "datafusion", "cache": "bypass", "reads": {}, "rows": 1}
# What runs past the query path has no plan.
PAST = {"outcome": "finished", "route": "", "cache": "none", "reads": {}, "rows": 0}


def of_goods(sql: str) -> bytes:
    """A Substrait plan of a statement over the table."""
    context = datafusion.SessionContext()
    context.sql("create table goods (id bigint, name varchar)").collect()
    return producer.Serde.serialize_bytes(sql, context)


def update_prepared(manned: Manned) -> None:
    handle = manned.ann.prepare("insert into goods values ($1, $2)")
    manned.ann.put(bound("CommandPreparedStatementUpdate", handle, **{"1": 7, "2": "mate"}))


def by_call(manned: Manned) -> None:
    transaction = manned.ann.begin()
    savepoint = manned.ann.savepoint(transaction, "here")
    manned.ann.update("insert into goods values (8, 'x')", transaction)
    manned.ann.end_savepoint(savepoint, releases=False)
    manned.ann.end_savepoint(manned.ann.savepoint(transaction), releases=True)
    manned.ann.end(transaction)
    manned.ann.end(manned.ann.begin(), commits=False)


def by_end_of_session(manned: Manned) -> None:
    with Client(manned.gateway.flight, authorization=dict(manned.ann.headers)["authorization"]) as client:
        client.session()
        client.update("insert into goods values (9, 'x')", client.begin())
        client.action("CloseSession", b"")


BY_SQL = ["begin", "savepoint s", "rollback to savepoint s", "release savepoint s", "commit"]


def by_sql(manned: Manned) -> None:
    with Client(manned.gateway.flight, authorization=dict(manned.ann.headers)["authorization"]) as client:
        client.session()
        for sql in BY_SQL:
            [cookie] = [value for name, value in client.headers if name == "cookie"]
            message = field(1, descriptor(packed("CommandStatementUpdate", text(sql))))
            call = client.channel.stream_stream(SERVICE + "DoPut")(iter([message]), metadata=client.headers, timeout=30)
            list(call)
            kept = dict(call.initial_metadata()).get("set-cookie", cookie).split(";")[0]
            client.headers = [header for header in client.headers if header[0] != "cookie"] + [("cookie", kept)]


def slowly(manned: Manned) -> None:
    stream = manned.ann.get(manned.ann.info(statement(LONG)).tickets[0])
    next(stream)
    time.sleep(0.3)
    list(stream)


LONG = "select value, repeat('x', 100) as filler from generate_series(1, 100000)"
READ = "select id, name from goods where id = 1"
# What is done, and of each statement in it what is on record.
WAYS: dict[str, tuple[Callable[[Manned], object], list[dict]]] = {
    "a query": (
        lambda manned: manned.ann.rows(READ),
        [HERE | {"statement": READ, "cache": "miss", "reads": {GOODS: ["id", "name"]}}],
    ),
    "a query again": (
        lambda manned: manned.ann.rows(READ),
        [HERE | {"statement": READ, "cache": "hit", "route": "cache", "reads": {GOODS: ["id", "name"]}}],
    ),
    "a query that writes": (
        lambda manned: manned.ann.rows("insert into goods values (2, 'coffee')"),
        [HERE | {"statement": "insert into goods values (2, 'coffee')", "writes": GOODS}],
    ),
    "a prepared query": (
        lambda manned: manned.ann.run(
            prepared(manned.ann.bind(manned.ann.prepare("select name from goods where id = $1"), **{"1": 1}))
        ),
        [HERE | {"statement": "select name from goods where id = $1", "cache": "miss", "reads": {GOODS: ["id", "name"]}}],
    ),
    "a prepared update": (update_prepared, [HERE | {"statement": "insert into goods values ($1, $2)", "writes": GOODS}]),
    "an update": (
        lambda manned: manned.ann.update("update goods set name = 'x' where id = 2"),
        [HERE | {"statement": "update goods set name = 'x' where id = 2", "reads": {GOODS: ["id", "name"]}, "writes": GOODS}],
    ),
    "ingest": (
        lambda manned: manned.ann.put(ingest("goods", pa.RecordBatch.from_pylist([{"id": 3, "name": "maté"}]))),
        [HERE | {"statement": 'INGEST INTO "shop"."main"."goods"', "writes": GOODS}],
    ),
    "Substrait": (
        lambda manned: manned.ann.run(substrait(of_goods("select name from goods where id = 1"))),
        [HERE | {"statement": "SUBSTRAIT PLAN OF goods", "cache": "miss", "reads": {GOODS: ["id", "name"]}}],
    ),
    "EXPLAIN": (
        lambda manned: manned.ann.rows(f"explain {READ}"),
        [HERE | {"statement": f"explain {READ}", "reads": {GOODS: ["id", "name"]}, "rows": None}],
    ),
    "EXPLAIN ANALYZE": (
        lambda manned: manned.ann.rows(f"explain analyze {READ}"),
        [HERE | {"statement": f"explain analyze {READ}", "reads": {GOODS: ["id", "name"]}, "rows": None}],
    ),
    "a transaction by calls": (
        by_call,
        [PAST | {"statement": name} for name in ("BEGIN", "SAVEPOINT")]
        + [HERE | {"statement": "insert into goods values (8, 'x')", "writes": GOODS}]
        + [PAST | {"statement": name} for name in ("ROLLBACK TO SAVEPOINT", "SAVEPOINT", "RELEASE SAVEPOINT", "COMMIT")]
        + [PAST | {"statement": name} for name in ("BEGIN", "ROLLBACK")],
    ),
    "a transaction whose session ends": (
        by_end_of_session,
        [PAST | {"statement": "BEGIN"}]
        + [HERE | {"statement": "insert into goods values (9, 'x')", "writes": GOODS}]
        + [PAST | {"statement": "ROLLBACK"}],
    ),
    "a transaction by SQL": (by_sql, [PAST | {"statement": sql} for sql in BY_SQL]),
    "HTTP": (
        lambda manned: manned.http("select name from goods"),
        [HERE | {"statement": "select name from goods", "cache": "miss", "reads": {GOODS: ["name"]}, "rows": None}],
    ),
    "HTTP, by the page of the cache": (
        lambda manned: manned.post("/v1/cache/invalidate", json={"table": GOODS}),
        [HERE | {"statement": f"CALL system.invalidate('{GOODS}')", "route": ""}],
    ),
    "a slow reader": (slowly, [HERE | {"statement": LONG, "rows": 100_000}]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_is_on_record(way: str, manned: Manned) -> None:
    work, wanted = WAYS[way]
    starts, ends, took = manned.recorded(work)
    assert [start["statement"] for start in starts] == [each["statement"] for each in wanted]
    over = "http" if way.startswith("HTTP") else "flight"
    for start, end, want in zip(starts, ends, wanted, strict=True):
        assert (start["principal"], end["principal"], start["protocol"]) == ("ann", "ann", over)
        assert start["address"].startswith("127.0.0.1:")
        assert ("requests" if over == "http" else "grpc") in start["agent"]
        assert start["session"]
        wanted_of_end = {key: value for key, value in want.items() if key != "statement" and value is not None}
        assert {key: end.get(key) for key in wanted_of_end} == wanted_of_end, end
        assert (end.get("writes"), end.get("error")) == (want.get("writes"), None), end
        assert end["rows"] > 0 or want["rows"] == 0, end
        assert (end["bytes"] > 0) == (end["rows"] > 0), end
        # By the clock of the records too, to which the writing of them is added.
        apart = (datetime.fromisoformat(end["at"]) - datetime.fromisoformat(start["at"])).total_seconds() * 1000
        assert 0 <= end["milliseconds"] <= min(took, apart) + 1, (end, took, apart)
        assert way != "a slow reader" or end["milliseconds"] >= 300


def foreign_ticket(manned: Manned) -> Callable[[], object]:
    ticket = manned.ann.info(statement(READ)).tickets[0]
    return lambda: list(manned.bob.get(ticket))


def cancelled_ticket(manned: Manned) -> Callable[[], object]:
    info = manned.bob.unary(SERVICE + "GetFlightInfo", descriptor(statement("select id from goods where id = 77")))
    manned.bob.action("CancelFlightInfo", field(1, info))
    ticket = first(parse(first(parse(first(parse(info), 3)), 1)), 1)
    return lambda: list(manned.bob.get(ticket))


def foreign_handle(manned: Manned) -> Callable[[], object]:
    handle = manned.ann.prepare(READ)
    return lambda: manned.bob.info(prepared(handle))


def foreign_handle_that_is_put(manned: Manned) -> Callable[[], object]:
    handle = manned.ann.prepare("insert into goods values ($1, 'x')")
    return lambda: manned.bob.put(bound("CommandPreparedStatementUpdate", handle, a=1))


def session(manned: Manned, is_closed: bool) -> Callable[[], object]:
    """Of bob himself and closed, or of ann."""
    of = dict((manned.bob if is_closed else manned.ann).headers)["authorization"]
    with Client(manned.gateway.flight, authorization=of) as client:
        cookie = client.session(catalog="shop")
        if is_closed:
            client.action("CloseSession", b"")

    def use() -> None:
        with Client(manned.gateway.flight, authorization=dict(manned.bob.headers)["authorization"], cookie=cookie) as client:
            client.rows(READ)

    return use


def foreign_transaction(manned: Manned) -> Callable[[], object]:
    transaction = manned.ann.begin()
    return lambda: manned.bob.rows(READ, transaction=transaction)


def broken(of_rows: bool) -> list[bytes]:
    """Messages for a table whose columns, or whose rows, are none."""
    head, rows = ingest("goods", pa.RecordBatch.from_pylist([{"id": 1, "name": "x"}]))
    if of_rows:
        return [head, field(2, first(parse(rows), 2))]
    return [field(1, first(parse(head), 1)) + field(2, b"\xff" * 64), rows]


REFUSED: dict[str, Callable[[Manned], Callable[[], object]]] = {
    "a foreign ticket": foreign_ticket,
    "a cancelled ticket": cancelled_ticket,
    "a ticket that is none": lambda manned: lambda: list(manned.bob.get(packed("TicketStatementQuery", field(1, b"x" * 60)))),
    "a foreign prepared statement": foreign_handle,
    "a foreign prepared statement that is put": foreign_handle_that_is_put,
    "a foreign session": lambda manned: session(manned, is_closed=False),
    "a closed session": lambda manned: session(manned, is_closed=True),
    "a foreign transaction": foreign_transaction,
    "an update that writes nothing": lambda manned: lambda: manned.bob.update(READ),
    "ingest of columns that do not decode": lambda manned: lambda: manned.bob.put(broken(of_rows=False)),
    "ingest of rows that do not decode": lambda manned: lambda: manned.bob.put(broken(of_rows=True)),
}
KINDS = {
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.INVALID_ARGUMENT: "invalid",
    grpc.StatusCode.FAILED_PRECONDITION: "precondition",
    grpc.StatusCode.CANCELLED: "cancelled",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_before_it_runs_is_on_record(what: str, manned: Manned) -> None:
    use, codes = REFUSED[what](manned), []

    def refused(_: Manned) -> None:
        with pytest.raises(grpc.RpcError) as error:
            use()
        codes.append(error.value.code())

    [start], [end], _ = manned.recorded(refused)
    assert (start["principal"], end["principal"], start["protocol"]) == ("bob", "bob", "flight")
    assert start["address"].startswith("127.0.0.1:")
    assert end["outcome"] == KINDS[codes[0]], end
    assert end["error"]
    assert (end["rows"], end["bytes"]) == (0, 0)
    # Rows come when it has begun.
    assert "of rows" in what or (end["route"], end["reads"], end.get("writes")) == ("", {}, None)


OF_OTHERS, INVALIDATE = {"origin": "https://elsewhere.example"}, "/v1/cache/invalidate"
# Requests of which no statement is made, and the kind of what is said of them.
REQUESTS: dict[str, tuple[str, Callable[[Manned], requests.Response]]] = {
    "of a page of others": ("denied", lambda manned: manned.post("/v1/sql", OF_OTHERS, data=READ)),
    "of a page of others, about the cache": ("denied", lambda manned: manned.post(INVALIDATE, OF_OTHERS, json={"table": GOODS})),
    "with no table and no tag": ("invalid", lambda manned: manned.post(INVALIDATE, json={})),
    "for rows in an unknown form": ("invalid", lambda manned: manned.post("/v1/sql", {"accept": "image/png"}, data=READ)),
    "about the cache by a header that does not fit": (
        "invalid",
        lambda manned: manned.post(INVALIDATE, {"cache-control": "max-age=soon"}, json={"table": GOODS}),
    ),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_request_that_is_no_statement_is_on_record(what: str, manned: Manned) -> None:
    (kind, use), told = REQUESTS[what], []
    [start], [end], _ = manned.recorded(lambda manned: told.append(use(manned).json()["error"]["kind"]))
    assert (start["principal"], start["protocol"], start["statement"]) == ("ann", "http", "(a request)")
    assert ("requests" in start["agent"], start["address"].startswith("127.0.0.1:")) == (True, True)
    assert (told, end["outcome"], end["route"], end["reads"]) == ([kind], kind, "", {})
    assert end["error"]


# A value that is nowhere to be seen, in a number too, and statements that quote it, end in an error that does, or read it.
VALUE, NUMBER = "canary-1f6a", "8271946355"
QUOTING = [
    f"select '{VALUE}' as v, {NUMBER} as n -- {VALUE}",
    f"select /* {VALUE} */ id from goods where name = $${VALUE}$$ or name = E'{VALUE}\\n' or id = {NUMBER}",
    f"insert into goods values ({NUMBER}, '{VALUE}')",
    f"update goods set name = '{VALUE}' where id = {NUMBER}",
    f"explain select * from goods where name = '{VALUE}'",
    f"explain analyze select * from goods where name like '%{VALUE}%'",
    f"select cast('{VALUE}' as int)",
    "select cast(name as int) from goods",
    f"select cast('{VALUE}' as date) from goods",
    f"select to_timestamp('{VALUE}')",
    f"select regexp_like(name, '({VALUE}') from goods",
    f"select cast({NUMBER} as smallint)",
    f"select interval '{VALUE}'",
    f"select arrow_cast(1, '{VALUE}')",
    f"select date_trunc('{VALUE}', now())",
    f"select id from goods limit '{VALUE}'",
    f"select nothing from goods where name = '{VALUE}'",
    f"select '{VALUE}",
    f"select '{VALUE}' '{VALUE}' )",
    f"selekt '{VALUE}'",
    f"select 1; select '{VALUE}'",
    f"copy goods to '{VALUE}'",
    f"set datafusion.execution.batch_size = '{VALUE}'",
    f"select * from generate_series(1, 2, '{VALUE}')",
    f"select * from '{VALUE}'",
    f"begin -- {VALUE}",
    "select count(amount) from lake.main.sums",
]


@pytest.mark.parametrize("level", ["info", "trace"])
def test_no_value_is_on_record_where_it_is_left_out(level: str, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "sums.csv").write_text("amount\n" + "1\n" * 200_000 + VALUE + "\n")
    more = f'[log]\nlevel = "{level}"\n[catalogs.lake]\nkind = "files"\nlocation = "lake"\n' + users("ann", "bob")
    text = TEXT.replace("[audit]", "[audit]\nredact = true")
    with (
        configured(tmp_path, text + more, replicas=1) as gateway,
        Client(gateway.flight, "ann", "ann") as ann,
        Client(gateway.flight, "bob", "bob") as bob,
    ):
        failed = Counter()
        ann.update("create table goods (id bigint, name varchar)")
        ann.put(ingest("goods", pa.RecordBatch.from_pylist([{"id": int(NUMBER), "name": VALUE}])))
        values = {"1": VALUE, "2": int(NUMBER)}
        ann.run(prepared(ann.bind(ann.prepare("select id from goods where name = $1 and id = $2"), **values)))
        for put in (
            # Of a type that the column does not take, and a text that is none of its numbers.
            bound("CommandPreparedStatementUpdate", ann.prepare("insert into goods values (cast($1 as bigint), $2)"), **values),
            ingest("goods", pa.RecordBatch.from_pylist([{"id": VALUE, "name": NUMBER}])),
        ):
            with pytest.raises(grpc.RpcError):
                ann.put(put)
        for sql in QUOTING:
            answer = requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), auth=("ann", "ann"), timeout=30)
            failed["HTTP"] += answer.status_code >= 400 and VALUE in answer.text
            try:
                ann.rows(sql)
            except grpc.RpcError as error:
                failed["Flight"] += VALUE in error.details()
            # Most of them write nothing, and are refused for that.
            with contextlib.suppress(grpc.RpcError):
                ann.update(sql)
        for use in (
            lambda: list(bob.get(ann.info(statement(QUOTING[0])).tickets[0])),
            lambda: bob.info(prepared(ann.prepare(QUOTING[0]))),
        ):
            with pytest.raises(grpc.RpcError, match="made for another user"):
                use()
        with contextlib.suppress(grpc.RpcError):
            ann.run(substrait(of_goods(f"select cast(name as int) from goods where name = '{VALUE}'")))
        # Who asks is told.
        assert min(failed["HTTP"], failed["Flight"]) >= 8, failed
        kept = ann.rows("select * from system.queries")
        assert len(kept) >= 2 * len(QUOTING)
        log = gateway.logged()
    trail = "".join(file.read_text() for file in files(tmp_path))
    assert trail.count('"event":"end"') >= 3 * len(QUOTING)
    for place, said in (("the trail", trail), ("system.queries", str(kept)), ("the log", log)):
        for value in (VALUE, NUMBER):
            at = said.find(value)
            assert at < 0, f"{place}: {said[max(at - 400, 0) : at + 40]}"
