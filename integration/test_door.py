"""Credentials that are not good, at every call of Flight and every page of HTTP: none is let in, but where none are asked for."""

import base64
import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import Gateway, configured, eventually, nexus, users
from issuer import AUDIENCE, ISSUER, Key, b64, good, joined, rsa_key, serving, shared, token
from wire import SERVICE, Client, action, basic, descriptor, field, says, statement

CALLS = {
    "Handshake": b"",
    "ListFlights": b"",
    "GetFlightInfo": descriptor(statement("select 1")),
    "PollFlightInfo": descriptor(statement("select 1")),
    "GetSchema": descriptor(statement("select 1")),
    "DoGet": field(1, b"ticket"),
    "DoPut": b"",
    "DoExchange": b"",
    "DoAction": action("GetSessionOptions", b""),
    "ListActions": b"",
}
# Who asks for these is not asked who they are.
OPEN = {"/livez", "/readyz", "/metrics"}
HEALTH = "/grpc.health.v1.Health/"
# A page of statements, those that look like it, and those that other servers have.
PAGES = [*sorted(OPEN), "/v1/sql", "/v1/sql/", "/v1/sql/x", "//v1/sql", "/V1/SQL", "/v1%2Fsql", "/v1", "/", "/nowhere", "/livez/"]
PAGES += [
    "/healthz",
    "/metrics/x",
    "/debug/pprof/",
    "/config",
    "/.well-known/x",
    "/v1/sql?authorization=none",
    "/v1/sql;x=/livez",
    "/v1/cache/invalidate",
    "/v1/cache/invalidate/",
    "/v1/cache",
]
# What is asked of pages.
ASKED = b"select 6 * 7 as a"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
TEXT = """
[auth]
mode = "basic"
tokens = "tokens.toml"
[auth.users.ann]
password_hash = "{hash}"
[auth.users.bob]
password_hash = "{hash}"
[auth.jwt]
issuer = "{issuer}"
audience = "{audience}"
jwks = "{jwks}"
"""
RSA, OTHER, CURVE = rsa_key("rsa"), rsa_key("other"), Key(ec.generate_private_key(ec.SECP256R1()), "curve")
FOR_SECRETS, SHORT = rsa_key("secrets", use="enc"), rsa_key("short", bits=1024)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, dict[str, bytes]]]]:
    """A gateway, and headers that it must not take, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("door")
    (folder / "tokens.toml").write_text(nexus("token", "--user", "ann").stdout.split("\n", 1)[1])
    hashed = nexus("hash-password", stdin="correct").stdout.strip()
    with serving(RSA, CURVE, FOR_SECRETS, SHORT) as issuer:
        text = TEXT.format(hash=hashed, issuer=ISSUER, audience=AUDIENCE, jwks=issuer.address)
        with configured(folder, text, replicas=1) as gateway:
            url = f"{gateway.url}/v1/sql"
            for let_in in (basic("ann", "correct"), f"Bearer {token(RSA, 'RS256')}", f"Bearer {token(CURVE, 'ES256')}"):
                answer = requests.post(url, data=ASKED, headers={"authorization": let_in}, timeout=10)
                assert answer.status_code == 200, answer.text
            # It is kept now, which is for those alone who come in.
            assert answer.headers["x-nexus-cache"] == "hit"
            yield gateway, bad(gateway, folder)


def bad(gateway: Gateway, folder: Path) -> dict[str, dict[str, bytes]]:
    """Headers of every kind that is not to be taken."""
    now = int(time.time())
    whole = token(RSA, "RS256")
    head, body, signature = whole.split(".")
    sealed = handshaken(gateway)
    revoked = revoke(gateway, folder)
    bearers = {
        "an empty token": "",
        "a sealed token cut short": sealed[:-4],
        "a sealed token with a changed byte": sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:],
        "a revoked API token": revoked,
        "an API token that nobody has": "nexus_" + "A" * 43,
        "the hash of a token": nexus("token", "--user", "x").stdout.split('sha256 = "')[1][:64],
        "no algorithm": f"{b64(json.dumps({'alg': 'none'}).encode())}.{body}.",
        "no algorithm, in other letters": f"{b64(json.dumps({'alg': 'nOnE'}).encode())}.{body}.{signature}",
        "no algorithm, and a key": joined({"alg": "none", "kid": "rsa"}, good(), lambda _: b""),
        "the public key as a secret": shared(RSA.pem(), kid="rsa"),
        "the modulus as a secret": shared(RSA.jwk()["n"].encode(), kid="rsa"),
        "the public key as a secret, longer": shared(RSA.pem(), "HS512", kid="rsa"),
        "an empty secret": shared(b"", kid="rsa"),
        "an empty key name": token(RSA, "RS256", kid=""),
        "an unknown key": token(OTHER, "RS256"),
        "the name of another key": token(OTHER, "RS256", kid="rsa"),
        "no name of a key": token(RSA, "RS256", kid=None),
        "a key that is for secrets": token(FOR_SECRETS, "RS256"),
        "a key that is too short": token(SHORT, "RS256"),
        "an algorithm of another key": joined({"alg": "ES256", "kid": "rsa"}, good(), lambda text: CURVE.sign("ES256", text)),
        "the key within the token": token(OTHER, "RS256", jwk=OTHER.jwk(), kid="rsa"),
        "the address of a key within the token": token(OTHER, "RS256", jku="http://127.0.0.1:1/keys"),
        "something critical": token(RSA, "RS256", crit=["b64"], b64=False),
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "four parts": f"{whole}.{signature}",
        "a changed signature": f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "changed claims": f"{head}.{b64(json.dumps(good(sub='root')).encode())}.{signature}",
        "a signature of nothing": joined({"alg": "ES256", "kid": "curve"}, good(), lambda _: bytes(64)),
        "expired": token(RSA, "RS256", good(exp=now - 60)),
        "expiring as text": token(RSA, "RS256", good(exp=str(now + 600))),
        "expiring never": token(RSA, "RS256", good(exp=None)),
        "expiring at no time": token(RSA, "RS256", good(exp=-1)),
        "not yet": token(RSA, "RS256", good(nbf=now + 600)),
        "another audience": token(RSA, "RS256", good(aud="others")),
        "other audiences": token(RSA, "RS256", good(aud=["others", "nexus2"])),
        "no audience": token(RSA, "RS256", good(aud=None)),
        "another issuer": token(RSA, "RS256", good(iss="https://login.example.org/")),
        "no issuer": token(RSA, "RS256", good(iss=None)),
        "nobody": token(RSA, "RS256", good(sub=None)),
        "nobody by name": token(RSA, "RS256", good(sub="")),
        "a number": token(RSA, "RS256", good(sub=7)),
        "a name with a line break": token(RSA, "RS256", good(sub="ann\nroot")),
        "claims that are a list": token(RSA, "RS256", [1]),
        "claims that are no JSON": token(RSA, "RS256", "{"),
        "a header that is no JSON": f"{b64(b'{')}.{body}.{signature}",
        "dots": "...",
    }
    headers = {name: b"Bearer " + value.encode() for name, value in bearers.items()} | {
        "nothing": None,
        "an empty header": b"",
        "a scheme alone": b"Basic",
        "another scheme": b"Digest ann",
        "no base64": b"Basic !!!",
        "no colon": b"Basic " + base64.b64encode(b"ann"),
        "no name": basic("", "correct").encode(),
        "no password": basic("ann", "").encode(),
        "a wrong password": basic("ann", "wrong").encode(),
        "an unknown name": basic("eve", "correct").encode(),
        "a name in other letters": basic("ANN", "correct").encode(),
        "no UTF-8": b"Basic " + base64.b64encode(b"\xff:\xff"),
    }
    found = {name: {} if value is None else {"authorization": value} for name, value in headers.items()}
    stale = base64.b64encode(whole.replace(".", ",").encode())
    ann, bob, closed = session(gateway, "ann"), session(gateway, "bob"), session(gateway, "ann")
    close(gateway, closed)
    wrong, expired = headers["a wrong password"], headers["expired"]
    return found | {
        "a handshake's token that is none": {"auth-token-bin": stale},
        "a token as a session": {"cookie": b"nexus-session=" + sealed.encode()},
        "a session": {"cookie": ann},
        "a session as a token": {"authorization": b"Bearer " + ann.partition(b"=")[2]},
        "a session, and a wrong password": {"cookie": ann, "authorization": wrong},
        "a session of another user, and a wrong password": {"cookie": bob, "authorization": wrong},
        "a session of another user, and an expired token": {"cookie": bob, "authorization": expired},
        "a closed session": {"cookie": closed},
        "a closed session, and a wrong password": {"cookie": closed, "authorization": wrong},
    }


def session(gateway: Gateway, user: str) -> bytes:
    """The cookie of a session, which is good beside the password of its user and of nobody else."""
    call = action("GetSessionOptions", b"")
    with Client(gateway.flight, user, "correct") as client:
        answer = client.channel.unary_stream(SERVICE + "DoAction")(call, metadata=client.headers, timeout=30)
        list(answer)
        cookie = dict(answer.initial_metadata())["set-cookie"].split(";")[0]
    with Client(gateway.flight, user, "correct", cookie=cookie) as client:
        assert client.rows("select 1 as a") == [{"a": 1}]
    other = "bob" if user == "ann" else "ann"
    assert told(gateway, other, cookie) is grpc.StatusCode.PERMISSION_DENIED
    return cookie.encode()


def close(gateway: Gateway, cookie: bytes) -> None:
    """Closes a session of ann, so that it is good beside nothing."""
    with Client(gateway.flight, "ann", "correct", cookie=cookie.decode()) as client:
        client.action("CloseSession", b"")
    assert told(gateway, "ann", cookie.decode()) is grpc.StatusCode.FAILED_PRECONDITION


def told(gateway: Gateway, user: str, cookie: str) -> grpc.StatusCode:
    """What somebody with a good password is told for a session."""
    with Client(gateway.flight, user, "correct", cookie=cookie) as client, pytest.raises(grpc.RpcError) as error:
        client.rows("select 1 as a")
    return error.value.code()


def handshaken(gateway: Gateway) -> str:
    """A good token of a handshake."""
    with Client(gateway.flight, "ann", "correct") as client:
        return client.handshake().removeprefix("Bearer ")


def revoke(gateway: Gateway, folder: Path) -> str:
    """A token that was let in and is no more."""
    path, before = folder / "tokens.toml", (folder / "tokens.toml").read_text()
    made, _, lines = nexus("token", "--user", "ann").stdout.partition("\n")
    path.write_text(before + lines)
    assert eventually(lambda: says(gateway.url, made)[0] == 200, 10)
    path.write_text(before)
    assert eventually(lambda: says(gateway.url, made)[0] == 401, 10)
    return made


@pytest.mark.parametrize("call", CALLS)
def test_no_call_takes_them(call: str, refused: tuple[Gateway, dict[str, dict[str, bytes]]]) -> None:
    gateway, headers = refused
    assert len(headers) > 40
    with grpc.insecure_channel(gateway.flight) as channel:
        for name, given in headers.items():
            # In a binary header the bytes themselves are given.
            metadata = [(key, base64.b64decode(value) if key.endswith("-bin") else value) for key, value in given.items()]
            with pytest.raises(grpc.RpcError) as error:
                list(channel.stream_stream(SERVICE + call)(iter([CALLS[call]]), metadata=metadata, timeout=30))
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED, f"{name}: {error.value.details()}"


def test_no_page_takes_them(refused: tuple[Gateway, dict[str, dict[str, bytes]]]) -> None:
    gateway, headers = refused
    asked = {("POST", "/v1/sql"): {401}, ("POST", "/v1/cache/invalidate"): {401}}
    # These are no pages, or none for this; who may come in is told so as well.
    asked |= {("GET", "/v1/sql"): {401, 405}, ("PUT", "/v1/sql"): {401, 405}}
    asked |= {("POST", "/v1/sql/"): {401, 404}, ("POST", "/nowhere"): {401, 404}}
    for name, given in headers.items():
        for (method, page), codes in asked.items():
            answer = requests.request(method, gateway.url + page, data=ASKED, headers=given, timeout=30)
            assert answer.status_code in codes, f"{name}: {method} {page}: {answer.status_code} {answer.text}"
            assert answer.status_code != 401 or "www-authenticate" in answer.headers
            assert "42" not in answer.text, f"{name}: {method} {page}: {answer.text}"
        # Who says that it is gRPC is answered as gRPC has it.
        given = given | {"content-type": b"application/grpc"}
        answer = requests.post(f"{gateway.url}/v1/sql", data=ASKED, headers=given, timeout=30)
        assert (answer.headers["grpc-status"], answer.content) == ("16", b""), name
    log = gateway.logged()
    for secret in ("correct", "Bearer ", RSA.jwk()["n"]):
        assert secret not in log


def test_health_and_metrics_are_all_that_is_open(refused: tuple[Gateway, dict[str, dict[str, bytes]]]) -> None:
    gateway, headers = refused
    for given in ({}, headers["a wrong password"], headers["a session"]):
        answered = set()
        for method in METHODS:
            for page in PAGES:
                body = None if method in ("GET", "HEAD") else ASKED
                url = gateway.url + page
                answer = requests.request(method, url, data=body, headers=given, timeout=30, allow_redirects=False)
                assert answer.status_code in (200, 401, 404, 405), f"{method} {page}: {answer.status_code} {answer.text}"
                if answer.status_code == 200:
                    answered.add((method, page))
        assert answered == {(method, page) for method in ("GET", "HEAD") for page in OPEN}
        # It tells numbers, and no name of somebody or something.
        metrics = requests.get(f"{gateway.url}/metrics", headers=given, timeout=30).text
        assert not re.findall(r"(?i)\b(?:ann|bob|select)\b", metrics)


def test_health_is_all_that_is_open_at_flight(refused: tuple[Gateway, dict[str, dict[str, bytes]]]) -> None:
    gateway, _ = refused
    others = ["a.B/C", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "grpc.channelz.v1.Channelz/GetServers"]
    others += ["arrow.flight.protocol.FlightService/Nothing", "arrow.flight.protocol.FlightService/", "grpc.health.v1/Check"]
    with grpc.insecure_channel(gateway.flight) as channel:
        assert channel.unary_unary(HEALTH + "Check")(b"", timeout=30) == b"\x08\x01"
        watch = channel.unary_stream(HEALTH + "Watch")(b"", timeout=30)
        assert next(watch) == b"\x08\x01"
        watch.cancel()
        codes = {}
        for method in (*others, HEALTH[1:] + "Nothing"):
            with pytest.raises(grpc.RpcError) as error:
                list(channel.unary_stream("/" + method)(b"", timeout=30))
            codes[method] = error.value.code()
    assert codes.pop(HEALTH[1:] + "Nothing") is grpc.StatusCode.UNIMPLEMENTED
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}, codes


def test_who_tries_passwords_keeps_no_other_address_out(tmp_path: Path) -> None:
    """More of them than may wait, from one address; somebody else comes in each time, and soon."""
    with configured(tmp_path, users("ann"), replicas=1) as gateway:
        host, port = gateway.http.split(":")

        def asks(source: str, password: str) -> int:
            client = http.client.HTTPConnection(host, int(port), timeout=30, source_address=(source, 0))
            with contextlib.closing(client):
                client.request("POST", "/v1/sql", b"select 1", {"authorization": basic("ann", password)})
                return client.getresponse().status

        over, tried = threading.Event(), []

        def tries() -> None:
            while not over.is_set():
                try:
                    tried.append(asks("127.0.0.2", "wrong"))
                except (OSError, http.client.HTTPException) as error:
                    tried.append(error)
                if tried[-1] == 429:
                    # Whose refusals are to cost this machine little.
                    over.wait(0.05)

        workers = [threading.Thread(target=tries) for _ in range(100)]
        for worker in workers:
            worker.start()
        try:
            assert eventually(lambda: 429 in tried, 20)
            took = []
            for _ in range(10):
                began = time.monotonic()
                assert asks("127.0.0.1", "ann") == 200
                took.append(time.monotonic() - began)
        finally:
            over.set()
            for worker in workers:
                worker.join(30)
        print(f"\n{max(took):.2f} s at most, beside {len(tried)} wrong ones")
        assert max(took) < 5
        assert set(tried) == {401, 429}
