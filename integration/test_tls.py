"""TLS on both ports: every client over it, what each is told where the two disagree, and certificates that change under load."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow.flight as flight
import pytest
import requests
import trustme
from cryptography import x509

import jdbc
from gateway import Gateway, configured, eventually, nexus
from wire import metric, statement

ROOTS = "adbc.flight.sql.client_option.tls_root_certs"
TEXT = """
[tls]
certificate = "server.pem"
key = "server.key"
[catalogs.demo]
kind = "memory"
"""
SOAK = os.environ.get("NEXUS_TPCH_SCALE") == "1"


@dataclass
class Secure:
    """A gateway with a certificate, and the authority that issued it."""

    gateway: Gateway
    authority: trustme.CA
    folder: Path

    @property
    def roots(self) -> Path:
        """The authority, as clients take it."""
        return self.folder / "authority.pem"

    def serial(self) -> int:
        """The number of the certificate that a new connection gets."""
        context = ssl.create_default_context(cafile=str(self.roots))
        with open_tls(self.gateway.flight, context) as connection:
            return int(connection.getpeercert()["serialNumber"], 16)

    def failures(self) -> float:
        """How often changed files could not be taken over."""
        return metric(self.gateway.url, "nexus_reload_failures_total", verify=str(self.roots))


def issue(authority: trustme.CA, folder: Path) -> int:
    """Puts a new certificate into the folder, each file as a whole, as a tool that renews them does; returns its number."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    for name, pem in [("server.key", issued.private_key_pem), ("server.pem", issued.cert_chain_pems[0])]:
        pem.write_to_path(str(folder / f"{name}.new"))
        (folder / f"{name}.new").replace(folder / name)
    return int(ssl._ssl._test_decode_cert(str(folder / "server.pem"))["serialNumber"], 16)


def open_tls(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, port = address.rsplit(":", 1)
    return context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=host)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issue(authority, folder)
    with configured(folder, TEXT, replicas=1) as gateway:
        yield Secure(gateway, authority, folder)


def test_adbc(secure: Secure) -> None:
    options = {ROOTS: secure.roots.read_text()}
    with flightsql.connect(secure.gateway.uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select 1 + 1")
        assert cursor.fetchall() == [(2,)]


def test_pyarrow(secure: Secure) -> None:
    with flight.connect(secure.gateway.uri, tls_root_certs=secure.roots.read_bytes()) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1 as a")))
        assert client.do_get(info.endpoints[0].ticket).read_all().to_pydict() == {"a": [1]}


@pytest.mark.parametrize("jdk", jdbc.VERSIONS)
def test_jdbc(secure: Secure, jdk: str) -> None:
    query = f"&tlsRootCerts={secure.roots}"
    lines = jdbc.probe("query", secure.gateway.flight, "select 2 as b", jdk=jdk, encryption=True, query=query)
    assert "2" in str(lines)


def test_http(secure: Secure) -> None:
    answer = requests.post(f"{secure.gateway.url}/v1/sql", data=b"select 3 as c", verify=str(secure.roots), timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"c": 3})
    assert requests.get(f"{secure.gateway.url}/livez", verify=str(secure.roots), timeout=10).text == "ok\n"


def test_shell(secure: Secure) -> None:
    trusted = {"SSL_CERT_FILE": str(secure.roots)}
    done = nexus("sql", "--url", secure.gateway.uri, "--format", "csv", "-c", "select 4 as d", environment=trusted)
    assert (done.returncode, done.stdout) == (0, "d\n4\n"), done.stderr


def test_a_client_that_does_not_trust_the_authority_comes_to_nothing(secure: Secure) -> None:
    with pytest.raises(adbc_driver_manager.Error, match="certificate"):
        flightsql.connect(secure.gateway.uri, autocommit=True).cursor().execute("select 1")
    assert eventually(lambda: "a TLS handshake failed; where the client does not trust" in secure.gateway.logged(), 10)


def test_a_client_without_tls_is_told_to_turn_it_on(secure: Secure) -> None:
    answer = requests.get(f"http://{secure.gateway.flight}/", timeout=10)
    assert (answer.status_code, answer.text) == (400, "this port speaks TLS: connect with grpc+tls:// or https://\n")
    with pytest.raises(flight.FlightUnavailableError), flight.connect(f"grpc://{secure.gateway.flight}") as client:
        client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1")))
    assert eventually(lambda: "useEncryption=true" in secure.gateway.logged(), 10)


@pytest.mark.parametrize("port", ["flight", "http"])
def test_tls_1_2_and_1_3_and_nothing_before(port: str, secure: Secure) -> None:
    def version(least: ssl.TLSVersion, most: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=str(secure.roots))
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = least, most
        with open_tls(getattr(secure.gateway, port), context) as connection:
            return connection.version()

    assert version(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert version(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning, match="TLSv1"):
        version(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


def test_a_new_certificate_is_taken_over_and_a_broken_one_is_not(secure: Secure) -> None:
    with flight.connect(secure.gateway.uri, tls_root_certs=secure.roots.read_bytes()) as held:
        command = flight.FlightDescriptor.for_command(statement("select 1"))
        held.get_flight_info(command)
        serial = issue(secure.authority, secure.folder)
        assert eventually(lambda: secure.serial() == serial, 10)
        before, key = secure.failures(), secure.folder / "server.key"
        whole = key.read_text()
        for broken in ("", whole[:100], trustme.CA().issue_cert("other").private_key_pem.bytes().decode()):
            key.write_text(broken)
            assert eventually(lambda before=before: secure.failures() > before, 10)
            before = secure.failures()
            assert secure.serial() == serial
        key.write_text(whole)
        issued = issue(secure.authority, secure.folder)
        assert eventually(lambda: secure.serial() == issued, 10)
        # What was open before went on all the time.
        held.get_flight_info(command)
    assert "PRIVATE KEY-----" not in secure.gateway.logged()


@pytest.mark.timeout(300)
def test_certificates_change_under_load(secure: Secure) -> None:
    """Every 5 s for two minutes in the long form: no connection and no statement fails."""
    seconds, every = (120, 5) if SOAK else (6, 0.5)
    over, failed, done = threading.Event(), [], []

    def work() -> None:
        while not over.is_set():
            try:
                with flight.connect(secure.gateway.uri, tls_root_certs=secure.roots.read_bytes()) as client:
                    for _ in range(5):
                        info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1 as a")))
                        done.append(client.do_get(info.endpoints[0].ticket).read_all().num_rows)
            except Exception as error:  # noqa: BLE001
                failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    deadline, serials = time.monotonic() + seconds, set()
    while time.monotonic() < deadline:
        issue(secure.authority, secure.folder)
        serials.add(secure.serial())
        time.sleep(every)
    over.set()
    for worker in workers:
        worker.join(30)
    assert not failed
    assert len(done) > 100
    assert set(done) == {1}
    assert len(serials) >= (20 if SOAK else 4)


CLIENTS = """
[auth]
mode = "basic"
[auth.certificates]
"{subject}" = "etl"
[tls]
certificate = "server.pem"
key = "server.key"
clients = "clients.pem"
[catalogs.demo]
kind = "memory"
"""


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A gateway that asks for certificates of clients, which an authority of their own issues."""
    folder, authority = tmp_path_factory.mktemp("mutual"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    clients = trustme.CA()
    clients.cert_pem.write_to_path(str(folder / "clients.pem"))
    issue(authority, folder)
    for name, issuer in [("etl", clients), ("eve", clients), ("forged", trustme.CA())]:
        issued = issuer.issue_cert(f"{name}@example.com", common_name="etl" if name == "forged" else name)
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    # The authority of the test writes more than the name into it.
    subject = x509.load_pem_x509_certificate((folder / "etl.pem").read_bytes()).subject.rfc4514_string()
    assert subject.startswith("CN=etl,")
    with configured(folder, CLIENTS.format(subject=subject), replicas=1) as gateway:
        yield Secure(gateway, authority, folder)


def asks(mutual: Secure, name: str | None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """The code and the text of an answer to who shows this certificate."""
    shown = None if name is None else (str(mutual.folder / f"{name}.pem"), str(mutual.folder / f"{name}.key"))
    url = f"{mutual.gateway.url}/v1/sql"
    sql = b"select distinct principal from system.queries where state = 'running'"
    answer = requests.post(url, data=sql, verify=str(mutual.roots), cert=shown, headers=headers, timeout=10)
    return answer.status_code, answer.text


def test_who_shows_a_certificate_is_its_user(mutual: Secure) -> None:
    code, text = asks(mutual, "etl")
    assert code == 200, text
    assert '"etl"' in text
    names = {"cert_chain": mutual.folder / "etl.pem", "private_key": mutual.folder / "etl.key"}
    shown = {name: path.read_bytes() for name, path in names.items()}
    with flight.connect(mutual.gateway.uri, tls_root_certs=mutual.roots.read_bytes(), **shown) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1 as a")))
        assert client.do_get(info.endpoints[0].ticket).read_all().to_pydict() == {"a": [1]}
    options = {ROOTS: mutual.roots.read_text()}
    options |= {f"adbc.flight.sql.client_option.mtls_{name}": path.read_text() for name, path in names.items()}
    with flightsql.connect(mutual.gateway.uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select 1 + 1")
        assert cursor.fetchall() == [(2,)]


def test_who_shows_none_or_another_is_not_let_in(mutual: Secure) -> None:
    assert asks(mutual, None)[0] == 401
    code, text = asks(mutual, "eve")
    assert (code, "is nobody's here" in text) == (401, True)
    # By an authority that the gateway does not know.
    with pytest.raises(requests.exceptions.ConnectionError):
        asks(mutual, "forged")


def test_a_header_counts_before_the_certificate(mutual: Secure) -> None:
    assert asks(mutual, "etl", {"authorization": "Bearer nexus_guess"})[0] == 401
    assert asks(mutual, "etl", {"authorization": "Basic ZXRsOng="})[0] == 401


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("server.pem", "", 'server.pem has no certificate in it; it is a PEM file with "BEGIN CERTIFICATE"'),
        ("server.key", "nothing", "server.key has no private key that can be read in it"),
        ("server.key", None, "is not the key of the certificate"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_at_once(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    issue(trustme.CA(), tmp_path)
    other = trustme.CA().issue_cert("localhost").private_key_pem.bytes().decode()
    (tmp_path / name).write_text(other if content is None else content)
    config = tmp_path / "nexus.toml"
    config.write_text(TEXT)
    done = nexus("config", "check", config)
    assert done.returncode == 1
    assert f"nexus.toml:{3 if name == 'server.pem' else 4}: tls." in done.stderr
    assert message in done.stderr
    assert other[40:100] not in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    config = tmp_path / "nexus.toml"
    config.write_text(TEXT)
    done = nexus("config", "check", config)
    assert done.returncode == 1
    assert "tls.certificate: " in done.stderr
    assert "server.pem cannot be read: No such file or directory" in done.stderr
