"""Find out where two histories of a log part, and keep what proves it to everybody (spec/forks.md §2).

another history was met ──▶ compare records with the peer, halving ──▶ two records at one place
                        └──▶ peer does not have them: two heads that do not agree
"""

from __future__ import annotations

import logging

from p2phub.core.checkpoint import Head, parse_head
from p2phub.core.errors import InvalidData
from p2phub.core.forks import ForkedHeads, ForkProof, prove_by_entries
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import LogRange
from p2phub.store.store import Store

from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)


async def prove_fork(
    node: Node, client: PeerClient, identity: Identity, log_id: LogId, reach: int, head: Head | None
) -> bool:
    """Keep a proof that the history of a log which the peer has is another than ours; says whether there is one.

    reach: records that the peer has. head: of its history, signed by the key of the log, if it has one.
    Raises PeerError if the peer does not answer.
    """
    proof = await _by_entries(node, client, log_id, reach)
    if proof is None and head is not None:
        proof = await _by_heads(node, client, head)
    if proof is None:
        return False
    try:
        if await on_disk(node.store.forks.add, identity, log_id, proof):
            log.warning("log %s of %s was signed with two histories", log_id, identity.namespace)
    except InvalidData:
        return False  # the peer made it up, or its log changed meanwhile
    return True


async def take_proof(node: Node, client: PeerClient, identity: Identity, log_id: LogId) -> None:
    """Keep the proof that the peer has of a fork.

    Raises InvalidData if it proves nothing, PeerError if the peer has none.
    """
    proof = await client.fork(log_id)
    if await on_disk(node.store.forks.add, identity, log_id, proof):
        log.warning("log %s of %s was signed with two histories", log_id, identity.namespace)


async def _by_entries(node: Node, client: PeerClient, log_id: LogId, reach: int) -> ForkProof | None:
    """Return the first records in which the histories differ; None if the peer does not have its own there."""
    state = await on_disk(node.store.logs.state, log_id)
    begin, end = 0, min(reach, state.size if state else 0)
    pair: tuple[bytes, bytes] | None = None
    # A record names the one before it, so that records that are the same have the same before them.
    while begin < end:
        middle = (begin + end) // 2
        (theirs,) = await client.records([LogRange(log_id, middle, 1)])
        ours = await on_disk(node.store.logs.entries, log_id, middle, size_max=0, count_max=1)
        if not theirs or not ours:
            return None
        if ours[0] == theirs[0]:
            begin = middle + 1
        else:
            pair = ours[0], theirs[0]
            end = middle
    return prove_by_entries(*pair) if pair else None


async def _by_heads(node: Node, client: PeerClient, head: Head) -> ForkProof | None:
    """Return what our own head and `head` say against each other; None if they do not, or nothing shows it."""
    state = await on_disk(node.store.logs.state, head.log)
    ours = parse_head(state.head) if state and state.head else None
    if ours is None or not ours.size or not head.size:
        return None
    if ours.size < head.size:
        # Only who has the longer history can show what it was when it was shorter.
        found = await client.consistency(head.log, ours.size, head.size)
        return ForkedHeads(head.text, ours.text, found.root, found.proof) if found else None
    return await on_disk(prove_by_own_log, node.store, ours, head)


def prove_by_own_log(store: Store, ours: Head, head: Head) -> ForkedHeads | None:
    """Return what the records that `ours` covers say against `head`, which is not larger; None if they are gone."""
    root, proof = store.logs.root(head.log, head.size), store.logs.consistency(head.log, head.size, ours.size)
    return ForkedHeads(ours.text, head.text, root, proof) if root is not None and proof is not None else None
