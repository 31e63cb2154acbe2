"""`make profile`: where the processor time of the gateway goes on the paths that most bytes and most calls take, as flame graphs
in the documentation. `PARTS=scan` records that path alone."""

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.flight as flight

# In place of this folder, so that its modules have the names by which the tests have them.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import calls, scans  # noqa: E402
from bench.measure import SCALE, UNCACHED, by_default, scan  # noqa: E402
from data import tpch_files  # noqa: E402
from fetch import INFERNO, tool  # noqa: E402
from gateway import REPOSITORY, Gateway  # noqa: E402
from wire import statement  # noqa: E402

GRAPHS = REPOSITORY / "docs" / "src" / "performance"
# How long each path is recorded, and how often a second: not in step with what happens a hundred times a second.
SECONDS, FREQUENCY = 10, 199
# As much of a stack as is kept; deeper ones are cut at their outer end.
STACK = 32 << 10
# The smallest part of all that is drawn, in percent, and how many functions are printed.
SMALLEST, PRINTED = 0.3, 15

Work = Callable[[], object]


def main() -> int:
    """Records the paths that are asked for, or all; returns 1 where what is needed for it is missing."""
    paths = {
        "scan": ("lineitem from Parquet, one stream", UNCACHED, reading),
        "cached": ("lineitem from the cache, one stream", scans.CACHED, reading),
        "dashboard": (f"{calls.ROWS:,} rows from the cache, {calls.CLIENTS} clients", calls.CACHED, looking),
    }
    wanted = sys.argv[1:] or list(paths)
    for unknown in set(wanted) - set(paths):
        sys.exit(f'there is no path "{unknown}"; the paths are {", ".join(paths)}')
    if not shutil.which("perf"):
        print("perf is not on the PATH: install it, for example: apt-get install linux-perf", file=sys.stderr)
        return 1
    GRAPHS.mkdir(exist_ok=True)
    for name in wanted:
        title, text, work = paths[name]
        with tempfile.TemporaryDirectory() as folder:
            with by_default(Path(folder), text.format(folder=tpch_files(SCALE))) as gateway:
                recorded = record(Path(folder) / "perf.data", gateway, work(gateway))
            stacks = folded(recorded)
        graph = GRAPHS / f"{name}.svg"
        graph.write_bytes(drawn(stacks, f"{title}, scale {SCALE}"))
        print(f"\n{title}: {graph.relative_to(REPOSITORY)}\n")
        report(stacks)
    return 0


def reading(gateway: Gateway) -> Work:
    """All of lineitem, again and again."""
    client, process = flight.connect(gateway.uri), psutil.Process(gateway.pid)
    return lambda: scan(client, statement(scans.SQL), process)


def looking(gateway: Gateway) -> Work:
    """What many clients see of a dashboard."""
    process = psutil.Process(gateway.pid)
    return lambda: calls.many(gateway.flight, statement(calls.DASHBOARD), process)


def record(file: Path, gateway: Gateway, work: Work) -> Path:
    """The stacks of the gateway while it works, with what it did once before left out."""
    work()
    how = ["-F", FREQUENCY, "-e", "cpu-clock", "--call-graph", f"dwarf,{STACK}", "-p", gateway.pid, "-o", file]
    command = ["perf", "record", "--quiet", *map(str, how), "--", "sleep", str(SECONDS)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as perf:
        while perf.poll() is None:
            work()
        said = perf.stderr.read()
    if perf.returncode:
        sys.exit(f"perf cannot record the gateway, which takes its rights and a kernel that lets it: {said}")
    return file


def folded(recorded: Path) -> bytes:
    """A line for each stack, with how often it was met."""
    # Without the functions that were inlined: to look them up takes minutes.
    script = subprocess.run(["perf", "script", "--no-inline", "-i", recorded], stdout=subprocess.PIPE, check=True)
    return piped(tool(INFERNO) / "bin" / "inferno-collapse-perf", given=script.stdout)


def drawn(stacks: bytes, title: str) -> bytes:
    """The flame graph of stacks."""
    how = ["--title", title, "--minwidth", SMALLEST, "--deterministic"]
    return piped(tool(INFERNO) / "bin" / "inferno-flamegraph", *how, given=stacks)


def piped(program: Path, *arguments: object, given: bytes) -> bytes:
    return subprocess.run([program, *map(str, arguments)], input=given, stdout=subprocess.PIPE, check=True).stdout


def report(stacks: bytes) -> None:
    """Prints the functions that take most by themselves."""
    own: Counter[str] = Counter()
    for line in stacks.decode(errors="replace").splitlines():
        stack, count = line.rsplit(" ", 1)
        own[stack.rsplit(";", 1)[-1]] += int(count)
    total = own.total()
    for function, count in own.most_common(PRINTED):
        print(f"{count / total:>7.1%}  {function[:110]}")


if __name__ == "__main__":
    sys.exit(main())
