"""Somebody between a node and who fetches from it: frames in another order, twice, cut, changed, from elsewhere."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from authoritykit import Scene, scene

from p2phub.core.errors import PeerUnreachable
from p2phub.core.frames import OVERHEAD
from p2phub.net.connection import WantedChunk
from p2phub.net.frames import FrameConnection
from p2phub.protocol.messages import BULK_PREFACE, TICKET_ID_SIZE, ByteRange

pytestmark = pytest.mark.timeout(120)

PREFACE_SIZE = len(BULK_PREFACE) + TICKET_ID_SIZE
Meddle = Callable[[list[bytes]], list[bytes]]


@dataclass
class Between:
    """Passes one bulk connection on, and meddles with the frames that come back, or go."""

    target: tuple[str, int]
    answer: Meddle = field(default=lambda frames: frames)  # of the first frames of the node
    query: Meddle = field(default=lambda frames: frames)
    seen: list[bytes] = field(default_factory=list)  # frames of the node as they came

    async def serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream(*self.target)
        async with client, server, trio.open_nursery() as nursery:
            await server.send_all(await _exactly(client, PREFACE_SIZE))
            nursery.start_soon(self._carry, client, server, self.query, 1)
            await self._carry(server, client, self.answer, 3, self.seen)
            nursery.cancel_scope.cancel()

    async def _carry(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        meddle: Meddle,
        count: int,
        seen: list[bytes] | None = None,
    ) -> None:
        """Pass frames on, the first `count` of them meddled with; ends when either side does."""
        try:
            first = [await _frame(source) for _ in range(count)]
            if seen is not None:
                seen += first
            for frame in meddle(first):
                await target.send_all(frame)
            while True:
                await target.send_all(await _frame(source))
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            await target.aclose()


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


async def _frame(stream: trio.SocketStream) -> bytes:
    header = await _exactly(stream, 4)
    return header + await _exactly(stream, struct.unpack(">I", header)[0] + OVERHEAD - 4)


@asynccontextmanager
async def between(here: Scene, **meddling: Meddle) -> AsyncIterator[tuple[Between, FrameConnection]]:
    """Give a connection to the node of a scene, and who sits in the middle of it."""
    (ticket,) = await here.client.tickets(1) or ()
    middle = Between((here.client.host, here.client.port), **meddling)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, middle.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        connection = FrameConnection(here.client.node, "127.0.0.1", port, ticket)
        try:
            yield middle, connection
        finally:
            connection.close()
            nursery.cancel_scope.cancel()


@dataclass
class Fetched:
    """What a request for four chunks brought: those that were right."""

    spans: list[ByteRange]
    wanted: list[WantedChunk]
    places: list[int] = field(default_factory=list)

    def by(self, connection: FrameConnection) -> None:
        connection.fetch(self.spans, self.wanted, lambda place, data: self.places.append(place), deadline_s=20)


def some_chunks(here: Scene) -> Fetched:
    spans, wanted = here.chunks()
    return Fetched(spans[:4], wanted[:4])


def swapped(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[2], frames[1]]


def repeated(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[1], frames[1], frames[2]]


def left_out(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[2]]


def changed(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[1][:100] + bytes([frames[1][100] ^ 1]) + frames[1][101:], frames[2]]


def shorter(frames: list[bytes]) -> list[bytes]:
    """Cut a frame, and say so in its length."""
    size = struct.unpack(">I", frames[1][:4])[0]
    return [frames[0], struct.pack(">I", size - 1) + frames[1][4:-1], frames[2]]


WAYS = {"swapped": swapped, "repeated": repeated, "left out": left_out, "changed": changed, "shorter": shorter}


@pytest.mark.parametrize("meddle", WAYS.values(), ids=WAYS.keys())
async def test_meddled_answers_of_a_real_node_are_noticed_and_not_held_against_it(
    meddle: Meddle, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        fetched = some_chunks(here)
        async with between(here, answer=meddle) as (_, connection):
            with pytest.raises(PeerUnreachable, match="garbled"):
                await trio.to_thread.run_sync(fetched.by, connection)
        # What came before was right; what came after is not there.
        assert fetched.places in ([], [0])
        fetched.places.clear()

        # Nothing was learned about the node: on another connection all comes.
        direct = await here.connect("frames")
        assert isinstance(direct, FrameConnection)
        await trio.to_thread.run_sync(fetched.by, direct)
        direct.close()

    assert fetched.places == [0, 1, 2, 3]


async def test_an_answer_that_is_cut_off_is_no_answer(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        fetched = some_chunks(here)

        def cut(frames: list[bytes]) -> list[bytes]:
            raise EOFError

        async with between(here, answer=cut) as (_, connection):
            with pytest.raises(PeerUnreachable, match="closed the connection"):
                await trio.to_thread.run_sync(fetched.by, connection)

    assert fetched.places == []


async def test_frames_of_another_connection_do_not_fit_in(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    """The same node, the same question, the same place: another ticket."""
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        fetched = some_chunks(here)
        async with between(here) as (middle, connection):
            await trio.to_thread.run_sync(fetched.by, connection)
        assert fetched.places == [0, 1, 2, 3]
        fetched.places.clear()

        def spliced(frames: list[bytes]) -> list[bytes]:
            return [frames[0], middle.seen[1], frames[2]]

        async with between(here, answer=spliced) as (_, connection):
            with pytest.raises(PeerUnreachable, match="garbled"):
                await trio.to_thread.run_sync(fetched.by, connection)

    assert fetched.places == []


async def test_a_query_that_is_repeated_on_the_way_is_not_answered_twice(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        fetched = some_chunks(here)
        async with between(here, query=lambda frames: [frames[0], frames[0]]) as (_, connection):
            await trio.to_thread.run_sync(fetched.by, connection)
            # The node met a frame out of its place, and hung up.
            with pytest.raises(PeerUnreachable):
                await trio.to_thread.run_sync(fetched.by, connection)
        asked = [request.path for request in here.server.seen]

    assert asked.count("/v1/spans") == 1
    assert fetched.places == [0, 1, 2, 3]
