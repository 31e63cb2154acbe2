"""Every command in the documentation is run, page by page, against the demo on its usual ports.

Blocks of `sh`, `python` and `sql` run in the order of their page, in one folder; a block with `file=NAME` is written to
that file instead. A block `sh serve` serves, in the place of the demo, until the next one or the end of the page. A block
that cannot run here says why: `sh no-run: the reason`.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway import BINARY, REPOSITORY, Gateway, serve

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# A key for tickets as well as a password: 32 bytes in base64.
SECRET = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
# Other names of the same languages would pass unseen.
MISNAMED = {"bash", "shell", "console", "shell-session", "zsh", "py", "python3"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the rest of its info string, its text, and where it begins."""

    language: str
    note: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that it is to be written to."""
        found = re.search(r"\bfile=(\S+)", self.note)
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text, found = page.read_text(), []
    for match in FENCE.finditer(text):
        language, _, note = match[2].strip().partition(" ")
        body = "".join(line.removeprefix(match[1]) for line in match[3].splitlines(keepends=True))
        found.append(Block(language, note.strip(), body, text.count("\n", 0, match.start()) + 1))
    return found


ADDRESS = "grpc://127.0.0.1:31337"


class Usual:
    """The ports that the documentation names, and who serves there: the demo of `make run`, or what a page says."""

    def __init__(self) -> None:
        self.demo: subprocess.Popen[str] | None = None
        self.gateway: Gateway | None = None

    def ready(self) -> None:
        """Has the demo there, and its one answer, and how each client connects."""
        if self.demo:
            return
        demo = [sys.executable, REPOSITORY / "integration" / "demo.py"]
        self.demo = subprocess.Popen(demo, stdout=subprocess.PIPE, text=True, process_group=0)
        said = ""
        while "curl" not in said and (line := self.demo.stdout.readline()):
            said += line
        assert re.search(r"^ *N +O +\d+", said, re.MULTILINE), said
        for line in ("jdbc:arrow-flight-sql://127.0.0.1:31337/", ADDRESS, "http://127.0.0.1:8080/v1/sql"):
            assert line in said

    def serve(self, block: Block, folder: Path) -> None:
        """Serves what a block says."""
        self.stop()
        program, command, *arguments = shlex.split(block.text)
        assert (program, command) == ("nexus", "serve")
        self.gateway = serve(*arguments, log=folder / "gateway.log", folder=folder)

    def stop(self) -> None:
        """Ends whoever serves."""
        demo, gateway, self.demo, self.gateway = self.demo, self.gateway, None, None
        if demo:
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
            demo.stdout.close()
        if gateway:
            assert gateway.stop() == 0, gateway.tail()


@pytest.fixture(scope="module")
def usual() -> Iterator[Usual]:
    usual = Usual()
    try:
        yield usual
    finally:
        usual.stop()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
@pytest.mark.timeout(300)
def test_the_commands_of_a_page(page: Path, usual: Usual, tmp_path: Path) -> None:
    usual.ready()
    try:
        run_page(page, usual, tmp_path)
    finally:
        if usual.gateway:
            usual.stop()


def run_page(page: Path, usual: Usual, folder: Path) -> None:
    for block in blocks(page):
        where = f"{page.relative_to(REPOSITORY)}:{block.line}"
        assert block.language not in MISNAMED, f"{where}: write sh or python in place of {block.language}"
        if block.note.startswith("no-run"):
            assert re.match(r"no-run: \w.{5,}", block.note), f"{where}: no-run needs a reason"
        elif block.file:
            (folder / block.file).write_text(block.text)
        elif block.note == "serve":
            usual.serve(block, folder)
        elif block.language == "toml":
            check_configuration(block, where, folder)
        elif command := commands(block):
            done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{where} ended with {done.returncode}\n{block.text}\n{done.stdout}\n{done.stderr}"


def check_configuration(block: Block, where: str, folder: Path) -> None:
    """A configuration in the documentation is one that the gateway takes, whatever the secrets in it are."""
    file = folder / "shown.toml"
    file.write_text(block.text)
    secrets = dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", block.text), SECRET)
    command = [str(BINARY), "config", "check", str(file)]
    done = subprocess.run(command, env={**environment(), **secrets}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{where}\n{block.text}\n{done.stderr}"


def commands(block: Block) -> list[str] | None:
    """What runs a block; none where it is no code of ours to run."""
    match block.language:
        case "sh":
            return ["bash", "-euo", "pipefail", "-c", block.text]
        case "python":
            return [sys.executable, "-W", "error::SyntaxWarning", "-c", block.text]
        case "sql":
            return [str(BINARY), "sql", "--url", ADDRESS, "-c", block.text]
        case _:
            return None


def environment() -> dict[str, str]:
    """The programs of the documentation on the path: the gateway's, and the Python of the tests."""
    path = os.pathsep.join([str(BINARY.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path}


def test_the_blocks_of_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```sh no-run: for a reason\nmake\n```\n\n- item\n\n  ```toml file=a.toml\n  a = 1\n  ```\n")
    assert blocks(page) == [Block("sh", "no-run: for a reason", "make\n", 3), Block("toml", "file=a.toml", "a = 1\n", 9)]
    assert [block.file for block in blocks(page)] == [None, "a.toml"]
