"""Do what operations about peers say."""

from __future__ import annotations

from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.ids import NodeId
from p2phub.core.names import parse_address

from ..disk import on_disk
from ..events import Tell
from ..handlers import Handlers
from ..neighbours import contact_of
from ..node import Node
from ..operations import Done
from ..operations.peers import AddPeers, ListPeers, PeerInfo, RemovePeer
from ..peerlist import list_peers

NEWS_TIMEOUT_S = 5.0  # seconds in which peers that were just added are asked for news


async def _peers(node: Node, op: ListPeers, tell: Tell) -> list[PeerInfo]:
    return await list_peers(node)


async def _add_peers(node: Node, op: AddPeers, tell: Tell) -> list[PeerInfo]:
    addresses = [parse_address(text) for text in op.addresses]
    for address in addresses:
        if address.node == node.id:
            raise InvalidName(f"{address} is this node itself")
        await on_disk(node.store.peers.add, address)
        if peer := await on_disk(node.store.peers.get, address.node):
            node.neighbours.members.know(contact_of(peer), "added")
        # A download that runs uses it at once.
        for arriving in node.arriving.values():
            arriving.note_mate(address.node)
    if op.news:
        from ..syncing import ask_for_news  # loads all that takes records over

        await ask_for_news(node, tell, timeout_s=NEWS_TIMEOUT_S)
    added = {str(address.node) for address in addresses}
    return [peer for peer in await list_peers(node) if peer.node in added]


async def _remove_peer(node: Node, op: RemovePeer, tell: Tell) -> Done:
    peer = parse_address(op.node).node if op.node.startswith("p2phub://") else NodeId.parse(op.node)
    if not await on_disk(node.store.peers.remove, peer):
        raise NotFound(f"no peer {peer} is known", hint="`p2phub peers ls` shows those that are")
    node.neighbours.forget(peer)
    return Done()


HANDLERS: Handlers = {
    ListPeers: _peers,
    AddPeers: _add_peers,
    RemovePeer: _remove_peer,
}
