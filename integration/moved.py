"""Iceberg's tables that Spark wrote, as objects of a bucket. What they name by an address they name there: in files of metadata,
in lists of manifests and in these, and in deletes. Where a file has other bytes then, what tells how many is right too."""

import json
import shutil
import zlib
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as pq
from pyiceberg.avro.decoder import new_decoder
from pyiceberg.avro.encoder import BinaryEncoder

import lakes

BUCKET = "nexus-lakes"
# Both have as many letters, so that a file keeps its places where only these change.
BEFORE, AFTER = "/tmp/nexus-lakes/", f"s3://{BUCKET}/"
# The fields of records that tell the bytes of the file that the record has named before.
SIZES = ("file_size_in_bytes", "manifest_length")
MAGIC = b"Obj\x01"


def put(root: Path) -> str:
    """Makes the tables objects of a bucket, which is a folder in `root`; gives the address of the folder with all of them."""
    address = _moved(str(lakes.folder() / "iceberg"))
    for file in sorted((lakes.folder() / "iceberg").rglob("*")):
        if file.is_file() and file.suffix != ".crc":
            _file(_moved(str(file)), root).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, _file(_moved(str(file)), root))
    tables = _file(address, root)
    # Each kind after those whose sizes it tells.
    for file in tables.rglob("*-deletes.parquet"):
        _move_positions(file)
    for file in tables.rglob("*.puffin"):
        file.write_bytes(file.read_bytes().replace(BEFORE.encode(), AFTER.encode()))
    for file in sorted(tables.rglob("*.avro"), key=lambda file: file.name.startswith("snap-")):
        file.write_bytes(_move_avro(file.read_bytes(), root))
    for file in tables.rglob("*.metadata.json"):
        file.write_text(file.read_text().replace(BEFORE, AFTER))
    return address


def newest(name: str) -> Path:
    """The file of metadata that tells the state of one of the tables now, where Spark wrote it."""
    files = (lakes.folder() / "iceberg" / "db" / name / "metadata").glob("v*.metadata.json")
    return max(files, key=lambda file: int(file.name[1:].split(".")[0]))


def address_of(file: Path) -> str:
    """Where a file of the tables is in the bucket."""
    return _moved(str(file))


def _moved(address: str) -> str:
    return address.removeprefix("file:").replace(BEFORE, AFTER, 1) if BEFORE in address else address


def _file(address: str, root: Path) -> Path:
    return root / address.removeprefix("s3://")


def _move_positions(file: Path) -> None:
    """Moves what deletes by position name; those by equality name nothing."""
    rows = pq.read_table(file)
    if "file_path" not in rows.column_names:
        return
    at = rows.schema.get_field_index("file_path")
    paths = compute.replace_substring(rows["file_path"].cast(pa.string()), BEFORE, AFTER)
    pq.write_table(rows.set_column(at, rows.schema.field(at), paths), file)


def _move_avro(file: bytes, root: Path) -> bytes:
    """An Avro file with each address of it moved."""
    source, out = new_decoder(file), BytesIO()
    target = BinaryEncoder(out)
    assert source.read(len(MAGIC)) == MAGIC
    target.write(MAGIC)
    header = {}
    while count := source.read_int():
        assert count > 0
        target.write_int(count)
        for _ in range(count):
            name = source.read_utf8()
            header[name] = source.read_bytes()
            target.write_utf8(name)
            target.write_bytes(header[name])
    target.write_int(0)
    marker = source.read(16)
    target.write(marker)
    assert header["avro.codec"] == b"deflate"
    schema = json.loads(header["avro.schema"])
    while source.tell() < len(file):
        count, packed = source.read_int(), source.read_bytes()
        assert source.read(16) == marker
        block = _Moving(zlib.decompress(packed, wbits=-zlib.MAX_WBITS), root)
        for _ in range(count):
            block.value(schema)
        pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        target.write_int(count)
        target.write_bytes(pack.compress(block.out.getvalue()) + pack.flush())
        target.write(marker)
    return out.getvalue()


class _Moving:
    """Values of Avro, copied as their schema says."""

    def __init__(self, block: bytes, root: Path) -> None:
        self.source, self.out, self.root = new_decoder(block), BytesIO(), root
        self.target = BinaryEncoder(self.out)
        # The address that was copied last.
        self.named = ""

    def value(self, schema: object) -> None:
        match schema:
            case list():
                which = self.source.read_int()
                self.target.write_int(which)
                self.value(schema[which])
            case {"type": "record", "fields": fields}:
                for field in fields:
                    self.size() if field["name"] in SIZES else self.value(field["type"])
            case {"type": "array", "items": items}:
                while count := self.source.read_int():
                    # Before a count below zero stand the bytes of the items.
                    if count < 0:
                        self.source.read_int()
                    self.target.write_int(abs(count))
                    for _ in range(abs(count)):
                        self.value(items)
                self.target.write_int(0)
            case {"type": "fixed", "size": size}:
                self.target.write(self.source.read(size))
            case {"type": inner}:
                self.value(inner)
            case "string":
                text = _moved(self.source.read_utf8())
                self.named = text if text.startswith(AFTER) else self.named
                self.target.write_utf8(text)
            case "bytes":
                # Bounds of the addresses in deletes by position.
                value = self.source.read_bytes()
                self.target.write_bytes(_moved(value.decode()).encode() if value.startswith(BEFORE.encode()) else value)
            case "int" | "long":
                self.target.write_int(self.source.read_int())
            case "boolean":
                self.target.write(self.source.read(1))
            case "float" | "double":
                self.target.write(self.source.read(4 if schema == "float" else 8))
            case "null":
                pass
            case _:
                raise NotImplementedError(f"a schema of {schema}")

    def size(self) -> None:
        """The bytes of the file that the record has named."""
        self.source.read_int()
        self.target.write_int(_file(self.named, self.root).stat().st_size)
