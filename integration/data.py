"""The data of the tests and the benchmark: TPC-H as Parquet, made once for a scale and kept in the cache."""

import shutil
import tempfile
from pathlib import Path

from fetch import CACHE
from gateway import nexus

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]

# Of each table the primary key, and the foreign ones with the tables that they refer to.
KEYS: dict[str, tuple[str, dict[str, str]]] = {
    "region": ("r_regionkey", {}),
    "nation": ("n_nationkey", {"n_regionkey": "region"}),
    "supplier": ("s_suppkey", {"s_nationkey": "nation"}),
    "customer": ("c_custkey", {"c_nationkey": "nation"}),
    "part": ("p_partkey", {}),
    "partsupp": ("ps_partkey ps_suppkey", {"ps_partkey": "part", "ps_suppkey": "supplier"}),
    "orders": ("o_orderkey", {"o_custkey": "customer"}),
    "lineitem": ("l_orderkey l_linenumber", {"l_orderkey": "orders", "l_partkey l_suppkey": "partsupp"}),
}


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


def demo_configuration() -> str:
    """The catalogs and keys of the demo as a configuration, over the same tables: the demo itself takes none."""
    text = '[defaults]\ncatalog = "tpch"\n[catalogs.demo]\nkind = "memory"\nwritable = true\n'
    text += f'[catalogs.tpch]\nkind = "files"\nlocation = "{tpch_files("0.01")}"\n'
    for table, (primary, foreign) in KEYS.items():
        listed = ", ".join(
            f'{{ columns = {_texts(columns)}, table = "{other}", referenced = {_texts(KEYS[other][0])} }}'
            for columns, other in foreign.items()
        )
        text += f'[catalogs.tpch.tables.{table}]\npath = "{table}.parquet"\n'
        text += f"primary_key = {_texts(primary)}\nforeign_keys = [{listed}]\n"
    return text


def _texts(columns: str) -> str:
    return str(columns.split()).replace("'", '"')
