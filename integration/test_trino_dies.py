"""A Trino server that is killed or freezes while its rows are read: who reads is told in time, nothing that was cut is kept, and
what is asked once the server is back is answered."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pytest

from gateway import Gateway, configured, eventually
from test_database_dies import Breaks, all_break, by_adbc, by_http, by_jdbc, use
from test_load import value
from trino_server import Trino
from wire import reserved, running

# The seconds after which a server that says nothing is given up, and within which one that is not there any more is told.
SILENT, SOON = 4, 5
# What is read from a catalog whose answers are kept: of each number another statement, of more rows than anybody holds back.
LONG = "select l_orderkey, l_comment from kept.sf1.lineitem where l_orderkey > -{}"
SMALL = "select n_name from kept.tiny.nation where n_nationkey = 7"


@pytest.fixture(scope="module")
def gateway(trino: Trino, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    waits = {"connect_timeout": 10, "read_timeout": SILENT}
    # What is asked once the server is back is answered soon.
    text = '[engines]\nretry = "1s"\n' + trino.catalog("kept", "tpch", ttl="1h", **waits)
    text += trino.catalog("direct", "tpch", spooling=False, **waits)
    with configured(tmp_path_factory.mktemp("dies"), text, replicas=1) as gateway:
        yield gateway


@contextmanager
def reading(gateway: Gateway, trino: Trino, first: int) -> Iterator[list[Breaks]]:
    """Three statements, each in another way, which all have their first rows; and a fourth one without segments."""
    statements = [LONG.format(first + number) for number in range(3)]
    with ExitStack() as stack:
        ways = zip((by_jdbc, by_http, by_adbc), statements, strict=True)
        begun = [stack.enter_context(way(gateway, sql)) for way, sql in ways]
        begun.append(stack.enter_context(by_adbc(gateway, LONG.format(first).replace("kept", "direct"))))
        assert eventually(lambda: trino.running("lineitem") == len(begun), 10)
        yield begun


def nothing_is_left(gateway: Gateway) -> None:
    """Of what was cut: no answer that is kept, no memory, and nothing that runs."""
    assert eventually(lambda: running(gateway) == 0 and reserved(gateway) == 0, 10)
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select statement from system.main.cache where statement like '%lineitem%'")
        assert cursor.fetchall() == []


def test_a_server_that_is_frozen_is_an_error(gateway: Gateway, trino: Trino) -> None:
    with reading(gateway, trino, 0) as begun, trino.frozen():
        # What is on its way comes first, and the silence is counted from there.
        assert all_break(begun, SILENT + 10)
        began = time.monotonic()
        with pytest.raises(adbc_driver_manager.Error, match=f"silent for {SILENT} s|does not answer"):
            value(gateway, "select count(*) from direct.tiny.region")
        assert time.monotonic() - began < SILENT + 2
    nothing_is_left(gateway)
    assert eventually(lambda: trino.running("lineitem") == 0, 10)
    assert eventually(lambda: answers(gateway), 10)


@pytest.mark.timeout(240)
def test_a_server_that_is_killed_is_an_error(gateway: Gateway, trino: Trino) -> None:
    # The catalog is one whose answers are kept, also while nobody could make them.
    for _ in range(2):
        assert value(gateway, SMALL) == "GERMANY"
    assert use(gateway, SMALL) == "hit"
    with reading(gateway, trino, 3) as begun:
        killed = time.monotonic()
        trino.kill()
        assert all_break(begun, killed + SOON - time.monotonic())
    began = time.monotonic()
    with pytest.raises(adbc_driver_manager.Error, match="does not answer"):
        value(gateway, "select count(*) from direct.tiny.region")
    assert time.monotonic() - began < SOON
    trino.start()
    assert eventually(lambda: answers(gateway), 10)
    nothing_is_left(gateway)


def answers(gateway: Gateway) -> bool:
    try:
        return value(gateway, "select count(*) from direct.tiny.region") == 5
    except adbc_driver_manager.Error:
        return False
