"""Call peers: who may be called, where each answers, and what becomes of one that lies.

Peer (store) ──endpoints──▶ may it be called? (dialling) ──▶ PeerClient, kept for the next question (calls)
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import trio

from p2phub.core.errors import InvalidData, NotFound, OtherVersion, PeerError, PeerUnreachable, StoreError
from p2phub.core.ids import NodeId
from p2phub.core.noderecord import open_node_record
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.talk import Reply
from p2phub.store.peers import Peer

from .calls import Call
from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)


@asynccontextmanager
async def call_peer(node: Node, peer: Peer) -> AsyncIterator[PeerClient]:
    """Give a client for `peer`, which has answered a hello lately.

    Raises PeerError if it answers at none of its endpoints. What the peer tells of other nodes is kept.
    """
    call = node.calls.find(peer.node, peer.endpoints)
    if call is None or not (call.is_greeted or await _greet_again(node, call)):
        call = await _connect(node, peer)
    try:
        with node.calls.use(call) as client:
            yield client
    except OtherVersion as exc:
        await on_disk(node.store.peers.note_skew, peer.node, str(exc), node.clock())
        raise


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
    error: PeerError | None = None
    for client in _clients(node, peer):
        try:
            await _greet(node, client)
        except PeerUnreachable as exc:
            node.dialling.failed(client.host, client.port, trio.current_time())
            error = exc
            continue
        except PeerError as exc:
            client.close()
            await on_disk(node.store.peers.note_failure, peer.node, str(exc), node.clock())
            raise
        now = trio.current_time()
        node.dialling.proved(client.host, client.port, now)
        return Call(client, greeted=now, used=now)
    if error is None:
        raise _uncalled(peer)
    await on_disk(node.store.peers.note_failure, peer.node, str(error), node.clock())
    raise error


def _clients(node: Node, peer: Peer) -> Iterator[PeerClient]:
    """Give a client for each endpoint of a peer, one after the other, where it may be called."""
    for host, port in peer.endpoints:
        # What the user typed may be, whatever others say.
        if peer.added or node.dialling.may_call(host, port, trio.current_time()):
            yield PeerClient(peer.node, host, port, plain=node.settings.plain, signer=node.calls.signer(peer.node))


def _uncalled(peer: Peer) -> PeerUnreachable:
    if not peer.endpoints:
        return PeerUnreachable(f"no address of node {peer.node} is known", peer=str(peer.node))
    return PeerUnreachable(f"node {str(peer.node)[:12]}… was not at its addresses lately", peer=str(peer.node))


async def converse(node: Node, peer: Peer, message: bytes) -> Reply:
    """Say a signed message to a peer and return its answer. Raises PeerError.

    It is not greeted before: the message says who we are, and the handshake who it is.
    """
    if call := node.calls.find(peer.node, peer.endpoints):
        try:
            with node.calls.use(call) as client:
                return await client.talk(message)
        except PeerUnreachable:
            pass  # it may be elsewhere by now
    error: PeerError | None = None
    for client in _clients(node, peer):
        try:
            with node.calls.use(Call(client, greeted=-math.inf, used=trio.current_time())):
                reply = await client.talk(message)
        except PeerUnreachable as exc:
            node.dialling.failed(client.host, client.port, trio.current_time())
            error = exc
            continue
        node.dialling.proved(client.host, client.port, trio.current_time())
        return reply
    raise error or _uncalled(peer)


async def _greet(node: Node, client: PeerClient) -> None:
    """Say who we are, and take note of the nodes that the peer knows."""
    records = await client.hello(node.record())
    await on_disk(take_records, node, client.node, records)


def usable_peers(node: Node) -> list[Peer]:
    """Return the peers that may be called: not ourselves, not banned; those that failed lately last."""
    now = node.clock()
    peers = [peer for peer in node.store.peers.all() if peer.node != node.id and peer.banned_until <= now]
    return sorted(peers, key=lambda peer: peer.next_try > now)


def take_records(node: Node, sender: NodeId, records: Iterable[bytes]) -> None:
    """Note that `sender` answered, and keep the node records that it told us, as far as they are right."""
    keep_records(node, records)
    node.store.peers.note_seen(sender, node.clock())


def keep_records(node: Node, records: Iterable[bytes]) -> list[NodeId]:
    """Keep the node records that are right and newer than what is here; returns whose the right ones are."""
    now = node.clock()
    keys = []
    for data in records:
        try:
            signed = open_node_record(data, now=now)
        except InvalidData:
            continue  # expired on the way, by our clock
        keys.append(signed.record.node)
        if signed.record.node != node.id and signed.record.addresses:
            node.store.peers.note_record(signed)
    return keys


async def ban_peer(node: Node, peer: NodeId, reason: str) -> None:
    """Keep away from a peer that lied: an hour the first time, a day after that."""
    try:
        until = await on_disk(node.store.peers.ban, peer, reason, node.clock())
    except StoreError as exc:
        # The caller drops the peer all the same; it may come back sooner.
        log.warning("cannot note that node %s is banned (%s): %s", peer, reason, exc)
        return
    finally:
        node.neighbours.forget(peer)
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
