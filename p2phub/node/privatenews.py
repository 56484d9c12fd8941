"""Tell of what was signed: everybody of a public log, those who may read it of a private one (spec/private.md §7).

entry ──▶ public: gossip
     └──▶ private: the nodes of those who may read it, at once ──▶ they tell the others that they know
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import trio

from p2phub.core.access import Caller
from p2phub.core.errors import HubError, PeerViolation
from p2phub.core.ids import LogId, NodeId
from p2phub.core.records import Entry
from p2phub.protocol.messages import IdentityChain
from p2phub.protocol.privatetalk import PRIVATE_ENTRIES_MAX, PrivateNews, PrivateTaken
from p2phub.store.private import PrivateLog

from .calling import ban_peer, call_peer
from .disk import on_disk
from .introduce import introduce
from .node import Node
from .privatelogs import nodes_told, note_caller, take_news

log = logging.getLogger(__name__)

TELL_S = 4.0  # seconds that a node has to take what it is told; spec/private.md §7
TOLD_AT_ONCE = 16
ROUNDS_MAX = 8  # messages to one node, if it has less than was thought
ENTRIES_SIZE_MAX = 128 * 1024  # bytes of entries in one message
IDENTITY_SIZE_MAX = 128 * 1024  # bytes of an identity in a message


async def announce(node: Node, entry: Entry) -> int:
    """Let others hear of an entry that was just signed, as far as it is for them.

    Returns how many nodes were told by themselves and have it now: those that may read a private log.
    """
    record = entry.record
    if await on_disk(node.store.private.repository_of, record.log) is None:
        node.note_news(record.log, record.index)
        return 0
    node.open_answers.note_change()
    return await tell(node, record.log, record.index)


async def tell(node: Node, log_id: LogId, start: int, *, but: Collection[NodeId] = ()) -> int:
    """Tell of a private log to all nodes that are known to be allowed to read it; returns how many have it now.

    start: the record from which on they are likely to need it. but: who is not told.
    """
    if node.settings.offline:
        return 0
    found = await on_disk(_find, node, log_id)
    if found is None:
        return 0
    private, nodes = found
    told = 0
    turns = trio.CapacityLimiter(TOLD_AT_ONCE)

    async def tell_one(to: NodeId) -> None:
        nonlocal told
        async with turns:
            with trio.move_on_after(TELL_S):
                told += await _tell(node, to, private, start)

    async with trio.open_nursery() as nursery:
        for each in nodes:
            if each not in but:
                nursery.start_soon(tell_one, each)
    return told


def _find(node: Node, log_id: LogId) -> tuple[PrivateLog, list[NodeId]] | None:
    repository = node.store.private.repository_of(log_id)
    if repository is None:
        return None
    private = next((each for each in node.store.private.logs([repository]) if each.state.log == log_id), None)
    return (private, nodes_told(node, repository)) if private is not None else None


async def _tell(node: Node, to: NodeId, private: PrivateLog, start: int) -> bool:
    """Tell one node; returns whether it has all of the log then."""
    peer = await on_disk(node.store.peers.get, to)
    if peer is None or peer.banned_until > node.clock():
        return False
    try:
        async with call_peer(node, peer) as client:
            await introduce(node, client)
            for _ in range(ROUNDS_MAX):
                answer = await client.private_news(await on_disk(_compose, node, private, start))
                if answer is None:
                    return False
                if answer.size >= private.state.size:
                    return True
                if answer.size == start:
                    # Of who does not know the log yet, or whom it does not let in.
                    return False
                start = answer.size
    except PeerViolation as exc:
        await ban_peer(node, to, str(exc))
    except HubError as exc:
        log.info("node %s is not told of a private log: %s", to, exc)
    return False


def _compose(node: Node, private: PrivateLog, start: int) -> PrivateNews:
    entries = node.store.logs.entries(
        private.state.log, start, size_max=ENTRIES_SIZE_MAX, count_max=PRIVATE_ENTRIES_MAX, private=True
    )
    identity = node.store.logs.identity_chain(private.repository.namespace)
    is_small = identity is not None and sum(len(each.document) for each in identity.documents) < IDENTITY_SIZE_MAX
    chain: IdentityChain | None = identity if is_small else None
    return PrivateNews(private.told, start, tuple(entries), chain)


async def hear_private(node: Node, caller: Caller, news: PrivateNews, host: str, nursery: trio.Nursery) -> PrivateTaken:
    """Take in what a node told that called from `host`; what is news is told on.

    nursery: where that goes on. Raises InvalidData if something is wrong.
    """
    assert caller.node is not None
    limits = node.neighbours.limits
    taken = await on_disk(take_news, node, caller, news, may_begin=limits.may_begin_log(caller.node, host))
    if taken.is_new:
        limits.count_new_logs(caller.node, host, 1)
    if taken.count:
        node.open_answers.note_change()
        nursery.start_soon(_tell_on, node, news.log.log, news.start, caller.node)
    # Who it is matters only once it is known what is granted to whom.
    await on_disk(note_caller, node, caller)
    return taken.answer


async def _tell_on(node: Node, log_id: LogId, start: int, source: NodeId) -> None:
    try:
        await tell(node, log_id, start, but=[source])
    except HubError as exc:
        log.warning("cannot tell of a private log: %s", exc)
