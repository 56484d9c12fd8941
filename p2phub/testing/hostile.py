"""Peers and networks at their worst, on real sockets: nodes that lie, stall or leave.

    async with open_home(tmp_path / "liar") as node, serving(node, wrap=flip_bits(node)):
        ...

A hostile node is a real node whose peer door answers through a wrapper: all else is
true. `Link` stands for the network between two nodes: it carries the bytes of their
connections slowly, stops, or breaks, and reads nothing of them.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec.structs
import trio

from p2phub.core.encoding import decode, encode
from p2phub.core.names import Address
from p2phub.net.bulkdoor import serve_bulk
from p2phub.net.channels import FilePart
from p2phub.net.door import Handler, Request, Response, serve_peers
from p2phub.net.tls import server_context
from p2phub.node.node import Node, open_node
from p2phub.node.serve import PeerDoor
from p2phub.node.settings import Settings
from p2phub.protocol.messages import LARGE_QUERY_SIZE_MAX, Have, HaveQuery, SpansQuery
from p2phub.store.layout import Layout

Wrap = Callable[[Handler], Handler]

QUIET_SIZE = 100_000  # bytes a second: less than content, more than a few questions and answers


@asynccontextmanager
async def open_home(folder: Path, **settings: Any) -> AsyncIterator[Node]:
    """Give a node of the home `folder`, in this process; it serves nobody yet. settings: others than usual."""
    async with open_node(Settings(Layout(folder, folder / "store"), **settings)) as node:
        yield node


@asynccontextmanager
async def serving(
    node: Node, *, wrap: Wrap = lambda handler: handler, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Address]:
    """Let `node` answer peers at an address of loopback, through `wrap`; gives its address."""
    async with trio.open_nursery() as nursery:
        door = PeerDoor(node, nursery)
        handler = wrap(door.handle)

        async def bulk(stream: trio.SocketStream, peer_host: str) -> None:
            await serve_bulk(stream, door.tickets, handler, peer_host)

        tls = server_context(node.key)
        _, bound = await nursery.start(partial(serve_peers, host, port, handler, tls=tls, bulk=bulk))
        node.serve_at([f"{host}:{bound}"])
        yield Address(node.id, host, bound)
        nursery.cancel_scope.cancel()


# ── answers ─────────────────────────────────────────────────────────────────


def counting(asked: Counter[str]) -> Wrap:
    """Count the requests by path in `asked`; the answers are right."""

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            asked[request.path] += 1
            return await handler(request)

        return answer

    return wrap


def flip_bits(node: Node) -> Wrap:
    """Flip one bit of every chunk that is sent."""

    def flip(query: SpansQuery, data: bytearray) -> None:
        at = 0
        for span in query.spans:
            chunks = node.store.chunk_lists.find(span.root)
            assert chunks is not None
            for index in range(chunks.index_at(span.offset), chunks.index_at(span.offset + span.length - 1) + 1):
                # Somewhere inside the chunk, each time elsewhere.
                data[at + chunks.offset(index) - span.offset + (7919 * index) % chunks.length(index)] ^= 1 << index % 8
            at += span.length

    return on_spans(flip)


def on_spans(change: Callable[[SpansQuery, bytearray], None]) -> Wrap:
    """Let `change` spoil the content of every answer before it is sent."""

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            response = await handler(request)
            if request.path != "/v1/spans" or response.status != 200 or isinstance(response.body, bytes):
                return response
            data = bytearray(b"".join(_read(part) for part in response.body))
            parts, offset = [], 0
            spoiled = os.memfd_create("spoiled")
            for part in response.body:
                parts.append(FilePart(spoiled, offset, part.length))
                offset += part.length
            response.release()
            change(decode(request.body, SpansQuery, size_max=LARGE_QUERY_SIZE_MAX), data)
            os.pwrite(spoiled, data, 0)
            return Response(200, parts, response.content_type, release=lambda: os.close(spoiled))

        return answer

    return wrap


def elsewhere(node: Node) -> Wrap:
    """Send of every chunk the right bytes of another one that is as long, if the file has one."""

    def move(query: SpansQuery, data: bytearray) -> None:
        at = 0
        for span in query.spans:
            chunks = node.store.chunk_lists.find(span.root)
            readable = node.store.readables.open(span.root)
            assert chunks is not None
            assert readable is not None
            lengths = [chunks.length(index) for index in range(len(chunks))]
            for index in range(chunks.index_at(span.offset), chunks.index_at(span.offset + span.length - 1) + 1):
                others = [other for other, length in enumerate(lengths) if length == lengths[index] and other != index]
                if others and chunks.offset(index) + lengths[index] <= span.offset + span.length:
                    start = at + chunks.offset(index) - span.offset
                    moved = os.pread(readable.file, lengths[index], chunks.offset(others[index % len(others)]))
                    data[start : start + lengths[index]] = moved
            os.close(readable.file)
            at += span.length

    return on_spans(move)


def instead(change: Callable[[bytes], Response]) -> Wrap:
    """Answer every query for content with what `change` makes of the right bytes."""

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            response = await handler(request)
            if request.path != "/v1/spans" or response.status != 200 or isinstance(response.body, bytes):
                return response
            data = b"".join(_read(part) for part in response.body)
            response.release()
            return change(data)

        return answer

    return wrap


def _read(part: FilePart) -> bytes:
    with part.opened() as file:
        return os.pread(file, part.length, part.offset)


def compressed(data: bytes) -> Response:
    """Say that the content is compressed, as a web server might."""
    return Response(200, gzip.compress(data, 1), headers={"content-encoding": "gzip"})


def chunked(data: bytes) -> Response:
    """Send the content in the chunked coding of HTTP."""
    return Response(200, data, headers={"transfer-encoding": "chunked"})


def redirecting(target: str) -> Callable[[bytes], Response]:
    """Send whoever asks for content to another place."""
    return lambda data: Response(307, b"", headers={"location": target})


def losing(share: float) -> Wrap:
    """Answer to every so manyth query for content that it is not here."""
    count = 0

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            nonlocal count
            if request.path == "/v1/spans":
                count += 1
                if int(count * share) > int((count - 1) * share):
                    return Response(404, b"it was here a moment ago", "text/plain")
            return await handler(request)

        return answer

    return wrap


def on_answer(path: str, change: Callable[[bytes], bytes]) -> Wrap:
    """Let `change` spoil the answers to requests whose path begins with `path`."""

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            response = await handler(request)
            if not request.path.startswith(path) or response.status != 200 or not isinstance(response.body, bytes):
                return response
            return msgspec.structs.replace(response, body=change(response.body))

        return answer

    return wrap


def claim_everything(handler: Handler) -> Handler:
    """Say of every file that all of it is here."""

    async def answer(request: Request) -> Response:
        if request.path != "/v1/have":
            return await handler(request)
        query = decode(request.body, HaveQuery, size_max=LARGE_QUERY_SIZE_MAX)
        return Response(200, encode(Have((True,) * len(query.roots))))

    return answer


def answering(path: str, response: Response) -> Wrap:
    """Answer every request for `path` with `response`."""

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            return response if request.path == path else await handler(request)

        return answer

    return wrap


def silent(path: str) -> Wrap:
    """Take requests for `path` and never answer them."""

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if request.path == path:
                await trio.sleep_forever()
            return await handler(request)

        return answer

    return wrap


def slowly(rate: float) -> Wrap:
    """Send content in answers that begin late: `rate` bytes a second, over all requests."""
    busy_until = 0.0

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            nonlocal busy_until
            response = await handler(request)
            if request.path == "/v1/spans" and not isinstance(response.body, bytes):
                size = sum(part.length for part in response.body)
                busy_until = max(busy_until, trio.current_time()) + size / rate
                try:
                    await trio.sleep_until(busy_until)
                except trio.Cancelled:
                    response.release()
                    raise
            return response

        return answer

    return wrap


def shortened(handler: Handler) -> Handler:
    """Send one byte less of content than was asked for."""

    async def answer(request: Request) -> Response:
        response = await handler(request)
        if isinstance(response.body, bytes) or not response.body:
            return response
        *parts, last = response.body
        return msgspec.structs.replace(response, body=[*parts, FilePart(last.file, last.offset, last.length - 1)])

    return answer


def lengthened(handler: Handler) -> Handler:
    """Send one byte more of content than was asked for."""

    async def answer(request: Request) -> Response:
        response = await handler(request)
        if isinstance(response.body, bytes) or not response.body:
            return response
        first = response.body[0]
        return msgspec.structs.replace(response, body=[*response.body, FilePart(first.file, first.offset, 1)])

    return answer


# ── the network ─────────────────────────────────────────────────────────────


class Link:
    """Carries connections to one endpoint, and can be slow, stand still or be cut."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.endpoint = ("", 0)  # where it listens
        self.rate: float | None = None  # bytes a second towards whoever called, over all connections
        self.carried = 0  # bytes towards whoever called
        self.carried_back = 0  # bytes towards the node behind the link
        self.cut_at: int | None = None  # the link breaks once it has carried so much
        self.stall_at: int | None = None  # the same, but it falls silent
        self.drip_at: int | None = None  # the same, but from there on it carries one byte at a time
        self.drip_s = 20.0  # seconds for each of these
        self.is_down = False
        self._moving = trio.Event()
        self._moving.set()
        self._free_at = 0.0
        self._connections: set[trio.CancelScope] = set()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def address(self, node: Node) -> Address:
        """Return the address at which `node` is reached through this link."""
        return Address(node.id, *self.endpoint)

    def stall(self) -> None:
        """Carry nothing from now on, and keep the connections open."""
        self._moving = trio.Event()

    def go_on(self) -> None:
        """End a stall."""
        self.stall_at = None
        self._moving.set()

    def cut(self) -> None:
        """Break all connections, and every new one."""
        self.is_down = True
        for scope in list(self._connections):
            scope.cancel()

    def mend(self) -> None:
        """End a cut."""
        self.is_down = False
        self.cut_at = None

    async def serve(self, stream: trio.SocketStream) -> None:
        if self.is_down:
            await trio.aclose_forcefully(stream)
            return
        with trio.CancelScope() as scope, contextlib.suppress(OSError, trio.BrokenResourceError):
            self._connections.add(scope)
            try:
                async with stream, await trio.open_tcp_stream(*self.target) as onward, trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, stream, onward, False)
                    await self._carry(onward, stream, True)
                    nursery.cancel_scope.cancel()
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._connections.discard(scope)

    async def _carry(self, source: trio.SocketStream, target: trio.SocketStream, is_answer: bool) -> None:
        # Small pieces, so that a limit is kept within a few of them.
        while data := await source.receive_some(16 * 1024):
            await self._moving.wait()
            if is_answer:
                if self.rate:
                    self._free_at = max(self._free_at, trio.current_time()) + len(data) / self.rate
                    await trio.sleep_until(self._free_at)
                    await self._moving.wait()
                if self.drip_at is not None and self.carried + len(data) > self.drip_at:
                    data = await self._drip(data, target)
                self.carried += len(data)
            else:
                self.carried_back += len(data)
            await target.send_all(data)
            if is_answer and self.stall_at is not None and self.carried >= self.stall_at:
                self.stall()
            if is_answer and self.cut_at is not None and self.carried >= self.cut_at:
                self.cut()
                await trio.lowlevel.checkpoint()
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await target.send_eof()

    async def _drip(self, data: bytes, target: trio.SocketStream) -> bytes:
        """Carry what comes after `drip_at` byte by byte; returns what is left when it need not drip any more."""
        while data and self.drip_at is not None:
            before = max(1, self.drip_at - self.carried)
            await target.send_all(data[:before])
            self.carried += len(data[:before])
            data = data[before:]
            await trio.sleep(self.drip_s)
        return data


@asynccontextmanager
async def open_link(host: str, port: int, *, rate: float | None = None) -> AsyncIterator[Link]:
    """Give a link to `host:port` that listens on a port of its own."""
    link = Link(host, port)
    link.rate = rate
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, link.serve, 0, host="127.0.0.1"))
        link.endpoint = listeners[0].socket.getsockname()[:2]
        yield link
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_linked(
    node: Node, *, wrap: Wrap = lambda handler: handler, rate: float | None = None
) -> AsyncIterator[Link]:
    """Let `node` answer peers behind a link, and tell them the link's endpoint alone."""
    async with serving(node, wrap=wrap) as address, open_link(address.host, address.port, rate=rate) as link:
        node.serve_at(["{}:{}".format(*link.endpoint)])
        yield link


async def wait_for(check: Callable[[], bool | Awaitable[bool]], what: str, *, deadline_s: float = 60.0) -> None:
    """Wait until `check` is true; AssertionError if that takes too long."""
    with trio.move_on_after(deadline_s) as waiting:
        while True:
            result = check()
            if isinstance(result, bool):
                if result:
                    return
            elif await result:
                return
            await trio.sleep(0.02)
    assert not waiting.cancelled_caught, f"waited {deadline_s:.0f} s for {what}"


async def wait_quiet(link: Link) -> None:
    """Wait until next to nothing passes `link` for a while, though connections are kept for later."""
    before = -QUIET_SIZE
    while link.carried - before >= QUIET_SIZE:
        before = link.carried
        await trio.sleep(1.0)
