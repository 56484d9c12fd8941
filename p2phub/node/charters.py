"""Sign charters and members' words, and find them by the name that people give them (spec/federation.md §1, §2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from p2phub.core.errors import AccessDenied, Conflict, NotFound
from p2phub.core.federation import (
    DAYS_MAX,
    NODES_MAX,
    Agreement,
    Charter,
    State,
    sign_agreement,
    sign_charter,
    terms_digest,
)
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId
from p2phub.core.signing import Signer
from p2phub.core.terms import Terms
from p2phub.store.federations import Known

from .identity import own_namespace, own_publisher
from .node import Node

DAY_S = 24 * 3600
SEEN_SETTING = "federation-seen"  # name in the index


@dataclass(frozen=True)
class OwnMember:
    """Who signs here."""

    identity: Identity
    key: Signer

    @property
    def namespace(self) -> NamespaceId:
        return self.identity.namespace


def signer_of(node: Node) -> OwnMember:
    return OwnMember(*own_publisher(node))


def sign_first(node: Node, own: OwnMember, name: str, terms: Terms) -> Known:
    now = int(node.clock())
    charter = Charter(
        key=own.key.public_key,
        time=now,
        expires=now + DAYS_MAX * DAY_S,
        name=name,
        coordinator=own.namespace,
        created=now,
        version=1,
        members=(own.namespace,),
        terms=terms,
    )
    node.store.logs.add_identity(own.identity, own=True)
    node.store.federations.put_charter(sign_charter(charter, own.key))
    node.store.federations.put_agreement(sign_word(node, own, charter))
    known = node.store.federations.get(charter.id)
    assert known is not None
    return known


def sign_next(
    node: Node,
    own: OwnMember,
    known: Known,
    *,
    members: Iterable[NamespaceId] | None = None,
    terms: Terms | None = None,
) -> Charter:
    """Sign and keep the next version of a charter; returns it."""
    old = known.charter
    version = max(old.version, versions_seen(node).get(str(old.id), 0)) + 1
    now = max(int(node.clock()), version)
    charter = replace(
        old,
        key=own.key.public_key,
        time=now,
        expires=now + DAYS_MAX * DAY_S,
        version=version,
        members=old.members if members is None else tuple(members),
        terms=terms or old.terms,
    )
    node.store.federations.put_charter(sign_charter(charter, own.key))
    return charter


def sign_word(
    node: Node, own: OwnMember, charter: Charter, *, leaves: bool = False, before: Agreement | None = None
) -> bytes:
    """Return the own word on a charter, newer than any before; the nodes of before stay in it."""
    known = node.store.federations.get(charter.id)
    last = known.agreements.get(own.namespace) if known else None
    # By the clock, so that a home that was restored from a copy does not say anything twice.
    serial = now = max(int(node.clock()), last.serial + 1 if last else 1)
    kept = last.nodes if last and last.terms is not None else ()
    nodes = sorted({*kept[: NODES_MAX - 1], node.id})
    return sign_agreement(
        Agreement(
            key=own.key.public_key,
            time=now,
            # Of its own accord nothing lasts longer than its owner said.
            expires=before.expires if before else now + DAYS_MAX * DAY_S,
            federation=charter.id,
            namespace=own.namespace,
            serial=serial,
            terms=None if leaves else terms_digest(charter.terms),
            nodes=tuple(nodes),
        ),
        own.key,
    )


def versions_seen(node: Node) -> dict[str, int]:
    """Return the greatest version of each federation that others had, and that was not signed here."""
    return node.store.settings.get(SEEN_SETTING, dict[str, int]) or {}


def note_version(node: Node, charter: Charter) -> None:
    """Note that somebody else signed a charter of a federation that this home coordinates, with its key."""

    def change(old: dict[str, int] | None) -> dict[str, int]:
        seen = old or {}
        return {**seen, str(charter.id): max(seen.get(str(charter.id), 0), charter.version)}

    node.store.settings.change(SEEN_SETTING, dict[str, int], change)


# ── finding ─────────────────────────────────────────────────────────────────


def find(node: Node, name: str) -> Known | None:
    """Return the federation that is called so, one that still exists before one that does not. Raises Conflict."""
    found = [known for known in node.store.federations.all() if is_called(known, name)]
    own = own_namespace(node)
    found = [known for known in found if own in known.charter.members] or [
        known for known in found if known.charter.members
    ]
    if len(found) > 1:
        ids = ", ".join(str(known.charter.id) for known in found)
        raise Conflict(f"several federations are called {name}: {ids}", hint="use the id")
    return found[0] if found else None


def require(node: Node, name: str) -> Known:
    known = find(node, name)
    if known is None:
        raise unknown(name)
    return known


def unknown(name: str) -> NotFound:
    return NotFound(f"no federation called {name} is known here", hint="`p2phub federation ls` shows those that are")


def is_called(known: Known, name: str) -> bool:
    return name in (known.charter.name, str(known.charter.id))


def check_coordinates(own: OwnMember, known: Known) -> Charter:
    charter = known.charter
    if charter.coordinator != own.namespace:
        raise AccessDenied(
            f"{charter.name} is coordinated by {charter.coordinator}", hint="its coordinator can do that alone"
        )
    if not charter.members:
        raise Conflict(f"{charter.name} was dissolved")
    return charter


def state_of(known: Known) -> State:
    order = sorted(known.agreements_data)
    return State(known.charter_data, tuple(known.agreements_data[each] for each in order))
