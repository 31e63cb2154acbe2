"""Tables of lakes that are written to all the time while many read them: every answer is of one state of its table, and of none
older than the one that was committed when the statement began. `make soak` does it for a minute."""

import json
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice, pairwise
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from pathlib import Path
from statistics import median

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pytest
import requests

import jdbc
import postgres
from gateway import Gateway, configured
from lake_writers import EVERY, FORMATS, WAIT, State, changes, iceberg_catalog, state_of, write
from postgres import Database

# Each gives rows of four numbers, or the marks themselves, all of one state. The second and third scan the table twice; in the
# fourth all but the sum is known from the metadata.
STATEMENTS = [
    "select count(*) as n, sum(mark) as total, min(mark) as least, max(mark) as most from {table}",
    """select count(*) as n, sum(mark) as total, min(mark) as least, max(mark) as most from {table}
       union all select count(*), sum(mark), min(mark), max(mark) from {table}""",
    """select count(*) as n, sum(a.mark) as total, min(b.mark) as least, max(b.mark) as most
       from {table} a full join {table} b on a.mark = b.mark""",
    """select (select count(*) from {table}) as n, (select sum(mark) from {table}) as total,
       (select min(mark) from {table}) as least, (select max(mark) from {table}) as most""",
    "select mark from {table}",
]
# What an error advises where a file was removed since the statement began.
AGAIN = "run the statement again"
# No commit may come much later than the one before, in seconds: of half of them this holds.
PACE = 0.25


@dataclass
class Race:
    """A table that is written to, with what it holds in each state."""

    name: str
    # Whether the files of older states are removed after each commit.
    sweeps: bool
    # The place of each state in their order.
    states: dict[State, int]
    # How many are committed, and when each was.
    committed: Synchronized
    times: SynchronizedArray
    # What readers found: the places of right answers, how many errors told of a file that was removed, and what is wrong.
    found: list[int] = field(default_factory=list)
    gone: int = 0
    wrong: list[str] = field(default_factory=list)

    def gaps(self) -> list[float]:
        """The seconds from each commit to the next."""
        return [after - before for before, after in pairwise(self.times[: self.committed.value])]

    def read(self, ask: Callable[[str], list[tuple]], until: float) -> None:
        """Asks one statement after another and judges the answers."""
        chance, newest = random.Random(threading.get_ident()), -1
        while time.monotonic() < until:
            if self.committed.value == 0:
                time.sleep(0.01)
                continue
            statement = chance.choice(STATEMENTS)
            least = max(newest, self.committed.value - 1)
            try:
                rows = ask(statement.format(table=self.name))
            except Removed:
                self.gone += 1
                continue
            except Exception as error:
                self.wrong.append(f"{ask.__qualname__}: {statement}: {error}")
                return
            told = {state_of([mark for (mark,) in rows])} if rows and len(rows[0]) == 1 else set(rows)
            places = {self.states.get(state, -1) for state in told}
            if len(places) != 1 or min(places) < least:
                self.wrong.append(f"{ask.__qualname__}: {statement}: {told} are the states {places}, and {least} was committed")
                return
            newest = places.pop()
            self.found.append(newest)


class Removed(Exception):
    """A file of the statement's state was removed since it began, and the error says so."""


def by_adbc(gateway: Gateway, ends: ExitStack, sweeps: bool) -> Callable[[str], list[tuple]]:
    """Asks over a connection of its own."""
    connection = ends.enter_context(flightsql.connect(gateway.uri, autocommit=True))
    cursor = ends.enter_context(connection.cursor())

    def ask(sql: str) -> list[tuple]:
        try:
            cursor.execute(sql)
            return cursor.fetchall()
        except adbc_driver_manager.Error as error:
            if sweeps and AGAIN in str(error):
                raise Removed from error
            raise

    return ask


def by_http(gateway: Gateway, ends: ExitStack, sweeps: bool) -> Callable[[str], list[tuple]]:
    session = ends.enter_context(requests.Session())

    def ask(sql: str) -> list[tuple]:
        headers = {"accept": "application/x-ndjson", "content-type": "text/plain; charset=utf-8"}
        try:
            answer = session.post(f"{gateway.url}/v1/sql", data=sql.encode(), headers=headers, timeout=60)
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError) as error:
            # It has begun with rows, of which none may have been sent, and a body that breaks off cannot say why.
            if sweeps:
                raise Removed from error
            raise
        if sweeps and answer.status_code != 200 and AGAIN in answer.json()["error"]["hint"]:
            raise Removed
        assert answer.status_code == 200, answer.text
        return [tuple(map(int, json.loads(line).values())) for line in answer.text.splitlines()]

    return ask


def by_jdbc(gateway: Gateway, ends: ExitStack, sweeps: bool) -> Callable[[str], list[tuple]]:
    probe = ends.enter_context(jdbc.talking("answer", gateway.flight))

    def ask(sql: str) -> list[tuple]:
        print(" ".join(sql.split()), file=probe.stdin, flush=True)
        answer = json.loads(probe.stdout.readline())
        if sweeps and isinstance(answer, dict) and AGAIN in answer["error"]:
            raise Removed
        assert isinstance(answer, list), answer
        return [tuple(map(int, row)) for row in answer]

    return ask


# The readers of each table.
READERS = [by_jdbc, by_jdbc, by_http, by_http, by_adbc, by_adbc, by_adbc, by_adbc]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres.server() as running:
        yield running


# In full each table has the machine to itself: beside the readers of both no writer keeps its pace.
FULL = [pytest.mark.soak, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("seconds", "tables"),
    [
        pytest.param(8, ["steady", "swept"], id="short"),
        *(pytest.param(60, [table], id=f"full-{table}", marks=FULL) for table in ("steady", "swept")),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_answer_is_of_one_state(
    kind: str, seconds: int, tables: list[str], database: Database, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Of two tables the files of older states stay at one, and at the other they are removed at once. There a statement may fail
    that began before, and says why. Answers are kept, and given again only of the same state."""
    options = {"location": str(tmp_path)}
    if kind == "iceberg":
        url = f"postgresql://{postgres.USER}@127.0.0.1:{database.port}/postgres"
        options |= {"catalog": "sql", "uri": url, "password": postgres.PASSWORD}
        # Two who make it at once would be in each other's way.
        iceberg_catalog(database.port, tmp_path)
    lines = "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())
    # Of the other length of this test there may be tables of the same name.
    names = {f"{table}{seconds}": table == "swept" for table in tables}
    # Not a copy of this process, whose threads would be missing there.
    processes = multiprocessing.get_context("spawn")
    begin, most = processes.Barrier(len(names) + 1), round(seconds / EVERY)
    races, writers = [], []
    with ExitStack() as ends:
        for name, sweeps in names.items():
            states = {change.state: place for place, change in enumerate(islice(changes(name), most))}
            race = Race(f"{kind}.race.{name}", sweeps, states, processes.Value("q", 0), processes.Array("d", most))
            of = (kind, database.port, tmp_path, name, sweeps)
            writer = processes.Process(target=write, args=(of, seconds, begin, race.committed, race.times), daemon=True)
            writer.start()
            ends.callback(writer.kill)
            races.append(race)
            writers.append(writer)
        folder = tmp_path / "gateway"
        folder.mkdir()
        gateway = ends.enter_context(configured(folder, f'[catalogs.{kind}]\nkind = "{kind}"\n{lines}'))
        asked = [(race, way(gateway, ends, race.sweeps)) for race in races for way in READERS]
        for _, ask in asked:
            assert ask("select 1 as one") == [(1,)]
        pool = ends.enter_context(ThreadPoolExecutor(len(asked)))
        begin.wait(WAIT)
        until = time.monotonic() + seconds
        for each in [pool.submit(race.read, ask, until) for race, ask in asked]:
            each.result()
        for writer in writers:
            writer.join(WAIT)
            assert writer.exitcode == 0
    for race in races:
        gap = median(race.gaps() or [seconds])
        states = f"{race.committed.value} states, {gap * 1000:.0f} ms apart"
        figure(f"{race.name}: {states}, {len(race.found)} right answers, {race.gone} files gone")
        assert not race.wrong, race.wrong[:3]
        # Otherwise nothing was tried.
        assert race.committed.value >= most / 2
        assert seconds < 60 or gap <= PACE
        assert len(set(race.found)) >= seconds / 2
        assert race.sweeps or race.gone == 0
