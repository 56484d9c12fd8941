"""Keep the catalogue equal with peers: choose whom to ask and whom to tell, and when (spec/peer-protocol.md §5).

    from time to time ──▶ pull (pulling) ──▶ store ──changed──▶ announce ──▶ peer takes it, announces on

A push carries news within seconds; a pull from each peer now and then repairs what a
push lost. A node passes on only what changed its own state, so news dies out by itself.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import trio

from p2phub.core.checkpoint import HEAD_SIZE_MAX
from p2phub.core.errors import (
    HubError,
    InvalidData,
    NotFound,
    PeerError,
    PeerUnreachable,
    PeerViolation,
    StoreError,
)
from p2phub.core.ids import NodeId
from p2phub.core.noderecord import RECORD_SIZE_MAX as NODE_RECORD_SIZE_MAX
from p2phub.core.noderecord import SignedNodeRecord, open_node_record
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import ANNOUNCED_HEADS_MAX, FRAME_SIZE_MAX, Announcement, LogHead
from p2phub.store.peers import Peer

from .calls import Call
from .disk import on_disk
from .events import Notice, Tell
from .node import Node
from .pulling import news_of, pull, take_heads

log = logging.getLogger(__name__)

PULL_INTERVAL_S = 30.0  # seconds between pulls, about; spec/peer-protocol.md §5
ANNOUNCE_PEERS = 8  # peers that are told of a change; spec/peer-protocol.md §5
ANNOUNCE_TIMEOUT_S = 10.0
# Heads in one announcement: as many as fit its frame even if witnesses made each as long as it may be.
ANNOUNCED_HEADS = min(ANNOUNCED_HEADS_MAX, (FRAME_SIZE_MAX - 2 * NODE_RECORD_SIZE_MAX) // (HEAD_SIZE_MAX + 128))
ANNOUNCEMENTS_MAX = 32  # followed up at once
SYNC_TIMEOUT_S = 120.0  # for one pull from one peer
RETRY_MAX_S = 600.0  # seconds until a peer that does not answer is tried again, at most
DISK_RETRY_S = 2.0  # seconds until replication goes on after the disk failed it
MATES_MAX = 16  # peers that are pulled from in one round


@asynccontextmanager
async def call_peer(node: Node, peer: Peer) -> AsyncIterator[PeerClient]:
    """Give a client for `peer`, which has answered a hello lately.

    Raises PeerError if it answers at none of its endpoints. What the peer tells of other nodes is kept.
    """
    call = node.calls.find(peer.node, peer.endpoints)
    if call is None or not (call.is_greeted or await _greet_again(node, call)):
        call = await _connect(node, peer)
    with node.calls.use(call) as client:
        yield client


async def _greet_again(node: Node, call: Call) -> bool:
    """Say whether the peer still answers where it did."""
    try:
        with node.calls.use(call) as client:
            await _greet(node, client)
    except PeerUnreachable:
        return False
    call.greeted = trio.current_time()
    return True


async def _connect(node: Node, peer: Peer) -> Call:
    """Call a peer, trying its endpoints in turn. Raises PeerError if it answers nowhere."""
    error: PeerError = PeerUnreachable(f"no address of node {peer.node} is known", peer=str(peer.node))
    for host, port in peer.endpoints:
        client = PeerClient(peer.node, host, port, plain=node.settings.plain)
        try:
            await _greet(node, client)
        except PeerUnreachable as exc:
            error = exc
            continue
        except PeerError as exc:
            client.close()
            await on_disk(node.store.peers.note_failure, peer.node, str(exc))
            raise
        now = trio.current_time()
        return Call(client, greeted=now, used=now)
    await on_disk(node.store.peers.note_failure, peer.node, str(error))
    raise error


async def _greet(node: Node, client: PeerClient) -> None:
    """Say who we are, and take note of the nodes that the peer knows."""
    records = await client.hello(node.record())
    await on_disk(_take_records, node, client.node, records)


def usable_peers(node: Node) -> list[Peer]:
    """Return the peers that may be called: not ourselves, not banned."""
    now = node.clock()
    return [peer for peer in node.store.peers.all() if peer.node != node.id and peer.banned_until <= now]


async def ask_for_news(node: Node, tell: Tell, *, timeout_s: float) -> None:
    """Pull from all known peers unless the node is offline, and tell why each that failed did."""
    if not node.settings.offline:
        for failure in await sync_all(node, timeout_s=timeout_s):
            tell(Notice(failure))


async def sync_all(node: Node, *, timeout_s: float) -> list[str]:
    """Pull from all known peers at once; returns why each that failed did."""
    failures: list[str] = []

    async def sync_one(peer: Peer) -> None:
        with trio.move_on_after(timeout_s) as waiting:
            try:
                async with call_peer(node, peer) as client:
                    await pull(node, client)
            except PeerViolation as exc:
                await ban_peer(node, peer.node, str(exc))
                failures.append(str(exc))
            except HubError as exc:
                failures.append(str(exc))
        if waiting.cancelled_caught:
            late = f"node {str(peer.node)[:12]}… did not answer within {timeout_s:.0f} s"
            await on_disk(node.store.peers.note_failure, peer.node, late)
            failures.append(late)

    async with trio.open_nursery() as nursery:
        for peer in (await on_disk(usable_peers, node))[:MATES_MAX]:
            nursery.start_soon(sync_one, peer)
    return failures


async def take_announcement(node: Node, sender: SignedNodeRecord, heads: Iterable[LogHead]) -> None:
    """Fetch what `heads` cover from the node that announced them, if it is news.

    With too many running already it is let go: the next pull brings what it would have.
    """
    if node.announcements >= ANNOUNCEMENTS_MAX:
        return
    node.announcements += 1
    try:
        news = await on_disk(news_of, node, tuple(heads))
        await on_disk(node.store.peers.note_record, sender)
        peer = await on_disk(node.store.peers.get, sender.record.node)
        if not news or peer is None or peer.banned_until > node.clock() or peer.node == node.id:
            return
        with trio.fail_after(SYNC_TIMEOUT_S):
            async with call_peer(node, peer) as client:
                await take_heads(node, client, news)
    except (HubError, trio.TooSlowError) as exc:
        # A PeerViolation too: anybody can announce what he likes in a node's name, and could get
        # it banned. Of a node that really lies the next pull finds out.
        log.info("an announcement of node %s led nowhere: %s", sender.record.node, exc or "too slow")
    finally:
        node.announcements -= 1


async def replicate(node: Node) -> None:
    """Pull from peers now and then, and tell them of every change; runs until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_going, _announce_changes, node)
        await _keep_going(_pull_forever, node, nursery)


async def _keep_going(task: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run a task that never ends, and begin it again when the disk fails it: an index may be locked for long."""
    while True:
        try:
            await task(*arguments)
        except StoreError as exc:
            log.warning("cannot replicate for now: %s", exc)
        await trio.sleep(DISK_RETRY_S)


async def _pull_forever(node: Node, nursery: trio.Nursery) -> None:
    next_try: dict[NodeId, float] = {}
    while True:
        now = trio.current_time()
        for peer in (await on_disk(usable_peers, node))[:MATES_MAX]:
            if next_try.get(peer.node, 0.0) <= now:
                # A peer that does not answer is asked less and less often.
                wait_s = min(PULL_INTERVAL_S * 2 ** min(peer.failures, 10), RETRY_MAX_S)
                if peer.failures and peer.added:
                    wait_s = min(wait_s, PULL_INTERVAL_S)
                next_try[peer.node] = now + wait_s * node.rng.uniform(0.7, 1.0)
                nursery.start_soon(_pull_quietly, node, peer)
        await on_disk(node.store.peers.forget_old, node.clock())
        await trio.sleep(1.0 if not next_try else PULL_INTERVAL_S / 15)


async def _pull_quietly(node: Node, peer: Peer) -> None:
    try:
        with trio.fail_after(SYNC_TIMEOUT_S):
            async with call_peer(node, peer) as client:
                await pull(node, client)
    except PeerViolation as exc:
        await ban_peer(node, peer.node, str(exc))
    except (HubError, trio.TooSlowError) as exc:
        log.info("could not pull from node %s: %s", peer.node, exc or "too slow")


async def _announce_changes(node: Node) -> None:
    """Tell peers the heads that changed since the last time."""
    told = {state.log: (state.size, state.version) for state in await on_disk(node.store.logs.states)}
    while True:
        changed = node.changed
        states = await on_disk(node.store.logs.states)
        news = [state for state in states if state.head and (state.size, state.version) != told.get(state.log)]
        if not news or not node.endpoints:
            await changed.wait()
            continue
        heads = [LogHead(state.namespace, state.version, state.head) for state in news]
        peers = await on_disk(usable_peers, node)
        node.rng.shuffle(peers)
        async with trio.open_nursery() as nursery:
            for peer in sorted(peers, key=lambda peer: peer.failures > 0)[:ANNOUNCE_PEERS]:
                for at in range(0, len(heads), ANNOUNCED_HEADS):
                    nursery.start_soon(_announce, node, peer, tuple(heads[at : at + ANNOUNCED_HEADS]))
        told.update((state.log, (state.size, state.version)) for state in news)


async def _announce(node: Node, peer: Peer, heads: tuple[LogHead, ...]) -> None:
    try:
        with trio.fail_after(ANNOUNCE_TIMEOUT_S):
            async with call_peer(node, peer) as client:
                await client.announce(Announcement(node.record(), heads))
    except (HubError, trio.TooSlowError) as exc:
        log.info("could not announce to node %s: %s", peer.node, exc or "too slow")


def _take_records(node: Node, sender: NodeId, records: Iterable[bytes]) -> None:
    """Note that `sender` answered, and keep the node records that it told us, as far as they are right."""
    now = node.clock()
    for data in records:
        try:
            signed = open_node_record(data, now=now)
        except InvalidData:
            continue
        if signed.record.node != node.id and signed.record.addresses:
            node.store.peers.note_record(signed)
    node.store.peers.note_seen(sender, now)


async def ban_peer(node: Node, peer: NodeId, reason: str) -> None:
    """Keep away from a peer that lied: an hour the first time, a day after that."""
    try:
        until = await on_disk(node.store.peers.ban, peer, reason, node.clock())
    except StoreError as exc:
        # The caller drops the peer all the same; it may come back sooner.
        log.warning("cannot note that node %s is banned (%s): %s", peer, reason, exc)
        return
    log.warning("banned node %s for %.0f s: %s", peer, until - node.clock(), reason)


async def require_peers(node: Node) -> list[Peer]:
    """Return the peers that may be called. Raises NotFound if there are none."""
    peers = await on_disk(usable_peers, node)
    if not peers:
        raise await on_disk(nobody_to_ask, node)
    return peers


def nobody_to_ask(node: Node) -> NotFound:
    """Return the error for when no peer may be called: none is known, or all are banned."""
    banned = sum(peer.node != node.id for peer in node.store.peers.all())
    if banned:
        return NotFound(
            f"all peers that are known ({banned}) are banned",
            hint="`p2phub peers ls` shows why, `p2phub peers rm NODEID` forgets a peer and its ban",
        )
    return NotFound("no peers are known", hint="add one: p2phub peers add p2phub://NODEID@HOST:PORT")
