"""The gateway as a process: started on free ports, watched, stopped as a user would stop it; or several behind a balancer."""

import base64
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from balancer import Balancer, balancer
from fetch import CACHE

REPOSITORY = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target") / os.environ.get("NEXUS_BUILD", "debug") / "nexus"
# With 2, what is started by a configuration is two gateways of the same ticket key: each call goes to the next one in turn.
REPLICAS = int(os.environ.get("NEXUS_REPLICAS", "1"))
READY = re.compile(r"^ready flight=(\S+) http=(\S+)$")


@dataclass
class Gateway:
    """A running `nexus serve`; a context manager that ends it and holds that it ended well."""

    process: subprocess.Popen[str]
    flight: str
    http: str
    log: Path
    has_tls: bool = False

    @property
    def uri(self) -> str:
        """Where ADBC, pyarrow and `nexus sql` connect."""
        return f"grpc+tls://{self.flight}" if self.has_tls else f"grpc://{self.flight}"

    @property
    def url(self) -> str:
        """Where HTTP clients connect."""
        return f"https://{self.http}" if self.has_tls else f"http://{self.http}"

    @property
    def pid(self) -> int:
        """The process, for its memory and processor time."""
        return self.process.pid

    def logged(self) -> str:
        """What it has written to its log until now."""
        return self.log.read_text(errors="replace")

    def stop(self, wait: float = 15) -> int:
        """Ends it by Ctrl-C and returns its exit code; kills it, and fails, where it does not end in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(wait)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the gateway did not end within {wait} s of Ctrl-C\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of its log, for messages."""
        return self.logged()[-4000:]

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        died = self.process.poll()
        code = self.stop()
        if failed is None:
            assert died is None, f"the gateway ended by itself with {died}\n{self.tail()}"
            assert code == 0, f"the gateway ended with {code} after Ctrl-C\n{self.tail()}"
            assert "panicked at" not in self.logged(), self.tail()


class Replicas(Gateway):
    """Gateways behind a balancer, whose addresses are those of this one."""

    def __init__(self, gateways: list[Gateway], before: Balancer) -> None:
        super().__init__(before.process, before.flight, before.http, before.log)
        self.gateways, self.balancer = gateways, before

    @property
    def pid(self) -> int:
        """There is none: what is measured at one process is no matter of replicas."""
        raise AttributeError("several replicas have no one process")

    def logged(self) -> str:
        """What all of them have written to their logs until now."""
        return "".join(gateway.logged() for gateway in self.gateways)

    def stop(self, wait: float = 15) -> int:
        """Ends the balancer and all gateways; returns an exit code that is not 0 where there is one."""
        codes = [self.balancer.stop(), *(gateway.stop(wait) for gateway in self.gateways)]
        return next(filter(None, codes), 0)

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with ExitStack() as ends:
            for part in (*self.gateways, self.balancer):
                ends.callback(part.__exit__, failed, None, None)


def serve(
    *arguments: object, log: Path, wait: float = 60, environment: dict[str, str] | None = None, folder: Path | None = None
) -> Gateway:
    """Starts `nexus serve` with these arguments, in `folder`, and returns it once it is ready; its log goes to the file `log`."""
    if not BINARY.exists():
        raise FileNotFoundError(f"{BINARY} is not there: run `make build`")
    command = [str(BINARY), "serve", *map(str, arguments)]
    values = {**os.environ, **(environment or {})}
    with log.open("w") as errors:
        # In a group of its own, so that a Ctrl-C in the terminal reaches it once, through `stop`.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=values, cwd=folder, process_group=0
        )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    try:
        while (line := lines.get(timeout=wait)) is not None:
            if found := READY.match(line):
                return Gateway(process, found[1], found[2], log)
        reason = f"ended with {process.wait()} before it was ready"
    except queue.Empty:
        reason = f"was not ready within {wait} s"
    process.kill()
    process.wait()
    raise RuntimeError(f"`{' '.join(command)}` {reason}\n{log.read_text(errors='replace')[-4000:]}")


def demo(log: Path, *arguments: object, **options: object) -> Gateway:
    """Starts the embedded demo on free ports."""
    free = "127.0.0.1:0"
    return serve("--demo", "--flight-listen", free, "--http-listen", free, *arguments, log=log, **options)


def configured(folder: Path, text: str, replicas: int = REPLICAS, check: str | None = "0s", **options: object) -> Gateway:
    """Starts a gateway on free ports with this configuration, which lies with its log in `folder`, or several replicas of it.
    `check` is its `cache.check`: most tests write behind its back, or at another replica, and want that seen at once."""
    sections = ["flight", "http"]
    listens = "\n".join(f'[{name}]\nlisten = "127.0.0.1:0"' for name in sections if f"[{name}]" not in text)
    config = folder / "nexus.toml"
    if check is not None:
        text = _within(text, "[cache]\n", f'check = "{check}"\n')
    if replicas == 1:
        config.write_text(f"{listens}\n{text}")
        gateway = serve("--config", config, log=folder / "gateway.log", **options)
        gateway.has_tls = "[tls]" in text
        return gateway
    config.write_text(f"{listens}\n{_with_key(text)}")
    with ExitStack() as started:
        gateways = [
            started.enter_context(serve("--config", config, log=folder / f"gateway-{number}.log", **options))
            for number in range(replicas)
        ]
        before = balancer(folder, [gateway.flight for gateway in gateways], [gateway.http for gateway in gateways])
        # Nothing is left to go wrong: from here on they end by the returned one.
        started.pop_all()
    return Replicas(gateways, before)


def _with_key(text: str) -> str:
    """The configuration with a ticket key, which the replicas share."""
    key = base64.b64encode(os.urandom(32)).decode()
    return _within(text, "[tickets]\n", f'keys = ["{key}"]\n')


def _within(text: str, section: str, line: str) -> str:
    """The configuration with one more line in a section, which may not be there yet."""
    return text.replace(section, section + line) if section in text else f"{text}\n{section}{line}"


def nexus(*arguments: object, stdin: str = "", environment: dict[str, str] | None = None, wait: float = 60):
    """Runs another command of the binary to its end; returns the finished process with its output as text."""
    command = [str(BINARY), *map(str, arguments)]
    values = {**os.environ, **(environment or {})}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=values, timeout=wait)


def users(*names: str) -> str:
    """The section `auth` with users whose passwords are their names."""
    hashes = {name: nexus("hash-password", stdin=name).stdout.strip() for name in names}
    return "\n".join(
        ['[auth]\nmode = "basic"', *(f'[auth.users.{name}]\npassword_hash = "{hashed}"' for name, hashed in hashes.items())]
    )


def eventually(holds: Callable[[], bool], within: float) -> bool:
    """Whether something comes to hold within so many seconds."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Hands each line on as it comes, then None; goes on reading so that the process never waits for us."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)
