"""The audit trail: what each statement leaves in it, that nothing in it can be changed unseen, and what a kill leaves of it."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import datafusion
import grpc
import pyarrow as pa
import pytest
import requests
from datafusion import substrait as producer

from gateway import BINARY, Gateway, configured, eventually, nexus, users
from wire import SERVICE, Client, bound, descriptor, field, ingest, packed, prepared, statement, substrait, text

SOAK = os.environ.get("NEXUS_TPCH_SCALE") == "1"
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
TEXT = f"""
[audit]
folder = "trail"
key = "{KEY}"
rotate = "64KiB"
keep = 100000
[catalogs.frozen]
kind = "memory"
[catalogs.shop]
kind = "memory"
writable = true
[defaults]
catalog = "shop"
"""


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with a trail of its own."""
    with configured(tmp_path, TEXT, replicas=1) as gateway:
        yield gateway


def files(folder: Path) -> list[Path]:
    """The files of a trail, the first first."""
    return sorted((folder / "trail").glob("audit-*.jsonl"))


def records(folder: Path) -> list[dict]:
    """All records of a trail, in order."""
    return [json.loads(line) for file in files(folder) for line in file.read_text().splitlines()]


def asked(gateway: Gateway, sql: str) -> requests.Response:
    """A statement over HTTP."""
    return requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), timeout=30)


def verified(folder: Path, *more: str) -> subprocess.CompletedProcess:
    """What the gateway's own command says of a trail."""
    return nexus("audit", "verify", "--config", folder / "nexus.toml", *more)


def test_each_statement_has_a_start_and_an_end(audited: Gateway, tmp_path: Path) -> None:
    made = "create table goods as select 1 as id, 'tea' as name, 2.5 as price"
    read = "select name from goods where id = 1"
    wrong, denied = "select nothing from goods", "create table frozen.main.x as select 1 as a"
    assert asked(audited, made).status_code == 200
    with flightsql.connect(audited.uri, autocommit=True) as connection, connection.cursor() as cursor:
        for _ in range(2):
            cursor.execute(read)
            assert cursor.fetchall() == [("tea",)]
    for sql in (wrong, denied):
        assert asked(audited, sql).status_code >= 400
    # A reader that goes away.
    with Client(audited.flight) as client:
        endless = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
        stream = client.get(client.info(statement(endless)).tickets[0])
        next(stream)
        stream.cancel()
    deadline = time.monotonic() + 10
    while sum(record["event"] == "end" for record in records(tmp_path)) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    found = records(tmp_path)
    assert [record["index"] for record in found] == list(range(len(found)))
    starts = {record["query"]: record for record in found if record["event"] == "start"}
    ends = {record["query"]: record for record in found if record["event"] == "end"}
    assert starts.keys() == ends.keys()
    assert len(starts) == sum(record["event"] == "start" for record in found) == sum(record["event"] == "end" for record in found)

    def told(sql: str) -> list[dict]:
        return [ends[query] for query, start in starts.items() if start["statement"] == sql]

    [write] = told(made)
    assert (write["outcome"], write["writes"], write["reads"], write["route"]) == (
        "finished",
        "shop.main.goods",
        {},
        "datafusion",
    )
    miss, hit = told(read)
    assert (miss["cache"], miss["route"], hit["cache"], hit["route"]) == ("miss", "datafusion", "hit", "cache")
    assert miss["reads"] == hit["reads"] == {"shop.main.goods": ["id", "name"]}
    assert (miss["rows"], hit["rows"]) == (1, 1)
    assert [end["outcome"] for sql in (wrong, denied, endless) for end in told(sql)] == ["invalid", "denied", "cancelled"]
    assert 'column "nothing" does not exist' in told(wrong)[0]["error"]
    [by_adbc, _] = [start for start in starts.values() if start["statement"] == read]
    assert by_adbc["protocol"] == "flight"
    assert "ADBC" in by_adbc["agent"]
    assert by_adbc["address"].startswith("127.0.0.1:")
    assert verified(tmp_path).stdout.startswith("records 0 to ")


@dataclass
class Manned:
    """A gateway with users and a trail, and a client of each of them."""

    gateway: Gateway
    folder: Path
    ann: Client
    bob: Client

    def http(self, sql: str) -> requests.Response:
        """A statement of ann over HTTP."""
        headers = dict(self.ann.headers)
        return requests.post(f"{self.gateway.url}/v1/sql", data=sql.encode(), headers=headers, timeout=30)

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
        [HERE | {"statement": 'INGEST INTO "shop"."main"."goods"', "reads": None, "writes": GOODS}],
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
    "a transaction by SQL": (by_sql, [PAST | {"statement": sql} for sql in BY_SQL]),
    "HTTP": (
        lambda manned: manned.http("select name from goods"),
        [HERE | {"statement": "select name from goods", "cache": "miss", "reads": {GOODS: ["name"]}, "rows": None}],
    ),
    "a slow reader": (slowly, [HERE | {"statement": LONG, "reads": None, "rows": 100_000}]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_is_on_record(way: str, manned: Manned) -> None:
    work, wanted = WAYS[way]
    starts, ends, took = manned.recorded(work)
    assert [start["statement"] for start in starts] == [each["statement"] for each in wanted]
    over = "http" if way == "HTTP" else "flight"
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


def test_no_value_is_on_record_where_it_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "sums.csv").write_text("amount\n" + "1\n" * 200_000 + VALUE + "\n")
    more = '[catalogs.lake]\nkind = "files"\nlocation = "lake"\n' + users("ann")
    text = TEXT.replace("[audit]", "[audit]\nredact = true")
    with (
        configured(tmp_path, text + more, replicas=1) as gateway,
        Client(gateway.flight, "ann", "ann") as ann,
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
        with contextlib.suppress(grpc.RpcError):
            ann.run(substrait(of_goods(f"select cast(name as int) from goods where name = '{VALUE}'")))
        # Who asks is told.
        assert min(failed["HTTP"], failed["Flight"]) >= 8, failed
        kept = ann.rows("select * from system.queries")
        assert len(kept) >= 2 * len(QUOTING)
        log = gateway.logged()
    trail = "".join(file.read_text() for file in files(tmp_path))
    assert trail.count('"event":"end"') >= 2 * len(QUOTING)
    for place, said in (("the trail", trail), ("system.queries", str(kept)), ("the log", log)):
        for value in (VALUE, NUMBER):
            at = said.find(value)
            assert at < 0, f"{place}: {said[max(at - 400, 0) : at + 40]}"


def fill(gateway: Gateway, statements: int) -> None:
    """Runs many small statements, over a few connections."""

    def some(number: int) -> None:
        with requests.Session() as session:
            for turn in range(statements // 4):
                answer = session.post(f"{gateway.url}/v1/sql", data=f"select {number} as a, {turn} as b".encode(), timeout=30)
                assert answer.status_code == 200

    threads = [threading.Thread(target=some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def tampered(folder: Path, dice: random.Random) -> tuple[str, int]:
    """Changes a trail in one way; what was done, and the index of the first record that is wrong by it."""
    found = files(folder)
    file = dice.choice(found)
    lines = file.read_bytes().splitlines(keepends=True)
    first = int(file.stem.removeprefix("audit-"))
    at = dice.randrange(len(lines))
    kind = dice.choice(["byte", "drop", "twice", "swap", "forge", "cut", "file", "rewrite", "empty line"])
    index = first + at
    last = sum(1 for one in found for _ in one.open("rb")) - 1
    if kind == "byte":
        line = bytearray(lines[at])
        where = dice.randrange(len(line))
        line[where] ^= dice.choice([0x01, 0x20, 0x80])
        lines[at] = bytes(line)
    elif kind == "drop":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
        index += 1
    elif kind == "swap":
        other = dice.randrange(len(lines))
        if other == at:
            return tampered(folder, dice)
        lines[at], lines[other] = lines[other], lines[at]
        index = first + min(at, other)
    elif kind == "forge":
        lines.insert(at, lines[at].replace(b'"principal"', b'"principa1"').replace(b'"event"', b'"evennt"'))
    elif kind == "cut":
        lines, index, found = lines[:at], first + at, [one for one in found if one > file]
        for one in found:
            one.unlink()
        if not lines and first:
            file.unlink()
            return kind, index
    elif kind == "file":
        file.unlink()
        return kind, first
    elif kind == "rewrite":
        record = json.loads(lines[at])
        record["at"] = "2001-01-01T00:00:00.000000Z"
        lines[at] = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    else:
        lines.insert(at, b"\n")
    file.write_bytes(b"".join(lines))
    return kind, min(index, last + 1)


@pytest.mark.timeout(1800 if SOAK else 120)
def test_what_is_changed_is_found_and_named(tmp_path: Path) -> None:
    statements, changes = (50_000, 1_000) if SOAK else (600, 60)
    with configured(tmp_path, TEXT.replace("64KiB", "4MiB" if SOAK else "64KiB"), replicas=1) as gateway:
        fill(gateway, statements)
    whole = verified(tmp_path)
    assert whole.returncode == 0, whole.stderr
    last, head = whole.stdout.splitlines()[1].split()
    assert int(last) >= 2 * statements
    dice, kinds = random.Random(7), Counter()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "nexus.toml", copy)
    for turn in range(changes):
        shutil.rmtree(copy / "trail", ignore_errors=True)
        shutil.copytree(tmp_path / "trail", copy / "trail")
        kind, index = tampered(copy, dice)
        kinds[kind] += 1
        done = verified(copy)
        assert done.returncode == 1, f"{turn}: {kind} at {index} was not found: {done.stdout}"
        assert f"record {index} is" in done.stderr, f"{turn}: {kind} at {index}: {done.stderr}"
    assert len(kinds) == 9
    # What is cut off together with the head is missed by who knows an earlier one.
    assert verified(tmp_path, "--known", last, head).returncode == 0
    assert verified(tmp_path, "--known", str(int(last) + 1), head).returncode == 1
    assert verified(tmp_path, "--known", last, "0" * 64).returncode == 1


@pytest.mark.timeout(1800 if SOAK else 120)
def test_a_kill_leaves_a_whole_trail(tmp_path: Path) -> None:
    for turn in range(50 if SOAK else 5):
        with_config = configured(tmp_path, TEXT, replicas=1)
        threads = [threading.Thread(target=until_killed, args=(with_config, turn, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2 + turn % 5 * 0.03)
        with_config.process.kill()
        with_config.process.wait()
        for thread in threads:
            thread.join()
        done = verified(tmp_path)
        assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    events = Counter((record["query"], record["event"]) for record in found if record["event"] != "opened")
    assert set(events.values()) == {1}
    assert {query for query, event in events if event == "end"} <= {query for query, event in events if event == "start"}
    answered = {line for file in tmp_path.glob("answered-*") for line in file.read_text().split()}
    started = {record["query"] for record in found if record["event"] == "start"}
    assert answered
    assert answered <= started


def until_killed(gateway: Gateway, turn: int, number: int) -> None:
    """Sends statements until nobody answers, and notes the ids of those that were."""
    file = gateway.log.parent / f"answered-{turn}-{number}"
    with requests.Session() as session, file.open("w") as answered:
        while True:
            try:
                answer = session.post(f"{gateway.url}/v1/sql", data=b"select 1", timeout=10)
            except requests.RequestException:
                return
            answered.write(answer.headers["x-nexus-query"] + "\n")


def test_what_cannot_be_recorded_does_not_run(tmp_path: Path) -> None:
    """A file may grow to a size; beyond it each write fails, as on a full disk."""
    (tmp_path / "nexus.toml").write_text(TEXT + '[http]\nlisten = "127.0.0.1:0"\n[flight]\nlisten = "127.0.0.1:0"\n')
    limited = ["bash", "-c", f"trap '' XFSZ; ulimit -f 16; exec {BINARY} serve --config nexus.toml"]
    process = subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
    try:
        line = process.stdout.readline()
        url = "http://" + line.split("http=")[1].strip()
        codes = [requests.post(f"{url}/v1/sql", data=b"select 1", timeout=10) for _ in range(60)]
        assert codes[0].status_code == 200
        refused = codes[-1]
        assert refused.status_code == 503
        assert "cannot be recorded in the audit trail" in refused.text
    finally:
        process.kill()
        process.wait()
    assert verified(tmp_path).returncode == 0
