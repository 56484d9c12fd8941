"""Let other machines act for the publisher of this home, and this one for others (spec/authority.md §2).

delegate ──▶ a word ──a person carries it──▶ take ──▶ store ──introduce──▶ peers
"""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.delegation import check_delegation, open_delegation
from p2phub.core.errors import InvalidData, InvalidName, NotFound
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.names import parse_address
from p2phub.protocol.letters import read_letter, write_letter

from .introduce import delegate, delegations_of
from .node import Node


class ActsFor(Struct, frozen=True):
    """A publisher for whom a node acts."""

    namespace: NamespaceId
    node: NodeId
    expires: int  # seconds since 1970


def let_act(node: Node, to: str, ttl_s: int) -> tuple[ActsFor, str]:
    """Let another node act for the publisher of this home; returns the word to take there.

    to: a node id or an address. Raises InvalidName, and as `own_publisher` does.
    """
    other = parse_address(to).node if to.startswith("p2phub://") else NodeId.parse(to)
    if other == node.id:
        raise InvalidName("this is the node of this machine, which acts for its own publisher by itself")
    identity, data = delegate(node, other, ttl_s)
    return _told(node, data), write_letter(data, identity)


def take(node: Node, word: str) -> ActsFor:
    """Act for the publisher who wrote `word` from now on. Raises InvalidData."""
    delegation, data, identity = read_letter(word, to=node.id, now=node.clock())
    known = node.store.logs.identity(delegation.namespace)
    if known is not None and len(known.chain) > len(identity.chain):
        check_delegation(delegation, known)
    # So that it can be shown to those who do not know it. Raises InvalidData if it is of another history.
    node.store.logs.add_identity(identity)
    node.store.delegations.keep(delegation, data)
    return _told(node, data)


def acts_for(node: Node) -> list[ActsFor]:
    """Return for whom this node acts."""
    return [_told(node, data) for data in delegations_of(node)]


def stop(node: Node, namespace: NamespaceId) -> None:
    """Act for a publisher no more. Raises NotFound if this node does not."""
    if not node.store.delegations.remove(namespace):
        raise NotFound(f"this node does not act for {namespace}")


def _told(node: Node, data: bytes) -> ActsFor:
    try:
        delegation = open_delegation(data, now=node.clock())
    except InvalidData as exc:
        raise AssertionError("a delegation that was just made or checked is wrong") from exc
    return ActsFor(delegation.namespace, delegation.node, delegation.expires)
