"""Learn from a peer who a publisher is, and say whose fault it is if that does not count (spec/identity.md §3).

What a publisher signed, its peers only pass on: that it signed two documents of one version, or
writes what a later version of the protocol allows, is no lie of theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from p2phub.core.errors import InvalidData, OtherVersion, PeerError, PeerViolation, SplitIdentity, UnknownForm
from p2phub.core.identity import open_identity
from p2phub.core.ids import NamespaceId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import IdentityChain

from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)


async def learn_identities(node: Node, client: PeerClient, namespaces: Sequence[NamespaceId]) -> list[NamespaceId]:
    """Ask a peer for identity documents, and keep those that are newer than what is here; returns whose it has.

    namespaces: asked for at once; of many, the first that fit an answer. Raises PeerError.
    """
    known = []
    for namespace, chain in zip(namespaces, await client.identities(namespaces), strict=False):
        if chain is not None:
            await _keep(node, client, namespace, chain)
            known.append(namespace)
    return known


async def _keep(node: Node, client: PeerClient, namespace: NamespaceId, chain: IdentityChain) -> None:
    try:
        identity = await on_disk(open_identity, chain.documents)
        if identity.namespace != namespace:
            raise InvalidData("the identity is of another namespace")
        await on_disk(node.store.logs.add_identity, identity)
    except SplitIdentity as exc:
        note_split(exc)
    except InvalidData as exc:
        raise fault(client, "an identity", exc) from exc


def note_split(split: SplitIdentity) -> None:
    """Say that the documents of a publisher disagree with what is here.

    Whoever heard the other one first has it: the peer did nothing wrong.
    """
    log.warning("%s; the one that came first counts here", split)


def fault(client: PeerClient, what: str, wrong: InvalidData) -> PeerError:
    """Return the error for `what` of a publisher, passed on by a peer: its lie, or right in another version."""
    if isinstance(wrong, UnknownForm):
        return OtherVersion(f"{client} has {what} that this version does not know: {wrong}", peer=str(client.node))
    return PeerViolation(f"{client} sent {what} that is not right", peer=str(client.node))
