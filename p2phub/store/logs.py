"""Logs, their heads, and the identities that prove them (spec/store.md §4).

    append_own ─────────────────────▶ LogWriter ──▶ files, index ──▶ listener
    extend_many ──▶ Takeover, threads ──▲

One's own log is a file; what comes of others lies together in journals. Adding is: check,
write and sync the file, then commit the index. A crash between the two leaves bytes behind
the end that the index knows. In one's own log, entries found there are taken in before the
next is signed: a peer may have seen them, and a second record at the same place would fork
the log. In a journal they are taken in before the next batch is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.checkpoint import Head, sign_head
from p2phub.core.encoding import decode
from p2phub.core.errors import ForkedLog, HubError, InvalidData, SplitIdentity, StoreError
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.records import Entry, Record, read_entry, sign_record
from p2phub.core.signing import Signer
from p2phub.protocol.messages import IdentityChain

from .arrivals import Arrival, LogPart, Outcome
from .chains import unpack_chain, unpack_identity
from .counting import Listener
from .database import Database
from .entryreader import EntryReader
from .forks import size_max
from .journals import IDENTITY_SIZE_MAX, Batch, Journals
from .layout import Layout
from .leftbehind import left_behind
from .logrows import frontier_of, leaf_at, log_row
from .logtrees import LogTree
from .logwriter import LogWriter
from .takeover import Takeover

__all__ = ["IDENTITY_SIZE_MAX", "LogPart", "LogState", "Logs", "MakeRecord", "Outcome"]

WRITER_CACHE_BYTES = 112 * 1024 * 1024  # pages of the index that the thread keeps which takes logs over
WAL_PAGES = 8192  # of 4 KiB, in the log of SQLite before that thread brings them to their places
BULK_ENTRIES = 1024  # in a transaction: more come, and a page is better copied once for several of them
BULK_WAL_PAGES = 65_536

NO_LOG = LogId(bytes(32))
_IS_PRIVATE = "SELECT EXISTS (SELECT 1 FROM private_logs WHERE log = ?)"

_STATES = (
    "SELECT logs.*, coalesce(identities.version, 1) AS version"
    " FROM logs LEFT JOIN identities ON identities.namespace = logs.namespace"
)

# Of the log, the index, and the leaf and time of the record before (0: there is none).
MakeRecord = Callable[[Connection, LogId, int, bytes, int], Record]


class LogState(Struct, frozen=True):
    """A log as far as it is here."""

    log: LogId
    namespace: NamespaceId
    version: int  # of the newest identity document of the namespace
    size: int  # records
    root: bytes
    head: bytes  # the newest signed checkpoint whose records are all here; empty while there is none


class Logs:
    """The logs and identities that are here; tells `listener` what they say.

    Private logs are not shown unless that is asked for: what answers others cannot forget to leave them out.
    """

    def __init__(self, layout: Layout, database: Database, listener: Listener) -> None:
        self._layout = layout
        self._database = database
        self._journals = Journals(layout.journals)
        self.reader = EntryReader(layout, self._journals)
        self.writer = LogWriter(layout, self.reader, listener)
        self._takeover = Takeover(self._take_all, lambda: database.keep_pages(WRITER_CACHE_BYTES))

    def close(self) -> None:
        """End the threads and close the files."""
        self._takeover.close()
        self._journals.close()

    # ── identities ──────────────────────────────────────────────────────────

    def identity(self, namespace: NamespaceId) -> Identity | None:
        """Return the identity of `namespace`, None if it is not here."""
        with self._database.read() as connection:
            row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
        return unpack_identity(row["chain"]) if row else None

    def identity_chain(self, namespace: NamespaceId) -> IdentityChain | None:
        """Return the documents of `namespace` as they came, checked then; None if they are not here."""
        with self._database.read() as connection:
            row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
        return decode(unpack_chain(row["chain"]), IdentityChain, size_max=IDENTITY_SIZE_MAX) if row else None

    def add_identity(self, identity: Identity, *, own: bool = False) -> bool:
        """Keep a checked identity; returns whether it is newer than what was here.

        own: it is that of this home, and gets a file of its own as its log has.
        Raises SplitIdentity if it disagrees with what was here: a namespace has one history.
        """
        # All in one transaction: another process may bring a newer one meanwhile.
        with self._database.write() as connection:
            if own:
                outcome = self._put(connection, identity, None)
            else:
                with self._batch(connection) as batch:
                    outcome = self._put(connection, identity, batch)
        # Only now: what proves it is committed.
        if isinstance(outcome, SplitIdentity):
            raise outcome
        _, is_new = outcome
        return is_new

    def open_identities(self, chains: Sequence[IdentityChain]) -> list[Identity | InvalidData]:
        """Return the identity that each chain proves, as `open_identity` does, or what is wrong with it."""
        return self._takeover.open_identities([chain.documents for chain in chains])

    def add_identities(self, identities: Sequence[Identity]) -> list[Identity | SplitIdentity]:
        """Keep checked identities of others, all in one transaction.

        Returns the newest that is here of each, or why one disagrees with what was here.
        """
        with self._database.write() as connection, self._batch(connection) as batch:
            outcomes = [self._put(connection, identity, batch) for identity in identities]
        return [outcome if isinstance(outcome, SplitIdentity) else outcome[0] for outcome in outcomes]

    def yield_to_other(self, namespace: NamespaceId) -> Identity:
        """Let the other of two documents of one version count here, in the place of that which came first.

        Returns the identity then: up to that document. For one's own alone. Raises NotFound if there are not two.
        """
        with self._database.write() as connection:
            return self.writer.yield_to_other(connection, namespace)

    # ── reading ─────────────────────────────────────────────────────────────

    def state(self, log: LogId, *, private: bool = False) -> LogState | None:
        """Return the state of `log`, None if nothing of it is here."""
        with self._database.read() as connection:
            row = connection.execute(f"{_STATES} WHERE log = ? AND {_shown(private)}", (log,)).fetchone()
        return _state(row) if row else None

    def states(self, *, after: LogId | None = None, limit: int = -1) -> list[LogState]:
        """Return the logs whose id sorts after `after`, at most `limit`, sorted by id."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"{_STATES} WHERE log > ? AND {_shown(False)} ORDER BY log LIMIT ?", (after or b"", limit)
            ).fetchall()
        return [_state(row) for row in rows]

    def logs_of(self, namespace: NamespaceId, *, private: bool = False) -> list[LogState]:
        """Return the logs of `namespace` that are here."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"{_STATES} WHERE logs.namespace = ? AND {_shown(private)} ORDER BY log", (namespace,)
            ).fetchall()
        return [_state(row) for row in rows]

    def entries(
        self, log: LogId, start: int, *, size_max: int, count_max: int = 10_000, private: bool = False
    ) -> list[bytes]:
        """Return the encoded entries of `log` from index `start` on: at least one, then about `size_max` bytes.

        count_max: no more of them than this.
        """
        entries: list[bytes] = []
        size = 0
        for data in self._read(log, start, start + count_max, private=private):
            size += len(data) + 8
            if entries and size > size_max:
                break
            entries.append(data)
        return entries

    def entry(self, log: LogId, index: int) -> bytes | None:
        """Return the encoded entry at `index`, of a private log too; None if it is not here or cannot be read."""
        try:
            return next(self._read(log, index, index + 1, private=True), None)
        except HubError:
            return None

    def root(self, log: LogId, size: int) -> bytes | None:
        """Return the root that `log` had with its first `size` entries; None if they are not all here."""
        with self._tree(log, size) as tree:
            return tree.root(size) if tree else None

    def consistency(self, log: LogId, old: int, new: int) -> tuple[bytes, ...] | None:
        """Return the proof that the tree of the first `new` entries of `log` goes on from that of the first `old`.

        None if they are not all here.
        """
        with self._tree(log, new) as tree:
            return tree.consistency(old, new) if tree else None

    def entries_at(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return entries by the number of their log and their index, of private logs too; those that can be read."""
        with self._database.read() as connection:
            return self.reader.at(connection, keys)

    def fork(self, log: LogId) -> tuple[bytes, bytes] | None:
        """Return the two heads that prove `log` to be forked, None if it is not known to be."""
        with self._database.read() as connection:
            row = connection.execute("SELECT ours, theirs FROM forks WHERE log = ?", (log,)).fetchone()
        return (row["ours"], row["theirs"]) if row else None

    @contextmanager
    def _tree(self, log: LogId, size: int) -> Iterator[LogTree | None]:
        """Give the tree of a log of which at least `size` entries are here."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT number FROM logs WHERE log = ? AND size >= ? AND {_shown(False)}", (log, size)
            ).fetchone()
            yield LogTree(connection, row["number"]) if row else None

    def _read(self, log: LogId, start: int, end: int, *, private: bool) -> Iterator[bytes]:
        with self._database.read() as connection:
            is_hidden = connection.execute(_IS_PRIVATE, (log,)).fetchone()[0] and not private
            # Another is looked up instead, which is not there, and in the same time.
            row = log_row(connection, NO_LOG if is_hidden else log)
            if row is not None:
                yield from self.reader.of_log(connection, row, start, end)

    # ── appending ───────────────────────────────────────────────────────────

    def append_own(
        self,
        namespace: NamespaceId,
        key: Signer,
        make: MakeRecord,
    ) -> Entry:
        """Sign and append what `make(connection, log, index, previous, since)` returns to the log of `key`.

        `make` runs inside the transaction, so that what it checked still holds. The identity of `namespace` is here.
        If it raises, nothing is appended.
        """
        with self._database.write() as connection:
            log = self._own_log(connection, namespace, key.public_key)
            row = self.writer.own_row(connection, namespace, log, key.public_key)
            frontier = frontier_of(row)
            previous = leaf_at(connection, row, frontier.size - 1)
            with keep_what_is_taken_in(self._database, connection, self.writer, row, key):
                record = make(connection, log, frontier.size, previous, last_time(self.reader, connection, row))
            entry = sign_record(record, key)
            frontier.append(entry.leaf)
            head = sign_head(log, frontier.size, frontier.root(), key)
            self.writer.append(connection, namespace, log, key.public_key, row, frontier, [entry], head.text, None)
        return entry

    def finish_own(self, identity: Identity, key: Signer) -> None:
        """Take in what a crash left in the files of the logs in which `key` signs, and sign heads for it."""
        with self._database.write() as connection:
            rows = connection.execute(
                "SELECT * FROM logs WHERE namespace = ? AND key = ? AND bytes > 0", (identity.namespace, key.public_key)
            ).fetchall()
            for row in rows:
                log = LogId(row["log"])
                # Of a log that forked or was closed its owner says how much counts.
                if size_max(connection, identity, log) is not None:
                    continue
                with suppress(ForkedLog):
                    self.writer.check_not_frozen(connection, log)
                    known = self.writer.take_in_file(connection, identity.namespace, log, key.public_key, row)
                    assert known is not None
                    self.writer.cover(connection, known, key)

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
        part = LogPart(identity, head.log, head, self._size(head.log) if start is None else start, tuple(entries))
        (outcome,) = self.extend_many([part], now=now)
        if isinstance(outcome, int):
            return outcome
        raise outcome

    def extend_many(self, parts: Sequence[LogPart], *, now: float) -> list[Outcome]:
        """Take over entries of many logs, and the identities that prove them; returns what came of each part.

        Each part is taken as `extend` takes it, or not at all, whatever becomes of the others. Several parts may be
        of one log; they are taken in order. When this returns, what was taken outlives a crash. Raises StoreError if
        the disk fails: then any of the parts may have been taken, and all may be given again.
        """
        return self._takeover.take(parts, lambda part: self._size(part.log), now)

    def check_head(self, head: Head) -> None:
        """Compare a verified head that is not longer than ours. Raises ForkedLog if it is of another history."""
        forked: ForkedLog | None = None
        with self._database.write() as connection:
            row = log_row(connection, head.log)
            if row is not None and head.size <= row["size"]:
                identity = self.identity(NamespaceId(row["namespace"]))
                with self._batch(connection) as batch:
                    try:
                        self.writer.keep_head(connection, head, row, identity, batch)
                    except ForkedLog as exc:
                        forked = exc  # the evidence is kept all the same
        if forked is not None:
            raise forked

    def rebuild(self) -> int:
        """Fill the index again from the files of identities and logs; returns how many records there are.

        What is damaged is passed over, and a log counts up to its first bad record: peers have the rest. Others may
        read and write meanwhile: each namespace is replaced in one transaction.
        """
        from .rebuild import Rebuild  # seldom needed

        return Rebuild(self._layout, self._database, self._journals, self.writer).run()

    def compact(self, now: float) -> Iterator[int]:
        """Give back what journals hold for nothing, in steps that hold writers up for short only.

        Each step gives the bytes that it freed. Raises StoreError.
        """
        from .compaction import Compaction

        return Compaction(self._database, self._journals, self._batch).steps(now)

    def recount(self, connection: Connection, identity: Identity) -> None:
        """Let only those entries of a namespace have a say that count, in the transaction that changed which do."""
        self.writer.recount(connection, identity)

    # ── helpers ─────────────────────────────────────────────────────────────

    def _put(
        self, connection: Connection, identity: Identity, batch: Batch | None
    ) -> tuple[Identity, bool] | SplitIdentity:
        """Return the newest identity that is here, and whether it is new, or why one disagrees with what was here."""
        try:
            return self.writer.put_identity(connection, identity, batch)
        except SplitIdentity as exc:
            return exc

    def _own_log(self, connection: Connection, namespace: NamespaceId, key: PublicKey) -> LogId:
        """Return the log in which `key` signs. Raises ForkedLog if it forked."""
        row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
        log = unpack_identity(row["chain"]).log_of(key)
        if connection.execute("SELECT 1 FROM fork_proofs WHERE log = ?", (log,)).fetchone() is not None:
            raise ForkedLog(
                f"log {log} was signed with two histories, and nothing new in it counts",
                ours=b"",
                theirs=b"",
                hint="`p2phub id reopen` says which history counts, and goes on",
            )
        return log

    def _size(self, log: LogId) -> int:
        with self._database.read() as connection:
            row = connection.execute("SELECT size FROM logs WHERE log = ?", (log,)).fetchone()
        return row["size"] if row else 0

    def _take_all(self, arrivals: Sequence[Arrival | InvalidData]) -> list[Outcome]:
        """Take what arrived in one transaction; in the thread that takes over."""
        count = sum(len(arrival.checked.entries) for arrival in arrivals if isinstance(arrival, Arrival))
        self._database.let_log_grow(BULK_WAL_PAGES if count >= BULK_ENTRIES else WAL_PAGES)
        with self._database.write() as connection, self._batch(connection) as batch:
            return [self._take(connection, arrival, batch) for arrival in arrivals]

    @contextmanager
    def _batch(self, connection: Connection) -> Iterator[Batch]:
        """Give a batch that is written at the end of the block, and takes in first what a crash left behind."""
        identities, arrivals = left_behind(connection, self._journals.tail(connection))
        batch = self._journals.begin(connection)
        for identity in identities:
            with suppress(InvalidData):
                self.writer.put_identity(connection, identity, batch)
        for arrival in arrivals:
            self._take(connection, arrival, batch)
        yield batch
        wait = self._journals.write(connection, batch)

        def wait_anyway() -> None:
            with suppress(StoreError):
                wait()

        # As late as can be: the index is written while the disk takes the batch.
        self._database.at_end(lambda _: wait(), wait_anyway)

    def _take(self, connection: Connection, arrival: Arrival | InvalidData, batch: Batch) -> Outcome:
        if isinstance(arrival, InvalidData):
            return arrival
        try:
            return self.writer.take(connection, arrival, batch)
        except (InvalidData, ForkedLog) as exc:
            return exc


def last_time(reader: EntryReader, connection: Connection, row: Row | None) -> int:
    """Return when the last record of a log was signed, in seconds since 1970; 0 if that cannot be read, or is not."""
    if row is None or not row["size"]:
        return 0
    try:
        data = next(reader.of_log(connection, row, row["size"] - 1, row["size"]), None)
    except HubError:
        return 0
    return read_entry(data).record.time if data is not None else 0


@contextmanager
def keep_what_is_taken_in(
    database: Database, connection: Connection, writer: LogWriter, row: Row | None, key: Signer
) -> Iterator[None]:
    """Commit what the transaction did before this block if the block fails, with a head for all of the log of `row`.

    What a crash had left in the file of a log counts, whatever becomes of the next record; and whoever refuses to make
    that because of it, would do so again and again if it were taken back.
    """
    try:
        yield
    except Exception:
        if row is not None:
            writer.cover(connection, row, key)
        database.commit_now(connection)
        raise


def _shown(private: bool) -> str:
    """Return the condition that a log may be shown. private: all may."""
    return "1" if private else "NOT EXISTS (SELECT 1 FROM private_logs AS p WHERE p.log = logs.log)"


def _state(row: Row) -> LogState:
    return LogState(
        LogId(row["log"]),
        NamespaceId(row["namespace"]),
        row["version"],
        row["size"],
        frontier_of(row).root(),
        row["head"],
    )
