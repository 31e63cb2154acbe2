"""Whether two answers are the same: exactly, but for numbers that one of the two holds with fewer digits."""

import math
from decimal import Decimal
from pathlib import Path

import duckdb

from data import TABLES

QUERIES = sorted((Path(__file__).parent / "tpch").glob("q*.sql"))


def judge(folder: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB over the files of TPC-H in a folder."""
    connection = duckdb.connect()
    for name in TABLES:
        connection.execute(f"create view {name} as select * from read_parquet('{folder / name}.parquet')")
    return connection


def assert_same(got: list[tuple], expected: list[tuple]) -> None:
    """Fails where two lists of rows differ, naming the first row that does. Order counts: the queries of TPC-H sort
    by keys that leave no ties in this data."""
    assert len(got) == len(expected), f"{len(got)} rows, not {len(expected)}"
    for number, (left, right) in enumerate(zip(got, expected, strict=True)):
        assert len(left) == len(right), f"row {number} has {len(left)} columns, not {len(right)}"
        wrong = [(a, b) for a, b in zip(left, right, strict=True) if not same(a, b)]
        assert not wrong, f"row {number}: {wrong[0][0]!r} in place of {wrong[0][1]!r}\n  got      {left}\n  expected {right}"


def same(left: object, right: object) -> bool:
    """Two values. A decimal beside a float may differ by one in its last digit, since an average of decimals is a float
    in DuckDB and a decimal of six digits here; two floats by the rounding of sums in another order."""
    match left, right:
        case (float(), float()):
            return math.isclose(left, right, rel_tol=1e-9) or (math.isnan(left) and math.isnan(right))
        case (Decimal(), float()) | (float(), Decimal()):
            decimal, number = (left, right) if isinstance(left, Decimal) else (right, left)
            digit = 10.0 ** int(decimal.as_tuple().exponent)
            return math.isclose(decimal, number, rel_tol=1e-9, abs_tol=digit)
        case _:
            return left == right
