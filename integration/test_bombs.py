"""Forged lengths, bombs of packed bytes, and rows that are large as text: refused, or made in pieces. The process takes at most
64 MiB more for them, or than statements may have."""

import contextlib
import gzip
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
import requests

from gateway import Gateway, configured, users
from test_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Raw, call, frame, memory
from varint import varint
from wire import SERVICE, Client, descriptor, field, first, packed, parse

MOST = 64 << 20
TEXT = '[catalogs.m]\nkind = "memory"\nwritable = true\n'
REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED)
INGEST = packed("CommandStatementIngest", field(1, b"\x08\x01") + field(2, b"t"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    # What a panic says of where it was is megabytes of names.
    gateway = configured(tmp_path_factory.mktemp("bombs"), TEXT, replicas=1, environment={"RUST_BACKTRACE": "0"})
    with Client(gateway.flight) as client:
        # What is made once, such as threads, is no matter of what comes later.
        for _ in range(3):
            client.put(framed(messages(pa.table({"a": [1, 2, 3]}), None)))
            assert client.rows("select 1 as v") == [{"v": 1}]
    yield gateway
    assert gateway.process.poll() is None, gateway.tail()
    assert gateway.stop() == 0
    # Arrow's decoder panics by some of this, each time within one call.
    panics = [line for line in gateway.logged().splitlines() if "panicked at" in line]
    assert all("/arrow-" in line for line in panics), panics


class Watched:
    """How far the resident memory of a process rises meanwhile, which is so many bytes at most."""

    def __init__(self, gateway: Gateway, most: int = MOST) -> None:
        self.most = most
        self.status, self.peak = (Path(f"/proc/{gateway.pid}/{name}") for name in ("status", "clear_refs"))

    def read(self, name: str) -> int:
        line = next(line for line in self.status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) << 10

    def __enter__(self) -> "Watched":
        # The peak so far is forgotten (proc_pid_clear_refs(5)).
        self.peak.write_text("5")
        self.before = self.read("VmRSS:")
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        rise = self.read("VmHWM:") - self.before
        print(f"\n{rise / 2**20:.1f} MiB more")
        assert failed is not None or rise <= self.most


def messages(table: pa.Table, packing: str | None) -> list[tuple[bytes, bytes]]:
    """The headers and bodies of the messages of Arrow IPC."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=packing)) as writer:
        writer.write_table(table)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return [(message.metadata.to_pybytes(), message.body.to_pybytes() if message.body else b"") for message in reader]


def framed(all_messages: list[tuple[bytes, bytes]], command: bytes = INGEST) -> list[bytes]:
    """The messages as Flight carries them, after the command."""
    return [field(1, descriptor(command))] + [field(2, header) + field(1000, body) for header, body in all_messages]


def refused(gateway: Gateway, frames: list[bytes]) -> grpc.RpcError:
    with Client(gateway.flight) as client:
        with Watched(gateway), pytest.raises(grpc.RpcError) as error:
            client.put(frames, 10)
        assert error.value.code() in REFUSED, error.value.details()
        assert client.rows("select 1 as v") == [{"v": 1}]
    return error.value


def zeros(megabytes: int) -> pa.Table:
    return pa.table({"a": pa.array([bytes(megabytes << 20)], pa.large_binary())})


def handle(gateway: Gateway) -> bytes:
    """That of a prepared statement with a parameter."""
    request = packed("ActionCreatePreparedStatementRequest", field(1, b"select ? as v"))
    with Client(gateway.flight) as client:
        [result] = client.action("CreatePreparedStatement", request)
    return first(parse(first(parse(result), 2)), 1)


@pytest.mark.parametrize("command", ["ingest", "Query", "Update"])
@pytest.mark.parametrize("packing", ["lz4", "zstd"])
@pytest.mark.parametrize("shape", ["one buffer", "many buffers", "dictionaries"])
def test_packed_rows_that_become_large(shape: str, packing: str, command: str, gateway: Gateway) -> None:
    if shape == "one buffer":
        table = zeros(1_000)
    elif shape == "many buffers":
        table = pa.table({f"c{number}": zeros(20)["a"] for number in range(40)})
    else:
        values = pa.array(["x" * (10 << 20), "y" * (10 << 20)])
        one = pa.DictionaryArray.from_arrays(pa.array([0]), values)
        table = pa.table({f"c{number}": one for number in range(20)})
    bomb = messages(table, packing)
    assert sum(len(body) for _, body in bomb) < 16 << 20
    del table
    put = INGEST if command == "ingest" else packed(f"CommandPreparedStatement{command}", field(1, handle(gateway)))
    refused(gateway, framed(bomb, put))


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
@pytest.mark.parametrize("declared", [-2, 0, 8, 1 << 20, 64 << 20, 1 << 36, 1 << 62])
def test_a_packed_buffer_of_another_length_than_it_declares(declared: int, packing: str, gateway: Gateway) -> None:
    [schema, (header, body)] = messages(zeros(500), packing)
    true = (500 << 20).to_bytes(8, "little")
    assert body.count(true) >= 1
    forged = body.replace(true, declared.to_bytes(8, "little", signed=True))
    refused(gateway, framed([schema, (header, forged)]))


COLUMNS = {
    "numbers": pa.array([1, 2, 3]),
    "text": pa.array(["a", "b", "c"]),
    "views": pa.array(["long enough not to be inline"] * 3, pa.string_view()),
    "lists": pa.array([[1], [2], [3]]),
    "fixed": pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)),
    "nulls": pa.nulls(3),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array([1])),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_numbers_in_headers_that_are_forged(kind: str, gateway: Gateway) -> None:
    whole = messages(pa.table({"a": COLUMNS[kind]}), None)
    # Rows are read before it is seen that it writes nothing.
    command = packed("CommandPreparedStatementUpdate", field(1, handle(gateway)))
    with Client(gateway.flight) as client, Watched(gateway):
        for place, (header, body) in enumerate(whole):
            for width, forged in [(4, (1 << 31) - 1), (8, -1), (8, 1 << 24), (8, 1 << 36), (8, (1 << 63) - 1)]:
                value = forged.to_bytes(width, "little", signed=True)
                for at in range(0, len(header) - width + 1, width):
                    changed = header[:at] + value + header[at + width :]
                    with pytest.raises(grpc.RpcError) as error:
                        client.put(framed([*whole[:place], (changed, body), *whole[place + 1 :]], command), 10)
                    assert error.value.code() in REFUSED, error.value.details()
        assert client.rows("select 1 as v") == [{"v": 1}]


def test_lists_of_nothing(gateway: Gateway) -> None:
    # Of a list of 2^31 - 1 NULLs a row there is no byte.
    wide = pa.list_(pa.null(), (1 << 31) - 1)
    child = pa.nulls((1 << 31) - 1)
    table = pa.table({"a": pa.FixedSizeListArray.from_arrays(child, (1 << 31) - 1)}, schema=pa.schema([("a", wide)]))
    refused(gateway, framed(messages(table, None)))


WIDE = pa.array(["x" * (1 << 20)])
VIEWS = [None, pa.py_buffer(struct.pack("<i4sii", 1 << 20, b"xxxx", 0, 0) * 2_000), pa.py_buffer(b"x" * (1 << 20))]
SHARED = {
    "texts": pa.Array.from_buffers(pa.string_view(), 2_000, VIEWS),
    "bytes": pa.Array.from_buffers(pa.binary_view(), 2_000, VIEWS),
    "views": pa.ListViewArray.from_arrays([0] * 8_000, [20_000] * 8_000, pa.array(range(20_000))),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([0] * 2_000), WIDE),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2_000], pa.int32()), WIDE),
}


PLAIN = {"views": "bigint[]", "bytes": "bytea"}


@pytest.mark.parametrize("kind", SHARED)
def test_rows_that_share_their_values(kind: str, gateway: Gateway) -> None:
    # Into a table of plain values, as which they would be gigabytes.
    put = packed("CommandStatementIngest", field(1, b"\x08\x02\x10\x02") + field(2, f"plain_{kind}".encode()))
    with Client(gateway.flight) as client:
        client.rows(f"create table plain_{kind} (a {PLAIN.get(kind, 'varchar')})")
    error = refused(gateway, framed(messages(pa.table({"a": SHARED[kind]}), None), put))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()


LONG = [1 << 20, (1 << 31) - 1, 1 << 32, 1 << 62]


@pytest.mark.parametrize("length", LONG)
def test_lengths_in_messages_that_are_forged(length: int, gateway: Gateway) -> None:
    forged = varint(length) + b"x"
    command = b"\x0a" + varint(9) + b"something" + b"\x12" + forged
    plan = packed("CommandStatementSubstraitPlan", field(1, field(1, b"\x1a" + forged)))
    calls = [(name, b"\x12" + forged) for name in ("GetFlightInfo", "GetSchema", "PollFlightInfo", "DoAction")]
    calls += [("DoGet", b"\x0a" + forged), ("GetFlightInfo", descriptor(command)), ("GetFlightInfo", descriptor(plan))]
    with Client(gateway.flight) as client, Watched(gateway):
        for name, message in calls:
            with pytest.raises(grpc.RpcError) as error:
                list(client.stream(SERVICE + name, message, 10))
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT, f"{name}: {error.value.details()}"
        assert client.rows("select 1 as v") == [{"v": 1}]


@pytest.mark.parametrize("name", ["GetFlightInfo", "DoGet", "DoPut", "DoAction", "Handshake"])
def test_a_frame_of_a_length_that_does_not_come(name: str, gateway: Gateway) -> None:
    with Watched(gateway), contextlib.ExitStack() as stack:
        for number in range(40):
            connection = stack.enter_context(Raw(gateway.flight))
            # The length of a message, and a little of it (gRPC over HTTP/2, Length-Prefixed-Message).
            head = b"\x00" + (0xFFFF_FFFF if number % 2 else 16 << 20).to_bytes(4, "big") + b"x" * 1_000
            connection.send(frame(HEADERS, END_HEADERS, 1, call(name)) + frame(DATA, 0, 1, head))
        with Client(gateway.flight) as client:
            assert client.rows("select 1 as v") == [{"v": 1}]


@pytest.mark.parametrize("name", ["GetFlightInfo", "DoGet", "DoPut", "DoAction", "Handshake"])
def test_a_packed_message(name: str, gateway: Gateway) -> None:
    message = field(1, bytes(256 << 20))
    with Client(gateway.flight) as client, Watched(gateway), pytest.raises(grpc.RpcError) as error:
        list(client.channel.stream_stream(SERVICE + name)(iter([message]), compression=grpc.Compression.Gzip, timeout=60))
    assert error.value.code() in REFUSED, error.value.details()


def test_headers_that_say_one_thing_often(gateway: Gateway) -> None:
    # A header that is kept in the table, and then named by one byte each time (RFC 7541, 6.1 and 6.2.1).
    kept = b"\x40\x01x\x7f" + varint(3_800 - 127) + b"v" * 3_800
    with Watched(gateway), contextlib.ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(Raw(gateway.flight))
            connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, call("GetFlightInfo") + kept + b"\xbe" * 12_000))
            connection.socket.recv(1 << 16)
        with Client(gateway.flight) as client:
            assert client.rows("select 1 as v") == [{"v": 1}]


def test_handshakes_that_say_nothing(tmp_path: Path) -> None:
    # One name without a value, kept in the table and then named by one byte each time: much to hold for little that is sent.
    headers = call("Handshake") + b"\x40\x01x\x00" + b"\xbe" * 450

    def knock(gateway: Gateway) -> Raw:
        connection = Raw(gateway.flight)
        for stream in range(1, 400, 2):
            connection.send(frame(HEADERS, END_HEADERS, stream, headers))
        # All but a few are refused at once; those may still say who they are.
        assert next(stream for kind, _, stream, _ in connection.frames() if kind == HEADERS) > 1
        return connection

    with configured(tmp_path, users("ann"), replicas=1) as gateway, contextlib.ExitStack() as stack:
        # What is read at once is there for a moment, and the memory for it is kept; what is held is held for each of them.
        for _ in range(30):
            stack.enter_context(knock(gateway))
        before = memory(gateway)
        for _ in range(40):
            stack.enter_context(knock(gateway))
        rise = memory(gateway) - before
        print(f"\n{rise / 2**20:.1f} MiB more")
        assert rise < 40 << 20
        with Client(gateway.flight, "ann", "ann") as client:
            assert client.rows("select 1 as v") == [{"v": 1}]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_body(encoding: str, gateway: Gateway) -> None:
    plain = b"select 1 as v" + b" " * (1 << 30)
    body = gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)
    del plain
    with Watched(gateway):
        headers = {"content-encoding": encoding, "content-type": "text/plain"}
        answer = requests.post(f"{gateway.url}/v1/sql", data=body, headers=headers, timeout=10)
        assert answer.status_code in (400, 415), answer.text


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Statements have 256 MiB here."""
    text = '[limits]\nmemory = "256MiB"\n[cache]\nsize = "0"\n'
    with configured(tmp_path_factory.mktemp("narrow"), text, replicas=1) as gateway:
        for _ in range(3):
            assert asked(gateway, "select 1 as v", JSON).json() == {"v": 1}
        yield gateway


JSON, CSV, ARROW = "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"
NARROW = (256 << 20) + MOST


def asked(gateway: Gateway, statement: str, accept: str, **options: object) -> requests.Response:
    headers = {"content-type": "text/plain", "accept": accept}
    return requests.post(f"{gateway.url}/v1/sql", data=statement, headers=headers, timeout=120, **options)


@pytest.mark.parametrize("accept", [JSON, CSV, ARROW])
@pytest.mark.parametrize(
    "statement",
    [
        # The name of the column is in each line of JSON: 1.6 GB.
        f'select value as "{"n" * 200_000}" from range(8192)',
        # One text is that of all rows: 3.3 GB.
        "select arrow_cast(repeat('x', 400000), 'Utf8View') as s from range(8192)",
        # A letter is six in JSON: 800 MB.
        "select repeat(chr(1), 16000) as s from range(8192)",
    ],
    ids=["name", "shared", "escapes"],
)
def test_rows_that_are_long_as_text(statement: str, accept: str, narrow: Gateway) -> None:
    with Watched(narrow, NARROW), asked(narrow, statement, accept, stream=True) as answer:
        assert answer.status_code == 200, answer.text
        # What has come by then is the most of what is made at once.
        for _, piece in zip(range(64), answer.iter_content(1 << 20), strict=False):
            assert piece
    assert asked(narrow, "select 1 as v", JSON).json() == {"v": 1}


def test_a_row_that_is_longer_than_the_memory_as_text(narrow: Gateway) -> None:
    statement = "select string_agg(repeat(chr(1), 1000), '') as a from range(40000)"
    with Watched(narrow, NARROW):
        answer = asked(narrow, statement, JSON)
    assert answer.status_code == 429, answer.text[:1000]
    assert "rows of an answer needs" in answer.json()["error"]["message"], answer.text
    answer = asked(narrow, statement, CSV)
    assert (answer.status_code, len(answer.content)) == (200, len("a\n") + 40_000_000 + len("\n"))


def test_rows_of_several_that_are_long_as_text(narrow: Gateway) -> None:
    def ask(number: int) -> int:
        answer = asked(narrow, f"select {number} as i, repeat(chr(1), 5000000) as s", JSON)
        assert answer.status_code in (200, 429), answer.text[:1000]
        assert answer.status_code == 429 or len(answer.content) > 30_000_000
        return answer.status_code

    with Watched(narrow, NARROW), ThreadPoolExecutor(12) as pool:
        assert 200 in list(pool.map(ask, range(12)))
