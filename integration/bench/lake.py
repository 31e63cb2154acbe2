"""Lake tables: whole scans beside those of the same files by themselves, how many files a filter opens, plans over 10,000 files.

Tables of Hudi are made here and not by Spark. Its metadata tells of no values but those of partitions: by any other column each
file is opened for its footer, and what counts is of how many rows are read. DuckDB reads beside, by its extensions for Iceberg
and Delta, which are packages that need no network once they are there (duckdb.txt); it has none for Hudi.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
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
from bench.measure import ROUNDS, SCALE, Scan, by_default, goal, in_process, report_scans, scan, turns
from data import tpch_files
from fetch import wheel_folder
from hudi_writer import HudiTable, new_group
from wire import Client, statement

KINDS = ("iceberg", "delta")
SCANNED = (*KINDS, "hudi")
# Of how many files a filter needs one, over how many a plan is made, and in how many partitions those of Hudi are.
FILTERED, PLANNED, PARTITIONS = 1_000, 10_000, 100
# The packages of DuckDB's extensions by which it reads a kind.
EXTENSIONS = {"iceberg": ["avro", "iceberg"], "delta": ["delta"]}
# How often a statement is asked after the first time.
WARM = 50


def measured(folder: Path) -> list[bool]:
    """Prints tables with medians and the goals; whether each is met."""
    scans, _ = report_scans(scanned(folder / "scanned"))
    print("(DuckDB is 1.5.5, in a process of its own: its extensions for lake tables are not there for a later one)")
    print(f"\n{f'one file of {FILTERED:,} is needed':<30}{'opened':>10}{'p50, ms':>9}")
    filtered = {}
    for name, (opened, seconds) in filters(folder / "filtered").items():
        if opened is not None:
            filtered[name] = opened
        print(f"{name:<30}{'' if opened is None else opened:>10}{seconds * 1000:>9.2f}")
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
        "iceberg": f"iceberg_scan('{table.metadata_location}')",
        "delta": f"delta_scan('file://{delta}')",
    }
    with ExitStack() as stack:
        gateway = stack.enter_context(by_default(folder, lakes(locations) + plain))
        client, process = stack.enter_context(flight.connect(gateway.uri)), psutil.Process(gateway.pid)

        def through(name: str) -> Callable[[], object]:
            return lambda: scan(client, statement(f"select * from {name}"), process)

        contenders = {name: through(table) for name, table in tables.items()}
        for kind, function in functions.items():
            contenders[f"duckdb, {kind}"] = stack.enter_context(duckdb(kind, folder, f"select * from {function}"))
        return turns(contenders)


@contextmanager
def duckdb(kind: str, folder: Path, sql: str) -> Iterator[Callable[[], Scan]]:
    """A statement to DuckDB in a process of its own, with its extensions for a kind; no Parquet file is in the folder itself."""
    packages = wheel_folder("duckdb")
    extensions = (next(packages.glob(f"duckdb_extension_{one}/extensions/*/*")) for one in EXTENSIONS[kind])
    with in_process("duckdb", folder, *extensions, path=packages) as engine:
        yield partial(engine, sql)


def filters(folder: Path) -> dict[str, tuple[int | None, float]]:
    """How many files are opened for a filter that needs one, and the median seconds that it takes. All others of the table are
    removed, so that opening one of them fails; those of Hudi have to be there, and have no rows any more. DuckDB has its turn
    before that, and does not tell what it opens."""
    part = FILTERED // 2
    wanted = many_files.keys(part)
    found = {}
    for kind, make in zip(SCANNED, (many_files.iceberg, many_files.delta, many_files.hudi), strict=True):
        for by, condition in {"partitions": f"part = {part}", "bounds": f"key between {wanted[0]} and {wanted[-1]}"}.items():
            name, table, what = f"{kind}, by {by}", folder / kind / "many", "files_ranges"
            made = make(table, FILTERED, by == "partitions")
            if kind in KINDS:
                function = iceberg_scan(table) if kind == "iceberg" else f"delta_scan('file://{table}')"
                with duckdb(kind, folder, f"select sum(key) as total from {function} where {condition}") as once:
                    found[f"duckdb, {name}"] = None, median(once()[1] for _ in range(WARM))
            for other in set(range(FILTERED)) - {part}:
                if kind == "hudi":
                    many_files.hollowed(made[other])
                else:
                    many_files.file_of(table, other).unlink()
            if (kind, by) == ("hudi", "bounds"):
                name, what = "hudi, by footers: row groups", "row_groups"
            sql = f"select sum(key) as total from {kind}.main.many where {condition}"
            with by_default(folder, lakes({kind: folder / kind})) as gateway:
                with Client(gateway.flight) as client:
                    assert client.rows(sql) == [{"total": sum(wanted)}], name
                    opened = many_files.opened(client, sql, what)
                with flight.connect(gateway.uri) as client:
                    found[name] = opened, median(two_calls(client, statement(sql)) for _ in range(WARM))
            shutil.rmtree(folder / kind)
    return found


def plans(folder: Path) -> dict[str, tuple[float, float]]:
    """Median seconds of the first plan of a gateway that has just started, and of the next ones. Only metadata is there, but
    for Hudi, whose files hold nothing."""
    unwritten = {"count": PLANNED, "partitioned": False, "written": False}
    # By which column each asks.
    makers: dict[str, tuple[str, str, Callable[[Path], object]]] = {
        "iceberg": ("iceberg", "key", lambda place: many_files.iceberg(place, **unwritten)),
        "delta, a commit": ("delta", "key", lambda place: many_files.delta(place, **unwritten)),
        "delta, a checkpoint": ("delta", "key", lambda place: many_files.delta(place, **unwritten).create_checkpoint()),
        "hudi, by partitions": ("hudi", "part", lambda place: many_files.hudi_unwritten(place, PLANNED, PARTITIONS)),
        # The metadata tells nothing of this column: all files are in each plan.
        "hudi, all files": ("hudi", "key", lambda place: many_files.hudi_unwritten(place, PLANNED, PARTITIONS)),
    }
    found = {}
    for name, (kind, column, make) in makers.items():
        make(folder / kind / "many")
        first, again = [], []
        for _ in range(ROUNDS):
            with by_default(folder, lakes({kind: folder / kind})) as gateway, flight.connect(gateway.uri) as client:
                asked = (f"explain select * from {kind}.main.many where {column} = {value}" for value in range(WARM + 1))
                took = [two_calls(client, statement(sql)) for sql in asked]
            first.append(took[0])
            again.append(median(took[1:]))
        found[name] = median(first), median(again)
        shutil.rmtree(folder / kind)
    return found


def iceberg_scan(table: Path) -> str:
    """DuckDB's function over a table, which wants the newest file of metadata."""
    return f"iceberg_scan('{many_files.newest(table)}')"


def lakes(locations: dict[str, Path]) -> str:
    """A configuration with a catalog of each kind, cache off."""
    catalogs = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{location}"\n' for kind, location in locations.items()]
    return '[cache]\nsize = "0"\n' + "".join(catalogs)


def files(name: str, location: Path) -> str:
    """A catalog of files."""
    return f'[catalogs.{name}]\nkind = "files"\nlocation = "{location}"\n'
