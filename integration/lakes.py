"""The tables of lakes that Spark wrote, and its answers: unpacked once, to a folder whose name never changes, since tables name
their files by where they were written."""

import fcntl
import json
import shutil
import tarfile
from functools import cache
from pathlib import Path

from fetch import sha256

HERE = Path(__file__).resolve().parent
# Another archive has another number, so that two checkouts on a machine do not take each other's tables.
VERSION = "v1"
FOLDER = Path("/tmp/nexus-lakes") / VERSION
ARCHIVE = HERE / "lake" / "tables.tar.xz"
ANSWERS = HERE / "lake" / "answers.json"


@cache
def answers() -> dict:
    """What Spark answered: `archive`, the checksum of the archive, and `tables`, whose parts lake/write.py describes."""
    return json.loads(ANSWERS.read_text())


def put(root: Path) -> None:
    """Makes each of Delta's and Hudi's tables the objects `KIND/main/TABLE/…` of a bucket of its own, a folder in `root`. They
    are of now, with parts of a second."""
    for kind in ("delta", "hudi"):
        for table in (folder() / kind / "main").iterdir():
            shutil.copytree(table, root / bucket_of(table.name) / kind / "main" / table.name, copy_function=shutil.copyfile)


def bucket_of(table: str) -> str:
    """The bucket that a table is put into: to list a part of one, the server of buckets goes through all that is in it."""
    return table.replace("_", "-")


@cache
def folder() -> Path:
    """Where the tables are: Iceberg's in `iceberg/db`, Delta's in `delta/main`, Hudi's in `hudi/main`. Nothing may write there.
    Fails where the archive is not the one that the answers are about."""
    wanted = answers()["archive"]
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    unpacked = FOLDER / "unpacked"
    with FOLDER.with_suffix(".lock").open("w") as lock:
        # It falls with the file, even where this process is killed.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists() or unpacked.read_text() != wanted:
            if sha256(ARCHIVE) != wanted:
                raise RuntimeError(f"{ARCHIVE.name} has another checksum than answers.json says: run `make lakes`")
            shutil.rmtree(FOLDER, ignore_errors=True)
            with tarfile.open(ARCHIVE) as packed:
                packed.extractall(FOLDER, filter="data")
            unpacked.write_text(wanted)
    return FOLDER
