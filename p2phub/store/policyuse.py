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
        """Return the bytes of all records of a publisher that are here: the longer his logs, the longer it takes."""
        with self._database.read() as connection:
            (size,) = connection.execute(
                "SELECT coalesce(sum(e.length), 0) FROM logs JOIN entry_rows AS e ON e.log_number = logs.number"
                " WHERE logs.namespace = ?",
                (namespace,),
            ).fetchone()
        return int(size)

    def of_log(self, log: LogId) -> int:
        """Return the bytes of the records of a log that are here."""
        with self._database.read() as connection:
            (size,) = connection.execute(
                "SELECT coalesce(sum(e.length), 0) FROM logs JOIN entry_rows AS e ON e.log_number = logs.number"
                " WHERE logs.log = ?",
                (log,),
            ).fetchone()
        return int(size)
