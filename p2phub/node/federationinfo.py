"""Say how federations stand, for people (spec/federation.md §6)."""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core.federation import Agreement, Charter, terms_digest
from p2phub.core.ids import NamespaceId
from p2phub.store.federations import Known

from .charters import versions_seen
from .federations import members_in_force
from .identity import own_namespace
from .node import Node
from .operations.federations import FederationInfo, FederationMember, FederationState, FederationTerms


def describe(node: Node, known: Known, own: NamespaceId | None, now: float) -> FederationInfo:
    counted = members_in_force(node.store, known, now)
    info = of_charter(known.charter, known.agreements, own=own, now=now, counted=counted)
    is_coordinator = own == known.charter.coordinator
    invited = node.store.federations.open_invitations(known.charter.id, now) if is_coordinator else []
    return replace(info, invitations=len(invited), contradicted=known.contradicted, warning=_warning(node, known, own))


def states(node: Node) -> list[FederationState]:
    """Return the federations whose charter lists this home, for a short overview."""
    own, now = own_namespace(node), node.clock()
    found = []
    for known in node.store.federations.all() if own is not None else ():
        word = known.agreements.get(own) if own is not None else None
        if own in known.charter.members and (word is None or word.terms is not None):
            members = members_in_force(node.store, known, now)
            warning = _warning(node, known, own)
            found.append(FederationState(known.charter.name, own in members, len(members), warning))
    return found


def _warning(node: Node, known: Known, own: NamespaceId | None) -> str | None:
    if own == known.charter.coordinator and str(known.charter.id) in versions_seen(node):
        return (
            "a charter came that was not signed here:"
            " was this home brought back from a copy, or is its key in other hands?"
        )
    if known.contradicted:
        return "its coordinator signed two charters of one version; the first that came counts"
    return None


def of_charter(
    charter: Charter,
    words: dict[NamespaceId, Agreement],
    *,
    own: NamespaceId | None,
    now: float,
    counted: dict[NamespaceId, Agreement] | None = None,
) -> FederationInfo:
    counted = counted or {}
    members = [_member(charter, each, words.get(each), each in counted, now) for each in charter.members]
    gone = [each for each, word in sorted(words.items()) if each not in charter.members and each == own]
    terms = charter.terms
    return FederationInfo(
        name=charter.name,
        federation=str(charter.id),
        coordinator=str(charter.coordinator),
        version=charter.version,
        expires=charter.expires,
        member=own in counted,
        members=members + [FederationMember(str(each), "left", [], None) for each in gone],
        terms=FederationTerms(
            publishers=[str(each) for each in terms.publishers],
            kinds=list(terms.kinds),
            licenses=list(terms.licenses),
            replicas=terms.replicas,
            up=terms.up,
            down=terms.down,
            link=terms.link,
        ),
    )


def _member(
    charter: Charter, namespace: NamespaceId, word: Agreement | None, counts: bool, now: float
) -> FederationMember:
    if word is None:
        state = "unknown"  # nobody told us its word yet
    elif word.terms is None:
        state = "left"
    elif word.terms != terms_digest(charter.terms):
        state = "other terms"
    elif word.expires <= now or charter.expires <= now:
        state = "over"
    else:
        state = "member" if counts else "key retired"
    nodes = [str(each) for each in word.nodes] if word and state == "member" else []
    return FederationMember(str(namespace), state, nodes, word.expires if word and word.terms else None)
