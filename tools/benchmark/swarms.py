"""One machine has it, N others want it at the same time: with p2phub, with BitTorrent, from a web server.

Every machine is a network namespace with a capped uplink, made anew for each run. The
clock runs from starting the fetching commands on all machines at once until the last has
everything verified and on disk.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from p2phub.testing.netns import Link, Machine, network

from . import others
from .measuring import Failure, Sample
from .nodes import Node, clean_environment, start_node, stop
from .usage import Processors, Watch
from .workplace import Workplace

DEADLINE_S = 3600.0  # of a run with BitTorrent, which would wait for ever


@dataclass(frozen=True)
class Swarm:
    """How many want what, over which links."""

    place: Workplace
    file: Path
    nodes: int
    rate: float  # of each uplink, in bytes of payload per second

    @property
    def size(self) -> int:
        return self.file.stat().st_size

    @property
    def ideal_s(self) -> float:
        """The shortest time: each byte leaves the seed once. All uplinks together would need less."""
        return self.size / self.rate

    def race(self, machines: list[Machine], serving: int, work: Callable[[], Sample]) -> Sample:
        """Return what it takes until `work` returns, with what the seed, the process `serving`, does meanwhile.

        work: returns what it measured itself.
        """
        seed = Watch([serving])
        sent = machines[0].sent
        processors = Processors()
        start = time.monotonic()
        measured = work()
        seconds = time.monotonic() - start
        busy = processors.busy()
        (cpu_seed,) = seed.cpu()
        cpu = cpu_seed + sum(value for name, value in measured.items() if name.startswith("cpu_"))
        return {
            "seconds": seconds,
            "ideal": self.ideal_s,
            "of_ideal": self.ideal_s / seconds,
            "copies": (machines[0].sent - sent) / self.size,  # headers are a hundredth of it
            "busy": busy,
            "serving_peak": seed.peak(),
            "cpu_seed": cpu_seed,
            **measured,
            "cpu": cpu,
            "busy_own": cpu / seconds / (os.cpu_count() or 1),
        }


def with_p2phub(swarm: Swarm, publisher: Path, revision: str) -> Sample:
    """Fetch beside a daemon on every machine; all know the seed and hear of each other through it."""
    place = swarm.place
    with ExitStack() as stack:
        machines = stack.enter_context(network(swarm.nodes + 1, Link(swarm.rate)))
        seed = start_node(stack, place.copy_of(publisher), machine=machines[0])
        nodes = [
            start_node(stack, place.new("node"), machine=machine, peers=[seed.address]) for machine in machines[1:]
        ]
        # Ends when the seed has answered.
        _p2phub_everywhere(nodes, "peers", "add", seed.address)

        def work() -> Sample:
            watch, before = Watch([node.pid for node in nodes]), _children_cpu()
            results = _p2phub_everywhere(nodes, "fetch", revision)
            if any(result["received"] < swarm.size for result in results):
                raise Failure("a node did not fetch everything")
            return {
                "cpu_commands": _children_cpu() - before,
                **{f"cpu_node_{number}": seconds for number, seconds in enumerate(watch.cpu(), 1)},
                "peak": watch.peak(),
                "first_fetch": min(result["seconds"] for result in results),  # without the start of the command
                "last_fetch": max(result["seconds"] for result in results),
            }

        sample = swarm.race(machines, seed.pid, work)
    for node in (seed, *nodes):
        shutil.rmtree(node.home)
    return sample


def with_torrent(swarm: Swarm, torrent: Path) -> Sample:
    """Fetch with libtorrent; everybody knows everybody, and goes on giving when done."""
    place = swarm.place
    with ExitStack() as stack:
        machines = stack.enter_context(network(swarm.nodes + 1, Link(swarm.rate)))
        seed = others.start_seed(place, stack, torrent, swarm.file.parent, machines[0])
        addresses = [f"{machine.address}:{others.PORT}" for machine in machines]

        def work() -> Sample:
            processes, marks = [], []
            for machine, own in zip(machines[1:], addresses[1:], strict=True):
                folder, done = place.target / machine.address, place.target / f"{machine.address}.done"
                folder.mkdir()
                peers = [address for address in addresses if address != own]
                command = others.torrent_share(torrent, folder, machine, done, *peers)
                process = subprocess.Popen(command, env=clean_environment())
                stack.callback(stop, process)
                processes.append(process)
                marks.append(done)
            watch = Watch([process.pid for process in processes])
            deadline = time.monotonic() + DEADLINE_S
            while not all(done.exists() for done in marks):
                if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                    raise Failure("libtorrent did not bring everything")
                time.sleep(0.02)
            numbered = enumerate(watch.cpu(), 1)
            return {"peak": watch.peak(), **{f"cpu_node_{number}": seconds for number, seconds in numbered}}

        sample = swarm.race(machines, seed.pid, work)
        digest = others.digest(swarm.file)
        if any(others.digest(place.target / machine.address / swarm.file.name) != digest for machine in machines[1:]):
            raise Failure("libtorrent brought other bytes")
        return sample


def with_web_server(swarm: Swarm) -> Sample:
    """Fetch with curl from nginx, and hash with b3sum."""
    place = swarm.place
    with ExitStack() as stack:
        machines = stack.enter_context(network(swarm.nodes + 1, Link(swarm.rate)))
        server = others.start_nginx(place, stack, swarm.file.parent, machines[0])
        commands = []
        for machine in machines[1:]:
            target = place.target / machine.address
            fetch = others.then_hash(others.curl(server, swarm.file.name, target), target)
            commands.append((machine.command(fetch), clean_environment()))
        digest = others.digest(swarm.file)

        def work() -> Sample:
            before = _children_cpu()
            if any(digest not in output for output in _run_all(commands)):
                raise Failure("curl brought other bytes")
            return {"cpu_commands": _children_cpu() - before}

        return swarm.race(machines, server.pid, work)


def _p2phub_everywhere(nodes: list[Node], *arguments: str) -> list[dict[str, float]]:
    """Run a p2phub command beside each node, and return the JSON that each printed."""
    commands = [(node.command(*arguments, "--json"), node.environment) for node in nodes]
    return [json.loads(output) for output in _run_all(commands)]


def _run_all(commands: Sequence[tuple[list[str], Mapping[str, str]]]) -> list[str]:
    """Run all commands at once, and return what each printed. Raises Failure if one fails."""
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for command, environment in commands
    ]
    try:
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (command, _) in zip(processes, commands, strict=True):
        if process.returncode:
            raise Failure(f"`{' '.join(command)}` ended with {process.returncode}")
    return outputs


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
