"""JSON Web Tokens: of every kind that is taken, by the drivers; keys that come and go; a key in a file."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import jdbc
from gateway import Gateway, configured, eventually
from issuer import AUDIENCE, ISSUER, Issuer, Key, good, rsa_key, serving, token
from wire import Client, reload_failures, says

HEADER = "adbc.flight.sql.authorization_header"
KEYS = {
    "rsa": rsa_key("rsa"),
    "pss": rsa_key("pss", alg="PS256", use="sig"),
    "p256": Key(ec.generate_private_key(ec.SECP256R1()), "p256"),
    "p384": Key(ec.generate_private_key(ec.SECP384R1()), "p384"),
    "ed": Key(ed25519.Ed25519PrivateKey.generate(), "ed"),
}
WITHOUT_P384 = [key for name, key in KEYS.items() if name != "p384"]
TEXT = """
[auth]
mode = "basic"
[auth.jwt]
issuer = "{issuer}"
audience = "{audience}"
{keys}
"""


@dataclass
class Guarded:
    """A gateway and the issuer that it trusts."""

    gateway: Gateway
    issuer: Issuer

    def says(self, given: str) -> tuple[int, str]:
        """The code and the text of an answer over HTTP."""
        return says(self.gateway.url, given)


@contextmanager
def guarding(folder: Path) -> Iterator[Guarded]:
    with serving(*KEYS.values()) as issuer:
        text = TEXT.format(issuer=ISSUER, audience=AUDIENCE, keys=f'jwks = "{issuer.address}"')
        with configured(folder, text, replicas=1) as gateway:
            yield Guarded(gateway, issuer)


@pytest.fixture(scope="module")
def withdrawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guarded, float]]:
    """Those whose issuer has withdrawn the key `p384`, and when it did: nobody comes to them with an unknown one."""
    with guarding(tmp_path_factory.mktemp("withdrawn")) as guarded:
        assert guarded.says(token(KEYS["p384"], "ES384"))[0] == 200
        guarded.issuer.gives(*WITHOUT_P384)
        yield guarded, time.monotonic()


@pytest.fixture(scope="module")
def guarded(withdrawn: tuple[Guarded, float], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """What is withdrawn is so from the first test on: the last one waits for what is left of half a minute."""
    with guarding(tmp_path_factory.mktemp("jwt")) as guarded:
        yield guarded


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (key, algorithm)
        for key, algorithms in {
            "rsa": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            "pss": ["PS256"],
            "p256": ["ES256"],
            "p384": ["ES384"],
            "ed": ["EdDSA"],
        }.items()
        for algorithm in algorithms
    ],
)
def test_each_algorithm_is_taken_from_a_key_that_is_for_it(key: str, algorithm: str, guarded: Guarded) -> None:
    assert guarded.says(token(KEYS[key], algorithm))[0] == 200
    several = token(KEYS[key], algorithm, good(aud=["others", AUDIENCE], nbf=int(time.time()), exp=time.time() + 60.5))
    assert guarded.says(several)[0] == 200


def test_adbc_signs_in_with_a_token_and_is_known_by_its_subject(guarded: Guarded) -> None:
    by_token = {HEADER: f"Bearer {token(KEYS['rsa'], 'RS256')}"}
    with flightsql.connect(guarded.gateway.uri, db_kwargs=by_token, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select 3 + 3")
        assert cursor.fetchall() == [(6,)]
        cursor.execute("select distinct principal from system.queries where statement = 'select 3 + 3'")
        assert cursor.fetchall() == [("ann",)]
    late = {HEADER: f"Bearer {token(KEYS['rsa'], 'RS256', good(exp=int(time.time()) - 60))}"}
    with pytest.raises(adbc_driver_manager.Error, match="the token has expired; ask its issuer for another one"):
        flightsql.connect(guarded.gateway.uri, db_kwargs=late, autocommit=True).cursor().execute("select 1")


@pytest.mark.parametrize("jdk", jdbc.VERSIONS)
def test_jdbc_signs_in_with_a_token(jdk: str, guarded: Guarded) -> None:
    given = token(KEYS["ed"], "EdDSA")
    [answer] = jdbc.probe("query", guarded.gateway.flight, "select 2", jdk=jdk, query=f"&token={given}")
    assert answer["value"]["rows"] == [["2"]]


def test_keys_come_and_go_without_a_restart(guarded: Guarded) -> None:
    later = rsa_key("later")
    assert guarded.says(token(later, "RS256"))[0] == 401
    assert guarded.says(token(KEYS["p384"], "ES384"))[0] == 200
    guarded.issuer.gives(*WITHOUT_P384, later)
    assert eventually(lambda: guarded.says(token(later, "RS256"))[0] == 200, 10)
    assert eventually(lambda: guarded.says(token(KEYS["p384"], "ES384"))[0] == 401, 10)
    guarded.issuer.gives(*KEYS.values())
    assert eventually(lambda: guarded.says(token(KEYS["p384"], "ES384"))[0] == 200, 10)


def test_an_issuer_that_withdraws_all_its_keys_lets_nobody_in(guarded: Guarded) -> None:
    known, stranger = token(KEYS["rsa"], "RS256"), token(rsa_key("stranger"), "RS256")
    assert guarded.says(known)[0] == 200
    guarded.issuer.gives()
    # Who has an unknown key makes it be asked.
    assert eventually(lambda: guarded.says(stranger)[0] == guarded.says(known)[0] == 401, 60)
    with Client(guarded.gateway.flight, authorization=f"Bearer {known}") as client, pytest.raises(grpc.RpcError) as error:
        client.rows("select 1 as a")
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    guarded.issuer.gives(*KEYS.values())
    assert eventually(lambda: guarded.says(known)[0] == 200, 60)


def test_unknown_keys_make_the_issuer_be_asked_now_and_then(guarded: Guarded) -> None:
    before, stranger = guarded.issuer.asked, rsa_key("stranger")
    began = time.monotonic()
    for _ in range(50):
        assert guarded.says(token(stranger, "RS256"))[0] == 401
    assert guarded.issuer.asked - before <= 2 + (time.monotonic() - began) / 5


def test_an_issuer_that_is_down_takes_nobody_with_it(guarded: Guarded) -> None:
    url, unknown = guarded.gateway.url, token(rsa_key("new"), "RS256")
    failures = reload_failures(url, "keys of the issuer")
    guarded.issuer.status = 503
    assert eventually(lambda: guarded.says(unknown)[0] == 401 and reload_failures(url, "keys of the issuer") > failures, 10)
    guarded.issuer.status = 200
    assert guarded.says(token(KEYS["rsa"], "RS256"))[0] == 200
    assert eventually(lambda: "503" in guarded.gateway.logged(), 10)


def test_an_issuer_that_is_down_from_the_start_lets_nobody_in(tmp_path: Path) -> None:
    with serving(*KEYS.values()) as issuer:
        issuer.status = 503
        text = TEXT.format(issuer=ISSUER, audience=AUDIENCE, keys=f'jwks = "{issuer.address}"')
        with configured(tmp_path, text, replicas=1) as gateway:
            tokens = [token(KEYS["rsa"], "RS256"), token(KEYS["ed"], "EdDSA"), token(KEYS["p256"], "ES256")]
            assert eventually(lambda: issuer.asked, 10)
            for given in tokens:
                assert says(gateway.url, given)[0] == 401
                with Client(gateway.flight, authorization=f"Bearer {given}") as client, pytest.raises(grpc.RpcError) as error:
                    client.rows("select 1 as a")
                assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert reload_failures(gateway.url, "keys of the issuer") >= 1
            issuer.status = 200
            for given in tokens:
                assert eventually(lambda given=given: says(gateway.url, given)[0] == 200, 60)
                with Client(gateway.flight, authorization=f"Bearer {given}") as client:
                    assert client.rows("select 1 as a") == [{"a": 1}]


def test_keys_that_are_no_keys_are_passed_over(guarded: Guarded) -> None:
    whole = [key.jwk() for key in KEYS.values()]
    odd = [{}, 7, {"kty": "oct", "k": "AAAA", "kid": "rsa"}, {"kty": "EC", "crv": "P-999", "x": "", "y": ""}, {"kty": "LMS"}]
    guarded.issuer.set = {"keys": odd + whole}
    assert eventually(lambda: guarded.says(token(rsa_key("odd"), "RS256"))[0] == 401, 10)
    assert guarded.says(token(KEYS["rsa"], "RS256"))[0] == 200
    guarded.issuer.gives(*KEYS.values())


def test_a_key_that_is_withdrawn_is_taken_no_more_when_its_time_comes(withdrawn: tuple[Guarded, float]) -> None:
    """Only the clock tells, where no token by an unknown key comes."""
    guarded, since = withdrawn
    given = token(KEYS["p384"], "ES384")
    assert eventually(lambda: guarded.says(given)[0] == 401, since + 60 - time.monotonic())
    assert guarded.says(token(KEYS["p256"], "ES256"))[0] == 200


@pytest.mark.parametrize("form", ["pem", "set"])
def test_a_key_in_a_file_is_read_again(form: str, tmp_path: Path) -> None:
    def write(key: Key) -> None:
        (tmp_path / "key").write_bytes(key.pem() if form == "pem" else json.dumps({"keys": [key.jwk()]}).encode())

    old, new = rsa_key("old"), Key(ed25519.Ed25519PrivateKey.generate(), "new")
    write(old)
    text = TEXT.format(issuer=ISSUER, audience=AUDIENCE, keys='key = "key"\nuser = "email"')
    with configured(tmp_path, text, replicas=1) as gateway:
        guarded = Guarded(gateway, None)
        named = good(email="ann@example.com", sub=None)
        assert guarded.says(token(old, "RS256", named))[0] == 200
        assert guarded.says(token(old, "RS256"))[0] == 401
        assert guarded.says(token(new, "EdDSA", named))[0] == 401
        write(new)
        assert eventually(lambda: guarded.says(token(new, "EdDSA", named))[0] == 200, 10)
        assert guarded.says(token(old, "RS256", named))[0] == 401
        failures = reload_failures(gateway.url, "keys of the issuer")
        (tmp_path / "key").write_text("nothing")
        assert eventually(lambda: "neither a JWK set nor a public key in PEM" in gateway.logged(), 10)
        assert reload_failures(gateway.url, "keys of the issuer") > failures
        assert guarded.says(token(new, "EdDSA", named))[0] == 200
