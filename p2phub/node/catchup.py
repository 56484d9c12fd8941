"""Bring here what the own keys signed elsewhere, before they sign more (spec/identity.md §9).

    own_publisher ──LogBehind──▶ ask peers for the log ──▶ own_publisher

A key that came from another machine has a log there. Whoever signed its next record without knowing that log would
give it a second history, and all nodes would freeze it.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime

import trio

from p2phub.core.errors import HubError, InvalidData
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.records import read_entry
from p2phub.core.signing import Signer
from p2phub.net.peerclient import PeerClient
from p2phub.store.peers import Peer

from .calling import call_peer, usable_peers
from .disk import from_thread, on_disk
from .early import WAY_OUT, describe_early, early_records
from .events import Notice, Tell
from .identity import LogBehind, own_identity, own_publisher
from .node import Node
from .pulling import take_followed

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 30.0  # seconds that one peer may take
ASKED_MAX = 8  # peers
BACK_MAX_S = 60.0  # seconds that the clock may be behind the last record without a word: clocks are put right a little


async def ready_to_publish(node: Node, tell: Tell) -> tuple[Identity, Signer]:
    """Return what `own_publisher` does, once all that was signed elsewhere is here; tells if the clock was set back.

    Raises as `own_publisher`; LogBehind if no peer could tell.
    """
    try:
        publisher = await on_disk(own_publisher, node)
    except LogBehind as exc:
        identity = await on_disk(own_identity, node)
        await _catch_up(node, identity.namespace, exc, tell)
        publisher = await on_disk(own_publisher, node)
    identity, key = publisher
    await on_disk(_look_at_clock, node, identity.log_of(key.public_key), from_thread(tell))
    return publisher


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
                    await take_documents(node, client, namespace)
                    await take_followed(node, client, [namespace])
            answers += 1
        except (HubError, trio.TooSlowError) as exc:
            tell(Notice(f"{peer.node} was asked in vain: {exc or 'too slow'}"))

    with trio.move_on_after(timeout_s):
        async with trio.open_nursery() as nursery:
            for peer in (await on_disk(usable_peers, node))[:ASKED_MAX]:
                nursery.start_soon(ask, peer)
    return answers


def _look_at_clock(node: Node, own: LogId, tell: Tell) -> None:
    """Tell if the last record of the own log is later than this machine's clock says it is now."""
    state = node.store.logs.state(own)
    last = node.store.logs.entry(own, state.size - 1) if state and state.size else None
    now = node.clock()
    if last is not None and (time := read_entry(last).record.time) > now + BACK_MAX_S:
        text = (
            f"this machine's clock says {_utc(now)}, and the last record that was signed here is of {_utc(time)}:"
            " was the clock set back? What is signed now gets the time of that record, to count as newer; nodes"
            " whose clocks are not that far take it in later"
        )
        if (early := early_records(node, own)) is not None:
            text += f". {describe_early(early)}; {WAY_OUT}"
        tell(Notice(text))


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


async def take_documents(node: Node, client: PeerClient, namespace: NamespaceId) -> None:
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
            f"{behind.size} records of the own log were signed, here or elsewhere, and {size} of them are here",
            log=behind.log,
            size=behind.size,
            hint=behind.hint or "",
        )
    if not answers and not size:
        raise behind
    node.caught_up.add(behind.log)
