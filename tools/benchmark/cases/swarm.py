"""One node has it, N others want it at the same time; every uplink is capped.

Each node is a daemon on a machine of its own (a network namespace). The clock runs from
starting `p2phub fetch` beside all of them at once until the last has ended, with
everything verified and on disk. Each run begins with new homes and a new network.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from p2phub.testing.netns import Link, Machine, NoNamespaces, check_available, network

from ..measuring import Row, Sample, Target, Watch, busy_share, processor_times
from ..nodes import Failure, Node, start_node
from ..workplace import Workplace, size_of

CASE = "swarm"
SIZE = 256 * 2**20  # bytes
# Nodes, rate of an uplink in bytes per second, and the share of the ideal time that is asked for.
DEFAULT = ((4, 100e6, 0.85), (8, 50e6, 0.8))
COPIES_MAX = 1.2  # that the first seed sends


def rows(place: Workplace) -> list[Row]:
    """Return a row for each number of nodes; none where there can be no namespaces."""
    try:
        check_available()
    except NoNamespaces as exc:
        place.skipped.append(f"{CASE} was left out: {exc}")
        return []
    options = place.options
    chosen = [
        (nodes, options.rate or rate, bound)
        for nodes, rate, bound in DEFAULT
        if options.nodes is None or nodes in options.nodes
    ]
    known = [nodes for nodes, _, _ in chosen]
    chosen += [(nodes, options.rate or 50e6, 0.8) for nodes in options.nodes or () if nodes not in known]
    source = place.model(options.size or SIZE)
    publisher, revision = place.publisher(source)
    size = size_of(source)
    return [
        Row(
            CASE,
            f"1 → {nodes} at {rate / 1e6:g} MB/s",
            partial(run, place, publisher, revision, size, nodes, rate),
            amount=size,
            filler=nodes * size,
            targets=(Target("of_ideal", "≥", bound), Target("copies", "≤", COPIES_MAX)),
        )
        for nodes, rate, bound in chosen
    ]


def ideal_seconds(size: int, nodes: int, rate: float) -> float:
    """Return the shortest time in which `size` bytes reach `nodes` nodes when each, and the seed, sends at `rate`."""
    return max(size / rate, nodes * size / ((nodes + 1) * rate))


def run(place: Workplace, publisher: Path, revision: str, size: int, count: int, rate: float) -> Sample:
    """Fetch on `count` nodes at once."""
    with ExitStack() as stack:
        machines = stack.enter_context(network(count + 1, Link(rate)))
        seed, nodes = start_swarm(place, stack, machines, publisher)
        sample = fetch_everywhere(seed, nodes, revision, size)
    for node in (seed, *nodes):
        shutil.rmtree(node.home)
    sample["ideal"] = ideal_seconds(size, count, rate)
    sample["of_ideal"] = sample["ideal"] / sample["seconds"]
    return sample


def start_swarm(
    place: Workplace, stack: ExitStack, machines: list[Machine], publisher: Path
) -> tuple[Node, list[Node]]:
    """Start a seed on the first machine and empty nodes that know it on the others."""
    seed = start_node(stack, place.copy_of(publisher), machine=machines[0])
    nodes = [start_node(stack, place.new("node"), machine=machine, peers=[seed.address]) for machine in machines[1:]]
    # Also asks the seed for news, and ends when it has answered.
    everywhere(nodes, "peers", "add", seed.address)
    return seed, nodes


def fetch_everywhere(seed: Node, nodes: list[Node], revision: str, size: int) -> Sample:
    """Fetch `revision` beside each of `nodes` and return what it took, until the last."""
    assert seed.machine
    giving, taking = Watch((seed.pid,)), Watch(tuple(node.pid for node in nodes))
    sent = seed.machine.sent
    commands = resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = processor_times()
    start = time.monotonic()
    results = everywhere(nodes, "fetch", revision)
    seconds = time.monotonic() - start
    busy = busy_share(processors)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(result["received"] < size for result in results):
        raise Failure("a node did not fetch everything")
    cpu_commands = ended.ru_utime + ended.ru_stime - commands.ru_utime - commands.ru_stime
    cpu_seed, cpu_nodes = giving.cpu(), taking.cpu()
    return {
        "seconds": seconds,
        "first_fetch": min(result["seconds"] for result in results),  # of the fetches in themselves
        "last_fetch": max(result["seconds"] for result in results),
        "copies": (seed.machine.sent - sent) / size,  # headers are a hundredth of it
        "busy": busy,
        "cpu": sum(cpu_seed) + sum(cpu_nodes) + cpu_commands,
        "cpu_commands": cpu_commands,
        "cpu_seed": sum(cpu_seed),
        **{f"cpu_node_{number}": seconds for number, seconds in enumerate(cpu_nodes, 1)},
        "peak": taking.peak(),
        "serving_peak": giving.peak(),
    }


def everywhere(nodes: list[Node], *arguments: str) -> list[Any]:
    """Run a command beside each node, all at once, and return the JSON that each printed. Raises Failure."""
    processes = [
        subprocess.Popen(node.command(*arguments, "--json"), env=node.environment, stdout=subprocess.PIPE)
        for node in nodes
    ]
    try:
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        raise Failure(f"`p2phub {' '.join(arguments)}` failed on a node")
    return [json.loads(output) for output in outputs]
