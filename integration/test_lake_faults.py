"""Files of Iceberg and Delta tables that are removed, cut, replaced or changed by a byte."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

import lakes
from faults import DAMAGES, Asked, Damage, cut, each, emptied, flips, garbage, many, now, pipe, replaced, spaces, spark
from gateway import configured
from many_files import newest

# It has to read each row.
ALL = "select count(*) as n, sum(id) as total, sum(character_length(name)) as letters from {table}"
WHOLE = "delta_plain"


@dataclass(kw_only=True)
class Lake(Asked):
    """A gateway over folders of both kinds of tables, and who writes there."""

    catalog: Catalog
    iceberg: Path
    delta: Path

    def written(self, name: str, **properties: str) -> Path:
        """A new Iceberg table of a few files; gives its folder."""
        location = self.iceberg / "shop" / name
        options = {"location": f"file://{location}", "properties": properties}
        table = self.catalog.create_table(("shop", name), orders([]).schema, **options)
        table.append(orders(range(1000)))
        table.append(orders(range(1000, 1500)))
        table.delete("id < 100")
        return location

    def copied(self, name: str) -> Path:
        """A copy of one of Spark's tables; gives its folder."""
        copy = self.delta / "main" / f"{name}_{next(self.numbers)}"
        return shutil.copytree(lakes.folder() / "delta" / "main" / name, copy, ignore=shutil.ignore_patterns("*.crc"))


def orders(ids: range | list) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array([f"订单 {number}" for number in ids], pa.string())})


# What is in a table of these after the last of its changes.
EXPECTED = [{"n": 1400, "total": sum(range(100, 1500)), "letters": sum(len(f"订单 {number}") for number in range(100, 1500))}]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The gateway has no cache of answers, and each of these tables has one sound sister."""
    top = tmp_path_factory.mktemp("faults")
    places = {kind: top / kind for kind in ("iceberg", "delta")}
    for place in places.values():
        place.mkdir()
    shutil.copytree(lakes.folder() / "delta" / "main" / WHOLE, places["delta"] / "main" / WHOLE)
    catalog = SqlCatalog("writer", uri=f"sqlite:///{top}/catalog.db", warehouse=f"file://{top}")
    catalog.create_namespace("shop")
    sections = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{place}"\n' for kind, place in places.items()]
    with (
        configured(top, '[cache]\nsize = "0"\n' + "".join(sections)) as gateway,
        flightsql.connect(gateway.uri, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        sound = {ALL.format(table="iceberg.shop.whole"): EXPECTED, spark(WHOLE, f"delta.main.{WHOLE}"): now(WHOLE)}
        running = Lake(gateway, cursor, sound, catalog=catalog, iceberg=places["iceberg"], delta=places["delta"])
        running.written("whole")
        running.goes_on()
        yield running
        running.goes_on()


def anew(table: Path) -> None:
    """Gives an Iceberg table other metadata of the same, so that nothing of it is remembered."""
    last = newest(table)
    metadata = json.loads(last.read_text()) | {"table-uuid": str(uuid.uuid4())}
    number = int(last.name.partition("-")[0]) + 1
    (last.parent / f"{number:05}-{uuid.uuid4()}.metadata.json").write_text(json.dumps(metadata))
    last.unlink()


def parts(lake: Lake, table: Path) -> dict[str, Path]:
    """A file of each kind that an Iceberg table needs."""
    loaded = lake.catalog.load_table(("shop", table.name))
    snapshot = loaded.current_snapshot()
    manifests = [manifest.manifest_path for manifest in snapshot.manifests(loaded.io) if manifest.added_files_count]
    data = [task.file.file_path for task in loaded.scan().plan_files()]
    files = {"data": data[0], "manifest": manifests[0], "list": snapshot.manifest_list}
    return {kind: Path(file.removeprefix("file://")) for kind, file in files.items()} | {"metadata": newest(table)}


@each([*DAMAGES, replaced])
def test_a_data_file_of_iceberg(damage: Damage, lake: Lake) -> None:
    table = lake.written(f"data_{damage.__name__}")
    sql = ALL.format(table=f"iceberg.shop.{table.name}")
    # It is known already what the files are.
    assert lake.rows(sql) == EXPECTED
    file = parts(lake, table)["data"]
    damage(file)
    lake.refused(sql, file.name)


@pytest.mark.parametrize("part", ["manifest", "list"])
@each(DAMAGES)
def test_a_manifest_of_iceberg(part: str, damage: Damage, lake: Lake) -> None:
    table = lake.written(f"{part}_{damage.__name__}")
    file = parts(lake, table)[part]
    damage(file)
    lake.refused(ALL.format(table=f"iceberg.shop.{table.name}"), file.name)


@each([cut, emptied, garbage, spaces, pipe])
def test_metadata_of_iceberg(damage: Damage, lake: Lake) -> None:
    table = lake.written(f"metadata_{damage.__name__}")
    file = parts(lake, table)["metadata"]
    damage(file)
    lake.refused(ALL.format(table=f"iceberg.shop.{table.name}"), file.name)
    file.unlink()


@each([emptied, cut])
def test_metadata_of_iceberg_that_is_being_written(damage: Damage, lake: Lake) -> None:
    """The state before is not taken instead, and the error says what to do: ask again, or remove what nobody writes any more."""
    table = lake.written(f"begun_{damage.__name__}")
    sql, last = ALL.format(table=f"iceberg.shop.{table.name}"), newest(table)
    begun = last.with_name(f"{int(last.name.partition('-')[0]) + 1:05}-{uuid.uuid4()}.metadata.json")
    whole = last.read_bytes()
    begun.write_bytes(whole)
    damage(begun)
    error = lake.ask(sql)
    assert isinstance(error, dict), error
    assert (error["kind"], error["retryable"]) == ("data", True)
    assert begun.name in error["place"]
    assert "being written" in error["message"]
    assert "run the statement again" in error["hint"]
    assert "remove it" in error["hint"]
    begun.write_bytes(whole)
    assert lake.rows(sql) == EXPECTED
    damage(begun)
    lake.refused(sql, begun.name)
    begun.unlink()
    assert lake.rows(sql) == EXPECTED


def flips_of_values(avro: bytes) -> Iterator[bytes]:
    """The same of each byte after the header of an Avro file, which ends with what each block ends with too: by one bit so that a
    number is less or more, by another so that it goes on into the next."""
    begin = avro.index(avro[-16:]) + 16
    for place in range(begin, len(avro)):
        for bit in (0x02, 0x80):
            changed = bytearray(avro)
            changed[place] ^= bit
            yield bytes(changed)


@pytest.mark.parametrize("codec", ["null", "gzip"])
@pytest.mark.parametrize("part", ["manifest", "list"])
def test_a_byte_of_a_manifest(part: str, codec: str, lake: Lake) -> None:
    table = lake.written(f"byte_{part}_{codec}", **{"write.avro.compression-codec": codec})
    sql, file = ALL.format(table=f"iceberg.shop.{table.name}"), parts(lake, table)[part]
    whole = file.read_bytes()
    # The name of the file that is told may be what was changed.
    told = []
    for changed in flips(whole) if codec == "gzip" else flips_of_values(whole):
        file.write_bytes(changed)
        anew(table)
        told.append(lake.error(sql, EXPECTED, "/"))
    assert any(told), "nothing is noticed"
    file.write_bytes(whole)
    anew(table)
    assert lake.rows(sql) == EXPECTED


def test_a_hint_of_iceberg_that_leads_nowhere(lake: Lake) -> None:
    """It is not heeded."""
    table = lake.written("hint")
    (table / "metadata" / "version-hint.text").write_text("99")
    assert lake.rows(ALL.format(table="iceberg.shop.hint")) == EXPECTED


def in_use(table: Path) -> Path:
    """A file of rows of a Delta table as it is now."""
    return Path(DeltaTable(table).file_uris()[0].removeprefix("file://"))


@each([*DAMAGES, replaced])
def test_a_data_file_of_delta(damage: Damage, lake: Lake) -> None:
    table = lake.copied("delta_checkpoint")
    sql = spark("delta_checkpoint", f"delta.main.{table.name}")
    assert lake.rows(sql) == now("delta_checkpoint")
    file = in_use(table)
    damage(file)
    lake.refused(sql, file.name)


# In delta_dv no commit is in a checkpoint, in delta_checkpoint those to 15 are. Where the last is not there, it never was.
@pytest.mark.parametrize(
    ("name", "version", "damage"),
    [("delta_dv", 4, damage) for damage in DAMAGES]
    + [("delta_checkpoint", 16, damage) for damage in DAMAGES]
    + [("delta_checkpoint", 17, damage) for damage in (cut, emptied, garbage)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_commit_of_delta(name: str, version: int, damage: Damage, lake: Lake) -> None:
    table = lake.copied(name)
    damage(table / "_delta_log" / f"{version:020}.json")
    lake.refused(spark(name, f"delta.main.{table.name}"), f"{table.name}/_delta_log")


@each(DAMAGES)
@pytest.mark.parametrize("name", ["delta_checkpoint", "delta_v2checkpoint"])
def test_a_checkpoint_of_delta(name: str, damage: Damage, lake: Lake) -> None:
    """As long as all commits are there, it is not needed."""
    for is_whole in (True, False):
        table = lake.copied(name)
        for file in checkpoints(table):
            damage(file)
        sql = spark(name, f"delta.main.{table.name}")
        if is_whole:
            lake.error(sql, now(name), table.name)
            continue
        for version in range(10):
            (table / "_delta_log" / f"{version:020}.json").unlink()
        lake.refused(sql, table.name)


def checkpoints(table: Path) -> list[Path]:
    """The files that hold what commits said, the newest one at the end."""
    log = table / "_delta_log"
    found = [*log.glob("_sidecars/*.parquet")] or [*log.glob("*.checkpoint.parquet")]
    return sorted(found, key=lambda file: file.stat().st_mtime_ns)


@pytest.mark.parametrize("name", ["delta_checkpoint", "delta_v2checkpoint"])
def test_a_byte_of_a_checkpoint(name: str, lake: Lake) -> None:
    original = lakes.folder() / "delta" / "main" / name
    [*_, last] = checkpoints(original)
    told = []
    for changed in flips(last.read_bytes()):
        table = lake.copied(name)
        (table / last.relative_to(original)).write_bytes(changed)
        told.append(lake.error(spark(name, f"delta.main.{table.name}"), now(name), table.name))
        shutil.rmtree(table)
    assert any(told), "nothing is noticed"


@pytest.mark.parametrize("text", ['{"version":99,"size":20}', "", "{", "[]", '{"version":5,"size":20}', None])
def test_a_hint_of_delta_that_leads_nowhere(text: str | None, lake: Lake) -> None:
    table = lake.copied("delta_checkpoint")
    hint = table / "_delta_log" / "_last_checkpoint"
    if text is None:
        pipe(hint)
    else:
        hint.write_text(text)
    lake.error(spark("delta_checkpoint", f"delta.main.{table.name}"), now("delta_checkpoint"), table.name)


@each(DAMAGES)
def test_a_deletion_vector_of_delta(damage: Damage, lake: Lake) -> None:
    table = lake.copied("delta_dv")
    for file in table.glob("*.bin"):
        damage(file)
    lake.refused(spark("delta_dv", f"delta.main.{table.name}"), ".bin")


def test_a_byte_of_a_deletion_vector(lake: Lake) -> None:
    told = []
    for file in sorted((lakes.folder() / "delta" / "main" / "delta_dv").glob("*.bin")):
        for changed in [*flips(file.read_bytes())][::6]:
            table = lake.copied("delta_dv")
            (table / file.name).write_bytes(changed)
            told.append(lake.error(spark("delta_dv", f"delta.main.{table.name}"), now("delta_dv"), table.name))
            shutil.rmtree(table)
    assert any(told), "nothing is noticed"


@pytest.mark.parametrize("kind", ["iceberg", "delta"])
def test_files_that_go_while_rows_are_read(kind: str, lake: Lake) -> None:
    batches = many()
    if kind == "iceberg":
        folder, table = lake.iceberg / "shop" / "many", "iceberg.shop.many"
        properties = {"write.parquet.compression-codec": "uncompressed", "write.target-file-size-bytes": str(4 << 20)}
        options = {"location": f"file://{folder}", "properties": properties}
        lake.catalog.create_table("shop.many", batches[0].schema, **options).append(pa.concat_tables(batches))
    else:
        folder, table = lake.delta / "main" / "many", "delta.main.many"
        for batch in batches:
            write_deltalake(folder, batch, mode="append")
    lake.files_go(table, folder, batches)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    lake.goes_on()
