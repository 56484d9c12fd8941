"""What the index says of a log as a whole: its row, and what follows from it."""

from __future__ import annotations

from sqlite3 import Connection, Row

from p2phub.core.ids import ID_SIZE, LogId
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import NO_PREVIOUS

from .logtrees import LogTree


def log_row(connection: Connection, log: LogId) -> Row | None:
    """Return the row of a log, None if nothing of it is here."""
    row: Row | None = connection.execute("SELECT * FROM logs WHERE log = ?", (log,)).fetchone()
    return row


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


def root_at(connection: Connection, row: Row, size: int) -> bytes:
    """Return the root that the log of `row` had when it had `size` records."""
    return LogTree(connection, row["number"]).root(size)


def leaf_at(connection: Connection, row: Row | None, index: int) -> bytes:
    """Return the leaf hash at `index` of the log of `row`; that before index 0 if there is none."""
    if row is None or index < 0:
        return NO_PREVIOUS
    leaf: bytes = connection.execute(
        "SELECT leaf FROM entry_rows WHERE log_number = ? AND idx = ?", (row["number"], index)
    ).fetchone()["leaf"]
    return leaf
