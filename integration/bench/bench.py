"""`make bench`: the gateway beside DataFusion in-process, a bare Flight server, DuckDB and Trino's own client, and its lake
tables beside their files, all in one run, taking turns. `PARTS="cached scan"` measures these parts alone."""

import sys
import tempfile
import time
from pathlib import Path

import psutil

# In place of this folder, so that its modules have the names by which the tests have them.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import calls, lake, lookup, queries, scans, starts, trino  # noqa: E402
from bench.audited import costs  # noqa: E402
from bench.frozen import ratio  # noqa: E402
from bench.measure import ROUNDS, SCALE, goal, load  # noqa: E402
from data import tpch_files  # noqa: E402


def main() -> int:
    """Measures the parts that are asked for, or all, and returns 0 where all goals are met."""
    parts = {
        "cached": scans.cached,
        "scan": scans.parquet,
        "calls": calls.single,
        "dashboard": calls.dashboard,
        "tpch": queries.tpch,
        "start": starts.start,
        "lookup": kept,
        "audit": audit,
        "frozen": frozen,
        "lake": lake.measured,
        "trino": trino.measured,
    }
    wanted = sys.argv[1:] or list(parts)
    for unknown in set(wanted) - set(parts):
        sys.exit(f'there is no part "{unknown}"; the parts are {", ".join(parts)}')
    print(f"{psutil.cpu_count()} processors, {ROUNDS} rounds after one to warm up, scale {SCALE}")
    met = []
    for part in wanted:
        print(f"\n== {part}: load {load()} at the start\n", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            met += parts[part](Path(folder))
        print(f"\nload {load()} after {time.monotonic() - started:.0f} s")
    print(f"\n{sum(met)} of {len(met)} goals met")
    return 0 if all(met) else 1


def kept(_: Path) -> list[bool]:
    """Prints what it takes to look an answer up that is kept; whether the goal is met."""
    return [goal("a look-up that hits, 20 nodes, us", lookup.lookup(), "<=", 50)]


def audit(folder: Path) -> list[bool]:
    """Prints what a record of each statement costs; whether the goals are met."""
    return [goal(f"{name} / without", cost, "<=", 1.03) for name, cost in costs(folder, tpch_files(SCALE), ROUNDS).items()]


def frozen(folder: Path) -> list[bool]:
    """Prints how long a small query takes while a database is frozen; whether the goal is met."""
    held, calm = ratio(folder, tpch_files(SCALE), ROUNDS)
    print(f"p95 of a small query {held * 1000:.2f} ms while a database of another catalog is frozen, {calm * 1000:.2f} ms else\n")
    return [goal("p95 while a database is frozen / else", held / calm, "<=", 1.2)]


if __name__ == "__main__":
    sys.exit(main())
