"""Bulk connections: a real door, the real client, and somebody between them (spec/bulk.md)."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import trio
from blake3 import blake3
from netkit import HOST, KEY, NODE, PATIENCE_S, Files, in_thread, open_below, wait_until

from p2phub.core.encoding import encode
from p2phub.core.errors import PeerBusy, PeerError, PeerUnreachable, PeerViolation
from p2phub.core.frames import HEADER_SIZE, TAG_SIZE
from p2phub.core.ids import ContentId
from p2phub.net.bulkdoor import FRAME_SIZE, TicketOffice, serve_bulk
from p2phub.net.connection import WantedChunk
from p2phub.net.door import Handler, Request, Response, serve_peers
from p2phub.net.frames import FrameConnection
from p2phub.net.tls import server_context
from p2phub.protocol.messages import BULK_PREFACE, BulkAnswer, ByteRange, Ticket

ROOT = ContentId(bytes(32))
FIRST, SECOND = bytes(range(256)) * 8192, b"second" * 1000  # 2 MiB: more than one frame; 6 kB


@asynccontextmanager
async def bulk_door(handler: Handler) -> AsyncIterator[tuple[int, TicketOffice]]:
    """Serve `handler` on bulk connections; gives the port and who gives out tickets."""
    office = TicketOffice()

    async def bulk(stream: trio.SocketStream, host: str) -> None:
        await serve_bulk(stream, office, handler, host)

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            await serve_peers(HOST, 0, handler, tls=server_context(KEY), bulk=bulk, task_status=task_status)

        bound = await nursery.start(serve)
        yield bound[1], office
        nursery.cancel_scope.cancel()


def wanted(*chunks: bytes) -> tuple[list[ByteRange], list[WantedChunk]]:
    """Return what to ask for, and what is expected, when these chunks follow each other in one file."""
    offsets = itertools.accumulate((len(chunk) for chunk in chunks), initial=0)
    spans = [ByteRange(ROOT, offset, len(chunk)) for offset, chunk in zip(offsets, chunks, strict=False)]
    return spans, [WantedChunk(len(chunk), blake3(chunk).digest()) for chunk in chunks]


class Got:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.chunks: dict[int, bytes] = {}

    def __call__(self, place: int, data: memoryview) -> None:
        self.chunks[place] = bytes(data)


def files(folder: Path) -> Files:
    """Return a handler that answers with FIRST and SECOND, each from a file of its own."""
    parts = [("first", 0, len(FIRST)), ("second", 0, len(SECOND))]
    return Files(folder, {"first": FIRST, "second": SECOND}, parts)


async def fetch(port: int, ticket: Ticket, got: Got, *chunks: bytes) -> FrameConnection:
    connection = FrameConnection(NODE, HOST, port, ticket)
    spans, expected = wanted(*chunks)
    try:
        await in_thread(connection.fetch, spans, expected, got, deadline_s=PATIENCE_S)
    except BaseException:
        connection.close()
        raise
    return connection


async def test_chunks_arrive_as_they_are_again_and_again_on_one_connection(tmp_path):
    got = Got()
    async with bulk_door(files(tmp_path)) as (port, office):
        connection = await fetch(port, office.issue(), got, FIRST, SECOND)
        first, got.chunks = got.chunks, {}
        spans, expected = wanted(FIRST, SECOND)
        await in_thread(connection.fetch, spans, expected, got, deadline_s=PATIENCE_S)
        connection.close()
        await wait_until(lambda: not open_below(tmp_path), "the door to close its files")

    assert first == got.chunks == {0: FIRST, 1: SECOND}


async def test_a_ticket_opens_one_connection_once(tmp_path):
    async with bulk_door(files(tmp_path)) as (port, office):
        ticket = office.issue()
        connection = await fetch(port, ticket, Got(), FIRST, SECOND)
        got = Got()
        with pytest.raises(PeerUnreachable):
            await fetch(port, ticket, got, FIRST, SECOND)
        connection.close()

    assert got.chunks == {}


async def test_an_expired_or_invented_ticket_opens_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("p2phub.net.bulkdoor.TICKET_TTL_S", 1)
    async with bulk_door(files(tmp_path)) as (port, office):
        invented = Ticket(bytes(16), bytes(16), bytes(16), ttl=600)
        with pytest.raises(PeerUnreachable):
            await fetch(port, invented, Got(), FIRST, SECOND)
        expired = office.issue()
        await trio.sleep(1.1)
        with pytest.raises(PeerUnreachable):
            await fetch(port, expired, Got(), FIRST, SECOND)


async def test_the_office_forgets_the_oldest_tickets_when_too_many_are_out(monkeypatch):
    monkeypatch.setattr("p2phub.net.bulkdoor.TICKETS_MAX", 3)
    office = TicketOffice()
    tickets = [office.issue() for _ in range(5)]

    assert [office.redeem(ticket.id) is not None for ticket in tickets] == [False, False, True, True, True]


async def test_wrong_bytes_are_a_lie_and_never_reach_the_sink(tmp_path):
    got = Got()
    async with bulk_door(files(tmp_path)) as (port, office):
        with pytest.raises(PeerViolation, match="wrong bytes"):
            await fetch(port, office.issue(), got, FIRST, SECOND[:-1] + b"?")

    assert got.chunks == {0: FIRST}


async def test_an_answer_of_another_size_is_a_violation(tmp_path):
    got = Got()
    async with bulk_door(files(tmp_path)) as (port, office):
        with pytest.raises(PeerViolation, match="another size"):
            await fetch(port, office.issue(), got, FIRST)

    assert got.chunks == {}


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Response(404, b"not here"), PeerError),
        (Response(429, b"busy", headers={"retry-after": "7"}), PeerBusy),
        (Response(500, b"a problem"), PeerError),
    ],
)
async def test_a_refusal_leaves_the_connection_usable(response, error):
    async def refuse(request: Request) -> Response:
        return response

    async with bulk_door(refuse) as (port, office):
        connection = FrameConnection(NODE, HOST, port, office.issue())
        for _ in range(2):
            spans, expected = wanted(FIRST)
            with pytest.raises(error) as caught:
                await in_thread(connection.fetch, spans, expected, Got(), deadline_s=PATIENCE_S)
        connection.close()

    assert getattr(caught.value, "retry_after_s", 7.0) == 7.0


async def test_a_file_that_shrinks_while_it_is_sent_ends_the_connection(tmp_path):
    handler = Files(tmp_path, {"first": FIRST[:1000]}, [("first", 0, len(FIRST))])
    got = Got()
    async with bulk_door(handler) as (port, office):
        with pytest.raises(PeerUnreachable):
            await fetch(port, office.issue(), got, FIRST)
        await wait_until(lambda: handler.released == 1, "the answer to be released")

    assert got.chunks == {}


# ── somebody in between ─────────────────────────────────────────────────────


@contextmanager
def between(port: int, change: Callable[[bytes], bytes]) -> Iterator[int]:
    """Forward one connection to `port`; `change` sees all that the server sends, and says what arrives."""
    listener = socket.create_server((HOST, 0))

    def forward() -> None:
        with suppress(OSError):
            client, _ = listener.accept()
            server = socket.create_connection((HOST, port))
            for end in (client, server):
                end.settimeout(PATIENCE_S)
            threading.Thread(target=pump, args=(client, server), daemon=True).start()
            received = bytearray()
            # The head of the answer and all frames of FIRST.
            count = 1 + -(-len(FIRST) // FRAME_SIZE)
            size = len(encode(BulkAnswer(200, len(FIRST)))) + len(FIRST) + count * (HEADER_SIZE + TAG_SIZE)
            while len(received) < size and (piece := server.recv(64 * 1024)):
                received += piece
            client.sendall(change(bytes(received)))
            client.shutdown(socket.SHUT_WR)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(64 * 1024):
                target.sendall(piece)

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(PATIENCE_S)


def frames(data: bytes) -> list[bytes]:
    """Cut what the server sent into frames."""
    found = []
    while len(data) >= HEADER_SIZE:
        size = HEADER_SIZE + int.from_bytes(data[:HEADER_SIZE], "big") + TAG_SIZE
        found.append(data[:size])
        data = data[size:]
    return found


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: flip(data, -5), id="a flipped bit"),
        pytest.param(lambda data: flip(data, len(frames(data)[0]) + 3), id="another length"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut off"),
        pytest.param(lambda data: b"".join(_swapped(frames(data))), id="reordered"),
        pytest.param(lambda data: b"".join([*frames(data)[:2], frames(data)[1]]), id="replayed"),
        pytest.param(lambda data: b"".join([frames(data)[0], *frames(data)[2:]]), id="dropped"),
    ],
)
async def test_what_is_garbled_on_the_way_is_noticed_and_nobody_is_blamed(tmp_path, change):
    handler = Files(tmp_path, {"first": FIRST}, [("first", 0, len(FIRST))])
    got = Got()
    async with bulk_door(handler) as (port, office):
        with between(port, change) as middle, pytest.raises(PeerUnreachable):
            await fetch(middle, office.issue(), got, FIRST)

    assert got.chunks == {}


async def test_somebody_in_between_reads_nothing(tmp_path):
    seen = bytearray()

    def look(data: bytes) -> bytes:
        seen.extend(data)
        return data

    handler = Files(tmp_path, {"first": FIRST}, [("first", 0, len(FIRST))])
    got = Got()
    async with bulk_door(handler) as (port, office):
        with between(port, look) as middle:
            (await fetch(middle, office.issue(), got, FIRST)).close()

    assert got.chunks == {0: FIRST}
    assert bytes(range(64)) not in seen


async def test_a_stranger_on_a_bulk_connection_costs_the_door_nothing(tmp_path):
    handler = files(tmp_path)
    async with bulk_door(handler) as (port, office):
        known = BULK_PREFACE + office.issue().id
        for rubbish in (BULK_PREFACE + bytes(16), b"p" * 24, BULK_PREFACE[:3], known + b"\0" * 50):
            with socket.create_connection((HOST, port)) as stranger:
                stranger.sendall(rubbish)
                stranger.shutdown(socket.SHUT_WR)
                stranger.settimeout(PATIENCE_S)
                answered = await in_thread(stranger.recv, 100)

            assert answered == b""
        connection = await fetch(port, office.issue(), Got(), FIRST, SECOND)
        connection.close()


def _swapped(parts: list[bytes]) -> list[bytes]:
    return [parts[0], parts[2], parts[1]]
