"""API tokens: made by the gateway's own command, kept as hashes, taken by every client, refused once they are taken away."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import requests

import jdbc
from gateway import Gateway, configured, eventually, nexus
from wire import reload_failures, says, statement

TEXT = """
[auth]
mode = "basic"
tokens = "tokens.toml"
[auth.users.ann]
password_hash = "{hash}"
[catalogs.demo]
kind = "memory"
"""
HEADER = "adbc.flight.sql.authorization_header"


@dataclass
class Guarded:
    """A gateway with a file of tokens."""

    gateway: Gateway
    folder: Path

    def grant(self, user: str, more: str = "") -> str:
        """A new token of a user, let in beside the others."""
        made = nexus("token", "--user", user).stdout
        token, _, lines = made.partition("\n")
        path = self.folder / "tokens.toml"
        path.write_text(f"{path.read_text()}\n{lines}{more}\n")
        return token

    def says(self, token: str) -> tuple[int, str]:
        """The code and the text of an answer over HTTP."""
        return says(self.gateway.url, token)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "tokens.toml").write_text("")
    hashed = nexus("hash-password", stdin="correct").stdout.strip()
    with configured(folder, TEXT.format(hash=hashed), replicas=1) as gateway:
        yield Guarded(gateway, folder)


def test_a_token_is_let_in_and_taken_away_without_a_restart(guarded: Guarded) -> None:
    token, other = guarded.grant("etl"), guarded.grant("etl")
    assert eventually(lambda: guarded.says(token)[0] == 200, 10)
    by_token = {HEADER: f"Bearer {token}"}
    with flightsql.connect(guarded.gateway.uri, db_kwargs=by_token, autocommit=True) as etl, etl.cursor() as cursor:
        cursor.execute("select 1 + 1")
        assert cursor.fetchall() == [(2,)]
        cursor.execute("select distinct principal from system.queries where statement = 'select 1 + 1'")
        assert cursor.fetchall() == [("etl",)]
    # What a handshake gives for it holds no longer than it does.
    granted = shaken(guarded, token)
    assert guarded.says(granted)[0] == 200
    path = guarded.folder / "tokens.toml"
    left = path.read_text().split("[[tokens]]")
    path.write_text("[[tokens]]".join(part for part in left if sha256(token) not in part))
    assert eventually(lambda: guarded.says(token)[0] == 401, 10)
    assert "not known, or has expired" in guarded.says(token)[1]
    assert guarded.says(granted)[0] == 401
    assert guarded.says(other)[0] == 200
    with pytest.raises(adbc_driver_manager.Error, match="not known, or has expired"):
        flightsql.connect(guarded.gateway.uri, db_kwargs={HEADER: f"Bearer {token}"}, autocommit=True).cursor().execute(
            "select 1"
        )
    assert token not in guarded.gateway.logged()


@pytest.mark.parametrize("jdk", jdbc.VERSIONS)
def test_jdbc_signs_in_with_a_token(jdk: str, guarded: Guarded) -> None:
    token = guarded.grant("etl")
    assert eventually(lambda: guarded.says(token)[0] == 200, 10)
    [answer] = jdbc.probe("query", guarded.gateway.flight, "select 2", jdk=jdk, query=f"&token={token}")
    assert answer["value"]["rows"] == [["2"]]


def test_a_token_ends_when_it_expires(guarded: Guarded) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5))
    token = guarded.grant("etl", f'expires = "{moment}"')
    assert eventually(lambda: guarded.says(token)[0] == 200, 4)
    assert eventually(lambda: guarded.says(token)[0] == 401, 10)


def test_a_file_that_breaks_leaves_the_tokens_as_they_were(guarded: Guarded) -> None:
    token = guarded.grant("etl")
    assert eventually(lambda: guarded.says(token)[0] == 200, 10)
    path = guarded.folder / "tokens.toml"
    whole, failures = path.read_text(), reload_failures(guarded.gateway.url, "tokens")
    path.write_text(f"{whole}\n[[tokens]]\nuser = 'eve'\nsha256 = '{token}'\n")
    assert eventually(lambda: "the sha256 of token" in guarded.gateway.logged(), 10)
    assert reload_failures(guarded.gateway.url, "tokens") > failures
    assert guarded.says(token)[0] == 200
    path.write_text(whole)


@pytest.mark.parametrize(
    "token", ["nexus_", "nexus_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "nexus_\u00e9", "NEXUS_x", "", "a.b.c"]
)
def test_what_is_no_token_is_refused(guarded: Guarded, token: str) -> None:
    headers = {"authorization": f"Bearer {token}".encode()}
    answer = requests.post(f"{guarded.gateway.url}/v1/sql", data=b"select 1", headers=headers, timeout=10)
    assert answer.status_code == 401


def test_passwords_and_tokens_side_by_side(guarded: Guarded) -> None:
    answer = requests.post(f"{guarded.gateway.url}/v1/sql", data=b"select 1 as a", auth=("ann", "correct"), timeout=10)
    assert answer.status_code == 200
    token = guarded.grant("ann")
    assert eventually(lambda: guarded.says(token)[0] == 200, 10)
    with pytest.raises(pa.ArrowException), flight.connect(guarded.gateway.uri) as client:
        client.get_flight_info(flight.FlightDescriptor.for_command(statement("select 1")))


def shaken(guarded: Guarded, token: str) -> str:
    """What a handshake gives to somebody who comes in with a token."""
    with flight.connect(guarded.gateway.uri) as client:
        options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
        handler = Silent()
        client.authenticate(handler, options)
    return handler.token.decode()


class Silent(flight.ClientAuthHandler):
    """A handshake whose credentials are in its headers."""

    token = b""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        self.token = incoming.read()

    def get_token(self) -> bytes:
        return self.token


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
