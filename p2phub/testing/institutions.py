"""Institutions that run a node each: processes of their own, on machines and in networks of their own.

    with institutions(tmp_path, "alma", "bonn", "cern") as (alma, bonn, cern):
        alma.home.run("publish", …)
        cern.node.stop()

Each has a publisher. All are told of the first, and get to know the others by themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .netns import Machine, network
from .processes import Home, RunningNode, wait_until

PORT = 8627


@dataclass
class Institution:
    """One of them."""

    name: str
    machine: Machine
    home: Home
    node: RunningNode
    namespace: str

    @property
    def address(self) -> str:
        """Where its node is, as people write it."""
        return self.node.address

    def knows(self, namespace: str) -> bool:
        """Say whether anything of a publisher is known here, without a question to others."""
        return self.home.run("log", namespace, "--offline", "--json", code=None, env={"P2PHUB_NODE": "none"}).code == 0

    def has(self, revision: str) -> bool:
        """Say whether all of a revision is in the store here."""
        kept = self.home.json("store", "ls", env={"P2PHUB_NODE": "none"})
        return any(each["revision"] == revision and each["here"] == each["size"] for each in kept)


@contextlib.contextmanager
def institutions(
    folder: Path, *names: str, options: Sequence[str] = (), env: dict[str, str] | None = None
) -> Iterator[list[Institution]]:
    """Give institutions with running nodes; all but the first know the first. options: of `p2phub node`.

    Raises NoNamespaces.
    """
    with network(len(names), apart=True) as machines, contextlib.ExitStack() as stack:
        found: list[Institution] = []
        for name, machine in zip(names, machines, strict=True):
            home = Home(folder / name, dict(env or {}), machine)
            namespace = home.json("id", "new")["namespace"]
            peers = (found[0].address,) if found else ()
            listen = f"{machine.address}:{PORT}"
            node = stack.enter_context(home.node("--no-lan", *options, peers=peers, listen=listen))
            found.append(Institution(name, machine, home, node, namespace))
        yield found


def wait_acquainted(some: Sequence[Institution]) -> None:
    """Wait until each knows of the others where they are."""
    for one in some:
        others = {other.node.node_id for other in some if other is not one}
        wait_until(lambda one=one, others=others: others <= _peers(one), f"{one.name} to know the others")  # type: ignore[misc]


def _peers(one: Institution) -> set[str]:
    return {peer["node"] for peer in one.home.json("peers", "ls")}
