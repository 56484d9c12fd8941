from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from blake3 import blake3
from msgspec.structs import replace
from netkit import HOST, NODE, PATIENCE_S, Caller, Files, Sink, in_thread, open_below, open_door, wait_until

from p2phub.core.encoding import decode, encode
from p2phub.core.errors import PeerBusy, PeerError, PeerUnreachable
from p2phub.core.frames import HEADER_SIZE, TAG_SIZE, Opener, Sealer, plaintext_size
from p2phub.core.ids import ContentId
from p2phub.net import bulkdoor as module
from p2phub.net import receivers
from p2phub.net.bulk import BulkConnection
from p2phub.net.bulkdoor import Issued, TicketOffice, serve_bulk
from p2phub.net.connection import WantedChunk
from p2phub.net.door import Request, Response
from p2phub.net.frames import FrameConnection
from p2phub.protocol.messages import (
    BULK_PREFACE,
    LARGE_QUERY_SIZE_MAX,
    TICKET_TTL_S,
    BulkAnswer,
    ByteRange,
    SpansQuery,
    Ticket,
)
from p2phub.testing import values

MIB = 1024 * 1024
Handler = Callable[[Request], Awaitable[Response]]

CONTENTS = {"large": values.content("large", 5 * MIB), "small": b"small", "other": values.content("other", 2 * MIB)}
PARTS = [("large", 0, MIB), ("large", MIB, 2 * MIB), ("small", 1, 3), ("other", 5, 1_900_000), ("large", 4 * MIB, 1)]
ROOT = ContentId(bytes(32))
SPANS = [ByteRange(ROOT, offset, length) for _, offset, length in PARTS]
PIECES = [CONTENTS[name][offset : offset + length] for name, offset, length in PARTS]
WANTED = [WantedChunk(len(piece), blake3(piece).digest()) for piece in PIECES]


@pytest.fixture
def office() -> TicketOffice:
    return TicketOffice()


def door(office: TicketOffice, handler: Handler):  # type: ignore[no-untyped-def]
    """Serve `handler` over TLS, and over bulk connections with tickets of `office`."""

    async def bulk(stream: trio.SocketStream, host: str) -> None:
        await serve_bulk(stream, office, handler, host)

    return open_door(handler, bulk=bulk)


def ticket_of(issued: Issued | None) -> Ticket | None:
    return issued.ticket if issued else None


def connect(port: int, office: TicketOffice) -> FrameConnection:
    return FrameConnection(NODE, HOST, port, office.issue())


def fetch(connection: FrameConnection | BulkConnection, *, deadline_s: float = PATIENCE_S) -> list[bytes]:
    sink = Sink()
    connection.fetch(SPANS, WANTED, sink, deadline_s=deadline_s)
    return list(sink.chunks.values())


async def refuse(request: Request) -> Response:
    return Response(404, b"nothing is here", "text/plain")


class Talker(Caller):
    """A client that seals its own frames, as it likes."""

    def __init__(self, port: int, ticket: Ticket, **options: int) -> None:
        super().__init__(port, plain=True, **options)  # type: ignore[arg-type]
        self.sealer = Sealer(ticket.client_key)
        self.opener = Opener(ticket.server_key)
        self.send(BULK_PREFACE + ticket.id)

    def read_frame(self) -> bytes:
        header = self.read_exactly(HEADER_SIZE)
        size = plaintext_size(header)
        plain = bytearray(size)
        self.opener.open_into(header, memoryview(self.read_exactly(size + TAG_SIZE)), memoryview(plain))
        return bytes(plain)

    def read_answer(self) -> BulkAnswer:
        return decode(self.read_frame(), BulkAnswer, size_max=4096)

    def read_exactly(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


QUERY = encode(SpansQuery(tuple(SPANS)))


# ── content ─────────────────────────────────────────────────────────────────


async def test_frames_carry_the_bytes_that_tls_carries(office: TicketOffice, tmp_path: Path) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)
    async with door(office, files) as port:
        framed, secure = connect(port, office), BulkConnection(NODE, HOST, port)
        for _ in range(2):
            assert await in_thread(fetch, framed) == await in_thread(fetch, secure) == PIECES
        framed.close()
        secure.close()

    assert files.released == 4
    assert open_below(tmp_path) == []


async def test_the_handler_is_asked_as_over_https(office: TicketOffice) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return await refuse(request)

    async with door(office, handler) as port:
        connection = connect(port, office)
        with pytest.raises(PeerError, match="answered 404: nothing is here"):
            await in_thread(fetch, connection)
        connection.close()

    assert [(each.method, each.path, each.query, each.body, each.host) for each in seen] == [
        ("POST", "/v1/spans", {}, QUERY, HOST)
    ]


async def test_each_range_begins_a_frame(office: TicketOffice, tmp_path: Path) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)

    def talk(port: int) -> list[bytes]:
        with Talker(port, office.issue()) as talker:
            talker.send(talker.sealer.seal(QUERY))
            assert talker.read_answer() == BulkAnswer(200, len(files.expected))
            got, size = [], 0
            while size < len(files.expected):
                got.append(talker.read_frame())
                size += len(got[-1])
            return got

    async with door(office, files) as port:
        got = await in_thread(talk, port)

    begins, edges = {0}, {0}
    for piece in got:
        begins.add(max(begins) + len(piece))
    for _, _, length in PARTS:
        edges.add(max(edges) + length)
    assert edges <= begins
    assert b"".join(got) == files.expected


@pytest.mark.parametrize(
    ("response", "error", "match"),
    [
        (Response(400, b"that is no query", "text/plain"), PeerError, "answered 400: that is no query"),
        (Response(500, b"x" * 5000, "text/plain"), PeerError, "answered 500: x"),
        (Response(404, b"\xff\xfe", "text/plain"), PeerError, "answered 404"),
        (Response(429, b"busy", "text/plain", {"retry-after": "7"}), PeerBusy, "busy"),
    ],
    ids=["400", "500", "404", "429"],
)
async def test_a_refusal_is_told_and_the_connection_goes_on(
    office: TicketOffice, tmp_path: Path, response: Response, error: type[PeerError], match: str
) -> None:
    answers: list[Response] = [response]
    files = Files(tmp_path, CONTENTS, PARTS)

    async def handler(request: Request) -> Response:
        return answers.pop() if answers else await files(request)

    async with door(office, handler) as port:
        connection = connect(port, office)
        with pytest.raises(error, match=match) as caught:
            await in_thread(fetch, connection)
        if isinstance(caught.value, PeerBusy):
            assert caught.value.retry_after_s == 7.0
        assert await in_thread(fetch, connection) == PIECES
        connection.close()


# ── tickets ─────────────────────────────────────────────────────────────────


def test_tickets_are_never_the_same(office: TicketOffice) -> None:
    tickets = [office.issue() for _ in range(100)]
    secrets = [secret for ticket in tickets for secret in (ticket.id, ticket.client_key, ticket.server_key)]

    assert len(set(secrets)) == 300


def test_a_ticket_is_taken_once(office: TicketOffice) -> None:
    first, second = office.issue(), office.issue()

    assert ticket_of(office.redeem(second.id)) == second
    assert ticket_of(office.redeem(first.id)) == first
    for ticket in (first, second):
        assert office.redeem(ticket.id) is None
    assert office.redeem(bytes(16)) is None


def test_a_ticket_that_has_expired_is_worth_nothing(office: TicketOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    old = office.issue()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + TICKET_TTL_S - 5)
    young = office.issue()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + TICKET_TTL_S + 5)

    assert office.redeem(old.id) is None
    assert ticket_of(office.redeem(young.id)) == young


def test_tickets_that_nobody_uses_are_forgotten(office: TicketOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICKETS_MAX", 10)
    tickets = [office.issue() for _ in range(25)]

    assert len(office._issued) <= 10
    assert office.redeem(tickets[0].id) is None
    assert ticket_of(office.redeem(tickets[-1].id)) == tickets[-1]


def test_who_asks_for_ever_more_tickets_takes_them_from_nobody_else(
    office: TicketOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICKETS_MAX", 100)
    before = [office.issue("a") for _ in range(20)]
    flood = [office.issue("greedy") for _ in range(1000)]
    after = [office.issue("b") for _ in range(20)]

    assert [ticket_of(office.redeem(ticket.id)) for ticket in before + after] == before + after
    assert ticket_of(office.redeem(flood[-1].id)) == flood[-1]
    assert office.redeem(flood[0].id) is None


async def test_a_ticket_opens_one_connection(office: TicketOffice, tmp_path: Path) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)
    ticket = office.issue()
    async with door(office, files) as port:
        first, second = (FrameConnection(NODE, HOST, port, ticket) for _ in range(2))
        assert await in_thread(fetch, first) == PIECES
        with pytest.raises(PeerUnreachable):
            await in_thread(fetch, second)
        assert not second.answered
        # The first goes on.
        assert await in_thread(fetch, first) == PIECES
        first.close()


@pytest.mark.parametrize(
    "preface",
    [BULK_PREFACE + bytes(16), b"p2pbulk2" + bytes(16), b"p" * 24, b"POST / HTTP/1.1\r\nhost: x\r\n\r\n", BULK_PREFACE],
    ids=["no ticket", "another version", "noise", "HTTP", "cut short"],
)
async def test_without_a_ticket_nothing_is_said(
    office: TicketOffice, preface: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 0.3)

    async def handler(request: Request) -> Response:
        raise AssertionError

    def talk(port: int) -> bytes:
        with Caller(port, plain=True) as caller:
            return caller.send(preface).rest()

    async with door(office, handler) as port:
        for ticket in (office.issue(), office.issue()):
            assert await in_thread(talk, port) == b""
            assert ticket_of(office.redeem(ticket.id)) == ticket


# ── queries that break the rules ────────────────────────────────────────────


@pytest.mark.parametrize("what", ["flipped", "another key", "second frame first", "empty", "too large", "noise", "cut"])
async def test_a_frame_that_does_not_open_never_reaches_the_handler(
    office: TicketOffice, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request) -> Response:
        raise AssertionError

    def talk(port: int) -> bytes:
        ticket = office.issue()
        frame = bytearray(Sealer(ticket.client_key).seal(QUERY))
        match what:
            case "flipped":
                frame[10] ^= 1
            case "another key":
                frame = bytearray(Sealer(ticket.server_key).seal(QUERY))
            case "second frame first":
                sealer = Sealer(ticket.client_key)
                sealer.seal(QUERY)
                frame = bytearray(sealer.seal(QUERY))
            case "empty":
                frame = bytearray(4)
            case "too large":
                frame = bytearray(Sealer(ticket.client_key).seal(bytes(LARGE_QUERY_SIZE_MAX + 1)))
            case "noise":
                frame = bytearray(values.content("noise", 1000))
            case "cut":
                frame = frame[:-1]
        with Talker(port, ticket) as talker:
            with contextlib.suppress(ConnectionError):  # the door need not read all of it
                talker.send(bytes(frame))
            if what == "cut":
                talker.socket.shutdown(socket.SHUT_WR)
            return talker.rest()

    async with door(office, handler) as port:
        assert await in_thread(talk, port) == b""
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_query_that_is_sent_again_by_somebody_else_is_not_answered(office: TicketOffice) -> None:
    """Who records a connection can play it back, but not be answered twice."""
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return await refuse(request)

    def talk(port: int) -> None:
        ticket = office.issue()
        frame = Sealer(ticket.client_key).seal(QUERY)
        with Talker(port, ticket) as talker:
            assert talker.send(frame).read_answer().status == 404
            assert talker.send(frame).rest() == b""
        with Caller(port, plain=True) as caller:
            assert caller.send(BULK_PREFACE + ticket.id + frame).rest() == b""

    async with door(office, handler) as port:
        await in_thread(talk, port)
    assert len(seen) == 1


async def test_a_query_of_the_largest_size_is_read(office: TicketOffice) -> None:
    seen: list[int] = []

    async def handler(request: Request) -> Response:
        seen.append(len(request.body))
        return await refuse(request)

    def talk(port: int) -> None:
        with Talker(port, office.issue()) as talker:
            for size in (1, LARGE_QUERY_SIZE_MAX):
                assert talker.send(talker.sealer.seal(bytes(size))).read_answer().status == 404

    async with door(office, handler) as port:
        await in_thread(talk, port)
    assert seen == [1, LARGE_QUERY_SIZE_MAX]


# ── waiting ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sent", [0, 2, 10])
async def test_who_falls_silent_is_let_go(office: TicketOffice, sent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_REQUEST_TIMEOUT_S", "REQUEST_TIMEOUT_S"):
        monkeypatch.setattr(module, name, 0.3)

    def talk(port: int) -> bytes:
        with Talker(port, office.issue()) as talker:
            return talker.send(talker.sealer.seal(QUERY)[:sent]).rest()

    async with door(office, refuse) as port:
        assert await in_thread(talk, port) == b""


async def test_who_has_asked_may_rest_for_longer(office: TicketOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_TIMEOUT_S", 0.2)

    def talk(port: int) -> None:
        with Talker(port, office.issue()) as talker:
            for _ in range(2):
                assert talker.send(talker.sealer.seal(QUERY)).read_answer().status == 404
                time.sleep(0.5)

    async with door(office, refuse) as port:
        await in_thread(talk, port)


# ── connections that end in the middle ──────────────────────────────────────


async def test_a_file_that_shrinks_while_it_is_sent_ends_the_connection(office: TicketOffice, tmp_path: Path) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)

    async def handler(request: Request) -> Response:
        response = await files(request)
        os.truncate(tmp_path / "large", MIB + 1000)
        return response

    async with door(office, handler) as port:
        connection = connect(port, office)
        sink = Sink()
        with pytest.raises(PeerUnreachable):
            await in_thread(connection.fetch, SPANS, WANTED, sink, deadline_s=PATIENCE_S)
        await wait_until(lambda: open_below(tmp_path) == [], "the door to close the files")

    assert list(sink.chunks.values()) == PIECES[:1]


@pytest.mark.parametrize("how", ["vanish", "close"])
async def test_files_are_closed_when_the_client_goes_in_the_middle(
    office: TicketOffice, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path, {"file": bytes(30 * MIB)}, [("file", 0, 30 * MIB)])

    def talk(port: int) -> None:
        for _ in range(3):
            talker = Talker(port, office.issue(), receive_buffer=64 * 1024)
            talker.send(talker.sealer.seal(QUERY))
            assert talker.read_answer().status == 200
            talker.vanish() if how == "vanish" else talker.socket.close()

    async with door(office, files) as port:
        await in_thread(talk, port)
        await wait_until(lambda: files.released == 3, "the door to give up")
    assert open_below(tmp_path) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_who_reads_nothing_is_cut_off_and_blocks_nobody(
    office: TicketOffice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path, CONTENTS | {"file": bytes(30 * MIB)}, PARTS)
    deaf_files = Files(tmp_path, {"file": bytes(30 * MIB)}, [("file", 0, 30 * MIB)])

    async def handler(request: Request) -> Response:
        return await (files(request) if request.body == QUERY else deaf_files(request))

    def deaf(port: int) -> list[Talker]:
        talkers = [Talker(port, office.issue(), receive_buffer=4096) for _ in range(5)]
        for talker in talkers:
            talker.send(talker.sealer.seal(b"deaf"))
        return talkers

    async with door(office, handler) as port:
        talkers = await in_thread(deaf, port)
        await wait_until(lambda: len(open_below(tmp_path)) == 5, "five answers to begin")
        connection = connect(port, office)
        assert await in_thread(fetch, connection) == PIECES
        connection.close()
        monkeypatch.setattr(module, "SEND_TIMEOUT_S", 0.3)
        talkers += await in_thread(deaf, port)
        await wait_until(lambda: deaf_files.released >= 5, "the door to lose patience")
        for talker in talkers:
            talker.socket.close()
        await wait_until(lambda: deaf_files.released == 10, "the door to give up")
    assert open_below(tmp_path) == []


async def test_who_takes_it_slowly_is_cut_off_once_others_wait(
    office: TicketOffice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "RECEIVER_WINDOW_S", 0.3)
    files = Files(tmp_path, {"file": bytes(30 * MIB)}, [("file", 0, 30 * MIB)])
    others_wait = False

    async def handler(request: Request) -> Response:
        return replace(await files(request), others_wait=lambda: others_wait)

    def slow(port: int) -> Talker:
        talker = Talker(port, office.issue(), receive_buffer=4096)
        talker.send(talker.sealer.seal(QUERY))
        return talker

    async with door(office, handler) as port:
        talker = await in_thread(slow, port)
        await trio.sleep(1.0)
        assert files.released == 0
        others_wait = True
        await wait_until(lambda: files.released == 1, "the door to cut it off")
        talker.socket.close()
    assert open_below(tmp_path) == []


async def test_who_takes_it_fast_is_not_cut_off_though_others_wait(
    office: TicketOffice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "RECEIVER_WINDOW_S", 0.1)
    files = Files(tmp_path, {"file": bytes(4 * MIB)}, [("file", 0, 4 * MIB)])

    async def handler(request: Request) -> Response:
        return replace(await files(request), others_wait=lambda: True)

    def talk(port: int) -> None:
        with Talker(port, office.issue(), receive_buffer=64 * 1024) as talker:
            talker.send(talker.sealer.seal(QUERY)).read_answer()
            left = 4 * MIB
            while left:
                # A frame each twentieth of a second: far above the least rate, and slower than the window.
                time.sleep(0.05)
                left -= len(talker.read_frame())

    async with door(office, handler) as port:
        await in_thread(talk, port)


async def test_connections_that_rest_hold_no_buffers(office: TicketOffice, tmp_path: Path) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)
    before = len(module._plaintext_buffers._free)

    async with door(office, files) as port:
        connections = [connect(port, office) for _ in range(20)]
        for connection in connections:
            assert await in_thread(fetch, connection) == PIECES
        assert len(module._plaintext_buffers._free) <= max(before, 1)
        for connection in connections:
            connection.close()


async def test_closing_the_door_ends_answers_and_closes_files(office: TicketOffice, tmp_path: Path) -> None:
    files = Files(tmp_path, {"file": bytes(30 * MIB)}, [("file", 0, 30 * MIB)])
    talkers: list[Talker] = []

    def begin(port: int) -> None:
        talker = Talker(port, office.issue(), receive_buffer=4096)
        talker.send(talker.sealer.seal(QUERY))
        assert talker.read_answer().status == 200
        talkers.append(talker)

    with trio.fail_after(PATIENCE_S):
        async with door(office, files) as port:
            for _ in range(3):
                await in_thread(begin, port)
    assert open_below(tmp_path) == []
    assert files.released == 3
    for talker in talkers:
        talker.socket.close()


async def test_a_bug_in_the_handler_ends_one_connection_and_is_logged(
    office: TicketOffice, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request) -> Response:
        if request.body == b"bug":
            raise ZeroDivisionError("a bug")
        return await refuse(request)

    def talk(port: int) -> None:
        with Talker(port, office.issue()) as other:
            assert other.send(other.sealer.seal(b"x")).read_answer().status == 404
            with Talker(port, office.issue()) as talker:
                assert talker.send(talker.sealer.seal(b"bug")).rest() == b""
            assert other.send(other.sealer.seal(b"x")).read_answer().status == 404

    async with door(office, handler) as port:
        await in_thread(talk, port)
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


async def test_many_connections_at_once_are_all_answered(office: TicketOffice, tmp_path: Path) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)
    results: list[list[bytes]] = []

    async def ask(port: int) -> None:
        connection = connect(port, office)
        results.append(await in_thread(fetch, connection))
        connection.close()

    async with door(office, files) as port, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(partial(ask, port))
        await wait_until(lambda: len(results) == 10, "ten fetches")

    assert results == [PIECES] * 10
    assert open_below(tmp_path) == []
