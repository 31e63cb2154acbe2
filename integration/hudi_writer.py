"""Hudi tables without Spark: copied on write, of table version 6, as Hudi's specification lays them out."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from uuid import UUID, uuid4
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq

ADDED = ("_hoodie_commit_time", "_hoodie_commit_seqno", "_hoodie_record_key", "_hoodie_partition_path", "_hoodie_file_name")
PROPERTIES = """hoodie.table.name={name}
hoodie.table.type=COPY_ON_WRITE
hoodie.table.version=6
hoodie.timeline.layout.version=1
hoodie.table.base.file.format=PARQUET
hoodie.table.timeline.timezone=UTC
hoodie.populate.meta.fields={has_added}
hoodie.table.checksum={checksum}
"""
# What a table says besides whose partitions are called by the values of a column.
PARTITIONED = """hoodie.table.partition.fields={by}
hoodie.table.keygenerator.type=SIMPLE
hoodie.datasource.write.hive_style_partitioning=true
"""


def new_group(number: int | None = None) -> str:
    """The id of a file group that is not there yet; those with a number are in its order."""
    return f"{uuid4() if number is None else UUID(int=number << 96)}-0"


class HudiTable:
    """A table in a folder, with one writer. Each commit writes all rows of a file group anew, and says of all of them that they
    are its own. The rows have the columns that Hudi adds, or not. A table may tell by which column it is partitioned."""

    def __init__(self, folder: Path, schema: pa.Schema, has_added: bool = True, by: str | None = None) -> None:
        self.folder, self.hoodie = folder, folder / ".hoodie"
        self.columns, self.has_added = schema, has_added
        # The base file of each file group and the commit that wrote it; all commits on the timeline; the newest instant.
        self.groups: dict[str, tuple[str, str]] = {}
        self.commits: list[str] = []
        self.newest = datetime.min.replace(tzinfo=UTC)
        (self.hoodie / ".temp").mkdir(parents=True)
        # Of the name with that of its database, which it has not.
        checksum = crc32(f".{folder.name}".encode())
        properties = PROPERTIES.format(name=folder.name, has_added=str(has_added).lower(), checksum=checksum)
        (self.hoodie / "hoodie.properties").write_text(properties + (PARTITIONED.format(by=by) if by else ""))

    def commit(
        self,
        groups: Mapping[str, Iterable[pa.RecordBatch] | int],
        replaces: bool = False,
        partitions: Mapping[str, str] | None = None,
    ) -> list[Path]:
        """Gives some file groups the rows that they have from now on, or files of so many bytes that hold nothing; where it
        `replaces`, which a table without partitions can, there are no others from then on. A group is in its partition, or in
        none. Returns where their files are."""
        instant = self._next()
        action, inflight = ("replacecommit", "replacecommit.inflight") if replaces else ("commit", "inflight")
        self._put(f"{instant}.{action}.requested", "")
        self._put(f"{instant}.{inflight}", "")
        numbers = count()
        stats: dict[str, list[dict]] = {}
        for group, batches in groups.items():
            partition = (partitions or {}).get(group, "")
            stats.setdefault(partition, []).append(self._base(group, partition, batches, instant, numbers))
        fields = [{"name": field.name, "type": ["null", avro(field.type)], "default": None} for field in self.columns]
        schema = {"type": "record", "name": self.folder.name, "fields": fields}
        commit = {"partitionToWriteStats": stats, "extraMetadata": {"schema": json.dumps(schema)}}
        if replaces:
            commit |= {"partitionToReplaceFileIds": {"": list(self.groups)}, "operationType": "INSERT_OVERWRITE_TABLE"}
            self.groups.clear()
        else:
            commit |= {"operationType": "UPSERT"}
        self._put(f"{instant}.{action}", json.dumps(commit))
        self.groups |= {stat["fileId"]: (stat["path"], instant) for written in stats.values() for stat in written}
        self.commits.append(instant)
        return [self.folder / self.groups[group][0] for group in groups]

    def clean(self) -> None:
        """Removes all base files that only older states need. It has no instant of its own, which would tell a reader nothing."""
        kept = {path for path, _ in self.groups.values()}
        for path in self.folder.glob("*.parquet"):
            if path.name not in kept:
                path.unlink()

    def archive(self, keep: int) -> None:
        """Takes all commits but the newest off the timeline, of a table that is cleaned: the oldest first, and of each what tells
        that it is completed last, so that there is no hole."""
        self.commits, old = self.commits[-keep:], self.commits[:-keep]
        for instant in old:
            for path in sorted(self.hoodie.glob(f"{instant}.*"), key=lambda path: path.suffix not in (".requested", ".inflight")):
                path.unlink()

    def _next(self) -> str:
        """A new instant: the time, in milliseconds, each of which has one."""
        self.newest = max(datetime.now(UTC), self.newest + timedelta(milliseconds=1))
        return self.newest.strftime("%Y%m%d%H%M%S%f")[:17]

    def _put(self, name: str, text: str) -> None:
        """Puts a file on the timeline, at once as a whole."""
        written = self.hoodie / ".temp" / name
        written.write_text(text)
        written.replace(self.hoodie / name)

    def _base(
        self, group: str, partition: str, batches: Iterable[pa.RecordBatch] | int, instant: str, numbers: Iterator[int]
    ) -> dict[str, object]:
        """Writes the file of a file group; what a commit tells of it."""
        folder, name = self.folder / partition, f"{group}_0-1-2_{instant}.parquet"
        if partition:
            folder.mkdir(exist_ok=True)
            (folder / ".hoodie_partition_metadata").write_text(f"commitTime={instant}\n")
        if isinstance(batches, int):
            with (folder / name).open("wb") as file:
                file.truncate(batches)
            rows = 0
        else:
            rows = self._write(folder / name, partition, batches, instant, numbers)
        path, size = str(Path(partition) / name), (folder / name).stat().st_size
        _, previous = self.groups.get(group, ("", "null"))
        return {"fileId": group, "path": path, "prevCommit": previous, "fileSizeInBytes": size, "numWrites": rows}

    def _write(self, file: Path, partition: str, batches: Iterable[pa.RecordBatch], instant: str, numbers: Iterator[int]) -> int:
        """Writes rows; gives how many they are."""
        schema = pa.schema([*((name, pa.string()) for name in ADDED if self.has_added), *self.columns])
        rows = 0
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                columns = batch.columns
                if self.has_added:
                    keys = list(map(str, islice(numbers, batch.num_rows)))
                    time, within, name = (pa.repeat(value, batch.num_rows) for value in (instant, partition, file.name))
                    columns = [time, keys, keys, within, name, *columns]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                rows += batch.num_rows
        return rows


def avro(data_type: pa.DataType) -> object:
    """A type as Avro has it, of those that the tables here have."""
    if pa.types.is_decimal(data_type):
        named = f"d{data_type.precision}_{data_type.scale}"
        precise = {"precision": data_type.precision, "scale": data_type.scale}
        return {"type": "fixed", "name": named, "size": 7, "logicalType": "decimal", **precise}
    if pa.types.is_date(data_type):
        return {"type": "int", "logicalType": "date"}
    return {pa.int64(): "long", pa.int32(): "int", pa.string(): "string"}[data_type]
