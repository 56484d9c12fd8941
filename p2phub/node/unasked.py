"""Which private repositories were asked for here, and how much comes of those that were not (spec/private.md §5, §7).

Anybody can grant this node a repository. What its owner asked for, by whom he follows, agreed with or names, counts:
what it keeps private yields to nobody else. The rest is taken too, as those are to find it whom it was granted to,
but yields to what others publish, and has little room.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2phub.core.delegation import open_delegation
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.private import Grantee, Repository
from p2phub.core.records import read_entry

from .introduce import delegations_of
from .node import Node

LOGS_MAX = 1024  # private logs that nobody here asked for, in all; spec/private.md §7
LOGS_OF_PUBLISHER_MAX = 64  # of these, of one publisher; spec/private.md §7
RECORDS_MAX = 1024  # of one of these; spec/private.md §7
SIZE_MAX = 256 * 1024  # bytes of records of one of these; spec/private.md §7


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


def has_room(node: Node, log: LogId, namespace: NamespaceId, entries: Sequence[bytes]) -> bool:
    """Say whether a private log may grow by these entries, which were checked if it is not here yet."""
    if is_wanted(node, namespace):
        return True
    unasked = node.store.private.unasked()
    repository = node.store.private.repository_of(log)
    is_new = repository is None
    if repository is None:
        models = {model for data in entries if (model := getattr(read_entry(data).record, "model", None))}
        repository = Repository(namespace, min(models, default=""))
    if repository not in unasked and node.store.private.is_private(repository):
        return True
    if is_new:
        of_publisher = sum(count for each, count in unasked.items() if each.namespace == namespace)
        if of_publisher >= LOGS_OF_PUBLISHER_MAX or sum(unasked.values()) >= LOGS_MAX:
            return False
    state = node.store.logs.state(log, private=True)
    records = (state.size if state else 0) + len(entries)
    size = node.store.policy_use.of_log(log) + sum(len(data) for data in entries)
    return records <= RECORDS_MAX and size <= SIZE_MAX
