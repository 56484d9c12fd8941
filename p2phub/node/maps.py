"""The maps of a node as it shows them to peers: which logs and which nodes it knows (spec/replication.md).

Answering keeps nothing between questions, and does bounded work for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

import trio
from msgspec import Struct

from p2phub.core.checkpoint import parse_head
from p2phub.core.encoding import encode
from p2phub.core.errors import StoreError
from p2phub.core.fingerprints import SHORT_SIZE, range_of, short_item
from p2phub.core.ids import LogId
from p2phub.protocol.messages import (
    HEADS_ANSWER_SIZE,
    RECORDS_ANSWER_SIZE,
    Bucket,
    BucketsQuery,
    Consistency,
    ConsistencyQuery,
    Heads,
    Identities,
    IdentitiesQuery,
    LogHead,
    MapAnswer,
    MapQuery,
    NodeRecords,
    Reconciled,
    ReconcileQuery,
    Records,
    RecordsQuery,
    StoppedLog,
)
from p2phub.protocol.reconcile import told
from p2phub.store.digests import BATCH, Digests
from p2phub.store.store import Store

from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)

BREAK_S = 0.01  # seconds between steps in which maps are brought up to date
REFRESHED_MAX = 8192  # keys that are brought up to date for one question of a peer
ENTRIES_MAX = 10_000  # entries of one log in an answer
_ITEMS_AT_ONCE = 256  # items of a bucket that are read at once

T = TypeVar("T")
M = TypeVar("M", bound=Struct)


async def refresh_maps(node: Node, *, keys_max: int | None = None) -> bool:
    """Bring the maps up to date; returns whether they are.

    keys_max: stop after so many keys of each; the next call goes on. None: take them all, in steps that let
    others have the disk: after an upgrade of a large catalogue that takes a minute.
    """
    if node.endpoints and (record := node.record()) is not node.noted_record:
        await on_disk(node.store.node_states.note_own, node.id, record)
        node.noted_record = record
    if keys_max is not None:
        return await on_disk(_refresh, node.store, node.clock(), keys_max)
    # One at a time: whoever waits finds that all is done.
    async with node.refreshing:
        while True:
            if await on_disk(_refresh, node.store, node.clock(), BATCH):
                return True
            await trio.sleep(BREAK_S)


async def refresh_maps_quietly(node: Node) -> None:
    """Bring the maps up to date, unless another is at it."""
    if node.refreshing.locked():
        return
    try:
        await refresh_maps(node)
    except StoreError as exc:
        log.warning("cannot sum up what is here for now: %s", exc)


def _refresh(store: Store, now: float, keys_max: int) -> bool:
    """Take in some of what changed in each map; returns whether that was all."""
    nodes = store.node_digests.refresh(now, keys_max=keys_max)
    return store.log_digests.refresh(now, keys_max=keys_max) and nodes


def compare(store: Store, query: ReconcileQuery) -> Reconciled:
    """Return what is here under the prefixes that a peer asks about."""
    return Reconciled(
        logs=_compare(store.log_digests, query.logs, query.salt),
        nodes=_compare(store.node_digests, query.nodes, query.salt),
    )


def _compare(digests: Digests, asked: MapQuery | None, salt: bytes) -> MapAnswer | None:
    if asked is None:
        return None
    root = digests.root().fingerprint
    if root == asked.root:
        return MapAnswer(root, ())
    return MapAnswer(root, tuple(told(children, salt) for children in digests.children(asked.prefixes)))


def shown_head(store: Store, log: LogId) -> LogHead | None:
    """Return the head of a log that is here, with the lines of witnesses that its publisher stated; None if none is."""
    state, stated = store.logs.state(log), store.fresh.stated_head(log)
    if state is None or not state.head:
        return None
    ours = parse_head(state.head)
    is_same = stated is not None and (stated.head.size, stated.head.root) == (ours.size, ours.root)
    return LogHead(state.namespace, state.version, stated.head.text if stated and is_same else state.head)


def heads_in(store: Store, query: BucketsQuery) -> Heads:
    """Return the heads in buckets that the asker does not have."""
    found, complete = _collect(store.log_digests, query, store.log_states.heads, _size_of)
    heads = tuple(shown for shown in found if isinstance(shown, LogHead))
    return Heads(heads, complete, tuple(shown for shown in found if isinstance(shown, StoppedLog)))


def records_in(store: Store, query: BucketsQuery) -> NodeRecords:
    """Return the node records in buckets that the asker does not have."""
    records, complete = _collect(store.node_digests, query, store.node_states.records, len)
    return NodeRecords(tuple(records), complete)


def identities_of(store: Store, query: IdentitiesQuery) -> Identities:
    """Return the identities that are here, of the first namespaces asked for."""
    return Identities(first_that_fit(store.logs.identity_chain(namespace) for namespace in query.namespaces))


def first_that_fit(messages: Iterable[M | None]) -> tuple[M | None, ...]:
    """Return the first of the messages that fit in one answer, at least one; None where there is none."""
    found: list[M | None] = []
    size = 0
    for message in messages:
        size += len(encode(message)) if message else 1
        # The first one may be longer than what is meant to fit.
        if found and size > RECORDS_ANSWER_SIZE:
            break
        found.append(message)
    return tuple(found)


def records_of(store: Store, query: RecordsQuery, *, private: Collection[LogId] | None = None) -> Records:
    """Return the entries that are here, of the first ranges asked for.

    private: private logs, of which alone there are any; None: public ones are asked for.
    """
    found: list[tuple[bytes, ...]] = []
    size = 0
    for asked in query.ranges:
        room = RECORDS_ANSWER_SIZE - size
        entries: list[bytes] = []
        if private is None or asked.log in private:
            count_max = min(asked.count, ENTRIES_MAX)
            entries = store.logs.entries(
                asked.log, asked.start, size_max=room, count_max=count_max, private=private is not None
            )
        found.append(tuple(entries))
        size += sum(len(entry) + 8 for entry in entries) + 8
        if size > RECORDS_ANSWER_SIZE:
            break
    return Records(tuple(found))


def consistency_of(store: Store, query: ConsistencyQuery) -> Consistency | None:
    """Return what proves that a log goes on from what it was; None if it is not here so far."""
    if query.old > query.new:
        return None
    root, proof = store.logs.root(query.log, query.old), store.logs.consistency(query.log, query.old, query.new)
    return Consistency(root, proof) if root is not None and proof is not None else None


def have_of(
    digests: Digests, prefix: str, salt: bytes, *, have_max: int, unwanted: Sequence[tuple[bytes, bytes]] = ()
) -> Bucket:
    """Return the question for what a peer has under `prefix` and this node has not.

    have_max: of more items none is named, and the peer sends those that are the same too.
    unwanted: keys and digests of what it is not to send either.
    """
    low, high = range_of(prefix)
    items = digests.items(prefix, have_max + 1)
    items = [*items, *(item for item in unwanted if low <= item[0] <= high)]
    have = b"".join(short_item(item, salt) for item in items) if len(items) <= have_max else b""
    return Bucket(prefix, have)


def _size_of(shown: LogHead | StoppedLog) -> int:
    return 64 + (len(shown.head) if isinstance(shown, LogHead) else 64)


def _collect(
    digests: Digests, query: BucketsQuery, find: Callable[[Sequence[bytes]], list[T]], size_of: Callable[[T], int]
) -> tuple[list[T], int]:
    """Return what `find` gives for the items in buckets, and of how many buckets that is all."""
    found: list[T] = []
    size = 0
    for complete, bucket in enumerate(query.buckets):
        have = {bucket.have[at : at + SHORT_SIZE] for at in range(0, len(bucket.have), SHORT_SIZE)}
        after = bucket.after
        while items := digests.items(bucket.prefix, _ITEMS_AT_ONCE, after=after):
            for value in find([item[0] for item in items if short_item(item, query.salt) not in have]):
                found.append(value)
                size += size_of(value)
                if size > HEADS_ANSWER_SIZE:
                    return found, complete
            after = items[-1][0]
    return found, len(query.buckets)
