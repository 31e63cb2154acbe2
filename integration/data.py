"""The data of the tests and the benchmark: TPC-H as Parquet, made once for a scale and kept in the cache."""

import shutil
import tempfile
from pathlib import Path

from fetch import CACHE
from gateway import nexus

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]


def tpch_files(scale: str) -> Path:
    """A folder with the eight tables of this scale, a file each."""
    folder = CACHE / "tpch" / f"sf{scale}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            done = nexus("tpch", "--scale-factor", scale, "--output", Path(made) / "data", wait=600)
            if done.returncode:
                raise RuntimeError(done.stderr)
            shutil.move(Path(made) / "data", folder)
    return folder
