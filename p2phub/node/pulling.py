"""Take over from one peer what it has and this node has not (spec/replication.md §4).

    own maps ──compare──▶ buckets that differ ──▶ heads ──▶ identities ──▶ records, of many logs at once ──▶ store

Whom to ask, when, and what to do about a peer that lied, is up to the caller (`replicate`).
What one log is refused for does not keep the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import trio
from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.checkpoint import Head, open_head, parse_head
from p2phub.core.errors import (
    ForkedLog,
    HubError,
    InvalidData,
    OtherVersion,
    PeerError,
    PeerViolation,
    SplitIdentity,
    TooEarly,
    UnknownForm,
)
from p2phub.core.fingerprints import SALT_SIZE, forked_digest, log_digest, range_of
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId, NodeId
from p2phub.core.noderecord import open_node_record
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import (
    IDENTITIES_MAX,
    RANGES_MAX,
    Bucket,
    BucketsQuery,
    Heads,
    IdentityChain,
    LogHead,
    LogRange,
    MapQuery,
    ReconcileQuery,
    StoppedLog,
)
from p2phub.protocol.reconcile import HAVE_MAX, Walk
from p2phub.store.digests import Digests
from p2phub.store.logs import LogPart

from .disk import on_disk
from .forks import prove_fork, take_proof
from .maps import have_of, refresh_maps
from .node import Node

log = logging.getLogger(__name__)

PAGES_IN_HAND = 2  # of heads whose logs are taken over at a time; spec/replication.md §4


# ── maps ────────────────────────────────────────────────────────────────────


async def pull(node: Node, client: PeerClient) -> int:
    """Take over all node records and records of logs that the peer has and this node has not.

    Returns how many records of logs. Raises PeerError, PeerViolation if the peer lied.
    """
    await refresh_maps(node)
    policy = await on_disk(node.following.refresh)
    nodes, logs = await _compare_roots(node, client)
    if nodes is not None:
        await _take_nodes(node, client, nodes)
    if logs is None:
        return 0
    if policy.mode == "listed":
        # Of all others it would only learn what it does not want.
        return await take_followed(node, client, node.following.listed())
    return await _take_logs(node, client, logs)


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


async def _next_buckets(
    digests: Digests,
    client: PeerClient,
    walk: Walk,
    *,
    of_nodes: bool,
    unwanted: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[Bucket, ...]:
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
    return await on_disk(_questions, digests, walk.buckets(), walk.salt, unwanted)


def _questions(
    digests: Digests, prefixes: Iterable[str], salt: bytes, unwanted: Sequence[tuple[bytes, bytes]]
) -> tuple[Bucket, ...]:
    return tuple(have_of(digests, prefix, salt, have_max=HAVE_MAX, unwanted=unwanted) for prefix in prefixes)


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
    """Take over what `walk` finds, page by page: while one is written, the next one comes and is checked."""
    taking = _Taking(node, client)
    async with trio.open_nursery() as nursery:
        try:
            await _go_through(node, client, walk, taking, nursery)
        except HubError as exc:
            taking.note(exc)
    return taking.result()


async def _go_through(node: Node, client: PeerClient, walk: Walk, taking: _Taking, nursery: trio.Nursery) -> None:
    while not walk.is_over:
        unwanted = list(node.following.refused.items())
        buckets = await _next_buckets(node.store.log_digests, client, walk, of_nodes=False, unwanted=unwanted)
        while buckets:
            await taking.room.acquire()
            if taking.is_over:
                return
            page = await client.heads(BucketsQuery(walk.salt, buckets))
            keys = [_parse(client, announced.head).log for announced in page.heads]
            keys += [told.log for told in page.stopped]
            buckets = _rest(client, buckets, page.complete, sorted(keys))
            nursery.start_soon(taking.take, page)


class _Taking:
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
        asked = wanted[:IDENTITIES_MAX]
        chains = await client.identities(asked)
        opened, problem = await on_disk(_open_identities, node, _shown(asked, chains))
        if problem is not None:
            raise PeerViolation(f"{client} sent an identity that is not right", peer=str(client.node)) from problem
        heads: list[LogHead] = []
        for identity in opened:
            heads += [head for log_id in sorted(identity.logs) if (head := await client.head(log_id)) is not None]
        count += await take_heads(node, client, heads)
        wanted = wanted[len(chains) :]
    return count


class _Goal(Struct, eq=False):
    """A log of which the peer shows something else than what is here, and how far it is here."""

    namespace: NamespaceId
    version: int  # of the identity document that the peer has
    log: LogId
    head: Head | None  # the peer's; None: it shows none, because the log goes on no more
    reach: int  # records that the peer has
    is_closed: bool = False  # the peer has all of a log that its publisher closed
    common: int | None = None  # records at which a fork froze the log, as far as we know
    proof_wanted: bool = False  # the peer knows of a fork that is news
    is_suspect: bool = False  # another history was met before, and nothing proves it yet
    size: int = 0  # records that are here
    identity: Identity | None = None  # as far as it is here
    before: tuple[int, int] = (0, 0)  # records, and version of the identity, that were here
    common_before: int | None = None  # at which a fork had frozen it

    @property
    def missing(self) -> int:
        """How many records are to be fetched."""
        if self.identity is None or self.is_suspect:
            return 0
        if (end := self.identity.closed.get(self.log)) is not None:
            # Only of who has all of the history that counts.
            return end.size - self.size if self.is_closed else 0
        counted = self.identity.counted(self.log, self.reach)
        return (counted if self.common is None else min(counted, self.common)) - self.size


async def take_heads(
    node: Node, client: PeerClient, heads: Iterable[LogHead], stopped: Iterable[StoppedLog] = ()
) -> int:
    """Bring every log that is longer at the peer up to its head; returns how many records were new.

    Raises PeerError, after all logs that can be were taken, if the peer does not have what its
    heads cover, and PeerViolation if it sent what its publisher did not sign.
    """
    goals = await on_disk(_goals, node, client, tuple(heads), tuple(stopped))
    if not goals:
        return 0
    try:
        proven, is_known = await _prove(node, client, goals)
        await _take_proofs(node, client, proven)
        await on_disk(_measure, node, proven)
        count, is_complete, early = await _fetch(node, client, proven)
    finally:
        for log_id, before in await on_disk(_changed, node, goals):
            # A peer that had another history hears of the fork as the others do.
            source = None if await on_disk(node.store.forks.is_stopped, log_id) else client.node
            node.note_news(log_id, before, source)
    if not is_known:
        raise PeerError(f"{client} does not know the publishers of all its logs", peer=str(client.node))
    if early is not None:
        text = f"what {client} has is left for later: {early}, so that clock or its publisher's is wrong"
        raise PeerError(text, peer=str(client.node))
    if not is_complete:
        raise PeerError(f"{client} does not have the records that its heads cover", peer=str(client.node))
    return count


def _goals(node: Node, client: PeerClient, heads: Iterable[LogHead], stopped: Iterable[StoppedLog]) -> list[_Goal]:
    """Return what of `heads` and `stopped` is news."""
    shown = []
    for announced in heads:
        head = _parse(client, announced.head)
        shown.append(_Goal(announced.namespace, announced.version, head.log, head, head.size))
    for told in stopped:
        is_closed = told.common is None
        goal = _Goal(told.namespace, told.version, told.log, None, told.held, is_closed, told.common, not is_closed)
        shown.append(goal)
    return [goal for goal in shown if not _is_refused(node, goal) and _is_news(node, goal)]


def _is_refused(node: Node, goal: _Goal) -> bool:
    """Say whether this node does not want a log; then it is remembered, so that it is not sent again."""
    if not node.following.refuses(goal.namespace, goal.log, goal.reach):
        return False
    if goal.head is not None:
        node.following.note_refused(goal.log, log_digest(goal.version, goal.head.size, goal.head.root))
    elif goal.common is not None:
        node.following.note_refused(goal.log, forked_digest(goal.version, goal.common, goal.reach))
    return True


def _is_news(node: Node, goal: _Goal) -> bool:
    """Fill in what is here of the log of `goal`; returns whether the peer has more of it."""
    logs = node.store.logs
    state, fork = logs.state(goal.log), node.store.forks.get(goal.log)
    goal.before = (state.size, state.version) if state else (0, 0)
    goal.size = goal.before[0]
    goal.is_suspect = fork is None and logs.fork(goal.log) is not None
    known = logs.identity(goal.namespace)
    if known and goal.log in known.logs and known.current.version >= goal.version:
        goal.identity = known
    if fork is not None:
        goal.common_before = fork.common
        goal.proof_wanted = goal.proof_wanted and goal.common is not None and goal.common < fork.common
        goal.common = fork.common if goal.common is None else min(goal.common, fork.common)
    if goal.identity is None or goal.proof_wanted or goal.is_suspect or goal.missing > 0:
        return True
    if goal.head is None or goal.log in goal.identity.closed:
        return False
    # Without a head of its own this node could not pass the log on.
    return not (state and state.head and state.size == goal.head.size and state.root == goal.head.root)


def _measure(node: Node, goals: Iterable[_Goal]) -> None:
    """Look again how far logs are here: a new identity or proof may have ended some of them earlier."""
    for goal in goals:
        state = node.store.logs.state(goal.log)
        goal.size = state.size if state else 0


def _changed(node: Node, goals: Iterable[_Goal]) -> list[tuple[LogId, int]]:
    """Return the logs that came further or to an end, and how many records of each were here before."""
    changed = []
    for goal in goals:
        state, fork = node.store.logs.state(goal.log), node.store.forks.get(goal.log)
        is_frozen = fork is not None and fork.common != goal.common_before
        if state and ((state.size, state.version) > goal.before or is_frozen):
            changed.append((goal.log, goal.before[0]))
    return changed


def _parse(client: PeerClient, head: bytes) -> Head:
    try:
        return parse_head(head)
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent a head that is none", peer=str(client.node)) from exc


async def _prove(node: Node, client: PeerClient, goals: Sequence[_Goal]) -> tuple[list[_Goal], bool]:
    """Ask for the identities that name the keys of logs, where ours are older or do not.

    Returns the goals that are proven, and whether the peer knew all that it was asked for.
    """
    wanted = sorted({goal.namespace for goal in goals if goal.identity is None})
    found: dict[NamespaceId, Identity] = {}  # the newest that is here then
    versions: dict[NamespaceId, int] = {}  # that the peer has
    is_known = True
    while wanted:
        asked = wanted[:IDENTITIES_MAX]
        chains = await client.identities(asked)
        is_known = is_known and None not in chains
        opened, problem = await on_disk(_open_identities, node, _shown(asked, chains))
        versions.update((identity.namespace, identity.current.version) for identity in opened)
        for newest in await on_disk(node.store.logs.add_identities, opened) if opened else ():
            if isinstance(newest, SplitIdentity):
                # Whoever heard the other one first has it: the peer did nothing wrong.
                log.warning("%s; the one that came first counts here", newest)
            else:
                found[newest.namespace] = newest
        if isinstance(problem, UnknownForm):
            raise _other_version(client, "an identity", problem) from problem
        if problem is not None:
            raise PeerViolation(f"{client} sent an identity that is not right", peer=str(client.node)) from problem
        wanted = wanted[len(chains) :]
    for goal in goals:
        if goal.identity is None and versions.get(goal.namespace, goal.version) < goal.version:
            raise PeerViolation(f"{client} sent an identity that is older than it said", peer=str(client.node))
        # One that does not name the key: its publisher dropped the log, and the peer still has it.
        if goal.identity is None and (known := found.get(goal.namespace)) and goal.log in known.logs:
            goal.identity = known
    return [goal for goal in goals if goal.identity is not None], is_known


def _shown(
    asked: Sequence[NamespaceId], chains: Sequence[IdentityChain | None]
) -> list[tuple[NamespaceId, IdentityChain]]:
    """Return the chains that a peer sent, with what they were asked for as; it may have sent fewer."""
    return [(namespace, chain) for namespace, chain in zip(asked, chains, strict=False) if chain is not None]


def _open_identities(
    node: Node, shown: Sequence[tuple[NamespaceId, IdentityChain]]
) -> tuple[list[Identity], InvalidData | None]:
    """Return the identities that chains prove, up to the first that is wrong, and what is wrong with that one."""
    opened: list[Identity] = []
    found = node.store.logs.open_identities([chain for _, chain in shown])
    for (namespace, _), identity in zip(shown, found, strict=True):
        if isinstance(identity, InvalidData):
            return opened, identity
        if identity.namespace != namespace:
            return opened, InvalidData("the identity is of another namespace")
        opened.append(identity)
    return opened, None


async def _take_proofs(node: Node, client: PeerClient, goals: Iterable[_Goal]) -> None:
    """Keep what proves forks, of those that the peer knows and of those that are suspected here."""
    for goal in goals:
        assert goal.identity is not None
        if goal.log in goal.identity.closed:
            continue
        if goal.proof_wanted:
            try:
                await take_proof(node, client, goal.identity, goal.log)
            except InvalidData as exc:
                raise PeerViolation(f"{client} sent a proof that proves nothing", peer=str(client.node)) from exc
        elif goal.is_suspect:
            await _prove_fork(node, client, goal)


async def _prove_fork(node: Node, client: PeerClient, goal: _Goal) -> None:
    """Keep a proof that the peer's history of a log is another than ours, if it is and the peer has it."""
    assert goal.identity is not None
    head = None
    if goal.head is not None:
        try:
            head = open_head(goal.head.text, log=goal.log, key=goal.identity.logs[goal.log])
        except InvalidData as exc:
            raise PeerViolation(f"{client} sent a head that nobody signed", peer=str(client.node)) from exc
    await prove_fork(node, client, goal.identity, goal.log, goal.reach, head)


async def _fetch(node: Node, client: PeerClient, goals: Sequence[_Goal]) -> tuple[int, bool, TooEarly | None]:
    """Fetch and keep the records that are missing; returns how many were new, and whether the peer had all.

    The third is what was said of a record that comes too early by our clock.
    Raises OtherVersion in the end if a record may be of another version.
    """
    count = 0
    is_complete = True
    unknown: UnknownForm | None = None
    early: TooEarly | None = None
    # Of these only the head, or the identity, is news.
    parts: list[tuple[_Goal, tuple[bytes, ...]]] = [
        (goal, ()) for goal in goals if goal.missing <= 0 and goal.head is not None and not goal.is_suspect
    ]
    open_goals = [goal for goal in goals if goal.missing > 0]
    while parts or open_goals:
        asked = open_goals[:RANGES_MAX]
        if asked:
            answered = await client.records([LogRange(goal.log, goal.size, goal.missing) for goal in asked])
            parts += zip(asked, answered, strict=False)
            asked = asked[: len(answered)]
        kept = await _keep(node, client, parts)
        count, unknown, early = count + kept.count, unknown or kept.unknown, early or kept.early
        for goal in kept.forked:
            await _prove_fork(node, client, goal)
        parts = []
        open_goals = open_goals[len(asked) :]
        for goal in asked:
            if goal in kept.forked:
                continue
            state = await on_disk(node.store.logs.state, goal.log)
            before, goal.size = goal.size, state.size if state else 0
            if goal.missing > 0 and goal.size > before:
                open_goals.append(goal)  # cut short, to fit the answer
            elif goal.missing > 0:
                is_complete = False
                if goal.size and goal.head is not None:
                    # It may be one who shows a head of another history, and hides the records.
                    await _prove_fork(node, client, goal)
    if unknown is not None:
        raise _other_version(client, "a record", unknown)
    return count, is_complete, early


class _Kept(Struct):
    """What became of entries of logs."""

    count: int = 0  # of those that were new
    forked: list[_Goal] = []  # of which the peer has another history
    unknown: UnknownForm | None = None  # what was wrong with an entry that may be right in another version
    early: TooEarly | None = None  # the same of one that may be right later


async def _keep(node: Node, client: PeerClient, parts: Sequence[tuple[_Goal, tuple[bytes, ...]]]) -> _Kept:
    """Keep entries of logs, whatever becomes of others among them."""
    kept = _Kept()
    wrong: InvalidData | None = None
    taken = [
        LogPart(goal.identity, goal.log, goal.head, goal.size, entries)
        for goal, entries in parts
        if goal.identity is not None
    ]
    outcomes = await on_disk(node.store.logs.extend_many, taken, now=node.clock())
    for (goal, _), outcome in zip(parts, outcomes, strict=True):
        if isinstance(outcome, int):
            kept.count += outcome
        elif isinstance(outcome, ForkedLog):
            log.warning("%s", outcome)
            kept.forked.append(goal)
        elif isinstance(outcome, UnknownForm):
            kept.unknown = outcome
        elif isinstance(outcome, SplitIdentity):
            log.warning("%s; the one that came first counts here", outcome)
        elif isinstance(outcome, TooEarly):
            log.info("%s has a log that is left for later: %s", client, outcome)
            kept.early = outcome
        else:
            wrong = outcome
    if wrong is not None:
        raise PeerViolation(f"{client} sent a head or a record that is not right", peer=str(client.node)) from wrong
    return kept


def _other_version(client: PeerClient, what: str, unknown: UnknownForm) -> OtherVersion:
    """Return the error for something of a publisher that may be right in another version."""
    return OtherVersion(f"{client} has {what} that this version does not know: {unknown}", peer=str(client.node))
