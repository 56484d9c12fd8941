"""Web servers that stall or trickle, and requests that are aborted."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest
from blake3 import blake3
from netkit import PATIENCE_S, Sink
from originsight import CHUNKS, FILES, OTHER, OTHER_DATA, WHOLE, connect, failing, fetch

from p2phub.core.errors import PeerError, PeerUnreachable
from p2phub.net import web
from p2phub.net.connection import WantedChunk
from p2phub.protocol.messages import ByteRange
from p2phub.testing.webserver import Asked, Reply, WebServer, slowly, stalling

pytestmark = pytest.mark.usefixtures("no_proxy", "forget_authorities")


@pytest.mark.parametrize("size", [0, 150_000])
def test_a_stall_ends_the_request_and_keeps_what_came(size: int, impatient: None) -> None:
    sink = failing(PeerUnreachable, "is too slow", stalling(size) if size else stalling_head)

    assert sink.data == (CHUNKS[3] if size else b"")


def stalling_head(asked: Asked, reply: Reply) -> Reply:
    """Begin an answer and never end its head; the client closes."""
    time.sleep(3.0)
    return Reply(200, raw=b"")


def test_a_trickle_ends_at_the_deadline(impatient: None) -> None:
    failing(PeerUnreachable, "is too slow", slowly(50_000), deadline_s=1.5)


def test_a_trickle_ends_long_before_what_the_size_would_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    # As slow as the floor allows for the first moments, but then it goes on and on.
    monkeypatch.setattr("p2phub.net.origin.DEADLINE_MIN_S", 0.5)
    monkeypatch.setattr("p2phub.net.origin.DEADLINE_PER_MIB_S", 1.0)
    failing(PeerUnreachable, "is too slow", slowly(100_000), deadline_s=1000.0, part=WHOLE)


def test_many_small_files_have_more_time_than_their_bytes_alone() -> None:
    runs = [ByteRange(OTHER, 0, len(OTHER_DATA))] * 4
    wanted = [WantedChunk(len(OTHER_DATA), blake3(OTHER_DATA).digest())] * 4

    def late(asked: Asked, reply: Reply) -> Reply:
        time.sleep(0.3)
        return reply

    with WebServer(FILES, late) as server:
        connection = connect(server.url)
        sink = Sink()
        connection.fetch(runs, wanted, sink, deadline_s=0.6)
        connection.close()

    assert sink.data == OTHER_DATA * 4


@pytest.mark.parametrize("where", ["connect", "head", "body", "tls"])
def test_abort_ends_a_blocked_request_at_once(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without `abort` this would wait for a minute.
    monkeypatch.setattr(web.Web.left_s, "__defaults__", (60.0,))
    monkeypatch.setattr(web, "CONNECT_TIMEOUT_S", 60.0)
    waiting = threading.Event()
    errors: list[BaseException] = []

    def reached(asked: Asked, reply: Reply) -> Reply:
        waiting.set()
        if where == "head":
            time.sleep(2.0)
        return replace(reply, stall_at=150_000)

    with WebServer(FILES, reached) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}" if where == "tls" else server.url
        connection = connect(url)
        if where == "connect":
            # The name resolves for ever.
            def look_up(*_: object, **__: object) -> list[object]:
                waiting.set()
                time.sleep(5.0)
                return []

            monkeypatch.setattr(socket, "getaddrinfo", look_up)

        def work() -> None:
            try:
                fetch(connection, deadline_s=60.0)
            except PeerError as exc:
                errors.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        if where == "tls":
            silent.settimeout(PATIENCE_S)
            taken, _ = silent.accept()
            taken.recv(10)
        else:
            assert waiting.wait(PATIENCE_S)
        time.sleep(0.1)
        connection.abort()
        start = time.monotonic()
        thread.join(PATIENCE_S)
        assert time.monotonic() - start < 1.9
        assert isinstance(errors[0], PeerUnreachable)
        with pytest.raises(PeerUnreachable, match="given up"):
            fetch(connection)
        connection.close()
