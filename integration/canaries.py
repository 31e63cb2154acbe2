"""Secrets that must not be seen: what a gateway says to its clients is kept, and they are looked for in it in every form."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
import requests

from gateway import Gateway
from wire import Client


@dataclass
class Heard:
    """A gateway and all that it has said, over TLS where there is an authority that issued its certificate."""

    gateway: Gateway
    roots: Path | None
    folder: Path
    said: list[str] = field(default_factory=list, kw_only=True)

    def client(self, authorization: str | None = None) -> Client:
        """A connection."""
        headers = {"authorization": authorization} if authorization else {}
        return Client(self.gateway.flight, roots=self.roots and self.roots.read_bytes(), **headers)

    def asks(self, sql: str, authorization: str | None = None) -> tuple[int, str]:
        """The code and the text of a statement over HTTP; no code where it fails after its first rows, which breaks off."""
        headers = {"authorization": authorization} if authorization else {}
        trusted = {"verify": str(self.roots)} if self.roots else {}
        try:
            answer = requests.post(f"{self.gateway.url}/v1/sql", data=sql.encode(), headers=headers, timeout=60, **trusted)
            code, said = answer.status_code, f"{answer.headers} {answer.text}"
        except requests.exceptions.ChunkedEncodingError as error:
            code, said = 0, str(error)
        self.said.append(f"{sql}: {code} {said}")
        return code, said

    def fails(self, sql: str, authorization: str | None = None) -> grpc.StatusCode:
        """The code of a statement at Flight, which fails."""
        with self.client(authorization) as client, pytest.raises(grpc.RpcError) as error:
            client.rows(sql, 60)
        raised = error.value
        headers = [*(raised.initial_metadata() or ()), *(raised.trailing_metadata() or ())]
        # With the details in their binary header, as the texts that are in them.
        told = [value if isinstance(value, str) else value.decode("latin-1") for _, value in headers]
        self.said.append(f"{sql}: {raised} {raised.debug_error_string()} {told}")
        return raised.code()

    def places(self, statements: int) -> dict[str, str]:
        """What it has said and written, by where; holds that it was at its loudest, and ran more statements than so many."""
        trail = "".join(file.read_text() for file in (self.folder / "trail").glob("*.jsonl"))
        places = {"the log": self.gateway.logged(), "the audit trail": trail, "an answer": "\n".join(self.said)}
        assert " TRACE " in places["the log"]
        assert trail.count('"event":"start"') > statements
        return places


def forms(secret: str) -> Iterator[tuple[str, str]]:
    """What a secret looks like as it is and encoded, by what it is then; also within a longer text that is encoded as a whole."""
    raw = secret.encode()
    yield "as it is", secret
    yield "percent-encoded", quote(secret, safe="")
    yield "quoted", repr(secret)[1:-1]
    yield "hex", raw.hex()
    yield "HEX", raw.hex().upper()
    yield "bytes", ", ".join(map(str, raw))
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # Of six bits each, without those that have some of what stands around.
            whole = slice(-(-before * 8 // 6), (before + len(raw)) * 8 // 6)
            yield f"base64 behind {before}", encode(bytes(before) + raw).decode()[whole]


def nowhere(secrets: dict[str, str], places: dict[str, str]) -> None:
    """Holds that none of the secrets is in a place, whatever it looks like there."""
    for name, secret in secrets.items():
        for form, shown in forms(secret):
            assert len(shown) >= 16
            for place, text in places.items():
                at = text.find(shown)
                assert at < 0, f"{name} is in {place}, {form}: …{text[max(at - 200, 0) : at]}"
