"""The JDBC driver on the JDKs of this machine: compiles the probe once and runs it."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from fetch import jdbc_jar
from gateway import REPLICAS

HERE = Path(__file__).resolve().parent
# What another JDK changes is not what another replica changes: one of them will do there.
VERSIONS = ["17", "25"] if REPLICAS == 1 else ["17"]
URL = "jdbc:arrow-flight-sql://{address}/?useEncryption={encryption}"


@cache
def homes() -> dict[str, Path]:
    """Every JDK beside the one on the PATH, by its major version."""
    java = shutil.which("java")
    assert java, "java is not on the PATH: install JDK 17 and JDK 25"
    found: dict[str, Path] = {}
    for release in sorted(Path(java).resolve().parents[2].glob("*/release")):
        if version := re.search(r'JAVA_VERSION="(\d+)', release.read_text()):
            found[version[1]] = release.parent
    return found


def missing() -> list[str]:
    """The JDKs that the tests need and this machine has not, in words."""
    return [
        f"JDK {version} is not beside the java on the PATH, where {', '.join(sorted(homes()))} are: install it there"
        for version in VERSIONS
        if version not in homes()
    ]


@cache
def classes() -> Path:
    """The compiled probe."""
    folder = Path(tempfile.mkdtemp(prefix="nexus-jdbc-"))
    sources = sorted((HERE / "jdbc").glob("*.java"))
    subprocess.run(
        [homes()["17"] / "bin" / "javac", "--release", "17", "-Xlint:all", "-Werror", "-d", folder, *sources], check=True
    )
    return folder


def probe(command: str, address: str, *arguments: object, **options: object) -> list[dict]:
    """Runs one command of the probe, with the options of `run_probe`: its lines, each a JSON value."""
    done = run_probe(command, address, *arguments, **options)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_probe(
    command: str,
    address: str,
    *arguments: object,
    jdk: str = "17",
    zone: str = "UTC",
    query: str = "",
    encryption: bool = False,
    wait: float = 240,
    **login: str,
) -> subprocess.CompletedProcess[str]:
    """The same, where it may fail: the finished process. `query` is added to the URL; `login` has user and password."""
    url = URL.format(address=address, encryption=str(encryption).lower()) + query
    words = _words(command, url, *arguments, jdk=jdk, zone=zone)
    return subprocess.run(words, capture_output=True, text=True, env=_environment(login), timeout=wait)


@contextmanager
def talking(command: str, address: str, *arguments: object, **login: str) -> Iterator[subprocess.Popen[str]]:
    """The same while it runs, for a command that waits for lines or has no end; it is ended with the block."""
    words = _words(command, URL.format(address=address, encryption="false"), *arguments)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=_environment(login), **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def _environment(login: dict[str, str]) -> dict[str, str]:
    """What the probe is started with: it takes user and password from there."""
    return {**os.environ, **{f"PROBE_{name.upper()}": value for name, value in login.items()}}


def _words(command: str, url: str, *arguments: object, jdk: str = "17", zone: str = "UTC") -> list[str]:
    """The command line of the probe."""
    options = ["--add-opens=java.base/java.nio=ALL-UNNAMED", f"-Duser.timezone={zone}", "-Xmx512m", "-XX:TieredStopAtLevel=1"]
    path = os.pathsep.join(map(str, [jdbc_jar(), classes()]))
    words = [homes()[jdk] / "bin" / "java", *options, "-cp", path, "Probe", command, url, *arguments]
    return list(map(str, words))


def values(lines: list[dict]) -> dict[str, object]:
    """The lines that carry a name and a value, as one mapping."""
    return {line["name"]: line["value"] for line in lines}


def rows(listing: dict) -> list[dict]:
    """A result set as dictionaries."""
    assert "error" not in listing, listing
    names = [column["name"] for column in listing["columns"]]
    return [dict(zip(names, row, strict=True)) for row in listing["rows"]]
