"""An issuer of JSON Web Tokens: its keys at an address on this machine, and tokens good and bad, made by hand."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER, AUDIENCE = "https://login.example.com/", "nexus"
HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
CURVES = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48)}


def b64(data: bytes) -> str:
    """Base64 as tokens have it: of URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    """A number of a key."""
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@dataclass
class Key:
    """A private key with what its public half says of itself."""

    private: object
    id: str | None
    says: dict[str, str] = field(default_factory=dict)

    def jwk(self) -> dict[str, str]:
        """The public half, as RFC 7517 writes it."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            parts = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        elif isinstance(public, ed25519.Ed25519PublicKey):
            raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            parts = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
        else:
            (curve, size), numbers = CURVES[public.curve.name], public.public_numbers()
            parts = {"kty": "EC", "crv": curve, "x": number(numbers.x, size), "y": number(numbers.y, size)}
        return parts | ({"kid": self.id} if self.id else {}) | self.says

    def pem(self) -> bytes:
        """The public half in PEM."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, algorithm: str, text: bytes) -> bytes:
        """A signature as RFC 7518 says."""
        if algorithm == "EdDSA":
            return self.private.sign(text)
        digest = HASHES[algorithm[2:]]()
        if algorithm.startswith("RS"):
            return self.private.sign(text, padding.PKCS1v15(), digest)
        if algorithm.startswith("PS"):
            return self.private.sign(text, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        size = CURVES[self.private.curve.name][1]
        return b"".join(part.to_bytes(size, "big") for part in decode_dss_signature(self.private.sign(text, ec.ECDSA(digest))))


def rsa_key(name: str | None, bits: int = 2048, **says: str) -> Key:
    """A new key of RSA."""
    return Key(rsa.generate_private_key(65537, bits), name, says)


def good(**changed: object) -> dict[str, object]:
    """Claims that are taken; one that is changed to None is left out."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 600} | changed
    return {name: value for name, value in claims.items() if value is not None}


def token(key: Key, algorithm: str, claims: object = None, **header: object) -> str:
    """A token signed by a key."""
    head = {"alg": algorithm, "typ": "JWT"} | ({"kid": key.id} if key.id else {}) | header
    return joined(head, good() if claims is None else claims, lambda text: key.sign(algorithm, text))


def shared(secret: bytes, algorithm: str = "HS256", **header: object) -> str:
    """A token signed by a shared secret."""
    digest = f"sha{algorithm[2:]}"
    return joined({"alg": algorithm, "typ": "JWT"} | header, good(), lambda text: hmac.digest(secret, text, digest))


def joined(header: object, claims: object, sign: Callable[[bytes], bytes]) -> str:
    """The three parts of a token; a header or claims that are text already stay as they are."""
    head, body = (b64(part.encode() if isinstance(part, str) else json.dumps(part).encode()) for part in (header, claims))
    text = f"{head}.{body}"
    return f"{text}.{b64(sign(text.encode()))}"


class Issuer(ThreadingHTTPServer):
    """Serves its keys, and counts how often it was asked."""

    def __init__(self, *keys: Key) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.set: object = None
        self.status, self.asked = 200, 0
        self.gives(*keys)

    def gives(self, *keys: Key) -> None:
        """Has these keys from now on."""
        self.set = {"keys": [key.jwk() for key in keys]}

    @property
    def address(self) -> str:
        """Where its keys are."""
        return f"http://127.0.0.1:{self.server_address[1]}/keys"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked += 1
        body = json.dumps(self.server.set).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def serving(*keys: Key) -> Iterator[Issuer]:
    """An issuer with these keys, for as long as it is needed."""
    with Issuer(*keys) as issuer:
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        try:
            yield issuer
        finally:
            issuer.shutdown()
