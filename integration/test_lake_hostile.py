"""Lake tables by somebody who means harm: what they say is refused in time and with a reason, without the memory that it would
take, and the process goes on."""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import many_files
from faults import Asked
from gateway import configured
from hudi_writer import HudiTable, new_group
from test_bombs import Watched

KINDS = ("iceberg", "delta", "hudi")
ROWS = pa.table({"id": pa.array(range(1000), pa.int64())})
SUM = "select sum(id) as total from {table}"
# A Parquet file with a list of row groups that would take all memory, and how a list of pages begins that would.
FORGED = b"PAR1\x49\xfc\xff\xff\xff\xff\x07\x07\x00\x00\x00PAR1"
PAGES = b"\x19\xfc\xff\xff\xff\xff\x07"
MORE = "has more items than there are bytes"


@dataclass(kw_only=True)
class Lake(Asked):
    """A gateway over folders of tables of each kind."""

    top: Path

    def folder(self, kind: str) -> Path:
        """Where a new table is to be."""
        return self.top / kind / f"t{next(self.numbers)}"

    def delta(self) -> Path:
        """A new Delta table of one file."""
        folder = self.folder("delta")
        write_deltalake(folder, ROWS)
        return folder


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The gateway has no cache of answers."""
    top = tmp_path_factory.mktemp("hostile")
    for kind in KINDS:
        (top / kind).mkdir()
    write_deltalake(top / "delta" / "sound", ROWS)
    sections = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{top / kind}"\n' for kind in KINDS]
    with (
        configured(top, '[cache]\nsize = "0"\n' + "".join(sections), replicas=1) as gateway,
        flightsql.connect(gateway.uri, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        running = Lake(gateway, cursor, {SUM.format(table="delta.main.sound"): [{"total": sum(range(1000))}]}, top=top)
        running.goes_on()
        yield running
        running.goes_on()


def of(folder: Path) -> str:
    """The name of a table in SQL."""
    return f"{folder.parent.name}.main.{folder.name}"


def test_metadata_of_iceberg_that_unpacks_to_much(lake: Lake) -> None:
    """Some kilobytes come to 20 MiB, and these to 2 GiB of values."""
    table = lake.folder("iceberg")
    (table / "metadata").mkdir(parents=True)
    file = table / "metadata" / "v1.gz.metadata.json"
    text = b'{"format-version":2,"x":[' + b'{"":0},' * 3_000_000 + b"0]}"
    file.write_bytes(gzip.compress(text, 1))
    # The text grows as it unpacks, by copies of itself.
    with Watched(lake.gateway, 6 * len(text)):
        answer = lake.ask(f"select * from {of(table)}")
    assert isinstance(answer, dict), answer
    assert answer["kind"] == "exhausted", answer
    assert file.name in answer["place"], answer
    lake.goes_on()


ELSEWHERE = ["file:///etc/hostname", "/etc/hostname", "s3://other/file", "https://127.0.0.1:1/file"]


@pytest.mark.parametrize("address", [*ELSEWHERE, "file://{table}/../../../file"])
def test_metadata_of_iceberg_that_names_a_file_elsewhere(address: str, lake: Lake) -> None:
    table = lake.folder("iceberg")
    many_files.iceberg(table, 1, partitioned=False)
    last = many_files.newest(table)
    said = json.loads(last.read_text())
    said["snapshots"][-1]["manifest-list"] = address.format(table=table)
    last.write_text(json.dumps(said))
    told = lake.refused(f"select count(*) as n from {of(table)}", "which is not within")
    assert last.name in told


def test_two_snapshots_of_iceberg_with_one_id(lake: Lake) -> None:
    table = lake.folder("iceberg")
    many_files.iceberg(table, 1, partitioned=False)
    last = many_files.newest(table)
    said = json.loads(last.read_text())
    said["snapshots"] *= 2
    last.write_text(json.dumps(said))
    lake.refused(f"select count(*) as n from {of(table)}", "two of its snapshots have the snapshot-id")


@pytest.mark.parametrize("path", [*ELSEWHERE, "../../file", "..%2F..%2Ffile"])
def test_a_commit_of_delta_that_names_a_file_elsewhere(path: str, lake: Lake) -> None:
    table = lake.delta()
    add = {"path": path, "partitionValues": {}, "size": 10, "modificationTime": 0, "dataChange": True}
    (table / "_delta_log" / f"{1:020}.json").write_text(json.dumps({"add": add}))
    told = lake.refused(SUM.format(table=of(table)), f"{table.name}/_delta_log")
    assert "which is not within" in told or "which is no path" in told


def test_a_checkpoint_of_delta_that_says_more_than_it_has(lake: Lake) -> None:
    table = lake.delta()
    DeltaTable(table).create_checkpoint()
    log = table / "_delta_log"
    [checkpoint] = log.glob("*.checkpoint.parquet")
    checkpoint.write_bytes(FORGED)
    (log / f"{0:020}.json").unlink()
    lake.refused(SUM.format(table=of(table)), MORE)


@pytest.mark.parametrize("name", ["_last_checkpoint", f"{1:020}.json"])
def test_a_file_of_a_log_of_delta_that_is_too_large(name: str, lake: Lake) -> None:
    table = lake.delta()
    file = table / "_delta_log" / name
    file.write_text('{"commitInfo":{"operation":"')
    # What it has more of takes no place.
    os.truncate(file, 12 << 30)
    with Watched(lake.gateway):
        told = lake.refused(SUM.format(table=of(table)), f"has {12 << 30} bytes")
    assert name in told


def test_a_sum_of_a_log_of_delta_that_is_too_large(lake: Lake) -> None:
    """Nobody needs it."""
    table = lake.delta()
    file = table / "_delta_log" / f"{0:020}.crc"
    file.touch()
    os.truncate(file, 12 << 30)
    with Watched(lake.gateway):
        assert lake.rows(SUM.format(table=of(table))) == [{"total": sum(range(1000))}]
    lake.goes_on()


def test_a_commit_of_delta_that_unpacks_to_much(lake: Lake) -> None:
    """Texts that take no place where there is nothing but zeros in them, and values of two bytes each."""
    table = lake.delta()
    file = table / "_delta_log" / f"{1:020}.json"
    file.write_text('{"commitInfo":{"operation":"')
    os.truncate(file, 500 << 20)
    with Watched(lake.gateway, 600 << 20):
        answer = lake.ask(SUM.format(table=of(table)))
    assert isinstance(answer, dict), answer
    assert answer["kind"] in {"data", "exhausted"}, answer
    file.write_bytes(b'{"add":[' + b"1 " * (48 << 20) + b"]}")
    with Watched(lake.gateway, 200 << 20):
        answer = lake.ask(SUM.format(table=of(table)))
    assert isinstance(answer, dict), answer
    assert answer["kind"] in {"data", "exhausted"}, answer
    lake.goes_on()


@pytest.mark.parametrize("action", ['{"add":NESTED}', '{"add":{"path":NESTED}}', '{"commitInfo":NESTED}'])
def test_a_commit_of_delta_that_is_nested_too_deeply(action: str, lake: Lake) -> None:
    """What is wrong with it would be told by recursion."""
    table = lake.delta()
    name = f"{1:020}.json"
    (table / "_delta_log" / name).write_text(action.replace("NESTED", "[" * 1_000_000 + "]" * 1_000_000))
    assert name in lake.refused(SUM.format(table=of(table)), "nested too deeply")


def test_statistics_of_delta_that_are_nested_too_deeply(lake: Lake) -> None:
    table = lake.delta()
    stats = '{"minValues":' + "[" * 1_000_000 + "]" * 1_000_000 + "}"
    add = {"path": "a", "partitionValues": {}, "size": 10, "modificationTime": 0, "dataChange": True, "stats": stats}
    (table / "_delta_log" / f"{1:020}.json").write_text(json.dumps({"add": add}))
    lake.refused(SUM.format(table=of(table)), "nested too deeply")


def test_a_footer_of_a_checkpoint_of_delta_that_is_too_large(lake: Lake) -> None:
    table = lake.delta()
    DeltaTable(table).create_checkpoint()
    log = table / "_delta_log"
    [checkpoint] = log.glob("*.checkpoint.parquet")
    with checkpoint.open("r+b") as file:
        file.truncate(5 << 30)
        file.seek(-8, os.SEEK_END)
        file.write((0xFFFF0000).to_bytes(4, "little") + b"PAR1")
    (log / f"{0:020}.json").unlink()
    with Watched(lake.gateway):
        told = lake.refused(SUM.format(table=of(table)), "the footer of the file has more than")
    assert checkpoint.name in told


def test_a_page_index_that_says_more_than_it_has(lake: Lake) -> None:
    table = lake.delta()
    [file] = table.glob("*.parquet")
    whole = bytearray(file.read_bytes())
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    # One place of a page, which begins with a number of 64 bits.
    place = whole.rfind(b"\x19\x1c\x16", 0, footer)
    assert place > 0, "there is no page index"
    whole[place : place + len(PAGES)] = PAGES
    file.write_bytes(whole)
    assert MORE in lake.refused(SUM.format(table=of(table)), file.name)


def test_columns_of_hudi_that_double(lake: Lake) -> None:
    """Each record has the one before twice: told by some kilobytes, they are millions of columns."""
    table = HudiTable(lake.folder("hudi"), ROWS.schema)
    table.commit({new_group(): ROWS.to_batches()})
    [commit] = table.hoodie.glob("*.commit")
    within: dict = {"type": "record", "name": "r0", "fields": [{"name": "a", "type": "int"}]}
    for level in range(1, 26):
        fields = [{"name": "a", "type": within}, {"name": "b", "type": f"r{level - 1}"}]
        within = {"type": "record", "name": f"r{level}", "fields": fields}
    said = json.loads(commit.read_text())
    said["extraMetadata"]["schema"] = json.dumps({"type": "record", "name": "t", "fields": [{"name": "c", "type": within}]})
    commit.write_text(json.dumps(said))
    with Watched(lake.gateway):
        lake.refused(f"select * from {of(table.folder)}", "that repeats others too often")
