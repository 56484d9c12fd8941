"""Logs, their heads, and the identities that prove them (spec/store.md §4).

A log is one append-only file of length-prefixed entries; the index says where each
stands and keeps the right edge of the tree. Appending is: check, write and sync the
file, then commit the index. A crash between the two leaves bytes at the end of the
file that the index does not know. In one's own log, entries found there are taken in
before the next is signed: a peer may have seen them, and a second record at the same
place would fork the log. Anything else there is overwritten, but never cut off, since
another host may share the file and know more of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Protocol

from msgspec import Struct

from p2phub.core import merkle
from p2phub.core.checkpoint import Head, open_head, parse_head, sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.envelope import ENVELOPE_SIZE_MAX
from p2phub.core.errors import ForkedLog, HashMismatch, InvalidData, StoreError
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import ID_SIZE, LogId, NamespaceId, PublicKey
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import NO_PREVIOUS, SKEW_MAX_S, Entry, Record, log_id, open_entry, read_entry, sign_record
from p2phub.core.signing import SigningKey
from p2phub.protocol.messages import IdentityChain

from .database import Database
from .disk import disk_errors, write_file
from .layout import Layout

RECOUNT_BYTES = 1024 * 1024  # bytes of entries read at once
IDENTITY_SIZE_MAX = 4 * 1024 * 1024  # bytes of a chain; spec/peer-protocol.md §4

_LENGTH = struct.Struct(">I")  # before each entry in the file; spec/store.md §4


_STATES = (
    "SELECT logs.*, coalesce(identities.version, 1) AS version"
    " FROM logs LEFT JOIN identities ON identities.namespace = logs.namespace"
)


MakeRecord = Callable[[Connection, LogId, int, bytes], Record]  # of the log, the index and the leaf before


class Listener(Protocol):
    """Told of every entry, in order, inside the transaction that adds it."""

    def apply(self, connection: Connection, entry: Entry) -> None: ...

    def forget(self, connection: Connection, namespace: NamespaceId) -> None:
        """Undo all that entries of `namespace` said, so that those which still count are told again."""


class LogState(Struct, frozen=True):
    """A log as far as it is here."""

    log: LogId
    namespace: NamespaceId
    version: int  # of the newest identity document of the namespace
    size: int  # records
    root: bytes
    head: bytes  # the newest signed checkpoint whose records are all here; empty while there is none


class LogPart(Struct, frozen=True):
    """Entries of one log, as a peer sent them, and what proves them."""

    identity: Identity  # checked, and names the key of the log
    head: Head  # as far as the log goes at the peer; nobody checked its signature yet
    start: int  # index of the first entry
    entries: tuple[bytes, ...]  # none: only the head, or the identity, is news


Outcome = int | InvalidData | ForkedLog  # records that were new, or why nothing was taken


class Logs:
    """The logs and identities that are here; tells `listener` what they say."""

    def __init__(self, layout: Layout, database: Database, listener: Listener) -> None:
        self._layout = layout
        self._database = database
        self._listener = listener

    # ── identities ──────────────────────────────────────────────────────────

    def identity(self, namespace: NamespaceId) -> Identity | None:
        """Return the identity of `namespace`, None if it is not here."""
        with self._database.read() as connection:
            row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
        return open_identity(decode(row["chain"], IdentityChain, size_max=IDENTITY_SIZE_MAX).documents) if row else None

    def identity_chain(self, namespace: NamespaceId) -> IdentityChain | None:
        """Return the documents of `namespace` as they came, checked then; None if they are not here."""
        with self._database.read() as connection:
            row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
        return decode(row["chain"], IdentityChain, size_max=IDENTITY_SIZE_MAX) if row else None

    def add_identity(self, identity: Identity) -> bool:
        """Keep a checked identity; returns whether it is newer than what was here.

        Raises InvalidData if it disagrees with what was here: a namespace has one history.
        """
        chain = encode(IdentityChain(identity.chain))
        # All in one transaction: another process may bring a newer one meanwhile.
        with self._database.write() as connection:
            known = self.identity(identity.namespace)
            if known:
                common = min(len(known.chain), len(identity.chain))
                if [d.document for d in known.chain[:common]] != [d.document for d in identity.chain[:common]]:
                    raise InvalidData(f"two different identity documents of {identity.namespace} have one version")
                if len(identity.chain) <= len(known.chain):
                    return False
            write_file(self._layout.identity(identity.namespace), chain)
            connection.execute(
                "INSERT OR REPLACE INTO identities (namespace, version, chain) VALUES (?, ?, ?)",
                (identity.namespace, identity.current.version, chain),
            )
            self._recount(connection, identity)
        return True

    # ── reading ─────────────────────────────────────────────────────────────

    def state(self, log: LogId) -> LogState | None:
        """Return the state of `log`, None if nothing of it is here."""
        with self._database.read() as connection:
            row = connection.execute(f"{_STATES} WHERE log = ?", (log,)).fetchone()
        return _state(row) if row else None

    def states(self, *, after: LogId | None = None, limit: int = -1) -> list[LogState]:
        """Return the logs whose id sorts after `after`, at most `limit`, sorted by id."""
        with self._database.read() as connection:
            rows = connection.execute(f"{_STATES} WHERE log > ? ORDER BY log LIMIT ?", (after or b"", limit)).fetchall()
        return [_state(row) for row in rows]

    def logs_of(self, namespace: NamespaceId) -> list[LogState]:
        """Return the logs of `namespace` that are here."""
        with self._database.read() as connection:
            rows = connection.execute(f"{_STATES} WHERE logs.namespace = ? ORDER BY log", (namespace,)).fetchall()
        return [_state(row) for row in rows]

    def entries(self, log: LogId, start: int, *, size_max: int, count_max: int = 10_000) -> list[bytes]:
        """Return the encoded entries of `log` from index `start` on: at least one, then about `size_max` bytes.

        count_max: no more of them than this.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT offset, length FROM entries WHERE log = ? AND idx >= ? ORDER BY idx LIMIT ?",
                (log, start, count_max),
            ).fetchall()
        entries: list[bytes] = []
        size = 0
        path = self._layout.log(log)
        if not rows:
            return entries
        with disk_errors(path), open(path, "rb") as file:
            for row in rows:
                size += row["length"] + 8
                if entries and size > size_max:
                    break
                data = os.pread(file.fileno(), row["length"], row["offset"])
                if len(data) != row["length"]:
                    break
                entries.append(data)
        return entries

    def entry(self, log: LogId, index: int) -> bytes | None:
        """Return the encoded entry at `index`, None if it is not here or cannot be read."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT offset, length FROM entries WHERE log = ? AND idx = ?", (log, index)
            ).fetchone()
        try:
            with open(self._layout.log(log), "rb") as file:
                data = os.pread(file.fileno(), row["length"], row["offset"]) if row else b""
        except OSError:
            return None
        return data if row and len(data) == row["length"] else None

    def fork(self, log: LogId) -> tuple[bytes, bytes] | None:
        """Return the two heads that prove `log` to be forked, None if it is not known to be."""
        with self._database.read() as connection:
            row = connection.execute("SELECT ours, theirs FROM forks WHERE log = ?", (log,)).fetchone()
        return (row["ours"], row["theirs"]) if row else None

    # ── appending ───────────────────────────────────────────────────────────

    def append_own(
        self,
        namespace: NamespaceId,
        key: SigningKey,
        make: MakeRecord,
    ) -> Entry:
        """Sign and append what `make(connection, log, index, previous)` returns to the log of `key`.

        `make` runs inside the transaction, so that what it checked still holds.
        """
        log = log_id(namespace, key.public_key)
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM logs WHERE log = ?", (log,)).fetchone()
            row = self._take_in_file(connection, namespace, key.public_key, row)
            frontier = _frontier(row)
            previous = self._leaf(connection, log, frontier.size - 1)
            entry = sign_record(make(connection, log, frontier.size, previous), key)
            frontier.append(entry.leaf)
            head = sign_head(log, frontier.size, frontier.root(), key)
            self._append(connection, namespace, key.public_key, row, frontier, [entry], head.text)
        return entry

    def extend(
        self, identity: Identity, head: Head, entries: Sequence[bytes], *, now: float, start: int | None = None
    ) -> int:
        """Append `entries` of the log, up to what `head` states; returns how many were new.

        start: the index of the first of them; None: they are the next ones. Another task
        may have brought some of them since they were asked for.

        A long log may come in pieces: each entry is signed and names the one before it,
        and the head is kept once all that it covers is here. Raises InvalidData if an entry
        or the head is wrong, ForkedLog if the head or a signed entry does not agree with what
        is here, or did not before.
        """
        key = identity.logs.get(head.log)
        if key is None:
            raise InvalidData(f"log {head.log} is not of a key that {identity.namespace} names")
        head = open_head(head.text, log=head.log, key=key)
        # What a retired key signed after it was retired does not count, and is not kept.
        goal = identity.counted(head.log, head.size)
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM logs WHERE log = ?", (head.log,)).fetchone()
            frontier = _frontier(row)
            if head.size <= frontier.size:
                self._take_head(connection, head, row)
                return 0
            self._check_not_frozen(connection, head.log)
            if start is not None:
                entries = entries[frontier.size - start :] if start <= frontier.size else ()
            new: list[Entry] = []
            previous = self._leaf(connection, head.log, frontier.size - 1)
            for data in entries[: max(0, goal - frontier.size)]:
                try:
                    entry = open_entry(
                        data, namespace=identity.namespace, key=key, index=frontier.size, previous=previous
                    )
                except InvalidData:
                    # No peer can make this up: it was signed to follow another record than ours.
                    if row is not None and _is_signed_for(data, identity.namespace, key, frontier.size):
                        self._note_fork(connection, head, row)
                    raise
                if entry.record.time > now + SKEW_MAX_S:
                    raise InvalidData(f"record {frontier.size} is ahead of this machine's clock")
                frontier.append(entry.leaf)
                previous = entry.leaf
                new.append(entry)
            note = row["head"] if row is not None else b""
            if frontier.size == head.size:
                if frontier.root() != head.root:
                    if row is not None:
                        self._note_fork(connection, head, row)
                    raise HashMismatch("the records are not those that the head covers")
                note = head.text
            self._append(connection, identity.namespace, key, row, frontier, new, note)
        return len(new)

    def extend_many(self, parts: Sequence[LogPart], *, now: float) -> list[Outcome]:
        """Take over entries of many logs, and the identities that prove them; returns what came of each part.

        Each part is taken as `extend` takes it, or not at all, whatever becomes of the others. Several parts may be
        of one log; they are taken in order. When this returns, what was taken outlives a crash. Raises StoreError if
        the disk fails: then any of the parts may have been taken, and all may be given again.
        """
        return [self._take_part(part, now) for part in parts]

    def _take_part(self, part: LogPart, now: float) -> Outcome:
        try:
            self.add_identity(part.identity)
            return self.extend(part.identity, part.head, part.entries, start=part.start, now=now)
        except (InvalidData, ForkedLog) as exc:
            return exc

    def check_head(self, head: Head) -> None:
        """Compare a verified head that is not longer than ours. Raises ForkedLog if it is of another history."""
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM logs WHERE log = ?", (head.log,)).fetchone()
            if row is not None and head.size <= row["size"]:
                self._take_head(connection, head, row)

    # ── rebuilding ──────────────────────────────────────────────────────────

    def rebuild(self) -> int:
        """Fill the index from the files of identities and logs; returns how many records there are.

        What is damaged is passed over, and a log counts up to its first bad record: peers have the rest.
        """
        for path in sorted((self._layout.store / "identities").glob("??/*")):
            identity = _read_identity(path)
            if identity is None:
                continue
            with self._database.write() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO identities (namespace, version, chain) VALUES (?, ?, ?)",
                    (identity.namespace, identity.current.version, encode(IdentityChain(identity.chain))),
                )
            for log, key in sorted(identity.logs.items()):
                try:
                    self._rebuild_log(identity, log, key)
                except StoreError as exc:
                    if exc.path != str(self._layout.log(log)):
                        raise
        with self._database.read() as connection:
            (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        return int(count)

    def _rebuild_log(self, identity: Identity, log: LogId, key: PublicKey) -> None:
        with self._database.write() as connection:
            row = self._take_in_file(connection, identity.namespace, key, None, size_max=identity.size_max(log))
            if row is None:
                return
            try:
                head = open_head(self._layout.log(log).with_suffix(".head").read_bytes(), log=log, key=key)
            except (InvalidData, OSError):
                return
            # The file may hold fewer records than were there when the head was written.
            if head.size <= row["size"] and head.root == self._root_at(connection, row, head.size):
                connection.execute("UPDATE logs SET head = ? WHERE log = ?", (head.text, log))

    # ── helpers ─────────────────────────────────────────────────────────────

    def _recount(self, connection: Connection, identity: Identity) -> None:
        """Let only the entries that `identity` lets count have a say, if it is not so already."""
        rows = connection.execute("SELECT log, size FROM logs WHERE namespace = ?", (identity.namespace,)).fetchall()
        counted = {
            LogId(row["log"]): identity.counted(LogId(row["log"]), row["size"]) if row["log"] in identity.logs else 0
            for row in rows
        }
        if all(counted[LogId(row["log"])] == row["size"] for row in rows):
            return
        self._listener.forget(connection, identity.namespace)
        for log, size in counted.items():
            start = 0
            while start < size:
                page = self.entries(log, start, size_max=RECOUNT_BYTES)
                if not page:
                    break
                for data in page[: size - start]:
                    self._listener.apply(connection, read_entry(data))
                start += len(page)

    def _take_in_file(
        self,
        connection: Connection,
        namespace: NamespaceId,
        key: PublicKey,
        row: Row | None,
        *,
        size_max: int | None = None,
    ) -> Row | None:
        """Index the entries that stand in the log's file behind those of `row`; returns the row as it is then.

        size_max: entries that count, if not all do; the others are left out.
        """
        log = log_id(namespace, key)
        path = self._layout.log(log)
        offset = row["bytes"] if row is not None else 0
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                rest = file.read()
        except FileNotFoundError:
            return row
        except OSError as exc:
            raise StoreError(f"cannot read {path}: {exc.strerror}", path=str(path)) from exc
        frontier = _frontier(row)
        known = frontier.size
        previous = self._leaf(connection, log, known - 1)
        for data in _read_file(rest):
            if frontier.size == size_max:
                break
            try:
                entry = open_entry(data, namespace=namespace, key=key, index=frontier.size, previous=previous)
            except InvalidData:
                break
            frontier.append(entry.leaf)
            self._index_entry(connection, log, entry, offset + _LENGTH.size)
            offset += _LENGTH.size + len(data)
            previous = entry.leaf
        if frontier.size > known:
            note = row["head"] if row is not None else b""
            _put_log(connection, namespace, key, log, frontier, offset, note)
            row = connection.execute("SELECT * FROM logs WHERE log = ?", (log,)).fetchone()
        return row

    def _append(
        self,
        connection: Connection,
        namespace: NamespaceId,
        key: PublicKey,
        row: Row | None,
        frontier: Frontier,
        entries: Iterable[Entry],
        head: bytes,
    ) -> None:
        log = log_id(namespace, key)
        offset = row["bytes"] if row is not None else 0
        path = self._layout.log(log)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(file).st_size
            try:
                blob = b"".join(_LENGTH.pack(len(entry.data)) + entry.data for entry in entries)
                if os.pwrite(file, blob, offset) != len(blob):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(file)
                if head:
                    write_file(path.with_suffix(".head"), head, mode=0o644)
            except BaseException:
                # What failed is not to be found and taken in later.
                with contextlib.suppress(OSError):
                    os.ftruncate(file, max(size, offset))
                raise
            finally:
                os.close(file)
        for entry in entries:
            self._index_entry(connection, log, entry, offset + _LENGTH.size)
            offset += _LENGTH.size + len(entry.data)
        _put_log(connection, namespace, key, log, frontier, offset, head)

    def _index_entry(self, connection: Connection, log: LogId, entry: Entry, offset: int) -> None:
        connection.execute(
            "INSERT INTO entries (log, idx, leaf, offset, length) VALUES (?, ?, ?, ?, ?)",
            (log, entry.record.index, entry.leaf, offset, len(entry.data)),
        )
        self._listener.apply(connection, entry)

    def _leaf(self, connection: Connection, log: LogId, index: int) -> bytes:
        if index < 0:
            return NO_PREVIOUS
        leaf: bytes = connection.execute("SELECT leaf FROM entries WHERE log = ? AND idx = ?", (log, index)).fetchone()[
            "leaf"
        ]
        return leaf

    def _take_head(self, connection: Connection, head: Head, row: Row | None) -> None:
        """Keep `head`, not longer than ours, if it is the newest. Raises ForkedLog if it is of another history."""
        if row is None:
            return
        self._check_fork(connection, head, row)
        identity = self.identity(NamespaceId(row["namespace"]))
        if identity and identity.counted(head.log, head.size) < head.size:
            return  # it covers what a retired key signed too late
        if head.size > (parse_head(row["head"]).size if row["head"] else 0):
            write_file(self._layout.log(head.log).with_suffix(".head"), head.text, mode=0o644)
            connection.execute("UPDATE logs SET head = ? WHERE log = ?", (head.text, head.log))

    def _check_not_frozen(self, connection: Connection, log: LogId) -> None:
        row = connection.execute("SELECT ours, theirs FROM forks WHERE log = ?", (log,)).fetchone()
        if row is not None:
            raise _forked(log, row["ours"], row["theirs"])

    def _check_fork(self, connection: Connection, head: Head, row: Row) -> None:
        """Raise ForkedLog if `head`, not longer than ours, is of another history."""
        if self._root_at(connection, row, head.size) != head.root:
            self._note_fork(connection, head, row)

    def _root_at(self, connection: Connection, row: Row, size: int) -> bytes:
        """Return the root that the log of `row` had when it had `size` records."""
        if size == row["size"]:
            return _frontier(row).root()
        leaves = connection.execute(
            "SELECT leaf FROM entries WHERE log = ? AND idx < ? ORDER BY idx", (row["log"], size)
        )
        return merkle.root(LOG_TREE, (leaf["leaf"] for leaf in leaves))

    def _note_fork(self, connection: Connection, head: Head, row: Row) -> None:
        ours = row["head"]
        connection.execute(
            "INSERT OR IGNORE INTO forks (log, ours, theirs) VALUES (?, ?, ?)", (head.log, ours, head.text)
        )
        # The evidence is kept although the caller's transaction ends with an error.
        connection.execute("COMMIT")
        raise _forked(head.log, ours, head.text)


def _read_identity(path: Path) -> Identity | None:
    """Return the identity that the file `path` of the store holds, None if it holds none."""
    try:
        identity = open_identity(decode(path.read_bytes(), IdentityChain, size_max=IDENTITY_SIZE_MAX).documents)
    except (InvalidData, OSError):
        return None
    return identity if str(identity.namespace) == path.name else None


def _forked(log: LogId, ours: bytes, theirs: bytes) -> ForkedLog:
    text = f"log {log} was signed with two histories; nothing new is taken from it"
    return ForkedLog(text, ours=ours, theirs=theirs)


def _is_signed_for(data: bytes, namespace: NamespaceId, key: PublicKey, index: int) -> bool:
    """Say whether `key` signed `data` for the place `index` of its log, whatever record it follows."""
    try:
        previous = read_entry(data).record.previous
        open_entry(data, namespace=namespace, key=key, index=index, previous=previous)
    except InvalidData:
        return False
    return True


def _put_log(
    connection: Connection,
    namespace: NamespaceId,
    key: PublicKey,
    log: LogId,
    frontier: Frontier,
    size: int,
    head: bytes,
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO logs (log, namespace, key, size, bytes, peaks, head) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (log, namespace, key, frontier.size, size, b"".join(frontier.peaks), head),
    )


def _frontier(row: Row | None) -> Frontier:
    if row is None:
        return Frontier(LOG_TREE)
    peaks: bytes = row["peaks"]
    size: int = row["size"]
    return Frontier(LOG_TREE, size, [peaks[at : at + ID_SIZE] for at in range(0, len(peaks), ID_SIZE)])


def _state(row: Row) -> LogState:
    return LogState(
        LogId(row["log"]),
        NamespaceId(row["namespace"]),
        row["version"],
        row["size"],
        _frontier(row).root(),
        row["head"],
    )


def _read_file(data: bytes) -> Iterable[bytes]:
    """Return the entries of a log's file, up to the first that is cut short."""
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > ENVELOPE_SIZE_MAX or at + length > len(data):
            return
        yield data[at : at + length]
        at += length
