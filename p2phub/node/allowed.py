"""Whom to ask for something: the one place that decides which peers hear of a manifest or file (spec/private.md §8).

ids ──private?──▶ no: every peer that may be called
             └──▶ yes: those that proved to be let in, after they were asked who they are
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import trio

from p2phub.core.errors import HubError, PeerViolation
from p2phub.store.peers import Peer

from .calling import ban_peer, call_peer, usable_peers
from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)

MEET_TIMEOUT_S = 5.0  # seconds that peers have to say for whom they act
MET_S = 900.0  # seconds until they are asked again
MET_AT_ONCE = 32


async def peers_about(node: Node, ids: Collection[bytes]) -> list[Peer]:
    """Return the peers that may be called and may hear of all of these manifests and files.

    What is private, and not named by a public log either, is named to none but those who may read it.
    """
    if not await on_disk(node.store.private.owners, ids):
        return await on_disk(usable_peers, node)
    await _meet(node)
    return await on_disk(_allowed, node, ids)


def _allowed(node: Node, ids: Collection[bytes]) -> list[Peer]:
    owners = node.store.private.owners(ids)
    now = node.clock()
    found = []
    for peer in usable_peers(node):
        readable = node.store.private.readable(node.acting.caller(peer.node, now), now)
        if all(each & readable for each in owners):
            found.append(peer)
    return found


async def _meet(node: Node) -> None:
    """Let peers say for whom they act, those that did not lately; nothing is named to them."""
    if node.settings.offline:
        return
    now = node.clock()
    peers = [peer for peer in await on_disk(usable_peers, node) if node.acting.met.get(peer.node, -MET_S) + MET_S < now]

    from .privatelogs import pull_private

    async def meet(peer: Peer) -> None:
        try:
            async with call_peer(node, peer) as client:
                await pull_private(node, client)
        except PeerViolation as exc:
            await ban_peer(node, peer.node, str(exc))
        except HubError as exc:
            log.info("node %s does not say for whom it acts: %s", peer.node, exc)

    with trio.move_on_after(MEET_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            for peer in peers[:MET_AT_ONCE]:
                nursery.start_soon(meet, peer)
