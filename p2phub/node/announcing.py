"""Tell peers of a newer identity document from a home in which no node runs (spec/identity.md §6).

A running node tells its neighbours, who ask it for the rest. A command that runs alone ends at once, and nobody can ask
it for anything: what it signed, such as that a stolen key counts no more, has to come with what it says.
"""

from __future__ import annotations

import logging

import trio

from p2phub.core.errors import HubError
from p2phub.core.ids import NamespaceId
from p2phub.protocol.talk import sign_talk
from p2phub.store.peers import Peer

from .calling import converse, usable_peers
from .disk import on_disk
from .news import compose_identity
from .node import Node

log = logging.getLogger(__name__)

TOLD_MAX = 16  # peers
TELL_TIMEOUT_S = 5.0  # for all of them


async def announce_identity(node: Node, namespace: NamespaceId) -> tuple[int, int]:
    """Tell peers of the newest document of a publisher; returns how many heard it, and how many were called."""
    push = await on_disk(compose_identity, node.store, namespace)
    if push is None:
        return 0, 0
    peers = (await on_disk(usable_peers, node))[:TOLD_MAX]
    heard = 0

    async def say(peer: Peer) -> None:
        nonlocal heard
        try:
            await converse(node, peer, sign_talk(push, node.key, peer.node, now=node.clock()))
            heard += 1
        except HubError as exc:
            log.info("node %s heard nothing of the identity: %s", peer.node, exc)

    with trio.move_on_after(TELL_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(say, peer)
    return heard, len(peers)
