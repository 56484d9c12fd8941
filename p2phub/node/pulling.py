"""Take over from one peer what it has and this node has not (spec/replication.md §4).

    own maps ──compare──▶ buckets that differ ──▶ heads ──▶ identities ──▶ records, of many logs at once ──▶ store

Whom to ask, when, and what to do about a peer that lied, is up to the caller (`replicate`).
What one log is refused for does not keep the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3
from msgspec.structs import replace

from p2phub.core.checkpoint import Head, parse_head
from p2phub.core.errors import ForkedLog, InvalidData, PeerError, PeerViolation
from p2phub.core.fingerprints import SALT_SIZE, range_of
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import LogId, NamespaceId, NodeId
from p2phub.core.noderecord import open_node_record
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import (
    IDENTITIES_MAX,
    RANGES_MAX,
    Bucket,
    BucketsQuery,
    LogHead,
    LogRange,
    MapQuery,
    ReconcileQuery,
)
from p2phub.protocol.reconcile import HAVE_MAX, Walk
from p2phub.store.digests import Digests
from p2phub.store.logs import LogPart

from .disk import on_disk
from .maps import have_of, refresh_maps
from .node import Node

log = logging.getLogger(__name__)


# ── maps ────────────────────────────────────────────────────────────────────


async def pull(node: Node, client: PeerClient) -> int:
    """Take over all node records and records of logs that the peer has and this node has not.

    Returns how many records of logs. Raises PeerError, PeerViolation if the peer lied.
    """
    await refresh_maps(node)
    nodes, logs = await _compare_roots(node, client)
    if nodes is not None:
        await _take_nodes(node, client, nodes)
    return await _take_logs(node, client, logs) if logs is not None else 0


async def _compare_roots(node: Node, client: PeerClient) -> tuple[Walk | None, Walk | None]:
    """Ask in one question whether the maps are the same; returns the walk for each that is not: nodes, logs."""
    # Hashed, so that salts tell nobody of the next ones.
    salt = blake3(node.rng.randbytes(SALT_SIZE)).digest(SALT_SIZE)
    nodes, logs = Walk(salt), Walk(salt)
    own_nodes, own_logs = await on_disk(_roots, node)
    query = ReconcileQuery(salt, MapQuery(own_logs, logs.question()), MapQuery(own_nodes, nodes.question()))
    answer = await client.reconcile(query)
    assert answer.logs is not None
    assert answer.nodes is not None
    if answer.nodes.root != own_nodes:
        await _compare(node.store.node_digests, client, nodes, answer.nodes.children)
    if answer.logs.root != own_logs:
        await _compare(node.store.log_digests, client, logs, answer.logs.children)
    return (
        nodes if answer.nodes.root != own_nodes else None,
        logs if answer.logs.root != own_logs else None,
    )


def _roots(node: Node) -> tuple[bytes, bytes]:
    return node.store.node_digests.root().fingerprint, node.store.log_digests.root().fingerprint


async def _compare(digests: Digests, client: PeerClient, walk: Walk, theirs: Sequence[bytes]) -> None:
    try:
        walk.compare(await on_disk(digests.children, walk.question()), theirs)
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent an answer that breaks the protocol", peer=str(client.node)) from exc


async def _next_buckets(digests: Digests, client: PeerClient, walk: Walk, *, of_nodes: bool) -> tuple[Bucket, ...]:
    """Go on with `walk` until buckets are to be asked for; none if it is over."""
    while prefixes := walk.question():
        # The root is not of interest any more: none is like the asker's.
        asked = MapQuery(bytes(32), prefixes)
        answer = await client.reconcile(
            ReconcileQuery(walk.salt, nodes=asked) if of_nodes else ReconcileQuery(walk.salt, logs=asked)
        )
        told = answer.nodes if of_nodes else answer.logs
        assert told is not None
        await _compare(digests, client, walk, told.children)
    return await on_disk(_questions, digests, walk.buckets(), walk.salt)


def _questions(digests: Digests, prefixes: Iterable[str], salt: bytes) -> tuple[Bucket, ...]:
    return tuple(have_of(digests, prefix, salt, have_max=HAVE_MAX) for prefix in prefixes)


def _rest(client: PeerClient, buckets: Sequence[Bucket], complete: int, keys: Sequence[bytes]) -> tuple[Bucket, ...]:
    """Return what of `buckets` is to be asked again after an answer with items of `keys`.

    Raises PeerViolation if they are not in the order of the buckets, or if the answer brings nothing.
    """
    places = iter(enumerate(buckets))
    at, bucket = next(places)
    last = bucket.after or b""
    for key in keys:
        while not (last < key and range_of(bucket.prefix)[0] <= key <= range_of(bucket.prefix)[1]):
            step = next(places, None)
            if step is None:
                raise PeerViolation(f"{client} sent what it was not asked for, or out of order", peer=str(client.node))
            at, bucket = step
            last = bucket.after or b""
        last = key
    if complete > len(buckets) or (complete < len(buckets) and (at > complete or not (complete or keys))):
        raise PeerViolation(f"{client} left out what it was asked for", peer=str(client.node))
    rest = list(buckets[complete:])
    if rest and at == complete and keys:
        rest[0] = replace(rest[0], after=last or None)
    return tuple(rest)


# ── nodes ───────────────────────────────────────────────────────────────────


async def _take_nodes(node: Node, client: PeerClient, walk: Walk) -> None:
    while not walk.is_over:
        buckets = await _next_buckets(node.store.node_digests, client, walk, of_nodes=True)
        while buckets:
            page = await client.node_records(BucketsQuery(walk.salt, buckets))
            keys = await on_disk(_take_records, node, page.records)
            if page.records and not keys and not page.complete:
                raise PeerError(f"{client} sends node records that do not hold", peer=str(client.node))
            buckets = _rest(client, buckets, page.complete, keys)


def _take_records(node: Node, records: Iterable[bytes]) -> list[NodeId]:
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


# ── logs ────────────────────────────────────────────────────────────────────


async def _take_logs(node: Node, client: PeerClient, walk: Walk) -> int:
    count = 0
    problem: PeerError | None = None
    while not walk.is_over:
        buckets = await _next_buckets(node.store.log_digests, client, walk, of_nodes=False)
        while buckets:
            page = await client.heads(BucketsQuery(walk.salt, buckets))
            heads = [_parse(client, announced) for announced in page.heads]
            buckets = _rest(client, buckets, page.complete, [head.log for head in heads])
            try:
                count += await take_heads(node, client, page.heads)
            except PeerViolation:
                raise
            except PeerError as exc:
                problem = exc
    if problem is not None:
        raise problem
    return count


@dataclass
class _Goal:
    """A log that the peer has another head of, and how far it is here."""

    announced: LogHead
    head: Head
    size: int  # records that are here
    identity: Identity | None = None  # as far as it is here
    before: tuple[int, int] = (0, 0)  # records, and version of the identity, that were here

    @property
    def missing(self) -> int:
        """How many records are to be fetched."""
        assert self.identity is not None
        return self.identity.counted(self.head.log, self.head.size) - self.size


async def take_heads(node: Node, client: PeerClient, heads: Iterable[LogHead]) -> int:
    """Bring every log that is longer at the peer up to its head; returns how many records were new.

    Raises PeerError, after all logs that can be were taken, if the peer does not have what its
    heads cover, and PeerViolation if it sent what its publisher did not sign.
    """
    goals = await on_disk(_goals, node, client, tuple(heads))
    if not goals:
        return 0
    before = {goal.head.log: goal.size for goal in goals}
    try:
        proven, is_known = await _prove(node, client, goals)
        count, is_complete = await _fetch(node, client, proven)
    finally:
        for log_id in await on_disk(_changed, node, goals):
            node.note_news(log_id, before[log_id], client.node)
    if not is_known:
        raise PeerError(f"{client} does not know the publishers of all its logs", peer=str(client.node))
    if not is_complete:
        raise PeerError(f"{client} does not have the records that its heads cover", peer=str(client.node))
    return count


def _goals(node: Node, client: PeerClient, heads: Iterable[LogHead]) -> list[_Goal]:
    """Return what of `heads` is news."""
    goals = []
    for announced in heads:
        head = _parse(client, announced)
        state = node.store.logs.state(head.log)
        # Without a head of its own this node could not pass the log on.
        is_equal = state is not None and bool(state.head) and state.size == head.size and state.root == head.root
        if (state and is_equal and state.version >= announced.version) or node.store.logs.fork(head.log):
            continue
        known = node.store.logs.identity(announced.namespace)
        is_known = known and head.log in known.logs and known.current.version >= announced.version
        before = (state.size, state.version) if state else (0, 0)
        goals.append(_Goal(announced, head, before[0], known if is_known else None, before))
    return goals


def _changed(node: Node, goals: Iterable[_Goal]) -> list[LogId]:
    """Return the logs that came further."""
    changed = []
    for goal in goals:
        state = node.store.logs.state(goal.head.log)
        if state and (state.size, state.version) > goal.before:
            changed.append(goal.head.log)
    return changed


def _parse(client: PeerClient, announced: LogHead) -> Head:
    try:
        return parse_head(announced.head)
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent a head that is none", peer=str(client.node)) from exc


async def _prove(node: Node, client: PeerClient, goals: Sequence[_Goal]) -> tuple[list[_Goal], bool]:
    """Ask for the identities that name the keys of logs, where ours are older or do not.

    Returns the goals that are proven, and whether the peer knew all that it was asked for.
    """
    wanted = sorted({goal.announced.namespace for goal in goals if goal.identity is None})
    found: dict[NamespaceId, Identity] = {}
    is_known = True
    while wanted:
        asked = wanted[:IDENTITIES_MAX]
        chains = await client.identities(asked)
        for namespace, chain in zip(asked, chains, strict=False):
            if chain is None:
                is_known = False
                continue
            try:
                found[namespace] = await on_disk(open_identity, chain.documents)
                if found[namespace].namespace != namespace:
                    raise InvalidData("the identity is of another namespace")
                await on_disk(node.store.logs.add_identity, found[namespace])
            except InvalidData as exc:
                raise PeerViolation(f"{client} sent an identity that is not right", peer=str(client.node)) from exc
        wanted = wanted[len(chains) :]
    for goal in goals:
        identity = found.get(goal.announced.namespace)
        if goal.identity is not None or identity is None:
            continue
        if identity.current.version < goal.announced.version:
            raise PeerViolation(f"{client} sent an identity that is older than it said", peer=str(client.node))
        # One that does not name the key: its publisher dropped the log, and the peer still has it.
        if goal.head.log in identity.logs:
            goal.identity = identity
    return [goal for goal in goals if goal.identity is not None], is_known


async def _fetch(node: Node, client: PeerClient, goals: Sequence[_Goal]) -> tuple[int, bool]:
    """Fetch and keep the records that are missing; returns how many were new, and whether the peer had all."""
    count = 0
    is_complete = True
    # Of these only the head, or the identity, is news.
    parts = [_part(goal, ()) for goal in goals if goal.missing <= 0]
    open_goals = [goal for goal in goals if goal.missing > 0]
    while parts or open_goals:
        asked: list[_Goal] = []
        if open_goals:
            asked = open_goals[:RANGES_MAX]
            ranges = [LogRange(goal.head.log, goal.size, goal.missing) for goal in asked]
            answered = await client.records(ranges)
            parts += [_part(goal, entries) for goal, entries in zip(asked, answered, strict=False)]
            asked = asked[: len(answered)]
        count += await _keep(node, client, parts)
        parts = []
        open_goals = open_goals[len(asked) :]
        for goal in asked:
            state = await on_disk(node.store.logs.state, goal.head.log)
            before, goal.size = goal.size, state.size if state else 0
            if goal.missing <= 0 or await on_disk(node.store.logs.fork, goal.head.log) is not None:
                continue
            if goal.size > before:
                open_goals.append(goal)  # cut short, to fit the answer
            else:
                is_complete = False
    return count, is_complete


def _part(goal: _Goal, entries: tuple[bytes, ...]) -> LogPart:
    assert goal.identity is not None
    return LogPart(goal.identity, goal.head, goal.size, entries)


async def _keep(node: Node, client: PeerClient, parts: Sequence[LogPart]) -> int:
    """Keep parts of logs, whatever becomes of others among them; returns how many records were new."""
    count = 0
    wrong: InvalidData | None = None
    for outcome in await on_disk(node.store.logs.extend_many, parts, now=node.clock()):
        if isinstance(outcome, int):
            count += outcome
        elif isinstance(outcome, ForkedLog):
            log.warning("%s", outcome)
        else:
            wrong = outcome
    if wrong is not None:
        raise PeerViolation(f"{client} sent a head or a record that is not right", peer=str(client.node)) from wrong
    return count
