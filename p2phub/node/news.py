"""Put news into messages, and take in what messages bring: gossip on the disk (spec/gossip.md §4).

logs that changed ──compose──▶ Push ──▶ another node ──take──▶ verified, kept ──▶ news there
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2phub.core.checkpoint import Head, open_head, parse_head
from p2phub.core.encoding import encode
from p2phub.core.errors import ForkedLog, InvalidData, SplitIdentity, TooEarly
from p2phub.core.fingerprints import log_digest
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import LogId, NamespaceId
from p2phub.protocol.gossip import Mark
from p2phub.protocol.messages import IdentityChain, LogHead, StoppedLog
from p2phub.protocol.talk import PUSH_SIZE_MAX, STOPPED_MAX, Push, Wanted, Whole, Word
from p2phub.store.logs import LogPart, LogState
from p2phub.store.store import Store

from . import fresh
from .following import Following

log = logging.getLogger(__name__)

ENTRIES_SIZE_MAX = 24 * 1024  # bytes of entries of one log in a message; who needs more asks for them
IDENTITY_SIZE_MAX = 16 * 1024  # bytes of an identity in a message
WANTED_MAX = 64  # logs that are asked for by name; who misses more compares catalogues
FRESH_SIZE_MAX = 8 * 1024  # bytes of a statement of the publisher in a message
_WHOLE_SIZE = 256  # bytes that a log takes beside its head, identity and entries, at most


@dataclass
class Message:
    """News as it is sent."""

    push: Push
    marks: dict[LogId, Mark] = field(default_factory=dict)  # how far each log in it is
    left: dict[LogId, Mark] = field(default_factory=dict)  # logs that had no room

    @property
    def has_news(self) -> bool:
        """Whether it says anything."""
        return bool(self.marks or self.push.stopped)


@dataclass
class Taken:
    """What became of a message."""

    news: dict[LogId, int] = field(default_factory=dict)  # logs that came further, and how far they were before
    new_logs: int = 0  # of these, logs that were never heard of
    known: dict[LogId, Mark] = field(default_factory=dict)  # logs that the sender has
    wanted: list[Wanted] = field(default_factory=list)
    is_behind: bool = False  # the sender has more than it sent
    holds: bool = True  # all that came whole is here now, and all of what word came that is not wanted
    was_news: bool = False
    wrong: InvalidData | None = None  # what the sender should have found out


def compose(store: Store, whole: dict[LogId, int], word: tuple[LogId, ...]) -> Message:
    """Return the message that tells of these logs.

    whole: logs to send, and from which record on they are likely to be needed.
    """
    message = Message(Push())
    stopped = _stopped(store, (*whole, *word))
    parts: list[Whole] = []
    room = PUSH_SIZE_MAX
    for log_id, start in whole.items():
        state = store.logs.state(log_id)
        if state is None or not state.head or store.forks.is_stopped(log_id):
            continue
        if room < len(state.head) + _WHOLE_SIZE:
            message.left[log_id] = (state.size, state.version)
            continue
        part = _whole(store, state, start, room - len(state.head) - _WHOLE_SIZE)
        room -= len(encode(part))
        parts.append(part)
        message.marks[log_id] = (state.size, state.version)
    words: list[Word] = []
    for log_id in word:
        state = store.logs.state(log_id)
        if state is None or not state.head or store.forks.is_stopped(log_id):
            continue
        if room < _WHOLE_SIZE:
            message.left[log_id] = (state.size, state.version)
            continue
        words.append(Word(log_id, state.size, state.version))
        room -= len(encode(words[-1]))
        message.marks[log_id] = (state.size, state.version)
    message.push = Push(tuple(parts), tuple(words), stopped)
    return message


def compose_identity(store: Store, namespace: NamespaceId) -> Push | None:
    """Return the message that tells of the newest identity document of a publisher, None if there is no room for it.

    It travels with the head of one of its logs, as no message has a document alone: None if there is none.
    """
    identity = store.logs.identity(namespace)
    if identity is None:
        return None
    for state in store.logs.logs_of(namespace):
        if state.head and state.log in identity.logs:
            whole = _whole(store, state, state.size, PUSH_SIZE_MAX - len(state.head) - _WHOLE_SIZE)
            return Push((whole,)) if whole.identity is not None else None
    return None


def _stopped(store: Store, logs: Iterable[LogId]) -> tuple[StoppedLog, ...]:
    """Return what is to be said of those of `logs` that go on no more."""
    stopped = [log_id for log_id in dict.fromkeys(logs) if store.forks.is_stopped(log_id)]
    shown = store.log_states.heads(stopped[:STOPPED_MAX]) if stopped else []
    return tuple(told for told in shown if isinstance(told, StoppedLog))


def _whole(store: Store, state: LogState, start: int, room: int) -> Whole:
    """Return a log with what proves it, as far as there is room."""
    head = LogHead(state.namespace, state.version, state.head)
    chain = None
    if start == 0 or state.version > 1:
        identity = store.logs.identity(state.namespace)
        chain = IdentityChain(identity.chain) if identity else None
        size = len(encode(chain)) if chain else 0
        if size > min(room, IDENTITY_SIZE_MAX):
            chain, size = None, 0
        room -= size
    stated = store.fresh.get(state.namespace)
    size = len(encode(stated)) if stated else 0
    if size > min(room, FRESH_SIZE_MAX):
        stated, size = None, 0
    room -= size
    size_max = min(room, ENTRIES_SIZE_MAX)
    entries: list[bytes] = []
    if start < state.size:
        entries = store.logs.entries(state.log, start, size_max=size_max)[: state.size - start]
    # Some of them would bring nobody further than the head that they belong to.
    if len(entries) < state.size - start or sum(len(data) + 8 for data in entries) > size_max:
        return Whole(head, identity=chain, fresh=stated)
    return Whole(head, start, tuple(entries), chain, stated)


def take(store: Store, following: Following, push: Push, *, now: float, may_begin: bool = True) -> Taken:
    """Verify and keep what a message brings, as far as it is wanted; returns what became of it.

    now: seconds since 1970. may_begin: logs that were never heard of may be taken in.
    """
    taken = Taken()
    # Whose log it is that word comes of is not known if it was never heard of.
    may_want = may_begin and following.policy.mode == "open"
    for whole in push.whole:
        try:
            _take_whole(store, following, whole, taken, now, may_begin)
            _take_statement(store, following, whole, now)
        except ForkedLog as exc:
            # The publisher's fault. Who compares catalogues with the sender finds what proves it.
            log.warning("%s", exc)
            taken.is_behind = taken.was_news = True
            taken.holds = False
        except InvalidData as exc:
            taken.wrong = exc
            taken.holds = False
    for told in push.stopped:
        if not following.refuses(told.namespace, told.log, told.held) and _is_stop_news(store, told):
            taken.is_behind = taken.was_news = True
    for index, word in enumerate(push.word):
        taken.known[word.log] = (word.size, word.version)
        state = store.logs.state(word.log)
        if state and state.size >= word.size and state.version >= word.version:
            continue
        if not _is_wanted(store, following, word, state, may_begin=may_want):
            taken.holds = False
            continue
        if len(taken.wanted) >= WANTED_MAX:
            taken.is_behind = True
            break
        taken.wanted.append(Wanted(index, state.size if state else 0))
    return taken


def _is_wanted(store: Store, following: Following, word: Word, state: LogState | None, *, may_begin: bool) -> bool:
    """Say whether what word came of is to be taken in. may_begin: also a log that was never heard of."""
    if store.forks.is_stopped(word.log):
        return False
    if state is None:
        return may_begin and word.log not in following.refused
    return not following.refuses(state.namespace, word.log, word.size)


def _is_stop_news(store: Store, told: StoppedLog) -> bool:
    """Say whether a log that goes on no more at the sender does not end there here."""
    identity, fork = store.logs.identity(told.namespace), store.forks.get(told.log)
    if identity is not None and told.log in identity.closed:
        return False
    return told.common is None or fork is None or fork.common > told.common


def _take_whole(store: Store, following: Following, whole: Whole, taken: Taken, now: float, may_begin: bool) -> None:
    head = parse_head(whole.head.head)
    version = whole.head.version
    if following.refuses(whole.head.namespace, head.log, head.size):
        # Nothing of it was looked at, and nobody is told.
        following.note_refused(head.log, log_digest(version, head.size, head.root))
        taken.holds = False
        return
    taken.known[head.log] = (head.size, version)
    state = store.logs.state(head.log)
    before = (state.size, state.version) if state else (0, 0)
    if store.forks.is_stopped(head.log):
        # Nothing more of it counts, so nobody is to take what came for confirmed.
        taken.holds = False
        _take_identity(store, whole, head, taken, before[0])
        return
    is_known = before[0] >= head.size and before[1] >= version
    if state and is_known and (head.size < state.size or head.root == state.root):
        return
    known = store.logs.identity(whole.head.namespace)
    is_newer = known is not None and known.current.version >= version + (whole.identity is not None)
    if known is not None and is_newer and head.log not in known.logs:
        # Its publisher dropped the log, and the sender has not heard of it.
        taken.holds = False
        return
    identity = _identity(known, whole, head)
    if identity is None or (state is None and not may_begin):
        taken.is_behind = taken.is_behind or identity is None
        taken.was_news, taken.holds = True, False
        return
    head = open_head(head.text, log=head.log, key=identity.logs[head.log])
    # With entries behind a gap nothing could be done.
    entries = whole.entries if whole.start <= before[0] else ()
    (outcome,) = store.logs.extend_many([LogPart(identity, head.log, head, whole.start, entries)], now=now)
    if isinstance(outcome, SplitIdentity):
        # The publisher signed two documents of one version, and the sender heard the other one first.
        taken.holds = False
        return
    if isinstance(outcome, Exception):
        raise outcome
    if before[1] < identity.current.version and identity.closed:
        # Of a log that the new identity ends, other records may count than are here.
        taken.is_behind = taken.was_news = True
    state = store.logs.state(head.log)
    after = (state.size, state.version) if state else (0, 0)
    if after > before:
        taken.was_news = True
        taken.new_logs += before == (0, 0)
        if state and state.head:
            taken.news[head.log] = before[0]
    if after[0] < identity.counted(head.log, head.size):
        taken.is_behind = taken.was_news = True
    # Also of a log whose key was retired: what is behind its end is not kept.
    taken.holds = taken.holds and after[0] >= head.size


def _take_identity(store: Store, whole: Whole, head: Head, taken: Taken, size: int) -> None:
    """Keep a newer identity that came with a log of which nothing more is taken. Raises InvalidData if it is wrong."""
    known = store.logs.identity(whole.head.namespace)
    if known is None or whole.identity is None or known.current.version >= whole.head.version:
        return
    identity = _identity(known, whole, head)
    # Of two documents of one version the first goes on to count, and the sender is not to blame.
    with contextlib.suppress(SplitIdentity):
        if identity is not None and store.logs.add_identity(identity):
            taken.is_behind = taken.was_news = True
            taken.news[head.log] = size


def _take_statement(store: Store, following: Following, whole: Whole, now: float) -> None:
    """Keep what the publisher of a log stated to be newest. Raises InvalidData if it is wrong."""
    if whole.fresh is None or not following.policy.names(whole.head.namespace):
        return
    with contextlib.suppress(TooEarly):
        fresh.take(store, whole.head.namespace, whole.fresh, now=now)


def _identity(known: Identity | None, whole: Whole, head: Head) -> Identity | None:
    """Return the identity that names the key of a log, None if it neither came nor is here. Raises InvalidData.

    known: that which is here.
    """
    namespace: NamespaceId = whole.head.namespace
    if known and head.log in known.logs and known.current.version >= whole.head.version:
        return known
    if whole.identity is None:
        return None
    identity = open_identity(whole.identity.documents)
    if identity.namespace != namespace or head.log not in identity.logs:
        raise InvalidData("the identity is not of the namespace, or does not name the log's key")
    return identity
