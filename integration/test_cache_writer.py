"""A table that is written to all the time behind the gateway's back, whose answers are kept: none is of a version that was gone
for longer than `cache.check`, and none of two versions. `make soak` does it for a minute."""

import json
import multiprocessing
import random
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from pathlib import Path
from statistics import median

import pytest
import requests

from gateway import Gateway, configured, eventually
from lake_writers import ROWS, WAIT, replace_all
from test_caching import get, post

# What `cache.check` is where nobody says, and from one commit to the next, in seconds.
CHECK, EVERY = 1.0, 0.05
READERS = 16
TABLE = "lake.race.versions"
# Each gives one row: the least and the greatest version of all rows, and how many there are. But for the first they scan the
# table more than once.
STATEMENTS = [
    f"select min(version) as least, max(version) as most, count(*) as n from {TABLE}",
    f"""select min(a.version) as least, max(b.version) as most, count(*) as n
        from {TABLE} a join {TABLE} b on a."row" = b."row" """,
    f"""select min(version) as least, max(version) as most, count(*) / 2 as n
        from (select version from {TABLE} union all select version from {TABLE}) as twice""",
    f"""select (select min(version) from {TABLE}) as least, (select max(version) from {TABLE}) as most,
        (select count(*) from {TABLE}) as n""",
]


@dataclass
class Race:
    """The table, and what readers found."""

    # How many versions are committed, and from when on each was there to be seen.
    committed: Synchronized
    times: SynchronizedArray
    lock: threading.Lock = field(default_factory=threading.Lock)
    # The versions of right answers by what the cache did, how many of them were not the newest, and what is wrong.
    found: dict[str, list[int]] = field(default_factory=dict)
    late: int = 0
    wrong: list[str] = field(default_factory=list)

    def newest(self, then: float) -> int:
        """The newest version that was there at a time; -1 where none was."""
        return bisect_right(self.times[: self.committed.value], then) - 1

    def read(self, gateway: Gateway, until: float) -> None:
        """Asks one statement after another and judges the answers."""
        chance = random.Random(threading.get_ident())
        with requests.Session() as session:
            while (began := time.monotonic()) < until and not self.wrong:
                sql = chance.choice(STATEMENTS)
                answer = session.post(f"{gateway.url}/v1/sql", data=sql, timeout=60)
                if error := self.judge(answer, began):
                    self.wrong.append(f"{sql}: {error}")

    def judge(self, answer: requests.Response, began: float) -> str | None:
        """What is wrong with the answer to a statement that was sent then."""
        if answer.status_code != 200:
            return answer.text
        row, how = answer.json(), answer.headers["x-nexus-cache"]
        if row["least"] != row["most"] or row["n"] != ROWS:
            return f"{row} is not of one version"
        # What is made for it is of now; else it may be as late as it says, which is as late as is allowed.
        bound = float(answer.headers["x-nexus-cache-bound"]) / 1000 if how == "hit" else 0.0
        if bound > CHECK:
            return f"it may be {bound} s late"
        least = self.newest(began - bound)
        if row["most"] < least:
            return f"a {how} of version {row['most']}, where {least} was there {bound} s before"
        with self.lock:
            self.found.setdefault(how, []).append(row["most"])
            self.late += row["most"] < self.newest(began)
        return None


@pytest.mark.parametrize(
    "seconds", [pytest.param(5, id="short"), pytest.param(60, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
def test_no_answer_is_older_than_the_check_interval_and_none_of_two_versions(
    seconds: int, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    folder = tmp_path / "lake" / "race" / "versions"
    # Not a copy of this process, whose threads would be missing there.
    processes = multiprocessing.get_context("spawn")
    most = round(seconds / EVERY)
    begin, race = processes.Barrier(2), Race(processes.Value("q", 0), processes.Array("d", most))
    with ExitStack() as ends:
        of = (folder, EVERY, seconds, begin, race.committed, race.times)
        writer = processes.Process(target=replace_all, args=of, daemon=True)
        writer.start()
        ends.callback(writer.kill)
        catalog = f'[catalogs.lake]\nkind = "delta"\nlocation = {json.dumps(str(tmp_path / "lake"))}\n'
        # With the interval that there is where nobody says.
        gateway = ends.enter_context(configured(tmp_path, catalog, replicas=1, check=None))
        pool = ends.enter_context(ThreadPoolExecutor(READERS))
        begin.wait(WAIT)
        assert eventually(lambda: race.committed.value > 0, WAIT)
        until = time.monotonic() + seconds
        for each in [pool.submit(race.read, gateway, until) for _ in range(READERS)]:
            each.result()
        writer.join(WAIT)
        assert writer.exitcode == 0
    times = race.times[: race.committed.value]
    gap = median([after - before for before, after in pairwise(times)] or [seconds])
    counts = {how: len(versions) for how, versions in race.found.items()}
    figure(f"{len(times)} versions, {gap * 1000:.0f} ms apart, answers {counts}, {race.late} of a version before the newest")
    assert not race.wrong, race.wrong[:3]
    # Otherwise nothing was tried: there were commits, answers that were kept, and such as were out of date within the bound.
    assert len(times) >= most / 4
    assert counts["hit"] > counts["miss"] > 0
    assert race.late > 0
    assert len({version for versions in race.found.values() for version in versions}) >= seconds / 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A table `t` of one row, 1."""
    path = tmp_path / "data" / "t.csv"
    path.parent.mkdir()
    path.write_text("n\n1\n")
    return path


def total(gateway: Gateway, **headers: str) -> tuple[str, int]:
    """What the cache had to do with the sum of the rows, and the sum."""
    answer = post(gateway, "select sum(n) as s from t", **headers)
    return answer.headers["x-nexus-cache"], answer.json()["s"]


def served(folder: Path, file: Path, check: str | None) -> Gateway:
    catalog = f'[catalogs.files]\nkind = "files"\nlocation = {json.dumps(str(file.parent))}\nwritable = true\n'
    return configured(folder, catalog, replicas=1, check=check)


def test_a_change_is_seen_within_the_interval(tmp_path: Path, file: Path) -> None:
    with served(tmp_path, file, None) as gateway:
        assert [total(gateway), total(gateway)] == [("miss", 1), ("hit", 1)]
        file.write_text("n\n41\n1\n")
        changed = time.monotonic()
        assert eventually(lambda: total(gateway)[1] == 42, 30)
        # It is looked up by the first who asks after that long.
        assert time.monotonic() - changed < CHECK + 5


def test_what_is_written_through_the_gateway_or_wanted_of_now_is_seen_at_once(tmp_path: Path, file: Path) -> None:
    with served(tmp_path, file, "1h") as gateway:
        assert [total(gateway), total(gateway)] == [("miss", 1), ("hit", 1)]
        file.write_text("n\n2\n3\n")
        assert total(gateway) == ("hit", 1)
        assert total(gateway, cache_control="max-age=0") == ("miss", 5)
        assert total(gateway) == ("hit", 5)
        file.write_text("n\n7\n8\n")
        assert total(gateway) == ("hit", 5)
        written = post(gateway, "create table other as select 1 as one")
        assert written.status_code == 200, written.text
        # Of which other tables a write is seen nobody knows: all of its catalog are looked up again.
        assert total(gateway) == ("miss", 15)


def test_an_answer_says_for_how_long_it_may_be_out_of_date(tmp_path: Path, file: Path) -> None:
    sql = "select sum(n) as s from t"
    with served(tmp_path, file, "1h") as gateway:
        bounds = []
        for _ in range(3):
            rows, head = get(gateway, sql)
            assert rows == [{"s": 1}]
            bounds.append(head.get("x-nexus-cache-bound"))
        told = [bounds[1], bounds[2], post(gateway, sql).headers["x-nexus-cache-bound"]]
        assert bounds[0] is None
        assert 0 < int(told[0]) <= int(told[1]) <= int(told[2]) < 60_000
        explained = post(gateway, f"explain {sql}").text
        assert "hit, out of date by 1h at most" in explained
