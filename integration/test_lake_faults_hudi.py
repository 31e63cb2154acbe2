"""Files of Hudi tables that are removed, cut, replaced or changed by a byte. What no completed commit wrote is none of the table,
whatever becomes of it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow.parquet as parquet
import pytest

import lakes
from faults import DAMAGES, Asked, Damage, Rows, cut, each, emptied, folder, garbage, many, now, pipe, removed, spaces, spark
from gateway import configured
from hudi_writer import HudiTable, new_group

WHOLE = ("hudi_cow", "hudi_mor")
# Of version 9, whose commits are Avro, and of version 6, whose commits are JSON.
COPIED = ("hudi_cow", "hudi_v6_cow")
# The same, with logs of Avro and, in between, of Parquet.
MERGED = ("hudi_mor", "hudi_mor_parquet", "hudi_v6")
COMMITS = re.compile(r"\d{17}(_\d{17})?\.(commit|deltacommit|replacecommit)")

each_table = pytest.mark.parametrize("name", [*COPIED, *MERGED])
each_merged = pytest.mark.parametrize("name", MERGED)


@dataclass(kw_only=True)
class Lake(Asked):
    """A gateway over a folder of Hudi tables."""

    tables: Path

    def copied(self, name: str) -> Path:
        """A copy of one of Spark's tables; gives its folder."""
        copy = self.tables / f"{name}_{next(self.numbers)}"
        return shutil.copytree(lakes.folder() / "hudi" / "main" / name, copy, ignore=shutil.ignore_patterns("*.crc"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The gateway has no cache of answers."""
    top = tmp_path_factory.mktemp("faults")
    tables = top / "hudi" / "main"
    for name in WHOLE:
        shutil.copytree(lakes.folder() / "hudi" / "main" / name, tables / name)
    section = f'[catalogs.hudi]\nkind = "hudi"\nlocation = "{top / "hudi"}"\n'
    with (
        configured(top, '[cache]\nsize = "0"\n' + section) as gateway,
        flightsql.connect(gateway.uri, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        running = Lake(gateway, cursor, {spark(name, f"hudi.main.{name}"): now(name) for name in WHOLE}, tables=tables)
        running.goes_on()
        yield running
        running.goes_on()


def asked(name: str, table: Path) -> str:
    """The SQL of the checksum of a copy."""
    return spark(name, f"hudi.main.{table.name}")


def earlier(name: str, commits: int, called: str) -> tuple[str, Rows]:
    """The SQL of the checksum of a table of Spark's as it was before its last commits, for one that is called so, and what that
    gives. In the name `@` stands for the version."""
    of = lakes.answers()["tables"][name]
    version = of["versions"][-1 - commits]
    sql = of["checksums"][version["by"]].replace("{table}", f'hudi.main."{called.replace("@", "@" + version["id"])}"')
    return sql, [{"n": str(version["rows"]), "checksum": version["checksum"]}]


def instant(file: Path) -> str:
    """The commit that the name of a file tells."""
    return re.search(r"_(\d{17})\.", file.name)[1]


def base_file(table: Path) -> Path:
    """One that the table needs."""
    return max(table.glob("*.parquet"), key=instant)


def log_file(table: Path) -> Path:
    """One that the table needs."""
    return max(table.glob(".*.log.*"), key=lambda file: (instant(file), file.name))


def commits(table: Path) -> list[Path]:
    """The files of the completed commits, the newest one at the end."""
    timeline = table / ".hoodie" / "timeline"
    files = (timeline if timeline.exists() else timeline.parent).iterdir()
    return sorted(file for file in files if COMMITS.fullmatch(file.name))


def written(table: Path, commit: Path) -> list[Path]:
    """What a completed commit wrote. Before version 8 logs have the names of the base files that they are of."""
    if "_" in commit.name:
        return [file for file in rows_of(table) if instant(file) == commit.name[:17]]
    said = json.loads(commit.read_text())
    return [table / stat["path"] for stats in said["partitionToWriteStats"].values() for stat in stats]


def rows_of(table: Path) -> list[Path]:
    """All files of rows of a table without partitions."""
    return [*table.glob("*.parquet"), *table.glob(".*.log.*")]


@each(DAMAGES)
@each_table
def test_a_base_file(name: str, damage: Damage, lake: Lake) -> None:
    table = lake.copied(name)
    # It is known already what the files are.
    assert lake.rows(asked(name, table)) == now(name)
    file = base_file(table)
    damage(file)
    lake.refused(asked(name, table), file.name)


@pytest.mark.parametrize("name", [*COPIED, "hudi_mor"])
def test_a_byte_of_a_base_file(name: str, lake: Lake) -> None:
    """Pages of rows have checksums: one of each column is broken at its end. Footers have none, and logs have none."""
    group = parquet.read_metadata(base_file(lake.copied(name))).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    # Hudi's own are not asked for.
    for column in (column for column in columns if not column.path_in_schema.startswith("_hoodie_")):
        # A file that changes once it was read is an error by itself.
        table = lake.copied(name)
        file = base_file(table)
        start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        changed = bytearray(file.read_bytes())
        changed[start + column.total_compressed_size - 1] ^= 0x04
        file.write_bytes(changed)
        # What a merge reads is told with the table.
        about = table.name if name in MERGED else file.name
        assert lake.error(asked(name, table), [], about), f"{column.path_in_schema} is answered"
    lake.goes_on()


@each(DAMAGES)
@each_merged
def test_a_log_file(name: str, damage: Damage, lake: Lake) -> None:
    table = lake.copied(name)
    assert lake.rows(asked(name, table)) == now(name)
    file = log_file(table)
    damage(file)
    lake.refused(asked(name, table), file.name)


@each_merged
def test_a_log_file_that_is_cut(name: str, lake: Lake) -> None:
    """In what a block begins with, in its length, in its header, in what it holds, and in the length at its end."""
    table = lake.copied(name)
    file = log_file(table)
    whole = file.read_bytes()
    for left in (3, 6, 10, 20, 40, 200, len(whole) // 2, len(whole) - 30, len(whole) - 4, len(whole) - 1):
        file.write_bytes(whole[:left])
        assert lake.error(asked(name, table), [], file.name), f"with {left} bytes it is answered"
    file.write_bytes(whole)
    assert lake.rows(asked(name, table)) == now(name)


def appended(table: Path) -> tuple[Path, int]:
    """Makes one log of two in a table of version 6, as writers do that append to logs; gives it, and the bytes of the first."""
    logs = [[file.with_name(file.name.replace(".log.1_", f".log.{n}_")) for n in (1, 2, 3)] for file in table.glob(".*.log.1_*")]
    first, second = next((first, second) for first, second, third in logs if second.exists() and not third.exists())
    size, more = first.stat().st_size, second.read_bytes()
    for commit in commits(table):
        said = json.loads(commit.read_text())
        for stat in (stat for stats in said["partitionToWriteStats"].values() for stat in stats if stat["path"] == second.name):
            stat |= {"path": first.name, "fileSizeInBytes": size + len(more)}
            commit.write_text(json.dumps(said))
    first.write_bytes(first.read_bytes() + more)
    second.unlink()
    return first, size


def test_a_log_file_that_is_cut_between_blocks(lake: Lake) -> None:
    """What is left is as sound as a log of one block."""
    table = lake.copied("hudi_v6")
    file, size = appended(table)
    assert lake.rows(asked("hudi_v6", table)) == now("hudi_v6")
    whole = file.read_bytes()
    for left in (size, size + 20):
        file.write_bytes(whole[:left])
        lake.refused(asked("hudi_v6", table), file.name)


def test_a_log_file_with_less_than_a_block_at_its_end(lake: Lake) -> None:
    """A write that failed leaves it there, and no commit has it."""
    table = lake.copied("hudi_v6")
    file, size = appended(table)
    whole = file.read_bytes()
    for more in (1, 5, 14, 20):
        file.write_bytes(whole + whole[:more])
        assert lake.rows(asked("hudi_v6", table)) == now("hudi_v6"), f"with {more} bytes more it is answered otherwise"
    # These say that they are of a commit that is completed.
    for more in (size - 8, size - 1):
        file.write_bytes(whole + whole[:more])
        lake.refused(asked("hudi_v6", table), file.name)
    # Of its length a part.
    file.write_bytes(whole + whole[:10])
    lake.refused(asked("hudi_v6", table), file.name)


# Where it is not there or is a folder, it was never completed.
@pytest.mark.parametrize("place", [0, -1])
@each([cut, emptied, garbage, pipe])
@each_table
def test_a_commit(name: str, damage: Damage, place: int, lake: Lake) -> None:
    table = lake.copied(name)
    file = commits(table)[place]
    damage(file)
    lake.refused(asked(name, table), file.name)
    shutil.rmtree(table)


@pytest.mark.parametrize("name", COPIED)
def test_a_commit_of_spaces(name: str, lake: Lake) -> None:
    table = lake.copied(name)
    file = commits(table)[-1]
    spaces(file)
    lake.refused(asked(name, table), file.name)
    shutil.rmtree(table)


@each_table
def test_a_commit_that_is_cut(name: str, lake: Lake) -> None:
    """Anywhere."""
    table = lake.copied(name)
    file = commits(table)[-1]
    whole = file.read_bytes()
    for part in range(20):
        file.write_bytes(whole[: len(whole) * part // 20])
        assert lake.error(asked(name, table), [], file.name), f"with {part} parts of 20 it is answered"
    file.write_bytes(whole)
    assert lake.rows(asked(name, table)) == now(name)


@each([removed, folder])
@each_table
def test_a_commit_that_is_not_completed(name: str, damage: Damage, lake: Lake) -> None:
    """It has begun still, and what it wrote is none of the table, whatever becomes of that."""
    for of_files in (None, cut, emptied, removed):
        table = lake.copied(name)
        last = commits(table)[-2:]
        files = [file for commit in last for file in written(table, commit)]
        assert files
        for commit in last:
            damage(commit)
        for file in files if of_files else []:
            of_files(file)
        sql, expected = earlier(name, 2, table.name)
        assert lake.rows(sql) == expected
        shutil.rmtree(table)


@each(DAMAGES)
def test_files_of_a_commit_that_never_ended(damage: Damage, lake: Lake) -> None:
    table = lake.copied("hudi_unfinished")
    begun = {file.name[:17] for file in (table / ".hoodie" / "timeline").glob("*.inflight")}
    begun -= {commit.name[:17] for commit in commits(table)}
    files = [file for file in rows_of(table) if instant(file) in begun]
    assert {file.suffix == ".parquet" for file in files} == {True, False}
    for file in files:
        damage(file)
    assert lake.rows(asked("hudi_unfinished", table)) == now("hudi_unfinished")


@each(DAMAGES)
def test_logs_of_a_commit_that_was_taken_back(damage: Damage, lake: Lake) -> None:
    """In version 6 a commit stays in the logs, and another log says that it was taken back. It is on no timeline any more."""
    table = lake.copied("hudi_v6")
    said = b"".join(commit.read_bytes() for commit in commits(table))
    told = re.findall(rb'"path"\s*:\s*"([^"]+)"', said)
    files = [file for file in table.glob(".*.log.*") if file.name.encode() not in told]
    assert len(files) == 4
    for file in files:
        damage(file)
    sql, expected = earlier("hudi_v6", 5, f"{table.name}@")
    error = lake.error(sql, expected, ".log.")
    # What is cut is what a write leaves that fails. What is no log is an error.
    assert (error is None) == (damage is not garbage)


@each([*DAMAGES, spaces])
@pytest.mark.parametrize("name", ["hudi_mor", "hudi_v6_cow"])
def test_properties(name: str, damage: Damage, lake: Lake) -> None:
    table = lake.copied(name)
    damage(table / ".hoodie" / "hoodie.properties")
    lake.refused(asked(name, table), "hoodie.properties")
    shutil.rmtree(table)


@each(DAMAGES)
def test_the_archive_of_a_timeline(damage: Damage, lake: Lake) -> None:
    """What is archived is completed, and what it says is not asked for."""
    table = lake.copied("hudi_archived")
    files = [file for file in (table / ".hoodie" / "timeline" / "history").iterdir() if file.stat().st_size > 10]
    assert any(file.suffix == ".parquet" for file in files)
    for file in files:
        damage(file)
    assert lake.rows(asked("hudi_archived", table)) == now("hudi_archived")


def test_a_timeline_that_is_gone(lake: Lake) -> None:
    table = lake.copied("hudi_mor")
    shutil.rmtree(table / ".hoodie" / "timeline")
    lake.refused(asked("hudi_mor", table), ".hoodie/timeline")


def test_a_folder_that_is_no_partition_any_more(lake: Lake) -> None:
    """Whether it belongs to the table only its mark tells."""
    table = lake.copied("hudi_cow_partitioned")
    [mark, *_] = sorted(table.glob("*/*/.hoodie_partition_metadata"))
    mark.unlink()
    lake.refused(asked("hudi_cow_partitioned", table), str(mark.parent.relative_to(table)))


def test_files_that_go_while_rows_are_read(lake: Lake) -> None:
    batches = many()
    table = lake.tables / "many"
    groups = {new_group(number): batch.to_batches() for number, batch in enumerate(batches)}
    HudiTable(table, batches[0].schema, has_added=False).commit(groups)
    lake.files_go("hudi.main.many", table, batches)
    with suppress(FileNotFoundError):
        shutil.rmtree(table)
    lake.goes_on()
