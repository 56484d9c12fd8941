"""How much of each publisher is here (spec/policy.md §2)."""

from __future__ import annotations

from p2phub.core.ids import LogId, NamespaceId

from .database import Database


class PolicyUse:
    """What the records of publishers take."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def records(self, namespace: NamespaceId, *, without: LogId) -> int:
        """Return how many records of a publisher are here but for one log."""
        with self._database.read() as connection:
            (records,) = connection.execute(
                "SELECT coalesce(sum(size), 0) FROM logs WHERE namespace = ? AND log <> ?", (namespace, without)
            ).fetchone()
        return int(records)

    def size(self, namespace: NamespaceId) -> int:
        """Return the bytes of all records of a publisher that are here."""
        with self._database.read() as connection:
            (size,) = connection.execute(
                "SELECT coalesce(sum(entry_bytes), 0) FROM logs WHERE namespace = ?", (namespace,)
            ).fetchone()
        return int(size)

    def of_log(self, log: LogId) -> int:
        """Return the bytes of the records of a log that are here."""
        with self._database.read() as connection:
            row = connection.execute("SELECT entry_bytes FROM logs WHERE log = ?", (log,)).fetchone()
        return int(row["entry_bytes"]) if row is not None else 0
