"""SIGTERM while clients read: what runs comes to its end, nothing new begins, and health says so at once."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import requests

from gateway import Gateway, configured
from wire import field, metric, statement

STREAMS, ROWS = 32, 1_500_000
ENDLESS = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
WATCH = "/grpc.health.v1.Health/Watch"
# The server as a whole, and the service by its name.
HEALTH = [b"", field(1, b"arrow.flight.protocol.FlightService")]
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@contextmanager
def begun_stream(gateway: Gateway, sql: str, over_http: bool) -> Iterator[pa.RecordBatchReader | flight.FlightStreamReader]:
    """The rows of a statement as they come, at Flight or over HTTP."""
    if over_http:
        accept = {"accept": "application/vnd.apache.arrow.stream"}
        with requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), headers=accept, stream=True, timeout=60) as answer:
            yield pa.ipc.open_stream(answer.raw)
    else:
        with flight.connect(gateway.uri) as client:
            info = client.get_flight_info(flight.FlightDescriptor.for_command(statement(sql)))
            yield client.do_get(info.endpoints[0].ticket).to_reader()


def test_streams_come_to_their_end_and_nothing_new_begins(tmp_path: Path) -> None:
    gateway = configured(tmp_path, "[limits]\nconcurrency = 40\ngrace = '60s'\n", replicas=1)
    begun, stopping = threading.Barrier(STREAMS + 1), threading.Event()
    counts: list[object] = []

    def read(number: int) -> None:
        try:
            sql = f"select value + {number} as v from generate_series(1, {ROWS})"
            with begun_stream(gateway, sql, over_http=number % 4 == 0) as reader:
                rows = reader.read_next_batch().num_rows
                begun.wait(60)
                stopping.wait(60)
                counts.append(rows + sum(batch.num_rows for batch in reader))
        except Exception as error:  # noqa: BLE001
            counts.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(STREAMS)]
    try:
        for thread in threads:
            thread.start()
        begun.wait(60)
        assert metric(gateway.url, "nexus_statements_running") == STREAMS, "some have come to their end already"
        with grpc.insecure_channel(gateway.flight) as channel:
            watches = [channel.unary_stream(WATCH)(service, timeout=60) for service in HEALTH]
            assert [next(watch) for watch in watches] == [SERVING] * 2
            told = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            assert [next(watch) for watch in watches] == [NOT_SERVING] * 2
            assert time.monotonic() - told < 1
            # There is nothing more to hear, and no reason to wait for who listens.
            assert [list(watch) for watch in watches] == [[], []]
        for address in (gateway.flight, gateway.http):
            host, port = address.split(":")
            deadline = time.monotonic() + 1
            while accepts(host, int(port)):
                assert time.monotonic() < deadline, f"connections are taken at {address} after SIGTERM"
        stopping.set()
        for thread in threads:
            thread.join(60)
        assert counts == [ROWS] * STREAMS
        assert gateway.process.wait(20) == 0, gateway.tail()
        assert "cut off" not in gateway.logged()
    finally:
        gateway.process.kill()
        gateway.process.wait()


def streaming(client: flight.FlightClient) -> flight.FlightStreamReader:
    """Rows that go on without an end, of which some were read."""
    info = client.get_flight_info(flight.FlightDescriptor.for_command(statement(ENDLESS)))
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    return reader


def test_what_runs_beyond_the_grace_is_cut_off(tmp_path: Path) -> None:
    gateway = configured(tmp_path, "[limits]\ngrace = '2s'\n", replicas=1)
    try:
        with flight.connect(gateway.uri) as client:
            reader = streaming(client)
            told = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            # It is read all the time, and ends with an error: no client takes it for the whole.
            with pytest.raises((pa.ArrowException, flight.FlightError)):
                drain(reader)
            cut = time.monotonic() - told
            assert gateway.process.wait(20) == 0, gateway.tail()
            ended = time.monotonic() - told
        print(f"\ncut off after {cut:.2f} s, ended after {ended:.2f} s")
        assert 1.9 < cut < 4
        assert ended < 4
        assert "streams were still running after the grace time and were cut off" in gateway.logged()
    finally:
        gateway.process.kill()
        gateway.process.wait()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    gateway = configured(tmp_path, "", replicas=1)
    try:
        with flight.connect(gateway.uri) as client:
            reader = streaming(client)
            gateway.process.send_signal(signal.SIGTERM)
            while "stopping" not in gateway.logged():
                assert gateway.process.poll() is None
            asked = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            assert gateway.process.wait(10) == 130
            assert time.monotonic() - asked < 1
            reader.cancel()
    finally:
        gateway.process.kill()
        gateway.process.wait()


def drain(reader: flight.FlightStreamReader) -> None:
    """Reads for as long as there is something, and keeps nothing."""
    for _ in reader:
        pass


def accepts(host: str, port: int) -> bool:
    """Whether a new connection is taken."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
