"""Tell peers who we are and for whom we act, where something is asked that is not for everybody (spec/authority.md §3).

Nobody has to be told: what is public is given without a name. Who wants more of a peer, as private
logs when catalogues are compared, calls `introduce` first, and from then on all requests to it are signed.
"""

from __future__ import annotations

import logging

from p2phub.core.delegation import TTL_MAX_S, Delegation, open_delegation, publishes, sign_delegation
from p2phub.core.encoding import encode
from p2phub.core.errors import HubError, InvalidData, NotFound
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import DELEGATIONS_MAX, IdentityChain, SessionQuery

from .disk import on_disk
from .identity import own_identity, own_publisher
from .node import Node

log = logging.getLogger(__name__)

RENEW_S = TTL_MAX_S // 2  # seconds that a delegation has left when the next is made
AGAIN_S = 3600.0  # seconds after which a peer is told again: its publisher may have other keys
CHAINS_SIZE_MAX = 256 * 1024  # bytes of identities that are sent to a peer that does not know them


async def introduce(node: Node, client: PeerClient) -> frozenset[NamespaceId]:
    """Tell the peer who we are, unless it knows; returns for whom we act in its eyes.

    Raises PeerError. After it, the requests of `client`, and its tickets, are asked as ourselves.
    """
    signer = client.signer
    delegations = tuple(await on_disk(delegations_of, node))
    is_known = signer.told is not None and signer.told.delegations == delegations
    if not is_known or signer.until <= node.clock():
        query = SessionQuery(delegations)
        answer = await client.begin_session(query)
        if answer.unknown:
            chains = await on_disk(_chains, node, answer.unknown)
            answer = await client.begin_session(SessionQuery(delegations, chains))
        for reason in answer.refused:
            log.warning("%s does not believe for whom this node acts: %s", client, reason)
        signer.until = node.clock() + min(answer.ttl, AGAIN_S)
        signer.namespaces = frozenset(answer.namespaces)
    return signer.namespaces


def delegations_of(node: Node) -> list[bytes]:
    """Return what says for whom this node acts: for the publisher of this home, made now if need be, and for others.

    For a worker thread.
    """
    try:
        _delegate_to_ourselves(node)
    except NotFound:
        pass  # this home publishes as nobody, or its key is elsewhere
    except HubError as exc:
        # Its key may be in an agent that is not there, and this is asked for again and again.
        if str(exc) != node.delegation_problem:
            log.warning("cannot say that this node acts for its publisher: %s", exc)
        node.delegation_problem = str(exc)
    kept = node.store.delegations.all(node.clock())
    # A home that was copied to another machine has those of the first one's node.
    return [data for data in kept if _is_for(node, data)][:DELEGATIONS_MAX]


def delegate(node: Node, to: NodeId, ttl_s: int) -> tuple[Identity, bytes]:
    """Return the publisher of this home, and its word that the node `to` acts for it for some time.

    Raises as `own_publisher` does.
    """
    identity, key = own_publisher(node)
    now = int(node.clock())
    return identity, sign_delegation(identity.namespace, to, key, now=now, ttl_s=ttl_s)


def _delegate_to_ourselves(node: Node) -> None:
    identity = own_identity(node)
    kept = node.store.delegations.get(identity.namespace)
    if kept is not None and _is_fresh(node, kept, identity):
        return
    # An index that was lost does not know it any more, and peers will ask for it.
    node.store.logs.add_identity(identity, own=True)
    _, data = delegate(node, node.id, TTL_MAX_S)
    node.store.delegations.keep(open_delegation(data, now=node.clock()), data)


def _is_for(node: Node, data: bytes) -> bool:
    try:
        return open_delegation(data, now=node.clock()).node == node.id
    except InvalidData:
        return False


def _is_fresh(node: Node, data: bytes, identity: Identity) -> bool:
    try:
        delegation: Delegation = open_delegation(data, now=node.clock())
    except InvalidData:
        return False
    is_ours = delegation.node == node.id and publishes(delegation, identity)
    return is_ours and delegation.expires - node.clock() > RENEW_S


def _chains(node: Node, namespaces: tuple[NamespaceId, ...]) -> tuple[IdentityChain, ...]:
    """Return the identities of namespaces, of the first of them as many as fit in a query."""
    chains: list[IdentityChain] = []
    size = 0
    for namespace in namespaces:
        chain = node.store.logs.identity_chain(namespace)
        if chain is not None and (size := size + len(encode(chain))) <= CHAINS_SIZE_MAX:
            chains.append(chain)
    return tuple(chains)
