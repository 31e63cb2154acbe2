"""Replicas: what a client carries is good at each that has the key, and at no other; keys are rotated; what is open at one
is not at another; JDBC writes through a balancer. `make test PARTS=replicas` sends what clients do through one."""

import base64
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest

import jdbc
import postgres
from gateway import Gateway, configured, nexus
from wire import SERVICE, Client, descriptor, field, first, packed, parse, statement

OLD, NEW, OTHER = (base64.b64encode(word * 8).decode() for word in (b"olds", b"news", b"else"))


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Gateway]]:
    """Two gateways of one key, one that seals with a newer key and still opens the old one's, and one of another key."""
    hashed = nexus("hash-password", stdin="ann").stdout.strip()
    user = f'[auth]\nmode = "basic"\n[auth.users.ann]\npassword_hash = "{hashed}"\n'
    started: dict[str, Gateway] = {}
    try:
        for name, keys in {"one": [OLD], "two": [OLD], "rotated": [NEW, OLD], "stranger": [OTHER]}.items():
            folder: Path = tmp_path_factory.mktemp(name)
            listed = ", ".join(f'"{key}"' for key in keys)
            started[name] = configured(folder, f"{user}[tickets]\nkeys = [{listed}]\n")
        yield started
    finally:
        assert [gateway.stop() for gateway in started.values()] == [0] * len(started)


def ann(gateway: Gateway, **headers: str) -> Client:
    """A connection with a password."""
    return Client(gateway.flight, "ann", "ann", **headers)


def action(client: Client, name: str, body: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The results of an action, and the headers that came with them."""
    call = client.channel.unary_stream(SERVICE + "DoAction")(
        field(1, name.encode()) + field(2, body), metadata=client.headers, timeout=30
    )
    results = [first(parse(message), 1) for message in call]
    return results, dict(call.initial_metadata())


def prepare(client: Client, sql: str) -> bytes:
    """The handle of a prepared statement."""
    request = packed("ActionCreatePreparedStatementRequest", field(1, sql.encode()))
    [result], _ = action(client, "CreatePreparedStatement", request)
    return first(parse(first(parse(result), 2)), 1)


def bind(client: Client, handle: bytes, **values: object) -> bytes:
    """The handle of the same statement with a row of parameters."""
    batch = pa.RecordBatch.from_pylist([values])
    command = descriptor(packed("CommandPreparedStatementQuery", field(1, handle)))
    messages = [
        field(1, command) + field(2, metadata(batch.schema.serialize())[0]),
        b"".join(field(number, value) for number, value in zip((2, 1000), metadata(batch.serialize()), strict=True)),
    ]
    call = client.channel.stream_stream(SERVICE + "DoPut")(iter(messages), metadata=client.headers, timeout=30)
    [answer] = list(call)
    return first(parse(first(parse(answer), 1)), 1)


def metadata(message: pa.Buffer) -> tuple[bytes, bytes]:
    """The header and the body of an encapsulated IPC message."""
    data = message.to_pybytes()
    length = int.from_bytes(data[4:8], "little")
    return data[8 : 8 + length], data[8 + length :]


@pytest.mark.parametrize("name", ["one", "two", "rotated"])
def test_a_ticket_of_one_is_run_by_another(name: str, replicas: dict[str, Gateway]) -> None:
    with ann(replicas["one"]) as one, ann(replicas[name]) as other:
        [ticket] = one.info(statement("select 42 as v")).tickets
        assert list(other.get(ticket))


@pytest.mark.parametrize("name", ["one", "two", "rotated"])
def test_a_prepared_statement_of_one_is_run_by_another(name: str, replicas: dict[str, Gateway]) -> None:
    with ann(replicas["one"]) as one, ann(replicas[name]) as other:
        handle = bind(one, prepare(one, "select cast($1 as bigint) + 1 as v"), a=41)
        [ticket] = other.info(packed("CommandPreparedStatementQuery", field(1, handle))).tickets
        assert b"".join(other.get(ticket)).count((42).to_bytes(8, "little")) == 1


@pytest.mark.parametrize("name", ["one", "two", "rotated"])
def test_a_token_of_one_opens_another(name: str, replicas: dict[str, Gateway]) -> None:
    with Client(replicas[name].flight, authorization=token(replicas["one"])) as other:
        assert other.rows("select 1 as v") == [{"v": 1}]


def token(gateway: Gateway) -> str:
    """The header that Handshake gives for a password."""
    with ann(gateway) as client:
        return client.handshake()


def session(gateway: Gateway, **options: str) -> str:
    """The cookie of a session with these options."""
    with ann(gateway, user_agent="grpc-java-netty/1.0") as client:
        _, headers = action(client, "GetSessionOptions", b"")
    with ann(gateway, cookie=headers["set-cookie"].split(";")[0]) as client:
        body = b"".join(field(1, field(1, name.encode()) + field(2, field(1, value.encode()))) for name, value in options.items())
        [result], headers = action(client, "SetSessionOptions", body)
        assert result == b""
    return headers["set-cookie"].split(";")[0]


@pytest.mark.parametrize("name", ["one", "two", "rotated"])
def test_a_session_of_one_holds_at_another(name: str, replicas: dict[str, Gateway]) -> None:
    cookie = session(replicas["one"], catalog="system", schema="main")
    with ann(replicas[name], cookie=cookie) as other:
        assert other.rows("select count(*) > 0 as v from settings") == [{"v": True}]


def test_what_the_new_key_seals_the_old_does_not_open(replicas: dict[str, Gateway]) -> None:
    with ann(replicas["rotated"]) as new, ann(replicas["two"]) as old:
        [ticket] = new.info(statement("select 1")).tickets
        with pytest.raises(grpc.RpcError) as error:
            list(old.get(ticket))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "tickets.keys" in error.value.details()


def test_a_stranger_opens_nothing(replicas: dict[str, Gateway]) -> None:
    with ann(replicas["one"]) as one, ann(replicas["stranger"]) as stranger:
        [ticket] = one.info(statement("select 1")).tickets
        handle = prepare(one, "select 1")
        for call in (
            lambda: list(stranger.get(ticket)),
            lambda: stranger.info(packed("CommandPreparedStatementQuery", field(1, handle))),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with Client(replicas["stranger"].flight, authorization=token(replicas["one"])) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.rows("select 1")
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with ann(replicas["stranger"], cookie=session(replicas["one"])) as client, pytest.raises(grpc.RpcError) as error:
        client.rows("select 1")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_transaction_of_one_is_not_open_at_another(replicas: dict[str, Gateway]) -> None:
    with ann(replicas["one"]) as one, ann(replicas["two"]) as two:
        [result], _ = action(one, "BeginTransaction", packed("ActionBeginTransactionRequest"))
        handle = first(parse(first(parse(result), 2)), 1)
        execute = packed("CommandStatementQuery", field(1, b"select 42 as v") + field(2, handle))
        commit = packed("ActionEndTransactionRequest", field(1, handle) + b"\x10\x01")
        for call in (lambda: two.info(execute), lambda: action(two, "EndTransaction", commit)):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "open on another server" in error.value.details()
        assert list(one.get(one.info(execute).tickets[0]))
        action(one, "EndTransaction", commit)


ENDLESS = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
CANCELLED = b"\x08\x01"


def test_a_statement_that_runs_at_one_is_not_cancelled_at_another(replicas: dict[str, Gateway]) -> None:
    with ann(replicas["one"]) as one, ann(replicas["two"]) as two:
        info = one.unary(SERVICE + "GetFlightInfo", descriptor(statement(ENDLESS)))
        [endpoint] = [value for number, value in parse(info) if number == 3]
        stream = one.get(first(parse(first(parse(endpoint), 1)), 1))
        next(stream)
        try:
            with pytest.raises(grpc.RpcError) as error:
                action(two, "CancelFlightInfo", field(1, info))
            assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert action(one, "CancelFlightInfo", field(1, info))[0] == [CANCELLED]
        finally:
            stream.cancel()


def test_jdbc_writes_through_replicas_of_one_database(tmp_path: Path) -> None:
    with postgres.server() as database:
        database.sql("create schema main")
        text = f'[catalogs.demo]\nkind = "postgres"\nwritable = true\nurl = "{database.url}"\npassword = "{postgres.PASSWORD}"\n'
        with configured(tmp_path, text, replicas=2) as balanced:
            said = jdbc.values(jdbc.probe("writes", balanced.flight))
        assert (said["create"], said["insert"], said["prepared"], said["batch"]) == (0, 2, 1, [5])
        assert said["execute"] == {"hasRows": False, "count": 2}
        assert said["delete"] == 2
        written = database.sql("select id, name, price, day from main.by_jdbc order by id")
        assert written == [[value or "" for value in row] for row in said["rows"]]
        assert [row[0] for row in written] == ["1", "2", "3", "10", "11", "12"]
