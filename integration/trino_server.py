"""A Trino server of its own: one node with the catalogs `tpch` and `memory`, which spools what is large to a bucket.

It is there after 10 s on two idle processors, in 750 MiB; the first time takes twice as long, and leaves an archive of classes.
"""

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3
from fetch import trino_home
from jdbc import homes
from servers import Server, free_port

# Who asks for the tests, as which the statements of the gateway are told from others.
USER = "judge"
SOURCE = "nexus-gateway"
BUCKET = "spooled"
# Columns as TPC-H has them, with exact numbers.
TPCH = {"connector.name": "tpch", "tpch.column-naming": "STANDARD", "tpch.double-type-mapping": "DECIMAL"}
# What Trino's own launcher has (bin/launcher.properties and the JDK that it wants).
JVM = ["--add-modules=jdk.incubator.vector", "-Djdk.attach.allowAttachSelf=true", "--enable-native-access=ALL-UNNAMED"]
JVM += ["--sun-misc-unsafe-memory-access=allow", "-Dfile.encoding=UTF-8", "-XX:+UseSerialGC"]
# Rounds of a hash of a password, as few as Trino takes.
ROUNDS = 1_000


class Failed(Exception):
    """What Trino says of a statement that fails: `error` has errorName, errorCode and message, and errorLocation at times."""

    def __init__(self, error: dict) -> None:
        super().__init__(error["message"])
        self.error = error


@dataclass(frozen=True)
class Answer:
    """The columns, each with its name, its type as text and its `typeSignature`, and the rows as JSON has them."""

    id: str
    columns: list[dict]
    rows: list[list]


@dataclass(frozen=True)
class Secured:
    """How a server asks who comes: files of PEM with its own certificate and key, and with the authorities of its clients; the
    passwords of users; and the secret by which it checks tokens (HS256)."""

    own: Path
    authorities: Path
    passwords: dict[str, str]
    secret: bytes


@dataclass
class Trino(Server):
    """A running server; `http` is where the tests ask it as anybody, whatever it asks of who comes in at `uri`."""

    http: str = ""

    def ask(self, sql: str, **headers: str) -> Answer:
        """Runs a statement by the protocol itself, which is none of what is tested here, and without spooling."""
        given = {"X-Trino-User": USER, "X-Trino-Time-Zone": "UTC", "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        page = _page("POST", f"{self.http}/v1/statement", given, sql.encode())
        columns, rows = [], []
        while True:
            if "error" in page:
                raise Failed(page["error"])
            columns = page.get("columns", columns)
            rows += page.get("data", [])
            if "nextUri" not in page:
                return Answer(page["id"], columns, rows)
            page = _page("GET", page["nextUri"], given)

    def asked(self, part: str, column: str = "query") -> list[str]:
        """The texts of the statements of the gateway that hold a text, or another column of theirs, the oldest first."""
        quoted = part.replace("'", "''")
        where = f"source = '{SOURCE}' and strpos(query, '{quoted}') > 0"
        return [row[0] for row in self.ask(f"select {column} from system.runtime.queries where {where} order by created").rows]

    def running(self, part: str = "") -> int:
        """How many of them run or wait."""
        return sum(state not in ("FINISHED", "FAILED") for state in self.asked(part, "state"))

    def about(self, query: str) -> dict:
        """All that it tells of a statement: `session` is what it came with."""
        return _page("GET", f"{self.http}/v1/query/{query}", {"X-Trino-User": USER})

    def catalog(self, name: str, catalog: str = "memory", **options: object) -> str:
        """The section of a configuration for a catalog of it, with more options."""
        options = {"kind": "trino", "url": self.uri, "user": "gateway", "catalog": catalog, **options}
        return f"\n[catalogs.{name}]\n" + "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())

    def is_ready(self) -> bool:
        """Whether a query works; before that it says already that it has started."""
        try:
            return self.ask("select count(*) from tpch.tiny.region").rows == [[5]]
        except (Failed, OSError, ValueError):
            return False

    def end(self) -> None:
        """Ends it as a user would, which writes the archive of classes where there is none yet."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def server(
    bucket: s3.Bucket | None, retrieval: str = "STORAGE", secured: Secured | None = None, heap: str = "1G", is_quick: bool = True
) -> Iterator[Trino]:
    """Serves until the block ends. Where there is a bucket, what is large is spooled there, and clients get it by `retrieval`:
    of the bucket itself, or of the server by COORDINATOR_PROXY. `is_quick` is for short work: what is compiled is less fast."""
    port = free_port()
    http = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="trino-") as name:
        folder = Path(name)
        (folder / "etc" / "catalog").mkdir(parents=True)
        config: dict[str, object] = {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": port,
            "node.internal-address": "127.0.0.1",
            "node.bind-ip": "127.0.0.1",
            "discovery.uri": http,
            "plugin.dir": trino_home() / "plugin",
            "catalog.config-dir": folder / "etc" / "catalog",
            # Of the heap there is so much beside them as it wants.
            "query.max-memory": "512MB",
            "query.max-memory-per-node": "256MB",
        }
        uri = http
        if bucket:
            (bucket.root / BUCKET).mkdir(exist_ok=True)
            config["protocol.spooling.enabled"] = "true"
            config["protocol.spooling.shared-secret-key"] = _random()
            config["protocol.spooling.retrieval-mode"] = retrieval
            write(folder, "spooling-manager", _spooling(bucket))
        if secured:
            secure = free_port()
            uri = f"https://127.0.0.1:{secure}"
            config |= _https(folder, secured, secure)
        write(folder, "catalog/tpch", TPCH)
        write(folder, "catalog/memory", {"connector.name": "memory", "memory.max-data-per-node": "256MB"})
        write(folder, "config", config)
        running = Trino("Trino", uri, folder, _command(folder, heap, is_quick), lambda: running.is_ready(), http=http)
        try:
            running.start()
            yield running
        finally:
            running.end()


def write(folder: Path, name: str, properties: dict[str, object]) -> None:
    """Writes a file of properties, which Trino reads from `etc` in the folder that it is started in."""
    (folder / "etc" / f"{name}.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))


def token(user: str, secret: bytes) -> str:
    """A JSON web token of a user, which lasts an hour."""
    head = json.dumps({"alg": "HS256", "typ": "JWT"})
    claims = json.dumps({"sub": user, "exp": int(time.time()) + 3600})
    signed = ".".join(_text(part.encode()) for part in (head, claims))
    return f"{signed}.{_text(hmac.digest(secret, signed.encode(), 'sha256'))}"


def _command(folder: Path, heap: str, is_quick: bool) -> list[str]:
    home = trino_home()
    archive = home.with_name(f"{home.name}.jsa")
    options = [f"-Xmx{heap}", *JVM, "-XX:+AutoCreateSharedArchive", f"-XX:SharedArchiveFile={archive}"]
    options += ["-XX:TieredStopAtLevel=1"] if is_quick else []
    options += ["-Dnode.id=one", "-Dnode.environment=tests", f"-Dconfig={folder}/etc/config.properties"]
    return [str(homes()["25"] / "bin" / "java"), *options, "-cp", f"{home}/lib/*", "io.trino.server.TrinoServer"]


def _spooling(bucket: s3.Bucket) -> dict[str, object]:
    return {
        "spooling-manager.name": "filesystem",
        "fs.location": f"s3://{BUCKET}/",
        "fs.s3.enabled": "true",
        # With it a segment is told its key by a header, over plain HTTP.
        "fs.segment.encryption": "false",
        "s3.endpoint": bucket.endpoint,
        "s3.region": "us-east-1",
        "s3.aws-access-key": bucket.key,
        "s3.aws-secret-key": bucket.secret,
        "s3.path-style-access": "true",
    }


def _https(folder: Path, secured: Secured, port: int) -> dict[str, object]:
    """Writes what such a server reads; gives what its configuration has to say of it."""
    lines = []
    for user, password in secured.passwords.items():
        salt = os.urandom(16)
        hashed = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, ROUNDS)
        lines.append(f"{user}:{ROUNDS}:{salt.hex()}:{hashed.hex()}\n")
    (folder / "passwords").write_text("".join(lines))
    (folder / "secret").write_text(base64.b64encode(secured.secret).decode())
    write(folder, "password-authenticator", {"password-authenticator.name": "file", "file.password-file": folder / "passwords"})
    return {
        "http-server.https.enabled": "true",
        "http-server.https.port": port,
        "http-server.https.keystore.path": secured.own,
        "http-server.https.truststore.path": secured.authorities,
        "http-server.authentication.type": "CERTIFICATE,PASSWORD,JWT",
        # At the other port, of this machine alone.
        "http-server.authentication.allow-insecure-over-http": "true",
        "http-server.authentication.certificate.user-mapping.pattern": ".*CN=([a-z]+).*",
        "http-server.authentication.jwt.key-file": folder / "secret",
        "internal-communication.shared-secret": _random(),
    }


def _page(method: str, uri: str, headers: dict[str, str], body: bytes | None = None) -> dict:
    request = urllib.request.Request(uri, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _random() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
