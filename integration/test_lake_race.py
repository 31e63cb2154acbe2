"""Tables of lakes that are written to all the time while many read them: every answer is of one state of its table, and of none
older than the one that was committed when the statement began. `make soak` does it for a minute."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
import requests
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

import postgres
from gateway import Gateway, configured
from postgres import Database

COLUMNS = pa.schema([("batch", pa.int64()), ("part", pa.int64()), ("mark", pa.int64())])
# How the rows change from one state to the next, over and over.
CHANGES = ["append", "append", "part", "append", "batch", "append", "replace"]
# From one commit to the next, in seconds.
EVERY = 0.2
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

# Count, sum, least and greatest of the marks, by which states are told apart.
State = tuple[int, int, int, int]


class Table(Protocol):
    """A table that rows are put into and taken out of; each is one commit."""

    def append(self, rows: pa.Table) -> None: ...

    def delete(self, condition: str) -> None: ...

    def replace(self, rows: pa.Table) -> None: ...

    def sweep(self) -> None:
        """Removes all files that only older states need."""


class Iceberg:
    """In a catalog of PostgreSQL, which the gateway asks too."""

    def __init__(self, database: Database, folder: Path, name: str, _: bool) -> None:
        uri = f"postgresql+psycopg2://{postgres.USER}:{postgres.PASSWORD}@127.0.0.1:{database.port}/postgres"
        catalog = SqlCatalog("iceberg", uri=uri, warehouse=f"file://{folder}")
        catalog.create_namespace_if_not_exists("race")
        self.table = catalog.create_table(("race", name), COLUMNS)

    def append(self, rows: pa.Table) -> None:
        self.table.append(rows)

    def delete(self, condition: str) -> None:
        self.table.delete(condition)

    def replace(self, rows: pa.Table) -> None:
        self.table.overwrite(rows)

    def sweep(self) -> None:
        now = self.table.current_snapshot()
        if older := [snapshot.snapshot_id for snapshot in self.table.snapshots() if snapshot != now]:
            self.table.maintenance.expire_snapshots().by_ids(older).commit()
        manifests = [manifest.manifest_path for manifest in now.manifests(self.table.io)]
        data = [task.file.file_path for task in self.table.scan().plan_files()]
        kept = {self.table.metadata_location, now.manifest_list, *manifests, *data}
        for path in Path(self.table.location().removeprefix("file://")).rglob("*.*"):
            if f"file://{path}" not in kept:
                path.unlink()


class Delta:
    """In a folder, with a checkpoint now and then."""

    def __init__(self, _: Database, folder: Path, name: str, sweeps: bool) -> None:
        self.folder = folder / "race" / name
        # With a checkpoint what is older of the log is removed too.
        settings = {"delta.checkpointInterval": "5"} | ({"delta.logRetentionDuration": "interval 0 days"} if sweeps else {})
        DeltaTable.create(self.folder, COLUMNS, configuration=settings)

    def append(self, rows: pa.Table) -> None:
        write_deltalake(self.folder, rows, mode="append")

    def delete(self, condition: str) -> None:
        DeltaTable(self.folder).delete(condition)

    def replace(self, rows: pa.Table) -> None:
        write_deltalake(self.folder, rows, mode="overwrite")

    def sweep(self) -> None:
        table = DeltaTable(self.folder)
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        table.cleanup_metadata()


FORMATS: dict[str, Callable[[Database, Path, str, bool], Table]] = {"iceberg": Iceberg, "delta": Delta}


@dataclass
class Race:
    """A table that is written to, with what it holds in each state."""

    name: str
    table: Table
    # Whether the files of older states are removed after each commit.
    sweeps: bool
    # The place of each state in their order, known before it is committed, and the last place that is committed.
    states: dict[State, int] = field(default_factory=dict)
    committed: int = -1
    # The marks of each batch, in two parts.
    batches: dict[int, list[list[int]]] = field(default_factory=dict)
    # What readers found: the places of right answers, how many errors told of a file that was removed, and what is wrong.
    found: list[int] = field(default_factory=list)
    gone: int = 0
    wrong: list[str] = field(default_factory=list)

    def write(self, until: float) -> None:
        """Commits one change after another."""
        chance = random.Random(self.name)
        while time.monotonic() < until:
            began = time.monotonic()
            number = len(self.states)
            self.change(CHANGES[number % len(CHANGES)], number, chance)
            self.committed = number
            if self.sweeps:
                self.table.sweep()
            time.sleep(max(0, began + EVERY - time.monotonic()))

    def change(self, kind: str, number: int, chance: random.Random) -> None:
        """Notes what will be there, and commits it."""
        if kind in ("append", "replace"):
            parts = [[chance.getrandbits(40) for _ in range(chance.randrange(1, 200))] for _ in range(2)]
            self.batches = {**({} if kind == "replace" else self.batches), number: parts}
            rows = [(number, part, mark) for part, marks in enumerate(parts) for mark in marks]
            self.note()
            batch = pa.table(list(map(list, zip(*rows, strict=True))), schema=COLUMNS)
            (self.table.append if kind == "append" else self.table.replace)(batch)
            return
        if kind == "part":
            batch = max(self.batches)
            self.batches[batch] = self.batches[batch][:1]
            condition = f"batch = {batch} and part = 1"
        else:
            batch = min(self.batches)
            del self.batches[batch]
            condition = f"batch = {batch}"
        self.note()
        self.table.delete(condition)

    def note(self) -> None:
        marks = [mark for parts in self.batches.values() for part in parts for mark in part]
        self.states[state_of(marks)] = len(self.states)

    def read(self, ask: Callable[[str], list[tuple]], until: float) -> None:
        """Asks one statement after another and judges the answers."""
        chance, newest = random.Random(threading.get_ident()), -1
        while time.monotonic() < until:
            if self.committed < 0:
                time.sleep(0.01)
                continue
            statement = chance.choice(STATEMENTS)
            least = max(newest, self.committed)
            try:
                rows = ask(statement.format(table=self.name))
            except Removed:
                self.gone += 1
                continue
            except Exception as error:
                self.wrong.append(f"{statement}: {error}")
                return
            told = {state_of([mark for (mark,) in rows])} if rows and len(rows[0]) == 1 else set(rows)
            places = {self.states.get(state, -1) for state in told}
            if len(places) != 1 or min(places) < least:
                self.wrong.append(f"{statement}: {told} are the states {places}, and {least} was committed")
                return
            newest = places.pop()
            self.found.append(newest)


def state_of(marks: list[int]) -> State:
    return len(marks), sum(marks), min(marks), max(marks)


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
        except requests.exceptions.ChunkedEncodingError as error:
            # It has begun with rows, and a body that breaks off cannot say why.
            if sweeps:
                raise Removed from error
            raise
        if sweeps and answer.status_code != 200 and AGAIN in answer.json()["error"]["hint"]:
            raise Removed
        assert answer.status_code == 200, answer.text
        return [tuple(map(int, json.loads(line).values())) for line in answer.text.splitlines()]

    return ask


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres.server() as running:
        yield running


@pytest.mark.parametrize(
    "seconds", [pytest.param(8, id="short"), pytest.param(60, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_answer_is_of_one_state(
    kind: str, seconds: int, database: Database, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Of two tables the files of older states stay at one, and at the other they are removed at once. There a statement may fail
    that began before, and says why. Answers are kept, and given again only of the same state."""
    options = {"location": str(tmp_path)}
    if kind == "iceberg":
        url = f"postgresql://{postgres.USER}@127.0.0.1:{database.port}/postgres"
        options |= {"catalog": "sql", "uri": url, "password": postgres.PASSWORD}
    lines = "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())
    # Of the other length of this test there may be tables of the same name.
    names = {f"steady{seconds}": False, f"swept{seconds}": True}
    races = [
        Race(f"{kind}.race.{name}", FORMATS[kind](database, tmp_path, name, sweeps), sweeps) for name, sweeps in names.items()
    ]
    with ExitStack() as ends:
        folder = tmp_path / "gateway"
        folder.mkdir()
        gateway = ends.enter_context(configured(folder, f'[catalogs.{kind}]\nkind = "{kind}"\n{lines}'))
        pool = ends.enter_context(ThreadPoolExecutor(10))
        until = time.monotonic() + seconds
        running = [pool.submit(race.write, until) for race in races]
        for race in races:
            for way in (by_adbc, by_adbc, by_adbc, by_http):
                running.append(pool.submit(race.read, way(gateway, ends, race.sweeps), until))
        for each in running:
            each.result()
    for race in races:
        figure(f"{race.name}: {len(race.states)} states, {len(race.found)} right answers, {race.gone} files gone")
        assert not race.wrong, race.wrong[:3]
        # Otherwise nothing was tried.
        assert len(race.states) >= seconds
        assert len(set(race.found)) >= seconds / 2
        assert race.sweeps or race.gone == 0
