"""The peers that are known, as people are shown them."""

from __future__ import annotations

import trio

from p2phub.core.choices import LinkClass
from p2phub.core.ids import NodeId
from p2phub.store.peers import Peer

from .disk import on_disk
from .node import Node
from .operations.peers import PeerInfo


async def list_peers(node: Node) -> list[PeerInfo]:
    """Return the peers that are known."""
    now = node.clock()
    peers = [peer for peer in await on_disk(node.store.peers.all) if peer.node != node.id]
    links: dict[NodeId, LinkClass] = {}

    async def look(peer: Peer) -> None:
        links[peer.node] = await node.links.class_of(peer)

    # All at once: each may have to wait for the address of a name.
    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(look, peer)
    return [
        PeerInfo(
            node=str(peer.node),
            addresses=peer.addresses,
            link=links[peer.node],
            added=peer.added,
            last_seen=peer.last_seen,
            last_error=peer.last_error,
            failures=peer.failures,
            received=peer.received,
            banned_until=peer.banned_until if peer.banned_until > now else None,
            ban_reason=peer.ban_reason,
            skew=peer.skew,
        )
        for peer in peers
    ]
