"""See that others have what was published here (spec/gossip.md §7).

    own log ──told by gossip, or at once by a lone command──▶ peers ──GET head──▶ who has it

Only a head that this home signed itself confirms anything, and each node counts once.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from p2phub.core.checkpoint import open_head
from p2phub.core.errors import HubError, InvalidData, NotFound, PeerUnreachable, PeerViolation
from p2phub.core.ids import LogId, NodeId
from p2phub.protocol.talk import sign_talk
from p2phub.store.confirmations import Confirmation
from p2phub.store.peers import Peer

from .calling import ban_peer, call_peer, converse, require_peers
from .catchup import take_documents
from .disk import on_disk
from .events import Notice, Progress, Tell
from .identity import own_identity, own_publisher
from .news import compose
from .node import Node

log = logging.getLogger(__name__)

HAND_OVER_MAX_S = 60.0  # seconds that a command with a key from a file waits for one node
CONFIRM_MAX_S = 300.0  # seconds that a command waits for others
ASK_TIMEOUT_S = 10.0  # for one peer
ASKED_AT_ONCE = 16
AGAIN_S = (0.3, 1.0, 2.0, 5.0)  # seconds before those that have it not are asked again; then always the last


async def wait_confirmed(node: Node, count: int, tell: Tell, *, max_s: float | None = None) -> list[NodeId]:
    """Wait until `count` other nodes have all of the own log; returns those that have, fewer if it takes too long.

    max_s: seconds; None: CONFIRM_MAX_S. Raises NotFound if no peer is known, AccessDenied if the key was retired, as a
    peer showed.
    """
    max_s = CONFIRM_MAX_S if max_s is None else max_s
    found = await on_disk(_own_head, node)
    if found is None:
        return []
    own_log, size = found
    confirmed = {each.node for each in await on_disk(node.store.confirmations.of, own_log, size=size)}
    tries = 0
    problems: dict[NodeId, str] = {}  # why a peer could not be asked, as of the last try
    with trio.move_on_after(max_s):
        while len(confirmed) < count:
            waiting = f"{count - len(confirmed)} more of {count} nodes to confirm that they have it"
            tell(Progress("waiting", 0, 0, waiting_for=waiting))
            peers = [peer for peer in await require_peers(node) if peer.node not in confirmed]
            problems = await _ask_all(node, peers, own_log, size)
            confirmed = {each.node for each in await on_disk(node.store.confirmations.of, own_log, size=size)}
            if len(confirmed) < count:
                # Perhaps nobody takes it in because the key was revoked meanwhile, and that came with the answers.
                await on_disk(own_publisher, node)
                await trio.sleep(AGAIN_S[min(tries, len(AGAIN_S) - 1)])
            tries += 1
    if len(confirmed) < count:
        why = f"; {next(iter(problems.values()))}" if problems else ""
        tell(Notice(f"{len(confirmed)} of {count} nodes confirmed it within {max_s:.0f} s{why}"))
    return sorted(confirmed)


@asynccontextmanager
async def handing_over(node: Node, tell: Tell) -> AsyncIterator[None]:
    """See to it that another node has what is signed in the block.

    For a key that is brought in a file: the home may be thrown away afterwards, and whoever signs next in another one
    must find what was signed in this. Raises PeerUnreachable if nobody has it.
    """
    begun, _ = await on_disk(own_confirmations, node)
    yield
    size, _ = await on_disk(own_confirmations, node)
    if size <= begun:
        return
    try:
        holders = [] if node.settings.offline else await wait_confirmed(node, 1, tell, max_s=HAND_OVER_MAX_S)
    except NotFound:
        holders = []
    if not holders:
        raise PeerUnreachable(
            "it was signed, and no other node has the record: to sign with this key in another home would fork its log",
            peer="",
            hint="keep this home, and run the same again with --peer ADDRESS of a node that answers",
        )


async def note_held(node: Node, peer: NodeId, size: int) -> None:
    """Note that a peer has `size` records of the own log."""
    if node.neighbours.own_log is not None:
        await on_disk(node.store.confirmations.note, peer, node.neighbours.own_log, size, node.clock())


def own_confirmations(node: Node) -> tuple[int, list[Confirmation]]:
    """Return how many records the own log has, and who said to have how many of them, the latest first."""
    found = _own_head(node)
    return (found[1], node.store.confirmations.of(found[0])) if found else (0, [])


def own_log(node: Node) -> LogId | None:
    """Return the log that this home publishes in, None if it publishes nothing."""
    try:
        identity, key = own_publisher(node)
    except HubError:
        return None
    return identity.log_of(key.public_key)


def _own_head(node: Node) -> tuple[LogId, int] | None:
    own = own_log(node)
    state = node.store.logs.state(own) if own else None
    return (state.log, state.size) if state and state.size else None


async def _ask_all(node: Node, peers: Sequence[Peer], own: LogId, size: int) -> dict[NodeId, str]:
    """Ask peers how far they have the own log; returns of those that could not be asked why."""
    turns = trio.CapacityLimiter(ASKED_AT_ONCE)
    problems: dict[NodeId, str] = {}

    async def ask(peer: Peer) -> None:
        async with turns:
            try:
                with trio.fail_after(ASK_TIMEOUT_S):
                    await _ask(node, peer, own, size)
            except PeerViolation as exc:
                await ban_peer(node, peer.node, str(exc))
            except trio.TooSlowError:
                problems[peer.node] = f"node {str(peer.node)[:12]}… does not answer"
            except HubError as exc:
                problems[peer.node] = str(exc)

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(ask, peer)
    for node_id, problem in problems.items():
        log.info("node %s confirms nothing: %s", node_id, problem)
    return problems


async def _ask(node: Node, peer: Peer, own: LogId, size: int) -> None:
    """Ask a peer how far it has the own log, and tell it where nobody else does."""
    async with call_peer(node, peer) as client:
        announced = await client.head(own)
    if announced is not None:
        _, key = await on_disk(own_publisher, node)
        try:
            head = open_head(announced.head, log=own, key=key.public_key)
        except InvalidData as exc:
            raise PeerViolation(f"node {peer.node} has a head that was not signed here", peer=str(peer.node)) from exc
        await on_disk(node.store.confirmations.note, peer.node, own, head.size, node.clock())
        if head.size >= size:
            return
    if not node.neighbours.is_running:
        start = head.size if announced is not None else 0
        message = await on_disk(compose, node.store, {own: start}, ())
        said = sign_talk(message.push, node.key, peer.node, now=node.clock())
        reply = await converse(node, peer, said)
        if reply.holds and own in message.marks:
            await on_disk(node.store.confirmations.note, peer.node, own, message.marks[own][0], node.clock())
            return
    async with call_peer(node, peer) as client:
        await take_documents(node, client, (await on_disk(own_identity, node)).namespace)
