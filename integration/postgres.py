"""A PostgreSQL server of its own: Debian's, over a new folder, with passwords by scram-sha-256."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

USER = "postgres"
PASSWORD = "s3cr3t"
PROGRAMS = ("initdb", "postgres", "psql", "openssl")
FIX = "install PostgreSQL and OpenSSL, for example: apt-get install postgresql openssl"


@dataclass
class Database:
    """A server over a folder, at a port."""

    port: int
    folder: Path
    command: list[str]
    certificate: Path
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def pid(self) -> int:
        """The process that starts all others."""
        return self.process.pid

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log"

    @property
    def url(self) -> str:
        """The address of the database `postgres` in it, without the password."""
        return f"postgres://{USER}@127.0.0.1:{self.port}/postgres"

    def sql(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """Runs statements by psql, which is none of what is tested here; returns the rows of the last as text."""
        options = ["-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1"]
        values = {**os.environ, "PGPASSWORD": PASSWORD, "PGCLIENTENCODING": "UTF8"}
        command = [program("psql"), *self._address(database), *options]
        done = subprocess.run(command, input=statement, capture_output=True, text=True, env=values, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return [line.split("\x1f") for line in done.stdout.splitlines() if line]

    def running(self, part: str = "") -> list[int]:
        """The processes that run a statement of the gateway now which holds a text."""
        where = f"application_name = 'nexus-gateway' and state = 'active' and query like '%{part}%'"
        return [int(row[0]) for row in self.sql(f"select pid from pg_stat_activity where {where}")]

    def copying(self) -> list[int]:
        """The processes that hold rows which the gateway copied last, in a transaction that is open."""
        where = "application_name = 'nexus-gateway' and query like 'COPY %' and backend_xid is not null"
        return [int(row[0]) for row in self.sql(f"select pid from pg_stat_activity where {where}")]

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Holds a table so that nobody reads it."""
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        command = [str(program("psql")), *self._address("postgres"), "-X", "-q", "-A", "-t"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as psql:
            psql.stdin.write(f"begin; lock table {table} in access exclusive mode; select 'held';\n")
            psql.stdin.flush()
            if psql.stdout.readline() != "held\n":
                raise RuntimeError(f"{table} cannot be locked")
            try:
                yield
            finally:
                psql.stdin.write("rollback;\n")
                psql.stdin.close()

    def _address(self, database: str) -> list[str]:
        """Where psql finds a database."""
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]

    def answers(self) -> bool:
        """Whether it takes statements."""
        try:
            return self.sql("select 1") == [["1"]]
        except RuntimeError:
            return False

    def start(self) -> None:
        """Serves, and waits until it answers."""
        with self.log.open("a") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, cwd=self.folder)
        deadline = time.monotonic() + 30
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not answer on port {self.port}\n{self.log.read_text()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Ends the whole server as a machine does that fails: nobody is told, and nothing is written any more."""
        # It starts no others from here on.
        os.kill(self.pid, signal.SIGSTOP)
        children = _children(self.pid)
        for each in (*children, self.pid):
            os.kill(each, signal.SIGKILL)
        self.process.wait(30)
        # As long as one is there, no other server takes the folder.
        deadline = time.monotonic() + 30
        while any(map(_lives, children)):
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL does not end by SIGKILL")
            time.sleep(0.01)

    def catalog(self, name: str, **options: object) -> str:
        """The section of a configuration for a catalog of it, with more options."""
        options = {"kind": "postgres", "url": self.url, "password": PASSWORD, **options}
        return f"\n[catalogs.{name}]\n" + "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freezes the whole server until the block ends: nothing answers, and no socket closes."""
        _signal(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(self.pid, signal.SIGCONT)


def program(name: str) -> Path | None:
    """Where a program of the server is; Debian keeps some off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    found = shutil.which(name)
    return debian[-1] if debian else Path(found) if found else None


def missing() -> list[str]:
    """What is to be installed, a line each."""
    return [f"{name} is not there: {FIX}" for name in PROGRAMS if not program(name)]


@contextmanager
def server(*settings: str) -> Iterator[Database]:
    """Serves until the block ends, with more settings of postgresql.conf. It refuses to run as root, so it is nobody then."""
    if lacking := missing():
        raise FileNotFoundError("\n".join(lacking))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A socket's path is short, and nobody must be able to enter it, so it is not in pytest's folder.
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text(PASSWORD)
        as_user: list[str] = []
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (folder, password):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            as_user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        locale = ["-E", "UTF8", "--locale=C.UTF-8"]
        access = ["--auth-host=scram-sha-256", "--auth-local=scram-sha-256", f"--pwfile={password}"]
        make = [*as_user, program("initdb"), "-D", folder / "data", "-U", USER, *access, *locale, "--no-sync"]
        made = subprocess.run([str(word) for word in make], capture_output=True, text=True, cwd=folder)
        if made.returncode != 0:
            raise RuntimeError(made.stderr)
        certificate, key = folder / "certificate", folder / "key"
        signed = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
        create = [*as_user, program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *signed]
        create += ["-keyout", key, "-out", certificate]
        subprocess.run([str(word) for word in create], check=True, capture_output=True, cwd=folder)
        encrypted = ["ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={key}"]
        fast = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        options = [word for setting in (*fast, *encrypted, *settings) for word in ("-c", setting)]
        serve = [*as_user, program("postgres"), "-D", folder / "data", "-p", port, "-h", "127.0.0.1", "-k", folder, *options]
        database = Database(port, folder, [str(word) for word in serve], certificate)
        try:
            database.start()
            yield database
        finally:
            # SIGINT: fast shutdown, which waits for no client.
            database.process.send_signal(signal.SIGINT)
            database.process.wait(30)


@contextmanager
def taking_rows(name: str, schema: str, replicas: int) -> Iterator[str]:
    """The section of a catalog that takes rows: in memory, or in a database with this schema, which replicas can share."""
    if replicas == 1:
        yield f'\n[catalogs.{name}]\nkind = "memory"\nwritable = true\n'
        return
    with server() as database:
        database.sql(f"create schema if not exists {schema}")
        yield database.catalog(name, writable=True)


def _signal(pid: int, number: int) -> None:
    """To a server and the processes that it started, which have sessions of their own."""
    # Once it is frozen it starts no others; once it goes on it takes those off the list that have ended.
    os.kill(pid, number)
    for each in _children(pid):
        with suppress(ProcessLookupError):
            os.kill(each, number)


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _lives(pid: int) -> bool:
    """Whether a process is there, and more than a name that nobody has taken off the list yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def catalogs(folder: Path, database: Database) -> str:
    """The configuration of a catalog of each kind that takes rows, called by its kind: the files are in a folder."""
    return f"""
[catalogs.memory]
kind = "memory"
size = "1GiB"
writable = true

[catalogs.files]
kind = "files"
location = "{folder}"
writable = true
{database.catalog("postgres", writable=True)}"""
