"""How long statements of other catalogs take while a database is frozen, beside what they take when it is not."""

import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import pyarrow.flight as flight

import postgres
from gateway import configured
from wire import statement

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
"""


def ratio(folder: Path, files: Path, once: Callable[[flight.FlightClient, bytes], float], rounds: int) -> tuple[float, float]:
    """Median over rounds of the p95, in seconds: with the database frozen, and not. The two take turns."""
    command = statement("select count(*) from nation where n_nationkey > 3")
    frozen, calm = [], []
    with postgres.server() as database:
        database.sql("create table public.t as select 1 as id")
        text = CONFIG.format(folder=files, url=database.url, password=postgres.PASSWORD)
        with configured(folder, text) as gateway, flight.connect(gateway.uri) as client:
            for number in range(rounds + 1):
                quiet = _p95(client, command, once)
                done = threading.Event()
                stopped = threading.Thread(target=database.stopped_until, args=(done,))
                stopped.start()
                hanging = [threading.Thread(target=_hang, args=(gateway.uri,)) for _ in range(HANGING)]
                for thread in hanging:
                    thread.start()
                held = _p95(client, command, once)
                done.set()
                for thread in (stopped, *hanging):
                    thread.join()
                if number:
                    calm.append(quiet)
                    frozen.append(held)
    return median(frozen), median(calm)


def _p95(client: flight.FlightClient, command: bytes, once: Callable[[flight.FlightClient, bytes], float]) -> float:
    return quantiles((once(client, command) for _ in range(CALLS)), n=20)[18]


def _hang(uri: str) -> None:
    """A statement that waits for the database, and fails or answers when that goes on."""
    with flight.connect(uri) as client:
        try:
            info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select id from frozen.public.t")))
            client.do_get(info.endpoints[0].ticket).read_all()
        except flight.FlightError:
            pass
