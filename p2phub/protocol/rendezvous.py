"""Share out among the nodes of a site who fetches which file from another hub (spec/mirrors.md §3).

    what each of the others does with a file ──Rendezvous──▶ fetch it │ wait for whom

Whoever begins first goes on: nobody else begins what somebody fetches. Of those who would all
begin now, the hash of node and file names one, the same for all of them. A rule about
cost, not about safety: who lies here makes others wait, for a while, or fetch twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from blake3 import blake3

from p2phub.core.ids import NodeId

NOTHING, WANTED, FETCHING = 0, 1, 2  # what a node does with a file; spec/peer-protocol.md §8

PATIENCE_S = 20.0  # seconds that a node waits for what another one fetches, and …
PATIENCE_RATE = 2 * 1024 * 1024  # bytes a second of the file besides; spec/mirrors.md §3


def first_of(file: bytes, nodes: Iterable[NodeId]) -> NodeId:
    """Return whose the file is, of those who want it."""
    return max(nodes, key=lambda node: blake3(bytes(node) + file).digest())


def waits_for(own: NodeId, file: bytes, states: Mapping[NodeId, int]) -> NodeId | None:
    """Return which node of the site is to fetch `file` rather than `own`, None if that is for `own` to do.

    states: what each of the others does with it.
    """
    fetching = [node for node, state in states.items() if state == FETCHING]
    if fetching:
        return min(fetching)
    first = first_of(file, [own, *(node for node, state in states.items() if state == WANTED)])
    return None if first == own else first


def patience_s(size: int) -> float:
    """Return how long a node waits for others to fetch a file of `size` bytes, until it does so itself."""
    return PATIENCE_S + size / PATIENCE_RATE
