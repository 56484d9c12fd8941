"""Ask all peers at once what they have of some files (spec/transfer.md §6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from p2phub.core.errors import PeerError, PeerUnreachable
from p2phub.core.ids import ContentId
from p2phub.protocol.messages import Have
from p2phub.store.peers import Peer

from .allowed import peers_about
from .calling import call_peer
from .node import Node

ASK_TIMEOUT_S = 10.0  # seconds that a peer has to say what it has
ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class Answer:
    """What one peer said."""

    peer: Peer
    host: str | None  # where it was called
    have: Have | None  # None: it did not say
    failure: PeerError | None = None


async def ask_who_has(node: Node, roots: Sequence[ContentId], peers: Sequence[Peer] | None = None) -> list[Answer]:
    """Return what each of `peers` says that it has of the files `roots`, or why it does not say.

    peers: None for all that may be called. Who may not hear of the files is not asked.
    """
    found: list[Answer] = []
    limiter = trio.CapacityLimiter(ASKED_AT_ONCE)

    async def ask(peer: Peer) -> None:
        async with limiter:
            with trio.move_on_after(ASK_TIMEOUT_S) as waiting:
                found.append(await _ask(node, peer, roots))
            if waiting.cancelled_caught:
                late = PeerUnreachable(f"no answer within {ASK_TIMEOUT_S:.0f} s", peer=str(peer.node))
                found.append(Answer(peer, None, None, late))

    async with trio.open_nursery() as nursery:
        allowed = await peers_about(node, roots)
        named = {peer.node for peer in allowed}
        for peer in allowed if peers is None else [peer for peer in peers if peer.node in named]:
            nursery.start_soon(ask, peer)
    return found


async def _ask(node: Node, peer: Peer, roots: Sequence[ContentId]) -> Answer:
    try:
        async with call_peer(node, peer) as client:
            return Answer(peer, client.host, await client.have(roots))
    except PeerError as exc:
        return Answer(peer, None, None, exc)
