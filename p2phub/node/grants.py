"""Sign grants of one's own private repositories, and sign them again before their time is over (spec/private.md §2)."""

from __future__ import annotations

from p2phub.core.errors import NotFound
from p2phub.core.ids import LogId
from p2phub.core.private import Grantee, Repository
from p2phub.core.records import GRANT_MAX_S, Entry, Grant, Record

from .identity import own_identity
from .node import Node
from .visibility import append_record

DAY_S = 24 * 3600


def append_grant(node: Node, repository: Repository, grantee: Grantee, days: int | None) -> Entry:
    """Sign that `grantee` may read a repository of one's own. days: None for what is renewed."""

    def make(*, log: LogId, index: int, previous: bytes, time: int) -> Record:
        return Grant(
            namespace=repository.namespace,
            log=log,
            index=index,
            previous=previous,
            time=time,
            model=repository.model,
            to=grantee.id,
            to_kind=grantee.kind,
            until=time + (GRANT_MAX_S if days is None else days * DAY_S),
            renewed=days is None,
        )

    return append_record(node, repository.model, make, visibility="private")


def renew_grants(node: Node) -> list[Entry]:
    """Sign anew what is to be renewed, once half of its time is over; returns what was signed."""
    signed: list[Entry] = []
    repositories = node.store.private.repositories()
    try:
        namespace = own_identity(node).namespace if repositories else None
    except NotFound:
        return signed
    for repository in repositories:
        if repository.namespace != namespace:
            continue
        for grantee, said in node.store.private.grants(repository).items():
            if said.renewed and said.until and said.until - node.clock() < GRANT_MAX_S / 2:
                signed.append(append_grant(node, repository, grantee, None))
    return signed
