"""Bad input: a clear error with the right code, and the process goes on."""

import gzip
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway import Gateway, configured, nexus
from wire import Client, statement

INVALID, NOT_FOUND, DATA = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS
EXHAUSTED, UNIMPLEMENTED = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED


def failure(client: Client, sql: str) -> grpc.RpcError:
    """The error of a statement; afterwards the gateway still answers."""
    with pytest.raises(grpc.RpcError) as error:
        client.rows(sql)
    assert client.rows("select 1 as v") == [{"v": 1}]
    assert "panicked" not in (error.value.details() or "")
    return error.value


@pytest.fixture
def demo_wire(embedded: Gateway) -> Iterator[Client]:
    """A plain gRPC connection to the demo."""
    with Client(embedded.flight) as client:
        yield client


@pytest.mark.parametrize(
    ("sql", "code", "said"),
    [
        ("selec 1", INVALID, "line 1, column 1"),
        ("select 1\nfrom nation\nwhere where", INVALID, "line 3, column"),
        ("select 'open", INVALID, "unterminated"),
        ("", INVALID, "empty|no statement"),
        ("select 1; select 2", UNIMPLEMENTED, "one statement"),
        ("select * from lineitm", NOT_FOUND, '"lineitem"'),
        ("select * from tpch.main.lineitm", NOT_FOUND, '"lineitem"'),
        ("select * from tpch.mian.lineitem", NOT_FOUND, '"main"'),
        ("select * from tcph.main.lineitem", NOT_FOUND, '"tpch"'),
        ("select l_orderky from lineitem", INVALID, "l_orderkey"),
        ("select no_such_function(1)", INVALID, "no_such_function"),
        ("select l_orderkey + date '2020-01-01' from lineitem where l_comment > 1.5 and l_shipdate and 1", INVALID, ""),
        ("select cast('x' as integer)", INVALID, "x"),
        ("select date '2026-13-45'", INVALID, "2026-13-45"),
        ("select 1 / 0", INVALID, "[Dd]ivi"),
        ("select l_orderkey, count(*) from lineitem", INVALID, "(?i)group by"),
        ("select (select n_nationkey from nation)", INVALID, "(?i)one row|scalar"),
        ("copy nation to '/tmp/stolen.csv'", UNIMPLEMENTED, ""),
        ("create external table t stored as csv location '/etc/passwd'", UNIMPLEMENTED, ""),
        ("insert into nation values (25, 'x', 1, 'y')", grpc.StatusCode.PERMISSION_DENIED, "read-only"),
        ("create view v as select 1", UNIMPLEMENTED, ""),
        ("set datafusion.execution.batch_size = 1", UNIMPLEMENTED, ""),
    ],
)
def test_a_statement_that_is_wrong(sql: str, code: grpc.StatusCode, said: str, demo_wire: Client) -> None:
    error = failure(demo_wire, sql)
    assert error.code() is code, error.details()
    assert re.search(said, error.details()), error.details()


@pytest.mark.parametrize(
    "sql",
    [
        "select " + "+".join(["1"] * 100_000),
        "select " + "(" * 50_000 + "1" + ")" * 50_000,
        "select " + "not " * 100_000 + "true",
        "select " + "case when true then " * 20_000 + "1" + " end" * 20_000,
        "select * from " + "(select * from " * 10_000 + "nation" + ")" * 10_000,
        "select 1 " + "union all select 1 " * 50_000,
        "select " + "-" * 1 + "- -" * 100_000 + "1",
        "select 1 where " + " or ".join(f"1 = {number}" for number in range(100_000)),
    ],
    ids=["operators", "parentheses", "not", "case", "subqueries", "unions", "minus", "or"],
)
def test_a_statement_that_is_too_deep_or_too_long(sql: str, demo_wire: Client) -> None:
    error = failure(demo_wire, sql)
    assert error.code() in (EXHAUSTED, INVALID), error.details()
    assert len(error.details()) < 4_000


def test_a_long_statement_of_reasonable_depth_is_answered(demo_wire: Client) -> None:
    numbers = ", ".join(str(number) for number in range(1_000))
    assert demo_wire.rows(f"select count(*) as n from nation where n_nationkey in ({numbers})") == [{"n": 25}]


@pytest.mark.parametrize("redact", [False, True])
def test_a_function_that_fails_on_a_value_fails_one_statement(redact: bool, tmp_path: Path) -> None:
    gateway = configured(tmp_path, f'[audit]\nfolder = "trail"\nredact = {str(redact).lower()}\n', replicas=1)
    try:
        with Client(gateway.flight) as client:
            for number, sql in enumerate(
                (
                    "select date_trunc('week', timestamp '1677-09-21 00:12:44')",
                    "select date '9999-12-31' + interval '2147483647 months'",
                ),
                1,
            ):
                error = failure(client, sql)
                assert error.code() is grpc.StatusCode.INTERNAL, error.details()
                assert error.details().startswith("the engine failed on this statement; where a function gets a value beyond")
                places = [line for line in gateway.logged().splitlines() if "panicked at" in line]
                assert len(places) >= number
        assert all(("what it said may quote a statement, and is left out" in line) == redact for line in places), places
    finally:
        assert gateway.stop() == 0


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """A gateway over files of which each is broken in its own way."""
    folder = tmp_path_factory.mktemp("broken")
    data = folder / "data"
    data.mkdir()
    whole = data / "whole.parquet"
    pq.write_table(pa.table({"a": list(range(100_000))}), whole)
    (data / "truncated.parquet").write_bytes(whole.read_bytes()[:-500])
    (data / "not.parquet").write_text("this is not Parquet, whatever its name says")
    body = bytearray(whole.read_bytes())
    body[100:2_000] = b"\xff" * 1_900
    (data / "scrambled.parquet").write_bytes(body)
    (data / "fields.csv").write_text("a,b\n1,2\n3,4,5\n6,7\n")
    (data / "late.csv").write_text("a,b\n" + "1,2\n" * 30_000 + "3,x\n")
    (data / "bad.json").write_text('{"a": 1}\n{"a": \n')
    (data / "cut.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1_000)[:-20])
    with configured(folder, f'[defaults]\ncatalog = "lake"\n[catalogs.lake]\nkind = "files"\nlocation = "{data}"\n') as gateway:
        with Client(gateway.flight) as client:
            yield client, data
        assert gateway.process.poll() is None, gateway.tail()


@pytest.mark.parametrize(
    ("table", "codes", "said"),
    [
        ("truncated", (DATA,), "truncated.parquet"),
        ("not", (DATA,), "not.parquet"),
        ("scrambled", (DATA,), "scrambled.parquet"),
        ("fields", (DATA,), "fields.csv:3: incorrect number of fields"),
        ("late", (DATA,), "late.csv:30002: error while parsing value 'x'"),
        ("bad", (DATA,), "bad.json:2: not valid JSON"),
        ("cut", (DATA,), "cut.csv.gz"),
    ],
)
def test_a_file_that_is_broken(table: str, codes: tuple, said: str, broken: tuple[Client, Path]) -> None:
    client, _ = broken
    error = failure(client, f'select * from "{table}"')
    assert error.code() in codes, error.details()
    assert said in error.details()
    assert client.rows("select count(*) as n from whole") == [{"n": 100_000}]


def test_a_file_that_vanishes_while_it_is_read(broken: tuple[Client, Path]) -> None:
    client, data = broken
    folder = data / "many"
    folder.mkdir()
    for number in range(40):
        pq.write_table(pa.table({"a": pa.array(range(50_000)), "s": ["x" * 100] * 50_000}), folder / f"{number:02}.parquet")
    [ticket] = client.info(statement("select * from many")).tickets
    stream = client.get(ticket)
    next(stream)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(grpc.RpcError) as error:
        list(stream)
    assert error.value.code() in (NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE, DATA)
    assert ".parquet" in error.value.details()
    assert client.rows("select 1 as v") == [{"v": 1}]


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = nexus("serve", "--demo", "--scale-factor", "0.001", "--flight-listen", address, "--http-listen", "127.0.0.1:0")
    assert done.returncode not in (0, 101)
    assert address in done.stderr
    assert "--flight-listen: cannot listen" in done.stderr
    assert "another program listens there" in done.stderr
    assert "panicked" not in done.stderr


def test_a_port_in_use_is_told_by_its_line(tmp_path: Path) -> None:
    config = tmp_path / "nexus.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(f'[flight]\nlisten = "127.0.0.1:0"\n[http]\nlisten = "{address}"\n')
        done = nexus("serve", "--config", config)
    assert f"{config}:4: http.listen: cannot listen on {address}: another program listens there" in done.stderr


def test_a_bucket_that_cannot_be_reached_is_told_by_its_line(tmp_path: Path) -> None:
    config = tmp_path / "nexus.toml"
    options = 'endpoint = "http://127.0.0.1:1"\nallow_http = true\naccess_key_id = "a"\nsecret_access_key = "b"\n'
    config.write_text(f'\n[catalogs.far]\nkind = "files"\nlocation = "s3://bucket"\n{options}')
    done = nexus("config", "check", "--connect", config)
    assert done.returncode == 1
    assert f"{config}:2: catalogs.far: s3://bucket: the store cannot be read" in done.stderr
    assert "check that it can be reached" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[flight\n", r"nexus\.toml:1"),
        ('[fligth]\nlisten = "127.0.0.1:1"', "flight"),
        ('[flight]\n\nlisen = "127.0.0.1:1"', r"nexus\.toml:3.*listen"),
        ('[flight]\nlisten = "0.0.0.0:0"', "auth"),
        ('[auth]\nmode = "baisc"', "basic"),
        ('[auth]\nmode = "basic"\n[auth.users.ann]\npassword_hash = "hunter2"', "argon2id"),
        ('[limits]\nmemory = "lots"', "MiB"),
        ('[catalogs.x]\nkind = "fiels"\nlocation = "/tmp"', "files"),
        ('[catalogs.x]\nkind = "files"', "location"),
        ('[catalogs.x]\nkind = "files"\nlocation = "${env:NO_SUCH_VARIABLE}"', "NO_SUCH_VARIABLE"),
        ('[defaults]\ncatalog = "nowhere"', "nowhere"),
    ],
)
def test_a_configuration_that_is_broken(text: str, said: str, tmp_path: Path) -> None:
    config = tmp_path / "nexus.toml"
    config.write_text(text)
    for command in (["config", "check", config], ["serve", "--config", config]):
        done = nexus(*command, wait=10)
        assert done.returncode not in (0, 101), command
        assert re.search(said, done.stderr, re.DOTALL), done.stderr
        assert "hunter2" not in done.stderr
