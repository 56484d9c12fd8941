"""Which other nodes said that they have the log of this home, and how far (spec/gossip.md §7)."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.ids import LogId, NodeId

from .database import Database

CONFIRMATIONS_MAX = 1000  # nodes of which is remembered what they said


class Confirmation(Struct, frozen=True):
    """What one node said that it has."""

    node: NodeId
    size: int  # records
    time: int  # when it said so, seconds since 1970


class Confirmations:
    """What others said of the own logs of one home. Times are seconds since 1970, given by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, node: NodeId, log: LogId, size: int, now: float) -> None:
        """Note that `node` said to have `size` records of `log`."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO confirmations (node, log, size, time) VALUES (?, ?, ?, ?)",
                (node, log, size, int(now)),
            )
            connection.execute(
                "DELETE FROM confirmations WHERE log = ? AND node NOT IN"
                " (SELECT node FROM confirmations WHERE log = ? ORDER BY time DESC, node LIMIT ?)",
                (log, log, CONFIRMATIONS_MAX),
            )

    def of(self, log: LogId, *, size: int = 0) -> list[Confirmation]:
        """Return who said to have at least `size` records of `log`, the latest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT node, size, time FROM confirmations WHERE log = ? AND size >= ? ORDER BY time DESC, node",
                (log, size),
            ).fetchall()
        return [Confirmation(NodeId(row["node"]), row["size"], row["time"]) for row in rows]
