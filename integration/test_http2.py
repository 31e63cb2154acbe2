"""HTTP/2 and TLS as no client speaks them: what is abused costs others little, and the port goes on."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow.flight as flight
import pytest
import requests
import trustme

from gateway import Gateway, configured, eventually, users
from wire import SERVICE, Client, descriptor, field, packed, statement, varint

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header without indexing (RFC 7541, section 6.2.2)."""
    return b"\x00" + sized(name.encode()) + sized(value.encode())


def sized(text: bytes) -> bytes:
    """A string as it is, behind its length (sections 5.1 and 5.2)."""
    return (bytes([len(text)]) if len(text) < 127 else b"\x7f" + varint(len(text) - 127)) + text


def call(name: str, **more: str) -> bytes:
    """The headers of a call."""
    path = f"/arrow.flight.protocol.FlightService/{name}"
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
        **more,
    }
    return b"".join(literal(*header) for header in headers.items())


class Raw:
    """A connection by hand."""

    def __init__(self, address: str, settings: bytes = b"") -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Whether the other side still takes it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def is_closed(self, within: float = 20) -> bool:
        """Whether the other side ends the connection; reads what it says until then."""
        self.socket.settimeout(within)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


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


def rapid_reset(address: str) -> bool:
    with Raw(address) as raw:
        for stream in range(1, 40_000, 2):
            reset = frame(RESET, 0, stream, struct.pack(">I", 8))
            if not raw.send(frame(HEADERS, END_HEADERS, stream, call("GetFlightInfo")) + reset):
                return True
        return raw.is_closed()


def endless_headers(address: str) -> bool:
    with Raw(address) as raw:
        raw.send(frame(HEADERS, 0, 1, call("GetFlightInfo")))
        more = frame(CONTINUATION, 0, 1, b"".join(literal(f"x-{number}", "v" * 100) for number in range(100)))
        for _ in range(20_000):
            if not raw.send(more):
                return True
        return raw.is_closed()


def empty_data(address: str) -> bool:
    """Nothing limits them but that each costs what it costs: the call is an error in the end, or the connection is closed."""
    with Raw(address) as raw:
        raw.send(frame(HEADERS, END_HEADERS, 1, call("DoPut")))
        nothing = frame(DATA, 0, 1) * 1_000
        for _ in range(200):
            if not raw.send(nothing):
                return True
        raw.send(frame(DATA, END_STREAM, 1))
        raw.socket.settimeout(20)
        return len(raw.socket.recv(1 << 16)) > 0


ABUSES = [rapid_reset, endless_headers, empty_data]


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.__name__)
def test_an_abuse_costs_others_little(abuse: Callable[[str], bool], plain: Gateway) -> None:
    p99(plain, 0.2)
    before = p99(plain, 2)
    over, ended = threading.Event(), []

    def again() -> None:
        while not over.is_set():
            with contextlib.suppress(ConnectionError):
                ended.append(abuse(plain.flight))

    worker = threading.Thread(target=again)
    worker.start()
    after = p99(plain, 4)
    over.set()
    worker.join(60)
    print(f"\n{abuse.__name__}: p99 {before * 1000:.1f} ms before, {after * 1000:.1f} ms beside it")
    assert ended
    assert all(ended)
    assert after <= max(3 * before, 0.06)
    with Client(plain.flight) as client:
        assert client.rows("select 1 as a") == [{"a": 1}]


def test_readers_without_a_window_hold_little(plain: Gateway) -> None:
    endless = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    before = memory(plain)
    with Client(plain.flight) as client, contextlib.ExitStack() as stack:
        for _ in range(12):
            # SETTINGS_INITIAL_WINDOW_SIZE = 0.
            raw = stack.enter_context(Raw(plain.flight, struct.pack(">HI", 4, 0)))
            ticket = field(1, client.info(statement(endless)).tickets[0])
            message = b"\x00" + struct.pack(">I", len(ticket)) + ticket
            raw.send(frame(HEADERS, END_HEADERS, 1, call("DoGet")) + frame(DATA, END_STREAM, 1, message))
        p99(plain, 2)
        assert memory(plain) - before < 256 << 20


def memory(gateway: Gateway) -> int:
    """The resident bytes of a process."""
    return int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * 4096


def test_handshakes_that_do_not_go_on_keep_nobody_out(tmp_path: Path) -> None:
    roots = issued(tmp_path)
    with configured(tmp_path, f"{TLS}[limits]\nconnections = 100\n", replicas=1) as gateway, contextlib.ExitStack() as stack:
        before = p99(gateway, 2, {"tls_root_certs": roots})
        host, port = gateway.flight.split(":")
        for _ in range(1_500):
            half = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            # The head of a hello whose body does not come.
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
        after = p99(gateway, 2, {"tls_root_certs": roots})
        print(f"\np99 {before * 1000:.1f} ms before, {after * 1000:.1f} ms beside half-open handshakes")
        assert after <= max(3 * before, 0.06)
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
