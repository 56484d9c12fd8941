"""Those who call a node to keep others out: they are silent, read slowly, or ask too much, on real sockets.

    async with silent(address, 100, "handshake"):
        ...

They speak the real protocol and come from addresses of their own (127.0.0.2 and on), as
strangers do: a node counts by address.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import trio

from p2phub.core.encoding import decode, encode
from p2phub.core.frames import HEADER_SIZE, TAG_SIZE, Opener, Sealer, plaintext_size
from p2phub.core.names import Address
from p2phub.net.peerclient import open_peer
from p2phub.net.tls import client_context
from p2phub.protocol.messages import BULK_PREFACE, BulkAnswer, ByteRange, SpansQuery, Ticket

SOURCE = "127.0.0.2"

Silence = Literal["nothing", "half a hello", "handshake", "half a head", "preface", "half a preface"]


async def call(address: Address, *, source: str = SOURCE, receive_buffer: int | None = None) -> trio.SocketStream:
    """Return a connection to the peer door at `address` from the address `source`."""
    raw = trio.socket.socket()
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await raw.bind((source, 0))
    await raw.connect((address.host, address.port))
    return trio.SocketStream(raw)


async def call_secure(
    address: Address, *, source: str = SOURCE, receive_buffer: int | None = None
) -> trio.SSLStream[trio.SocketStream]:
    """Return a connection to the peer door with TLS, ready for a request."""
    stream = await call(address, source=source, receive_buffer=receive_buffer)
    secure = trio.SSLStream(stream, client_context(address.node), https_compatible=True)
    await secure.do_handshake()
    return secure


def post(path: str, body: bytes) -> bytes:
    """Return a request as it is sent."""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def silent(address: Address, count: int, after: Silence) -> AsyncIterator[list[trio.abc.Stream]]:
    """Give `count` connections that say nothing more after some beginning."""
    streams: list[trio.abc.Stream] = []
    tickets: Sequence[Ticket] = ()
    if after == "preface":
        async with open_peer(address.node, address.host, address.port) as client:
            while len(tickets) < count:
                tickets = [*tickets, *(await client.tickets(16) or ())]

    async def open_one(number: int) -> None:
        match after:
            case "handshake" | "half a head":
                secure = await call_secure(address)
                streams.append(secure)
                if after == "half a head":
                    await secure.send_all(b"POST /v1/spans HTTP/1.1\r\nhost: ")
            case _:
                stream = await call(address)
                streams.append(stream)
                if after == "half a hello":
                    await stream.send_all(b"\x16\x03\x01\x02\x00\x01")
                elif after == "half a preface":
                    await stream.send_all(BULK_PREFACE)
                elif after == "preface":
                    await stream.send_all(BULK_PREFACE + tickets[number].id)

    try:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(open_one, number)
        yield streams
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def is_open(stream: trio.abc.Stream) -> bool:
    """Say whether the other side has left a connection open on which it has nothing to say."""
    with trio.move_on_after(0.01):
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
        return False
    return True


class Reader:
    """Somebody who asks for much and takes it slowly."""

    def __init__(self) -> None:
        self.asked = 0  # queries
        self.taken = 0  # bytes

    async def read(self, stream: trio.abc.Stream, pause_s: float) -> None:
        """Take a byte, again and again, until the other side has had enough."""
        with contextlib.suppress(trio.BrokenResourceError):
            while piece := await stream.receive_some(1):
                self.taken += len(piece)
                await trio.sleep(pause_s)


@asynccontextmanager
async def slow_readers(
    address: Address,
    count: int,
    spans: Sequence[ByteRange],
    *,
    only_tls: bool,
    sources: Sequence[str] = (SOURCE,),
    pause_s: float = 1.0,
) -> AsyncIterator[Reader]:
    """Let `count` connections from `sources` ask for `spans` again and again, and take a byte each `pause_s`."""
    reader = Reader()
    query = encode(SpansQuery(tuple(spans)))

    async def keep_asking(source: str) -> None:
        while True:
            if only_tls:
                stream: trio.abc.Stream = await call_secure(address, source=source, receive_buffer=4096)
                await stream.send_all(post("/v1/spans", query))
            else:
                stream = await call(address, source=source, receive_buffer=4096)
                async with open_peer(address.node, address.host, address.port) as client:
                    (ticket,) = await client.tickets(1) or ()
                await stream.send_all(BULK_PREFACE + ticket.id + Sealer(ticket.client_key).seal(query))
            reader.asked += 1
            await reader.read(stream, pause_s)
            await trio.aclose_forcefully(stream)

    async def one(source: str) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            await keep_asking(source)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, sources[number % len(sources)])
        yield reader
        nursery.cancel_scope.cancel()


class Talker:
    """A bulk connection on which a test says what it likes."""

    def __init__(self, stream: trio.SocketStream, ticket: Ticket) -> None:
        self._stream = stream
        self._sealer = Sealer(ticket.client_key)
        self._opener = Opener(ticket.server_key)
        self._rest = bytearray()

    async def ask(self, spans: Sequence[ByteRange]) -> None:
        """Send one query."""
        await self._stream.send_all(self._sealer.seal(encode(SpansQuery(tuple(spans)))))

    async def answer(self) -> BulkAnswer:
        """Read the head of an answer."""
        return decode(await self._frame(), BulkAnswer, size_max=4096)

    async def content(self, size: int) -> bytes:
        """Read `size` bytes of content, which end with a frame."""
        data = bytearray()
        while len(data) < size:
            data += await self._frame()
        return bytes(data)

    async def _frame(self) -> bytes:
        header = await self._exactly(HEADER_SIZE)
        plain = bytearray(plaintext_size(header))
        self._opener.open_into(header, memoryview(await self._exactly(len(plain) + TAG_SIZE)), memoryview(plain))
        return bytes(plain)

    async def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = await self._stream.receive_some(64 * 1024)
            if not piece:
                raise EOFError
            self._rest += piece
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data


@asynccontextmanager
async def talkers(address: Address, count: int, *, source: str = SOURCE) -> AsyncIterator[list[Talker]]:
    """Give `count` bulk connections."""
    tickets: list[Ticket] = []
    async with open_peer(address.node, address.host, address.port) as client:
        while len(tickets) < count:
            tickets += await client.tickets(16) or ()
    streams = []
    try:
        for ticket in tickets[:count]:
            stream = await call(address, source=source)
            streams.append(stream)
            await stream.send_all(BULK_PREFACE + ticket.id)
        yield [Talker(stream, ticket) for stream, ticket in zip(streams, tickets, strict=False)]
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)
