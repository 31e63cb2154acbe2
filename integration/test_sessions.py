"""What a gateway gives one user to carry is of no use to another, and stays of use to the one: sessions, prepared statements,
transactions, savepoints and tickets. A session that was closed, changed, or is of another gateway's key is refused."""

import base64
from collections.abc import Callable, Iterator

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pytest

import postgres
from gateway import REPLICAS, Gateway, configured, users
from wire import SERVICE, Client, bound, decode, descriptor, field, first, packed, parse, prepared, statement

MEMORY = '[catalogs.demo]\nkind = "memory"\nwritable = true\n'
WHERE = "select count(*) > 0 as v from settings"
DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NAME = "nexus-session"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with two users and a table."""
    folder = tmp_path_factory.mktemp("two")
    with (
        postgres.taking_rows("demo", "main", REPLICAS) as catalog,
        configured(folder, f"{catalog}{users('ann', 'bob')}") as gateway,
    ):
        with Client(gateway.flight, "ann", "ann") as client:
            client.update("create table demo.main.t (id bigint)")
        yield gateway


@pytest.fixture(scope="module")
def tokens(gateway: Gateway) -> dict[str, str]:
    """What the users get for their passwords."""
    given = {}
    for name in ("ann", "bob"):
        with Client(gateway.flight, name, name) as client:
            given[name] = client.handshake()
    return given


@pytest.fixture
def ann(gateway: Gateway, tokens: dict[str, str]) -> Iterator[Client]:
    """Who has what the other wants."""
    with Client(gateway.flight, authorization=tokens["ann"]) as client:
        client.update("delete from demo.main.t")
        yield client


@pytest.fixture
def bob(gateway: Gateway, tokens: dict[str, str]) -> Iterator[Client]:
    """The other."""
    with Client(gateway.flight, authorization=tokens["bob"]) as client:
        yield client


def refused(call: Callable[[], object], code: grpc.StatusCode, words: str) -> None:
    """That a call ends with a code and with words that say why."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert (error.value.code(), words in error.value.details()) == (code, True), error.value.details()


def ids(client: Client, transaction: bytes = b"") -> list[int]:
    return [row["id"] for row in client.rows("select id from demo.main.t order by id", transaction=transaction)]


def test_a_session(ann: Client, bob: Client) -> None:
    cookie = ann.session(catalog="system", schema="main")
    bob.headers.append(("cookie", cookie))
    for call in (
        lambda: bob.rows(WHERE),
        lambda: bob.schema(statement(WHERE)),
        lambda: bob.prepare(WHERE),
        lambda: bob.update("insert into demo.main.t values (1)"),
        lambda: bob.action("GetSessionOptions", b""),
        lambda: bob.action("SetSessionOptions", b""),
        lambda: bob.action("CloseSession", b""),
        bob.handshake,
    ):
        refused(call, DENIED, "the session belongs to another user; connect again")
    assert ann.rows(WHERE) == [{"v": True}]
    assert ids(ann) == []


def test_a_prepared_statement(ann: Client, bob: Client) -> None:
    reads, writes = ann.prepare("select cast($1 as bigint) + 1 as v"), ann.prepare("insert into demo.main.t values ($1)")
    own = ann.bind(reads, a=41)
    for call in (
        lambda: bob.info(prepared(own)),
        lambda: bob.schema(prepared(reads)),
        lambda: bob.unary(SERVICE + "PollFlightInfo", descriptor(prepared(own))),
        lambda: bob.bind(reads, a=1),
        lambda: bob.put(bound("CommandPreparedStatementUpdate", writes, a=1)),
    ):
        refused(call, DENIED, "the prepared statement was made for another user")
    # Handles hold nothing, so whoever gives one back ends nothing.
    assert bob.action("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", field(1, own))) == []
    assert ann.run(prepared(own)) == [{"v": 42}]
    assert ann.run(prepared(ann.bind(reads, a=1))) == [{"v": 2}]
    assert ids(ann) == []
    ann.put(bound("CommandPreparedStatementUpdate", writes, a=7))
    assert ids(ann) == [7]


def test_a_transaction(ann: Client, bob: Client) -> None:
    transaction = ann.begin()
    ann.update("insert into demo.main.t values (1)", transaction)
    savepoint = ann.savepoint(transaction)
    ann.update("insert into demo.main.t values (2)", transaction)
    for call in (
        lambda: ids(bob, transaction),
        lambda: bob.schema(statement("select 1", transaction)),
        lambda: bob.prepare("select 1", transaction),
        lambda: bob.update("insert into demo.main.t values (3)", transaction),
        lambda: bob.savepoint(transaction),
        lambda: bob.end(transaction),
        lambda: bob.end(transaction, commits=False),
    ):
        refused(call, DENIED, "the transaction was made for another user; ask for one of your own")
    for releases in (True, False):
        refused(
            lambda releases=releases: bob.end_savepoint(savepoint, releases), DENIED, "the savepoint was made for another user"
        )
    assert ids(bob) == []
    assert ids(ann, transaction) == [1, 2]
    ann.end_savepoint(savepoint, releases=False)
    assert ids(ann, transaction) == [1]
    ann.end(transaction)
    assert ids(bob) == [1]


def test_a_ticket(ann: Client, bob: Client) -> None:
    info = ann.unary(SERVICE + "GetFlightInfo", descriptor(statement("select 42 as v")))
    endpoint = first(parse(info), 3)
    ticket = first(parse(first(parse(endpoint), 1)), 1)
    for call in (
        lambda: list(bob.get(ticket)),
        lambda: bob.action("CancelFlightInfo", field(1, info)),
        lambda: bob.action("CancelQuery", packed("ActionCancelQueryRequest", field(1, info))),
        lambda: bob.action("RenewFlightEndpoint", field(1, endpoint)),
    ):
        refused(call, DENIED, "the ticket was made for another user; ask for one of your own")
    # What was cancelled would not begin any more.
    assert decode(ann.get(ticket)) == [{"v": 42}]
    [renewed] = ann.action("RenewFlightEndpoint", field(1, endpoint))
    assert decode(ann.get(first(parse(first(parse(renewed), 1)), 1))) == [{"v": 42}]


def test_a_session_that_was_closed(ann: Client) -> None:
    ann.session(catalog="system", schema="main")
    assert ann.rows(WHERE) == [{"v": True}]
    assert ann.action("CloseSession", b"") == [b"\x08\x01"]
    for call in (lambda: ann.rows(WHERE), lambda: ann.action("GetSessionOptions", b"")):
        refused(call, grpc.StatusCode.FAILED_PRECONDITION, "the session was closed; connect again")


def test_a_session_that_was_changed(ann: Client) -> None:
    name, _, value = ann.session(catalog="system", schema="main").partition("=")
    assert name == NAME
    sealed = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    changed = [bytes([*sealed[:at], sealed[at] ^ 1, *sealed[at + 1 :]]) for at in range(0, len(sealed), 5)]
    values = [base64.urlsafe_b64encode(forged).decode().rstrip("=") for forged in (*changed, sealed[:-1], sealed + b"x", b"")]
    known = ann.headers[:]
    for forged in (*values, "x", "!", f"{value}="):
        ann.headers = [known[0], ("cookie", f"{NAME}={forged}")]
        refused(lambda: ann.rows(WHERE), INVALID, "the session was not made by this server, or was changed")
    ann.headers = known
    assert ann.rows(WHERE) == [{"v": True}]


def test_an_older_value_of_a_session(ann: Client) -> None:
    older = ann.session(catalog="demo", schema="main")
    newer = ann.set(catalog="system")
    ann.headers = [*ann.headers[:1], ("cookie", older)]
    # What was set since holds, and the client is given the newer value once more.
    results, headers = ann.called("GetSessionOptions", b"")
    assert b"system" in results[0]
    assert ann.keep(headers) != older
    assert ann.rows(WHERE) == [{"v": True}]
    # So it does where it goes on from the older one, and of what is unset.
    ann.headers = [*ann.headers[:1], ("cookie", older)]
    ann.set(schema="main", cache="bypass")
    ann.headers = [*ann.headers[:1], ("cookie", newer)]
    assert b"no-store" in ann.action("GetSessionOptions", b"")[0]
    ann.action("CloseSession", b"")
    for cookie in (older, newer):
        ann.headers = [*ann.headers[:1], ("cookie", cookie)]
        refused(lambda: ann.rows(WHERE), grpc.StatusCode.FAILED_PRECONDITION, "the session was closed; connect again")


def test_a_driver_that_goes_back_to_an_older_value(gateway: Gateway, ann: Client) -> None:
    settings = {"username": "ann", "password": "ann", "adbc.flight.sql.rpc.with_cookie_middleware": "true"}
    options, current = "adbc.flight.sql.session.option.", "select cast(count(*) as bigint) from settings"
    with flightsql.connect(gateway.uri, db_kwargs=settings, autocommit=True) as connection, connection.cursor() as other:
        with connection.cursor() as cursor:
            cursor.execute("select value from generate_series(1, 100000)")
            cursor.fetchone()
            connection.adbc_connection.set_options(**{f"{options}catalog": "system", f"{options}schema": "main"})
        # Its rows are closed, and the driver has the cookie again that came with them.
        other.execute(current)
        assert other.fetchone()[0] > 0
        with connection.cursor() as cursor:
            cursor.execute("select value from generate_series(1, 100000)")
            other.execute("begin")
            other.execute("insert into demo.main.t values (1)")
        other.execute("rollback")
        assert ids(ann) == []


def test_a_session_of_another_key(gateway: Gateway, ann: Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    with configured(tmp_path_factory.mktemp("other"), MEMORY, replicas=1) as other, Client(other.flight) as client:
        ann.headers.append(("cookie", client.session(catalog="system", schema="main")))
        refused(lambda: ann.rows(WHERE), INVALID, "replicas must share tickets.keys")
        # It is that gateway's, and holds there.
        assert client.rows(WHERE) == [{"v": True}]
