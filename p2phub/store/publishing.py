"""With which keys publishers publish, whose identities are not kept as a whole (spec/authority.md §3).

    identities that are shown ──of whom it matters here──▶ publisher_keys ──▶ what was retired stays so

An identity in `identities` is told to others; that somebody is let in here is nobody's business.
"""

from __future__ import annotations

from p2phub.core.identity import PublishKeys
from p2phub.core.ids import NamespaceId, PublicKey

from .database import Database

PUBLISHERS_MAX = 65_536  # of whom keys are kept
FORGOTTEN_AT_ONCE = 1000  # publishers, when there are too many
KEY_SIZE = 32  # bytes

# Those whose private repositories are here, whom one lets in, or who accepted what a gate asks for.
_MATTERS = (
    "EXISTS (SELECT 1 FROM grants WHERE grantee = ?1 AND kind = 'namespace')"
    " OR EXISTS (SELECT 1 FROM private_logs WHERE namespace = ?1)"
    " OR EXISTS (SELECT 1 FROM receipts WHERE namespace = ?1)"
)


class Publishing:
    """The newest keys of publishers that were seen."""

    def __init__(self, database: Database, *, publishers_max: int = PUBLISHERS_MAX) -> None:
        self._database = database
        self._max = publishers_max

    def get(self, namespace: NamespaceId) -> PublishKeys | None:
        """Return the newest keys of a publisher that are kept, None if none are."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT version, keys FROM publisher_keys WHERE namespace = ?", (namespace,)
            ).fetchone()
        if row is None:
            return None
        keys = (PublicKey(row["keys"][at : at + KEY_SIZE]) for at in range(0, len(row["keys"]), KEY_SIZE))
        return PublishKeys(namespace, row["version"], tuple(keys))

    def note(self, seen: PublishKeys) -> None:
        """Keep checked keys of a publisher if they are newer than what is kept, and it matters here who he is."""
        known = self.get(seen.namespace)
        if known is not None and known.version >= seen.version:
            return
        with self._database.read() as connection:
            (matters,) = connection.execute(f"SELECT {_MATTERS}", (seen.namespace,)).fetchone()
        if not matters:
            return
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO publisher_keys (namespace, version, keys) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET version = excluded.version, keys = excluded.keys"
                " WHERE excluded.version > version",
                (seen.namespace, seen.version, b"".join(seen.keys)),
            )
            (count,) = connection.execute("SELECT count(*) FROM publisher_keys").fetchone()
            if count > self._max:
                # Receipts anybody can make: those who are let in go last. Of the others by chance, so that nobody can
                # choose whose go.
                connection.execute(
                    "DELETE FROM publisher_keys WHERE namespace IN (SELECT namespace FROM publisher_keys AS p"
                    " WHERE namespace != ?1"
                    " ORDER BY EXISTS (SELECT 1 FROM grants WHERE grantee = p.namespace), random() LIMIT ?2)",
                    (seen.namespace, max(count - self._max, min(FORGOTTEN_AT_ONCE, self._max // 2))),
                )
