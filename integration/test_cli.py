"""The command line: statements with each form of output, the prompt with Ctrl-C, passwords, configuration, start and end."""

import csv
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from data import demo_configuration
from gateway import BINARY, Gateway, configured, demo, eventually, nexus

QUERY = "select n_nationkey, n_name from nation where n_nationkey < 2 order by 1"
ROWS = [{"n_nationkey": 0, "n_name": "ALGERIA"}, {"n_nationkey": 1, "n_name": "ARGENTINA"}]
ENDLESS = "select sum(a.l_orderkey * b.l_orderkey) from lineitem a, lineitem b, lineitem c"


def sql(gateway: Gateway, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`nexus sql` to its end."""
    return nexus("sql", "--url", gateway.uri, *arguments, **options)


def test_a_table_for_people(embedded: Gateway) -> None:
    done = sql(embedded, "-c", QUERY)
    assert done.returncode == 0, done.stderr
    assert re.search(r"n_nationkey.*n_name", done.stdout)
    assert re.search(r"1.*ARGENTINA", done.stdout)


def test_csv_and_json(embedded: Gateway) -> None:
    text = sql(embedded, "-c", QUERY, "--format", "csv").stdout
    assert list(csv.DictReader(io.StringIO(text))) == [{name: str(value) for name, value in row.items()} for row in ROWS]
    text = sql(embedded, "-c", QUERY, "--format", "json").stdout
    assert [json.loads(line) for line in text.splitlines()] == ROWS


def test_arrow_and_parquet(embedded: Gateway, tmp_path: Path) -> None:
    for form in ("arrow", "parquet"):
        done = sql(embedded, "-c", QUERY, "--format", form, "--output", tmp_path / form)
        assert done.returncode == 0, done.stderr
    assert pa.ipc.open_stream((tmp_path / "arrow").read_bytes()).read_all().to_pylist() == ROWS
    assert pq.read_table(tmp_path / "parquet").to_pylist() == ROWS


def test_many_statements_and_standard_input(embedded: Gateway) -> None:
    assert sql(embedded, "-c", "select 1 as a", "-c", "select 2 as b", "--format", "csv").stdout.split() == ["a", "1", "b", "2"]
    assert sql(embedded, "--format", "csv", stdin="select 1 as a;\nselect\n2 as b").stdout.split() == ["a", "1", "b", "2"]


def test_an_error_is_told_and_ends_with_one(embedded: Gateway) -> None:
    done = sql(embedded, "-c", "select * from lineitm")
    assert (done.returncode, done.stdout) == (1, "")
    assert '"lineitem"' in done.stderr


def test_a_server_that_is_not_there() -> None:
    done = nexus("sql", "--url", "grpc://127.0.0.1:9", "-c", "select 1")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr


def test_a_password_comes_from_the_environment(tmp_path: Path) -> None:
    hashed = nexus("hash-password", stdin="hunter2\n").stdout.strip()
    with configured(tmp_path, f'[auth]\nmode = "basic"\n[auth.users.ann]\npassword_hash = "{hashed}"\n') as gateway:
        good = sql(gateway, "--user", "ann", "-c", "select 1 as v", "--format", "csv", environment={"NEXUS_PASSWORD": "hunter2"})
        assert good.stdout.split() == ["v", "1"], good.stderr
        bad = sql(gateway, "--user", "ann", "-c", "select 1", environment={"NEXUS_PASSWORD": "not-this-one"})
        assert bad.returncode == 1
        assert "not-this-one" not in bad.stderr


@pytest.mark.parametrize(("password", "warned"), [("p\u00e4ssw\u00f6r", True), ("p\u00e4ssw\u00f6rd", False)])
def test_a_password_that_is_soon_guessed_is_hashed_with_a_warning(password: str, warned: bool) -> None:
    done = nexus("hash-password", stdin=f"{password}\n")
    assert done.stdout.startswith("$argon2id$")
    assert ("warning: the password has fewer than 8 characters" in done.stderr) == warned
    assert password not in done.stderr


def test_a_token_is_for_somebody() -> None:
    done = nexus("token", "--user", "")
    assert (done.returncode, done.stdout) == (1, "")
    assert "a token is for a user, and none is named" in done.stderr


def test_the_cache_is_asked_and_tells_as_over_http(tmp_path: Path) -> None:
    statement = "select 20261130 as v"
    with configured(tmp_path, "", replicas=1) as gateway:

        def told(*arguments: str) -> str:
            done = sql(gateway, "--verbose", "-c", statement, "--format", "csv", *arguments)
            assert (done.returncode, done.stdout) == (0, "v\n20261130\n"), done.stderr
            return re.fullmatch(r"1 row, [^,]+, [\d.]+ s, cache (.*)\n", done.stderr)[1]

        assert requests.post(f"{gateway.url}/v1/sql", data=statement, timeout=30).headers["x-nexus-cache"] == "miss"
        assert re.fullmatch(r"hit, \d+ s old", told())
        assert told("--cache", "no-store") == "bypass: the client wants none"
        wanted = ("no-cache", "only-if-cached", "max-age=600")
        assert [told("--cache", control)[:4] for control in wanted] == ["miss", "hit,", "hit,"]
        assert [told("--cache-tag", tag)[:4] for tag in ("a", "a", "b")] == ["miss", "hit,", "miss"]
        none = sql(gateway, "-c", "select 'nobody asked' as v", "--cache", "only-if-cached")
        assert (none.returncode, "there is no answer in the cache" in none.stderr) == (1, True), none.stderr
        assert sql(gateway, "-c", statement).stderr == ""
        wrong = sql(gateway, "-c", statement, "--cache", "sometimes")
        assert (wrong.returncode, "is no cache control" in wrong.stderr) == (2, True), wrong.stderr


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command: object, **environment: str) -> None:
        self.master, slave = os.openpty()
        words = ["setsid", "--ctty", "--wait", *map(str, command)]
        values = {**os.environ, "TERM": "xterm", **environment}
        self.process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=values)
        os.close(slave)
        self.seen = ""

    def expect(self, pattern: str, wait: float = 20) -> None:
        """Reads until the pattern has come, and forgets what came up to its end."""
        deadline = time.monotonic() + wait
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not come; there was {self.seen[-2000:]!r}"
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]

    def type(self, text: str) -> None:
        """Types."""
        os.write(self.master, text.encode())


def test_the_prompt_and_ctrl_c(embedded: Gateway, tmp_path: Path) -> None:
    terminal = Terminal(BINARY, "sql", "--url", embedded.uri, XDG_STATE_HOME=str(tmp_path))
    terminal.expect("nexus> ")
    terminal.type("select 41 +\r")
    terminal.expect("-> ")
    terminal.type("1 as v;\r")
    terminal.expect("42")
    terminal.expect("nexus> ")
    terminal.type("select * from lineitm;\r")
    terminal.expect('error: .*"lineitem"')
    terminal.expect("nexus> ")
    terminal.type(f"{ENDLESS};\r")
    running = "select count(*) as n from system.main.queries where statement like '%b.l_orderkey%' and state = 'running'"
    assert eventually(lambda: embedded_count(embedded, running) >= 1, 20)
    terminal.type("\x03")
    terminal.expect("cancelled")
    terminal.expect("nexus> ")
    assert eventually(lambda: embedded_count(embedded, running) == 0, 20)
    terminal.type("select 'still' || ' here';\r")
    terminal.expect("still here")
    terminal.expect("nexus> ")
    terminal.type("\\d tpch.main.nation\r")
    terminal.expect(r"main +nation +n_regionkey +\w+ +(yes|no)")
    terminal.expect("nexus> ")
    terminal.type("\\d nations\r")
    terminal.expect("there is no table nations")
    terminal.expect("nexus> ")
    for command, name in {"\\dt reg%": "region", "\\dn": "information_schema", "\\l": "system"}.items():
        terminal.type(f"{command}\r")
        terminal.expect(name)
        terminal.expect("nexus> ")
    terminal.type("select count(*) as n from regi\t;\r")
    terminal.expect("1 row")
    terminal.expect("nexus> ")
    terminal.type("\\cache sometimes\r")
    terminal.expect("is no cache control")
    terminal.expect("nexus> ")
    terminal.type("\\cache max-age=60, no-store\r")
    terminal.expect("nexus> ")
    terminal.type("select 7 as v;\r")
    terminal.expect("1 row, .*, cache bypass: the client wants none")
    terminal.expect("nexus> ")
    terminal.type("\x04")
    assert terminal.process.wait(10) == 0
    assert "41 +" in (tmp_path / "nexus" / "sql_history").read_text()


def embedded_count(gateway: Gateway, query: str) -> int:
    """A count, less the statement that asks for it."""
    lines = sql(gateway, "-c", query + " and statement not like '%system%'", "--format", "csv").stdout.split()
    return int(lines[1])


def test_a_good_configuration_and_its_schema(tmp_path: Path) -> None:
    config = tmp_path / "nexus.toml"
    config.write_text(f'[catalogs.lake]\nkind = "files"\nlocation = "{tmp_path}"\n')
    done = nexus("config", "check", config)
    assert done.returncode == 0, done.stderr
    schema = json.loads(nexus("config", "schema").stdout)
    assert {"flight", "http", "auth", "catalogs"} <= set(schema["properties"])


def test_a_check_that_connects_names_what_does_not_answer(tmp_path: Path) -> None:
    config = tmp_path / "nexus.toml"
    config.write_text('[catalogs.lake]\nkind = "files"\nlocation = "lake"\n')
    assert nexus("config", "check", config).returncode == 0
    done = nexus("config", "check", "--connect", config)
    assert done.returncode == 1
    assert f"{config}:3: catalogs.lake.location: the folder {tmp_path}/lake cannot be opened" in done.stderr
    (tmp_path / "lake").mkdir()
    done = nexus("config", "check", "--connect", config)
    assert (done.returncode, done.stdout) == (0, f"{config}: the configuration is good, and every source answers\n")


def test_no_source_is_touched_before_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "one.csv").write_text("a\n1\n")
    catalogs = "".join(f'[catalogs.{name}]\nkind = "files"\nlocation = "{name}"\n' for name in ("here", "gone"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        catalogs += f'[catalogs.shop]\nkind = "postgres"\nurl = "postgres://me@127.0.0.1:{port}/shop"\nconnect_timeout = 1\n'
        bucket = f'location = "s3://bucket"\nendpoint = "http://127.0.0.1:{port}"\nallow_http = true\n'
        keys = 'access_key_id = "a"\nsecret_access_key = "b"\n'
        for kind in ("files", "delta", "iceberg"):
            catalogs += f'[catalogs.bucket_{kind}]\nkind = "{kind}"\n{bucket}{keys}'
        with configured(tmp_path, catalogs) as gateway:
            done = nexus("sql", "--url", gateway.uri, "--format", "csv", "-c", "SELECT a FROM here.main.one")
            assert done.stdout == "a\n1\n", done.stderr
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
            done = nexus("sql", "--url", gateway.uri, "-c", "SELECT a FROM shop.main.one")
            assert done.returncode != 0
            listener.accept()[0].close()


def test_a_reader_that_leaves_is_no_trouble(tmp_path: Path) -> None:
    config = tmp_path / "nexus.toml"
    config.write_text("")
    for command in (["config", "schema"], ["config", "check", config]):
        with subprocess.Popen([BINARY, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.close()
            assert (process.wait(30), process.stderr.read()) == (0, "")


def test_the_written_schema_and_help() -> None:
    assert "serve" in nexus("--help").stdout
    assert re.match(r"nexus \d+\.\d+", nexus("--version").stdout)
    assert nexus("no-such-command").returncode == 2


def test_ctrl_c_ends_a_gateway_that_is_busy(tmp_path: Path) -> None:
    """After its grace, which is shorter than that of the demo: the statement does not come to an end by itself."""
    gateway = configured(tmp_path, f'{demo_configuration()}[limits]\ngrace = "1s"\n', replicas=1)
    busy = subprocess.Popen([BINARY, "sql", "--url", gateway.uri, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        running = "select count(*) as n from system.main.queries where state = 'running'"
        assert eventually(lambda: embedded_count(gateway, running) >= 1, 20)
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(15) == 0, gateway.tail()
        assert busy.wait(10) == 1
    finally:
        busy.kill()
        gateway.process.kill()


def test_sigterm_ends_it_too(tmp_path: Path) -> None:
    gateway = demo(tmp_path / "gateway.log")
    gateway.process.terminate()
    assert gateway.process.wait(15) == 0, gateway.tail()


@pytest.mark.parametrize("port", ["flight", "http"])
def test_a_tls_hello_on_a_plain_port_is_logged_with_the_fix(port: str, embedded: Gateway) -> None:
    host, number = getattr(embedded, port).rsplit(":", 1)
    with socket.create_connection((host, int(number))) as plain:
        plain.sendall(bytes.fromhex("16030100c8010000c40303") + bytes(32))
        peer = "{}:{}".format(*plain.getsockname())
        change = {
            "flight": "turn it off in the client: useEncryption=false for JDBC, grpc:// instead of grpc+tls:// for the others",
            "http": "ask http:// instead of https://",
        }
        advice = (
            f"a client began with TLS on this plain port; {change[port]}; "
            "or give the gateway a certificate in [tls], which is for both ports"
        )

        def is_logged() -> bool:
            return any(advice in line and peer in line for line in embedded.logged().splitlines())

        assert eventually(is_logged, 20)
