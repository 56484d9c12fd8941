"""Two nodes compare catalogues: what it costs to find out that they are equal, and to become equal again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import trio

from p2phub.core.checkpoint import sign_head
from p2phub.core.merkle import LOG_TREE, root
from p2phub.net.peerclient import PeerClient, open_peer
from p2phub.node.maps import refresh_maps
from p2phub.node.node import Node
from p2phub.node.pulling import pull
from p2phub.testing.heads import fill_with_heads
from p2phub.testing.hostile import Link, counting, open_home, open_link, serving
from p2phub.testing.releases import make_log

from ..measuring import Failure, Row, Sample, Target
from ..workplace import Workplace

CASE = "reconcile"
LOGS, LOGS_FULL = 20_000, 1_000_000
CHANGED = 100  # logs with one record more on one side
EQUAL_BYTES_MAX = 1000
SPARE_BYTES = 50_000  # beside one and a half times the records

Step = Callable[[Node, Node, PeerClient, Link, Counter[str]], Awaitable[Sample]]


def rows(place: Workplace) -> list[Row]:
    """Return the rows for two nodes that know the same logs."""
    count = LOGS_FULL if place.options.full else LOGS
    homes = place.new("one"), place.new("other")
    sizes = Counter[int]()
    trio.run(partial(_fill, homes, count))
    return [
        Row(
            CASE,
            f"{count:,} logs, all equal",
            lambda: trio.run(partial(_measure, homes, _compare_equal)),
            targets=(Target("received", "≤", EQUAL_BYTES_MAX), Target("rounds", "≤", 1)),
        ),
        Row(
            CASE,
            f"{count:,} logs, {CHANGED} changed",
            lambda: trio.run(partial(_measure, homes, partial(_compare_changed, sizes=sizes))),
            targets=(Target("of_allowed", "≤", 1.0),),
        ),
    ]


async def _fill(homes: tuple[Path, Path], count: int) -> None:
    for home in homes:
        async with open_home(home) as node:
            fill_with_heads(node.store, count - CHANGED)
            for number in range(CHANGED):
                _grow(node, number, 1)
            await refresh_maps(node)


async def _measure(homes: tuple[Path, Path], step: Step) -> Sample:
    asked: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        giver, taker = [await stack.enter_async_context(open_home(home)) for home in homes]
        address = await stack.enter_async_context(serving(giver, wrap=counting(asked)))
        link = await stack.enter_async_context(open_link(address.host, address.port))
        client = await stack.enter_async_context(open_peer(giver.id, *link.endpoint))
        # The handshake is no part of a comparison, and neither is that the nodes have not met before.
        await pull(taker, client)
        return await step(giver, taker, client, link, asked)


async def _compare_equal(giver: Node, taker: Node, client: PeerClient, link: Link, asked: Counter[str]) -> Sample:
    sample, count = await _pull(taker, client, link, asked)
    if count:
        raise Failure("the nodes were not equal")
    return sample


async def _compare_changed(
    giver: Node, taker: Node, client: PeerClient, link: Link, asked: Counter[str], *, sizes: Counter[int]
) -> Sample:
    size = 0
    for number in range(CHANGED):
        sizes[number] += 1
        size += _grow(giver, number, 1 + sizes[number])
    await refresh_maps(giver)
    sample, count = await _pull(taker, client, link, asked)
    await refresh_maps(taker)
    if count != CHANGED or taker.store.log_digests.root() != giver.store.log_digests.root():
        raise Failure("the nodes did not become equal")
    return sample | {"of_allowed": sample["received"] / (1.5 * size + SPARE_BYTES)}


async def _pull(node: Node, client: PeerClient, link: Link, asked: Counter[str]) -> tuple[Sample, int]:
    asked.clear()
    before = link.carried + link.carried_back
    begun = time.perf_counter()
    count = await pull(node, client)
    seconds = time.perf_counter() - begun
    passed = link.carried + link.carried_back - before
    return {"seconds": seconds, "received": passed, "rounds": asked.total()}, count


def _grow(node: Node, number: int, size: int) -> int:
    """Let a node have the first `size` records of a log; returns the bytes of the last one."""
    made = make_log(number, size)
    head = sign_head(made.head.log, size, root(LOG_TREE, [entry.leaf for entry in made.entries]), made.key)
    node.store.logs.add_identity(made.identity)
    node.store.logs.extend(made.identity, head, made.data, start=0, now=node.clock())
    return len(made.data[-1])
