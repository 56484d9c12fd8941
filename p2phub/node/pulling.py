"""Take over from one peer what it has and this node has not (spec/replication.md §4).

    own maps ──`comparing`──▶ buckets that differ ──▶ node records ──────────▶ store
                                                 ╰──▶ heads, a page at a time ──`taking`──▶ store

Whom to ask, when, and what to do about a peer that lied, is up to the caller (`replicate`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from p2phub.core.errors import HubError, PeerError, PeerViolation
from p2phub.core.ids import NamespaceId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import BucketsQuery, Heads, LogHead

from .calling import keep_records
from .comparing import Comparison, compare_roots, rest_of
from .disk import on_disk
from .goals import parsed_head
from .maps import refresh_maps
from .node import Node
from .publishers import fault
from .taking import ask_identities, take_heads

PAGES_IN_HAND = 2  # of heads whose logs are taken over at a time; spec/replication.md §4


class Turn:
    """How long one peer is pulled from before others have their turn."""

    def __init__(self, seconds: float) -> None:
        """seconds: after which no more pages are asked for."""
        self._end = trio.current_time() + seconds
        self.was_cut = False  # there may be more

    def is_over(self) -> bool:
        """Say whether nothing more is to be begun, and remember it."""
        self.was_cut = trio.current_time() > self._end
        return self.was_cut


async def pull(node: Node, client: PeerClient, turn: Turn | None = None) -> int:
    """Take over all node records and records of logs that the peer has and this node has not.

    turn: what it is to end with; None: with all. Returns how many records of logs. Raises PeerError, PeerViolation
    if the peer lied.
    """
    await refresh_maps(node)
    policy = await on_disk(node.following.refresh)
    nodes, logs = await compare_roots(node, client)
    if nodes is not None:
        await _take_nodes(node, client, nodes)
    if logs is None:
        return 0
    if policy.mode == "listed":
        # Of all others it would only learn what it does not want.
        return await take_followed(node, client, node.following.listed())
    return await _take_logs(node, client, logs, turn or Turn(math.inf))


# ── nodes ───────────────────────────────────────────────────────────────────


async def _take_nodes(node: Node, client: PeerClient, differing: Comparison) -> None:
    while not differing.walk.is_over:
        buckets = await differing.next_buckets()
        while buckets:
            page = await client.node_records(BucketsQuery(differing.walk.salt, buckets))
            keys = await on_disk(keep_records, node, page.records)
            if page.records and not keys and not page.complete:
                raise PeerError(f"{client} sends node records that do not hold", peer=str(client.node))
            buckets = rest_of(client, buckets, page.complete, keys)


# ── logs ────────────────────────────────────────────────────────────────────


async def _take_logs(node: Node, client: PeerClient, differing: Comparison, turn: Turn) -> int:
    """Take over the logs that differ, page by page: while one is written, the next one comes and is checked."""
    pages = _Pages(node, client)
    async with trio.open_nursery() as nursery:
        try:
            await _go_through(node, client, differing, pages, nursery, turn)
        except HubError as exc:
            pages.note(exc)
    return pages.result()


async def _go_through(
    node: Node, client: PeerClient, differing: Comparison, pages: _Pages, nursery: trio.Nursery, turn: Turn
) -> None:
    while not differing.walk.is_over:
        buckets = await differing.next_buckets(list(node.following.refused.items()))
        while buckets:
            await pages.room.acquire()
            if pages.is_over:
                return
            page = await client.heads(BucketsQuery(differing.walk.salt, buckets))
            keys = [parsed_head(client, announced.head).log for announced in page.heads]
            keys += [told.log for told in page.stopped]
            buckets = rest_of(client, buckets, page.complete, sorted(keys))
            nursery.start_soon(pages.take, page)
            # Looked at behind the page: every turn brings one at least.
            if turn.is_over():
                return


class _Pages:
    """Takes over the logs of pages of heads, those of a few pages at a time."""

    def __init__(self, node: Node, client: PeerClient) -> None:
        self._node = node
        self._client = client
        self._count = 0
        self._problem: HubError | None = None
        self.room = trio.Semaphore(PAGES_IN_HAND)
        self.is_over = False  # nothing more is to be taken

    async def take(self, page: Heads) -> None:
        """Take over the logs of a page, and give back the room that it has."""
        try:
            count = await take_heads(self._node, self._client, page.heads, page.stopped)
            self._count += count
        except HubError as exc:
            self.note(exc)
        finally:
            self.room.release()

    def note(self, problem: HubError) -> None:
        """Remember what went wrong; other pages are taken if only the peer lacks something."""
        if not self.is_over:
            self._problem = problem
            self.is_over = isinstance(problem, PeerViolation) or not isinstance(problem, PeerError)

    def result(self) -> int:
        """Return how many records were new. Raises HubError if anything went wrong."""
        if self._problem is not None:
            raise self._problem
        return self._count


async def take_followed(node: Node, client: PeerClient, followed: Sequence[NamespaceId]) -> int:
    """Take over the logs of some publishers alone; returns how many records were new."""
    count = 0
    wanted = list(followed)
    while wanted:
        shown = await ask_identities(node, client, wanted)
        if shown.wrong is not None:
            raise fault(client, "an identity", shown.wrong) from shown.wrong
        heads: list[LogHead] = []
        for identity in shown.identities:
            heads += [head for log_id in sorted(identity.logs) if (head := await client.head(log_id)) is not None]
        count += await take_heads(node, client, heads)
        wanted = shown.rest
    return count
