"""Fixtures for every test: the demo, the TPC-H files with DuckDB over them, and a gateway over the same files."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import pyarrow.flight as flight
import pytest

import answers
import bound
import s3
import trino_server
from data import demo_configuration, tpch_files
from gateway import REPLICAS, Gateway, configured, demo
from trino_server import Trino

SCALE = os.environ.get("NEXUS_TPCH_SCALE", "0.1")
FIGURES = pytest.StashKey[list[str]]()


def pytest_configure() -> None:
    """Lets a test open as many connections as the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With replicas, leaves out what is bound to one."""
    if REPLICAS > 1:
        bound.leave_out(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the figures, whether or not what the tests print is shown."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figure(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes a line that is to be read at the end of the run, even where all went well."""
    return pytestconfig.stash.setdefault(FIGURES, []).append


@pytest.fixture(scope="session")
def tpch() -> Path:
    """A folder with the eight tables of TPC-H as Parquet, made once for a scale."""
    return tpch_files(SCALE)


@pytest.fixture(scope="session")
def judge(tpch: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB over the same files: the answers that the gateway must give."""
    return answers.judge(tpch)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The demo, shared by all tests that only read."""
    folder = tmp_path_factory.mktemp("demo")
    with demo(folder / "gateway.log") if REPLICAS == 1 else configured(folder, demo_configuration()) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def warehouse(tpch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A configured gateway over the TPC-H files, cache off."""
    text = f"""
[defaults]
catalog = "tpch"
schema = "main"

[cache]
size = "0"

[catalogs.tpch]
kind = "files"
location = "{tpch}"
"""
    with configured(tmp_path_factory.mktemp("warehouse"), text) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def spooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    """A server of buckets, for what Trino spools."""
    with s3.server(tmp_path_factory.mktemp("spooled") / "root") as running:
        yield running


@pytest.fixture(scope="session")
def trino(spooled: s3.Bucket) -> Iterator[Trino]:
    """A Trino server, shared by all tests of it: one that kills it starts it again, without the tables that were in memory."""
    with trino_server.server(spooled) as running:
        yield running


@pytest.fixture
def adbc(embedded: Gateway) -> Iterator[flightsql.Connection]:
    """An ADBC connection to the demo."""
    # A transaction, which is what a connection without autocommit begins, is bound to its replica.
    with flightsql.connect(embedded.uri, autocommit=REPLICAS > 1) as connection:
        yield connection


@pytest.fixture(scope="module")
def cursor(gateway: Gateway) -> Iterator[flightsql.Cursor]:
    """A cursor of ADBC, which commits each statement, over the gateway of a module that has one of its own."""
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as opened:
        yield opened


@pytest.fixture
def client(embedded: Gateway) -> Iterator[flight.FlightClient]:
    """A pyarrow connection to the demo."""
    with flight.connect(embedded.uri) as connection:
        yield connection
