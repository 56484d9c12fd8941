"""Which private repositories were asked for here (spec/private.md §5).

Anybody can grant this node a repository. What its owner asked for, by whom he follows, agreed with or names, counts:
what it keeps private yields to nobody else. The rest is taken too, as those are to find it whom it was granted to,
but yields to what others publish.
"""

from __future__ import annotations

from p2phub.core.delegation import open_delegation
from p2phub.core.ids import NamespaceId
from p2phub.core.private import Grantee, Repository

from .introduce import delegations_of
from .node import Node


def own_grantees(node: Node) -> set[Grantee]:
    """Return as whom this node can be let in."""
    mine = {Grantee("node", bytes(node.id))}
    for data in delegations_of(node):
        mine.add(Grantee("namespace", bytes(open_delegation(data, now=node.clock()).namespace)))
    return mine


def is_wanted(node: Node, publisher: NamespaceId) -> bool:
    """Say whether the owner wants all that a publisher keeps private: his own, followed, or agreed with."""
    following = node.following
    if publisher == following.own or Grantee("namespace", bytes(publisher)) in own_grantees(node):
        return True
    return publisher in following.listed()


def ask_for(node: Node, repository: Repository) -> None:
    """Note that the owner named a repository: if it is private, what it says counts from now on."""
    if repository in node.store.private.unasked():
        node.store.private.ask_for(repository)


def ask_for_wanted(node: Node) -> None:
    """Let count what came before its publisher was followed, or agreed with."""
    for repository in node.store.private.unasked():
        if is_wanted(node, repository.namespace):
            node.store.private.ask_for(repository)
