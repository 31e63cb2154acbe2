"""A Hudi table without Spark: one copy-on-write commit of table version 6, in one file, as Hudi's specification lays it out."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

INSTANT = "20240101000000000"
GROUP = "00000000-0000-0000-0000-000000000000-0"
FILE = f"{GROUP}_0-1-2_{INSTANT}.parquet"
PROPERTIES = """hoodie.table.name=lineitem
hoodie.table.type=COPY_ON_WRITE
hoodie.table.version=6
hoodie.timeline.layout.version=1
hoodie.table.base.file.format=PARQUET
hoodie.table.timeline.timezone=UTC
"""


def written(table: Path, source: pq.ParquetFile) -> None:
    """The rows of a file as a table in a folder, with the columns that Hudi adds."""
    hoodie = table / ".hoodie"
    hoodie.mkdir(parents=True)
    (hoodie / "hoodie.properties").write_text(PROPERTIES)
    added = ("_hoodie_commit_time", "_hoodie_commit_seqno", "_hoodie_record_key", "_hoodie_partition_path", "_hoodie_file_name")
    schema = pa.schema([*((name, pa.string()) for name in added), *source.schema_arrow])
    written, rows = table / FILE, 0
    with pq.ParquetWriter(written, schema, compression="zstd") as writer:
        for batch in source.iter_batches():
            numbers = [str(number) for number in range(rows, rows + batch.num_rows)]
            constant = [pa.repeat(value, batch.num_rows) for value in (INSTANT, "", FILE)]
            writer.write_batch(
                pa.record_batch([constant[0], numbers, numbers, constant[1], constant[2], *batch.columns], schema=schema)
            )
            rows += batch.num_rows
    stat = {"fileId": GROUP, "path": FILE, "prevCommit": "null", "fileSizeInBytes": written.stat().st_size, "numWrites": rows}
    fields = [{"name": field.name, "type": ["null", avro(field.type)], "default": None} for field in source.schema_arrow]
    commit = {
        "partitionToWriteStats": {"": [stat]},
        "extraMetadata": {"schema": json.dumps({"type": "record", "name": "lineitem", "fields": fields})},
        "operationType": "INSERT",
    }
    (hoodie / f"{INSTANT}.commit").write_text(json.dumps(commit))


def avro(data_type: pa.DataType) -> object:
    """A type of lineitem as Avro has it."""
    if pa.types.is_decimal(data_type):
        named = f"d{data_type.precision}_{data_type.scale}"
        precise = {"precision": data_type.precision, "scale": data_type.scale}
        return {"type": "fixed", "name": named, "size": 7, "logicalType": "decimal", **precise}
    if pa.types.is_date(data_type):
        return {"type": "int", "logicalType": "date"}
    return {pa.int64(): "long", pa.int32(): "int", pa.string(): "string"}[data_type]
