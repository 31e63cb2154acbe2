"""The start of a gateway with many catalogs: when it has its first answer, and what it takes of the memory after that."""

import re
import time
from pathlib import Path
from statistics import median

import pyarrow.flight as flight

from bench.frozen import two_calls
from bench.measure import MB, ROUNDS, UNCACHED, by_default, goal, stream
from data import tpch_files
from gateway import Gateway
from wire import statement

CATALOGS = 40
# After that it does nothing by itself any more.
IDLE = 1.0
# Nobody is there, and nobody asks.
DATABASE = 'kind = "postgres"\nurl = "postgres://me@127.0.0.1:9/shop{number}"\npassword = "none"\n'
BUCKET = """kind = "{kind}"
location = "s3://bucket{number}"
endpoint = "http://127.0.0.1:9"
allow_http = true
access_key_id = "none"
secret_access_key = "none"
"""


def start(folder: Path) -> list[bool]:
    """Prints medians; whether the goals are met. The program lies in the memory of the system already when the rounds begin."""
    files = tpch_files("0.01")
    text = UNCACHED.format(folder=files) + "".join(map(_catalog, range(1, CATALOGS)))
    seconds, idle, after = [], [], []
    for number in range(ROUNDS + 1):
        started = time.perf_counter()
        with by_default(folder, text) as gateway, flight.connect(gateway.uri) as client:
            two_calls(client, statement("select count(*) from nation"))
            took = time.perf_counter() - started
            time.sleep(IDLE)
            answered = _memory(gateway)
            assert _catalogs(client) == CATALOGS
        with by_default(folder, text) as gateway:
            time.sleep(IDLE)
            asked_nothing = _memory(gateway)
        if number:
            seconds.append(took)
            idle.append(asked_nothing)
            after.append(answered)
    print(f"{CATALOGS} catalogs, {min(seconds):.3f}-{max(seconds):.3f} s from the start to the first answer")
    print(f"\n{'MB, resident':<42}{'all':>9}{'own':>9}{'program':>9}")
    for what, rounds in {"asked nothing yet": idle, "after the first answer": after}.items():
        print(f"{what:<42}" + "".join(f"{median(column):>9.1f}" for column in zip(*rounds, strict=True)))
    print()
    return [
        goal(f"start to first answer with {CATALOGS} catalogs, s", median(seconds), "<=", 0.15),
        goal("idle, MB", median(rss for rss, _, _ in idle), "<=", 60),
    ]


def _memory(gateway: Gateway) -> tuple[float, float, float]:
    """What is resident in MB: all, what the process has made, and what it has of the files of its program, which the system may
    take back at any time."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|RssAnon|RssFile):\s+(\d+) kB$", status, re.MULTILINE))
    return tuple(int(found[name]) * 1024 / MB for name in ("VmRSS", "RssAnon", "RssFile"))


def _catalog(number: int) -> str:
    """A section of one: of the kinds in turn, all but the first of what is not there."""
    kinds = ("files", "postgres", "iceberg", "delta", "hudi")
    kind = kinds[number % len(kinds)]
    options = DATABASE if kind == "postgres" else BUCKET
    return f"[catalogs.c{number}]\n" + options.format(kind=kind, number=number)


def _catalogs(client: flight.FlightClient) -> int:
    """How many catalogs there are, by the settings that the gateway shows."""
    sql = "select count(*) as n from system.main.settings where key like 'catalogs.%.kind'"
    return stream(client, statement(sql)).read_all().column(0)[0].as_py()
