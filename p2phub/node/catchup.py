"""Bring here what the own keys signed elsewhere, before they sign more (spec/identity.md §9).

    own_publisher ──LogBehind──▶ ask peers for the log ──▶ own_publisher

A key that came from another machine has a log there. Whoever signed its next record without knowing that log would
give it a second history, and all nodes would freeze it.
"""

from __future__ import annotations

import logging
import math

import trio

from p2phub.core.errors import HubError, InvalidData
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import NamespaceId
from p2phub.core.signing import Signer
from p2phub.net.peerclient import PeerClient
from p2phub.store.peers import Peer

from .calling import call_peer, usable_peers
from .disk import on_disk
from .events import Notice, Tell
from .identity import LogBehind, own_identity, own_publisher
from .node import Node
from .pulling import take_followed

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 30.0  # seconds that one peer may take
ASKED_MAX = 8  # peers


async def ready_to_publish(node: Node, tell: Tell) -> tuple[Identity, Signer]:
    """Return what `own_publisher` does, once all that was signed elsewhere is here.

    Raises as `own_publisher`; LogBehind if no peer could tell.
    """
    try:
        return await on_disk(own_publisher, node)
    except LogBehind as exc:
        identity = await on_disk(own_identity, node)
        await _catch_up(node, identity.namespace, exc, tell)
    return await on_disk(own_publisher, node)


async def learn(node: Node, namespace: NamespaceId, tell: Tell, *, timeout_s: float = math.inf) -> int:
    """Take over documents and logs of a publisher from peers; returns how many of them answered within `timeout_s`."""
    if node.settings.offline:
        return 0
    answers = 0

    async def ask(peer: Peer) -> None:
        nonlocal answers
        try:
            with trio.fail_after(ASK_TIMEOUT_S):
                async with call_peer(node, peer) as client:
                    await _take_documents(node, client, namespace)
                    await take_followed(node, client, [namespace])
            answers += 1
        except (HubError, trio.TooSlowError) as exc:
            tell(Notice(f"{peer.node} was asked in vain: {exc or 'too slow'}"))

    with trio.move_on_after(timeout_s):
        async with trio.open_nursery() as nursery:
            for peer in (await on_disk(usable_peers, node))[:ASKED_MAX]:
                nursery.start_soon(ask, peer)
    return answers


async def _take_documents(node: Node, client: PeerClient, namespace: NamespaceId) -> None:
    """Take over the newest document of a publisher; another one than that here is noted."""
    (chain,) = await client.identities([namespace])
    if chain is None:
        return
    try:
        identity = await on_disk(open_identity, chain.documents)
        if identity.namespace == namespace:
            await on_disk(node.store.logs.add_identity, identity)
    except InvalidData as exc:
        # Of two of one version the first goes on to count; what is wrong counts for nothing.
        log.warning("%s has documents of %s that do not count here: %s", client, namespace, exc)


async def _catch_up(node: Node, namespace: NamespaceId, behind: LogBehind, tell: Tell) -> None:
    answers = await learn(node, namespace, tell)
    state = await on_disk(node.store.logs.state, behind.log)
    size = state.size if state else 0
    if size < behind.size:
        raise LogBehind(
            f"the key signed {behind.size} records on another machine, and {size} of them are here",
            log=behind.log,
            size=behind.size,
            hint=behind.hint or "",
        )
    if not answers and not size:
        raise behind
    node.caught_up.add(behind.log)
