"""Tables that Spark wrote as Iceberg, Delta and Hudi: each version of each has the rows that Spark reads, and queries of every
kind give Spark's answers, by ADBC and by JDBC. Delta's and Hudi's are read in a bucket too; Iceberg's name their files by where
they are."""

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest

import jdbc
import lakes
import s3
from gateway import Gateway, configured, users
from test_policy import refused

TABLES: dict[str, dict] = lakes.answers()["tables"]
CATALOGS = sorted({table["catalog"] for table in TABLES.values()})
VERSIONS = [(name, version) for name, table in TABLES.items() for version in table["versions"]]
CHANGES = [(name, change) for name, table in TABLES.items() for change in table.get("changes", [])]
QUERIES = [(name, *query) for name, table in TABLES.items() for query in table["queries"]]

# Its files are another table's, named by where they are on the machine.
CLONED = "delta_cloned"
IN_BUCKET = ("delta", "hudi")
MOVED = [(name, version) for name, version in VERSIONS if TABLES[name]["catalog"] in IN_BUCKET and name != CLONED]
# Its files and logs are merged, which is not what reads those of other tables.
MERGED = "hudi_mor_commit_time"
# Versions that a time tells, which those of a branch beside the main one are not, nor one of two in one millisecond. Those of
# Hudi are times.
TIMED = [
    (name, version)
    for name, version in VERSIONS
    if TABLES[name]["catalog"] != "hudi"
    and name != "ice_tagged"
    and [other["time"] for other in TABLES[name]["versions"]].count(version["time"]) == 1
]

each_table = pytest.mark.parametrize("name", TABLES)
each_version = pytest.mark.parametrize(
    ("name", "version"), VERSIONS, ids=[f"{name}@{version['id']}" for name, version in VERSIONS]
)
each_moved_version = pytest.mark.parametrize(
    ("name", "version"), MOVED, ids=[f"{name}@{version['id']}" for name, version in MOVED]
)
each_timed_version = pytest.mark.parametrize(
    ("name", "version"), TIMED, ids=[f"{name}@{version['id']}" for name, version in TIMED]
)
each_change = pytest.mark.parametrize(
    ("name", "change"), CHANGES, ids=[f"{name}@{change['from']}..{change['to']}" for name, change in CHANGES]
)
each_merged_query = pytest.mark.parametrize(
    ("sql", "expected"),
    [(sql, expected) for name, _, sql, expected in QUERIES if name == MERGED],
    ids=[query for name, query, *_ in QUERIES if name == MERGED],
)
each_query = pytest.mark.parametrize(
    ("name", "sql", "expected"),
    [(name, sql, expected) for name, _, sql, expected in QUERIES],
    ids=[f"{name}-{query}" for name, query, *_ in QUERIES],
)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    """Delta's tables and Hudi's as objects, each in a bucket of its own."""
    root = tmp_path_factory.mktemp("s3") / "root"
    lakes.put(root)
    with s3.server(root) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(bucket: s3.Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway over the folders and the buckets, cache off."""
    sections = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{lakes.folder() / kind}"\n' for kind in CATALOGS]
    for name, table in TABLES.items():
        if table["catalog"] not in IN_BUCKET:
            continue
        sections.append(f"""
[catalogs.{in_bucket(name)}]
kind = "{table["catalog"]}"
location = "s3://{lakes.bucket_of(name)}/{table["catalog"]}"
endpoint = "{bucket.endpoint}"
region = "us-east-1"
access_key_id = "{s3.KEY}"
secret_access_key = "{s3.SECRET}"
allow_http = true
""")
    optimized = f'kind = "hudi"\nlocation = "{lakes.folder() / "hudi"}"\nread = "read_optimized"\n'
    sections.append(f"[catalogs.optimized]\n{optimized}")
    cleaned = cleaned_up(tmp_path_factory.mktemp("cleaned"))
    sections.append(f'[catalogs.cleaned]\nkind = "delta"\nlocation = "{cleaned}"\n')
    with configured(tmp_path_factory.mktemp("lakes"), '[cache]\nsize = "0"\n' + "".join(sections)) as running:
        yield running


def cleaned_up(folder: Path) -> Path:
    """Puts a table `t` into a folder. Its log begins with the checkpoint of version 10, as where a writer has cleaned up."""
    shutil.copytree(lakes.folder() / "delta" / "main" / "delta_checkpoint", folder / "t")
    for file in (folder / "t" / "_delta_log").glob("0000000000000000000*"):
        file.unlink()
    return folder


def commits(name: str) -> str:
    """What is told of the newest commits of a Hudi table."""
    known = [version["id"] for version in TABLES[name]["versions"]]
    return f"of {len(known)} commits the newest are {', '.join(known[:-6:-1])}"


@pytest.fixture(scope="module")
def by_jdbc(gateway: Gateway) -> dict:
    """What JDBC gives for each statement of these tests, of which each process asks so many that it ends in time."""
    statements = [checksum(name, TABLES[name]["now"]) for name in TABLES] + [sql for _, _, sql, _ in QUERIES]
    statements += [checksum(name, version, f"@{version['id']}") for name, version in VERSIONS]
    answers = {}
    for first in range(0, len(statements), 1_000):
        answers |= jdbc.values(jdbc.probe("query", gateway.flight, *statements[first : first + 1_000]))
    return answers


def checksum(name: str, version: dict, suffix: str = "", catalog: str = "") -> str:
    """The SQL of the checksum of a version; without a suffix the table as it is, without a catalog in that of its folder."""
    table = TABLES[name]
    called = f'{catalog or table["catalog"]}.{table["schema"]}."{name}{suffix}"'
    return table["checksums"][version["by"]].replace("{table}", called)


def in_bucket(name: str) -> str:
    """The catalog that has this table alone, in its bucket."""
    return f"{name}_bucket"


def expected_of(version: dict) -> list[list[str | None]]:
    """What the SQL of the checksum gives."""
    return [[str(version["rows"]), version["checksum"]]]


def answer(cursor: flightsql.Cursor, sql: str) -> list[list[str | None]]:
    cursor.execute(sql)
    return [list(row) for row in cursor.fetchall()]


@each_table
def test_a_table_has_a_history(name: str) -> None:
    versions = TABLES[name]["versions"]
    assert len({(version["rows"], version["checksum"]) for version in versions}) >= 4
    assert len({version["id"] for version in versions}) == len(versions) >= 5


@each_version
def test_adbc_reads_what_spark_reads_of_each_version(name: str, version: dict, cursor: flightsql.Cursor) -> None:
    assert answer(cursor, checksum(name, version, f"@{version['id']}")) == expected_of(version)


@each_moved_version
def test_adbc_reads_what_spark_reads_of_each_version_in_a_bucket(name: str, version: dict, cursor: flightsql.Cursor) -> None:
    assert answer(cursor, checksum(name, version, f"@{version['id']}", in_bucket(name))) == expected_of(version)


@each_timed_version
def test_adbc_reads_what_spark_reads_of_each_time(name: str, version: dict, cursor: flightsql.Cursor) -> None:
    moment = datetime.fromtimestamp(version["time"] / 1000, UTC).isoformat(timespec="milliseconds")
    assert answer(cursor, checksum(name, version, f"@{moment}")) == expected_of(version)


def test_a_clone_in_a_bucket_is_refused(cursor: flightsql.Cursor) -> None:
    with pytest.raises(flightsql.Error, match=f"which is not within s3://{lakes.bucket_of(CLONED)}/delta"):
        cursor.execute(f"select count(*) as n from {in_bucket(CLONED)}.main.{CLONED}")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('delta.main."delta_plain@9999"', "the table has no version 9999; its versions are 0 to 11"),
        (
            'delta.main."delta_plain@2000-01-01"',
            "the table has no version that is as old; its versions are 0 to 11; take one by its number",
        ),
        (
            'delta.main."delta_plain@banana"',
            '"banana" is no version of the table, and no time; write the number of a version, as in "t@7"',
        ),
        (
            'delta.main."delta_plain$snapshots"',
            'nothing about the table "delta_plain" is called "snapshots"; there are "$files" and "$history"',
        ),
        ('cleaned.main."t@3"', "the table has no version 3; its versions are 10 to 17"),
        (
            'delta_plain_bucket.main."delta_plain@9999"',
            "s3://delta-plain/delta/main/delta_plain/_delta_log: the table has no version 9999; its versions are 0 to 11",
        ),
        (
            'hudi.main."hudi_cow@20000101000000000"',
            f"of 20000101000000000 no commit is known; {commits('hudi_cow')}",
        ),
        ('hudi.main."hudi_cow@banana"', f'"banana" is no instant of the table, and no time; {commits("hudi_cow")}'),
        ('hudi.main."hudi_cow@2025..2026"', f'"2026" is no instant of the table, and no time; {commits("hudi_cow")}'),
        (
            'hudi.main."hudi_cow@a..20261130005541857"',
            f'"a" is no instant of the table, and no time; {commits("hudi_cow")}',
        ),
        ('hudi.main."hudi_cow@a.."', f'"" is no instant of the table, and no time; {commits("hudi_cow")}'),
        ('hudi.main."hudi_cow$files"', 'nothing about the table "hudi_cow" is called "files"; there is "$timeline"'),
        (
            'hudi_cow_bucket.main."hudi_cow@20000101000000000"',
            f"s3://hudi-cow/hudi/main/hudi_cow: of 20000101000000000 no commit is known; {commits('hudi_cow')}",
        ),
        (
            'iceberg.db."ice_plain@banana"',
            '"banana" is no snapshot, branch or tag of the table, and no time; of 8 snapshots the newest are 4125194361594183756',
        ),
        (
            'iceberg.db."ice_plain$timeline"',
            'nothing about the table "ice_plain" is called "timeline"; what there is after the $ is "files", "history"',
        ),
        ('delta.main."delta_plan@3"', 'table "delta.main.delta_plan@3" does not exist; did you mean "delta_plain"?'),
        ('hudi.main."hudi_cov@1"', 'table "hudi.main.hudi_cov@1" does not exist; did you mean "hudi_cow"?'),
    ],
)
def test_what_is_not_there_of_a_table_that_is(table: str, told: str, cursor: flightsql.Cursor) -> None:
    with pytest.raises(flightsql.Error) as error:
        cursor.execute(f"select * from {table}")
    assert told in str(error.value)


def test_of_a_table_that_is_denied_nothing_is_told(tmp_path: Path) -> None:
    """Not even that it is there: whoever may not see it is told the same of it as of one that is not."""
    seen = {"delta": "delta_dv", "hudi": "hudi_mor"}
    rules = ['[[rules]]\nusers = ["root"]\ntables = ["*.*.*"]\nallow = ["read"]\n']
    rules += [f'[[rules]]\nusers = ["eve"]\ntables = ["{kind}.main.{name}"]\nallow = ["read"]\n' for kind, name in seen.items()]
    (tmp_path / "policy.toml").write_text("\n".join(rules))
    sections = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{lakes.folder() / kind}"' for kind in seen]
    text = "\n".join([users("root", "eve"), '[policy]\nfile = "policy.toml"', *sections])
    with configured(tmp_path, text) as gateway:
        for kind, table, missing, told in [
            ("delta", "delta_plain", "delta_plait", "the table has no version 9999; its versions are 0 to 11"),
            ("hudi", "hudi_cow", "hudi_cox", f'"9999" is no instant of the table, and no time; {commits("hudi_cow")}'),
        ]:
            assert told in refused(gateway, "root", f'select * from {kind}.main."{table}@9999"')
            for name in (table, missing):
                said = refused(gateway, "eve", f'select * from {kind}.main."{name}@9999"')
                same = f'table "{kind}.main.{name}@9999" does not exist; (there are|did you mean) "{seen[kind]}"'
                assert re.search(same, said), said
                assert told not in said


@each_table
def test_adbc_reads_what_spark_reads_now(name: str, cursor: flightsql.Cursor) -> None:
    assert answer(cursor, checksum(name, TABLES[name]["now"])) == expected_of(TABLES[name]["now"])


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if "optimized" in table])
def test_adbc_reads_what_spark_reads_without_logs(name: str, cursor: flightsql.Cursor) -> None:
    version = TABLES[name]["optimized"]
    assert answer(cursor, checksum(name, version, catalog="optimized")) == expected_of(version)


@each_change
def test_adbc_reads_the_changes_that_spark_reads(name: str, change: dict, cursor: flightsql.Cursor) -> None:
    assert answer(cursor, checksum(name, change, f"@{change['from']}..{change['to']}")) == expected_of(change)


@each_query
def test_adbc_gives_the_answer_of_spark(name: str, sql: str, expected: list, cursor: flightsql.Cursor) -> None:
    assert answer(cursor, sql) == expected, f"{name}: {sql}"


@each_merged_query
def test_adbc_gives_the_answer_of_spark_in_a_bucket(sql: str, expected: list, cursor: flightsql.Cursor) -> None:
    moved = re.sub(r"\bhudi\.main\.(\w+)", lambda found: f"{in_bucket(found[1])}.main.{found[1]}", sql)
    assert in_bucket(MERGED) in moved
    assert "hudi.main." not in moved
    assert answer(cursor, moved) == expected, f"{MERGED}: {moved}"


@each_table
@pytest.mark.timeout(600)
def test_jdbc_reads_what_spark_reads_now(name: str, by_jdbc: dict) -> None:
    assert read(by_jdbc, checksum(name, TABLES[name]["now"])) == expected_of(TABLES[name]["now"])


@each_version
@pytest.mark.timeout(600)
def test_jdbc_reads_what_spark_reads_of_each_version(name: str, version: dict, by_jdbc: dict) -> None:
    assert read(by_jdbc, checksum(name, version, f"@{version['id']}")) == expected_of(version)


@each_query
@pytest.mark.timeout(600)
def test_jdbc_gives_the_answer_of_spark(name: str, sql: str, expected: list, by_jdbc: dict) -> None:
    assert read(by_jdbc, sql) == expected, f"{name}: {sql}"


def read(answers: dict, sql: str) -> list[list[str | None]]:
    listing = answers[sql]
    assert "error" not in listing, listing
    return listing["rows"]
