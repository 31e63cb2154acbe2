"""Traces: what a collector is told of statements, by the protocol's own definitions."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import postgres
from gateway import Gateway, configured
from wire import Client, ingest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.address = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, _: object) -> object:
        for of_resource in request.resource_spans:
            resource = of_resource.resource.attributes
            self.services |= {pair.value.string_value for pair in resource if pair.key == "service.name"}
            for scope in of_resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def tree(self, root: Span) -> dict[str, object]:
        """The spans below one, by their names."""
        return {span.name: self.tree(span) for span in self.spans if span.parent_span_id == root.span_id}


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.server.stop(0).wait()


def attributes(span: Span) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def traced(folder: Path, collector: Collector, more: str = "") -> Gateway:
    return configured(folder, f'[traces]\nendpoint = "{collector.address}"\n{more}', replicas=1)


def post(gateway: Gateway, text: str, **headers: str) -> requests.Response:
    kind = {"content-type": "text/plain"}
    return requests.post(f"{gateway.url}/v1/sql", data=text, headers={**kind, **headers}, timeout=60)


def test_a_statement_is_part_of_the_trace_of_its_client(tmp_path: Path, collector: Collector) -> None:
    # What is not sent yet is sent before the gateway ends.
    with postgres.server() as database:
        database.sql("create schema main; create table main.secrets (name text); insert into main.secrets values ('a'), ('b')")
        with traced(tmp_path, collector, database.catalog("pg")) as gateway:
            traceparent = f"00-{TRACE}-{PARENT}-01"
            assert post(gateway, "select name from pg.main.secrets", traceparent=traceparent).status_code == 200
            with Client(gateway.flight, traceparent=traceparent) as client:
                assert client.rows("select 1 as one") == [{"one": 1}]
            assert post(gateway, "select 1 / 0", traceparent=traceparent).status_code == 400
    assert collector.services == {"nexus-gateway"}
    http, flight, failed = sorted(
        (span for span in collector.spans if span.name == "statement"), key=lambda span: span.start_time_unix_nano
    )
    for span in (http, flight, failed):
        assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, PARENT, Span.SPAN_KIND_SERVER)
    assert collector.tree(http) == {"plan": {"tables": {}}, "wait": {}, "run": {}, "query": {}}
    # It was described before it was fetched, and reads no table.
    assert collector.tree(flight) == {"plan": {}, "wait": {}, "run": {}}
    told = attributes(http)
    assert (told["nexus.protocol"], told["nexus.outcome"], told["db.response.returned_rows"]) == ("http", "finished", 2)
    assert attributes(flight)["nexus.protocol"] == "flight"
    assert (failed.status.code, attributes(failed)["nexus.outcome"]) == (Status.STATUS_CODE_ERROR, "invalid")
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in collector.spans)
    # What was only described before it ran is in the trace too.
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert [collector.tree(span) for span in collector.spans if span.name == "describe"] == [{"plan": {"tables": {}}}]
    # A collector is another house.
    assert not any("secrets" in str(span) or postgres.PASSWORD in str(span) for span in collector.spans)


def test_what_writes_and_what_the_cache_has(tmp_path: Path, collector: Collector) -> None:
    catalog = '[defaults]\ncatalog = "kept"\n[catalogs.kept]\nkind = "memory"\nwritable = true\n'
    with traced(tmp_path, collector, catalog) as gateway:
        with Client(gateway.flight) as client:
            assert client.update("create table secrets (id bigint)") == 0
            assert client.update("insert into secrets values (1), (2)") == 2
            client.put(ingest("secrets", pa.record_batch({"id": pa.array([3], pa.int64())})))
        for use in ("miss", "hit"):
            answer = post(gateway, "select count(*) as n from secrets")
            assert (answer.status_code, answer.headers["x-nexus-cache"]) == (200, use)
    made, inserted, put, miss, hit = sorted(
        (span for span in collector.spans if span.name == "statement"), key=lambda span: span.start_time_unix_nano
    )
    for span in (made, inserted):
        assert collector.tree(span) == {"plan": {"tables": {}}, "wait": {}, "write": {}}
    assert collector.tree(put) == {"plan": {}, "wait": {}, "write": {}}
    for span in (made, inserted, put):
        assert attributes(span)["nexus.cache"] == "bypass"
    written = [span for span in collector.spans if span.name == "write"]
    assert [attributes(span)["nexus.catalog"] for span in written] == ["kept"] * 3
    assert (attributes(miss)["nexus.cache"], collector.tree(miss)) == ("miss", {"plan": {"tables": {}}, "wait": {}, "run": {}})
    # It waits for nothing, and nothing runs.
    assert (attributes(hit)["nexus.cache"], collector.tree(hit)) == ("hit", {"plan": {"tables": {}}})
    assert not any("secrets" in str(span) for span in collector.spans)


def test_without_a_trace_of_the_client_as_many_as_are_wanted(tmp_path: Path, collector: Collector) -> None:
    with traced(tmp_path, collector, "ratio = 0.0\n") as gateway:
        for wrong in ("", "no trace", f"00-{TRACE}-{PARENT}"):
            assert post(gateway, "select 1 as one", traceparent=wrong).status_code == 200
        assert post(gateway, "select 2 as two", traceparent=f"00-{TRACE}-{PARENT}-01").status_code == 200
    assert [span.trace_id.hex() for span in collector.spans if span.name == "statement"] == [TRACE]


def test_a_collector_that_is_not_there_holds_nothing_up(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        text = f'[traces]\nendpoint = "http://127.0.0.1:{free.getsockname()[1]}"\n'
        with configured(tmp_path, text, replicas=1) as gateway:
            began = time.monotonic()
            assert all(post(gateway, "select 1 as one").status_code == 200 for _ in range(50))
            assert time.monotonic() - began < 5


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="traces.endpoint"):
        configured(tmp_path, '[traces]\nendpoint = "no address"\n', replicas=1)
