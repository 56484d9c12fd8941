"""What publishers said to this node: that it acts for them (spec/authority.md §2)."""

from __future__ import annotations

from p2phub.core.delegation import Delegation
from p2phub.core.ids import NamespaceId

from .database import Database


class Delegations:
    """The delegations to this node, one for each namespace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, delegation: Delegation, data: bytes) -> None:
        """Keep a checked delegation, instead of what there was for its namespace. data: as it was signed."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO delegations (namespace, expires, data) VALUES (?, ?, ?)",
                (delegation.namespace, delegation.expires, data),
            )

    def get(self, namespace: NamespaceId) -> bytes | None:
        """Return the delegation for `namespace`, None if there is none."""
        with self._database.read() as connection:
            row = connection.execute("SELECT data FROM delegations WHERE namespace = ?", (namespace,)).fetchone()
        return row["data"] if row else None

    def all(self, now: float) -> list[bytes]:
        """Return the delegations that are good at the time `now`, by namespace."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT data FROM delegations WHERE expires > ? ORDER BY namespace", (now,))
            return [row["data"] for row in rows]

    def remove(self, namespace: NamespaceId) -> bool:
        """Act for `namespace` no more; returns whether this node did."""
        with self._database.write() as connection:
            done = connection.execute("DELETE FROM delegations WHERE namespace = ?", (namespace,))
        return done.rowcount > 0
