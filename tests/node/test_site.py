"""What a node leaves to others of its site."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from p2phub.core.ids import ContentId, NodeId
from p2phub.node.site import Site
from p2phub.protocol.lease import PATIENCE_S

ROOT = ContentId(bytes(32))
OWN, MATE, THIRD = (NodeId(bytes([number]) * 32) for number in range(3))
CHUNKS = 64
NOBODY_NEAR = b"", (None, None), -math.inf
MIB = 1024 * 1024


@dataclass
class Wanted:
    """Stands for the picker: which chunks are missing."""

    missing: set[int] = field(default_factory=lambda: set(range(CHUNKS)))

    def is_wanted(self, chunk: int) -> bool:
        return chunk in self.missing


@dataclass
class SomeDownload:
    """Stands for a download of 64 chunks, each in an area of its own."""

    picker: Wanted = field(default_factory=Wanted)
    last_arrival: float = 0.0
    count: int = CHUNKS

    def areas(self) -> list[tuple[ContentId, int]]:
        return [(ROOT, chunk) for chunk in range(CHUNKS)]


def site(own: NodeId, download: Any) -> Site:
    return Site(own, download)


async def test_alone_or_over_a_near_link_all_may_be_asked_for():
    download = SomeDownload(last_arrival=trio.current_time())
    alone = site(OWN, download)

    assert alone.allowed("internet", None, *NOBODY_NEAR) is None
    alone.set_mates(frozenset({MATE}))
    assert alone.allowed("lan", None, *NOBODY_NEAR) is None
    assert alone.allowed("site", None, *NOBODY_NEAR) is None


@pytest.mark.parametrize("link", ["internet", "federation"])
async def test_two_of_a_site_share_out_what_comes_over_the_expensive_link(link):
    download = SomeDownload(last_arrival=trio.current_time())
    ours, theirs = site(OWN, download), site(MATE, download)
    ours.set_mates(frozenset({MATE}))
    theirs.set_mates(frozenset({OWN}))
    first, second = ours.allowed(link, None, *NOBODY_NEAR), theirs.allowed(link, None, *NOBODY_NEAR)

    assert first is not None
    assert second is not None
    assert all(mine != other for mine, other in zip(first, second, strict=True))
    assert 10 < sum(first) < CHUNKS - 10


async def test_a_third_gets_back_what_it_is_no_holder_of_only_when_nothing_arrives(autojump_clock):
    download = SomeDownload(last_arrival=trio.current_time())
    ours = site(OWN, download)
    ours.set_mates(frozenset({MATE, THIRD}))
    first = ours.allowed("internet", None, *NOBODY_NEAR)
    assert first is not None
    # All of its own is here: now it helps the slow ones, with what nobody was given.
    download.picker.missing = {chunk for chunk in range(CHUNKS) if not first[chunk]}
    more = ours.allowed("internet", None, *NOBODY_NEAR)
    assert more is not None
    given = bytes(more)
    rest = ours.allowed("internet", given, *NOBODY_NEAR)

    assert sum(first) < sum(more) < CHUNKS
    assert rest == first, "what was given comes from the mates"
    await trio.sleep(PATIENCE_S + 0.1)
    assert ours.allowed("internet", given, *NOBODY_NEAR) is None


async def test_what_is_near_is_not_asked_for_from_afar_while_it_comes(autojump_clock):
    download = SomeDownload(last_arrival=trio.current_time())
    alone = site(OWN, download)
    half = bytes(32) + bytes([1]) * 32
    rest = bytes([1]) * 32 + bytes(32)

    assert alone.allowed("internet", None, half, (None, None), 0.0) == rest
    assert alone.allowed("internet", None, None, (None, None), 0.0) == bytes(CHUNKS)
    assert alone.allowed("site", None, half, (None, None), 0.0) is None
    # Of who is far and gave nothing yet 8 MiB/s are thought.
    assert alone.allowed("internet", None, half, (2 * MIB, None), 0.0) == rest
    assert alone.allowed("internet", None, half, (1.9 * MIB, None), 0.0) is None
    assert alone.allowed("internet", None, half, (10 * MIB, 39 * MIB), 0.0) == rest
    assert alone.allowed("internet", None, half, (10 * MIB, 41 * MIB), 0.0) is None
    await trio.sleep(PATIENCE_S + 0.1)
    assert alone.allowed("internet", None, half, (None, None), 0.0) is None


async def test_who_let_a_node_wait_is_waited_for_again_only_when_something_came_from_near(autojump_clock):
    download = SomeDownload(last_arrival=trio.current_time())
    alone = site(OWN, download)
    half = bytes(32) + bytes([1]) * 32
    await trio.sleep(PATIENCE_S + 0.1)
    assert alone.allowed("internet", None, half, (None, None), 0.0) is None
    # Something came from afar.
    download.last_arrival = trio.current_time()

    assert alone.allowed("internet", None, half, (None, None), 0.0) is None
    assert alone.allowed("internet", None, half, (None, None), trio.current_time() + 1) is not None


async def test_of_what_a_site_shares_out_what_is_near_is_left_out():
    download = SomeDownload(last_arrival=trio.current_time())
    ours = site(OWN, download)
    ours.set_mates(frozenset({MATE}))
    first = ours.allowed("internet", None, *NOBODY_NEAR)
    half = bytes(32) + bytes([1]) * 32

    assert first is not None
    assert ours.allowed("internet", None, half, (None, None), 0.0) == first[:32] + bytes(32)
