"""Which entries of a publisher's logs have a say, and who is told of them (spec/identity.md §3 and §4)."""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection, Row
from typing import Protocol

from p2phub.core.checkpoint import parse_head
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.records import Entry, read_entry

from .cataloguewriter import Numbers
from .entryreader import EntryReader
from .forks import size_max
from .logrows import log_row, root_at
from .logtrees import LogTree
from .privateindex import private_logs_of


class Listener(Protocol):
    """Told of every entry of a log, in order, inside the transaction that adds it."""

    def apply(self, connection: Connection, log: LogId, entries: Iterable[Entry], numbers: Numbers) -> None: ...

    def forget(self, connection: Connection, namespace: NamespaceId, publisher: int) -> None:
        """Undo all that entries of `namespace` said, so that those which still count are told again."""


def recount(connection: Connection, identity: Identity, reader: EntryReader, listener: Listener) -> None:
    """Let only those entries have a say that count, if it is not so already; in a transaction.

    What does not agree with the end that the publisher gave a log is dropped first, so that
    the history that counts can be taken from peers.
    """
    for log in identity.closed:
        _keep_to_end(connection, identity, log)
    known = {*identity.logs, *private_logs_of(connection, identity)}
    rows = connection.execute("SELECT * FROM logs WHERE namespace = ? ORDER BY log", (identity.namespace,)).fetchall()
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
    listener.forget(connection, identity.namespace, publisher)
    for row, size in zip(rows, counted, strict=True):
        entries = map(read_entry, reader.of_log(connection, row, end=size))
        listener.apply(connection, LogId(row["log"]), entries, Numbers(row["number"], publisher))


def _keep_to_end(connection: Connection, identity: Identity, log: LogId) -> None:
    """Drop what is here of a closed log beyond what it has in common with the history that counts."""
    row, end = log_row(connection, log), identity.closed[log]
    if row is None or (row["size"] >= end.size and root_at(connection, row, end.size) == end.root):
        return
    fork = connection.execute("SELECT common FROM fork_proofs WHERE log = ?", (log,)).fetchone()
    if fork is not None:
        common = min(fork["common"], end.size)
    elif row["size"] >= end.size:
        common = 0  # nothing says where it parts from ours
    else:
        return
    if common < row["size"]:
        _cut(connection, row, common)


def _cut(connection: Connection, row: Row, size: int) -> None:
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
