"""What can be asked of a simulated world: each scenario acts, waits, and measures (spec/simulation.md §3).

A scenario raises Unmet if something does not hold that always must. What depends on the
size of the world and the weather it returns as measures, which carry their limits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from p2phub.core.checkpoint import Head

from . import attacks
from .measures import COPIES_MAX, HEAL_MAX_S, SETTLE_S, SPREAD_MAX_S, SPREAD_SHARE, Measure
from .nodes import SimulatedNode
from .world import Unmet, World

PARTITION_S = 3600.0
CHURN_SHARE = 0.3  # of all nodes that end and begin again each minute
CHURN_S = 300.0


@dataclass(frozen=True)
class Scenario:
    """Something that can happen to a world."""

    name: str
    about: str
    run: Callable[[World, int], Awaitable[list[Measure]]]  # of a new world, and how many nodes
    nodes: int = 20  # if nobody says how many


async def spread(world: World, count: int) -> list[Measure]:
    """Publish on one node and see how the release reaches the others."""
    await world.add(count)
    await world.run(SETTLE_S)
    before = _traffic(world)
    publisher = world.rng.choice(world.nodes)
    head = publisher.publish("parrot")
    times = await _arrivals(world, head, 600.0)
    spread_bytes = _traffic(world) - before
    told = [node.heard.get((head.log, head.size), 0) for node in world.nodes if node is not publisher]
    return [
        Measure("99 % know it after", times[int(SPREAD_SHARE * (len(times) - 1))], "s", SPREAD_MAX_S),
        Measure("all after", times[-1], "s"),
        Measure("copies of the push", sum(told) / len(told), "", COPIES_MAX),
        Measure("bytes a node", spread_bytes / count),
    ]


async def partition(
    world: World, count: int, *, seconds: float = PARTITION_S, settle_s: float = SETTLE_S
) -> list[Measure]:
    """Cut the network in two for a while, publish on both sides, and see how they become equal."""
    await world.add(count)
    await world.run(settle_s)
    few, many = world.nodes[: count // 3], world.nodes[count // 3 :]
    world.cut(few, many)
    heads = []
    for number in range(6):
        heads += [side[number % len(side)].publish(f"model-{number}") for side in (few, many)]
        await world.run(seconds / 6)
    if few[0].has(heads[1]):
        raise Unmet("a release crossed a cut network", world)
    world.heal()
    took_s = await world.wait_until(lambda: _all_have(world.nodes, heads), 3600.0, "that all are equal after the cut")
    _check_equal(world)
    return [Measure("all are equal after", took_s, "s", HEAL_MAX_S)]


async def churn(world: World, count: int, *, seconds: float = CHURN_S) -> list[Measure]:
    """End and begin nodes all the time while others publish, and see that nothing is lost."""
    await world.add(count)
    await world.run(SETTLE_S)
    # Who publishes stays for a while: what nobody heard of is lost with its publisher.
    publishers, others = world.nodes[:3], world.nodes[3:]
    heads: list[Head] = []
    end = trio.current_time() + seconds

    async def publish_some() -> None:
        while trio.current_time() < end:
            heads.append(world.rng.choice(publishers).publish(f"model-{len(heads)}"))
            await world.run(world.rng.uniform(5.0, 15.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_some)
        while trio.current_time() < end:
            if victims := [node for node in others if node.is_running]:
                nursery.start_soon(_restart, world, world.rng.choice(victims))
            await world.run(world.rng.uniform(0.5, 1.5) * 60.0 / (CHURN_SHARE * count))
    took_s = await world.wait_until(lambda: _all_have(world.nodes, heads), 3600.0, "that all have all releases")
    _check_equal(world)
    return [Measure("releases", len(heads)), Measure("all have all of them after", took_s, "s", HEAL_MAX_S)]


async def _restart(world: World, node: SimulatedNode) -> None:
    await node.kill()
    await world.run(world.rng.uniform(1.0, 60.0))
    await node.start()


async def _arrivals(world: World, head: Head, seconds: float) -> list[float]:
    """Wait until all nodes have `head`; returns the seconds after which each did, sorted."""
    begun = trio.current_time()
    missing = list(world.nodes)
    times: list[float] = []

    def look() -> bool:
        nonlocal missing
        still = [node for node in missing if not node.has(head)]
        times.extend([trio.current_time() - begun] * (len(missing) - len(still)))
        missing = still
        return not missing

    await world.wait_until(look, seconds, "that all nodes know the release")
    return times


def _all_have(nodes: Sequence[SimulatedNode], heads: Sequence[Head]) -> bool:
    return all(node.is_running and all(node.has(head) for head in heads) for node in nodes)


def _check_equal(world: World) -> None:
    first, *others = world.nodes
    for node in others:
        if node.heads() != first.heads():
            raise Unmet(f"{node.name} and {first.name} have different catalogues", world)


def _traffic(world: World) -> int:
    """Return the bytes that were sent so far."""
    return sum(node.host.sent for node in world.nodes)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("spread", "a release is published and reaches every node", spread),
        Scenario("partition", "the network is cut for an hour; both sides publish", partition),
        Scenario("churn", "nodes end and begin again all the time while others publish", churn),
        Scenario("replayed", "nodes tell old heads again and again", attacks.replayed),
        Scenario("eclipsed", "a node meets hostile ones first, and they are many", attacks.eclipsed, nodes=40),
        Scenario("collisions", "fingerprints collide, and nodes echo what they are asked", attacks.collisions, nodes=8),
        Scenario("withheld", "most nodes withhold what is newest", attacks.withheld),
        Scenario("forked", "one key signs two histories", attacks.forked, nodes=10),
        Scenario("moved", "records are sent in places for which they were not signed", attacks.moved),
        Scenario("fast-clock", "a publisher's clock is 11 minutes ahead", attacks.fast_clock, nodes=6),
        Scenario("oversize", "nodes send more than any message may have", attacks.oversize, nodes=12),
        Scenario("pretended", "nodes tell of others at an address of a bystander", attacks.pretended, nodes=10),
        Scenario("flood", "a node publishes in the names of many fresh keys", attacks.flood, nodes=10),
    )
}
