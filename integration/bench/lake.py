"""Lake tables: whole scans beside those of the same files by themselves, how many files a filter opens, plans over 10,000 files.

Hudi has a part in the scans alone, by a table that is made here and not by Spark.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq
from deltalake import write_deltalake
from pyiceberg.catalog.memory import InMemoryCatalog

import many_files
from bench.frozen import two_calls
from bench.measure import ROUNDS, SCALE, goal, in_process, report_scans, scan, turns
from data import tpch_files
from fetch import wheel_folder
from gateway import configured
from hudi_writer import HudiTable, new_group
from wire import Client, statement

KINDS = ("iceberg", "delta")
SCANNED = (*KINDS, "hudi")
# Of how many files a filter needs one, and over how many a plan is made.
FILTERED, PLANNED = 1_000, 10_000
# How often a statement is asked after the first time.
WARM = 50


def measured(folder: Path) -> list[bool]:
    """Prints tables with medians and the goals; whether each is met."""
    scans = report_scans(scanned(folder / "scanned"))
    print("(DuckDB is 1.5.5, in a process of its own: its extensions for lake tables are not there for a later one)")
    print(f"\n{f'one file of {FILTERED:,} is needed':<30}{'opened':>10}{'p50, ms':>9}")
    filtered = {}
    for name, (opened, seconds) in filters(folder / "filtered").items():
        filtered[name] = opened
        print(f"{name:<30}{opened:>10}{seconds * 1000:>9.2f}")
    print(f"\n{f'a plan over {PLANNED:,} files, ms':<30}{'first':>10}{'p50':>9}")
    planned = plans(folder / "planned")
    for name, (first, again) in planned.items():
        print(f"{name:<30}{first * 1000:>10.2f}{again * 1000:>9.2f}")
    print()
    return [
        *(goal(f"scan of {kind} / of its files", scans[f"files of {kind}"] / scans[kind], "<=", 1.15) for kind in SCANNED),
        *(goal(f"files opened, {name}", opened, "<=", 1) for name, opened in filtered.items()),
        *(goal(f"first plan, {name}, s", first, "<=", 1) for name, (first, _) in planned.items()),
        *(goal(f"plan again, {name}, s", again, "<=", 0.05) for name, (_, again) in planned.items()),
    ]


def scanned(folder: Path) -> dict[str, list]:
    """Scans of lineitem as each kind of table, of the same files without it, and of both by DuckDB."""
    file = pq.ParquetFile(tpch_files(SCALE) / "lineitem.parquet")
    iceberg, delta = (folder / kind / "lineitem" for kind in KINDS)
    catalog = InMemoryCatalog("made")
    catalog.create_namespace("made")
    table = catalog.create_table("made.lineitem", file.schema_arrow, location=f"file://{iceberg}")
    table.append(pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches()))
    delta.mkdir(parents=True)
    write_deltalake(delta, pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches()))
    HudiTable(folder / "hudi" / "lineitem", file.schema_arrow).commit({new_group(): file.iter_batches()})
    locations = {"iceberg": iceberg.parent, "delta": delta.parent, "hudi": folder / "hudi"}
    # The data files of Iceberg are in a folder of the table, and those of Delta are in the table.
    plain = files("iceberg_files", iceberg) + files("delta_files", delta.parent) + files("hudi_files", folder / "hudi")
    tables = {
        "iceberg": "iceberg.main.lineitem",
        "files of iceberg": "iceberg_files.main.data",
        "delta": "delta.main.lineitem",
        "files of delta": "delta_files.main.lineitem",
        "hudi": "hudi.main.lineitem",
        "files of hudi": "hudi_files.main.lineitem",
    }
    functions = {
        "duckdb, iceberg": (f"iceberg_scan('{table.metadata_location}')", ["avro", "iceberg"]),
        "duckdb, delta": (f"delta_scan('file://{delta}')", ["delta"]),
    }
    with ExitStack() as stack:
        gateway = stack.enter_context(configured(folder, lakes(locations) + plain, replicas=1))
        client, process = stack.enter_context(flight.connect(gateway.uri)), psutil.Process(gateway.pid)

        def through(name: str) -> Callable[[], object]:
            return lambda: scan(client, statement(f"select * from {name}"), process)

        contenders = {name: through(table) for name, table in tables.items()}
        packages = wheel_folder("duckdb")
        for name, (function, needed) in functions.items():
            extensions = (next(packages.glob(f"duckdb_extension_{one}/extensions/*/*")) for one in needed)
            contenders[name] = stack.enter_context(in_process("duckdb", function, *extensions, path=packages))
        return turns(contenders)


def filters(folder: Path) -> dict[str, tuple[int, float]]:
    """How many files are opened for a filter that needs one, and the median seconds that it takes. All others of the table are
    removed, so that opening one of them fails."""
    part = FILTERED // 2
    wanted = many_files.keys(part)
    found = {}
    for kind, make in zip(KINDS, (many_files.iceberg, many_files.delta), strict=True):
        for by, condition in {"partitions": f"part = {part}", "bounds": f"key between {wanted[0]} and {wanted[-1]}"}.items():
            name, table = f"{kind}, by {by}", folder / kind / "many"
            make(table, FILTERED, by == "partitions")
            for other in set(range(FILTERED)) - {part}:
                many_files.file_of(table, other).unlink()
            sql = f"select sum(key) as total from {kind}.main.many where {condition}"
            with configured(folder, lakes({kind: folder / kind}), replicas=1) as gateway:
                with Client(gateway.flight) as client:
                    assert client.rows(sql) == [{"total": sum(wanted)}], name
                    opened = many_files.opened(client, sql)
                with flight.connect(gateway.uri) as client:
                    found[name] = opened, median(two_calls(client, statement(sql)) for _ in range(WARM))
            shutil.rmtree(folder / kind)
    return found


def plans(folder: Path) -> dict[str, tuple[float, float]]:
    """Median seconds of the first plan of a gateway that has just started, and of the next ones. Only metadata is there."""
    unwritten = {"count": PLANNED, "partitioned": False, "written": False}
    makers: dict[str, tuple[str, Callable[[Path], object]]] = {
        "iceberg": ("iceberg", lambda place: many_files.iceberg(place, **unwritten)),
        "delta, a commit": ("delta", lambda place: many_files.delta(place, **unwritten)),
        "delta, a checkpoint": ("delta", lambda place: many_files.delta(place, **unwritten).create_checkpoint()),
    }
    found = {}
    for name, (kind, make) in makers.items():
        make(folder / kind / "many")
        first, again = [], []
        for _ in range(ROUNDS):
            with configured(folder, lakes({kind: folder / kind}), replicas=1) as gateway, flight.connect(gateway.uri) as client:
                asked = (f"explain select * from {kind}.main.many where key = {key}" for key in range(WARM + 1))
                took = [two_calls(client, statement(sql)) for sql in asked]
            first.append(took[0])
            again.append(median(took[1:]))
        found[name] = median(first), median(again)
        shutil.rmtree(folder / kind)
    return found


def lakes(locations: dict[str, Path]) -> str:
    """A configuration with a catalog of each kind, cache off."""
    catalogs = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{location}"\n' for kind, location in locations.items()]
    return '[cache]\nsize = "0"\n' + "".join(catalogs)


def files(name: str, location: Path) -> str:
    """A catalog of files."""
    return f'[catalogs.{name}]\nkind = "files"\nlocation = "{location}"\n'
