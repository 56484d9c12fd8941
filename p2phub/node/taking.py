"""Bring logs up to the heads that a peer shows (spec/replication.md §4).

    goals ──▶ identities that name the keys ──▶ proofs of forks ──▶ records, of many logs at once ──▶ store

What one log is refused for does not keep the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from msgspec import Struct

from p2phub.core.checkpoint import open_head
from p2phub.core.errors import (
    ForkedLog,
    InvalidData,
    PeerError,
    PeerViolation,
    SplitIdentity,
    TooEarly,
    UnknownForm,
)
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import IDENTITIES_MAX, RANGES_MAX, IdentityChain, LogHead, LogRange, StoppedLog
from p2phub.store.logs import LogPart

from .disk import on_disk
from .forks import prove_fork, take_proof
from .goals import Goal, changed, goals_of, measure
from .node import Node
from .publishers import fault, note_split

log = logging.getLogger(__name__)


async def take_heads(
    node: Node, client: PeerClient, heads: Iterable[LogHead], stopped: Iterable[StoppedLog] = ()
) -> int:
    """Bring every log that is longer at the peer up to its head; returns how many records were new.

    Raises PeerError, after all logs that can be were taken, if the peer does not have what its
    heads cover, and PeerViolation if it sent what its publisher did not sign.
    """
    goals = await on_disk(goals_of, node, client, tuple(heads), tuple(stopped))
    if not goals:
        return 0
    try:
        proven, is_known = await _prove(node, client, goals)
        await _take_proofs(node, client, proven)
        await on_disk(measure, node, proven)
        count, is_complete, early = await _fetch(node, client, proven)
    finally:
        for each in await on_disk(changed, node, goals):
            # A peer that had another history hears of the fork as the others do.
            node.note_news(each.log, each.before, None if each.is_stopped else client.node)
    if not is_known:
        raise PeerError(f"{client} does not know the publishers of all its logs", peer=str(client.node))
    if early is not None:
        text = f"what {client} has is left for later: {early}, so that clock or its publisher's is wrong"
        raise PeerError(text, peer=str(client.node))
    if not is_complete:
        raise PeerError(f"{client} does not have the records that its heads cover", peer=str(client.node))
    return count


async def _prove(node: Node, client: PeerClient, goals: Sequence[Goal]) -> tuple[list[Goal], bool]:
    """Ask for the identities that name the keys of logs, where ours are older or do not.

    Returns the goals that are proven, and whether the peer knew all that it was asked for.
    """
    wanted = sorted({goal.namespace for goal in goals if goal.identity is None})
    found: dict[NamespaceId, Identity] = {}  # the newest that is here then
    versions: dict[NamespaceId, int] = {}  # that the peer has
    is_known = True
    while wanted:
        shown = await ask_identities(node, client, wanted)
        is_known = is_known and shown.is_known
        versions.update((identity.namespace, identity.current.version) for identity in shown.identities)
        for newest in await on_disk(node.store.logs.add_identities, shown.identities) if shown.identities else ():
            if isinstance(newest, SplitIdentity):
                note_split(newest)
            else:
                found[newest.namespace] = newest
        if shown.wrong is not None:
            raise fault(client, "an identity", shown.wrong) from shown.wrong
        wanted = shown.rest
    for goal in goals:
        if goal.identity is None and versions.get(goal.namespace, goal.version) < goal.version:
            raise PeerViolation(f"{client} sent an identity that is older than it said", peer=str(client.node))
        # One that does not name the key: its publisher dropped the log, and the peer still has it.
        if goal.identity is None and (known := found.get(goal.namespace)) and goal.log in known.logs:
            goal.identity = known
    return [goal for goal in goals if goal.identity is not None], is_known


class _Shown(Struct):
    """What a peer showed of identities that it was asked for."""

    identities: list[Identity]  # up to the first that is wrong
    wrong: InvalidData | None  # about that one
    is_known: bool  # the peer had all
    rest: list[NamespaceId]  # to be asked for again


async def ask_identities(node: Node, client: PeerClient, wanted: Sequence[NamespaceId]) -> _Shown:
    """Ask a peer for the identities of some namespaces, as many as one question can be about."""
    asked = wanted[:IDENTITIES_MAX]
    chains = await client.identities(asked)
    opened, wrong = await on_disk(_open_identities, node, asked, chains)
    return _Shown(opened, wrong, None not in chains, list(wanted[len(chains) :]))


def _open_identities(
    node: Node, asked: Sequence[NamespaceId], chains: Sequence[IdentityChain | None]
) -> tuple[list[Identity], InvalidData | None]:
    """Return the identities that chains prove, up to the first that is wrong, and what is wrong with that one."""
    # The peer may have sent fewer.
    shown = [(namespace, chain) for namespace, chain in zip(asked, chains, strict=False) if chain is not None]
    opened: list[Identity] = []
    found = node.store.logs.open_identities([chain for _, chain in shown])
    for (namespace, _), identity in zip(shown, found, strict=True):
        if isinstance(identity, InvalidData):
            return opened, identity
        if identity.namespace != namespace:
            return opened, InvalidData("the identity is of another namespace")
        opened.append(identity)
    return opened, None


async def _take_proofs(node: Node, client: PeerClient, goals: Iterable[Goal]) -> None:
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


async def _prove_fork(node: Node, client: PeerClient, goal: Goal) -> None:
    """Keep a proof that the peer's history of a log is another than ours, if it is and the peer has it."""
    assert goal.identity is not None
    head = None
    if goal.head is not None:
        try:
            head = open_head(goal.head.text, log=goal.log, key=goal.identity.logs[goal.log])
        except InvalidData as exc:
            raise PeerViolation(f"{client} sent a head that nobody signed", peer=str(client.node)) from exc
    await prove_fork(node, client, goal.identity, goal.log, goal.reach, head)


async def _fetch(node: Node, client: PeerClient, goals: Sequence[Goal]) -> tuple[int, bool, TooEarly | None]:
    """Fetch and keep the records that are missing; returns how many were new, and whether the peer had all.

    The third is what was said of a record that comes too early by our clock.
    Raises OtherVersion in the end if a record may be of another version.
    """
    count = 0
    is_complete = True
    unknown: UnknownForm | None = None
    early: TooEarly | None = None
    # Of these only the head, or the identity, is news.
    parts: list[tuple[Goal, tuple[bytes, ...]]] = [
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
        before = [goal.size for goal in asked]
        await on_disk(measure, node, asked)
        for goal, size in zip(asked, before, strict=True):
            if goal in kept.forked:
                continue
            if goal.missing > 0 and goal.size > size:
                open_goals.append(goal)  # cut short, to fit the answer
            elif goal.missing > 0:
                is_complete = False
                if goal.size and goal.head is not None:
                    # It may be one who shows a head of another history, and hides the records.
                    await _prove_fork(node, client, goal)
    if unknown is not None:
        raise fault(client, "a record", unknown)
    return count, is_complete, early


class _Kept(Struct):
    """What became of entries of logs."""

    count: int = 0  # of those that were new
    forked: list[Goal] = []  # of which the peer has another history
    unknown: UnknownForm | None = None  # what was wrong with an entry that may be right in another version
    early: TooEarly | None = None  # the same of one that may be right later


async def _keep(node: Node, client: PeerClient, parts: Sequence[tuple[Goal, tuple[bytes, ...]]]) -> _Kept:
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
            note_split(outcome)
        elif isinstance(outcome, TooEarly):
            log.info("%s has a log that is left for later: %s", client, outcome)
            kept.early = outcome
        else:
            wrong = outcome
    if wrong is not None:
        raise fault(client, "a head or a record", wrong) from wrong
    return kept
