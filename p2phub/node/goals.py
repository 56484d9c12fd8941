"""Which logs a peer shows more of than is here, and how much of each is missing (spec/replication.md §4).

heads, logs that stopped ──goals_of──▶ goals ──▶ `taking` fetches ──changed──▶ what is news for others
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from p2phub.core.checkpoint import Head, parse_head
from p2phub.core.errors import InvalidData, PeerViolation
from p2phub.core.fingerprints import forked_digest, log_digest
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import LogHead, StoppedLog

from .node import Node


class Goal(Struct, eq=False):
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


def goals_of(node: Node, client: PeerClient, heads: Iterable[LogHead], stopped: Iterable[StoppedLog]) -> list[Goal]:
    """Return what of `heads` and `stopped` is news."""
    shown = []
    for announced in heads:
        head = parsed_head(client, announced.head)
        shown.append(Goal(announced.namespace, announced.version, head.log, head, head.size))
    for told in stopped:
        is_closed = told.common is None
        goal = Goal(told.namespace, told.version, told.log, None, told.held, is_closed, told.common, not is_closed)
        shown.append(goal)
    return [goal for goal in shown if not _is_refused(node, goal) and _is_news(node, goal)]


def _is_refused(node: Node, goal: Goal) -> bool:
    """Say whether this node does not want a log; then it is remembered, so that it is not sent again."""
    if not node.following.refuses(goal.namespace, goal.log, goal.reach):
        return False
    if goal.head is not None:
        node.following.note_refused(goal.log, log_digest(goal.version, goal.head.size, goal.head.root))
    elif goal.common is not None:
        node.following.note_refused(goal.log, forked_digest(goal.version, goal.common, goal.reach))
    return True


def _is_news(node: Node, goal: Goal) -> bool:
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


def measure(node: Node, goals: Iterable[Goal]) -> None:
    """Look again how far logs are here: a new identity or proof may have ended some of them earlier."""
    for goal in goals:
        state = node.store.logs.state(goal.log)
        goal.size = state.size if state else 0


class Changed(Struct):
    """A log that came further, or to an end."""

    log: LogId
    before: int  # records that were here
    is_stopped: bool  # nothing new is taken of it


def changed(node: Node, goals: Iterable[Goal]) -> list[Changed]:
    """Return the logs of `goals` that came further or to an end."""
    changed = []
    for goal in goals:
        state, fork = node.store.logs.state(goal.log), node.store.forks.get(goal.log)
        is_frozen = fork is not None and fork.common != goal.common_before
        if state and ((state.size, state.version) > goal.before or is_frozen):
            changed.append(Changed(goal.log, goal.before[0], node.store.forks.is_stopped(goal.log)))
    return changed


def parsed_head(client: PeerClient, head: bytes) -> Head:
    try:
        return parse_head(head)
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent a head that is none", peer=str(client.node)) from exc
