"""Who loses access loses it at once: what is being sent to it ends, and old tickets and sessions bring it nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from authoritykit import Scene, rotated, scene

from p2phub.core.errors import PeerError, PeerUnreachable
from p2phub.core.ids import NamespaceId
from p2phub.net import bulkdoor
from p2phub.net.connection import ContentConnection, WantedChunk
from p2phub.net.frames import FrameConnection
from p2phub.node import authority
from p2phub.protocol.messages import TICKET_TTL_S
from p2phub.testing.hostile import wait_for

pytestmark = pytest.mark.timeout(120)

ways = pytest.mark.parametrize("way", ["frames", "https"])


@dataclass
class Fetch:
    """A running request for content, whose reader can stop in the middle."""

    chunks: list[WantedChunk]
    go_on: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    received: int = 0

    def sink(self, place: int, data: memoryview) -> None:
        self.received += len(data)
        self.begun.set()
        self.go_on.wait()


@asynccontextmanager
async def half_fetched(scene: Scene, connection: ContentConnection) -> AsyncIterator[Fetch]:
    """Begin to fetch much, and give control while the reader waits; then the request must end with an error."""
    spans, wanted = scene.chunks()
    running = Fetch(wanted)
    errors: list[PeerError] = []

    async def work() -> None:
        try:
            await trio.to_thread.run_sync(partial(connection.fetch, spans, wanted, running.sink, deadline_s=60))
        except PeerError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.to_thread.run_sync(running.begun.wait)
        try:
            yield running
        finally:
            running.go_on.set()

    assert [type(error) for error in errors] == [PeerUnreachable]
    assert running.received < sum(chunk.length for chunk in wanted)


def is_idle(scene: Scene) -> bool:
    """Say whether the server sends nothing more."""
    return not scene.server.node.open_answers.count


# ── who may, and who may not ────────────────────────────────────────────────


@ways
async def test_what_is_for_few_is_given_to_who_proves_to_be_one_of_them(
    way: str, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        connection = await here.connect(way)
        await trio.to_thread.run_sync(here.fetch_one, connection)
        connection.close()


@ways
async def test_who_says_nothing_of_itself_gets_nothing(
    way: str, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        here.client.signer.told = None
        connection = await here.connect(way)
        with pytest.raises(PeerError, match="404"):
            await trio.to_thread.run_sync(here.fetch_one, connection)
        connection.close()


# ── loss while something is sent ────────────────────────────────────────────


@ways
async def test_an_answer_ends_when_its_caller_loses_access(
    way: str, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here, half_fetched(here, await here.connect(way)):
        here.allowed.clear()
        here.server.node.open_answers.note_change()
        await wait_for(lambda: is_idle(here), "the answer to end")


@ways
async def test_an_answer_ends_even_if_nobody_says_that_something_changed(
    way: str, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """A grant that is over is no event."""
    async with scene(copy_of("server"), tmp_path / "asker") as here, half_fetched(here, await here.connect(way)):
        here.allowed.clear()
        await wait_for(lambda: is_idle(here), "the answer to end")


@ways
async def test_an_answer_ends_when_the_key_behind_it_is_retired(
    way: str, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here, half_fetched(here, await here.connect(way)):
        here.server.node.store.logs.add_identity(rotated(here.asker))
        await wait_for(lambda: is_idle(here), "the answer to end")


@ways
async def test_what_another_lost_ends_nothing_of_mine(way: str, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        here.allowed.add(NamespaceId(bytes(32)))
        looked = trio.Event()
        look = here.server.node.open_answers._look

        async def noting(*, all_of_them: bool) -> None:
            await look(all_of_them=all_of_them)
            looked.set()

        here.server.node.open_answers._look = noting  # type: ignore[method-assign]
        connection = await here.connect(way)
        spans, wanted = here.chunks()
        running = Fetch(wanted)
        async with trio.open_nursery() as nursery:
            fetch = partial(connection.fetch, spans, wanted, running.sink, deadline_s=60)
            nursery.start_soon(trio.to_thread.run_sync, fetch)
            await trio.to_thread.run_sync(running.begun.wait)
            here.allowed.discard(NamespaceId(bytes(32)))
            here.server.node.open_answers.note_change()
            await looked.wait()
            running.go_on.set()
        connection.close()

    assert running.received == sum(chunk.length for chunk in wanted)


# ── what was had before ─────────────────────────────────────────────────────


@ways
async def test_a_connection_that_is_kept_brings_nothing_after_the_loss(
    way: str, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        connection = await here.connect(way)
        await trio.to_thread.run_sync(here.fetch_one, connection)
        here.allowed.clear()
        with pytest.raises(PeerError, match="404"):
            await trio.to_thread.run_sync(here.fetch_one, connection)
        connection.close()


async def test_an_old_ticket_of_a_revoked_caller_opens_nothing(
    copy_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "CHECK_S", -1.0)
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        connection = await here.connect("frames")
        here.server.node.store.logs.add_identity(rotated(here.asker))
        with pytest.raises(PeerError, match="404"):
            await trio.to_thread.run_sync(here.fetch_one, connection)
        connection.close()


async def test_a_ticket_that_was_used_opens_no_second_connection(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        first = await here.connect("frames")
        assert isinstance(first, FrameConnection)
        await trio.to_thread.run_sync(here.fetch_one, first)
        again = FrameConnection(here.client.node, here.client.host, here.client.port, first._ticket)
        with pytest.raises(PeerUnreachable, match="closed the connection"):
            await trio.to_thread.run_sync(here.fetch_one, again)
        for connection in (first, again):
            connection.close()


async def test_a_connection_ends_with_the_time_of_its_ticket(
    copy_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was proved once is not good for ever, however busy the connection is."""
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        connection = await here.connect("frames")
        await trio.to_thread.run_sync(here.fetch_one, connection)
        now = time.monotonic()
        monkeypatch.setattr(bulkdoor.time, "monotonic", lambda: now + TICKET_TTL_S + 1)
        with pytest.raises(PeerUnreachable), contextlib.closing(connection):
            await trio.to_thread.run_sync(here.fetch_one, connection)
