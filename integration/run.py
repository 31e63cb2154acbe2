"""`make test`: every part in order, each against its budget in minutes, with a table of what each took at the end."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import logic
import postgres
import s3
import trino_server
from fetch import logic_files, scenarios_client, venv

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CARGO = ["cargo", "test", "--locked", "--no-fail-fast"]
# The test files that are run with replicas too; bound.py says why the others are not.
REPLICATED = """adbc alchemy cli errors files files_written http information_schema jdbc jdbc_tpch lifecycle login postgres
    pyarrow sessions substrait tpch types validation writes"""
# The test files that hold what is read, and no time but by many seconds, so that two processes run them side by side: one has the
# first, which computes most, and the other those that wait for servers and for what ends.
LAKES = ["lake", "iceberg_catalogs lake_catalogs lake_metadata lake_pruning unity"]
# Those that share a Trino server. One of them kills it.
TRINO = "trino trino_dies trino_policy trino_secured trino_tpch trino_translate trino_types"
# The minutes of the whole run: no run takes all that its parts may take.
ALL = 90
# `test result: ok. 12 passed; 0 failed; 1 ignored; …` of cargo, `3 failed, 12 passed, 1 error in 4.2s` of pytest.
COUNT = re.compile(r"(\d+) (passed|failed|error)")
RESULT = re.compile(r"^test result: |^=+ .* in [\d.]+s.*=+$")


@dataclass
class Part:
    """One part of the run. The budgets hold on two cores; that of the build is for a cold one."""

    name: str
    budget: float
    run: Callable[["Part"], bool]
    minutes: float | None = None
    outcome: str = "not run"
    counts: dict[str, int] = field(default_factory=lambda: {"passed": 0, "failed": 0, "error": 0})


def main() -> int:
    """Runs the parts, up to the first that the others need; returns 0 where all went well and in time."""
    parts = [
        Part("fetch", 6, fetch),
        Part("build", 26, lambda part: command(part, "cargo", "build", "--locked", "--workspace")),
        Part("rust", 16, lambda part: command(part, *CARGO, "--workspace")),
        Part("logic", 1.5, suite),
        Part("scenarios", 0.5, scenarios),
        Part("s3", 1, bucket),
        Part("postgres", 0.5, database),
        Part("clients", 30, clients),
        Part("lakes", 15, lakes),
        Part("trino", 12, cluster),
        Part("replicas", 7, replicas),
        Part("docs", 0.5, lambda part: pytest(part, HERE / "test_docs.py")),
        Part("check", 15, lambda part: command(part, "make", "check")),
    ]
    wanted = sys.argv[1:]
    for unknown in set(wanted) - {part.name for part in parts}:
        sys.exit(f'there is no part "{unknown}"; the parts are {", ".join(part.name for part in parts)}')
    for part in parts:
        if wanted and part.name not in wanted:
            continue
        timed(part)
        # Without the fetched and the built nothing after can run; what is wrong with one kind of test hides no other.
        if part.outcome != "ok" and part.name in ("fetch", "build"):
            break
    return report([part for part in parts if not wanted or part.name in wanted])


def timed(part: Part) -> None:
    print(f"\n== {part.name} (budget {part.budget:g} min)", flush=True)
    started = time.monotonic()
    part.outcome = "ok" if part.run(part) else "FAILED"
    part.minutes = (time.monotonic() - started) / 60
    if part.outcome == "ok" and part.minutes > part.budget:
        part.outcome = "OVER BUDGET"


def report(parts: list[Part]) -> int:
    """Prints the table, and one last line in pytest's form with the tests of all parts added up."""
    print(f"\n{'part':<18}{'minutes':>9}{'budget':>9}  outcome")
    for part in parts:
        minutes = f"{part.minutes:.1f}" if part.minutes is not None else "-"
        print(f"{part.name:<18}{minutes:>9}{part.budget:>9g}  {part.outcome}")
    total = sum(part.minutes or 0 for part in parts)
    in_time = total <= ALL
    print(f"{'all':<18}{total:>9.1f}{ALL:>9g}  {'' if in_time else 'OVER BUDGET'}".rstrip())
    counts = {name: sum(part.counts[name] for part in parts) for name in ("failed", "passed", "error")}
    # A part that fails without a test that does (a build, a budget) is an error of its own.
    counts["error"] += sum(part.outcome != "ok" and not (part.counts["failed"] or part.counts["error"]) for part in parts)
    counts["error"] += not in_time
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    print(f"===== {said or 'no tests ran'} in {total * 60:.2f}s =====", flush=True)
    return 0 if in_time and all(part.outcome == "ok" for part in parts) else 1


def command(part: Part, *words: object, **environment: str) -> bool:
    """Runs a command, shows its output as it comes, counts the tests it reports."""
    process = begun(part, *words, output=subprocess.PIPE, **environment)
    assert process.stdout is not None
    show(part, process.stdout)
    return process.wait() == 0


def begun(part: Part, *words: object, output: int | IO[str], **environment: str) -> subprocess.Popen[str]:
    """A command that runs, and where its output goes. What hangs is ended at twice the budget."""
    limited = ["timeout", "--kill-after=10", f"{part.budget * 120:.0f}", *map(str, words)]
    values = {**os.environ, **environment}
    both = {"stdout": output, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    return subprocess.Popen(limited, cwd=REPOSITORY, env=values, **both)


def show(part: Part, output: Iterable[str]) -> None:
    for line in output:
        print(line, end="", flush=True)
        if RESULT.search(line):
            for number, name in COUNT.findall(line):
                part.counts[name] += int(number)


def fetch(part: Part) -> bool:
    return command(part, "cargo", "fetch", "--locked") and command(part, sys.executable, HERE / "fetch.py")


def pytest(part: Part, *words: object, **environment: str) -> bool:
    return command(part, *tests(*words), **environment)


def tests(*words: object) -> list[object]:
    """The command that runs tests, and tells which of them took longest."""
    program = [venv() / "bin" / "python", "-m", "pytest", "-c", HERE / "pyproject.toml"]
    return [*program, "--color=no", "--durations=20", "-m", "not soak", *words]


def files(names: str) -> list[Path]:
    """The test files of these names."""
    return [HERE / f"test_{name}.py" for name in names.split()]


def clients(part: Part) -> bool:
    """All but what is a part of its own."""
    others = [word for file in files(" ".join(["docs", TRINO, *LAKES])) for word in ("--ignore", file)]
    return pytest(part, HERE, *others)


def lakes(part: Part) -> bool:
    """What reads tables of lakes, in two processes side by side; what the second one says is shown when the first has ended."""
    first, second = LAKES
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        beside = begun(part, *tests(*files(second)), output=said)
        is_well = pytest(part, *files(first))
        is_well &= beside.wait() == 0
        said.seek(0)
        show(part, said)
    return is_well


def replicas(part: Part) -> bool:
    """What clients do, with two gateways behind a balancer that sends each call to the next one."""
    return pytest(part, *files(REPLICATED), NEXUS_REPLICAS="2")


def suite(part: Part) -> bool:
    """DataFusion's own SQL tests, over Flight SQL."""
    with tempfile.TemporaryDirectory() as folder, logic.gateways(Path(folder)) as endpoints:
        names = {"ENDPOINTS": ",".join(endpoints), "FOLDER": logic_files()}
        environment = {f"NEXUS_LOGIC_{name}": str(value) for name, value in names.items()}
        return command(part, *CARGO, "--workspace", "--test", "logic", "--", "--ignored", "--nocapture", **environment)


def scenarios(part: Part) -> bool:
    """Arrow's own client for Flight's integration tests."""
    words = [*CARGO, "--workspace", "--test", "scenarios", "--", "--ignored", "--nocapture"]
    return command(part, *words, NEXUS_SCENARIOS_CLIENT=str(scenarios_client()))


def bucket(part: Part) -> bool:
    """The connector's own suite against an S3 server that checks signatures."""
    with tempfile.TemporaryDirectory() as folder, s3.server(Path(folder) / "root") as running:
        (running.root / "conformance").mkdir()
        names = {"ENDPOINT": running.endpoint, "KEY": s3.KEY, "SECRET": s3.SECRET, "BUCKET": "conformance"}
        environment = {f"NEXUS_TEST_S3_{name}": value for name, value in names.items()}
        return command(part, *CARGO, "--workspace", "--test", "connectors", "--", "--ignored", "s3::", **environment)


def database(part: Part) -> bool:
    """The connector's own suite against a PostgreSQL server."""
    with postgres.server() as running:
        environment = {"NEXUS_TEST_POSTGRES_URL": running.url, "NEXUS_TEST_POSTGRES_PASSWORD": postgres.PASSWORD}
        return command(part, *CARGO, "--workspace", "--test", "connectors", "--", "--ignored", "postgres::", **environment)


def cluster(part: Part) -> bool:
    """The engine's own suite against a Trino server that spools nothing, and what clients do with one that spools."""
    with trino_server.server(None) as running:
        words = [*CARGO, "--workspace", "--test", "engines", "--", "--ignored", "trino::"]
        is_well = command(part, *words, NEXUS_TEST_TRINO_URL=running.uri)
    return pytest(part, *files(TRINO)) and is_well


if __name__ == "__main__":
    sys.exit(main())
