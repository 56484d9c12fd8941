"""Fill the index of logs again from the files, while others read and write it (spec/store.md §4).

    journals ──scan──▶ where what stands (a temporary database)
                          └─▶ a namespace: identity, its logs ──threads verify──▶ one transaction

A namespace is replaced as a whole, so readers see what it was or what it is, and a rebuild
that is broken off leaves a good index. Nothing is believed because it stands in a file:
signatures and places are checked as if a peer had sent it.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.checkpoint import parse_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.identity import Identity, namespace_id
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import NO_PREVIOUS, Entry, open_signed_entry, read_entry
from p2phub.protocol.messages import IdentityChain

from .cataloguewriter import Numbers
from .chains import check_identity, unpack_chain
from .database import Database
from .entryreader import EntryFiles
from .journals import ENTRY, HEAD, IDENTITY_SIZE_MAX, Frame, Journals, Place
from .layout import Layout
from .leftbehind import head_if_right
from .logfiles import OWN_FILE, LogFiles
from .logrows import log_row
from .logtrees import LogTree
from .logwriter import LogWriter
from .privateindex import private_logs_of
from .takeover import VERIFYING_THREADS

PIECE_ENTRIES = 128  # checked by one thread at a time
PIECES_AHEAD = 16  # of one log that are checked before the first of them is used
GROUP_ENTRIES = 2048  # of small namespaces that are replaced in one transaction

_FOUND = """
    CREATE TABLE places (log BLOB, idx INTEGER, journal INTEGER, offset INTEGER, length INTEGER,
                         PRIMARY KEY (log, idx, journal, offset)) WITHOUT ROWID;
    CREATE TABLE heads (log BLOB, size INTEGER, head BLOB);
    CREATE TABLE chains (namespace BLOB, chain BLOB);
"""

Spot = tuple[int, Place]  # the index of an entry, and where it lies
Good = tuple[Entry, Place]


class _Log(Struct):
    """A log that is about to be replaced."""

    log: LogId
    key: PublicKey
    size_max: int | None  # entries that count
    entries: Iterator[Good]  # by index; some may be missing, or stand twice
    heads: dict[int, list[bytes]]  # by size
    in_own_file: bool


class _Namespace(Struct):
    """All that the files say of a namespace."""

    namespace: NamespaceId
    identity: Identity | None  # None: there is none that is right
    logs: list[_Log]
    entry_count: int  # that may be there


class Rebuild:
    """One rebuild of identities, logs and what follows from them."""

    def __init__(self, layout: Layout, database: Database, journals: Journals, writer: LogWriter) -> None:
        self._layout = layout
        self._database = database
        self._journals = journals
        self._writer = writer

    def run(self) -> int:
        """Replace all namespaces; returns how many records there are then."""
        # A name of no characters is a file of its own that goes with the connection.
        found = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        found.row_factory = sqlite3.Row
        try:
            found.executescript(_FOUND)
            sizes = self._scan(found)
            with ThreadPoolExecutor(VERIFYING_THREADS, "rebuild") as pool:
                self._replace_all(found, pool)
        finally:
            found.close()
        with self._database.write() as connection:
            # Only now: of what the index does not speak of in a journal that it knows, nobody has need.
            for number, size in sizes.items():
                self._journals.adopt(connection, number, size)
            _drop_orphans(connection)
            (count,) = connection.execute("SELECT count(*) FROM entry_rows").fetchone()
        return int(count)

    # ── finding ─────────────────────────────────────────────────────────────

    def _scan(self, found: Connection) -> dict[int, int]:
        """Note where what stands in the journals; returns how many bytes each has."""
        with self._database.read() as connection:
            numbers = sorted(self._journals.usable(connection))
        sizes: dict[int, int] = {}
        for number in numbers:
            sizes[number] = self._journals.path(number).stat().st_size
            found.execute("BEGIN")
            for frame in self._journals.frames(number):
                if frame.place.offset + frame.place.length > sizes[number]:
                    break
                _note(found, frame)
            found.execute("COMMIT")
        found.execute("CREATE INDEX heads_by_log ON heads (log)")
        found.execute("CREATE INDEX chains_by_namespace ON chains (namespace)")
        return sizes

    def _namespaces(self, found: Connection) -> list[NamespaceId]:
        """Return all namespaces that the files or the index speak of, sorted."""
        namespaces = {row[0] for row in found.execute("SELECT DISTINCT namespace FROM chains")}
        for path in (self._layout.store / "identities").glob("??/*"):
            if (identity := _read_identity(path)) is not None:
                namespaces.add(bytes(identity.namespace))
        with self._database.read() as connection:
            namespaces |= {row[0] for row in connection.execute("SELECT namespace FROM identities")}
        return [NamespaceId(namespace) for namespace in sorted(namespaces)]

    def _prepare(self, found: Connection, namespace: NamespaceId, pool: ThreadPoolExecutor) -> _Namespace:
        """Find all of a namespace, and let threads check the first of it."""
        identity = self._best_identity(found, namespace)
        logs: list[_Log] = []
        count = 0
        for log, key in sorted(self._logs_of(identity).items()) if identity else ():
            path = self._layout.log(log)
            in_own_file = path.exists()
            if in_own_file:
                spots = list(self._own_spots(log))
                texts = [_read_or_nothing(path.with_suffix(".head"))]
            else:
                rows = found.execute("SELECT * FROM places WHERE log = ? ORDER BY idx, journal, offset", (log,))
                spots = [(row["idx"], Place(row["journal"], row["offset"], row["length"])) for row in rows]
                texts = [row["head"] for row in found.execute("SELECT head FROM heads WHERE log = ?", (log,))]
            count += len(spots)
            assert identity is not None
            entries = self._check_ahead(pool, namespace, log, key, spots)
            heads = _heads_by_size([*texts, *self._known_heads(log)], log, key)
            logs.append(_Log(log, key, identity.size_max(log), entries, heads, in_own_file))
        return _Namespace(namespace, identity, logs, count)

    def _logs_of(self, identity: Identity) -> dict[LogId, PublicKey]:
        """Return all logs of a namespace, those that are private here included."""
        with self._database.read() as connection:
            return {**identity.logs, **private_logs_of(connection, identity)}

    def _best_identity(self, found: Connection, namespace: NamespaceId) -> Identity | None:
        """Return the identity with the most documents that any file, or the index, has."""
        best = _read_identity(self._layout.identity(namespace))
        chains = {row["chain"] for row in found.execute("SELECT chain FROM chains WHERE namespace = ?", (namespace,))}
        with self._database.read() as connection:
            rows = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,))
            chains |= {unpack_chain(row["chain"]) for row in rows}
        for chain in sorted(chains):
            try:
                identity = check_identity(chain)
            except InvalidData:
                continue
            if identity.namespace == namespace and (best is None or len(identity.chain) > len(best.chain)):
                best = identity
        return best

    def _own_spots(self, log: LogId) -> Iterator[Spot]:
        try:
            for index, (at, data) in enumerate(LogFiles(self._layout).entries(log)):
                yield index, Place(OWN_FILE, at, len(data))
        except StoreError:
            return  # not readable: peers may have it

    def _known_heads(self, log: LogId) -> list[bytes]:
        with self._database.read() as connection:
            row = log_row(connection, log)
        return [row["head"]] if row is not None else []

    def _check_ahead(
        self, pool: ThreadPoolExecutor, namespace: NamespaceId, log: LogId, key: PublicKey, spots: Sequence[Spot]
    ) -> Iterator[Good]:
        """Begin to check the entries at `spots` now; they are given out in order, those that are wrong left out."""
        pieces = iter([spots[at : at + PIECE_ENTRIES] for at in range(0, len(spots), PIECE_ENTRIES)])
        running: deque[Future[list[Good]]] = deque()

        def begin_next() -> None:
            if (piece := next(pieces, None)) is not None:
                running.append(pool.submit(self._check_piece, piece, namespace, log, key))

        def results() -> Iterator[Good]:
            while running:
                good = running.popleft().result()
                begin_next()
                yield from good

        for _ in range(PIECES_AHEAD):
            begin_next()
        return results()

    def _check_piece(self, spots: Sequence[Spot], namespace: NamespaceId, log: LogId, key: PublicKey) -> list[Good]:
        good: list[Good] = []
        with EntryFiles(self._layout, self._journals) as files:
            for index, place in spots:
                try:
                    data = files.read(log, place)
                    good.append((open_signed_entry(data, namespace=namespace, log=log, key=key, index=index), place))
                except (InvalidData, StoreError):
                    continue
        return good

    # ── replacing ───────────────────────────────────────────────────────────

    def _replace_all(self, found: Connection, pool: ThreadPoolExecutor) -> None:
        group: list[_Namespace] = []
        for namespace in self._namespaces(found):
            group.append(self._prepare(found, namespace, pool))
            if sum(member.entry_count + 1 for member in group) >= GROUP_ENTRIES:
                self._replace(group)
                group = []
        self._replace(group)

    def _replace(self, group: Sequence[_Namespace]) -> None:
        with self._database.write() as connection:
            # Others may have emptied some since they were read; then the index says where the entries are now.
            usable = self._journals.usable(connection) | {OWN_FILE}
            for member in group:
                self._replace_namespace(connection, member, usable)

    def _replace_namespace(self, connection: Connection, member: _Namespace, usable: set[int]) -> None:
        row = connection.execute(
            "SELECT number, chain FROM identities WHERE namespace = ?", (member.namespace,)
        ).fetchone()
        identity = member.identity
        if identity is None:
            if row is not None:
                self._writer.forget(connection, member.namespace, row["number"])
            connection.execute("DELETE FROM identities WHERE namespace = ?", (member.namespace,))
            connection.execute("DELETE FROM logs WHERE namespace = ?", (member.namespace,))
            return
        # It may have been renewed since it was read.
        if row is None or not _is_right_and_longer(unpack_chain(row["chain"]), identity):
            self._writer.index_identity(connection, identity, encode(IdentityChain(identity.chain)))
        (publisher,) = connection.execute(
            "SELECT number FROM identities WHERE namespace = ?", (member.namespace,)
        ).fetchone()
        self._writer.forget(connection, member.namespace, publisher)
        for log in member.logs:
            self._replace_log(connection, identity, log, usable)
        known = {log.log for log in member.logs}
        for (log_id,) in connection.execute("SELECT log FROM logs WHERE namespace = ?", (member.namespace,)).fetchall():
            if log_id not in known:
                connection.execute("DELETE FROM logs WHERE log = ?", (log_id,))
        # Forks and ends limit what counts.
        self._writer.recount(connection, identity)

    def _replace_log(self, connection: Connection, identity: Identity, log: _Log, usable: set[int]) -> None:
        row = log_row(connection, log.log)
        frontier = Frontier(LOG_TREE)
        numbers = self._writer.index_log(
            connection, identity.namespace, log.log, log.key, frontier, 0, b"", entry_bytes=0
        )
        # Made again from what is found.
        LogTree(connection, numbers.log).cut(0)
        head, previous, size, taken = b"", NO_PREVIOUS, 0, 0
        pending: list[Good] = []
        entries = [log.entries]
        if row is not None and not log.in_own_file:
            entries.append(self._come_since(connection, identity.namespace, log, row, frontier))
        for good in entries:
            for entry, place in good:
                if frontier.size == log.size_max:
                    break
                if place.journal not in usable:
                    continue
                if entry.record.index != frontier.size or entry.record.previous != previous:
                    continue
                frontier.append(entry.leaf)
                previous = entry.leaf
                pending.append((entry, place))
                taken += place.length
                if place.journal == OWN_FILE:
                    size = place.offset + place.length
                if texts := log.heads.get(frontier.size):
                    head = _head_of(texts, frontier, head)
                if len(pending) >= PIECE_ENTRIES:
                    self._index(connection, numbers, pending)
        self._index(connection, numbers, pending)
        connection.execute("DELETE FROM entry_rows WHERE log_number = ? AND idx >= ?", (numbers.log, frontier.size))
        if frontier.size:
            self._writer.index_log(
                connection, identity.namespace, log.log, log.key, frontier, size, head, entry_bytes=taken
            )
        else:
            connection.execute("DELETE FROM logs WHERE log = ?", (log.log,))

    def _index(self, connection: Connection, numbers: Numbers, pending: list[Good]) -> None:
        entries, places = [entry for entry, _ in pending], [place for _, place in pending]
        self._writer.index_entries(connection, numbers, entries, places, replace=True)
        pending.clear()

    def _come_since(
        self, connection: Connection, namespace: NamespaceId, log: _Log, row: Row, frontier: Frontier
    ) -> Iterator[Good]:
        """Yield what the index knows behind what was found: it came after the files were read."""
        if row["head"]:
            for size, texts in _heads_by_size([row["head"]], log.log, log.key).items():
                log.heads.setdefault(size, []).extend(texts)
        rows = connection.execute(
            "SELECT idx, journal, offset, length FROM entry_rows WHERE log_number = ? AND idx >= ? ORDER BY idx",
            (row["number"], frontier.size),
        ).fetchall()
        spots = [(place["idx"], Place(place["journal"], place["offset"], place["length"])) for place in rows]
        yield from self._check_piece(spots, namespace, log.log, log.key)


def _note(found: Connection, frame: Frame) -> None:
    place = frame.place
    try:
        if frame.kind == ENTRY:
            record = read_entry(frame.data).record
            found.execute(
                "INSERT INTO places VALUES (?, ?, ?, ?, ?)",
                (record.log, record.index, place.journal, place.offset, place.length),
            )
        elif frame.kind == HEAD:
            head = parse_head(frame.data)
            found.execute("INSERT INTO heads VALUES (?, ?, ?)", (head.log, head.size, head.text))
        else:
            documents = decode(frame.data, IdentityChain, size_max=IDENTITY_SIZE_MAX).documents
            if documents:
                found.execute("INSERT INTO chains VALUES (?, ?)", (namespace_id(documents[0].document), frame.data))
    except InvalidData:
        return


def _heads_by_size(texts: Iterable[bytes], log: LogId, key: PublicKey) -> dict[int, list[bytes]]:
    heads: dict[int, list[bytes]] = {}
    for text in texts:
        if (head := head_if_right(text, log, key)) is not None:
            heads.setdefault(head.size, []).append(text)
    return heads


def _head_of(texts: Iterable[bytes], frontier: Frontier, otherwise: bytes) -> bytes:
    """Return the last of the heads that covers just what `frontier` has."""
    root = frontier.root()
    for text in texts:
        if parse_head(text).root == root:
            otherwise = text
    return otherwise


def _is_right_and_longer(chain: bytes, identity: Identity) -> bool:
    try:
        return len(check_identity(chain).chain) > len(identity.chain)
    except InvalidData:
        return False


def _read_identity(path: Path) -> Identity | None:
    """Return the identity that the file `path` of the store holds, None if it holds none."""
    try:
        identity = check_identity(path.read_bytes())
    except (InvalidData, OSError):
        return None
    return identity if str(identity.namespace) == path.name else None


def _read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _drop_orphans(connection: Connection) -> None:
    """Take out what nothing leads to any more."""
    connection.execute("DELETE FROM logs WHERE namespace NOT IN (SELECT namespace FROM identities)")
    connection.execute("DELETE FROM entry_rows WHERE log_number NOT IN (SELECT number FROM logs)")
    connection.execute("DELETE FROM repositories WHERE publisher NOT IN (SELECT number FROM identities)")
    for table in ("release_rows", "branch_rows", "version_rows", "yank_rows", "recall_rows"):
        connection.execute(
            f"DELETE FROM {table} WHERE repository NOT IN (SELECT number FROM repositories)"
            " OR log_number NOT IN (SELECT number FROM logs)"
        )
