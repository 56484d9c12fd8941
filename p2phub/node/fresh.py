"""State what is newest of one's own logs, and learn what other publishers stated (spec/fresh.md).

own heads ──sign──▶ kept, told with news, given to whoever asks
a peer's answer ──checked──▶ kept if newer ──▶ what is here is behind? ──▶ people are told
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence

import trio

from p2phub.core.ages import describe_age
from p2phub.core.checkpoint import Head, parse_head
from p2phub.core.errors import ForkedLog, HubError, InvalidData, NotFound, PeerError, PeerViolation, TooEarly
from p2phub.core.forks import ForkedHeads
from p2phub.core.fresh import (
    RENEW_S,
    TTL_S,
    Fresh,
    Freshness,
    SignedFresh,
    missing,
    open_fresh,
    read_fresh,
    sign_fresh,
    warnings,
)
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.notes import NoteKey
from p2phub.core.records import SKEW_MAX_S
from p2phub.core.witness import cosigned_by
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import IDENTITIES_MAX, FreshQuery, Statements
from p2phub.store.logs import LogState
from p2phub.store.store import Store

from .disk import on_disk
from .events import Notice, Tell
from .identity import own_identity, own_namespace, own_signers
from .logheads import is_history
from .maps import first_that_fit
from .node import Node

log = logging.getLogger(__name__)

LEARN_EACH_S = 600.0  # seconds until a peer's word about one publisher is asked for again; spec/fresh.md §3
LEARN_MAX = 256  # publishers that are asked about at once


# ── one's own ───────────────────────────────────────────────────────────────


def state_newest(node: Node) -> SignedFresh | None:
    """Sign and keep a statement of what is newest of this home's publisher; None if his keys for that are not here."""
    try:
        identity = own_identity(node)
    except NotFound:
        return None
    role = identity.current.fresh
    keys = own_signers(node, role)[: role.threshold]
    if len(keys) < role.threshold:
        return None
    now = int(node.clock())
    known = node.store.fresh.get(identity.namespace)
    if known is not None and (before := read_fresh(known).time) > now:
        if before > now + SKEW_MAX_S:
            # Nobody whose clock is as this one took it, and it would keep all later ones out here.
            node.store.fresh.forget(identity.namespace)
        else:
            now = before  # the clock was set back a little: else the statement would count as the older
    fresh = Fresh(
        schema=1,
        namespace=identity.namespace,
        version=identity.current.version,
        time=now,
        expires=now + TTL_S,
        heads=tuple(head.text for head in own_heads(node.store, identity)),
    )
    signed = sign_fresh(fresh, keys)
    node.store.fresh.keep(open_fresh(signed, identity, now=now))
    return signed


def own_heads(store: Store, identity: Identity) -> list[Head]:
    """Return the heads of the logs in which the keys of a publisher sign now, with lines of witnesses."""
    heads = []
    for log_id in sorted(identity.log_of(key) for key in identity.current.publish.keys):
        state, stated = store.logs.state(log_id), store.fresh.stated_head(log_id)
        here = parse_head(state.head) if state and state.head else None
        if stated is not None and (here is None or stated.head.size >= here.size):
            heads.append(stated.head)
        elif here is not None:
            heads.append(here)
    return heads


def must_state(node: Node) -> bool:
    """Say whether the own statement is old, or does not name what is newest."""
    try:
        identity = own_identity(node)
    except HubError:
        return False
    known = node.store.fresh.get(identity.namespace)
    if known is None:
        return True
    fresh = read_fresh(known)
    heads = tuple(head.text for head in own_heads(node.store, identity))
    is_old = fresh.time + RENEW_S < node.clock() or fresh.version != identity.current.version
    return is_old or fresh.heads != heads


# ── others' ─────────────────────────────────────────────────────────────────


def take(store: Store, namespace: NamespaceId, signed: SignedFresh, *, now: float) -> bool:
    """Keep what a publisher stated, if it is right and newer; returns whether it is.

    Raises InvalidData if whoever told it should have found it out, TooEarly.
    """
    identity = store.logs.identity(namespace)
    if identity is None:
        return False
    try:
        opened = open_fresh(signed, identity, now=now)
    except TooEarly:
        raise
    except InvalidData:
        # Keys change: it may be right by another identity than the one that is here.
        with contextlib.suppress(InvalidData):
            if read_fresh(signed).version != identity.current.version:
                return False
        raise
    _forget_what_is_wrong(store, identity, now)
    before = {each.log: each.head.size for each in store.fresh.stated(namespace)}
    is_news, forks = store.fresh.keep(opened)
    for one, other in forks:
        log.warning("log %s of %s was signed with two histories", one.log, namespace)
        store.forks.add(identity, one.log, ForkedHeads(one.text, other.text, one.root, ()))
    for head in opened.heads if is_news else ():
        if head.size > before.get(head.log, 0):
            # The publisher's fault, and kept as such.
            with contextlib.suppress(ForkedLog):
                store.logs.check_head(head)
    return is_news


def _forget_what_is_wrong(store: Store, identity: Identity, now: float) -> None:
    """Forget a statement that is not right by the newest identity: whoever has an old key could keep newer ones out."""
    known = store.fresh.get(identity.namespace)
    if known is None or read_fresh(known).version >= identity.current.version:
        return
    try:
        open_fresh(known, identity, now=now)
    except InvalidData:
        store.fresh.forget(identity.namespace)


def statements_of(store: Store, query: FreshQuery) -> Statements:
    """Return the statements that are here, of the first publishers asked about."""
    return Statements(first_that_fit(store.fresh.get(namespace) for namespace in query.namespaces))


async def learn(node: Node, client: PeerClient, namespaces: Sequence[NamespaceId]) -> None:
    """Ask a peer what publishers stated last, and keep it. Raises PeerError, PeerViolation if it lied."""
    # A publisher of whom something private alone is here is named to those who may read that.
    peer = node.acting.caller(client.node, node.clock())
    hidden = await on_disk(node.access.private.hidden_publishers, peer, namespaces)
    wanted = [each for each in namespaces if each not in hidden]
    while wanted:
        answers = await client.fresh(wanted[:IDENTITIES_MAX])
        for namespace, signed in zip(wanted, answers, strict=False):
            if signed is None:
                continue
            try:
                await on_disk(take, node.store, namespace, signed, now=node.clock())
            except TooEarly as exc:
                log.info("%s has a statement that is left for later: %s", client, exc)
            except InvalidData as exc:
                raise PeerViolation(f"{client} sent a statement that is not right", peer=str(client.node)) from exc
        wanted = wanted[len(answers) :]


async def learn_quietly(node: Node, client: PeerClient, namespaces: Sequence[NamespaceId]) -> None:
    """Do what `learn` does; a peer that does not answer is no error. Raises PeerViolation if it lied."""
    try:
        await learn(node, client, namespaces)
    except PeerViolation:
        raise
    except PeerError as exc:
        log.info("cannot learn what is newest: %s", exc)


async def learn_of_interest(node: Node, client: PeerClient) -> None:
    """Ask a peer about the publishers that matter here and of whom nothing was heard for a while."""
    now = trio.current_time()
    due = await on_disk(_of_interest, node)
    asked = [each for each in due if node.learned.get(each, -LEARN_EACH_S) + LEARN_EACH_S <= now][:LEARN_MAX]
    if asked:
        await learn_quietly(node, client, asked)
        for namespace in asked:
            # Programs that ask the local door see no notes: whoever runs the node does.
            for text in missing(await on_disk(freshness_of, node.store, namespace)):
                log.warning("%s: %s", namespace, text)
    node.learned = {each: then for each, then in node.learned.items() if then + LEARN_EACH_S > now}
    node.learned.update(dict.fromkeys(asked, now))


def _of_interest(node: Node) -> list[NamespaceId]:
    """Return the publishers that are followed here or of whom something is kept, whose last statement is old."""
    followed = [NamespaceId.parse(text) for text in node.following.policy.followed]
    wanted = dict.fromkeys([*followed, *node.store.fresh.publishers_of_what_is_here()])
    since = node.clock() - RENEW_S
    return [each for each in wanted if not node.store.fresh.is_newer(each, since)]


# ── what it means ───────────────────────────────────────────────────────────


def freshness_of(store: Store, namespace: NamespaceId) -> Freshness:
    """Return how new what is here of a publisher is, by his own statement."""
    identity = store.logs.identity(namespace)
    return store.fresh.freshness(identity) if identity else Freshness(namespace)


async def tell_freshness(node: Node, namespace: NamespaceId, name: str, tell: Tell) -> None:
    """Tell people what speaks against that `name`, which may move, is newest here."""
    freshness = await on_disk(freshness_of, node.store, namespace)
    now = node.clock()
    if namespace == await on_disk(own_namespace, node):
        # Another machine of one's own may have more; how old the own word is, its owner knows.
        tell_missing(freshness, tell)
        return
    if node.settings.offline:
        age = freshness.age_s(now)
        when = "nobody stated when" if age is None else f"stated by its publisher {describe_age(age)} ago"
        tell(Notice(f"offline: {name} is what was newest here, {when}"))
        return
    for warning in warnings(freshness, now=now):
        tell(Notice(warning))


def tell_missing(freshness: Freshness, tell: Tell) -> None:
    """Tell people what a publisher stated and is not here."""
    for text in missing(freshness):
        tell(Notice(text))


def witnessed_by(store: Store, log_id: LogId, index: int, witnesses: Iterable[NoteKey]) -> dict[NoteKey, int]:
    """Return which of `witnesses` vouch for the record at `index` of a log, and when each last did, since 1970.

    They cosigned a head that covers it, and that the log here goes on from.
    """
    state, wanted = store.logs.state(log_id), list(witnesses)
    found: dict[NoteKey, int] = {}
    if state is None or not wanted:
        return found
    for head in _heads_with_lines(store, state):
        if not index < head.size <= state.size or not is_history(store, state, head):
            continue
        for witness, time in cosigned_by(head.text, wanted).items():
            found[witness] = max(time, found.get(witness, 0))
    return found


def vouched_sizes(store: Store, log_id: LogId, witnesses: Iterable[NoteKey]) -> dict[NoteKey, tuple[int, int]]:
    """Return how many records of a log each of `witnesses` vouched for, as was stated, and when, since 1970."""
    stated, wanted = store.fresh.stated_head(log_id), list(witnesses)
    found: dict[NoteKey, tuple[int, int]] = {}
    heads = [stated.cosigned, stated.head] if stated is not None else []
    for head in (each for each in heads if each is not None):
        for witness, time in cosigned_by(head.text, wanted).items():
            found[witness] = max((head.size, time), found.get(witness, (0, 0)))
    return found


def _heads_with_lines(store: Store, state: LogState) -> list[Head]:
    """Return the heads of a log that may have lines of witnesses: as its publisher stated them, and as it came."""
    stated = store.fresh.stated_head(state.log)
    heads = [stated.head, stated.cosigned] if stated is not None else []
    heads.append(parse_head(state.head) if state.head else None)
    return [head for head in heads if head is not None and len(head.lines) > 1]
