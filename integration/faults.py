"""Damage to the files of lake tables, and what has to come of it: what is asked is answered right, or is an error in time that
says where it is, and never are there other rows. The gateway goes on."""

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet
import pytest
import requests

import lakes
from gateway import Gateway

# The seconds within which a fault is told.
SOON = 5
# At how many places of a file a byte is changed.
PLACES = 60
# What a file that is not what it should be is an error of.
UNSOUND = {"data", "precondition", "unsupported", "denied"}
Rows = list[dict]
Damage = Callable[[Path], None]


def removed(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 10)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def garbage(file: Path) -> None:
    file.write_bytes(random.Random(7).randbytes(file.stat().st_size))


def replaced(file: Path) -> None:
    """By sound rows of another size."""
    rows = parquet.read_table(file)
    parquet.write_table(pa.concat_tables([rows, rows]), file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(file: Path) -> None:
    """Nobody writes to it."""
    file.unlink()
    os.mkfifo(file)


def spaces(file: Path) -> None:
    file.write_bytes(b" " * (200 << 20))


DAMAGES = [removed, cut, emptied, garbage, folder, pipe]


def each(damages: list[Damage]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("damage", damages, ids=lambda damage: damage.__name__)


def flips(whole: bytes) -> Iterator[bytes]:
    """The same bytes with one of them changed, all over the file."""
    for number in range(PLACES):
        changed = bytearray(whole)
        place = len(whole) * number // PLACES + number % 7
        changed[min(place, len(whole) - 1)] ^= 0xFF if number % 3 == 0 else 1 << number % 8
        yield bytes(changed)


@dataclass
class Asked:
    """A gateway over folders of tables."""

    gateway: Gateway
    cursor: flightsql.Cursor
    # What is answered, whatever is damaged beside it.
    sound: dict[str, Rows]
    numbers: Iterator[int] = field(default_factory=count)
    session: requests.Session = field(default_factory=requests.Session)

    def ask(self, sql: str) -> Rows | dict:
        """The rows of a statement by HTTP, or its error, which comes in time."""
        headers = {"accept": "application/x-ndjson", "content-type": "text/plain; charset=utf-8"}
        began = time.monotonic()
        answer = self.session.post(f"{self.gateway.url}/v1/sql", data=sql.encode(), headers=headers, timeout=60)
        took = time.monotonic() - began
        assert took < SOON, f"{took:.1f} s: {answer.text}"
        if answer.status_code == 200:
            return [json.loads(line) for line in answer.text.splitlines()]
        return answer.json()["error"]

    def rows(self, sql: str) -> Rows:
        """The rows of a statement that has to be answered."""
        answer = self.ask(sql)
        assert isinstance(answer, list), answer
        return answer

    def error(self, sql: str, expected: Rows, about: str) -> str | None:
        """The message of the error of a statement, with its place; none where it is answered right."""
        answer = self.ask(sql)
        if isinstance(answer, list):
            assert answer == expected
            return None
        assert answer["kind"] in UNSOUND, answer
        assert answer["hint"], answer
        assert answer["place"], answer
        told = f"{answer['place']}: {answer['message']}"
        assert about in told, answer
        return told

    def refused(self, sql: str, about: str) -> str:
        """The same of what cannot be answered, by ADBC too; afterwards all else is answered."""
        told = self.error(sql, [], about)
        assert told, "it is answered"
        began = time.monotonic()
        with pytest.raises(adbc_driver_manager.Error) as error:
            fetched(self.cursor, sql)
        assert time.monotonic() - began < SOON
        assert about in str(error.value)
        self.goes_on()
        return told

    def goes_on(self) -> None:
        """Whether the gateway answers, and other tables too."""
        assert self.rows("select 1 as v") == [{"v": 1}]
        for sql, expected in self.sound.items():
            assert self.rows(sql) == expected

    def files_go(self, table: str, folder: Path, batches: list[pa.Table]) -> None:
        """Whether the numbers of these are all there, or the reading ends with an error that names a file, where all files of a
        table go meanwhile."""
        self.cursor.execute(f"select number from {table}")
        reader = self.cursor.fetch_record_batch()
        found = [reader.read_next_batch()]
        data = list(folder.rglob("*.parquet"))
        assert len(data) >= len(batches)
        for file in data:
            file.unlink()
        told = None
        try:
            found += list(reader)
        except Exception as error:
            told = str(error)
        if told is None:
            total = sum(compute.sum(batch["number"]).as_py() for batch in batches)
            assert sum(batch.num_rows for batch in found) == sum(batch.num_rows for batch in batches)
            assert sum(compute.sum(batch["number"]).as_py() for batch in found) == total
        else:
            assert ".parquet" in told


def fetched(cursor: flightsql.Cursor, sql: str) -> list[tuple]:
    cursor.execute(sql)
    return cursor.fetchall()


def many() -> list[pa.Table]:
    """Rows of more bytes in all than anybody holds back on the way, each of these for a file of its own."""
    size, files = 1_000_000, 16
    random_numbers = random.Random(7)
    buffers = [[None, pa.py_buffer(random_numbers.randbytes(4 * size))] for _ in range(files)]
    return [pa.table([pa.Array.from_buffers(pa.int32(), size, both)], ["number"]) for both in buffers]


def spark(name: str, table: str) -> str:
    """The SQL of the checksum of a table of Spark's as it is now, for a copy of it."""
    of = lakes.answers()["tables"][name]
    return of["checksums"][of["now"]["by"]].replace("{table}", table)


def now(name: str) -> Rows:
    """What that gives."""
    version = lakes.answers()["tables"][name]["now"]
    return [{"n": str(version["rows"]), "checksum": version["checksum"]}]
