"""Keep private repositories going: renew what was granted, and ask for what was missed (spec/private.md §7)."""

from __future__ import annotations

import logging

import trio

from p2phub.core.errors import HubError, PeerViolation
from p2phub.core.ids import NodeId

from .calling import ban_peer, call_peer, usable_peers
from .disk import on_disk
from .grants import renew_grants
from .node import Node
from .privatelogs import nodes_told, pull_private
from .privatenews import announce, tell
from .unasked import ask_for_wanted

log = logging.getLogger(__name__)

TEND_S = 30.0  # seconds between looks at what is to be renewed, and whom to ask; spec/private.md §7
ASKED_AT_ONCE = 16  # peers; when a node begins, any
ASK_TIMEOUT_S = 10.0  # for one peer


async def tend_private(node: Node) -> None:
    """Renew grants, and ask those who may have private logs for what was missed; runs until cancelled."""
    peers = (await on_disk(usable_peers, node))[:ASKED_AT_ONCE]
    asked = [peer.node for peer in peers]
    while True:
        await on_disk(ask_for_wanted, node)
        for entry in await on_disk(renew_grants, node):
            await announce(node, entry)
        async with trio.open_nursery() as nursery:
            for each in asked:
                nursery.start_soon(_ask, node, each)
        await trio.sleep(TEND_S)
        asked = (await on_disk(_holders, node))[:ASKED_AT_ONCE]


def _holders(node: Node) -> list[NodeId]:
    """Return nodes that may have the private logs that are here, in random order."""
    found = dict.fromkeys(
        each for repository in node.store.private.repositories() for each in nodes_told(node, repository)
    )
    return node.rng.sample(list(found), len(found))


async def _ask(node: Node, holder: NodeId) -> None:
    peer = await on_disk(node.store.peers.get, holder)
    if peer is None or peer.banned_until > node.clock():
        return
    try:
        with trio.move_on_after(ASK_TIMEOUT_S):
            async with call_peer(node, peer) as client:
                changed = await pull_private(node, client)
            for each in changed:
                await tell(node, each, 0, but=[holder])
    except PeerViolation as exc:
        await ban_peer(node, holder, str(exc))
    except HubError as exc:
        log.info("node %s does not tell of private logs: %s", holder, exc)
