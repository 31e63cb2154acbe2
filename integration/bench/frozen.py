"""How long statements of other catalogs take while a database is frozen, beside what they take when it is not."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import pyarrow.flight as flight

import postgres
from bench.measure import by_default, stream
from gateway import Gateway, eventually
from postgres import Database
from wire import running, statement

# What runs at once, and what of it over one database. As many statements hang there while it is frozen as would take all twice.
SLOTS, SHARE = 16, 12
HANGING = 2 * SLOTS
CALLS = 400
# Each statement that hangs finds a connection of its own.
CONFIG = """
[limits]
concurrency = {slots}
[cache]
size = "0"
[defaults]
catalog = "files"
[catalogs.files]
kind = "files"
location = "{folder}"
[catalogs.frozen]
kind = "postgres"
url = "{url}"
password = "{password}"
connect_timeout = 120
pool = {pool}
"""


def ratio(folder: Path, files: Path, rounds: int) -> tuple[float, float]:
    """Median over rounds of the p95, in seconds: with the database frozen, and not. The two take turns."""
    command = statement("select count(*) from nation where n_nationkey > 3")
    frozen, calm = [], []
    with postgres.server() as database:
        database.sql("create table public.held as select 1 as id")
        catalogs = {"folder": files, "url": database.url, "password": postgres.PASSWORD}
        text = CONFIG.format(slots=SLOTS, pool=2 * HANGING, **catalogs)
        with by_default(folder, text) as gateway, flight.connect(gateway.uri) as client:
            for number in range(rounds + 1):
                quiet = _p95(client, command)
                with _hanging(gateway, database):
                    held = _p95(client, command)
                if number:
                    calm.append(quiet)
                    frozen.append(held)
    return median(frozen), median(calm)


def two_calls(client: flight.FlightClient, command: bytes) -> float:
    """Seconds of GetFlightInfo and DoGet of one row."""
    started = time.perf_counter()
    stream(client, command).read_all()
    return time.perf_counter() - started


def _p95(client: flight.FlightClient, command: bytes) -> float:
    return quantiles((two_calls(client, command) for _ in range(CALLS)), n=20)[18]


@contextmanager
def _hanging(gateway: Gateway, database: Database) -> Iterator[None]:
    """Freezes the database with as many statements at it. All of them hang from the beginning of the block to its end."""
    # They run, or wait for their turn, before it is frozen. As many more are described then: these do not count as running.
    described = flight.FlightDescriptor.for_command(statement("select id from frozen.public.held"))
    with ExitStack() as ends:
        connections = [ends.enter_context(flight.connect(gateway.uri)) for _ in range(2 * HANGING)]
        tickets = [client.get_flight_info(described).endpoints[0].ticket for client in connections[:HANGING]]
        asked = [partial(client.do_get, ticket) for client, ticket in zip(connections, tickets, strict=False)]
        planned = [partial(client.get_flight_info, described) for client in connections[HANGING:]]
        threads = [threading.Thread(target=_hang, args=(call,)) for call in (*asked, *planned)]

        def start(some: list[threading.Thread]) -> None:
            for thread in some:
                thread.start()
                ends.callback(thread.join)

        def wait() -> bool:
            # Nothing else runs there: the others are planned, and wait for their turn.
            return running(gateway) == HANGING and len(database.running("held")) == SHARE == len(database.running())

        def hang() -> bool:
            return running(gateway) == HANGING and all(thread.is_alive() for thread in threads)

        with database.locked("public.held"):
            start(threads[:HANGING])
            assert eventually(wait, 20), f"{running(gateway)} statements are there, {len(database.running())} at the database"
            with database.frozen():
                start(threads[HANGING:])
                assert eventually(hang, 10), f"{running(gateway)} statements hang"
                yield
                # The last of those that were measured may have ended a moment ago.
                assert eventually(hang, 2), f"{running(gateway)} statements still hang"


def _hang(call: Callable[[], object]) -> None:
    """A statement that waits for the database, and fails or answers when that goes on."""
    with suppress(flight.FlightError):
        answer = call()
        if isinstance(answer, flight.FlightStreamReader):
            answer.read_all()
