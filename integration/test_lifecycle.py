"""What can be done to a statement that was described: polled, renewed, cancelled."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pytest
import requests

import postgres
import wire as plain
from gateway import Gateway, configured, eventually, users
from postgres import Database
from wire import SERVICE, Client, called_by_go, decode, descriptor, field, first, packed, parse, statement

ENDLESS = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
CANCELLED = b"\x08\x01"
NOT_CANCELLABLE = b"\x08\x03"


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with two users, whose tickets hold for two seconds, and a catalog that takes rows."""
    text = "\n".join([users("ann", "bob"), '[tickets]\nttl = "2s"', '[catalogs.kept]\nkind = "memory"\nwritable = true'])
    with configured(tmp_path_factory.mktemp("brief"), text) as gateway:
        yield gateway


@pytest.fixture
def wire(embedded: Gateway) -> Iterator[Client]:
    """A plain connection to the demo."""
    with Client(embedded.flight) as client:
        yield client


def described(client: Client, sql: str) -> bytes:
    """The FlightInfo of a statement, as it came."""
    return client.unary(SERVICE + "GetFlightInfo", descriptor(statement(sql)))


def endpoint(info: bytes) -> bytes:
    """Its one endpoint."""
    [only] = [value for number, value in parse(info) if number == 3]
    return only


def ticket(of_endpoint: bytes) -> bytes:
    """The ticket of an endpoint."""
    return first(parse(first(parse(of_endpoint), 1)), 1)


def cancel(client: Client, info: bytes) -> bytes:
    """CancelFlightInfo: its result, as it came."""
    [result] = client.action("CancelFlightInfo", field(1, info))
    return result


def running(client: Client) -> list[str]:
    """The endless statements on record as running."""
    rows = client.rows("select statement from system.main.queries where state = 'running'")
    return [row["statement"] for row in rows if row["statement"] == ENDLESS]


def test_a_poll_is_complete_at_once(wire: Client) -> None:
    poll = parse(wire.unary(SERVICE + "PollFlightInfo", descriptor(statement("select 42 as v"))))
    assert first(poll, 2) == b"", "there is nothing to poll again"
    assert list(wire.get(ticket(endpoint(first(poll, 1)))))


@pytest.mark.parametrize("sql", ["create table polled as select 1 as a", "insert into nation select * from nation", "begin"])
def test_what_writes_is_not_polled_for(sql: str, wire: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        wire.unary(SERVICE + "PollFlightInfo", descriptor(statement(sql)))
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "a statement that writes is not polled for" in error.value.details()


def test_adbc_polls_for_its_partitions(embedded: Gateway) -> None:
    with flightsql.connect(embedded.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.statement.exec.incremental": "true"})
        partitions, _ = cursor.adbc_execute_partitions("select 42 as v")
        assert len(partitions) == 1
        cursor.adbc_read_partition(partitions[0])
        assert cursor.fetchall() == [(42,)]


def test_a_statement_is_cancelled_while_it_streams(wire: Client) -> None:
    info = described(wire, ENDLESS)
    stream = wire.get(ticket(endpoint(info)))
    next(stream)
    assert running(wire) == [ENDLESS]
    asked = time.monotonic()
    assert cancel(wire, info) == CANCELLED
    with pytest.raises(grpc.RpcError) as error:
        list(stream)
    assert time.monotonic() - asked < 1
    assert error.value.code() is grpc.StatusCode.CANCELLED
    assert running(wire) == []


def test_a_statement_that_was_cancelled_does_not_begin(wire: Client) -> None:
    info = described(wire, "select 1")
    assert list(wire.get(ticket(endpoint(info))))
    assert cancel(wire, info) == CANCELLED
    with pytest.raises(grpc.RpcError) as error:
        list(wire.get(ticket(endpoint(info))))
    assert error.value.code() is grpc.StatusCode.CANCELLED


def test_the_older_action_cancels_too(wire: Client) -> None:
    info = described(wire, ENDLESS)
    stream = wire.get(ticket(endpoint(info)))
    next(stream)
    [result] = wire.action("CancelQuery", packed("ActionCancelQueryRequest", field(1, info)))
    assert first(parse(result), 2) == CANCELLED
    with pytest.raises(grpc.RpcError) as error:
        list(stream)
    assert error.value.code() is grpc.StatusCode.CANCELLED


def test_go_cancels_a_statement_while_it_streams(embedded: Gateway, wire: Client) -> None:
    said = called_by_go("cancel", embedded.flight)
    assert (said["streams"], said["said"], said["ended"]) == (True, "CANCEL_STATUS_CANCELLED", "Canceled")
    assert said["seconds"] < 1
    assert running(wire) == []


def test_go_renews_an_endpoint(embedded: Gateway) -> None:
    assert called_by_go("renew", embedded.flight) == {"longer": True, "rows": [42]}


def test_metadata_is_answered_at_once_and_cannot_be_cancelled(wire: Client) -> None:
    info = wire.unary(SERVICE + "GetFlightInfo", descriptor(packed("CommandGetCatalogs")))
    assert cancel(wire, info) == NOT_CANCELLABLE


def test_what_has_written_cannot_be_cancelled(brief: Gateway) -> None:
    with Client(brief.flight, "ann", "ann") as ann:
        ann.update("create table kept.main.t (id bigint)")
        info = described(ann, "insert into kept.main.t values (1)")
        assert cancel(ann, info) == NOT_CANCELLABLE
        [older] = ann.action("CancelQuery", packed("ActionCancelQueryRequest", field(1, info)))
        assert first(parse(older), 2) == NOT_CANCELLABLE
        assert decode(ann.get(ticket(endpoint(info)))) == [{"count": 1}]
        assert ann.rows("select id from kept.main.t") == [{"id": 1}]


def test_an_endpoint_is_renewed_while_its_ticket_holds(brief: Gateway) -> None:
    with Client(brief.flight, "ann", "ann") as ann:
        old = endpoint(described(ann, "select 1"))
        began = time.monotonic()
        new = old
        # Longer than any one ticket holds.
        while time.monotonic() - began < 4:
            [new] = ann.action("RenewFlightEndpoint", field(1, new))
            assert list(ann.get(ticket(new)))
        with pytest.raises(grpc.RpcError) as error:
            list(ann.get(ticket(old)))
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.RpcError) as error:
            ann.action("RenewFlightEndpoint", field(1, old))
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_another_user_neither_renews_nor_cancels(brief: Gateway) -> None:
    with Client(brief.flight, "ann", "ann") as ann, Client(brief.flight, "bob", "bob") as bob:
        info = described(ann, "select 1")
        for name, body in (("RenewFlightEndpoint", endpoint(info)), ("CancelFlightInfo", info)):
            with pytest.raises(grpc.RpcError) as error:
                bob.action(name, field(1, body))
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_statement_outlives_its_ticket_and_can_still_be_cancelled(brief: Gateway) -> None:
    with Client(brief.flight, "ann", "ann") as ann:
        info = described(ann, ENDLESS)
        stream = ann.get(ticket(endpoint(info)))
        began = time.monotonic()
        while time.monotonic() - began < 3.2:
            next(stream)
        assert cancel(ann, info) == CANCELLED
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
        assert error.value.code() is grpc.StatusCode.CANCELLED


SEED = """
create table people as select n as id, 'name ' || n as name from generate_series(1, 100000) n;
create view endless as select a.id, b.name from people a cross join people b;
"""
SLOTS = 2


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A server with a view without an end."""
    with postgres.server() as database:
        database.sql(SEED)
        yield database


@pytest.fixture(scope="module")
def shop(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with it, where two statements run at once."""
    text = f"[limits]\nconcurrency = {SLOTS}\n{database.catalog('shop')}"
    with configured(tmp_path_factory.mktemp("shop"), text, replicas=1) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def hasty(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with it, which waits two seconds for a reader that takes nothing."""
    text = f'[limits]\nstall = "2s"\n{database.catalog("shop")}'
    with configured(tmp_path_factory.mktemp("hasty"), text, replicas=1) as gateway:
        yield gateway


# How a client ends a statement, by its FlightInfo or by the stream of its rows.
ENDS: dict[str, Callable[[Client, bytes, grpc.Call], object]] = {
    "CancelFlightInfo": lambda client, info, _: cancel(client, info),
    "CancelQuery": lambda client, info, _: client.action("CancelQuery", packed("ActionCancelQueryRequest", field(1, info))),
    "dropped": lambda _, __, stream: stream.cancel(),
}
# Each holds memory: of the join one side, and of the order all rows.
STREAMS = "select e.id from shop.public.people p join shop.public.endless e on p.id = e.id"
GATHERS = "select id from shop.public.endless order by name"


def ends_everywhere(shop: Gateway, database: Database, others: int = 0) -> bool:
    """Whether within a second nothing runs at the database, and at the gateway only others, and nobody else holds memory."""

    def has_ended() -> bool:
        holds_none = others > 0 or plain.reserved(shop) == 0
        return not database.running() and plain.running(shop) == others and holds_none

    return eventually(has_ended, 1)


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.parametrize(("sql", "streams"), [(STREAMS, True), (GATHERS, False)], ids=["streams", "gathers"])
def test_what_ends_while_it_runs_ends_at_the_database(
    sql: str, streams: bool, way: str, shop: Gateway, database: Database
) -> None:
    with Client(shop.flight) as client:
        info = described(client, sql)
        stream = client.get(ticket(endpoint(info)))
        if streams:
            assert next(stream)
            assert next(stream)
        assert eventually(lambda: bool(database.running("endless")) and plain.reserved(shop) > 0, 10)
        ENDS[way](client, info, stream)
        assert ends_everywhere(shop, database)
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
        assert error.value.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("way", ENDS)
def test_what_ends_while_it_waits_never_comes_to_the_database(way: str, shop: Gateway, database: Database) -> None:
    with Client(shop.flight) as client:
        before = [client.get(ticket(endpoint(described(client, ENDLESS)))) for _ in range(SLOTS)]
        for each in before:
            next(each)
        info = described(client, STREAMS)
        stream = client.get(ticket(endpoint(info)))
        assert eventually(lambda: plain.running(shop) == SLOTS + 1, 10)
        ENDS[way](client, info, stream)
        assert ends_everywhere(shop, database, SLOTS)
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
        assert error.value.code() is grpc.StatusCode.CANCELLED
        for each in before:
            each.cancel()
    assert ends_everywhere(shop, database)


@pytest.mark.parametrize("way", [*ENDS, "described"])
def test_what_ends_while_it_is_planned_ends_at_the_database(way: str, shop: Gateway, database: Database) -> None:
    """As it is for its rows again, and, where it is dropped, in GetFlightInfo too."""
    with Client(shop.flight) as client:
        info = described(client, STREAMS)
        with database.locked("pg_catalog.pg_description"):
            if way == "described":
                asked = client.channel.unary_unary(SERVICE + "GetFlightInfo").future(descriptor(statement(STREAMS)))
            else:
                asked = client.get(ticket(endpoint(info)))
            assert eventually(lambda: bool(database.running("col_description(")), 10)
            if way == "described":
                asked.cancel()
            else:
                ENDS[way](client, info, asked)
            assert ends_everywhere(shop, database)
        with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
            list(asked.result() if way == "described" else asked)


@contextmanager
def begun(gateway: Gateway, over_http: bool) -> Iterator[Callable[[], bytes]]:
    """Rows without an end, at Flight or over HTTP: what takes some of them."""
    if over_http:
        with requests.post(f"{gateway.url}/v1/sql", data=STREAMS.encode(), stream=True, timeout=60) as answer:
            pieces = answer.iter_content(1 << 16)
            yield lambda: next(pieces)
    else:
        with Client(gateway.flight) as client:
            stream = client.get(ticket(endpoint(described(client, STREAMS))), timeout=120)
            yield lambda: next(stream)


@pytest.mark.parametrize("over_http", [False, True], ids=["flight", "http"])
def test_a_reader_that_takes_nothing_is_given_up(over_http: bool, hasty: Gateway, database: Database) -> None:
    with begun(hasty, over_http) as take, Client(hasty.flight) as other:
        assert take()
        # What comes first tells the columns, and the rows are asked for then.
        assert eventually(lambda: database.running("endless") and plain.reserved(hasty) > 0, 10)
        assert eventually(lambda: not database.running() and plain.running(hasty) == plain.reserved(hasty) == 0, 30)
        here = f"select state, error from system.main.queries where statement = '{STREAMS}' order by started desc limit 1"
        [record] = other.rows(here)
        assert record["state"] == "timeout"
        assert "limits.stall" in record["error"]
        # What was on its way comes, and then an error: an end that passes for one would be StopIteration.
        with pytest.raises((grpc.RpcError, requests.RequestException)) as error:
            all(take() for _ in itertools.count())
    if not over_http:
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "the client took no rows for 2s; read on sooner, or raise limits.stall" in error.value.details()


@pytest.mark.parametrize("over_http", [False, True], ids=["flight", "http"])
def test_a_reader_that_takes_a_little_at_a_time_is_not_given_up(over_http: bool, hasty: Gateway, database: Database) -> None:
    with begun(hasty, over_http) as take:
        began = time.monotonic()
        # More than twice as long as the gateway waits for one that takes nothing.
        while time.monotonic() - began < 5.5:
            assert take()
            # It is slower than the rows are made.
            time.sleep(0.01)
        assert database.running("endless")
    assert eventually(lambda: not database.running() and plain.running(hasty) == 0, 10)


@pytest.mark.parametrize("name", ["CancelFlightInfo", "RenewFlightEndpoint", "CancelQuery"])
@pytest.mark.parametrize("body", [b"", b"\xff", b"x" * 1000, field(1, field(3, field(1, field(1, b"x"))))])
def test_a_body_that_is_none(name: str, body: bytes, wire: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        wire.action(name, body)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
