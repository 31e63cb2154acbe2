"""Chains and nestings of a hundred to a million, at every way in: a right answer or an error within ten seconds, no abort."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pyarrow as pa
import pytest
import requests

import postgres
from gateway import Gateway, configured, eventually, nexus
from varint import varint
from wire import SERVICE, Client, decode, descriptor, field, first, packed, parse, prepared, reload_failures, statement

SIZES = [100, 390, 1_000, 10_000, 100_000, 1_000_000]
WITHIN = 10
# What a client may be told of such a thing.
TOLD = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
}
# What they are told of one that is longer than `limits.statement`; and of a message that is longer than any, by tonic in words of
# its own, which in a stream says that it broke off.
LONGEST, LARGEST = 1 << 20, 16 << 20
TOO_LONG = {grpc.StatusCode.RESOURCE_EXHAUSTED}
TOO_LARGE = TOO_LONG | {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT}
TEXT = '[catalogs.m]\nkind = "memory"\nwritable = true\n'


def around(before: str, middle: str, after: str) -> Callable[[int], str]:
    return lambda count: before * count + middle + after * count


def chain(of: str, by: str) -> Callable[[int], str]:
    return lambda count: by.join([of] * count)


# Expressions, which a policy may have as well.
EXPRESSIONS: dict[str, Callable[[int], str]] = {
    "plus": chain("1", "+"),
    "and": chain("true", " and "),
    "or": chain("false", " or "),
    "text": chain("'x'", "||"),
    "equals": chain("true", " = "),
    "is null": lambda count: "1" + " is null" * count,
    "is distinct": chain("1", " is distinct from "),
    "between": lambda count: "true" + " between false and true" * count,
    "in": lambda count: "1" + " in (1)" * count,
    "like": chain("'x'", " like "),
    "similar": chain("'x'", " similar to "),
    "regexp": chain("'x'", " regexp "),
    "overlaps": chain("1", " overlaps "),
    "member": lambda count: "1" + " member of ([1])" * count,
    "zone": lambda count: "timestamp '2020-01-01 00:00:00'" + " at time zone 'UTC'" * count,
    "collate": lambda count: "'x'" + ' collate "C"' * count,
    "arrows": lambda count: "'{}'" + " -> 'a'" * count,
    "casts": lambda count: "1" + "::int" * count,
    "within": chain("within", " and "),
    "from": lambda count: "(from" + " or from" * count + ")",
    "of a table": chain("a.from", " and "),
    "elements": lambda count: "a" + "[1]" * count,
    "fields": lambda count: "a" + ".b" * count,
    "calls": lambda count: "a" + ".f()" * count,
    "within groups": chain("percentile_cont(0.5) within group (order by 1)", "+"),
    "parentheses": around("(", "1", ")"),
    "not": around("not ", "true", ""),
    "minus": around("- ", "1", ""),
    "pluses": around("+ ", "1", ""),
    "tildes": around("~ ", "1", ""),
    "interval": around("interval ", "'1 day'", ""),
    "functions": around("abs(", "1", ")"),
    "power": around("power(1, ", "1", ")"),
    "cast": around("cast(", "1", " as int)"),
    "case": around("case when true then ", "1", " else 0 end"),
    "case of": around("case ", "1", " when 1 then 1 end"),
    "else": around("case when false then 1 else ", "1", " end"),
    "arrays": around("[", "1", "]"),
    "structs": around("struct(", "1", ")"),
    "maps": around("{a: ", "1", "}"),
    "row types": lambda count: "cast(null as " + "struct<a " * count + "int" + ">" * count + ")",
    "list types": lambda count: "cast(null as " + "array<" * count + "int" + ">" * count + ")",
    "list type": lambda count: "cast(null as int" + "[]" * count + ")",
    "pattern": lambda count: "'x' like '" + "%_" * count + "'",
    "regex": lambda count: "regexp_like('x', '" + "(" * count + "x" + ")*" * count + "')",
    # Words of clauses are names too.
    **{word: chain(word, "+") for word in ("where", "from", "group", "order", "limit", "window", "having")},
    **{word: chain(word, "+") for word in ("join", "select", "union", "qualify", "explain", "apply")},
}


def query(expression: Callable[[int], str]) -> Callable[[int], str]:
    return lambda count: "select " + expression(count) + " as v"


STATEMENTS = {name: query(expression) for name, expression in EXPRESSIONS.items()} | {
    "columns": lambda count: "select " + chain("1", ", ")(count),
    "list": lambda count: f"select 5 in ({', '.join(map(str, range(count)))}) as v",
    "values": lambda count: "select count(*) as v from (values " + chain("(1)", ", ")(count) + ") t(a)",
    "union": lambda count: "select count(*) as v from (" + chain("select 1", " union all ")(count) + ")",
    "except": chain("select 1", " except "),
    "commas": lambda count: "select count(*) as v from " + ", ".join(f"one o{number}" for number in range(count)),
    "named": lambda count: (
        "with window as (select 1 as a) select count(*) as v from " + ", ".join(f"window o{number}" for number in range(count))
    ),
    "joins": lambda count: "select count(*) as v from one o" + "".join(f" join one o{n} on o.a = o{n}.a" for n in range(count)),
    "crosses": lambda count: "select count(*) as v from one" + " cross join one" * count,
    "laterals": lambda count: "select 1 as v from one" + ", lateral (select 1)" * count,
    "pivots": lambda count: "select 1 as v from one" + " pivot(sum(a) for a in (1))" * count,
    "queries": lambda count: "select v from " + "(select v from " * count + "(select 1 as v)" + ")" * count,
    "scalars": around("select (", "select 1 as v", ") as v"),
    "exists": lambda count: "select 1 as v where " + "exists (select 1 where " * count + "true" + ")" * count,
    "in queries": lambda count: "select 1 as v where " + "1 in (select 1 where " * count + "true" + ")" * count,
    "with": lambda count: (
        "with a0 as (select 1 as v)"
        + "".join(f", a{number + 1} as (select v from a{number})" for number in range(count))
        + f" select v from a{count}"
    ),
    "with in with": lambda count: "with a as (" * count + "select 1 as v" + ") select v from a" * count,
    "relations": lambda count: "select a as v from " + "(" * count + "one" + ")" * count,
    "explains": around("explain ", "select 1", ""),
    "windows": lambda count: (
        "select sum(1) over w0 as v from one window w0 as ()"
        + "".join(f", w{number + 1} as (w{number})" for number in range(count))
    ),
    "groupings": lambda count: "select 1 as v from one group by " + "grouping sets (" * count + "a" + ")" * count,
    "prior": lambda count: "select 1 as v from one connect by " + "prior " * count + "a",
    "statements": chain("select 1", ";"),
    "begin": around("begin ", "select 1", " end"),
    "prepare": around("prepare a as ", "select 1", ""),
    "names": lambda count: "select * from " + ".".join(["a"] * count),
}
# What those that are let in answer.
RIGHT: dict[str, Callable[[int], object]] = {
    "plus": lambda count: count,
    "and": lambda _: True,
    "or": lambda _: False,
    "text": lambda count: "x" * count,
    "list": lambda _: True,
    "values": lambda count: count,
    "union": lambda count: count,
} | {name: lambda _: 1 for name in ("parentheses", "pluses", "functions", "power", "cast", "casts", "case", "else", "commas")}
RIGHT |= {
    name: lambda _: 1 for name in ("named", "joins", "crosses", "queries", "scalars", "exists", "in queries", "with", "relations")
}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Client]]:
    """A gateway that takes long texts, with a table of one row."""
    with configured(tmp_path_factory.mktemp("depths"), TEXT, replicas=1) as gateway, Client(gateway.flight) as client:
        put(client, "create table one as select 1 as a")
        put(client, "create table taken (v varchar)")
        yield gateway, client


def messages(client: Client, command: bytes) -> list[bytes]:
    """What a command gives, as it came."""
    return [message for ticket in client.info(command, WITHIN).tickets for message in client.get(ticket, WITHIN)]


def put(client: Client, sql: str) -> None:
    client.put([field(1, descriptor(packed("CommandStatementUpdate", field(1, sql.encode()))))], WITHIN)


def post(gateway: Gateway, sql: str) -> int:
    headers = {"content-type": "text/plain", "accept": "application/x-ndjson"}
    answer = requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), headers=headers, timeout=WITHIN)
    assert answer.status_code in (200, 400, 403, 429, 501) or answer.json()["error"]["kind"] == "exhausted", answer.text
    return answer.status_code


WAYS: dict[str, Callable[[Gateway, Client, str], object]] = {
    "GetFlightInfo": lambda _, client, sql: messages(client, statement(sql)),
    "GetSchema": lambda _, client, sql: client.unary(SERVICE + "GetSchema", descriptor(statement(sql)), WITHIN),
    "PollFlightInfo": lambda _, client, sql: client.unary(SERVICE + "PollFlightInfo", descriptor(statement(sql)), WITHIN),
    "prepared": lambda _, client, sql: messages(client, prepared(client.prepare(sql))),
    "update": lambda _, client, sql: put(client, sql),
    "EXPLAIN": lambda _, client, sql: client.rows(f"explain {sql}", WITHIN),
    "INSERT": lambda _, client, sql: put(client, f"insert into taken {sql}"),
    "CREATE VIEW": lambda _, client, sql: put(client, f"create view a as {sql}"),
    "HTTP": lambda gateway, _, sql: post(gateway, sql),
}


def outcome(gateway: Gateway, what: str, work: Callable[[], object], told: set[grpc.StatusCode] = TOLD) -> object:
    """What comes of some work, in time; nothing where there is an error that a client may be told."""
    began, answer, error = time.monotonic(), None, None
    try:
        answer = work()
    except grpc.RpcError as raised:
        error = raised
    took = time.monotonic() - began
    assert gateway.process.poll() is None, f"{what}: {gateway.tail()}"
    assert error is None or error.code() in told, f"{what}: {error.code()}: {error.details()}"
    assert took < WITHIN, f"{what} took {took:.1f} s"
    return answer


def refused(gateway: Gateway, client: Client, way: str, sql: str) -> None:
    """Sends what is longer than a statement may be, some of it longer than any message, which is refused for that."""
    told = TOO_LONG if len(sql) < LARGEST - 1_000 else TOO_LARGE
    came = outcome(gateway, f"{way} of {len(sql)} bytes", partial(WAYS[way], gateway, client, sql), told)
    assert came == (429 if way == "HTTP" else None), came


# The longest ones at one of the ways, so that all statements together are at all of them; and each at all.
@pytest.mark.parametrize("all_ways", [pytest.param(False, id="short"), pytest.param(True, id="full", marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_at_every_way_in(name: str, all_ways: bool, deep: tuple[Gateway, Client]) -> None:
    gateway, client = deep
    ways = list(WAYS)
    for place, count in enumerate(SIZES):
        sql = STATEMENTS[name](count)
        turn = (list(STATEMENTS).index(name) + place) % len(ways)
        for way in ways if all_ways or count <= 10_000 else [ways[turn]]:
            if len(sql) > LONGEST:
                refused(gateway, client, way, sql)
                continue
            rows = outcome(gateway, f"{way} of {count}", partial(WAYS[way], gateway, client, sql))
            if way == ways[0] and rows is not None and name in RIGHT:
                assert [list(row.values()) for row in decode(iter(rows))] == [[RIGHT[name](count)]], count
    assert client.rows("select 1 as v") == [{"v": 1}]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Client]]:
    """A gateway with a table of its own and one of a database, both of a row."""
    with postgres.server() as database:
        database.sql("create table changed as select 1 as a")
        text = TEXT + database.catalog("shop", writable=True)
        with configured(tmp_path_factory.mktemp("written"), text, replicas=1) as gateway, Client(gateway.flight) as client:
            put(client, "create table m.main.changed as select cast(1 as int) as a")
            yield gateway, client


# Those that write, with an expression in its place; none changes the row.
WRITES = {
    "an update": "update {table} set a = 1 where ({expression}) is not null",
    "a value": "update {table} set a = cast(({expression}) as int) where a = 2",
    "a delete": "delete from {table} where ({expression}) is null and a = 2",
}


@pytest.mark.parametrize("sizes", [pytest.param([390], id="short"), pytest.param(SIZES, id="full", marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_in_what_writes(name: str, sizes: list[int], written: tuple[Gateway, Client]) -> None:
    gateway, client = written
    for count in sizes:
        texts = [text.format(table="m.main.changed", expression=EXPRESSIONS[name](count)) for text in WRITES.values()]
        texts += [text.format(table="shop.public.changed", expression=EXPRESSIONS[name](count)) for text in WRITES.values()]
        texts.append(f"create table m.main.made as select {EXPRESSIONS[name](count)} as v")
        for sql in texts:
            told = TOLD if len(sql) <= LONGEST else TOO_LONG if len(sql) < LARGEST - 1_000 else TOO_LARGE
            outcome(gateway, f"{sql[:60]} of {count}", partial(put, client, sql), told)
        with contextlib.suppress(grpc.RpcError):
            put(client, "drop table m.main.made")
    for table in ("m.main.changed", "shop.public.changed"):
        assert client.rows(f"select a from {table}") == [{"a": 1}]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Client]]:
    """A gateway whose limits of the length are at their highest: no message is as long."""
    text = f'{TEXT}[limits]\nstatement = "16MiB"\ntokens = {2**32 - 1}\nnesting = 1000\n'
    with configured(tmp_path_factory.mktemp("wide"), text, replicas=1) as gateway, Client(gateway.flight) as client:
        yield gateway, client


# A list of a million is planned for longer than anybody waits.
LONG = [(name, count) for name in ("plus", "parentheses", "and", "union") for count in SIZES[-2:]] + [("list", SIZES[-2])]


@pytest.mark.parametrize(("name", "count"), LONG)
def test_what_no_limit_of_the_length_stops(name: str, count: int, wide: tuple[Gateway, Client]) -> None:
    gateway, client = wide
    sql = STATEMENTS[name](count)
    if len(sql) > LARGEST:
        refused(gateway, client, "GetFlightInfo", sql)
        return
    for way in ("GetFlightInfo", "HTTP"):
        began = time.monotonic()
        rows = outcome(gateway, f"{way} of {count}", partial(WAYS[way], gateway, client, sql))
        said = rows if way == "HTTP" else rows is not None
        print(f"\n{name} of {count}, {len(sql)} bytes, at {way}: {said}, {time.monotonic() - began:.1f} s")
        if way == "GetFlightInfo" and rows is not None:
            assert [list(row.values()) for row in decode(iter(rows))] == [[RIGHT[name](count)]], count
    assert client.rows("select 1 as v") == [{"v": 1}]


def test_a_list_of_ten_thousand_works(deep: tuple[Gateway, Client]) -> None:
    gateway, client = deep
    numbers = ", ".join(map(str, range(10_000)))
    assert client.rows(f"select a from one where a in ({numbers})") == [{"a": 1}]
    assert client.rows(f"select a from one where a not in ({numbers})") == []
    rows = requests.post(f"{gateway.url}/v1/sql", data=f"select count(*) as n from one where a in ({numbers})", timeout=WITHIN)
    assert rows.json() == {"n": 1}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_filter_of_a_policy(name: str, tmp_path: Path) -> None:
    config, policy = tmp_path / "nexus.toml", tmp_path / "policy.toml"
    config.write_text(f'[policy]\nfile = "{policy.name}"\n[catalogs.m]\nkind = "memory"\n')
    for count in SIZES:
        condition = json.dumps(f"{EXPRESSIONS[name](count)} is null")
        policy.write_text(f'[[rules]]\ntables = ["m.main.one"]\nallow = ["read"]\nfilter = {condition}\n')
        done = nexus("config", "check", config, wait=WITHIN)
        assert done.returncode in (0, 1), f"{count}: {done.returncode}: {done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    """A gateway with a policy by which one row of two is seen, and the file of it."""
    folder = tmp_path_factory.mktemp("judged")
    file = folder / "policy.toml"
    file.write_text(policy("a = 1"))
    with configured(folder, f'{TEXT}[policy]\nfile = "policy.toml"\n', replicas=1) as gateway, Client(gateway.flight) as client:
        client.update("create table m.main.one as select * from (values (1), (2)) t(a)")
        yield gateway, file


def policy(condition: str, mask: str = "a") -> str:
    allowed = 'tables = ["m.main.one"]\nallow = ["read", "write"]'
    return f"[[rules]]\n{allowed}\nfilter = {json.dumps(condition)}\nmasks = {{ a = {json.dumps(mask)} }}\n"


# What is larger than 1 MiB is not read.
@pytest.mark.parametrize(
    ("name", "count"), [(name, 10_000) for name in ("case", "functions", "list types")] + [("parentheses", 100_000)]
)
def test_a_policy_that_is_read_again(name: str, count: int, judged: tuple[Gateway, Path]) -> None:
    gateway, file = judged
    expression = EXPRESSIONS[name](count)
    for broken in (policy(f"{expression} is null"), policy("a = 2", expression)):
        before = reload_failures(gateway.url, "policy")
        file.write_text(broken)
        assert eventually(lambda before=before: reload_failures(gateway.url, "policy") > before, WITHIN)
        with Client(gateway.flight) as client:
            assert client.rows("select a from m.main.one") == [{"a": 1}]


def rows_of(kind: Callable[[int], pa.DataType], count: int) -> bytes:
    """The header of a message that says a schema of one column, whose type is as deep."""
    made: list[bytes] = []
    # Arrow itself recurses.
    threading.stack_size(512 << 20)
    worker = threading.Thread(target=lambda: made.append(pa.schema([("a", kind(count))]).serialize().to_pybytes()))
    worker.start()
    worker.join()
    threading.stack_size(0)
    return made[0][8 : 8 + int.from_bytes(made[0][4:8], "little")]


def nested(wrap: Callable[[pa.DataType], pa.DataType]) -> Callable[[int], pa.DataType]:
    def of(count: int) -> pa.DataType:
        made = pa.int64()
        for _ in range(count):
            made = wrap(made)
        return made

    return of


TYPES = {
    "lists": nested(pa.list_),
    "structs": nested(lambda inner: pa.struct([("a", inner)])),
    "maps": nested(lambda inner: pa.map_(pa.int32(), inner)),
}


def ingest(table: bytes = b"deep", transaction: bytes = b"") -> bytes:
    """CommandStatementIngest, packed."""
    more = field(6, transaction) if transaction else b""
    return packed("CommandStatementIngest", field(1, b"\x08\x01") + field(2, table) + more)


@pytest.mark.parametrize("name", TYPES)
def test_a_type_of_rows(name: str, deep: tuple[Gateway, Client]) -> None:
    gateway, client = deep
    prepared = packed("ActionCreatePreparedStatementRequest", field(1, b"select ? as v from one"))
    [result] = client.action("CreatePreparedStatement", prepared)
    handle = first(parse(first(parse(result), 2)), 1)
    commands = [ingest()] + [packed(f"CommandPreparedStatement{kind}", field(1, handle)) for kind in ("Query", "Update")]
    for count in [10, 60, 100, 1_000, 10_000]:
        header = rows_of(TYPES[name], count)
        for command in commands:
            outcome(gateway, str(count), partial(client.put, [field(1, descriptor(command)) + field(2, header)], WITHIN))
    assert client.rows("select 1 as v") == [{"v": 1}]


def number(value: int) -> bytes:
    """A literal of Substrait."""
    return field(1, b"\x38" + varint(value))


def then(inner: bytes) -> bytes:
    """`CASE WHEN true THEN inner ELSE 0 END`, as Substrait writes it."""
    return field(6, field(1, field(1, field(1, b"\x08\x01")) + field(2, inner)) + field(2, number(0)))


def otherwise(inner: bytes) -> bytes:
    return field(6, field(1, field(1, field(1, b"\x08\x00")) + field(2, number(0))) + field(2, inner))


def cast(inner: bytes) -> bytes:
    # To i64, which may be NULL.
    return field(11, field(1, field(7, b"\x10\x01")) + field(2, inner))


def listed(inner: bytes) -> bytes:
    # inner IN (inner)
    return field(8, field(1, inner) + field(2, number(1)))


def plan_of(expression: bytes) -> bytes:
    """A plan that projects an expression beside the column of the table."""
    base = field(1, b"a") + field(2, field(1, field(7, b"\x10\x01")) + b"\x18\x02")
    read = field(1, field(2, base) + field(7, field(1, b"one")))
    project = field(7, field(2, read) + field(3, expression))
    return field(3, field(2, field(1, project) + field(2, b"a") + field(2, b"v")))


def filters(count: int) -> bytes:
    base = field(1, b"a") + field(2, field(1, field(7, b"\x10\x01")) + b"\x18\x02")
    relation = field(1, field(2, base) + field(7, field(1, b"one")))
    for _ in range(count):
        relation = field(2, field(2, relation) + field(3, field(1, b"\x08\x01")))
    return field(3, field(2, field(1, relation) + field(2, b"a")))


def deepened(wrap: Callable[[bytes], bytes]) -> Callable[[int], bytes]:
    def of(count: int) -> bytes:
        made = number(1)
        for _ in range(count):
            made = wrap(made)
        return plan_of(made)

    return of


PLANS = {"then": deepened(then), "otherwise": deepened(otherwise), "casts": deepened(cast), "lists": deepened(listed)}
PLANS["filters"] = filters


def planned(plan: bytes) -> bytes:
    """CommandStatementSubstraitPlan, packed."""
    return packed("CommandStatementSubstraitPlan", field(1, field(1, plan)))


def prepare_plan(client: Client, plan: bytes) -> None:
    client.action(
        "CreatePreparedSubstraitPlan", packed("ActionCreatePreparedSubstraitPlanRequest", field(1, field(1, plan))), WITHIN
    )


WAYS_OF_PLANS: dict[str, Callable[[Client, bytes], object]] = {
    "GetFlightInfo": lambda client, plan: messages(client, planned(plan)),
    "GetSchema": lambda client, plan: client.unary(SERVICE + "GetSchema", descriptor(planned(plan)), WITHIN),
    "PollFlightInfo": lambda client, plan: client.unary(SERVICE + "PollFlightInfo", descriptor(planned(plan)), WITHIN),
    "prepared": prepare_plan,
    "update": lambda client, plan: client.put([field(1, descriptor(planned(plan)))], WITHIN),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_substrait(name: str, deep: tuple[Gateway, Client]) -> None:
    gateway, client = deep
    for count in [1, 10, 24, 30, 40, 100, 1_000, 10_000]:
        plan = PLANS[name](count)
        if len(plan) > 15 << 20:
            continue
        for way, work in WAYS_OF_PLANS.items():
            came = outcome(gateway, f"{way} of {name} of {count}", partial(work, client, plan))
            if way == "GetFlightInfo":
                assert came is not None or count >= 10
                right = {"a": 1} | ({} if name == "filters" else {"v": 1})
                assert came is None or name == "lists" or decode(iter(came)) == [right], count
    assert client.rows("select 1 as v") == [{"v": 1}]


@pytest.mark.parametrize("count", SIZES)
def test_a_pattern_of_names(count: int, deep: tuple[Gateway, Client]) -> None:
    gateway, client = deep
    for pattern in ("%" * count + "x", "%_" * count, "\\" * count, "%" * count):
        for place in (2, 3):
            ticket = packed("CommandGetTables", field(place, pattern.encode()))
            outcome(gateway, pattern[:2], lambda ticket=ticket: list(client.get(ticket, WITHIN)))
    assert client.rows("select 1 as v") == [{"v": 1}]


def option(client: Client, name: str, value: str) -> None:
    """Sets an option of the session; fails where it is not taken."""
    value = field(1, field(1, name.encode()) + field(2, field(1, value.encode())))
    results = client.action("SetSessionOptions", value, WITHIN)
    assert len(results) == 1


def put_rows(client: Client, command: bytes) -> None:
    """Begins an ingest, and ends it without rows."""
    client.put([field(1, descriptor(command)) + field(2, rows_of(lambda _: pa.int64(), 0))], WITHIN)


# Where a text of the client goes in that is no statement, in a transaction.
TEXTS: dict[str, Callable[[Client, bytes, str], object]] = {
    "a savepoint": lambda client, transaction, text: client.savepoint(transaction, text),
    "a savepoint that is none": lambda client, _, text: client.end_savepoint(text.encode(), releases=True),
    "a catalog": lambda client, _, text: option(client, "catalog", text),
    "a schema": lambda client, _, text: option(client, "schema", text),
    "an option that is none": lambda client, _, text: option(client, text, "1"),
    "a transaction of a query": lambda client, _, text: client.rows("select 1 as v", transaction=text.encode()),
    "a transaction of an update": lambda client, _, text: client.update("create table b as select 1 as v", text.encode()),
    "a transaction of what is prepared": lambda client, _, text: client.prepare("select 1 as v", text.encode()),
    "a transaction that ends": lambda client, _, text: client.end(text.encode()),
    "a transaction of an ingest": lambda client, _, text: put_rows(client, ingest(transaction=text.encode())),
    "a table of an ingest": lambda client, transaction, text: put_rows(client, ingest(text.encode(), transaction)),
    "a prepared statement": lambda client, _, text: client.run(packed("CommandPreparedStatementQuery", field(1, text.encode()))),
    "an action": lambda client, _, text: client.action(text, b"", WITHIN),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_no_statement(name: str, deep: tuple[Gateway, Client]) -> None:
    gateway, client = deep
    transaction = client.begin()
    for count in SIZES:
        for text in ("(" * count, "a." * count, '"' * count, "begin " * count):
            outcome(gateway, f"{name} of {count}", partial(TEXTS[name], client, transaction, text))
    client.end(transaction, commits=False)
    assert client.rows("select 1 as v") == [{"v": 1}]


@pytest.mark.parametrize("count", SIZES)
def test_a_body_of_json(count: int, deep: tuple[Gateway, Client]) -> None:
    gateway, _ = deep
    for text in ("[" * count, '{"statement": ' * count, '{"statement": "select 1 as v", "catalog": ' + "[" * count):
        headers = {"content-type": "application/json"}
        assert requests.post(f"{gateway.url}/v1/sql", data=text, headers=headers, timeout=WITHIN).status_code in (400, 429)
    names = [json.dumps({"table": name}) for name in (".".join(["a"] * count), '"a".' * count, '"' * (count + 1))]
    for text in ("[" * count, '{"table": ' * count, '{"tag": ' + "[" * count, *names):
        assert requests.post(f"{gateway.url}/v1/cache/invalidate", data=text, timeout=WITHIN).status_code in (400, 429), text[:40]


def test_a_view_upon_views_is_none(deep: tuple[Gateway, Client]) -> None:
    gateway, _ = deep
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        for number_of in range(3):
            with pytest.raises(flightsql.NotSupportedError):
                cursor.execute(f"create view v{number_of} as select * from {'one' if number_of == 0 else f'v{number_of - 1}'}")
