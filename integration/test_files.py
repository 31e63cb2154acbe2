"""Files as tables: seen without a restart, partitions, patterns, declared schemas, buckets with right and wrong keys."""

import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import s3
from gateway import Gateway, configured
from wire import Client, statement

CATALOG = """
[defaults]
catalog = "lake"

[cache]
size = "64MiB"

[catalogs.lake]
kind = "files"
location = "{data}"

[catalogs.lake.tables.jan]
path = "log-2026-01-*.csv"

[catalogs.lake.tables.declared]
path = "semicolons.txt"
format = "csv"
delimiter = ";"
header = false
columns = [{{ name = "id", type = "BIGINT" }}, {{ name = "price", type = "DECIMAL(10,2)" }}, {{ name = "day", type = "DATE" }}]
primary_key = ["id"]
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """A gateway over a folder of every kind of table."""
    folder = tmp_path_factory.mktemp("lake")
    data = folder / "data"
    data.mkdir()
    for year in (2024, 2025):
        for month in (1, 2):
            part = data / "sales" / f"year={year}" / f"month={month}"
            part.mkdir(parents=True)
            pq.write_table(pa.table({"amount": [year * 100 + month, 1]}), part / "part.parquet")
    for day in (1, 2):
        (data / f"log-2026-01-{day:02}.csv").write_text(f"day,text\n{day},hello\n")
    (data / "log-2026-02-01.csv").write_text("day,text\n32,other month\n")
    (data / "semicolons.txt").write_text("1;10.50;2026-01-01\n2;;\n")
    (data / "events.json").write_text('{"id": 1, "tags": ["a", "b"], "inner": {"x": 1.5}}\n{"id": 2}\n')
    (data / "packed.csv.gz").write_bytes(gzip.compress(b"a,b\n1,x\n2,y\n"))
    with configured(folder, CATALOG.format(data=data)) as gateway, Client(gateway.flight) as client:
        yield client, data


def test_a_new_file_is_seen_by_the_next_statement(lake: tuple[Client, Path]) -> None:
    client, data = lake
    with pytest.raises(grpc.RpcError):
        client.rows("select * from arrived")
    pq.write_table(pa.table({"a": [1, 2, 3]}), data / "arrived.parquet")
    assert client.rows("select sum(a) as v from arrived") == [{"v": 6}]
    pq.write_table(pa.table({"a": [10, 20, 30]}), data / "arrived.parquet")
    assert client.rows("select sum(a) as v from arrived") == [{"v": 60}]


def test_a_new_file_of_a_folder_is_seen_by_the_next_statement(lake: tuple[Client, Path]) -> None:
    client, data = lake
    (data / "parts").mkdir()
    for number in range(3):
        pq.write_table(pa.table({"a": [number]}), data / "parts" / f"{number}.parquet")
        assert client.rows("select count(*) as v from parts") == [{"v": number + 1}]


def test_partitions_are_columns(lake: tuple[Client, Path]) -> None:
    client, _ = lake
    assert client.rows("select year, month, max(amount) as m from sales group by year, month order by 1, 2") == [
        {"year": year, "month": month, "m": year * 100 + month} for year in (2024, 2025) for month in (1, 2)
    ]
    assert client.rows("select count(*) as n from sales where year = 2025 and month = 1") == [{"n": 2}]


def test_a_pattern_takes_the_files_that_match(lake: tuple[Client, Path]) -> None:
    client, _ = lake
    assert client.rows("select count(*) as n, max(day) as d from jan") == [{"n": 2, "d": 2}]


def test_declared_columns(lake: tuple[Client, Path]) -> None:
    client, _ = lake
    rows = client.rows(
        "select cast(id as varchar) as id, cast(price as varchar) as price, day is null as none from declared order by 1"
    )
    assert rows == [{"id": "1", "price": "10.50", "none": False}, {"id": "2", "price": None, "none": True}]


def test_json_and_compressed_files(lake: tuple[Client, Path]) -> None:
    client, _ = lake
    assert client.rows("select id, inner['x'] as x, tags[1] as t from events order by id") == [
        {"id": 1, "x": 1.5, "t": "a"},
        {"id": 2, "x": None, "t": None},
    ]
    assert client.rows("select sum(a) as v from packed") == [{"v": 3}]


def test_a_link_out_of_the_folder_is_refused(lake: tuple[Client, Path]) -> None:
    client, data = lake
    (data.parent / "secret.csv").write_text("password\nhunter2\n")
    (data / "link.csv").symlink_to(data.parent / "secret.csv")
    with pytest.raises(grpc.RpcError) as error:
        client.rows("select * from link")
    assert "hunter2" not in error.value.details()
    (data / "link.csv").unlink()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    """An S3 server with a bucket of Parquet and CSV."""
    root = tmp_path_factory.mktemp("s3") / "root"
    folder = root / "sales" / "2026"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"a": list(range(100_000))}), folder / "numbers.parquet")
    pa.csv.write_csv(pa.table({"name": ["x", "y"]}), folder / "names.csv")
    with s3.server(root) as running:
        yield running


def over(
    bucket: s3.Bucket, folder: Path, key: str = s3.KEY, secret: str = s3.SECRET, name: str = "sales", tables: str = ""
) -> Gateway:
    """A gateway over the bucket, with these keys and declared tables."""
    text = f"""
[defaults]
catalog = "bucket"
[catalogs.bucket]
kind = "files"
location = "s3://{name}/2026"
endpoint = "{bucket.endpoint}"
region = "us-east-1"
access_key_id = "{key}"
secret_access_key = "${{env:BUCKET_SECRET}}"
allow_http = true
{tables}
"""
    return configured(folder, text, environment={"BUCKET_SECRET": secret})


def test_a_bucket_with_the_right_key(bucket: s3.Bucket, tmp_path: Path) -> None:
    with over(bucket, tmp_path) as gateway, Client(gateway.flight) as client:
        assert client.rows("select sum(a) as v from numbers where a >= 99999") == [{"v": 99_999}]
        assert client.rows("select count(*) as v from names") == [{"v": 2}]
        pa.csv.write_csv(pa.table({"late": [7]}), bucket.root / "sales" / "2026" / "late.csv")
        assert client.rows("select late from late") == [{"late": 7}]
        assert s3.SECRET not in gateway.logged()


def test_folders_and_globs_of_a_bucket(bucket: s3.Bucket, tmp_path: Path) -> None:
    here = bucket.root / "sales" / "2026"
    for year in (2024, 2025, 2026):
        for month in ("one", "two"):
            folder = here / "events" / f"year={year}" / month
            folder.mkdir(parents=True)
            pq.write_table(pa.table({"at": [year * 10, year * 10 + 1]}), folder / "part.parquet")
            pa.csv.write_csv(pa.table({"note": [f"{year} {month}"]}), folder / "note.csv")
    (here / "events" / "_SUCCESS").write_bytes(b"")
    globs = {"events": "events/**/*.parquet", "notes": "events/*/two/*.csv"}
    declared = "\n".join(f'[catalogs.bucket.tables.{name}]\npath = "{glob}"' for name, glob in globs.items())
    with over(bucket, tmp_path, tables=declared) as gateway, Client(gateway.flight) as client:
        assert client.rows("select count(*) as n, sum(at) as s, max(year) as y from events where year >= 2025") == [
            {"n": 8, "s": 2 * (20250 + 20251 + 20260 + 20261), "y": 2026}
        ]
        assert client.rows("select note from notes order by note") == [{"note": f"{year} two"} for year in (2024, 2025, 2026)]
        late = here / "events" / "year=2027" / "two"
        late.mkdir(parents=True)
        pa.csv.write_csv(pa.table({"note": ["2027 two"]}), late / "note.csv")
        assert client.rows("select count(*) as n from notes") == [{"n": 4}]


def test_an_object_that_changes_while_it_is_read(bucket: s3.Bucket, tmp_path: Path) -> None:
    large = bucket.root / "sales" / "2026" / "large.parquet"
    many = pa.table({"a": pa.array(range(20_000_000), pa.int64())})
    pq.write_table(many, large, row_group_size=100_000, use_dictionary=False, compression=None)
    with over(bucket, tmp_path) as gateway, Client(gateway.flight) as client:
        [ticket] = client.info(statement("select a from large")).tickets
        stream = client.get(ticket)
        next(stream)
        pq.write_table(pa.table({"a": [-1]}), tmp_path / "other.parquet")
        (tmp_path / "other.parquet").replace(large)
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION, error.value.details()
        assert client.rows("select a from large") == [{"a": -1}]


@pytest.mark.parametrize(
    ("keys", "codes"),
    [
        ({"secret": "not-the-secret"}, (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)),
        ({"key": "AKUNKNOWN"}, (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)),
        ({"name": "no-such-bucket"}, (grpc.StatusCode.NOT_FOUND,)),
    ],
    ids=["secret", "key", "bucket"],
)
def test_a_bucket_that_does_not_open(keys: dict, codes: tuple, bucket: s3.Bucket, tmp_path: Path) -> None:
    with over(bucket, tmp_path, **keys) as gateway, Client(gateway.flight) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.rows("select * from numbers")
        assert error.value.code() in codes, error.value.details()
        for secret in (s3.SECRET, "not-the-secret"):
            assert secret not in error.value.details()
            assert secret not in gateway.logged()
        assert client.rows("select 1 as v") == [{"v": 1}]


def test_a_bucket_that_is_down_does_not_take_the_gateway_with_it(tmp_path: Path) -> None:
    nowhere = s3.Bucket("http://127.0.0.1:9", tmp_path)
    with over(nowhere, tmp_path) as gateway, Client(gateway.flight) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.rows("select * from numbers", timeout=60)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE, error.value.details()
        assert client.rows("select 1 as v") == [{"v": 1}]


def test_nothing_is_cut_from_values_that_the_first_rows_did_not_show(lake: tuple[Client, Path]) -> None:
    client, data = lake
    late = {
        "whole.json": ('{"a": 1}\n', '{"a": 2.9}\n'),
        "nested.json": ('{"a": [{"b": 1}]}\n', '{"a": [{"b": 2.9}]}\n'),
        "days.csv": ("a,b\n" + "2024-01-01,x\n", "2024-01-01 10:30:00,x\n"),
        "seconds.csv": ("a,b\n" + "2024-01-01T00:00:00,x\n", "2024-01-01T00:00:00.75,x\n"),
    }
    for name, (first, last) in late.items():
        rows = first + first.splitlines(keepends=True)[-1] * 30_000
        (data / name).write_text(rows)
        table = name.split(".")[0]
        before = client.rows(f"select count(a) as n from {table}")
        assert before[0]["n"] >= 30_000
        (data / name).write_text(rows + last)
        with pytest.raises(grpc.RpcError) as refused:
            client.rows(f"select a from {table}")
        assert refused.value.code() == grpc.StatusCode.DATA_LOSS
        assert name in refused.value.details()
        assert "which the column holds" in refused.value.details()
        (data / name).unlink()


def test_whole_numbers_of_json_are_exact(lake: tuple[Client, Path]) -> None:
    client, data = lake
    (data / "exact.json").write_text('{"a": 9007199254740993, "b": {"c": -1}}\n{"a": 9223372036854775807}\n')
    assert [row["a"] for row in client.rows("select a from exact")] == [9007199254740993, 9223372036854775807]


def test_an_odd_entry_hides_no_other_file(lake: tuple[Client, Path]) -> None:
    client, data = lake
    odd = data / "odd"
    odd.mkdir()
    left_out = ["empty.csv", "nowhere.csv", "round.csv", "pipe.csv", "here"]
    told = ["bad\tname.csv", os.fsdecode(b"\xff.csv"), "out.csv"]
    for folder in (data, odd):
        (folder / "empty.csv").write_text("")
        (folder / "nowhere.csv").symlink_to(data / "gone")
        (folder / "round.csv").symlink_to("round.csv")
        os.mkfifo(folder / "pipe.csv")
        (folder / "here").symlink_to(".")
        for name in told[:2]:
            (folder / name).write_text("a\n1\n")
        (folder / "out.csv").symlink_to("/etc/hostname")
    (odd / "good.csv").write_text("a\n1\n")
    names = [row["table_name"] for row in client.rows("select table_name from information_schema.tables")]
    assert "jan" in names
    assert not {"empty", "nowhere", "round", "pipe", "out"} & set(names)
    # A table by a pattern has the odd entries beside it, and one of a folder in it: there none may be missing without a word.
    assert client.rows("select count(*) as n from jan") == [{"n": 2}]
    for name in told:
        for other in told:
            (odd / other).rename(odd / f"_{other}") if other != name else None
        with pytest.raises(grpc.RpcError) as refused:
            client.rows("select * from odd")
        assert str(odd) in refused.value.details()
        assert refused.value.code() in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.PERMISSION_DENIED)
        for other in told:
            (odd / f"_{other}").rename(odd / other) if other != name else None
    for name in told:
        (odd / name).unlink()
    assert client.rows("select count(*) as n from odd") == [{"n": 1}]
    for name in [*left_out, *told]:
        (data / name).unlink()
    shutil.rmtree(odd)


def test_two_columns_of_one_name_are_refused(lake: tuple[Client, Path]) -> None:
    client, data = lake
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, data / "twice.parquet")
    (data / "twice_text.csv").write_text("a,a\n1,2\n")
    for table in ("twice", "twice_text"):
        with pytest.raises(grpc.RpcError, match='two columns of this file are named "a"'):
            client.rows(f"select * from {table}")


def test_no_row_is_left_out_for_a_bound_that_leaves_nan_out(lake: tuple[Client, Path]) -> None:
    client, data = lake
    pq.write_table(pa.table({"x": [0.5, float("nan")], "id": [1, 2]}), data / "nan.parquet", write_page_index=True)
    assert client.rows("select id from nan where x > 1") == [{"id": 2}]


def test_patterns_leave_out_no_row_group(lake: tuple[Client, Path]) -> None:
    """A wildcard that stands for itself: the bounds of the row groups are those of the letter, and not of the backslash."""
    client, data = lake
    texts = ["a%b", "a\\b", "a_b", "axb"]
    pq.write_table(pa.table({"s": [text for text in texts for _ in range(10)]}), data / "patterns.parquet", row_group_size=10)
    conditions = {
        r"s like 'a\_%'": 2,
        r"s like 'a\%%'": 0,
        r"s like 'a\\%'": 1,
        "s like 'a|_%' escape '|'": 2,
        "starts_with(s, 'a_')": 2,
        "starts_with(s, 'a%')": 0,
        r"starts_with(s, 'a\')": 1,
        "s like 'ax%'": 3,
    }
    for condition, wanted in conditions.items():
        found = client.rows(f"select distinct s from patterns where {condition}")
        assert found == [{"s": texts[wanted]}], condition


def test_bounds_as_far_apart_as_their_type_allows(lake: tuple[Client, Path]) -> None:
    client, data = lake
    numbers = {"b": pa.array([-(2**63), 42, 2**63 - 1]), "u": pa.array([0, 5, 2**64 - 1], pa.uint64())}
    pq.write_table(pa.table(numbers), data / "wide.parquet")
    for condition, count in [("b = 42", 1), ("b > 0", 2), ("b between 0 and 50", 1), ("u = 5", 1), ("u > 5", 1), ("b < u", 2)]:
        assert client.rows(f"select count(*) as n from wide where {condition}") == [{"n": count}], condition


def test_a_declaration_without_a_path_is_about_the_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "semi.csv").write_text("a;b\n1;2\n")
    catalog = f'[catalogs.lake]\nkind = "files"\nlocation = "{tmp_path}"\n[catalogs.lake.tables.semi]\ndelimiter = ";"\n'
    with configured(tmp_path, catalog) as gateway, Client(gateway.flight) as client:
        assert client.rows("select b from lake.main.semi") == [{"b": 2}]


def test_the_least_and_the_greatest_of_files_that_begin_with_null(tmp_path: Path) -> None:
    """What the first has is taken for no bound, and not for the least of all."""
    folder = tmp_path / "data" / "t"
    folder.mkdir(parents=True)
    # As many as there are groups of three: the first three are read one after the other.
    files = [[None], [50, 200], [10, 190], *([[60, 180]] * (3 * (os.cpu_count() or 1) - 3))]
    for number, values in enumerate(files):
        # Were all bounds known, they would be the answer.
        known = number < 3
        pq.write_table(pa.table({"x": pa.array(values, pa.int64())}), folder / f"{number:03}.parquet", write_statistics=known)
    text = f'[cache]\nsize = "0"\n[catalogs.lake]\nkind = "files"\nlocation = "{tmp_path / "data"}"\n'
    with configured(tmp_path, text) as gateway, Client(gateway.flight) as client:
        sql = "select min(x) as least, max(x) as greatest from lake.main.t"
        assert client.rows(sql) == [{"least": 10, "greatest": 200}]
