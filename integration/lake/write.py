"""`make lakes`: Spark writes the tables of tables.py anew, and says what is in each of their versions.

answers.json has `archive`, the checksum of tables.tar.xz, and of each of the `tables`:
- `catalog`, `schema` and `about`, a line about it;
- `versions`, oldest first, each with its `id`, the `time` of its commit in milliseconds, the number of its `rows`, the `checksum`
  of them and the place `by` of its SQL in `checksums`, where {table} stands for the table; `now` is the same of the table as it
  is;
- `refs`, the versions that have names;
- of Hudi alone `optimized`, the same as `now` of the files without the logs beside them, and `changes`, the same of what came
  into the table after the version `from` and up to the version `to`, as it was then;
- `queries`, each a name, the SQL of the gateway, and the rows that Spark gave, as texts.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# In place of this folder, so that its modules have the names by which the tests have them.
sys.path[0] = str(HERE.parent)

import jdbc  # noqa: E402
from fetch import lake_jars, sha256, spark_home  # noqa: E402
from lakes import ANSWERS, ARCHIVE, FOLDER, folder  # noqa: E402

HOME = spark_home()
sys.path[1:1] = [str(HOME.parent), str(next((HOME.parent / "lib").glob("py4j-*.zip")))]
# The zone is that of this process too, where timestamps become Python's.
os.environ.update(SPARK_HOME=str(HOME), SPARK_LOCAL_IP="127.0.0.1", JAVA_HOME=str(jdbc.homes()["17"]), TZ="UTC")
time.tzset()

from pyspark.sql import DataFrame, SparkSession  # noqa: E402
from pyspark.sql import functions as F  # noqa: E402, N812
from pyspark.sql.types import DataType  # noqa: E402

from lake import hudi  # noqa: E402
from lake.sql import GATEWAY, SPARK, Column, primitives, queries  # noqa: E402
from lake.tables import FORMATS, SMALL_BY_SPARK, Table  # noqa: E402

# Hudi wants the catalog that Delta has too, and another serializer: it has a Spark, and so a process, of its own.
HUDI = "hudi"
TABLES = {kind: (schema, [each.__name__ for each in all_of]) for kind, (schema, all_of) in FORMATS.items()}
TABLES[HUDI] = ("main", [each.__name__ for each in hudi.HISTORIES])
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    # By its bounds of what it keeps in memory Spark leaves out rows with NaN, which it says is the greatest of all.
    "spark.sql.inMemoryColumnarStorage.partitionPruning": "false",
    "spark.sql.warehouse.dir": str(FOLDER / "none"),
    "spark.sql.catalogImplementation": "in-memory",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # The rows are few: what pays off for many only takes time.
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
    **SMALL_BY_SPARK,
}
OF_HUDI = {
    "spark.sql.extensions": "org.apache.spark.sql.hudi.HoodieSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.hudi.catalog.HoodieCatalog",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.kryo.registrator": "org.apache.spark.HoodieSparkKryoRegistrar",
}
OF_THE_OTHERS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension,"
    "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.catalog.iceberg": "org.apache.iceberg.spark.SparkCatalog",
    "spark.sql.catalog.iceberg.type": "hadoop",
    "spark.sql.catalog.iceberg.warehouse": str(FOLDER / "iceberg"),
    # What Equality.java adds would not be seen.
    "spark.sql.catalog.iceberg.cache-enabled": "false",
    # It keeps what was deleted by its values, with the types that these had then.
    "spark.sql.iceberg.executor-cache.enabled": "false",
}
# What a table is joined with, and what that is joined with itself.
BESIDE = {"iceberg": ("ice_plain", "ice_pos"), "delta": ("delta_plain", "delta_dv"), HUDI: ("hudi_cow", "hudi_mor")}


def main() -> int:
    """Writes the tables whose names are the arguments, or all, and what is in them."""
    every = [name for _, names in TABLES.values() for name in names]
    wanted = sys.argv[1:] or every
    if unknown := set(wanted) - set(every):
        sys.exit(f"there is no table {', '.join(sorted(unknown))}; the tables are {', '.join(every)}")
    of_hudi = [name for name in wanted if name in TABLES[HUDI][1]]
    others = [name for name in wanted if name not in of_hudi]
    if not sys.argv[1:]:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
    if of_hudi and others:
        for names in (others, of_hudi):
            subprocess.run([sys.executable, __file__, *names], check=True)
        return 0
    # Tables that stay are to be those of the archive; without the mark all are being written.
    if (FOLDER / "unpacked").exists() or not FOLDER.exists():
        folder()
    jars = [str(jar) for jar in sorted(lake_jars().glob("*.jar")) if jar.name.startswith(HUDI) == bool(of_hudi)]
    builder = SparkSession.builder.master("local[2]").config("spark.jars", ",".join(jars))
    for name, value in (SETTINGS | (OF_HUDI if of_hudi else OF_THE_OTHERS)).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    told = {}
    formats = {HUDI: hudi.HISTORIES} if of_hudi else {kind: histories for kind, (_, histories) in FORMATS.items()}
    for kind, history in [(kind, each) for kind, histories in formats.items() for each in histories]:
        name = history.__name__
        if name not in wanted:
            continue
        started = time.monotonic()
        table = named(spark, kind, name, jars)
        shutil.rmtree(table.folder, ignore_errors=True)
        history(table)
        told[name] = {"catalog": kind, "schema": TABLES[kind][0], "about": history.__doc__, **table.told()}
        print(f"{name}: {len(table.versions)} versions ({time.monotonic() - started:.0f} s)", flush=True)
    for name, tells in told.items():
        started = time.monotonic()
        one, another = BESIDE[tells["catalog"]]
        beside = another if name == one else one
        tells["queries"] = asked(*(named(spark, tells["catalog"], each, jars) for each in (name, beside)))
        print(f"{name}: {len(tells['queries'])} queries ({time.monotonic() - started:.0f} s)", flush=True)
    spark.stop()
    pack()
    told = json.loads(ANSWERS.read_text())["tables"] | told
    told = {name: told[name] for name in every if name in told}
    ANSWERS.write_text(f'{{"archive": "{sha256(ARCHIVE)}", "tables": {{\n{listed(told)}\n}}}}\n')
    print(f"{ARCHIVE.name}: {ARCHIVE.stat().st_size} bytes; {ANSWERS.name}: {ANSWERS.stat().st_size} bytes")
    return 0


def named(spark: SparkSession, kind: str, name: str, jars: list[str]) -> Table:
    """One of the tables, there or not."""
    schema = TABLES[kind][0]
    path = FOLDER / kind / schema / name
    called = {"iceberg": f"iceberg.{schema}.{name}", "delta": f"delta.`{path}`", HUDI: name}[kind]
    classes = os.pathsep.join([*jars, str(HOME / "jars" / "*")])
    java = [str(jdbc.homes()["17"] / "bin" / "java"), "-cp", classes]
    return (hudi.Hudi if kind == HUDI else Table)(spark, kind, called, path, java)


def asked(table: Table, other: Table) -> list[tuple[str, str, list[list[str | None]]]]:
    """The queries of a table as it is, with Spark's rows."""
    frames = [each.frame().cache() for each in (table, other)]
    for frame, view in zip(frames, ("asked", "beside"), strict=True):
        frame.createOrReplaceTempView(view)
    schema = frames[0].schema
    filtered = [] if table.folder.name in hudi.BRIEF else primitives(schema)
    columns = [column(frames[0], path, kind) for path, kind in filtered]
    rows = frames[0].count()
    called, beside = (".".join(each.folder.parts[-3:]) for each in (table, other))
    ours = queries(GATEWAY, schema, columns, called, beside, rows)
    told = []
    for (name, sql), (_, same) in zip(ours, queries(SPARK, schema, columns, "asked", "beside", rows), strict=True):
        told.append((name, sql, [list(row) for row in table.spark.sql(same).collect()]))
    for frame in frames:
        frame.unpersist()
    return told + table.own(called)


def column(frame: DataFrame, path: tuple[str, ...], kind: DataType) -> Column:
    """A column with some of its values."""
    at = F.expr(Column(path, kind, (), False).at(SPARK))
    has_nan = kind.typeName() in ("float", "double") and bool(frame.where(F.isnan(at)).count())
    if kind.typeName() in ("boolean", "binary"):
        return Column(path, kind, (), has_nan)
    seen = frame.select(at.alias("v")).where("v IS NOT NULL").distinct().orderBy("v")
    found = [row[0] for row in (seen.where("NOT isnan(v)") if has_nan else seen).collect()]
    values = tuple(found[len(found) * part // 4] for part in (1, 2, 3)) if found else ()
    return Column(path, kind, values, has_nan)


def listed(told: dict) -> str:
    """The answers about tables as JSON with a line for each thing, so that changes can be read."""

    def line(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    def part(value: object) -> str:
        many = isinstance(value, list) and value
        return "[\n   " + ",\n   ".join(map(line, value)) + "\n  ]" if many else line(value)

    tables = []
    for name, tells in told.items():
        parts = ",\n".join(f"  {line(key)}: {part(value)}" for key, value in tells.items())
        tables.append(f" {line(name)}: {{\n{parts}\n }}")
    return ",\n".join(tables)


def pack() -> None:
    """Makes the archive, with the times of the files: they are those of Delta's commits."""

    def owned_by_none(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(ARCHIVE, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as packed:
        for name in [f"{kind}/{schema}/{name}" for kind, (schema, names) in TABLES.items() for name in names]:
            if (FOLDER / name).exists():
                packed.add(FOLDER / name, name, filter=owned_by_none)


if __name__ == "__main__":
    sys.exit(main())
