"""Decide who of those that promised to keep something keeps a copy of which revision (spec/pledges.md §3).

    promises, who has it, who is gone ──share_out──▶ copies needed, and the nodes that are to have one

All who know the same of each other decide the same, without a word between them: whoever has
it keeps it, and the hash of node and manifest names who fetches it. Who knows less than others
may fetch one copy too many, and never one too few.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from blake3 import blake3
from msgspec import Struct

from p2phub.core.ids import ManifestId, NodeId


class Shares(Struct, frozen=True):
    """How the copies of one revision are shared out."""

    needed: int  # copies that those who promised owe together
    keepers: tuple[NodeId, ...]  # who is to have one


def share_out(
    manifest: ManifestId,
    promises: Mapping[NodeId, int | None],
    *,
    holders: Collection[NodeId],
    gone: Collection[NodeId],
) -> Shares:
    """Return how many copies of `manifest` are owed, and who of those that promised keeps one.

    promises: how many copies each node helps to keep; None: it keeps one itself, whatever others do.
    holders: who has it. gone: who is not counted on, because it is not there, or lied.
    """
    surely = sorted(node for node, replicas in promises.items() if replicas is None)
    counts = [replicas for replicas in promises.values() if replicas is not None]
    needed = max(len(surely), *counts, 0)
    # Whoever promised for itself alone keeps its copy also when nobody counts on it.
    there = [node for node in promises if node not in gone]
    helpers = _order(manifest, [node for node in there if promises[node] is not None], holders)
    missing = needed - sum(node not in gone for node in surely)
    return Shares(needed, (*surely, *helpers[: max(missing, 0)]))


def _order(manifest: ManifestId, nodes: Sequence[NodeId], holders: Collection[NodeId]) -> list[NodeId]:
    """Return nodes in the order in which they are to keep: those that have it, then as the hash says."""

    def rank(node: NodeId) -> tuple[bool, bytes]:
        return node in holders, blake3(bytes(node) + bytes(manifest)).digest()

    return sorted(nodes, key=rank, reverse=True)
