"""pyarrow.flight and plain gRPC: schemas, the size of messages, tickets, health, what is not offered."""

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from gateway import Gateway, configured, users
from wire import Client, basic, field, packed, statement

LARGEST_MESSAGE = 3_500_000


@pytest.fixture
def wire(embedded: Gateway) -> Iterator[Client]:
    """A plain gRPC connection to the demo that takes every type as it is."""
    with Client(embedded.flight, x_nexus_type_profile="native") as client:
        yield client


def read(client: flight.FlightClient, sql: str) -> pa.Table:
    """A statement through GetFlightInfo and DoGet."""
    info = client.get_flight_info(flight.FlightDescriptor.for_command(statement(sql)))
    return client.do_get(info.endpoints[0].ticket).read_all()


def test_a_statement_gives_its_rows(client: flight.FlightClient) -> None:
    assert read(client, "select n_name from nation where n_nationkey = 7").to_pylist() == [{"n_name": "GERMANY"}]


def test_the_schema_is_one_and_the_same_everywhere(client: flight.FlightClient) -> None:
    descriptor = flight.FlightDescriptor.for_command(statement("select * from lineitem"))
    info = client.get_flight_info(descriptor)
    assert client.get_schema(descriptor).schema == info.schema
    assert client.do_get(info.endpoints[0].ticket).schema == info.schema


def test_endpoints_name_no_place(client: flight.FlightClient) -> None:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1")))
    assert [list(endpoint.locations) for endpoint in info.endpoints] == [[]]


def test_a_ticket_may_be_used_twice(client: flight.FlightClient) -> None:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 42 as v")))
    for _ in range(2):
        assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"v": 42}]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from lineitem",
        "select repeat('x', 1000) as wide, value from generate_series(1, 20000)",
        "select repeat('x', 3000000) as wide from generate_series(1, 5)",
        "select l_comment, make_array(l_comment, l_shipmode) as both from lineitem",
        "select arrow_cast(l_comment, 'Dictionary(Int32, Utf8)') as d from lineitem",
    ],
    ids=["lineitem", "wide", "very wide", "nested", "dictionary"],
)
@pytest.mark.parametrize("profile", ["native", "lowered"])
def test_no_message_is_larger_than_the_bound(sql: str, profile: str, embedded: Gateway) -> None:
    with Client(embedded.flight, x_nexus_type_profile=profile) as client:
        [ticket] = client.info(statement(sql)).tickets
        sizes = [len(message) for message in client.get(ticket)]
    assert len(sizes) > 1
    assert max(sizes) <= LARGEST_MESSAGE


def test_a_row_that_alone_is_larger_comes_in_a_message_of_its_own(wire: Client) -> None:
    sql = "select repeat('x', 5000000) as wide from generate_series(1, 3)"
    assert [len(row["wide"]) for row in wire.rows(sql)] == [5_000_000] * 3


def test_strings_that_are_views_do_not_drag_their_buffers_along(wire: Client) -> None:
    [ticket] = wire.info(statement("select l_comment from lineitem where l_linenumber = 7")).tickets
    sizes = [len(message) for message in wire.get(ticket)]
    rows = wire.rows("select count(*) as n from lineitem where l_linenumber = 7")[0]["n"]
    assert sum(sizes) < rows * 100 + 10_000


def test_health(wire: Client) -> None:
    serving = b"\x08\x01"
    assert wire.unary("/grpc.health.v1.Health/Check", b"") == serving
    assert wire.unary("/grpc.health.v1.Health/Check", field(1, b"arrow.flight.protocol.FlightService")) == serving


def test_what_is_not_offered_says_so(wire: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        wire.info(packed("CommandNoSuchThing"))
    assert error.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT)


def test_every_action_is_listed(client: flight.FlightClient) -> None:
    prepared = {"CreatePreparedStatement", "CreatePreparedSubstraitPlan", "ClosePreparedStatement"}
    transactions = {"BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"}
    sessions = {"SetSessionOptions", "GetSessionOptions", "CloseSession"}
    running = {"CancelFlightInfo", "CancelQuery", "RenewFlightEndpoint"}
    assert {action.type for action in client.list_actions()} == prepared | transactions | sessions | running


def test_flights_are_not_listed(client: flight.FlightClient) -> None:
    said = "ListFlights is not offered: this is a Flight SQL endpoint; send a Flight SQL command by GetFlightInfo"
    with pytest.raises(NotImplementedError, match=said):
        list(client.list_flights())


def test_a_path_and_an_exchange_are_not_offered(client: flight.FlightClient) -> None:
    path = flight.FlightDescriptor.for_path("a", "b")
    schema = pa.schema([("a", pa.int64())])
    with pytest.raises(NotImplementedError, match="this is a Flight SQL endpoint"):
        client.get_flight_info(path)

    # The refusal may meet the client as soon as it opens the stream, or when it reads or closes it.
    def put() -> None:
        writer, _ = client.do_put(path, schema)
        writer.close()

    def exchange() -> None:
        _, reader = client.do_exchange(path)
        reader.read_chunk()

    with pytest.raises(NotImplementedError, match="this is a Flight SQL endpoint"):
        put()
    with pytest.raises(NotImplementedError, match="DoExchange is not offered"):
        exchange()


@pytest.mark.parametrize(
    "command", [b"", b"\xff", b"\x0a\xff\xff\xff\xff\x0f", packed("CommandStatementQuery", b"\xff\xff"), b"x" * 100_000]
)
def test_a_command_that_is_not_one(command: bytes, wire: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        wire.info(command)
    assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
    assert wire.rows("select 1 as v") == [{"v": 1}]


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with two users, whose tickets hold for two seconds."""
    folder: Path = tmp_path_factory.mktemp("brief")
    text = "\n".join([users("ann", "bob"), '[tickets]\nttl = "2s"'])
    with configured(folder, text) as gateway:
        yield gateway


def refused(client: Client, ticket: bytes) -> grpc.RpcError:
    """The error of a ticket that must not open."""
    with pytest.raises(grpc.RpcError) as error:
        list(client.get(ticket))
    return error.value


def test_a_forged_ticket(brief: Gateway) -> None:
    with Client(brief.flight, "ann", "ann") as ann:
        [ticket] = ann.info(statement("select 1 as v")).tickets
        assert list(ann.get(ticket))
        for at in range(0, len(ticket), 7):
            forged = bytes([*ticket[:at], ticket[at] ^ 1, *ticket[at + 1 :]])
            assert refused(ann, forged).code() in FORGED
        for forged in (b"", b"x", ticket[:-1], ticket + b"x", bytes(len(ticket)), statement("select 1")):
            assert refused(ann, forged).code() in FORGED
        assert ann.rows("select 1 as v") == [{"v": 1}]


FORGED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
)


def test_the_ticket_of_another_user(brief: Gateway) -> None:
    with Client(brief.flight, "ann", "ann") as ann, Client(brief.flight, "bob", "bob") as bob:
        [ticket] = ann.info(statement("select 1 as v")).tickets
        assert refused(bob, ticket).code() is grpc.StatusCode.PERMISSION_DENIED
        assert list(ann.get(ticket))


def test_an_expired_ticket(brief: Gateway) -> None:
    with Client(brief.flight, "ann", "ann") as ann:
        [ticket] = ann.info(statement("select 1 as v")).tickets
        assert list(ann.get(ticket))
        # The time in a ticket is in whole seconds.
        expired = time.monotonic() + 3.2
        while (left := expired - time.monotonic()) > 0:
            time.sleep(left)
        error = refused(ann, ticket)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "expired" in error.details()


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!", basic("ann", "wrong"), "Basic YW5u", "Basic Og==", "Bearer x", "Bearer ", "Digest x"]
)
def test_credentials_that_are_none(header: str, brief: Gateway) -> None:
    with Client(brief.flight, authorization=header) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.info(statement("select 1"))
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert 'peer="127.0.0.1:' in next(line for line in brief.logged().splitlines() if "credentials refused" in line)
    with Client(brief.flight) as client, pytest.raises(grpc.RpcError) as error:
        client.info(statement("select 1"))
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_pyarrow_logs_in_with_a_password(brief: Gateway) -> None:
    with flight.connect(brief.uri) as client:
        header = client.authenticate_basic_token("ann", "ann")
        options = flight.FlightCallOptions(headers=[header])
        info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1 as v")), options)
        assert client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist() == [{"v": 1}]
