"""What the agreements of this home's publisher mean for this node (spec/federation.md §4).

    store.federations ──memberships──▶ whom to follow (following) │ class and rate of links (links)
                                       what to mirror with whom (pledging) │ who is meant by a name (grants)

Nothing is kept in memory: each question looks at what is signed and in force now, so that leaving
takes effect with the next question.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from p2phub.core.choices import LinkClass
from p2phub.core.errors import Conflict, InvalidData, NotFound
from p2phub.core.federation import Agreement, Charter, check_speaks, covers, in_force
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.licenses import permits, to_spdx
from p2phub.core.records import Publish, read_entry
from p2phub.core.terms import Terms
from p2phub.store.federations import Known
from p2phub.store.pledges import Release
from p2phub.store.store import Store

from .links import Agreed


class Membership(Struct, frozen=True):
    """A federation that this home is a member of now, with all whose word stands."""

    known: Known
    own: NamespaceId
    members: Mapping[NamespaceId, Agreement]

    def is_called(self, name: str) -> bool:
        """Say whether people mean this one by `name`: its name, or its id."""
        return name in (self.known.charter.name, str(self.known.charter.id))

    @property
    def terms(self) -> Terms:
        return self.known.charter.terms

    @property
    def nodes(self) -> dict[NodeId, NamespaceId]:
        """The nodes that act for members, and for whom."""
        return {node: each.namespace for each in self.members.values() for node in each.nodes}


def members_in_force(store: Store, known: Known, now: float) -> dict[NamespaceId, Agreement]:
    """Return the members whose word stands: to these terms, not over, and by a key that still publishes.

    None do while the charter is by a key that its coordinator replaced: whoever had it may have written it.
    """
    if not _speaks(store, known.charter, known.charter.coordinator):
        return {}
    words = [each for each in known.agreements.values() if _speaks(store, each, each.namespace)]
    return in_force(known.charter, words, now)


def memberships(store: Store, own: NamespaceId | None, now: float) -> list[Membership]:
    """Return the federations in which `own` is in force."""
    found = []
    for known in store.federations.all() if own is not None else ():
        members = members_in_force(store, known, now)
        if own is not None and own in members:
            found.append(Membership(known, own, members))
    return found


def followed(store: Store, own: NamespaceId | None, now: float) -> frozenset[NamespaceId]:
    """Return the publishers whose records are taken in because of an agreement."""
    return frozenset(
        namespace for each in memberships(store, own, now) for namespace in (*each.members, *each.terms.publishers)
    )


def membership_of(store: Store, name: str, own: NamespaceId | None, now: float) -> Membership:
    """Return the federation called `name`, or with this id, that this home is in. Raises NotFound, Conflict."""
    found = [each for each in memberships(store, own, now) if each.is_called(name)]
    if not found:
        raise NotFound(f"this home belongs to no federation called {name}", hint="`p2phub federation ls` shows them")
    if len(found) > 1:
        raise Conflict(f"several federations are called {name}", hint="use the id that `p2phub federation ls` shows")
    return found[0]


def agreed_links(store: Store, own: NamespaceId | None, node: NodeId, now: float) -> Agreed:
    """Return the classes of links to nodes of other members, and the rates that were agreed on for these classes."""
    links: dict[NodeId, LinkClass] = {}
    members: dict[NamespaceId, LinkClass] = {}
    rates: dict[LinkClass, tuple[int | None, int | None]] = {}
    for each in memberships(store, own, now):
        terms = each.terms
        for other in each.nodes.keys() - {node}:
            links.setdefault(other, terms.link)
        for member in each.members:
            members.setdefault(member, terms.link)
        up, down = rates.get(terms.link, (0, 0))
        # What is promised to several may be used by all of them at once.
        rates[terms.link] = (_sum(up, terms.up), _sum(down, terms.down))
    return Agreed(links, members, rates)


def covered(store: Store, membership: Membership, release: Release) -> bool:
    """Say whether a release falls under the terms. Its licence is that which its record says."""

    def license_ok() -> bool:
        expression = to_spdx(_license_of(store, release) or "")
        return expression is not None and permits(expression, membership.terms.licenses, ())

    if release.namespace is None:
        return False
    return covers(membership.terms, membership.members.keys(), release.namespace, release.kind or "", license_ok)


def _license_of(store: Store, release: Release) -> str | None:
    if release.log is None or release.index is None:
        return None
    data = store.logs.entry(release.log, release.index)
    record = read_entry(data).record if data is not None else None
    return record.summary.license if isinstance(record, Publish) else None


def _speaks(store: Store, signed: Charter | Agreement, namespace: NamespaceId) -> bool:
    identity = store.logs.identity(namespace)
    if identity is None:
        return False
    try:
        check_speaks(signed, namespace, identity)
    except InvalidData:
        return False
    return True


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
