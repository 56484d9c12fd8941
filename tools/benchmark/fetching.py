"""Fetches with p2phub, as rows of a case measure them: a whole command, from an empty home."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from p2phub.testing.netns import Machine

from .measuring import Failure, Sample
from .nodes import P2PHUB, Node, beside, environment_of, peer_options, start_node
from .usage import run_command
from .workplace import Workplace


def serve(
    place: Workplace,
    stack: ExitStack,
    publisher: Path,
    count: int,
    *,
    transport: str = "frames",
    machines: Sequence[Machine | None] = (),
) -> list[Node]:
    """Start `count` nodes that have what `publisher` has, on these machines or else here."""
    where = machines or [None] * count
    return [
        start_node(stack, place.copy_of(publisher), machine=machine, transport=transport) for machine in where[:count]
    ]


def fetch(
    place: Workplace,
    revision: str,
    providers: Sequence[Node],
    *,
    transport: str = "frames",
    machine: Machine | None = None,
) -> Callable[[], Sample]:
    """Return what fetches `revision` into the home `place.target`."""
    peers = peer_options([node.address for node in providers])
    command = beside(machine, [P2PHUB, "fetch", revision, "--json", *peers])
    environment = environment_of(place.target, transport)
    serving = [node.pid for node in providers]

    def run() -> Sample:
        return _with_result(place, run_command(command, environment, output=place.output, serving=serving))

    return run


def fetch_through_node(
    place: Workplace, revision: str, providers: Sequence[Node], *, transport: str = "frames"
) -> Callable[[], Sample]:
    """Return what fetches `revision` by a command to a node of the home `place.target`, which holds nothing yet."""

    def run() -> Sample:
        with ExitStack() as stack:
            own = start_node(stack, place.target, peers=[node.address for node in providers], transport=transport)
            command = own.command("fetch", revision, "--json")
            working = [own.pid, *(node.pid for node in providers)]
            sample = run_command(command, own.environment, output=place.output, serving=working)
        return _with_result(place, sample)

    return run


def _with_result(place: Workplace, sample: Sample) -> Sample:
    """Return what was measured of a fetch, and what it printed. Raises Failure if it did not fetch everything."""
    result = json.loads(place.output.read_text())
    if result["here_before"] + result["copied"] + result["received"] < result["size"]:
        raise Failure("p2phub fetch did not fetch everything")
    return {**sample, "received": result["received"], "fetch_seconds": result["seconds"]}
