"""Where Iceberg tables are made for tests that write to them: by a catalog of pyiceberg, and in a folder."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from gateway import Gateway, configured


@dataclass
class Place:
    """A gateway over tables that pyiceberg makes: how a table is made and loaded there, and where its files come to be."""

    gateway: Gateway
    catalog: str
    make: Callable[..., None]
    load: Callable[[str], Table]
    files: Path


def section(name: str, **options: object) -> str:
    lines = "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())
    return f'\n[catalogs.{name}]\nkind = "iceberg"\nwritable = true\n{lines}'


def known_to(writer: Catalog) -> tuple[Callable[..., None], Callable[[str], Table]]:
    """How a table is made and loaded by a catalog of pyiceberg."""

    def make(name: str, schema: Schema, spec: PartitionSpec | None = None, version: int = 2, **more: str) -> None:
        properties = {"format-version": str(version), **more}
        writer.create_table(("shop", name), schema, partition_spec=spec or PartitionSpec(), properties=properties)

    writer.create_namespace("shop")
    return make, lambda name: writer.load_table(("shop", name))


def first_metadata(schema: Schema, spec: PartitionSpec | None, location: str, version: int) -> str:
    """The file of metadata of a table without rows."""
    # Pyiceberg writes no file of format 3, in which one of a table without rows has one number more.
    properties = {"format-version": str(min(version, 2))}
    made = new_table_metadata(schema, spec or PartitionSpec(), UNSORTED_SORT_ORDER, location, properties)
    written = json.loads(made.model_dump_json())
    if version == 3:
        written |= {"format-version": 3, "next-row-id": 0}
    return json.dumps(written)


@contextmanager
def in_folder(folder: Path) -> Iterator[Place]:
    """Tables that only a folder holds together."""
    data = folder / "data"
    data.mkdir()

    def make(name: str, schema: Schema, spec: PartitionSpec | None = None, version: int = 2) -> None:
        metadata = data / name / "metadata"
        metadata.mkdir(parents=True)
        (metadata / "v1.metadata.json").write_text(first_metadata(schema, spec, f"file://{data / name}", version))

    def load(name: str) -> Table:
        newest = max((data / name / "metadata").glob("v*.metadata.json"), key=lambda path: int(path.name[1:].split(".")[0]))
        return StaticTable.from_metadata(f"file://{newest}")

    with configured(folder, section("lake", location=str(data))) as gateway:
        yield Place(gateway, "lake.main", make, load, data)
