"""For whom other nodes act, as far as they proved it to this one (spec/private.md §7).

sessions of callers, delegations in answers ──note──▶ Acting ──▶ whom to tell, whom to ask
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from p2phub.core.access import Caller
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.private import Grantee, names_caller

NODES_MAX = 4096  # that are remembered


class Acting:
    """What is known of other nodes. Times are seconds since 1970."""

    def __init__(self) -> None:
        self._known: dict[NodeId, dict[NamespaceId, float]] = {}  # until when; who proved least lately first
        self.met: dict[NodeId, float] = {}  # when nodes were last asked for private logs

    def note(self, node: NodeId, namespaces: Mapping[NamespaceId, float]) -> None:
        """Note for whom a node acts, and until when."""
        if not namespaces:
            return
        self._known[node] = {**self._known.pop(node, {}), **namespaces}
        while len(self._known) > NODES_MAX:
            del self._known[next(iter(self._known))]

    def note_met(self, node: NodeId, now: float) -> None:
        """Note that a node was asked for private logs."""
        self.met.pop(node, None)
        self.met[node] = now
        while len(self.met) > NODES_MAX:
            del self.met[next(iter(self.met))]

    def caller(self, node: NodeId, now: float) -> Caller:
        """Return what a node proved."""
        known = self._known.get(node, {})
        return Caller(node, frozenset(namespace for namespace, until in known.items() if until > now))

    def nodes_of(self, grantees: Collection[Grantee], now: float) -> list[NodeId]:
        """Return the nodes that are among `grantees` or act for one of them."""
        named = [NodeId(grantee.id) for grantee in grantees if grantee.kind == "node"]
        acting = [
            node
            for node, caller in ((each, self.caller(each, now)) for each in list(self._known))
            if any(names_caller(grantee, caller) for grantee in grantees)
        ]
        return list(dict.fromkeys([*named, *acting]))
