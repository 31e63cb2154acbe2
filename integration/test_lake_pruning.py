"""A filter opens no file of a lake table but those that it needs: its answer is right where all others are gone."""

from collections.abc import Callable, Iterator

import grpc
import pytest

import many_files
from gateway import configured
from many_files import file_of, keys
from wire import Client

COUNT = 50
# The files that are there.
LEFT = (0, 17, 49)
# Conditions that leave out files by their partitions, or by the bounds of what is in them, and the keys that they leave.
BY_PART: dict[str, list[int]] = {
    "part = 17": [*keys(17)],
    "part in (0, 49)": [*keys(0), *keys(49)],
    "part < 1 or part = 49": [*keys(0), *keys(49)],
    "part between 17 and 17 and key % 2 = 0": [170, 172, 174, 176, 178],
    "part >= 49": [*keys(49)],
    "part is null": [],
    "part = 50": [],
}
BY_BOUNDS: dict[str, list[int]] = BY_PART | {
    "key = 175": [175],
    "key between 170 and 172": [170, 171, 172],
    "key in (3, 498)": [3, 498],
    "column_1 = date '2000-06-24'": [175],
    "column_2 >= cast('4.95' as decimal(15, 2))": [495, 496, 497, 498, 499],
    "column_3 < '000000000003'": [0, 1, 2],
    "key is null": [],
    "key = 500": [],
}
TABLES: dict[str, tuple[Callable[..., object], bool, dict[str, list[int]]]] = {
    "iceberg.main.partitioned": (many_files.iceberg, True, BY_PART),
    "iceberg.main.bounded": (many_files.iceberg, False, BY_BOUNDS),
    "delta.main.partitioned": (many_files.delta, True, BY_PART),
    "delta.main.bounded": (many_files.delta, False, BY_BOUNDS),
}
CASES = [(table, condition, left) for table, (*_, cases) in TABLES.items() for condition, left in cases.items()]

each_table = pytest.mark.parametrize("table", TABLES)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A gateway over tables of which most files were removed."""
    folder = tmp_path_factory.mktemp("pruning")
    for table, (make, partitioned, _) in TABLES.items():
        kind, _, name = table.split(".")
        make(folder / kind / name, COUNT, partitioned)
        for part in set(range(COUNT)) - set(LEFT):
            file_of(folder / kind / name, part).unlink()
    catalogs = [f'[catalogs.{kind}]\nkind = "{kind}"\nlocation = "{folder / kind}"\n' for kind in ("iceberg", "delta")]
    with configured(folder, '[cache]\nsize = "0"\n' + "".join(catalogs)) as gateway, Client(gateway.flight) as opened:
        yield opened


@pytest.mark.parametrize(("table", "condition", "left"), CASES, ids=[f"{table}-{condition}" for table, condition, _ in CASES])
def test_no_other_file_is_opened(table: str, condition: str, left: list[int], client: Client) -> None:
    sql = f"select key from {table} where {condition}"
    assert sorted(row["key"] for row in client.rows(sql)) == left
    assert many_files.opened(client, sql) == len({key // many_files.ROWS for key in left})


@each_table
def test_a_filter_that_needs_another_file_fails(table: str, client: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.rows(f"select key from {table} where part in (16, 17)")
    assert "the table's metadata names this file, and it is not there" in error.value.details()


@each_table
def test_all_rows_are_counted_without_a_file(table: str, client: Client) -> None:
    assert client.rows(f"select count(*) as n from {table}") == [{"n": COUNT * many_files.ROWS}]
