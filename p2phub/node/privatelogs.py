"""Take over private logs from those who may read them, as this node may (spec/private.md §7).

    introduce ──▶ private/heads ──▶ identities, private/records ──checked──▶ store ──▶ who may have what has changed
    private/news of others ─────────────────────────────────────────┘

Whoever tells: what is taken was signed by the publisher, and lets this node in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from msgspec import Struct

from p2phub.core.access import Caller
from p2phub.core.checkpoint import parse_head
from p2phub.core.delegation import open_delegation, publishes
from p2phub.core.errors import (
    ForkedLog,
    HubError,
    InvalidData,
    PeerViolation,
    SplitIdentity,
    TooEarly,
    UnknownForm,
)
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import LogId, NamespaceId, NodeId
from p2phub.core.private import Grantee, PrivateHead, Repository, open_private_head
from p2phub.core.records import Grant, read_entry
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import LogRange
from p2phub.protocol.privatetalk import PrivateHeadsQuery, PrivateNews, PrivateTaken
from p2phub.store.arrivals import check_entries

from .disk import on_disk
from .introduce import introduce
from .node import Node
from .publishers import fault, note_split
from .unasked import has_room, is_wanted, own_grantees

log = logging.getLogger(__name__)

ASK_AGAIN_S = 30.0  # seconds until a peer is asked again for private logs; spec/private.md §7
ACTING_S = 3600.0  # seconds for which it is remembered for whom a node acts


async def pull_private(node: Node, client: PeerClient) -> list[LogId]:
    """Take over the private logs that the peer has, that this node may read; returns those that came further.

    Raises PeerError, PeerViolation if the peer lied.
    """
    await introduce(node, client)
    node.acting.note_met(client.node, node.clock())
    changed: list[LogId] = []
    after: bytes | None = None
    while True:
        answer = await client.private_heads(PrivateHeadsQuery(after))
        if answer is None:
            return changed
        for told in answer.logs:
            if after is not None and told.log <= after:
                raise PeerViolation(f"{client} sent private logs out of order", peer=str(client.node))
            after = told.log
            if await _take_log(node, client, told):
                changed.append(told.log)
        if not answer.more or not answer.logs:
            break
    await _note_acts(node, client, answer.acts)
    if changed:
        node.open_answers.note_change()
    return changed


async def _take_log(node: Node, client: PeerClient, told: PrivateHead) -> bool:
    """Bring one log up to what the peer told; returns whether it came further."""
    limits = node.neighbours.limits
    size = before = 0
    try:
        head = parse_head(told.head)
        state = await on_disk(node.store.logs.state, told.log, private=True)
        size = before = state.size if state else 0
        if head.size <= size:
            return False
        identity = await _identity(node, client, told)
        if told.key not in identity.current.publish.keys:
            return False  # retired: what is here counts, and nothing more
        open_private_head(told, identity)
        if await on_disk(node.following.refuses, told.namespace, told.log, head.size):
            return False
        is_limited = state is None and not await on_disk(is_wanted, node, told.namespace)
        if is_limited and not limits.may_begin_log(client.node, client.host):
            return False
        while size < head.size:
            (entries,) = await client.private_records([LogRange(told.log, size, head.size - size)])
            if not entries:
                break
            if size == 0:
                entries = await on_disk(_signed_of, identity, told, size, entries, node.clock())
                if not await on_disk(_wants, node, told.namespace, entries):
                    break
            if not await on_disk(has_room, node, told.log, told.namespace, entries):
                break
            taken = await on_disk(_keep, node, identity, told, size, entries)
            if not taken:
                break
            if is_limited and size == 0:
                limits.count_new_logs(client.node, client.host, 1)
            size += taken
    except TooEarly as exc:
        log.info("%s has a private log that is left for later: %s", client, exc)
    except UnknownForm as exc:
        # Not said of the peer as a whole: what others signed is taken over all the same.
        log.warning("%s has a private log that this version does not know: %s", client, exc)
    except ForkedLog as exc:
        log.warning("%s", exc)
    except SplitIdentity as exc:
        note_split(exc)
    except InvalidData as exc:
        raise fault(client, "a private log", exc) from exc
    return size > before


async def _identity(node: Node, client: PeerClient, told: PrivateHead) -> Identity:
    """Return the identity that proves a private log, the peer's if it is newer. Raises InvalidData, PeerError."""
    known = await on_disk(node.store.logs.identity, told.namespace)
    if known is not None and known.current.version >= told.version:
        return known
    (chain,) = await client.identities([told.namespace])
    if chain is None:
        raise InvalidData("it does not know who signed it")
    identity = await on_disk(open_identity, chain.documents)
    if identity.namespace != told.namespace:
        raise InvalidData("the identity is of another namespace")
    return identity


def _keep(node: Node, identity: Identity, told: PrivateHead, start: int, entries: Sequence[bytes]) -> int:
    # In a file of its own: what proves a private log must outlast the index.
    node.store.logs.add_identity(identity, own=True)
    unasked = not is_wanted(node, told.namespace)
    count = node.store.private.take(identity, told, start, entries, now=node.clock(), unasked=unasked)
    repository = node.store.private.repository_of(told.log)
    if repository is not None and not unasked:
        node.store.private.ask_for(repository)  # other logs of it may be here from before
    return count


def _wants(node: Node, namespace: NamespaceId, entries: Iterable[bytes]) -> bool:
    """Say whether a log that is not here yet is for this node: its publisher's, or granted to it.

    The entries were checked: else who makes some up could test what this node was let into.
    """
    mine = own_grantees(node)
    if Grantee("namespace", bytes(namespace)) in mine:
        return True
    records = [read_entry(data).record for data in entries]
    if any(isinstance(record, Grant) and Grantee(record.to_kind, record.to) in mine for record in records):
        return True
    # Another key of the publisher let us in before: this is one that took its place, or is of another machine.
    models = {model for record in records if (model := getattr(record, "model", None))}
    known = [Repository(namespace, model) for model in models]
    return any(grantee in mine for each in known for grantee in readers_of(node, each))


async def _note_acts(node: Node, client: PeerClient, acts: Iterable[bytes]) -> None:
    """Note for whom the peer acts, of those to whom something private is granted, or whose it is."""
    for data in acts:
        try:
            delegation = open_delegation(data, now=node.clock())
            if delegation.node != client.node:
                raise InvalidData("it shows what another node was given")
            if not await on_disk(matters, node, delegation.namespace):
                continue
            identity = await on_disk(node.store.logs.identity, delegation.namespace)
            if identity is None or not publishes(delegation, identity):
                # It may have other keys by now.
                (chain,) = await client.identities([delegation.namespace])
                newer = open_identity(chain.documents) if chain else None
                if newer is not None and (identity is None or newer.continues(identity)):
                    identity = newer
            if identity is not None and identity.namespace == delegation.namespace:
                await on_disk(node.authority.check, delegation, identity)
                until = min(float(delegation.expires), node.clock() + ACTING_S)
                node.acting.note(client.node, {delegation.namespace: until})
        except InvalidData as exc:
            log.warning("%s does not act for whom it says: %s", client, exc)


def matters(node: Node, namespace: NamespaceId) -> bool:
    """Say whether something private is of a namespace, or granted to it."""
    for repository in node.store.private.repositories():
        grantee = Grantee("namespace", bytes(namespace))
        if repository.namespace == namespace or grantee in node.store.private.grants(repository):
            return True
    return False


class Taken(Struct, frozen=True):
    """What became of news."""

    answer: PrivateTaken
    count: int = 0  # records that were new
    is_new: bool = False  # the log was never heard of


def take_news(node: Node, caller: Caller, news: PrivateNews, *, may_begin: bool) -> Taken:
    """Take in what another node tells of a private log.

    may_begin: a log that was never heard of may be taken in. The answer is the same whatever is wrong, or not wanted.
    """
    told = news.log
    state = node.store.logs.state(told.log, private=True)
    count = 0
    try:
        # All of it first, in the same way whatever is here: what is answered, and when, must not tell of a name.
        identity = _identity_told(node, news)
        head = open_private_head(told, identity)
        entries = _signed_of(identity, told, news.start, news.entries, node.clock())
        before = state.size if state else 0
        if entries and news.start <= before < head.size:
            is_for_us = state is not None or (may_begin and _wants(node, told.namespace, entries))
            is_taken = is_for_us and has_room(node, told.log, told.namespace, entries)
            if is_taken and not node.following.refuses(told.namespace, told.log, head.size):
                count = _keep(node, identity, told, news.start, entries)
    except (InvalidData, ForkedLog) as exc:
        log.warning("node %s told of a private log what is not right: %s", caller.node, exc)
    return Taken(PrivateTaken(_size_for(node, caller, told.log)), count, is_new=count > 0 and state is None)


def _signed_of(
    identity: Identity, told: PrivateHead, start: int, entries: tuple[bytes, ...], now: float
) -> tuple[bytes, ...]:
    """Return the first of these entries, up to one that does not count. Raises InvalidData if that is the first."""
    checked = check_entries(entries, identity.namespace, told.log, told.key, start, now)
    if checked.error is not None and not checked.entries:
        raise checked.error
    return entries[: len(checked.entries)]


def _identity_told(node: Node, news: PrivateNews) -> Identity:
    """Return the identity that proves the log, the newer one of that which was told and that which is here.

    Raises InvalidData, also if there is none.
    """
    told = open_identity(news.identity.documents) if news.identity is not None else None
    if told is not None and told.namespace != news.log.namespace:
        raise InvalidData("the identity is of another namespace")
    known = node.store.logs.identity(news.log.namespace)
    found = max((each for each in (known, told) if each), key=lambda each: each.current.version, default=None)
    if found is None:
        raise InvalidData("it does not say who signed it")
    return found


def _size_for(node: Node, caller: Caller, log_id: LogId) -> int:
    """Return how many records of a log are here, 0 to who may not read it."""
    repository = node.store.private.repository_of(log_id)
    if repository is None or repository not in node.access.private.readable(caller):
        return 0
    state = node.store.logs.state(log_id, private=True)
    return state.size if state else 0


def note_caller(node: Node, caller: Caller) -> None:
    """Remember for whom a caller acts, if something private is of them or granted to them: he is told of news."""
    if caller.node is not None:
        until = node.clock() + ACTING_S
        node.acting.note(caller.node, {each: until for each in caller.namespaces if matters(node, each)})


def readers_of(node: Node, repository: Repository) -> list[Grantee]:
    """Return who may read a repository now."""
    now = node.clock()
    granted = [grantee for grantee, said in node.store.private.grants(repository).items() if said.until > now]
    return [Grantee("namespace", bytes(repository.namespace)), *granted]


def nodes_told(node: Node, repository: Repository) -> list[NodeId]:
    """Return the other nodes that are known to be allowed to read a repository."""
    readers = readers_of(node, repository)
    acting = node.acting.nodes_of(readers, node.clock())
    namespaces = [NamespaceId(each.id) for each in readers if each.kind == "namespace"]
    return [each for each in dict.fromkeys([*acting, *node.authority.nodes_for(namespaces)]) if each != node.id]


async def pull_quietly(node: Node, client: PeerClient, again_s: float = ASK_AGAIN_S) -> list[LogId]:
    """Ask a peer for private logs, unless it was asked in the last `again_s` seconds.

    That it does not tell is no failure of more.
    """
    if node.acting.met.get(client.node, -again_s) + again_s > node.clock():
        return []
    try:
        return await pull_private(node, client)
    except PeerViolation:
        raise
    except HubError as exc:
        log.info("%s does not tell of private logs: %s", client, exc)
        return []
