"""HTTP/2 and TLS as no client speaks them: what is abused costs others little, and the port goes on."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.flight as flight
import pytest
import trustme

from gateway import Gateway, configured
from wire import Client, field, statement

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header without indexing (RFC 7541, section 6.2.2), both parts below 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call(name: str) -> bytes:
    """The headers of a call."""
    path = f"/arrow.flight.protocol.FlightService/{name}"
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
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
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    (tmp_path / "server.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    roots = authority.cert_pem.bytes()
    text = '[tls]\ncertificate = "server.pem"\nkey = "server.key"\n[limits]\nconnections = 100\n'
    with configured(tmp_path, text, replicas=1) as gateway, contextlib.ExitStack() as stack:
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
