"""What clients want of the cache, by headers and session options, and what it tells them, over HTTP and Flight alike."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pytest
import requests

from gateway import Gateway, configured, eventually
from wire import SERVICE, Client, decode, field, metric, statement

CATALOG = '[catalogs.own]\nkind = "memory"\nwritable = true\n'
VOLATILE = "a function may give another value each time"
JOINED = "the same was being made for another statement, and both have it"
CLIENTS = 32


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a catalog that can be written to."""
    with configured(tmp_path_factory.mktemp("caching"), CATALOG, replicas=1) as gateway:
        yield gateway


@pytest.fixture
def table(gateway: Gateway, request: pytest.FixtureRequest) -> str:
    """A table of the test alone with one row, 1."""
    name = request.node.name.split("[")[0]
    post(gateway, f"create table {name} as select 1 as n")
    return name


def post(gateway: Gateway, sql: str, **headers: str) -> requests.Response:
    """A statement over HTTP."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{gateway.url}/v1/sql", data=sql, headers=named, timeout=30)


def get(gateway: Gateway, sql: str, **headers: str) -> tuple[list[dict], dict[str, str]]:
    """A statement over Flight: its rows, and the headers that came with them."""
    with Client(gateway.flight, **headers) as client:
        [ticket] = client.info(statement(sql)).tickets
        call = client.stream(SERVICE + "DoGet", field(1, ticket))
        return decode(call), dict(call.initial_metadata())


def uses(gateway: Gateway, protocol: str, sql: str, **headers: str) -> str:
    """What the cache had to do with a statement."""
    told = post(gateway, sql, **headers).headers if protocol == "http" else get(gateway, sql, **headers)[1]
    return told["x-nexus-cache"]


@pytest.mark.parametrize("protocol", ["http", "flight"])
def test_headers_say_what_is_taken(gateway: Gateway, protocol: str) -> None:
    sql = f"select 'by {protocol}' as v"
    wanted = {"no-store": "bypass", "no-cache": "miss", "only-if-cached": "hit", "max-age=0": "miss", "max-age=600, x": "hit"}
    assert {control: uses(gateway, protocol, sql, cache_control=control) for control in wanted} == wanted
    # Another tag has answers of its own.
    assert [uses(gateway, protocol, sql, x_nexus_cache_tag=tag) for tag in ("a", "a", "b")] == ["miss", "hit", "miss"]


def test_an_answer_says_how_old_it_is_and_why_it_was_made(gateway: Gateway) -> None:
    for told in (post(gateway, "select random()").headers, get(gateway, "select random() as v")[1]):
        assert (told["x-nexus-cache"], told["x-nexus-cache-reason"], told.get("age")) == ("bypass", VOLATILE, None)
    for _ in range(2):
        told = get(gateway, "select 20261130 as v")[1]
    assert (told["x-nexus-cache"], int(told["age"]) < 60, told.get("x-nexus-cache-reason")) == ("hit", True, None)


def test_only_if_cached_fails_where_there_is_none(gateway: Gateway) -> None:
    answer = post(gateway, "select 'nobody asked' as v", cache_control="only-if-cached")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (409, "precondition")
    with pytest.raises(grpc.RpcError) as error:
        get(gateway, "select 'nobody asked' as v", cache_control="only-if-cached")
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_header_that_does_not_fit(gateway: Gateway) -> None:
    answer = post(gateway, "select 1", cache_control="max-age=soon")
    assert (answer.status_code, "number of seconds" in answer.text) == (400, True)
    with pytest.raises(grpc.RpcError) as error:
        get(gateway, "select 1", cache_control="max-age=soon")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_header_is_of_its_call_alone(gateway: Gateway) -> None:
    with Client(gateway.flight) as client:
        client.session(cache="max-age=600")
        client.headers.append(("cache-control", "no-store"))
        client.set(schema="main")
        client.headers.remove(("cache-control", "no-store"))
        assert b"max-age=600" in client.action("GetSessionOptions", b"")[0]


def test_a_write_ends_what_was_kept(gateway: Gateway, table: str) -> None:
    sql, late = f"select sum(n) as s from {table}", {"cache_control": "max-stale=600"}
    assert [uses(gateway, "http", sql, **late) for _ in range(2)] == ["miss", "hit"]
    post(gateway, f"insert into {table} values (41)")
    answer = post(gateway, sql, **late)
    assert (answer.headers["x-nexus-cache"], answer.json()) == ("miss", {"s": 42})


@pytest.mark.parametrize("by", ["call", "http", "tag"])
def test_what_is_given_up_is_made_again(gateway: Gateway, table: str, by: str) -> None:
    tag = {"x_nexus_cache_tag": table}
    sql = f"select sum(n) as s, '{by}' as v from {table}"
    assert [uses(gateway, "http", sql, **tag) for _ in range(2)] == ["miss", "hit"]
    if by == "call":
        [count] = get(gateway, f"call system.invalidate('own.main.{table}')")[0]
    else:
        what = {"tag": table} if by == "tag" else {"table": f"own.main.{table}"}
        count = requests.post(f"{gateway.url}/v1/cache/invalidate", json=what, timeout=30).json()
    assert count["count"] > 0
    assert uses(gateway, "flight", sql, **tag) == "miss"


def test_what_is_kept_is_listed_and_counted(gateway: Gateway, table: str) -> None:
    sql, names = f"select n as listed from {table}", ("hits", "misses", "stale")
    before = [metric(gateway.url, f"nexus_cache_{name}_total") for name in names]
    for _ in range(3):
        post(gateway, sql)
    after = [metric(gateway.url, f"nexus_cache_{name}_total") for name in names]
    assert [round(one - other) for one, other in zip(after, before, strict=True)] == [2, 1, 0]
    assert metric(gateway.url, "nexus_cache_bytes") > 0
    listed = post(gateway, f"select statement, rows, hits from system.cache where tables = 'own.main.{table}'")
    assert listed.json() == {"statement": sql, "rows": 1, "hits": 2}


def test_what_is_kept_no_more_is_counted_by_its_reason(tmp_path: Path) -> None:
    reasons = ("size", "replaced", "given_up", "expired")
    with configured(tmp_path, CATALOG + '[cache]\nsize = "1MiB"\n', replicas=1) as gateway:
        post(gateway, "create table t as select value as n from generate_series(1, 12000)")

        def counted() -> dict[str, int]:
            name = "nexus_cache_evictions_total"
            return {reason: round(metric(gateway.url, f'{name}{{reason="{reason}"}}')) for reason in reasons}

        sql, saved = "select count(*) as c from t", "nexus_cache_saved_seconds_count"
        told = [uses(gateway, "http", sql, cache_control=control) for control in ("use", "no-cache", "use")]
        assert told == ["miss", "miss", "hit"]
        assert counted() == dict.fromkeys(reasons, 0) | {"replaced": 1}
        # Each that is given saves what it took to make it.
        assert metric(gateway.url, saved) == 1
        get(gateway, "call system.invalidate('t')")
        assert counted() == dict.fromkeys(reasons, 0) | {"replaced": 1, "given_up": 1}
        # Of more than there is room for, 96 KB each.
        for number in range(20):
            assert uses(gateway, "http", f"select n + {number} as v from t") == "miss"
        after = counted()
        assert (after["size"] > 0, after["replaced"], after["given_up"], after["expired"]) == (True, 1, 1, 0)
        assert metric(gateway.url, "nexus_cache_bytes") <= 1 << 20


def plans(gateway: Gateway) -> tuple[int, int]:
    """How many plans were made, and how often one was there."""
    made, reused = (metric(gateway.url, f"nexus_plans_{name}_total") for name in ("made", "reused"))
    return round(made), round(reused)


def test_a_statement_is_planned_once(gateway: Gateway, table: str) -> None:
    sql = f"select n + 1 as planned from {table}"
    made, reused = plans(gateway)
    # Described and run, from the cache or not.
    for control in ("no-store", "no-store", "no-cache", "only-if-cached"):
        assert get(gateway, sql, cache_control=control)[0] == [{"planned": 2}]
    assert plans(gateway) == (made + 1, reused + 7)
    assert post(gateway, sql).json() == {"planned": 2}
    assert plans(gateway) == (made + 1, reused + 8)
    post(gateway, f"insert into {table} values (41)")
    made, reused = plans(gateway)
    assert get(gateway, f"{sql} order by 1")[0] == [{"planned": 2}, {"planned": 42}]
    assert len(get(gateway, sql)[0]) == 2
    assert plans(gateway) == (made + 1, reused + 3)
    # Other columns are planned for anew.
    post(gateway, f"drop table {table}")
    post(gateway, f"create table {table} as select 'x' as m, 7 as n")
    made, reused = plans(gateway)
    assert get(gateway, sql)[0] == [{"planned": 8}]
    assert plans(gateway) == (made + 1, reused + 1)


def test_a_prepared_statement_is_planned_once(gateway: Gateway, table: str) -> None:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        made, reused = plans(gateway)
        for bound in (1, 2, 1):
            cursor.execute(f"select n as prepared from {table} where n = ?", (bound,))
            assert cursor.fetchall() == [(1,)] * (bound == 1)
        after = plans(gateway)
    assert (after[0] - made, after[1] - reused > 5) == (1, True)


def test_what_flight_sends_of_it_is_made_once(gateway: Gateway, table: str) -> None:
    def batches(how: str) -> float:
        return metric(gateway.url, f"nexus_cache_batches_{how}_total")

    sql = f"select n as sent from {table}"
    before = [batches("encoded"), batches("shared")]
    assert [get(gateway, sql)[0] for _ in range(4)] == [[{"sent": 1}]] * 4
    # The first answer is made and kept, what is sent of it is made for the second, and the others share that.
    assert [batches("encoded") - before[0], batches("shared") - before[1]] == [1, 2]
    assert post(gateway, sql).json() == {"sent": 1}


@pytest.mark.parametrize("what", [{}, {"table": "a.b.c.d"}, {"table": "t", "tag": "t"}, {"tag": "it's"}, ["t"]])
def test_what_cannot_be_given_up(gateway: Gateway, what: object) -> None:
    answer = requests.post(f"{gateway.url}/v1/cache/invalidate", json=what, timeout=30)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (400, "invalid"), answer.text


@pytest.mark.parametrize("size", [2 << 20, 20 << 20])
def test_a_name_that_is_too_long_is_not_looked_for(gateway: Gateway, size: int) -> None:
    answer = requests.post(f"{gateway.url}/v1/cache/invalidate", json={"tag": "x" * size}, timeout=30)
    assert (answer.status_code, "limits.statement" in answer.json()["error"]["hint"]) == (429, True), answer.text


def test_what_is_out_of_date_is_given_while_it_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "data" / "t.csv"
    file.parent.mkdir()
    file.write_text("n\n1\n")
    catalog = f'[catalogs.lake]\nkind = "files"\nlocation = "{file.parent}"\nstale = "1h"\n'
    sql = "select sum(n) as s from t"
    with configured(tmp_path, catalog, replicas=1) as gateway:
        assert [uses(gateway, "http", sql) for _ in range(2)] == ["miss", "hit"]
        file.write_text("n\n1\n41\n")
        late = post(gateway, sql)
        assert (late.headers["x-nexus-cache"], late.json()) == ("stale", {"s": 1})
        assert eventually(lambda: uses(gateway, "http", sql) == "hit", 10)
        assert post(gateway, sql).json() == {"s": 42}
        assert metric(gateway.url, "nexus_cache_refreshes_total") == 1
        # The refresh is a statement of its own.
        ran = post(gateway, f"select count(*) as c from system.queries where cache = 'miss' and statement = '{sql}'")
        assert ran.json() == {"c": 2}


def test_equal_statements_at_once_are_made_once(gateway: Gateway, table: str) -> None:
    post(gateway, f"insert into {table} select value from generate_series(2, 14000)")
    # It takes longer than it takes all of them to ask.
    sql = f"select count(*) as c from {table} a join {table} b on a.n * b.n % 7 = 3"
    names, ready = ("misses", "joined", "hits"), threading.Barrier(CLIENTS)
    before = [metric(gateway.url, f"nexus_cache_{name}_total") for name in names]

    def ask(_: int) -> tuple[list[dict], dict[str, str]]:
        with Client(gateway.flight) as client:
            [ticket] = client.info(statement(sql)).tickets
            ready.wait(60)
            call = client.stream(SERVICE + "DoGet", field(1, ticket), 60)
            return decode(call), dict(call.initial_metadata())

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(CLIENTS)))
    # Each remainder comes 2,000 times, and six pairs of them give 3.
    assert all(rows == [{"c": 6 * 2_000 * 2_000}] for rows, _ in answers)
    after = [metric(gateway.url, f"nexus_cache_{name}_total") for name in names]
    misses, joined, hits = (round(one - other) for one, other in zip(after, before, strict=True))
    assert (misses, joined + hits, joined > 0) == (1, CLIENTS - 1, True)
    told = Counter((head["x-nexus-cache"], head.get("x-nexus-cache-reason"), "age" in head) for _, head in answers)
    assert told == Counter({("miss", None, False): 1, ("miss", JOINED, True): joined, ("hit", None, True): hits})
    # Each is a statement with a record of its own.
    ran = post(gateway, f"select count(*) as c from system.queries where cache = 'miss' and statement = '{sql}'")
    assert ran.json() == {"c": misses + joined}
