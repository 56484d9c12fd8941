from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from netkit import (
    HOST,
    KEY,
    NODE,
    OTHER,
    PATIENCE_S,
    Files,
    Script,
    Sink,
    Visit,
    Wanted,
    answer,
    answering,
    bomb,
    chunked,
    hostile,
    in_thread,
    open_door,
)

from p2phub.core.encoding import decode
from p2phub.core.errors import PeerBusy, PeerError, PeerUnreachable, PeerViolation, StoreError
from p2phub.core.filetree import CHUNK_SIZE_MAX
from p2phub.core.ids import ContentId
from p2phub.net import bulk as module
from p2phub.net.bulk import HEAD_SIZE_MAX, BulkConnection
from p2phub.net.connection import WantedChunk, one_line
from p2phub.protocol.messages import LARGE_QUERY_SIZE_MAX, ByteRange, SpansQuery
from p2phub.testing import values

WANTED = Wanted(values.content("file", 950_000))
GOOD = answer(WANTED.data)
WAYS = pytest.mark.parametrize("plain", [False, True], ids=["tls", "plain"])


def fetch(connection: BulkConnection, sink: Sink | None = None, *, deadline_s: float = PATIENCE_S) -> Sink:
    sink = sink or Sink()
    connection.fetch(WANTED.spans, WANTED.wanted, sink, deadline_s=deadline_s)
    return sink


def connect(port: int, *, plain: bool = False) -> BulkConnection:
    return BulkConnection(NODE, HOST, port, plain=plain)


def failing(script: Script, error: type[PeerError], match: str = ".", **options: Any) -> Sink:
    """Fetch from a server with this script, which must fail; returns what was given to the sink."""
    sink = Sink()
    with hostile(script) as server:
        connection = connect(server.port)
        with pytest.raises(error, match=match) as caught:
            fetch(connection, sink, **options)
        assert type(caught.value) is error
        assert caught.value.peer == str(NODE)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
        connection.close()
    # Only what is right, only in order.
    assert sink.data == WANTED.data[: len(sink.data)]
    assert len(sink.chunks) < len(WANTED.chunks)
    return sink


# ── right answers ───────────────────────────────────────────────────────────


@WAYS
def test_every_chunk_reaches_the_sink_in_order(plain: bool) -> None:
    requests: list[tuple[bytes, bytes]] = []

    def script(visit: Visit) -> None:
        for _ in range(3):
            requests.append(visit.read_request())
            visit.send(GOOD)
        visit.wait()

    with hostile(script, key=None if plain else KEY) as server:
        connection = connect(server.port, plain=plain)
        for _ in range(3):
            sink = fetch(connection)
            assert list(sink.chunks.values()) == WANTED.chunks
            assert list(sink.chunks) == list(range(len(WANTED.chunks)))
        connection.close()

        assert len(server.visits) == 1
    head, body = requests[0]
    assert head.startswith(b"POST /v1/spans HTTP/1.1\r\n")
    assert f"host: {HOST}:{server.port}".encode() in head.lower()
    assert decode(body, SpansQuery, size_max=LARGE_QUERY_SIZE_MAX) == SpansQuery(tuple(WANTED.spans))


@WAYS
async def test_chunks_of_several_files_come_from_the_real_door(tmp_path: Path, plain: bool) -> None:
    contents = {name: values.content(name, size) for name, size in (("a", 3_000_000), ("b", 1), ("c", 2_500_000))}
    parts = [("a", 1_000_000, 2_000_000), ("b", 0, 1), ("c", 0, CHUNK_SIZE_MAX)]
    files = Files(tmp_path, contents, parts)
    spans = [ByteRange(ContentId(blake3(name.encode()).digest()), offset, length) for name, offset, length in parts]
    pieces = [contents["a"][1_000_000:2_000_000], contents["a"][2_000_000:], b"", contents["b"],
              contents["c"][:CHUNK_SIZE_MAX]]  # fmt: skip
    chunks = [WantedChunk(len(piece), blake3(piece).digest()) for piece in pieces if piece]
    async with open_door(files, plain=plain) as port:
        connection = connect(port, plain=plain)
        for _ in range(2):
            sink = Sink()
            await in_thread(connection.fetch, spans, chunks, sink, deadline_s=PATIENCE_S)
            assert list(sink.chunks.values()) == [piece for piece in pieces if piece]
        connection.close()


def test_an_answer_may_come_in_any_pieces() -> None:
    def script(visit: Visit) -> None:
        visit.read_request()
        at = 0
        for size in (1, 1, 3, 10, 4, 19, 5, 100_000, 1, 99_999, 33_333, 7):
            visit.send(GOOD[at : at + size])
            at += size
        visit.send(GOOD[at:])
        visit.wait()

    with hostile(script) as server:
        connection = connect(server.port)
        assert fetch(connection).data == WANTED.data
        connection.close()


# ── wrong bytes ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", [0, 4, 9])
def test_one_flipped_bit_is_a_violation_and_its_chunk_is_never_seen(place: int) -> None:
    damaged = bytearray(WANTED.data)
    damaged[place * WANTED.chunk_size + 17] ^= 0x40
    sink = failing(answering(answer(bytes(damaged))), PeerViolation, "wrong bytes")

    assert list(sink.chunks) == list(range(place))


@pytest.mark.parametrize(
    "what",
    {
        "zeros": bytes(len(WANTED.data)),
        "shifted": WANTED.data[1:] + WANTED.data[:1],
        "another chunk": WANTED.data[WANTED.chunk_size :] + WANTED.data[: WANTED.chunk_size],
    }.items(),
    ids=lambda what: what[0],
)
def test_other_bytes_of_the_right_number_are_a_violation(what: tuple[str, bytes]) -> None:
    assert failing(answering(answer(what[1])), PeerViolation, "wrong bytes").chunks == {}


def bad_frames() -> dict[str, bytes]:
    data = WANTED.data
    return {
        "a byte short": answer(data[:-1]),
        "a byte long": answer(data + b"x"),
        "no length": answer(data, content_length=None, connection="close"),
        "empty": answer(b""),
        "chunked": answer(chunked(data), content_length=None, transfer_encoding="chunked"),
        "chunked with a length": answer(chunked(data), content_length=str(len(data)), transfer_encoding="chunked"),
        "compressed": answer(data, content_encoding="gzip"),
        "a bomb": answer(bomb(10_000_000), content_encoding="gzip"),
        "two lengths": answer(data, content_length=f"{len(data)}\r\ncontent-length: 5"),
        "a huge length": answer(data, content_length="9" * 19),
        "an endless length": answer(data, content_length="9" * 5000),
        "a signed length": answer(data, content_length=f"+{len(data)}"),
        "a length in hex": answer(data, content_length=hex(len(data))),
        "a length with zeros": answer(data, content_length=f"000{len(data)}"),
        "no HTTP": b"220 mail.example ESMTP\r\n\r\n" + data,
        "an empty head": b"\r\n\r\n" + data,
        "a status that is none": b"HTTP/1.1 abc X\r\n\r\n" + data,
        "another protocol": b"HTTP/2 200 X\r\ncontent-length: 950000\r\n\r\n" + data,
        "a promise first": b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
        "switching protocols": b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + data,
        "noise": values.content("noise", 100_000),
    }


@pytest.mark.parametrize("what", bad_frames())
def test_an_answer_in_another_form_is_a_violation(what: str) -> None:
    assert failing(answering(bad_frames()[what]), PeerViolation).chunks == {}


def test_a_head_without_end_is_cut_off() -> None:
    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(b"HTTP/1.1 200 X\r\n")
        while True:
            visit.send(b"x: " + bytes(1000).replace(b"\0", b"y") + b"\r\n")

    failing(script, PeerViolation, "endless head")


def test_a_large_head_is_taken_up_to_the_limit() -> None:
    with hostile(answering(answer(WANTED.data, x="y" * (HEAD_SIZE_MAX - 500)))) as server:
        connection = connect(server.port)
        assert fetch(connection).data == WANTED.data
        connection.close()


@pytest.mark.parametrize("behind", [b"x", b"HTTP/1.1 200 X\r\ncontent-length: 950000\r\n\r\n" + bytes(950_000)])
def test_bytes_behind_an_answer_are_never_taken_for_content(behind: bytes) -> None:
    with hostile(answering(GOOD + behind, GOOD)) as server:
        connection = connect(server.port)
        assert fetch(connection).data == WANTED.data
        sink = Sink()
        with pytest.raises(PeerError):
            fetch(connection, sink)
        connection.close()

    assert sink.chunks == {}


# ── refusals ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [201, 204, 206, 301, 302, 307, 400, 403, 404, 405, 416, 500, 503])
def test_a_refusal_is_told_and_is_no_violation(status: int) -> None:
    with hostile(answering(GOOD)) as elsewhere:
        location = f"https://{HOST}:{elsewhere.port}/v1/spans"
        body = b"" if status == 204 else b"not all of it is here\n"
        failing(answering(answer(body, status, location=location)), PeerError, f"answered {status}: ")

        assert elsewhere.visits == []


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(None, 1.0), ("0", 0.0), ("7", 7.0), ("99999", 60.0), ("9" * 400, 60.0), ("-5", 1.0), ("soon", 1.0), ("1.5", 1.0)],
)
def test_a_busy_peer_says_when_to_come_back_and_keeps_the_connection(retry_after: str | None, expected: float) -> None:
    headers = {} if retry_after is None else {"retry_after": retry_after}
    with hostile(answering(answer(b"all slots are taken", 429, **headers), GOOD)) as server:
        connection = connect(server.port)
        with pytest.raises(PeerBusy) as caught:
            fetch(connection)
        assert caught.value.retry_after_s == expected
        assert fetch(connection).data == WANTED.data
        connection.close()

        assert len(server.visits) == 1


@pytest.mark.parametrize("status", [400, 404, 500])
def test_after_a_refusal_more_can_be_asked(status: int) -> None:
    answers = [answer(b"not here", status), GOOD, GOOD]

    def script(visit: Visit) -> None:
        while True:
            visit.read_request()
            visit.send(answers.pop(0))

    with hostile(script) as server:
        connection = connect(server.port)
        with pytest.raises(PeerError, match=f"answered {status}: not here"):
            fetch(connection)
        for _ in range(2):
            assert fetch(connection).data == WANTED.data
        connection.close()


@pytest.mark.parametrize("length", [None, "100000000", "abc", "-1", "9" * 5000])
@pytest.mark.parametrize("status", [404, 429])
def test_a_refusal_whose_text_cannot_be_read_costs_the_connection(length: str | None, status: int) -> None:
    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(answer(b"x" * 1000, status, content_length=length) if visit.number == 0 else GOOD)
        visit.wait()

    with hostile(script) as server:
        connection = connect(server.port)
        with pytest.raises(PeerError):
            fetch(connection)
        assert fetch(connection).data == WANTED.data
        connection.close()

        assert len(server.visits) == 2


def test_what_a_peer_says_is_shown_as_plain_text() -> None:
    failing(answering(answer(b"\x1b[2J\x07evil\r\n\xff" * 1000, 500)), PeerError, "evil")

    assert one_line("\x1b[2J a\r\nb\u202e\n") == "[2J a  b"


# ── connections that fail ───────────────────────────────────────────────────


@pytest.mark.parametrize("end", [0, 1, 30, len(GOOD) - len(WANTED.data), len(GOOD) - len(WANTED.data) + 100_000, -1])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_hangs_up_is_gone(end: int, how: str) -> None:
    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(GOOD[:end])
        if how == "reset":
            visit.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    failing(script, PeerUnreachable)


def test_a_peer_that_does_not_answer_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_TIMEOUT_S", 0.3)
    failing(lambda visit: visit.wait(), PeerUnreachable, "too slow")


@pytest.mark.parametrize("end", [0, 40, 200, 300_000])
def test_a_peer_that_falls_silent_is_too_slow(end: int) -> None:
    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(GOOD[:end])
        visit.wait()

    failing(script, PeerUnreachable, "too slow", deadline_s=0.5)


@pytest.mark.parametrize("begin", [0, 10, 200, 300_000])
def test_a_trickle_ends_with_the_deadline(begin: int) -> None:
    """Each byte comes in time, but all of them would take weeks."""
    over = threading.Event()

    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(GOOD[:begin])
        for at in range(begin, len(GOOD)):
            visit.send(GOOD[at : at + 1])
            if over.wait(0.02):
                return

    failing(script, PeerUnreachable, "too slow", deadline_s=0.5)
    over.set()


def test_a_peer_that_takes_no_request_is_too_slow() -> None:
    many = [ByteRange(WANTED.root, number, 1) for number in range(60_000)]
    stop = threading.Event()

    def script(visit: Visit) -> None:
        stop.wait(PATIENCE_S)

    with hostile(script) as server:
        connection = connect(server.port)
        with pytest.raises(PeerUnreachable, match="too slow"):
            connection.fetch(many, WANTED.wanted, Sink(), deadline_s=0.5)
        connection.close()
        stop.set()


def test_a_handshake_that_never_ends_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 1000.0)
    stop = threading.Event()
    with hostile(lambda visit: stop.wait(1000.0), key=None) as server:
        connection = connect(server.port)
        with pytest.raises(PeerUnreachable, match="too slow"):
            fetch(connection, deadline_s=0.3)
        connection.close()
        stop.set()


# ── kept connections ────────────────────────────────────────────────────────


@WAYS
@pytest.mark.parametrize("how", ["close", "reset", "close in the next head"])
def test_a_kept_connection_that_the_peer_closed_is_replaced_once(plain: bool, how: str) -> None:
    fetched = threading.Semaphore(0)

    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(GOOD)
        fetched.acquire()
        if how == "reset":
            visit.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "close in the next head":
            visit.read_request()
            visit.send(b"HTTP/1.1 20")

    with hostile(script, key=None if plain else KEY) as server:
        connection = connect(server.port, plain=plain)
        for number in range(3):
            assert fetch(connection).data == WANTED.data
            fetched.release()
            if how != "close in the next head":
                server.wait_ended(number + 1)
        connection.close()

        assert len(server.visits) == 3


def test_a_peer_that_closes_every_connection_is_asked_twice_and_no_more() -> None:
    def script(visit: Visit) -> None:
        visit.read_request()
        if visit.number == 0:
            visit.send(GOOD)

    with hostile(script) as server:
        connection = connect(server.port)
        fetch(connection)
        with pytest.raises(PeerUnreachable):
            fetch(connection)
        connection.close()

        assert len(server.visits) == 2


def test_another_node_at_the_old_address_is_noticed_when_connecting_again() -> None:
    from p2phub.net.tls import server_context

    contexts = [server_context(KEY), server_context(values.key("other"))]

    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(GOOD)

    with hostile(script, key=None) as server:
        server._tls = contexts[0]
        connection = connect(server.port)
        assert fetch(connection).data == WANTED.data
        server._tls = contexts[1]
        with pytest.raises(PeerUnreachable, match=f"{OTHER} answered instead"):
            fetch(connection)
        connection.close()

        assert server.received.count(b"POST") == 1


def test_nothing_is_left_open_and_a_broken_answer_is_not_gone_on_with() -> None:
    damaged = bytearray(WANTED.data)
    damaged[5] ^= 1
    scripts = [answer(bytes(damaged)), answer(b"short"), GOOD[:-1], GOOD]

    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(scripts[visit.number])
        if scripts[visit.number] != GOOD[:-1]:
            visit.wait()

    with hostile(script) as server:
        connection = connect(server.port)
        for _ in range(3):
            with pytest.raises(PeerError):
                fetch(connection)
            assert connections_to(server.port) == 0
        assert fetch(connection).data == WANTED.data
        assert connections_to(server.port) == 1
        connection.close()
        connection.close()

        assert connections_to(server.port) == 0


def connections_to(port: int) -> int:
    """Return how many sockets of this process are connected to the port here."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(number))) as copy:
                count += copy.getpeername()[:2] == (HOST, port)
        except OSError:
            continue
    return count


def test_an_error_of_the_sink_passes_and_costs_only_the_connection() -> None:
    def full(place: int, data: memoryview) -> None:
        raise StoreError("the disk is full", path="/x")

    with hostile(answering(GOOD)) as server:
        connection = connect(server.port)
        with pytest.raises(StoreError, match="the disk is full"):
            connection.fetch(WANTED.spans, WANTED.wanted, full, deadline_s=PATIENCE_S)
        assert connections_to(server.port) == 0
        assert fetch(connection).data == WANTED.data
        connection.close()


# ── giving up ───────────────────────────────────────────────────────────────


def abort_when(ready: threading.Event, connection: BulkConnection) -> threading.Thread:
    def work() -> None:
        ready.wait(PATIENCE_S)
        connection.abort()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@WAYS
@pytest.mark.parametrize("end", [0, 30, 300_000])
def test_abort_ends_a_fetch_that_waits(plain: bool, end: int) -> None:
    ready = threading.Event()

    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(GOOD[:end])
        ready.set()
        visit.wait()

    with hostile(script, key=None if plain else KEY) as server:
        connection = connect(server.port, plain=plain)
        thread = abort_when(ready, connection)
        with pytest.raises(PeerUnreachable):
            fetch(connection, deadline_s=1000.0)
        thread.join()
        connection.close()


def test_abort_ends_a_fetch_that_is_busy() -> None:
    """One that never waits for long: the peer sends and sends."""
    ready = threading.Event()
    chunk = values.content("chunk", 1000)

    def script(visit: Visit) -> None:
        visit.read_request()
        visit.send(answer(b"", content_length=str(1000 * 1_000_000)))
        while True:
            visit.send(chunk * 100)
            ready.set()

    with hostile(script) as server:
        connection = connect(server.port)
        thread = abort_when(ready, connection)
        wanted = [WantedChunk(1000, blake3(chunk).digest())] * 1_000_000
        with pytest.raises(PeerUnreachable):
            connection.fetch(WANTED.spans, wanted, lambda place, data: None, deadline_s=1000.0)
        thread.join()
        connection.close()


def test_abort_ends_a_fetch_that_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 1000.0)
    ready, stop = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.read()
        ready.set()
        stop.wait(1000.0)

    with hostile(script, key=None) as server:
        connection = connect(server.port)
        thread = abort_when(ready, connection)
        with pytest.raises(PeerUnreachable):
            fetch(connection, deadline_s=1000.0)
        thread.join()
        connection.close()
        stop.set()


@WAYS
def test_after_abort_nothing_is_fetched_any_more(plain: bool) -> None:
    """It may come before the connection is made, or between two requests."""
    with hostile(answering(GOOD, GOOD), key=None if plain else KEY) as server:
        fresh = connect(server.port, plain=plain)
        fresh.abort()
        used = connect(server.port, plain=plain)
        fetch(used)
        used.abort()
        sink = Sink()
        for connection in (fresh, used):
            with pytest.raises(PeerUnreachable):
                fetch(connection, sink)
            connection.close()
            connection.abort()

    assert sink.chunks == {}
