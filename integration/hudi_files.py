"""A Hudi table without Spark: one copy-on-write commit of table version 6, as Hudi's specification lays it out."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

INSTANT = "20240101000000000"
# The columns that Hudi adds.
ADDED = ("_hoodie_commit_time", "_hoodie_commit_seqno", "_hoodie_record_key", "_hoodie_partition_path", "_hoodie_file_name")
PROPERTIES = """hoodie.table.name=made
hoodie.table.type=COPY_ON_WRITE
hoodie.table.version=6
hoodie.timeline.layout.version=1
hoodie.table.base.file.format=PARQUET
hoodie.table.timeline.timezone=UTC
"""


def written(
    table: Path, schema: pa.Schema, files: Iterable[tuple[str, Iterable[pa.RecordBatch]]], has_added: bool = True
) -> list[Path]:
    """A table in a folder with these files, each the rows of a partition, which is "" where there are none; gives where they are.
    The rows have the columns that Hudi adds, or not."""
    hoodie = table / ".hoodie"
    hoodie.mkdir(parents=True)
    (hoodie / "hoodie.properties").write_text(f"{PROPERTIES}hoodie.populate.meta.fields={str(has_added).lower()}\n")
    stats: dict[str, list[dict]] = {}
    paths = []
    for number, (partition, batches) in enumerate(files):
        (table / partition).mkdir(exist_ok=True)
        (table / partition / ".hoodie_partition_metadata").write_text(f"commitTime={INSTANT}\n")
        group = f"{number:08}-0000-0000-0000-000000000000-0"
        path = table / partition / f"{group}_{number}-1-2_{INSTANT}.parquet"
        rows = write(path, partition, schema, batches, has_added)
        within = str(path.relative_to(table))
        size = path.stat().st_size
        stat = {"fileId": group, "path": within, "prevCommit": "null", "fileSizeInBytes": size, "numWrites": rows}
        stats.setdefault(partition, []).append(stat)
        paths.append(path)
    fields = [{"name": field.name, "type": ["null", avro(field.type)], "default": None} for field in schema]
    commit = {
        "partitionToWriteStats": stats,
        "extraMetadata": {"schema": json.dumps({"type": "record", "name": "made", "fields": fields})},
        "operationType": "INSERT",
    }
    (hoodie / f"{INSTANT}.commit").write_text(json.dumps(commit))
    return paths


def write(path: Path, partition: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], has_added: bool) -> int:
    """Writes the rows of a file; gives how many they are. Their numbers in it are their keys."""
    rows = 0
    added = [(name, pa.string()) for name in ADDED] if has_added else []
    held = pa.schema([*added, *schema])
    with pq.ParquetWriter(path, held, compression="zstd") as writer:
        for batch in batches:
            columns = batch.columns
            if has_added:
                numbers = [str(number) for number in range(rows, rows + batch.num_rows)]
                instants, partitions, names = (pa.repeat(value, batch.num_rows) for value in (INSTANT, partition, path.name))
                columns = [instants, numbers, numbers, partitions, names, *columns]
            writer.write_batch(pa.record_batch(columns, schema=held))
            rows += batch.num_rows
    return rows


def avro(data_type: pa.DataType) -> object:
    """A type as Avro has it."""
    if pa.types.is_decimal(data_type):
        named = f"d{data_type.precision}_{data_type.scale}"
        precise = {"precision": data_type.precision, "scale": data_type.scale}
        return {"type": "fixed", "name": named, "size": 7, "logicalType": "decimal", **precise}
    if pa.types.is_date(data_type):
        return {"type": "int", "logicalType": "date"}
    return {pa.int64(): "long", pa.int32(): "int", pa.string(): "string"}[data_type]
