"""Keep what was agreed on the same with all members (spec/federation.md §5).

    every minute, and at once when something was signed ──spread──▶ nodes of members ──▶ what they know

Whoever is told something checks it as if nobody had: who signed, for whom the key publishes, and
that it is newer than what is here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from p2phub.core.encoding import decode
from p2phub.core.errors import AccessDenied, HubError, InvalidData, PeerViolation
from p2phub.core.federation import (
    NODES_MAX,
    State,
    check_speaks,
    check_time,
    open_agreement,
    open_charter,
    open_offer,
    secret_digest,
    terms_digest,
)
from p2phub.core.identity import open_identity
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.records import SKEW_MAX_S
from p2phub.core.terms import MEMBERS_MAX
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.federation import JOIN_SIZE_MAX, Join
from p2phub.protocol.talk import Federate, sign_talk
from p2phub.store.federations import Known
from p2phub.store.peers import Peer

from .calling import ban_peer, call_peer
from .charters import check_coordinates, note_version, sign_next, sign_word, signer_of, state_of, versions_seen
from .disk import on_disk
from .federations import agreed_links
from .identity import own_namespace
from .node import Node
from .publishers import learn_identities

log = logging.getLogger(__name__)

ROUND_S = 60.0  # seconds between rounds in which members tell each other what they know; spec/federation.md §5
TELL_TIMEOUT_S = 10.0  # for one node
TOLD_AT_ONCE = 8


async def answer_join(node: Node, body: bytes) -> State:
    """Let in who shows the secret of an invitation of ours. Raises AccessDenied with the reason, InvalidData."""
    request = decode(body, Join, size_max=JOIN_SIZE_MAX)
    state = await on_disk(_let_in, node, request)
    await apply_agreed(node)
    node.federated.wake()
    return state


def _let_in(node: Node, request: Join) -> State:
    store, now, own = node.store.federations, node.clock(), signer_of(node)
    offer, agreement = open_offer(request.offer), open_agreement(request.agreement)
    known = store.get(offer.federation)
    digest = secret_digest(request.secret)
    invited = store.invitation(digest)
    if known is None or invited is None or invited.federation != offer.federation or offer.secret != digest:
        raise AccessDenied("this invitation was not given out here, or was taken back")
    charter = check_coordinates(own, known)
    check_speaks(offer, own.namespace, own.identity)
    check_time(offer, now)
    check_time(agreement, now)
    identity = open_identity(request.identity.documents)
    check_speaks(agreement, agreement.namespace, identity)
    newest = node.store.logs.identity(agreement.namespace)
    if newest is not None and len(newest.chain) > len(identity.chain):
        check_speaks(agreement, agreement.namespace, newest)
    if offer.namespace not in (None, agreement.namespace):
        raise AccessDenied(f"this invitation is for {offer.namespace}")
    if agreement.federation != charter.id or agreement.terms != terms_digest(charter.terms):
        raise AccessDenied("the terms have changed since: ask for another invitation")
    is_member = agreement.namespace in charter.members
    if invited.used_by is not None and not (is_member and invited.used_by == agreement.namespace):
        raise AccessDenied(f"this invitation was used by {invited.used_by}")
    if not is_member and len(charter.members) >= MEMBERS_MAX:
        raise AccessDenied(f"the federation has {MEMBERS_MAX} members, which is the limit")
    if store.use_invitation(digest, agreement.namespace) != agreement.namespace:
        raise AccessDenied("this invitation was used by somebody else just now")
    node.store.logs.add_identity(identity)
    store.put_agreement(request.agreement)
    if not is_member:
        sign_next(node, own, known, members=sorted({*charter.members, agreement.namespace}))
    current = store.get(charter.id)
    assert current is not None
    return state_of(current)


async def hear_state(node: Node, speaker: NodeId, state: State) -> State | None:
    """Take in what a node says of a federation; returns what is known here, None for whoever is no member."""
    changed, known = await on_disk(_merge, node, state)
    if known is None:
        return None
    if changed:
        await apply_agreed(node)
    if await on_disk(lacks_identity, node, known) or changed:
        node.federated.wake()
    return state_of(known) if speaker in listed_nodes(known) else None


async def tend_federations(node: Node) -> None:
    """Tell members what is known, hear what they know, and keep the own word up to date; runs until cancelled."""
    while True:
        woken = node.federated.woken
        try:
            await on_disk(_keep_up, node)
            await apply_agreed(node)
            for known in await on_disk(node.store.federations.all):
                await spread(node, known, listed_nodes(known))
        except HubError as exc:
            log.warning("cannot tend federations: %s", exc)
        with trio.move_on_after(ROUND_S):
            await woken.wait()


async def spread(node: Node, known: Known, nodes: Iterable[NodeId]) -> None:
    """Tell other nodes what is known of a federation, and take in what they know."""
    turns = trio.CapacityLimiter(TOLD_AT_ONCE)

    async def tell(peer: Peer) -> None:
        async with turns:
            try:
                with trio.fail_after(TELL_TIMEOUT_S):
                    await _tell(node, peer, known)
            except PeerViolation as exc:
                await ban_peer(node, peer.node, str(exc))
            except (HubError, trio.TooSlowError) as exc:
                log.info("node %s hears nothing of %s: %s", peer.node, known.charter.name, exc or "too slow")

    async with trio.open_nursery() as nursery:
        for other in sorted({*nodes} - {node.id}):
            peer = await on_disk(node.store.peers.get, other)
            if peer is not None and peer.banned_until <= node.clock():
                nursery.start_soon(tell, peer)


async def _tell(node: Node, peer: Peer, known: Known) -> None:
    async with call_peer(node, peer) as client:
        missing = await on_disk(lacks_identity, node, known)
        if missing:
            await learn_identities(node, client, missing)
        said = sign_talk(Federate(state_of(known)), node.key, peer.node, now=node.clock(), record=node.record())
        reply = await client.talk(said)
        if reply.federation is not None:
            await take_answer(node, reply.federation, client_peer=client)


async def take_answer(node: Node, state: State, client_peer: PeerClient | None) -> None:
    """Take in what a peer answered; identities that are missing for it are asked of the same peer."""
    changed, known = await on_disk(_merge, node, state)
    if known is not None and client_peer is not None:
        unknown = {open_agreement(data).namespace for data in state.agreements}
        missing = [each for each in sorted(unknown) if await on_disk(node.store.logs.identity, each) is None]
        if missing:
            await learn_identities(node, client_peer, missing)
            again, _ = await on_disk(_merge, node, state)
            changed = changed or again
    if changed:
        await apply_agreed(node)
        node.federated.wake()


def _merge(node: Node, state: State) -> tuple[bool, Known | None]:
    """Keep what is newer of `state` and right; returns whether anything is, and the federation if it is known here."""
    store, now = node.store.federations, node.clock()
    try:
        charter = open_charter(state.charter)
        known = store.get(charter.id)
        if known is None:
            return False, None  # only whoever joins takes up a federation
        changed = False
        identity = node.store.logs.identity(charter.coordinator)
        if identity is not None and charter.time <= now + SKEW_MAX_S:
            check_speaks(charter, known.charter.coordinator, identity)
            if charter.coordinator != own_namespace(node):
                changed = store.put_charter(state.charter)
            elif charter != known.charter and charter.version >= known.charter.version:
                # Nobody else may write it: this home was brought back from a copy, or the key is in other hands.
                log.warning("a charter of %s came that was not signed here, version %d", charter.name, charter.version)
                note_version(node, charter)
    except InvalidData as exc:
        log.info("a charter that does not count: %s", exc)
        return False, None
    known = store.get(charter.id)
    assert known is not None
    for data in state.agreements:
        changed = _take_agreement(node, known, data, now) or changed
    return changed, store.get(charter.id)


def _take_agreement(node: Node, known: Known, data: bytes, now: float) -> bool:
    try:
        word = open_agreement(data)
        identity = node.store.logs.identity(word.namespace)
        # Of others nobody needs to know anything, and they could be made up without end.
        if word.federation != known.charter.id or word.namespace not in known.charter.members or identity is None:
            return False
        check_speaks(word, word.namespace, identity)
        if word.time > now + SKEW_MAX_S:
            return False
    except InvalidData as exc:
        log.info("a word on %s that does not count: %s", known.charter.name, exc)
        return False
    return node.store.federations.put_agreement(data)


def listed_nodes(known: Known) -> set[NodeId]:
    """Return the nodes that act for those whom the charter lists, and who did not leave."""
    words = [each for each in known.agreements.values() if each.namespace in known.charter.members]
    return {node for each in words if each.terms is not None for node in each.nodes}


def lacks_identity(node: Node, known: Known) -> list[NamespaceId]:
    """Return the members of whom no identity is here, so that nothing they say can be checked."""
    return [each for each in known.charter.members if node.store.logs.identity(each) is None]


async def apply_agreed(node: Node) -> None:
    """Let links and lists go by what is in force now."""

    def look() -> None:
        node.following.refresh()

    await on_disk(look)
    own = await on_disk(own_namespace, node)
    node.links.agree(await on_disk(agreed_links, node.store, own, node.id, node.clock()))
    node.promises.wake()


def _keep_up(node: Node) -> None:
    """Sign anew what needs it: with a key that still publishes, for this node too, and without those who left."""
    try:
        own = signer_of(node)
    except HubError:
        return  # there is nobody here who could
    store = node.store.federations
    for known in store.all():
        charter, word = known.charter, known.agreements.get(own.namespace)
        is_agreed = word is not None and word.terms == terms_digest(charter.terms) and own.namespace in charter.members
        is_retired = word is not None and word.key not in own.identity.current.publish.keys
        if is_agreed and word is not None and (node.id not in word.nodes or is_retired):
            if not is_retired and len(word.nodes) >= NODES_MAX:
                continue
            store.put_agreement(sign_word(node, own, charter, before=word))
        if charter.coordinator == own.namespace and charter.members:
            left = {each for each, said in known.agreements.items() if said.terms is None and each in charter.members}
            is_behind = versions_seen(node).get(str(charter.id), 0) >= charter.version
            if left or is_behind or charter.key not in own.identity.current.publish.keys:
                sign_next(node, own, known, members=[each for each in charter.members if each not in left])
