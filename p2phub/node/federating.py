"""Agree with other institutions: invite, join, leave, and change the terms (spec/federation.md §3, §4).

invite ──text──▶ join ──agreement, secret──▶ coordinator's node ──new charter──▶ all members
"""

from __future__ import annotations

import os

from p2phub.core.errors import AccessDenied, Conflict, HubError, InvalidData, NotFound, PeerError, PeerViolation
from p2phub.core.federation import (
    Charter,
    Invitation,
    Offer,
    check_name,
    check_speaks,
    check_time,
    format_invitation,
    open_charter,
    open_offer,
    parse_invitation,
    secret_digest,
    sign_offer,
)
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import NamespaceId
from p2phub.core.names import parse_address
from p2phub.core.terms import MEMBERS_MAX, OFFER_DAYS_MAX, Terms
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.federation import Join
from p2phub.protocol.messages import IdentityChain
from p2phub.store.federations import Known

from .charters import (
    DAY_S,
    check_coordinates,
    find,
    is_called,
    require,
    sign_first,
    sign_next,
    sign_word,
    signer_of,
    unknown,
)
from .disk import on_disk
from .federationinfo import describe, of_charter
from .federationtalk import apply_agreed, listed_nodes, spread, take_answer
from .identity import own_namespace
from .node import Node
from .operations.federations import FederationInfo, InviteInfo


async def invite(node: Node, name: str, *, whom: NamespaceId | None, days: int, terms: Terms | None) -> InviteInfo:
    """Return an invitation to the federation `name`, which is founded now if there is none of this name.

    whom: who alone may use it; None: whoever comes first. terms: of a federation that is founded.
    Raises AccessDenied if another institution coordinates it, Conflict.
    """
    check_name(name)
    if not node.endpoints:
        raise HubError("whoever is invited calls back, and this node does not run", hint="start it first: p2phub node")

    def work() -> InviteInfo:
        own, known = signer_of(node), find(node, name)
        if known is None:
            known = sign_first(node, own, name, terms or Terms())
        elif terms is not None:
            raise Conflict(f"{name} has terms already", hint=f"p2phub federation terms {name} changes them")
        charter = check_coordinates(own, known)
        if len(charter.members) >= MEMBERS_MAX:
            raise Conflict(f"{name} has {MEMBERS_MAX} members, which is the limit")
        if whom is not None and whom in charter.members:
            raise Conflict(f"{whom} is a member of {name} already")
        now, secret = int(node.clock()), os.urandom(32)
        expires = now + min(days, OFFER_DAYS_MAX) * DAY_S
        offer = Offer(
            key=own.key.public_key,
            time=now,
            expires=expires,
            federation=charter.id,
            secret=secret_digest(secret),
            namespace=whom,
        )
        node.store.federations.note_invitation(offer.secret, charter.id, whom, expires)
        made = Invitation(known.charter_data, sign_offer(offer, own.key), secret, tuple(node.addresses[:8]))
        return InviteInfo(name, str(charter.id), format_invitation(made), expires, str(whom) if whom else None)

    info = await on_disk(work)
    node.federated.wake()
    return info


async def read_invitation(node: Node, text: str) -> FederationInfo:
    """Return what an invitation invites to, checked with the coordinator's node. Raises InvalidName, PeerError."""
    invitation = parse_invitation(text)
    async with _Inviter(node, invitation) as (_, identity):
        charter, _ = _open_invitation(node, invitation, identity)
    return of_charter(charter, {}, own=None, now=node.clock())


async def join(node: Node, text: str) -> FederationInfo:
    """Agree to the terms of an invitation, and become a member.

    Raises AccessDenied if it is for another, PeerError if the coordinator's node refuses or does not answer.
    """
    invitation = parse_invitation(text)
    own = await on_disk(signer_of, node)
    async with _Inviter(node, invitation) as (client, identity):
        charter, offer = _open_invitation(node, invitation, identity)
        if offer.namespace not in (None, own.namespace):
            raise AccessDenied(f"the invitation is for {offer.namespace}, and this home is {own.namespace}")
        agreement = await on_disk(sign_word, node, own, charter)
        request = Join(invitation.offer, invitation.secret, agreement, IdentityChain(own.identity.chain))
        state = await client.join_federation(request)
        try:
            new = open_charter(state.charter)
            check_speaks(new, charter.coordinator, identity)
            if new.id != charter.id or own.namespace not in new.members or new.terms != charter.terms:
                raise InvalidData("its answer is not what was agreed on")
        except InvalidData as exc:
            raise PeerViolation(f"{client} let us in and did not: {exc}", peer=str(client.node)) from exc

    def keep() -> None:
        node.store.logs.add_identity(identity)
        node.store.federations.put_charter(state.charter)
        node.store.federations.put_agreement(agreement)
        for address in invitation.addresses:
            node.store.peers.add(parse_address(address))

    await on_disk(keep)
    await take_answer(node, state, client_peer=None)
    await apply_agreed(node)
    node.federated.wake()
    return await _shown(node, charter.name)


async def accept(node: Node, name: str) -> FederationInfo:
    """Agree to the terms of a federation as they are now: they changed, or the own word is over. Raises NotFound."""

    def work() -> Known:
        own, known = signer_of(node), require(node, name)
        word = known.agreements.get(own.namespace)
        if own.namespace not in known.charter.members:
            raise AccessDenied(f"this home is no member of {name} any more")
        if word is not None and word.terms is None:
            raise AccessDenied(f"this home left {name}", hint="another invitation lets it in again")
        node.store.federations.put_agreement(sign_word(node, own, known.charter))
        return known

    return await _told(node, await on_disk(work))


async def leave(node: Node, name: str) -> FederationInfo:
    """Leave a federation, at once; a coordinator dissolves it so. Raises NotFound, Conflict if that was done."""

    def work() -> Known:
        own, known = signer_of(node), find(node, name)
        if known is None or _has_left(known, own.namespace):
            # One that was dissolved is found no more.
            if any(is_called(each, name) and _has_left(each, own.namespace) for each in node.store.federations.all()):
                raise Conflict(f"this home has left {name} already")
            raise unknown(name)
        if own.namespace == known.charter.coordinator:
            sign_next(node, own, known, members=())
            node.store.federations.withdraw_invitations(known.charter.id)
        node.store.federations.put_agreement(sign_word(node, own, known.charter, leaves=True))
        return known

    return await _told(node, await on_disk(work))


def _has_left(known: Known, own: NamespaceId) -> bool:
    word = known.agreements.get(own)
    return word is not None and word.terms is None


async def set_terms(node: Node, name: str, terms: Terms) -> FederationInfo:
    """Change the terms of a federation that this home coordinates: others count again once they agree.

    Raises AccessDenied, NotFound.
    """

    def work() -> Known:
        own, known = signer_of(node), require(node, name)
        charter = check_coordinates(own, known)
        if terms != charter.terms:
            changed = sign_next(node, own, known, terms=terms)
            node.store.federations.put_agreement(sign_word(node, own, changed))
        return known

    return await _told(node, await on_disk(work))


async def remove(node: Node, name: str, member: NamespaceId) -> FederationInfo:
    """Let a member belong to a federation no longer that this home coordinates. Raises AccessDenied, NotFound."""

    def work() -> Known:
        own, known = signer_of(node), require(node, name)
        charter = check_coordinates(own, known)
        if member not in charter.members:
            raise NotFound(f"{member} is no member of {name}")
        if member == own.namespace:
            raise Conflict("a coordinator cannot be removed", hint=f"p2phub federation leave {name} dissolves it")
        sign_next(node, own, known, members=[each for each in charter.members if each != member])
        return known

    return await _told(node, await on_disk(work))


async def show(node: Node, name: str | None) -> list[FederationInfo]:
    """Return the federations that are known here, those that this home left too. Raises NotFound for a name of none."""

    def work() -> list[FederationInfo]:
        own, now = own_namespace(node), node.clock()
        chosen = [known for known in node.store.federations.all() if name is None or is_called(known, name)]
        if name is not None and not chosen:
            raise unknown(name)
        return [describe(node, known, own, now) for known in chosen]

    return await on_disk(work)


async def _told(node: Node, known: Known) -> FederationInfo:
    """Put in force what was just signed, and tell all members; returns how it stands."""
    await apply_agreed(node)
    current = await on_disk(node.store.federations.get, known.charter.id)
    assert current is not None
    # Those who belong to it no longer hear this too.
    await spread(node, current, listed_nodes(known) | listed_nodes(current))
    node.federated.wake()
    return await _shown(node, str(known.charter.id))


async def _shown(node: Node, name: str) -> FederationInfo:
    return (await show(node, name))[-1]


def _open_invitation(node: Node, invitation: Invitation, identity: Identity) -> tuple[Charter, Offer]:
    """Return what an invitation holds, checked. Raises InvalidData."""
    charter, offer, now = open_charter(invitation.charter), open_offer(invitation.offer), node.clock()
    check_speaks(charter, charter.coordinator, identity)
    check_speaks(offer, charter.coordinator, identity)
    check_time(charter, now)
    try:
        check_time(offer, now)
    except InvalidData as exc:
        raise AccessDenied(f"the invitation to {charter.name}: {exc}", hint="ask for another one") from exc
    if offer.federation != charter.id or offer.secret != secret_digest(invitation.secret):
        raise InvalidData("the parts of the invitation do not belong together")
    return charter, offer


class _Inviter:
    """Give a client for a node of the coordinator, and the coordinator's identity. Raises PeerError."""

    def __init__(self, node: Node, invitation: Invitation) -> None:
        self._node = node
        self._addresses = [parse_address(text) for text in invitation.addresses]
        self._charter = open_charter(invitation.charter)
        self._client: PeerClient | None = None

    async def __aenter__(self) -> tuple[PeerClient, Identity]:
        failure: HubError | None = None
        for address in self._addresses:
            client = PeerClient(address.node, address.host, address.port, plain=self._node.settings.plain)
            try:
                (chain,) = await client.identities([self._charter.coordinator])
                if chain is None:
                    raise PeerError(f"{client} does not know who invites", peer=str(client.node))
                identity = open_identity(chain.documents)
            except (PeerError, InvalidData) as exc:
                client.close()
                failure = failure or exc
                continue
            self._client = client
            return client, identity
        raise PeerError(
            f"the node of whoever invites does not answer: {failure}",
            peer=str(self._addresses[0].node),
            hint="it must be running, and reachable from here",
        )

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
