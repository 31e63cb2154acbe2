"""The audit trail: what each statement leaves in it, that nothing in it can be changed unseen, and what a kill leaves of it."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest
import requests

from bench.audited import costs
from gateway import BINARY, Gateway, configured, nexus
from wire import Client, statement

SOAK = os.environ.get("NEXUS_TPCH_SCALE") == "1"
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
TEXT = f"""
[audit]
folder = "trail"
key = "{KEY}"
rotate = "64KiB"
keep = 100000
[catalogs.frozen]
kind = "memory"
[catalogs.shop]
kind = "memory"
writable = true
[defaults]
catalog = "shop"
"""


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with a trail of its own."""
    with configured(tmp_path, TEXT, replicas=1) as gateway:
        yield gateway


def files(folder: Path) -> list[Path]:
    """The files of a trail, the first first."""
    return sorted((folder / "trail").glob("audit-*.jsonl"))


def records(folder: Path) -> list[dict]:
    """All records of a trail, in order."""
    return [json.loads(line) for file in files(folder) for line in file.read_text().splitlines()]


def asked(gateway: Gateway, sql: str) -> requests.Response:
    """A statement over HTTP."""
    return requests.post(f"{gateway.url}/v1/sql", data=sql.encode(), timeout=30)


def verified(folder: Path, *more: str) -> subprocess.CompletedProcess:
    """What the gateway's own command says of a trail."""
    return nexus("audit", "verify", "--config", folder / "nexus.toml", *more)


def test_each_statement_has_a_start_and_an_end(audited: Gateway, tmp_path: Path) -> None:
    made = "create table goods as select 1 as id, 'tea' as name, 2.5 as price"
    read = "select name from goods where id = 1"
    wrong, denied = "select nothing from goods", "create table frozen.main.x as select 1 as a"
    assert asked(audited, made).status_code == 200
    with flightsql.connect(audited.uri, autocommit=True) as connection, connection.cursor() as cursor:
        for _ in range(2):
            cursor.execute(read)
            assert cursor.fetchall() == [("tea",)]
    for sql in (wrong, denied):
        assert asked(audited, sql).status_code >= 400
    # A reader that goes away.
    with Client(audited.flight) as client:
        endless = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
        stream = client.get(client.info(statement(endless)).tickets[0])
        next(stream)
        stream.cancel()
    deadline = time.monotonic() + 10
    while sum(record["event"] == "end" for record in records(tmp_path)) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    found = records(tmp_path)
    assert [record["index"] for record in found] == list(range(len(found)))
    starts = {record["query"]: record for record in found if record["event"] == "start"}
    ends = {record["query"]: record for record in found if record["event"] == "end"}
    assert starts.keys() == ends.keys()
    assert len(starts) == sum(record["event"] == "start" for record in found) == sum(record["event"] == "end" for record in found)

    def told(sql: str) -> list[dict]:
        return [ends[query] for query, start in starts.items() if start["statement"] == sql]

    [write] = told(made)
    assert (write["outcome"], write["writes"], write["reads"], write["route"]) == (
        "finished",
        "shop.main.goods",
        {},
        "datafusion",
    )
    miss, hit = told(read)
    assert (miss["cache"], miss["route"], hit["cache"], hit["route"]) == ("miss", "datafusion", "hit", "cache")
    assert miss["reads"] == hit["reads"] == {"shop.main.goods": ["id", "name"]}
    assert (miss["rows"], hit["rows"]) == (1, 1)
    assert [end["outcome"] for sql in (wrong, denied, endless) for end in told(sql)] == ["invalid", "denied", "cancelled"]
    assert 'column "nothing" does not exist' in told(wrong)[0]["error"]
    [by_adbc, _] = [start for start in starts.values() if start["statement"] == read]
    assert by_adbc["protocol"] == "flight"
    assert "ADBC" in by_adbc["agent"]
    assert by_adbc["address"].startswith("127.0.0.1:")
    assert verified(tmp_path).stdout.startswith("records 0 to ")


def fill(gateway: Gateway, statements: int) -> None:
    """Runs many small statements, over a few connections."""

    def some(number: int) -> None:
        with requests.Session() as session:
            for turn in range(statements // 4):
                answer = session.post(f"{gateway.url}/v1/sql", data=f"select {number} as a, {turn} as b".encode(), timeout=30)
                assert answer.status_code == 200

    threads = [threading.Thread(target=some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


KINDS = ["byte", "drop", "twice", "swap", "forge", "cut", "file", "rewrite", "empty line", "cut and head", "head"]


def beheaded(folder: Path, dice: random.Random, line: bytes) -> None:
    """Makes the head anew for a last record, in one of the ways that take no key."""
    head, record = folder / "trail" / "head", json.loads(line)
    link = f"{record['index']:020} {record['chain']}".encode()
    tag = head.read_bytes()[len(link) :]
    head.write_bytes(link + dice.choice([b"", tag, b" " + hashlib.sha256(b"head " + link).hexdigest().encode()]))


def tampered(folder: Path, dice: random.Random, kind: str) -> int:
    """Changes a trail in one way; the index of the first record that is wrong by it."""
    found = files(folder)
    file = dice.choice(found)
    lines = file.read_bytes().splitlines(keepends=True)
    first = int(file.stem.removeprefix("audit-"))
    at = dice.randrange(len(lines))
    index = first + at
    last = sum(1 for one in found for _ in one.open("rb")) - 1
    if kind == "byte":
        line = bytearray(lines[at])
        where = dice.randrange(len(line))
        line[where] ^= dice.choice([0x01, 0x20, 0x80])
        lines[at] = bytes(line)
    elif kind == "drop":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
        index += 1
    elif kind == "swap":
        other = dice.randrange(len(lines))
        if other == at:
            return tampered(folder, dice, kind)
        lines[at], lines[other] = lines[other], lines[at]
        index = first + min(at, other)
    elif kind == "forge":
        lines.insert(at, lines[at].replace(b'"principal"', b'"principa1"').replace(b'"event"', b'"evennt"'))
    elif kind in ("cut", "cut and head"):
        if kind == "cut and head":
            if index == 0:
                return tampered(folder, dice, kind)
            before = found[found.index(file) - 1]
            beheaded(folder, dice, lines[at - 1] if at else before.read_bytes().splitlines()[-1])
        lines, found = lines[:at], [one for one in found if one > file]
        for one in found:
            one.unlink()
        if not lines and first:
            file.unlink()
            return index
    elif kind == "file":
        file.unlink()
        return first
    elif kind == "head":
        head = folder / "trail" / "head"
        text = head.read_bytes()
        other = bytearray(text)
        other[dice.randrange(len(text))] ^= dice.choice([0x01, 0x20, 0x80])
        head.write_bytes(dice.choice([bytes(other), text[:-1], text + b"\n"]))
        index = last + 1
    elif kind == "rewrite":
        record = json.loads(lines[at])
        record["at"] = "2001-01-01T00:00:00.000000Z"
        lines[at] = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    else:
        lines.insert(at, b"\n")
    file.write_bytes(b"".join(lines))
    return min(index, last + 1)


@pytest.mark.timeout(1800 if SOAK else 120)
def test_what_is_changed_is_found_and_named(tmp_path: Path) -> None:
    statements, changes = (50_000, 1_000) if SOAK else (600, 60)
    with configured(tmp_path, TEXT.replace("64KiB", "4MiB" if SOAK else "64KiB"), replicas=1) as gateway:
        fill(gateway, statements)
    whole = verified(tmp_path)
    assert whole.returncode == 0, whole.stderr
    last, head = whole.stdout.splitlines()[1].split()
    assert int(last) >= 2 * statements
    dice = random.Random(7)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "nexus.toml", copy)
    for turn in range(changes):
        shutil.rmtree(copy / "trail", ignore_errors=True)
        shutil.copytree(tmp_path / "trail", copy / "trail")
        kind = KINDS[turn % len(KINDS)]
        index = tampered(copy, dice, kind)
        done = verified(copy)
        assert done.returncode == 1, f"{turn}: {kind} at {index} was not found: {done.stdout}"
        assert f"record {index} is" in done.stderr, f"{turn}: {kind} at {index}: {done.stderr}"
    # What is cut off together with the head is missed by who knows an earlier one.
    assert verified(tmp_path, "--known", last, head).returncode == 0
    assert verified(tmp_path, "--known", str(int(last) + 1), head).returncode == 1
    assert verified(tmp_path, "--known", last, "0" * 64).returncode == 1
    # What a kill leaves in the midst of a record is told, and is none.
    with files(tmp_path)[-1].open("ab") as file:
        file.write(b'{"index":')
    torn = verified(tmp_path, "--known", last, head)
    assert torn.returncode == 0, torn.stderr
    assert torn.stdout.splitlines()[1:] == [
        f"{last} {head}",
        "9 bytes after them are no whole record: it is being written, or was when the process ended",
    ]


@pytest.mark.timeout(1800 if SOAK else 120)
def test_a_kill_leaves_a_whole_trail(tmp_path: Path) -> None:
    for turn in range(50 if SOAK else 5):
        with_config = configured(tmp_path, TEXT, replicas=1)
        threads = [threading.Thread(target=until_killed, args=(with_config, turn, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2 + turn % 5 * 0.03)
        with_config.process.kill()
        with_config.process.wait()
        for thread in threads:
            thread.join()
        done = verified(tmp_path)
        assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    events = Counter((record["query"], record["event"]) for record in found if record["event"] != "opened")
    assert set(events.values()) == {1}
    assert {query for query, event in events if event == "end"} <= {query for query, event in events if event == "start"}
    answered = {line for file in tmp_path.glob("answered-*") for line in file.read_text().split()}
    started = {record["query"] for record in found if record["event"] == "start"}
    assert answered
    assert answered <= started


def until_killed(gateway: Gateway, turn: int, number: int) -> None:
    """Sends statements until nobody answers, and notes the ids of those that were."""
    file = gateway.log.parent / f"answered-{turn}-{number}"
    with requests.Session() as session, file.open("w") as answered:
        while True:
            try:
                answer = session.post(f"{gateway.url}/v1/sql", data=b"select 1", timeout=10)
            except requests.RequestException:
                return
            answered.write(answer.headers["x-nexus-query"] + "\n")


def test_what_cannot_be_recorded_does_not_run(tmp_path: Path) -> None:
    """A file may grow to a size; beyond it each write fails, as on a full disk."""
    (tmp_path / "nexus.toml").write_text(TEXT + '[http]\nlisten = "127.0.0.1:0"\n[flight]\nlisten = "127.0.0.1:0"\n')
    limited = ["bash", "-c", f"trap '' XFSZ; ulimit -f 16; exec {BINARY} serve --config nexus.toml"]
    process = subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
    try:
        line = process.stdout.readline()
        url = "http://" + line.split("http=")[1].strip()
        codes = [requests.post(f"{url}/v1/sql", data=b"select 1", timeout=10) for _ in range(60)]
        assert codes[0].status_code == 200
        refused = codes[-1]
        assert refused.status_code == 503
        assert "cannot be recorded in the audit trail" in refused.text
    finally:
        process.kill()
        process.wait()
    assert verified(tmp_path).returncode == 0


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_trail_costs_little(tpch: Path, tmp_path: Path) -> None:
    """Half of all statements are at most 3 percent slower with a record of each, signed or not."""
    found = costs(tmp_path, tpch, 11)
    print("\n" + "\n".join(f"{name}: {cost:.3f} x" for name, cost in found.items()))
    assert max(found.values()) <= 1.03, found
