"""Keep the catalogue equal with peers: compare it now and then, and hear and tell news (spec/gossip.md §2, §3).

    from time to time ──▶ pull (pulling) ──▶ store ──note_news──▶ gossip ──▶ neighbours

A push carries news within seconds; a pull from one peer now and then repairs what a push
lost. A node passes on only what changed its own state, so news dies out by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from p2phub.core.errors import HubError, PeerBusy, PeerViolation, StoreError
from p2phub.core.ids import NodeId

from . import inventory
from .calling import ban_peer, call_peer
from .disk import on_disk
from .fresh import learn_of_interest
from .gossip import tell_forever, tend
from .maps import refresh_maps
from .node import Node
from .privatelogs import pull_quietly
from .privatenews import tell
from .pulling import Turn, pull
from .syncing import note_understood
from .tendprivate import tend_private

log = logging.getLogger(__name__)

PULL_INTERVAL_S = 60.0  # seconds between pulls, about; spec/gossip.md §3
PULL_AGAIN_S = 5.0  # seconds until a neighbour that has more than it sent is pulled from again
PULLS_MAX = 2  # at once
TURN_S = 60.0  # after which a pull from one peer ends, to go on when others had their turn; spec/replication.md §4
SYNC_TIMEOUT_S = 120.0  # for one pull from one peer
DISK_RETRY_S = 2.0  # seconds until replication goes on after the disk failed it
FORGET_S = 3600.0  # seconds between looks for peers to be forgotten


async def replicate(node: Node) -> None:
    """Keep in touch with peers, pull from them now and then, and tell them of every change; runs until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_going, tend, node, nursery)
        nursery.start_soon(_keep_going, tell_forever, node, nursery)
        nursery.start_soon(_keep_going, _forget_old_peers, node)
        nursery.start_soon(_keep_going, tend_private, node)
        await _keep_going(_pull_forever, node, nursery)


async def _keep_going(task: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run a task that never ends, and begin it again when the disk fails it: an index may be locked for long."""
    while True:
        try:
            await task(*arguments)
        except StoreError as exc:
            log.warning("cannot replicate for now: %s", exc)
        await trio.sleep(DISK_RETRY_S)


async def _forget_old_peers(node: Node) -> None:
    while True:
        await on_disk(node.store.peers.forget_old, node.clock())
        await trio.sleep(FORGET_S)


async def _pull_forever(node: Node, nursery: trio.Nursery) -> None:
    """Pull from a peer chosen by chance now and then, and at once from neighbours that have much."""
    neighbours = node.neighbours
    turns = trio.CapacityLimiter(PULLS_MAX)
    next_pull = trio.current_time()
    pulled: dict[NodeId, float] = {}
    while True:
        woken, now = neighbours.woken, trio.current_time()
        pulled = {peer: then for peer, then in pulled.items() if then + PULL_AGAIN_S > now}
        ready = [peer for peer in neighbours.behind if peer not in pulled]
        for peer in ready:
            del neighbours.behind[peer]
        if now >= next_pull and (partner := neighbours.members.partner(now)):
            next_pull = now + PULL_INTERVAL_S * node.rng.uniform(0.7, 1.3)
            ready.append(partner)
        for peer in dict.fromkeys(ready):
            pulled[peer] = now
            nursery.start_soon(_pull_quietly, node, peer, turns)
        # Without anybody to pull from, somebody may turn up any moment.
        later = now + 1.0 if next_pull <= now else next_pull
        if neighbours.behind:
            later = min(later, min(pulled.values()) + PULL_AGAIN_S)
        with trio.move_on_at(later):
            await woken.wait()


async def _pull_quietly(node: Node, chosen: NodeId, turns: trio.CapacityLimiter) -> None:
    again_s: float | None = None  # after which there is more to be had
    async with turns:
        peer = await on_disk(node.store.peers.get, chosen)
        if peer is None or peer.banned_until > node.clock():
            return
        try:
            # Before the peer is called: it is not to blame for how long that takes.
            await refresh_maps(node)
            with trio.fail_after(SYNC_TIMEOUT_S):
                async with call_peer(node, peer) as client:
                    turn = Turn(TURN_S)
                    await pull(node, client, turn)
                    again_s = 0.0 if turn.was_cut else None
                    await learn_of_interest(node, client)
                    await inventory.learn_quietly(node, client)
                    changed = await pull_quietly(node, client)
                for each in changed:
                    await tell(node, each, 0, but=[chosen])
            await note_understood(node, peer)
            node.neighbours.members.answered(chosen, trio.current_time())
        except PeerViolation as exc:
            await ban_peer(node, chosen, str(exc))
        except PeerBusy as exc:
            # Such as one that sums up what it has, once it was started.
            log.info("node %s is busy: %s", chosen, exc)
            again_s = exc.retry_after_s
        except (HubError, trio.TooSlowError) as exc:
            log.info("could not pull from node %s: %s", chosen, exc or "too slow")
            # Others first; whether it is still a neighbour shows when it is talked to.
            node.neighbours.members.hold(chosen, trio.current_time())
    if again_s is not None:
        await trio.sleep(again_s)
        node.neighbours.note_behind(chosen)
