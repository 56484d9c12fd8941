"""Ask peers for news now, because somebody waits for it; what a daemon does by itself is in `replicate`."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p2phub.core.errors import HubError, PeerBusy, PeerViolation
from p2phub.core.ids import NamespaceId
from p2phub.net.peerclient import PeerClient
from p2phub.store.peers import Peer

from .calling import ban_peer, call_peer, usable_peers
from .disk import on_disk
from .events import Notice, Tell
from .fresh import learn_quietly
from .maps import refresh_maps
from .node import Node
from .privatelogs import pull_quietly
from .pulling import pull, take_followed

GRACE_S = 1.0  # seconds that a command waits for doubtful peers once another has told all; spec/gossip.md §3
MATES_MAX = 16  # peers that a command pulls from


async def ask_for_news(node: Node, tell: Tell, *, timeout_s: float, about: Sequence[NamespaceId] = ()) -> None:
    """Pull from all known peers unless the node is offline, and tell why each that failed did.

    about: publishers of whom to learn what they stated to be newest.
    """
    if not node.settings.offline and await _sum_up(node, tell, timeout_s):
        for failure in await sync_all(node, timeout_s=timeout_s, about=about):
            tell(Notice(failure))


async def _sum_up(node: Node, tell: Tell, timeout_s: float) -> bool:
    """Bring the maps up to date with which peers are asked; returns whether that is done.

    Here, so that no peer is blamed for the time it takes.
    """
    with trio.move_on_after(timeout_s) as waiting:
        await refresh_maps(node)
    if waiting.cancelled_caught:
        tell(Notice("peers are not asked for news yet: this node has to sum up first what is here, and is at it"))
    return not waiting.cancelled_caught


async def sync_all(node: Node, *, timeout_s: float, about: Sequence[NamespaceId] = ()) -> list[str]:
    """Pull from all known peers at once; returns why each that failed did.

    When one has told all, those that have not even said hello yet are waited for only a little longer, if they never
    answered, or not the last time.
    """
    failures: list[str] = []
    doubtful: set[trio.CancelScope] = set()
    begun = trio.current_time()

    async def sync_one(peer: Peer) -> None:
        with trio.move_on_after(timeout_s) as waiting:
            if peer.failures or peer.last_seen is None:
                doubtful.add(waiting)
            try:
                async with call_peer(node, peer) as client:
                    doubtful.discard(waiting)
                    waiting.deadline = begun + timeout_s
                    busy = await _pull_or_take(node, client, about)
                    await learn_quietly(node, client, about)
                    # Somebody waits for it: what was granted just now is to be found.
                    await pull_quietly(node, client, again_s=0.0)
                for other in doubtful:
                    other.deadline = min(other.deadline, trio.current_time() + GRACE_S)
                if busy is None:
                    await note_understood(node, peer)
                else:
                    failures.append(str(busy))
            except PeerViolation as exc:
                await ban_peer(node, peer.node, str(exc))
                failures.append(str(exc))
            except HubError as exc:
                failures.append(str(exc))
        if waiting.cancelled_caught:
            waited_s = trio.current_time() - begun
            late = f"node {str(peer.node)[:12]}… did not answer within {waited_s:.0f} s"
            await on_disk(node.store.peers.note_failure, peer.node, late, node.clock())
            failures.append(late)

    async with trio.open_nursery() as nursery:
        for peer in await on_disk(_mates, node):
            nursery.start_soon(sync_one, peer)
    return failures


async def _pull_or_take(node: Node, client: PeerClient, about: Sequence[NamespaceId]) -> PeerBusy | None:
    """Take over all that a peer has; from one too busy to compare it, the logs of `about`, and return that it is.

    After an upgrade it has to sum up its catalogue first, which may take minutes; what one publisher signed it can say.
    """
    try:
        await pull(node, client)
    except PeerBusy as exc:
        if not about:
            raise
        await take_followed(node, client, about)
        return exc
    return None


def _mates(node: Node) -> list[Peer]:
    """Return the peers that a command pulls from: those that failed lately only if there are no others."""
    peers = usable_peers(node)
    lately = [peer for peer in peers if peer.next_try <= node.clock()]
    return (lately or peers)[:MATES_MAX]


async def note_understood(node: Node, peer: Peer) -> None:
    """Note that all that a peer has to say was taken over."""
    if peer.skews:
        await on_disk(node.store.peers.note_understood, peer.node)
