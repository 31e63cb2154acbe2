"""Tables of lakes that rows are put into and taken out of at a fixed pace, by a process of its own for each."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

import postgres
from hudi_writer import HudiTable, new_group

COLUMNS = pa.schema([("batch", pa.int64()), ("part", pa.int64()), ("mark", pa.int64())])
# How the rows change from one state to the next, over and over.
CHANGES = ["append", "append", "part", "append", "batch", "append", "replace"]
# From one commit to the next, in seconds.
EVERY = 0.2
# A table whose rows are all of one version, in a file for each part.
VERSIONS = pa.schema([("part", pa.int64()), ("row", pa.int64()), ("version", pa.int64())])
ROWS, PARTS = 30, 3
# How long a writer waits for all others to be there, in seconds.
WAIT = 60
# So many file groups has a table of Hudi, and so many commits are left of so many; of Iceberg the last.
GROUPS, KEPT, MOST = 4, 20, 30

# Count, sum, least and greatest of the marks, by which states are told apart.
State = tuple[int, int, int, int]


def state_of(marks: list[int]) -> State:
    return len(marks), sum(marks), min(marks), max(marks)


class Table(Protocol):
    """A table in the schema `race`; each change of it is one commit."""

    def append(self, rows: pa.Table) -> None: ...

    def delete(self, where: dict[str, int]) -> None:
        """Removes the rows that have these values in these columns."""

    def replace(self, rows: pa.Table) -> None: ...

    def sweep(self) -> None:
        """Removes all files that only older states need."""


def iceberg_catalog(port: int, folder: Path) -> SqlCatalog:
    """That of a database, with its schema."""
    uri = f"postgresql+psycopg2://{postgres.USER}:{postgres.PASSWORD}@127.0.0.1:{port}/postgres"
    catalog = SqlCatalog("iceberg", uri=uri, warehouse=f"file://{folder}")
    catalog.create_namespace_if_not_exists("race")
    return catalog


class Iceberg:
    """In a catalog of PostgreSQL, which the gateway asks too."""

    def __init__(self, port: int, folder: Path, name: str, _: bool) -> None:
        self.table = iceberg_catalog(port, folder).create_table(("race", name), COLUMNS)

    def append(self, rows: pa.Table) -> None:
        self.table.append(rows)
        self._forget(MOST)

    def delete(self, where: dict[str, int]) -> None:
        self.table.delete(condition(where))
        self._forget(MOST)

    def replace(self, rows: pa.Table) -> None:
        self.table.overwrite(rows)
        self._forget(MOST)

    def _forget(self, most: int) -> None:
        """Leaves all snapshots but the newest out of the metadata where it has more; their files stay. Each commit writes what
        is there, and would take longer than the last."""
        older = [snapshot.snapshot_id for snapshot in self.table.snapshots() if snapshot != self.table.current_snapshot()]
        if len(older) >= most:
            self.table.maintenance.expire_snapshots().by_ids(older).commit()

    def sweep(self) -> None:
        self._forget(1)
        now = self.table.current_snapshot()
        manifests = [manifest.manifest_path for manifest in now.manifests(self.table.io)]
        data = [task.file.file_path for task in self.table.scan().plan_files()]
        kept = {self.table.metadata_location, now.manifest_list, *manifests, *data}
        for path in Path(self.table.location().removeprefix("file://")).rglob("*.*"):
            if f"file://{path}" not in kept:
                path.unlink()


class Delta:
    """In a folder, with a checkpoint now and then."""

    def __init__(self, _: int, folder: Path, name: str, sweeps: bool) -> None:
        self.folder = folder / "race" / name
        # With a checkpoint what is older of the log is removed too.
        settings = {"delta.checkpointInterval": "5"} | ({"delta.logRetentionDuration": "interval 0 days"} if sweeps else {})
        DeltaTable.create(self.folder, COLUMNS, configuration=settings)

    def append(self, rows: pa.Table) -> None:
        write_deltalake(self.folder, rows, mode="append")

    def delete(self, where: dict[str, int]) -> None:
        DeltaTable(self.folder).delete(condition(where))

    def replace(self, rows: pa.Table) -> None:
        write_deltalake(self.folder, rows, mode="overwrite")

    def sweep(self) -> None:
        table = DeltaTable(self.folder)
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        table.cleanup_metadata()


class Hudi:
    """In a folder, copied on write: a part of a batch is in a file group with parts of others, and a commit writes one or two of
    them anew, or puts new ones in place of all. None is merged on read: log files are not written here."""

    def __init__(self, _: int, folder: Path, name: str, __: bool) -> None:
        self.table = HudiTable(folder / "race" / name, COLUMNS)
        # The rows of each file group, by its id, and its id by its place.
        self.rows: dict[str, pa.Table] = {}
        self.groups: dict[int, str] = {}

    def append(self, rows: pa.Table, replaces: bool = False) -> None:
        changed = {}
        places = [(row["batch"] + row["part"]) % GROUPS for row in rows.to_pylist()]
        for place in sorted(set(places)):
            group = self.groups.setdefault(place, new_group())
            added = rows.filter(pa.array([each == place for each in places]))
            changed[group] = pa.concat_tables([self.rows.get(group, COLUMNS.empty_table()), added])
        self._commit(changed, replaces)

    def delete(self, where: dict[str, int]) -> None:
        changed = {}
        for group, rows in self.rows.items():
            kept = [any(row[column] != value for column, value in where.items()) for row in rows.to_pylist()]
            if not all(kept):
                changed[group] = rows.filter(pa.array(kept))
        self._commit(changed)

    def replace(self, rows: pa.Table) -> None:
        self.rows, self.groups = {}, {}
        self.append(rows, replaces=True)

    def sweep(self) -> None:
        self.table.clean()
        if len(self.table.commits) > MOST:
            self.table.archive(KEPT)

    def _commit(self, changed: dict[str, pa.Table], replaces: bool = False) -> None:
        self.table.commit({group: rows.to_batches() for group, rows in changed.items()}, replaces)
        self.rows |= changed


# The table is made: of the port of a database, the folder, the name, and whether it will be swept.
FORMATS: dict[str, Callable[[int, Path, str, bool], Table]] = {"iceberg": Iceberg, "delta": Delta, "hudi": Hudi}


def condition(where: dict[str, int]) -> str:
    return " and ".join(f"{column} = {value}" for column, value in where.items())


@dataclass
class Change:
    """What one commit does, and what the table holds from then on."""

    kind: str
    rows: pa.Table | None
    where: dict[str, int]
    state: State

    def commit(self, table: Table) -> None:
        match self.kind:
            case "append":
                table.append(self.rows)
            case "replace":
                table.replace(self.rows)
            case _:
                table.delete(self.where)


def changes(name: str) -> Iterator[Change]:
    """All that will be done to a table of this name, without an end: the same wherever it is asked for."""
    chance = random.Random(name)
    # The marks of each batch, in two parts.
    batches: dict[int, list[list[int]]] = {}
    number = 0
    while True:
        kind, rows, where = CHANGES[number % len(CHANGES)], None, {}
        match kind:
            case "part":
                where = {"batch": max(batches), "part": 1}
                batches[max(batches)].pop()
            case "batch":
                where = {"batch": min(batches)}
                del batches[min(batches)]
            case _:
                parts = [[chance.getrandbits(40) for _ in range(chance.randrange(1, 200))] for _ in range(2)]
                batches = {**({} if kind == "replace" else batches), number: parts}
                written = [(number, part, mark) for part, marks in enumerate(parts) for mark in marks]
                rows = pa.table(list(map(list, zip(*written, strict=True))), schema=COLUMNS)
        yield Change(kind, rows, where, state_of([mark for parts in batches.values() for part in parts for mark in part]))
        number += 1


def write(
    table: tuple[str, int, Path, str, bool],
    seconds: float,
    begin: Barrier,
    committed: Synchronized,
    times: SynchronizedArray,
) -> None:
    """Makes a table, by its format and what that takes; once all are there, commits one change of it after another, each when it
    is due, and tells how many are committed and when each was. Time that one took too long is made up for."""
    kind, port, folder, name, sweeps = table
    made = FORMATS[kind](port, folder, name, sweeps)
    begin.wait(WAIT)
    began = time.monotonic()
    for number, change in enumerate(islice(changes(name), len(times))):
        time.sleep(max(0, began + number * EVERY - time.monotonic()))
        if time.monotonic() >= began + seconds:
            return
        change.commit(made)
        times[number] = time.monotonic()
        committed.value = number + 1
        if sweeps:
            made.sweep()


def replace_all(
    folder: Path, every: float, seconds: float, begin: Barrier, committed: Synchronized, times: SynchronizedArray
) -> None:
    """Makes a Delta table; once all are there, puts the rows of one version after another in place of all, each when it is due,
    and tells how many are committed and from when on each was there to be seen."""
    made = DeltaTable.create(folder, VERSIONS, partition_by=["part"], configuration={"delta.checkpointInterval": "10"})
    begin.wait(WAIT)
    began = time.monotonic()
    for version in range(len(times)):
        time.sleep(max(0, began + version * every - time.monotonic()))
        if time.monotonic() >= began + seconds:
            return
        rows = {"part": [row % PARTS for row in range(ROWS)], "row": range(ROWS), "version": [version] * ROWS}
        write_deltalake(made, pa.table({name: list(values) for name, values in rows.items()}, schema=VERSIONS), mode="overwrite")
        times[version] = time.monotonic()
        committed.value = version + 1
