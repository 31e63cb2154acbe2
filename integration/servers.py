"""Servers in Java that the gateway reads through: each a process in a group of its own, waited for, and killed with its group."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jdbc import homes

# One thread that collects and one compiler: they run for a moment, on a machine that others use too.
QUICK = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m"]


@dataclass
class Server:
    """A server of this machine, where clients ask for it, over a folder of its own."""

    name: str
    uri: str
    folder: Path
    command: list[str]
    answers: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log"

    def start(self, wait: float = 120) -> None:
        """Serves, and waits until it answers a request; it can be started again after it was killed, over what it had written."""
        with self.log.open("a") as output:
            values = {**os.environ, **self.environment}
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, cwd=self.folder, env=values, process_group=0
            )
        deadline = time.monotonic() + wait
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not answer at {self.uri}\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends it at once, with all that it has started: nobody is told, and nothing is written any more."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freezes it until the block ends: nothing answers, and no socket closes."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    @contextmanager
    def running(self) -> Iterator["Server"]:
        """Serves until the block ends."""
        try:
            self.start()
            yield self
        finally:
            self.kill()


def java(version: str, *words: object) -> list[str]:
    """The command line of a program that a JDK of this version runs."""
    return [str(homes()[version] / "bin" / "java"), *QUICK, *map(str, words)]


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def says_ok(url: str) -> bool:
    """Whether a GET is answered as it should."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
