"""TLS on both ports: every client over it, what each is told where the two disagree, and certificates that change under load."""

import base64
import contextlib
import itertools
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import grpc
import pyarrow.flight as flight
import pytest
import requests
import trustme
from cryptography import x509

import jdbc
from gateway import Gateway, configured, eventually, nexus
from issuer import AUDIENCE, ISSUER, good, rsa_key, token
from test_door import CALLS
from wire import SERVICE, Client, basic, decode, descriptor, field, first, metric, parse, statement

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
    """Every 5 s for two minutes in the long form: no connection and no statement fails, at either port, nor one that goes on for
    all that time."""
    seconds, every = (120, 5) if SOAK else (6, 0.5)
    over, failed = threading.Event(), []
    done: dict[str, int] = {"flight": 0, "http": 0, "stream": 0}

    def flights() -> None:
        with flight.connect(secure.gateway.uri, tls_root_certs=secure.roots.read_bytes()) as client:
            for _ in range(5):
                info = client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1 as a")))
                assert client.do_get(info.endpoints[0].ticket).read_all().to_pydict() == {"a": [1]}
                done["flight"] += 1

    def posts() -> None:
        with requests.Session() as session:
            for _ in range(5):
                answer = session.post(f"{secure.gateway.url}/v1/sql", data=b"select 1 as a", verify=str(secure.roots), timeout=20)
                assert answer.json() == {"a": 1}
                done["http"] += 1

    def stream() -> None:
        endless = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
        with Client(secure.gateway.flight, roots=secure.roots.read_bytes()) as client:
            messages = client.get(client.info(statement(endless)).tickets[0], seconds + 60)
            # The last one is taken when all is over.
            while not over.wait(0.02):
                next(messages)
                done["stream"] += 1
            next(messages)
            messages.cancel()

    def work(client: Callable[[], None]) -> None:
        try:
            while not over.is_set():
                client()
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    workers = [threading.Thread(target=work, args=(client,)) for client in (flights, flights, posts, posts, stream)]
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
    print(f"\n{done} over {len(serials)} certificates")
    assert not failed
    assert min(done.values()) > 50, done
    assert len(serials) >= (20 if SOAK else 4)


CLIENTS = """
[auth]
mode = "basic"
tokens = "tokens.toml"
[auth.users.ann]
password_hash = "{hash}"
[auth.jwt]
issuer = "{issuer}"
audience = "{audience}"
key = "issuer.pem"
[auth.certificates]
"{subject}" = "etl"
[tls]
certificate = "server.pem"
key = "server.key"
clients = "clients.pem"
[catalogs.demo]
kind = "memory"
"""
OF_JWT = rsa_key(None)
COUNT = itertools.count()
# What comes of a handshake that fails.
CUT_OFF = "no connection"


@dataclass
class Mutual(Secure):
    """One that asks for certificates of clients, which an authority of their own issues, and takes all other means as well."""

    clients: trustme.CA
    api: str

    def give(self, name: str, issuer: trustme.CA, subject: str = "etl", **validity: datetime) -> None:
        """Puts a certificate of this subject and its key into the folder, by a name."""
        issued = issuer.issue_cert(f"{name}@example.com", common_name=subject, organization_unit_name="tests", **validity)
        issued.private_key_pem.write_to_path(str(self.folder / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(self.folder / f"{name}.pem"))

    def shown(self, name: str) -> tuple[str, str]:
        """Such a certificate, as requests takes it."""
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def channel(self, name: str | None) -> grpc.Channel:
        """A connection to the port of Flight that shows such a certificate."""
        key, chain = ((self.folder / f"{name}.{end}").read_bytes() if name else None for end in ("key", "pem"))
        trusted = grpc.ssl_channel_credentials(self.roots.read_bytes(), key, chain)
        return grpc.secure_channel(self.gateway.flight, trusted)

    def asks(self, name: str | None, headers: dict[str, str] | None = None, session: requests.Session | None = None) -> str:
        """Who somebody is over HTTP with this certificate and these headers, or why nobody, behind a code."""
        shown = None if name is None else self.shown(name)
        url, verify = f"{self.gateway.url}/v1/sql", str(self.roots)
        try:
            ask = (session or requests).post
            answer = ask(url, data=who().encode(), verify=verify, cert=shown, headers=headers, timeout=10)
        except requests.exceptions.ConnectionError:
            return CUT_OFF
        return answer.json()["principal"] if answer.status_code == 200 else f"{answer.status_code} {answer.text}"

    def calls(self, channel: grpc.Channel, headers: dict[str, str | bytes] | None = None) -> str:
        """The same over Flight."""
        metadata = list((headers or {}).items())
        try:
            asked = channel.unary_unary(SERVICE + "GetFlightInfo")(descriptor(statement(who())), metadata=metadata, timeout=10)
            ticket = first(parse(first(parse(first(parse(asked), 3)), 1)), 1)
            [row] = decode(channel.unary_stream(SERVICE + "DoGet")(field(1, ticket), metadata=metadata, timeout=10))
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"
        return row["principal"]

    def handshake(self, channel: grpc.Channel, headers: dict[str, str] | None = None) -> str:
        """The header that a handshake gives."""
        call = channel.stream_stream(SERVICE + "Handshake")(iter([b""]), metadata=list((headers or {}).items()), timeout=10)
        list(call)
        return dict(call.initial_metadata())["authorization"]


def who() -> str:
    """A statement that tells who sends it."""
    mark = f"'number {next(COUNT)};'"
    return f"select principal from system.queries where state = 'running' and statement like '%' || {mark} || '%'"


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutual]:
    folder, authority = tmp_path_factory.mktemp("mutual"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    clients = trustme.CA()
    clients.cert_pem.write_to_path(str(folder / "clients.pem"))
    issue(authority, folder)
    api, _, lines = nexus("token", "--user", "bob").stdout.partition("\n")
    (folder / "tokens.toml").write_text(lines)
    (folder / "issuer.pem").write_bytes(OF_JWT.pem())
    hashed = nexus("hash-password", stdin="correct").stdout.strip()
    made = Mutual(None, authority, folder, clients, api)
    made.give("etl", clients)
    made.give("stranger", clients, "eve")
    made.give("forged", trustme.CA())
    # The authority of the test writes more than the name into it.
    subject = x509.load_pem_x509_certificate((folder / "etl.pem").read_bytes()).subject.rfc4514_string()
    assert subject.startswith("CN=etl,")
    text = CLIENTS.format(subject=subject, hash=hashed, issuer=ISSUER, audience=AUDIENCE)
    with configured(folder, text, replicas=1) as gateway:
        made.gateway = gateway
        yield made


def test_who_shows_a_certificate_is_its_user(mutual: Mutual) -> None:
    assert mutual.asks("etl") == "etl"
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


def test_who_shows_none_or_another_is_not_let_in(mutual: Mutual) -> None:
    now = datetime.now(UTC)
    mutual.give("expired", mutual.clients, not_after=now - timedelta(minutes=1))
    mutual.give("early", mutual.clients, not_before=now + timedelta(minutes=10))
    assert mutual.asks(None).startswith("401 ")
    said = mutual.asks("stranger")
    assert said.startswith("401 ")
    assert "is nobody's here" in said
    # By an authority that the gateway does not know, and out of their time.
    assert {mutual.asks(name) for name in ("forged", "expired", "early")} == {CUT_OFF}
    assert eventually(lambda: "invalid peer certificate: certificate expired" in mutual.gateway.logged(), 10)


@pytest.mark.parametrize("call", CALLS)
def test_no_call_takes_a_certificate_that_is_nobodys(call: str, mutual: Mutual) -> None:
    codes = {}
    for name in ("stranger", "forged"):
        with mutual.channel(name) as channel, pytest.raises(grpc.RpcError) as error:
            list(channel.stream_stream(SERVICE + call)(iter([CALLS[call]]), timeout=30))
        codes[name] = error.value.code()
    assert codes == {"stranger": grpc.StatusCode.UNAUTHENTICATED, "forged": grpc.StatusCode.UNAVAILABLE}


def test_a_certificate_counts_until_it_expires(mutual: Mutual) -> None:
    mutual.give("short", mutual.clients, not_after=datetime.now(UTC) + timedelta(seconds=4))
    with mutual.channel("short") as channel, requests.Session() as session, mutual.channel(None) as other:
        given = {"authorization": mutual.handshake(channel)}
        assert mutual.calls(channel) == mutual.asks("short", session=session) == mutual.calls(other, given) == "etl"
        assert eventually(lambda: mutual.calls(channel) != "etl", 20)
        # Over the connections that are open.
        assert re.match('UNAUTHENTICATED the certificate of ".*" has expired', mutual.calls(channel))
        assert re.match("401 .*has expired", mutual.asks("short", session=session))
        assert mutual.calls(other, given).startswith("UNAUTHENTICATED ")
    assert eventually(lambda: mutual.asks("short") == CUT_OFF, 10)


def test_the_authorities_of_clients_are_read_again(mutual: Mutual) -> None:
    path, old, new = mutual.folder / "clients.pem", mutual.clients.cert_pem.bytes(), trustme.CA()
    mutual.give("new", new)
    assert (mutual.asks("etl"), mutual.asks("new")) == ("etl", CUT_OFF)
    with mutual.channel("etl") as channel, requests.Session() as session, mutual.channel(None) as other:
        given = {"authorization": mutual.handshake(channel)}
        assert mutual.calls(channel) == mutual.asks("etl", session=session) == mutual.calls(other, given) == "etl"
        path.write_bytes(old + new.cert_pem.bytes())
        assert eventually(lambda: mutual.asks("new") == "etl", 10)
        # One that is added leaves the others as they are.
        assert mutual.calls(channel) == mutual.asks("etl", session=session) == mutual.calls(other, given) == "etl"
        path.write_bytes(new.cert_pem.bytes())
        assert eventually(lambda: mutual.asks("etl") == CUT_OFF, 10)
        # Over the connections that are open, and with what was given for it.
        assert re.match('UNAUTHENTICATED the certificate of ".*" is of an authority that is not in', mutual.calls(channel))
        assert re.match("401 .* is of an authority that is not in", mutual.asks("etl", session=session))
        assert mutual.calls(other, given).startswith("UNAUTHENTICATED ")
        assert mutual.asks("new") == "etl"
    for broken in (b"", b"nothing", new.cert_pem.bytes()[:200], new.cert_pem.bytes().replace(b"M", b"N")):
        before = mutual.failures()
        path.write_bytes(broken)
        assert eventually(lambda before=before: mutual.failures() > before, 10), broken
        assert (mutual.asks("etl"), mutual.asks("new")) == (CUT_OFF, "etl")
    path.write_bytes(old + new.cert_pem.bytes())
    assert eventually(lambda: mutual.asks("etl") == "etl", 10)
    assert mutual.asks("new") == "etl"
    path.write_bytes(old)
    assert eventually(lambda: mutual.asks("new") == CUT_OFF, 10)
    assert mutual.asks("etl") == "etl"


def test_headers_count_before_the_certificate_and_one_counts_of_each(mutual: Mutual) -> None:
    """All means are there at once: each alone, each beside a certificate, good or not, and each wrong one beside good ones."""
    password = {"authorization": basic("ann", "correct")}
    with mutual.channel(None) as channel:
        granted = mutual.handshake(channel, password)
    right = {
        "bob": f"Bearer {mutual.api}",
        "ann": granted,
        "cid": f"Bearer {token(OF_JWT, 'RS256', good(sub='cid'))}",
        " ann": password["authorization"],
    }
    wrong = [
        "Bearer nexus_guess",
        granted[:-4],
        f"Bearer {token(rsa_key(None), 'RS256')}",
        basic("ann", "wrong"),
        "Digest etl",
        "",
    ]
    again, never = base64.b64encode(granted.removeprefix("Bearer ").encode()).decode(), base64.b64encode(b"guess").decode()
    certificates = [None, "stranger", "etl"]
    # Where there is a header, it counts, whatever else there is.
    cases = [({"authorization": header}, shown, user.strip()) for user, header in right.items() for shown in certificates]
    cases += [({"authorization": header}, shown, None) for header in wrong for shown in certificates]
    cases += [({"authorization": header, "auth-token-bin": never}, "etl", user.strip()) for user, header in right.items()]
    cases += [({"authorization": header, "auth-token-bin": again}, "etl", None) for header in wrong]
    cases += [({"auth-token-bin": again}, shown, "ann") for shown in certificates]
    cases += [({"auth-token-bin": never}, shown, None) for shown in certificates]
    cases += [({}, None, None), ({}, "stranger", None), ({}, "etl", "etl")]
    with contextlib.ExitStack() as stack:
        channels = {shown: stack.enter_context(mutual.channel(shown)) for shown in certificates}
        for headers, shown, user in cases:
            over_http = mutual.asks(shown, headers)
            # gRPC itself writes the bytes of such a header in base64.
            given = {name: base64.b64decode(value) if name.endswith("-bin") else value for name, value in headers.items()}
            over_flight = mutual.calls(channels[shown], given)
            if user:
                assert (over_http, over_flight) == (user, user), (headers, shown)
            else:
                assert (over_http[:4], over_flight[:16]) == ("401 ", "UNAUTHENTICATED "), (headers, shown)


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
