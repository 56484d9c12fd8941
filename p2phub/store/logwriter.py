"""Add to logs and identities, inside a transaction of the index (spec/store.md §4).

    Arrival ──follows ours?──▶ entries: own file │ batch of a journal ──▶ index ──▶ listener

A log that has a file of its own, as those have that are written here, stays in it. All others
go to the journals. Whatever is wrong is found before the first byte is written, so that one
log that is refused leaves nothing behind in a transaction that others share.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection, Row

from p2phub.core.checkpoint import Head, parse_head, sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import ForkedLog, HashMismatch, InvalidData, NotFound, SplitIdentity
from p2phub.core.identity import Identity, SignedDocument, open_identity
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.merkle import Frontier
from p2phub.core.records import Entry, check_follows, open_signed_entry
from p2phub.core.signing import Signer
from p2phub.protocol.messages import IdentityChain

from .arrivals import Arrival
from .cataloguewriter import Numbers
from .chains import pack_chain, unpack_chain, unpack_identity
from .counting import Listener, recount
from .disk import write_file
from .entryreader import EntryReader
from .forks import note_closed, size_max
from .journals import ENTRY, HEAD, IDENTITY, IDENTITY_SIZE_MAX, Batch, Place
from .layout import Layout
from .logfiles import OWN_FILE, LogFiles, end_of
from .logrows import entry_bytes_of, frontier_of, leaf_at, log_row, root_at
from .logtrees import LogTree
from .splits import differ_at, note_split, split_of


class LogWriter:
    """What may be done to logs in a transaction; tells `listener` what their entries say."""

    def __init__(self, layout: Layout, reader: EntryReader, listener: Listener) -> None:
        self._layout = layout
        self._files = LogFiles(layout)
        self._reader = reader
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
        row = log_row(connection, log)
        if row is None and self._files.has(log):
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
        previous = leaf_at(connection, row, frontier.size - 1)
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
            places = self._files.append(log, size, [entry.data for entry in entries], head)
            size = end_of(places, size)
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

    def recount(self, connection: Connection, identity: Identity) -> None:
        """Let only those entries of a namespace have a say that count."""
        recount(connection, identity, self._reader, self._listener)

    # ── heads and forks ─────────────────────────────────────────────────────

    def keep_head(
        self, connection: Connection, head: Head, row: Row | None, identity: Identity | None, batch: Batch | None
    ) -> None:
        """Keep `head`, not longer than ours, if it is the newest. Raises ForkedLog if it is of another history."""
        if row is None:
            return
        if root_at(connection, row, head.size) != head.root:
            self.note_fork(connection, head, row)
        limit = size_max(connection, identity, head.log) if identity else None
        if limit is not None and limit < head.size:
            return  # it covers what does not count
        if head.size > (parse_head(row["head"]).size if row["head"] else 0):
            if batch is None or row["bytes"]:
                self._files.write_head(head.log, head.text)
            else:
                batch.add(HEAD, head.text)
            connection.execute("UPDATE logs SET head = ? WHERE log = ?", (head.text, head.log))

    def cover(self, connection: Connection, row: Row, key: Signer) -> None:
        """Sign a head for all that the own log of `row` has, if there is none: without it no peer takes what is new.

        A crash may have come between a record and its head.
        """
        frontier = frontier_of(row)
        if not row["head"] or parse_head(row["head"]).size < frontier.size:
            head = sign_head(LogId(row["log"]), frontier.size, frontier.root(), key)
            self.keep_head(connection, head, row, None, None)

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

    # ── own files ───────────────────────────────────────────────────────────

    def own_row(self, connection: Connection, namespace: NamespaceId, log: LogId, key: PublicKey) -> Row | None:
        """Return the row of the log that is written here, which now has all of its entries in its own file.

        What the file knows beyond the index is taken in: a peer may have seen it. Raises ForkedLog if the file is
        of another history than what came from peers.
        """
        row = log_row(connection, log)
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
        previous = leaf_at(connection, row, frontier.size - 1)
        entries: list[Entry] = []
        places: list[Place] = []
        for at, data in self._files.entries(log, offset):
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
        return log_row(connection, log)

    def _move_to_own_file(self, connection: Connection, row: Row) -> Row:
        """Copy a log that came from peers to its own file, before the next entry of it is signed here."""
        log = LogId(row["log"])
        places = self._files.begin(log, list(self._reader.of_log(connection, row)), row["head"])
        connection.executemany(
            "UPDATE entry_rows SET journal = ?, offset = ? WHERE log_number = ? AND idx = ?",
            [(OWN_FILE, place.offset, row["number"], index) for index, place in enumerate(places)],
        )
        connection.execute("UPDATE logs SET bytes = ? WHERE log = ?", (end_of(places, 0), log))
        moved = log_row(connection, log)
        assert moved is not None
        return moved


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
