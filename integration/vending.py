"""What Iceberg's REST server lacks: it is asked in the name of somebody, gives keys of the store that end soon, and can go wrong.

The names are those of Iceberg's REST OpenAPI, of RFC 6749, and of the properties of Iceberg's S3FileIO.
"""

import base64
import contextlib
import http.client
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import s3

ID, SECRET = "gateway", "canary-client-secret"
REGION = "us-east-1"
TOKENS = "/v1/oauth/tokens"
TABLE = re.compile(r"/v1/namespaces/[^/]+/tables/[^/]+")
# Of a connection, and not of what it carries.
HOP = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
Headers = list[tuple[str, str]]


class Handler(BaseHTTPRequestHandler):
    """A request of a stub; it may be passed on as it came."""

    protocol_version = "HTTP/1.1"
    # The head and the body of an answer are sent one after the other.
    disable_nagle_algorithm = True

    carried = b""

    def body(self) -> bytes:
        self.carried = self.rfile.read(int(self.headers.get("content-length", 0)))
        return self.carried

    def passed_on(self, address: str, body: bytes) -> tuple[int, Headers, bytes]:
        """What the server behind says. The header `host` stays, since signatures are over it."""
        behind = http.client.HTTPConnection(address, timeout=30)
        with contextlib.closing(behind):
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    behind.putheader(name, value)
            behind.endheaders(body)
            answer = behind.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        self.send_response(status)
        # The length of what HEAD does not send is the server's behind.
        length = {name.lower(): value for name, value in headers}.get("content-length", "0")
        self.send_header("content-length", length if self.command == "HEAD" else str(len(body)))
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, status: int, value: object) -> None:
        self.reply(status, [("content-type", "application/json")], json.dumps(value).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Store(ThreadingHTTPServer):
    """Buckets in front of those of another server, whose key it takes with a token alone that has not ended. The server behind
    holds the signature, of which the token is a part. It is read from only."""

    def __init__(self, behind: s3.Bucket) -> None:
        super().__init__(("127.0.0.1", 0), _Objects)
        self.behind = urlsplit(behind.endpoint).netloc
        self.key, self.secret = behind.key, behind.secret
        self.ends: dict[str, float] = {}
        self.refused = 0
        # What it does instead of an answer, where something is wrong with it.
        self.fault: Callable[[Handler], None] | None = None

    @property
    def endpoint(self) -> str:
        """Where S3 clients connect."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def vended(self, seconds: float) -> dict[str, str]:
        """A new key that ends after so many seconds, as the properties of a table."""
        token, ends = f"canary-session-{secrets.token_hex(16)}", time.time() + seconds
        self.ends[token] = ends
        return {
            "s3.access-key-id": self.key,
            "s3.secret-access-key": self.secret,
            "s3.session-token": token,
            "s3.session-token-expires-at-ms": str(int(ends * 1000)),
            "s3.endpoint": self.endpoint,
            "s3.path-style-access": "true",
            "client.region": REGION,
        }

    def all_ended(self) -> bool:
        """Whether no key that was given opens anything any more."""
        return time.time() > max(self.ends.values(), default=0)


class _Objects(Handler):
    def do_GET(self) -> None:
        if self.server.fault:
            self.body()
            self.server.fault(self)
            return
        ends = self.server.ends.get(self.headers.get("x-amz-security-token", ""))
        if ends is not None and time.time() <= ends:
            self.reply(*self.passed_on(self.server.behind, self.body()))
            return
        self.server.refused += 1
        # Both as S3 says it.
        status, code = (403, "AccessDenied") if ends is None else (400, "ExpiredToken")
        text = f"<Error><Code>{code}</Code><Message>The provided token is not taken.</Message></Error>"
        self.reply(status, [("content-type", "application/xml")], b"" if self.command == "HEAD" else text.encode())

    do_HEAD = do_GET


class Catalog(ThreadingHTTPServer):
    """A REST catalog in front of another that asks nobody who he is."""

    def __init__(self, behind: str, store: Store, token_life: float, key_life: float) -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        self.behind, self.store = urlsplit(behind).netloc, store
        self.token_life, self.key_life = token_life, key_life
        self.secret = SECRET
        self.tokens: dict[str, float] = {}
        # How often it was asked for a token, and for a table.
        self.asked = self.loads = 0
        # What it does instead of an answer, where something is wrong with it.
        self.fault: Callable[[Handler], None] | None = None
        self.sent = 0
        self.over = threading.Event()

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def token(self) -> str:
        """A new token, which ends as they do now."""
        token = f"canary-token-{secrets.token_hex(16)}"
        self.tokens[token] = time.time() + self.token_life
        return token

    def revoke(self) -> None:
        """Takes no token any more that it has given."""
        self.tokens.clear()

    def tokens_ended(self) -> bool:
        """Whether no token that was given opens anything any more."""
        return time.time() > max(self.tokens.values(), default=0)


class _Calls(Handler):
    def do_GET(self) -> None:
        body, path = self.body(), urlsplit(self.path).path
        if self.server.fault:
            self.server.fault(self)
        elif path == TOKENS and self.command == "POST":
            self.give_token(parse_qs(body.decode()))
        elif refusal := self.refusal():
            code, kind, message = refusal
            self.json(code, {"error": {"message": message, "type": kind, "code": code}})
        else:
            status, headers, answer = self.passed_on(self.server.behind, body)
            if self.command == "GET" and status == 200 and TABLE.fullmatch(path):
                self.server.loads += 1
                answer = self.with_key(answer)
            self.reply(status, headers, answer)

    do_DELETE = do_HEAD = do_POST = do_GET

    def give_token(self, form: dict[str, list[str]]) -> None:
        """RFC 6749: who one is stands in the form or in the header `authorization`."""
        self.server.asked += 1
        [given] = form.get("grant_type", [""])
        if given != "client_credentials":
            self.json(400, {"error": "unsupported_grant_type", "error_description": f"{given} is not known here"})
            return
        _, _, basic = self.headers.get("authorization", "").partition("Basic ")
        said = base64.b64decode(basic).decode() or ":".join(form.get(name, [""])[0] for name in ("client_id", "client_secret"))
        if said != f"{ID}:{self.server.secret}":
            self.json(401, {"error": "invalid_client", "error_description": "the client or its secret is not known here"})
            return
        answer = {
            "access_token": self.server.token(),
            "token_type": "bearer",
            "expires_in": self.server.token_life,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "scope": form.get("scope", ["catalog"])[0],
        }
        self.json(200, answer)

    def refusal(self) -> tuple[int, str, str] | None:
        """Why nothing is said to who asks, with the code and the type of the error."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        ends = self.server.tokens.get(token)
        if kind.lower() != "bearer" or ends is None:
            return 401, "NotAuthorizedException", "Not authorized to make this request"
        return None if time.time() <= ends else (419, "AuthenticationTimeoutException", "Credentials have timed out")

    def with_key(self, answer: bytes) -> bytes:
        """The table that was asked for, with a new key of the store for who wants one."""
        if "vended-credentials" not in self.headers.get("x-iceberg-access-delegation", ""):
            return answer
        table = json.loads(answer)
        key = self.server.store.vended(self.server.key_life)
        table["config"] = {**table.get("config", {}), **key}
        table["storage-credentials"] = [{"prefix": table["metadata"]["location"], "config": key}]
        return json.dumps(table).encode()


def garbage(call: Handler) -> None:
    """Says what is no JSON."""
    call.reply(200, [("content-type", "application/json")], b"<html>\xff\x00 it works!</html>")


def endless(call: Handler) -> None:
    """Says a gigabyte, for as long as anybody listens."""
    call.send_response(200)
    call.send_header("content-type", "application/json")
    call.send_header("content-length", str(1 << 30))
    call.end_headers()
    call.close_connection = True
    with contextlib.suppress(ConnectionError):
        call.wfile.write(b'{"next-page-token": "')
        for _ in range(1 << 14):
            call.wfile.write(b"x" * ((1 << 16) - 1))
            call.server.sent += 1 << 16


def silent(call: Handler) -> None:
    """Says nothing at all."""
    call.server.over.wait()
    call.close_connection = True


@contextmanager
def serving(store: Store, catalog: ThreadingHTTPServer) -> Iterator[None]:
    """Serves a store and a catalog until the block ends."""
    for server in (store, catalog):
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield
    finally:
        catalog.over.set()
        store.shutdown()
        catalog.shutdown()


@contextmanager
def catalog(behind: str, bucket: s3.Bucket, token_life: float = 600, key_life: float = 600) -> Iterator[Catalog]:
    """Serves a catalog and its store in front of those until the block ends; tokens and keys end after so many seconds."""
    with Store(bucket) as store, Catalog(behind, store, token_life, key_life) as catalog, serving(store, catalog):
        yield catalog
