"""What the peer door answers to a hello: who is here, and whom else this node knows (spec/peer-protocol.md §3)."""

from __future__ import annotations

import trio

from p2phub.core.encoding import decode, encode
from p2phub.core.ids import NodeId
from p2phub.core.names import parse_endpoint
from p2phub.core.noderecord import open_node_record
from p2phub.net.door import Request, Response
from p2phub.protocol.membership import Contact
from p2phub.protocol.messages import FRAME_SIZE_MAX, NODES_MAX, Hello, Nodes

from .disk import on_disk
from .neighbours import slot_network
from .node import Node

REACHED_S = 3600.0  # seconds that a peer is told to others after this node reached it; spec/peer-protocol.md §3
GREETED_S = 60.0  # seconds that it is told after it called: those who begin a download together find each other
GREETED_MAX = 1000  # of these, the latest: anybody can make up ids


class Greetings:
    """Greets whoever says hello, and remembers them for a while."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._greeted: dict[NodeId, float] = {}  # who said hello of late, and when; the oldest first

    async def hello(self, request: Request) -> Response:
        """Take in the node record of the caller, and give our own and those of others."""
        hello = decode(request.body, Hello, size_max=FRAME_SIZE_MAX)
        signed = open_node_record(hello.record, now=self._node.clock())
        now = trio.current_time()
        if signed.record.node != self._node.id and signed.record.addresses:
            await on_disk(self._node.store.peers.note_record, signed)
            where = slot_network(parse_endpoint(signed.record.addresses[0])[0])
            self._node.neighbours.members.know(Contact(signed.record.node, where), "heard")
            self._greeted.pop(signed.record.node, None)
            self._greeted[signed.record.node] = now
        self._forget(now)
        told = await on_disk(self._whom_to_tell_of, signed.record.node)
        return Response(200, encode(Nodes((self._node.record(), *told))))

    def _forget(self, now: float) -> None:
        """Forget those who called long ago, and all but the latest."""
        while self._greeted and (oldest := next(iter(self._greeted))):
            if now - self._greeted[oldest] <= GREETED_S and len(self._greeted) <= GREETED_MAX:
                break
            del self._greeted[oldest]

    def _whom_to_tell_of(self, asker: NodeId) -> list[bytes]:
        """Return the signed records of peers that were reached lately, or just called."""
        # Only those: dead addresses would spread for ever.
        peers, since = self._node.store.peers, self._node.clock() - REACHED_S
        known = [node for node in dict.fromkeys([*peers.reached(since), *self._greeted]) if node != asker]
        # By chance, or a new swarm would know the same few.
        chosen = self._node.rng.sample(known, min(NODES_MAX - 1, len(known)))
        found = (peers.get(node) for node in chosen)
        return [peer.record for peer in found if peer and peer.record]
