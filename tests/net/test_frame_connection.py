from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from netkit import HOST, NODE, PATIENCE_S, Hostile, Sink, Visit, Wanted, hostile

from p2phub.core.encoding import decode, encode
from p2phub.core.errors import OtherVersion, PeerBusy, PeerError, PeerUnreachable, PeerViolation, StoreError
from p2phub.core.frames import FRAME_SIZE_MAX, HEADER_SIZE, KEY_SIZE, OVERHEAD, TAG_SIZE, Opener, Sealer, plaintext_size
from p2phub.net import bulk, frames
from p2phub.net.connection import WantedChunk
from p2phub.net.frames import FrameConnection
from p2phub.protocol.messages import (
    BULK_PREFACE,
    LARGE_QUERY_SIZE_MAX,
    BulkAnswer,
    ByteRange,
    Hello,
    SpansQuery,
    Ticket,
)
from p2phub.testing import values

TICKET = Ticket(
    values.content("ticket", 16), values.content("client", KEY_SIZE), values.content("server", KEY_SIZE), 600
)
WANTED = Wanted(values.content("file", 950_000))
PIECES = [*WANTED.chunks]


class Server:
    """One end of a bulk connection that knows the ticket, and what to do with it."""

    def __init__(self, visit: Visit, ticket: Ticket = TICKET) -> None:
        self._visit = visit
        self._opener = Opener(ticket.client_key)
        self.sealer = Sealer(ticket.server_key)
        self.preface = visit.read_exactly(len(BULK_PREFACE) + 16)

    def read_query(self) -> SpansQuery:
        header = self._visit.read_exactly(HEADER_SIZE)
        size = plaintext_size(header)
        body = bytearray(self._visit.read_exactly(size + TAG_SIZE))
        plain = bytearray(size)
        self._opener.open_into(header, memoryview(body), memoryview(plain))
        return decode(bytes(plain), SpansQuery, size_max=LARGE_QUERY_SIZE_MAX)

    def frames(self, *plaintexts: bytes) -> bytes:
        return b"".join(self.sealer.seal(plaintext) for plaintext in plaintexts)

    def answer(self, data: list[bytes] = PIECES, *, size: int | None = None) -> bytes:
        """Return a good answer whose content are these plaintexts, each in a frame."""
        size = sum(map(len, data)) if size is None else size
        return self.frames(encode(BulkAnswer(200, size)), *data)


Talk = Callable[[Visit, Server], None]


def talking(talk: Talk) -> Callable[[Visit], None]:
    return lambda visit: talk(visit, Server(visit))


def sending(make: Callable[[Server], bytes]) -> Callable[[Visit], None]:
    """Return a script that answers one query with what `make` returns, and waits."""

    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        visit.send(make(server))
        visit.wait()

    return talking(talk)


def connect(server: Hostile, ticket: Ticket = TICKET) -> FrameConnection:
    return FrameConnection(NODE, HOST, server.port, ticket)


def fetch(connection: FrameConnection, sink: Sink | None = None, *, deadline_s: float = PATIENCE_S) -> Sink:
    sink = sink or Sink()
    connection.fetch(WANTED.spans, WANTED.wanted, sink, deadline_s=deadline_s)
    return sink


def failing(
    script: Callable[[Visit], None], error: type[PeerError], match: str = ".", *, usable: bool = False, **options: Any
) -> Sink:
    """Fetch from a server with this script, which must fail; returns what was given to the sink."""
    sink = Sink()
    with hostile(script, key=None) as server:
        connection = connect(server)
        with pytest.raises(error, match=match) as caught:
            fetch(connection, sink, **options)
        assert type(caught.value) is error
        assert caught.value.peer == str(NODE)
        assert str(caught.value).isprintable()
        assert connection.usable is usable
        connection.close()
    assert sink.data == WANTED.data[: len(sink.data)]
    assert len(sink.chunks) < len(WANTED.chunks)
    return sink


# ── right answers ───────────────────────────────────────────────────────────


def test_a_ticket_opens_a_connection_for_any_number_of_queries() -> None:
    queries: list[SpansQuery] = []

    def talk(visit: Visit, server: Server) -> None:
        assert server.preface == BULK_PREFACE + TICKET.id
        for _ in range(3):
            queries.append(server.read_query())
            visit.send(server.answer())
        visit.wait()

    with hostile(talking(talk), key=None) as server:
        connection = connect(server)
        for _ in range(3):
            assert list(fetch(connection).chunks.values()) == WANTED.chunks
        assert connection.usable
        assert connection.answered
        connection.close()

        assert len(server.visits) == 1
    # A range for each chunk, so that each begins a frame.
    offsets = [number * WANTED.chunk_size for number in range(len(PIECES))]
    assert queries[0].spans == tuple(
        ByteRange(WANTED.root, offset, len(piece)) for offset, piece in zip(offsets, PIECES, strict=True)
    )
    assert queries == [queries[0]] * 3


def test_nothing_crosses_the_network_in_the_clear() -> None:
    with hostile(sending(lambda server: server.answer()), key=None) as server:
        connection = connect(server)
        fetch(connection)
        connection.close()

        assert server.received.startswith(BULK_PREFACE + TICKET.id)
        assert bytes(WANTED.root) not in server.received
        assert TICKET.client_key not in server.received
        assert TICKET.server_key not in server.received


@settings(max_examples=15)
@given(st.lists(st.integers(1, 99_999), max_size=5), st.lists(st.integers(1, 200_000), min_size=1, max_size=8))
def test_a_chunk_may_come_in_any_frames_and_a_frame_in_any_pieces(cuts: list[int], sizes: list[int]) -> None:
    plaintexts = []
    for piece in PIECES:
        edges = sorted({0, *(cut for cut in cuts if cut < len(piece)), len(piece)})
        plaintexts += [piece[begin:end] for begin, end in pairwise(edges)]

    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        data = server.answer(plaintexts)
        for size in sizes * 5:
            visit.send(data[:size])
            data = data[size:]
        visit.send(data)
        visit.wait()

    with hostile(talking(talk), key=None) as server:
        connection = connect(server)
        assert fetch(connection).data == WANTED.data
        connection.close()


def test_a_chunk_of_the_largest_size_comes_in_several_frames() -> None:
    data = values.content("large", 2 * FRAME_SIZE_MAX)
    wanted = [WantedChunk(len(data), blake3(data).digest())]
    halves = [data[:FRAME_SIZE_MAX], data[FRAME_SIZE_MAX:]]
    with hostile(sending(lambda server: server.answer(halves)), key=None) as server:
        connection = connect(server)
        sink = Sink()
        connection.fetch([ByteRange(WANTED.root, 0, len(data))], wanted, sink, deadline_s=PATIENCE_S)
        connection.close()

    assert sink.data == data


# ── what the peer did, and what happened on the way ─────────────────────────


@pytest.mark.parametrize("place", [0, 4, 9])
def test_wrong_bytes_in_a_right_frame_are_a_violation(place: int) -> None:
    pieces = list(PIECES)
    pieces[place] = bytes([pieces[place][0] ^ 1]) + pieces[place][1:]
    sink = failing(sending(lambda server: server.answer(pieces)), PeerViolation, "wrong bytes")

    assert list(sink.chunks) == list(range(place))


# Where a byte may be changed on the way: in the answer's frame, in content, in lengths and tags.
ANSWER_FRAME = len(encode(BulkAnswer(200, len(WANTED.data)))) + OVERHEAD
STREAM = ANSWER_FRAME + len(WANTED.data) + OVERHEAD * len(PIECES)
EDGES = st.sampled_from(
    [offset + delta for offset in (0, ANSWER_FRAME, ANSWER_FRAME + len(PIECES[0]) + OVERHEAD) for delta in range(8)]
)


@settings(max_examples=60)
@given(at=EDGES | st.integers(0, STREAM - 1), bit=st.integers(0, 7))
def test_a_bit_that_is_flipped_on_the_way_is_noticed_and_not_held_against_the_peer(at: int, bit: int) -> None:
    """Whoever forwards the bytes could have done it: else anybody on the way could have honest peers banned."""

    def make(server: Server) -> bytes:
        data = bytearray(server.answer())
        assert len(data) == STREAM
        data[at] ^= 1 << bit
        return bytes(data)

    # A length that was made larger is waited for: so the connection ends after it.
    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        visit.send(make(server))

    failing(talking(talk), PeerUnreachable)


def tampered(server: Server) -> dict[str, Callable[[list[bytes]], bytes]]:
    return {
        "repeated": lambda frames: b"".join([*frames[:2], frames[1], *frames[2:]]),
        "dropped": lambda frames: b"".join([*frames[:2], *frames[3:]]),
        "swapped": lambda frames: b"".join([*frames[:2], frames[3], frames[2], *frames[4:]]),
        "without the first": lambda frames: b"".join(frames[1:]),
        "empty": lambda frames: b"".join([*frames[:2], bytes(4), *frames[2:]]),
        "too long": lambda frames: b"".join([*frames[:2], b"\xff" * 5000, *frames[2:]]),
        "noise": lambda frames: values.content("noise", STREAM),
    }


@pytest.mark.parametrize("how", list(tampered(None)))  # type: ignore[arg-type]
def test_frames_open_only_at_their_own_place(how: str) -> None:
    def make(server: Server) -> bytes:
        sealed = [server.frames(encode(BulkAnswer(200, len(WANTED.data))))]
        sealed += [server.frames(piece) for piece in PIECES]
        return tampered(server)[how](sealed)

    failing(sending(make), PeerUnreachable)


@pytest.mark.parametrize("key", ["client", "other"])
def test_frames_of_another_key_do_not_open(key: str) -> None:
    """Not of another connection, and not what we sent ourselves, thrown back."""

    def make(server: Server) -> bytes:
        server.sealer = Sealer(values.content(key, KEY_SIZE))
        return server.answer()

    assert failing(sending(make), PeerUnreachable).chunks == {}


def test_an_answer_of_another_connection_does_not_open() -> None:
    recorded: list[bytes] = []

    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        if visit.number == 0:
            recorded.append(server.answer())
        visit.send(recorded[0])
        visit.wait()

    other = Ticket(bytes(16), values.content("client 2", KEY_SIZE), values.content("server 2", KEY_SIZE), 600)
    with hostile(lambda visit: talk(visit, Server(visit, (TICKET, other)[visit.number])), key=None) as server:
        first, second = connect(server), connect(server, other)
        assert fetch(first).data == WANTED.data
        with pytest.raises(PeerUnreachable):
            fetch(second)
        first.close()
        second.close()


def violations() -> dict[str, Callable[[Server], bytes]]:
    size = len(WANTED.data)
    return {
        "another size": lambda server: server.answer(size=size - 1),
        "more than a chunk": lambda server: server.answer([PIECES[0] + b"x", *PIECES[1:]], size=size),
        "two chunks in one": lambda server: server.answer([PIECES[0] + PIECES[1], *PIECES[2:]]),
        "no answer": lambda server: server.frames(b"x" * 100, *PIECES),
        "a long answer": lambda server: server.frames(bytes(5000), *PIECES),
        "another form": lambda server: server.frames(encode(BulkAnswer(200, size)) + b"\0", *PIECES),
    }


@pytest.mark.parametrize("what", violations())
def test_a_right_frame_with_something_else_is_a_violation(what: str) -> None:
    """Only the holder of the key can have made it."""
    assert failing(sending(violations()[what]), PeerViolation).chunks == {}


def unknown_forms() -> dict[str, Callable[[Server], bytes]]:
    return {
        "another message": lambda server: server.frames(encode(Hello(b"x")), *PIECES),
        "a status that is none": lambda server: server.frames(b"\xa2dsize\x00fstatus\x01", *PIECES),
    }


@pytest.mark.parametrize("what", unknown_forms())
def test_an_answer_of_another_form_may_be_of_another_version(what: str) -> None:
    assert failing(sending(unknown_forms()[what]), OtherVersion).chunks == {}


# ── refusals ────────────────────────────────────────────────────────────────


def refusing(*answers: BulkAnswer) -> Callable[[Visit], None]:
    def talk(visit: Visit, server: Server) -> None:
        for answer in answers:
            server.read_query()
            visit.send(server.frames(encode(answer)))
        server.read_query()
        visit.send(server.answer())
        visit.wait()

    return talking(talk)


@pytest.mark.parametrize("status", [204, 301, 400, 404, 500, 599])
def test_a_refusal_is_told_and_the_connection_goes_on(status: int) -> None:
    with hostile(refusing(BulkAnswer(status, 0, 0, "not\x1b[2J here\n")), key=None) as server:
        connection = connect(server)
        with pytest.raises(PeerError, match=f"answered {status}: not") as caught:
            fetch(connection)
        assert type(caught.value) is PeerError
        assert str(caught.value).isprintable()
        assert connection.usable
        assert connection.answered

        assert fetch(connection).data == WANTED.data
        connection.close()


@pytest.mark.parametrize(("retry_after", "expected"), [(0, 0.0), (2, 2.0), (60, 60.0), (3600, 60.0)])
def test_a_busy_peer_says_when_to_come_back(retry_after: int, expected: float) -> None:
    with hostile(refusing(BulkAnswer(429, 0, retry_after)), key=None) as server:
        connection = connect(server)
        with pytest.raises(PeerBusy) as caught:
            fetch(connection)
        assert caught.value.retry_after_s == expected

        assert fetch(connection).data == WANTED.data
        connection.close()


# ── connections that fail ───────────────────────────────────────────────────


@pytest.mark.parametrize("end", [0, 3, 10, ANSWER_FRAME, ANSWER_FRAME + 2, ANSWER_FRAME + 150_000, STREAM - 1])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_hangs_up_is_gone(end: int, how: str) -> None:
    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        visit.send(server.answer()[:end])
        if how == "reset":
            visit.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    failing(talking(talk), PeerUnreachable)


@pytest.mark.parametrize("end", [0, 3, 10, ANSWER_FRAME, ANSWER_FRAME + 2, ANSWER_FRAME + 150_000])
def test_a_peer_that_falls_silent_is_too_slow(end: int) -> None:
    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        visit.send(server.answer()[:end])
        visit.wait()

    failing(talking(talk), PeerUnreachable, "too slow", deadline_s=0.4)


def test_a_peer_without_a_byte_for_long_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "STALL_TIMEOUT_S", 0.3)
    failing(Visit.wait, PeerUnreachable, "too slow", deadline_s=1000.0)


@pytest.mark.parametrize("begin", [0, ANSWER_FRAME + 10])
def test_a_trickle_ends_with_the_deadline(begin: int) -> None:
    over = threading.Event()

    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        data = server.answer()
        visit.send(data[:begin])
        for at in range(begin, len(data)):
            visit.send(data[at : at + 1])
            if over.wait(0.02):
                return

    failing(talking(talk), PeerUnreachable, "too slow", deadline_s=0.4)
    over.set()


def test_whether_the_peer_ever_answered_is_known() -> None:
    """So that one can tell a way on which only TLS passes."""
    with hostile(lambda visit: None, key=None) as server:
        connection = connect(server)
        with pytest.raises(PeerUnreachable):
            fetch(connection)
        assert not connection.answered
        assert not connection.usable
    with hostile(sending(lambda server: server.answer()[: ANSWER_FRAME + 5]), key=None) as server:
        connection = connect(server)
        with pytest.raises(PeerUnreachable):
            fetch(connection, deadline_s=0.3)
        assert connection.answered


def test_a_lost_connection_is_not_opened_again() -> None:
    """Its ticket opens no other, and its nonces were used."""

    def talk(visit: Visit, server: Server) -> None:
        server.read_query()
        visit.send(server.answer()[:200_000])

    with hostile(talking(talk), key=None) as server:
        connection = connect(server)
        for _ in range(3):
            with pytest.raises(PeerUnreachable):
                fetch(connection)
            assert not connection.usable

        assert len(server.visits) == 1


def test_where_nobody_listens_nobody_can_be_reached() -> None:
    with socket.create_server((HOST, 0)) as unused:
        port = unused.getsockname()[1]
    connection = FrameConnection(NODE, HOST, port, TICKET)
    with pytest.raises(PeerUnreachable, match=f"{HOST}:{port}"):
        fetch(connection)


def test_an_error_of_the_sink_passes_and_costs_only_the_connection() -> None:
    def full(place: int, data: memoryview) -> None:
        raise StoreError("the disk is full", path="/x")

    with hostile(sending(lambda server: server.answer()), key=None) as server:
        connection = connect(server)
        with pytest.raises(StoreError, match="the disk is full"):
            connection.fetch(WANTED.spans, WANTED.wanted, full, deadline_s=PATIENCE_S)

        assert not connection.usable


# ── giving up ───────────────────────────────────────────────────────────────


@pytest.fixture
def ready() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("end", [None, 0, 3, ANSWER_FRAME, ANSWER_FRAME + 150_000])
def test_abort_ends_a_fetch_that_waits(ready: threading.Event, end: int | None) -> None:
    stop = threading.Event()

    def script(visit: Visit) -> None:
        if end is not None:
            server = Server(visit)
            server.read_query()
            visit.send(server.answer()[:end])
        ready.set()
        stop.wait(1000.0)

    with hostile(script, key=None) as server:
        connection = connect(server)

        def abort() -> None:
            ready.wait(PATIENCE_S)
            connection.abort()

        thread = threading.Thread(target=abort)
        thread.start()
        with pytest.raises(PeerUnreachable):
            fetch(connection, deadline_s=1000.0)
        thread.join()
        stop.set()
        assert not connection.usable


def test_after_abort_nothing_is_fetched_any_more() -> None:
    def talk(visit: Visit, server: Server) -> None:
        for _ in range(2):
            server.read_query()
            visit.send(server.answer())

    with hostile(talking(talk), key=None) as server:
        fresh = connect(server)
        fresh.abort()
        used = connect(server)
        fetch(used)
        used.abort()
        sink = Sink()
        for connection in (fresh, used):
            with pytest.raises(PeerUnreachable):
                fetch(connection, sink)
            connection.close()
            connection.abort()

    assert sink.chunks == {}


def test_secrets_are_in_no_text() -> None:
    shown = f"{TICKET!r} {TICKET} {FrameConnection(NODE, HOST, 1, TICKET)} {[TICKET]!r}"

    for secret in (TICKET.client_key, TICKET.server_key):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_both_kinds_of_connection_wait_alike() -> None:
    assert frames.CONNECT_TIMEOUT_S == bulk.CONNECT_TIMEOUT_S
