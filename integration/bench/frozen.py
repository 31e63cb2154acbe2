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
from gateway import Gateway, configured, eventually
from postgres import Database
from wire import running, statement

# As many statements hang at the database while it is frozen.
HANGING = 8
CALLS = 400
CONFIG = """
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
"""


def ratio(folder: Path, files: Path, rounds: int) -> tuple[float, float]:
    """Median over rounds of the p95, in seconds: with the database frozen, and not. The two take turns."""
    command = statement("select count(*) from nation where n_nationkey > 3")
    frozen, calm = [], []
    with postgres.server() as database:
        database.sql("create table public.t as select 1 as id")
        text = CONFIG.format(folder=files, url=database.url, password=postgres.PASSWORD)
        with configured(folder, text, replicas=1) as gateway, flight.connect(gateway.uri) as client:
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
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    client.do_get(info.endpoints[0].ticket).read_all()
    return time.perf_counter() - started


def _p95(client: flight.FlightClient, command: bytes) -> float:
    return quantiles((two_calls(client, command) for _ in range(CALLS)), n=20)[18]


@contextmanager
def _hanging(gateway: Gateway, database: Database) -> Iterator[None]:
    """Freezes the database with as many statements at it. All of them hang from the beginning of the block to its end."""
    # They are described while it answers, but for as many more: what is described does not count as running.
    described = flight.FlightDescriptor.for_command(statement("select id from frozen.public.t"))
    with ExitStack() as ends:
        connections = [ends.enter_context(flight.connect(gateway.uri)) for _ in range(2 * HANGING)]
        tickets = [client.get_flight_info(described).endpoints[0].ticket for client in connections[:HANGING]]
        asked = [partial(client.do_get, ticket) for client, ticket in zip(connections, tickets, strict=False)]
        planned = [partial(client.get_flight_info, described) for client in connections[HANGING:]]
        threads = [threading.Thread(target=_hang, args=(call,)) for call in (*asked, *planned)]
        with database.frozen():
            for thread in threads:
                thread.start()
                ends.callback(thread.join)

            def hang() -> bool:
                return running(gateway) == HANGING and all(thread.is_alive() for thread in threads)

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
