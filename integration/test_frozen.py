"""A database that is frozen, and more statements that hang at it than run at once, do not slow down those of other catalogs."""

from pathlib import Path

import pytest

from bench.frozen import ratio


# With nothing else on the machine; else one round, and room for whatever runs beside it: who had no slot would wait for long.
@pytest.mark.parametrize(("rounds", "most"), [(1, 5), pytest.param(7, 1.2, marks=pytest.mark.soak)])
@pytest.mark.timeout(600)
def test_the_slowest_of_others_are_as_fast_as_ever(rounds: int, most: float, tpch: Path, tmp_path: Path) -> None:
    held, calm = ratio(tmp_path, tpch, rounds)
    print(f"p95 {held * 1000:.2f} ms while a database is frozen, {calm * 1000:.2f} ms else: {held / calm:.2f} times")
    assert held <= most * calm
