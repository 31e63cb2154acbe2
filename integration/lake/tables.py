"""The Iceberg and Delta tables that Spark writes, each with its history. Their rows are made of their numbers and of the types of
their columns, so that any schema on the way has rows."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DataType, MapType, StructType

from lake.sql import GATEWAY, SPARK

HERE = Path(__file__).resolve().parent

WIDE = """id BIGINT, k INT, `名称` STRING, `金额` DECIMAL(12,2), x DOUBLE, f FLOAT, ok BOOLEAN, d DATE, ts TIMESTAMP, raw BINARY,
    nothing STRING, s STRUCT<a: INT, `城市`: STRING>, items ARRAY<STRUCT<sku: STRING, n: INT>>, tags MAP<STRING, INT>,
    words ARRAY<STRING>"""
NARROW = "id BIGINT, k INT, `名称` STRING, `金额` DECIMAL(12,2), s STRUCT<a: INT, `城市`: STRING>"

# Groups and pages of few rows, so that a file has many: where a row is deleted is counted across them.
SMALL = {
    "write.parquet.row-group-size-bytes": "8192",
    "write.parquet.row-group-check-min-record-count": "100",
    "write.parquet.row-group-check-max-record-count": "100",
    "write.parquet.page-row-limit": "20",
}
# The same for what Spark's own writer writes.
SMALL_BY_SPARK = {
    "spark.hadoop.parquet.block.size": "8192",
    "spark.hadoop.parquet.page.row.count.limit": "20",
    "spark.hadoop.parquet.page.size.row.check.min": "10",
}
V1, V2, V3 = ({"format-version": version} for version in "123")
ON_READ = {"write.delete.mode": "merge-on-read", "write.update.mode": "merge-on-read", "write.merge.mode": "merge-on-read"}
VECTORS = {"delta.enableDeletionVectors": "true"}

# Of the columns whose values mean something; all others are made by type.
OWN = {
    "id": "id",
    "k": "id % 10",
    "nothing": "NULL",
    "region": "element_at(array('华东', 'a b', '50%', NULL, '', 'x=y/z'), CAST(id % 6 AS INT) + 1)",
    "day": "element_at(array(DATE'2024-02-29', NULL, DATE'1969-12-31'), CAST(id % 3 AS INT) + 1)",
    "at": "timestamp_micros(1709208000000001 - 86400000000 * (id % 3))",
    # Of Hudi, which has one folder for the empty text and NULL: Spark reads NULL there.
    "place": "element_at(array('华东', 'a b', '50%', NULL, '+', 'x=y/z'), CAST(id % 6 AS INT) + 1)",
    "area": "element_at(array('华 北', 'b c', 'z'), CAST(id % 3 AS INT) + 1)",
    "seq": "{salt}",
    "marks": "slice(array(named_struct('sku', '甲', 'n', id), named_struct('sku', '', 'n', {salt})), 1, CAST(id % 3 AS INT))",
}


@dataclass(frozen=True)
class Table:
    """A table that is being written."""

    spark: SparkSession
    # `iceberg`, `delta` or `hudi`; how Spark calls it; and the folder that it is in.
    kind: str
    name: str
    folder: Path
    # A command that runs a Java program beside Iceberg's own writers.
    java: list[str]
    # What is in each version, and the SQL of its checksum; the first refer to the second by their places.
    versions: list[dict] = field(default_factory=list)
    checksums: list[str] = field(default_factory=list)

    def run(self, *statements: str) -> None:
        """Runs statements, in which {t} is the table."""
        for statement in statements:
            self.spark.sql(statement.replace("{t}", self.name))
            self._look()

    def _look(self) -> None:
        """Sums up the versions that are new. Later would be too late: once the type of a column has changed, Spark does not read
        what Iceberg deleted before by its values."""
        if self.kind == "iceberg":
            listed = self.spark.table(f"{self.name}.snapshots").selectExpr("snapshot_id", "unix_millis(committed_at)")
        else:
            listed = self.spark.sql(f"DESCRIBE HISTORY {self.name}").selectExpr("version", "unix_millis(timestamp)")
        known = {version["id"] for version in self.versions}
        for number, time in sorted(listed.collect(), key=lambda row: (row[1], row[0])):
            if str(number) not in known:
                self.versions.append({"id": str(number), "time": time, **self.summed(self.frame(str(number)))})

    def frame(self, version: str = "") -> DataFrame:
        """A version of the table, or the table as it is."""
        return self.spark.sql(f"SELECT * FROM {self.name}" + (f" VERSION AS OF {version}" if version else ""))

    def summed(self, frame: DataFrame) -> dict:
        """How many rows are in something of the table, and their checksum with the place of its SQL."""
        sql = GATEWAY.checksum(frame.schema, "{table}")
        if sql not in self.checksums:
            self.checksums.append(sql)
        frame.createOrReplaceTempView("summed")
        rows, checksum = self.spark.sql(SPARK.checksum(frame.schema, "summed")).first()
        return {"rows": int(rows), "checksum": checksum, "by": self.checksums.index(sql)}

    def told(self) -> dict:
        """What answers.json has of the table beside its queries."""
        told = {"refs": self.refs(), "versions": self.versions, "now": self.summed(self.frame())}
        return told | {"checksums": self.checksums}

    def own(self, called: str) -> list[tuple[str, str, list]]:
        """What is asked of tables of this format alone: names, the SQL of the gateway, which has another name for the table, and
        Spark's rows."""
        return []

    def refs(self) -> dict[str, str]:
        """The versions that have names."""
        if self.kind != "iceberg":
            return {}
        return {row["name"]: str(row["snapshot_id"]) for row in self.spark.table(f"{self.name}.refs").collect()}

    def alter(self, *changes: str) -> None:
        """Changes its columns, its partitions or its properties."""
        self.run(*(f"ALTER TABLE {{t}} {change}" for change in changes))

    def delete(self, *conditions: str) -> None:
        """Deletes rows, in a commit for each condition."""
        self.run(*(f"DELETE FROM {{t}} WHERE {condition}" for condition in conditions))

    def create(self, properties: dict[str, str], columns: str = WIDE, parted: str = "") -> None:
        """Creates it."""
        wanted = {**(SMALL if self.kind == "iceberg" else {}), **properties}
        listed = ", ".join(f"'{name}' = '{value}'" for name, value in wanted.items())
        by = f"PARTITIONED BY ({parted})" if parted else ""
        self.run(f"CREATE TABLE {{t}} ({columns}) USING {self.kind} {by} " + (f"TBLPROPERTIES ({listed})" if listed else ""))

    def rows(self, low: int, high: int, parts: int = 1, salt: int = 0) -> str:
        """A query of rows with the numbers from `low` to before `high`; another salt gives the same numbers other values."""
        return self.rows_of(self.frame().schema, low, high, parts, salt)

    def rows_of(self, schema: StructType, low: int, high: int, parts: int = 1, salt: int = 0) -> str:
        """The same with other columns than those of the table."""
        values = []
        for place, column in enumerate(schema.fields):
            own = OWN.get(column.name, "").replace("{salt}", str(salt))
            kind, number = column.dataType, f"(id * 7 + {salt + place})"
            value = f"CAST({own} AS {kind.simpleString()})" if own else _value(kind, number)
            values.append(f"{value} AS `{column.name}`")
        return f"SELECT {', '.join(values)} FROM range({low}, {high}, 1, {parts})"

    def insert(self, low: int, high: int, parts: int = 1, salt: int = 0, into: str = "{t}") -> None:
        """Appends rows, in so many files."""
        self.run(f"INSERT INTO {into} {self.rows(low, high, parts, salt)}")

    def merge(self, low: int, high: int, salt: int = 100) -> None:
        """Changes the rows of these numbers that there are, each fifth of which is deleted, and adds those that there are not."""
        changes = "WHEN MATCHED AND b.id % 5 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        self.run(f"MERGE INTO {{t}} AS a USING ({self.rows(low, high, 1, salt)}) AS b ON a.id = b.id {changes}")

    def equality(self, columns: str, *rows: str, partition: str = "") -> None:
        """Deletes the rows of an Iceberg table, or of one partition of it, that have these values in these columns."""
        words = [*self.java, HERE / "Equality.java", self.folder, partition, columns, *rows]
        subprocess.run([str(word) for word in words], check=True)
        self._look()


def _value(kind: DataType, n: str) -> str:
    """An expression of a type, made of a number that is not negative."""
    match kind:
        case StructType():
            fields = [f"'{each.name}', {_value(each.dataType, f'({n} + {i + 1})')}" for i, each in enumerate(kind.fields)]
            value = f"named_struct({', '.join(fields)})"
        case ArrayType():
            items = [_value(kind.elementType, f"({n} + {i})") for i in range(1, 4)]
            value = f"slice(array({', '.join(items)}), 1, CAST({n} % 4 AS INT))"
        case MapType():
            values = [_value(kind.valueType, f"({n} + {i})") for i in range(1, 3)]
            many = f"CAST({n} % 3 AS INT)"
            value = f"map_from_arrays(slice(array('a', '键'), 1, {many}), slice(array({', '.join(values)}), 1, {many}))"
        case _:
            value = f"CAST({VALUES[kind.typeName()].replace('{n}', n)} AS {kind.simpleString()})"
    return f"CASE WHEN {n} % 11 <> 0 THEN {value} END"


MICROS = "timestamp_micros(1700000000000000 + {n} % 7 * 43200000000 + {n})"
VALUES = {
    "boolean": "{n} % 2 = 0",
    "byte": "{n} % 100",
    "short": "{n} % 1000",
    "integer": "{n} % 100",
    "long": "{n} * 1000003",
    "decimal": "{n} * 1.25 - 300",
    "float": "CASE WHEN {n} % 17 = 0 THEN double('nan') ELSE {n} * 0.25 - 40 END",
    "double": "{n} * 0.25 - 40",
    "string": "CASE WHEN {n} % 3 = 0 THEN concat('客户', {n} % 100) WHEN {n} % 5 = 0 THEN '' ELSE concat('name ', {n}) END",
    "binary": "unhex(substr(md5(CAST({n} AS STRING)), 1, 6))",
    "date": "date_add(DATE'1969-12-20', CAST({n} % 50 AS INT))",
    "timestamp": MICROS,
    "timestamp_ntz": MICROS,
}


def _changed(table: Table) -> None:
    """Nothing first, then appends, upserts, updates and deletes."""
    table.insert(0, 0)
    table.insert(0, 600, parts=2)
    table.insert(600, 1000)
    table.merge(900, 1100)
    table.run("UPDATE {t} SET `金额` = `金额` + 1, `名称` = '改' WHERE id % 9 = 0")
    table.delete("id % 6 = 1 AND id < 700")
    table.delete("k = 3 AND id > 400")
    table.insert(2000, 2100)


def ice_plain(table: Table) -> None:
    """Copy on write."""
    table.create(V2)
    _changed(table)


def ice_v1(table: Table) -> None:
    """The first version of the format."""
    table.create(V1, NARROW)
    _changed(table)


def ice_pos(table: Table) -> None:
    """Deletes by position: files of them for many data files first, then one for each."""
    table.create({**V2, **ON_READ, "write.delete.granularity": "partition"})
    _changed(table)
    table.alter("SET TBLPROPERTIES ('write.delete.granularity' = 'file')")
    table.delete("id BETWEEN 100 AND 140", "id BETWEEN 120 AND 160 OR id = 2050")


def ice_dv(table: Table) -> None:
    """Deletion vectors, of version 3 of the format, some of them made of older ones."""
    table.create({**V3, **ON_READ})
    _changed(table)
    table.delete("id BETWEEN 100 AND 140", "id BETWEEN 120 AND 160 OR id = 2050")


def ice_upgraded(table: Table) -> None:
    """From version 1 to 2 to 3: files of deletes beside deletion vectors."""
    table.create(V1, NARROW)
    table.insert(0, 500, parts=2)
    table.alter("SET TBLPROPERTIES ('format-version' = '2')")
    table.alter(*(f"SET TBLPROPERTIES ('{name}' = '{value}')" for name, value in ON_READ.items()))
    table.delete("id % 7 = 2")
    table.insert(500, 700)
    table.alter("SET TBLPROPERTIES ('format-version' = '3')")
    table.delete("id % 7 = 3 AND id < 250", "id > 600 AND k = 4")
    table.insert(700, 800)


def ice_eq(table: Table) -> None:
    """Deletes by equality: of NULL keys, of several columns, before and after a key has another type; and by position."""
    table.create({**V2, **ON_READ})
    table.insert(0, 0)
    table.insert(0, 500, parts=2)
    table.equality("k", "3")
    # These stay: they are newer than the delete.
    table.insert(500, 800)
    table.equality("名称", "null", "客户1")
    table.equality("k,ok", "4,null", "5,true", "null,null")
    table.delete("id BETWEEN 40 AND 60")
    table.equality("id", "61", "62", "62", "799", "100000")
    table.alter("ALTER COLUMN s.a TYPE BIGINT", "ALTER COLUMN k TYPE BIGINT")
    table.insert(800, 1000, salt=3)
    table.equality("k", "6", "5000000000")
    table.run("UPDATE {t} SET k = 5000000000 WHERE id % 50 = 8", "UPDATE {t} SET k = NULL WHERE id % 50 = 9")
    table.equality("k", "5000000000", "null")
    table.insert(1000, 1200)


def ice_eq_parts(table: Table) -> None:
    """Deletes by equality that hold in one partition, and such that hold in all, since they are of no partition."""
    table.create({**V2, **ON_READ}, NARROW, "k")
    table.insert(0, 200)
    table.equality("id", "3", "13", "4", "14", partition="3")
    table.equality("名称", "null", "客户1", partition="5")
    table.insert(200, 300)
    table.equality("id", "24", "204", "205", partition="4")
    table.alter("DROP PARTITION FIELD k")
    table.equality("id", "6", "16", "7", "null")
    table.insert(300, 400, salt=3)
    table.equality("名称,k", "null,8", "客户2,null")
    table.insert(400, 450)


def ice_evolved(table: Table) -> None:
    """Columns and nested fields that come, go, move, and change their names and types."""
    table.create({**V2, **ON_READ})
    table.insert(0, 300)
    table.alter("ADD COLUMN `备注` STRING FIRST", "ADD COLUMN price DECIMAL(8,3) AFTER k")
    table.insert(300, 500)
    table.alter("DROP COLUMN x", "RENAME COLUMN `名称` TO title", "DROP COLUMN d")
    table.insert(500, 600)
    table.alter("ADD COLUMN x STRING", "ADD COLUMN d DATE")
    table.delete("id % 8 = 3")
    table.alter("ALTER COLUMN k TYPE BIGINT", "ALTER COLUMN f TYPE DOUBLE")
    table.alter("ALTER COLUMN `金额` TYPE DECIMAL(18,2)", "ALTER COLUMN tags.value TYPE BIGINT")
    table.insert(600, 750)
    table.alter("ADD COLUMN s.zip STRING FIRST", "RENAME COLUMN s.`城市` TO place")
    table.alter("ADD COLUMN items.element.price DECIMAL(9,2)", "RENAME COLUMN items.element.n TO many")
    table.alter("ALTER COLUMN s.a TYPE BIGINT", "ALTER COLUMN ok FIRST")
    table.insert(750, 900)
    # What one column was called, another is called now.
    table.alter("RENAME COLUMN title TO gone", "RENAME COLUMN `备注` TO title")
    table.alter("DROP COLUMN s.a", "ADD COLUMN s.a STRING")
    table.run("UPDATE {t} SET title = '新' WHERE id % 12 = 5")
    table.insert(900, 1000)
    # After the last snapshot: only the table itself has it.
    table.alter("ADD COLUMN late INT", "RENAME COLUMN price TO `价格`")


def ice_spec(table: Table) -> None:
    """Partitions of one kind after another, with deletes of both kinds that stay within them."""
    table.create({**V2, **ON_READ}, parted="days(ts)")
    table.insert(0, 400)
    table.delete("id % 9 = 4")
    table.alter("ADD PARTITION FIELD bucket(4, id)", "DROP PARTITION FIELD days(ts)")
    table.insert(400, 600)
    table.merge(300, 420)
    table.alter("DROP PARTITION FIELD bucket(4, id)")
    table.insert(600, 750)
    table.delete("id % 9 = 5")
    table.alter("ADD PARTITION FIELD truncate(2, `名称`)", "ADD PARTITION FIELD ok")
    table.insert(750, 900)
    table.delete("ok = true AND id > 600 AND k < 4")
    table.run("UPDATE {t} SET d = NULL WHERE k = 8")


def ice_tagged(table: Table) -> None:
    """A branch and a tag beside the main line, which does not go on from the branch."""
    table.create(V2, NARROW)
    table.insert(0, 300)
    table.alter("CREATE TAG `发布`")
    table.delete("k = 2")
    table.alter("CREATE BRANCH audit")
    table.insert(300, 400, into="{t}.branch_audit")
    table.run("DELETE FROM {t}.branch_audit WHERE k = 7")
    table.insert(400, 600, salt=5)
    table.run("UPDATE {t} SET s = NULL WHERE k = 5")
    table.alter("CREATE TAG done")
    table.insert(600, 650)


def ice_migrated(table: Table) -> None:
    """Files without field ids that were there before the table: it finds columns in them by a mapping of names."""
    table.create(V2, NARROW)
    table.insert(0, 100)
    imported = table.folder / "imported"
    table.spark.sql(table.rows(100, 500, 2)).write.parquet(str(imported))
    parts = table.name.split(".", 1)
    table.run(f"CALL {parts[0]}.system.add_files(table => '{parts[1]}', source_table => '`parquet`.`{imported}`')")
    table.alter("RENAME COLUMN `名称` TO title", "ALTER COLUMN k TYPE BIGINT")
    table.insert(500, 600)
    table.delete("id % 10 = 7", "k = 3")


def delta_plain(table: Table) -> None:
    """Copy on write, compacted, and set back to an older version."""
    table.create({})
    _changed(table)
    table.run("OPTIMIZE {t}")
    table.delete("id < 500")
    table.run("RESTORE TABLE {t} TO VERSION AS OF 8")
    table.delete("k = 0")


def delta_dv(table: Table) -> None:
    """Deletion vectors, some of them made of older ones; and timestamps of 8 bytes, where Spark writes 12 for itself."""
    table.spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    table.create(VECTORS)
    _changed(table)
    table.delete("id BETWEEN 100 AND 140", "id BETWEEN 120 AND 160 OR id = 2050")
    table.spark.conf.unset("spark.sql.parquet.outputTimestampType")


def _mapped(table: Table) -> None:
    """Columns and nested fields that come, go, and change their names."""
    table.insert(0, 300)
    table.alter("RENAME COLUMN `名称` TO `名 称, 新`", "DROP COLUMN x")
    table.insert(300, 500)
    table.alter("ADD COLUMN x STRING", "ADD COLUMN s.zip STRING")
    table.delete("id % 8 = 3")
    table.alter("RENAME COLUMN s.`城市` TO place", "RENAME COLUMN items.element.n TO many")
    table.insert(500, 700)
    table.alter("RENAME COLUMN ok TO gone", "RENAME COLUMN x TO ok")
    table.alter("DROP COLUMN s.a", "ADD COLUMN s.a STRING", "ALTER COLUMN d FIRST")
    table.merge(650, 800)
    table.run("UPDATE {t} SET raw = NULL WHERE k = 1")


def delta_name(table: Table) -> None:
    """Columns that files know by names which never change; deletion vectors too."""
    table.create({**VECTORS, "delta.columnMapping.mode": "name"})
    _mapped(table)


def delta_id(table: Table) -> None:
    """Columns that files know by ids."""
    table.create({"delta.columnMapping.mode": "id"})
    _mapped(table)


def delta_named_late(table: Table) -> None:
    """Files from before columns were mapped beside files from after."""
    table.create({}, NARROW)
    table.insert(0, 200)
    versions = "'delta.minReaderVersion' = '2', 'delta.minWriterVersion' = '5'"
    table.alter(f"SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name', {versions})")
    table.alter("RENAME COLUMN `名称` TO title", "DROP COLUMN `金额`")
    table.insert(200, 300)
    table.alter("ADD COLUMN `金额` STRING")
    table.delete("k = 3")
    table.insert(300, 400)


def delta_partitioned(table: Table) -> None:
    """Partitions by texts that have to be written in another way in the names of folders, by days, and by microseconds."""
    table.create({}, "id BIGINT, k INT, region STRING, day DATE, at TIMESTAMP, `名称` STRING, x DOUBLE", "region, day, at")
    table.insert(0, 0)
    table.insert(0, 120)
    table.insert(120, 200)
    table.delete("region = '50%' AND k < 5")
    table.run("UPDATE {t} SET region = '华 北' WHERE region = 'a b' AND k = 3")
    table.merge(180, 230)
    table.delete("day = DATE'1969-12-31' AND k = 4")


def delta_mapped_partitions(table: Table) -> None:
    """A partition column with another name than in the files' folders, and one that took its old name."""
    table.create({"delta.columnMapping.mode": "name"}, "id BIGINT, k INT, region STRING, `名称` STRING", "region")
    table.insert(0, 60)
    table.alter("RENAME COLUMN region TO area", "RENAME COLUMN `名称` TO region")
    table.delete("k = 3")
    table.run("UPDATE {t} SET area = '西' WHERE k = 4")
    table.run("INSERT INTO {t} SELECT id, 1, '北 1', '名' FROM range(100, 120, 1, 1)")


def _many_commits(table: Table, versions: int) -> None:
    for number in range(versions):
        if number % 4 == 3:
            table.delete(f"id % 20 = {number}")
        else:
            table.insert(50 * number, 50 * number + 50)


def delta_checkpoint(table: Table) -> None:
    """Checkpoints of each fifth version, with the last one not the newest."""
    table.create({"delta.checkpointInterval": "5"}, NARROW)
    _many_commits(table, 17)


def delta_v2checkpoint(table: Table) -> None:
    """Checkpoints of the second kind, with files beside them, and deletion vectors in them."""
    table.create({**VECTORS, "delta.checkpointInterval": "5", "delta.checkpointPolicy": "v2"}, NARROW)
    _many_commits(table, 12)


def delta_ntz(table: Table) -> None:
    """Timestamps without a zone."""
    table.create({}, f"{NARROW}, `当地` TIMESTAMP_NTZ, n STRUCT<t: TIMESTAMP_NTZ>")
    _changed(table)


def delta_widened(table: Table) -> None:
    """Columns whose types became wider, and files that have the narrow ones."""
    table.create({"delta.enableTypeWidening": "true"}, f"{NARROW}, tiny TINYINT, small SMALLINT, many ARRAY<SMALLINT>")
    table.insert(0, 300)
    table.alter("ALTER COLUMN tiny TYPE SMALLINT", "ALTER COLUMN small TYPE INT")
    table.insert(300, 400)
    table.delete("k = 3")
    table.alter("ALTER COLUMN tiny TYPE INT")
    table.alter("ALTER COLUMN many.element TYPE INT")
    table.insert(400, 500)
    table.run("UPDATE {t} SET tiny = 1000000 WHERE k = 4")


def delta_cloned(table: Table) -> None:
    """A table whose files are another's, named by where they are on the machine, and then its own too."""
    other = table.name.replace(table.folder.name, "delta_dv")
    table.run(f"CREATE TABLE {{t}} SHALLOW CLONE {other} VERSION AS OF 6")
    table.insert(3000, 3050)
    table.delete("k = 6")
    table.run("UPDATE {t} SET ok = NULL WHERE k = 5")
    table.delete("id > 3040")


# Of each format, the name of the schema in its folder, and its tables in the order in which they are written.
FORMATS: dict[str, tuple[str, list[Callable[[Table], None]]]] = {
    "iceberg": (
        "db",
        [ice_plain, ice_pos, ice_eq, ice_eq_parts, ice_dv, ice_evolved, ice_spec, ice_v1, ice_tagged, ice_upgraded, ice_migrated],
    ),
    "delta": (
        "main",
        [
            delta_plain,
            delta_dv,
            delta_name,
            delta_id,
            delta_named_late,
            delta_partitioned,
            delta_mapped_partitions,
            delta_checkpoint,
            delta_v2checkpoint,
            delta_ntz,
            delta_widened,
            delta_cloned,
        ],
    ),
}
