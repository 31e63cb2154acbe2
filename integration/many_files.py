"""Lake tables of many files, each with a range of its own of every column: with the files, or with the metadata alone."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DateType, DecimalType, LongType, NestedField, PrimitiveType, StringType

from hudi_writer import HudiTable, new_group
from wire import Client

# The rows of each file.
ROWS = 10
# What a file is said to have where nobody wrote it.
BYTES = 100_000


@dataclass(frozen=True)
class Kind:
    """A type of a column, and its value in the row of each number, which grows with it."""

    iceberg: PrimitiveType
    arrow: pa.DataType
    of: Callable[[int], object]


KINDS = (
    Kind(LongType(), pa.int64(), int),
    Kind(DateType(), pa.date32(), lambda number: date(2000, 1, 1) + timedelta(number)),
    Kind(DecimalType(15, 2), pa.decimal128(15, 2), lambda number: Decimal(number).scaleb(-2)),
    Kind(StringType(), pa.string(), lambda number: f"{number:012}"),
)
# As many as lineitem has. The first tells the file of a row, and the second the row.
COLUMNS = {"part": KINDS[0], "key": KINDS[0], **{f"column_{number}": KINDS[number % len(KINDS)] for number in range(14)}}


def iceberg(folder: Path, count: int, partitioned: bool, written: bool = True) -> None:
    """An Iceberg table of so many files in one manifest. One that is partitioned has a file for each `part`, and no bounds."""
    schema = Schema(*(NestedField(at, name, kind.iceberg) for at, (name, kind) in enumerate(COLUMNS.items(), 1)))
    by_part = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "part"))
    catalog = InMemoryCatalog("made")
    catalog.create_namespace("made")
    spec = by_part if partitioned else UNPARTITIONED_PARTITION_SPEC
    table = catalog.create_table("made.table", schema, location=f"file://{folder}", partition_spec=spec)
    with table.transaction() as change, change.update_snapshot().fast_append() as append:
        for part in range(count):
            path = folder / "data" / f"{part}.parquet"
            file = DataFile.from_args(
                content=DataFileContent.DATA,
                file_path=f"file://{path}",
                file_format=FileFormat.PARQUET,
                partition=Record(part) if partitioned else Record(),
                record_count=ROWS,
                file_size_in_bytes=_write(path, part, schema.as_arrow()) if written else BYTES,
                **({} if partitioned else _iceberg_bounds(part)),
            )
            append.append_data_file(file)


def delta(folder: Path, count: int, partitioned: bool, written: bool = True) -> DeltaTable:
    """A Delta table of so many files in one commit. One that is partitioned has a file for each `part`, and no bounds."""
    schema = _arrow()
    by = ["part"] if partitioned else []
    held = schema.remove(0) if partitioned else schema
    folder.mkdir(parents=True)
    table = DeltaTable.create(folder, schema, partition_by=by)
    actions = []
    for part in range(count):
        path = f"part={part}/rows.parquet" if partitioned else f"{part}.parquet"
        size = _write(folder / path, part, held) if written else BYTES
        values = {"part": str(part)} if partitioned else {}
        stats = {"numRecords": ROWS} if partitioned else {"numRecords": ROWS, **_delta_bounds(part)}
        actions.append(AddAction(path, size, values, 0, True, json.dumps(stats, default=_in_log)))
    table.create_write_transaction(actions, "append", schema, partition_by=by)
    return table


def hudi(folder: Path, count: int, partitioned: bool = False) -> list[Path]:
    """A Hudi table of so many files in one commit, each in a partition of its own; gives where they are. Of their values no
    more is known than the files tell themselves, unless it is said to be partitioned by `part`."""
    schema = _arrow()
    groups = {new_group(part): _rows(part, schema).to_batches() for part in range(count)}
    partitions = {new_group(part): f"part={part}" for part in range(count)}
    return HudiTable(folder, schema, by="part" if partitioned else None).commit(groups, partitions=partitions)


def hudi_unwritten(folder: Path, count: int, parts: int) -> None:
    """A Hudi table of so many files in as many partitions by `part`. They are there, as they have to be, and hold nothing."""
    groups = dict.fromkeys(map(new_group, range(count)), BYTES)
    partitions = {group: f"part={number % parts}" for number, group in enumerate(groups)}
    HudiTable(folder, _arrow(), by="part").commit(groups, partitions=partitions)


def hollowed(file: Path) -> None:
    """Breaks all rows of a Parquet file, and leaves what tells of them: its footer."""
    whole = bytearray(file.read_bytes())
    # The footer is followed by its length and four letters.
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    whole[4:footer] = bytes(footer - 4)
    file.write_bytes(whole)


def keys(part: int) -> range:
    """The values of `key` in a file."""
    return range(part * ROWS, (part + 1) * ROWS)


def file_of(folder: Path, part: int) -> Path:
    """A file of a table of either format that was written here."""
    places = [f"data/{part}.parquet", f"part={part}/rows.parquet", f"{part}.parquet"]
    return next(folder / place for place in places if (folder / place).exists())


def newest(table: Path) -> Path:
    """The file of metadata of an Iceberg table that counts."""
    return max((table / "metadata").glob("*.metadata.json"))


def opened(client: Client, sql: str, what: str = "files_ranges") -> int:
    """How many files of a table a statement opens, by the metrics of its plan; or of how many `row_groups` it reads rows."""
    [plan] = [row["plan"] for row in client.rows(f"explain analyze {sql}") if row["plan_type"] == "physical_plan"]
    counts = re.findall(rf"{what}_pruned_statistics=[^→]+→ (\d+) matched", plan)
    assert counts or "DataSourceExec" not in plan, plan
    return sum(map(int, counts))


def _value(column: str, key: int) -> object:
    return key // ROWS if column == "part" else COLUMNS[column].of(key)


def _arrow() -> pa.Schema:
    return pa.schema([(name, kind.arrow) for name, kind in COLUMNS.items()])


def _rows(part: int, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pydict({name: [_value(name, key) for key in keys(part)] for name in schema.names}, schema=schema)


def _write(path: Path, part: int, schema: pa.Schema) -> int:
    """Writes a file with its rows; gives its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(_rows(part, schema), path)
    return path.stat().st_size


def _iceberg_bounds(part: int) -> dict[str, dict[int, object]]:
    least, most = keys(part)[0], keys(part)[-1]
    columns = [(at, name, kind.iceberg) for at, (name, kind) in enumerate(COLUMNS.items(), 1)]
    return {
        "column_sizes": {at: 100 for at, *_ in columns},
        "value_counts": {at: ROWS for at, *_ in columns},
        "null_value_counts": {at: 0 for at, *_ in columns},
        "lower_bounds": {at: to_bytes(of, _value(name, least)) for at, name, of in columns},
        "upper_bounds": {at: to_bytes(of, _value(name, most)) for at, name, of in columns},
    }


def _delta_bounds(part: int) -> dict[str, dict[str, object]]:
    least, most = ({name: _value(name, key) for name in COLUMNS} for key in (keys(part)[0], keys(part)[-1]))
    return {"minValues": least, "maxValues": most, "nullCount": dict.fromkeys(COLUMNS, 0)}


def _in_log(value: Decimal | date) -> float | str:
    """A bound as Delta's log has it: decimals are numbers, and days are texts."""
    return float(value) if isinstance(value, Decimal) else value.isoformat()
