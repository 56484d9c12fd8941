"""Ask peers for one thing until one of them has answered it.

The next peer is asked when the one before failed or took a while, so that a silent peer
costs a second and not a timeout, and one that answers is asked alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from p2phub.core.errors import PeerError, PeerUnreachable, PeerViolation, StoreError
from p2phub.net.peerclient import PeerClient
from p2phub.store.peers import Peer

from .calling import ban_peer, call_peer
from .disk import on_disk
from .events import Notice, Progress, Tell
from .node import Node

HEAD_START_S = 1.0  # seconds that a peer has to answer before the next is asked too
QUIET_S = 2.0  # seconds until people are told what is waited for


async def ask_in_turn(
    node: Node, peers: Sequence[Peer], ask: Callable[[PeerClient], Awaitable[bool]], tell: Tell, *, what: str
) -> list[str]:
    """Let `ask` ask one peer after the other until it returns True; returns why peers failed.

    what: is asked for, as people are told when it takes long. Peers that lied are banned.
    """
    reasons: list[str] = []
    failure: StoreError | None = None
    silent = 0  # peers that were asked and have not answered
    lost: list[Peer] = []  # that did not answer where they were called

    async def ask_one(peer: Peer, answered: trio.Event) -> None:
        nonlocal failure, silent
        try:
            async with call_peer(node, peer) as client:
                if await ask(client):
                    nursery.cancel_scope.cancel()
        except PeerViolation as exc:
            tell(Notice(f"banned: {exc}"))
            await ban_peer(node, peer.node, str(exc))
        except PeerError as exc:
            reasons.append(str(exc))
            if isinstance(exc, PeerUnreachable):
                lost.append(peer)
        except StoreError as exc:
            failure = exc
            nursery.cancel_scope.cancel()
        silent -= 1
        answered.set()

    async def tell_forever() -> None:
        while True:
            await trio.sleep(QUIET_S)
            whose = "1 peer" if silent == 1 else f"{silent} peers"
            tell(Progress("asking", 0, 0, waiting_for=f"an answer of {whose} about {what}"))

    async with trio.open_nursery() as telling:
        telling.start_soon(tell_forever)
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    answered = trio.Event()
                    silent += 1
                    nursery.start_soon(ask_one, peer, answered)
                    with trio.move_on_after(HEAD_START_S):
                        await answered.wait()
            if nursery.cancel_scope.cancel_called:
                break
            try:
                # The others may have told where they are now.
                peers = await on_disk(_moved, node, lost)
            except StoreError as exc:
                failure = exc
                break
        telling.cancel_scope.cancel()
    # Out here, so that the caller meets the error itself and not a group.
    if failure:
        raise failure
    return reasons


def _moved(node: Node, lost: Sequence[Peer]) -> list[Peer]:
    """Return those of the peers of which other addresses are known by now."""
    known = [node.store.peers.get(peer.node) for peer in lost]
    return [now for peer, now in zip(lost, known, strict=True) if now and set(now.endpoints) - set(peer.endpoints)]
