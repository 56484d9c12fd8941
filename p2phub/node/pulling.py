"""Take over from one peer what it has and this node has not (spec/peer-protocol.md §4).

    peer's heads ──compare──▶ logs that are longer there ──fetch, verify──▶ store

Whom to ask, when, and what to do about a peer that lied, is up to the caller (`replicate`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from p2phub.core.checkpoint import Head, open_head, parse_head
from p2phub.core.errors import ForkedLog, InvalidData, PeerError, PeerViolation
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import LogId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import LogHead

from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)


async def pull(node: Node, client: PeerClient) -> int:
    """Take over all records that the peer has and this node has not; returns how many."""
    after: LogId | None = None
    count = 0
    while True:
        page = await client.heads(after)
        count += await take_heads(node, client, page.heads)
        if not page.more or not page.heads:
            return count
        last = _parse(client, page.heads[-1]).log
        if after is not None and last <= after:
            raise PeerViolation(f"{client} sends its heads out of order", peer=str(client.node))
        after = last


def news_of(node: Node, heads: tuple[LogHead, ...]) -> list[LogHead]:
    """Return the heads that tell more than what is here. Raises InvalidData if one is none."""
    news = []
    for announced in heads:
        head = parse_head(announced.head)
        state = node.store.logs.state(head.log)
        if state is None or head.size > state.size or announced.version > state.version:
            news.append(announced)
    return news


async def take_heads(node: Node, client: PeerClient, heads: Iterable[LogHead]) -> int:
    """Bring every log that is longer at the peer up to its head; returns how many records were new."""
    count = 0
    for announced in heads:
        head = _parse(client, announced)
        state = await on_disk(node.store.logs.state, head.log)
        # Without a head of its own this node could not pass the log on.
        is_equal = state is not None and bool(state.head) and state.size == head.size and state.root == head.root
        if state and is_equal and state.version >= announced.version:
            continue
        if await on_disk(node.store.logs.fork, head.log):
            continue
        try:
            count += await _take_log(node, client, announced, head)
        except ForkedLog as exc:
            log.warning("%s", exc)
    if count:
        node.note_change()
    return count


async def _take_log(node: Node, client: PeerClient, announced: LogHead, head: Head) -> int:
    identity = await _identity(node, client, announced, head.log)
    try:
        open_head(head.text, log=head.log, key=identity.logs[head.log])
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent a head that its publisher did not sign", peer=str(client.node)) from exc
    state = await on_disk(node.store.logs.state, head.log)
    size = state.size if state else 0
    if head.size <= size:
        await on_disk(node.store.logs.check_head, head)
        return 0
    count = 0
    while size < identity.counted(head.log, head.size):
        page = await client.log_page(head.log, size)
        if not page.entries or page.start != size:
            raise PeerError(f"{client} does not have the records that its head covers", peer=str(client.node))
        try:
            added = await on_disk(node.store.logs.extend, identity, head, page.entries, start=size, now=node.clock())
        except InvalidData as exc:
            raise PeerViolation(f"{client} sent a record that is not right", peer=str(client.node)) from exc
        count += added
        # Another task may have taken the same records meanwhile, and more.
        state = await on_disk(node.store.logs.state, head.log)
        if state is None or state.size <= size:
            break
        size = state.size
    return count


async def _identity(node: Node, client: PeerClient, announced: LogHead, log_id: LogId) -> Identity:
    """Return the identity that names the key of `log_id`, asked of the peer if ours is older or does not."""
    namespace = announced.namespace
    known = await on_disk(node.store.logs.identity, namespace)
    if known and log_id in known.logs and known.current.version >= announced.version:
        return known
    chain = await client.identity(namespace)
    try:
        identity = open_identity(chain.documents)
        if identity.namespace != namespace or log_id not in identity.logs:
            raise InvalidData("the identity is not of the namespace, or does not name the log's key")
        if identity.current.version < announced.version:
            raise InvalidData("the identity is older than it was said to be")
        if await on_disk(node.store.logs.add_identity, identity):
            node.note_change()
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent an identity that is not right", peer=str(client.node)) from exc
    return identity


def _parse(client: PeerClient, announced: LogHead) -> Head:
    try:
        return parse_head(announced.head)
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent a head that is none", peer=str(client.node)) from exc
