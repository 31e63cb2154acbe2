"""Memory: a large result streams within a small bound, with a slow reader too; what cannot fit fails in words."""

import gzip
import re
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from gateway import Gateway, configured
from wire import Client, statement

LIMIT = '[limits]\nmemory = "256MiB"\n[cache]\nsize = "0"\n'
BOUND = 550 << 20
MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path, tpch: Path) -> Iterator[Gateway]:
    """A gateway with 256 MiB for its statements."""
    text = f'{LIMIT}[defaults]\ncatalog = "tpch"\n[catalogs.tpch]\nkind = "files"\nlocation = "{tpch}"\n'
    with configured(tmp_path, text) as gateway:
        yield gateway


def streamed(gateway: Gateway, wanted: int, pause: float) -> int:
    """Reads that many bytes of an endless join, waiting after each 64 MiB; returns the peak of resident memory."""
    with Client(gateway.flight) as client:
        # The first side of a cross join is held: that is the small one.
        endless = "select l.* from generate_series(1, 1000), lineitem l"
        [ticket] = client.info(statement(endless)).tickets
        stream = client.get(ticket, timeout=3600)
        seen = step = 0
        while seen < wanted:
            seen += len(next(stream))
            if seen // (64 * MIB) > step:
                step = seen // (64 * MIB)
                time.sleep(pause)
        stream.cancel()
        assert client.rows("select 1 as v") == [{"v": 1}]
    return peak(gateway)


def peak(gateway: Gateway) -> int:
    """The most memory that was ever resident, in bytes."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


@pytest.mark.parametrize("pause", [0.0, 0.5], ids=["fast reader", "slow reader"])
def test_one_gibibyte_streams_in_little_memory(pause: float, small: Gateway) -> None:
    assert streamed(small, 1 << 30, pause) < BOUND


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pause", [0.0, 1.0], ids=["fast reader", "slow reader"])
def test_five_gibibytes_stream_in_little_memory(pause: float, small: Gateway) -> None:
    assert streamed(small, 5 << 30, pause) < BOUND


def test_a_reader_that_stops_reading_holds_little(small: Gateway) -> None:
    process = psutil.Process(small.pid)
    with Client(small.flight) as client:
        [ticket] = client.info(statement("select l.* from lineitem l, generate_series(1, 1000)")).tickets
        stream = client.get(ticket)
        next(stream)
        used = process.cpu_times().user
        deadline = time.monotonic() + 20
        # The server has stopped for the reader when a second passes without work.
        while time.monotonic() < deadline:
            time.sleep(1)
            before, used = used, process.cpu_times().user
            if used - before < 0.05:
                break
        else:
            pytest.fail("the server goes on working for a reader that does not read")
        assert peak(small) < BOUND
        stream.cancel()


def test_what_does_not_fit_fails_in_words(small: Gateway) -> None:
    with Client(small.flight) as client:
        wide = "select l_orderkey, l_comment || repeat('x', 2000) as c from lineitem"
        hungry = f"select count(*) from ({wide}) a join ({wide}) b on a.c = b.c and a.l_orderkey = b.l_orderkey"
        with pytest.raises(grpc.RpcError) as error:
            client.rows(hungry, timeout=110)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.value.details()
        assert "limits.memory" in error.value.details()
        assert client.rows("select 1 as v") == [{"v": 1}]
    assert peak(small) < BOUND


@pytest.mark.parametrize("name", ["docs.csv.gz", "docs.json.gz"])
def test_wide_rows_of_text_are_read_in_little_memory(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    folder.mkdir()
    with gzip.open(folder / name, "wt", compresslevel=1) as file:
        file.write("id,doc\n" if "csv" in name else "")
        for number in range(2_000):
            doc = "x" * 250_000
            file.write(f"{number},{doc}\n" if "csv" in name else f'{{"id":{number},"doc":"{doc}"}}\n')
    text = f'{LIMIT}[catalogs.lake]\nkind = "files"\nlocation = "{folder}"\n'
    with configured(tmp_path, text) as gateway, Client(gateway.flight) as client:
        assert client.rows("select sum(length(doc)) as n from lake.main.docs") == [{"n": 500_000_000}]
        assert client.rows("select id from lake.main.docs where id = 7 and doc like 'x%'") == [{"id": 7}]
        assert peak(gateway) < BOUND


def test_windows_take_little_memory(small: Gateway) -> None:
    with Client(small.flight) as client:
        by_supplier = "select sum(l_quantity) over (partition by l_suppkey) as s from lineitem"
        [whole] = client.rows("select sum(l_quantity) as s from lineitem")
        [parts] = client.rows(f"select sum(s) > {whole['s']} as larger from ({by_supplier})")
        assert parts == {"larger": True}
        with pytest.raises(grpc.RpcError) as error:
            client.rows("select array_agg(l_comment) over () as a from lineitem")
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.value.details()
    assert peak(small) < BOUND


def test_open_transactions_have_no_more_than_their_catalog(tmp_path: Path) -> None:
    text = f'{LIMIT}[catalogs.kept]\nkind = "memory"\nwritable = true\nsize = "64MiB"\n'
    with configured(tmp_path, text) as gateway, Client(gateway.flight) as client:

        def refused(transaction: bytes) -> grpc.RpcError | None:
            """Writes 24 MB; returns why it cannot."""
            try:
                client.update(
                    "insert into kept.main.t select value, repeat('x', 1000) from generate_series(1, 24000)", transaction
                )
            except grpc.RpcError as error:
                return error
            return None

        def filled(transaction: bytes) -> int:
            """Writes until there is no room, what savepoints alone keep; returns how often there was."""
            count = 0
            while (error := refused(transaction)) is None:
                count += 1
                client.savepoint(transaction)
                client.update("delete from kept.main.t", transaction)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()
            assert "with what savepoints and other transactions keep" in error.details()
            assert "option size" in error.details()
            return count

        client.update("create table kept.main.t (id bigint, text varchar)")
        first, *others = [client.begin() for _ in range(12)]
        assert [filled(transaction) for transaction in (first, *others)] == [2] + [0] * len(others)
        client.end(first, commits=False)
        assert filled(client.begin()) == 2
        assert peak(gateway) < BOUND
