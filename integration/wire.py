"""Flight SQL by hand over plain gRPC, and HTTP: the exact codes, the exact sizes, and messages that no client library would send.

Only the few protobuf fields that the tests look at are read and written.
"""

import base64
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc
import pyarrow as pa
import requests

from fetch import calls_client
from gateway import Gateway
from varint import varint

SERVICE = "/arrow.flight.protocol.FlightService/"
SQL = "type.googleapis.com/arrow.flight.protocol.sql."
UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass
class Info:
    """What GetFlightInfo said: the schema as IPC bytes, the tickets, and whether an endpoint names a place."""

    schema: bytes
    tickets: list[bytes]
    locations: list[bytes]


class Client:
    """One connection, plain where there are no `roots` of certificates; every call takes the credentials given here."""

    def __init__(
        self, address: str, user: str | None = None, password: str = "", roots: bytes | None = None, **headers: str
    ) -> None:
        if roots is None:
            self.channel = grpc.insecure_channel(address, options=UNBOUNDED)
        else:
            self.channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options=UNBOUNDED)
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if user is not None:
            self.headers.append(("authorization", basic(user, password)))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def unary(self, method: str, message: bytes, timeout: float = 30) -> bytes:
        """One message there, one back, for any service: `method` is its full path."""
        return self.channel.unary_unary(method)(message, metadata=self.headers, timeout=timeout)

    def stream(self, method: str, message: bytes, timeout: float = 30) -> Iterator[bytes]:
        """One message there, many back."""
        return self.channel.unary_stream(method)(message, metadata=self.headers, timeout=timeout)

    def info(self, command: bytes, timeout: float = 30) -> Info:
        """GetFlightInfo of a packed command."""
        fields = parse(self.unary(SERVICE + "GetFlightInfo", descriptor(command), timeout))
        endpoints = [parse(value) for number, value in fields if number == 3]
        tickets = [first(parse(first(endpoint, 1)), 1) for endpoint in endpoints]
        return Info(first(fields, 1), tickets, [value for endpoint in endpoints for number, value in endpoint if number == 2])

    def schema(self, command: bytes) -> bytes:
        """GetSchema of a packed command, as IPC bytes."""
        return first(parse(self.unary(SERVICE + "GetSchema", descriptor(command))), 1)

    def get(self, ticket: bytes, timeout: float = 30) -> Iterator[bytes]:
        """DoGet: each FlightData message as it came."""
        return self.stream(SERVICE + "DoGet", field(1, ticket), timeout)

    def called(self, name: str, body: bytes, timeout: float = 30) -> tuple[list[bytes], dict[str, str]]:
        """DoAction: the body of each result, and the headers that came with them."""
        call = self.stream(SERVICE + "DoAction", action(name, body), timeout)
        results = [first(parse(message), 1) for message in call]
        return results, dict(call.initial_metadata())

    def action(self, name: str, body: bytes, timeout: float = 30) -> list[bytes]:
        """The same without the headers."""
        return self.called(name, body, timeout)[0]

    def put(self, messages: Iterable[bytes], timeout: float = 30) -> list[bytes]:
        """DoPut of FlightData messages: each result as it came."""
        return list(self.channel.stream_stream(SERVICE + "DoPut")(iter(messages), metadata=self.headers, timeout=timeout))

    def prepare(self, sql: str, transaction: bytes = b"") -> bytes:
        """The handle of a prepared statement."""
        [result] = self.action("CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", text(sql, transaction)))
        return unpacked(result)

    def bind(self, handle: bytes, **values: object) -> bytes:
        """The handle of the same statement with a row of parameters."""
        [result] = self.put(bound("CommandPreparedStatementQuery", handle, **values))
        return first(parse(first(parse(result), 1)), 1)

    def begin(self) -> bytes:
        """The handle of a transaction."""
        [result] = self.action("BeginTransaction", packed("ActionBeginTransactionRequest"))
        return unpacked(result)

    def update(self, sql: str, transaction: bytes = b"") -> int:
        """A statement that writes and that nobody prepared: the rows that it affected."""
        [result] = self.put([field(1, descriptor(packed("CommandStatementUpdate", text(sql, transaction))))])
        return numbers(first(parse(result), 1)).get(1, 0)

    def end(self, transaction: bytes, commits: bool = True) -> None:
        """Commits a transaction, or rolls it back."""
        said = b"\x10\x01" if commits else b"\x10\x02"
        self.action("EndTransaction", packed("ActionEndTransactionRequest", field(1, transaction) + said))

    def savepoint(self, transaction: bytes, name: str = "") -> bytes:
        """The handle of a moment in a transaction."""
        body = packed("ActionBeginSavepointRequest", field(1, transaction) + field(2, name.encode()))
        [result] = self.action("BeginSavepoint", body)
        return unpacked(result)

    def end_savepoint(self, savepoint: bytes, releases: bool) -> None:
        """Forgets a savepoint, or goes back to it."""
        said = b"\x10\x01" if releases else b"\x10\x02"
        self.action("EndSavepoint", packed("ActionEndSavepointRequest", field(1, savepoint) + said))

    def session(self, **options: str) -> str:
        """Begins a session with these options; gives its cookie, which later calls take."""
        self.keep(self.called("GetSessionOptions", b"")[1])
        return self.set(**options)

    def set(self, **options: str) -> str:
        """Sets options of the session; gives its cookie, which later calls take."""
        body = b"".join(field(1, field(1, name.encode()) + field(2, field(1, value.encode()))) for name, value in options.items())
        results, headers = self.called("SetSessionOptions", body)
        assert results == [b""], f"an option is not taken: {results}"
        return self.keep(headers)

    def keep(self, headers: dict[str, str]) -> str:
        """Takes the cookie of a response for later calls; gives it."""
        cookie = headers["set-cookie"].split(";")[0]
        self.headers = [header for header in self.headers if header[0] != "cookie"] + [("cookie", cookie)]
        return cookie

    def handshake(self) -> str:
        """Handshake: the header that it gives for the credentials of this connection."""
        call = self.channel.stream_stream(SERVICE + "Handshake")(iter([b""]), metadata=self.headers, timeout=30)
        list(call)
        return dict(call.initial_metadata())["authorization"]

    def rows(self, sql: str, timeout: float = 30, transaction: bytes = b"") -> list[dict]:
        """A statement through GetFlightInfo and DoGet."""
        return self.run(statement(sql, transaction), timeout)

    def run(self, command: bytes, timeout: float = 30) -> list[dict]:
        """The same of a packed command."""
        info = self.info(command, timeout)
        return decode(message for ticket in info.tickets for message in self.get(ticket, timeout))


def called_by_go(command: str, address: str, *arguments: object, timeout: float = 90) -> dict[str, object]:
    """What Arrow's client for Go says of the calls of one command of `scenarios/main.go`."""
    words = [calls_client(), command, address, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return {line["name"]: line["value"] for line in map(json.loads, done.stdout.splitlines())}


def says(url: str, token: str) -> tuple[int, str]:
    """The code and the text of an answer over HTTP to who comes with a token."""
    answer = requests.post(f"{url}/v1/sql", data=b"select 1 as a", headers={"authorization": f"Bearer {token}"}, timeout=10)
    return answer.status_code, answer.text


def metric(url: str, name: str, **how: object) -> float:
    """What a gateway says of itself by a name: the sum of its samples that begin so, labels included, 0 where there is none."""
    lines = requests.get(f"{url}/metrics", timeout=10, **how).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def running(gateway: Gateway) -> float:
    """How many statements run or wait at a gateway now."""
    return metric(gateway.url, "nexus_statements_running")


def load(gateway: Gateway) -> tuple[float, float]:
    """The slots that its statements have, also those that nobody waits for any more, and how many wait for one."""
    return metric(gateway.url, "nexus_slots_used"), metric(gateway.url, "nexus_statements_waiting")


def reserved(gateway: Gateway) -> float:
    """The bytes that its statements hold of the memory limit."""
    return metric(gateway.url, "nexus_memory_reserved_bytes")


def reload_failures(url: str, what: str) -> float:
    """How often a changed file, or another thing of this name, could not be taken over."""
    return metric(url, f'nexus_reload_failures_total{{what="{what}"}}')


def basic(user: str, password: str) -> str:
    """The header of a user name and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def decode(messages: Iterator[bytes]) -> list[dict]:
    """The rows of FlightData messages, through Arrow's own reader of IPC."""
    stream = bytearray()
    for message in messages:
        fields = parse(message)
        header, body = first(fields, 2), first(fields, 1000)
        padding = -len(header) % 8
        stream += b"\xff\xff\xff\xff" + (len(header) + padding).to_bytes(4, "little") + header + bytes(padding) + body
    return pa.ipc.open_stream(bytes(stream)).read_all().to_pylist() if stream else []


def statement(sql: str, transaction: bytes = b"") -> bytes:
    """CommandStatementQuery, packed."""
    return packed("CommandStatementQuery", text(sql, transaction))


def prepared(handle: bytes) -> bytes:
    """CommandPreparedStatementQuery, packed."""
    return packed("CommandPreparedStatementQuery", field(1, handle))


def text(sql: str, transaction: bytes = b"") -> bytes:
    """The fields of a statement, in a transaction where there is one."""
    return field(1, sql.encode()) + (field(2, transaction) if transaction else b"")


def bound(command: str, handle: bytes, **values: object) -> list[bytes]:
    """The messages that put a row of parameters for a prepared statement."""
    return carried(packed(command, field(1, handle)), pa.RecordBatch.from_pylist([values]))


def ingest(table: str, rows: pa.RecordBatch) -> list[bytes]:
    """The messages that put rows into a table that is there."""
    return carried(packed("CommandStatementIngest", field(1, b"\x08\x02\x10\x02") + field(2, table.encode())), rows)


def carried(command: bytes, batch: pa.RecordBatch) -> list[bytes]:
    """The messages that put rows with a packed command."""
    (columns, _), (header, rows) = encapsulated(batch.schema.serialize()), encapsulated(batch.serialize())
    return [field(1, descriptor(command)) + field(2, columns), field(2, header) + field(1000, rows)]


def substrait(plan: bytes) -> bytes:
    """CommandStatementSubstraitPlan of a serialised `substrait.Plan`, packed."""
    return packed("CommandStatementSubstraitPlan", field(1, field(1, plan)))


def encapsulated(message: pa.Buffer) -> tuple[bytes, bytes]:
    """The header and the body of an encapsulated IPC message."""
    data = message.to_pybytes()
    length = int.from_bytes(data[4:8], "little")
    return data[8 : 8 + length], data[8 + length :]


def packed(name: str, value: bytes = b"") -> bytes:
    """A command of Flight SQL in its Any."""
    return field(1, (SQL + name).encode()) + field(2, value)


def unpacked(result: bytes) -> bytes:
    """The first field of a message in its Any."""
    return first(parse(first(parse(result), 2)), 1)


def descriptor(command: bytes) -> bytes:
    """A FlightDescriptor of type CMD."""
    return b"\x08\x02" + field(2, command)


def action(name: str, body: bytes) -> bytes:
    """An Action of this type."""
    return field(1, name.encode()) + field(2, body)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def first(fields: list[tuple[int, bytes]], number: int) -> bytes:
    """The first field of this number; empty where there is none, as protobuf has it."""
    return next((value for found, value in fields if found == number), b"")


def parse(message: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a message, in their order; the others are passed over."""
    fields, at = [], 0
    while at < len(message):
        key, at = _varint_at(message, at)
        if key & 7 == 0:
            _, at = _varint_at(message, at)
        elif key & 7 == 2:
            size, at = _varint_at(message, at)
            fields.append((key >> 3, message[at : at + size]))
            at += size
        else:
            at += {1: 8, 5: 4}[key & 7]
    return fields


def numbers(message: bytes) -> dict[int, int]:
    """The integers and truth values of a message by the numbers of their fields."""
    found, at = {}, 0
    while at < len(message):
        key, at = _varint_at(message, at)
        value, at = _varint_at(message, at) if key & 7 in (0, 2) else (0, at + {1: 8, 5: 4}[key & 7])
        if key & 7 == 0:
            found[key >> 3] = value
        elif key & 7 == 2:
            at += value
    return found


def _varint_at(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
