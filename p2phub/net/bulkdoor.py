"""Serve a bulk connection: plain TCP that carries encrypted frames under a ticket (spec/bulk.md).

A connection asks as often as it likes for byte ranges, with the same query as over
HTTPS, and gets the same answers in frames. Waiting is done by trio, sending by a thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.encoding import encode
from p2phub.core.errors import InvalidData
from p2phub.core.frames import HEADER_SIZE, KEY_SIZE, OVERHEAD, TAG_SIZE, Opener, Sealer, plaintext_size
from p2phub.protocol.messages import (
    BULK_PREFACE,
    LARGE_QUERY_SIZE_MAX,
    TICKET_ID_SIZE,
    TICKET_TTL_S,
    BulkAnswer,
    Ticket,
)

from .buffers import Buffers
from .channels import SEND_TIMEOUT_S, FilePart
from .door import FIRST_REQUEST_TIMEOUT_S, IDLE_TIMEOUT_S, REQUEST_TIMEOUT_S, Handler, Request, Response, caller_of
from .pacing import Pacer
from .queries import Query
from .receivers import send_watched
from .sending import Sender

# Bytes of content in a frame: what is read, encrypted and sent stays in the processor's cache, and what
# is received takes little memory.
FRAME_SIZE = 256 * 1024
SEND_SIZE_MIN = 128 * 1024  # bytes of frames sent at once, but for the last: small files would cost a call each
_plaintext_buffers = Buffers(FRAME_SIZE)
_frame_buffers = Buffers(SEND_SIZE_MIN + FRAME_SIZE + OVERHEAD)

TICKETS_MAX = 4096  # given out and not used yet


@dataclass(frozen=True)
class Issued:
    """A ticket, and who got it."""

    ticket: Ticket
    holder: str  # an address
    expires: float  # time.monotonic()
    caller: Caller  # as it was proved then


class TicketOffice:
    """Gives out tickets, and takes each back once.

    When too many are out, the oldest of whoever holds the most is forgotten: to ask for
    ever more tickets takes them from nobody else.
    """

    def __init__(self) -> None:
        self._issued: dict[bytes, Issued] = {}  # in the order of their age
        self._held: Counter[str] = Counter()  # by holder

    def issue(self, holder: str = "", caller: Caller = ANYBODY) -> Ticket:
        """Return a new ticket for an address, whose connection asks as `caller`."""
        now = time.monotonic()
        while self._issued:
            oldest = next(iter(self._issued))
            if self._issued[oldest].expires > now:
                break
            self._take(oldest)
        if len(self._issued) >= TICKETS_MAX:
            greedy, _ = self._held.most_common(1)[0]
            self._take(next(identifier for identifier, issued in self._issued.items() if issued.holder == greedy))
        ticket = Ticket(
            id=secrets.token_bytes(TICKET_ID_SIZE),
            client_key=secrets.token_bytes(KEY_SIZE),
            server_key=secrets.token_bytes(KEY_SIZE),
            ttl=TICKET_TTL_S,
        )
        self._issued[ticket.id] = Issued(ticket, holder, now + TICKET_TTL_S, caller)
        self._held[holder] += 1
        return ticket

    def redeem(self, identifier: bytes) -> Issued | None:
        """Return the ticket with this id, None if there is none or it was used before."""
        issued = self._take(identifier)
        return issued if issued and issued.expires > time.monotonic() else None

    def _take(self, identifier: bytes) -> Issued | None:
        issued = self._issued.pop(identifier, None)
        if issued:
            self._held[issued.holder] -= 1
            if not self._held[issued.holder]:
                del self._held[issued.holder]
        return issued


async def serve_bulk(stream: trio.SocketStream, tickets: TicketOffice, handler: Handler, host: str) -> None:
    """Answer one bulk connection, whose preface is still to be read, until it ends."""
    raw = socket.socket(fileno=stream.socket.detach())
    try:
        raw.setblocking(False)
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with trio.fail_after(REQUEST_TIMEOUT_S):
            preface = await _receive(raw, len(BULK_PREFACE) + TICKET_ID_SIZE)
        if preface is None or not preface.startswith(BULK_PREFACE):
            return
        issued = tickets.redeem(preface[len(BULK_PREFACE) :])
        if issued is None:
            return
        connection = _BulkDoor(raw, issued, handler, host)
        timeout_s = FIRST_REQUEST_TIMEOUT_S
        while await connection.answer_one(timeout_s):
            timeout_s = IDLE_TIMEOUT_S
    finally:
        # A clean end (FIN), never a reset: what was sent must still arrive.
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
        raw.close()


class _BulkDoor:
    """One bulk connection."""

    def __init__(self, raw: socket.socket, issued: Issued, handler: Handler, host: str) -> None:
        self._socket = raw
        self._sender = Sender(raw)
        self._opener = Opener(issued.ticket.client_key)
        self._sealer = Sealer(issued.ticket.server_key)
        self._caller = issued.caller
        # What a caller proved counts for a while: then it proves it again for another ticket.
        self._ends = issued.expires if issued.caller != ANYBODY else math.inf
        self._handler = handler
        self._host = host

    async def answer_one(self, timeout_s: float) -> bool:
        """Answer one query, which must begin within `timeout_s`; returns whether another may come."""
        with trio.move_on_after(timeout_s) as waiting:
            header = await _receive(self._socket, HEADER_SIZE)
        if waiting.cancelled_caught or header is None or time.monotonic() > self._ends:
            return False
        with Query(caller_of(self._host)) as reading:
            query = await self._read_query(header, reading)
            if query is None:
                return False
            response = await self._handler(Request("POST", "/v1/spans", {}, query, self._host, self._caller))
            del query  # it may be large
        try:
            send = partial(self._sender.send, response.sending, lambda pacer: self._send(response, pacer))
            with trio.CancelScope() as scope, response.guard(scope):
                await send_watched(self._socket, response.others_wait, send)
        finally:
            response.release()
        return not scope.cancelled_caught

    async def _read_query(self, header: bytes, reading: Query) -> bytes | None:
        """Return the query whose frame begins with `header`, None if the connection is to end."""
        try:
            size = plaintext_size(header)
            if size > LARGE_QUERY_SIZE_MAX or not reading.may_have(size):
                return None
            with trio.fail_after(REQUEST_TIMEOUT_S):
                body = await _receive(self._socket, size + TAG_SIZE)
            if body is None:
                return None
            query = memoryview(bytearray(size))
            self._opener.open_into(header, memoryview(body), query)
        except InvalidData:
            return None
        return bytes(query)

    def _send(self, response: Response, pacer: Pacer) -> None:
        parts: Sequence[FilePart] = () if isinstance(response.body, bytes) else response.body
        self._socket.settimeout(SEND_TIMEOUT_S)
        try:
            with _plaintext_buffers.lend() as plaintext, _frame_buffers.lend() as buffer:
                frames = _FrameWriter(self._socket, self._sealer, pacer, plaintext, buffer)
                frames.begin(encode(_head(response, parts)))
                for part in parts:
                    with part.opened() as file:
                        frames.add(file, part.offset, part.length)
                frames.flush()
        finally:
            self._socket.setblocking(False)


class _FrameWriter:
    """Seals the frames of one answer and sends them, small ones together."""

    def __init__(
        self,
        connection: socket.socket,
        sealer: Sealer,
        pacer: Pacer,
        plaintext: memoryview,
        frames: memoryview,
    ) -> None:
        """plaintext, frames: buffers; in the second there is always room for another frame."""
        self._socket = connection
        self._sealer = sealer
        self._pacer = pacer
        self._plaintext = plaintext
        self._frames = frames
        self._filled = 0

    def begin(self, head: bytes) -> None:
        """Make the frame that begins the answer."""
        self._filled = self._sealer.seal_into(memoryview(head), self._frames)

    def add(self, file: int, offset: int, length: int) -> None:
        """Send a part of an open file, whose last frame may wait for more to come."""
        end = offset + length
        while offset < end:
            count = os.preadv(file, [self._plaintext[: end - offset]], offset)
            if count == 0:
                raise BrokenPipeError("a file became shorter while it was sent")
            self._filled += self._sealer.seal_into(self._plaintext[:count], self._frames[self._filled :])
            if self._filled >= SEND_SIZE_MIN:
                self.flush()
            offset += count

    def flush(self) -> None:
        """Send what waits."""
        for begin, end in self._pacer.pieces(self._filled):
            self._socket.sendall(self._frames[begin:end])
        self._filled = 0


def _head(response: Response, parts: Sequence[FilePart]) -> BulkAnswer:
    if response.status == 200:
        return BulkAnswer(200, sum(part.length for part in parts))
    assert isinstance(response.body, bytes)
    retry_after = int(response.headers.get("retry-after", "0"))
    return BulkAnswer(response.status, 0, retry_after, response.body.decode("utf-8", "replace")[:200])


async def _receive(raw: socket.socket, size: int) -> bytes | None:
    """Return the next `size` bytes, None if the connection ends before."""
    data = bytearray()
    while len(data) < size:
        try:
            piece = raw.recv(size - len(data))
        except BlockingIOError:
            await trio.lowlevel.wait_readable(raw)
            continue
        if not piece:
            return None
        data += piece
    await trio.lowlevel.checkpoint()
    return bytes(data)
