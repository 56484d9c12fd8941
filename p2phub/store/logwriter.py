"""Add to logs and identities, inside a transaction of the index (spec/store.md §4).

    Arrival ──follows ours?──▶ entries: own file │ batch of a journal ──▶ index ──▶ listener

A log that has a file of its own, as those have that are written here, stays in it. All others
go to the journals. Whatever is wrong is found before the first byte is written, so that one
log that is refused leaves nothing behind in a transaction that others share.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Protocol

from p2phub.core.checkpoint import Head, parse_head
from p2phub.core.encoding import decode, encode
from p2phub.core.envelope import ENVELOPE_SIZE_MAX
from p2phub.core.errors import ForkedLog, HashMismatch, InvalidData, NotFound, SplitIdentity, StoreError
from p2phub.core.identity import Identity, SignedDocument, open_identity
from p2phub.core.ids import ID_SIZE, LogId, NamespaceId, PublicKey
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import NO_PREVIOUS, Entry, check_follows, open_signed_entry, read_entry
from p2phub.protocol.messages import IdentityChain

from .arrivals import Arrival
from .atonce import Columns, as_list, fetch_at_once
from .cataloguewriter import Numbers
from .chains import pack_chain, unpack_chain, unpack_identity
from .disk import disk_errors, write_file
from .forks import note_closed, size_max
from .journals import ENTRY, HEAD, IDENTITY, IDENTITY_SIZE_MAX, Batch, Journals, Place
from .layout import Layout
from .logtrees import LogTree
from .privateindex import private_logs_of
from .splits import differ_at, note_split, split_of

OWN_FILE = 0  # as the number of a journal: the log has a file of its own

_LENGTH = struct.Struct(">I")  # before each entry in a log's own file; spec/store.md §4


class Listener(Protocol):
    """Told of every entry of a log, in order, inside the transaction that adds it."""

    def apply(self, connection: Connection, log: LogId, entries: Iterable[Entry], numbers: Numbers) -> None: ...

    def forget(self, connection: Connection, namespace: NamespaceId, publisher: int) -> None:
        """Undo all that entries of `namespace` said, so that those which still count are told again."""


class LogWriter:
    """What may be done to logs in a transaction; tells `listener` what their entries say."""

    def __init__(self, layout: Layout, journals: Journals, listener: Listener) -> None:
        self._layout = layout
        self._journals = journals
        self._listener = listener

    # ── identities ──────────────────────────────────────────────────────────

    def put_identity(self, connection: Connection, identity: Identity, batch: Batch | None) -> tuple[Identity, bool]:
        """Keep a checked identity, unless a newer one is here; returns the newest, and whether it is new.

        batch: where it is written; None: to a file of its own, as one's own identity is.
        Raises SplitIdentity if it disagrees with what was here: a namespace has one history. The caller's
        transaction is to be committed all the same, since it keeps the evidence.
        """
        chain = encode(IdentityChain(identity.chain))
        row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (identity.namespace,)).fetchone()
        if row is not None and unpack_chain(row["chain"]) == chain:
            return identity, False
        if row is not None:
            known = unpack_identity(row["chain"])
            if (at := differ_at(known.chain, identity.chain)) is not None:
                note_split(connection, known, identity, at)
                raise SplitIdentity(f"two identity documents of {identity.namespace} have version {at + 1}")
            if len(identity.chain) <= len(known.chain):
                return known, False
        if batch is None:
            write_file(self._layout.identity(identity.namespace), chain)
        else:
            batch.add(IDENTITY, chain)
        self.index_identity(connection, identity, chain)
        if row is not None:
            self.recount(connection, identity)
        return identity, True

    def yield_to_other(self, connection: Connection, namespace: NamespaceId) -> Identity:
        """Do what `Logs.yield_to_other` does."""
        split = split_of(connection, namespace)
        if split is None:
            raise NotFound(f"no two documents of one version of {namespace} are known here")
        row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
        known = unpack_identity(row["chain"])
        theirs = decode(split.theirs, SignedDocument, size_max=IDENTITY_SIZE_MAX)
        other = open_identity([*known.chain[: split.version - 1], theirs])
        chain = encode(IdentityChain(other.chain))
        write_file(self._layout.identity(namespace), chain)
        self.index_identity(connection, other, chain)
        connection.execute("DELETE FROM identity_splits WHERE namespace = ?", (namespace,))
        self.recount(connection, other)
        return other

    def index_identity(self, connection: Connection, identity: Identity, chain: bytes) -> None:
        """Note an identity in the index only."""
        connection.execute(
            "INSERT INTO identities (namespace, version, chain, number)"
            " VALUES (?, ?, ?, (SELECT coalesce(max(number), 0) + 1 FROM identities))"
            " ON CONFLICT (namespace) DO UPDATE SET version = excluded.version, chain = excluded.chain",
            (identity.namespace, identity.current.version, pack_chain(chain)),
        )
        note_closed(connection, identity)

    # ── logs ────────────────────────────────────────────────────────────────

    def row(self, connection: Connection, log: LogId) -> Row | None:
        """Return what the index says of a log."""
        row: Row | None = connection.execute("SELECT * FROM logs WHERE log = ?", (log,)).fetchone()
        return row

    def take(self, connection: Connection, arrival: Arrival, batch: Batch) -> int:
        """Append what arrived of another's log, as far as its head goes; returns how many entries were new.

        Raises InvalidData or ForkedLog before anything of the log is written.
        """
        identity, _ = self.put_identity(connection, arrival.identity, batch)
        if identity is not arrival.identity and arrival.log not in identity.logs:
            raise InvalidData(f"log {arrival.log} is not of a key that {identity.namespace} still names")
        return self.take_log(connection, identity, arrival, batch)

    def take_log(self, connection: Connection, identity: Identity, arrival: Arrival, batch: Batch | None) -> int:
        """Do what `take` does, with the newest identity that is here.

        batch: None if the log is to have a file of its own.
        """
        log, key, head = arrival.log, arrival.key, arrival.head
        row = self.row(connection, log)
        if row is None and self._layout.has_log(log):
            # A lost index knows nothing of the own log; its file does.
            row = self.take_in_file(connection, identity.namespace, log, key, None)
        frontier = frontier_of(row)
        if head is not None and head.size <= frontier.size:
            self.keep_head(connection, head, row, identity, batch)
            return 0
        self.check_not_frozen(connection, log)
        # What stands behind a fork, an end or a retirement does not count, and is not kept.
        limit = size_max(connection, identity, log)
        goals = [size for size in (limit, head.size if head else None) if size is not None]
        room = max(0, min(goals) - frontier.size) if goals else None
        entries, error = _behind(arrival, frontier.size, room)
        previous = self.leaf(connection, row, frontier.size - 1)
        for entry in entries:
            try:
                check_follows(entry, previous)
            except InvalidData:
                # No peer can make this up: it was signed to follow another record than ours.
                if row is not None and head is not None:
                    self.note_fork(connection, head, row)
                if row is not None:
                    raise _forked(log, row["head"], b"") from None
                raise
            frontier.append(entry.leaf)
            previous = entry.leaf
        if error is not None:
            raise error
        note = row["head"] if row is not None else b""
        if head is not None and frontier.size == head.size:
            if frontier.root() != head.root:
                if row is not None:
                    self.note_fork(connection, head, row)
                raise HashMismatch("the records are not those that the head covers")
            note = head.text
        if log in identity.closed and frontier.size == limit and frontier.root() != identity.closed[log].root:
            raise HashMismatch("the records are not those with which the publisher closed the log")
        if entries or (row is not None and note != row["head"]):
            self.append(connection, identity.namespace, log, key, row, frontier, entries, note, batch)
        return len(entries)

    def append(
        self,
        connection: Connection,
        namespace: NamespaceId,
        log: LogId,
        key: PublicKey,
        row: Row | None,
        frontier: Frontier,
        entries: Sequence[Entry],
        head: bytes,
        batch: Batch | None,
    ) -> None:
        """Write checked entries to the log's own file or, if it has none, to `batch`, and index them.

        frontier: with `entries`. batch: None if the log is to have a file of its own.
        """
        size = row["bytes"] if row is not None else 0
        if batch is None or size:
            places = self._write_own_file(log, size, entries, head)
            size += sum(_LENGTH.size + len(entry.data) for entry in entries)
        else:
            places = [batch.add(ENTRY, entry.data) for entry in entries]
            if head and (row is None or head != row["head"]):
                batch.add(HEAD, head)
        taken = entry_bytes_of(row) + sum(place.length for place in places)
        numbers = self.index_log(connection, namespace, log, key, frontier, size, head, entry_bytes=taken)
        self.index_entries(connection, numbers, entries, places)

    def index_log(
        self,
        connection: Connection,
        namespace: NamespaceId,
        log: LogId,
        key: PublicKey,
        frontier: Frontier,
        size: int,
        head: bytes,
        *,
        entry_bytes: int,
    ) -> Numbers:
        """Note the state of a log in the index only.

        size: bytes of its own file, 0 if it has none. entry_bytes: of its entries, wherever they lie.
        """
        row = connection.execute(
            "INSERT INTO logs (log, namespace, key, size, bytes, peaks, head, entry_bytes, number)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(number), 0) + 1 FROM logs))"
            " ON CONFLICT (log) DO UPDATE SET size = excluded.size, bytes = excluded.bytes, peaks = excluded.peaks,"
            " head = excluded.head, entry_bytes = excluded.entry_bytes"
            " RETURNING number, (SELECT number FROM identities WHERE namespace = ?2) AS publisher",
            (log, namespace, key, frontier.size, size, b"".join(frontier.peaks), head, entry_bytes),
        ).fetchone()
        assert row["publisher"] is not None, "a log without an identity"
        return Numbers(row["number"], row["publisher"])

    def index_entries(
        self,
        connection: Connection,
        numbers: Numbers,
        entries: Sequence[Entry],
        places: Sequence[Place],
        *,
        replace: bool = False,
    ) -> None:
        """Note where entries lie, and tell the listener what they say. replace: the index may know the same already."""
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        connection.executemany(
            f"{verb} INTO entry_rows (log_number, idx, leaf, journal, offset, length) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (numbers.log, entry.record.index, entry.leaf, place.journal, place.offset, place.length)
                for entry, place in zip(entries, places, strict=True)
            ],
        )
        if entries:
            LogTree(connection, numbers.log).grow(entries[-1].record.index + 1)
            self._listener.apply(connection, entries[0].record.log, entries, numbers)

    def forget(self, connection: Connection, namespace: NamespaceId, publisher: int) -> None:
        """Undo all that entries of `namespace`, which has the number `publisher`, said."""
        self._listener.forget(connection, namespace, publisher)

    # ── heads and forks ─────────────────────────────────────────────────────

    def keep_head(
        self, connection: Connection, head: Head, row: Row | None, identity: Identity | None, batch: Batch | None
    ) -> None:
        """Keep `head`, not longer than ours, if it is the newest. Raises ForkedLog if it is of another history."""
        if row is None:
            return
        if self.root_at(connection, row, head.size) != head.root:
            self.note_fork(connection, head, row)
        limit = size_max(connection, identity, head.log) if identity else None
        if limit is not None and limit < head.size:
            return  # it covers what does not count
        if head.size > (parse_head(row["head"]).size if row["head"] else 0):
            if batch is None or row["bytes"]:
                self._write_own_head(head.log, head.text)
            else:
                batch.add(HEAD, head.text)
            connection.execute("UPDATE logs SET head = ? WHERE log = ?", (head.text, head.log))

    def check_not_frozen(self, connection: Connection, log: LogId) -> None:
        """Raise ForkedLog if nothing more is taken of a log."""
        row = connection.execute("SELECT ours, theirs FROM forks WHERE log = ?", (log,)).fetchone()
        if row is not None:
            raise _forked(log, row["ours"], row["theirs"])

    def note_fork(self, connection: Connection, head: Head, row: Row) -> None:
        """Keep the evidence that `head` is of another history than the log of `row`, and raise ForkedLog.

        The caller's transaction is to be committed all the same.
        """
        ours = row["head"]
        connection.execute(
            "INSERT OR IGNORE INTO forks (log, ours, theirs) SELECT ?1, ?2, ?3"
            " WHERE NOT EXISTS (SELECT 1 FROM fork_proofs WHERE log = ?1)",
            (head.log, ours, head.text),
        )
        raise _forked(head.log, ours, head.text)

    def root_at(self, connection: Connection, row: Row, size: int) -> bytes:
        """Return the root that the log of `row` had when it had `size` records."""
        return LogTree(connection, row["number"]).root(size)

    def leaf(self, connection: Connection, row: Row | None, index: int) -> bytes:
        """Return the leaf hash at `index` of the log of `row`; that before index 0 if there is none."""
        if row is None or index < 0:
            return NO_PREVIOUS
        leaf: bytes = connection.execute(
            "SELECT leaf FROM entry_rows WHERE log_number = ? AND idx = ?", (row["number"], index)
        ).fetchone()["leaf"]
        return leaf

    # ── own files ───────────────────────────────────────────────────────────

    def own_row(self, connection: Connection, namespace: NamespaceId, log: LogId, key: PublicKey) -> Row | None:
        """Return the row of the log that is written here, which now has all of its entries in its own file.

        What the file knows beyond the index is taken in: a peer may have seen it. Raises ForkedLog if the file is
        of another history than what came from peers.
        """
        row = self.row(connection, log)
        if row is not None and not row["bytes"]:
            row = self._move_to_own_file(connection, row)
        return self.take_in_file(connection, namespace, log, key, row)

    def take_in_file(
        self,
        connection: Connection,
        namespace: NamespaceId,
        log: LogId,
        key: PublicKey,
        row: Row | None,
        *,
        size_max: int | None = None,
    ) -> Row | None:
        """Index the entries that stand in the log's own file behind those of `row`; returns the row as it is then.

        size_max: entries that count, if not all do; the others are left out.
        """
        offset = row["bytes"] if row is not None else 0
        frontier = frontier_of(row)
        previous = self.leaf(connection, row, frontier.size - 1)
        entries: list[Entry] = []
        places: list[Place] = []
        for at, data in own_file_entries(self._layout.log(log), offset):
            if frontier.size == size_max:
                break
            try:
                entry = open_signed_entry(data, namespace=namespace, log=log, key=key, index=frontier.size)
                check_follows(entry, previous)
            except InvalidData:
                break
            frontier.append(entry.leaf)
            entries.append(entry)
            places.append(Place(OWN_FILE, at, len(data)))
            offset = at + len(data)
            previous = entry.leaf
        if not entries:
            return row
        note = row["head"] if row is not None else b""
        taken = entry_bytes_of(row) + sum(place.length for place in places)
        numbers = self.index_log(connection, namespace, log, key, frontier, offset, note, entry_bytes=taken)
        self.index_entries(connection, numbers, entries, places)
        return self.row(connection, log)

    def _move_to_own_file(self, connection: Connection, row: Row) -> Row:
        """Copy a log that came from peers to its own file, before the next entry of it is signed here."""
        log = LogId(row["log"])
        path = self._layout.log(log)
        data = b"".join(_LENGTH.pack(len(entry)) + entry for entry in self.entries(connection, row))
        there = b"".join(_LENGTH.pack(len(entry)) + entry for _, entry in own_file_entries(path, 0))
        if not data.startswith(there) and not there.startswith(data):
            raise ForkedLog(
                f"the file of log {log} and what came from peers are two histories", ours=row["head"], theirs=b""
            )
        if len(there) < len(data):
            write_file(path, data, mode=0o644)
        if row["head"]:
            self._write_own_head(log, row["head"])
        offset = 0
        places = connection.execute(
            "SELECT idx, length FROM entry_rows WHERE log_number = ? ORDER BY idx", (row["number"],)
        ).fetchall()
        for place in places:
            connection.execute(
                "UPDATE entry_rows SET journal = ?, offset = ? WHERE log_number = ? AND idx = ?",
                (OWN_FILE, offset + _LENGTH.size, row["number"], place["idx"]),
            )
            offset += _LENGTH.size + place["length"]
        connection.execute("UPDATE logs SET bytes = ? WHERE log = ?", (offset, log))
        moved = self.row(connection, log)
        assert moved is not None
        return moved

    def _write_own_file(self, log: LogId, offset: int, entries: Sequence[Entry], head: bytes) -> list[Place]:
        path = self._layout.log(log)
        places: list[Place] = []
        at = offset
        for entry in entries:
            places.append(Place(OWN_FILE, at + _LENGTH.size, len(entry.data)))
            at += _LENGTH.size + len(entry.data)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, self._mode(log))
            size = os.fstat(file).st_size
            try:
                blob = b"".join(_LENGTH.pack(len(entry.data)) + entry.data for entry in entries)
                if os.pwrite(file, blob, offset) != len(blob):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(file)
                if head:
                    self._write_own_head(log, head)
            except BaseException:
                # What failed is not to be found and taken in later.
                with contextlib.suppress(OSError):
                    os.ftruncate(file, max(size, offset))
                raise
            finally:
                os.close(file)
        return places

    def _write_own_head(self, log: LogId, head: bytes) -> None:
        write_file(self._layout.log(log).with_suffix(".head"), head, mode=self._mode(log))

    def _mode(self, log: LogId) -> int:
        """Return who may read the files of a log."""
        return 0o600 if self._layout.private_log(log).exists() else 0o644

    # ── reading ─────────────────────────────────────────────────────────────

    def entries(self, connection: Connection, row: Row, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the encoded entries of the log of `row` from index `start` on, before `end`.

        It ends early at one that is not on the disk as it was written.
        """
        places = connection.execute(
            "SELECT leaf, journal, offset, length FROM entry_rows WHERE log_number = ? AND idx >= ? AND idx < ?"
            " ORDER BY idx",
            (row["number"], start, end if end is not None else row["size"]),
        )
        with _EntryReader(self._layout, self._journals) as reader:
            for place in places:
                data = reader.read(row["log"], place)
                if data is None:
                    return
                yield data

    def entries_at(self, connection: Connection, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return entries by the number of their log and their index, those that are on the disk as they came."""
        places = fetch_at_once(
            connection,
            # What lies in a journal is found without its log, which would be two more pages to read for each.
            f"SELECT e.*, CASE e.journal WHEN {OWN_FILE} THEN (SELECT log FROM logs WHERE number = e.log_number) END"
            " AS log FROM json_each(?) AS k CROSS JOIN entry_rows AS e"
            " ON e.log_number = json_extract(k.value, '$[0]') AND e.idx = json_extract(k.value, '$[1]')",
            (as_list(keys),),
            ("log_number", "idx", "leaf", "journal", "offset", "length", "log"),
            blobs=("leaf", "log"),
        )
        found = {}
        with _EntryReader(self._layout, self._journals) as reader:
            for place in places:
                with contextlib.suppress(StoreError):
                    data = reader.read(place["log"], place)
                    if data is not None:
                        found[place["log_number"], place["idx"]] = data
        return found

    # ── helpers ─────────────────────────────────────────────────────────────

    def recount(self, connection: Connection, identity: Identity) -> None:
        """Let only those entries have a say that count, if it is not so already.

        What does not agree with the end that the publisher gave a log is dropped first, so that
        the history that counts can be taken from peers.
        """
        for log in identity.closed:
            self._keep_to_end(connection, identity, log)
        known = {*identity.logs, *private_logs_of(connection, identity)}
        rows = connection.execute(
            "SELECT * FROM logs WHERE namespace = ? ORDER BY log", (identity.namespace,)
        ).fetchall()
        limits = [size_max(connection, identity, LogId(row["log"])) for row in rows]
        counted = [
            (row["size"] if limit is None else min(row["size"], limit)) if row["log"] in known else 0
            for row, limit in zip(rows, limits, strict=True)
        ]
        has_forked = connection.execute(
            "SELECT 1 FROM fork_proofs WHERE namespace = ? LIMIT 1", (identity.namespace,)
        ).fetchone()
        # A fork that was settled may let entries count again.
        if counted == [row["size"] for row in rows] and not has_forked and not identity.closed:
            return
        (publisher,) = connection.execute(
            "SELECT number FROM identities WHERE namespace = ?", (identity.namespace,)
        ).fetchone()
        self._listener.forget(connection, identity.namespace, publisher)
        for row, size in zip(rows, counted, strict=True):
            entries = map(read_entry, self.entries(connection, row, end=size))
            self._listener.apply(connection, LogId(row["log"]), entries, Numbers(row["number"], publisher))

    def _keep_to_end(self, connection: Connection, identity: Identity, log: LogId) -> None:
        """Drop what is here of a closed log beyond what it has in common with the history that counts."""
        row, end = self.row(connection, log), identity.closed[log]
        if row is None or (row["size"] >= end.size and self.root_at(connection, row, end.size) == end.root):
            return
        fork = connection.execute("SELECT common FROM fork_proofs WHERE log = ?", (log,)).fetchone()
        if fork is not None:
            common = min(fork["common"], end.size)
        elif row["size"] >= end.size:
            common = 0  # nothing says where it parts from ours
        else:
            return
        if common < row["size"]:
            self._cut(connection, row, common)

    def _cut(self, connection: Connection, row: Row, size: int) -> None:
        """Forget all but the first `size` entries of the log of `row`; what they said is told again by the caller."""
        tree = LogTree(connection, row["number"])
        frontier = tree.frontier(size)
        tree.cut(size)
        last = connection.execute(
            "SELECT offset + length AS end FROM entry_rows WHERE log_number = ? AND idx = ?", (row["number"], size - 1)
        ).fetchone()
        connection.execute("DELETE FROM entry_rows WHERE log_number = ? AND idx >= ?", (row["number"], size))
        is_covered = row["head"] and parse_head(row["head"]).size <= size
        connection.execute(
            "UPDATE logs SET size = ?, bytes = ?, peaks = ?, head = ?, entry_bytes ="
            " (SELECT coalesce(sum(length), 0) FROM entry_rows WHERE log_number = number) WHERE log = ?",
            (
                size,
                last["end"] if row["bytes"] and last else 0,
                b"".join(frontier.peaks),
                row["head"] if is_covered else b"",
                row["log"],
            ),
        )


class _EntryReader:
    """Reads entries where they lie, and keeps the own files of logs open until it is left."""

    def __init__(self, layout: Layout, journals: Journals) -> None:
        self._layout = layout
        self._journals = journals
        self._own: dict[bytes, int] = {}  # descriptors by log

    def __enter__(self) -> _EntryReader:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._own.values():
            os.close(file)

    def read(self, log: bytes, row: Row | Columns) -> bytes | None:
        """Return the entry of `log` that `row` gives the place and the leaf of. Raises StoreError.

        None: the disk gives back other bytes than it was given.
        """
        place = Place(row["journal"], row["offset"], row["length"])
        data = self._journals.read(place) if place.journal != OWN_FILE else self._read_own(log, place)
        return data if LOG_TREE.leaf(data) == row["leaf"] else None

    def _read_own(self, log: bytes, place: Place) -> bytes:
        path = self._layout.log(LogId(log))
        with disk_errors(path):
            if log not in self._own:
                self._own[log] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._own[log], place.length, place.offset)


def check_identity(chain: bytes) -> Identity:
    """Return the identity that `chain` proves; raises InvalidData."""
    return open_identity(decode(chain, IdentityChain, size_max=IDENTITY_SIZE_MAX).documents)


def frontier_of(row: Row | None) -> Frontier:
    """Return the right edge of the tree of the log of `row`."""
    if row is None:
        return Frontier(LOG_TREE)
    peaks: bytes = row["peaks"]
    size: int = row["size"]
    return Frontier(LOG_TREE, size, [peaks[at : at + ID_SIZE] for at in range(0, len(peaks), ID_SIZE)])


def entry_bytes_of(row: Row | None) -> int:
    """Return the bytes of the entries of the log of `row`."""
    return int(row["entry_bytes"]) if row is not None else 0


def own_file_entries(path: Path, start: int) -> Iterable[tuple[int, bytes]]:
    """Return the entries of a log's own file from byte `start` on with their places, up to one that is cut short."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StoreError(f"cannot read {path}: {exc.strerror}", path=str(path)) from exc
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > ENVELOPE_SIZE_MAX or at + length > len(data):
            return
        yield start + at, data[at : at + length]
        at += length


def _behind(arrival: Arrival, size: int, room: int | None) -> tuple[Sequence[Entry], InvalidData | None]:
    """Return the entries of `arrival` that follow the first `size` of its log, at most `room`.

    Beside them stands why there are no more, if that is because the next one is wrong.
    """
    skip = size - arrival.start
    checked = arrival.checked
    if not 0 <= skip <= len(checked.entries):
        return (), None
    entries = checked.entries[skip:]
    if room is not None and len(entries) >= room:
        return entries[:room], None
    return entries, checked.error


def _forked(log: LogId, ours: bytes, theirs: bytes) -> ForkedLog:
    text = f"log {log} was signed with two histories; nothing new is taken from it"
    return ForkedLog(text, ours=ours, theirs=theirs)
