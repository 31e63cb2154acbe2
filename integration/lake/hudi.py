"""The Hudi tables that Spark writes, each with its history: copied on write, merged on read, and what else may be in their
folders."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import DataFrame

from lake.tables import WIDE, Table

PLAIN = """id BIGINT, k INT, name STRING, price DECIMAL(12,2), made DATE, ts TIMESTAMP, s STRUCT<a: INT, city: STRING>,
    marks ARRAY<STRUCT<sku: STRING, n: INT>>, seq BIGINT"""
COW, MOR = ({"type": kind, "primaryKey": "id", "preCombineField": "seq"} for kind in ("cow", "mor"))
# Hudi by itself writes lists of Parquet in the old way, in which no element is NULL.
NULLS_IN_LISTS = {"parquet.avro.write-old-list-structure": "false"}
INDEXED = {"hoodie.metadata.enable": "true"}

# What all of them are written with: every version stays, files have few rows, and those of one table are much alike.
SETTINGS = {
    "hoodie.embed.timeline.server": "false",
    "hoodie.metadata.enable": "false",
    "hoodie.clean.automatic": "false",
    "hoodie.archive.automatic": "false",
    # Logs are merged when a history says so, be there ever so few.
    "hoodie.compact.inline": "false",
    "hoodie.compact.inline.max.delta.commits": "1",
    # By markers only a writer that was really killed leaves something to take back.
    "hoodie.rollback.using.markers": "false",
    "hoodie.insert.shuffle.parallelism": "1",
    "hoodie.upsert.shuffle.parallelism": "1",
    "hoodie.delete.shuffle.parallelism": "1",
    "hoodie.bulkinsert.shuffle.parallelism": "1",
    "hoodie.spark.sql.insert.into.operation": "upsert",
    "hoodie.parquet.small.file.limit": "0",
    "hoodie.copyonwrite.insert.auto.split": "false",
    "hoodie.copyonwrite.insert.split.size": "250",
    "hoodie.parquet.block.size": "8192",
    "hoodie.parquet.page.size": "1024",
    "hoodie.parquet.compression.codec": "uncompressed",
    "hoodie.index.bloom.num_entries": "100",
    "hoodie.bloom.index.filter.dynamic.max.entries": "200",
}
# Of the columns that Hudi adds, in words that Spark and the gateway have in common.
OWN_QUERIES = {
    "commits": "SELECT _hoodie_commit_time AS t, CAST(count(*) AS STRING) AS n, CAST(sum(id) AS STRING) AS ids FROM {t} "
    "GROUP BY _hoodie_commit_time ORDER BY t",
    "keys": "SELECT _hoodie_record_key AS key, _hoodie_partition_path AS path FROM {t} ORDER BY id LIMIT 8",
}
QUERY = "hoodie.datasource.query.type"
# A commit that has ended: when it was asked for and, from version 8 of the table on, when it ended.
ENDED = re.compile(r"(\d{17})(?:_(\d{17}))?\.(?:commit|deltacommit|replacecommit)")


@dataclass(frozen=True)
class Hudi(Table):
    """A Hudi table that is being written. What is asked about it is about the columns that it was made with, without Hudi's."""

    def _look(self) -> None:
        """Sums up the table as it is after a statement, which may have been more than one commit, or none."""
        known = {version["id"] for version in self.versions}
        commits = self.ended()
        for number, ended in [each for each in commits if each[0] not in known]:
            time = datetime.strptime(ended, "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
            told = {"id": number, "time": round(time.timestamp() * 1000)}
            # What was planned a while ago has none of the commits since.
            self.versions.append(told | self.summed(self.frame() if number == commits[-1][0] else self.frame(number)))

    def ended(self) -> list[tuple[str, str]]:
        """The commits that have ended, the oldest first: when each was asked for, which is its name, and when it ended."""
        folder = self.folder / ".hoodie"
        timeline = folder / "timeline"
        found = [ENDED.fullmatch(path.name) for path in (timeline if timeline.is_dir() else folder).iterdir()]
        return sorted((each[1], each[2] or each[1]) for each in found if each)

    def read(self, **options: str) -> DataFrame:
        """The table as it is read with options."""
        return self.spark.read.format("hudi").options(**options).load(str(self.folder))

    def frame(self, version: str = "") -> DataFrame:
        return own_columns(self.read(**({"as.of.instant": version} if version else {})))

    def told(self) -> dict:
        """Of the versions only those that Spark still reads as it did: what was cleaned is none."""
        ended = dict(self.ended())
        kept = [version for version in self.versions if version["id"] in ended and self._is_readable(version)]
        kept.sort(key=lambda version: version["id"])
        self.versions[:] = kept
        told = super().told()
        if self.is_merged():
            told["optimized"] = self.summed(own_columns(self.read(**{QUERY: "read_optimized"})))
        # Of rows that have some of their columns in logs alone Spark crashes here.
        ranges = ((0, 2), (1, len(kept) - 1), (-3, -2), (-2, -1)) if self.folder.name != "hudi_mor_partial" else ()
        told["changes"] = [change for low, high in ranges if (change := self._change(kept[low]["id"], kept[high]["id"]))]
        return told

    def _change(self, start: str, end: str) -> dict | None:
        """What came into the table after a version and up to another, or None where that is not the rows of the second that have
        the commits between: of a merged table Spark reads rows too that came too late for any version, of new columns those that
        the second had not, and of partitions the names of their folders."""
        ended = dict(self.ended())
        # From version 8 on commits are told apart by when they ended.
        between = {"begin": ended[start], "end": ended[end]}
        options = {f"hoodie.datasource.read.{name}.instanttime": value for name, value in between.items()}
        change = self.summed(own_columns(self.read(**{QUERY: "incremental"}, **options)))
        meant = self.read(**{"as.of.instant": end}).where(f"_hoodie_commit_time > '{start}' AND _hoodie_commit_time <= '{end}'")
        if change != self.summed(own_columns(meant)):
            print(f"{self.name}: Spark has {change} between {start} and {end}", flush=True)
            return None
        return {"from": start, "to": end, **change}

    def _is_readable(self, version: dict) -> bool:
        seen = {name: version[name] for name in ("rows", "checksum", "by")}
        try:
            again = self.summed(self.frame(version["id"]))
        except Exception as error:
            again = str(error).splitlines()[0]
        if again != seen:
            print(f"{self.name}: {version['id']} was {seen}, is {again}", flush=True)
        return again == seen

    def own(self, called: str) -> list[tuple[str, str, list]]:
        self.read().createOrReplaceTempView("whole")
        told = []
        for name, sql in OWN_QUERIES.items():
            rows = [list(row) for row in self.spark.sql(sql.replace("{t}", "whole")).collect()]
            told.append((name, sql.replace("{t}", called), rows))
        return told

    def is_merged(self) -> bool:
        """Whether it has logs beside its files."""
        return "MERGE_ON_READ" in (self.folder / ".hoodie" / "hoodie.properties").read_text()

    def create(self, properties: dict[str, str], columns: str = WIDE, parted: str = "") -> None:
        """Creates it, and sets what it is written with in place of what the one before was."""
        if "preCombineField" in properties and "seq BIGINT" not in columns:
            columns += ", seq BIGINT"
        conf = self.spark.conf
        for name in [row["key"] for row in self.spark.sql("SET").collect() if row["key"].startswith("hoodie.")]:
            conf.unset(name)
        for name, value in (SETTINGS | properties).items():
            if name.startswith("hoodie."):
                conf.set(name, value)
        hadoop = self.spark.sparkContext._jsc.hadoopConfiguration()
        for name in NULLS_IN_LISTS:
            hadoop.set(name, properties.get(name, "true"))
        listed = ", ".join(f"'{name}' = '{value}'" for name, value in properties.items() if name not in NULLS_IN_LISTS)
        by = f"PARTITIONED BY ({parted})" if parted else ""
        self.spark.sql(f"DROP TABLE IF EXISTS {self.name}")
        self.run(f"CREATE TABLE {{t}} ({columns}) USING hudi {by} LOCATION '{self.folder}' TBLPROPERTIES ({listed})")

    def late(self, low: int, high: int) -> None:
        """Rows that are newer than those that were inserted, and older than those that were merged."""
        self.insert(low, high, salt=50)

    def widened(self, columns: str, low: int, high: int, salt: int = 0) -> None:
        """Upserts rows with other columns than the table has, which takes them for its own."""
        schema = self.spark.createDataFrame([], columns).schema
        options = SETTINGS | {
            "hoodie.table.name": self.name,
            "hoodie.datasource.write.operation": "upsert",
            "hoodie.datasource.write.recordkey.field": "id",
            "hoodie.datasource.write.precombine.field": "seq",
        }
        rows = self.spark.sql(self.rows_of(schema, low, high, salt=salt))
        rows.write.format("hudi").options(**options).mode("append").save(str(self.folder))
        self.run("REFRESH TABLE {t}")

    def compact(self, step: str) -> None:
        """Plans to merge logs into files (`schedule`), or does what was planned (`execute`)."""
        self.run(f"CALL run_compaction(op => '{step}', table => '{{t}}')")

    def unfinish(self) -> None:
        """Makes the newest commit one whose writer was killed before its end: all its files are there."""
        number = self.ended()[-1][0]
        for path in (self.folder / ".hoodie").rglob(f"{number}*"):
            if ENDED.fullmatch(path.name):
                path.unlink()
        self._look()


def own_columns(frame: DataFrame) -> DataFrame:
    """Without the columns that Hudi adds."""
    return frame.drop(*(name for name in frame.columns if name.startswith("_hoodie_")))


def _changed(table: Hudi) -> None:
    """Appends, upserts, updates, deletes, and rows that come late."""
    table.insert(0, 600)
    table.insert(600, 1000)
    table.merge(900, 1100)
    table.run("UPDATE {t} SET k = k + 20 WHERE id % 9 = 0")
    table.delete("id % 6 = 1 AND id < 700")
    table.late(850, 1150)
    table.delete("k = 3 AND id > 400")
    table.insert(2000, 2100)


def hudi_cow(table: Hudi) -> None:
    """Copy on write, with nothing in it first."""
    table.create({**COW, **NULLS_IN_LISTS})
    table.insert(0, 0)
    _changed(table)
    table.run("UPDATE {t} SET `金额` = `金额` + 1, `名称` = '改' WHERE id % 9 = 0")


def hudi_cow_partitioned(table: Hudi) -> None:
    """Partitions by texts and by days, with a list of files in a table beside it."""
    columns = "id BIGINT, k INT, name STRING, price DECIMAL(12,2), seq BIGINT, place STRING, day DATE"
    encoded = {"hoodie.datasource.write.partitionpath.urlencode": "true"}
    table.create({**COW, **INDEXED, **encoded}, columns, "place, day")
    table.insert(0, 120)
    table.insert(120, 200)
    table.delete("place = '50%' AND k < 5")
    table.run("UPDATE {t} SET name = '改' WHERE place = 'a b' AND k = 3")
    table.merge(180, 230)
    table.late(170, 240)


def hudi_cow_evolved(table: Hudi) -> None:
    """Columns and nested fields that come, and types that become wider, as rows with them are written."""
    start = "id BIGINT, k INT, `名称` STRING, f FLOAT, seq BIGINT, s STRUCT<a: INT>, many ARRAY<INT>"
    table.create({**COW, **NULLS_IN_LISTS}, start)
    table.insert(0, 300)
    table.widened(f"{start}, `备注` STRING", 280, 500, 10)
    table.delete("id % 8 = 3")
    wide = start.replace("k INT", "k BIGINT").replace("f FLOAT", "f DOUBLE").replace("<INT>", "<BIGINT>")
    table.widened(f"{wide}, `备注` STRING", 480, 600, 20)
    nested = wide.replace("<a: INT>", "<a: BIGINT, city: STRING>")
    table.widened(f"{nested}, `备注` STRING, price DECIMAL(9,2)", 590, 700, 30)
    table.widened(f"{nested}, `备注` STRING, price DECIMAL(9,2)", 100, 150, 40)


def hudi_mor(table: Hudi) -> None:
    """Merge on read: all that changed is in logs."""
    table.create({**MOR, **NULLS_IN_LISTS})
    _changed(table)
    table.run("UPDATE {t} SET `金额` = `金额` + 1, `名称` = '改' WHERE id % 9 = 0")


def hudi_mor_compacted(table: Hudi) -> None:
    """Logs merged into files, with more logs since, and such as are about to be merged."""
    table.create({**MOR, **INDEXED}, PLAIN)
    table.insert(0, 500)
    table.run("UPDATE {t} SET name = '改' WHERE id % 9 = 0")
    table.compact("schedule")
    table.delete("id % 6 = 1 AND id < 300")
    table.merge(400, 520)
    table.compact("execute")
    table.late(380, 560)
    table.insert(600, 700)
    table.compact("schedule")
    table.run("UPDATE {t} SET price = NULL WHERE k = 4")
    table.delete("k = 5")


def hudi_mor_commit_time(table: Hudi) -> None:
    """The last that was written is what holds, in version 8 of the format."""
    mode = {"hoodie.record.merge.mode": "COMMIT_TIME_ORDERING", "hoodie.write.table.version": "8"}
    table.create({"type": "mor", "primaryKey": "id", **mode}, PLAIN)
    _changed(table)


def hudi_mor_parquet(table: Hudi) -> None:
    """Logs whose blocks are Parquet."""
    table.create({**MOR, "hoodie.logfile.data.block.format": "parquet"}, PLAIN)
    _changed(table)


def hudi_mor_partial(table: Hudi) -> None:
    """Logs that have some of the columns of a row."""
    table.create(MOR, PLAIN)
    table.insert(0, 300)
    into = "MERGE INTO {t} AS a USING (SELECT id, "
    matched = "ON a.id = b.id WHEN MATCHED THEN UPDATE SET"
    source = "CAST(id AS DECIMAL(12,2)) AS price, CAST(200 AS BIGINT) AS seq FROM range(100)"
    table.run(f"{into} {source}) AS b {matched} price = b.price, seq = b.seq")
    source = "'改' AS name, CAST(300 AS BIGINT) AS seq FROM range(50, 200)"
    table.run(f"{into} {source}) AS b {matched} name = b.name, seq = b.seq")
    table.delete("k = 7")
    table.insert(280, 320, salt=400)


def hudi_mor_bucket(table: Hudi) -> None:
    """Rows that were new, and went into logs, since their keys say which file they belong to."""
    index = {"hoodie.index.type": "BUCKET", "hoodie.bucket.index.num.buckets": "4"}
    table.create({**MOR, **index}, PLAIN)
    _changed(table)


def hudi_mor_logs(table: Hudi) -> None:
    """Logs without a file that they belong to, as Flink leaves them."""
    table.create({**MOR, "hoodie.index.type": "INMEMORY"}, PLAIN)
    table.insert(0, 200)
    table.insert(200, 300)
    table.run("UPDATE {t} SET name = '改' WHERE id % 9 = 0")
    table.delete("k = 2")
    table.compact("schedule")
    table.compact("execute")
    table.insert(300, 400)
    table.late(250, 420)


def hudi_keyless(table: Hudi) -> None:
    """Rows without a key of their own, merged on read."""
    operation = {"hoodie.spark.sql.insert.into.operation": "insert"}
    table.create({"type": "mor", **operation}, PLAIN)
    table.insert(0, 300)
    table.insert(300, 400)
    table.run("UPDATE {t} SET name = '改' WHERE id % 9 = 0")
    table.delete("id % 6 = 1")
    table.run("UPDATE {t} SET price = price + 1 WHERE k = 5")


def hudi_clustered(table: Hudi) -> None:
    """Files that others took the place of: sorted anew, written over, and of a partition that was dropped."""
    table.create(COW, "id BIGINT, k INT, `名称` STRING, x DOUBLE, seq BIGINT, area STRING", "area")
    table.insert(0, 200)
    table.insert(200, 400)
    table.insert(400, 600)
    table.run("CALL run_clustering(table => '{t}', order => 'k')")
    table.run("UPDATE {t} SET `名称` = '改' WHERE k = 4")
    table.run("INSERT OVERWRITE {t} PARTITION (area = 'b c') SELECT id, 1, '新', 0.5D, 9 FROM range(1000, 1050, 1, 1)")
    table.run("ALTER TABLE {t} DROP PARTITION (area = 'z')")
    table.insert(600, 700)


def hudi_replaced(table: Hudi) -> None:
    """Merge on read, written over as a whole while it had logs."""
    table.create(MOR, PLAIN)
    table.insert(0, 300)
    table.run("UPDATE {t} SET name = '改' WHERE id % 9 = 0")
    table.delete("k = 2")
    table.run(f"INSERT OVERWRITE {{t}} {table.rows(100, 250, salt=7)}")
    table.run("UPDATE {t} SET price = price + 1 WHERE k = 5")
    table.insert(300, 400)


def hudi_v6(table: Hudi) -> None:
    """The format before version 1 of Hudi, merged on read, with a commit that was taken back."""
    table.create({**MOR, "hoodie.write.table.version": "6"}, PLAIN)
    table.insert(0, 400)
    table.run("UPDATE {t} SET name = '改' WHERE id % 9 = 0")
    table.run("UPDATE {t} SET name = '错', price = 0 WHERE k = 2")
    # The next commit takes it back.
    table.unfinish()
    table.delete("id % 6 = 1 AND id < 300")
    table.compact("schedule")
    table.merge(350, 450)
    table.compact("execute")
    table.late(340, 500)
    table.delete("k = 3")
    table.insert(600, 700)


def hudi_v6_cow(table: Hudi) -> None:
    """The same, copied on write, compressed as Hudi does by itself."""
    table.create({**COW, "hoodie.write.table.version": "6", "hoodie.parquet.compression.codec": "gzip"}, PLAIN)
    _changed(table)


def hudi_archived(table: Hudi) -> None:
    """Most of its commits are in the archive of its timeline, and files that no version needs any more are gone."""
    cleaned = {"hoodie.clean.automatic": "true", "hoodie.clean.commits.retained": "6"}
    archived = {"hoodie.archive.automatic": "true", "hoodie.keep.min.commits": "7", "hoodie.keep.max.commits": "9"}
    table.create({**COW, **INDEXED, **cleaned, **archived}, PLAIN)
    table.insert(0, 100)
    for number in range(14):
        if number % 4 == 3:
            table.delete(f"id % 20 = {number}")
        else:
            table.insert(50 * number + 80, 50 * number + 150, salt=number)


def hudi_unfinished(table: Hudi) -> None:
    """A commit that never ended is not read, neither its files nor its logs."""
    table.create(MOR, PLAIN)
    table.insert(0, 300)
    table.run("UPDATE {t} SET name = '改' WHERE id % 9 = 0")
    table.delete("k = 2")
    table.merge(250, 350)
    table.run("UPDATE {t} SET price = price + 1 WHERE k = 5")
    table.insert(200, 420, salt=900)
    table.unfinish()


# In the order in which they are written.
HISTORIES = [
    hudi_cow,
    hudi_cow_partitioned,
    hudi_cow_evolved,
    hudi_mor,
    hudi_mor_compacted,
    hudi_clustered,
    hudi_v6,
    hudi_v6_cow,
    hudi_mor_commit_time,
    hudi_mor_parquet,
    hudi_mor_partial,
    hudi_mor_bucket,
    hudi_mor_logs,
    hudi_keyless,
    hudi_replaced,
    hudi_archived,
    hudi_unfinished,
]
# What is told of these is which rows are there: filters find nothing in them that they do not in those above.
BRIEF = [history.__name__ for history in HISTORIES[7:]]
