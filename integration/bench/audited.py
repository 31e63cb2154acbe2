"""What the audit trail costs: statements of gateways with one, signed or not, beside those of a gateway without."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import pyarrow.flight as flight

from bench.frozen import two_calls
from bench.measure import UNCACHED, by_default
from wire import statement

# A small statement and a larger one, and how often each is asked in a round, of which the first tenth warms up.
STATEMENTS = {
    "SELECT 1": ("select 1", 600),
    "an aggregate": ("select l_returnflag, sum(l_quantity) from lineitem where l_orderkey < 100000 group by 1", 150),
}
TRAIL = '[audit]\nfolder = "trail"\n'
SIDES = {"none": "", "a trail": TRAIL, "a signed trail": f'{TRAIL}key = "{"MDEyMzQ1" * 5}Njc="\n'}


def costs(folder: Path, files: Path, rounds: int) -> dict[str, float]:
    """The median seconds of each statement with a trail by those without one: the median over rounds. Each call is made at each
    gateway in turn, so that a slower moment of the machine meets all of them; and each round has gateways of its own, since one
    process is a little faster than another by how it lies in memory."""
    ratios: dict[str, list[float]] = {}
    for number in range(rounds):
        with _gateways(folder / f"round-{number}", files) as clients:
            for what, (sql, calls) in STATEMENTS.items():
                halves = _medians(clients, statement(sql), calls)
                for side, half in halves.items():
                    if side != "none":
                        ratios.setdefault(f"{what}, {side}", []).append(half / halves["none"])
    return {name: median(each) for name, each in ratios.items()}


@contextmanager
def _gateways(folder: Path, files: Path) -> Iterator[dict[str, flight.FlightClient]]:
    """A gateway for each side, which lasts as long as the block."""
    with ExitStack() as stack:
        clients = {}
        for side, section in SIDES.items():
            place = folder / side
            place.mkdir(parents=True)
            gateway = stack.enter_context(by_default(place, UNCACHED.format(folder=files) + section))
            clients[side] = stack.enter_context(flight.connect(gateway.uri))
        yield clients


def _medians(clients: dict[str, flight.FlightClient], command: bytes, calls: int) -> dict[str, float]:
    """The median seconds of a statement at each gateway, each of which is the first one as often as the others."""
    times: dict[str, list[float]] = {side: [] for side in clients}
    for number in range(calls):
        for side in islice(cycle(clients), number % len(clients), number % len(clients) + len(clients)):
            took = two_calls(clients[side], command)
            if number >= calls // 10:
                times[side].append(took)
    return {side: median(each) for side, each in times.items()}
