"""Learn what other nodes have (spec/gossip.md §9)."""

from __future__ import annotations

import logging

import trio

from p2phub.core.errors import HubError, PeerViolation
from p2phub.core.ids import ManifestId
from p2phub.net.peerclient import PeerClient
from p2phub.store.holdings import HOLDINGS_MAX

from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)

INVENTORY_S = 600.0  # seconds until a peer is asked again what it has; spec/gossip.md §9


async def learn_quietly(node: Node, client: PeerClient) -> None:
    """Ask a peer what it has; that it does not say is no failure of more than this."""
    try:
        await learn_inventory(node, client)
    except PeerViolation:
        raise
    except HubError as exc:
        log.info("%s does not say what it has: %s", client, exc)


async def learn_inventory(node: Node, client: PeerClient) -> None:
    """Ask a peer what it has, unless it said so lately. Raises PeerError."""
    now = trio.current_time()
    asked = node.neighbours.inventories
    if asked.get(client.node, -INVENTORY_S) + INVENTORY_S > now:
        return
    asked[client.node] = now
    held: list[tuple[ManifestId, int]] = []
    while len(held) < HOLDINGS_MAX:
        page = await client.inventory(held[-1][0] if held else None)
        items = [(each.manifest, each.share) for each in page.held]
        if items != sorted(items) or (held and items and items[0] <= held[-1]):
            raise PeerViolation(f"{client} sends what it has out of order", peer=str(client.node))
        held += items
        if not page.more or not items:
            break
    await on_disk(node.store.holdings.note, client.node, held, node.clock())
