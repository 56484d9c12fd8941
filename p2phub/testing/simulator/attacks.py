"""Scenarios in which some nodes are hostile or wrong: what they must not achieve (spec/simulation.md §5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import trio

from p2phub.core import fingerprints
from p2phub.core.checkpoint import Head
from p2phub.core.errors import ForkedLog
from p2phub.protocol import reconcile
from p2phub.protocol.membership import ACTIVE_MAX

from .liars import (
    Bystander,
    Echo,
    Eclipser,
    FastClock,
    Flooder,
    Liar,
    Pretender,
    RecordMover,
    Replayer,
    Shouter,
    Twin,
    Withholder,
)
from .measures import SETTLE_S, SPREAD_MAX_S, Measure
from .nodes import SimulatedNode
from .world import Unmet, World

FLOODED_RELEASES = 5  # that others publish while a flood goes on
CALLS_MAX = 3.0  # calls at a bystander that one honest node makes in ten minutes, on average


async def replayed(world: World, count: int) -> list[Measure]:
    """Some nodes tell old heads again and again; nobody goes back, nor passes them on."""
    await world.add(count - count // 4)
    liars = await world.add(count // 4, Replayer)
    await world.run(SETTLE_S)
    old = world.nodes[0].publish("parrot")
    await world.wait_until(lambda: _have(world.nodes, old), 300, "that all have the first release")
    await world.run(10)
    # The publisher may have been told of its own release, too.
    before = sum(node.heard.get((old.log, old.size), 0) for node in honest(world))
    for liar in liars:
        liar.remember()
    times = []
    for _ in range(4):
        new = world.nodes[0].publish("parrot")
        times.append(await _spread(world, new))
        await world.run(20)
        if not _have(honest(world), new):
            raise Unmet("a log became shorter", world)
    told = sum(liar.lies for liar in liars)
    again = sum(node.heard.get((old.log, old.size), 0) for node in honest(world)) - before
    return [
        Measure("honest nodes know a release after", max(times), "s", SPREAD_MAX_S),
        Measure("lies told", told),
        Measure("of which others passed on", max(0, again - told), "", 0),
        _banned(world),
    ]


async def eclipsed(world: World, count: int, *, releases: int = 3) -> list[Measure]:
    """One node has hostile neighbours alone, and was told of one honest node; it hears of news all the same."""
    few = max(4, count // 4)
    publishers = await world.add(few)
    hostile = await world.add(count - few - 1, Eclipser)
    await world.run(SETTLE_S)
    victim = await _begin_among(world, hostile, publishers)
    times = []
    for number in range(releases):
        head = publishers[1 + number % (few - 1)].publish(f"model-{number}")
        times.append(await world.wait_until(partial(victim.has, head), 1800, "that the victim has the release"))
        await world.run(60)
    return [Measure("the victim knows a release after", max(times), "s", 600.0)]


async def _begin_among(
    world: World, hostile: Sequence[SimulatedNode], others: Sequence[SimulatedNode]
) -> SimulatedNode:
    """Return a new node all of whose neighbours are `hostile`; of `others` it was told of the first, and knows none.

    It begins where it reaches hostile ones alone: whom it meets first is not left to chance.
    """
    world.cut(hostile, others)
    victim: SimulatedNode
    (victim,) = await world.add(1, knows=0, told=[*world.rng.sample(hostile, ACTIVE_MAX), others[0]])
    ids = {node.id for node in hostile}

    def is_surrounded() -> bool:
        active = victim.node.neighbours.members.active
        return len(active) == ACTIVE_MAX and ids.issuperset(active)

    await world.wait_until(is_surrounded, 300, "that all neighbours of the victim are hostile")
    world.heal()
    return victim


async def collisions(world: World, count: int, *, logs: Sequence[int] = (200, 1, 10, 3)) -> list[Measure]:
    """Short fingerprints collide each sixteenth time, and some nodes echo what they are asked; all become equal."""
    await world.add(count - count // 4)
    await world.add(count // 4, Echo)
    source, *_ = await world.add(1, Flooder)
    await world.run(SETTLE_S)
    times = []
    with _weak_fingerprints():
        for more in logs:
            world.cut([node for node in world.nodes if node is not source], [source])
            await source.flood(more, 100.0)
            await world.run(20)
            world.heal()
            times.append(await world.wait_until(partial(_have_all_of, world, source), 3600, "that all are equal"))
    return [Measure("all are equal after", max(times), "s", 600.0), _lies(world), _banned(world)]


def _have_all_of(world: World, source: SimulatedNode) -> bool:
    heads = source.heads().items()
    return all(heads <= node.heads().items() for node in honest(world))


@contextmanager
def _weak_fingerprints() -> Iterator[None]:
    """Let short fingerprints tell only 16 things apart, instead of 2 to the power of 32."""
    strong, walks = fingerprints.short, cast(Any, reconcile)

    def weak(fingerprint: bytes, salt: bytes) -> bytes:
        full = strong(fingerprint, salt)
        return bytes([full[0] % 16]) + bytes(len(full) - 1)

    fingerprints.short = walks.short = weak
    try:
        yield
    finally:
        fingerprints.short = walks.short = strong


async def withheld(world: World, count: int) -> list[Measure]:
    """Most nodes withhold what is newest; the others learn of it all the same."""
    await world.add(count - 3 * count // 5)
    await world.add(3 * count // 5, Withholder)
    await world.run(SETTLE_S)
    first = world.nodes[0].publish("parrot")
    await world.wait_until(lambda: _have(world.nodes, first), 300, "that all have the first release")
    for node in world.nodes:
        if isinstance(node, Withholder):
            node.withhold()
    second = world.nodes[0].publish("parrot")
    took_s = await world.wait_until(lambda: _have(honest(world), second), 600, "that honest nodes have the second")
    return [Measure("honest nodes know it after", took_s, "s", 180.0), _lies(world), _banned(world)]


async def forked(world: World, count: int) -> list[Measure]:
    """One key signs two histories on two machines; all find out and freeze the log."""
    await world.add(count - 1)
    (twin,) = await world.add(1, Twin)
    await world.run(SETTLE_S)
    publisher = world.nodes[0]
    world.cut([node for node in world.nodes if node is not twin], [twin])
    head = publisher.publish("parrot")
    twin.copy_identity(publisher)
    other = twin.publish("parrot")
    assert (other.log, other.size) == (head.log, head.size)
    assert other.root != head.root
    await world.run(60)
    world.heal()

    def all_know() -> bool:
        return all(node.node.store.forks.get(head.log) is not None for node in world.nodes)

    took_s = await world.wait_until(all_know, 1800, "that all nodes have the proof of the fork")
    try:
        publisher.publish("parrot")
    except ForkedLog:
        publisher.say("cannot sign more in a log that forked")
    else:
        raise Unmet(f"{publisher.name} signed a record in a log that it knows to have forked", world)
    await world.run(120)
    for node in honest(world):
        if node.heads()[head.log][0] > 1:
            raise Unmet(f"{node.name} took a record of a frozen log", world)
    return [Measure("all have the proof after", took_s, "s", 600.0)]


async def moved(world: World, count: int) -> list[Measure]:
    """Some nodes send records in places for which they were not signed; nobody believes them."""
    await world.add(count - count // 4)
    await world.add(count // 4, RecordMover)
    await world.run(SETTLE_S)
    for number in range(5):
        head = world.nodes[0].publish(f"model-{number}")
        await world.run(2)
    took_s = await _spread(world, head)
    return [Measure("honest nodes know it after", took_s, "s", 180.0), _lies(world)]


async def fast_clock(world: World, count: int) -> list[Measure]:
    """A publisher's clock is 11 minutes ahead; what it publishes is taken once it is not of the future any more."""
    await world.add(count - 1)
    (fast,) = await world.add(1, FastClock)
    await world.run(SETTLE_S)
    head = fast.publish("parrot")
    await world.run(30)
    if any(node.has(head) for node in honest(world)):
        raise Unmet("a record of the future was taken", world)
    fast.skew_s = 0.0
    fast.say("sets its clock right")
    await fast.kill()
    await fast.start()
    other = world.nodes[1].publish("owl")
    wait_s = await world.wait_until(lambda: _have(honest(world), other), 60, "that others go on")
    took_s = await world.wait_until(lambda: _have(honest(world), head), 7200, "that the record is taken in the end")
    return [
        Measure("others' news take", wait_s, "s", SPREAD_MAX_S),
        Measure("the record is taken after", took_s, "s", 3 * 3600.0),
    ]


async def oversize(world: World, count: int) -> list[Measure]:
    """Some nodes send more than any message may have; the others drop them and go on."""
    await world.add(count - count // 4)
    await world.add(count // 4, Shouter)
    await world.run(SETTLE_S)
    head = world.nodes[0].publish("parrot")
    took_s = await _spread(world, head)
    return [Measure("honest nodes know it after", took_s, "s", SPREAD_MAX_S), _lies(world)]


async def pretended(world: World, count: int, *, seconds: float = 600.0) -> list[Measure]:
    """Some nodes tell of made-up nodes at the address of a bystander; nobody is led to attack it."""
    bystander = Bystander(world, "victim", "198.51.100.7")
    world.nursery.start_soon(bystander.listen)
    Pretender.victim = bystander.host
    await world.add(count - 2)
    await world.add(2, Pretender)
    await world.run(seconds)
    names = {node.name for node in honest(world)}
    calls = [calls for name, calls in bystander.calls.items() if name in names]
    head = world.nodes[0].publish("parrot")
    took_s = await _spread(world, head)
    return [
        Measure("calls at the bystander a node", sum(calls) / len(names), "", CALLS_MAX),
        Measure("most of one node", max(calls, default=0)),
        _lies(world),
        Measure("honest nodes know a release after", took_s, "s", SPREAD_MAX_S),
    ]


async def flood(world: World, count: int, *, publishers: int = 10_000, rate: float = 200.0) -> list[Measure]:
    """A node publishes in the names of many fresh keys; others' releases arrive as fast as ever."""
    await world.add(count - 1)
    (flooder,) = await world.add(1, Flooder)
    await world.run(SETTLE_S)
    times = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flooder.flood, publishers, rate)
        for number in range(FLOODED_RELEASES):
            await world.run(publishers / rate / (FLOODED_RELEASES + 1))
            head = world.nodes[number % (count - 1)].publish(f"model-{number}")
            times.append(await _spread(world, head))
    kept = max(len(node.heads()) for node in honest(world))
    return [
        Measure("honest nodes know a release after", max(times), "s", SPREAD_MAX_S),
        Measure("logs kept", kept),
        _lies(world),
        _banned(world),
    ]


def honest(world: World) -> list[SimulatedNode]:
    """Return the nodes that keep to the protocol."""
    return [node for node in world.nodes if not isinstance(node, Liar)]


def _have(nodes: list[SimulatedNode], head: Head) -> bool:
    return all(node.has(head) for node in nodes)


async def _spread(world: World, head: Head) -> float:
    return await world.wait_until(lambda: _have(honest(world), head), 600, "that honest nodes have the release")


def _lies(world: World) -> Measure:
    return Measure("lies told", sum(node.lies for node in world.nodes if isinstance(node, Liar)))


def _banned(world: World) -> Measure:
    """Return how many honest nodes are banned by some honest node: none may be."""
    ids = {node.id: node.name for node in honest(world)}
    peers = [peer for node in honest(world) for peer in node.node.store.peers.all()]
    banned = {ids[peer.node] for peer in peers if peer.bans and peer.node in ids}
    return Measure("honest nodes that were banned", len(banned), "", 0)
