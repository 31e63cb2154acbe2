"""An S3 server that checks signatures: s3s-fs over a folder."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fetch import HERE, S3_SERVER, tool

KEY = "AKEXAMPLE"
SECRET = "SKEXAMPLE"


@dataclass(frozen=True)
class Bucket:
    """A running S3 server: files in `root/BUCKET/` are the objects of BUCKET."""

    endpoint: str
    root: Path
    key: str = KEY
    secret: str = SECRET


@cache
def at_once() -> Path:
    """What s3s-fs is loaded with. It sends the head of an answer, and else waits with the rest until that is acknowledged, which
    takes up to 40 ms for each object that is read."""
    built = Path(tempfile.mkdtemp(prefix="nexus-s3-")) / "at_once.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, HERE / "s3" / "at_once.c"], check=True)
    return built


@contextmanager
def server(root: Path, key: str = KEY, secret: str = SECRET) -> Iterator[Bucket]:
    """Serves a folder to who has the key until the block ends; its log is beside the folder."""
    root.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    keys = ["--access-key", key, "--secret-key", secret]
    log = root.with_suffix(".log")
    with log.open("w") as output:
        loaded = {**os.environ, "LD_PRELOAD": str(at_once())}
        process = subprocess.Popen([tool(S3_SERVER), *address, *keys, root], stdout=output, stderr=output, env=loaded)
    try:
        deadline = time.monotonic() + 30
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server does not answer on port {port}\n{log.read_text()}")
            time.sleep(0.02)
        yield Bucket(f"http://127.0.0.1:{port}", root, key, secret)
    finally:
        process.terminate()
        process.wait(10)


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False
