"""Check what peers sent of many logs, before the index is locked for it (spec/records.md §4).

    LogPart ──slices──▶ threads that decode and verify ──▶ Arrival ──▶ Logs, inside a transaction

A signature takes longer than all else, and OpenSSL verifies it without Python's lock: so
threads check entries while another one writes those that were checked before. What an entry
follows is known here within a part only; how parts join is for whoever writes to compare.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future

from msgspec import Struct

from p2phub.core.ages import describe_age
from p2phub.core.checkpoint import Head, open_head, parse_head
from p2phub.core.errors import ForkedLog, InvalidData, TooEarly
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.records import SKEW_MAX_S, Entry, open_signed_entry

from .searchtokens import ReadyEntry
from .verifier import Answer, Gone, Question, Verdict

log = logging.getLogger(__name__)

SLICE_ENTRIES = 128  # checked by one thread at a time
PART_COST = 4  # of checking identity and head, in entries


class LogPart(Struct, frozen=True):
    """Entries of one log, as a peer sent them, and what proves them."""

    identity: Identity  # checked, and names the key of the log
    log: LogId
    # As far as the log goes at the peer, nobody checked its signature yet; None: as far as is known otherwise.
    head: Head | None
    start: int  # index of the first entry
    entries: tuple[bytes, ...]  # none: only the head, or the identity, is news


Outcome = int | InvalidData | ForkedLog  # records that were new, or why nothing was taken


class Checked(Struct, frozen=True):
    """Entries with good signatures, each signed for its place in the log."""

    entries: Sequence[Entry]
    error: InvalidData | None = None  # why the one behind them is not among them


class Arrival(Struct, frozen=True):
    """Entries of one log, checked but for what they follow."""

    identity: Identity
    log: LogId
    key: PublicKey
    head: Head | None  # with a good signature; None: what it covers is not known
    start: int  # index of the first entry
    checked: Checked


class _Slice(Struct, frozen=True):
    """As many entries of a part as one thread checks at a time."""

    namespace: NamespaceId
    log: LogId
    key: PublicKey
    head: Head | None  # to be checked too
    start: int
    entries: Sequence[bytes]

    @property
    def cost(self) -> int:
        return len(self.entries) + PART_COST

    @property
    def question(self) -> Question:
        head = self.head.text if self.head is not None else None
        return Question(bytes(self.namespace), bytes(self.log), bytes(self.key), head, self.start, self.entries)


_Found = tuple[Head | None, "Checked"]  # what came out of a slice

Ask = Callable[[list[Question], float], list[Answer]]  # a process; raises Gone


class _Result(Struct, frozen=True):
    """What a thread has of a slice: what came out of it, or what a process says of it, which is that all is right."""

    piece: _Slice
    now: float
    known: _Found | Answer

    def found(self) -> _Found:
        """Return what came out of the slice."""
        if not isinstance(self.known, Answer):
            return self.known
        try:
            return _found(self.piece, self.known.verdict())
        except Gone as exc:
            log.info("entries are checked without a process of their own: %s", exc)
            return _check_slice(self.piece, self.now)


class PartCheck:
    """A part that threads are checking."""

    def __init__(self, part: LogPart, skip: int) -> None:
        """skip: so many of the first entries are here already."""
        self.part = part
        self.entry_count = len(part.entries) - skip
        self._start = part.start + skip
        self._error: InvalidData | None = None
        self.slices: list[_Slice] = []
        self.results: list[Future[list[_Result]]] = []
        self.places: list[int] = []  # of the slices in what their thread returns
        log, identity = part.log, part.identity
        key = identity.logs.get(log)
        if key is None:
            self._error = InvalidData(f"log {log} is not of a key that {identity.namespace} names")
            return
        entries = part.entries[skip:]
        for at in range(0, max(1, len(entries)), SLICE_ENTRIES):
            piece = entries[at : at + SLICE_ENTRIES]
            head = None if at else part.head
            self.slices.append(_Slice(identity.namespace, log, key, head, self._start + at, piece))

    def wait(self) -> Arrival | InvalidData:
        """Return what came out, once the threads are done: why nothing of the part counts, if nothing does.

        To be called by the thread that uses it: what a process found is unpacked there.
        """
        if self._error is not None:
            return self._error
        results = [future.result()[place].found() for future, place in zip(self.results, self.places, strict=True)]
        head, first = results[0]
        if head is None and self.part.head is not None:
            assert first.error is not None
            return first.error
        entries: list[Entry] = []
        error = None
        for _, checked in results:
            entries += checked.entries
            if (error := checked.error) is not None:
                break
        part = self.part
        key = self.slices[0].key
        return Arrival(part.identity, part.log, key, head, self._start, Checked(entries, error))


def start_checks(pool: Executor, checks: Iterable[PartCheck], now: float, ask: Ask | None = None) -> None:
    """Let the threads of `pool` check parts, many short ones or a piece of a long one at a time.

    ask: a process that the threads may ask.
    """
    for group in _groups(checks):
        future = pool.submit(_check_slices, [piece for _, piece in group], now, ask)
        for place, (check, _) in enumerate(group):
            check.results.append(future)
            check.places.append(place)


def _groups(checks: Iterable[PartCheck]) -> Iterator[list[tuple[PartCheck, _Slice]]]:
    group: list[tuple[PartCheck, _Slice]] = []
    cost = 0
    for check in checks:
        for piece in check.slices:
            group.append((check, piece))
            cost += piece.cost
            if cost >= SLICE_ENTRIES:
                yield group
                group, cost = [], 0
    if group:
        yield group


def _check_slices(slices: Sequence[_Slice], now: float, ask: Ask | None) -> list[_Result]:
    answers: Sequence[Answer | None] = [None] * len(slices)
    if ask is not None:
        try:
            answers = ask([piece.question for piece in slices], now)
        except Gone as exc:
            log.info("entries are checked without a process of their own: %s", exc)
    return [
        # What is wrong is looked at again, to say what is.
        _Result(piece, now, answer if answer and answer.is_all_right else _check_slice(piece, now))
        for piece, answer in zip(slices, answers, strict=True)
    ]


def _check_slice(piece: _Slice, now: float) -> _Found:
    head = None
    if piece.head is not None:
        try:
            # The text is what was signed; what stands beside it does not count.
            head = open_head(piece.head.text, log=piece.log, key=piece.key)
        except InvalidData as exc:
            return None, Checked((), exc)
    return head, check_entries(piece.entries, piece.namespace, piece.log, piece.key, piece.start, now)


def _found(piece: _Slice, verdict: Verdict) -> _Found:
    """Return what is in a slice of which a process says that all is right. Raises Gone if it says something else."""
    if not verdict.is_head_right or len(verdict.good) != len(piece.entries):
        raise Gone("it answered another question")
    head = parse_head(piece.head.text) if piece.head is not None else None
    return head, Checked(
        [
            ReadyEntry(each.record, data, each.leaf, each.tokens)
            for each, data in zip(verdict.good, piece.entries, strict=True)
        ]
    )


def check_entries(
    entries: Iterable[bytes], namespace: NamespaceId, log: LogId, key: PublicKey, start: int, now: float
) -> Checked:
    """Check signatures, places and times of entries from index `start` on, up to the first that is wrong."""
    good: list[Entry] = []
    for index, data in enumerate(entries, start):
        try:
            entry = open_signed_entry(data, namespace=namespace, log=log, key=key, index=index)
        except InvalidData as exc:
            return Checked(good, exc)
        if (early_s := entry.record.time - now) > SKEW_MAX_S:
            return Checked(good, TooEarly(f"record {index} is {describe_age(early_s)} ahead of this machine's clock"))
        good.append(entry)
    return Checked(good)
