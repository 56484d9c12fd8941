"""A file on a web server, and a connection that fetches parts of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from blake3 import blake3
from netkit import PATIENCE_S, Sink

from p2phub.core.errors import PeerError
from p2phub.core.ids import ContentId
from p2phub.core.origins import OriginFile, parse_url
from p2phub.net import web
from p2phub.net.connection import WantedChunk
from p2phub.net.origin import OriginConnection
from p2phub.protocol.messages import ByteRange
from p2phub.testing import values
from p2phub.testing.webserver import Behaviour, WebServer

DATA = values.content("file", 950_000)
CHUNK_SIZE = 100_000
CHUNKS = [DATA[at : at + CHUNK_SIZE] for at in range(0, len(DATA), CHUNK_SIZE)]
WANTED = [WantedChunk(len(chunk), blake3(chunk).digest()) for chunk in CHUNKS]
ROOT = ContentId(blake3(DATA).digest())
OTHER_DATA = values.content("other", 70_000)
OTHER = ContentId(blake3(OTHER_DATA).digest())
FILES = {"dir/a file.bin": DATA, "other": OTHER_DATA}
NAME = "models.example"
WHOLE = range(len(CHUNKS))
PART = range(3, 7)
EITHER = pytest.mark.parametrize("part", [WHOLE, PART], ids=["whole", "part"])


def connect(url: str, *, is_given: bool = True, size: int | None = len(DATA)) -> OriginConnection:
    files = {
        ROOT: OriginFile(parse_url(f"{url}/dir/a%20file.bin"), size, "a file.bin"),
        OTHER: OriginFile(parse_url(f"{url}/other"), len(OTHER_DATA), "other"),
    }
    return OriginConnection(NAME, files, is_given=is_given)


def spans(part: range) -> list[ByteRange]:
    """Return a span for each chunk of `part`, as downloads ask for them."""
    return [ByteRange(ROOT, index * CHUNK_SIZE, len(CHUNKS[index])) for index in part]


def fetch(
    connection: OriginConnection, part: range = PART, sink: Sink | None = None, *, deadline_s: float = PATIENCE_S
) -> Sink:
    sink = sink or Sink()
    connection.fetch(spans(part), [WANTED[index] for index in part], sink, deadline_s=deadline_s)
    return sink


def failing(
    error: type[PeerError], match: str, *behaviours: Behaviour, part: range = PART, deadline_s: float = PATIENCE_S
) -> Sink:
    """Fetch from a server that behaves so, which must fail; returns what was given to the sink."""
    sink = Sink()
    with WebServer(FILES, *behaviours) as server:
        connection = connect(server.url)
        with pytest.raises(error, match=match) as caught:
            fetch(connection, part, sink, deadline_s=deadline_s)
        connection.close()
        assert str(server.port) not in str(caught.value)
    assert type(caught.value) is error
    assert caught.value.peer == NAME
    assert NAME in str(caught.value)
    assert str(caught.value).isprintable()
    # Only what is right, only in order.
    assert sink.data == b"".join(CHUNKS[index] for index in part)[: len(sink.data)]
    return sink


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
    """Let names have these addresses."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: object, **options: object) -> list[object]:
        if host not in names:
            return real(host, port, *args, **options)  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def trust(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    web._tls.cache_clear()
