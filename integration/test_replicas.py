"""Replicas: what a client carries is good at each that has the key, also at one that was started anew, and at no other, until
it expires; keys are rotated; what is open at one is not at another; JDBC writes through a balancer. `make test PARTS=replicas`
sends what clients do through one."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import jdbc
import postgres
import run
from bound import ALONE, BOUND
from gateway import Gateway, configured, users
from wire import SERVICE, Client, decode, descriptor, field, first, packed, parse, prepared, statement

OLD, NEW, OTHER = (base64.b64encode(word * 8).decode() for word in (b"olds", b"news", b"else"))


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Gateway]]:
    """Two gateways of one key, one that seals with a newer key and still opens the old one's, and one of another key."""
    user = users("ann")
    started: dict[str, Gateway] = {}
    try:
        for name, keys in {"one": [OLD], "two": [OLD], "rotated": [NEW, OLD], "stranger": [OTHER]}.items():
            folder: Path = tmp_path_factory.mktemp(name)
            listed = ", ".join(f'"{key}"' for key in keys)
            started[name] = configured(folder, f"{user}\n[tickets]\nkeys = [{listed}]\n")
        yield started
    finally:
        assert [gateway.stop() for gateway in started.values()] == [0] * len(started)


def ann(gateway: Gateway, **headers: str) -> Client:
    """A connection with a password."""
    return Client(gateway.flight, "ann", "ann", **headers)


@pytest.mark.parametrize("name", ["one", "two", "rotated"])
def test_a_ticket_of_one_is_run_by_another(name: str, replicas: dict[str, Gateway]) -> None:
    with ann(replicas["one"]) as one, ann(replicas[name]) as other:
        [ticket] = one.info(statement("select 42 as v")).tickets
        assert decode(other.get(ticket)) == [{"v": 42}]


@pytest.mark.parametrize("name", ["one", "two", "rotated"])
def test_a_prepared_statement_of_one_is_run_by_another(name: str, replicas: dict[str, Gateway]) -> None:
    with ann(replicas["one"]) as one, ann(replicas[name]) as other:
        handle = one.bind(one.prepare("select cast($1 as bigint) + 1 as v"), a=41)
        assert other.run(prepared(handle)) == [{"v": 42}]


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
    with ann(gateway) as client:
        return client.session(**options)


@pytest.mark.parametrize("name", ["one", "two", "rotated"])
def test_a_session_of_one_holds_at_another(name: str, replicas: dict[str, Gateway]) -> None:
    cookie = session(replicas["one"], catalog="system", schema="main")
    with ann(replicas[name], cookie=cookie) as other:
        assert other.rows("select count(*) > 0 as v from settings") == [{"v": True}]


def test_what_clients_carry_outlives_a_restart(tmp_path: Path) -> None:
    text = f'{users("ann")}\n[tickets]\nkeys = ["{OLD}"]\n'
    with configured(tmp_path, text) as before, ann(before) as client:
        [ticket] = client.info(statement("select 42 as v")).tickets
        handle = client.bind(client.prepare("select cast($1 as bigint) + 1 as v"), a=41)
        bearer, cookie = token(before), session(before, catalog="system", schema="main")
    # The same configuration at another address, as a process that is started anew.
    with configured(tmp_path, text) as after, Client(after.flight, authorization=bearer) as client:
        assert after.pid != before.pid
        assert decode(client.get(ticket)) == [{"v": 42}]
        assert client.run(prepared(handle)) == [{"v": 42}]
        with ann(after, cookie=cookie) as same:
            assert same.rows("select count(*) > 0 as v from settings") == [{"v": True}]


def test_what_clients_carry_expires(tmp_path: Path) -> None:
    text = f'{users("ann")}\n[tickets]\nsession_ttl = "2s"\nkeys = ["{OLD}"]\n'
    with configured(tmp_path, text) as gateway, ann(gateway) as client:
        # Each is good when it is new.
        handle = client.bind(client.prepare("select cast($1 as bigint) + 1 as v"), a=41)
        assert client.run(prepared(handle)) == [{"v": 42}]
        cookie = session(gateway, catalog="system", schema="main")
        in_session = ann(gateway, cookie=cookie)
        assert in_session.rows("select count(*) > 0 as v from settings") == [{"v": True}]
        with_token = Client(gateway.flight, authorization=token(gateway))
        assert with_token.rows("select 42 as v") == [{"v": 42}]
        # The time in each is in whole seconds.
        expired = time.monotonic() + 3.2
        # What is given for a token ends with it, however late it is asked for.
        time.sleep(1.5)
        with_token_for_it = Client(gateway.flight, authorization=with_token.handshake())
        assert with_token_for_it.rows("select 42 as v") == [{"v": 42}]
        while (left := expired - time.monotonic()) > 0:
            time.sleep(left)
        again = packed("CommandPreparedStatementUpdate", field(1, handle))
        for call, code, said in (
            (lambda: client.run(prepared(handle)), grpc.StatusCode.FAILED_PRECONDITION, "the prepared statement has expired"),
            (lambda: client.bind(handle, a=1), grpc.StatusCode.FAILED_PRECONDITION, "the prepared statement has expired"),
            (lambda: client.put([field(1, descriptor(again))]), grpc.StatusCode.FAILED_PRECONDITION, "statement has expired"),
            (lambda: in_session.rows("select 1"), grpc.StatusCode.FAILED_PRECONDITION, "the session has expired"),
            (lambda: with_token.rows("select 1"), grpc.StatusCode.UNAUTHENTICATED, "the token has expired; connect again"),
            (lambda: with_token_for_it.rows("select 1"), grpc.StatusCode.UNAUTHENTICATED, "the token has expired; connect again"),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert (error.value.code(), error.value.details().partition(said)[1]) == (code, said)
        for connection in (in_session, with_token, with_token_for_it):
            connection.channel.close()
        # Who asks for new ones has them.
        assert client.run(prepared(client.prepare("select 42 as v"))) == [{"v": 42}]


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
        handle = one.prepare("select 1")
        for call in (
            lambda: list(stranger.get(ticket)),
            lambda: stranger.info(prepared(handle)),
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
        handle = one.begin()
        execute = statement("select 42 as v", handle)
        for call in (lambda: two.info(execute), lambda: two.end(handle)):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "open on another server" in error.value.details()
        assert one.run(execute) == [{"v": 42}]
        one.end(handle)


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
                two.action("CancelFlightInfo", field(1, info))
            assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert one.action("CancelFlightInfo", field(1, info)) == [CANCELLED]
        finally:
            stream.cancel()


def test_jdbc_writes_through_replicas_of_one_database(tmp_path: Path) -> None:
    with postgres.server() as database:
        database.sql("create schema main")
        with configured(tmp_path, database.catalog("demo", writable=True), replicas=2) as balanced:
            said = jdbc.values(jdbc.probe("writes", balanced.flight))
        assert (said["create"], said["insert"], said["prepared"], said["batch"]) == (0, 2, 1, [5])
        assert said["execute"] == {"hasRows": False, "count": 2}
        assert said["delete"] == 2
        written = database.sql("select id, name, price, day from main.by_jdbc order by id")
        assert written == [[value or "" for value in row] for row in said["rows"]]
        assert [row[0] for row in written] == ["1", "2", "3", "10", "11", "12"]
        assert "zero" in said["failing"]["error"]
        assert (said["as"], said["replace"]) == (6, 2)
        assert "zero" in said["failing replace"]["error"]
        assert said["made"] == database.sql("select id from main.made_by_jdbc order by id") == [["1"], ["2"]]
        # It is at the replica that made it, and no table of the database.
        assert said["temporary"] == 2
        assert database.sql("select tablename from pg_tables where tablename = 'of_jdbc'") == []


def test_every_file_is_run_with_replicas_or_it_is_said_why_not() -> None:
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    replicated = {f"test_{name}.py" for name in run.REPLICATED.split()}
    alone = {*ALONE, *(name for name in BOUND if "::" not in name)}
    assert not replicated & alone
    assert sorted(files) == sorted(replicated | alone)
