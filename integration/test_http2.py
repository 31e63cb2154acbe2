"""HTTP/2 and TLS as no client speaks them: what is abused costs others little, and the port goes on."""

import contextlib
import json
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow.flight as flight
import pytest
import requests
import trustme

import abuse
from abuse import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RESET, SETTINGS, WINDOW, Raw, call, frame
from gateway import Gateway, configured, eventually, users
from wire import SERVICE, Client, descriptor, field, packed, statement

# What the scheduler alone may add on two processors: a call goes through some ten threads, each of which waits for its turn while
# others use up theirs, of up to 5 ms. Where nobody else computes there are few others.
FLOOR, IDLE_FLOOR = 0.05, 0.02


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with configured(tmp_path_factory.mktemp("http2"), '[cache]\nsize = "0"\n', replicas=1) as gateway:
        yield gateway


def p99(gateway: Gateway, seconds: float, credentials: dict[str, bytes] | None = None) -> float:
    """How long all but one in a hundred of another client's calls take, over a connection that it has."""
    times, deadline = [], time.monotonic() + seconds
    with flight.connect(gateway.uri, **(credentials or {})) as client:
        command = flight.FlightDescriptor.for_command(statement("select 1 as a"))
        while time.monotonic() < deadline or len(times) < 100:
            began = time.perf_counter()
            info = client.get_flight_info(command)
            assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == 1
            times.append(time.perf_counter() - began)
    return sorted(times)[int(len(times) * 0.99) - 1]


def usual(gateway: Gateway, credentials: dict[str, bytes] | None = None) -> float:
    """The median of three: one that something else on the machine fell into is left out."""
    return statistics.median(p99(gateway, 1, credentials) for _ in range(3))


@contextlib.contextmanager
def beside(name: str, address: str = "") -> Iterator[dict[str, int]]:
    """Several of an abuse at once, on a gateway, or on nobody; what came of them is there when the block has ended."""
    came: dict[str, int] = {}
    command = [sys.executable, abuse.__file__, name, *([address] if address else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield came
            told, _ = process.communicate(timeout=90)
            came |= json.loads(told)
        finally:
            process.kill()


@pytest.mark.parametrize("name", abuse.ABUSES)
def test_abuses_cost_others_little(name: str, plain: Gateway) -> None:
    p99(plain, 0.2)
    # The same senders take as much of this machine from a gateway that they do not send to.
    with beside(name):
        before = usual(plain)
    with beside(name, plain.flight) as came:
        after = usual(plain)
        began = time.monotonic()
        with Raw(plain.flight) as fresh:
            assert fresh.socket.recv(9)[3] == SETTINGS
        accepted = time.monotonic() - began
    print(f"\n{name}: {came['ended']} times, p99 {before * 1000:.1f} ms beside as much, {after * 1000:.1f} ms as it is sent here")
    print(f"a new connection after {accepted * 1000:.1f} ms")
    assert came["all"]
    assert came["ended"] >= abuse.AT_ONCE
    assert after <= max(3 * before, FLOOR)
    assert accepted < 1
    with Raw(plain.flight) as fresh:
        assert fresh.socket.recv(9)[3] == SETTINGS
    with Client(plain.flight) as client:
        assert client.rows("select 1 as a") == [{"a": 1}]


def test_readers_without_a_window_hold_little(plain: Gateway) -> None:
    endless = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    p99(plain, 0.2)
    usually, before = usual(plain), memory(plain)
    with Client(plain.flight) as client, contextlib.ExitStack() as stack:
        for _ in range(12):
            # SETTINGS_INITIAL_WINDOW_SIZE = 0.
            raw = stack.enter_context(Raw(plain.flight, struct.pack(">HI", 4, 0)))
            ticket = field(1, client.info(statement(endless)).tickets[0])
            message = b"\x00" + struct.pack(">I", len(ticket)) + ticket
            raw.send(frame(HEADERS, END_HEADERS, 1, call("DoGet")) + frame(DATA, END_STREAM, 1, message))
        beside_them, grown = usual(plain), memory(plain) - before
        print(f"\np99 {usually * 1000:.1f} ms before, {beside_them * 1000:.1f} ms beside them, {grown >> 20} MiB")
        assert beside_them <= max(3 * usually, IDLE_FLOOR)
        assert grown < 256 << 20


def memory(gateway: Gateway) -> int:
    """The resident bytes of a process."""
    return int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * 4096


def test_handshakes_that_do_not_go_on_keep_nobody_out(tmp_path: Path) -> None:
    roots = issued(tmp_path)
    with configured(tmp_path, f"{TLS}[limits]\nconnections = 100\n", replicas=1) as gateway, contextlib.ExitStack() as stack:
        p99(gateway, 0.2, {"tls_root_certs": roots})
        before = usual(gateway, {"tls_root_certs": roots})
        host, port = gateway.flight.split(":")
        for _ in range(1_500):
            half = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            # The head of a hello whose body does not come.
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
        after = usual(gateway, {"tls_root_certs": roots})
        print(f"\np99 {before * 1000:.1f} ms before, {after * 1000:.1f} ms beside half-open handshakes")
        assert after <= max(3 * before, IDLE_FLOOR)
        context = ssl.create_default_context(cadata=roots.decode())
        with socket.create_connection((host, int(port)), timeout=20) as fresh:
            assert context.wrap_socket(fresh, server_hostname="localhost").version() == "TLSv1.3"


def issued(folder: Path) -> bytes:
    """Makes a certificate and its key for a gateway of this folder; gives the authority."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.pem").write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    return authority.cert_pem.bytes()


TLS = '[tls]\ncertificate = "server.pem"\nkey = "server.key"\n'


def opened(address: str, context: ssl.SSLContext | None, said: bytes) -> socket.socket:
    """A connection that has said so much."""
    host, port = address.split(":")
    plain = socket.create_connection((host, int(port)), timeout=20)
    made = context.wrap_socket(plain, server_hostname="localhost") if context else plain
    made.sendall(said)
    return made


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
def test_connections_that_have_hardly_begun_keep_nobody_out(with_tls: bool, tmp_path: Path) -> None:
    roots = issued(tmp_path)
    context = ssl.create_default_context(cadata=roots.decode()) if with_tls else None
    text = "[limits]\nconnections = 10\n" + (TLS if with_tls else "")
    with configured(tmp_path, text, replicas=1) as gateway, contextlib.ExitStack() as stack:
        for address in (gateway.flight, gateway.http):
            for number in range(40):
                stack.enter_context(opened(address, context, PREFACE[: number % 23 + 1]))
        with flight.connect(gateway.uri, **({"tls_root_certs": roots} if with_tls else {})) as client:
            assert list(client.list_actions(flight.FlightCallOptions(timeout=20)))
        (tmp_path / "roots.pem").write_bytes(roots)
        assert requests.get(f"{gateway.url}/livez", timeout=20, verify=str(tmp_path / "roots.pem")).text == "ok\n"


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
def test_who_speaks_http_at_the_port_of_flight_is_told_the_other_one(with_tls: bool, tmp_path: Path) -> None:
    context = ssl.create_default_context(cadata=issued(tmp_path).decode()) if with_tls else None
    with configured(tmp_path, TLS if with_tls else "", replicas=1) as gateway:
        port = gateway.http.split(":")[1]
        with opened(gateway.flight, context, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n") as client:
            answer = b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
        assert answer.startswith("HTTP/1.1 400 ")
        assert answer.endswith(f"send HTTP requests to port {port}\n")
        assert eventually(lambda: f"its port is {port}" in gateway.logged(), 10)


def test_who_does_not_go_on_is_let_go(tmp_path: Path) -> None:
    whole, half = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n", b"GET /livez HTTP/1.1\r\nhost: a\r\n"
    with configured(tmp_path, "[limits]\nconnections = 2\n", replicas=1) as gateway, contextlib.ExitStack() as stack:
        begun = [stack.enter_context(opened(address, None, b"PRI")) for address in (gateway.flight, gateway.http)]
        # These two are all that there is room for.
        held = [stack.enter_context(opened(gateway.http, None, said)) for said in (half, whole)]
        assert held[1].recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert requests.get(f"{gateway.url}/livez", timeout=60).text == "ok\n"
        for connection in begun + held:
            connection.settimeout(60)
            with contextlib.suppress(ConnectionError):
                while connection.recv(1 << 16):
                    pass


class Puts(Raw):
    """A connection with many calls whose messages are not whole, within the windows that the other side gives."""

    def __init__(self, address: str, **headers: str) -> None:
        super().__init__(address)
        self.headers, self.window, self.ended, self.unread = headers, 65_535, set(), b""

    def put(self, stream: int, length: int) -> None:
        """Begins a call with so many bytes of a longer message."""
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, call("DoPut", **self.headers)))
        self.send_data(stream, b"\x00" + struct.pack(">I", 15 << 20))
        for _ in range(length // 16_384):
            if stream in self.ended:
                break
            self.send_data(stream, bytes(16_384))

    def send_data(self, stream: int, data: bytes) -> None:
        while self.window < len(data):
            self.receive()
        self.window -= len(data)
        self.socket.sendall(frame(DATA, 0, stream, data))

    def receive(self) -> None:
        """Takes the frames that have come, one at least."""
        self.unread += self.socket.recv(1 << 16)
        while len(self.unread) >= 9 and len(self.unread) >= 9 + (size := int.from_bytes(self.unread[:3])):
            kind, flags, stream = self.unread[3], self.unread[4], int.from_bytes(self.unread[5:9])
            payload, self.unread = self.unread[9 : 9 + size], self.unread[9 + size :]
            if kind == SETTINGS and not flags:
                self.socket.sendall(frame(SETTINGS, 1, 0))
            elif kind == WINDOW and stream == 0:
                self.window += int.from_bytes(payload)
            elif kind in (HEADERS, RESET):
                self.ended.add(stream)
            assert kind != GOAWAY


def test_messages_that_are_not_whole_take_the_memory_of_their_user(tmp_path: Path) -> None:
    text = '[cache]\nsize = "0"\n[limits]\nmemory = "64MiB"\n' + users("ann", "bob")
    with configured(tmp_path, text, replicas=1) as gateway:
        with Client(gateway.flight, "ann", "ann") as client:
            token = client.handshake()
        with Client(gateway.flight, "bob", "bob") as bob:
            assert bob.rows("select 1 as a") == [{"a": 1}]
            before = memory(gateway)
            with contextlib.ExitStack() as stack:
                refused = 0
                for _ in range(5):
                    puts = stack.enter_context(Puts(gateway.flight, authorization=token))
                    puts.receive()
                    for stream in range(1, 81, 2):
                        puts.put(stream, 960 << 10)
                    refused += len(puts.ended)
                grown = memory(gateway) - before
                print(f"\n{grown >> 20} MiB for {200 - refused} calls, {refused} refused")
                assert grown < (48 + 64) << 20
                assert refused
                with Client(gateway.flight, authorization=token) as ann, pytest.raises(grpc.RpcError) as error:
                    ann.unary(SERVICE + "GetFlightInfo", descriptor(packed("CommandStatementQuery", bytes(8 << 20))))
                assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "limits.memory_per_user" in error.value.details()
                assert b"google.rpc.RetryInfo" in dict(error.value.trailing_metadata())["grpc-status-details-bin"]
                assert bob.rows("select 2 as a") == [{"a": 2}]

        def is_free() -> bool:
            text = requests.get(f"{gateway.url}/metrics", timeout=10).text
            return "\nnexus_memory_reserved_bytes 0\n" in text

        assert eventually(is_free, 20)
