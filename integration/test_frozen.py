"""A database that is frozen, and statements that hang at it, do not slow down statements of other catalogs."""

from pathlib import Path

import pytest

from bench.frozen import ratio

ROUNDS = 7


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_slowest_of_others_are_as_fast_as_ever(tpch: Path, tmp_path: Path) -> None:
    held, calm = ratio(tmp_path, tpch, ROUNDS)
    print(f"p95 {held * 1000:.2f} ms while a database is frozen, {calm * 1000:.2f} ms else: {held / calm:.2f} times")
    assert held <= 1.2 * calm
