"""Serve a bulk connection: plain TCP that carries encrypted frames under a ticket (spec/bulk.md).

A connection asks as often as it likes for byte ranges, with the same query as over
HTTPS, and gets the same answers in frames. Waiting is done by trio, sending by a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from p2phub.core.encoding import encode
from p2phub.core.errors import InvalidData
from p2phub.core.frames import (
    FRAME_SIZE_MAX,
    HEADER_SIZE,
    KEY_SIZE,
    OVERHEAD,
    TAG_SIZE,
    Opener,
    Sealer,
    plaintext_size,
)
from p2phub.protocol.messages import (
    BULK_PREFACE,
    LARGE_QUERY_SIZE_MAX,
    TICKET_ID_SIZE,
    TICKET_TTL_S,
    BulkAnswer,
    Ticket,
)

from .door import (
    IDLE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    SEND_TIMEOUT_S,
    FilePart,
    Handler,
    Request,
    Response,
)
from .pacing import Pacer
from .sending import Sender

TICKETS_MAX = 4096  # given out and not used yet


@dataclass(frozen=True)
class _Issued:
    ticket: Ticket
    expires: float  # time.monotonic()


class TicketOffice:
    """Gives out tickets, and takes each back once."""

    def __init__(self) -> None:
        self._issued: dict[bytes, _Issued] = {}

    def issue(self) -> Ticket:
        """Return a new ticket."""
        now = time.monotonic()
        for identifier, issued in list(self._issued.items()):
            # In the order of their age.
            if issued.expires > now and len(self._issued) < TICKETS_MAX:
                break
            del self._issued[identifier]
        ticket = Ticket(
            id=secrets.token_bytes(TICKET_ID_SIZE),
            client_key=secrets.token_bytes(KEY_SIZE),
            server_key=secrets.token_bytes(KEY_SIZE),
            ttl=TICKET_TTL_S,
        )
        self._issued[ticket.id] = _Issued(ticket, now + TICKET_TTL_S)
        return ticket

    def redeem(self, identifier: bytes) -> Ticket | None:
        """Return the ticket with this id, None if there is none or it was used before."""
        issued = self._issued.pop(identifier, None)
        return issued.ticket if issued and issued.expires > time.monotonic() else None


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
        ticket = tickets.redeem(preface[len(BULK_PREFACE) :])
        if ticket is None:
            return
        connection = _BulkDoor(raw, ticket, handler, host)
        while await connection.answer_one():
            pass
    finally:
        # A clean end (FIN), never a reset: what was sent must still arrive.
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
        raw.close()


class _BulkDoor:
    """One bulk connection."""

    def __init__(self, raw: socket.socket, ticket: Ticket, handler: Handler, host: str) -> None:
        self._socket = raw
        self._sender = Sender(raw)
        self._opener = Opener(ticket.client_key)
        self._sealer = Sealer(ticket.server_key)
        self._handler = handler
        self._host = host
        self._plaintext = memoryview(bytearray(FRAME_SIZE_MAX))
        self._frame = memoryview(bytearray(FRAME_SIZE_MAX + OVERHEAD))

    async def answer_one(self) -> bool:
        """Answer one query; returns whether another may come."""
        with trio.move_on_after(IDLE_TIMEOUT_S) as waiting:
            header = await _receive(self._socket, HEADER_SIZE)
        if waiting.cancelled_caught or header is None:
            return False
        try:
            size = plaintext_size(header)
            if size > LARGE_QUERY_SIZE_MAX:
                return False
            with trio.fail_after(REQUEST_TIMEOUT_S):
                body = await _receive(self._socket, size + TAG_SIZE)
            if body is None:
                return False
            query = memoryview(bytearray(size))
            self._opener.open_into(header, memoryview(body), query)
        except InvalidData:
            return False
        response = await self._handler(Request("POST", "/v1/spans", {}, bytes(query), self._host))
        try:
            await self._sender.send(response.sending, lambda pacer: self._send(response, pacer))
        finally:
            response.release()
        return True

    def _send(self, response: Response, pacer: Pacer) -> None:
        parts: Sequence[FilePart] = () if isinstance(response.body, bytes) else response.body
        self._socket.settimeout(SEND_TIMEOUT_S)
        try:
            self._socket.sendall(self._sealer.seal(encode(_head(response, parts))))
            for part in parts:
                self._send_part(part, pacer)
        finally:
            self._socket.setblocking(False)

    def _send_part(self, part: FilePart, pacer: Pacer) -> None:
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            count = os.preadv(part.file, [self._plaintext[: end - offset]], offset)
            if count == 0:
                raise BrokenPipeError("a file became shorter while it was sent")
            size = self._sealer.seal_into(self._plaintext[:count], self._frame)
            for begin, stop in pacer.pieces(size):
                self._socket.sendall(self._frame[begin:stop])
            offset += count


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
